"""The default is timed beside others, and errors are what they are said to be."""

import numpy as np
import pytest

from benchmarks.scale import draw
from benchmarks.speed import rivals
from benchmarks.speed.rivals import Problem, measure, table


@pytest.fixture
def sure(monkeypatch):
    """Replace methods by ones whose errors are known."""
    test = draw("regression", 4, 8, 2, 1, 0)[1]
    monkeypatch.setattr(rivals, "_default", lambda *rows: (test.truth, None))
    monkeypatch.setitem(rivals.BASELINES["regression"], "per-task", lambda *rows: (test.y, None))
    even = lambda *rows: np.full((len(rows[3]), 3), 1 / 3)  # noqa: E731
    monkeypatch.setitem(rivals.BASELINES["classification"], "per-task", even)
    monkeypatch.setattr(rivals, "PROBLEMS", {"small": Problem(4, 8, 2)})


def test_errors_are_relative_to_the_truth(sure):
    assert measure(Problem(4, 8, 2), "default")["error"] == pytest.approx(1.0)
    assert measure(Problem(4, 8, 2), "per-task")["error"] == 0.0
    even = measure(Problem(4, 8, 2, classes=3), "per-task")
    assert even["error"] == pytest.approx(np.log(3)) and even["seconds"] >= 0


def test_a_problem_is_a_row_of_the_table(sure, capsys):
    lines = table(["small"], ["per-task"]).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| 4 x 8 x 2 | 0.0 | 1.000 |")
    assert len({line.count("|") for line in lines}) == 1
