"""What a commit finds and did not write: git, git-annex, or one of us who was killed may have left it to the system.

It looks like anything that is on disk. What is acknowledged upon it must survive a power cut all the same, and who
works alone, upon commits of ours, does not pay for it.
"""

from __future__ import annotations

import random
import re
import subprocess
import zlib
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from annexpy.errors import RepositoryError
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.repo.branch import Branch
from annexpy.repo.carry import carry
from annexpy.repo.config import GitConfig
from annexpy.repo.faulty_files import Faults, FaultyFiles
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.journal import JOURNAL
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.on_disk import ON_DISK, OnDisk
from annexpy.repo.pack import ObjectWriter
from annexpy.repo.refs import GIT_ANNEX, Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool_file import SPOOL
from annexpy.uuids import UUID

ME, OTHER = UUID("me"), UUID("other")
KEYS = [Key.parse(f"SHA256E-s{n}--{n:064x}") for n in range(3)]
LOGS = [location_log(key) for key in KEYS]
ORIGIN = b"refs/remotes/origin/git-annex"
CONFIG = b"[core]\n\tbare = true\n[annex]\n\tuuid = me\n\tversion = 10\n%b[user]\n\tname = n\n\temail = e\n"


class Clock:
    """It stands still, so that a commit that is made once more is the same commit."""

    def now(self) -> float:
        return 1000.0

    booted = wall = now


def repository(config: bytes = b"") -> MemoryFiles:
    """All of it on disk, and not a commit in it."""
    files = MemoryFiles()
    for folder in (b"objects/info", b"objects/pack", b"refs/heads", b"refs/remotes/origin", b"annex"):
        files.make_folders(folder)
    files.replace(b"HEAD", b"ref: refs/heads/main\n")
    files.replace(b"config", CONFIG % config)
    files.sync_all()
    return files


def branch_of(files: Files) -> Branch:
    return Branch(files, GitConfig(files, environ={}), clock=Clock(), uuid=ME, git=False)


def record(files: Files, *keys: Key, uuid: UUID = ME) -> None:
    """A process that commits."""
    branch = branch_of(files)
    for key in keys:
        branch.set_present(key, uuid, True)
    branch.commit_now(seconds=0)
    branch.close()


def present(files: Files, key: Key) -> set[UUID]:
    branch = branch_of(files)
    try:
        return set(branch.locations(key).present)
    finally:
        branch.close()


def loose(files: Files, kind: bytes, content: bytes) -> bytes:
    """An object as git writes it; its id, 40 hex digits."""
    raw = b"%b %d\0%b" % (kind, len(content), content)
    name = sha1(raw).hexdigest().encode()
    files.make_folders(b"objects/" + name[:2])
    files.replace(b"objects/" + name[:2] + b"/" + name[2:], zlib.compress(raw), sync=False)
    return name


def commit_as_git(files: Files, ref: bytes, content: dict[bytes, bytes], *parents: bytes) -> bytes:
    """A commit of which nothing is synced: neither its objects nor the ref."""

    def tree(below: dict[bytes, bytes]) -> bytes:
        entries: dict[bytes, bytes] = {}
        for name in sorted({path.partition(b"/")[0] for path in below}):
            inside = {path[len(name) + 1 :]: said for path, said in below.items() if path.startswith(name + b"/")}
            mode, sha = (b"40000", tree(inside)) if inside else (b"100644", loose(files, b"blob", below[name]))
            entries[name] = b"%b %b\0%b" % (mode, name, bytes.fromhex(sha.decode()))
        return loose(files, b"tree", b"".join(entries.values()))

    lines = [b"tree " + tree(content), *(b"parent " + parent for parent in parents)]
    lines += [b"author n <e> 1000 +0000", b"committer n <e> 1000 +0000", b"", b"update", b""]
    commit = loose(files, b"commit", b"\n".join(lines))
    files.replace(ref, commit + b"\n", sync=False)
    return commit


Case = Callable[[MemoryFiles], None]


