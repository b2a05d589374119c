"""What runs of a program say of its outputs, averaged, as the regressions that choose gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.outputs.couplings import Couplings
from pyro_vmtl.outputs.evidence import Regression, gate_log_probabilities
from pyro_vmtl.outputs.iteration import Level, State, average_over
from pyro_vmtl.outputs.messengers import Output

__all__ = ["Choosing"]


class Choosing:
    """Average runs, and choose the gates to all outputs that are observed."""

    def __init__(self) -> None:
        self.views: list[list[list[Tensor]]] = []

    def add(
        self, levels: Sequence[Level], state: State, outputs: list[Output], layers: Mapping[int, Any]
    ) -> None:
        """Add a run: what each output states, and is told by the others in a state."""
        said = [v.means(eta) - v.reference for v, eta in zip(levels, state, strict=True)]
        stated, self.outputs = [level.static for level in levels], outputs
        views = []
        for t, output in enumerate(outputs):
            batch = output.eta.shape[:-1]
            view = [output.eta, _heard(levels, stated, batch), _heard(levels, said, batch)]
            views.append(view + ([_slopes(*layers[t])] if t in layers else []))
        self.views.append(views)

    @torch.no_grad()
    def choose(self, couplings: Couplings) -> None:
        """Hold all gates to observed outputs at their posterior, by the runs added so far."""
        observed = [t for t, output in enumerate(self.outputs) if output.site["is_observed"]]
        found = couplings.chosen.double()
        for t in observed:
            views = [sum(runs) / len(runs) for runs in zip(*(v[t] for v in self.views), strict=True)]
            rows = _regression(self.outputs[t], t, couplings, *views)
            found[:, t] = gate_log_probabilities(rows, found[:, t])
        if couplings.symmetric:
            found = (found + found.transpose(0, 1) - couplings.prior).log_softmax(-1)
        couplings.choose(found, observed)


def _regression(
    output: Output,
    t: int,
    couplings: Couplings,
    eta: Tensor,
    stated: Tensor,
    told: Tensor,
    slopes: Tensor | None = None,
) -> Regression:
    site, response, size = output.site, output.response, eta.shape[-1]
    batch = torch.broadcast_shapes(eta.shape[:-1], site["value"].shape)
    precision = site["scale"] / response.noise(site["fn"]).to(eta)
    if isinstance(site["mask"], Tensor):
        precision = precision * site["mask"]
    rows = (precision > 0).expand(batch).flatten()

    def table(values: Tensor, ndim: int = 1) -> Tensor:
        own = values.shape[values.ndim - ndim :]
        return values.expand(*batch, *own).reshape(-1, *own)[rows].double()

    told = table(told * couplings.slab)
    features = {}
    for s in range(len(couplings.sizes)):
        if s == t:
            continue
        features[s, 1] = told[:, None, couplings.output_of == s]
        if slopes is not None:
            features[s, 2] = (features[s, 1][..., None] * table(slopes, 2)[:, :, None]).flatten(2)
    own, stated = table(eta)[..., None], table(stated)[:, None, couplings.output_of != t]
    always = [torch.ones_like(own), own, stated.expand(-1, size, -1)]
    value, weight = table(response.encode(site["value"], size)), table(precision[..., None])
    return Regression(response, own[..., 0], value, weight, features, torch.cat(always, -1))


def _heard(levels: Sequence[Level], values: State, batch: torch.Size) -> Tensor:
    r"""Return values of all outputs as an output of a batch shape hears them, (\*batch, P)."""
    heard = [
        average_over(each, batch, level.mask).expand(*batch, -1)
        for level, each in zip(levels, values, strict=True)
    ]
    return torch.cat(heard, -1)[..., torch.cat([level.columns for level in levels]).argsort()]


@torch.enable_grad()
def _slopes(hidden: Tensor, linear: Any, activation: Any = torch.relu) -> Tensor:
    r"""Return the slopes of an output's numbers in its hidden layer, (\*batch, J, H)."""
    hidden = hidden.detach().requires_grad_()
    (slope,) = torch.autograd.grad(activation(hidden).sum(), hidden)
    return (slope[..., None, :] * linear.weight).detach()
