"""Tables with several outputs of the Mulan collection: labels, or real targets."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from scipy.io import arff

from benchmarks.datasets.files import data_file

__all__ = ["MULTI_LABEL", "MULTI_TARGET", "Rows", "multi_label", "multi_target"]

MULTI_LABEL = ("flags", "emotions", "scene", "yeast")
MULTI_TARGET = {"edm": 2, "enb": 2, "jura": 3, "slump": 3, "andro": 6, "sf2": 3}
"""Number of targets, the last columns."""


class Rows(NamedTuple):
    """Features (rows, F) and outputs (rows, T)."""

    X: np.ndarray
    y: np.ndarray


def multi_label(name: str, seed: int) -> tuple[Rows, Rows]:
    """Return training and test rows: the published ones for seed 0, else a split of that size."""
    tree = ElementTree.parse(data_file(f"multi_label/{name}.xml")).getroot()
    labels = [node.attrib["name"] for node in tree.iter() if node.tag.endswith("label")]
    end = ".arff.gz" if name in ("scene", "yeast") else ".arff"
    parts = [_read(data_file(f"multi_label/{name}-{part}{end}")) for part in ("train", "test")]
    y = [part[labels].astype(int).to_numpy() for part in parts]
    X = _indicators(pd.concat([part.drop(columns=labels) for part in parts]))
    order, size = np.arange(len(X)), len(y[0])
    if seed:
        order = np.random.default_rng(seed).permutation(order)
    rows = Rows(X, np.concatenate(y))
    return _take(rows, order[:size]), _take(rows, order[size:])


def multi_target(name: str, seed: int) -> tuple[Rows, Rows]:
    """Return a random split of two thirds and one third of the rows."""
    table = _read(data_file(f"multi_target/{name}.arff")).replace("?", np.nan).dropna()
    targets = table.columns[-MULTI_TARGET[name] :]
    X = _indicators(table.drop(columns=targets))
    order = np.random.default_rng(seed).permutation(len(X))
    size = 2 * len(X) // 3
    rows = Rows(X, table[targets].astype(float).to_numpy())
    return _take(rows, order[:size]), _take(rows, order[size:])


def _take(rows: Rows, index: np.ndarray) -> Rows:
    return Rows(rows.X[index], rows.y[index])


def _read(path: Path) -> pd.DataFrame:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    data, _ = arff.loadarff(io.StringIO(text.decode()))
    table = pd.DataFrame(data)
    for name in table:
        if table[name].dtype == object:
            table[name] = table[name].str.decode("utf-8")
    return table


def _indicators(table: pd.DataFrame) -> np.ndarray:
    return pd.get_dummies(table, dtype=float).to_numpy()
