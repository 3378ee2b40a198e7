"""What is wrapped around a remote: recording, refusing, telling."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from faulty_remote import Faulty
from remote_contract import CONTENT, KEY, A, B, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.clock import Deadline
from annexpy.errors import AccessDenied, ConnectionLost, DropIncomplete, NodesFailed, NotLocked
from annexpy.keys.key import Key
from annexpy.remote.base import BatchPresence, BatchRemove, Remote, Removed, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.recording import Recording, record
from annexpy.remote.traced import Traced
from annexpy.remote.wrappers import AppendOnly, ReadOnly, Wrapper
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, new_cluster_uuid

C = UUID("cccccccc-0000-4000-8000-000000000003")
CLUSTER = new_cluster_uuid("01234567-0123-4123-8123-0123456789ab")


class Log:
    """A branch, as far as recording goes."""

    def __init__(self) -> None:
        self.lines: list[tuple[Key, UUID, bool]] = []

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
        self.lines.append((key, uuid, present))

    def of(self, key: Key) -> dict[UUID, bool]:
        return {uuid: present for one, uuid, present in self.lines if one == key}


class TestRecordingContract(RemoteContract):
    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        yield Recording(MemoryRemote(A, clock=clock), Log())


class TestTracedContract(RemoteContract):
    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        yield Traced(Wrapper(MemoryRemote(A, clock=clock)))


def three(*keys: Key) -> list[MemoryRemote]:
    return [MemoryRemote(uuid, objects=dict.fromkeys(keys, CONTENT)) for uuid in (A, B, C)]


# -- recording --------------------------------------------------------------------------------------------------


class Spooling(Log):
    """A branch that can write its records down."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    @property
    def queued(self) -> int:
        return len(self.lines) - self.written

    def sync_now(self, *, durable: bool = True) -> None:
        assert not durable
        self.written = len(self.lines)


@pytest.mark.anyio
async def test_records_of_puts_wait_for_each_other_and_no_longer_than_a_second() -> None:
    log, clock = Spooling(), HandClock()
    remote = Recording(MemoryRemote(A), log, clock=clock)
    contents = [b"%d" % number for number in range(70)]
    for content in contents[:63]:
        await store(remote, key_of(content), content)
    assert log.written == 0
    await store(remote, key_of(contents[63]), contents[63])
    assert log.written == 64
    await store(remote, key_of(contents[64]), contents[64])
    clock.time += 0.9
    await store(remote, key_of(contents[65]), contents[65])
    assert log.written == 64
    clock.time += 0.1
    await store(remote, key_of(contents[66]), contents[66])
    assert log.written == 67


@pytest.mark.anyio
async def test_records_of_puts_do_not_wait_for_a_long_one() -> None:
    log = Spooling()
    remote = Recording(MemoryRemote(A), log)
    await store(remote, KEY, CONTENT)
    assert log.written == 0
    async with remote.put(key_of(bytes(5 << 20))) as upload:
        await upload.start(5 << 20)
        assert log.written == 1


@pytest.mark.anyio
async def test_exactly_those_that_have_it_are_recorded() -> None:
    nodes: list[Any] = three()
    nodes[1].objects[KEY] = CONTENT
    nodes[2] = Faulty(nodes[2], "finished")  # stored, but nobody heard
    log = Log()
    stored = await store(Recording(Cluster(nodes), log), KEY, CONTENT)
    assert stored.copies == {A, B}
    assert log.of(KEY) == {A: True, B: True}


@pytest.mark.anyio
async def test_what_is_already_there_is_recorded_although_nothing_is_sent() -> None:
    log = Log()
    async with Recording(Cluster(three(KEY)), log).put(KEY) as upload:
        assert upload.already == {A, B, C}
    assert log.of(KEY) == {A: True, B: True, C: True}


@pytest.mark.anyio
async def test_data_present_is_recorded_once_confirmed() -> None:
    nodes = three()
    log = Log()
    async with Recording(Cluster(nodes), log).put(KEY) as upload:
        assert not log.lines
        nodes[0].objects[KEY] = CONTENT
        await upload.data_present()
    assert log.of(KEY) == {A: True}


@pytest.mark.anyio
async def test_a_put_that_fails_or_is_left_records_nothing() -> None:
    log = Log()
    with pytest.raises(NodesFailed):
        await store(Recording(Cluster([Faulty(node, "finished") for node in three()]), log), KEY, CONTENT)
    async with Recording(Cluster(three()), log).put(KEY) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT)
    assert not log.lines


