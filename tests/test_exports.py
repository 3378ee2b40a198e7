"""What is public is written down: module sentences, ``__all__``, docstrings, and the lazy front door."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import annexpy

ROOT = Path(__file__).parent.parent
PACKAGES = ("annexpy", "glimmer_store", "protocol_tests")


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        if not (ROOT / package / "__init__.py").is_file():
            continue
        yield package
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if (found.module_finder.find_spec(found.name).origin or "").endswith(".py"):  # type: ignore[union-attr, call-arg]
                yield found.name


MODULES = sorted(_modules())


def _tree(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    package = path / "__init__.py"  # a folder without it holds data for the module of its name
    return ast.parse((package if package.is_file() else path.with_suffix(".py")).read_bytes())


def _is_plain_package(module: str) -> bool:
    """A directory's __init__ that only makes it a package: an empty file needs no sentence."""
    path = ROOT / Path(*module.split(".")) / "__init__.py"
    return path.is_file() and not path.read_bytes().strip()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_and_what_is_public(module: str) -> None:
    if _is_plain_package(module):
        return
    tree = _tree(module)

    sentence = (ast.get_docstring(tree) or "").split("\n\n")[0].strip()
    assert sentence, f"{module}: no docstring"
    assert sentence[-1] in ".:!?", f"{module}: the docstring starts with a sentence"
    body = [node for node in tree.body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)]
    named = {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    if module.rpartition(".")[2] != "__main__":
        assert "__all__" in named, f"{module}: no __all__"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_is_documented(module: str) -> None:
    if _is_plain_package(module) or module.endswith("__main__"):
        return
    loaded = importlib.import_module(module)
    documented = _documented_values(_tree(module))

    assert len(set(loaded.__all__)) == len(loaded.__all__), f"{module}: a name twice in __all__"
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert (value.__doc__ or "").strip(), f"{module}.{name} has no docstring"
        elif getattr(value, "__module__", module) == module and name in _assigned(_tree(module)):
            assert name in documented or name.isupper(), f"{module}.{name} has no docstring below it"


def _assigned(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _documented_values(tree: ast.Module) -> set[str]:
    names = set()
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _type_checking_imports(tree: ast.Module) -> dict[str, str]:
    """Name → module, from ``if TYPE_CHECKING:`` blocks."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    found |= {alias.asname or alias.name: f"{line.module}:{alias.name}" for alias in line.names}
    return found


@pytest.mark.parametrize("module", [name for name in ("annexpy", "annexpy.server") if not _is_plain_package(name)])
def test_the_lazy_table_is_what_type_checkers_see(module: str) -> None:
    loaded = importlib.import_module(module)
    table = {name: place if ":" in place else f"{place}:{name}" for name, place in loaded._PLACES.items()}

    assert sorted(table) == sorted(set(loaded.__all__) - {"__version__"})
    assert table == _type_checking_imports(_tree(module))
    for name in loaded.__all__:
        getattr(loaded, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        loaded.no_such_name  # noqa: B018
    assert set(loaded.__all__) <= set(dir(loaded))


def test_the_version_stands_in_one_place_twice() -> None:
    # A constant, because reading the distribution's metadata takes longer than everything else at start.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert annexpy.__version__ == project["version"]
