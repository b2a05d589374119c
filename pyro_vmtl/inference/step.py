"""A training step: loss, terms and gradients, by running the programs or replaying a recording.

Pyro interprets a program at every step: plates, handlers and distributions are Python, and on small
problems that takes longer than the arithmetic. A program with a fixed graph does the same tensor
operations at every step, on other numbers. So a fit records them once, forward and backward, and
replays them from then on: same loss, same gradients, same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.elbo import ELBOModule
from pyro.poutine import Trace
from torch import Tensor
from torch.utils._pytree import tree_map

from pyro_vmtl.data.plates import scaled_rows, some_tasks
from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_batches import Part, TaskBatches, first_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.fixed_graph import has_fixed_graph
from pyro_vmtl.handlers.isolation import evaluating, validation
from pyro_vmtl.handlers.schedules import Scheduled
from pyro_vmtl.handlers.tracing import TracePair, trace_guide_and_model
from pyro_vmtl.inference.elbo import ELBOTerms, evaluate
from pyro_vmtl.inference.recorder import Recorder, Replay
from pyro_vmtl.inference.replay_check import ReplayCheck
from pyro_vmtl.outputs.state import Feedback
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources, WeightsStart
from pyro_vmtl.sharing.transformed import pool_of

__all__ = ["Outcome", "Step", "batch_of", "can_be_recorded", "rows_of", "with_strides_of"]

Outcome = tuple[Tensor, dict[str, Any], list[Tensor | None], list[Tensor | None]]
"""Loss, terms, gradients, and float32 errors of the pools; what a recording can return."""


class Step:
    """Compute loss, terms and gradients at the current values of the parameters.

    ``batches`` draws the rows of each step, and ``tasks`` the tasks of each of its parts; all by
    default. Steps are recorded and replayed while ``recording`` is set; those of programs that do
    not promise to be the same at every step, as long as they pass a ``check``.
    """

    def __init__(
        self,
        loss_of: ELBOModule,
        args: tuple[Any, ...],
        batches: Batches | None = None,
        tasks: TaskBatches | None = None,
        *,
        compile: bool = False,
    ) -> None:
        self.loss_of = loss_of
        self.args = args
        self.batches = batches
        self.parameters = [p for p in loss_of.parameters() if p.requires_grad]
        self.scheduled = [m for m in loss_of.modules() if isinstance(m, Scheduled)]
        self.sharing = [m for m in loss_of.modules() if isinstance(m, Sharing)]
        self.sources = {site: sources for m in self.sharing for site, sources in m.items()}
        self.feedback = [m for m in loss_of.modules() if isinstance(m, Feedback)]
        self.compile = compile
        self.recording = False
        self.check: ReplayCheck | None = None
        self._steps, self._num_tasks = None, 0
        if tasks is not None:
            rows = rows_of(args, "tasks", tasks)
            self._steps, self._num_tasks = tasks(rows), rows.num_tasks
        self._recorded: dict[Hashable, Any] = {}
        self._tasks_at: dict[tuple[int, int], Tensor] = {}
        self.rounding: list[Tensor | None] = []
        self._alone: list[Sources] = []

    def at_step(self, step: int) -> None:
        """Set all schedules to a step of the fit."""
        for module in self.scheduled:
            module.at_step(step)

    def __call__(self) -> tuple[Tensor, ELBOTerms]:
        """Compute the loss and its terms, and set the gradients of the parameters."""
        for parameter in self.parameters:
            parameter.grad = None  # frees the memory of the last step's
        parts = self._parts()
        run, replay = (partial(_total, each, parts) for each in (self.evaluate, self._replay))
        if not self.recording:
            outcome = run()
        elif self.check is not None and self.check.is_due():
            outcome = self.check(run, replay)
        else:
            outcome = replay() if self.check is None or self.check.passed else run()
        return self.take(outcome)

    def take(self, outcome: Outcome) -> tuple[Tensor, ELBOTerms]:
        """Set the gradients of a step, and return its loss and terms."""
        loss, terms, gradients, self.rounding = outcome
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        for parameter in (p for sources in self._alone for p in sources.parameters()):
            parameter.grad = None
        return loss, ELBOTerms(**terms)

    def allow_recording(self) -> bool:
        """Whether steps may be recorded: by a promise of all parts, or while a check passes."""
        if can_be_recorded(self.loss_of, self.batches):
            return True
        if not all(map(has_fixed_graph, filter(None, (self.loss_of.elbo, self.batches)))):
            return False
        programs, device = (self.loss_of.model, self.loss_of.guide), self.parameters[0].device
        self.check = ReplayCheck(*programs, device=device)
        return True

    def start_weights(
        self, guide_trace: Trace | None = None, *, only: WeightsStart | None = None
    ) -> None:
        """Set source weights to their start, from a trace of the guide: now, by default.

        ``only`` those that start so.
        """
        if guide_trace is None:
            with torch.no_grad(), validation(False):
                guide_trace = poutine.trace(self.loss_of.guide).get_trace(*self.args)
        for sharing in self.sharing:
            sharing.initialize_logits(guide_trace, only)

    def choose_gates(self) -> None:
        """Open or shut the gates between outputs that feed one another, by all rows."""
        programs = self.loss_of.model, self.loss_of.guide
        with (
            torch.no_grad(),
            validation(False),
            evaluating(*programs),
            batch_of(self.args, None) as args,
        ):
            for feedback in self.feedback:
                feedback.choose_gates(partial(trace_guide_and_model, *programs, *args))

    def learn_gates(self) -> bool:
        """Let gates that an earlier fit has chosen be learned again; return whether there are."""
        for feedback in self.feedback:
            if feedback.couplings is not None:
                feedback.couplings.is_chosen.zero_()
        return bool(self.feedback)

    def set_alone(self, alone: bool) -> None:
        """Let tasks whose weights start so be alone, with sources that do not change; or end it."""
        self._alone = [s for s in self.sources.values() if alone and s.start == "alone"]
        for sources in self.sources.values():
            sources.alone.fill_(sources in self._alone)

    def choose_precision(self) -> None:
        """Decide whether to compare tasks in float32; this waits for the device."""
        for sources, rounding in zip(self.sources.values(), self.rounding, strict=True):
            if rounding is not None:
                sources.choose_precision(float(rounding))

    def roundings(self, traces: TracePair) -> list[Tensor | None]:
        """Return the float32 error of comparing tasks at each shared site, where that is done."""
        pools = (pool_of(traces.model.nodes[site]["fn"]) for site in self.sources)
        return [getattr(pool, "rounding", None) for pool in pools]

    @property
    def is_one_part(self) -> bool:
        """Whether a step, the next one, takes all tasks at once."""
        return self._parts() == [(None, 1.0)]

    def finish(self) -> None:
        """End what is for a fit only: tasks that are alone, and float32, which is checked there."""
        self.set_alone(False)
        for sources in self.sources.values():
            sources.use_float64 = True

    def _parts(self) -> list[tuple[Part | None, float]]:
        """Return the tasks of every part of a step, and the weight of the part."""
        parts = [] if self._steps is None else next(self._steps)
        total = sum(len(part.tasks) for part in parts)
        if not parts or (len(parts) == 1 and total == self._num_tasks):
            return [(None, 1.0)]
        return [(part, len(part.tasks) / total) for part in parts]

    def evaluate(self, part: Part | None = None, share: float = 1.0) -> Outcome:
        """Run the programs, with weight ``share`` of the loss."""
        elbo, model, guide = self.loss_of.elbo, self.loss_of.model, self.loss_of.guide
        tasks, args = None, self.args
        if part is not None:
            tasks = part.tasks
            rows = rows_of(args, "tasks", part)
            args = _replace_rows(args, first_rows(rows, part.num_rows))
        with some_tasks(tasks), batch_of(args, self.batches) as batch:
            loss, terms, traces = evaluate(elbo, model, guide, *batch)
        if share != 1:
            loss, terms = loss * share, terms * share
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        gradients = [with_strides_of(*pair) for pair in zip(found, self.parameters, strict=True)]
        errors = self.roundings(traces[-1])
        rounding = [None if nats is None else nats * share for nats in errors]
        return loss.detach(), vars(terms.detach()), gradients, rounding

    @torch.no_grad()
    def _replay(self, part: Part | None, share: float) -> Outcome:
        size = None
        if part is not None:  # a recording reads its tasks from one tensor
            size = len(part.tasks), part.num_rows
            if size not in self._tasks_at:
                self._tasks_at[size] = torch.empty_like(part.tasks)
            part = replace(part, tasks=self._tasks_at[size].copy_(part.tasks))
        key = (*(module.graph_key for module in self.scheduled), size, share)
        if key not in self._recorded:
            self._recorded[key] = self._record(part, share)
        return self._recorded[key]()

    def _record(self, part: Part | None, share: float) -> Callable[[], Any]:
        """Record the tensor operations of one evaluation."""
        devices = {p.device for p in self.parameters if p.device.type == "cuda"}
        recorder = Recorder()
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), recorder:
            outcome = self.evaluate(part, share)
        graph = recorder.finish(outcome)
        if self.compile:  # with the same random numbers as without
            compiled = torch.compile(graph, options={"fallback_random": True})
            return lambda: compiled()[0]
        return Replay(graph)


def with_strides_of(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """Return a gradient with the strides of its parameter, which fused optimisers rely on."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def batch_of(args: tuple[Any, ...], batches: Batches | None) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments with a batch of rows in their place, weighted to stand for all rows."""
    rows, weight = _find_rows(args), None
    if batches is not None:
        rows, weight = batches(rows_of(args, "batches", batches))
        args = _replace_rows(args, rows)
    if rows is not None and rows.weight is not None:
        weight = rows.weight if weight is None else weight[:, None] * rows.weight
    with scaled_rows(weight):
        yield args


