"""A put, a drop, a lock and a commit of a whole repository, in memory, cut off at every file operation.

All layers that touch the disk take part: content store, spools, journal, branch. In the long form every state that
a power cut can leave is looked at where there are few enough of them, else as many that are drawn. Then the repair,
which is what the next process does anyway, is itself cut off at every one of its operations, and done twice.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from choices import Choices

from annexpy.errors import ContentLocked, IncompleteTransfer, VerificationFailed
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key
from annexpy.remote.local import Local
from annexpy.repo.branch import Branch
from annexpy.repo.config import GitConfig
from annexpy.repo.content import ContentStore
from annexpy.repo.door import Files
from annexpy.repo.durability import GroupCommit
from annexpy.repo.faulty_files import Faults, FaultyFiles, Killed
from annexpy.repo.format import Tuning
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.refs import GIT_ANNEX
from annexpy.repo.repository import Repository
from annexpy.repo.settings import ContentSettings, Durability
from annexpy.system import CLOCK
from annexpy.uuids import UUID

CONTENTS = [bytes([65 + number]) * (40 + number) for number in range(3)]
KEYS = [Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}") for data in CONTENTS]
ALL = dict(zip(KEYS, CONTENTS, strict=True))
CONFIG = (
    b"[core]\n\tbare = true\n\trepositoryformatversion = 0\n[user]\n\tname = n\n\temail = e\n"
    b"[annex]\n\tuuid = cd613e30-d8f1-4adf-91b7-584a2265b1f5\n\tversion = 10\n"
)
FOLDERS = (b"objects/info", b"objects/pack", b"refs/heads", b"annex")


class InMemory(Repository):
    """A bare repository whose disk is in memory."""

    def __init__(self, files: Files) -> None:
        self.git_dir = self.worktree_git_dir = files.path
        self.clock, self.files, self.work_tree, self.path = CLOCK, files, None, "it.git"
        self._branches, self._contents = {}, {}
        self.config = GitConfig(files, git_dir=files.path, environ={})
        self.version, self.uuid = self._check_annex()
        self.tuning = Tuning.of(self.config)

    @property
    def writable(self) -> bool:
        return True

    @property
    def branch(self) -> Branch:
        return self._branches.setdefault(None, Branch(self.files, self.config, clock=CLOCK, uuid=self.uuid, git=False))

    def content_store(self, *, durability: Durability = "full") -> ContentStore:
        return ContentStore(
            self.files, clock=CLOCK, settings=ContentSettings.of(self.config, bare=True, durability=durability)
        )


@dataclass
class Said:
    """What was asked for, and what was acknowledged."""

    stored: set[Key] = field(default_factory=lambda: {*KEYS[:2]})
    removing: set[Key] = field(default_factory=set)
    removed: set[Key] = field(default_factory=set)
    locked: set[Key] = field(default_factory=set)


async def put(local: Local, key: Key) -> None:
    async with local.put(key) as upload:
        if upload.already is None:
            await upload.start(len(ALL[key]) - upload.offset)
            await upload.write(ALL[key][upload.offset :])
            await upload.finish()


async def stores(local: Local, said: Said) -> None:
    await put(local, KEYS[2])
    said.stored.add(KEYS[2])


async def drops(local: Local, said: Said) -> None:
    said.removing.add(KEYS[0])
    result = await local.remove_content(KEYS[0])
    for error in result.failed.values():
        raise error
    said.removed.add(KEYS[0])


async def locks(local: Local, said: Said) -> None:
    async with local.lock_content(KEYS[1]):
        said.locked.add(KEYS[1])
        await local.repository.branch.sync()
        said.locked.discard(KEYS[1])


async def commits(local: Local, said: Said) -> None:
    local.repository.branch.set_present(KEYS[1], UUID("other"), True)
    local.repository.branch.set_present(KEYS[2], UUID("other"), True)
    await local.repository.branch.commit()


async def stores_fast(local: Local, said: Said) -> None:
    await put(Local(local.repository, durability="fast"), KEYS[2])


async def locks_what_came(local: Local, said: Said) -> None:
    async with local.lock_content(KEYS[2]):
        pass


Scenario = Callable[[Local, Said], Awaitable[None]]
SCENARIOS: list[Scenario] = [stores, drops, locks, commits]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the N-th operation is always the same one."""

    async def here(function: Callable[..., object], *args: object, **options: object) -> object:
        await anyio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr("anyio.to_thread.run_sync", here)


def fresh() -> MemoryFiles:
    """A repository with two keys, all of it on disk."""
    files = MemoryFiles()
    for folder in FOLDERS:
        files.make_folders(folder)
    files.replace(b"HEAD", b"ref: refs/heads/main\n")
    files.replace(b"config", CONFIG)

    async def fill(local: Local, said: Said) -> None:
        local.repository.branch.change(b"uuid.log", lambda _: f"{local.repository.uuid} it timestamp=1s\n".encode())
        for key in KEYS[:2]:
            await put(local, key)
        await local.repository.branch.commit()

    perform(files, fill, Said())
    files.sync_all()
    return files


