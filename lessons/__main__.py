"""Run lessons; write notebooks for students and teachers, and pages of the site.

python -m lessons             all of them
python -m lessons 1 4         some
"""

import json
import sys
import time
from pathlib import Path

from lessons.cells import HERE, lesson_files, notebook, page, read
from lessons.run import run

DOCS = HERE.parent / "docs" / "lessons"


def write(path: Path) -> None:
    """Write the notebooks and the page of a lesson."""
    cells = read(path)
    for folder, solved in (("students", False), ("teachers", True)):
        target = HERE / "notebooks" / folder / f"{path.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(notebook(cells, solved=solved), indent=1), encoding="utf-8")
    start = time.process_time()
    outputs = run(cells, path.stem)
    print(f"{path.stem}: {time.process_time() - start:.0f} s", flush=True)
    DOCS.mkdir(exist_ok=True)
    for old in DOCS.glob(f"{path.stem}-*.png"):
        old.unlink()
    page(path, cells, outputs, DOCS)


if __name__ == "__main__":
    for path in lesson_files():
        if not sys.argv[1:] or path.stem.split("_")[1] in sys.argv[1:]:
            write(path)
