"""Posterior predictive quantities: the likelihood averaged over draws from the posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    "plate_of_draws",
    "predict_moments",
    "predict_proba",
]

MOST_NUMBERS = 20_000_000
"""Numbers in a batch of draws: a few hundred MB."""


@torch.no_grad()
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

    Examples
    --------
    >>> from pyro_vmtl import Preset, TaskData
    >>> classes = TaskData.classification([[0.0], [1.0]] * 4, ["no", "yes"] * 4, [*"aabb"] * 2)
    >>> member = Preset(fitting={"num_steps": 20}).fit(classes)
    >>> predict_proba(member.model, member.guide, classes).shape
    torch.Size([2, 4, 2])
    """
    parts = []
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        if not isinstance(node["fn"], Categorical):
            raise ValueError(
                f"Site {site!r} is {type(node['fn']).__name__}, expected Categorical. "
                "For real targets use `predict_moments`."
            )
        parts.append(node["fn"].probs.sum(0) / num_samples)
    return torch.stack(parts).sum(0)


@torch.no_grad()
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

    Examples
    --------
    >>> mean, std = predict_moments(model, guide, data)
    >>> mean.shape, bool((std > 0).all())
    (torch.Size([3, 12]), True)
    """
    parts = []
    shift = None
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        if isinstance(node["fn"], Categorical):
            raise ValueError(
                f"Site {site!r} is categorical and has no mean. For classes use `predict_proba`."
            )
        mean, variance = node["fn"].mean, node["fn"].variance
        # Moments about a value near the mean: about 0 they would cancel for large targets.
        shift = mean.mean(0) if shift is None else shift
        moments = mean - shift, (mean - shift) ** 2 + variance
        parts.append(torch.stack([moment.sum(0) / num_samples for moment in moments]))
    first, second = torch.stack(parts).sum(0)
    return shift + first, (second - first**2).sqrt()


@torch.no_grad()
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

    Examples
    --------
    >>> log_predictive_density(model, guide, data).shape
    torch.Size([3, 12])
    """
    parts = []
    for node in _likelihoods(model, guide, args, site, num_samples, seed):
        if not node["is_observed"]:
            raise ValueError(
                f"Site {site!r} is not observed, expected rows that have targets. Pass them."
            )
        log_prob = node["fn"].log_prob(node["value"])
        if node["mask"] is not None:
            log_prob = log_prob.where(torch.as_tensor(node["mask"], device=log_prob.device), 0.0)
        parts.append(log_prob.logsumexp(0) - math.log(num_samples))
    return torch.stack(parts).logsumexp(0)


def likelihood_draws(
    model: Program,
    guide: Program,
    *args: Any,
    site: str = "y",
    num_samples: int = 200,
    seed: int = 0,
    differentiable: bool = False,
) -> Distribution:
    """Return the likelihood of a target under each of many draws from the posterior.

    Parameters
    ----------
    model, guide, site, num_samples, seed
        As for :func:`predict_proba`, with a categorical, normal or Poisson site.
    *args
        Arguments of both.
    differentiable
        Whether its parameters have gradients in those of the programs.

    Returns
    -------
    Distribution
        Of the same kind, batch (S, T, N).

    Raises
    ------
    ValueError
        If the site is of another kind.

    See Also
    --------
    predictive_mixture : The distribution averaged over draws, with ``cdf`` and ``log_prob``.

    Examples
    --------
    >>> likelihood_draws(model, guide, data, num_samples=50).batch_shape
    torch.Size([50, 3, 12])
    """
    with torch.set_grad_enabled(differentiable):
        parts = [node["fn"] for node in _likelihoods(model, guide, args, site, num_samples, seed)]
    family_of(parts[0], f"Site {site!r}")
    return concat_draws(parts)


def plate_of_draws(nodes: Mapping[str, Any]) -> int:
    """Return a dimension for a plate of draws: the one before those of a program's plates."""
    frames = [frame for node in nodes.values() for frame in node["cond_indep_stack"]]
    return min((frame.dim for frame in frames if frame.vectorized), default=0) - 1


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
        dim = plate_of_draws(nodes)
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
