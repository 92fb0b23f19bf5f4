"""Work that is leased to workers which may vanish: pure decisions, and backends that carry them out. Knows no torch."""