@pytest.mark.anyio
async def test_what_is_stored_is_recorded_before_leaving_fails() -> None:
    log = Log()
    with pytest.raises(ConnectionLost):
        await store(Recording(Faulty(MemoryRemote(A), "leave"), log), KEY, CONTENT)
    assert log.of(KEY) == {A: True}


@pytest.mark.anyio
async def test_a_removal_from_some_is_recorded_for_those() -> None:
    nodes: list[Any] = three(KEY)
    nodes[1] = Faulty(nodes[1], "remove")
    log = Log()
    removed = await Recording(Cluster(nodes), log).remove_content(KEY)
    assert not removed.ok
    assert log.of(KEY) == {A: False, C: False}


@pytest.mark.anyio
@pytest.mark.parametrize("batches", [False, True])
async def test_many_removals_are_recorded_each(batches: bool) -> None:
    keys = [key_of(content_of(number)) for number in range(5)]
    nodes = three(*keys)
    log = Log()
    inner: Any = Cluster(nodes) if batches else nodes[0]
    async with nodes[0].lock_content(keys[3]):
        results = await Recording(inner, log).remove_content_many(keys)
    for number, (key, removed) in enumerate(zip(keys, results, strict=True)):
        gone = {A, B, C} if batches else {A}
        assert removed.ok == (number != 3)
        assert log.of(key) == dict.fromkeys(gone - {A} if number == 3 else gone, False)


@pytest.mark.anyio
async def test_a_removal_that_ends_in_an_error_is_recorded_as_far_as_it_got() -> None:
    class Partly(MemoryRemote):
        async def remove_content(self, key: Key, **_: Any) -> Removed:
            raise DropIncomplete(key, [A, CLUSTER], {B: "locked"})

    log = Log()
    with pytest.raises(DropIncomplete):
        await Recording(Partly(A), log).remove_content(KEY)
    assert log.of(KEY) == {A: False}


@pytest.mark.anyio
async def test_reading_and_looking_record_nothing() -> None:
    log = Log()
    remote = Recording(Cluster(three(KEY)), log)
    assert await read(remote, KEY) == CONTENT
    assert await remote.check_present(KEY)
    assert await remote.check_present_many([KEY, key_of(b"")]) == [True, False]
    assert not log.lines


def test_a_cluster_is_never_recorded() -> None:
    log = Log()
    record(log, KEY, Stored(uuids=frozenset({CLUSTER, A})).copies, present=True)
    assert log.lines == [(KEY, A, True)]


@pytest.mark.anyio
async def test_a_record_that_cannot_be_written_leaves_the_put() -> None:
    class Broken(Log):
        def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
            raise OSError("disk full")

    node = Faulty(MemoryRemote(A, objects={KEY: CONTENT}))
    with pytest.raises(OSError, match="disk full"):
        async with Recording(node, Broken()).put(KEY):
            pytest.fail("entered")
    assert node.inside == 0


@pytest.mark.anyio
async def test_the_nodes_of_a_recorded_cluster_record_too() -> None:
    nodes = three(KEY)
    log = Log()
    recording = Recording(Cluster(nodes), log)
    assert isinstance(recording, Recording)
    first = recording.nodes[0]  # type: ignore[attr-defined]
    await first.remove_content(KEY)
    assert log.of(KEY) == {A: False}
    assert not hasattr(Recording(nodes[0], log), "nodes")


def test_a_recording_pickles() -> None:
    again = pickle.loads(pickle.dumps(Recording(MemoryRemote(A, objects={KEY: CONTENT}), Log())))
    assert again.uuid == A
    assert again.remote.objects == {KEY: CONTENT}


# -- refusing -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_read_only_gives_and_locks_and_changes_nothing() -> None:
    inner = MemoryRemote(A, objects={KEY: CONTENT})
    remote = ReadOnly(inner)
    assert await read(remote, KEY) == CONTENT
    assert await remote.check_present(KEY)
    async with remote.lock_content(KEY) as lock:
        assert await lock.held()
    with pytest.raises(AccessDenied, match="read-only"):
        await store(remote, key_of(b""), b"")
    for call in (remote.remove_content(KEY), remote.remove_content_many([KEY])):
        with pytest.raises(AccessDenied, match="read-only"):
            await call
    assert inner.objects == {KEY: CONTENT}


