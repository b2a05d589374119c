"""Rows of many tasks: containers, padding, batches, folds."""
