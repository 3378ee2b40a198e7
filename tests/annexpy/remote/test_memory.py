"""MemoryRemote keeps the rules that a repository on disk keeps."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack

import pytest
from remote_contract import HandClock

from annexpy.clock import LOCK_RETENTION, MAX_REMOVAL_AHEAD, Deadline
from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    TimedOut,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

A = UUID("aaaaaaaa-0000-4000-8000-000000000001")
CONTENT = b"0123456789"
HASHED = Key(b"SHA256", hashlib.sha256(CONTENT).hexdigest().encode(), len(CONTENT))
WORM = Key(b"WORM", b"ten", len(CONTENT), mtime=1)
URL = Key(b"URL", b"http://example.org/x")


def memory(*keys: Key) -> MemoryRemote:
    return MemoryRemote(A, clock=HandClock(), objects=dict.fromkeys(keys, CONTENT))


async def store(remote: Remote, key: Key, content: bytes, valid: bool = True) -> Stored:
    async with remote.put(key) as upload:
        await upload.start(len(content) - upload.offset)
        await upload.write(content[upload.offset :])
        return await upload.finish(valid)


async def read(remote: Remote, key: Key, offset: int = 0, end: int | None = None) -> bytes:
    async with remote.get(key, offset=offset, end=end) as download:
        content = b"".join([chunk async for chunk in download])
        assert len(content) == download.length
        assert download.valid
        assert download.source == remote.uuid
        return content


@pytest.mark.parametrize("key", [HASHED, WORM, URL])
async def test_what_was_put_can_be_got(key: Key) -> None:
    remote = memory()

    stored = await store(remote, key, CONTENT)

    assert stored == Stored(uuids=frozenset({A}))
    assert await remote.check_present(key)
    assert await read(remote, key) == CONTENT


@pytest.mark.parametrize(("offset", "end"), [(0, 0), (3, None), (3, 7), (9, 99), (10, None), (17, None), (7, 3)])
async def test_a_get_starts_at_the_offset_and_ends_at_the_end(offset: int, end: int | None) -> None:
    assert await read(memory(HASHED), HASHED, offset, end) == CONTENT[offset:end]


async def test_absent_content_cannot_be_got_or_locked_and_counts_as_removed() -> None:
    remote = memory()

    with pytest.raises(KeyNotPresent):
        await read(remote, HASHED)
    with pytest.raises(NotLocked):
        await remote.lock_content(HASHED).__aenter__()
    removed = await remote.remove_content(HASHED, deadline=Deadline(0.0))
    assert removed.ok
    assert removed.uuids == {A}


@pytest.mark.parametrize("cut", range(len(CONTENT) + 1))
async def test_a_put_that_was_left_resumes_where_it_was(cut: int) -> None:
    remote = memory()
    async with remote.put(HASHED) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT[:cut])

    async with remote.put(HASHED) as upload:
        assert upload.offset == cut
        await upload.start(len(CONTENT) - cut)
        await upload.write(CONTENT[cut:])
        await upload.finish()

    assert remote.objects == {HASHED: CONTENT}
    assert not remote.partials


async def test_content_that_is_there_is_not_asked_for_again() -> None:
    async with memory(HASHED).put(HASHED) as upload:
        assert upload.already == {A}
        with pytest.raises(LocalProtocolError):
            await upload.start(0)


async def test_wrong_content_is_not_stored_and_costs_the_partial() -> None:
    remote = memory()
    with pytest.raises(VerificationFailed):
        await store(remote, HASHED, b"x" * len(CONTENT))
    assert not remote.objects
    assert not remote.partials


async def test_content_that_changed_is_kept_only_when_its_hash_proves_it() -> None:
    remote = memory()
    assert (await store(remote, HASHED, CONTENT, valid=False)).ok
    with pytest.raises(ContentChanged):
        await store(remote, WORM, CONTENT, valid=False)
    assert remote.objects == {HASHED: CONTENT}
    assert not remote.partials


async def test_asking_for_the_offset_with_no_bytes_never_costs_the_partial() -> None:
    remote = memory()
    remote.partials[WORM] = bytearray(CONTENT[:4])
    for _ in range(2):
        async with remote.put(WORM) as upload:
            assert upload.offset == 4
            await upload.start(0)
            with pytest.raises(ContentChanged):
                await upload.finish(valid=False)
    assert remote.partials == {WORM: CONTENT[:4]}


async def test_fewer_bytes_than_announced_cost_the_partial() -> None:
    remote = memory()
    async with remote.put(HASHED) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT[:-1])
        with pytest.raises(IncompleteTransfer) as caught:
            await upload.finish()
    assert (caught.value.received, caught.value.expected) == (9, 10)
    assert not remote.objects
    assert not remote.partials


async def test_a_partial_longer_than_the_key_is_given_up_after_no_bytes() -> None:
    remote = memory()
    remote.partials[HASHED] = bytearray(CONTENT + b"more")
    async with remote.put(HASHED) as upload:
        assert upload.offset == 14
        await upload.start(0)
        with pytest.raises(IncompleteTransfer):
            await upload.finish()
    assert (await store(remote, HASHED, CONTENT)).ok


async def test_more_than_the_key_has_is_refused_before_a_byte() -> None:
    remote = memory()
    async with remote.put(HASHED) as upload:
        with pytest.raises(InvalidInput, match="length of content"):
            await upload.start(len(CONTENT) + 1)
        await upload.start(3)
        with pytest.raises(LocalProtocolError):
            await upload.write(CONTENT)


async def test_two_puts_of_one_key_do_not_mix() -> None:
    remote = memory()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(remote.put(HASHED))
        with pytest.raises(TransferInProgress):
            await stack.enter_async_context(remote.put(HASHED))
    assert (await store(remote, HASHED, CONTENT)).ok


async def test_data_present_is_looked_up_not_believed() -> None:
    remote = memory()
    async with remote.put(HASHED) as upload:
        with pytest.raises(KeyNotPresent):
            await upload.data_present()
        remote.objects[HASHED] = CONTENT
        assert (await upload.data_present()).uuids == {A}


async def test_locked_content_stays_until_the_last_lock_is_released() -> None:
    remote = memory(HASHED)
    async with remote.lock_content(HASHED) as first:
        async with remote.lock_content(HASHED):
            assert await first.held()
            assert first.expires == 1000.0 + LOCK_RETENTION
        removed = await remote.remove_content(HASHED)
        assert not removed.ok
        assert not removed.uuids
        assert isinstance(removed.failed[A], ContentLocked)
    assert not await first.held()
    assert (await remote.remove_content(HASHED)).ok
    assert not remote.objects


async def test_a_lock_whose_holder_vanished_stands_until_it_expires() -> None:
    clock = HandClock()
    remote = MemoryRemote(A, clock=clock, objects={HASHED: CONTENT})
    with pytest.raises(ConnectionLost):
        async with remote.lock_content(HASHED):
            raise ConnectionLost("client", "UNLOCKCONTENT")
    async with remote.lock_content(HASHED):
        pass  # somebody else's lock and unlock does not end it

    clock.time += LOCK_RETENTION - 0.01
    assert isinstance((await remote.remove_content(HASHED)).failed[A], ContentLocked)
    clock.time += 0.01
    assert (await remote.remove_content(HASHED)).ok


@pytest.mark.parametrize(
    ("error", "kept"), [(NotLocked(HASHED), False), (ConnectionLost("a", "b"), True), (OSError(), False)]
)
async def test_only_a_lost_connection_keeps_a_lock(error: Exception, kept: bool) -> None:
    remote = memory(HASHED)
    with pytest.raises(type(error)):
        async with remote.lock_content(HASHED):
            raise error
    assert (await remote.remove_content(HASHED)).ok is not kept


@pytest.mark.parametrize(
    ("ahead", "error"), [(0.0, TimedOut), (-5.0, TimedOut), (MAX_REMOVAL_AHEAD + 1.0, InvalidInput)]
)
async def test_a_removal_past_its_deadline_or_too_far_ahead_is_refused(ahead: float, error: type[Exception]) -> None:
    remote = memory(HASHED)
    removed = await remote.remove_content(HASHED, deadline=Deadline(1000.0 + ahead))
    assert not removed.ok
    assert isinstance(removed.failed[A], error)
    assert remote.objects


async def test_a_removal_before_its_deadline_happens() -> None:
    remote = memory(HASHED)
    assert (await remote.remove_content(HASHED, deadline=Deadline(1000.01))).ok
    assert not remote.objects
