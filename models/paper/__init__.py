"""The models of Shen et al. (NeurIPS 2021) on latent representations."""
