r"""The mean-field normal guide.

======================= ======================================= ========== ==================
symbol                  meaning                                 code       shape
======================= ======================================= ========== ==================
:math:`\mu_t`           mean of task t's posterior              ``loc``    (T, 1, \*event)
:math:`\sigma_t`        its standard deviation                  ``scale``  (T, 1, \*event)
======================= ======================================= ========== ==================

With a common scale :math:`u`, the standard deviations are :math:`u \sigma_t`. The family is the
same, but optimization is faster (parameter expansion [1]_): where the prior's scale is learned, it
and all standard deviations have to grow or shrink together.

References
----------
.. [1] Y. Qi, T. Jaakkola. Parameter Expanded Variational Bayesian Methods. NIPS 2006.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vmtl.data.plates import TASK_PLATE, sample_posterior
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import sample_sites

__all__ = ["MeanFieldNormal"]


class MeanFieldNormal(nn.Module):
    """Independent normals for all coefficients of all tasks.

    Parameters
    ----------
    event_shapes
        Event shape of each site.
    num_tasks
        T.
    init_loc_scale, init_scale
        Standard deviation of the random initial means about 0, and initial standard deviations.
    common
        Event shape of each site outside the task plate, which all tasks have in common.
    common_scale
        Whether to learn a common factor of all standard deviations of each site, too.
    positive
        Names of sites with positive values: their logarithms are normal.

    See Also
    --------
    FullRankNormal : With covariances.
    pyro.infer.autoguide.AutoNormal : Pyro's own, for any model; not for batches of tasks.

    Examples
    --------
    >>> guide = MeanFieldNormal({"w": (3, 5)}, num_tasks=4)
    >>> guide()["w"].shape
    torch.Size([4, 1, 3, 5])
    """

    fixed_graph = True

    def __init__(
        self,
        event_shapes: Mapping[str, Sequence[int]],
        num_tasks: int,
        *,
        init_loc_scale: float = 0.0,
        init_scale: float = 0.1,
        common: Mapping[str, Sequence[int]] | None = None,
        common_scale: bool = False,
        positive: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        shapes = {site: torch.Size([num_tasks, 1, *event]) for site, event in event_shapes.items()}
        self.common = tuple(common or ())
        self.positive = tuple(positive)
        self.sites = tuple(event_shapes)  # a ParameterDict would sort them
        shapes |= {site: torch.Size(event) for site, event in (common or {}).items()}
        self.locs = nn.ParameterDict(
            {site: init_loc_scale * torch.randn(s) for site, s in shapes.items()}
        )
        self.raw_scales = nn.ParameterDict(
            {site: torch.full(s, init_scale).log() for site, s in shapes.items()}
        )
        self.raw_common_scales = nn.ParameterDict(
            {site: torch.zeros(()) for site in event_shapes if common_scale}
        )

    @classmethod
    def for_model(cls, model: Program, data: TaskData, **settings: Any) -> MeanFieldNormal:
        """Return a guide with the latent sites of a model: log-normal where they are positive.

        ``settings`` are the other arguments.

        Raises
        ------
        ValueError
            If a site is neither real nor positive, or in another plate than ``task``.
        """
        shapes: dict[bool, dict[str, Sequence[int]]] = {True: {}, False: {}}
        positive = []
        rows = replace(data, x=data.x.to(torch.get_default_dtype()))  # that of new parameters
        with torch.no_grad(), isolated(0):
            sites = sample_sites(poutine.trace(model).get_trace(rows))
        for name, site in sites.items():
            if site["is_observed"]:
                continue
            plates = [frame.name for frame in site["cond_indep_stack"]]
            support = site["fn"].support
            while isinstance(support, constraints.independent):
                support = support.base_constraint
            if plates not in ([], [TASK_PLATE]) or support not in (
                constraints.real,
                constraints.positive,
            ):
                raise ValueError(
                    f"Site {name!r} is {support} in the plates {plates}, expected real or positive "
                    f"numbers in {TASK_PLATE!r} or in none. Use one of Pyro's autoguides."
                )
            shapes[bool(plates)][name] = site["fn"].event_shape
            if support is constraints.positive:
                positive.append(name)
        return cls(
            shapes[True], data.num_tasks, common=shapes[False], positive=positive, **settings
        )

    @torch.no_grad()
    def start_at(self, site: str, loc: Tensor, scale: Tensor) -> None:
        """Set means and standard deviations, each (T, ...), of a site's normal."""
        self.locs[site].copy_(loc.unsqueeze(1))
        self.raw_scales[site].copy_(scale.unsqueeze(1).log())

    @torch.no_grad()
    def start_last_task(self, start: tuple[Tensor, Tensor] | None, rows: TaskData) -> None:
        """Start a task that was added, given what all have in common.

        ``start`` are means and scales of the site ``w``, (1, ...); None for those of a new guide.
        """
        if start is not None:
            self.locs["w"][-1], self.raw_scales["w"][-1] = start[0], start[1].log()
        for site, common in self.raw_common_scales.items():
            self.raw_scales[site][-1] -= common

    def posterior(self, site: str) -> dist.Independent:
        """Return the posterior of a site, batch shape (T, 1); () outside the task plate."""
        loc, scale = self.locs[site], self.raw_scales[site].exp()
        if site in self.raw_common_scales:
            scale = scale * self.raw_common_scales[site].exp()
        kind = dist.LogNormal if site in self.positive else dist.Normal
        return kind(loc, scale).to_event(loc.ndim - (0 if site in self.common else 2))

    def draw_common(self) -> dict[str, Tensor]:
        """Sample every site outside the plate over tasks."""
        return {site: pyro.sample(site, self.posterior(site)) for site in self.common}

    def draw(self) -> dict[str, Tensor]:
        """Sample every other site, inside a plate over tasks."""
        return {site: sample_posterior(site, self.posterior(site)) for site in self.sites}

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the model's arguments are ignored."""
        common = self.draw_common()
        if not self.sites:
            return common
        with pyro.plate("task", self.num_tasks, dim=-2):
            return {**common, **self.draw()}
