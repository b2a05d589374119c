"""Time complete fits, and the time until 99 % of the gain in validation score."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.datasets import DATA_SETS
from benchmarks.rows import to_task_data
from pyro_vmtl import TaskData, fit, log_predictive_density
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import presets

__all__ = ["GOALS", "wall_time"]

GOALS = {"digits": 10.0, "school": 20.0, "office-caltech": 10.0}
"""Maximum seconds of a fit; on Office-Caltech10 until 99 % of the score."""


def wall_time(name: str, method: str, *, seed: int = 0, **settings: Any) -> dict[str, Any] | None:
    """Fit a data set, and find when its validation score was close to the final one.

    Parameters
    ----------
    name
        Name of a data set.
    method
        Name of a preset.
    seed
        Seed of split and fit.
    **settings
        Arguments of ``fit`` that replace the preset's.

    Returns
    -------
    dict
        Seconds of the fit, seconds until 99 % of the gain from the first to the final score, and
        number of steps; None if the data files are missing.
    """
    data_set = DATA_SETS[name]()
    try:
        data_set.check()
    except OSError:
        return None
    split = data_set.split(seed, validation=True)
    data, held_out = to_task_data(split, data_set.kind)
    chosen = presets(data_set.kind)[method]
    preset = getattr(chosen, "many_features", chosen)
    assert isinstance(preset, Preset)
    preset = replace(preset, fitting={**preset.fitting, **settings})

    seen: list[tuple[float, dict[str, Any]]] = []
    with _snapshots(seen):
        fitted = preset.fit(data, seed=seed)
    scores = [_score(fitted.member, state, held_out) for _, state in seen]
    enough = scores[0] + 0.99 * (scores[-1] - scores[0])
    reached = len(scores) - 1
    while reached and scores[reached - 1] >= enough:
        reached -= 1
    return {
        "name": name,
        "seconds": fitted.result.seconds,
        "seconds_to_99": seen[reached][0],
        "steps": len(fitted.result.history.loss),
        "score": scores[-1],
        "goal": GOALS.get(name),
    }


@contextmanager
def _snapshots(seen: list[tuple[float, dict[str, Any]]]) -> Iterator[None]:
    """Copy the parameters whenever a fit updates its progress bar, with the clock stopped."""
    programs = torch.nn.ModuleList()
    started, paused = time.perf_counter(), 0.0

    def report(done: int, total: int, terms: Any) -> None:
        nonlocal paused
        now = time.perf_counter()
        state = {k: v.detach().clone() for k, v in programs.state_dict().items()}
        seen.append((now - started - paused, state))
        paused += time.perf_counter() - now

    @contextmanager
    def bar(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield report

    def recording_fit(model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        programs.extend([model, guide])
        return fit(model, guide, *args, **kwargs)

    with (
        patch("pyro_vmtl.inference.svi.progress_bar", bar),
        patch("pyro_vmtl.methods.method.fit", recording_fit),
    ):
        yield


def _score(fitted: Member, state: dict[str, Any], rows: TaskData) -> float:
    """Compute the mean log predictive density of rows, in nats."""
    torch.nn.ModuleList([fitted.model, fitted.guide]).load_state_dict(state)
    density = log_predictive_density(fitted.model, fitted.guide, rows, num_samples=100)
    return float(rows.unpad(density).mean())
