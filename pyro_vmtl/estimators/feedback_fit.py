"""A fit of several outputs: the programs, the units of what they predict, and their draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.output_data import OutputData
from pyro_vmtl.guides.mean_field import MeanFieldNormal
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.models.outputs import LinearOutputs, MLPOutputs, output_site
from pyro_vmtl.outputs.feedback import feedback, find_feedback, known_outputs
from pyro_vmtl.outputs.state import Feedback

__all__ = [
    "GATES",
    "MOST_AXES",
    "FittedOutputs",
    "columns_of",
    "fit_outputs",
    "make_parameters",
    "make_programs",
]

GATES = ("none", "output", "hidden")
"""What a gate can let in."""

MOST_AXES = 2000
"""Number of features above which their axes are left as they are: a matrix would take too long."""

NUM_POINTS = 8
"""Fixed points of the coefficients in a fit."""


@dataclass(frozen=True, eq=False)
class FittedOutputs:
    """Fitted programs; ``data`` are one or more rows, of which the outputs' classes matter.

    ``units`` are the mean and the standard deviation of each real output, and ``features`` the mean
    of features, (F,), and their principal axes, (F, F) in columns, in units of the features; or
    one over these units, (F,), where they are many.
    """

    model: nn.Module
    guide: nn.Module
    data: OutputData
    units: dict[str, tuple[float, float]]
    features: tuple[Tensor, Tensor]
    history: History | None = None

    @property
    def feedback(self) -> Feedback | None:
        """Settings and parameters of the feedback; None of a single output, or without it."""
        return find_feedback(self.model) if len(self.data.classes) > 1 else None

    def gates(self) -> Tensor:
        """Return the probabilities of the gates, (T, T, G)."""
        state = self.feedback
        if state is None or state.couplings is None:
            num = len(self.data.classes)
            return torch.zeros(num, num, 2)
        return state.couplings.probabilities().detach()

    @torch.no_grad()
    def radius(self, num_samples: int, seed: int) -> float:
        """Return the largest of the bounded spectral radii of some draws."""
        state = self.feedback
        if state is None or state.couplings is None:
            return 0.0
        norms = {
            t: torch.linalg.matrix_norm(last.weight, ord=2)
            for t, last in enumerate(getattr(self.model.program, "last", ()))
        }
        with isolated(seed):
            radii = [state.couplings.draw(norms).radius for _ in range(num_samples)]
        return float(torch.stack(radii).max().clamp(max=0.9))

    def in_units(self, name: str, mean: Tensor) -> Tensor:
        """Return means of an output in the user's units."""
        centre, unit = self.units.get(name, (0.0, 1.0))
        return centre + unit * mean

    @torch.no_grad()
    def average(
        self, rows: OutputData, take: Callable[[Any], Tensor], num_samples: int, seed: int
    ) -> dict[str, Tensor]:
        """Average what ``take`` returns of each output's distribution over posterior draws."""
        rows = standardized(rows, self.features, self.units)
        known = {output_site(name): means for name, means in rows.known_means().items()}
        totals: dict[str, Tensor] = {}
        programs = self.model, self.guide
        with isolated(seed), validation(False), evaluating(*programs), known_outputs(known):
            # each draw by itself, so that fits with and without feedback are at the same ones
            for draw in torch.randint(2**31, (num_samples,)).tolist():
                torch.manual_seed(draw)
                trace = trace_guide_and_model(*programs, rows).model
                for name in rows.classes:
                    share = take(trace.nodes[output_site(name)]["fn"]) / num_samples
                    totals[name] = totals[name] + share if name in totals else share
        return totals


def make_programs(
    data: OutputData, hidden_size: int | None, **settings: Any
) -> tuple[nn.Module, nn.Module]:
    """Make the model with feedback, where there are several outputs, and its guide.

    ``settings`` are those of :func:`~pyro_vmtl.feedback`.
    """
    model: nn.Module
    guide: nn.Module
    if hidden_size is None:
        model = LinearOutputs(data)
        shape = sum(data.sizes.values()), data.num_features + 1
        guide = MeanFieldNormal({}, 1, common={"w": shape})
    else:
        model, guide = MLPOutputs(data, hidden_size), _NoLatents()
    if len(data.classes) > 1:
        sites = [output_site(name) for name in data.classes]
        model = feedback(model, sites=sites, **settings)
    return model, guide


