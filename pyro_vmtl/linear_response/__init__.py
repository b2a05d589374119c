"""Linear response: covariances that a mean-field posterior lacks, from the Hessian of its ELBO."""
