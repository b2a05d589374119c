"""Trees of linear regressions whose posterior is known, made without a fit.

Every task has F coefficients with a normal prior, and known noise. The features of a task are
orthogonal, so that its posterior is a product of normals and a mean-field guide can be exact.
"""

import numpy as np
import xarray as xr
from scipy.stats import multivariate_normal, norm

NOISE, PRIOR, F = 0.5, 1.5, 2


def problem(num_rows=(14, 10), seed=0):
    """Features and targets of each task, [(N, F), (N,)]."""
    rng = np.random.default_rng(seed)
    tasks = []
    for rows in num_rows:
        x = np.linalg.qr(rng.normal(size=(rows, F)))[0] * 2
        tasks.append((x, x @ rng.normal(size=F) + NOISE * rng.normal(size=rows)))
    return tasks


def exact(x, y, kl_weight=1.0):
    """Posterior mean (F,) and covariance (F, F), the likelihood to the power 1 / kl_weight."""
    covariance = np.linalg.inv(x.T @ x / NOISE**2 / kl_weight + np.eye(F) / PRIOR**2)
    return covariance @ x.T @ y / NOISE**2 / kl_weight, covariance


def left_out(x, y, kl_weight=1.0):
    """Log predictive density of every row given the others, (N,)."""
    values = []
    for n in range(len(y)):
        mean, covariance = exact(np.delete(x, n, 0), np.delete(y, n), kl_weight)
        values.append(norm.logpdf(y[n], x[n] @ mean, np.sqrt(NOISE**2 + x[n] @ covariance @ x[n])))
    return np.array(values)


def tree(tasks, *, num_samples=1000, width=1.0, shift=0.0, kl_weight=1.0, seed=0, labels=None):
    """Tree of a guide with the exact means, and standard deviations times `width` (by task)."""
    rng = np.random.default_rng(seed)
    labels = [f"t{i}" for i in range(len(tasks))] if labels is None else labels
    width = np.broadcast_to(width, len(tasks))
    w, log_p, log_q, pointwise, of_row, ys = [], [], [], [], [], []
    for t, (x, y) in enumerate(tasks):
        mean, covariance = exact(x, y, kl_weight)
        scale = width[t] * np.sqrt(np.diag(covariance))
        draws = mean + shift + scale * rng.normal(size=(num_samples, F))
        log_likelihood = norm.logpdf(y, draws @ x.T, NOISE)
        prior = multivariate_normal(np.zeros(F), PRIOR**2 * np.eye(F)).logpdf(draws)
        log_p.append(log_likelihood.sum(1) / kl_weight + prior)
        log_q.append(norm.logpdf(draws, mean + shift, scale).sum(1))
        w.append(draws)
        pointwise.append(log_likelihood)
        of_row += [labels[t]] * len(y)
        ys.append(y)
    draws = ("chain", "draw")
    log_p, log_q = np.stack(log_p, -1)[None], np.stack(log_q, -1)[None]
    rows = {"row": np.arange(len(of_row)), "task": ("row", of_row)}
    pointwise = np.concatenate(pointwise, 1)[None]
    groups = {
        "posterior": xr.Dataset(
            {"w": ((*draws, "task", "feature"), np.stack(w, 1)[None])},
            {"task": labels, "feature": [f"f{i}" for i in range(F)]},
        ),
        "log_likelihood": xr.Dataset({"y": ((*draws, "row"), pointwise)}, rows),
        "observed_data": xr.Dataset({"y": ("row", np.concatenate(ys))}, rows),
        "sample_stats": xr.Dataset(
            {
                "log_p": (draws, log_p.sum(-1)),
                "log_q": (draws, log_q.sum(-1)),
                "log_p_task": ((*draws, "task"), log_p),
                "log_q_task": ((*draws, "task"), log_q),
            },
            {"task": labels},
            attrs={"learning_rate": 1 / kl_weight},
        ),
    }
    return xr.DataTree.from_dict(groups)
