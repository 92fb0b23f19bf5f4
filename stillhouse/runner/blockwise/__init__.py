"""From a trained teacher to a blockwise student: replacements trained, scored, chosen, put together, calibrated."""
