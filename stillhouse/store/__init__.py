"""The label store: rows of teachers' answers on disk, by view and sample; crash-safe, shared, and without torch."""
