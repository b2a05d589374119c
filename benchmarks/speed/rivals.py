"""Time the whole default beside models of other libraries, with their errors.

python -m benchmarks.speed.rivals        all problems: tasks, rows, features, classes grow
python -m benchmarks.speed.rivals --problems base --methods per-task,linear-mixed-model
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.methods import BASELINES
from benchmarks.scale import Rows, draw
from pyro_vmtl import TaskData
from pyro_vmtl.methods.presets import presets

__all__ = ["PROBLEMS", "Problem", "measure", "table"]

METHODS = ("per-task", "linear-mixed-model", "lightgbm-task")


class Problem(NamedTuple):
    """T tasks of N rows with F features in four groups; real targets, or C classes."""

    tasks: int = 50
    rows: int = 20
    features: int = 8
    classes: int = 0

    @property
    def kind(self) -> str:
        """Kind of targets."""
        return "classification" if self.classes else "regression"


PROBLEMS = {
    "base": Problem(),
    "tasks": Problem(tasks=200),
    "rows": Problem(rows=80),
    "features": Problem(features=32),
    "classes": Problem(classes=3),
    "many classes": Problem(classes=6),
}


def measure(problem: Problem, method: str, *, seed: int = 0) -> dict[str, float]:
    """Fit training rows and predict others.

    Parameters
    ----------
    problem
        Size of the data.
    method
        ``"default"``, or one of the baselines for the kind of targets.
    seed
        Seed of the data and of the fit.

    Returns
    -------
    dict
        Processor ``seconds`` of fit and prediction, and the ``error``: of real targets RMSE over
        that of the true mean, of classes the mean negative log probability.
    """
    train, test = draw(problem.kind, *problem[:3], max(problem.classes, 1), seed)
    predict: Callable[..., Any] = _default
    if method != "default":
        predict = BASELINES[problem.kind][method]
    started = time.process_time()
    classes = (range(problem.classes),) if problem.classes else ()
    found = predict(train.X, train.y, [*train.task], test.X, [*test.task], *classes)
    seconds = time.process_time() - started
    return {"seconds": seconds, "error": _error(problem, found, test)}


def _default(
    X: np.ndarray, y: np.ndarray, tasks: Any, X_new: np.ndarray, tasks_new: Any, classes: Any = None
) -> Any:
    """Fit the default, and predict means or probabilities."""
    if classes is None:
        data = TaskData.regression(X, y, tasks).with_intercept()
    else:
        data = TaskData.classification(X, y, tasks, classes=classes).with_intercept()
    stack: Any = presets("regression" if classes is None else "classification")["default"]
    rows = data.new_rows(X_new, tasks_new)
    predictive: Any = stack.fit(data).predictive(rows)
    if classes is None:
        return rows.unpad(predictive.mean).numpy(), None
    return rows.unpad(predictive.probs).numpy()


def _error(problem: Problem, found: Any, test: Rows) -> float:
    if problem.classes:
        return float(-np.log(np.clip(found[np.arange(len(test.y)), test.y], 1e-12, 1)).mean())
    mean, _ = found
    squares = ((each - test.y) ** 2 for each in (mean, test.truth))
    ours, least = (np.sqrt(each.mean()) for each in squares)
    return float(ours / least)


def table(names: list[str], methods: list[str], *, seed: int = 0) -> str:
    """Measure problems, and return a table in Markdown."""
    columns = [method for method in methods if method != "default"]
    lines = [
        f"| problem | default s | error | {' | '.join(f'{c}: times | error' for c in columns)} |",
        "|---" * (3 + 2 * len(columns)) + "|",
    ]
    for name in names:
        problem = PROBLEMS[name]
        ours = measure(problem, "default", seed=seed)
        cells = [f"{ours['seconds']:.1f}", f"{ours['error']:.3f}"]
        for method in columns:
            # GPBoost has no mixed model of more than two classes
            if problem.classes > 2 and method.startswith("linear-mixed-model"):
                cells += ["–", "–"]
                continue
            other = measure(problem, method, seed=seed)
            cells += [f"{ours['seconds'] / other['seconds']:.1f}", f"{other['error']:.3f}"]
        sizes = f"{problem.tasks} x {problem.rows} x {problem.features}"
        what = f", {problem.classes} classes" if problem.classes else ""
        lines.append(f"| {sizes}{what} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Measure with one thread, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # OMP_NUM_THREADS=1 for the others
    print(table(args.problems.split(","), args.methods.split(","), seed=args.seed))


if __name__ == "__main__":
    main()
