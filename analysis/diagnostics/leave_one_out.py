r"""Leave-one-out cross-validation of a variational posterior, without fitting again.

How well would row :math:`n` of task :math:`t` be predicted by a fit that has not seen it? The draws
:math:`w_s` from the guide are reweighted by importance sampling,

.. math:: r_{ns} = \frac{p_t(w_s)}{q_t(w_s)}\; p(y_n \mid w_s)^{-\eta v_n}, \qquad
          \mathrm{elpd}_n = \log \frac{\sum_s r_{ns}\, p(y_n \mid w_s)}{\sum_s r_{ns}},

with Pareto-smoothed weights (Vehtari et al., Statistics and Computing 2017; with a guide in place
of the posterior: Magnusson et al., ICML 2019). :math:`v_n` is the row's weight in the fit, and
:math:`\eta` the learning rate of the likelihood, one over the KL weight. :math:`p_t / q_t` is the
task's own part: given their pools, tasks are independent of one another, and a part has fewer
dimensions than all of them, hence steadier weights.

A row is left out of its own task only. The posteriors of other tasks, sites that all tasks have in
common and learned parameters, such as noise, stay as they are. Where tasks share, the estimate is
therefore slightly optimistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.diagnostics.khat import good_khat, log_ratios, smoothed_weights
from pyro_vmtl.analysis.metrics import ALL_TASKS, rows_by_task
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, get_variable, row_tasks

__all__ = ["compare_fits", "loo", "loo_by_task"]


def loo(data: xr.DataTree) -> Any:
    """Estimate the expected log predictive density of every row when it is left out.

    Parameters
    ----------
    data
        Tree of a fit, with ``y`` in the group ``log_likelihood``, and ``log_p_task`` and
        ``log_q_task`` in ``sample_stats``: at least 25 draws. Of a stack, the tree of a member.

    Returns
    -------
    ELPDData
        As from ``az.loo_approximate_posterior``, in nats: ``elpd``, ``se``, ``p`` and, by row,
        ``elpd_i`` and ``pareto_k``. Accepted by ``az.compare``, ``az.plot_khat`` and others.

    See Also
    --------
    loo_by_task, compare_fits
    arviz_plots.plot_khat : The k-hat of each row.

    Examples
    --------
    >>> loo(tree).n_data_points
    36
    """
    return _elpd_data(_rows(data))


def loo_by_task(data: xr.DataTree) -> pd.DataFrame:
    """Estimate the expected log predictive density of each task, and of all, by leave-one-out.

    Parameters
    ----------
    data
        As for :func:`loo`.

    Returns
    -------
    DataFrame
        A row for each task with rows, and ``(all)`` last: ``elpd_loo`` (nats, larger is better),
        its standard error ``se`` (NaN for a single row), and ``p_loo``, the effective number of
        parameters; ``num_rows``; ``max_pareto_k`` over rows and ``num_bad_k``, the number of rows
        whose k-hat is too large for the estimate to be trusted.

    Examples
    --------
    >>> loo_by_task(tree)["num_rows"].to_dict()
    {'Ada': 12, 'Bo': 12, 'Cy': 12, '(all)': 36}
    """
    rows = _rows(data)
    tasks = rows["task"].values.tolist()
    table = {
        repr(str(task)) if task == ALL_TASKS else task: _summary(rows.isel(row=own))
        for task, own in rows_by_task(tasks).items()
    }
    table[ALL_TASKS] = _summary(rows)
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("task")


def compare_fits(fits: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Rank fits of the same rows by leave-one-out cross-validation.

    Parameters
    ----------
    fits
        Trees of fits of the same rows by name, as for :func:`loo`.

    Returns
    -------
    DataFrame
        As from ``az.compare``, the best first: ``rank``, ``elpd`` and ``se``, the difference
        ``elpd_diff`` from the best, at most 0, and its standard error ``dse`` (nats, not rounded),
        ``p``, and the stacking ``weight``; other columns depend on the version of ArviZ. Accepted
        by ``az.plot_compare``. A difference below four nats is small, and one below twice its
        ``dse`` may be due to chance.

    Examples
    --------
    >>> table = compare_fits({"one": tree, "same": tree})
    >>> bool((table["elpd_diff"] == 0).all())
    True
    """
    if not isinstance(fits, Mapping):
        raise TypeError(f"fits is a {type(fits).__name__}, expected trees by name: {{'a': tree}}.")
    if len(fits) < 2:
        raise ValueError(f"fits has {list(fits)}, expected at least two to compare.")
    first, *others = fits
    same = get_variable(fits[first], "log_likelihood", "y")
    for name in others:
        y = get_variable(fits[name], "log_likelihood", "y")
        if y.sizes["row"] != same.sizes["row"] or not _alike(fits[name], fits[first]):
            raise ValueError(
                f"Fit {name!r} has {y.sizes['row']} rows and {first!r} has {same.sizes['row']}, "
                "expected the same rows of the same tasks in the same order and unit. Make the "
                "trees from the same training rows in the same way."
            )
    results = {name: loo(tree) for name, tree in fits.items()}
    table = pd.DataFrame(az.compare(results))
    best = results[table.index[0]]
    for name, result in results.items():  # ArviZ 1 rounds, and ArviZ 0 has the opposite sign
        difference = (result.elpd_i - best.elpd_i).values
        dse = np.sqrt(difference.size * difference.var())
        columns = ["elpd", "se", "p", "elpd_diff", "dse"]
        table.loc[name, columns] = [result.elpd, result.se, result.p, difference.sum(), dse]
    return table


