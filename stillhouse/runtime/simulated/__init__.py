"""Workers that exist only in numbers, on a virtual clock."""
