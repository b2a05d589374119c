"""A preset: all settings of a method in one object, to print, copy and change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from pyro_vmtl import guides, models
from pyro_vmtl.data.counterparts import attend
from pyro_vmtl.data.one_task import as_one_task
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.point_estimates import point_estimates
from pyro_vmtl.handlers.schedules import Schedule, as_schedule
from pyro_vmtl.handlers.smooth_term import add_smooth_term, expand_features, expand_rows
from pyro_vmtl.handlers.temper import temper
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import LARGE, ProgramMethod
from pyro_vmtl.methods.smooth_features import promises_to_be_smooth, smooth_features, smooth_start
from pyro_vmtl.models import PrincipalFeatures
from pyro_vmtl.predictive.families import family_named
from pyro_vmtl.predictive.family import Family
from pyro_vmtl.sharing.share import share

__all__ = ["Preset"]


@dataclass(frozen=True)
class Preset(ProgramMethod):
    """Settings of a method, from the encoder to the optimiser.

    Parameters
    ----------
    latent_size
        D, numbers in a representation ``z``; None for a linear model of the features.
    hidden
        Widths of the encoder's layers before the last; none for a linear encoder.
    encoder_per_task
        Whether each task has its own encoder.
    dropout
        Dropout probability of features in training.
    init_loc_scale, init_scale
        Standard deviations at the start: of the means of coefficients and encoder weights, and of
        these themselves; None for what the guides do by default. With both None, linear models of
        the features start at a least-squares fit of every task.
    amortized
        Whether one network computes the coefficients of all tasks (VMTL-AC).
    bias
        Whether representations have a bias. Linear models have that of the data
        (:meth:`TaskData.with_intercept`).
    deterministic
        Whether to fit point estimates instead of posteriors.
    learned_prior
        Whether the scale of the prior is learned; otherwise it is 1.
    hierarchical
        Whether the prior mean of the coefficients is latent and common to all tasks, or 0.
    latent_scales
        Whether each coefficient has a prior scale of its own there, which is latent.
    full_rank
        Whether the posteriors of linear models have covariances.
    conjugate
        Whether to fit a linear mixed model: real targets, a common mean and a scale for each
        coefficient, noise that tasks have in common, and no KL weights. The posteriors of the
        coefficients are computed from the rows (:class:`~pyro_vmtl.guides.ConjugateNormal`), and
        L-BFGS fits those of the scales.
    pooled
        Whether to treat all rows as those of one task.
    likelihood
        Name of the distribution of targets, among the registered families
        (:func:`~pyro_vmtl.register_family`), for linear models of the features: ``"Poisson"`` for
        counts, say. By default ``"Categorical"`` for classes and ``"Normal"`` for real targets.
    smooth
        Smooth functions of the features in linear predictors, Gaussian processes: ``"common"`` for
        one of all tasks, ``"own"`` for one of each task, whose coefficients are further numbers of
        ``w``, and shared as these; None for linear ones.
    num_landmarks
        M, points at which the kernel of smooth functions is exact.
    shared
        Sites to share: ``w``, ``z``, both or none.
    sharing
        Arguments of :func:`~pyro_vmtl.share`.
    kl_weights
        Argument of :func:`~pyro_vmtl.temper`: one number for all latent sites, or by site.
    num_particles
        Draws of all latent sites in a step.
    num_draws
        Sites that are drawn less often.
    num_points
        Fixed points in place of draws. All three are arguments of
        :class:`~pyro_vmtl.MeanFieldELBO`.
    fitting
        Arguments of :func:`~pyro_vmtl.fit`, but for ``elbo``, ``seed``, ``progress`` and
        ``checkpoint``.
    fitting_large
        Arguments that replace these for data of more than 200,000 rows, padding included.

    Examples
    --------
    >>> from dataclasses import replace
    >>> alone = replace(Preset(kl_weights=0.2), shared=())
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
    conjugate: bool = False
    latent_scales: bool = False
    full_rank: bool = False
    pooled: bool = False
    likelihood: str | None = None
    smooth: Literal["common", "own"] | None = None
    num_landmarks: int = 100
    shared: tuple[str, ...] = ("w",)
    sharing: Mapping[str, Any] = field(default_factory=dict)
    kl_weights: float | Schedule | Mapping[str, float | Schedule] = 1.0
    num_particles: int = 1
    num_draws: Mapping[str, int] = field(default_factory=dict)
    num_points: int | None = None
    fitting: Mapping[str, Any] = field(default_factory=dict)
    fitting_large: Mapping[str, Any] = field(default_factory=dict)

    subsamples_tasks = True

    def __post_init__(self) -> None:
        """Copy the mappings, so that changing those of one preset leaves others alone."""
        if self.likelihood is not None and self.latent_size is not None:
            raise ValueError(
                f"likelihood is {self.likelihood!r} and latent_size {self.latent_size}, expected "
                "None: only linear models of the features have a likelihood of choice. Set "
                "latent_size=None."
            )
        if self.conjugate and (self.shared or self.latent_size):
            raise ValueError(
                f"conjugate is True with shared={self.shared} and latent_size={self.latent_size}, "
                "expected () and None."
            )
        if self.smooth not in (None, "common", "own") or self.num_landmarks < 1:
            raise ValueError(
                f"smooth is {self.smooth!r} and num_landmarks {self.num_landmarks}, expected "
                "'common', 'own' or None, and at least 1."
            )
        if self.smooth and (self.conjugate or self.amortized or self.latent_size):
            raise ValueError(
                f"smooth is {self.smooth!r}, expected None where conjugate or amortized is True, "
                "or latent_size is set."
            )
        if self.pooled and self.shared and self.latent_size is None:
            object.__setattr__(self, "shared", ())  # a single task has nobody to share with
        for name in ("sharing", "kl_weights", "num_draws", "fitting", "fitting_large"):
            value = getattr(self, name)
            object.__setattr__(self, name, dict(value) if isinstance(value, Mapping) else value)

    @property
    def predicts_new_tasks(self) -> bool:
        """Whether tasks without training rows can be predicted: linear models only."""
        return self.latent_size is None and not self.amortized

    def prepare(self, data: TaskData) -> TaskData:
        """Return training rows as one task, or with their counterparts, where that is needed."""
        data = self.prepare_new(data)
        return attend(data) if "z" in self.shared else data

    def prepare_new(self, rows: TaskData) -> TaskData:
        """Return rows to predict, as one task where all are pooled."""
        return as_one_task(rows) if self.pooled else rows

    def fit_settings(self, data: TaskData) -> dict[str, Any]:
        """Return the arguments of :func:`~pyro_vmtl.fit`, those of large data included."""
        if self.conjugate:
            return {"elbo": MeanFieldELBO(), "optimizer": "lbfgs"}
        large = self.fitting_large if data.mask.numel() > LARGE else {}
        elbo = MeanFieldELBO(
            self.num_particles, num_draws=self.num_draws, num_points=self.num_points
        )
        return {"elbo": elbo, **self.fitting, **large}

    def for_trial(self) -> Preset:
        """Return a method that takes half of the landmarks, and a quarter of the steps if set."""
        if not self.smooth:
            return self
        fitting = {k: -(-v // 4) if k == "num_steps" else v for k, v in self.fitting.items()}
        return replace(self, num_landmarks=-(-self.num_landmarks // 2), fitting=fitting)

    def promises(self, data: TaskData) -> bool:
        """Whether smooth functions, if any, promise to pay for their time."""
        return not self.smooth or promises_to_be_smooth(data, self.family(data))

    def needs_calibration(self, data: TaskData) -> bool:
        """Whether the posterior is tempered, mean field, or of a wrong likelihood."""
        return not self.conjugate

    def programs_from(self, start: Member, data: TaskData) -> tuple[nn.Module, nn.Module]:
        """Return model and guide with the smooth features of another fit, if it has any."""
        found = (part for part in start.model.modules() if isinstance(part, PrincipalFeatures))
        return self.programs(data, copy.deepcopy(next(found, None)))

    def programs(
        self, data: TaskData, features: nn.Module | None = None
    ) -> tuple[nn.Module, nn.Module]:
        """Return model and guide for prepared training rows, not yet fitted."""
        if self.conjugate:
            return self._conjugate_programs(data)
        model = self._model(data).to(data.x.device)
        if self.smooth and features is None:
            own, family = self.smooth == "own", self.family(data)
            features = smooth_features(data, family, self.num_landmarks, own=own)
        if self.smooth == "own" and features is not None:
            model = expand_features(model, features)
        guide = self._guide(model, data)
        if self.smooth == "common" and features is not None:
            start = smooth_start(data, self.family(data), model, features)
            model, guide = add_smooth_term(model, guide, features, *start)
        if self.deterministic:
            guide = point_estimates(guide)
        if self.shared:
            model, guide = share(model, guide, sites=self.shared, **self.sharing)
        return temper(model, guide, kl_weights=self.kl_weights)

    def family(self, data: TaskData) -> Family:
        """Return the family of the targets."""
        default = "Normal" if data.classes is None else "Categorical"
        return family_named(self.likelihood or default)

    def _conjugate_programs(self, data: TaskData) -> tuple[nn.Module, nn.Module]:
        if data.classes is not None or self.likelihood not in (None, "Normal"):
            raise ValueError("conjugate is True, expected real targets with normal noise.")
        prior = models.HierarchicalNormal(self._event_shape(data), latent_scales=True)
        return models.LinearRegressor(prior, models.LogNormalNoise()), guides.ConjugateNormal(data)

    def _model(self, data: TaskData) -> nn.Module:
        shape = self._event_shape(data)
        zero_mean = models.ZeroMeanNormal if self.learned_prior else models.StandardNormal
        hierarchical = partial(models.HierarchicalNormal, latent_scales=self.latent_scales)
        prior = (hierarchical if self.hierarchical else zero_mean)(shape)
        if self.latent_size is None:
            family = self.family(data)
            family.check(data)
            return family.linear_model(prior, data)
        if data.classes is not None:
            return models.LatentClassifier(prior, self.latent_size)
        noise = models.TaskNoise(data.num_tasks, rows_per_task=data.rows_per_task)
        return models.LatentRegressor(prior, self.latent_size, noise)

    def _guide(self, model: nn.Module, data: TaskData) -> nn.Module:
        given = {"init_loc_scale": self.init_loc_scale, "init_scale": self.init_scale}
        init: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        shape = self._event_shape(data)
        guide: guides.MeanFieldNormal | guides.AmortizedNormal
        if self.amortized:
            guide = guides.AmortizedNormal(self._amortizer(data, init), data)
        elif self.latent_size is not None:
            common = {"w_mean": shape} if self.hierarchical else {}
            guide = guides.MeanFieldNormal({"w": shape}, data.num_tasks, **init, common=common)
        else:
            kind = guides.FullRankNormal if self.full_rank else guides.MeanFieldNormal
            if self.full_rank and self.hierarchical and self.latent_scales:
                kind = guides.NormalGivenMean
            guide = kind.for_model(model, data, **init, common_scale=True)
            start = self.start(model, data)
            if start is not None:
                guide.start_at("w", *start)
        if self.latent_size is None:
            return guide
        per_task = {"num_tasks": data.num_tasks} if self.encoder_per_task else {}
        settings = {**init, **per_task, "dropout": self.dropout}
        encoder = self._encoder(data, self.latent_size, self.hidden, settings)
        return guides.EncodedNormal(encoder, guide)

    def start(self, model: nn.Module, data: TaskData) -> tuple[Tensor, Tensor] | None:
        """Compute initial means and scales of the coefficients; None for those of the guide."""
        if self.deterministic or (self.init_loc_scale, self.init_scale) != (None, None):
            return None
        weights = self.kl_weights
        weight = as_schedule(weights.get("w", 1.0) if isinstance(weights, Mapping) else weights)
        at_the_end = max(weight(self.fitting.get("num_steps", 2000)), 1e-3)
        x = expand_rows(model, data.x)
        rows = data if x is data.x else replace(data, x=x * data.mask[..., None])
        return self.family(data).initialize(getattr(model, "program", model), rows, at_the_end)

    def _event_shape(self, data: TaskData) -> tuple[int, ...]:
        """Shape of one task's coefficients: (C, D) or (D,)."""
        size = data.num_features if self.latent_size is None else self.latent_size + self.bias
        size += self.num_landmarks if self.smooth == "own" else 0
        return (size,) if data.classes is None else (data.num_classes, size)

    def _amortizer(self, data: TaskData, init: dict[str, Any]) -> nn.Module:
        """Make the network for coefficients, and a small one for the bias as the authors do."""
        weights = self._encoder(data, self.latent_size or data.num_features, self.hidden, init)
        if self.latent_size is None or not self.bias:
            return weights
        bias = self._encoder(data, 1, (1,) * len(self.hidden), init)
        return guides.ConcatenatedEncoders(weights, bias)

    @staticmethod
    def _encoder(
        data: TaskData, size: int, hidden: tuple[int, ...], settings: dict[str, Any]
    ) -> nn.Module:
        if not hidden:
            return guides.LinearEncoder(data.num_features, size, **settings)
        if "num_tasks" in settings:
            raise ValueError(
                f"hidden is {hidden} and every task has an encoder of its own, expected a linear "
                "encoder there. Set hidden=()."
            )
        return guides.MLPEncoder(data.num_features, size, hidden=hidden, **settings)