def upon_what_git_committed(files: MemoryFiles) -> None:
    commit_as_git(files, GIT_ANNEX, {LOGS[0]: b"900s 1 other\n"})
    record(files, KEYS[1])
    files.crash()
    assert present(files, KEYS[0]) == {OTHER}
    assert present(files, KEYS[1]) == {ME}


def upon_a_second_commit_of_git(files: MemoryFiles) -> None:
    record(files, KEYS[1])
    tip = (files.read(GIT_ANNEX) or b"").strip()
    commit_as_git(files, GIT_ANNEX, {LOGS[0]: b"900s 1 other\n", LOGS[1]: b"1000s 1 me\n"}, tip)
    record(files, KEYS[2])
    files.crash()
    assert [present(files, key) for key in KEYS] == [{OTHER}, {ME}, {ME}]


def upon_much_that_git_committed(files: MemoryFiles) -> None:
    logs = {location_log(Key.parse(f"SHA256E-s{n}--{n:064x}")): b"900s 1 other\n# %d\n" % n for n in range(60)}
    commit_as_git(files, GIT_ANNEX, logs)
    record(files, KEYS[1])
    files.crash()
    assert [present(files, key) for key in KEYS] == [{OTHER}, {ME, OTHER}, {OTHER}]


def merged_from_a_sibling(files: MemoryFiles) -> None:
    record(files, KEYS[1])
    commit_as_git(files, ORIGIN, {LOGS[0]: b"900s 1 other\n"})
    assert branch_of(files).merge_now(seconds=0) == ["refs/remotes/origin/git-annex"]
    files.crash()
    assert [present(files, key) for key in KEYS[:2]] == [{OTHER}, {ME}]


def moved_forward_to_a_sibling(files: MemoryFiles) -> None:
    commit_as_git(files, ORIGIN, {LOGS[0]: b"900s 1 other\n"})
    branch_of(files).merge_now(seconds=0)
    files.crash()
    assert present(files, KEYS[0]) == {OTHER}


def recorded_already_in_what_git_committed(files: MemoryFiles) -> None:
    record(files, KEYS[1])
    branch = branch_of(files)
    branch.set_present(KEYS[0], ME, True)
    branch.sync_now()  # acknowledged
    tip = (files.read(GIT_ANNEX) or b"").strip()
    commit_as_git(files, GIT_ANNEX, {LOGS[0]: b"1000s 1 me\n", LOGS[1]: b"1000s 1 me\n"}, tip)
    record(files)
    assert files.names(SPOOL) == []
    files.sync_folder(SPOOL)  # of all that was not synced this reaches the disk: the line waits nowhere any more
    files.crash()
    assert present(files, KEYS[0]) == {ME}


def without_alwayscommit_in_a_journal_of_git_annex(files: MemoryFiles) -> None:
    files.replace(b"config", CONFIG % b"\talwayscommit = false\n")
    branch = branch_of(files)
    branch.set_present(KEYS[0], ME, True)
    branch.sync_now()
    files.make_folders(JOURNAL)
    files.replace(JOURNAL + b"/" + LOGS[0].replace(b"/", b"_"), b"1000s 1 me\n", sync=False)
    record(files)
    files.sync_folder(SPOOL)
    files.crash()
    assert present(files, KEYS[0]) == {ME}


def spooled_in_a_folder_that_somebody_made(files: MemoryFiles) -> None:
    files.make_folders(SPOOL)  # and was killed before it synced that
    branch = branch_of(files)
    branch.set_present(KEYS[0], ME, True)
    branch.sync_now()
    files.crash()
    assert present(files, KEYS[0]) == {ME}


