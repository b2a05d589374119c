r"""Influence of rows of any task on what is learned of another.

A fit minimizes :math:`F(\eta, \omega) = -\sum_{tn} \omega_{tn} \mathbb{E}_q \log p(y_{tn}) +
\mathrm{KL}`, with all that is learned in :math:`\eta`, source weights and scales too. At the
optimum a quantity :math:`f(\eta, \omega)` follows the weight of a row by [1]_

.. math:: \frac{df}{d\omega_{tn}} = \frac{\partial f}{\partial \omega_{tn}} -
    \frac{\partial f}{\partial \eta}^\top \Big(\frac{\partial^2 F}{\partial\eta\,\partial\eta^\top}
    \Big)^{-1} \frac{\partial^2 F}{\partial\eta\,\partial\omega_{tn}}

and the influence of a row is its weight times that: the first-order estimate of f with the row less
f without it. There is one solve for each quantity, whatever the number of rows. Of a stack, members
respond, :math:`d \log p = \sum_m r_m\, d\log p_m` with :math:`r_m` the part of member m in the
mixture; weights of members and calibrations stay.

References
----------
.. [1] Koh, P. W. and Liang, P. (2017). Understanding Black-box Predictions via Influence Functions.
   ICML. For several tasks: Tu, Liu, Ma and Tang (2025), arXiv 2505.21438.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_vmtl.attribution.left_out import LeftOut
from pyro_vmtl.attribution.responses import Responses
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.own_parameters import as_module
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.linear_response.response import as_double
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import Programs

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["influence"]

AT_ONCE = 2**19
"""Draws of rows whose log densities are computed together, as far as they have a graph."""

Estimate = Literal["first-order", "newton", "refit"]


def influence(
    fitted: Fitted | tuple[Program, Program],
    data: TaskData,
    *,
    rows: TaskData | None = None,
    of: Callable[[Fitted], Tensor] | None = None,
    method: Estimate | None = None,
    leave: Literal["row", "task"] = "row",
    only: Any = None,
    refit_flagged: float = 0.0,
    elbo: Trace_ELBO | None = None,
    num_samples: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Estimate how much each row of each task helps what a fit says of every task.

    The fit goes on to its optimum first, in a copy. If it took draws, that of a loss with fixed
    points and common draws, which is near but not the same.

    Parameters
    ----------
    fitted
        What a method's ``fit`` returned, or ``estimator.fitted_``; or a model and guide of your own
        that :func:`~pyro_vmtl.fit` fitted to the rows.
    data
        The rows that it was fitted to.
    rows
        Rows of the same tasks with targets, whose log predictive density is the quantity, summed
        within each task; by default those of the fit.
    of
        Another quantity: a differentiable function of the fit, whose programs are copies in double
        precision. Predictions have gradients by ``fit.predictive(rows, differentiable=True)``, and
        posterior means by :func:`~pyro_vmtl.posterior_means`.
    method
        ``"first-order"``, all rows at once, the default for them; ``"newton"``, one step of
        Newton's method without the row; or ``"refit"``, the fit without it, from where the fit was,
        to a gradient of 0, the default for whole tasks, which are too much for the others.
    leave
        Whether single rows are left out, or all those of a task. A task without rows has its prior
        as its posterior, and goes on being a source.
    only
        Positions in the user's rows, or labels of tasks, to leave out; all by default.
    refit_flagged
        Fraction of the rows, those of the largest ``step``, for which the fit without them takes
        the place of the estimate.
    elbo
        That of the fit; by default the one of each member's method, or else
        :class:`~pyro_vmtl.MeanFieldELBO`.
    num_samples, seed
        Draws of the log predictive density, and their seed. The same draws are used throughout.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Dataset
        ``influence`` (row, task), or (row, ...) of ``of``: positive where the row helps, in nats
        for log densities. ``step`` (row): how far the fit moves without the row, in standard
        deviations, as far as the Hessian is a matrix. Estimates hold where it is well below 1.
        ``refitted`` (row) marks what was refitted, of which ``estimate`` is what was estimated
        before. Coordinates: ``row``, positions in the user's
        arrays, and ``row_task``, tasks of the rows; or ``left_task``. ``attrs["distance"]`` is how
        far from its optimum the fit was when it was measured, in standard deviations.

    Raises
    ------
    ValueError
        If the loss does not depend on the weights of rows, sources are detached, or a row is
        compared with others beside its own term.

    See Also
    --------
    select_rows : Drop what harms.

    Examples
    --------
    >>> from pyro_vmtl.methods.presets import presets
    >>> X = torch.linspace(-1, 1, 40)[:, None]
    >>> y = 2 * X[:, 0] + 0.1 * torch.sin(9 * X[:, 0])
    >>> y[37] = -3.0  # an error, in a row of task b
    >>> data = TaskData.regression(X, y, ["a", "b"] * 20)
    >>> fitted = presets("regression")["mixed-model"].fit(data)
    >>> rows = data.new_rows(X[:36], ["a", "b"] * 18, y[:36])
    >>> found = influence(fitted, data, rows=rows)["influence"]
    >>> found.dims, int(found.sel(task="b").idxmin())
    (('row', 'task'), 37)
    """
    if method is None:
        method = "first-order" if leave == "row" else "refit"
    if method not in ("first-order", "newton", "refit") or leave not in ("row", "task"):
        raise ValueError(
            f"method is {method!r} and leave {leave!r}, expected 'first-order', 'newton' or "
            "'refit', and 'row' or 'task'."
        )
    if isinstance(fitted, tuple):
        fitted = _as_fitted(*fitted, data)
    parts = _in_parts(as_double(data if rows is None else rows), num_samples)
    terms = [partial(log_density, rows=part, num_samples=num_samples, seed=seed) for part in parts]

    def quantity(fit: Fitted) -> Tensor:
        return sum((term(fit) for term in terms[1:]), terms[0](fit)) if of is None else of(fit)

    left = LeftOut.of(data, leave, only)
    responses = Responses(fitted, data, elbo=elbo, seed=seed, progress=progress)
    steps = responses.steps() if leave == "row" else None
    if method == "first-order":
        found = left.sum(responses.first_order(*(terms if of is None else [of])))
    else:
        found = responses.without(quantity, left.masks, refit=method == "refit", leave=leave)
    step = None if steps is None else left.sum(steps)
    refitted = torch.full((len(found),), method == "refit")
    again = min(len(found), round(refit_flagged * len(found)))
    variables = {"influence": found, "refitted": refitted}
    if step is not None:
        variables["step"] = step
    if again and method != "refit":
        variables["estimate"] = found.clone()
        order = found.abs().flatten(1).amax(1) if step is None else step
        flagged = order.argsort(descending=True)[:again]
        found[flagged] = responses.without(quantity, left.masks[flagged], refit=True, leave=leave)
        refitted[flagged] = True
    return left.dataset(
        variables,
        tasks=None if of is not None else data.task_labels,
        distance=responses.distance,
        method=method,
    )


