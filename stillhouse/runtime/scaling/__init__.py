"""How many workers there should be, of which kind, and when students help themselves: pure."""
