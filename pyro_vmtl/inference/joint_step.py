"""One step of several fits: their losses and gradients, computed at once."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.inference.recorder import Recorder, Replay
from pyro_vmtl.inference.step import (
    Outcome,
    Step,
    batch_of,
    can_be_recorded,
    with_strides_of,
)

__all__ = ["CannotJoinError", "JointStep", "OutcomeOfFit"]

TOLERANCE = 1e-3
"""Difference from the gradient of a single fit that is rounding, relative to its largest number."""

CANNOT_VECTORIZE = (RuntimeError, TypeError, ValueError, AttributeError, KeyError)
"""What programs raise that branch on values, say."""

OutcomeOfFit: TypeAlias = Outcome | NotFactorizedError
"""The outcome of a step of one fit, or why there is none."""


class CannotJoinError(Exception):
    """These fits have to run one by one."""


class JointStep:
    """Compute losses, terms and gradients of several fits at the values of their parameters.

    Until :meth:`separate` the parameters and buffers of the modules are parts of stacked ones.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        if not all(can_be_recorded(s.loss_of, s.batches) and s.is_one_part for s in steps):
            raise CannotJoinError("The programs do not declare a fixed graph of all tasks.")
        if any(step.batches is not None for step in steps):
            raise CannotJoinError("Steps take batches of rows.")
        self.steps = steps
        self.loss = _Loss(steps[0])
        self.rows = _stack([_tensors(_rows(step)) for step in steps], padded=True)
        named = [_named_tensors(step.loss_of) for step in steps]
        if len({(*each,) for each in named}) > 1:
            raise CannotJoinError("The programs have different parameters.")
        values = _stack([[*each.values()] for each in named])
        for place, stacked in enumerate(values):
            for each, value in zip(named, stacked.unbind(), strict=True):
                [*each.values()][place].data = value
        self.tensors = {f"module.{name}": v for name, v in zip(named[0], values, strict=True)}
        learned = (n for n, p in steps[0].loss_of.named_parameters() if p.requires_grad)
        self.learned = [f"module.{name}" for name in learned]
        self._recorded: dict[Hashable, Replay] = {}

    def __call__(self) -> Sequence[OutcomeOfFit]:
        """Replay a recorded step, and return the outcome of each fit."""
        for each in zip(*(step.sources.values() for step in self.steps), strict=True):
            use_float64 = any(sources.use_float64 for sources in each)
            for sources in each:
                sources.use_float64 = use_float64
        key = tuple(module.graph_key for module in self.steps[0].scheduled)
        if key not in self._recorded:
            recorder = Recorder()
            with torch.random.fork_rng(devices=self.cuda), validation(False), recorder:
                outcome = self._evaluate()
            self._recorded[key] = Replay(recorder.finish(outcome))
        try:
            with torch.no_grad():
                return self._of_fits(self._recorded[key]())
        except NotFactorizedError:  # that of one fit is enough
            return [self._alone(step) for step in self.steps]

    def _alone(self, step: Step) -> OutcomeOfFit:
        """Compute the step of one fit, or return why that is impossible."""
        try:
            with torch.random.fork_rng(devices=self.cuda), validation(False):
                return step.evaluate()
        except NotFactorizedError as error:
            return error

    def first(self) -> Sequence[OutcomeOfFit]:
        """Compute the first step, after that of each fit by itself, with validation, to compare.

        Raises
        ------
        CannotJoinError
            If the fits together give something else.
        """
        outcomes = []
        for step in self.steps:
            with torch.random.fork_rng(devices=self.cuda), validation(True):
                outcomes.append(step.evaluate())
        try:
            together = self()
        except CANNOT_VECTORIZE as error:
            raise CannotJoinError(str(error)) from error
        for one, other in zip(outcomes, together, strict=True):
            if isinstance(other, NotFactorizedError) or not all(
                map(_is_close, (one[0], *one[2]), (other[0], *other[2]))
            ):
                raise CannotJoinError("The loss or a gradient differs.")
        return together

    @torch.no_grad()
    def separate(self) -> None:
        """Return to parameters and buffers of the modules' own."""
        for step in self.steps:
            for tensor in (*step.loss_of.parameters(), *step.loss_of.buffers()):
                tensor.data = tensor.data.clone()

    def _evaluate(self) -> Any:
        """Return losses, terms, gradients and rounding, each with the fits as first dimension."""
        with torch.enable_grad():
            leaves = {name: self.tensors[name].requires_grad_() for name in self.learned}
            # one module in two places, as source weights are, counts once
            loss_of = partial(functional_call, self.loss, tie_weights=False)
            vectorized = vmap(loss_of, randomness="same")
            with warnings.catch_warnings():  # of operations that go through the fits in turn
                warnings.filterwarnings("ignore", "There is a performance drop")
                loss, terms, rounding = vectorized({**self.tensors, **leaves}, (self.rows,))
            found = torch.autograd.grad(loss.sum(), [*leaves.values()], allow_unused=True)
        gradients = [with_strides_of(*each) for each in zip(found, leaves.values(), strict=True)]
        return loss.detach(), tree_map(Tensor.detach, terms), gradients, rounding

    def _of_fits(self, outcome: Any) -> list[Outcome]:
        """Split what a step returns by fit."""
        loss, terms, gradients, rounding = outcome
        num = range(len(self.steps))
        losses, terms = loss.unbind(), tree_map(Tensor.unbind, terms)
        gradients = [[None] * len(num) if g is None else g.unbind() for g in gradients]
        of_pools = iter(r.unbind() for r in rounding)
        errors = [next(of_pools) if known else [None] * len(num) for known in self.loss.compares]
        return [
            (
                losses[k],
                {kind: {site: v[k] for site, v in of.items()} for kind, of in terms.items()},
                [each[k] for each in gradients],
                [each[k] for each in errors],
            )
            for k in num
        ]

    @property
    def cuda(self) -> list[torch.device]:
        """The GPU of the fits, if they have one."""
        device = self.rows[0].device
        return [device] if device.type == "cuda" else []


