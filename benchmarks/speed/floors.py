"""The least that a training step has to do: its matrix products and elementwise passes in torch.

A floor draws what the method draws, computes the same loss on the same shapes, goes backward with
autograd, and moves the parameters with torch's fused Adam. It has no plates, distributions,
schedules, masks of rows that all exist, checks, or history. The difference is overhead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed.problems import Shapes

__all__ = ["latent_floor", "linear_floor"]

KL_WEIGHT = 0.2


def linear_floor(shapes: Shapes, data: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    """Return a step of the preset ``shared``: shared coefficients of the features."""
    num_tasks, size = shapes.T, data["x"].shape[-1]
    coefficients = _Coefficients(num_tasks, shapes.C * size, data["x"].device)

    def loss() -> Tensor:
        w, kl = coefficients()
        logits = data["x"] @ w.view(num_tasks, shapes.C, size).mT
        return (
            functional.cross_entropy(logits.flatten(0, 1), data["y"].flatten(), reduction="sum")
            + kl
        )

    return _step(loss, coefficients.parameters)


def latent_floor(shapes: Shapes, data: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    """Return a step of ``vmtl``: shared coefficients and representations."""
    num_tasks, device = shapes.T, data["x"].device
    coefficients = _Coefficients(num_tasks, shapes.C * (shapes.D + 1), device)
    logits_z = torch.zeros(num_tasks, num_tasks, device=device, requires_grad=True)
    raw_transfer_z = torch.full((num_tasks, 1), math.log(0.1), device=device, requires_grad=True)
    loc = torch.randn(shapes.F, shapes.D, device=device).div_(shapes.F**0.5).requires_grad_()
    raw_scale = torch.full_like(loc, math.log(0.1 / shapes.F**0.5)).requires_grad_()
    bias_loc = torch.zeros(shapes.D, device=device, requires_grad=True)
    raw_bias_scale = torch.full_like(bias_loc, -3.0).requires_grad_()
    anchor = torch.zeros(num_tasks, device=device)
    anchor[-1] = 1.0
    off = ~torch.eye(num_tasks, dtype=torch.bool, device=device)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.dropout(x, 0.2)
        var = x**2 @ (2 * raw_scale).exp() + (2 * raw_bias_scale).exp()
        return x @ loc + bias_loc, var

    def loss() -> Tensor:
        w, kl_w = coefficients()
        w = w.view(num_tasks, shapes.C, shapes.D + 1)
        mean, var = encode(data["x"])  # (T, N, D)
        z = mean + var.sqrt() * torch.randn_like(mean)
        logits = z @ w[..., :-1].mT + w[..., None, :, -1]

        source_mean, source_var = encode(data["counterparts"])  # (T, N, T - 1, D)
        transfer = (2 * raw_transfer_z).exp().expand(num_tasks, num_tasks).T[off]
        source_var = source_var + transfer.view(num_tasks, 1, -1, 1)
        square = (mean[..., None, :] - source_mean) ** 2 + var[..., None, :]
        from_sources = (square / source_var + source_var.log()).sum(-1)
        from_base = (mean**2 + var).sum(-1, keepdim=True)
        weights, kl_weights = _draw_weights(logits_z)
        weights = torch.lerp(weights, anchor, 1 / num_tasks)[:, None]
        pooled = (weights * torch.cat([from_sources, from_base], -1)).sum()
        kl_z = 0.5 * (pooled - var.log().sum())
        return _misfit(logits, data["y"]) + kl_w + 1e-4 * kl_z + kl_weights

    own = [logits_z, raw_transfer_z, loc, raw_scale, bias_loc, raw_bias_scale]
    return _step(loss, [*coefficients.parameters, *own])


class _Coefficients:
    """Draw ``w`` (T, P) and its KL to the logarithmic pool, with base, transfer and anchor."""

    def __init__(self, num_tasks: int, size: int, device: torch.device) -> None:
        self.num_tasks, self.size = num_tasks, size
        self.loc = torch.zeros(num_tasks, size, device=device, requires_grad=True)
        self.raw_scale = torch.full_like(self.loc, math.log(0.1)).requires_grad_()
        self.logits = torch.zeros(num_tasks, num_tasks, device=device, requires_grad=True)
        self.raw_transfer = torch.full((num_tasks, 1), math.log(0.1), device=device)
        self.raw_transfer.requires_grad_()
        self.raw_base_scale = torch.zeros((), device=device, requires_grad=True)
        self.parameters = [
            self.loc,
            self.raw_scale,
            self.logits,
            self.raw_transfer,
            self.raw_base_scale,
        ]
        # Sources off the diagonal and the base on it: multiplication takes any order.
        self.anchor = torch.eye(num_tasks, device=device)

    def __call__(self) -> tuple[Tensor, Tensor]:
        scale = self.raw_scale.exp()
        w = torch.addcmul(self.loc, scale, torch.randn_like(scale))
        var = scale**2
        square = self.loc**2 + var
        total_var = var + (2 * self.raw_transfer).exp()
        precision = total_var.reciprocal()
        scaled = self.loc * precision
        constant = (self.loc * scaled + total_var.log()).sum(-1)
        divergence = square @ precision.mT - 2 * (self.loc @ scaled.mT) + constant
        base = square.sum(-1) * (-2 * self.raw_base_scale).exp()
        base = base + 2 * self.size * self.raw_base_scale
        weights, kl_weights = _draw_weights(self.logits)
        weights = torch.lerp(weights, self.anchor, 1 / self.num_tasks)
        diagonal = torch.eye(self.num_tasks, dtype=torch.bool, device=weights.device)
        pooled = (weights * torch.where(diagonal, base[:, None], divergence)).sum()
        kl = 0.5 * (pooled - 2 * self.raw_scale.sum() - self.num_tasks * self.size)
        return w, KL_WEIGHT * (kl + kl_weights)


def _misfit(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")


def _draw_weights(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Draw Concrete weights at temperature 1, and their KL from even ones at that draw."""
    noise = torch.empty_like(logits).exponential_().log_()
    log_weights = (logits - noise).log_softmax(-1)
    num = logits.shape[-1]
    log_q = num * (logits - log_weights).logsumexp(-1)
    log_p = num * (-log_weights).logsumexp(-1)
    return log_weights.exp(), (logits.sum(-1) - log_q + log_p).sum()


def _step(loss: Callable[[], Tensor], parameters: list[Tensor]) -> Callable[[], Tensor]:
    optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value

    return step
