"""Predictions of tasks on grids and on new rows, and pictures of their uncertainty."""
