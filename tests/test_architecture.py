"""The house: who may import whom, how large it is, what is packaged, what an import costs."""

import ast
import inspect
import subprocess
import sys
import tokenize
import tomllib

import pytest

from benchmarks.house import (
    AT_THE_ROOT,
    ROOMS,
    ROOT,
    circles,
    floors,
    house_modules,
    imported_names,
    library_files,
    may_import,
    module_graph,
    num_lines,
    parse,
    room_graph,
    room_of,
)

ONLY_IN_ANALYSIS_AND_ABOVE = {"arviz", "matplotlib", "pandas", "seaborn"}
TABLES_AND_PICTURES = ("analysis", "estimators", "cli", "datasets")
MODULES = house_modules()
EVERY_FILE = [
    *library_files(),
    *(path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))),
]

# Names that were replaced by the field's own, see CHANGELOG.md.
FORMER_NAMES = {
    *("Counts", "Handled", "NotePosteriors", "SourceWeights"),
    *("_grown", "at_most", "capped", "fitted_from", "fitted_parts", "laid_out", "look_up"),
    *("mixed", "newcomer", "noted", "remade", "told", "told_history", "widen", "written_whole"),
}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_lower_floors(room):
    own = {module: path for module, path in MODULES.items() if room_of(module) == room}
    assert own
    for path in own.values():
        for name in imported_names(path):
            target = room_of(name)
            if target not in (None, room):
                assert may_import(room, target), f"{path} imports {name}"
            top = name.partition(".")[0]
            assert top not in AT_THE_ROOT, f"{path}: import pyro_vmtl.{name}"
            if room not in TABLES_AND_PICTURES:
                assert top not in ONLY_IN_ANALYSIS_AND_ABOVE, f"{path} imports {name}"


def test_modules_import_each_other_by_their_own_names():
    for path in MODULES.values():
        for name in imported_names(path):
            if name.partition(".")[0] == "pyro_vmtl":
                # The names of pyro_vmtl/__init__ are for users: they import almost everything.
                known = name in MODULES or name.rpartition(".")[0] in MODULES
                assert known, f"{path} imports {name}"


def test_no_modules_import_each_other_in_a_circle():
    assert circles(module_graph()) == []


def test_there_are_at_most_eight_floors():
    chain = floors(room_graph(module_graph()))
    assert len(chain) <= 8, chain


MAX_LINES = 32_840
"""Lines outside tests and benchmarks."""


def test_the_library_does_not_grow():
    assert num_lines(library_files()) <= MAX_LINES


def test_no_file_outside_tests_outgrows_one_idea():
    files = [path for path in EVERY_FILE if "tests" not in path.relative_to(ROOT).parts]
    assert {f"{path}": n for path in files if (n := num_lines([path])) > 320} == {}


def test_docstrings_are_imperative():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    offenders = [
        f"{path}:{getattr(node, 'lineno', 1)}"
        for path in EVERY_FILE
        for node in ast.walk(parse(path))
        if isinstance(node, kinds) and (ast.get_docstring(node) or "").startswith("Give ")
    ]
    assert offenders == []


def test_former_names_are_gone():
    offenders = []
    for path in EVERY_FILE:
        with tokenize.open(path) as source:
            for kind, name, (line, _), *_ in tokenize.generate_tokens(source.readline):
                if kind == tokenize.NAME and name in FORMER_NAMES:
                    offenders.append(f"{path}:{line} {name}")
    assert offenders == []


def test_the_package_list_is_that_of_the_folders():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(settings["packages"]) == {"pyro_vmtl", *packages}


def test_the_links_point_to_the_rooms():
    for room in AT_THE_ROOT:
        link = ROOT / "pyro_vmtl" / room
        assert link.is_symlink() and link.resolve() == (ROOT / room).resolve()


@pytest.mark.parametrize("room", AT_THE_ROOT)
def test_a_room_is_not_importable_from_the_root(room):
    code = f"import {room}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"Import this as pyro_vmtl.{room}" in run.stderr


def test_importing_the_core_does_not_import_tables_or_pictures():
    code = (
        "import sys, pyro_vmtl.models, pyro_vmtl.guides, pyro_vmtl as p;"
        "kinds = ('Classifier', 'Regressor', 'Estimator');"
        "[getattr(p, name) for name in p.__all__ if not name.endswith(kinds)];"
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
