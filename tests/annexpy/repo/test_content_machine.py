"""Any history of puts, cuts, locks, vanished lockers and removals, against a model of what a store must do."""

from __future__ import annotations

import hashlib
import shutil
import tempfile

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from annexpy.clock import LOCK_RETENTION
from annexpy.errors import (
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    NotLocked,
    TimedOut,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.locks import ContentLock
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.receiving import Receiving
from annexpy.repo.settings import ContentSettings

CONTENTS = [b"", b"abcdefghij", b"x" * 50]
KEYS = [
    Key.parse(f"SHA256E-s0--{hashlib.sha256(b'').hexdigest()}"),
    Key.parse(f"SHA256E-s10--{hashlib.sha256(CONTENTS[1]).hexdigest()}.txt"),
    Key.parse("WORM-s50-m1--unverifiable"),
]
NUMBERS = st.integers(0, len(KEYS) - 1)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1.8e9 + self.seconds


class StoreMachine(RuleBasedStateMachine):
    """One repository that two stores (two processes) work in."""

    def new_files(self) -> Files:
        return MemoryFiles()

    def __init__(self) -> None:
        super().__init__()
        self.files = self.new_files()
        self.clock = Clock()
        self.stores = [self.new_store() for _ in range(2)]
        self.present: set[int] = set()
        self.partial: dict[int, bytes] = {}
        self.locks: dict[int, list[ContentLock]] = {number: [] for number in range(len(KEYS))}
        self.retained: dict[int, float] = {}
        self.arriving: dict[int, Receiving] = {}

    def new_store(self) -> ContentStore:
        # inline limit below the largest content: threads take part
        settings = ContentSettings(durability="fast", inline=40)
        return ContentStore(self.files, clock=self.clock, settings=settings)

    def receive(self, number: int, who: int, data: bytes, *, valid: bool, leave: bool) -> str:
        async def main() -> str:
            async with self.stores[who].receive(KEYS[number]) as receiving:
                if number not in self.arriving:
                    assert receiving.offset == len(self.partial.get(number, b""))
                if data:
                    await receiving.write(data)
                if leave:
                    return "left"
                return "new" if await receiving.finish(valid) else "there"

        try:
            return anyio.run(main)
        except TransferInProgress:
            return "busy"
        except (VerificationFailed, IncompleteTransfer, ContentChanged) as error:
            return type(error).__name__

    @rule(
        number=NUMBERS,
        who=st.integers(0, 1),
        cut=st.integers(0, 60),
        wrong=st.booleans(),
        more=st.booleans(),
        valid=st.booleans(),
        leave=st.booleans(),
    )
    def put(self, number: int, who: int, cut: int, wrong: bool, more: bool, valid: bool, leave: bool) -> None:
        content = CONTENTS[number]
        if verifier(KEYS[number]) is None and number not in self.arriving:
            self.partial.pop(number, None)  # without a hash nobody goes on from what is there
        before = self.partial.get(number, b"")
        data = content[len(before) :][:cut] if cut < 55 else content[len(before) :]
        data = bytes(255 - byte for byte in data) if wrong else data
        data += b"more" if more else b""
        whole = before + data

        outcome = self.receive(number, who, data, valid=valid, leave=leave)

        if len(whole) > len(content) and data:
            assert outcome == "IncompleteTransfer"
            self.partial.pop(number, None)
        elif leave:
            assert outcome == "left"
            if whole:
                self.partial[number] = whole
        elif not valid and not data:
            assert outcome == "ContentChanged"
        elif len(whole) != len(content):
            assert outcome == "IncompleteTransfer"
            self.partial.pop(number, None)
        elif number == 2 and not valid:
            assert outcome == "ContentChanged"
            self.partial.pop(number, None)
        elif number < 2 and whole != content:
            assert outcome == "VerificationFailed"
            self.partial.pop(number, None)
        else:
            assert outcome == ("there" if number in self.present else "new")
            self.partial.pop(number, None)
            if number not in self.present:
                self.present.add(number)
                self.worm = whole if number == 2 else getattr(self, "worm", b"")

    @rule(number=NUMBERS, who=st.integers(0, 1))
    def lock(self, number: int, who: int) -> None:
        if number not in self.present:
            with pytest.raises(NotLocked):
                self.stores[who].lock(KEYS[number])
            return
        lock = self.stores[who].lock(KEYS[number])
        assert lock.held()
        self.locks[number].append(lock)

    @precondition(lambda self: any(self.locks.values()))
    @rule(data=st.data(), vanish=st.booleans())
    def unlock(self, data: st.DataObject, vanish: bool) -> None:
        number = data.draw(st.sampled_from([number for number, locks in self.locks.items() if locks]))
        lock = self.locks[number].pop(data.draw(st.integers(0, len(self.locks[number]) - 1)))
        if vanish:
            lock.vanish()
            self.retained[number] = max(self.retained.get(number, 0.0), lock.expires)
        else:
            lock.release()

    @rule(number=NUMBERS, who=st.integers(0, 1), late=st.sampled_from([None, -1.0, 0.0, 5.0]))
    def remove(self, number: int, who: int, late: float | None) -> None:
        not_after = None if late is None else self.clock.now() + late
        try:
            removed = self.stores[who].remove(KEYS[number], not_after=not_after)
        except ContentLocked:
            # Only for a reason, and no longer than that reason can last: an orderly unlock between others may
            # leave a retention behind, but never one that is longer than theirs.
            assert number in self.present
            return
        except TimedOut:
            assert late is not None
            assert late <= 0
            assert number in self.present
            return
        assert removed == (number in self.present)
        assert not removed or late is None or late > 0
        assert not self.locks[number]
        assert self.retained.get(number, -1.0) < self.clock.now()
        self.present.discard(number)
        self.retained.pop(number, None)

    @precondition(lambda self: not any(self.locks.values()))
    @rule()
    def everything_can_be_removed_in_the_end(self) -> None:
        self.clock.seconds += LOCK_RETENTION + 1
        for number in sorted(self.present):
            assert self.stores[0].remove(KEYS[number])
        self.present.clear()
        self.retained.clear()

    @rule(seconds=st.sampled_from([1.0, 100.0, 599.0, 601.0]))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        self.stores[who] = self.new_store()

    @invariant()
    def what_is_there_is_whole(self) -> None:
        for number, key in enumerate(KEYS):
            for store in self.stores:
                assert store.present(key) == (number in self.present)
            if number in self.present:
                with self.stores[0].open(key) as stored:
                    content = stored.pread(stored.size, 0)
                assert content == (CONTENTS[number] if number < 2 else self.worm)
        assert set(self.stores[1].keys()) == {KEYS[number] for number in self.present}

    @invariant()
    def partials_are_what_arrived(self) -> None:
        partials = {name: self.files.read(b"annex/tmp/" + name) for name in self.files.names(b"annex/tmp")}
        assert partials == {key_file(KEYS[number]): data for number, data in self.partial.items()}

    @invariant()
    def locks_hold(self) -> None:
        for locks in self.locks.values():
            assert all(lock.held() for lock in locks)

    def teardown(self) -> None:
        for locks in self.locks.values():
            for lock in locks:
                lock.release()


class DiskStoreMachine(StoreMachine):
    def new_files(self) -> Files:
        self.folder = tempfile.mkdtemp()
        return DiskFiles(self.folder)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


TestInMemory = StoreMachine.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestOnDisk = DiskStoreMachine.TestCase
TestOnDisk.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
