"""Who borrows from whom."""
