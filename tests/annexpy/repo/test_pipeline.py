"""Large contents on their way: order, bounds, failures, and an end that always comes."""

from __future__ import annotations

import errno
import hashlib
import threading
import time

import pytest

from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.repo.faulty_files import Faults, FaultyFiles
from annexpy.repo.files import Files
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.pipeline import Pipeline

CHUNK = bytes(range(256)) * 400
CONTENT = CHUNK * 30
KEY = Key.parse(f"SHA256-s{len(CONTENT)}--{hashlib.sha256(CONTENT).hexdigest()}")


class Stuck(MemoryFiles):
    """A file system on which writes wait for a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, fd: int, data: bytes | memoryview) -> None:
        assert self.gate.wait(20)
        super().write(fd, data)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("annexpy-")}


def start(files: Files, *, prefix: bytes = b"", limit: int = 1 << 20) -> tuple[Pipeline, int]:
    fd = files.open_write(b"f", append=True)
    if prefix:
        files.write(fd, prefix)
    return Pipeline(files, fd, verifier(KEY), prefix=len(prefix), limit=limit), fd


@pytest.mark.parametrize("prefix", [0, 1, 100_000, len(CONTENT)])
def test_what_was_there_and_what_comes_are_written_and_hashed_in_order(prefix: int) -> None:
    files = MemoryFiles()
    check = verifier(KEY)
    fd = files.open_write(b"f", append=True)
    files.write(fd, CONTENT[:prefix])

    pipeline = Pipeline(files, fd, check, prefix=prefix)
    for start_at in range(prefix, len(CONTENT), 77_777):
        pipeline.put(CONTENT[start_at : start_at + 77_777])
    pipeline.finish()

    assert files.read(b"f") == CONTENT
    assert check is not None
    assert check.matches()
    assert pipeline.ended
    assert threads() == set()


def test_a_key_that_nothing_can_verify_is_only_written() -> None:
    files = MemoryFiles()
    pipeline = Pipeline(files, files.open_write(b"f", append=True), None)
    pipeline.put(CHUNK)
    pipeline.finish()

    assert files.read(b"f") == CHUNK


def test_it_is_full_when_the_limit_waits_and_no_longer_when_half_of_it_is_done() -> None:
    files = Stuck()
    pipeline, _ = start(files, limit=len(CHUNK) * 4)
    for _ in range(4):
        pipeline.put(CHUNK)
        assert not pipeline.full
    pipeline.put(CHUNK)
    assert pipeline.full
    assert pipeline.waiting == 5 * len(CHUNK)

    waiter = threading.Thread(target=pipeline.wait)
    waiter.start()
    files.gate.set()
    waiter.join(20)

    assert not waiter.is_alive()
    assert pipeline.waiting <= 2 * len(CHUNK)
    pipeline.finish()


class Permitted(MemoryFiles):
    """Writes one chunk for each permit."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        assert self.permits.acquire(timeout=20)
        super().write(fd, data)


def test_whoever_gives_to_a_slow_disk_waits_for_two_mib_at_a_time_and_for_four_at_the_end() -> None:
    files, chunk = Permitted(), bytes(256 << 10)
    pipeline = Pipeline(files, files.open_write(b"f", append=True), verifier(KEY))
    while not pipeline.full:
        pipeline.put(chunk)
    assert pipeline.waiting == 17 * len(chunk)

    waiter = threading.Thread(target=pipeline.wait)
    waiter.start()
    for _ in range(9):
        assert waiter.is_alive()
        files.permits.release()
    waiter.join(20)

    assert not waiter.is_alive()
    files.permits.release(8)
    pipeline.finish()


def test_a_write_that_fails_while_somebody_begins_to_wait_ends_the_wait() -> None:
    class Full(Stuck):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            super().write(fd, data)
            raise OSError(errno.ENOSPC, "no space left")

    class FailsFirst(threading.Event):
        def clear(self) -> None:
            files.gate.set()
            while not pipeline.ended:
                time.sleep(0.001)
            super().clear()

    files = Full()
    pipeline = Pipeline(files, files.open_write(b"f", append=True), None, limit=0)
    pipeline.put(CHUNK)
    pipeline._progress = FailsFirst()

    waiter = threading.Thread(target=pipeline.wait, daemon=True)
    waiter.start()
    waiter.join(5)

    assert not waiter.is_alive()
    with pytest.raises(OSError, match="space"):
        pipeline.finish()


