"""The gallery has the pictures that it names, and they are small."""

from pathlib import Path

from benchmarks import gallery

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_and_its_pictures_are_those_of_the_script():
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == gallery.page()
    names = {f"{picture.name}.png" for picture in gallery.PICTURES}
    assert {path.name for path in (DOCS / "gallery").iterdir()} == names
    for name in names:
        picture = (DOCS / "gallery" / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) < 100_000, name
