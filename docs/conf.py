"""The site: `make docs`. It needs no network, and its pages ask for none."""

import importlib
import re
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

import pyro_vmtl

HERE = Path(__file__).parent

project = "pyro_vmtl"
release = pyro_vmtl.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "report.html"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 4,
}
html_sidebars = {"*": []}  # only lessons and the reference have sections to list
html_title = "pyro_vmtl"
html_context = {"default_mode": "light"}  # pictures have white grounds
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
copyright = "the authors of pyro_vmtl, Apache-2.0"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# Docstrings name what is not public, or is of other libraries: these have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!pyro_vmtl\.[A-Za-z_]+$).*")]

PAGES = {
    "benchmarks/RESULTS.md": "results.md",
    "benchmarks/SPEED.md": "speed.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "lessons/": "lessons/index.md",
}
"""Files outside of docs that are pages of the site."""

OPTIONAL = re.compile(r"^(influence|feedback|safety)$\n", flags=re.MULTILINE)
"""Pages that are listed once they are there."""

ELSEWHERE = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]*)(#[^)\s]*)?\)")


ROOMS = {
    "pyro_vmtl": "Package",
    "estimators": "Estimators",
    "data": "Data",
    "outputs": "Feedback between outputs",
    "sharing": "Sharing and pools",
    "handlers": "Effect handlers",
    "inference": "Inference",
    "linear_response": "Linear response",
    "attribution": "Influence of rows",
    "predictive": "Predictions",
    "methods": "Methods",
}
"""Titles of the rooms whose names are those of the package itself."""

EXAMPLES = (
    "Examples that do not say where their data are from take ``data``, rows of three tasks in a",
    ":class:`~pyro_vmtl.TaskData`; ``fitted``, a fit to it, with its ``model`` and ``guide``;",
    "``tree = to_datatree(fitted, data, rows=data)``; and ``effects = influence(fitted, data)``.",
)
"""What stands above the list of names."""

NO_PAGES = {"az", "__version__"}
"""ArviZ has pages of its own."""


def write_reference():
    """Write the page that lists all public names, by room."""
    titles = {f"pyro_vmtl.{room}": title for room, title in ROOMS.items()}
    groups = defaultdict(list)
    for name in sorted(set(pyro_vmtl.__all__) - NO_PAGES, key=str.lower):
        room = ".".join(getattr(pyro_vmtl, name).__module__.split(".")[:2])
        groups[titles.get(room, room.rpartition(".")[2].capitalize())].append(f"pyro_vmtl.{name}")
    for room in ("analysis", "models", "guides", "datasets", "testing"):
        module = importlib.import_module(f"pyro_vmtl.{room}")
        names = sorted(set(module.__all__) - NO_PAGES, key=str.lower)
        groups[f"pyro_vmtl.{room}"] = [f"{module.__name__}.{name}" for name in names]
    lines = ["API reference", "=============", "", *EXAMPLES, ""]
    for title, names in groups.items():
        lines += [title, "-" * len(title), "", ".. autosummary::", "   :toctree: generated", ""]
        lines += [*(f"   {name}" for name in names), ""]
    (HERE / "api").mkdir(exist_ok=True)
    (HERE / "api" / "index.rst").write_text("\n".join(lines), encoding="utf-8")


def link_to_pages(app, docname, source):
    """Make links to files of the repository those to pages, or plain names where there is none."""
    base = (HERE / docname).parent
    included = re.search(r"\{include\} (\S+)", source[0])
    if included:
        file = (base / included[1]).resolve()
        source[0], base = file.read_text(encoding="utf-8"), file.parent

    def link(match):
        words, path, anchor = match[1], match[2], match[3] or ""
        file = (base / path).resolve()
        if file.is_relative_to(HERE) and file.suffix == ".md":
            page = file.relative_to(HERE)
        else:
            name = file.relative_to(HERE.parent).as_posix()
            page = PAGES.get(name, PAGES.get(f"{name}/"))
            if page is None:
                return words
        up = "../" * docname.count("/")
        return f"[{words}]({up}{page}{anchor})"

    source[0] = ELSEWHERE.sub(link, source[0])
    source[0] = OPTIONAL.sub(
        lambda name: name[0] if (HERE / f"{name[1]}.md").exists() else "", source[0]
    )
    if included:  # pictures lie elsewhere, too
        source[0] = re.sub(r"(!\[[^\]]*\])\((?:\.\./)?docs/", r"\1(", source[0])


def leave_out_requests(app, what, name, obj, skip, options):
    """Leave out the methods that scikit-learn adds, whose docstrings link to its own pages."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def inline(self, node):
    """Write a formula as MathML, which browsers draw without scripts."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self, node):
    """Write a formula of its own lines, which scrolls where it is too wide."""
    self.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register what is above."""
    write_reference()
    app.connect("source-read", link_to_pages)
    app.connect("autodoc-skip-member", leave_out_requests)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
