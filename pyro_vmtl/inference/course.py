"""One fit from its first checks to its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_batches import TaskBatches
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.schedules import Cosine
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.adam import Adam
from pyro_vmtl.inference.checkpoint import Checkpoint, Progress, Stopped, fingerprint
from pyro_vmtl.inference.checks import check_latent_sites, check_padding, non_finite
from pyro_vmtl.inference.elbo import ELBOTerms, MeanFieldELBO, evaluate
from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.lbfgs import Evaluations, NotFactorizedError, lbfgs
from pyro_vmtl.inference.snapshots import Snapshots
from pyro_vmtl.inference.step import Step, batch_of, rows_of

__all__ = ["Course", "FitResult", "asks_again"]

COOL_DOWN = 200
"""Steps over which the learning rate falls at the end, or a fifth of all steps if that is less."""

ALONE = 200
"""Steps in which tasks are alone before the source weights start, or a fifth if that is less."""

CHOOSE_AFTER = 1000
"""Steps before gates between outputs are chosen, or half of all steps if that is less."""

TERMS_EVERY = 10
"""Steps between two entries of the terms in the history."""

RECORD_AFTER = 25
"""Steps before the first is recorded: by then, recording takes less time than has passed."""

Report = Callable[[int, int, ELBOTerms], None]


@dataclass(frozen=True)
class FitResult:
    """The course of a fit. The learned parameters themselves are in the model and the guide.

    Attributes
    ----------
    history
        Loss at every step, and its terms every few steps.
    seconds
        Wall time.
    stopped
        Why the fit ended: the loss had ``"settled"``, ``num_steps`` ``"steps"`` were done, or the
        user ``"interrupted"`` it.

    Examples
    --------
    >>> fitted.result.stopped
    'steps'
    """

    history: History
    seconds: float
    stopped: Stopped


class Course:
    """A fit, step by step; the arguments are those of :func:`~pyro_vmtl.fit`.

    It is made and taken further within ``isolated(seed)``, by whoever computes the loss and
    gradients that :meth:`steps` asks for, with ``step_of`` or otherwise.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        *,
        seed: int,
        elbo: Trace_ELBO | None = None,
        optimizer: str = "adam",
        num_steps: int = 2000,
        learning_rate: float = 0.05,
        weight_decay: float = 0.0,
        batches: Batches | None = None,
        tasks: TaskBatches | None = None,
        compile: bool = False,
        start: tuple[Program, Program] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        if num_steps < 1 or not learning_rate > 0:
            raise ValueError(
                f"num_steps is {num_steps} and learning_rate {learning_rate}, expected at least 1 "
                "and above 0."
            )
        if optimizer not in ("adam", "lbfgs") or (optimizer == "lbfgs" and batches is not None):
            raise ValueError(
                f"optimizer is {optimizer!r} and batches {batches}, expected 'adam', or 'lbfgs' "
                "with all rows."
            )
        elbo = MeanFieldELBO() if elbo is None else elbo
        if compile and not isinstance(elbo, MeanFieldELBO):
            raise ValueError(
                f"compile is True with {type(elbo).__name__}, expected MeanFieldELBO: Pyro's own "
                "ELBOs depend on values during a step. Use MeanFieldELBO, or do not compile."
            )
        self.args = args
        self.optimizer = optimizer
        self.loss_of = loss_of = elbo(model, guide)
        self.done = Progress(num_steps)
        loss_of.train()
        # Lazy guides make their parameters now, with few tasks to save memory.
        first = None if tasks is None else next(tasks(rows_of(args, "tasks", tasks)))[0]
        with (
            validation(True),
            torch.no_grad(),
            some_tasks(some := None if first is None else first.tasks),
            batch_of(args, batches) as batch,
        ):
            traces = trace_guide_and_model(model, guide, *batch)
            check_latent_sites(traces)
            check_padding(traces, model, batch, some)
            before = evaluate(elbo, model, guide, *batch)
        check_no_bare_parameters(loss_of)
        self.step_of = step_of = Step(loss_of, args, batches, tasks, compile=compile)
        if not step_of.parameters:
            raise ValueError(
                "Model and guide have no parameters that require a gradient, expected some to "
                "learn. Make them modules with nn.Parameter or PyroParam."
            )
        self.adam = Adam(step_of.parameters, weight_decay=weight_decay)
        self.cooling = min(COOL_DOWN, num_steps // 5)
        self.cool_down = Cosine(learning_rate, learning_rate / 100, max(self.cooling, 1))
        self.recordable = compile or step_of.allow_recording()
        self.alone = 0
        self.choose_at = min(CHOOSE_AFTER, num_steps // 2) if step_of.learn_gates() else 0
        self.restart = bool(step_of.sharing) and start is None
        if start is None:
            step_of.start_weights(before.traces[-1].guide)
            starts_alone = any(sources.start == "alone" for sources in step_of.sources.values())
            self.alone = min(ALONE, num_steps // 5) if starts_alone else 0
        else:
            _copy_parameters(elbo(*start), loss_of)
        self.snapshots = Snapshots(loss_of, TERMS_EVERY)
        self.keeper = None
        if checkpoint is not None:
            settings = [optimizer, num_steps, learning_rate, weight_decay, compile, seed]
            problem = fingerprint(loss_of, args, elbo, batches, tasks, *settings)
            self.keeper = Checkpoint(checkpoint, problem, loss_of, self.adam)
            self.done = self.keeper.read() or self.done
        # Reading a loss waits for the device, which on a GPU would take most of a step.
        self.reads_at_once = step_of.parameters[0].device.type == "cpu"
        self.unread: list[tuple[Tensor, ELBOTerms]] = []

    @property
    def over(self) -> bool:
        """Whether there is no further step."""
        return self.done.over or self.done.step >= self.done.end

    def steps(self, report: Report) -> Evaluations[None]:
        """Take all steps, each at the loss and gradients that it asks for."""
        if self.optimizer == "lbfgs" and not self.over:
            settings = {"recordable": self.recordable, "restart": self.restart}
            yield from lbfgs(self.step_of, self.done, report, **settings)
            if self.keeper is not None:
                self.keeper.write(self.done)
        while not self.over:
            self._prepare_step()
            outcome = yield
            self._take_step(*outcome, report)

    def run(self, report: Report) -> None:
        """Take all steps."""
        steps = self.steps(report)
        go_on: Callable[[], None] = partial(next, steps)
        while asks_again(go_on):
            try:
                # Pyro's validation takes two thirds of a step, and has passed once.
                with validation(self.done.step == 0):
                    go_on = partial(steps.send, self.step_of())
            except NotFactorizedError as error:
                go_on = partial(steps.throw, error)

    def _prepare_step(self) -> None:
        """Set schedules and source weights to the next step."""
        step, step_of = self.done.step, self.step_of
        step_of.at_step(step)
        step_of.set_alone(step < self.alone)
        if step == self.alone > 0:
            step_of.start_weights(only="alone")
        if step == self.choose_at > 0:
            step_of.choose_gates()
        if step % TERMS_EVERY == 0:
            self.snapshots.take(step, self.done.snapshots)
        step_of.recording = self.recordable and step >= RECORD_AFTER

    def _take_step(self, loss: Tensor, terms: ELBOTerms, report: Report) -> None:
        """Move the parameters by their gradients, at the loss that these belong to."""
        done, step_of = self.done, self.step_of
        step, end = done.step, done.end
        self.unread.append((loss, terms))
        has_terms = step % TERMS_EVERY == 0 or step == end - 1
        if has_terms:
            done.terms[step] = terms.by_name()
        if has_terms or self.reads_at_once:
            done.losses += _read(self.unread, step, self.loss_of, self.args)
        self.adam.step(self.cool_down(max(0, step - (end - self.cooling))))
        if has_terms:
            step_of.choose_precision()
            report(step + 1, end, terms)
            schedules = (s for m in step_of.scheduled for s in m.schedules.values())
            is_constant = all(schedule(step) == schedule(end) for schedule in schedules)
            if (
                end - step > self.cooling
                and is_constant
                and _settled(done.losses[max(self.alone, self.choose_at) :])
            ):
                done.end, done.stopped = step + 1 + self.cooling, "settled"
        done.step += 1
        done.over = done.step == done.end
        if self.keeper is not None and (done.over or (has_terms and self.keeper.due)):
            self.keeper.write(done)

    def interrupt(self) -> None:
        """End the fit where it is."""
        self.done.stopped = "interrupted"
        self.done.losses += [loss.item() for loss, _ in self.unread]

    def result(self) -> FitResult:
        """Return what a fit that has ended tells."""
        done = self.done
        self.snapshots.end(done.step, done.snapshots)
        self.loss_of.eval()
        history = History.from_records(done.losses, done.terms, done.snapshots)
        return FitResult(history, done.elapsed, done.stopped)


def asks_again(go_on: Callable[[], None]) -> bool:
    """Whether a generator asks again when it goes on."""
    try:
        go_on()
    except StopIteration:
        return False
    return True


@torch.no_grad()
def _copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters that have the same names and shapes."""
    values = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in values and values[name].shape == parameter.shape:
            parameter.copy_(values[name])


def _read(
    unread: list[tuple[Tensor, ELBOTerms]], step: int, loss_of: ELBOModule, args: tuple[Any, ...]
) -> list[float]:
    """Return the losses of the steps up to this one, after checking that they are finite."""
    losses: list[float] = torch.stack([loss for loss, _ in unread]).tolist()
    for back, (loss, (_, terms)) in enumerate(zip(losses, unread, strict=True), 1 - len(losses)):
        if not math.isfinite(loss):
            # After further updates all parameters are nan, whatever the cause.
            raise non_finite(step + back, None if back else loss_of, terms, args)
    unread.clear()
    return losses


def _settled(losses: list[float]) -> bool:
    """Whether the loss has stopped falling.

    The mean over the last quarter of the steps is compared with that over the quarter before. The
    loss has settled when it fell by less than a standard error of the difference, or than a tenth
    of a nat. A trend does not stay undetected: its difference grows with the length of the
    quarters, while the standard error falls.
    """
    window = len(losses) // 4
    if window < 50:
        return False
    recent = torch.tensor(losses[-2 * window :], dtype=torch.float64).reshape(2, window)
    before, last = recent.mean(1)
    error = (recent.var(1).sum() / window).sqrt()
    return bool(before - last < torch.clamp(error, min=0.1))
