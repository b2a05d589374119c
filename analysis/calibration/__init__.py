"""Calibration of posteriors and of predictions on rows with known targets."""
