"""What runs of a program say of its outputs, averaged, as the regressions that choose gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.outputs.couplings import Couplings, Drawn
from pyro_vmtl.outputs.evidence import Regression, gate_log_probabilities
from pyro_vmtl.outputs.iteration import Level, State, average_over
from pyro_vmtl.outputs.messengers import Output

__all__ = ["Choosing"]


class Choosing:
    """Sum up runs with mean weights, and choose the gates to all outputs that are observed."""

    def __init__(self) -> None:
        self.num_runs = 0
        self.sums: dict[int, list[Tensor]] = {}

    @torch.no_grad()
    def add(
        self,
        levels: Sequence[Level],
        groups: Sequence[Sequence[int]],
        states: Sequence[State],
        outputs: Sequence[Output],
        layers: Mapping[int, Any],
        drawn: Drawn,
    ) -> None:
        """Add a run: what each output was told last, and what it says then."""
        self.num_runs += 1
        self.outputs, self.layers, self.drawn = outputs, layers, drawn
        said = [v.means(eta) - v.reference for v, eta in zip(levels, states[-2:][0], strict=True)]
        static = [level.static for level in levels]
        for level, group, eta in zip(levels, groups, states[-1], strict=True):
            told, stated = (_told(levels, each, eta.shape[:-1]) for each in (said, static))
            parts = eta.split([outputs[t].eta.shape[-1] for t in group], -1)
            for t, own in zip(group, parts, strict=True):
                views = [own, told, stated, outputs[t].eta]
                if t in layers:
                    views.append(_slopes(layers[t], told @ drawn.hidden[t]))
                before = self.sums.get(t, [torch.zeros(())] * len(views))
                self.sums[t] = [sum(pair) for pair in zip(before, views, strict=True)]

    def choose(self, couplings: Couplings) -> None:
        """Hold all gates to observed outputs at their posterior, by the runs added so far."""
        observed = [t for t, output in enumerate(self.outputs) if output.site["is_observed"]]
        found = couplings.chosen.double()
        for t in observed:
            found[:, t] = gate_log_probabilities(self._regression(t, couplings), found[:, t])
        if couplings.symmetric:
            found = (found + found.transpose(0, 1) - couplings.prior).log_softmax(-1)
        couplings.choose(found, observed)

    def _regression(self, t: int, couplings: Couplings) -> Regression:
        output, size = self.outputs[t], couplings.sizes[t]
        site, response = output.site, output.response
        batch = torch.broadcast_shapes(output.eta.shape[:-1], site["value"].shape)
        precision = torch.as_tensor(site["scale"]) / response.noise(site["fn"])
        if isinstance(site["mask"], Tensor):
            precision = precision * site["mask"]
        precision = precision.expand(batch).flatten().double()
        rows = precision > 0

        def table(values: Tensor, ndim: int = 1) -> Tensor:
            own = values.shape[-ndim:]
            return values.expand(*batch, *own).reshape(-1, *own)[rows].double()

        eta, told, stated, own, *slopes = (each / self.num_runs for each in self.sums[t])
        slab, features, weights = couplings.slab.double(), {}, {}
        told = table(told) * slab
        for s, at in enumerate(couplings.places()):
            if s == t:
                continue
            features[s, 1] = told[:, None, at]
            weight = self.drawn.weight[at][:, couplings.places()[t]].mT
            weights[s, 1] = weight.double() / slab[at]
            if slopes:
                into = table(slopes[0], 2)  # (N, J, H)
                features[s, 2] = (told[:, None, at, None] * into[:, :, None]).flatten(2)
                hidden = self.drawn.hidden[t][at].double() / slab[at, None]
                weights[s, 2] = hidden.flatten().expand(size, -1)
        elsewhere = couplings.output_of != t
        stated = table(stated)[:, None, elsewhere].expand(-1, size, -1)
        own = table(own)[..., None]
        return Regression(
            response,
            table(eta),
            table(response.encode(site["value"], size)),
            precision[rows, None],
            features,
            weights,
            torch.cat([torch.ones_like(own), own, stated], -1),
        )


def _told(levels: Sequence[Level], values: State, batch: torch.Size) -> Tensor:
    """Return values of all outputs as an output of a batch shape hears them, (*batch, P)."""
    heard = [
        average_over(v, batch, level.mask).expand(*batch, -1)
        for level, v in zip(levels, values, strict=True)
    ]
    return torch.cat(heard, -1)[..., torch.cat([level.columns for level in levels]).argsort()]


def _slopes(layer: Any, shift: Tensor) -> Tensor:
    """Return the slopes of an output's numbers in its hidden layer, (*batch, J, H)."""
    hidden, linear, *activation = layer
    act = activation[0] if activation else torch.relu
    with torch.enable_grad():
        fed = (hidden + shift).detach().requires_grad_()
        (slope,) = torch.autograd.grad(act(fed).sum(), fed)
    return slope[..., None, :] * linear.weight
