r"""Several outputs of each row of a table: linear in the features, or by a hidden layer.

=================== ========================================= ============= =================
symbol              meaning                                   site          shape
=================== ========================================= ============= =================
:math:`x_n`         features of row n                         (given)       ``data.x`` (N, F)
:math:`w`           coefficients of all outputs, and their    ``w``         (P, F + 1)
                    intercepts
:math:`\tau_t`      scale of the coefficients of output t     (learned)     (T,)
:math:`y_{tn}`      output t of row n                         ``y_{name}``  (N,)
=================== ========================================= ============= =================

An output of two classes is Bernoulli, of more classes Categorical, with as many numbers of the P,
and a real one Normal. Missing values have no likelihood. Neither model knows of feedback.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.output_data import OutputData
from pyro_vmtl.handlers.output_layer import output_layer

__all__ = ["LinearOutputs", "MLPOutputs", "output_site"]

INTERCEPT_SCALE = 5.0


def output_site(name: str) -> str:
    """Return the name of the site of an output."""
    return f"y_{name}"


class _Outputs(nn.Module):
    """What both models have in common: noise of real outputs, and the likelihood."""

    fixed_graph = True

    def __init__(self, data: OutputData) -> None:
        super().__init__()
        self.raw_noise = nn.ParameterDict(
            {str(t): torch.zeros(()) for t, c in enumerate(data.classes.values()) if c is None}
        )

    def sample_outputs(self, data: OutputData, etas: list[Tensor]) -> None:
        r"""Sample each output from its logits or mean, (\*L, N, size)."""
        for t, (name, size) in enumerate(data.sizes.items()):
            fn: dist.TorchDistribution
            if size > 1:
                fn = dist.Categorical(logits=etas[t])
            elif str(t) in self.raw_noise:
                fn = dist.Normal(etas[t][..., 0], self.raw_noise[str(t)].exp())
            else:
                fn = dist.Bernoulli(logits=etas[t][..., 0])
            y = None if data.y is None else data.y[name]
            if y is not None and size == 1:
                y = y.to(data.x)
            with poutine.mask(mask=True if y is None else data.known[name]):
                pyro.sample(output_site(name), fn, obs=y)


class LinearOutputs(_Outputs):
    """Outputs linear in the features, with latent coefficients.

    Examples
    --------
    >>> data = OutputData.from_columns([[0.0], [1.0]], {"a": ["no", "yes"], "b": [0.5, 1.5]})
    >>> model = LinearOutputs(data)
    >>> [name for name in poutine.trace(model).get_trace(data).nodes if name.startswith("y")]
    ['y_a', 'y_b']
    """

    fixed_graph = True

    def __init__(self, data: OutputData) -> None:
        super().__init__(data)
        self.raw_scales = nn.Parameter(torch.zeros(len(data.classes)))

    def forward(self, data: OutputData) -> None:
        """Sample coefficients and outputs."""
        sizes = [*data.sizes.values()]
        scales = self.raw_scales.exp().repeat_interleave(torch.tensor(sizes))[:, None]
        scales = torch.cat(
            [scales.expand(-1, data.num_features), torch.full_like(scales, INTERCEPT_SCALE)], -1
        )
        w = pyro.sample("w", dist.Normal(torch.zeros_like(scales), scales).to_event(2))
        w = w.squeeze(-3) if w.ndim > 2 else w  # draws at once: rows take the place of that plate
        eta = data.x @ w[..., :-1].mT + w[..., -1].unsqueeze(-2)
        with pyro.plate("data", data.num_rows):
            self.sample_outputs(data, list(eta.split(sizes, -1)))


class MLPOutputs(_Outputs):
    """Outputs on a hidden layer that all have in common, with point estimates.

    The last layer is an :func:`~pyro_vmtl.output_layer`, so that feedback may enter before it.

    Parameters
    ----------
    data
        Rows, of which only features and outputs are looked at.
    hidden_size
        H, the width of the hidden layer.

    Examples
    --------
    >>> data = OutputData.from_columns([[0.0], [1.0]], {"a": ["no", "yes"], "b": [0.5, 1.5]})
    >>> poutine.trace(MLPOutputs(data, 4)).get_trace(data).nodes["y_b"]["fn"].batch_shape
    torch.Size([2])
    """

    fixed_graph = True

    def __init__(self, data: OutputData, hidden_size: int) -> None:
        super().__init__(data)
        self.first = nn.Linear(data.num_features, hidden_size)
        self.last = nn.ModuleList(nn.Linear(hidden_size, size) for size in data.sizes.values())

    def forward(self, data: OutputData) -> None:
        """Sample outputs."""
        hidden = self.first(data.x)
        # weights are normal a priori, with the scale of their start
        layers = [self.first, *self.last]
        penalty = sum((layer.in_features * layer.weight.square()).sum() / 2 for layer in layers)
        pyro.factor("weights", -penalty)
        with pyro.plate("data", data.num_rows):
            etas = [
                output_layer(output_site(name), hidden, last)
                for name, last in zip(data.sizes, self.last, strict=True)
            ]
            self.sample_outputs(data, etas)
