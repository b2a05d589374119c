"""What a shared site knows of its sources: who borrows from whom, and how loosely.

The weights of a task over its sources are a latent variable. Their posterior is a Concrete
distribution (``RelaxedOneHotCategorical``) with learned logits; their prior is the same
distribution with even logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_vmtl.handlers.schedules import Schedule, Scheduled
from pyro_vmtl.sharing.components import other_tasks, over_all_tasks
from pyro_vmtl.sharing.concrete import LogConcrete
from pyro_vmtl.sharing.nearest import nearness
from pyro_vmtl.sharing.pool import Pool

__all__ = ["CellSources", "Sources", "Transfer", "WeightsPosterior", "WeightsStart"]

Transfer = Literal["source", "dimension"]
"""Who has a transfer scale of its own: each source, or each dimension of the site."""

WeightsStart = Literal["even", "nearest"]
"""Where source weights start."""

WeightsPosterior = Literal["concrete", "softmax", "even"]
"""Posterior of the source weights: a Concrete distribution, a learned point, or the even point."""

LEAST_LOSS = 0.1
"""Nats that may be lost to rounding: far less than the KL of one draw from the next."""

LOOK_UP_FROM = 10
"""Step at which candidates are first looked up; then at twice that step, and so on."""

LEAST_LOGIT = -8.0  # of the farthest source at the start, so that it can still be found

INITIAL_TRANSFER_SCALE = 0.1  # 0.3 ended in a worse optimum on Office-Caltech10


@dataclass(frozen=True, eq=False)
class CellSources:
    r"""Sources of its own for every cell of a site.

    A guide gives them in ``pyro.sample(site, ..., infer={"sources": give})``, where ``give()``
    makes them, or returns None in a run that has none, such as a prediction. Then the plain prior
    stays.

    Attributes
    ----------
    normal
        batch (T, \*rest, T - 1), the other tasks in order, and the site's event shape.
    present
        (T, \*rest, T - 1), False where a task has nothing to say about a cell.
    """

    normal: dist.Independent
    present: Tensor


GiveSources = Callable[[], CellSources | None]
"""What a guide puts into ``infer={"sources": ...}``."""


class Sources(Scheduled):
    r"""The learned numbers of one shared site.

    A task's candidates are the other tasks in order and, if ``base``, the base last: K in all.

    Parameters
    ----------
    num_tasks
        T.
    transfer_shape
        Shape of the transfer scale; it broadcasts to (T, \*rest, \*event). None for no transfer
        scale.
    base
        Is the plain prior a candidate?
    anchor
        Does the base keep at least weight 1/T? The learned weights share the rest.
    weights
        Kind of the weights' posterior.
    temperature
        Temperature of the weights at each step of a fit.
    num_sources
        How many sources a task has; all others by default.
    start
        Where the weights start: ``"even"``, or with most on the ``"nearest"`` sources.

    Attributes
    ----------
    logits
        (T, K), location of the weights' posterior.
    raw_transfer_scale
        log of the transfer scale.
    temperature
        scalar, the temperature at the current step.
    noted
        has the guide run?
    posterior
        sources at its last run: the posterior of every task, or sources of every cell. None where
        a run has none.
    pool
        the pool that the model's last run made of them.
    exact
        does it compare tasks in float64?
    candidates
        (T, K), the sources of each task in ascending order; None for all others.
    due
        are they to be looked up anew after this step?
    """

    temperature: Tensor
    candidates: Tensor | None

    def __init__(
        self,
        num_tasks: int,
        transfer_shape: torch.Size | None,
        *,
        base: bool,
        anchor: bool,
        temperature: Schedule,
        weights: WeightsPosterior = "concrete",
        num_sources: int | None = None,
        start: WeightsStart = "even",
    ) -> None:
        super().__init__()
        if num_tasks == 1 and not base:
            raise ValueError(
                "Sharing found 1 task, expected at least 2: a single task has no sources. "
                "Give it more tasks, or use the model without `share`."
            )
        if not temperature(0) > 0:
            raise ValueError(f"temperature is {temperature(0)}, expected a number above 0.")
        self.base = base
        self.anchor = anchor
        self.weights = weights
        self.start = start
        self.schedules = {"temperature": temperature}
        size = num_tasks - 1 if num_sources is None else min(num_sources, num_tasks - 1)
        self.logits = nn.Parameter(
            torch.zeros(num_tasks, size + base), requires_grad=weights != "even"
        )
        # any will do, until the first are looked up
        self.register_buffer(
            "candidates", None if num_sources is None else other_tasks(num_tasks)[:, :size]
        )
        self.raw_transfer_scale = (
            None
            if transfer_shape is None
            else nn.Parameter(torch.full(transfer_shape, INITIAL_TRANSFER_SCALE).log())
        )
        self.register_buffer("temperature", torch.tensor(float(temperature(0))))
        self.noted = False
        self.posterior: dist.Independent | CellSources | None = None
        self.pool: Pool | None = None
        self.exact = True
        self.due = False

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
        """Chance of each source to have the most of the learned weights, as (T, T + 1)."""
        weights = self.logits.detach().softmax(-1)
        return over_all_tasks(self.pool_weights(weights), self.candidates)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the noted posterior out of copies and pickles: it hangs in an autograd graph."""
        return {**self.__dict__, "noted": False, "posterior": None, "pool": None}

    def note(self, posterior: dist.Independent | CellSources | None) -> None:
        """Note the sources of this run of the guide."""
        self.noted, self.posterior = True, posterior

    def at_step(self, step: int) -> None:
        """Set the temperature to its value at a step of the fit."""
        self.temperature.fill_(self.schedules["temperature"](step))
        times, rest = divmod(step, LOOK_UP_FROM)
        self.due = self.candidates is not None and times.bit_count() == 1 and not rest

    def forget(self) -> None:
        """Forget what the last run noted."""
        self.noted, self.posterior, self.pool = False, None, None

    @torch.no_grad()
    def begin(self) -> None:
        """Look up candidates, and set the logits to where the weights start.

        From even weights all posteriors would first move to their common mean, and groups of tasks
        might never be found: a local optimum. The nearest start is half the expected log density of
        each source: as both posteriors are uncertain, the whole would count a distance twice.
        """
        self.look_up()
        size = self.logits.shape[1] - self.base
        even = "even" in (self.start, self.weights)
        if even or not size or not isinstance(self.posterior, dist.Independent):
            return
        others = other_tasks(self.num_tasks, self.logits.device)
        sources = others if self.candidates is None else self.candidates
        for tasks, near in nearness(self.posterior, self.transfer_var):
            near = near.gather(1, sources[tasks])
            near = (near - near.amax(1, keepdim=True)) / 2
            self.logits[tasks, :size] = near.clamp_min(LEAST_LOGIT)
        if self.base:
            self.logits[:, -1] = self.logits[:, :size].mean(1)

    @torch.no_grad()
    def look_up(self, moments: Iterable[Tensor] = ()) -> None:
        """Take the nearest sources of every task, by the posteriors noted last, as candidates.

        Parameters
        ----------
        moments
            What an optimiser holds for each of the logits. It goes where these go, and is 0 for new
            ones.
        """
        if not isinstance(self.posterior, dist.Independent):
            return
        if self.candidates is None or not self.candidates.shape[1]:
            return
        compared = nearness(self.posterior, self.transfer_var)
        number = self.candidates.shape[1]
        new = torch.cat([near.topk(number).indices.sort().values for _, near in compared])
        # Who stays keeps its weight, and who is new gets the mean weight.
        same = new[:, :, None] == self.candidates[:, None, :]
        place, stays = same.int().argmax(2), same.any(2)
        mean = self.logits[:, : new.shape[1]].mean(1, keepdim=True)
        for values, otherwise in [(self.logits, mean), *((m, mean.new_zeros(())) for m in moments)]:
            columns = values[:, : new.shape[1]]
            columns.copy_(torch.where(stays, columns.gather(1, place), otherwise))
        self.candidates.copy_(new)

    def choose_precision(self, rounding: float) -> None:
        """Compare tasks in float32 where that loses next to nothing, else in float64.

        Parameters
        ----------
        rounding
            What it would lose, in nats; :attr:`Pool.rounding`.
        """
        # On the way back there is a margin, so as not to change at every step.
        self.exact = rounding > (LEAST_LOSS / 2 if self.exact else LEAST_LOSS)

    @property
    def form(self) -> bool:
        """Are tasks compared in float64?"""
        return self.exact

    def weights_posterior(self, logits: Tensor) -> dist.TorchDistribution:
        r"""Return the posterior of the log weights, with logits in any shape (\*batch, K)."""
        if self.weights == "concrete":
            return LogConcrete(self.temperature, logits=logits)
        return dist.Delta(logits.log_softmax(-1), event_dim=1)

    def pool_weights(self, weights: Tensor, tasks: Tensor | None = None) -> Tensor:
        r"""Lay weights over candidates out as weights over all tasks and the base.

        Parameters
        ----------
        weights
            (\*L, B, K), rows on the simplex.
        tasks
            (B,), the tasks they are for; None for all.

        Returns
        -------
        Tensor
            (\*L, B, T + 1), rows on the simplex: how much task t borrows from each source, the
            base last. Its weight on itself is 0. With the anchor the base has at least 1/T. Where
            there are candidates, weights of these only, (\*L, B, K + 1).
        """
        num_tasks = self.num_tasks
        if self.candidates is not None:
            pooled = weights if self.base else functional.pad(weights, (0, 1))
            last = torch.arange(pooled.shape[-1], device=weights.device) == pooled.shape[-1] - 1
            return torch.lerp(pooled, last.to(pooled), 1 / num_tasks) if self.anchor else pooled
        tasks = torch.arange(num_tasks, device=weights.device) if tasks is None else tasks
        # A task's sources before and after its own place, which is left out among candidates.
        place = torch.arange(num_tasks + 1, device=weights.device)
        before, after = (
            functional.pad(weights, pad) for pad in ((0, 1 + (not self.base)), (1, not self.base))
        )
        pooled = torch.where(place < tasks[:, None], before, after)
        pooled = pooled.masked_fill(place == tasks[:, None], 0.0)
        if self.anchor:
            pooled = torch.lerp(pooled, (place == num_tasks).to(pooled), 1 / num_tasks)
        return pooled

    def candidates_of(self, tasks: Tensor | None) -> Tensor | None:
        """Give the candidates of some tasks, (B, K); None where these are all others."""
        return (
            self.candidates if self.candidates is None or tasks is None else self.candidates[tasks]
        )

    @torch.no_grad()
    def draw(self, num_samples: int) -> Tensor:
        """Draw pool weights from their posterior, (S, T, T + 1)."""
        log_weights = self.weights_posterior(self.logits).sample(torch.Size([num_samples]))
        return over_all_tasks(self.pool_weights(log_weights.softmax(-1)), self.candidates)
