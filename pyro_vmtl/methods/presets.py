"""The methods of the paper, and ours, as settings of the same models.

======== ======================================================= ==================================
name     tasks have in common                                    in the code
======== ======================================================= ==================================
stl      nothing; point estimates                                an encoder for each task
vstl     nothing                                                 an encoder for each task
bmtl     the encoder; point estimates                            no ``share``
vbmtl    the encoder                                             no ``share``
vmtl     the encoder, and pooled priors of ``w`` and ``z``       ``share`` both
vmtl-ac  besides, one network for all coefficients               ``amortized``
======== ======================================================= ==================================

Names and roles are those of Shen et al. (NeurIPS 2021). Their settings here are ours: one size of
representation, one way to fit and one set of KL weights for all of them, chosen on validation data
(``benchmarks/RESULTS.md``). :data:`PAPER` and :data:`OFFICIAL` are the published method itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

from pyro_vmtl.data.row_batches import BalancedRows, RandomRows
from pyro_vmtl.data.task_batches import TaskBlocks
from pyro_vmtl.handlers.schedules import Exponential, Linear, Stairs
from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.gaussian_process import GaussianProcess
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.stack import Stack
from pyro_vmtl.sharing.pools import ExpectedLogarithmicPool, GaussianSumPool, LinearPool

__all__ = [
    "ALONE",
    "BASELINES",
    "DEFAULT",
    "FEW_FEATURES",
    "GAUSSIAN_PROCESS",
    "HIERARCHICAL",
    "OFFICIAL",
    "OFFICIAL_AC",
    "PAPER",
    "POOLED",
    "SHARED",
    "presets",
]

SHARED = Preset(
    sharing={
        "start": "nearest",
        "weights": "concrete",
        "temperature": Exponential(1.0, 0.5, steps=250),
        "prior_temperature": 4.0,  # with a small KL weight they would lean on one source each
        "min_base_weight": "tasks",
    },
    kl_weights=0.2,
    fitting={"tasks": TaskBlocks(512)},  # with a thousand tasks, all at once take twice the memory
    # The noise of batches moves the means, at the usual rate by more than is unknown of them.
    fitting_large={
        "tasks": None,
        "batches": RandomRows(40_000, max_total=40_000),
        "learning_rate": 0.02,
        "num_steps": 1000,
    },
)
"""A linear model of the features with shared coefficients: each task borrows from some others."""

ALONE = replace(SHARED, shared=(), sharing={})
"""The same with nothing in common but the prior's scale."""

HIERARCHICAL = replace(ALONE, hierarchical=True)
"""Hierarchical Bayes: the tasks are exchangeable, about a mean that is learned."""

POOLED = replace(ALONE, pooled=True)
"""One linear model for all rows, as if there were no tasks."""

DEFAULT = Stack({"shared": SHARED, "alone": ALONE, "hierarchical": HIERARCHICAL, "pooled": POOLED})
"""Ours: four priors of the same linear model, weighed by what they predict of held-out rows. For
data of few features there are two others, see :data:`FEW_FEATURES`."""

_SHARED_POINTS = Preset(
    sharing={"pool": ExpectedLogarithmicPool, "start": "nearest", "transfer": "dimension"},
    num_points=4,
    fitting={"optimizer": "lbfgs", "num_steps": 300},
)
_MIXED_POINTS = replace(
    _SHARED_POINTS, shared=(), sharing={}, hierarchical=True, latent_scales=True, full_rank=True
)

FEW_FEATURES: dict[str, dict[str, Preset]] = {
    "classification": {
        "shared": replace(_SHARED_POINTS, num_points=16),
        "mixed-model": replace(_MIXED_POINTS, num_points=16),
    },
    "regression": {
        "shared": _SHARED_POINTS,
        "mixed-model": Preset(shared=(), hierarchical=True, conjugate=True),
    },
    "counts": {
        "shared": replace(_SHARED_POINTS, num_points=8, likelihood="GammaPoisson"),
        "mixed-model": replace(_MIXED_POINTS, num_points=8, likelihood="GammaPoisson"),
    },
}
"""Members of the default for each kind of targets where there are few features: tasks are like some
others, or exchangeable with a scale for each coefficient. Both are fitted without draws."""

