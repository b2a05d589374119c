r"""The hierarchical model of the classical case, sampled by NumPyro's no-U-turn sampler.

Coefficients of task t are :math:`w_t = m + \tau \odot z_t` with :math:`z_t \sim N(0, I)`,
:math:`m_d \sim N(0, 2.5^2)` and :math:`\tau_d` half-normal, a scale for each coefficient, the
intercept's included. What the linear predictor :math:`\eta = w_t^\top x` is differs:

- Real targets, standardized, have mean :math:`\eta` and a noise whose logarithm varies by task,
  :math:`N(\mu, s^2)` with :math:`\mu \sim N(-1, 1)` and :math:`s` half-normal of scale 0.5.
- C classes have log odds :math:`\eta` to the first class, with C - 1 coefficient vectors.
- Counts are negative binomial with rate :math:`\bar y e^\eta` and shape :math:`1 / r^2`, r
  half-normal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from benchmarks.needed import needed

__all__ = ["nuts_classes", "nuts_counts", "nuts_regression"]

NUM_CHAINS, NUM_WARMUP, NUM_DRAWS = 2, 300, 300

MAX_LOG_RATE = 15.0
"""Bound of log rates over the mean, against overflow in early steps."""

logger = logging.getLogger(__name__)


def nuts_regression(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict real targets by a linear model.

    Two chains of 300 draws, after 300 to adapt, are sampled. The largest split R-hat of m, tau and
    what all tasks share of the likelihood is logged, as a warning from 1.05 on.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, targets and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation, noise included, each (rows,).

    Raises
    ------
    ImportError
        If NumPyro is not installed.
    """
    numpyro, dist = _numpyro()
    center, unit = y_train.mean(), y_train.std() or 1.0

    def likelihood(eta: Any, task: np.ndarray, num_tasks: int) -> Any:
        level = numpyro.sample("noise level", dist.Normal(-1, 1))
        spread = numpyro.sample("noise spread", dist.HalfNormal(0.5))
        own = numpyro.sample("own noise", dist.Normal(0, 1).expand([num_tasks]))
        return dist.Normal(
            eta[:, 0], numpyro.deterministic("std", _exp(level + spread * own))[task]
        )

    y = (y_train - center) / unit
    eta, draws, task = _predictors(y, likelihood, X_train, tasks_train, X_test, tasks_test)
    var = eta[..., 0].var(axis=0) + (draws["std"] ** 2).mean(axis=0)[task]
    return center + unit * eta[..., 0].mean(axis=0), unit * np.sqrt(var)


def nuts_classes(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
) -> np.ndarray:
    """Predict class probabilities (rows, C).

    Parameters and errors are those of :func:`nuts_regression`, and ``classes``, the labels in the
    order of the columns.
    """
    _, dist = _numpyro()
    jnp = needed("jax.numpy")
    number = {label: i for i, label in enumerate(classes)}
    y = np.array([number[label] for label in y_train])

    def likelihood(eta: Any, task: np.ndarray, num_tasks: int) -> Any:
        return dist.Categorical(logits=jnp.pad(eta, ((0, 0), (1, 0))))

    rows = X_train, tasks_train, X_test, tasks_test
    eta, _, _ = _predictors(y, likelihood, *rows, num_outputs=len(classes) - 1)
    return softmax(np.pad(eta, ((0, 0), (0, 0), (1, 0))), axis=2).mean(axis=0)


def nuts_counts(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts.

    Parameters and errors are those of :func:`nuts_regression`.

    Returns
    -------
    tuple of ndarray
        Rates and dispersions, each (600, rows), of equally likely negative binomial distributions.
    """
    numpyro, dist = _numpyro()
    usual = y_train.mean() or 1.0

    def likelihood(eta: Any, task: np.ndarray, num_tasks: int) -> Any:
        root = numpyro.sample("root of dispersion", dist.HalfNormal(1.0))
        rate = usual * _exp(eta[:, 0].clip(-MAX_LOG_RATE, MAX_LOG_RATE))
        return dist.NegativeBinomial2(rate, 1 / (root**2 + 1e-6))

    eta, draws, _ = _predictors(y_train, likelihood, X_train, tasks_train, X_test, tasks_test)
    rate = usual * np.exp(eta[..., 0].clip(-MAX_LOG_RATE, MAX_LOG_RATE))
    return rate, 1 + rate * draws["root of dispersion"][:, None] ** 2


def _predictors(
    y: np.ndarray,
    likelihood: Callable[[Any, np.ndarray, int], Any],
    X_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    num_outputs: int = 1,
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Sample the posterior.

    Returns linear predictors of test rows (S, rows, outputs), all draws by name, and the tasks of
    test rows as numbers. Tasks without training rows are sampled from the prior given m and tau.
    """
    numpyro, dist = _numpyro()
    jax = needed("jax")
    number = {task: i for i, task in enumerate(dict.fromkeys([*tasks_train, *tasks_test]))}
    train, test = (
        np.array([number[task] for task in tasks], int) for tasks in (tasks_train, tasks_test)
    )
    X, X_new = (np.column_stack([np.ones(len(rows)), rows]) for rows in (X_train, X_test))
    shape = [X.shape[1], num_outputs]

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 2.5).expand(shape))
        scale = numpyro.sample("scale", dist.HalfNormal(1).expand(shape))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([len(number), *shape]))
        w = numpyro.deterministic("w", mean + scale * z)
        eta = (X[..., None] * w[train]).sum(axis=1)
        numpyro.sample("y", likelihood(eta, train, len(number)), obs=y)

    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model),
        num_warmup=NUM_WARMUP,
        num_samples=NUM_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(0))
    by_chain = {name: np.asarray(v, float) for name, v in mcmc.get_samples(True).items()}
    of_tasks = ("z", "w", "own noise", "std")
    r_hat = max(
        np.max(numpyro.diagnostics.split_gelman_rubin(values))
        for name, values in by_chain.items()
        if name not in of_tasks
    )
    logger.log(logging.WARNING if r_hat > 1.05 else logging.INFO, "largest R-hat %.3f", r_hat)
    draws = {name: v.reshape(-1, *v.shape[2:]) for name, v in by_chain.items()}
    eta = np.stack([np.einsum("nf,nfk->nk", X_new, w[test]) for w in draws["w"]])
    return eta, draws, test


def _numpyro() -> tuple[Any, Any]:
    """Import NumPyro and its distributions, with one thread, as fits run in parallel."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    return needed("numpyro"), needed("numpyro.distributions")


def _exp(values: Any) -> Any:
    return needed("jax.numpy").exp(values)
