"""Draw the figures of docs/gallery.md, from small fits that take seconds.

python -m benchmarks.gallery                          all figures and the page
python -m benchmarks.gallery shrinkage uncertainty    these, and the page

To add a figure, add an entry to PICTURES.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.datasets.digits import Digits
from benchmarks.rows import to_task_data
from pyro_vmtl import VMTLClassifier, VMTLRegressor
from pyro_vmtl.analysis import (
    decision_grid,
    plot_decision_regions,
    plot_regression_bands,
    plot_shrinkage,
    plot_uncertain_rows,
    plot_uncertainty,
    regression_grid,
    to_datatree,
)
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.methods.presets import presets

DOCS = Path(__file__).parents[1] / "docs"


class Fits:
    """Fits for the figures, each made when a figure first needs it."""

    @cached_property
    def digits(self) -> xr.DataTree:
        """The default fitted to rotated digits, six angles of 50 images."""
        data, test = to_task_data(Digits().split(0), "classification")
        fitted = presets("classification")["default"].fit(data, seed=0)
        pixels = [f"pixel {row}, {column}" for row in range(8) for column in range(8)]
        return to_datatree(fitted, data, rows=test, coords={"feature": [*pixels, "intercept"]})

    @cached_property
    def plants(self) -> tuple[VMTLClassifier, tuple]:
        """Three species in three gardens; the new garden has 9 rows, and is like the old one."""
        rows = measured({"old": 60, "new": 9, "far": 60}, seed=0)
        return VMTLClassifier("shared").fit(*rows), rows

    @cached_property
    def tested(self) -> xr.DataTree:
        """The plants as a tree, with 40 other rows from each garden."""
        classifier, rows = self.plants
        others = measured({"old": 40, "new": 40, "far": 40}, seed=1)
        return classifier.to_datatree(*rows, rows=others)

    @cached_property
    def exams(self) -> tuple[VMTLRegressor, tuple]:
        """Scores by hours in three schools; Birch has 5 rows, and is like Ash."""
        rng = np.random.default_rng(1)
        slopes = {"Ash": 5.0, "Birch": 5.5, "Cedar": -1.0}
        hours, scores, schools = [], [], []
        for school, rows in {"Ash": 40, "Birch": 5, "Cedar": 40}.items():
            x = rng.uniform(0, 4 if school == "Birch" else 8, rows)
            hours.append(x)
            scores.append(40 + slopes[school] * x + 5 * rng.normal(size=rows))
            schools.extend([school] * rows)
        frame, y = pd.DataFrame({"hours": np.concatenate(hours)}), np.concatenate(scores)
        return VMTLRegressor("shared").fit(frame, y, schools), (frame, y, schools)


def measured(num_rows: dict[str, int], *, seed: int) -> tuple[pd.DataFrame, list, list]:
    """Simulate leaves of three species by garden: features, species, gardens."""
    rng = np.random.default_rng(seed)
    centres = {"ash": (2.0, 2.0), "birch": (5.0, 2.5), "cedar": (3.5, 5.0)}
    moved = {"old": (0.0, 0.0), "new": (0.3, 0.0), "far": (0.0, 3.0)}
    gardens = [garden for garden, rows in num_rows.items() for _ in range(rows)]
    species = [name for rows in num_rows.values() for name in np.resize(list(centres), rows)]
    places = [np.add(centres[s], moved[g]) for s, g in zip(species, gardens, strict=True)]
    X = np.stack(places) + 0.8 * rng.normal(size=(len(places), 2))
    return pd.DataFrame(X, columns=["length (cm)", "width (cm)"]), species, gardens


@dataclass(frozen=True)
class Picture:
    """A figure of the gallery: its file name, the call, and how to read it."""

    name: str
    title: str
    call: str
    shows: str
    bad: str
    draw: Callable[[Fits], Axes]


def decision_regions(fits: Fits) -> Axes:
    """Plot the regions of the new garden."""
    classifier, rows = fits.plants
    return plot_decision_regions(decision_grid(classifier, rows[0], task="new"), rows=rows)


def bands(fits: Fits) -> Axes:
    """Plot the bands of Birch, which has five rows."""
    regressor, rows = fits.exams
    return plot_regression_bands(regression_grid(regressor, rows[0], task="Birch"), rows=rows)


PICTURES = (
    Picture(
        "decision-regions",
        "Which class, where?",
        "plot_decision_regions(decision_grid(classifier, X, task=task), rows=(X, y, tasks))",
        "The most probable class at every point of two features, for one task: solid lines are "
        "where two classes are equally probable, and colours fade to white where it does not know.",
        "Full colour far from all rows of the task and of those it borrows from, or rows of "
        "another class deep inside a region: it is too sure, or the labels are wrong.",
        decision_regions,
    ),
    Picture(
        "regression-bands",
        "What target, and how surely?",
        "plot_regression_bands(regression_grid(regressor, X, task=task), rows=(X, y, tasks))",
        "Where new targets of one task are expected along its feature; between the dashed lines "
        "is the mean itself, which more rows would narrow.",
        "Many more than one row in ten outside of the wide band, or rows that bend away from a "
        "straight mean: the noise is not the same everywhere, or the feature needs another scale.",
        bands,
    ),
    Picture(
        "uncertainty",
        "How uncertain is each task, and why?",
        "plot_uncertainty(tree)",
        "The mean uncertainty of predictions in each task, in two parts: what more rows of it "
        "could remove (hatched), and what they could not, as its classes overlap.",
        "A task whose hatched part is much longer than those of others: it has too few rows, or "
        "no relatives to borrow from.",
        lambda fits: plot_uncertainty(fits.tested),
    ),
    Picture(
        "uncertain-rows",
        "Which rows does it know least about?",
        "plot_uncertain_rows(tree)",
        "The rows whose prediction would gain most from more data, with their true and predicted "
        "classes; `most_uncertain_rows(tree)` is the same as a table.",
        "Rows that have something in common, such as one task, one sensor or one date: look at "
        "them before you collect more.",
        lambda fits: plot_uncertain_rows(fits.tested),
    ),
    Picture(
        "shrinkage",
        "What does sharing do to a coefficient?",
        "plot_shrinkage(tree)",
        "One coefficient of every task, estimated from its own rows alone (hollow) and with the "
        "others (filled, with its interval): by default the one that tells tasks apart most "
        "clearly.",
        "All tasks drawn to one value that you know to be different, or none of them moved at "
        "all: the tasks share too much, or nothing.",
        lambda fits: plot_shrinkage(fits.digits),
    ),
)


def page() -> str:
    """Return the page in Markdown."""
    parts = [
        "# Gallery",
        "What the pictures of `pyro_vmtl.analysis` show, and what would be a bad sign. `tree` is "
        "`estimator.to_datatree(X, y, tasks, rows=(X_test, y_test, tasks_test))`. All are made by "
        "`python -m benchmarks.gallery`.",
    ]
    for picture in PICTURES:
        parts += [
            f"## {picture.title}",
            f"![{picture.title}](gallery/{picture.name}.png)",
            f"```python\n{picture.call}\n```",
            picture.shows,
            f"*A bad sign:* {picture.bad[0].lower()}{picture.bad[1:]}",
        ]
    return "\n\n".join(parts) + "\n"


def write_small(ax: Axes, path: Path) -> None:
    """Write a figure in 256 colors, which halves the file without a visible difference."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(256)
    picture.save(path, format="png", optimize=True)


def main() -> None:
    """Draw the figures and write the page."""
    names = [picture.name for picture in PICTURES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(names))
    if unknown:
        parser.error(f"no picture is called {unknown[0]!r}, expected some of {', '.join(names)}")
    mpl.use("agg")
    torch.set_num_threads(1)
    fits = Fits()
    (DOCS / "gallery").mkdir(exist_ok=True)
    for picture in PICTURES:
        if picture.name in (args.names or names):
            path = DOCS / "gallery" / f"{picture.name}.png"
            with atomic_write(path) as scratch:
                write_small(picture.draw(fits), scratch)
            plt.close("all")
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    with atomic_write(DOCS / "gallery.md") as scratch:
        scratch.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
