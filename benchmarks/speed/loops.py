"""The objective of the preset ``shared`` in plain torch, by loops over tasks and sources.

It follows the formulas with torch's own distributions and shares no code with the library. With the
same seed it draws the same random numbers, and so has the same loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from benchmarks.speed.steps import Prepared
from pyro_vmtl.handlers.isolation import validation

__all__ = ["loop_step"]


def loop_step(prepared: Prepared, kl_weight: float) -> Callable[[], Tensor]:
    """Return a training step that starts at the current parameters.

    Parameters
    ----------
    prepared
        The step of ``shared``.
    kl_weight
        Weight of the KL of coefficients and source weights.
    """
    found = {
        name.split(".", 1)[1].rsplit("program.")[-1]: parameter.detach()
        for name, parameter in prepared.of.loss_of.named_parameters()
    }
    data, num_tasks = prepared.data, prepared.data.num_tasks

    def parts(name: str) -> list[Tensor]:
        value = next(v for key, v in found.items() if key.endswith(name))
        return [part.clone().requires_grad_() for part in value]

    locs, raw_scales = parts("locs.w"), parts("raw_scales.w")
    logits, raw_transfers = parts("logits"), parts("raw_transfer_scale")
    (raw_common,) = (
        v.clone().requires_grad_() for k, v in found.items() if k.endswith("raw_common_scales.w")
    )
    (raw_base,) = (
        v.clone().requires_grad_() for k, v in found.items() if k.endswith("prior.raw_scale")
    )

    def loss() -> Tensor:
        of_sources = prepared.of.sources["w"]
        temperature = of_sources.temperature.item()
        prior_temperature = of_sources.prior_temperature or temperature
        uniform = torch.rand(num_tasks, 1, num_tasks)
        noise = torch.empty(num_tasks, *locs[0].shape).normal_()
        total = torch.zeros(())
        posteriors = [
            Normal(loc, (raw + raw_common).exp()) for loc, raw in zip(locs, raw_scales, strict=True)
        ]
        base = Normal(torch.zeros(()), raw_base.exp())
        sources = [
            Normal(q.loc, (q.variance + (2 * raw).exp()).sqrt())
            for q, raw in zip(posteriors, raw_transfers, strict=True)
        ]
        for t, posterior in enumerate(posteriors):
            w = posterior.loc + posterior.scale * noise[t]
            rows = data.mask[t]
            scores = data.x[t, rows] @ w.squeeze(0).T
            total = total - Categorical(logits=scores).log_prob(data.y[t, rows]).sum()

            eps = torch.finfo(uniform.dtype).eps
            gumbel = -(-uniform[t, 0].clamp(eps, 1 - eps).log()).log()
            log_weights = ((logits[t] + gumbel) / temperature).log_softmax(0)
            q, p = (
                ExpRelaxedCategorical(torch.tensor(tau), logits=values)
                for tau, values in (
                    (temperature, logits[t]),
                    (prior_temperature, torch.zeros(num_tasks)),
                )
            )
            kl = q.log_prob(log_weights) - p.log_prob(log_weights)

            weights = log_weights.exp() * (1 - 1 / num_tasks)
            kl = kl + (weights[-1] + 1 / num_tasks) * kl_divergence(posterior, base).sum()
            for k, i in enumerate(i for i in range(num_tasks) if i != t):
                kl = kl + weights[k] * kl_divergence(posterior, sources[i]).sum()
            total = total + kl_weight * kl
        return total

    parameters = [*locs, *raw_scales, *logits, *raw_transfers, raw_common, raw_base]
    optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        with validation(False):
            value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step
