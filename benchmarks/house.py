"""Measure the package's structure: lines, import circles and floors.

python -m benchmarks.house

``tests/test_architecture.py`` checks what is printed here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]

AT_THE_ROOT = ("models", "guides", "analysis")
"""Rooms that are folders at the root; links in ``pyro_vmtl/`` lead to them."""

FLOORS = (
    ("data", "handlers"),
    ("sharing", "outputs"),
    ("models", "guides"),
    ("inference",),
    ("linear_response",),
    ("predictive",),
    ("methods",),
    ("attribution",),
    ("analysis",),
    ("estimators", "testing"),
    ("cli",),
)
"""Rooms from the lowest floor up. A room imports from lower floors only, not from its own."""

ROOMS = (*(room for floor in FLOORS for room in floor), "datasets")


def may_import(importer: str, imported: str) -> bool:
    """Whether one room may import another; the data sets stand beside the floors."""
    if importer == "datasets":
        return imported == "data"
    if imported == "datasets":
        return importer in ("analysis", "cli")
    level = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    return level[imported] < level[importer]


def house_modules() -> dict[str, Path]:
    """Return the file of every module of the package by its importable name.

    The package's own ``__init__`` is left out: it imports lazily, by a type stub.
    """
    tops = [("pyro_vmtl", ROOT / "pyro_vmtl")]
    tops += [(f"pyro_vmtl.{room}", ROOT / room) for room in AT_THE_ROOT]
    modules = {}
    for top, folder in tops:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([top, *(part for part in parts if part != "__init__")])
            if name != "pyro_vmtl" and not is_linked(path):
                modules[name] = path
    return modules


def is_linked(path: Path) -> bool:
    """Whether a path leads through a link in ``pyro_vmtl/`` to a room at the root."""
    return any(path.is_relative_to(ROOT / "pyro_vmtl" / room) for room in AT_THE_ROOT)


def imported_names(path: Path) -> Iterator[str]:
    """Yield the absolute names that a file imports anywhere, as ``module`` or ``module.name``."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno} imports relatively. Write the full name.")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def parse(path: Path) -> ast.Module:
    """Parse a file, once."""
    return ast.parse(path.read_text(), str(path))


def room_of(module: str) -> str | None:
    """Return the room of a module, or None for what is not in a room, such as the version."""
    names = module.split(".")
    return names[1] if names[0] == "pyro_vmtl" and len(names) > 1 and names[1] in ROOMS else None


def module_graph() -> nx.DiGraph:
    """Build the graph of imports: an edge from each module to those that it names in imports.

    Imports inside functions and those for type checkers count, too. Importing ``a.b`` runs ``a``'s
    ``__init__`` as well, which is no edge unless something is imported from it by name.
    """
    modules = house_modules()
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for module, path in modules.items():
        for name in imported_names(path):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                graph.add_edge(module, target)
    return graph


def room_graph(modules: nx.DiGraph) -> nx.DiGraph:
    """Contract the graph of modules to one of rooms."""
    graph = nx.DiGraph()
    for importer, imported in modules.edges:
        rooms = room_of(importer), room_of(imported)
        if None not in rooms and rooms[0] != rooms[1]:
            graph.add_edge(*rooms)
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """List the groups of modules that import one another in a circle."""
    return sorted(
        sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1
    )


def floors(rooms: nx.DiGraph) -> list[str]:
    """Return the longest chain of rooms in which each imports the next, from the top down."""
    return nx.dag_longest_path(rooms)


def num_lines(paths: Iterable[Path]) -> int:
    """Count the lines of files."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def library_files() -> list[Path]:
    """List all Python files outside tests and benchmarks, type stubs included."""
    tops = ("pyro_vmtl", *AT_THE_ROOT)
    found = (path for top in tops for path in (ROOT / top).rglob("*.py*"))
    return sorted(p for p in found if p.suffix in (".py", ".pyi") and not is_linked(p))


def main() -> None:
    """Print the figures."""
    modules = house_modules()
    graph = module_graph()
    rooms = room_graph(graph)
    for room in ROOMS:
        paths = [path for module, path in modules.items() if room_of(module) == room]
        print(f"{room:12} {num_lines(paths):6,} lines in {len(paths):2} files")
    print(f"\n{num_lines(library_files()):,} lines outside tests and benchmarks")
    longest = max(library_files(), key=lambda path: num_lines([path]))
    print(f"longest file: {longest.relative_to(ROOT)}, {num_lines([longest])} lines")
    found = circles(graph)
    print("import circles: " + ("none" if not found else ""))
    for circle in found:
        print("   ", ", ".join(circle))
    if nx.is_directed_acyclic_graph(rooms):
        chain = floors(rooms)
        print(f"{len(chain)} floors: {' -> '.join(chain)}")
    else:
        print(f"rooms in a circle: {circles(rooms)}")


if __name__ == "__main__":
    main()
