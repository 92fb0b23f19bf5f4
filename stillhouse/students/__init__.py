"""Losses, the objective, and the one training loop. Knows knowledge sources, never teachers."""