def _as_fitted(model: Program, guide: Program, data: TaskData) -> Fitted:
    """Return the fit of a pair of programs, without its history."""
    borrowing = Borrowing.of_programs(model, guide, data, data.rows_per_task.float())
    result = FitResult(History.from_records([], {}, {}), 0.0, "settled")
    method = Programs(lambda data: (model, guide))
    return Fitted.of_one(Member(method, as_module(model), as_module(guide), result, borrowing))


def _in_parts(rows: TaskData, num_samples: int) -> list[TaskData]:
    """Split the rows of each task, so that graphs of their log densities are small."""
    size = max(1, AT_ONCE // (num_samples * rows.num_tasks))
    places = torch.arange(rows.num_rows).expand(rows.num_tasks, -1)
    return [rows.take(some, rows.mask.gather(1, some)) for some in places.split(size, 1)]


def log_density(fit: Fitted, rows: TaskData, *, num_samples: int, seed: int) -> Tensor:
    """Compute the log predictive density of the rows of each task, (T,), with a gradient."""
    if rows.y is None:
        raise ValueError("The rows have no targets, expected some to compute log densities of.")
    mixture = fit.predictive(rows, num_samples=num_samples, seed=seed, differentiable=True)
    each: Tensor = mixture.log_prob(rows.y)
    if each.shape != rows.mask.shape:
        raise ValueError(
            f"Log densities of the rows have shape {tuple(each.shape)}, expected "
            f"{tuple(rows.mask.shape)}: draws are a dimension on the left, which the model has to "
            "broadcast. Multiply and sum, or index dimensions from the right."
        )
    return each.where(rows.mask, 0.0).sum(1)
