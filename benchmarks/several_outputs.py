"""Feedback between the outputs of tables, beside what else predicts several outputs.

python -m benchmarks multi-label --seeds 5
python -m benchmarks multi-target --seeds 5
python -m benchmarks multi-label --ablation --validation

One line of JSON for each data set, seed and method, appended to ``--out`` and not repeated. With
``--validation`` the test rows are a third of the training rows. Mean and standard error over the
seeds are printed at the end. Of labels: ``nll`` in nats and ``ece`` of a row's labels, ``exact``
the share of rows with all labels right, ``hamming`` the share of wrong labels. Of real targets:
``arrmse``, the RMSE of each target over that of the training mean, averaged.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.datasets.mulan import MULTI_LABEL, MULTI_TARGET, Rows, multi_label, multi_target
from pyro_vmtl import OutputData, known_outputs
from pyro_vmtl.estimators.feedback_fit import FittedOutputs, fit_outputs

DRAWS = 100

FEEDBACK = {"num_iterations": 3, "gates": "hard"}

METHODS = {"static": {"num_iterations": 0}, "feedback": {}}

ABLATION = {
    **{f"K={k}": {"num_iterations": k} for k in (1, 2, 5, 10)},
    "K=fixed point": {"num_iterations": None},
    "soft gates": {"gates": "soft"},
    "no gates": {"gates": "on"},
    "convergence, plain": {"convergence": "plain"},
    "convergence, hinge": {"convergence": "hinge"},
    "symmetric": {"symmetric": True},
    "true labels": {"fed_with": "true"},
    "cross-fitted": {"fed_with": "cross-fitted"},
    "hidden layer, static": {"num_iterations": 0, "hidden_size": 64},
    "hidden layer": {"hidden_size": 64},
}
"""Settings that differ from those of ``feedback``."""


def outputs_of(y: np.ndarray) -> dict[str, np.ndarray]:
    """Name the columns of outputs."""
    return {f"y{t}": y[:, t] for t in range(y.shape[1])}


def fit_ours(
    train: Rows,
    seed: int,
    *,
    fed_with: str = "own",
    hidden_size: int | None = None,
    **settings: object,
) -> FittedOutputs:
    """Fit, with one's own predictions as what outputs are fed in training, or others."""
    kind = "real" if train.y.dtype.kind == "f" else "classes"
    kinds = dict.fromkeys(outputs_of(train.y), kind)
    data = OutputData.from_columns(train.X, outputs_of(train.y), kinds=kinds)
    means = {}
    if fed_with == "true":
        means = {f"y_{name}": values for name, values in data.known_means().items()}
    elif fed_with == "cross-fitted":
        means = {f"y_{name}": values for name, values in cross_fitted(train, seed).items()}
    with known_outputs(means):
        options = {**FEEDBACK, **settings}
        return fit_outputs(data, hidden_size, num_steps=2000, seed=seed, **options)


def cross_fitted(train: Rows, seed: int) -> dict[str, torch.Tensor]:
    """Predict each of five parts of the rows by a static fit to the others."""
    part = np.random.default_rng(seed).permutation(len(train.X)) % 5
    found = {name: torch.zeros(len(part), 1) for name in outputs_of(train.y)}
    for fold in range(5):
        fitted = fit_ours(
            Rows(train.X[part != fold], train.y[part != fold]), seed, num_iterations=0
        )
        rows = fitted.data.new_rows(train.X[part == fold], {})
        means = fitted.average(rows, lambda fn: fn.mean[:, None], 20, seed)
        for name, values in means.items():
            found[name][part == fold] = values
    return found


def predict_ours(train: Rows, X: np.ndarray, seed: int, **settings: object) -> np.ndarray:
    """Return means, (rows, T), or (rows, T, 2) with standard deviations of real targets."""
    fitted = fit_ours(train, seed, **settings)
    rows = fitted.data.new_rows(X, {})
    if train.y.dtype.kind != "f":
        means = fitted.average(rows, lambda fn: fn.mean, DRAWS, seed)
        return torch.stack([*means.values()], 1).numpy()
    moments = fitted.average(
        rows, lambda fn: torch.stack([fn.mean, fn.mean**2 + fn.variance], -1), DRAWS, seed
    )
    found = []
    for name, values in moments.items():
        center, unit = fitted.units[name]
        mean, second = values.unbind(-1)
        found.append(torch.stack([center + unit * mean, unit * (second - mean**2).sqrt()], -1))
    return torch.stack(found, 1).numpy()


def per_label(train: Rows, X: np.ndarray, seed: int) -> np.ndarray:
    """Predict each label by a logistic regression, its penalty chosen by cross-validation."""
    columns = []
    for y in train.y.T:
        counts = np.bincount(y, minlength=2)
        if counts.min() < 5:
            columns.append(np.full(len(X), counts[1] / counts.sum()))
            continue
        model = make_pipeline(StandardScaler(), _logistic()).fit(train.X, y)
        columns.append(model.predict_proba(X)[:, 1])
    return np.stack(columns, 1)