def perform(files: Files, scenario: Scenario, said: Said, faults: Faults | None = None, *, commit: bool = True) -> None:
    """One process: opens, does it, closes."""

    async def main() -> None:
        try:
            with InMemory(files if faults is None else FaultyFiles(files, faults)) as repository:
                local = Local(repository, commit=commit)
                try:
                    await scenario(local, said)
                finally:
                    await local.aclose()
        except BaseException:
            if faults is None or not faults.dead:
                raise

    anyio.run(main)


def cut_off(scenario: Scenario, at: int) -> tuple[MemoryFiles, Said, Faults]:
    files, said, faults = fresh(), Said(), Faults(at)
    perform(files, scenario, said, faults)
    return files, said, faults


def operations(scenario: Scenario) -> int:
    return cut_off(scenario, 0)[2].count


def objects(files: Files, path: bytes = b"annex/objects") -> Iterator[tuple[Key, bytes]]:
    for name in files.names(path):
        below = path + b"/" + name
        status = files.status(below)
        assert status is not None
        if status.st_mode & 0o040000:
            yield from objects(files, below)
        elif os.path.basename(path) == name:
            yield file_key(name), files.read(below) or b""


def check(files: Files, said: Said, *, power_cut: bool = False) -> None:
    """What stands in the fact sheet reliability, section 1.2 (R5, R6), as a process that begins now sees it.

    A content whose removal was acknowledged may be there again after a *power_cut*: nobody counts on it, or is told
    that it is there.
    """
    found = dict(objects(files))
    assert not [key for key, content in found.items() if content != ALL[key]], "torn"
    assert said.stored - said.removing <= set(found), "acknowledged and lost"
    assert power_cut or not said.removed & set(found), "removed, acknowledged, and back again"
    with InMemory(files) as repository:
        recorded = {key for key in KEYS if repository.uuid in repository.branch.locations(key).present}
        assert said.stored - said.removing <= recorded, "acknowledged and not recorded"
        assert recorded <= set(found), "recorded and not there"
        assert not recorded & said.removed, "removed, and recorded again"
        for key in said.locked:
            with pytest.raises(ContentLocked):
                repository.content.remove(key)


async def repairs(local: Local, said: Said) -> None:
    """What the next process does: everything is stored again, and the branch gets what was left in spools."""
    for key in KEYS:
        said.removed.discard(key)
        try:
            await put(local, key)
        except (VerificationFailed, IncompleteTransfer):
            await put(local, key)
        said.stored.add(key)
        said.removing.discard(key)
    await local.repository.branch.commit()


