"""A real process, killed or failed at the N-th system call of a put, with strace.

strace counts per name of system call, so each name is swept by itself (fact sheet reliability, section 1.5).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from annexpy.errors import ContentLocked, IncompleteTransfer, VerificationFailed
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository

CHANGING = ("openat", "write", "mkdirat", "renameat", "unlinkat", "fchmod", "fsync", "syncfs", "close", "fcntl")
LOOKING = ("newfstatat", "fstat", "faccessat2", "fstatfs", "pread64", "read", "dup", "lseek")
MOST = 2000


@dataclass
class Run:
    """What one child said, and whether it came to its end."""

    ended: bool = False
    refused: bool = False
    broke: str = ""
    said: dict[str, set[Key]] = field(default_factory=dict)

    def keys(self, what: str) -> set[Key]:
        return self.said.get(what, set())


class Subject:
    """The process that forks the children."""

    def __init__(self, template: Path, work: Path) -> None:
        self.template, self.work = template, work
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(Path(__file__).with_name("subject.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def count(self, scenario: str, name: str) -> int:
        """How often *scenario* calls *name* when nothing goes wrong."""
        trace = self.work / "trace"
        _, run = self.run(scenario, f"{name}:error=EIO:when={MOST}", trace)
        assert run.ended
        assert not run.refused
        return sum(f" {name}(" in line for line in trace.read_text().splitlines())

    def run(self, scenario: str, inject: str, trace: Path = Path(os.devnull)) -> tuple[Path, Run]:
        """Do *scenario* in a fresh repository with one fault; the repository afterwards, and what was said."""
        repository = self.work / "r.git"
        shutil.rmtree(repository, ignore_errors=True)
        shutil.copytree(self.template, repository)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{scenario} {repository}\n")
        self.process.stdin.flush()
        pid = self._line().removeprefix("pid ")
        name = inject.partition(":")[0]
        with subprocess.Popen(
            ["strace", "-f", "-o", str(trace), "-e", f"trace={name}", "-e", f"inject={inject}", "-p", pid],
            stderr=subprocess.PIPE,
            text=True,
        ) as strace:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            os.kill(int(pid), signal.SIGUSR1)
            strace.communicate(timeout=60)
        os.kill(self.process.pid, 0)  # the parent lives
        return repository, self._outcome()

    def _outcome(self) -> Run:
        """The child is gone: whatever it said stands before the mark."""
        assert self.process.stdin is not None
        self.process.stdin.write("mark\n")
        self.process.stdin.flush()
        run = Run()
        while (line := self._line()) != "mark":
            what, _, rest = line.partition(" ")
            match what:
                case "done":
                    run.ended = True
                case "refused":
                    run.ended = run.refused = True
                case "broke":
                    run.broke = rest
                case _:
                    run.said.setdefault(what, set()).add(Key.parse(rest))
        return run

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; .ci/run installs it, and takes no skip")
    template = tmp_path_factory.mktemp("template") / "r.git"
    Repository.init(template, bare=True).close()
    work = tmp_path_factory.mktemp("work")
    with Repository.init(work / "beside.git", bare=True) as beside:

        async def fill() -> None:
            for key in CONTENTS:
                await put(Local(beside, durability="fast"), key)
            await beside.branch.commit()

        anyio.run(fill)
    subject = Subject(template, work)
    yield subject
    subject.close()


def objects(repository: Path) -> dict[Key, bytes]:
    return {
        file_key(os.fsencode(path.name)): path.read_bytes()
        for path in (repository / "annex/objects").glob("*/*/*/*")
        if path.name == path.parent.name
    }


def subject_module() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import subject as module
    finally:
        sys.path.pop(0)
    return module


SUBJECT = subject_module()
CONTENTS: dict[Key, bytes] = dict(zip(SUBJECT.KEYS, (*SUBJECT.CONTENTS, SUBJECT.LARGE), strict=True))
SCENARIOS = list(SUBJECT.SCENARIOS)


async def put(local: Local, key: Key) -> None:
    async with local.put(key) as upload:
        if upload.already is None:
            await upload.start(len(CONTENTS[key]) - upload.offset)
            await upload.write(CONTENTS[key][upload.offset :])
            await upload.finish()


def check(path: Path, run: Run) -> None:
    found = objects(path)
    for key, content in found.items():
        assert content == CONTENTS[key], f"torn: {key}"
    kept = run.keys("stored") - run.keys("removing")
    assert kept <= set(found), "acknowledged and lost"
    with Repository.open(path) as repository:
        for key in kept:
            assert repository.uuid in repository.branch.locations(key).present, "acknowledged and not recorded"
        recorded = {key for key in CONTENTS if repository.uuid in repository.branch.locations(key).present}
        assert recorded <= set(found), "recorded and not there"
        if run.ended and (run.keys("removing") or not run.refused):
            assert recorded == set(found), "there and not recorded"
        assert not run.keys("removed") & set(found)
        for key in run.keys("locked") - run.keys("unlocking"):
            with pytest.raises(ContentLocked):
                repository.content.remove(key)

        async def recover() -> None:
            local = Local(repository, durability="fast")
            for key in CONTENTS:
                try:
                    await put(local, key)
                except (VerificationFailed, IncompleteTransfer):
                    await put(local, key)

        anyio.run(recover)
    assert objects(path) == CONTENTS
    assert os.listdir(path / "annex/tmp") == []
    assert objects(path.parent / "beside.git") == CONTENTS, "lost where it was locked, or copied from"


def sweep(subject: Subject, scenario: str, name: str, fault: str) -> int:
    """Fail at each call of *name*; how many there are."""
    calls = subject.count(scenario, name)
    assert calls < MOST
    for number in range(1, calls + 1):
        path, run = subject.run(scenario, f"{name}:{fault}:when={number}")
        assert not run.broke, f"{name} {number}: {run.broke}"
        check(path, run)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "names"),
    [
        ("small", ("write", "mkdirat", "renameat", "unlinkat", "fchmod", "fsync", "syncfs", "fcntl")),
        ("resumed", ("write", "renameat")),
        ("large", ("write", "renameat")),
        ("together", ("renameat", "syncfs", "unlinkat")),
        ("locked", ("renameat", "fcntl")),
        ("removed", ("unlinkat", "renameat")),
        ("removed_together", ("unlinkat", "fsync")),
        ("copied", ("renameat", "write")),
        ("copied_durably", ("renameat", "syncfs")),
        ("dropped", ("unlinkat",)),
    ],
)
def test_a_kill_at_any_change_of_the_file_system_leaves_nothing_or_the_whole_object(
    subject: Subject, scenario: str, names: tuple[str, ...]
) -> None:
    points = {name: sweep(subject, scenario, name, "signal=SIGKILL") for name in names}

    assert all(points.values()), points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "name", "error"),
    [
        ("together", "write", "ENOSPC"),
        ("together", "fsync", "EIO"),
        ("together", "syncfs", "EIO"),
        ("together", "renameat", "EIO"),
        ("together", "mkdirat", "EDQUOT"),
        ("removed", "unlinkat", "EIO"),
        ("removed", "fsync", "EIO"),
        ("removed_together", "unlinkat", "EIO"),
        ("copied", "write", "ENOSPC"),
        ("copied_durably", "syncfs", "EIO"),
        ("copied_durably", "fsync", "EIO"),
        ("dropped", "fsync", "EIO"),
    ],
)
def test_a_call_that_fails_is_told_and_acknowledges_nothing_false(
    subject: Subject, scenario: str, name: str, error: str
) -> None:
    assert sweep(subject, scenario, name, f"error={error}") > 0


@pytest.mark.campaign
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", CHANGING + LOOKING)
def test_every_kill_point(subject: Subject, scenario: str, name: str) -> None:
    print(scenario, name, sweep(subject, scenario, name, "signal=SIGKILL"))


@pytest.mark.campaign
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("openat", "EMFILE"),
        ("write", "ENOSPC"),
        ("write", "EIO"),
        ("fsync", "EIO"),
        ("syncfs", "EIO"),
        ("renameat", "EIO"),
        ("mkdirat", "ENOSPC"),
        ("unlinkat", "EIO"),
        ("fchmod", "EPERM"),
        ("fcntl", "ENOLCK"),
    ],
)
def test_every_error_point(subject: Subject, scenario: str, name: str, error: str) -> None:
    print(scenario, name, error, sweep(subject, scenario, name, f"error={error}"))
