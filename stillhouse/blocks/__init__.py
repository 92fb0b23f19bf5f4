"""Parallel blockwise distillation: a network cut into blocks, replacements for each, and the best mix of them."""
