"""strace of the commands: nothing is run but the interpreter itself, ssh where ssh is asked for, and git's readers.

Forks without exec are seen too: a new process is a clone without CLONE_THREAD, whatever runs in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import OURS, ROOT, Place, content_of, key_of

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

CONTENTS = [content_of(number, 5000) for number in range(4)]
KEYS = [key_of(content) for content in CONTENTS]
TRACED = "execve,execveat,fork,vfork,clone,clone3"
LOGS = 2100


@dataclass(frozen=True)
class Seen:
    """What a command started.

    Attributes:
        executed: The words of every execve that worked, in order; the interpreter itself is the first.
        processes: How many were forked.
        out: Its standard output.
    """

    executed: list[list[str]]
    processes: int
    out: str

    @property
    def others(self) -> list[list[str]]:
        return self.executed[1:]


def seen_in(log: Path, out: str = "") -> Seen:
    executed, processes = [], 0
    unfinished: dict[str, str] = {}
    for raw in log.read_text("utf-8", "replace").splitlines():
        pid, _, call = raw.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            unfinished[pid] = call.removesuffix("<unfinished ...>")
            continue
        if call.startswith("<... "):
            call = unfinished.pop(pid) + call.partition("resumed>")[2]
        name = call.partition("(")[0]
        if not re.search(r"= \d+$", call):
            assert call.startswith(("+++", "---")) or " = -1 " in call, call
        elif name in ("execve", "execveat"):
            executed.append(re.findall(r'"((?:[^"\\]|\\.)*)"', call[call.index("[") : call.rindex("]")]))
        else:
            processes += "CLONE_THREAD" not in call
    return Seen(executed, processes, out)


def strace(folder: Path, *argv: object, cwd: Path | None = None, **env: str) -> Seen:
    """Run a command of ours to its good end."""
    log = folder / "strace"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "1000", "-o", str(log), "-e", f"trace={TRACED}", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict(OURS) | env,
    )
    assert done.returncode == 0, (argv, done.stdout[-3000:], done.stderr[-3000:])
    seen = seen_in(log, done.stdout)
    assert seen.executed[0][0] == str(argv[0])
    return seen


def annexpy(folder: Path, *words: object, **more: str) -> Seen:
    return strace(folder, sys.executable, "-m", "annexpy.cli.app", *words, **more)


@contextmanager
def serving(folder: Path, place: Place, socket: Path) -> Iterator[None]:
    """``annexpy serve``, traced as well: nothing may be started on that side either."""
    log = folder / "strace-of-server"
    argv = [sys.executable, "-m", "annexpy.cli.app", "serve", "--unix", str(socket), str(place.path)]
    with subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={TRACED}", *argv],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(OURS),
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        pid = int(log.read_text().partition(" ")[0])  # strace itself would only let go of it
        try:
            assert "at unix:" in said
            yield
        finally:
            os.kill(pid, signal.SIGTERM)
            process.communicate(timeout=30)
    seen = seen_in(log)
    assert (seen.others, seen.processes) == ([], 0)


def test_strace_would_see_a_process(tmp_path: Path) -> None:
    code = "import os, subprocess; os.waitpid(os.fork() or os._exit(0), 0); subprocess.run(['true', 'a b'])"
    seen = strace(tmp_path, sys.executable, "-c", code)

    assert seen.processes == 2
    assert seen.others == [["true", "a b"]]


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    """The first one has everything, another one as well, the third nothing."""
    return [
        Place.make(tmp_path / "a.git", CONTENTS),
        Place.make(tmp_path / "b.git", CONTENTS),
        Place.make(tmp_path / "c.git"),
    ]


def test_work_on_local_repositories_starts_nothing(tmp_path: Path, places: list[Place]) -> None:
    a, b, c = (place.path for place in places)
    file = tmp_path / "file"
    file.write_bytes(CONTENTS[0])
    commands: list[tuple[object, ...]] = [
        ("put", "--key", KEYS[0], c, file),
        ("put", "-C", a, c, file),
        ("get", "-o", tmp_path / "got", a, KEYS[0]),
        ("get", "-C", c, a, KEYS[1]),
        ("copy", "-C", a, ".", c, *KEYS),
        ("check", c, *KEYS),
        ("whereis", "-C", c, *KEYS),
        ("drop", "-C", a, "--other", b, "--other", c, ".", KEYS[0]),
        ("drop", "-C", c, "--other", b, a, KEYS[1]),
        ("move", "-C", a, ".", c, KEYS[2]),
        ("fsck", c, *KEYS),
        ("key", file),
        ("init", "--bare", tmp_path / "d.git"),
    ]
    for words in commands:
        seen = annexpy(tmp_path, *words)
        assert (seen.others, seen.processes) == ([], 0), words

    assert (tmp_path / "got").read_bytes() == CONTENTS[0]
    assert [places[0].holds(key, content) for key, content in zip(KEYS, CONTENTS, strict=True)] == [
        False,
        False,
        False,
        True,
    ]
    assert all(places[2].holds(key, content) for key, content in zip(KEYS, CONTENTS, strict=True))


def test_work_over_unix_sockets_starts_nothing_on_either_side(tmp_path: Path, places: list[Place]) -> None:
    a, b, c = places
    socket, file = tmp_path / "s", tmp_path / "file"
    file.write_bytes(CONTENTS[3])
    with serving(tmp_path, c, socket):
        for words in [
            ("put", "--key", KEYS[3], f"unix:{socket}", file),
            ("get", "-o", tmp_path / "got", f"unix:{socket}", KEYS[3]),
            ("copy", "-C", a.path, ".", f"unix:{socket}", *KEYS),
            ("check", f"unix:{socket}", *KEYS),
            ("drop", "-C", a.path, "--other", b.path, f"unix:{socket}", KEYS[0]),
            ("drop", "-C", a.path, "--other", f"unix:{socket}", ".", KEYS[1]),
        ]:
            seen = annexpy(tmp_path, *words)
            assert (seen.others, seen.processes) == ([], 0), words
    assert [c.holds(key, content) for key, content in zip(KEYS, CONTENTS, strict=True)] == [False, True, True, True]
    assert not a.holds(KEYS[1], CONTENTS[1])


def test_archiving_starts_nothing(tmp_path: Path) -> None:
    """``glimmer-store init``, ``archive`` and ``status``, with a durable repository behind each kind of address."""
    study = tmp_path / "study"
    vaults = [tmp_path / f"vault{number}.git" for number in (1, 2, 3)]
    words = [word for vault in vaults for word in ("--durable", vault)]
    glimmer = (sys.executable, "-m", "glimmer_store.cli.app")
    strace(tmp_path, *glimmer, "init", study, "--yes", *words)
    (study / "output.tsv").write_bytes(CONTENTS[0])

    for argv in [("archive", "--class", "irreplaceable", "--type", "dataset", "output.tsv"), ("status", "--json")]:
        seen = strace(tmp_path, *glimmer, *argv, cwd=study)
        assert (seen.others, seen.processes) == ([], 0), argv
    held = [
        any(path.read_bytes() == CONTENTS[0] for path in vault.rglob("SHA256E*") if path.is_file()) for vault in vaults
    ]
    assert held == [True, True, True]


def test_over_ssh_only_ssh_is_run_and_only_when_asked_for(tmp_path: Path, places: list[Place], sshd) -> None:
    a, _, c = places
    file, key = tmp_path / "file", KEYS[0]
    file.write_bytes(CONTENTS[0])
    shell = tmp_path / "annexpy-shell"
    shell.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from annexpy.server.shell import main\nsys.exit(main())\n"
    )
    shell.chmod(0o755)
    a.git("remote", "add", "far", f"ssh://{sshd.host}{c.path}")
    a.set("remote.far.annex-shell", str(shell))
    a.set("remote.far.annex-uuid", c.uuid)
    work: list[tuple[object, ...]] = [
        ("put", "-C", a.path, "--key", key, "far", file),
        ("get", "-C", a.path, "-o", tmp_path / "got", "far", key),
        ("drop", "-C", a.path, "--other", ".", "far", key),
    ]
    for words in work:  # asyncssh
        seen = annexpy(tmp_path, *words)
        assert (seen.others, seen.processes) == ([], 0), words
    assert (tmp_path / "got").read_bytes() == CONTENTS[0]

    # A command line is for a shell to read, as git has it.
    for name, value, wanted in [
        ("remote.far.annex-ssh-options", f"-F {sshd.config}", ["ssh"]),
        ("core.sshCommand", f"ssh -F {sshd.config}", ["sh", "ssh"]),
    ]:
        a.set(name, value)
        for words in work:
            seen = annexpy(tmp_path, *words)
            assert [os.path.basename(one[0]) for one in seen.others] == wanted, words
            assert seen.processes == len(wanted)
    assert not c.holds(key, CONTENTS[0])


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository with many logs."""
    place = Place.make(tmp_path_factory.mktemp("logged") / "r.git")
    with Repository.open(place.path) as repository:
        for number in range(LOGS):
            key = Key.parse(f"SHA256-s{number}--{number:064x}")
            repository.branch.set_present(key, UUID("aaaaaaaa-0000-4000-8000-000000000000"), True)
        repository.branch.commit_now()
    return place


def test_reading_many_logs_runs_two_readers_of_git_and_nothing_else(tmp_path: Path, logged: Place) -> None:
    seen = annexpy(tmp_path, "whereis", "--json", "-C", logged.path)

    lines = [json.loads(line) for line in seen.out.splitlines()]
    assert len(lines) == LOGS
    assert all([one["uuid"] for one in line["whereis"]] == ["aaaaaaaa-0000-4000-8000-000000000000"] for line in lines)
    assert all(os.path.basename(one[0]) == "git" for one in seen.others)
    verbs = sorted(next(word for word in one[1:] if not word.startswith("-")) for one in seen.others)
    assert verbs == ["cat-file", "ls-tree"]
    assert seen.processes == 2


def test_reading_few_logs_runs_nothing(tmp_path: Path, logged: Place) -> None:
    keys = [f"SHA256-s{number}--{number:064x}" for number in range(0, LOGS, 10)]
    seen = annexpy(tmp_path, "whereis", "--json", "-C", logged.path, *keys)

    assert len(seen.out.splitlines()) == len(keys)
    assert (seen.others, seen.processes) == ([], 0)


def test_strace_is_installed() -> None:
    assert shutil.which("strace"), "apt install strace"
