"""Every lesson runs; its checks pass for the solutions, and fail for gaps and mistakes."""

import re
import time
import warnings

import matplotlib.pyplot as plt
import pytest

from benchmarks.house import ROOT
from lessons.cells import Cell, fingerprint, lesson_files, notebook, read
from lessons.run import CheckError, run

LESSONS = lesson_files()
names = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


@pytest.mark.slow
@names
def test_checks_pass_with_solutions_and_fail_without(path):
    start = time.process_time()
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")
        outputs = run(read(path), path.stem)
    assert time.process_time() - start < 60  # seconds of one core
    assert 1 <= sum(len(output.pictures) for output in outputs.values()) <= 4


@names
def test_a_lesson_is_complete(path):
    cells = read(path)
    tags = [tag for cell in cells for tag in cell.tags]
    assert {*tags} <= {"exercise", "solution", "wrong", "check"}
    assert tags.count("exercise") == tags.count("solution") == tags.count("check") >= 3
    assert tags.count("wrong") >= 2
    text = "\n".join(cell.source for cell in cells if cell.markdown)
    for part in ("**The idea of this lesson:**", "You need:", "## What to re"):
        assert part in text, part
    text = [line for line in path.read_text().splitlines() if "alt=" not in line]
    assert max(len(line) for line in text if not line.startswith("# |")) <= 160


@names
def test_the_page_is_of_this_version(path):
    page = (ROOT / "docs" / "lessons" / f"{path.stem}.md").read_text()
    assert fingerprint(path) in page, f"run `python -m lessons {path.stem.split('_')[1]}`"
    for alt, picture in re.findall(r"!\[(.*?)\]\((.*?)\)", page):
        assert len(alt) > 20 and (ROOT / "docs" / "lessons" / picture).exists()


@names
def test_students_get_no_solutions(path):
    cells = read(path)
    student, teacher = (notebook(cells, solved=solved)["cells"] for solved in (False, True))
    tags = [tag for cell in student for tag in cell["metadata"].get("tags", [])]
    assert "solution" not in tags and "wrong" not in tags and "check" in tags
    assert len(teacher) == len(student) + tags.count("exercise")


GAP, RIGHT, CHECK = (
    Cell("x = ...", tags=("exercise",)),
    Cell("x = 2", tags=("solution",)),
    Cell("assert x == 2", tags=("check",)),
)


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ([GAP, RIGHT, Cell("assert x", tags=("check",))], "passes without a solution"),
        ([GAP, Cell("x = 1 + 1", tags=("wrong",)), RIGHT, CHECK], "passes with the mistake"),
        ([GAP, CHECK], "no solution before"),
    ],
)
def test_a_check_that_cannot_fail_is_found(cells, found):
    with pytest.raises(CheckError, match=found):
        run(cells)


def test_later_cells_need_no_solution():
    assert run([GAP, RIGHT, CHECK, Cell("print(x)")])[3].text == "Ellipsis\n"
    with pytest.raises(AssertionError):
        run([GAP, Cell("x = 3", tags=("solution",)), CHECK])


def test_a_figure_of_somebody_else_is_no_picture_of_a_lesson():
    plt.figure()
    draw = "import matplotlib.pyplot as plt; plt.figure()"
    assert len(run([Cell("x = 1"), Cell(draw)])[0].pictures) == 0
