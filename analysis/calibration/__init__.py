"""Calibration of predictions on rows with known targets."""