def chain(train: Rows, X: np.ndarray, seed: int) -> np.ndarray:
    """Predict by scikit-learn's chain of classifiers, in a random order."""
    if min(np.bincount(y, minlength=2).min() for y in train.y.T) < 5:
        return np.full((len(X), train.y.shape[1]), np.nan)
    model = ClassifierChain(_logistic(), order="random", random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(train.X, train.y).predict_proba(X)


def _logistic() -> LogisticRegressionCV:
    return LogisticRegressionCV(Cs=10, cv=5, scoring="neg_log_loss", max_iter=1000)


def per_target(train: Rows, X: np.ndarray, seed: int) -> np.ndarray:
    """Predict each target by a ridge regression."""
    model = MultiOutputRegressor(RidgeCV(np.logspace(-3, 4, 15)))
    return make_pipeline(StandardScaler(), model).fit(train.X, train.y).predict(X)


def regressor_chain(train: Rows, X: np.ndarray, seed: int) -> np.ndarray:
    """Predict by scikit-learn's chain of regressions, in a random order."""
    model = RegressorChain(RidgeCV(np.logspace(-3, 4, 15)), order="random", random_state=seed, cv=5)
    return make_pipeline(StandardScaler(), model).fit(train.X, train.y).predict(X)


def label_scores(found: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Score probabilities of labels, (rows, T)."""
    p = found.clip(1e-6, 1 - 1e-6)
    nll = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)
    bins = np.minimum((found * 15).astype(int), 14).ravel()
    gaps = np.bincount(bins, (found - y).ravel(), minlength=15)
    return {
        "nll": nll.mean(),
        "ece": np.abs(gaps).sum() / y.size,
        "exact": ((found > 0.5) == y).all(1).mean(),
        "hamming": ((found > 0.5) != y).mean(),
    }


def target_scores(found: np.ndarray, y: np.ndarray, train: Rows) -> dict[str, float]:
    """Score means of targets, (rows, T), or means and standard deviations, (rows, T, 2)."""
    mean = found[..., 0] if found.ndim == 3 else found
    error = np.sqrt(((mean - y) ** 2).mean(0))
    base = np.sqrt(((train.y.mean(0) - y) ** 2).mean(0))
    scores = {"arrmse": (error / np.maximum(base, 1e-12)).mean()}
    if found.ndim == 3:
        scores["nll"] = -norm.logpdf(y, mean, found[..., 1]).sum(1).mean()
    return scores


def run(name: str, methods: dict[str, Callable[..., np.ndarray]], args: argparse.Namespace) -> None:
    """Run what is missing in the file of results."""
    labels = name in MULTI_LABEL
    done = set()
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            done.add((row["data"], row["seed"], row["method"], row["validation"]))
    for seed in range(args.first_seed, args.seeds):
        train, test = (multi_label if labels else multi_target)(name, seed)
        if args.validation:
            order = np.random.default_rng(100 + seed).permutation(len(train.X))
            cut = 2 * len(order) // 3
            train, test = (Rows(train.X[i], train.y[i]) for i in (order[:cut], order[cut:]))
        for method, predict in methods.items():
            if (name, seed, method, args.validation) in done:
                continue
            begun = time.perf_counter()
            found = predict(train, test.X, seed)
            seconds = time.perf_counter() - begun
            score = label_scores if labels else partial(target_scores, train=train)
            scores = score(found, y=test.y)
            row = {"data": name, "seed": seed, "method": method, "validation": args.validation}
            row |= {
                **{k: round(float(v), 5) for k, v in scores.items()},
                "seconds": round(seconds, 1),
            }
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def main(kind: str, arguments: Sequence[str]) -> None:
    """Parse the command line, run, and print the scores."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {kind}", description=__doc__)
    names = MULTI_LABEL if kind == "multi-label" else tuple(MULTI_TARGET)
    parser.add_argument("--sets", default=",".join(names))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs") / f"benchmark-{kind}.jsonl")
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    others = {"per output": per_label, "chain": chain}
    if kind == "multi-target":
        others = {"per output": per_target, "chain": regressor_chain}
    ours = METHODS | (ABLATION if args.ablation else {})
    if kind == "multi-target":
        ours = {name: settings for name, settings in ours.items() if "fed_with" not in settings}
    methods = others | {n: partial(predict_ours, **settings) for n, settings in ours.items()}
    for name in args.sets.split(","):
        run(name, methods, args)
    show(args)


def show(args: argparse.Namespace) -> None:
    """Print means and standard errors over the seeds."""
    table = pd.DataFrame(map(json.loads, args.out.read_text().splitlines()))
    table = table[table["validation"] == args.validation].drop(columns=["seed", "validation"])
    grouped = table.groupby(["data", "method"], sort=False)
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(grouped.agg(["mean", "sem"]).round(4).to_string())
