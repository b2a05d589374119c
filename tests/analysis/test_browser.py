"""The browser that opens reports finds each fault of a page, and none in a good one."""

import base64
import io

import browser
import matplotlib.image
import numpy as np
import pytest

HEAD = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'


def png(width):
    picture = io.BytesIO()
    matplotlib.image.imsave(picture, np.zeros((20, width, 3)), format="png")
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()


GOOD = f"""{HEAD}<title>Good</title><style>img {{ max-width: 100% }}</style>
<h1>Tasks that share</h1><img src="{png(600)}" loading="lazy">
<div style="overflow-x: auto"><table style="width: 900px"><tr><td>wide, but scrolls</table></div>
<svg width="300" height="20"><rect x="200" width="900" height="9"/></svg>
<div style="overflow: hidden; text-overflow: ellipsis; white-space: nowrap">
<span>{"a long label " * 20}</span></div>
<details><summary>more</summary><p>hidden until wanted</p></details>
<script>console.log("fine"); document.title = "Better"</script>"""

BAD = f"""{HEAD}<title>Bad</title>
<style>
body {{ overflow-x: hidden }}
@font-face {{ font-family: F; src: url(http://x.test/font.woff2) }}
h1 {{ font-family: F }}
</style>
<h1>Letters from elsewhere</h1>
<script>console.warn("too few draws")</script>
<script>console.error("no data")</script>
<script>undefined_function()</script>
<script src="https://x.test/script.js"></script>
<script>fetch("https://x.test/call").catch(() => 0); new WebSocket("ws://x.test/socket")</script>
<img src="gone.png"><img src="data:image/png;base64,AA">
<table style="width: 900px"><tr><td>wide</table>
<p style="width: 800px">what the page clips</p>
<details><summary>more</summary><pre style="width: 700px">wide when unfolded</pre></details>
<div style="height: 20000px"></div>
<img loading="lazy" src="far-below.png"><img src="{png(600)}">"""

FAULTS = {
    "messages": ["too few draws", "no data"],
    "errors": ["undefined_function"],
    "requests": ["font.woff2", "script.js", "x.test/call", "ws://x.test/socket"],
    "broken_images": ["gone.png", "base64,AA", "far-below.png"],
    "too_wide": ["<table", "what the page clips", "wide when unfolded", "base64,iVBOR"],
}


def test_a_good_page_has_no_faults(opened, tmp_path):
    (tmp_path / "good page.html").write_text(GOOD)
    seen = opened(tmp_path / "good page.html")
    assert seen.faults == {}
    assert "Tasks that share" in seen.text and "hidden until wanted" not in seen.text
    assert seen.pdf.startswith(b"%PDF-") and len(seen.pdf) > 2000


def test_every_fault_is_found(opened, tmp_path):
    (tmp_path / "bad.html").write_text(BAD)
    faults = opened(tmp_path / "bad.html").faults
    for kind, all_told in FAULTS.items():
        for expected in all_told:
            assert any(expected in found for found in faults[kind]), (expected, faults[kind])
        if kind != "messages":  # what cannot be loaded is in the console, too
            assert len(faults[kind]) == len(all_told), faults[kind]


def test_a_page_not_made_for_phones_is_too_wide(opened, tmp_path):
    (tmp_path / "old.html").write_text("<!doctype html><p>no viewport</p>")
    assert list(opened(tmp_path / "old.html").faults) == ["too_wide"]


def test_without_a_browser_a_test_is_skipped_unless_there_must_be_one(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(browser.NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        browser.executable()
    monkeypatch.setenv(browser.NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        browser.executable()
