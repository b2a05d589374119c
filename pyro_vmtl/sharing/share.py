"""Sharing: an effect handler that turns a Pyro model and guide into VMTL.

The model has ordinary priors and the guide an ordinary posterior; neither knows of other tasks.
:func:`share` runs them under two handlers. In the guide, the first notes the posterior of every
shared site and draws the source weights. In the model, the second replaces the site's plain prior
by a pool of the noted posteriors and that prior. An ELBO runs the guide first, so that the
posteriors are always those of the same step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import get_args

from torch import Tensor, nn

from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.handlers.schedules import Exponential, Schedule, as_schedule
from pyro_vmtl.sharing.messengers import PoolPriors, RecordPosteriors, Sharing
from pyro_vmtl.sharing.pool import Pool
from pyro_vmtl.sharing.pools import LogarithmicPool
from pyro_vmtl.sharing.sources import Sources, Transfer, WeightsPosterior, WeightsStart

__all__ = ["relatedness", "share"]


def share(
    model: Program,
    guide: Program,
    *,
    sites: Iterable[str],
    pool: type[Pool] = LogarithmicPool,
    base: bool = True,
    transfer: Transfer | None = "source",
    anchor: bool = True,
    weights: WeightsPosterior = "concrete",
    weights_prior: bool = True,
    detach_sources: bool = False,
    num_sources: int | None = None,
    start: WeightsStart = "even",
    temperature: float | Schedule = Exponential(1.0, 0.5, steps=500),
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    """Let the tasks of a model borrow from one another.

    At each shared site the prior of a task becomes a pool of the other tasks' current posteriors
    and of its plain prior, the base. A guide can give other sources for each cell of a site, as
    :class:`~pyro_vmtl.guides.EncodedNormal` does for representations: ``infer={"sources": ...}``,
    a :class:`~pyro_vmtl.CellSources`. The source weights are a latent site of their own, named
    ``{site}_sources``. The refinements ``base``, ``transfer``, ``anchor`` and ``weights_prior``
    all off, with the :class:`~pyro_vmtl.LinearPool` and ``detach_sources``, give the prior of Shen
    et al. (NeurIPS 2021, arXiv 2111.05323).

    Parameters
    ----------
    model, guide
        Pyro programs in which each shared site is inside ``pyro.plate("task", T, dim=...)``, the
        outermost plate there, and is normal in both (``Normal(...).to_event(...)``). Pyro's
        ``AutoNormal`` is a guide like others.
    sites
        Names of the sites to share.
    pool
        How posteriors are pooled: :class:`~pyro_vmtl.LogarithmicPool`,
        :class:`~pyro_vmtl.LinearPool` or :class:`~pyro_vmtl.GaussianSumPool`.
    base
        Is the plain prior one of the components, so that a task can stand alone?
    transfer
        Widen the sources by a learned transfer scale, one per ``"source"`` or one per
        ``"dimension"`` of the site; None for no widening.
    anchor
        Does the base keep at least weight 1/T? Then T equal tasks pay for one prior together, and
        T strangers for T.
    weights
        Posterior of the source weights: ``"concrete"``, the Gumbel-softmax with learned logits;
        ``"softmax"``, the point that the logits give; ``"even"``, a point that is not learned.
    weights_prior
        Does the KL of the source weights from even weights count in the ELBO? Points have none.
    detach_sources
        Hold the sources fixed while a task learns from them, as if they were data? Then a task
        does not feel what its posterior costs those who borrow from it, and the steps no longer
        go down one loss: with ``transfer`` the scales grow without end.
    num_sources
        Let each task borrow from so many others only, for thousands of tasks: those whose
        posteriors are nearest when :func:`~pyro_vmtl.fit` starts and at its steps 10, 20, 40 and so
        on. All others by default.
    start
        Where the source weights are when :func:`~pyro_vmtl.fit` starts: ``"even"``, or with most on
        the ``"nearest"`` sources, for guides whose posteriors start at estimates from the data.
        From even weights groups of tasks may never be found.
    temperature
        Temperature of the source weights, or a schedule of the step.

    Raises
    ------
    ValueError
        If ``transfer``, ``weights`` or ``start`` is none of its values, or ``num_sources`` below 1;
        when the programs run, if a site is missing, not normal, or not in the task plate.

    Returns
    -------
    tuple
        The sharing model and guide. Their parameters are made when the guide first runs, as with
        Pyro's autoguides.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     with pyro.plate("task", 3):
    ...         mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> shared_model, shared_guide = share(model, AutoNormal(model), sites=["mean"])
    >>> draw = shared_guide(torch.tensor([1.0, 1.1, -4.0]))
    >>> relatedness(shared_guide, "mean", num_samples=10).shape
    torch.Size([10, 3, 4])
    """
    if transfer not in (None, "source", "dimension"):
        raise ValueError(f"transfer is {transfer!r}, expected 'source', 'dimension' or None.")
    if weights not in get_args(WeightsPosterior):
        raise ValueError(
            f"weights is {weights!r}, expected one of {list(get_args(WeightsPosterior))}."
        )
    if start not in get_args(WeightsStart):
        raise ValueError(f"start is {start!r}, expected one of {list(get_args(WeightsStart))}.")
    if num_sources is not None and num_sources < 1:
        raise ValueError(f"num_sources is {num_sources}, expected at least 1.")
    if not (isinstance(pool, type) and issubclass(pool, Pool)):
        raise TypeError(f"pool is {pool!r}, expected a class such as LogarithmicPool.")
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    if not sites:
        raise ValueError("sites is empty, expected the names of the sites to share.")
    sharing = Sharing(
        sites,
        pool=pool,
        transfer=transfer,
        weights=weights,
        weights_prior=weights_prior,
        detach_sources=detach_sources,
        new_sources=partial(
            Sources,
            base=base,
            anchor=anchor,
            temperature=as_schedule(temperature),
            num_sources=num_sources,
            start=start,
        ),
    )
    return ProgramWithHandler(model, PoolPriors, sharing), ProgramWithHandler(
        guide, RecordPosteriors, sharing
    )


def relatedness(
    program: Program, site: str = "w", *, num_samples: int = 1000, seed: int = 0
) -> Tensor:
    """Draw how much each task borrows from each source, from the posterior of the weights.

    Parameters
    ----------
    program
        A sharing model or guide, also inside other modules.
    site
        Name of a shared site.
    num_samples
        S, the number of draws.
    seed
        Seed of the draws.

    Returns
    -------
    Tensor
        (S, T, T + 1), rows on the simplex; the last column is the base, and the diagonal is 0.

    Raises
    ------
    KeyError
        If the site is not shared, or its guide has not run yet.
    ValueError
        If there is nothing to draw.
    """
    modules = program.modules() if isinstance(program, nn.Module) else ()
    shared = {
        name: sources
        for module in modules
        if isinstance(module, Sharing)
        for name, sources in module.items()
    }
    if site not in shared:
        raise KeyError(
            f"No shared site {site!r}, found {sorted(shared)}. Pass what `share` returned, after "
            "the guide has run once."
        )
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
    with isolated(seed):
        return shared[site].draw(num_samples)
