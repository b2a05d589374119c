"""Posterior predictive quantities: the likelihood averaged over draws from the posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.handlers.isolation import check_no_bare_parameters, evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.predictive.families import concat_draws, family_of

__all__ = [
    "likelihood_draws",
    "log_predictive_density",
    "predict_moments",
    "predict_proba",
    "predictive_cdf",
]

MOST_NUMBERS = 20_000_000
"""Numbers in a batch of draws: a few hundred MB."""


def predict_proba(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 400,
    seed: int = 0,
) -> Tensor:
    """Compute class probabilities, averaged over the posterior.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted.
    *args
        Arguments of both, such as ``data.new_rows(X, tasks)``.
    site
        The categorical site to predict.
    num_samples
        S, draws from the posterior. The Monte Carlo error of a probability is at most
        ``0.5 / sqrt(S)``.
    seed
        Seed of the draws.

    Returns
    -------
    Tensor
        (T, N, C), rows on the simplex. ``data.unpad`` puts them into the order of the user's rows.

    Raises
    ------
    ValueError
        If the site is not categorical.

    See Also
    --------
    predict_moments : Mean and standard deviation of real targets and counts.
    likelihood_draws : The likelihood under each draw, without averaging.
    """
    total: Tensor | float = 0.0
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        likelihood = node["fn"]
        if not isinstance(likelihood, Categorical):
            raise ValueError(
                f"Site {site!r} is {type(likelihood).__name__}, expected Categorical. "
                "For real targets use `predict_moments`."
            )
        total = total + likelihood.probs.sum(0) / num_samples
    assert isinstance(total, Tensor)
    return total


def predict_moments(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 400,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of new targets, noise included.

    Parameters
    ----------
    model, guide, site, num_samples, seed
        As for :func:`predict_proba`, with a site that has a mean and a variance.
    *args
        Arguments of both.

    Returns
    -------
    tuple of Tensor
        Mean and standard deviation, each (T, N), in the unit of the targets. By the law of total
        variance the square of the latter is the mean of the variances and the variance of the
        means.
    """
    shift: Tensor | None = None
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        if isinstance(node["fn"], Categorical):
            raise ValueError(
                f"Site {site!r} is categorical and has no mean. For classes use `predict_proba`."
            )
        mean, variance = node["fn"].mean, node["fn"].variance
        # Moments about a value near the mean: about 0 they would cancel for large targets.
        shift = mean.mean(0) if shift is None else shift
        first = first + (mean - shift).sum(0) / num_samples
        second = second + ((mean - shift) ** 2 + variance).sum(0) / num_samples
    assert isinstance(shift, Tensor) and isinstance(second, Tensor)
    return shift + first, (second - first**2).sqrt()


def log_predictive_density(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 400,
    seed: int = 0,
) -> Tensor:
    """Compute the log of the posterior mean likelihood, for rows whose targets are known.

    Parameters
    ----------
    model, guide, site, num_samples, seed
        As for :func:`predict_proba`, with any observed site.
    *args
        Arguments of both, targets included.

    Returns
    -------
    Tensor
        (T, N), in nats; 0 for masked rows.

    Raises
    ------
    ValueError
        If the site is not observed.
    """
    density: Tensor | None = None
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        _check_observed(node, site)
        log_prob = _masked(node, node["fn"].log_prob(node["value"]))
        log_sum = torch.logsumexp(log_prob, dim=0) - math.log(num_samples)
        density = log_sum if density is None else torch.logaddexp(density, log_sum)
    assert density is not None
    return density


def predictive_cdf(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 400,
    seed: int = 0,
) -> Tensor:
    """Compute the probability that a new target is below the known one, noise included.

    For calibrated predictions it is uniform from 0 to 1 (probability integral transform [1]_):
    the known target is inside the central interval of 90 % if it is from 0.05 to 0.95.

    Parameters
    ----------
    model, guide, site, num_samples, seed
        As for :func:`predict_proba`, with an observed site whose distribution has a ``cdf``.
    *args
        Arguments of both, targets included.

    Returns
    -------
    Tensor
        (T, N), from 0 to 1; 0 for masked rows.

    Raises
    ------
    ValueError
        If the site is not observed, or has no cumulative distribution function.

    References
    ----------
    .. [1] Dawid, A. P. (1984). Present Position and Potential Developments: Some Personal Views:
       Statistical Theory: The Prequential Approach. JRSS A 147(2).
    """
    total: Tensor | float = 0.0
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        _check_observed(node, site)
        try:
            below = node["fn"].cdf(node["value"])
        except NotImplementedError as error:
            raise ValueError(
                f"Site {site!r} is {type(node['fn']).__name__}, which has no cumulative "
                "distribution function. Use it for real targets."
            ) from error
        total = total + _masked(node, below).sum(0) / num_samples
    assert isinstance(total, Tensor)
    return total


def likelihood_draws(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 200,
    seed: int = 0,
) -> Distribution:
    """Return the likelihood of a target under each of many draws from the posterior.

    Parameters
    ----------
    model, guide, site, num_samples, seed
        As for :func:`predict_proba`, with a categorical, normal or Poisson site.
    *args
        Arguments of both.

    Returns
    -------
    Distribution
        Of the same kind, batch (S, T, N).

    Raises
    ------
    ValueError
        If the site is of another kind.
    """
    parts: list[Any] = []
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        family_of(node["fn"], f"Site {site!r}")
        parts.append(node["fn"])
    return concat_draws(parts)


def _check_observed(node: Any, site: str) -> None:
    if not node["is_observed"]:
        raise ValueError(
            f"Site {site!r} is not observed, expected rows that have targets. Pass them."
        )


def _masked(node: Any, values: Tensor) -> Tensor:
    """Replace the values of masked elements of a site by 0."""
    if node["mask"] is None:
        return values
    return values.where(torch.as_tensor(node["mask"], device=values.device), 0.0)


@torch.no_grad()
def _likelihoods(
    model: Program, guide: Program, args: tuple[Any, ...], site: str, num_samples: int, seed: int
) -> Iterator[Any]:
    """Yield a site of the model under batches of draws, whose dimension is the first."""
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
    with validation(False), evaluating(model, guide):
        with isolated(seed):
            nodes = sample_sites(trace_guide_and_model(model, guide, *args).model)
            check_no_bare_parameters(model, guide)
        if site not in nodes:
            raise ValueError(f"The model has no site {site!r}, found {sorted(nodes)}.")
        frames = [frame for node in nodes.values() for frame in node["cond_indep_stack"]]
        dim = min((frame.dim for frame in frames if frame.vectorized), default=0) - 1
        numbers = sum(
            value.numel()
            for node in nodes.values()
            for value in (node["value"], *vars(node["fn"]).values())
            if isinstance(value, Tensor)
        )
        batch = max(1, MOST_NUMBERS // numbers)
        # Seeded again, as targets were drawn above: draws do not depend on the number of rows.
        with isolated(seed):
            for start in range(0, num_samples, batch):
                with pyro.plate("draws", min(batch, num_samples - start), dim=dim):
                    nodes = sample_sites(trace_guide_and_model(model, guide, *args).model)
                yield nodes[site]
