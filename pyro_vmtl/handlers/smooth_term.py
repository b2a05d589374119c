r"""Smooth functions of the features in the linear predictors of any program.

One that all tasks have in common (:func:`add_smooth_term`), or one of each task
(:func:`expand_features`):

.. math:: w_t^\top x_{tn} + u^\top \varphi(x_{tn}), \quad u \sim N(0, c^2 I), \qquad
    w_t^\top (x_{tn}, \varphi(x_{tn}))

With kernel features :math:`\varphi` they are Gaussian processes. The program, which computes
:math:`w_t^\top x_{tn}` by :func:`~pyro_vmtl.handlers.linear_predictor.linear_predictor`, does not
know of them: likelihood, prior and sharing are those of a linear model.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vmtl.handlers.linear_predictor import arguments
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler

__all__ = ["SITE", "add_smooth_term", "expand_features", "expand_rows"]

SITE = "smooth"
"""Name of the site of the coefficients u, outside all plates."""


def add_smooth_term(
    model: Program, guide: Program, features: nn.Module, loc: Tensor, scale: Tensor
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    r"""Add a function of the features to the linear predictors of a model.

    Parameters
    ----------
    model, guide
        Pyro programs with the plates ``task`` and ``data``.
    features
        Returns features (\*L, M) of rows (\*L, F), for example
        :class:`~pyro_vmtl.models.KernelFeatures`.
    loc, scale
        (M,), or (C, M) for C predictors of a row: initial means and standard deviations of the
        posterior of the coefficients, which is independent normal.

    Returns
    -------
    tuple
        Model and guide with a further latent site ``"smooth"``. The scale of its prior is learned.

    Examples
    --------
    >>> from pyro import poutine
    >>> from pyro_vmtl import Preset
    >>> features = nn.Linear(data.num_features, 4)
    >>> start = torch.zeros(4), torch.ones(4)
    >>> model, guide = add_smooth_term(*Preset(shared=()).programs(data), features, *start)
    >>> poutine.trace(model).get_trace(data).nodes["smooth"]["fn"].event_shape
    torch.Size([4])
    """
    term = _Term(features, loc, scale)
    return ProgramWithHandler(model, _Add, term), ProgramWithHandler(guide, _Draw, term)


def expand_features(model: Program, features: nn.Module) -> ProgramWithHandler:
    """Append features, as of :func:`add_smooth_term`, to those in a model's linear predictors.

    Examples
    --------
    >>> from pyro_vmtl.models import LinearCounts, StandardNormal
    >>> linear = LinearCounts(StandardNormal([data.num_features + 4]))
    >>> model = expand_features(linear, nn.Linear(data.num_features, 4))
    >>> model(data.without_targets())
    """
    return ProgramWithHandler(model, _Expand, _Expanded(features))


def expand_rows(model: nn.Module, x: Tensor) -> Tensor:
    """Return rows with the features that the linear predictors of a model have."""
    for part in model.modules():
        x = part(x) if isinstance(part, _Expanded) else x
    return x


class _Expanded(nn.Module):
    """Rows with features that are appended."""

    fixed_graph = True

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.features(x)], -1)


class _Term(nn.Module):
    """Features and numbers of the term, which model and guide have in common."""

    fixed_graph = True

    def __init__(self, features: nn.Module, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.features = features
        self.loc, self.raw_spread = nn.Parameter(loc.clone()), nn.Parameter(scale.log())
        self.raw_scale = nn.Parameter(torch.zeros(()))

    def draw(self, loc: Tensor, scale: Tensor) -> Tensor:
        """Sample the coefficients."""
        scale = scale.expand(self.loc.shape)
        return pyro.sample(SITE, dist.Normal(loc, scale).to_event(scale.ndim))


class _Handler(Messenger):
    """A handler with a state."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state


class _Draw(_Handler):
    """Draw the coefficients before a guide runs."""

    fixed_graph = True

    def __enter__(self) -> Any:
        self.state.draw(self.state.loc, self.state.raw_spread.exp())
        return super().__enter__()


class _Add(_Handler):
    """Draw the coefficients before a model runs, and add their features to its predictors."""

    fixed_graph = True

    def __enter__(self) -> Any:
        self.value = self.state.draw(torch.zeros_like(self.state.loc), self.state.raw_scale.exp())
        return super().__enter__()

    def _pyro_linear_predictor(self, msg: Any) -> None:
        given = arguments(msg)
        more = [*given.get("more", ()), (self.state.features(given["x"]), self.value)]
        msg["args"], msg["kwargs"] = (), {**given, "more": more}


class _Expand(_Handler):
    """Append features in the linear predictors of a model."""

    fixed_graph = True

    def _pyro_linear_predictor(self, msg: Any) -> None:
        given = arguments(msg)
        msg["args"], msg["kwargs"] = (), {**given, "x": self.state(given["x"])}
