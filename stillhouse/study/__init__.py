"""A search over families of students: what may vary, what is tried next, who goes on, what was found. No torch."""
