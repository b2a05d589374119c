r"""The target of a fit: the posterior that its ELBO approximates.

With the same KL weight :math:`b` at all latent sites, the ELBO is :math:`b` times

.. math:: \mathbb{E}_q\Big[\log p(\theta) + \tfrac1b \sum_n \log p(y_n \mid \theta) - \log
    q(\theta)\Big],

largest where :math:`q` is nearest to the generalised posterior :math:`p(\theta) \prod_n p(y_n \mid
\theta)^{1/b}` [1]_, whose likelihood has the learning rate :math:`1/b`. With different weights
there is no density that takes its place.

References
----------
.. [1] Bissiri, P. G., Holmes, C. C. and Walker, S. G. (2016). A General Framework for Updating
   Belief Distributions. JRSS B 78(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pyro_vmtl.handlers.isolation import evaluating, isolated
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.temper import KL_WEIGHT
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model

__all__ = ["learning_rate_of", "target_learning_rate"]


def target_learning_rate(model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
    """Return the learning rate of the likelihood in the posterior that a fit approximates.

    Parameters
    ----------
    model, guide
        Pyro programs, as ``share`` and ``temper`` return them.
    *args, **kwargs
        Arguments of both.

    Returns
    -------
    float
        One over the KL weight of all latent sites, 1 for Bayesian inference.

    Raises
    ------
    ValueError
        If latent sites have different KL weights, or a weight of 0: the ELBO then approximates no
        posterior.

    See Also
    --------
    temper : Set the KL weight of all latent sites.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_vmtl import temper
    >>> def program():
    ...     pyro.sample("w", dist.Normal(0.0, 1.0))
    >>> target_learning_rate(*temper(program, program, kl_weights=0.5))
    2.0
    """
    with isolated(0), evaluating(model, guide), torch.no_grad():
        trace = trace_guide_and_model(model, guide, *args, **kwargs).model
    return learning_rate_of(sample_sites(trace))


def learning_rate_of(sites: Mapping[str, Any]) -> float:
    """Return the learning rate, from the sample sites of a trace of the model.

    Sites without a density, such as source weights without a prior, do not count.
    """
    weights = {
        name: node["infer"].get(KL_WEIGHT, 1.0)
        for name, node in sites.items()
        if not node["is_observed"]
        and (node["mask"] is not False or node["infer"].get(KL_WEIGHT) == 0)
    }
    values = set(weights.values())
    if len(values) > 1 or 0 in values:
        raise ValueError(
            f"The KL weights of the latent sites are {weights}, expected one number above 0: with "
            "others the ELBO approximates no posterior. Use the same for all: "
            "temper(model, guide, kl_weights=0.5)."
        )
    return 1 / values.pop() if values else 1.0
