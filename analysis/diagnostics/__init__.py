"""Diagnostics of the posterior approximation."""
