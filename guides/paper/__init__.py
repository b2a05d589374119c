"""The guides of Shen et al. (NeurIPS 2021): encoders and amortized coefficients."""
