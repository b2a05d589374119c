"""Write a report: tables, and plots with what they show, in one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["Picture", "ReportTable", "Section", "write_report"]

PICTURES = "pictures"
"""Folder of the plots, beside the page."""

CONTROL = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    **dict.fromkeys(
        [127, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD
    ),
}
"""What labels may not bring into a page, control characters, and what they are shown as."""

MAX_ROWS = 20
"""Rows of a table on the page."""


@dataclass(frozen=True)
class Picture:
    """A plot: name of its files, heading, what it shows, a reason to worry, how to draw it."""

    name: str
    title: str
    shows: str
    bad_sign: str
    draw: Callable[[], Axes]


@dataclass(frozen=True)
class ReportTable:
    """A table with a caption and a note below it; the first row may be for all tasks together."""

    title: str
    frame: pd.DataFrame
    note: str = ""
    first_is_total: bool = False

    @property
    def head(self) -> list[str]:
        """Names of the columns."""
        return [str(self.frame.index.name or ""), *map(_words, self.frame.columns)]

    @property
    def more(self) -> int:
        """Number of rows that are not shown."""
        return max(0, len(self.frame) - MAX_ROWS)

    @property
    def rows(self) -> list[list[str]]:
        """Cells as text."""
        shown = self.frame.head(MAX_ROWS)
        return [[_cell(cell) for cell in row] for row in shown.itertuples()]


@dataclass(frozen=True)
class Section:
    """A section: its anchor, heading and introduction, then tables, pictures and code."""

    name: str
    title: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    pictures: Sequence[Picture] = ()
    code: Sequence[str] = ()


def write_report(
    folder: Path, sections: Sequence[Section], *, title: str, summary: Sequence[str], footer: str
) -> Path:
    """Write a self-contained ``report.html``, and its plots as PNG and SVG beside it.

    Parameters
    ----------
    folder
        An existing folder.
    sections
        Sections, such as those of :func:`report_sections`; those without content are left out.
    title, summary, footer
        Heading of the page, lines below it, and the last line.

    Returns
    -------
    Path
        The page.

    Examples
    --------
    >>> import tempfile
    >>> from pyro_vmtl.analysis import report_sections
    >>> words = {"title": "A fit", "summary": ["3 tasks"], "footer": "by us"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder), report_sections(tree)[:1], **words).name
    'report.html'
    """
    (folder / PICTURES).mkdir(exist_ok=True)
    content: dict[str, Any] = {"title": title, "summary": summary, "footer": footer}
    content["sections"] = [
        {
            **vars(part),
            "pictures": [_drawn(picture, folder / PICTURES) for picture in part.pictures],
        }
        for part in sections
        if part.tables or part.pictures or part.code
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = (resources.files("pyro_vmtl.analysis") / "report.html").read_text("utf-8")
    page = folder / "report.html"
    with atomic_write(page) as path:
        text = environment.from_string(template).render(content).translate(CONTROL)
        path.write_text(text, encoding="utf-8")
    return page


def _drawn(picture: Picture, folder: Path) -> dict[str, Any]:
    """Draw a plot, write its files, and return what the template needs."""
    figure = picture.draw().get_figure()
    assert isinstance(figure, Figure)
    # laid out once, where each file would take two layouts, most of the time of a picture
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    svg = io.BytesIO()
    # Text as paths looks the same everywhere; without a date, the file is reproducible.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": picture.name}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    with atomic_write(folder / f"{picture.name}.svg") as path:
        path.write_bytes(svg.getvalue())
    with atomic_write(folder / f"{picture.name}.png") as path:
        figure.savefig(path, format="png", dpi=150)
    width, height = figure.get_size_inches() * 96
    plt.close(figure)
    return {
        **vars(picture),
        "source": f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}",
        "width": round(width),
        "height": round(height),
    }


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
