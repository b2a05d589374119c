"""A page as a reader's browser sees it: what it complains of, asks for, breaks and cannot fit."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

PHONE = {"width": 390, "height": 844}

DESKTOP = {"width": 1280, "height": 900}

NEEDED = "PYRO_VMTL_NEEDS_BROWSER"
"""Set by .ci/run where there is a browser: there, a test without one fails, and is not skipped."""

FLAGS = (
    "--no-sandbox",  # root has no other way, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
)

OWN = re.compile(r"(file|data|blob|about):")
"""Addresses for which nobody is asked but this machine."""

BROKEN_IMAGES = """async () => {
    const images = [...document.images];
    for (const image of images) image.loading = "eager";
    await Promise.all(images.map(image => image.decode().catch(() => {})));
    return images.filter(image => !image.naturalWidth).map(image => image.outerHTML.slice(0, 80));
}"""

# What a box of its own scrolls or clips is meant so. What the page itself clips is lost. A reader
# unfolds what is folded.
TOO_WIDE = """width => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    const inside = element => {
        for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== "visible") return true;
        return false;
    };
    const all = document.documentElement.scrollWidth;
    const out = [...document.body.querySelectorAll("*")].filter(element =>
        !element.ownerSVGElement && element.getClientRects().length &&
        element.getBoundingClientRect().right + scrollX > width + 1 && !inside(element));
    const wide = out.filter(element => !out.includes(element.parentElement));
    if (!wide.length && all > width) return [`page: ${all}`];
    return wide.map(element => `${element.outerHTML.slice(0, 60)}: ` +
        Math.ceil(element.getBoundingClientRect().right + scrollX));
}"""


@dataclass(frozen=True)
class Seen:
    """What a browser says of a page, on a desktop and on a phone.

    Attributes
    ----------
    messages
        The console's errors and warnings.
    errors
        What its scripts raised.
    requests
        Addresses it asked for outside of its own file; none is answered.
    broken_images
        Tags of images without a picture.
    too_wide
        Tags that stick out to the right on a phone, with the pixel where they end.
    text
        What a reader can read, on a desktop.
    pdf
        The page in print.
    """

    messages: tuple[str, ...]
    errors: tuple[str, ...]
    requests: tuple[str, ...]
    broken_images: tuple[str, ...]
    too_wide: tuple[str, ...]
    text: str
    pdf: bytes

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """All that is wrong with the page, by kind: empty where nothing is."""
        kinds = ("messages", "errors", "requests", "broken_images", "too_wide")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def executable() -> str:
    """Find Chromium, or skip the test that wants it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing = pytest.fail if os.environ.get(NEEDED) else pytest.skip
        missing(f"no browser: none of {', '.join(names)} is installed (apt-get install chromium)")
    return path


def look(browser, path: Path) -> Seen:
    """Open an HTML file in a browser of playwright, on a desktop and on a phone."""
    messages, errors, requests = [], [], []

    def opened(**screen):
        context = browser.new_context(**screen)
        # Nothing outside answers, so that a page which needs it is the same everywhere.
        context.route(lambda url: not OWN.match(url), lambda route: route.abort())
        page = context.new_page()
        page.on("console", lambda said: messages.append((said.type, said.text)))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.goto(path.resolve().as_uri(), wait_until="load")
        return page

    desktop = opened(viewport=DESKTOP)
    broken = desktop.evaluate(BROKEN_IMAGES)
    text = desktop.evaluate("document.body.innerText")
    pdf = desktop.pdf()
    phone = opened(viewport=PHONE, is_mobile=True)
    phone.evaluate(BROKEN_IMAGES)  # waits for the pictures, which may be what is too wide
    too_wide = phone.evaluate(TOO_WIDE, PHONE["width"])
    for page in (desktop, phone):
        page.context.close()
    return Seen(
        messages=tuple(
            dict.fromkeys(said for kind, said in messages if kind in ("error", "warning"))
        ),
        errors=tuple(dict.fromkeys(errors)),
        requests=tuple(dict.fromkeys(url for url in requests if not OWN.match(url))),
        broken_images=tuple(broken),
        too_wide=tuple(too_wide),
        text=text,
        pdf=pdf,
    )
