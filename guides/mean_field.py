r"""The mean-field normal guide.

======================= ======================================= ========== ==================
symbol                  meaning                                 code       shape
======================= ======================================= ========== ==================
:math:`\mu_t`           mean of task t's posterior              ``loc``    (T, 1, \*event)
:math:`\sigma_t`        its standard deviation                  ``scale``  (T, 1, \*event)
======================= ======================================= ========== ==================

With a common scale :math:`u`, the standard deviations are :math:`u \sigma_t`. It adds nothing to
the family, but a way to go: where the prior's scale is learned, all standard deviations and that
scale have to grow or shrink together, and one by one they take a thousand steps (parameter
expansion; Qi and Jaakkola, NIPS 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vmtl.data.plates import sample_posterior

__all__ = ["MeanFieldNormal"]


class MeanFieldNormal(nn.Module):
    """An independent normal for every number of every task.

    Parameters
    ----------
    event_shapes
        For each site its event shape.
    num_tasks
        T.
    init_loc_scale
        Standard deviation of the means at the start, about 0.
    init_scale
        Standard deviations at the start.
    common
        Sites outside the task plate, which all tasks have in common, with their event shapes.
    common_scale
        Learn a common factor of all standard deviations of a site, too?

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
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        shapes = {site: torch.Size([num_tasks, 1, *event]) for site, event in event_shapes.items()}
        self.common = tuple(common or ())
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

    @torch.no_grad()
    def start_at(self, site: str, loc: Tensor, scale: Tensor) -> None:
        """Set the posterior of a site, from means and standard deviations, (T, ...) each."""
        self.locs[site].copy_(loc.unsqueeze(1))
        self.raw_scales[site].copy_(scale.unsqueeze(1).log())

    def posterior(self, site: str) -> dist.Independent:
        """Give the posterior of a site, batch (T, 1); () outside the task plate."""
        loc, scale = self.locs[site], self.raw_scales[site].exp()
        if site in self.raw_common_scales:
            scale = scale * self.raw_common_scales[site].exp()
        return dist.Normal(loc, scale).to_event(loc.ndim - (0 if site in self.common else 2))

    def draw_common(self) -> dict[str, Tensor]:
        """Draw every site that is outside the plate over tasks."""
        return {site: pyro.sample(site, self.posterior(site)) for site in self.common}

    def draw(self) -> dict[str, Tensor]:
        """Draw every other site, inside a plate over tasks."""
        sites = (site for site in self.locs if site not in self.common)
        return {site: sample_posterior(site, self.posterior(site)) for site in sites}

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw every site; the arguments are the model's and are not looked at."""
        common = self.draw_common()
        with pyro.plate("task", self.num_tasks, dim=-2):
            return {**common, **self.draw()}
