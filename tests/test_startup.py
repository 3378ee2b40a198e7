"""Start-up is a cost that everybody pays: what ``annexpy --version`` may import and how long it may take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import pytest

from annexpy.cli.group import COMMANDS

HEAVY = (
    *("anyio", "asyncio", "trio", "asyncssh", "click", "cryptography", "dulwich", "h11", "rich", "yaml", "urllib3"),
    *("argparse", "dataclasses", "importlib.metadata", "inspect", "json", "logging", "pathlib", "socket", "sqlite3"),
    *("ssl", "subprocess", "tempfile", "typing", "uuid"),
)


def _loaded(code: str) -> set[str]:
    """Modules that *code* imports in a fresh interpreter beyond those of a bare one."""
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    runs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in (show.replace("import json, sys", "import sys, json"), f"{code}\n{show}")
    ]
    bare, full = (set(json.loads(run.splitlines()[-1])) for run in runs)
    return full - bare


def test_version_imports_nothing_that_takes_time() -> None:
    loaded = _loaded("import sys; from annexpy.cli.app import main; main(['--version'])")

    assert not sorted(name for name in HEAVY if name in loaded and name != "json")
    assert {name for name in loaded if name.startswith("annexpy")} == {"annexpy", "annexpy.cli", "annexpy.cli.app"}


def test_importing_the_library_imports_nothing_of_it() -> None:
    assert _loaded("import annexpy") == {"annexpy"}


def test_help_imports_no_command_and_nothing_heavy() -> None:
    loaded = _loaded("from annexpy.cli.app import main; main(['--help'])")

    assert not [name for name in loaded if name.startswith("annexpy.cli.commands.")]
    for name in ("anyio", "asyncio", "trio", "asyncssh", "dulwich", "rich", "importlib.metadata", "cryptography"):
        assert name not in loaded


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_imports_none_of_its_work(name: str) -> None:
    loaded = _loaded(f"from annexpy.cli.app import main; main(['{name}', '--help'])")

    assert not {"anyio", "asyncio", "asyncssh", "cryptography", "dulwich", "rich", "trio"} & loaded


def test_version_takes_at_most_five_bare_interpreters() -> None:
    # Interleaved, and the pairwise ratio: another load on the machine then falls on both.
    ratios = []
    for _ in range(11):
        bare = _wall("-c", "pass")
        ratios.append(_wall("-m", "annexpy.cli.app", "--version") / bare)

    assert statistics.median(ratios) <= 5, ratios


def _wall(*argv: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *argv], check=True, capture_output=True)
    return time.perf_counter() - start
