"""Who does which item, and what follows when workers are slow, hung, dead or late: pure."""
