"""Data: rows of many tasks in padded tensors, mini-batches of rows and tasks, and folds.

This room imports nothing else of the library.
"""
