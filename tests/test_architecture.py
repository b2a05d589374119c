"""The house: who may import whom, what is packaged, what importing costs."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "guides", "analysis")

# What each part may import of the others. The core is pyro_vmtl/*.py, the top pyro_vmtl/cli.
ALLOWED = {
    "core": set(),
    "models": {"core"},
    "guides": {"core"},
    "presets": {"core", "models", "guides"},
    "analysis": {"core", "models", "guides", "presets"},
    "estimators": {"core", "models", "guides", "presets", "analysis"},
    "cli": {"core", "models", "guides", "presets", "analysis", "estimators"},
}
PRESETS = (
    *("adding", "fitted", "new_tasks", "preset", "presets", "specification", "stacking", "storage"),
)  # in pyro_vmtl/, but above models and guides
ONLY_IN_ANALYSIS_AND_ABOVE = {"arviz", "matplotlib", "pandas", "seaborn"}


def parts():
    """Each part's files."""
    core = (ROOT / "pyro_vmtl", ROOT / "pyro_vmtl" / "datasets")
    files = sorted(path for folder in core for path in folder.glob("*.py"))
    yield "core", [path for path in files if path.stem not in PRESETS]
    yield "presets", [path for path in files if path.stem in PRESETS]
    for top in ("estimators", "cli"):
        yield top, sorted((ROOT / "pyro_vmtl" / top).rglob("*.py"))
    for room in ROOMS:
        yield room, sorted((ROOT / room).rglob("*.py"))


def imports(path):
    """Names of all modules a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module):
    """The part a module of ours belongs to."""
    names = module.split(".")
    if names[0] != "pyro_vmtl":
        return None
    if len(names) > 1 and names[1] in PRESETS:
        return "presets"
    return names[1] if len(names) > 1 and names[1] in (*ROOMS, "estimators", "cli") else "core"


@pytest.mark.parametrize(("part", "files"), list(parts()))
def test_who_may_import_whom(part, files):
    assert files
    for path in files:
        for module in imports(path):
            target = part_of(module)
            if target is not None:
                assert target == part or target in ALLOWED[part], f"{path} imports {module}"
            if part not in ("analysis", "estimators", "cli"):
                assert module.split(".")[0] not in ONLY_IN_ANALYSIS_AND_ABOVE, (
                    f"{path} imports {module}"
                )
            assert module.split(".")[0] not in ROOMS, f"{path}: import pyro_vmtl.{module}"


def test_the_package_list_is_that_of_the_folders():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"pyro_vmtl"}
    for name, folder in [("pyro_vmtl", "pyro_vmtl"), *((f"pyro_vmtl.{r}", r) for r in ROOMS)]:
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder)
            if inside.parts[:1] not in [(r,) for r in ROOMS]:  # the links
                folders.add(".".join([name, *inside.parts]))
    assert set(settings["packages"]) == folders


def test_the_links_point_to_the_rooms():
    for room in ROOMS:
        link = ROOT / "pyro_vmtl" / room
        assert link.is_symlink() and link.resolve() == (ROOT / room).resolve()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_not_importable_from_the_root(room):
    code = f"import {room}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"Import this as pyro_vmtl.{room}" in run.stderr


def test_importing_the_core_does_not_import_tables_or_pictures():
    code = (
        "import sys, pyro_vmtl.models, pyro_vmtl.guides, pyro_vmtl as p;"
        "[getattr(p, name) for name in p.__all__ if not name.startswith('VMTL')];"  # the estimators
        "print([m for m in ('arviz', 'matplotlib', 'pandas', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_help_does_not_wait_for_torch():
    code = "import sys, pyro_vmtl, pyro_vmtl.cli.main; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_everything_public_can_be_imported():
    import pyro_vmtl

    assert {"fit", "share", "TaskData", "__version__"} <= set(pyro_vmtl.__all__)
    for name in pyro_vmtl.__all__:
        # a module of that name would hide what is in it
        assert not inspect.ismodule(getattr(pyro_vmtl, name)), name


def test_no_file_has_grown_past_one_idea():
    for _, files in parts():
        for path in files:
            assert len(path.read_text().splitlines()) <= 320, path
