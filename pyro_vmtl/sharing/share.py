"""Sharing: an effect handler that turns a Pyro model and guide into VMTL.

Model and guide do not refer to other tasks. :func:`share` runs them under two handlers. That of the
guide records the posterior of every shared site and draws the source weights. That of the model
replaces the site's plain prior by a pool of the recorded posteriors and that prior. An ELBO replays
the model on a trace of the guide, so that the posteriors are those of the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.handlers.renamed_plate import RenamedPlate
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
    pool: Callable[..., Pool] = LogarithmicPool,
    base: bool = True,
    transfer: Transfer | None = "source",
    min_base_weight: float | Literal["tasks"] | None = None,
    weights: WeightsPosterior | None = None,
    weights_prior: bool = True,
    detach_sources: bool = False,
    start: WeightsStart = "alone",
    temperature: float | Schedule = Exponential(1.0, 0.5, steps=500),
    prior_temperature: float | None = None,
    plate: str = TASK_PLATE,
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    """Let the tasks of a model borrow from one another.

    At each shared site the prior of a task becomes a pool of the other tasks' current posteriors
    and of its plain prior, the base. A guide can pass other sources for each cell of a site, as
    :class:`~pyro_vmtl.guides.EncodedNormal` does for representations: ``infer={"sources": ...}``,
    a function that returns :class:`~pyro_vmtl.CellSources`. The source weights are a latent site
    named ``{site}_sources``, sampled on a log scale.

    Without ``base``, ``transfer`` and ``weights_prior``, with ``min_base_weight=0.0``, the
    :class:`~pyro_vmtl.LinearPool`, ``detach_sources``, ``"concrete"`` weights and an ``"even"``
    start this is the prior of Shen et al. [1]_.

    Parameters
    ----------
    model, guide
        Pyro programs in which each shared site is inside ``pyro.plate("task", T, dim=...)``, the
        outermost plate there, and is normal in both: ``Normal(...).to_event(...)``, in the guide
        also ``MultivariateNormal``, of whose marginals the pool is made. Bijections of a normal,
        such as ``LogNormal``, are pooled as that normal. Of Pyro's autoguides
        ``AutoNormal``, ``AutoDiagonalNormal``, ``AutoMultivariateNormal`` and
        ``AutoLowRankMultivariateNormal`` are guides like others. The last three draw all sites at
        once: the KL of a site is estimated from draws, its entropy is that of the whole vector.
    sites
        Names of the sites to share.
    pool
        :class:`~pyro_vmtl.LogarithmicPool`, :class:`~pyro_vmtl.ExpectedLogarithmicPool` (better
        with one transfer scale per ``"dimension"``), :class:`~pyro_vmtl.LinearPool` or
        :class:`~pyro_vmtl.GaussianSumPool`; or a :class:`~pyro_vmtl.Pool` of your own, whose other
        arguments ``functools.partial`` sets.
    base
        Whether the plain prior is one of the components, so that a task can stand alone.
    transfer
        Widen the sources by a learned transfer scale, one per ``"source"`` or one per
        ``"dimension"`` of the site; None for no widening.
    min_base_weight
        Least weight of the base, from 0 to 1; None for 1 / n, where n is the effective number of
        tasks that a task borrows from, itself included. With the default, n equal tasks pay for one
        prior together, and n unrelated tasks for n priors. ``"tasks"`` is 1 / T, which is less and
        suits small KL weights.
    weights
        Posterior of the source weights: ``"categorical"``, the probabilities that a task has each
        source as its only one, without draws (for the logarithmic pools, whose log density is
        linear in them, and there the default); ``"concrete"``, a ``RelaxedOneHotCategorical`` (the
        Gumbel-softmax [2]_) of learned logits, whose KL grows with every source that is left out,
        so that groups of tasks are found without ``weights_prior`` only (the default of other
        pools); ``"softmax"``, the point mass at the softmax; ``"even"``, equal weights.
    weights_prior
        Whether the KL of the source weights from equal weights is part of the ELBO. Point masses
        have none.
    detach_sources
        Whether to detach the sources from the gradient, as if they were data. The steps then no
        longer minimize one loss: with ``transfer`` the scales grow without bound.
    start
        How :func:`~pyro_vmtl.fit` starts the source weights. ``"alone"``: in the first steps tasks
        have the base as their only source; then most weight goes to the nearest posteriors.
        ``"nearest"``: so from the first step, for guides that start at estimates of each task.
        ``"even"``: from equal weights, groups of tasks are rarely found.
    temperature
        Temperature of ``"concrete"`` source weights, or a schedule of the step.
    prior_temperature
        Temperature of their prior; None for that of the posterior. Prior draws are the nearer to
        equal weights the higher it is, so that a task leans less on a single source. Maddison et
        al. [2]_ also set it apart; a small KL weight asks for a high one.
    plate
        Name of the plate over tasks in model and guide. Traces have it as ``"task"``.

    Returns
    -------
    tuple
        The sharing model and guide. Their parameters are made when the guide first runs, as with
        Pyro's autoguides.

    Raises
    ------
    ValueError
        If a setting is none of those above, or, when it runs, a site missing or not normal.

    See Also
    --------
    relatedness : Draw the source weights.
    pyro_vmtl.temper : Scale the KL of latent sites.

    References
    ----------
    .. [1] Shen, J., Zhen, X., Worring, M. and Shao, L. (2021). Variational Multi-Task Learning with
       Gumbel-Softmax Priors. NeurIPS, arXiv 2111.05323.
    .. [2] Maddison, C. J., Mnih, A. and Teh, Y. W. (2017). The Concrete Distribution: A Continuous
       Relaxation of Discrete Random Variables. ICLR, arXiv 1611.00712.

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
    kind = pool.func if isinstance(pool, partial) else pool
    linear = isinstance(kind, type) and getattr(kind, "linear_in_weights", False)
    if weights is None:
        weights = "categorical" if linear else "concrete"
    for name, value, choices in (
        ("transfer", transfer, (*get_args(Transfer), None)),
        ("weights", weights, get_args(WeightsPosterior)),
        ("start", start, get_args(WeightsStart)),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, expected one of {list(choices)}.")
    is_number = isinstance(min_base_weight, int | float) and 0 <= min_base_weight <= 1
    if min_base_weight not in (None, "tasks") and not is_number:
        raise ValueError(
            f"min_base_weight is {min_base_weight!r}, expected from 0 to 1, 'tasks', or None."
        )
    if not (isinstance(kind, type) and issubclass(kind, Pool)):
        raise TypeError(f"pool is {pool!r}, expected a class such as LogarithmicPool.")
    if weights == "categorical" and not linear:
        raise ValueError(
            f"weights is 'categorical' with {kind.__name__}, expected a pool whose log density is "
            "linear in the weights: otherwise the ELBO is no bound. Use weights='concrete'."
        )
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    if not sites:
        raise ValueError("sites is empty, expected the names of the sites to share.")
    sharing = Sharing(
        sites,
        pool=pool,
        transfer=transfer,
        weights_prior=weights_prior and weights in ("concrete", "categorical"),
        detach_sources=detach_sources,
        new_sources=partial(
            Sources,
            base=base,
            min_base_weight=min_base_weight,
            temperature=as_schedule(temperature),
            prior_temperature=prior_temperature,
            weights=weights,
            start=start,
        ),
    )
    if plate != TASK_PLATE:
        renamed = partial(RenamedPlate, plate, TASK_PLATE)
        model, guide = (ProgramWithHandler(each, renamed, nn.Module()) for each in (model, guide))
    return ProgramWithHandler(model, PoolPriors, sharing), ProgramWithHandler(
        guide, RecordPosteriors, sharing
    )


def relatedness(
    program: Program, site: str = "w", *, num_samples: int = 1000, seed: int = 0
) -> Tensor:
    """Draw from the posterior of the pool weights: how much each task borrows from each source.

    Parameters
    ----------
    program
        A sharing model or guide, or a module that contains one.
    site
        Name of a shared site.
    num_samples
        S, the number of draws.
    seed
        Seed of the draws.

    Returns
    -------
    Tensor
        (S, T, T + 1), rows on the simplex; the last column is the base, and the diagonal is 0. With
        ``weights="categorical"`` all draws are the same: the probabilities.
    """
    modules = program.modules() if isinstance(program, nn.Module) else ()
    sharings = [module for module in modules if isinstance(module, Sharing)]
    shared = {name: sources for sharing in sharings for name, sources in sharing.items()}
    if site not in shared:
        raise KeyError(
            f"No shared site {site!r}, found {sorted(shared)}. Pass what `share` returned, after "
            "the guide has run once."
        )
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
    with isolated(seed):
        return shared[site].draw(num_samples)
