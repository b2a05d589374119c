r"""What feeds what, and how strongly: gates and weights with their posteriors.

================ =============================================== ==========================
symbol           meaning                                         shape
================ =============================================== ==========================
:math:`z_{st}`   gate: no feedback from output s to t, feedback  ``gate_logits`` (T, T, G)
                 to its parameter, or to its hidden layer
:math:`A_{st}`   weights to the parameter                        ``loc``, ``scale`` (P, P)
:math:`U_{st}`   weights to the hidden layer                     ``hidden_loc[t]`` (P, H)
================ =============================================== ==========================

A weight is normal a priori, with the inverse of the slope of the mean that is fed as its scale,
and counts where its gate is open: a spike and a slab. The posterior is
:math:`q(z) \prod N(m, s^2)`, whose KL has a closed form and is part of the loss. Sampling a gate as
a ``RelaxedOneHotCategorical``, straight through, lets a gradient pass that would have none through
a choice. Once the weights are near their place, the evidence chooses (:meth:`Couplings.choose`).

References
----------
Titsias, M. K. and Lázaro-Gredilla, M. (2011). Spike and Slab Variational Inference for Multi-Task
and Multiple Kernel Learning. NeurIPS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vmtl.handlers.schedules import Exponential, Schedule, Scheduled
from pyro_vmtl.outputs.iteration import spectral_radius

__all__ = ["MAX_RADIUS", "Couplings", "Drawn", "Gates"]

Gates = Literal["hard", "soft", "on"]

MAX_RADIUS = 0.9
"""Bound on the spectral radius: the outputs come closer to the fixed point by it, or faster."""

PRIOR_NONE = 0.9
"""Prior probability that an output does not feed another."""

CLOSED = -8.0
"""Logits of closed gates at the start: all are open until their weights could have shown a use."""

TEMPERATURE = Exponential(1.0, 0.5, steps=1000)


class Drawn(NamedTuple):
    """Weights of one run, those of hidden layers by output."""

    weight: Tensor  # (P, P)
    hidden: dict[int, Tensor]  # (P, H)
    radius: Tensor  # (), the bound on the spectral radius before it was enforced


class Couplings(Scheduled):
    """Gates and weights between T outputs.

    Parameters
    ----------
    sizes
        Number of numbers of each output; P is their sum.
    slopes
        Lipschitz constant of the mean of each output.
    hidden_sizes
        Width H of the hidden layer that outputs have, by their position.
    gates
        ``"hard"``, ``"soft"`` or ``"on"``, as in :func:`~pyro_vmtl.feedback`.
    symmetric
        Whether the weights from s to t are those from t to s.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        slopes: Sequence[float],
        hidden_sizes: Mapping[int, int],
        *,
        gates: Gates,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.gates = gates
        self.symmetric = symmetric
        num, total = len(self.sizes), sum(self.sizes)
        places = torch.arange(num).repeat_interleave(torch.tensor(self.sizes))
        prior = torch.full((num, 3 if hidden_sizes else 2), 1 - PRIOR_NONE)
        prior[:, 0] = PRIOR_NONE
        if hidden_sizes:
            has_hidden = torch.tensor([t in hidden_sizes for t in range(num)])
            prior[:, 1:] /= 1.0 + has_hidden[:, None]
            prior[~has_hidden, 2] = 1e-30
        self.temperature: Tensor
        self.output_of: Tensor
        self.slopes: Tensor
        self.off: Tensor
        self.prior: Tensor
        self.reference: Tensor
        self.slab: Tensor
        self.chosen: Tensor
        self.is_chosen: Tensor
        self.register_buffer("output_of", places)
        self.register_buffer("slopes", torch.tensor(slopes))
        self.register_buffer("off", 1 - torch.eye(num))
        self.register_buffer("prior", prior.log())
        self.register_buffer("reference", torch.zeros(total))
        self.register_buffer("slab", 1 / self.slopes[places])
        self.register_buffer("chosen", prior.log().repeat(num, 1, 1))
        self.register_buffer("is_chosen", torch.zeros(num, 1, dtype=torch.bool))
        self.loc = nn.Parameter(torch.zeros(total, total))
        self.raw_scale = nn.Parameter(torch.full((total, total), 0.1).log())
        width = {str(t): (total, size) for t, size in hidden_sizes.items()}
        # not 0: two outputs that feed each other's hidden layers would stay there
        self.hidden_loc = nn.ParameterDict({t: 0.1 * torch.randn(s) for t, s in width.items()})
        self.raw_hidden_scale = nn.ParameterDict(
            {t: torch.full(s, 0.1).log() for t, s in width.items()}
        )
        start = torch.where(prior > 1e-30, 0.0, prior.log())
        start[:, 0] = CLOSED
        self.gate_logits = nn.Parameter(start.repeat(num, 1, 1))
        self.schedules: dict[str, Schedule] = {"temperature": TEMPERATURE}
        self.register_buffer("temperature", torch.tensor(TEMPERATURE(0)))

    def at_step(self, step: int) -> None:
        """Set the temperature to its value at a step of the fit."""
        self.temperature.fill_(TEMPERATURE(step))

    def probabilities(self) -> Tensor:
        """Return the posterior of the gates, (T, T, G), from rows to columns; 0 on the diagonal."""
        if self.gates == "on":
            always = torch.zeros_like(self.gate_logits)
            always[..., 1] = 1
            return always * self.off[..., None]
        learned = self.gate_logits.softmax(-1)
        return torch.where(self.is_chosen, self.chosen.exp(), learned) * self.off[..., None]

    def choose(self, log_probabilities: Tensor, outputs: Sequence[int]) -> None:
        """Hold the gates to some outputs at a posterior, (T, T, G): hard ones at its mode."""
        self.chosen.copy_(log_probabilities)
        self.is_chosen[list(outputs)] = True

    def _held(self) -> Tensor:
        """Return the gates as they are held once chosen, and the posterior of others."""
        held = self.probabilities()
        if self.gates == "hard":
            mode = nn.functional.one_hot(held.argmax(-1), held.shape[-1]).to(held)
            held = torch.where(self.is_chosen, mode * self.off[..., None], held)
        return held

    def draw(self, layer_norms: Mapping[int, Tensor]) -> Drawn:
        r"""Draw gates and weights, and scale the weights to a spectral radius of at most 0.9.

        Outputs change by at most :math:`M_{ts} = L_s (|A_{st}|_2 + |W_t|_2 |U_{st}|_2)` times the
        change of output s, with the slope :math:`L_s` of its mean and the last layer :math:`W_t`.
        A spectral radius of M below 1 makes the iteration a contraction in a weighted norm.

        Parameters
        ----------
        layer_norms
            Spectral norm of the last layer of the outputs that have a hidden one.
        """
        gates, spread = self._draw_gates(), self.output_of
        weight = _normal(self.loc, self.raw_scale) * gates[..., 1][spread][:, spread]
        if self.symmetric:
            weight = (weight + weight.mT) / 2
        gains = _block_norms(weight.detach(), self.sizes, self.sizes)
        hidden = {}
        for key, loc in self.hidden_loc.items():
            t = int(key)
            hidden[t] = _normal(loc, self.raw_hidden_scale[key]) * gates[spread, t, 2][:, None]
            norms = _block_norms(hidden[t].detach(), self.sizes, [loc.shape[1]])[:, 0]
            gains[:, t] += layer_norms[t] * norms
        radius = spectral_radius(gains * self.slopes[:, None])
        factor = (MAX_RADIUS / radius.clamp(min=1e-6)).clamp(max=1)
        return Drawn(weight * factor, {t: each * factor for t, each in hidden.items()}, radius)

    def _draw_gates(self) -> Tensor:
        if self.gates == "on":
            return self.probabilities()
        kind = dist.RelaxedOneHotCategorical
        if self.gates == "hard":
            kind = dist.RelaxedOneHotCategoricalStraightThrough
        drawn: Tensor = kind(
            self.temperature, logits=self.gate_logits, validate_args=False
        ).rsample()
        return torch.where(self.is_chosen, self._held(), drawn * self.off[..., None])

    def kl(self) -> Tensor:
        """Compute the KL of gates and weights from their priors, ()."""
        held, spread = self._held(), self.output_of
        of_weights = self._normal_kl(self.loc, self.raw_scale)
        total = (held[..., 1][spread][:, spread] * of_weights).sum()
        for t, loc in self.hidden_loc.items():
            of_weights = self._normal_kl(loc, self.raw_hidden_scale[t])
            total = total + (held[spread, int(t), 2][:, None] * of_weights).sum()
        if self.gates == "on":
            return total
        log_ratio = self.gate_logits.log_softmax(-1) - self.prior
        of_gates = (self.gate_logits.softmax(-1) * log_ratio).sum(-1)
        return total + (of_gates * self.off).where(~self.is_chosen[:, 0], 0.0).sum()

    def _normal_kl(self, loc: Tensor, raw_scale: Tensor) -> Tensor:
        """Compute the KL of weights (P, ...) from their prior."""
        slab = self.slab[:, None]
        variance = loc.square() + (2 * raw_scale).exp()
        return (variance / slab.square() - 1) / 2 - raw_scale + slab.log()


def _normal(loc: Tensor, raw_scale: Tensor) -> Tensor:
    return loc + raw_scale.exp() * torch.randn_like(loc)


def _block_norms(matrix: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Compute the spectral norm of each block of a matrix."""
    if set(rows) == set(columns) == {1}:
        return matrix.abs()
    norms = [
        torch.stack([torch.linalg.matrix_norm(b, ord=2) for b in block.split([*columns], 1)])
        for block in matrix.split([*rows], 0)
    ]
    return torch.stack(norms)
