"""Imports go one way. Lazy imports and those under TYPE_CHECKING count: that is where knots hide.

The table and the rules are those of docs/design.md, "Layers". There is no list of exceptions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A group may import the groups before it; inside a group, modules may import
# each other as long as there is no cycle.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("L0 patterns", ("annexpy.patterns", "annexpy.abilities")),
    ("L0", ("annexpy.errors", "annexpy.clock")),
    ("L0 uuids", ("annexpy.uuids",)),
    ("L1 keys", ("annexpy.keys",)),
    ("L2 logs", ("annexpy.logs",)),
    ("L2 p2p", ("annexpy.p2p",)),
    ("L3 policy", ("annexpy.policy",)),
    ("L4 system", ("annexpy.system", "annexpy.garbage")),
    ("L4 transport", ("annexpy.transport",)),
    ("L4 repo", ("annexpy.repo",)),
    ("L5 remote", ("annexpy.remote",)),
    ("L6 actions", ("annexpy.actions",)),
    ("L7 server", ("annexpy.server",)),
    ("L8 the public API", ("annexpy",)),
    ("L8 sync", ("annexpy.sync",)),
    ("L8 cli", ("annexpy.cli",)),
    ("L9 glimmer_store", ("glimmer_store",)),
)
# Two groups that do not see each other although one stands above the other.
STRANGERS = (
    ("annexpy.p2p", "annexpy.logs"),
    ("annexpy.repo", "annexpy.transport"),
    ("annexpy.repo", "annexpy.p2p"),
    ("annexpy.transport", "annexpy.keys"),
    ("annexpy.transport", "annexpy.p2p"),
    ("annexpy.transport", "annexpy.logs"),
    ("annexpy.transport", "annexpy.policy"),
)
PURE = (
    "annexpy.errors",
    "annexpy.clock",
    "annexpy.uuids",
    "annexpy.patterns",
    "annexpy.abilities",
    "annexpy.keys",
    "annexpy.logs",
    "annexpy.p2p",
    "annexpy.policy",
)
NOT_IN_PURE = (
    *("anyio", "asyncio", "trio", "sniffio", "concurrent", "threading", "multiprocessing", "subprocess"),
    *("os", "io", "socket", "ssl", "select", "selectors", "pathlib", "shutil", "tempfile", "fcntl", "ctypes"),
    *("time", "random", "secrets", "uuid", "logging"),
    *("dulwich", "asyncssh", "h11", "http", "urllib.request", "click", "rich", "yaml"),
)
PURE_MAY = frozenset({"os.PathLike"})
# Library → the only places that may know it.
ONLY_IN = {
    "dulwich": ("annexpy.repo", "annexpy.server.git"),
    "asyncssh": ("annexpy.transport.ssh_library", "annexpy.server.ssh"),
    "h11": ("annexpy.transport.http_head",),
    "obstore": ("annexpy.remote.s3",),
    "datamanifest": ("glimmer_store.manifest.library",),
    "click": ("annexpy.cli", "glimmer_store.cli"),
    "rich": ("annexpy.cli", "glimmer_store"),
    "distributed": ("glimmer_store.jobs.launch.dask",),
    "socket": ("annexpy.transport", "annexpy.server", "protocol_tests"),
    "subprocess": (
        "annexpy.transport",
        "annexpy.repo",
        "annexpy.actions",
        "annexpy.cli",
        "annexpy.server",
        "glimmer_store",
        "protocol_tests",
    ),
    "random": ("annexpy.system", "glimmer_store", "protocol_tests"),
    "secrets": ("annexpy.system", "glimmer_store", "protocol_tests"),
    "pytest": ("protocol_tests.plugin",),
    "hypothesis": ("protocol_tests",),
}
# Reading a clock or throwing dice, as module.attribute; only annexpy/system.py may.
REAL_TIME = frozenset(
    {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.clock_gettime", "time.clock_gettime_ns"}
    | {
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.date.today",
        "uuid.uuid4",
        "uuid.uuid1",
        "os.urandom",
    }
)
# The raw verb: a removal that no proof stands behind by itself.
MAY_REMOVE = (
    "annexpy.actions.drop",
    "annexpy.actions.drop_here",
    "annexpy.server.removal",
    "annexpy.remote",
    "annexpy.sync",
)


@dataclass(frozen=True, slots=True)
class Import:
    module: str  # who imports
    target: str  # what, as far as it is known to be a module
    names: tuple[str, ...]  # from target import names
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}{' ' + ', '.join(self.names) if self.names else ''}"


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@cache
def sources(package: str) -> dict[str, tuple[Path, ast.Module]]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path, ast.parse(path.read_bytes(), str(path))
    return found


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    return sources("annexpy") | sources("glimmer_store") | sources("protocol_tests")


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for name in modules() for found in _imports_of(name))


def _imports_of(module: str) -> Iterator[Import]:
    path, tree = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, (), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            plain = tuple(alias.name for alias in node.names if f"{base}.{alias.name}" not in modules())
            for alias in node.names:
                if f"{base}.{alias.name}" in modules():
                    yield Import(module, f"{base}.{alias.name}", (), node.lineno)
            if plain:
                yield Import(module, base, plain, node.lineno)


def layer(module: str) -> int:
    """Index of the longest entry of the table that *module* stands below; −1 for strangers."""
    fitting = [(len(entry), at) for at, (_, entries) in enumerate(LAYERS) for entry in entries if below(module, entry)]
    # ``annexpy`` alone is the package's own __init__, not everything below it
    fitting = [(length, at) for length, at in fitting if LAYERS[at][1] != ("annexpy",) or module == "annexpy"]
    return max(fitting, default=(0, -1))[1]


def test_every_module_stands_in_a_layer() -> None:
    assert not [name for name in modules() if layer(name) < 0 and not below(name, "protocol_tests")]


def test_imports_go_down_or_stay_in_their_group() -> None:
    # annexpy/__init__ sees everything below it and nobody below sees it: it is the users' door.
    wrong = [str(found) for found in imports() if (target := layer(found.target)) >= 0 and target > layer(found.module)]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_a_detour() -> None:
    edges: dict[str, set[str]] = {}
    for found in imports():
        if found.target in modules() and found.target != found.module:
            edges.setdefault(found.module, set()).add(found.target)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in sorted(edges.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_strangers_do_not_know_each_other() -> None:
    wrong = [
        str(found)
        for found in imports()
        for one, other in STRANGERS
        if below(found.module, one) and below(found.target, other)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_pure_layers_cannot_block_await_or_look_at_a_clock() -> None:
    wrong = []
    for found in imports():
        if not any(below(found.module, pure) for pure in PURE):
            continue
        named = {f"{found.target}.{name}" for name in found.names} or {found.target}
        wrong += [str(found) for name in named - PURE_MAY if any(below(name, bad) for bad in NOT_IN_PURE)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_each_library_has_its_place(library: str) -> None:
    wrong = [
        str(found)
        for found in imports()
        if below(found.target, library) and not any(below(found.module, place) for place in ONLY_IN[library])
    ]
    assert not wrong, "\n".join(wrong)


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    """``a.b.c`` with the first name replaced by what it was imported as; empty for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return ""
    return ".".join([known[node.id], *reversed(parts)])


