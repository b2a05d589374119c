"""Likelihood families by distribution, and mixtures of what posterior draws predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import GammaPoisson, OrderedLogistic
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal, Poisson

from pyro_vmtl.predictive.categorical import CategoricalFamily
from pyro_vmtl.predictive.family import Family
from pyro_vmtl.predictive.mixtures import MixtureOfFamilies
from pyro_vmtl.predictive.normal import NormalFamily
from pyro_vmtl.predictive.ordinal import OrdinalCategorical
from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson
from pyro_vmtl.predictive.poisson import PoissonFamily

__all__ = [
    "check_mixable",
    "concat_draws",
    "family_named",
    "family_of",
    "predictive_mixture",
    "register_family",
]

_FAMILIES: dict[type[Distribution], Family] = {
    Categorical: CategoricalFamily(),
    OrderedLogistic: CategoricalFamily(OrdinalCategorical),
    OrdinalCategorical: CategoricalFamily(OrdinalCategorical),
    Normal: NormalFamily(),
    Poisson: PoissonFamily(),
    GammaPoisson: PoissonFamily(GammaPoisson),
    OverdispersedPoisson: PoissonFamily(OverdispersedPoisson),
}


def register_family(family: Family) -> None:
    """Make a family known, for likelihoods of its distribution.

    Parameters
    ----------
    family
        Replaces an earlier one for the same distribution.

    See Also
    --------
    Family : What can be overridden.

    Examples
    --------
    >>> from torch.distributions import Laplace
    >>> register_family(Family(Laplace, ["loc", "scale"]))
    """
    _FAMILIES[family.distribution] = family


def family_of(likelihood: Distribution, name: str = "The likelihood") -> Family:
    """Return the family of a likelihood.

    Distributions that are not registered get a :class:`Family` with its defaults.

    Parameters
    ----------
    likelihood
        A univariate distribution of torch or Pyro.
    name
        How the error calls it.

    Raises
    ------
    ValueError
        If it is multivariate, or its parameters cannot be told.

    Examples
    --------
    >>> from torch.distributions import StudentT
    >>> family_of(StudentT(4.0)).parameters
    ('df', 'loc', 'scale')
    """
    for kind in type(likelihood).__mro__:
        if kind in _FAMILIES:
            return _FAMILIES[kind]
    parameters = [name for name in likelihood.arg_constraints if hasattr(likelihood, name)]
    # torch and Pyro make the one of the other when they are asked for, and take only one
    for one, other in (("logits", "probs"), ("gate_logits", "gate")):
        if one in parameters:
            parameters = [name for name in parameters if name != other]
    if likelihood.event_shape or not parameters:
        raise ValueError(
            f"{name} is {type(likelihood).__name__}, expected a univariate distribution such as "
            "Categorical, Normal or Poisson."
        )
    return Family(type(likelihood), parameters)


def family_named(name: str) -> Family:
    """Return the family that is registered for a distribution, by the name of its class."""
    for distribution, family in _FAMILIES.items():
        if distribution.__name__ == name:
            return family
    known = ", ".join(distribution.__name__ for distribution in _FAMILIES)
    raise ValueError(
        f"likelihood is {name!r}, expected one of {known}. Register others by `register_family`."
    )


def concat_draws(parts: Sequence[Distribution], dim: int = 0) -> Distribution:
    """Concatenate distributions of one family, draws along ``dim=0``, rows along ``dim=1``."""
    return family_of(parts[0]).map(lambda values: torch.cat(values, dim=dim), *parts)


def predictive_mixture(
    parts: Sequence[Distribution], weights: Tensor | None = None
) -> Distribution:
    """Mix the predictions of posterior draws, of one or more fits.

    Parameters
    ----------
    parts
        For each fit the likelihood under each draw, batch (S, T, N).
    weights
        (T, number of parts), rows on the simplex; even by default.

    Returns
    -------
    Distribution
        Batch (T, N). For classes it has ``probs``; for real targets, counts and ordered classes
        ``mean``, ``variance``, ``log_prob`` and ``cdf``. The last is exact where the likelihood has
        a distribution function, such as the normal and the Poisson distribution; else it is by
        4,000 draws, to 0.01.

    Raises
    ------
    ValueError
        If a likelihood is multivariate, or the parts have nothing in common: classes and numbers,
        or counts and real targets.

    See Also
    --------
    quantiles : Quantiles of the result.

    Examples
    --------
    >>> draws = Normal(torch.zeros(100, 2, 3), torch.ones(100, 2, 3))
    >>> predictive_mixture([draws]).mean.shape
    torch.Size([2, 3])
    """
    families = [family_of(part) for part in parts]
    kinds = {f.distribution if type(f) is Family else type(f) for f in families}
    if weights is None:
        weights = torch.full((parts[0].batch_shape[1], len(parts)), 1 / len(parts))
    if len(kinds) == 1:
        return families[0].mixture(parts, weights)
    check_mixable(parts)
    alone = torch.ones_like(weights[:, :1])
    each = [family.mixture([part], alone) for family, part in zip(families, parts, strict=True)]
    return MixtureOfFamilies(each, weights)


def check_mixable(parts: Sequence[Any]) -> None:
    """Check that likelihoods are all of classes, all of counts or all of real targets.

    Raises
    ------
    ValueError
        If their densities cannot be compared.
    """
    kinds = {
        "classes" if isinstance(part, Categorical) else bool(part.support.is_discrete)
        for part in parts
    }
    if len(kinds) > 1:
        named = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise ValueError(
            f"The likelihoods are {named}, expected all of classes, all of counts, or all of real "
            "targets: the densities of others cannot be compared, nor mixed."
        )
