"""Imports go down only: every file's imports, read with ast, against the table of floors; no circles, no way around."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import triptych

ROOT = Path(triptych.__file__).parent

FLOOR_1 = {"check", "images", "cache", "store", "engine"}
FLOOR_2 = {"convex", "gan", "data", "metrics", "bench"}
FLOOR_3 = {"ccnn", "sparse"}
MAY_IMPORT = {  # beside themselves
    **{name: {"check"} for name in FLOOR_1},
    **dict.fromkeys(FLOOR_2, FLOOR_1),
    **{name: FLOOR_1 | {"convex"} for name in FLOOR_3},
    "papers": FLOOR_1 | FLOOR_2 | FLOOR_3,
    "cli": FLOOR_1 | FLOOR_2 | FLOOR_3 | {"papers"},
    "__main__": {"cli"},
}
SLOW_TO_IMPORT = {"matplotlib", "accelerate", "jinja2"}  # inside functions alone
ONE_DOOR = {  # packages that one module alone may know
    "accelerate": "engine",
    "urllib.request": "cache",
    "http": "cache",
    "socket": "cache",
    "ssl": "cache",
    "requests": "cache",
    "platformdirs": "cache",
}
NEVER = {"pickle", "joblib", "dill", "cloudpickle"}


class Import(NamedTuple):
    """What a line imports, absolute; ``deep`` says that it is inside a function or for type checkers alone."""

    line: int
    target: str
    deep: bool
    relative: bool = False


def imports(source: str, modules: set[str]) -> Iterator[Import]:
    """All imports of a file; ``from package import module`` names the module, ``from module import name`` the module."""
    tree = ast.parse(source)
    deep = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    public = any(
        isinstance(node, ast.Attribute) and ast.unparse(node.value) == "triptych" and not node.attr.startswith("__")
        for node in ast.walk(tree)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "triptych" and not public:
                    continue  # its version and its folder are no public names
                yield Import(node.lineno, alias.name, node in deep)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                target = base if base in modules and full not in modules and alias.name != "__version__" else full
                yield Import(node.lineno, target, node in deep, bool(node.level))


def unit(module: str) -> str:
    """The folder or module below the package: 'triptych.convex.terms' -> 'convex'; '' for the package itself."""
    return module.split(".")[1] if "." in module else ""


def violations(sources: Mapping[str, str]) -> list[str]:
    """Every broken rule of a package, given as source texts by module name."""
    modules, found = set(sources), []
    for module, source in sources.items():
        for line, target, deep, relative in imports(source, modules):
            where = f"{module}:{line}"
            if relative:
                found.append(f"{where} has a relative import")
            elif target.split(".")[0] == "triptych":
                found += [f"{where} {text}" for text in _ours(module, target, deep)]
            else:
                found += [f"{where} {text}" for text in _theirs(module, target, deep)]
    return found + [f"circle: {' -> '.join(circle)}" for circle in circles(edges(sources))]


def _ours(module: str, target: str, deep: bool) -> Iterator[str]:
    here, there = unit(module), unit(target)
    if target == "triptych.__version__":
        return
    if not here:
        if not deep:
            yield f"imports {target} at once; public names are resolved on first use"
    elif here not in MAY_IMPORT:
        yield f"is on no floor: {here}"
    elif not there:
        yield "imports the package's public names, which lie above"
    elif there != here and there not in MAY_IMPORT[here]:
        yield f"imports {target}: {here} may not import {there}"


def _theirs(module: str, target: str, deep: bool) -> Iterator[str]:
    names = {".".join(target.split(".")[:n]) for n in (1, 2)}
    if names & SLOW_TO_IMPORT and not deep:
        yield f"imports {target} at module level"
    if names & NEVER:
        yield f"imports {target}"
    for name in names & ONE_DOOR.keys():
        if unit(module) != ONE_DOOR[name]:
            yield f"imports {target}, which {ONE_DOOR[name]} alone may know"


def edges(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which module imports which, for type checkers and inside functions too."""
    modules = set(sources)
    return {
        module: {i.target for i in imports(source, modules) if i.target in modules and i.target != module}
        for module, source in sources.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """One circle for every edge that closes one in a depth-first search; none where the graph has none."""
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(graph[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def package() -> dict[str, str]:
    """The sources of the package by module name."""
    sources = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def test_imports_go_down_only():
    sources = package()
    assert {"triptych", "triptych.check", "triptych.convex.terms", "triptych.ccnn.estimator", "triptych.cli"} <= set(
        sources
    )
    assert violations(sources) == []


def test_the_table_is_a_ladder():
    """Whoever may import a unit may not be imported by it; every folder and module of the package is on a floor."""
    for here, others in MAY_IMPORT.items():
        assert all(here not in MAY_IMPORT[other] for other in others - {here})
    assert {unit(module) for module in package()} - {""} <= set(MAY_IMPORT)


PLANTED = {
    "the core knows a panel": ("convex.x", "from triptych.ccnn.layer import fit_layer", "convex may not import ccnn"),
    "a panel knows another": ("ccnn.x", "import triptych.sparse.pursuit", "ccnn may not import sparse"),
    "a panel knows the bench": ("ccnn.x", "from triptych.bench import row", "ccnn may not import bench"),
    "a panel knows data": ("ccnn.x", "def f():\n    from triptych.data import load", "ccnn may not import data"),
    "for types alone": (
        "ccnn.x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from triptych.papers import find",
        "ccnn may not import papers",
    ),
    "a module of the package": ("ccnn.x", "from triptych import cli", "ccnn may not import cli"),
    "data knows the bench": ("data.x", "from triptych.bench.row import Row", "data may not import bench"),
    "floor 1 knows itself": ("store", "from triptych.cache import fetch", "store may not import cache"),
    "the check knows anything": ("check", "import triptych.images", "check may not import images"),
    "papers know the command line": (
        "papers.x",
        "from triptych.cli.console import Console",
        "papers may not import cli",
    ),
    "by the public names": ("ccnn.x", "from triptych import Images", "imports the package's public names"),
    "by the package": ("ccnn.x", "import triptych\ntriptych.load", "imports the package's public names"),
    "the package at once": ("", "from triptych.images import Images", "public names are resolved on first use"),
    "relative": ("ccnn.x", "from . import layer", "has a relative import"),
    "no floor": ("attic.x", "import triptych.check", "is on no floor: attic"),
    "pictures at once": ("bench.x", "import matplotlib.pyplot as plt", "imports matplotlib.pyplot at module level"),
    "templates at once": ("bench.x", "try:\n    from jinja2 import Environment\nfinally:\n    pass", "at module level"),
    "processes elsewhere": ("gan.x", "def f():\n    import accelerate", "which engine alone may know"),
    "the network elsewhere": ("data.x", "from urllib.request import urlopen", "which cache alone may know"),
    "pickles": ("data.x", "def f():\n    import pickle", "imports pickle"),
}


@pytest.mark.parametrize(("name", "source", "text"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_caught(name, source, text):
    """And it alone: the same package without it has none."""
    clean = {f"triptych.{u}": "" for u in MAY_IMPORT} | {"triptych": "", "triptych.ccnn.layer": ""}
    module = f"triptych.{name}" if name else "triptych"
    assert violations(clean) == []
    (found,) = violations({**clean, module: source})
    assert text in found
    assert found.startswith(f"{module}:")


ALLOWED = {
    "down": ("ccnn.x", "from triptych.convex.terms import NuclearBall\nfrom triptych import store"),
    "beside": ("ccnn.x", "from triptych.ccnn.layer import fit_layer"),
    "the version": ("bench.x", "from triptych import __version__"),
    "the folder": ("bench.x", "import triptych\ntriptych.__file__, triptych.__version__"),
    "later": ("", "def __getattr__(name):\n    from triptych.images import Images"),
    "addresses are no network": ("data.x", "from urllib.parse import urlsplit"),
    "the network": ("cache", "import urllib.request"),
    "pictures later": ("bench.x", "def draw():\n    import matplotlib.pyplot"),
}


@pytest.mark.parametrize(("name", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_not_reported(name, source):
    clean = {f"triptych.{u}": "" for u in MAY_IMPORT} | {"triptych": "", "triptych.ccnn.layer": ""}
    assert violations({**clean, f"triptych.{name}" if name else "triptych": source}) == []


def test_circles_are_found_whatever_their_length():
    terms, solvers = "triptych.convex.terms", "triptych.convex.solvers"
    planted = {
        terms: "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from triptych.convex.solvers import fista",
        solvers: "from triptych.convex import maps",
        "triptych.convex.maps": f"def f():\n    import {terms}",
        "triptych.convex": "",
    }
    assert violations(planted) == [f"circle: triptych.convex.maps -> {terms} -> {solvers} -> triptych.convex.maps"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []  # two ways to the same place are none
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": {"b"}}) == [["a", "b", "a"], ["b", "c", "b"]]
