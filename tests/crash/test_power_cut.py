"""Crash states of the content store, in memory: a kill or a power cut at every operation, whatever reached the disk.

What must hold (fact sheet reliability, section 1.2): an object path holds nothing or the whole content (R5); what
was acknowledged survives, content and record (R6); a record never speaks of a content that is not there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import anyio
import pytest
from choices import Choices

from annexpy.errors import AnnexError, ContentLocked, IncompleteTransfer, VerificationFailed
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key
from annexpy.repo.content import ContentStore
from annexpy.repo.durability import Change
from annexpy.repo.faulty_files import Faults, FaultyFiles, Killed
from annexpy.repo.files import Files
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.settings import ContentSettings, Durability
from annexpy.system import CLOCK

CONTENTS = [bytes([65 + number]) * (40 + number) for number in range(5)]
KEYS = [Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}") for data in CONTENTS]
LARGE = bytes(range(256)) * 2048
LARGE_KEY = Key.parse(f"SHA256E-s{len(LARGE)}--{hashlib.sha256(LARGE).hexdigest()}")
LOG = b"log"


class Subject:
    """A store with a log of its own, and what it acknowledged."""

    def __init__(self, files: Files, durability: Durability = "full", *, log: bytes = b"", syncfs: bool = True) -> None:
        self.files = files
        self.acknowledged: set[Key] = set()
        self.locked: set[Key] = set()
        self._queued = log.splitlines()
        self.store = ContentStore(
            files,
            clock=CLOCK,
            settings=ContentSettings(durability=durability, inline=100_000, syncfs=syncfs),
            recorded=lambda key: self._queued.append(key.raw),
            sync_records=self._sync_records,
        )

    async def _sync_records(self) -> None:
        self.files.replace(LOG, b"\n".join(self._queued) + b"\n", temporary=b"log.tmp")

    async def put(self, key: Key, data: bytes, *, upto: int | None = None) -> None:
        async with self.store.receive(key) as receiving:
            await receiving.write(data[receiving.offset : upto])
            if upto is None:
                await receiving.finish()
                self.acknowledged.add(key)

    async def lock(self, key: Key) -> None:
        await self.store.sync_lock(self.store.lock(key))
        self.locked.add(key)


async def one_by_one(subject: Subject) -> None:
    await subject.put(KEYS[0], CONTENTS[0], upto=10)
    await subject.put(KEYS[0], CONTENTS[0])
    await subject.put(KEYS[0], CONTENTS[0])  # a second copy of what is there
    await subject.put(LARGE_KEY, LARGE)


async def together(subject: Subject) -> None:
    async with anyio.create_task_group() as tasks:
        for key, data in zip(KEYS, CONTENTS, strict=True):
            tasks.start_soon(subject.put, key, data)


async def committed_together(subject: Subject) -> None:
    prepared: dict[Key, Change] = {}
    async with AsyncExitStack() as leaving:
        for key, data in zip(KEYS, CONTENTS, strict=True):
            receiving = await leaving.enter_async_context(subject.store.receive(key))
            await receiving.write(data[receiving.offset :])
            change = await receiving.prepare()
            if change is not None:
                prepared[key] = change
        failed = await subject.store.commit(prepared)
        subject.acknowledged |= set(KEYS) - set(failed)
    for error in failed.values():
        raise error


async def locked(subject: Subject) -> None:
    await subject.put(KEYS[0], CONTENTS[0])
    await subject.lock(KEYS[0])


async def removed(subject: Subject) -> None:
    await subject.put(KEYS[0], CONTENTS[0])
    await subject.put(KEYS[1], CONTENTS[1])
    subject.acknowledged.discard(KEYS[0])
    subject.store.remove(KEYS[0])


SCENARIOS: list[Callable[[Subject], Awaitable[None]]] = [one_by_one, together, committed_together, locked, removed]
ALL_CONTENTS = dict(zip([*KEYS, LARGE_KEY], [*CONTENTS, LARGE], strict=True))


def objects(files: Files, path: bytes = b"annex/objects") -> Iterator[tuple[Key, bytes]]:
    for name in files.names(path):
        below = path + b"/" + name
        status = files.status(below)
        assert status is not None
        if status.st_mode & 0o040000:
            yield from objects(files, below)
        elif os.path.basename(path) == name:
            content = files.read(below)
            assert content is not None
            yield file_key(name), content


def check(files: Files, subject: Subject, *, durable: bool = True) -> None:
    found = dict(objects(files))
    for key, content in found.items():
        assert content == ALL_CONTENTS[key], f"torn object {key}"
    if durable:
        recorded = {Key.parse(line) for line in (files.read(LOG) or b"").splitlines()}
        assert subject.acknowledged <= set(found), "acknowledged and lost"
        assert subject.acknowledged <= recorded, "acknowledged and not recorded"
    for key in subject.locked:
        with pytest.raises(ContentLocked):
            Subject(files).store.remove(key)


async def recovers(files: Files) -> None:
    """Whatever was left behind, the next put of each key works; the one after it when the partial was damaged."""
    subject = Subject(files, log=files.read(LOG) or b"")
    for key, data in ALL_CONTENTS.items():
        try:
            await subject.put(key, data)
        except (VerificationFailed, IncompleteTransfer):
            await subject.put(key, data)
    assert dict(objects(files)) == ALL_CONTENTS
    assert files.names(b"annex/tmp") == []


def run_until_killed(
    scenario: Callable[[Subject], Awaitable[None]], at: int, *, syncfs: bool = True
) -> tuple[MemoryFiles, Subject, Faults]:
    memory, faults = MemoryFiles(), Faults(at=at)
    subject = Subject(FaultyFiles(memory, faults), syncfs=syncfs)

    async def main() -> None:
        try:
            await scenario(subject)
        except BaseException:
            if not faults.dead:
                raise

    anyio.run(main)
    return memory, subject, faults


def operations(scenario: Callable[[Subject], Awaitable[None]], *, syncfs: bool = True) -> int:
    _, _, faults = run_until_killed(scenario, 0, syncfs=syncfs)
    return faults.count


@pytest.mark.parametrize("syncfs", [True, False], ids=["syncfs", "fsync"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_power_cut_at_any_operation_tears_nothing_and_loses_nothing_acknowledged(
    scenario: Callable[[Subject], Awaitable[None]], syncfs: bool, request: pytest.FixtureRequest
) -> None:
    seeds = 60 if request.config.getoption("--campaign") else 3
    acknowledged = 0
    for at in range(1, operations(scenario, syncfs=syncfs) + 2):
        for seed in range(-1, seeds):
            memory, subject, _ = run_until_killed(scenario, at, syncfs=syncfs)
            acknowledged += len(subject.acknowledged)

            memory.crash(random.Random(f"{at} {seed}").randrange if seed >= 0 else None)

            check(memory, subject)
            if seed == 0:
                anyio.run(recovers, memory)
    assert acknowledged > 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_kill_at_any_operation_tears_nothing_and_loses_nothing_acknowledged(
    scenario: Callable[[Subject], Awaitable[None]],
) -> None:
    for at in range(1, operations(scenario) + 2):
        memory, subject, _ = run_until_killed(scenario, at)

        memory.kill()

        check(memory, subject)
        anyio.run(recovers, memory)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("durability", ["full", "fast"])
@pytest.mark.parametrize(
    "scenario", [one_by_one, together, committed_together, removed], ids=lambda scenario: scenario.__name__
)
def test_an_error_at_any_operation_is_told_and_the_store_lives(
    scenario: Callable[[Subject], Awaitable[None]], durability: Durability, number: int
) -> None:
    at = 0
    while True:
        at += 1
        memory, faults = MemoryFiles(), Faults(at=at, error=number)
        files = FaultyFiles(memory, faults)
        subject = Subject(files, durability)
        told: list[BaseException] = []

        async def main(subject: Subject = subject, told: list[BaseException] = told) -> None:
            try:
                await scenario(subject)
            except BaseException as error:
                told.append(error)

        anyio.run(main)
        check(memory, subject, durable=durability == "full")
        for failure in told:
            for one in failure.exceptions if isinstance(failure, BaseExceptionGroup) else (failure,):
                assert isinstance(one, AnnexError), f"{faults.names[-1]}: {one!r}"
        if faults.count < at:
            break
        memory.kill()
        anyio.run(recovers, memory)
    assert at > 20


def test_without_syncs_this_test_would_find_a_loss() -> None:
    """The model is sharp: the fast store, which promises nothing about power cuts, loses or tears something."""
    found = 0
    for seed in range(40):
        memory = MemoryFiles()
        subject = Subject(memory, "fast")
        anyio.run(one_by_one, subject)
        memory.crash(random.Random(seed).randrange)
        try:
            check(memory, subject)
        except AssertionError:
            found += 1
    assert found > 10


def test_killed_is_what_ends_a_killed_run() -> None:
    assert not issubclass(Killed, Exception)


async def alone(subject: Subject) -> None:
    await subject.put(KEYS[0], CONTENTS[0])


def test_no_state_that_a_power_cut_can_leave_of_one_put_is_torn_or_lacks_what_was_acknowledged() -> None:
    states = 0
    for at in range(1, operations(alone) + 2):
        choices = Choices()
        while True:
            memory, subject, _ = run_until_killed(alone, at)
            memory.crash(choices)
            check(memory, subject)
            states += 1
            if not choices.next():
                break
    print(f"{states} states of {operations(alone)} operations")
    assert states > 1000
