"""A kill, an error or a power cut at every file operation of the branch: nothing acknowledged is lost, and it goes on.

Acknowledged is what ``sync`` or ``commit`` returned for. Afterwards every key must say what was acknowledged last,
or something that was asked for after that; what git-annex left in its journal must be there too; and every
object the branch leads to must be readable.
"""

from __future__ import annotations

import errno
import os
import random
from binascii import unhexlify
from collections.abc import Iterator
from functools import cache

import pytest

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.location import Presence
from annexpy.repo.branch import Branch
from annexpy.repo.config import GitConfig
from annexpy.repo.faulty_files import Faults, FaultyFiles, Killed
from annexpy.repo.files import Files
from annexpy.repo.journal import Journal
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.refs import GIT_ANNEX, Refs
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import FOLDER, commit_parents, commit_tree, parse_tree
from annexpy.uuids import UUID

ME, OTHER, THEM = UUID("me"), UUID("other"), UUID("them")
KEYS = [Key.parse(f"SHA256E-s{n}--{n:04x}") for n in range(12)]
JOURNALLED = KEYS[0]


class Clock:
    """A second every ten looks."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> float:
        return self.wall()

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        self.looks += 1
        return 1_000_000 + self.looks / 10


def branch_of(files: Files, clock: Clock, faults: Faults | None = None) -> Branch:
    config = GitConfig(files, environ={})
    return Branch(files if faults is None else FaultyFiles(files, faults), config, clock=clock, uuid=ME, git=False)


def repository(clock: Clock) -> MemoryFiles:
    files = MemoryFiles()
    for folder in (b"objects/info", b"objects/pack", b"refs/heads", b"refs/remotes/origin", b"annex/journal"):
        files.make_folders(folder)
    files.replace(b"HEAD", b"ref: refs/heads/main\n")
    files.replace(
        b"config", b"[core]\n\tbare = true\n[annex]\n\tuuid = me\n\tversion = 10\n[user]\n\tname = n\n\temail = e\n"
    )
    branch = branch_of(files, clock)
    branch.change(b"uuid.log", lambda content: content + b"me here timestamp=1s\n")
    for key in KEYS[6:]:
        branch.set_present(key, OTHER, True)
    branch.commit_now()
    files.replace(b"refs/remotes/origin/git-annex", files.read(GIT_ANNEX) or b"")
    branch.close()
    files.sync_all()
    return files


class Subject:
    """A branch, what was asked of it, and what of that was acknowledged."""

    def __init__(self, files: Files, clock: Clock, faults: Faults | None = None) -> None:
        self.asked: dict[tuple[Key, UUID], list[bool]] = {}
        self.acknowledged: dict[tuple[Key, UUID], int] = {}
        self.branch = branch_of(files, clock, faults)

    def record(self, key: Key, uuid: UUID, present: bool) -> None:
        self.asked.setdefault((key, uuid), []).append(present)
        self.branch.set_present(key, uuid, present)

    def acknowledge(self) -> None:
        self.acknowledged = {line: len(said) for line, said in self.asked.items()}

    def sync(self) -> None:
        self.branch.sync_now()
        self.acknowledge()

    def commit(self) -> None:
        self.branch.commit_now(seconds=0)
        self.acknowledge()


def work(subject: Subject) -> None:
    subject.record(KEYS[1], ME, True)
    subject.record(KEYS[7], ME, True)
    subject.sync()
    subject.record(KEYS[1], ME, False)  # in the same second
    subject.record(KEYS[2], ME, True)
    subject.sync()
    subject.commit()  # loose objects, two spooled batches, the journal
    subject.record(KEYS[1], ME, True)
    subject.branch.change(b"numcopies.log", lambda content: content or b"1s 3\n")
    subject.commit()  # nothing spooled
    for key in KEYS:
        subject.record(key, OTHER, False)
    subject.sync()
    for key in KEYS[:9]:
        subject.record(key, ME, True)
    subject.commit()  # a pack; spooled and queued records
    subject.branch.merge_now(seconds=0)


def journal(files: Files) -> None:
    """What a git-annex without the last step would leave: a line that only the journal has."""
    Journal(files, Lockdown()).write(location_log(JOURNALLED), b"900000s 1 them\n")
    Journal(files, Lockdown()).sync()


def reachable(branch: Branch, commit: bytes) -> Iterator[bytes]:
    """Every path at *commit*, having read every object of it and of its history."""
    objects = branch._history.objects
    seen, commits = set(), [unhexlify(commit)]
    while commits:
        raw = objects.get(commits.pop())
        trees = [(b"", commit_tree(raw))]
        commits += [parent for parent in commit_parents(raw) if parent not in seen]
        seen.update(commit_parents(raw))
        while trees:
            prefix, tree = trees.pop()
            for name, (mode, sha) in parse_tree(objects.get(tree)).items():
                if mode == FOLDER:
                    trees.append((prefix + name + b"/", sha))
                else:
                    objects.get(sha)
                    yield prefix + name


def check(subject: Subject, files: Files, clock: Clock, *, keeps: bool = False) -> None:
    """Look, go on as if nothing had happened, look again.

    *keeps*: a .keep file may be left, because a power cut took its content and now it might be anybody's.
    """
    branch = branch_of(files, clock)
    for again in range(3):
        if again:
            branch.commit_now(seconds=0)
        tip = Refs(files, Lockdown()).read(GIT_ANNEX)
        assert tip is not None
        paths = set(reachable(branch, tip))
        if again:
            assert not files.names(b"annex/journal")
            assert not files.names(b"annex/annexpy/spool")
            assert location_log(JOURNALLED) in paths
        for (key, uuid), said in subject.asked.items():
            allowed = said[max(subject.acknowledged.get((key, uuid), 0) - 1, 0) :]
            if not subject.acknowledged.get((key, uuid)):
                allowed = [False, True]
            now = branch.locations(key).status(uuid) is Presence.PRESENT
            assert now in allowed, (str(key), uuid, said, subject.acknowledged.get((key, uuid)), again)
        assert THEM in branch.locations(JOURNALLED).present
        assert b"me here" in branch.read(b"uuid.log")
    branch.set_present(JOURNALLED, UUID("later"), True)
    branch.commit_now(seconds=0)
    if not keeps:
        assert not [name for name in files.names(b"objects/pack") if name.endswith(b".keep")]
        assert files.names(b"annex/annexpy/tmp") == []
    branch.close()


@pytest.fixture(autouse=True)
def packs_are_soon_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the work takes small packs over as well."""
    monkeypatch.setattr("annexpy.repo.pack._MOST", 2)


