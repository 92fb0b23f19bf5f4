"""How a teacher answers."""
