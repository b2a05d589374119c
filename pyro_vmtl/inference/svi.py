"""Stochastic variational inference with Pyro's ELBOs and torch's optimisers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_batches import TaskBatches
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, isolated, validation
from pyro_vmtl.handlers.own_parameters import own_parameters
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.schedules import Cosine
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.checkpoint import Checkpoint, Progress, Stopped, fingerprint
from pyro_vmtl.inference.checks import (
    NonFiniteLossError,
    check_latent_sites,
    check_padding,
    non_finite,
)
from pyro_vmtl.inference.elbo import ELBOTerms, MeanFieldELBO, evaluate
from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.lbfgs import lbfgs
from pyro_vmtl.inference.progress import progress_bar
from pyro_vmtl.inference.snapshots import Snapshots
from pyro_vmtl.inference.step import Step, batch_of, rows_of

__all__ = ["FitResult", "NonFiniteLossError", "fit"]

COOL_DOWN = 200
"""Steps over which the learning rate falls at the end, or a fifth of all steps if that is less."""

ALONE = 200
"""Steps in which tasks are alone before the source weights start, or a fifth if that is less."""

TERMS_EVERY = 10
"""Steps between two entries of the terms in the history."""

RECORD_AFTER = 25
"""Steps before the first is recorded: by then, recording takes less time than has passed."""


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
    """

    history: History
    seconds: float
    stopped: Stopped


