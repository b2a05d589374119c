"""Stochastic variational inference: the loop, its steps, the ELBO, the history."""
