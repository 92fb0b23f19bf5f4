"""A run whose student is made of its teacher's blocks: what the page and the result say of it."""
