"""The README is short, and its blocks and those of the pages of the site run as they stand."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import pytest

from benchmarks.house import ROOT

README = (ROOT / "README.md").read_text()
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
OF_FRAGMENTS = {"docs/gallery.md", "docs/variants.md", "docs/pools.md"}
"""Pages whose blocks are parts: of `benchmarks.gallery`, `variants/` and `test_pools_page`."""

INCLUDED = {f"docs/{name}.md" for name in ("results", "speed", "changes", "contributing")}


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page not in OF_FRAGMENTS]
WITH_DOCTESTS = [page for page in PAGES if blocks(page, "pycon")]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A directory with the examples, as a clone has them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_fits_on_two_screens():
    assert len(README.splitlines()) <= 130
    assert README.count("![") == 1


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_blocks_run_one_after_another(page, checkout, capsys):
    names: dict = {}
    with warnings.catch_warnings(), plt.rc_context({"backend": "agg"}):
        warnings.simplefilter("ignore")
        for number, code in enumerate(blocks(page, "python")):
            exec(compile(code, f"{page}, block {number}", "exec"), names)
    plt.close("all")
    if page == "README.md":
        assert names["reg"].tasks_[-1] == "new school" and names["weights"].shape == (12, 13)
        assert (checkout / "runs" / "relatedness.png").exists()
    if page == "docs/your-model.md":  # Ada and Bo borrow from each other, and so do Cy and Di
        weights = names["relatedness"](names["guide"], "w").mean(0)
        for task, twin in enumerate([1, 0, 3, 2]):
            assert weights[task, twin] > 0.5 * weights[task, :4].sum()


@pytest.mark.slow
def test_commands_of_the_readme_run(checkout):
    command = [sys.executable, "-c", "from pyro_vmtl.cli.main import app; app()"]
    lines = [line for code in blocks("README.md", "sh") for line in code.splitlines()]
    ours = [line for line in lines if line.startswith("pyro-vmtl ")]
    assert len(ours) == 2
    for line in ours:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, *shlex.split(line)[1:]], check=True, env=environment)
    assert len((checkout / "runs" / "predictions.csv").read_text().splitlines()) == 11


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_DOCTESTS)
def test_examples_of_pages_run(page):
    failed, tried = doctest.testfile(str(ROOT / page), module_relative=False)
    assert tried and failed == 0


def test_the_data_of_the_readme_are_made_by_their_script(checkout):
    (checkout / "examples" / "exams.csv").unlink()
    subprocess.run([sys.executable, "examples/make_exams.py"], check=True)
    for name in ("exams.csv", "new_exams.csv"):
        assert (checkout / "examples" / name).read_text() == (ROOT / "examples" / name).read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in INCLUDED])
def test_what_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    for path in re.findall(r"\]\((?!http|#|mailto)([^)#\s]+)", text):
        assert ((ROOT / page).parent / path).exists(), path
