"""A multi-task Gaussian process as a baseline; needs GPyTorch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

__all__ = ["MAX_ROWS", "gaussian_process"]

MAX_ROWS = 3000
"""Maximum number of training rows for an exact Gaussian process on a small machine."""

NUM_STEPS = 200


def gaussian_process(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict by a Gaussian process over features and tasks.

    The kernel is a squared exponential of the features times a covariance of the tasks, of rank 2
    plus a diagonal [1]_. Its parameters and the noise maximize the evidence, by 200 steps of
    Adam.

    Parameters and results are those of :func:`~benchmarks.baselines.ridge_per_task`.

    Raises
    ------
    ImportError
        If GPyTorch is not installed.
    ValueError
        If there are more than :data:`MAX_ROWS` training rows.

    References
    ----------
    .. [1] E. V. Bonilla, K. M. A. Chai and C. K. I. Williams, "Multi-task Gaussian process
       prediction", NIPS 2007.
    """
    import gpytorch

    if len(y_train) > MAX_ROWS:
        raise ValueError(f"{len(y_train)} training rows, expected at most {MAX_ROWS}.")
    labels = list(dict.fromkeys([*tasks_train, *tasks_test]))
    center, unit = y_train.mean(), y_train.std() or 1.0
    x, x_new = (torch.tensor(X, dtype=torch.float64) for X in (X_train, X_test))
    t, t_new = (
        torch.tensor([[labels.index(task)] for task in of_rows])
        for of_rows in (tasks_train, tasks_test)
    )
    y = torch.tensor((y_train - center) / unit, dtype=torch.float64)

    class Process(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__((x, t), y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean = gpytorch.means.ConstantMean()
            self.features = gpytorch.kernels.RBFKernel()
            self.features.lengthscale = torch.pdist(x[:500]).median()  # the usual first guess
            self.tasks = gpytorch.kernels.IndexKernel(len(labels), rank=2)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> object:
            covariance = self.features(x).mul(self.tasks(t))
            return gpytorch.distributions.MultivariateNormal(self.mean(x), covariance)

    exact = gpytorch.settings.max_cholesky_size(MAX_ROWS + 1)  # else iterative above 800 rows
    with torch.random.fork_rng(devices=[]), exact:
        torch.manual_seed(0)
        process = Process().double()
        evidence = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)
        optimiser = torch.optim.Adam(process.parameters(), lr=0.1)
        for _ in range(NUM_STEPS):
            optimiser.zero_grad()
            loss = -evidence(process(x, t), y)
            loss.backward()
            optimiser.step()
        process.eval()
        process.likelihood.eval()
        with torch.no_grad():
            predictive = process.likelihood(process(x_new, t_new))
    return (
        center + unit * predictive.mean.numpy(),
        unit * predictive.variance.sqrt().numpy(),
    )
