"""What a report says of a fit: which pictures, what they show, and what would be a bad sign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import xarray as xr

from pyro_vmtl.analysis.calibration_curves import plot_coverage, plot_pit, plot_reliability
from pyro_vmtl.analysis.report import Picture, Section

__all__ = ["report_sections"]


def report_sections(data: xr.DataTree) -> list[Section]:
    """Choose what there is to say of a fit.

    Parameters
    ----------
    data
        From :func:`to_datatree`, of a single fit or of a stack. What the tree has not, such as rows
        to test, is left out.
    """
    fit = data if "stack" not in data else data[main_member(data)]
    return [
        Section(
            "predictions",
            "How good are the predictions, and how sure?",
            "All of this is about rows that were not fitted.",
            pictures=list(_predictions(data)),
        ),
    ]


def main_member(data: xr.DataTree) -> str:
    """Name the member of a stack that counts most."""
    weights = data["stack"]["member_weights"].mean("task")
    return str(weights["member"].values[int(weights.argmax())])
