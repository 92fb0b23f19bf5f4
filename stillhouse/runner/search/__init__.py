"""The student is searched for: trials of families, the best of them trained to the end."""
