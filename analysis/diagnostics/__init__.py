"""Diagnostics of a fit: convergence, importance sampling, references, simulations."""
