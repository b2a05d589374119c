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
        self.states: list[list[Tensor]] = []
        self.outputs: list[list[Output]] = []
        self.slopes: list[dict[int, Tensor]] = []

    def add(
        self,
        levels: Sequence[Level],
        state: State,
        outputs: list[Output],
        layers: Mapping[int, Any],
    ) -> None:
        """Add a run: what each output states, and hears of the others in a state."""
        self.levels = levels
        self.states.append(state)
        self.outputs.append(outputs)
        self.slopes.append({t: _slopes(*layer) for t, layer in layers.items()})

    @torch.no_grad()
    def choose(self, couplings: Couplings) -> None:
        """Hold all gates to observed outputs at their posterior, by the runs added so far."""
        outputs = self.outputs[-1]
        found = couplings.prior.double().expand_as(couplings.chosen).clone()
        observed = [t for t, output in enumerate(outputs) if output.site["is_observed"]]
        if not all(_has_rows_of(run[t], outputs[t]) for run in self.outputs for t in observed):
            return  # each run has other rows: the gates are left to the fit
        own, after = dict[int, Tensor](), dict[int, Tensor]()
        stated, said = [], []
        for level, *runs in zip(self.levels, *self.states, strict=True):
            at = couplings.output_of[level.columns].unique_consecutive().tolist()
            fed = (sum(runs) / len(runs)).split([couplings.sizes[t] for t in at], -1)
            after |= dict(zip(at, fed, strict=True))
            shares = []
            for t, eta in zip(at, fed, strict=True):
                draws = torch.stack([run[t].eta for run in self.outputs])
                own[t], seen = draws.mean(0), torch.zeros_like(eta)
                shares.append(_own_share(outputs[t], eta, draws.var(0)) if t in observed else seen)
            share = torch.cat(shares, -1)
            stated.append(torch.cat([own[t] for t in at], -1) - share)
            means = sum(level.means(run - share) for run in runs) / len(runs)
            said.append(means - level.reference)
        for t in observed:
            batch = own[t].shape[:-1]
            views = [
                own[t],
                after[t],
                *(_heard(self.levels, each, batch) for each in (stated, said)),
            ]
            if t in self.slopes[-1]:
                views.append(torch.stack([run[t] for run in self.slopes]).mean(0))
            rows = _regression(outputs[t], t, couplings, *views)
            found[:, t] = gate_log_probabilities(rows, found[:, t])
        if couplings.symmetric:
            found = (found + found.transpose(0, 1) - couplings.prior).log_softmax(-1)
        couplings.choose(found, observed)


def _has_rows_of(one: Output, other: Output) -> bool:
    """Whether two runs have the same values of an output."""
    values = one.site["value"], other.site["value"]
    return values[0] is values[1] or torch.equal(*map(torch.nan_to_num, values))


def _precision(output: Output) -> Tensor:
    """Return the precision of each value, 0 where there is none."""
    site = output.site
    precision = site["scale"] / output.response.noise(site["fn"]).to(output.eta)
    if isinstance(site["mask"], Tensor):
        precision = precision * site["mask"]
    return precision.expand(site["value"].shape)[..., None]


def _own_share(output: Output, eta: Tensor, variance: Tensor) -> Tensor:
    """Return what a row's own value has moved its prediction by, to the first order, as eta.

    A prediction that has seen the value would tell other outputs more of it than one of new rows.
    """
    response, precision = output.response, _precision(output)
    mean = response.mean(eta)
    residual = response.encode(output.site["value"], eta.shape[-1]) - mean
    residual = torch.where(precision > 0, residual, 0.0)
    leverage = precision * variance * response.variance(mean)
    return precision * variance * residual / (1 - leverage.clamp(max=0.9))


def _regression(
    output: Output,
    t: int,
    couplings: Couplings,
    eta: Tensor,
    fed: Tensor,
    stated: Tensor,
    heard: Tensor,
    slopes: Tensor | None = None,
) -> Regression:
    site, response, size = output.site, output.response, eta.shape[-1]
    batch, precision = site["value"].shape, _precision(output)
    rows = (precision > 0).flatten()

    def table(values: Tensor, ndim: int = 1) -> Tensor:
        own = values.shape[values.ndim - ndim :]
        return values.expand(*batch, *own).reshape(-1, *own)[rows].double()

    heard = table(heard * couplings.slab)
    features = {}
    for s in range(len(couplings.sizes)):
        if s == t:
            continue
        features[s, 1] = heard[:, None, couplings.output_of == s]
        if slopes is not None:
            features[s, 2] = (features[s, 1][..., None] * table(slopes, 2)[:, :, None]).flatten(2)
    own, stated = table(eta)[..., None], table(stated)[:, None, couplings.output_of != t]
    always = [torch.ones_like(own), own, stated.expand(-1, size, -1)]
    value, weight = table(response.encode(site["value"], size)), table(precision)
    return Regression(
        response, own[..., 0], table(fed), value, weight, features, torch.cat(always, -1)
    )


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
