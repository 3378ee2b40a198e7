"""Start-up is a cost that everybody pays: what ``annexpy --version`` may import and how long it may take."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from annexpy.cli.group import COMMANDS

HEAVY = (
    *("anyio", "asyncio", "trio", "asyncssh", "click", "cryptography", "dulwich", "h11", "rich", "yaml", "urllib3"),
    *("argparse", "dataclasses", "importlib.metadata", "inspect", "json", "logging", "pathlib", "socket", "sqlite3"),
    *("ssl", "subprocess", "tempfile", "typing", "uuid"),
)


FAR = ("annexpy.p2p", "annexpy.remote.cluster", "annexpy.remote.p2p", "annexpy.server", "annexpy.transport.ssh")
"""What only those need who reach for other machines."""
WORK = {
    "check": ("check", "b", "KEY"),
    "copy": ("copy", ".", "b", "KEY"),
    "drop": ("drop", ".", "KEY", "--other", "b"),
    "get": ("get", "b", "KEY", "-C", "."),
    "put": ("put", "b", "file"),
    "whereis": ("whereis", "KEY"),
}
"""Each succeeds in ``pair``."""
JUDGES = {"drop", "whereis"}
"""Commands that ask how many copies there are, and who is trusted."""


def _loaded(code: str, cwd: Path | None = None) -> set[str]:
    """Modules that *code* imports in a fresh interpreter beyond those of a bare one."""
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    runs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=cwd).stdout
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


@pytest.mark.alone
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with the remote ``b``, and a key that both have."""
    base = tmp_path_factory.mktemp("pair")
    here = base / "w"
    for repository in (here, base / "b"):
        subprocess.run(["git", "init", "-q", str(repository)], check=True)
        _annexpy(base, "init", str(repository))
    subprocess.run(["git", "remote", "add", "b", "../b"], cwd=here, check=True)
    (here / "file").write_bytes(b"content")
    key = _annexpy(here, "key", "file").split()[0]
    _annexpy(here, "put", ".", "file")
    _annexpy(here, "put", "b", "file")
    return here, key


def _annexpy(cwd: Path, *words: str) -> str:
    argv = [sys.executable, "-m", "annexpy.cli.app", *words]
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", sorted(WORK))
def test_work_on_one_machine_imports_nothing_of_a_network(name: str, pair: tuple[Path, str]) -> None:
    here, key = pair
    words = [word.replace("KEY", key) for word in WORK[name]]
    loaded = _loaded(f"from annexpy.cli.app import main; assert main({words!r}) == 0", here)

    assert not sorted(one for one in loaded if one.startswith(FAR))
    assert not {"asyncssh", "cryptography", "dulwich", "importlib.metadata", "rich", "sqlite3", "trio"} & loaded
    if name not in JUDGES:
        assert not sorted(one for one in loaded if one.startswith("annexpy.policy"))


def test_whereis_of_given_keys_needs_no_event_loop(pair: tuple[Path, str]) -> None:
    here, key = pair
    loaded = _loaded(f"from annexpy.cli.app import main; assert main(['whereis', {key!r}]) == 0", here)

    assert "annexpy.actions.whereis" in loaded
    assert not {"anyio", "asyncio", "ssl", "annexpy.actions.facts", "annexpy.remote"} & loaded


def test_what_asks_over_http_imports_nothing_that_speaks_in_lines() -> None:
    loaded = _loaded("import annexpy.remote.http, annexpy.actions.copy, annexpy.actions.verify")

    assert "annexpy.p2p.http" in loaded
    lines = {f"annexpy.p2p.{name}" for name in ("connection", "lines", "messages", "states")}
    lines |= {f"annexpy.remote.{name}" for name in ("greeting", "p2p", "p2p_removal", "wire", "wires")}
    assert not lines & loaded


def test_the_collector_never_looks_at_the_modules_of_a_process_of_ours() -> None:
    code = (
        "import gc; from annexpy.garbage import spare_modules; spare_modules(); spare_modules()\n"
        "before = gc.get_freeze_count(); gc.collect(); frozen = gc.get_freeze_count()\n"
        "young = []; young.append(young); del young\n"
        "print(before, frozen > 1000, gc.collect(), gc.get_freeze_count() - frozen, gc.callbacks)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split(maxsplit=4) == ["0", "True", "1", "0", "[]\n"]


@pytest.mark.alone
@pytest.mark.parametrize("name", ["check", "copy", "put"])
def test_work_starts_in_not_much_more_than_its_libraries_do(name: str, pair: tuple[Path, str]) -> None:
    here, key = pair
    words = [word.replace("KEY", key) for word in WORK[name]]
    libraries = [sys.executable, "-c", "import click, anyio._backends._asyncio"]
    ratios = []
    for _ in range(7):
        least = _cpu(libraries, here)
        ratios.append(_cpu([sys.executable, "-m", "annexpy.cli.app", *words], here) / least)

    assert statistics.median(ratios) <= 2.2, ratios


def _cpu(argv: list[str], cwd: Path) -> float:
    child = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_a_command_ends_at_once_and_leaves_nothing_unsaid(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    code = (
        "import atexit, sys; atexit.register(lambda: print('asked for')); "
        "from annexpy.cli.app import main; main(); print('taken apart')"
    )
    argv = [sys.executable, "-c", code, "key", "file", "nothing"]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout.splitlines()[0].startswith("SHA256E-s7--")
    assert ended.stdout.splitlines()[-1] == "asked for"
    assert "nothing" in ended.stderr


def test_a_command_that_is_traced_ends_as_any_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    code = "import sys; sys.setprofile(lambda *_: None); from annexpy.cli.app import main; main(); print('taken apart')"
    argv = [sys.executable, "-c", code, "key", "file"]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "taken apart"
