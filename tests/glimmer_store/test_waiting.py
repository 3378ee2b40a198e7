"""What an emit does while somebody else has what it needs: it waits, says for whom, and loses nothing."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import annexpy as annex
from annexpy.repo.files import DiskFiles
from annexpy.repo.journal import JournalLock
from annexpy.repo.settings import Lockdown
from glimmer_store import GlimmerGraph, GlimmerNode, Shortfall, archive, patience
from glimmer_store.cli.app import main
from glimmer_store.provision import provision

ME = f"(pid {os.getpid()} on {os.uname().nodename})"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (root / "scan.nii").write_bytes(b"a scan " * 99)
    return root


@pytest.fixture
def vault(study: Path) -> Path:
    return study.parent / "vault2.git"


class Locked:
    """Somebody has the journal of the repository at *path*."""

    def __init__(self, path: Path) -> None:
        self._repository = annex.Repository.open(path)
        self._lock = JournalLock(self._repository.files, self._repository.clock, Lockdown())

    def __enter__(self) -> None:
        assert self._lock.try_acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._repository.close()


class Said(logging.Handler):
    """What is said while somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.heard = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.heard.set()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    """Every moment of waiting is told."""
    monkeypatch.setattr(patience, "_QUIET", 0.0)
    monkeypatch.setattr(patience, "_ONE_LOCK", 0.05)
    monkeypatch.setattr(archive, "_CLOSING", 0.1)
    handler, log = Said(), logging.getLogger("glimmer_store.patience")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def emit(study: Path, *, seconds: float = 120.0) -> GlimmerNode:
    async with GlimmerGraph.open(study, seconds=seconds) as graph:
        return await graph.dataset(study / "scan.nii")