def test_real_time_and_chance_come_from_system_alone() -> None:
    wrong = []
    for module, (_, tree) in modules().items():
        if module == "annexpy.system" or not below(module, "annexpy"):
            continue
        known = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    known[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        wrong += [
            f"{module}:{node.lineno} uses {_dotted(node, known)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute | ast.Name) and _dotted(node, known) in REAL_TIME
        ]
    assert not wrong, "\n".join(wrong)


def test_the_raw_removal_is_called_by_those_who_answer_for_it() -> None:
    wrong = [
        f"{module}:{node.lineno} mentions {node.attr}"
        for module, (_, tree) in modules().items()
        if below(module, "annexpy") or below(module, "glimmer_store")
        if not any(below(module, place) for place in MAY_REMOVE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("remove_content", "remove_content_many")
    ]
    assert not wrong, "\n".join(wrong)


def _literal_all(module: str) -> set[str]:
    for node in modules()[module][1].body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return set(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return set()


def test_glimmer_store_stands_on_the_public_api_only() -> None:
    public = {"annexpy": _literal_all("annexpy"), "annexpy.server": _literal_all("annexpy.server")}
    wrong = []
    for found in imports():
        if not below(found.module, "glimmer_store") or not below(found.target, "annexpy"):
            continue
        # ``import annexpy`` and ``from annexpy import server, sync`` are doors; what is behind them is checked below
        if found.target in ("annexpy", "annexpy.server", "annexpy.sync"):
            bad = set(found.names) - public.get(found.target, set()) if found.target in public else set()
        else:
            bad = {found.target}
        if bad:
            wrong.append(f"{found}: {', '.join(sorted(bad))} is not public")
    for module, (_, tree) in modules().items():
        if not below(module, "glimmer_store"):
            continue
        doors = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                doors |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in public}
        wrong += [
            f"{module}:{node.lineno} uses {node.value.id}.{node.attr}, which is not public"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in doors
            if node.attr not in public[doors[node.value.id]] | {"server", "sync"}
        ]
    assert not wrong, "\n".join(wrong)


def test_annexpy_never_mentions_glimmer() -> None:
    wrong = [str(path) for path, _ in sources("annexpy").values() if b"glimmer" in path.read_bytes().lower()]
    assert not wrong


def test_the_harness_shares_nothing_with_its_subjects() -> None:
    import sys

    allowed = sys.stdlib_module_names | {"hypothesis", "protocol_tests"}
    wrong = [
        str(found)
        for found in imports()
        if below(found.module, "protocol_tests")
        if found.target.split(".")[0] not in allowed
        and not (found.module == "protocol_tests.plugin" and found.target.split(".")[0] == "pytest")
    ]
    assert not wrong, "\n".join(wrong)


# -- the rules themselves: each must be able to fail ---------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("annexpy.keys.bad", "from annexpy.repo import files", test_imports_go_down_or_stay_in_their_group),
        ("annexpy.keys.bad", "def f():\n    import os", test_the_pure_layers_cannot_block_await_or_look_at_a_clock),
        (
            "annexpy.p2p.bad",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import anyio",
            test_the_pure_layers_cannot_block_await_or_look_at_a_clock,
        ),
        ("annexpy.transport.bad", "from annexpy.keys.key import Key", test_strangers_do_not_know_each_other),
        ("annexpy.remote.bad", "import dulwich.objects", lambda: test_each_library_has_its_place("dulwich")),
        (
            "annexpy.remote.bad",
            "import time\ndef f(): return time.time()",
            test_real_time_and_chance_come_from_system_alone,
        ),
        (
            "annexpy.remote.bad",
            "from time import monotonic as m\ndef f(): return m()",
            test_real_time_and_chance_come_from_system_alone,
        ),
        (
            "annexpy.actions.bad",
            "async def f(remote): await remote.remove_content(1)",
            test_the_raw_removal_is_called_by_those_who_answer_for_it,
        ),
        ("glimmer_store.bad", "from annexpy.keys.key import Key", test_glimmer_store_stands_on_the_public_api_only),
        ("glimmer_store.bad", "from annexpy import nothing_like_it", test_glimmer_store_stands_on_the_public_api_only),
        (
            "glimmer_store.bad",
            "import annexpy as a\na.nothing_like_it",
            test_glimmer_store_stands_on_the_public_api_only,
        ),
        ("annexpy.remote.bad", "import annexpy.remote.bad2", None),
        ("protocol_tests.bad", "import annexpy", test_the_harness_shares_nothing_with_its_subjects),
    ],
)
def test_each_rule_notices_a_breach(module: str, source: str, rule, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    planted = dict(modules()) | {module: (ROOT / "planted.py", ast.parse(source))}
    if rule is None:
        planted["annexpy.remote.bad2"] = (ROOT / "planted2.py", ast.parse("from annexpy.remote import bad"))
        rule = test_no_module_imports_itself_by_a_detour
    monkeypatch.setitem(globals(), "modules", lambda: planted)
    monkeypatch.setitem(globals(), "imports", lambda: tuple(f for name in planted for f in _imports_of(name)))

    with pytest.raises(AssertionError, match="bad"):
        rule()
