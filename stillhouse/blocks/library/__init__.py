"""Replacements for blocks, a file for each kind."""