GAUSSIAN_PROCESS = GaussianProcess()
"""Smooth functions of real targets that tasks combine. The default has it where a target is not
linear."""

_SMOOTH = {
    kind: replace(FEW_FEATURES[kind]["mixed-model"], full_rank=False, smooth="common")
    for kind in ("classification", "counts")
}
_SMOOTH_MANY = replace(SHARED, smooth="own", num_landmarks=300)
"""The same for classes and counts: of few features a mixed model and one smooth function, of many
ones functions of the tasks, of which each borrows some others."""

_UNSHARED: dict[str, dict[str, Any]] = {
    "alone": {"learned_prior": False},  # not even the scale of the prior is in common
    "pooled": {"pooled": True},
    "hierarchical": {"hierarchical": True},
}
"""What differs from the shared preset, for few features, in those that share no posteriors."""

AnyPreset: TypeAlias = Preset | GaussianProcess | ByFeatures[Preset] | ByFeatures[Stack]
"""What :func:`presets` returns."""

_VMTL = Preset(
    latent_size=32,
    dropout=0.2,
    shared=("w", "z"),
    sharing={"start": "even", "weights": "concrete", "min_base_weight": "tasks"},
    kl_weights={"w": 0.2, "z": 1e-4},
    fitting={"learning_rate": 0.01, "num_steps": 600, "batches": RandomRows(32, max_total=300)},
)
_POINTS = replace(
    _VMTL,
    shared=(),
    deterministic=True,
    learned_prior=False,  # points would make the most of a prior without width
    kl_weights={"w": 1.0, "z": 0.0},
)

BASELINES = {
    "stl": replace(_POINTS, encoder_per_task=True),
    "vstl": replace(_VMTL, shared=(), encoder_per_task=True),
    "bmtl": _POINTS,
    "vbmtl": replace(_VMTL, shared=()),
    "vmtl": _VMTL,
    "vmtl-ac": replace(_VMTL, amortized=True, hidden=(64,)),
}
"""The methods that the paper compares."""

_ONE_OF_WEIGHTS = {"w_sources": 1, "z_sources": 1}

PAPER = replace(
    _VMTL,
    learned_prior=False,
    sharing={
        "start": "even",
        "weights": "concrete",
        "pool": LinearPool,
        "base": False,
        "transfer": None,
        "min_base_weight": 0.0,
        "weights_prior": False,
        "detach_sources": True,
    },
    kl_weights=1.0,
)
"""The equations of the paper: mixtures of the other tasks' posteriors, their KL by Monte Carlo with
weight 1, no refinement."""

_STEPS = 1500

OFFICIAL = Preset(
    latent_size=512,
    dropout=0.7,
    init_loc_scale=0.1,
    init_scale=0.0486,  # softplus(-3)
    bias=False,
    learned_prior=False,
    shared=("w", "z"),
    sharing={
        **PAPER.sharing,
        "pool": GaussianSumPool,
        "temperature": Stairs(((0, 1.0), (1000, 0.887), (2000, 0.698), (3000, 0.5))),
    },
    kl_weights={"w": Linear(0.0, 4e-7 * _STEPS, steps=_STEPS), "z": 1e-7},
    num_particles=10,
    num_draws=_ONE_OF_WEIGHTS,
    fitting={
        "learning_rate": 4e-4,
        "weight_decay": 5e-4,
        "num_steps": _STEPS,
        "batches": BalancedRows(4),
    },
)
"""What the authors' released code computes, for classification, as its loss is a mean over rows.

Four things differ from that code. Its 4 tasks take turns, each with an Adam of its own with
learning rate 1e-4, so that an iteration moves the encoder 4 times; here one Adam with 4e-4 moves
all at once. It runs 15,000 iterations and reports the best test accuracy on the way; here the last
of 1,500 steps counts. In its first iteration the priors are N(0, I); with the KL of ``w`` at weight
0 then, this is left out. It adds 1e-6 to every variance in a KL, against division by 0.
"""

