"""What a report shows of outputs that feed one another."""

from __future__ import annotations

from functools import partial

import pandas as pd
import xarray as xr

from pyro_vmtl.analysis.diagnostics.history_plots import plot_elbo
from pyro_vmtl.analysis.outputs.gate_plots import plot_gates, plot_iterations
from pyro_vmtl.analysis.report import Picture, ReportTable, Section

__all__ = ["feedback_sections"]

SETTLED = 1e-3
"""Change of a probability, or of a mean in standard deviations, from which an output settles."""


def feedback_sections(data: xr.DataTree) -> list[Section]:
    """Return the sections of a report on outputs that feed one another.

    Parameters
    ----------
    data
        Tree with ``gates`` (from, to, gate) and ``iterations`` (row, iteration, output) of an
        estimator, and ``loss`` (step) in the group ``history``.

    See Also
    --------
    write_report, plot_gates, plot_iterations

    Examples
    --------
    >>> import numpy as np
    >>> names = {"from": ["rain", "sales"], "to": ["rain", "sales"], "gate": ["none", "output"]}
    >>> gates = xr.DataArray(np.full((2, 2, 2), 0.5), names, [*names])
    >>> steps = xr.DataArray(np.zeros((3, 2, 2)), {"output": ["rain", "sales"]},
    ...                      ["row", "iteration", "output"])
    >>> data = xr.DataTree(xr.Dataset({"gates": gates, "iterations": steps}))
    >>> [section.name for section in feedback_sections(data)]
    ['feedback', 'trust']
    """
    gates, iterations = data.dataset["gates"], data.dataset["iterations"]
    moved = abs(iterations.isel(iteration=-1) - iterations.isel(iteration=0))
    row = int(moved.max("output").argmax("row"))
    which = f"row {iterations['row'].values[row]}"
    last = abs(iterations.diff("iteration")).isel(iteration=-1).max("output")
    number, settled = iterations.sizes["iteration"] - 1, float((last < SETTLED).mean())
    change = {"mean change": moved.mean("row").values, "largest change": moved.max("row").values}
    outputs = pd.Index([*map(str, iterations["output"].values)], name="output")
    return [
        Section(
            "feedback",
            "Which output feeds which?",
            "Each output begins with what the features say of it, and is corrected by what the "
            "others say. An arrow is not a cause: it says that the prediction of one output is a "
            "useful feature for another.",
            tables=[
                ReportTable(
                    "What the others change",
                    pd.DataFrame(change, outputs),
                    note=f"From what an output says by itself to iteration {number}, over "
                    f"{iterations.sizes['row']} rows: probabilities, of two classes that of the "
                    f"second, or means in standard deviations. In {settled:.0%} of the rows the "
                    f"last iteration changes nothing by {SETTLED:g} or more.",
                )
            ],
            pictures=[
                Picture(
                    "gates",
                    "Who feeds whom",
                    "An arrow where an output feeds another more probably than not.",
                    "Other arrows with another seed: several graphs fit equally well.",
                    partial(plot_gates, gates),
                ),
                Picture(
                    "iterations",
                    "The row that the others change most",
                    f"Outputs of {which}, from one iteration to the next.",
                    "Lines that still move, or that swing to and fro, at the end.",
                    partial(plot_iterations, iterations.isel(row=row)),
                ),
            ],
        ),
        Section(
            "trust",
            "Has the fit converged?",
            pictures=[
                Picture(
                    "elbo",
                    "The loss of the fit",
                    "The loss (negative ELBO) at every step, and its running median.",
                    "A line that still falls at the end.",
                    partial(plot_elbo, data),
                )
            ]
            if "history" in data.children
            else [],
        ),
    ]
