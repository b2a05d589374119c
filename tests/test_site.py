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


def test_the_search_finds_share(site, chromium):
    page = chromium.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q={quote('share')}")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("pyro_vmtl.share.html" in href for href in found)
    page.close()
