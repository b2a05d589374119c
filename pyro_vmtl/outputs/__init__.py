"""Outputs of the same rows that feed one another: ``feedback``, a handler over any Pyro model."""
