"""A preset: all settings of a method in one object, to print, copy and change."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_vmtl.data.counterparts import attend
from pyro_vmtl.data.counts import check_counts
from pyro_vmtl.data.one_task import as_one_task
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides import (
    AmortizedNormal,
    ConcatenatedEncoders,
    EncodedNormal,
    LinearEncoder,
    MeanFieldNormal,
    MLPEncoder,
)
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.point_estimates import point_estimates
from pyro_vmtl.handlers.schedules import Schedule, as_schedule
from pyro_vmtl.handlers.temper import temper
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.inference.initialization import counts_start, least_squares_start, usual_log_rate
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.models import (
    HierarchicalNormal,
    LatentClassifier,
    LatentRegressor,
    LinearClassifier,
    LinearCounts,
    LinearRegressor,
    StandardNormal,
    ZeroMeanNormal,
)
from pyro_vmtl.sharing.share import share

__all__ = ["Preset"]

LARGE = 200_000
"""Rows, with padding, above which ``fitting_large`` counts: all of them take 30 ms a step there."""


@dataclass(frozen=True)
class Preset:
    """Settings of a method, from the encoder to the optimiser.

    Parameters
    ----------
    latent_size
        D, numbers in a representation ``z``; None for a linear model of the features.
    hidden
        Widths of the encoder's layers before the last; none for a linear encoder.
    encoder_per_task
        Has every task an encoder of its own?
    dropout
        Probability that a feature is left out in training.
    init_loc_scale, init_scale
        Standard deviations at the start: of the means of coefficients and encoder weights, and of
        these themselves; None for what the guides do by default. With both None, linear models of
        the features start at a least-squares fit of every task.
    amortized
        Do coefficients come from one network for all tasks (VMTL-AC)?
    bias
        Do representations have a bias? Linear models have that of the data
        (:meth:`TaskData.with_intercept`).
    deterministic
        Point estimates instead of posteriors?
    learned_prior
        Is the prior's scale learned? Else it is 1.
    hierarchical
        Have coefficients a latent mean, which all tasks have in common, in place of 0?
    pooled
        Are all rows of one task?
    counts
        Are real targets counts, with a Poisson likelihood? For linear models of the features.
    shared
        Sites to share: ``w``, ``z``, both or none.
    sharing
        Arguments of :func:`~pyro_vmtl.share`.
    kl_weights
        Argument of :func:`~pyro_vmtl.temper`.
    num_particles
        Draws of all latent sites in a step.
    num_draws
        Sites that are drawn less often; both are arguments of
        :class:`~pyro_vmtl.MeanFieldELBO`.
    fitting
        Arguments of :func:`~pyro_vmtl.fit`, but for ``elbo``, ``seed``, ``progress`` and
        ``checkpoint``.
    fitting_large
        What takes their place where data have more than 200,000 rows, with the padding of all
        tasks to the longest.

    Examples
    --------
    >>> from dataclasses import replace
    >>> alone = replace(Preset(kl_weights={"w": 0.2}), shared=())
    >>> data = TaskData.regression([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], ["a", "a", "b"])
    >>> model, guide = alone.programs(data)
    """

    latent_size: int | None = None
    hidden: tuple[int, ...] = ()
    encoder_per_task: bool = False
    dropout: float = 0.0
    init_loc_scale: float | None = None
    init_scale: float | None = None
    amortized: bool = False
    bias: bool = True
    deterministic: bool = False
    learned_prior: bool = True
    hierarchical: bool = False
    pooled: bool = False
    counts: bool = False
    shared: tuple[str, ...] = ("w",)
    sharing: Mapping[str, Any] = field(default_factory=dict)
    kl_weights: Mapping[str, float | Schedule] = field(default_factory=dict)
    num_particles: int = 1
    num_draws: Mapping[str, int] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)
    fitting_large: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the mappings, so that changing those of one preset leaves others alone."""
        if self.counts and self.latent_size is not None:
            raise ValueError(
                f"counts is True and latent_size {self.latent_size}, expected None: counts have "
                "a linear model of the features only. Set latent_size=None."
            )
        if self.pooled and self.shared and self.latent_size is None:
            object.__setattr__(self, "shared", ())  # a single task has nobody to share with
        for name in ("sharing", "kl_weights", "num_draws", "fitting", "fitting_large"):
            object.__setattr__(self, name, dict(getattr(self, name)))

    def programs(self, data: TaskData) -> tuple[nn.Module, nn.Module]:
        """Make model and guide for training rows, not yet fitted."""
        model, guide = self._model(data), self._guide(data)
        if self.deterministic:
            guide = point_estimates(guide)
        if self.shared:
            model, guide = share(model, guide, sites=self.shared, **self.sharing)
        return temper(model, guide, kl_weights=self.kl_weights)

    def fit(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        progress: bool = False,
        checkpoints: Path | None = None,
    ) -> Fitted:
        """Make model and guide, and fit them.

        Parameters
        ----------
        data
            Training rows.
        seed
            Seed of the fit, first numbers included.
        progress
            Show a progress bar?
        checkpoints
            Folder to keep the state of the fit in, and to go on from.
        """
        num_tasks = data.num_tasks
        large = data.mask.numel() > LARGE
        if self.pooled:
            data = as_one_task(data)
        if "z" in self.shared:
            data = attend(data)
        with isolated(seed):
            model, guide = (program.to(data.x.device) for program in self.programs(data))
        elbo = MeanFieldELBO(self.num_particles, num_draws=self.num_draws)
        fitting = {**self.fitting, **(self.fitting_large if large else {})}
        result = fit(
            model,
            guide,
            data,
            elbo=elbo,
            seed=seed,
            progress=progress,
            checkpoint=None if checkpoints is None else checkpoints / "fit.safetensors",
            **fitting,
        )
        if large:  # recorded steps hold the rows in circles of references
            gc.collect()
        return Fitted(self, model, guide, result, num_tasks)

    def _model(self, data: TaskData) -> nn.Module:
        shape = self._event_shape(data)
        prior: nn.Module
        if self.hierarchical:
            prior = HierarchicalNormal(shape)
        else:
            prior = ZeroMeanNormal(shape) if self.learned_prior else StandardNormal(shape)
        size, num_tasks = self.latent_size, data.num_tasks
        if self.counts:
            check_counts(data)
            return LinearCounts(prior, log_rate=usual_log_rate(data))
        if data.classes is not None:
            return LinearClassifier(prior) if size is None else LatentClassifier(prior, size)
        if size is None:
            return LinearRegressor(prior, num_tasks, rows_per_task=data.rows_per_task)
        return LatentRegressor(prior, size, num_tasks, rows_per_task=data.rows_per_task)

    def _guide(self, data: TaskData) -> nn.Module:
        given = {"init_loc_scale": self.init_loc_scale, "init_scale": self.init_scale}
        init: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        shape = self._event_shape(data)
        common = {"w_mean": shape} if self.hierarchical else {}
        guide: MeanFieldNormal | AmortizedNormal
        if self.amortized:
            guide = AmortizedNormal(self._amortizer(data, init), data)
        elif self.latent_size is None:
            guide = MeanFieldNormal(
                {"w": shape}, data.num_tasks, **init, common=common, common_scale=True
            )
            if not init and not self.deterministic:
                guide.start_at("w", *self._start(data))
        else:
            guide = MeanFieldNormal({"w": shape}, data.num_tasks, **init, common=common)
        if self.latent_size is None:
            return guide
        num_tasks = data.num_tasks if self.encoder_per_task else None
        encoder = self._encoder(
            data.num_features, self.latent_size, init, num_tasks=num_tasks, dropout=self.dropout
        )
        return EncodedNormal(encoder, guide)

    def _start(self, data: TaskData) -> tuple[Tensor, Tensor]:
        kl_weight = self.last_kl_weight()
        if self.counts:
            return counts_start(data, kl_weight=kl_weight, log_rate=usual_log_rate(data))
        return least_squares_start(data, kl_weight=kl_weight)

    def last_kl_weight(self) -> float:
        """KL weight of ``w`` at the end of a fit, or close to 0."""
        weight = as_schedule(self.kl_weights.get("w", 1.0))
        return max(weight(self.fitting.get("num_steps", 2000)), 1e-3)

    def _event_shape(self, data: TaskData) -> tuple[int, ...]:
        """Shape of one task's coefficients: (C, D) or (D,)."""
        size = data.num_features if self.latent_size is None else self.latent_size + self.bias
        return (size,) if data.classes is None else (data.num_classes, size)

    def _amortizer(self, data: TaskData, init: dict[str, float]) -> nn.Module:
        """Make the network for coefficients, and a small one for the bias as the authors do."""
        features = data.num_features
        weights = self._encoder(features, self.latent_size or features, init)
        if self.latent_size is None or not self.bias:
            return weights
        bias = replace(self, hidden=(1,) * len(self.hidden))._encoder(features, 1, init)
        return ConcatenatedEncoders(weights, bias)

    def _encoder(
        self, num_features: int, size: int, init: dict[str, Any], **settings: Any
    ) -> nn.Module:
        if not self.hidden:
            return LinearEncoder(num_features, size, **init, **settings)
        if settings.pop("num_tasks", None):
            raise ValueError(
                f"hidden is {self.hidden} and every task has an encoder of its own, expected a "
                "linear encoder there. Set hidden=()."
            )
        return MLPEncoder(num_features, size, hidden=self.hidden, **init, **settings)