def fit(
    model: Program,
    guide: Program,
    *args: Any,
    elbo: Trace_ELBO | None = None,
    optimizer: Literal["adam", "lbfgs"] = "adam",
    num_steps: int = 2000,
    learning_rate: float = 0.05,
    weight_decay: float = 0.0,
    batches: Batches | None = None,
    tasks: TaskBatches | None = None,
    compile: bool = False,
    start: tuple[Program, Program] | None = None,
    seed: int = 0,
    progress: bool = False,
    checkpoint: Path | None = None,
) -> FitResult:
    """Fit a model and guide, in place.

    The learning rate is constant until the loss has settled, and then decays to almost 0. The same
    seed gives the same result. Nothing global is changed: neither Pyro's settings nor torch's
    random state nor Pyro's parameter store, which only the programs' own parameters leave. Ctrl-C
    ends the fit and keeps what was learned so far.

    Parameters
    ----------
    model, guide
        Pyro programs whose learnable numbers are module parameters, as ``share``, ``temper`` and
        :func:`~pyro_vmtl.as_module` return them.
    *args
        Arguments of model and guide, such as a :class:`~pyro_vmtl.TaskData`.
    elbo
        One of Pyro's ELBO estimators; by default :class:`~pyro_vmtl.MeanFieldELBO`, which uses
        closed-form KLs where there are any.
    optimizer
        ``"lbfgs"`` takes a fraction of Adam's time, and needs a loss that does not depend on draws:
        with ``elbo=MeanFieldELBO(num_points=8)`` that of any program with normal posteriors, which
        :func:`~pyro_vmtl.share` leaves so but for ``weights="concrete"``. Source weights start
        anew twice, at the sources that are then the nearest. It has no
        ``learning_rate``, ``weight_decay`` or ``batches``.
    num_steps
        Maximum number of steps; of evaluations of the loss, for L-BFGS.
    learning_rate
        Step size of Adam: about how far a parameter moves in a step. Standardize features and real
        targets, or a mean of 120 is thousands of steps away.
    weight_decay
        Factor of the penalty on the squares of all parameters, as in ``torch.optim.Adam``.
    batches
        Draws rows for each step, such as :class:`~pyro_vmtl.RandomRows`; all rows by default. It
        requires a :class:`~pyro_vmtl.TaskData` among ``args``.
    tasks
        Draws tasks: :class:`~pyro_vmtl.RandomTasks` for some of them at each step, or
        :class:`~pyro_vmtl.TaskBlocks` for all of them in consecutive blocks, which is the same step
        in less memory. All at once by default. Programs of your own then select their part of
        per-task tensors by ``pyro.subsample``.
    compile
        Whether to compile the steps with ``torch.compile``. That takes half a minute and a C++
        compiler, and makes the steps of small problems about three times faster. It is a promise
        that the programs and ``batches`` do the same tensor operations at every step, whether or
        not they declare it (``fixed_graph = True``): none may count its steps or branch on what it
        drew.
    start
        Model and guide to start from, such as those of a fit to more rows: the parameters of the
        same names and shapes are copied, and source weights are not started anew.
    seed
        Seed of the random numbers.
    progress
        Whether to show a progress bar.
    checkpoint
        File to write the state of the fit to, every 20 seconds and at the end. If it exists, the
        fit resumes from it, with the same result as without interruption.

    Returns
    -------
    FitResult
        History, time, and why the fit ended.

    Raises
    ------
    NonFiniteLossError
        If the loss is infinite or nan. The message names step, site and task.
    ValueError
        If model and guide do not have the same latent sites, padding counts as data, there is no
        parameter to learn, a parameter is a bare ``pyro.param``, an ELBO of Pyro is to be compiled,
        or the checkpoint is broken or of another fit.
    RuntimeError
        If a sharing model comes with another guide than ``share`` returned with it.

    See Also
    --------
    pyro_vmtl.share, pyro_vmtl.temper : Make the programs of a multi-task model.
    pyro_vmtl.predict_proba, pyro_vmtl.predict_moments : Predict with the fitted programs.

    Notes
    -----
    After some steps, a step is recorded and replayed, which is faster and gives the same numbers:
    of programs that promise it by ``fixed_graph = True`` (see ``pyro_vmtl.handlers.fixed_graph``),
    and of others as long as runs of them, at the 1st, 2nd, 4th, 8th, ... of the steps to replay,
    agree with the recording and change nothing that Python remembers.
    """
    if num_steps < 1 or not learning_rate > 0:
        raise ValueError(
            f"num_steps is {num_steps} and learning_rate {learning_rate}, expected at least 1 and "
            "above 0."
        )
    if optimizer not in ("adam", "lbfgs") or (optimizer == "lbfgs" and batches is not None):
        raise ValueError(
            f"optimizer is {optimizer!r} and batches {batches}, expected 'adam', or 'lbfgs' with "
            "all rows."
        )
    elbo = MeanFieldELBO() if elbo is None else elbo
    if compile and not isinstance(elbo, MeanFieldELBO):
        raise ValueError(
            f"compile is True with {type(elbo).__name__}, expected MeanFieldELBO: Pyro's own ELBOs "
            "depend on values during a step. Use MeanFieldELBO, or do not compile."
        )
    own_parameters(model, guide)
    loss_of = elbo(model, guide)
    done = Progress(num_steps)
    with isolated(seed), progress_bar(num_steps, visible=progress) as report:
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
        step_of = Step(loss_of, args, batches, tasks, compile=compile)
        if not step_of.parameters:
            raise ValueError(
                "Model and guide have no parameters that require a gradient, expected some to "
                "learn. Make them modules with nn.Parameter or PyroParam."
            )
        adam = torch.optim.Adam(step_of.parameters, weight_decay=weight_decay, fused=True)
        cooling = min(COOL_DOWN, num_steps // 5)
        cool_down = Cosine(learning_rate, learning_rate / 100, max(cooling, 1))
        recordable = compile or step_of.allow_recording()
        alone = 0
        if start is None:
            step_of.start_weights(before.traces[-1].guide)
            starts_alone = any(sources.start == "alone" for sources in step_of.sources.values())
            alone = min(ALONE, num_steps // 5) if starts_alone else 0
        else:
            _copy_parameters(elbo(*start), loss_of)
        snapshots = Snapshots(loss_of, TERMS_EVERY)
        keeper = None
        if checkpoint is not None:
            settings = [optimizer, num_steps, learning_rate, weight_decay, compile, seed]
            problem = fingerprint(loss_of, args, elbo, batches, tasks, *settings)
            keeper = Checkpoint(checkpoint, problem, loss_of, adam)
            done = keeper.read() or done
        # Reading a loss waits for the device, which on a GPU would take most of a step.
        at_once = step_of.parameters[0].device.type == "cpu"
        unread: list[tuple[Tensor, ELBOTerms]] = []
        try:
            if optimizer == "lbfgs" and not done.over:
                restart = bool(step_of.sharing) and start is None
                lbfgs(step_of, done, report, recordable=recordable, restart=restart)
                if keeper is not None:
                    keeper.write(done)
            while done.step < done.end and not done.over:
                step, end = done.step, done.end
                step_of.at_step(step)
                step_of.set_alone(step < alone)
                if step == alone > 0:
                    step_of.start_weights(only="alone")
                if step % TERMS_EVERY == 0:
                    snapshots.take(step, done.snapshots)
                step_of.recording = recordable and step >= RECORD_AFTER
                for group in adam.param_groups:
                    group["lr"] = cool_down(max(0, step - (end - cooling)))
                # Pyro's validation takes two thirds of a step, and has passed once.
                with validation(step == 0):
                    unread.append(step_of())
                has_terms = step % TERMS_EVERY == 0 or step == end - 1
                terms = unread[-1][1]
                if has_terms:
                    done.terms[step] = terms.by_name()
                if has_terms or at_once:
                    done.losses += _read(unread, step, loss_of, args)
                adam.step()
                if has_terms:
                    step_of.choose_precision()
                    report(step + 1, end, terms)
                    schedules = (s for m in step_of.scheduled for s in m.schedules.values())
                    is_constant = all(schedule(step) == schedule(end) for schedule in schedules)
                    if end - step > cooling and is_constant and _settled(done.losses[alone:]):
                        done.end, done.stopped = step + 1 + cooling, "settled"
                done.step += 1
                done.over = done.step == done.end
                if keeper is not None and (done.over or (has_terms and keeper.due)):
                    keeper.write(done)
        except KeyboardInterrupt:
            done.stopped = "interrupted"
            done.losses += [loss.item() for loss, _ in unread]
        finally:
            step_of.finish()
        snapshots.end(done.step, done.snapshots)
        loss_of.eval()
    history = History.from_records(done.losses, done.terms, done.snapshots)
    return FitResult(history, done.elapsed, done.stopped)


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
