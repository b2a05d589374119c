"""A training step: the loss, its terms and its gradients, traced by Pyro or replayed.

Pyro runs a program anew at every step: plates, handlers and distributions are Python, and on small
problems that takes longer than the arithmetic. A program of this library does the same tensor
operations at every step, on other numbers. So a fit notes them down once, forward and backward, and
from then on replays them: same loss, same gradients, same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pyro_vmtl.data.plates import scaled_rows, some_tasks
from pyro_vmtl.data.row_batches import BalancedRows, Batches, RandomRows
from pyro_vmtl.data.task_batches import Part, TaskBatches, first_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import ProgramWithHandler
from pyro_vmtl.handlers.schedules import Scheduled
from pyro_vmtl.inference.elbo import ELBOTerms, MeanFieldELBO, elbo_terms, kept_traces
from pyro_vmtl.sharing.sources import Sources

__all__ = ["Step", "batch_of", "can_be_recorded", "rows_of"]

_Outcome = tuple[Tensor, dict[str, Any], list[Tensor | None], list[Tensor | None]]
"""Loss, terms, gradients, and what float32 loses in each pool; what a recording can give back."""


class Step:
    """Compute loss, terms and gradients at the current values of the parameters.

    Parameters
    ----------
    loss_of
        An ELBO with model and guide.
    args
        What these are called with.
    batches
        Draws the rows of each step; all rows by default.
    tasks
        Gives the tasks of each part of a step; all tasks in one by default.
    compile
        Compile recordings?

    Attributes
    ----------
    parameters
        what is learned.
    scheduled
        modules with numbers that follow schedules.
    recording
        are steps to be recorded and replayed?
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
        self.sources = [m for m in self.scheduled if isinstance(m, Sources)]
        self.compile = compile
        self.recording = False
        self._steps, self._num_tasks = None, 0
        if tasks is not None:
            rows = rows_of(args, "tasks", tasks)
            self._steps, self._num_tasks = tasks(rows), rows.num_tasks
        self._recorded: dict[Hashable, Any] = {}
        self._tasks_at: dict[tuple[int, int], Tensor] = {}
        self._rounding: list[Tensor | None] = []
        for sources in self.sources:
            sources.exact = True

    def at(self, step: int) -> None:
        """Set all schedules to a step of the fit."""
        for module in self.scheduled:
            module.at_step(step)

    def __call__(self) -> tuple[Tensor, ELBOTerms]:
        """Compute the loss and its terms, and put the gradients into the parameters."""
        due = any(sources.due for sources in self.sources)  # they will look at posteriors
        compute = self._replay if self.recording and not due else self._evaluate
        for parameter in self.parameters:
            parameter.grad = None  # those of the last step would take memory in this one
        outcome: Any = None
        for part, share in self._parts():
            more = compute(part, share)
            outcome = more if outcome is None else tree_map(_plus, outcome, more)
        loss, terms, gradients, self._rounding = outcome
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss, ELBOTerms(**terms)

    def begin(self) -> None:
        """Let sources look at the posteriors that a fit starts from."""
        for sources in self.sources:
            sources.begin()

    def look_up(self, optimizer: torch.optim.Optimizer) -> None:
        """Let sources whose time has come look up their candidates, after an update."""
        for sources in self.sources:
            if sources.due:
                state = optimizer.state.get(sources.logits, {}).values()
                sources.look_up(v for v in state if v.shape == sources.logits.shape)

    def forget(self) -> None:
        """Forget what programs noted when they ran last: in replayed steps they do not run."""
        for sources in self.sources:
            sources.forget()

    def choose_precision(self) -> None:
        """Look whether tasks can be compared in float32; this waits for the device."""
        for sources, rounding in zip(self.sources, self._rounding, strict=True):
            if rounding is not None:
                sources.choose_precision(float(rounding))

    def _parts(self) -> list[tuple[Part | None, float]]:
        """Give the tasks of every part of a step, and what it counts in the whole."""
        parts = [] if self._steps is None else next(self._steps)
        total = sum(len(part.tasks) for part in parts)
        if not parts or (len(parts) == 1 and total == self._num_tasks):
            return [(None, 1.0)]
        return [(part, len(part.tasks) / total) for part in parts]

    def _evaluate(self, part: Part | None, share: float) -> _Outcome:
        """Run the programs; the loss counts ``share``."""
        elbo, model, guide = self.loss_of.elbo, self.loss_of.model, self.loss_of.guide
        tasks, args = None, self.args
        if part is not None:
            tasks = part.tasks
            args = _with_rows(args, lambda rows: first_rows(rows, part.num_rows))
        with some_tasks(tasks), batch_of(args, self.batches) as batch:
            if isinstance(elbo, MeanFieldELBO):
                terms = elbo.terms(model, guide, *batch)
                loss = terms.loss
            else:
                with kept_traces(elbo) as traces:
                    loss = elbo.differentiable_loss(model, guide, *batch)
                    terms = elbo_terms(elbo, traces)
        if share != 1:
            loss, terms = loss * share, terms * share
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        gradients = [_laid_out(*pair) for pair in zip(found, self.parameters, strict=True)]
        lost = [None if s.pool is None else s.pool.rounding for s in self.sources]
        rounding = [None if nats is None else nats * share for nats in lost]
        return loss.detach(), vars(terms.detach()), gradients, rounding

    @torch.no_grad()
    def _replay(self, part: Part | None, share: float) -> _Outcome:
        size = None
        if part is not None:  # a recording reads its tasks from one place
            size = len(part.tasks), part.num_rows
            if size not in self._tasks_at:
                self._tasks_at[size] = torch.empty_like(part.tasks)
            part = replace(part, tasks=self._tasks_at[size].copy_(part.tasks))
        key = (*(module.form for module in self.scheduled), size, share)
        if key not in self._recorded:
            self._recorded[key] = self._record(part, share)
        return self._recorded[key]()

    def _record(self, part: Part | None, share: float) -> Callable[[], Any]:
        """Note the tensor operations of one evaluation down."""
        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        devices = {p.device for p in self.parameters if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            graph = make_fx(lambda: self._evaluate(part, share))()
        self.forget()
        for node in graph.graph.nodes:
            node.meta.clear()  # shapes of everything, which nobody asks for
            if node.target is torch.ops.aten.detach.default:  # there is no autograd to hide from
                node.replace_all_uses_with(node.args[0])
        graph.graph.eliminate_dead_code()
        graph.recompile()
        if self.compile:  # with the random numbers that there would be otherwise
            return torch.compile(graph, options={"fallback_random": True})
        return graph


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """Lay a gradient out in memory as its parameter is: fused optimisers rely on it."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def batch_of(args: tuple[Any, ...], batches: Batches | None) -> Iterator[tuple[Any, ...]]:
    """Weigh the rows among the arguments, or some of them in their place, to count for all."""
    rows, weight = next((arg for arg in args if isinstance(arg, TaskData)), None), None
    if batches is not None:
        rows, weight = batches(rows_of(args, "batches", batches))
        args = _with_rows(args, lambda _: rows)
    if rows is not None and rows.weight is not None:
        weight = rows.weight if weight is None else weight[:, None] * rows.weight
    with scaled_rows(weight):
        yield args


def rows_of(args: tuple[Any, ...], name: str, batches: object) -> TaskData:
    """Find the rows among the arguments that are to be taken in batches."""
    rows = next((arg for arg in args if isinstance(arg, TaskData)), None)
    if rows is None:
        raise ValueError(
            f"{name} is {batches}, but none of the arguments is a TaskData to take from."
        )
    return rows


def _with_rows(args: tuple[Any, ...], function: Callable[[TaskData], TaskData]) -> tuple[Any, ...]:
    """Replace the first rows among the arguments."""
    place = next(i for i, arg in enumerate(args) if isinstance(arg, TaskData))
    return (*args[:place], function(args[place]), *args[place + 1 :])


def _plus(one: Any, other: Any) -> Any:
    return None if one is None else one + other


def can_be_recorded(loss_of: ELBOModule, batches: Batches | None = None) -> bool:
    """Tell whether each step does the same operations: is all that runs of this library?

    A program of somebody else may count its steps, or decide by what it drew.
    """
    if type(loss_of.elbo) is not MeanFieldELBO:
        return False
    if type(batches) not in (type(None), RandomRows, BalancedRows):
        return False
    modules = [module for module in loss_of.modules() if module is not loss_of]
    programs = [
        loss_of.model,
        loss_of.guide,
        *(m.program for m in modules if type(m) is ProgramWithHandler),
    ]
    return all(isinstance(p, nn.Module) for p in programs) and all(map(_is_ours, modules))


def _is_ours(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, nn.modules.batchnorm._BatchNorm):  # it counts its steps
        return False
    callables = (
        value.func if isinstance(value, partial) else value
        for value in vars(module).values()
        if callable(value) and not isinstance(value, torch.distributions.Distribution)
    )
    homes = [type(module).__module__, *(str(value.__module__) for value in callables)]
    return all(home.startswith(("pyro_vmtl.", "torch.nn.")) for home in homes)