OFFICIAL_AC = replace(OFFICIAL, amortized=True, bias=True, hidden=(512, 512))
"""The same for VMTL-AC, with two layers before the last in every network and a bias."""


def presets(kind: Literal["classification", "regression", "counts"]) -> dict[str, AnyPreset]:
    """Return all presets by name, for classes, real targets or counts.

    Those that are different for data of few features are :class:`~pyro_vmtl.ByFeatures`.

    Parameters
    ----------
    kind
        Kind of targets. The authors' code is for classes only; counts have our presets only.

    Examples
    --------
    >>> presets("regression")["vbmtl"].shared
    ()
    """
    if kind not in _CHANGES:
        raise ValueError(f"kind is {kind!r}, expected 'classification', 'regression' or 'counts'.")
    change, few = _CHANGES[kind], FEW_FEATURES[kind]
    members = {name: change(cast(Preset, member)) for name, member in DEFAULT.members.items()}
    if kind == "regression":
        # With few features a normal posterior is right as it is, and a low weight would overfit.
        members["shared-kl-1"] = _raise_kl_weights(SHARED, 1.0)
    smooth: Any = (GAUSSIAN_PROCESS, GAUSSIAN_PROCESS)
    if kind != "regression":
        smooth = (_SMOOTH[kind], change(_SMOOTH_MANY))
    single = {"shared": SHARED}
    if kind != "counts":
        single |= BASELINES
    single["mixed-model"] = ALONE
    stacks = (
        Stack(each, challengers={"gaussian-process": method})
        for each, method in zip((few, members), smooth, strict=True)
    )
    methods: dict[str, AnyPreset] = {"default": ByFeatures(*stacks)}
    methods["gaussian-process"] = smooth[0] if kind == "regression" else ByFeatures(*smooth)
    for name, preset in single.items():
        many = change(preset)
        methods[name] = ByFeatures(few[name], many) if name in few else many
    for name, settings in _UNSHARED.items():
        simple = replace(few["shared"], shared=(), sharing={}, full_rank=True, **settings)
        methods[name] = ByFeatures(simple, members[name])
    if kind != "counts":
        methods["paper"] = replace(PAPER)
    if kind == "classification":
        methods |= {"official": replace(OFFICIAL), "official-ac": replace(OFFICIAL_AC)}
    return methods


def _for_real_targets(preset: Preset) -> Preset:
    """Increase the KL weight: a latent noise does part of what a low weight is for."""
    if preset.deterministic:
        return preset
    by_site = preset.kl_weights if isinstance(preset.kl_weights, Mapping) else None
    return _raise_kl_weights(preset, {**by_site, "w": 0.5} if by_site else 0.5)


def _for_counts(preset: Preset) -> Preset:
    """Set all KL weights to 1: counts say by their size how noisy they are.

    With less, coefficients would overfit that noise.
    """
    return replace(_raise_kl_weights(preset, 1.0), likelihood="Poisson")


def _raise_kl_weights(preset: Preset, kl_weights: float | Mapping[str, Any]) -> Preset:
    """Raise the KL weights, with which the source weights need no narrower prior."""
    sharing = {k: value for k, value in preset.sharing.items() if k != "prior_temperature"}
    return replace(preset, sharing=sharing, kl_weights=kl_weights)


_CHANGES: dict[str, Callable[[Preset], Preset]] = {
    "classification": replace,
    "regression": _for_real_targets,
    "counts": _for_counts,
}
"""What adapts a preset for classes to a kind of targets."""
