"""The report: one self-contained page with plots and what they show."""

import re

import pandas as pd
import pytest

from pyro_vmtl.analysis import write_report
from pyro_vmtl.analysis.canvas import label_axes, on_axes
from pyro_vmtl.analysis.report import Picture, ReportTable, Section


def drawn():
    ax = on_axes(None)
    ax.plot([1, 2, 4])
    return label_axes(ax, title="a line", xlabel="step", ylabel="nats")


@pytest.fixture
def sections():
    table = pd.DataFrame({"rows": [3, 1], "nll": [0.51234, float("nan")]}, ["all", "<b>x</b>"])
    return [
        Section("empty", "Nothing in it"),
        Section(
            "line",
            "Lines",
            "About lines.",
            tables=[ReportTable("Scores", table, first_is_total=True)],
            pictures=[Picture("line", "A line", "It rises & rises.", "It falls.", drawn)],
            code=["pyro-vmtl fit <file>"],
        ),
    ]


def written(folder, sections, **changed):
    given = {"title": "T <1>", "summary": ["two tasks"], "footer": "the end", **changed}
    return write_report(folder, sections, **given)


def test_a_page_holds_all_it_was_given_and_nothing_from_elsewhere(tmp_path, sections):
    page = written(tmp_path, sections)
    text = page.read_text(encoding="utf-8")
    for part in ("T &lt;1&gt;", "two tasks", "the end", "About lines.", "It rises &amp; rises."):
        assert part in text
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text  # a task's name is no HTML
    assert "A bad sign:</b> It falls." in text
    assert "0.512" in text and "–" in text  # a number, and one that is missing
    assert "Nothing in it" not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", text)


def test_pictures_are_written_as_png_and_svg(tmp_path, sections):
    written(tmp_path, sections)
    assert (tmp_path / "pictures" / "line.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "pictures" / "line.svg").read_bytes()


def test_the_same_report_is_the_same_file(tmp_path, sections):
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages.append(written(tmp_path / name, sections).read_bytes())
    assert pages[0] == pages[1]


def test_long_tables_are_cut_and_say_so(tmp_path):
    table = pd.DataFrame({"weight": range(50)}, [f"task {i}" for i in range(50)])
    page = written(tmp_path, [Section("t", "T", tables=[ReportTable("W", table)])])
    text = page.read_text(encoding="utf-8")
    assert "task 19" in text and "task 20<" not in text and "and 30 more" in text


def test_a_picture_leaves_no_figure_open(tmp_path, sections):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    written(tmp_path, sections)
    assert plt.get_fignums() == before


def test_a_browser_finds_no_fault_in_the_page(tmp_path, sections, opened):
    long = [Section("l", "A" * 80, code=["x" * 300])]
    seen = opened(written(tmp_path, [*sections, *long]))
    assert seen.faults == {}
    assert "It falls." in seen.text and seen.pdf.startswith(b"%PDF")
