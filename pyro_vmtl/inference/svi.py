"""Stochastic variational inference with Pyro's ELBOs and torch's optimisers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pyro.infer import Trace_ELBO

from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_batches import TaskBatches
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.own_parameters import own_parameters
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.inference.checks import NonFiniteLossError
from pyro_vmtl.inference.course import Course, FitResult
from pyro_vmtl.inference.progress import progress_bar

__all__ = ["FitResult", "NonFiniteLossError", "fit"]


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

    Examples
    --------
    >>> from pyro_vmtl import Preset
    >>> model, guide = Preset().initial_programs(data)
    >>> fit(model, guide, data, num_steps=20).history.loss.shape
    torch.Size([20])
    """
    own_parameters(model, guide)  # of the store, which is out of sight from here
    with isolated(seed), progress_bar(num_steps, visible=progress) as report:
        course = Course(
            model,
            guide,
            args,
            elbo=elbo,
            optimizer=optimizer,
            num_steps=num_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batches=batches,
            tasks=tasks,
            compile=compile,
            start=start,
            seed=seed,
            checkpoint=checkpoint,
        )
        try:
            course.run(report)
        except KeyboardInterrupt:
            course.interrupt()
        finally:
            course.step_of.finish()
        return course.result()
