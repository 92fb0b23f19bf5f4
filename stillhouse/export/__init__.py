"""The student, ready to use: weights with the JSON that rebuilds them, ONNX, and the check that it is the same."""
