"""Families of networks: random graphs, drawn, made modules, and as wide as a budget allows."""
