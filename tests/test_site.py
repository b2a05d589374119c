"""The site: it builds without a warning, and a browser finds nothing wrong with its pages."""

import importlib
import subprocess
import sys
from urllib.parse import quote

import browser
import pytest

from benchmarks.house import ROOT

pytestmark = pytest.mark.slow
VIEWS = (
    "index",
    "quickstart",
    "method-explained",
    "which-method",
    "lessons/lesson_4_vi",
    "gallery",
    "results",
)
NARROW = 360

LONGEST = 3 * browser.DESKTOP["height"]
"""Pixels without anything to look at but text and code: three screens."""

NOT_READ_THROUGH = {"changes", "genindex"}
"""Lists in which one looks something up."""

LONGEST_TEXT = """() => {
    const article = document.querySelector("article").getBoundingClientRect();
    const shown = [...document.querySelectorAll("article :is(img, table, svg, math, .sd-card)")]
        .map(each => each.getBoundingClientRect()).filter(box => box.height > 0)
        .sort((one, other) => one.top - other.top);
    let end = article.top, longest = 0;
    for (const box of shown) {
        longest = Math.max(longest, box.top - end);
        end = Math.max(end, box.bottom);
    }
    return Math.max(longest, article.bottom - end);
}"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Build the site, offline."""
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        "docs",
        str(target),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    return target


def test_every_public_name_has_a_page(site):
    rooms = ("", ".analysis", ".models", ".guides", ".datasets", ".testing")
    for room in (f"pyro_vmtl{room}" for room in rooms):
        for name in {*importlib.import_module(room).__all__} - {"az", "__version__"}:
            assert (site / "api" / "generated" / f"{room}.{name}.html").exists(), f"{room}.{name}"


def test_pages_have_no_faults(site, opened):
    for view in (*VIEWS, "api/generated/pyro_vmtl.share"):
        assert opened(site / f"{view}.html").faults == {}, view


def test_pages_fit_a_small_phone_and_pictures_have_words(site, chromium):
    page = chromium.new_page(viewport={"width": NARROW, "height": 640})
    for view in VIEWS:
        page.goto((site / f"{view}.html").as_uri())
        assert page.evaluate(browser.TOO_WIDE, NARROW) == [], view
        missing = "[...document.images].filter(i => !i.alt.trim()).map(i => i.src)"
        assert page.evaluate(missing) == [], view
    page.close()


def test_no_page_has_three_screens_of_text_without_a_picture_or_table(site, chromium):
    """Nor a formula or a card, on a desktop."""
    page = chromium.new_page(viewport=browser.DESKTOP)
    files = [*site.glob("*.html"), *site.glob("lessons/*.html")]
    lengths = {}
    for file in files:
        page.goto(file.as_uri())
        if page.query_selector("article") and file.stem not in NOT_READ_THROUGH:
            lengths[file.stem] = page.evaluate(LONGEST_TEXT)
    page.close()
    assert len(lengths) > 25
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_the_search_finds_share(site, chromium):
    page = chromium.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q={quote('share')}")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("pyro_vmtl.share.html" in href for href in found)
    page.close()
