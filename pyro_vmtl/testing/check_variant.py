"""All checks of a variant, in one call or as tests of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.testing.loss_checks import (
    check_batches,
    check_gradients,
    check_padding,
    check_permuted_tasks,
    check_row_weights,
    check_task_blocks,
)
from pyro_vmtl.testing.structure_checks import (
    check_parameters_of_all_rows,
    check_plates_and_shapes,
    check_repeated_runs,
    check_same_sites,
    check_side_by_side,
)
from pyro_vmtl.testing.use_checks import (
    check_export,
    check_nearest_start,
    check_new_rows,
    check_reload,
    check_simulation,
)
from pyro_vmtl.testing.variant import NotApplicable, Variant

__all__ = ["CHECKS", "check_variant", "parametrize_with_checks"]

CHECKS: dict[str, Callable[[Variant], None]] = {
    check.__name__: check
    for check in (
        *(check_same_sites, check_plates_and_shapes, check_parameters_of_all_rows),
        *(check_repeated_runs, check_padding, check_side_by_side),
        *(check_batches, check_row_weights, check_task_blocks),
        *(check_permuted_tasks, check_gradients),
        *(check_new_rows, check_nearest_start, check_export, check_reload),
    )
}
"""The checks by name, in the order in which they run: later ones rely on earlier ones."""


def check_variant(
    model: Program,
    guide: Program,
    data: TaskData,
    *,
    site: str = "y",
    skip: Iterable[str] = (),
    simulations: int = 0,
    **settings: Any,
) -> dict[str, str]:
    """Check a model and guide of your own for what goes wrong in silence.

    Parameters
    ----------
    model, guide
        Pyro programs that are called with ``data``, not yet fitted, as ``share`` returns them. They
        are copied for each check.
    data
        Rows with targets, of some tasks with different numbers of rows; few are enough.
    site
        Name of the observed site.
    skip
        Names of checks to leave out.
    simulations
        Number of fits for :func:`~pyro_vmtl.testing.use_checks.check_simulation`, which is left out
        by default; twenty take minutes.
    **settings
        Arguments of :func:`~pyro_vmtl.fit` for these.

    Returns
    -------
    dict
        For each check ``"passed"``, or why it does not apply.

    Raises
    ------
    VariantError
        With the name of the first check that fails, what it found, and the line to change.

    See Also
    --------
    parametrize_with_checks : The same as tests of pytest, one for each check.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(data):
    ...     with pyro.plate("task", data.num_tasks, dim=-2):
    ...         mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    ...         with pyro.plate("data", data.num_rows, dim=-1):  # without a mask
    ...             pyro.sample("y", dist.Normal(mean, 1.0), obs=data.y)
    >>> data = TaskData.regression([[0.0]] * 5, [1.0, 1.2, 0.9, 1.0, -4.0], list("aabbb"))
    >>> check_variant(model, AutoNormal(model), data)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pyro_vmtl.testing.variant.VariantError: check_padding: the log_likelihood of site 'y' is ...
    """
    variant = Variant(lambda _: _copied(model, guide), data, site)
    checks = {name: check for name, check in CHECKS.items() if name not in _known(skip)}
    if simulations:
        checks["check_simulation"] = partial(
            check_simulation, num_simulations=simulations, **settings
        )
    found = {}
    for name, check in checks.items():
        try:
            check(variant)
            found[name] = "passed"
        except NotApplicable as reason:
            found[name] = str(reason)
    return found


def parametrize_with_checks(
    make: Callable[[TaskData], tuple[Program, Program]],
    data: TaskData,
    *,
    site: str = "y",
    skip: Iterable[str] = (),
) -> Callable[[Callable[..., Any]], Any]:
    """Make one test of pytest for each check of a variant, by decorating a function of ``check``.

    Parameters
    ----------
    make
        Returns model and guide, not yet fitted, for rows, as for :class:`~pyro_vmtl.Programs`.
    data, site, skip
        As for :func:`check_variant`.

    Examples
    --------
    In a test file, with programs and rows of your own:

    >>> @parametrize_with_checks(fitted.member.method.programs, data)
    ... def test_variant(check):
    ...     check()
    """
    import pytest

    variant = Variant(make, data, site)

    def run(check: Callable[[Variant], None]) -> None:
        try:
            check(variant)
        except NotApplicable as reason:
            pytest.skip(str(reason))

    left_out = _known(skip)
    chosen = {name: partial(run, check) for name, check in CHECKS.items() if name not in left_out}
    decorate: Callable[[Callable[..., Any]], Any] = pytest.mark.parametrize(
        "check", list(chosen.values()), ids=list(chosen)
    )
    return decorate


def _copied(*programs: Program) -> Any:
    """Copy programs together. Pyro's autoguides lose their model by that, and get it back."""
    kept = [
        [vars(module).get("_model") for module in program.modules()]
        for program in programs
        if isinstance(program, nn.Module)
    ]
    copies = copy.deepcopy(programs)
    for of in (programs, copies):
        modules = (program.modules() for program in of if isinstance(program, nn.Module))
        for found, models in zip(modules, kept, strict=True):
            for module, model in zip(found, models, strict=True):
                if model is not None:
                    vars(module)["_model"] = model
    return copies


def _known(names: Iterable[str]) -> set[str]:
    """Return names of checks, after checking that there are such."""
    unknown = sorted(set(names) - set(CHECKS))
    if unknown:
        raise ValueError(f"There is no check {unknown[0]!r}, expected some of {', '.join(CHECKS)}.")
    return set(names)
