"""What the feedback of a program consists of: its settings, parameters and one solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vmtl.outputs.choosing import Choosing
from pyro_vmtl.outputs.convergence import Convergence
from pyro_vmtl.outputs.couplings import Couplings, Drawn, Gates
from pyro_vmtl.outputs.iteration import Dynamics, HiddenInput, Level, fixed_point, merged
from pyro_vmtl.outputs.messengers import Output, TakeOutputs

__all__ = ["Feedback"]

RUNS = 30
"""Runs by whose means and variances gates are chosen."""


class Feedback(nn.Module):
    """Settings and parameters of the feedback in a program; the latter are made when it first runs.

    Attributes
    ----------
    sites
        Names of the outputs.
    num_iterations
        K, which may be changed at any time; None for the fixed point.
    couplings
        Gates and weights.
    """

    def __init__(
        self,
        sites: tuple[str, ...],
        num_iterations: int | None,
        gates: Gates,
        convergence: Convergence | None,
        symmetric: bool,
    ) -> None:
        super().__init__()
        self.sites = sites
        self.num_iterations = num_iterations
        self.gates = gates
        self.convergence = convergence
        self.symmetric = symmetric
        self.couplings: Couplings | None = None
        self._choosing: Choosing | None = None

    def choose_gates(self, run: Callable[[], Any]) -> None:
        """Open or shut each gate by its evidence, from runs of the program on its training rows.

        Gates to outputs without observed values are left to the fit.
        """
        if self.gates == "on" or self.num_iterations == 0:
            return
        self._choosing = choosing = Choosing()
        try:
            for _ in range(RUNS):
                run()
        finally:
            self._choosing = None
        assert self.couplings is not None
        choosing.choose(self.couplings)

    def solve(self, taken: TakeOutputs) -> dict[str, list[Tensor]]:
        r"""Return the natural parameters of each output, (\*batch, size), at all iterations.

        At a fixed point there is only the last.
        """
        outputs = _with_equal_draws([taken.outputs[site] for site in self.sites])
        layers = {t: taken.layers[s][1:] for t, s in enumerate(self.sites) if s in taken.layers}
        if self.couplings is None:
            self.couplings = self._new_couplings(outputs, layers)
        norms = {
            t: torch.linalg.matrix_norm(layer[1].weight.detach(), ord=2)
            for t, layer in layers.items()
        }
        drawn = self.couplings.draw(norms)
        groups = _groups(outputs)
        levels = [self._level(group, outputs, layers, drawn) for group in groups]
        step, state = Dynamics(levels, drawn.weight), [level.static for level in levels]
        if self.num_iterations is None:
            states = [fixed_point(step, state)]
        else:
            states = [state]
            for _ in range(self.num_iterations):
                states.append(step(states[-1]))
        if self._choosing is not None:
            self._choosing.add(levels, states[-2:][0], outputs, layers)
        found: dict[str, list[Tensor]] = {}
        for level, group in enumerate(groups):
            sizes = [self.couplings.sizes[t] for t in group]
            parts = [state[level].split(sizes, -1) for state in states]
            for place, t in enumerate(group):
                found[self.sites[t]] = [part[place] for part in parts]
        return found

    def _new_couplings(self, outputs: list[Output], layers: Mapping[int, Any]) -> Couplings:
        sizes = [output.eta.shape[-1] for output in outputs]
        widths = {t: layer[0].shape[-1] for t, layer in layers.items()}
        slopes = [output.response.slope for output in outputs]
        couplings = Couplings(sizes, slopes, widths, gates=self.gates, symmetric=self.symmetric).to(
            outputs[0].eta
        )
        couplings.reference.copy_(torch.cat([_mean_of_rows(output) for output in outputs]))
        return couplings

    def _level(
        self, group: list[int], outputs: list[Output], layers: Mapping[int, Any], drawn: Drawn
    ) -> Level:
        couplings = self.couplings
        assert couplings is not None
        own = [outputs[t] for t in group]
        sizes = [couplings.sizes[t] for t in group]
        columns = torch.cat([(couplings.output_of == t).nonzero()[:, 0] for t in group])
        hidden, at = [], 0
        for t, size in zip(group, sizes, strict=True):
            if t in layers:
                before, linear, *activation = layers[t]
                act = activation[0] if activation else torch.relu
                layer = partial(_apply_layer, linear, act)
                hidden.append(HiddenInput(slice(at, at + size), layer, before, drawn.hidden[t]))
            at += size
        known = None
        if any(output.known is not None for output in own):
            known = torch.cat([_known(output) for output in own], -1)
        masks = [output.site["mask"] for output in own]
        mask = None
        if any(isinstance(each, Tensor) for each in masks):
            mask = torch.cat([_mask(output) for output in own], -1)
        return Level(
            columns,
            merged(zip((output.response for output in own), sizes, strict=True)),
            torch.cat([output.eta for output in own], -1),
            couplings.reference[columns],
            tuple(hidden),
            known,
            mask,
        )


def _with_equal_draws(outputs: list[Output]) -> list[Output]:
    """Expand outputs to the same dimensions to the left of all plates, as of draws at once."""
    inner = max(output.num_plates for output in outputs)
    shapes = [output.eta.shape[:-1] for output in outputs]
    draws = torch.broadcast_shapes(*(shape[: max(len(shape) - inner, 0)] for shape in shapes))
    if not draws:
        return outputs
    expanded = []
    for output, shape in zip(outputs, shapes, strict=True):
        plates = shape[max(len(shape) - inner, 0) :]
        batch = (*draws, *[1] * (inner - len(plates)), *plates)
        expanded.append(replace(output, eta=output.eta.expand(*batch, output.eta.shape[-1])))
    return expanded


def _groups(outputs: list[Output]) -> list[list[int]]:
    """Return the positions of outputs by their batch shape."""
    groups: dict[torch.Size, list[int]] = {}
    for t, output in enumerate(outputs):
        groups.setdefault(output.eta.shape[:-1], []).append(t)
    return list(groups.values())


def _apply_layer(linear: nn.Linear, activation: Any, hidden: Tensor) -> Tensor:
    return linear(activation(hidden))


def _known(output: Output) -> Tensor:
    if output.known is None:
        return torch.full_like(output.eta, float("nan")).detach()
    try:
        return output.known.to(output.eta.dtype).expand(output.eta.shape)
    except RuntimeError:
        raise ValueError(
            f"What is known of output {output.name!r} has shape {tuple(output.known.shape)}, "
            f"expected {tuple(output.eta.shape)}: a mean for each number of the output."
        ) from None


def _mask(output: Output) -> Tensor:
    mask = output.site["mask"]
    if not isinstance(mask, Tensor):
        mask = torch.ones((), dtype=torch.bool, device=output.eta.device)
    return mask[..., None].expand(output.eta.shape)


def _mean_of_rows(output: Output) -> Tensor:
    """Return the mean of the observed values, (size,), or of the predictions if there are none."""
    size = output.eta.shape[-1]
    if output.site["is_observed"]:
        means = output.response.encode(output.site["value"], size).to(output.eta)
    else:
        means = output.response.mean(output.eta).detach()
    counts = _mask(output).reshape(-1, size).to(output.eta)
    means = means.expand(output.eta.shape).reshape(-1, size)
    return (means * counts).sum(0) / counts.sum(0).clamp(min=1)