@pytest.mark.parametrize("commit", [False, True], ids=["spooled", "committed"])
def test_what_was_found_there_and_promised_survives_a_power_cut(commit: bool) -> None:
    """Whoever stored it was killed, and may have been before it was on disk: that is for the next one to see to."""
    at, faults = 0, Faults()
    while at <= faults.count:
        at += 1
        files, faults = fresh(), Faults(at)
        perform(files, stores, Said(), faults, commit=commit)
        said = Said()
        perform(files, stores, said, commit=commit)
        assert KEYS[2] in said.stored

        files.crash()
        check(files, said, power_cut=True)
    assert at > 20


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("scenario", [stores, locks_what_came], ids=lambda scenario: scenario.__name__)
def test_what_somebody_stored_who_syncs_nothing_is_on_disk_before_it_is_promised(
    scenario: Scenario, trusting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes what has just come for what is on disk is caught."""
    monkeypatch.setattr("annexpy.repo.content._SETTLED", float("-inf" if trusting else "inf"))
    monkeypatch.setattr(  # no syncfs: it does more than was asked for
        "annexpy.repo.content.GroupCommit", lambda *args, **options: GroupCommit(*args, **{**options, "syncfs": False})
    )
    files, said = fresh(), Said()
    perform(files, stores_fast, Said(), commit=False)
    perform(files, scenario, said, commit=False)
    files.crash()
    assert (dict(objects(files)).get(KEYS[2]) == ALL[KEYS[2]]) is not trusting
    if not trusting:
        check(files, said, power_cut=True)


def state_of(files: Files) -> dict[bytes, object]:
    """All that a repair may touch, without dates."""
    with InMemory(files) as repository:
        lines = {key.raw: sorted(repository.branch.locations(key).present) for key in KEYS}
    return {b"objects": dict(objects(files)), b"lines": lines, b"tip": files.read(GIT_ANNEX)}


def repaired(files: MemoryFiles, said: Said) -> None:
    """Once is enough, and twice does no harm."""
    perform(files, repairs, said)
    once = state_of(files)
    assert once[b"objects"] == ALL
    assert files.names(b"annex/tmp") == []
    perform(files, repairs, said)
    assert state_of(files) == once, "not the same when it is repaired again"


def power_cuts(scenario: Scenario, at: int, most: int) -> Iterator[tuple[MemoryFiles, Said]]:
    """Every state that may be left of the operation *at*, or *most* drawn ones where there are more. 1 is drawn."""
    choices = Choices()
    every = []
    for _ in range(most if most > 1 else 0):
        files, said, _ = cut_off(scenario, at)
        files.crash(choices)
        every.append((files, said))
        if not choices.next():
            yield from every
            return
    every.clear()  # these differ in what came last only
    for seed in range(most) if most > 1 else (at % 2,):
        files, said, _ = cut_off(scenario, at)
        files.crash(random.Random(f"{at} {seed}").randrange if seed else None)
        yield files, said


def long_form(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--campaign"))


by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@by_name
def test_a_kill_at_any_operation_leaves_what_can_be_repaired(
    scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    for at in range(1, operations(scenario) + 2):
        files, said, _ = cut_off(scenario, at)
        files.kill()

        check(files, said)
        if at % 8 == 0 or long_form(request):
            repaired(files, said)


@by_name
def test_a_power_cut_at_any_operation_leaves_what_can_be_repaired(
    scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    most, states, every = 64 if long_form(request) else 1, 0, 0
    for at in range(1, operations(scenario) + 2):
        number = 0
        for number, (files, said) in enumerate(power_cuts(scenario, at, most), 1):
            check(files, said, power_cut=True)
            if (at + number) % 16 == 0:
                repaired(files, said)
        states += number
        every += number < most
    print(f"{scenario.__name__}: {states} states of {operations(scenario)} operations, all there are of {every}")
    assert states >= operations(scenario)


@by_name
def test_a_repair_that_is_cut_off_at_any_operation_is_made_good_by_the_next(
    scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    count, states = operations(scenario), 0
    for at in range(2, count + 2, 6) if long_form(request) else (count * 2 // 3,):
        cut = 0
        while True:
            cut += 1 if long_form(request) else 5
            files, said, _ = cut_off(scenario, at)
            files.crash(random.Random(at).randrange)
            faults = Faults(cut)
            perform(files, repairs, said, faults)
            files.crash(random.Random(cut).randrange)
            check(files, said, power_cut=True)
            states += 1
            if cut % 7 == 0 or not faults.dead:
                repaired(files, said)
            if not faults.dead:
                break
    print(f"{scenario.__name__}: {states} states of repairs")
    assert states > 20


@pytest.mark.parametrize("cut", [56, 64, 91, 134])
def test_a_repair_that_lost_its_power_leaves_no_lock_of_the_branch_that_nobody_takes_away(cut: int) -> None:
    """Found by the long form: the note of who held the lock was gone, and the lock was there again."""
    files, said, _ = cut_off(commits, 68)
    files.crash(random.Random(68).randrange)
    perform(files, repairs, said, Faults(cut))
    files.crash(random.Random(cut).randrange)

    repaired(files, said)


@pytest.mark.parametrize("scenario", [commits, drops], ids=lambda scenario: scenario.__name__)
def test_git_finds_nothing_wrong_with_what_a_power_cut_leaves(
    scenario: Scenario, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    looked = 0
    for at in range(1, operations(scenario) + 2, 1 if long_form(request) else 6):
        files, said, _ = cut_off(scenario, at)
        files.crash(random.Random(at).randrange if at % 3 else None)
        for when in ("before", "after"):
            path = tmp_path / f"{at}-{when}"
            export(files, path)
            done = subprocess.run(["git", "fsck", "--strict", "--full"], cwd=path, capture_output=True, text=True)
            assert done.returncode == 0, f"{at} {when} the repair: {done.stdout}{done.stderr}"
            assert not [line for line in done.stderr.splitlines() if line.startswith(("error", "fatal"))]
            looked += 1
            if when == "before":
                repaired(files, said)
    assert looked > 20


def export(files: Files, to: Path, path: bytes = b"") -> None:
    """Write it all to a folder of the real file system."""
    to.mkdir()
    for name in files.names(path):
        below = (path + b"/" if path else b"") + name
        status = files.status(below)
        assert status is not None
        if status.st_mode & 0o040000:
            export(files, to / os.fsdecode(name), below)
        else:
            (to / os.fsdecode(name)).write_bytes(files.read(below) or b"")


def test_without_syncs_this_test_would_find_a_loss() -> None:
    """The model is sharp: what a repository has that was only handed to the system is lost or torn by most cuts."""
    found = 0
    for seed in range(20):
        files, said = fresh(), Said()

        perform(files, stores_fast, said)
        said.stored.add(KEYS[2])
        files.crash(random.Random(seed).randrange)
        try:
            check(files, said, power_cut=True)
        except AssertionError:
            found += 1
    assert found > 5


def test_killed_is_what_ends_a_killed_run() -> None:
    faults = cut_off(stores, 7)[2]

    assert faults.dead
    assert not issubclass(Killed, Exception)