def _alike(one: xr.DataTree, other: xr.DataTree) -> bool:
    """Whether the rows of two trees with as many rows are the same."""
    described = []
    for tree in (one, other):
        density = get_variable(tree, "log_likelihood", "y")
        found = {"task": row_tasks(density), "row": density.coords.get("row")}
        if "observed_data" in tree.children:
            found["y"] = get_variable(tree, "observed_data", "y")
        described.append({key: values for key, values in found.items() if values is not None})
    first, second = described
    return all(np.array_equal(first[key], second[key]) for key in first.keys() & second.keys())


def _rows(data: xr.DataTree) -> xr.Dataset:
    """Compute ``elpd``, ``p`` and ``pareto_k`` of every row."""
    log_likelihood = get_variable(data, "log_likelihood", "y").transpose("row", *SAMPLE_DIMS)
    coords = {name: c for name, c in log_likelihood.coords.items() if name in ("row", "task")}
    tasks, num_samples = row_tasks(log_likelihood), log_likelihood[0].size
    density = log_likelihood.drop_vars(coords).astype(float)
    ratio = log_ratios(data, "_task")
    ratio, labels = ratio.drop_vars("task"), ratio["task"].values
    power = np.full(len(tasks), data["sample_stats"].attrs.get("learning_rate", 1.0))
    if "constant_data" in data.children and "sample_weight" in data["constant_data"].data_vars:
        power *= data["constant_data"].dataset["sample_weight"].values
    parts = []
    place = {label: t for t, label in enumerate(labels)}
    # one by one, as all weights at once may not fit into memory
    for task, rows in rows_by_task(tasks).items():
        of_rows = density.isel(row=rows)
        of_task = ratio.isel(task=place[task] if len(labels) > 1 else 0)  # one for all: pooled
        without = of_task - xr.DataArray(power[rows], dims="row") * of_rows
        log_weights, pareto_k = smoothed_weights(without)
        elpd = logsumexp((log_weights + of_rows).transpose(*of_rows.dims), axis=(1, 2))
        seen = logsumexp(of_rows, axis=(1, 2)) - np.log(num_samples)
        values = {"elpd": elpd, "p": seen - elpd, "pareto_k": pareto_k}
        parts.append(pd.DataFrame(values, index=rows))
    table = pd.concat(parts).sort_index()
    columns = {name: ("row", table[name].to_numpy()) for name in table}
    return xr.Dataset(columns, coords, {"num_samples": num_samples})


def _elpd_data(rows: xr.Dataset) -> Any:
    elpd, pareto_k = rows["elpd"], rows["pareto_k"]
    total, se, p = elpd.sum(), np.nan, rows["p"].sum()
    if elpd.size > 1:
        total, se, p, *_ = elpd.azstats.loo_summary(rows["p"])
    good_k = good_khat(rows.attrs["num_samples"])
    values = {
        "kind": "loo",
        "elpd": float(total),
        "se": float(se),
        "p": float(p),
        "n_samples": rows.attrs["num_samples"],
        "n_data_points": elpd.size,
        "scale": "log",
        "warning": not (pareto_k <= good_k).all(),
        "good_k": good_k,
        "elpd_i": elpd,
        "pareto_k": pareto_k,
        "approx_posterior": True,
    }
    # ArviZ 1 has a class for each kind of estimate.
    made = getattr(az, "ELPDDataLOO", az.ELPDData)
    return made(**{f.name: values[f.name] for f in fields(made) if f.init and f.name in values})


def _summary(rows: xr.Dataset) -> dict[str, float]:
    total = _elpd_data(rows)
    return {
        "elpd_loo": total.elpd,
        "se": total.se,
        "p_loo": total.p,
        "num_rows": total.n_data_points,
        "max_pareto_k": float(total.pareto_k.max()),
        "num_bad_k": int((~(total.pareto_k <= total.good_k)).sum()),
    }