class _Loss(nn.Module):
    """The loss of a step as a function of its rows."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.module = step.loss_of
        self.compares: list[bool] = []

    def forward(self, rows: Sequence[Tensor]) -> Any:
        """Return loss, terms, and the float32 errors where tasks are compared."""
        each = iter(rows)
        data = _rows(self.step).map_rows(lambda _: next(each))
        elbo, model, guide = self.module.elbo, self.module.model, self.module.guide
        with batch_of((data,), None) as args:
            loss, terms, traces = evaluate(elbo, model, guide, *args)
        errors = self.step.roundings(traces[-1])
        self.compares = [nats is not None for nats in errors]
        return loss, vars(terms), [nats for nats in errors if nats is not None]


def _rows(step: Step) -> TaskData:
    """Return the rows of a step, the only argument of its programs."""
    (rows,) = step.args
    if not isinstance(rows, TaskData) or rows.attended is not None:
        raise CannotJoinError("The programs take something else than rows.")
    return rows


def _tensors(rows: TaskData) -> list[Tensor]:
    """Return what there is of every row."""
    found: list[Tensor] = []
    rows.map_rows(lambda values: found.append(values) or values)  # type: ignore[func-returns-value]
    return found


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def _stack(of_fits: Sequence[Sequence[Tensor]], *, padded: bool = False) -> list[Tensor]:
    """Stack the tensors of fits, each padded to as many rows as the longest has."""
    stacked = []
    try:
        for values in zip(*of_fits, strict=True):
            if padded:
                longest = max(value.shape[1] for value in values)
                values = tuple(
                    functional.pad(v, [0, 0] * (v.ndim - 2) + [0, longest - v.shape[1]])
                    for v in values
                )
            stacked.append(torch.stack(values))
    except (ValueError, RuntimeError) as error:
        raise CannotJoinError("The programs have tensors of different shapes.") from error
    return stacked


def _is_close(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    largest = one.abs().max() if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * float(largest))
