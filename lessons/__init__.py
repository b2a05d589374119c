"""Lessons in Bayesian multi-task learning, one script in cells each; ``python -m lessons``."""