@cache
def steps() -> list[str]:
    """Every file operation of the work."""
    clock, faults = Clock(), Faults()
    files = repository(clock)
    journal(files)
    work(Subject(files, clock, faults))
    return faults.names


def run_until_killed(at: int) -> tuple[Subject, MemoryFiles, Clock]:
    clock = Clock()
    files = repository(clock)
    journal(files)
    subject = Subject(files, clock, Faults(at))
    with pytest.raises(Killed):
        work(subject)
    return subject, files, clock


def test_the_work_itself_leaves_everything_in_the_branch() -> None:
    clock = Clock()
    files = repository(clock)
    journal(files)
    subject = Subject(files, clock)

    work(subject)

    assert all(len(said) == subject.acknowledged[line] for line, said in subject.asked.items())
    assert len(steps()) > 250
    assert {"rename", "sync", "sync_folder", "unlink", "write"} <= set(steps())
    assert sum(name.endswith(b".pack") for name in files.names(b"objects/pack")) < 3
    check(subject, files, clock)


@pytest.mark.parametrize("part", range(4))
def test_a_kill_at_any_operation_loses_nothing(part: int) -> None:
    for at in range(1 + part, len(steps()) + 1, 4):
        subject, files, clock = run_until_killed(at)
        files.kill()

        check(subject, files, clock)


@pytest.mark.parametrize("part", range(4))
def test_a_power_cut_at_any_operation_loses_nothing_acknowledged(part: int) -> None:
    for at in range(1 + part, len(steps()) + 1, 4):
        for seed in (None, at, at + 1000):
            subject, files, clock = run_until_killed(at)
            files.crash(None if seed is None else random.Random(seed).randrange)

            check(subject, files, clock, keeps=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE])
def test_an_error_at_any_operation_is_ours_and_nothing_is_lost(number: int, request: pytest.FixtureRequest) -> None:
    every = 1 if number in (errno.ENOSPC, errno.EIO) or request.config.getoption("--campaign") else 7
    for at in range(1 + number % every, len(steps()) + 1, every):
        clock = Clock()
        files = repository(clock)
        journal(files)
        subject = Subject(files, clock, Faults(at, number))
        failure = ""
        try:
            work(subject)
        except AnnexError as error:
            failure = str(error)
        assert not failure or os.strerror(number) in failure, (steps()[at - 1], failure)

        # the same process goes on: what it had queued is still queued
        subject.commit()
        check(subject, files, clock)


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(8))
def test_a_power_cut_at_any_operation_whatever_reached_the_disk(part: int) -> None:
    for at in range(1 + part, len(steps()) + 1, 8):
        for seed in range(60):
            subject, files, clock = run_until_killed(at)
            files.crash(random.Random(f"{at} {seed}").randrange)

            check(subject, files, clock, keeps=True)
