"""How good predictions are, beside others."""
