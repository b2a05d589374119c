"""Posterior predictive distributions: likelihood families, mixtures, quantiles, calibration."""