CASES: list[Case] = [
    upon_what_git_committed,
    upon_a_second_commit_of_git,
    upon_much_that_git_committed,
    merged_from_a_sibling,
    moved_forward_to_a_sibling,
    recorded_already_in_what_git_committed,
    without_alwayscommit_in_a_journal_of_git_annex,
    spooled_in_a_folder_that_somebody_made,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_was_found_and_acknowledged_survives_a_power_cut(case: Case) -> None:
    case(repository())


@pytest.mark.parametrize("case", CASES[:6], ids=lambda case: case.__name__)
def test_who_takes_what_is_found_for_granted_is_caught(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDisk, "ensure", lambda self, commits, *refs: None)
    with pytest.raises(Exception, match=r"assert|is not in|no plain ref|missing") as caught:
        case(repository())
    assert not isinstance(caught.value, TypeError | AttributeError)


# -- one of us was killed --


def killed_and_again(at: int, seed: int | None) -> tuple[MemoryFiles, bool]:
    """One is killed at its N-th operation; the next does the same, to its end; the power is cut."""
    files, faults = repository(), Faults(at)
    record(files, KEYS[0])
    files.sync_all()
    try:
        record(FaultyFiles(files, faults), *KEYS[1:])
    except BaseException:
        if not faults.dead:
            raise
    files.kill()
    record(files, *KEYS[1:])
    files.crash(None if seed is None else random.Random(f"{at} {seed}").randrange)
    return files, faults.dead


def test_what_one_left_who_was_killed_at_any_operation_is_on_disk_when_the_next_has_committed_it(
    request: pytest.FixtureRequest,
) -> None:
    long_form = request.config.getoption("--campaign")
    at, dead = 0, True
    while dead:
        at += 1
        for seed in (None, *range(60)) if long_form else (None if at % 2 else at,):
            files, dead = killed_and_again(at, seed)
            assert [present(files, key) for key in KEYS] == [{ME}, {ME}, {ME}], (at, seed)
    assert at > 60


SYNCED = b"refs/heads/synced/git-annex"


def carried(source: MemoryFiles, there: Files) -> None:
    """A process that brings the branch to another repository."""

    def whole(files: Files) -> Repository:
        parts = {"config": GitConfig(files, environ={}), "clock": Clock(), "bare": True, "path": "it.git"}
        return cast("Repository", SimpleNamespace(files=files, **parts))

    carry(whole(source), whole(there), {SYNCED: (source.read(GIT_ANNEX) or b"").strip()}, seconds=0)


def test_what_one_carried_who_was_killed_at_any_operation_is_on_disk_when_the_next_finds_it_there() -> None:
    source = repository()
    record(source, *KEYS)
    at, dead = 0, True
    while dead:
        at += 1
        there, faults = repository(), Faults(at)
        try:
            carried(source, FaultyFiles(there, faults))
        except BaseException:
            if not faults.dead:
                raise
        there.kill()
        carried(source, there)
        there.crash(None if at % 2 else random.Random(at).randrange)

        dead = faults.dead
        there.replace(GIT_ANNEX, there.read(SYNCED) or b"")
        assert [present(there, key) for key in KEYS] == [{ME}, {ME}, {ME}], at
    assert at > 30


class Skipping(FaultyFiles):
    """Takes a pack that is there under its name for one that is on disk."""

    found = False

    def rename(self, old: bytes, new: bytes) -> None:
        if new.endswith((b".pack", b".idx")) and self.status(new) is not None:
            self.found = True
            self.unlink(old)
        else:
            super().rename(old, new)

    def sync_folder(self, path: bytes) -> None:
        if not self.found:
            super().sync_folder(path)


class Trusting(ObjectWriter):
    """The planted fault."""

    def finish(self) -> None:
        files = self._files
        self._files = Skipping(files, Faults())
        try:
            super().finish()
        finally:
            self._files = files


@pytest.mark.parametrize("fault", ["the ref", "the pack"])
def test_a_commit_that_trusts_what_one_left_who_was_killed_is_caught(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "the ref":
        monkeypatch.setattr(OnDisk, "ensure", lambda self, commits, *refs: None)
    else:
        monkeypatch.setattr("annexpy.repo.history.ObjectWriter", Trusting)

    def lost(at: int, seed: int | None) -> bool:
        try:
            files, _ = killed_and_again(at, seed)
            return [present(files, key) for key in KEYS] != [{ME}, {ME}, {ME}]
        except RepositoryError:
            return True

    assert any(lost(at, None) for at in range(1, 100))


# -- others tidy up --


class Packing(FaultyFiles):
    """``git gc`` comes before a folder is synced, packs what is in it and takes it away."""

    tidied = re.compile(rb"objects/..")
    synced_all = packed = False

    def sync_folder(self, path: bytes) -> None:
        if self.tidied.fullmatch(path) and not self.packed:
            self.packed = True
            subprocess.run(["git", "gc", "--quiet"], cwd=self.path, check=True, timeout=60)
        super().sync_folder(path)

    def sync_all(self) -> None:
        self.synced_all = True
        super().sync_all()


class PackingRefs(Packing):
    tidied = re.compile(rb"refs/heads/synced")


def bare(path: Path) -> DiskFiles:
    """A repository that git made, and that git can tidy up."""
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True, timeout=60)
    files = DiskFiles(path)
    files.make_folders(b"annex")
    files.replace(b"config", CONFIG % b"")
    return files


def test_a_commit_goes_on_when_git_packs_what_it_is_made_upon(tmp_path: Path) -> None:
    files = bare(tmp_path)
    commit_as_git(files, GIT_ANNEX, {LOGS[0]: b"900s 1 other\n"})
    packing = Packing(files, Faults())

    record(packing, KEYS[1])

    assert packing.synced_all
    assert [present(files, key) for key in KEYS[:2]] == [{OTHER}, {ME}]


def test_history_is_carried_when_git_packs_the_ref_meanwhile(tmp_path: Path) -> None:
    source, there = repository(), bare(tmp_path)
    record(source, *KEYS)
    packing = PackingRefs(there, Faults())

    carried(source, packing)

    assert packing.synced_all
    assert Refs(there, Lockdown()).read(SYNCED) == (source.read(GIT_ANNEX) or b"").strip()


# -- what it costs --


def syncs(files: Files, *keys: Key) -> list[str]:
    faults = Faults()
    record(FaultyFiles(files, faults), *keys)
    return [name for name in faults.names if name.startswith("sync")]


def test_a_commit_upon_one_of_ours_syncs_nothing_but_what_it_writes() -> None:
    files = repository()
    first = syncs(files, KEYS[0])

    assert first.count("sync_all") == 0
    assert syncs(files, KEYS[1]) == ["sync", "sync", "sync_folder", "sync", "sync", "sync_folder"]


def test_a_commit_upon_one_of_git_syncs_that_one_once() -> None:
    files = repository()
    alone = syncs(files, KEYS[0])
    tip = (files.read(GIT_ANNEX) or b"").strip()
    commit_as_git(files, GIT_ANNEX, {LOGS[0]: b"1000s 1 me\n", LOGS[1]: b"900s 1 other\n"}, tip)

    upon = syncs(files, KEYS[2])
    assert 5 <= upon.count("sync") - alone.count("sync") <= 8  # a commit, its trees, and one log
    assert "sync_all" not in upon
    assert len(syncs(files, KEYS[1])) == 6


def test_what_is_much_is_synced_with_the_whole_file_system() -> None:
    files = repository()
    commit_as_git(files, GIT_ANNEX, {b"%d.log" % n: b"%d\n" % n for n in range(80)})

    assert syncs(files, KEYS[0]).count("sync_all") == 1
    assert "sync_all" not in syncs(files, KEYS[1])


def test_what_a_power_cut_left_of_the_note_is_true() -> None:
    for seed in range(20):
        files = repository()
        record(files, KEYS[0])
        first = (files.read(GIT_ANNEX) or b"").strip()
        record(files, KEYS[1])
        tips = {first, (files.read(GIT_ANNEX) or b"").strip()}
        files.crash(random.Random(seed).randrange)

        assert set((files.read(ON_DISK) or b"").split(b"\n")[:-1]) <= tips
        record(files, KEYS[2])
        assert (files.read(GIT_ANNEX) or b"x") in (files.read(ON_DISK) or b"")