def test_a_copy_reads_what_there_is_and_never_holds_more_than_the_limit() -> None:
    files = MemoryFiles()
    pipeline, _ = start(files, limit=2 << 20)
    most = 0

    def read(size: int, offset: int) -> bytes:
        nonlocal most
        most = max(most, pipeline.waiting)
        return CONTENT[offset : offset + size]

    assert pipeline.copy(read, 0, len(CONTENT) + 5) == len(CONTENT)
    pipeline.finish()

    assert files.read(b"f") == CONTENT
    assert most <= (2 << 20) + (1 << 20)


@pytest.mark.parametrize("waiting", [False, True])
def test_a_write_that_fails_is_raised_to_whoever_comes_next(waiting: bool) -> None:
    files = FaultyFiles(MemoryFiles(), Faults(at=2, error=errno.ENOSPC, only=frozenset(("write",))))
    pipeline, fd = start(files, limit=0)
    pipeline.put(CHUNK)
    pipeline.wait()
    pipeline.put(CHUNK)
    pipeline.wait()  # comes back, though nothing more is written

    next_call = (lambda: pipeline.put(CHUNK)) if waiting else pipeline.finish
    with pytest.raises(OSError, match="space"):
        next_call()
    pipeline.stop(5)
    assert pipeline.ended
    files.close_fd(fd)


def test_a_partial_that_shrinks_while_it_is_read_is_an_error() -> None:
    files = MemoryFiles()
    fd = files.open_write(b"f", append=True)
    files.write(fd, CHUNK)

    pipeline = Pipeline(files, fd, verifier(KEY), prefix=len(CHUNK) + 1)

    with pytest.raises(OSError, match="shrank"):
        pipeline.finish()


def test_stopping_keeps_what_was_handed_over() -> None:
    files = MemoryFiles()
    pipeline, fd = start(files)
    for _ in range(5):
        pipeline.put(CHUNK)

    pipeline.stop(10)

    assert pipeline.ended
    assert files.read(b"f") == CHUNK * 5
    files.close_fd(fd)


def test_a_write_that_hangs_is_left_and_hands_the_descriptor_back_when_it_ends() -> None:
    files = Stuck()
    pipeline, fd = start(files)
    pipeline.put(CHUNK)
    pipeline.put(CHUNK)
    over = threading.Event()

    pipeline.stop(0.01)
    assert not pipeline.ended
    pipeline.when_ended(lambda: (files.close_fd(fd), over.set())[1])
    assert not over.is_set()

    files.gate.set()
    assert over.wait(20)
    assert files.read(b"f") == CHUNK  # the rest was given up


def test_when_it_has_ended_the_action_comes_at_once() -> None:
    files = MemoryFiles()
    pipeline, _ = start(files)
    pipeline.finish()
    over: list[bool] = []

    pipeline.when_ended(lambda: over.append(True))

    assert over == [True]


@pytest.mark.parametrize("before", [0, 1, 150_000])
def test_what_is_copied_comes_after_what_was_handed_over_and_is_hashed_with_it(before: int) -> None:
    files = MemoryFiles()
    check = verifier(KEY)
    pipeline = Pipeline(files, files.open_write(b"f", append=True), check)
    if before:
        pipeline.put(CONTENT[:before])

    copied = pipeline.copy(lambda size, offset: CONTENT[offset : offset + min(size, 50_000)], before, len(CONTENT))
    pipeline.finish()

    assert copied == len(CONTENT) - before
    assert files.read(b"f") == CONTENT
    assert check is not None
    assert check.matches()
    assert threads() == set()


def test_a_copy_that_cannot_be_written_says_so_and_leaves_no_thread() -> None:
    faults = Faults(3, errno.EIO, only=frozenset(("write",)))
    pipeline, _ = start(FaultyFiles(MemoryFiles(), faults))

    with pytest.raises(OSError, match="Input/output error"):
        pipeline.copy(lambda size, offset: CHUNK, 0, len(CONTENT))
    pipeline.stop(1)

    assert pipeline.ended
    assert threads() == set()