def there(repository: Path) -> bool:
    """The node is in the history of *repository*."""
    words = ["git", "-C", str(repository), "cat-file", "-e", "HEAD:rokb/datasets/dataset-scan.md"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.anyio
@pytest.mark.parametrize("whose", ["study", "vault2.git"])
async def test_an_emit_waits_for_whoever_has_a_journal_and_says_who(study: Path, said: Said, whose: str) -> None:
    nodes: list[GlimmerNode] = []
    locked = Locked(study.parent / whose)
    with anyio.fail_after(120):
        async with anyio.create_task_group() as group:
            with locked:

                async def work() -> None:
                    nodes.append(await emit(study))

                group.start_soon(work)
                await said.heard.wait()
                assert not nodes

    assert f"{whose}{'/.git' if whose == 'study' else ''}/annex/journal.lck is held by annexpy {ME}" in said.lines[0]
    assert "s more at most" in said.lines[0]
    assert nodes[0].copies == 3
    assert there(study.parent / "vault2.git")


@pytest.mark.anyio
async def test_a_bare_that_stays_locked_is_a_shortfall_with_its_reason_and_the_same_again_completes_it(
    study: Path, vault: Path, said: Said
) -> None:
    with Locked(vault), pytest.raises(Shortfall) as refused:
        await emit(study, seconds=0.2)

    assert (refused.value.copies, refused.value.needed) == (2, 3)
    assert set(refused.value.failed) == {"vault2"}
    assert (
        f"does not have the history: {vault}/annex/journal.lck is held by annexpy {ME}"
        in refused.value.failed["vault2"]
    )
    assert there(study.parent / "vault1.git")
    assert not there(vault)

    assert (await emit(study)).copies == 3
    assert there(vault)


@pytest.mark.anyio
async def test_a_dataset_that_stays_locked_is_named_and_what_waits_is_entered_by_the_next(
    study: Path, said: Said
) -> None:
    with Locked(study), pytest.raises(annex.LockHeld, match=r"journal.lck is held by annexpy \(pid"):
        await emit(study, seconds=0.2)
    assert not there(study)

    (study / "other.nii").write_bytes(b"another")
    async with GlimmerGraph.open(study) as graph:
        await graph.dataset(study / "other.nii")

    assert there(study)
    assert there(study.parent / "vault3.git")


@pytest.mark.anyio
async def test_who_leads_for_too_long_is_named(study: Path, said: Said) -> None:
    with annex.Repository.open(study) as repository:
        lock = annex.OwnLock(repository, "glimmer-store")
        assert lock.try_acquire()
        with pytest.raises(annex.LockHeld) as refused:
            await emit(study, seconds=0.2)
        lock.close()

    assert refused.value.holder == f"pid {os.getpid()} on {os.uname().nodename}"
    assert (await emit(study)).copies == 3


@pytest.mark.anyio
async def test_a_push_that_fails_later_is_not_told_to_those_whose_push_was_well(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        entering = graph._entering
        name = entering._spool.add(_entry(b"one"))
        await entering.complete(seconds=60)
        (study.parent / "vault2.git").rename(study.parent / "away")
        assert set((await graph.enter("two", _entry(b"two").parts)).behind) == {"vault2"}

        told = entering._told([name])

        assert told is not None
        assert told.behind == {}


def _entry(content: bytes) -> Any:
    from glimmer_store.entry import Entry, Part

    return Entry(content.decode(), (Part(b"notes/" + content, "whole", content),))


# -- the disk of one bare ---------------------------------------------------------------------------------------------


def at_sync(monkeypatch: pytest.MonkeyPatch, vault: Path, do: Any) -> None:
    """Before anything of an object in *vault* is synced, *do* that."""
    for name in ("sync", "sync_data"):
        if not hasattr(DiskFiles, name):
            continue
        original = getattr(DiskFiles, name)

        def sync(files: DiskFiles, fd: int, *more: Any, original: Any = original) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith(str(vault)) and "SHA256E" in path:
                do()
            original(files, fd, *more)

        monkeypatch.setattr(DiskFiles, name, sync)


@pytest.mark.anyio
async def test_a_disk_that_fails_is_the_reason_that_is_told(
    study: Path, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    at_sync(monkeypatch, vault, fail)
    with pytest.raises(Shortfall) as refused:
        await emit(study)

    assert set(refused.value.failed) == {"vault2"}
    assert "Input/output error" in refused.value.failed["vault2"]


@pytest.mark.anyio
async def test_a_disk_that_is_slower_than_the_deadline_is_named_and_a_copy_that_came_late_is_proven(
    study: Path, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()
    monkeypatch.setattr(archive, "_SECONDS", 0.3)
    at_sync(monkeypatch, vault, lambda: slow.wait(1.0))

    assert (await emit(study)).copies == 3

    monkeypatch.setattr(archive.Archive, "_has_it_all_the_same", _no)
    (study / "scan.nii").write_bytes(b"another scan")
    with pytest.raises(Shortfall) as refused:
        async with GlimmerGraph.open(study) as graph:
            await graph.dataset(study / "scan.nii", id="another")
    assert set(refused.value.failed) == {"vault2"}
    assert "within 0.3 s" in refused.value.failed["vault2"]


async def _no(*_: object) -> bool:
    return False


@pytest.mark.anyio
async def test_what_keeps_everybody_from_storing_it_is_told_of_each(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(*_: object, **__: object) -> annex.Stored:
        raise annex.ContentChanged("KEY", "here")

    monkeypatch.setattr(annex, "put", put)
    with pytest.raises(Shortfall) as refused:
        await emit(study)

    assert set(refused.value.failed) == {"vault1", "vault2", "vault3"}
    assert all("changed while it was sent" in why for why in refused.value.failed.values())


def test_the_command_says_what_completes_it(study: Path, vault: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault.rename(vault.with_name("away"))
    assert main(["archive", "-C", str(study), "--type", "dataset", str(study / "scan.nii")]) == 3
    said = capsys.readouterr().err
    assert "vault2: " in said
    (remedy,) = (line.split("remedy: ")[1] for line in said.splitlines() if "remedy: " in line)

    vault.with_name("away").rename(vault)
    assert main(remedy.split()[1:]) == 0
    assert "3 copies proven" in capsys.readouterr().out