def rows_of(args: tuple[Any, ...], name: str, batches: object) -> TaskData:
    """Return the rows among the arguments, to take batches of."""
    rows = _find_rows(args)
    if rows is None:
        raise ValueError(
            f"{name} is {batches}, expected a TaskData among the arguments, found none."
        )
    return rows


def _find_rows(args: tuple[Any, ...]) -> TaskData | None:
    return next((arg for arg in args if isinstance(arg, TaskData)), None)


def _replace_rows(args: tuple[Any, ...], rows: TaskData) -> tuple[Any, ...]:
    """Replace the rows among the arguments."""
    old = _find_rows(args)
    return tuple(rows if arg is old else arg for arg in args)


def _total(
    compute: Callable[[Part | None, float], Outcome], parts: list[tuple[Part | None, float]]
) -> Any:
    """Add up the parts of a step."""
    outcome: Any = None
    for part, share in parts:
        more = compute(part, share)
        outcome = more if outcome is None else tree_map(_plus, outcome, more)
    return outcome


def _plus(one: Any, other: Any) -> Any:
    return None if one is None else one + other


def can_be_recorded(loss_of: ELBOModule, batches: Batches | None = None) -> bool:
    """Whether each step does the same tensor operations, as all parts of it declare."""
    parts = (loss_of.elbo, loss_of.model, loss_of.guide, batches)
    return all(part is None or has_fixed_graph(part) for part in parts)
