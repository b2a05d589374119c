"""A lesson as cells: scripts in jupytext's percent format, as notebooks and as pages.

Cells are tagged. An ``exercise`` has gaps; a ``solution`` fills them; ``wrong`` is a likely
mistake; and a ``check`` has to fail for gaps and mistakes, and to pass for the solution.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lessons.run import Output

__all__ = ["Cell", "fingerprint", "lesson_files", "notebook", "page", "read"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cell:
    """Text or code, its tags, and what its picture shows to those who cannot see it."""

    source: str
    markdown: bool = False
    tags: tuple[str, ...] = ()
    alt: str = ""


def lesson_files() -> list[Path]:
    """List the lessons in order."""
    return sorted(HERE.glob("lesson_*.py"))


def read(path: Path) -> list[Cell]:
    """Read the cells of a lesson."""
    cells = []
    for part in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, source = part.partition("\n")
        markdown = "[markdown]" in head
        if markdown:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        tags = re.search(r"tags=(\[.*?\])", head)
        alt = re.search(r'alt=(".*?")', head)
        cells.append(
            Cell(
                source.strip("\n"),
                markdown,
                tuple(json.loads(tags[1])) if tags else (),
                json.loads(alt[1]) if alt else "",
            )
        )
    return cells


def fingerprint(path: Path) -> str:
    """Return what changes with the text of a lesson, to see whether its page is up to date."""
    return sha256(path.read_bytes()).hexdigest()[:16]


def notebook(cells: list[Cell], *, solved: bool) -> dict[str, Any]:
    """Return a notebook (format 4.5): for teachers with solutions, for students without."""
    left_out = {"wrong"} if solved else {"wrong", "solution"}
    found = []
    for number, cell in enumerate(cells):
        if left_out & {*cell.tags}:
            continue
        code = {} if cell.markdown else {"execution_count": None, "outputs": []}
        found.append(
            {
                "cell_type": "markdown" if cell.markdown else "code",
                "id": f"cell-{number}",
                "metadata": {"tags": [*cell.tags]} if cell.tags else {},
                "source": cell.source.splitlines(keepends=True),
                **code,
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def page(path: Path, cells: list[Cell], outputs: dict[int, Output], folder: Path) -> None:
    """Write a lesson with its outputs as a page of the site, solutions folded.

    Parameters
    ----------
    path
        Source of the lesson.
    cells, outputs
        Its cells, and what they printed and drew, by their numbers.
    folder
        Where the page and its pictures go.
    """
    parts, pictures = [], 0
    for number, cell in enumerate(cells):
        output = outputs.get(number, Output())
        if "wrong" in cell.tags:
            continue
        if cell.markdown:
            parts.append(cell.source)
            continue
        code = f"```python\n{cell.source}\n```"
        if "solution" in cell.tags:
            code = f":::{{dropdown}} Solution\n{code}\n:::"
        parts.append(code)
        if output.text:
            parts.append(f"```text\n{output.text.rstrip()}\n```")
        for picture in output.pictures:
            pictures += 1
            name = f"{path.stem}-{pictures}.png"
            (folder / name).write_bytes(picture)
            assert cell.alt, f'{path.name}: the picture {pictures} needs alt="..." in its cell'
            parts.append(f"![{cell.alt}]({name})")
    note = f"<!-- {fingerprint(path)}: written by `make lessons` -->"
    (folder / f"{path.stem}.md").write_text("\n\n".join(parts) + f"\n\n{note}\n", encoding="utf-8")
