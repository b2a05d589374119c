"""The learned parameters of a shared site: source weights and transfer scales.

The weights of a task over its sources are a latent variable. Their posterior is a categorical or
a Concrete distribution (``RelaxedOneHotCategorical``) with learned logits; in their prior all are
equal.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_vmtl.data.limits import check_limit
from pyro_vmtl.handlers.schedules import Schedule, Scheduled
from pyro_vmtl.sharing.components import TaskComponents, other_tasks
from pyro_vmtl.sharing.concrete import LogConcrete
from pyro_vmtl.sharing.expected_one_hot import ExpectedOneHot
from pyro_vmtl.sharing.pool import once

__all__ = ["CellSources", "Sources", "Transfer", "WeightsPosterior", "WeightsStart", "nearness"]

Transfer = Literal["source", "dimension"]
"""What has a transfer scale of its own: each source, or each dimension of the site."""

WeightsStart = Literal["alone", "nearest", "even"]
"""Initial source weights."""

WeightsPosterior = Literal["concrete", "categorical", "softmax", "even"]
"""Posterior of the source weights: a Concrete distribution, the probabilities of a choice among the
sources, a learned point, or the even point."""

MAX_ROUNDING = 0.1
"""Accepted rounding error in nats: far below the KL between two draws of the posterior."""

MIN_LOGIT = -8.0
"""Initial logit of the farthest source, below which its weight could hardly grow."""

INITIAL_TRANSFER_SCALE = 0.1  # 0.3 ended in a worse optimum on Office-Caltech10


@dataclass(frozen=True, eq=False)
class CellSources:
    r"""Separate sources for every cell of a site.

    A guide passes a function that returns them in ``pyro.sample(site, ..., infer={"sources":
    function})``, or None in a run without sources, such as a prediction; then the prior is plain.

    Attributes
    ----------
    normal
        Batch (T, \*rest, T - 1), the other tasks in order, and the site's event shape.
    present
        (T, \*rest, T - 1), False where a task has no source for a cell.

    Examples
    --------
    >>> normal = dist.Normal(torch.zeros(2, 5, 1, 3), 1.0).to_event(1)
    >>> CellSources(normal, torch.ones(2, 5, 1, dtype=torch.bool)).present.shape
    torch.Size([2, 5, 1])
    """

    normal: dist.Independent
    present: Tensor


class Sources(Scheduled):
    r"""Learned parameters of one shared site: ``logits`` (T, K) and ``raw_transfer_scale``.

    The sources of a task are the other tasks in order and, if ``base``, the base last: K in all.
    The shape of the transfer scale broadcasts to (T, \*rest, \*event); None for no scale. The other
    settings are those of :func:`~pyro_vmtl.share`.

    ``use_float64`` says whether tasks are compared in float64. A fit sets it to False for as long
    as it runs, if float32 is accurate enough. While ``alone`` is 1, the base has all weight.
    """

    fixed_graph = True
    temperature: Tensor
    alone: Tensor

    def __init__(
        self,
        num_tasks: int,
        transfer_shape: tuple[int, ...] | None,
        *,
        base: bool,
        min_base_weight: float | Literal["tasks"] | None = None,
        temperature: Schedule,
        prior_temperature: float | None = None,
        weights: WeightsPosterior = "concrete",
        start: WeightsStart = "even",
    ) -> None:
        super().__init__()
        if num_tasks == 1 and not base:
            raise ValueError(
                "Sharing found 1 task, expected at least 2: a single task has no sources. "
                "Pass more tasks, or use the model without `share`."
            )
        check_limit(
            *("TASK_PAIRS", num_tasks**2, f"Sharing among {num_tasks:,} tasks"),
            "Use a method that does not share, such as 'mixed-model' or 'hierarchical', or fewer "
            "tasks; or, where there is memory for 50 times as many numbers",
        )
        if not temperature(0) > 0:
            raise ValueError(f"temperature is {temperature(0)}, expected a number above 0.")
        if prior_temperature is not None and not prior_temperature > 0:
            raise ValueError(
                f"prior_temperature is {prior_temperature}, expected a number above 0, or None."
            )
        self.base = base
        self.min_base_weight = min_base_weight
        self.prior_temperature = prior_temperature
        self.weights = weights
        self.start = start
        self.schedules = {"temperature": temperature}
        self.logits = nn.Parameter(
            torch.zeros(num_tasks, num_tasks - 1 + base), requires_grad=weights != "even"
        )
        self.raw_transfer_scale = None
        if transfer_shape is not None:
            log_scale = torch.full(transfer_shape, INITIAL_TRANSFER_SCALE).log()
            self.raw_transfer_scale = nn.Parameter(log_scale)
        self.register_buffer("temperature", torch.tensor(float(temperature(0))))
        self.register_buffer("alone", torch.tensor(0.0), persistent=False)
        self.use_float64 = True

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return self.logits.shape[0]

    @property
    def transfer_scale(self) -> Tensor | None:
        """Standard deviation added to the sources; None without transfer scale."""
        return None if self.raw_transfer_scale is None else self.raw_transfer_scale.exp()

    @property
    def transfer_var(self) -> Tensor | float:
        """Variance added to the sources; 0 without transfer scale."""
        return 0.0 if self.raw_transfer_scale is None else (2 * self.raw_transfer_scale).exp()

    @property
    def location(self) -> Tensor:
        """Pool weights, (T, T + 1), at the probability of each source to have the most weight."""
        return self.pool_weights(self.logits.softmax(-1)).detach()

    @property
    def graph_key(self) -> bool:
        """Whether tasks are compared in float64: this changes the tensor operations of a step."""
        return self.use_float64

    def at_step(self, step: int) -> None:
        """Set the temperature to its value at a step of the fit."""
        self.temperature.fill_(self.schedules["temperature"](step))

    @torch.no_grad()
    def initialize_logits(self, posterior: dist.Independent | CellSources | None) -> None:
        """Set the logits to where the weights start; sources of cells leave them even.

        From even weights all posteriors would first move to their common mean, and groups of tasks
        might never be found: a local optimum. The nearest start is half the expected log density of
        each source: as both posteriors are uncertain, the full one would count a distance twice.
        In many dimensions it is less, so that the nearest is not the only one. After tasks were
        alone, it is the expected log density in units of its standard deviation among P numbers of
        equal sources, the root of 2 P: as the farthest source does not matter, groups that are near
        each other are told apart.
        """
        size = self.logits.shape[1] - self.base
        even = "even" in (self.start, self.weights)
        if even or not size or not isinstance(posterior, dist.Independent):
            return
        others = other_tasks(self.num_tasks, self.logits.device)
        near = nearness(posterior, self.transfer_var).gather(1, others)
        near = near - near.amax(1, keepdim=True)
        if self.start == "alone":
            num = posterior.mean[0].numel()
            self.logits[:, :size] = (near / math.sqrt(2 * num)).clamp_min(MIN_LOGIT)
        else:
            farthest = near.amin(1, keepdim=True).clamp_max(-1e-9)
            self.logits[:, :size] = near * (MIN_LOGIT / farthest).clamp_max(0.5)
            if size > 1 and farthest.amin() > -1e-6:
                warnings.warn(
                    "All posteriors are alike where start='nearest' compares them, so that the "
                    "source weights start even. Start the guide at estimates of each task, or use "
                    "start='alone'.",
                    stacklevel=2,
                )
        if self.base:
            self.logits[:, -1] = self.logits[:, :size].mean(1)

    def choose_precision(self, rounding: float) -> None:
        """Use float32 to compare tasks where its error, in nats, is small enough, else float64."""
        # The way back to float32 has a margin, so that the choice does not alternate.
        self.use_float64 = rounding > (MAX_ROUNDING / 2 if self.use_float64 else MAX_ROUNDING)

    def weights_posterior(self, logits: Tensor) -> dist.TorchDistribution:
        r"""Return the posterior of the log weights, with logits in any shape (\*batch, K)."""
        if self.weights == "concrete":
            return LogConcrete(self.temperature, logits=logits)
        if self.weights == "categorical":
            return ExpectedOneHot(logits)
        return dist.Delta(logits.log_softmax(-1), event_dim=1)

    def weights_prior(self, logits: Tensor) -> dist.TorchDistribution:
        """Return the prior of log weights of this shape, in which all sources are equal."""
        if self.weights == "categorical":
            return ExpectedOneHot(logits.new_zeros(()).expand_as(logits))
        return self.concrete_prior(logits)

    def concrete_prior(self, logits: Tensor) -> LogConcrete:
        """Return a Concrete prior of log weights of this shape, in which all are equal."""
        even = logits.new_zeros(()).expand_as(logits)
        temperature = self.temperature
        if self.prior_temperature is not None:
            temperature = torch.full_like(temperature, self.prior_temperature)
        return LogConcrete(temperature, logits=even)

    def pool_weights(self, weights: Tensor, tasks: Tensor | None = None) -> Tensor:
        r"""Compute pool weights, (\*L, B, T + 1), from weights over the sources, (\*L, B, K).

        They say how much each of the tasks, (B,) or all, borrows from each task and the base, which
        comes last. The weight of a task on itself is 0, that of the base at least
        ``min_base_weight``; if that is None, at least the weight of one among the task itself and
        the effective number of its sources [1]_, :math:`1 / (1 + 1 / \sum_i \bar a_i^2)`, where
        :math:`\bar a` are the weights among the sources at the softmax of the logits: 1 / n in a
        group of n equal tasks.

        References
        ----------
        .. [1] L. Kish. Survey Sampling. Wiley, 1965.
        """
        num_tasks = self.num_tasks
        tasks = torch.arange(num_tasks, device=weights.device) if tasks is None else tasks
        # The sources before and after the task itself, which is not among its sources.
        place = torch.arange(num_tasks + 1, device=weights.device)
        without_base = 0 if self.base else 1
        before = functional.pad(weights, (0, 1 + without_base))
        after = functional.pad(weights, (1, without_base))
        pooled = torch.where(place < tasks[:, None], before, after)
        pooled = pooled.masked_fill(place == tasks[:, None], 0.0)
        least: Any = 1 / num_tasks if self.min_base_weight == "tasks" else self.min_base_weight
        if least is None:
            sources = self.logits[tasks].softmax(-1)[:, : weights.shape[-1] - self.base]
            square = (sources**2).sum(-1, keepdim=True)
            # where there are no sources, the base has all weight already
            least = square / (square + sources.sum(-1, keepdim=True) ** 2).clamp_min(1e-30)
        least = self.alone + (1 - self.alone) * least
        return pooled + least * ((place == num_tasks).to(pooled) - pooled)

    @torch.no_grad()
    def draw(self, num_samples: int) -> Tensor:
        """Draw pool weights from their posterior, (S, T, T + 1)."""
        log_weights = self.weights_posterior(self.logits).sample(torch.Size([num_samples]))
        drawn = self.pool_weights(once(log_weights, 1).softmax(-1))  # all may be the same
        return drawn.expand(num_samples, -1, -1)


def nearness(posterior: dist.Independent, transfer_var: Tensor | float) -> Tensor:
    """Compute the expected log density of every source under each task's posterior, (T, T).

    Row t is the expectation under task t, in nats, minus infinity for itself.
    """
    extra_var = torch.as_tensor(transfer_var).to(posterior.mean).expand_as(posterior.mean)
    loc, var, extra = (
        moment.reshape(len(moment), -1)[None]
        for moment in (posterior.mean, posterior.variance, extra_var)
    )
    return TaskComponents(loc, var, extra).log_probs(loc, var)[0].fill_diagonal_(-torch.inf)