@pytest.mark.anyio
async def test_append_only_takes_and_never_gives_up() -> None:
    inner = MemoryRemote(A)
    remote = AppendOnly(inner)
    assert (await store(remote, KEY, CONTENT)).uuids == {A}
    for call in (remote.remove_content(KEY), remote.remove_content_many([KEY])):
        with pytest.raises(AccessDenied, match="append-only; removal denied"):
            await call
    assert inner.objects == {KEY: CONTENT}


@pytest.mark.anyio
async def test_a_cluster_with_a_read_only_node_names_it() -> None:
    nodes: list[Any] = three()
    nodes[1] = ReadOnly(nodes[1])
    whole = Cluster(nodes)
    stored = await store(whole, KEY, CONTENT)
    assert stored.uuids == {A, C}
    assert isinstance(stored.failed[B], AccessDenied)
    removed = await whole.remove_content(KEY)
    assert removed.uuids == {A, C}
    assert isinstance(removed.failed[B], AccessDenied)


# -- passing on, telling ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_wrappers_pass_everything_on() -> None:
    for wrap in (Wrapper, ReadOnly, AppendOnly, Traced, lambda remote: Recording(remote, Log())):
        inner = Faulty(MemoryRemote(A, name="inner", cost=7))
        remote = wrap(inner)
        assert (remote.uuid, remote.name, remote.cost) == (A, "inner", 7)
        assert remote.patience == 0
        assert await remote.connect() == A
        assert isinstance(remote, BatchPresence)
        assert isinstance(remote, BatchRemove)
        assert repr(remote).startswith(type(remote).__name__)
        await remote.aclose()
        assert inner.calls["aclose"] == 1
    whole = Cluster(three())
    assert Traced(whole).patience == whole.patience > 5


@pytest.mark.anyio
async def test_traced_tells_what_happens_and_no_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "annexpy.remote.traced")
    remote = Traced(MemoryRemote(A, name="vault"))
    await store(remote, KEY, CONTENT)
    assert await read(remote, KEY) == CONTENT
    assert await remote.check_present(KEY)
    async with remote.lock_content(KEY):
        pass
    await remote.remove_content(KEY)
    with pytest.raises(NotLocked):
        async with remote.lock_content(KEY):
            pass
    await remote.check_present_many([KEY])
    await remote.check_present(Key(b"WORM", b"a\x1b[31mb\n", 1))

    told = caplog.text
    for part in (f"vault > PUT {KEY}", "vault < PUT from 0", "VALID", f"GET 0 {KEY}", "REMOVE", "LOCKCONTENT", A):
        assert part in told
    assert "content could not be locked" in told
    assert "\x1b" not in told
    assert repr(CONTENT)[2:20] not in told


class Deadly(MemoryRemote):
    """Kills whoever asks for a removal."""

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.parametrize("source", [MemoryRemote, Deadly])
def test_what_a_removal_may_rely_on_was_recorded_should_it_be_killed(
    tmp_path: Path, source: type[MemoryRemote]
) -> None:
    Repository.init(str(tmp_path / "r"), bare=True).close()
    child = os.fork()
    if not child:
        with Repository.open(str(tmp_path / "r")) as repository:

            async def moved() -> None:
                taker = Recording(MemoryRemote(B), repository.branch)
                await store(taker, KEY, CONTENT)
                await Recording(source(A), repository.branch).remove_content(KEY)

            anyio.run(moved)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Repository.open(str(tmp_path / "r")) as repository:
        log = repository.branch.locations(KEY)
        assert set(log.present) == {B}
        assert (log.clock(A) is None) is (source is Deadly)


@pytest.mark.anyio
async def test_a_recorded_upload_into_a_repository_copies_as_the_repository_does(tmp_path: Path) -> None:
    with Repository.init(str(tmp_path / "b"), bare=True) as repository:
        local = Local(repository, commit=False)
        content = b"content"
        key = key_of(content)
        async with Recording(local, Log()).put(key) as upload:
            assert getattr(upload, "copy", None) is not None
            await upload.start(len(content))
            await upload.write(content)
            await upload.finish()
        async with Recording(MemoryRemote(B), Log()).put(key) as upload:
            assert getattr(upload, "copy", None) is None
        await local.aclose()