class _NoLatents(nn.Module):
    """The guide of a model without latent sites."""

    fixed_graph = True

    def forward(self, *args: Any) -> None:
        """Do nothing."""


def fit_outputs(
    data: OutputData,
    hidden_size: int | None,
    *,
    num_steps: int,
    seed: int,
    progress: bool = False,
    **settings: Any,
) -> FittedOutputs:
    """Standardize rows, and fit a model of them, with settings of the feedback."""
    assert data.y is not None
    center, unit = data.x.mean(0), _unit(data.x.std(0, correction=0))
    # along principal axes coefficients are about independent, as the guide has them
    axes = 1 / unit
    if data.num_features <= MOST_AXES:
        scaled = ((data.x - center) / unit).double()
        axes = torch.linalg.eigh(scaled.mT @ scaled)[1].to(unit) / unit[:, None]
    features = center, axes
    units = {}
    for name, labels in data.classes.items():
        if labels is None:
            y = data.y[name][data.known[name]]
            units[name] = float(y.mean()), float(_unit(y.std(correction=0)))
    rows = standardized(data, features, units)
    with isolated(seed):
        model, guide = make_programs(data, hidden_size, **settings)
    # a hidden layer overshoots at the rate that suits coefficients
    rate = 0.05 if hidden_size is None else 0.01
    # the noise of draws would be more than what most gates are worth
    elbo = MeanFieldELBO(num_points=NUM_POINTS) if hidden_size is None else None
    steps: Any = {"num_steps": num_steps, "learning_rate": rate, "seed": seed, "progress": progress}
    result = fit(model, guide, rows, elbo=elbo, **steps)
    like = data.new_rows(data.x[:1], {})
    return FittedOutputs(model, guide, like, units, features, result.history)


def standardized(
    data: OutputData, features: tuple[Tensor, Tensor], units: dict[str, tuple[float, float]]
) -> OutputData:
    """Return rows with features and real outputs standardized."""
    assert data.y is not None
    y = {
        name: (values - units[name][0]) / units[name][1] * data.known[name]
        if name in units
        else values
        for name, values in data.y.items()
    }
    # in float64, where products of some rows and of all are the same but for 1e-16
    centered, axes = (data.x - features[0]).double(), features[1].double()
    x = centered * axes if axes.ndim == 1 else centered @ axes
    return replace(data, x=x.to(data.x), y=y)


def _unit(std: Tensor) -> Tensor:
    return torch.where(std > 1e-6, std, 1.0)


def make_parameters(fitted: FittedOutputs) -> None:
    """Run the programs once, so that they have all their parameters."""
    rows = standardized(fitted.data, fitted.features, fitted.units)
    with isolated(0), validation(False), torch.no_grad():
        poutine.trace(fitted.guide).get_trace(rows)
        trace_guide_and_model(fitted.model, fitted.guide, rows)


def columns_of(y: Any, num_rows: int) -> tuple[dict[str, Any], bool]:
    """Return the columns of y by name, and whether it is a single one without a dimension."""
    if isinstance(y, Mapping):
        return {str(name): values for name, values in y.items()}, False
    if hasattr(y, "columns"):
        return {str(name): y[name] for name in y.columns}, False
    array = np.asarray(y, dtype=None if hasattr(y, "dtype") else object)
    single = array.ndim == 1
    if array.ndim not in (1, 2) or len(array) != num_rows:
        raise ValueError(
            f"y has shape {array.shape}, expected {num_rows} rows as X has, inconsistent numbers "
            "of samples, with a column for each output."
        )
    array = array.reshape(num_rows, -1)
    return {f"y{t}": array[:, t] for t in range(array.shape[1])}, single
