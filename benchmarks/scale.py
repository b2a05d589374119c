"""Fit the default to many tasks and to long ones: time, memory, and errors beside baselines.

python -m benchmarks.scale many-tasks                              1,000 tasks of 100 rows
python -m benchmarks.scale long-tasks --kind classification        20 tasks of 100,000 rows
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from torch.distributions import Categorical

from pyro_vmtl import TaskData
from pyro_vmtl.methods.presets import presets

TASKS_AND_ROWS = {"many-tasks": (1000, 100), "long-tasks": (20, 100_000)}
GROUPS, WITHIN, NOISE, SHARPNESS = 4, 0.3, 0.5, 2.0
TEST_ROWS = 20_000


@dataclass(frozen=True)
class Rows:
    """Rows of all tasks, and their true distributions."""

    X: np.ndarray
    """(rows, F), features."""
    y: np.ndarray
    """(rows,), targets."""
    task: np.ndarray
    """(rows,), task numbers."""
    truth: np.ndarray
    """(rows,) means of real targets, or (rows, C) log probabilities."""


def draw(kind: str, tasks: int, rows: int, features: int, classes: int, seed: int) -> list[Rows]:
    """Draw training and test rows of tasks in groups with similar coefficients."""
    rng = np.random.default_rng(seed)
    outputs = classes if kind == "classification" else 1
    center = rng.standard_normal((GROUPS, features, outputs))
    w = center[np.arange(tasks) % GROUPS]
    w = w + WITHIN * rng.standard_normal(w.shape)
    parts = []
    for each in (rows, max(1, TEST_ROWS // tasks)):
        X = rng.standard_normal((tasks, each, features))
        mean = X @ w / np.sqrt(features)
        if kind == "classification":
            truth = log_softmax(SHARPNESS * mean, axis=-1)
            y = (truth + rng.gumbel(size=truth.shape)).argmax(-1)
        else:
            truth = mean[..., 0]
            y = truth + NOISE * rng.standard_normal(truth.shape)
        task = np.repeat(np.arange(tasks), each)
        parts.append(
            Rows(X.reshape(-1, features), y.ravel(), task, truth.reshape(-1, *truth.shape[2:]))
        )
    return parts


def per_task(kind: str, train: Rows, test: Rows) -> np.ndarray:
    """Predict every task by least squares or logistic regression on its own rows."""
    predicted = np.empty_like(test.truth)
    for t in range(train.task.max() + 1):
        own, asked = train.task == t, test.task == t
        X, y = train.X[own], train.y[own]
        if kind == "regression":
            predicted[asked] = test.X[asked] @ np.linalg.lstsq(X, y, rcond=None)[0]
            continue
        model = LogisticRegression(max_iter=1000).fit(X, y)
        predicted[asked] = -np.inf
        found = model.predict_log_proba(test.X[asked])
        predicted[np.ix_(asked, model.classes_)] = found
    return predicted


def errors(kind: str, predicted: np.ndarray, test: Rows) -> dict[str, float]:
    """Compare predicted means or log probabilities with targets and with the truth."""
    if kind == "regression":
        return {
            "rmse": float(np.sqrt(((predicted - test.y) ** 2).mean())),
            "rmse to the true mean": float(np.sqrt(((predicted - test.truth) ** 2).mean())),
        }
    rows = np.arange(len(test.y))
    truth = np.exp(test.truth)
    return {
        "error": float((predicted.argmax(1) != test.y).mean()),
        "nll": float(-predicted[rows, test.y].mean()),
        "KL from the truth": float((truth * (test.truth - predicted)).sum(1).mean()),
    }


def run(args: argparse.Namespace, seed: int) -> None:
    """Fit the default to one random data set and print a table."""
    tasks, rows = TASKS_AND_ROWS[args.size]
    tasks, rows = args.tasks or tasks, args.rows or rows
    train, test = draw(args.kind, tasks, rows, args.features, args.classes, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    if args.kind == "regression":
        data = TaskData.regression(train.X, train.y, train.task)
    else:
        classes = range(args.classes)
        data = TaskData.classification(train.X, train.y, train.task, classes=classes)
    data = data.with_intercept()
    stack = presets(args.kind)["default"]
    fitted = stack.fit(data, seed=seed, progress=True)
    asked = data.new_rows(test.X, test.task, test.y)
    distribution = fitted.predictive(asked)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB, on Linux
    if isinstance(distribution, Categorical):
        predicted = asked.unpad(distribution.probs).log().numpy()
    else:
        predicted = asked.unpad(distribution.mean).numpy()
    steps = {name: len(member.result.history.loss) for name, member in fitted.members.items()}
    print(
        f"{args.size}, {args.kind}, seed {seed}: {tasks} tasks x {rows} rows x {args.features} "
        f"features; {wall:.0f} s, {cpu:.0f} CPU s, at most {peak:.2f} GiB"
    )
    print(f"steps, and why the fits ended: {steps}, {fitted.result.stopped}")
    print(f"mean weights of the members: {np.round(fitted.weights.mean(0).tolist(), 2).tolist()}")
    table = {
        "default": errors(args.kind, predicted, test),
        "per task": errors(args.kind, per_task(args.kind, train, test), test),
        "Bayes": errors(args.kind, test.truth, test),
    }
    if args.kind == "regression":
        density = distribution.log_prob(asked.y)[asked.mask]
        table["default"]["nll"] = float(-density.mean())
        misses = (test.y - test.truth) / NOISE
        table["Bayes"]["nll"] = float(0.5 * (np.log(2 * np.pi * NOISE**2) + (misses**2).mean()))
    print(pd.DataFrame(table).T.round(4).to_string(), end="\n\n", flush=True)


def main() -> None:
    """Run the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=TASKS_AND_ROWS)
    parser.add_argument("--kind", choices=("regression", "classification"), default="regression")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--tasks", type=int, help="instead of those of the size")
    parser.add_argument("--rows", type=int, help="of each task, instead of those of the size")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    for seed in range(args.seeds):
        run(args, seed)


if __name__ == "__main__":
    main()
