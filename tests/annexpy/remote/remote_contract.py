"""What every Remote promises, whoever stands behind it.

A test module inherits from ``RemoteContract`` and says how to make the remote::

    class TestMemory(RemoteContract):
        @asynccontextmanager
        async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
            yield MemoryRemote(A, clock=clock)

``remote`` gives an empty remote that reads *clock*, where it can. The attributes below say what a
kind of remote cannot do; everything else holds for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from annexpy.clock import LOCK_RETENTION, MAX_REMOVAL_AHEAD, Deadline
from annexpy.errors import AnnexError, IncompleteTransfer, InvalidInput, KeyNotPresent, NotLocked, TransportError
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Remote, Removed, Stored, check_present_many
from annexpy.uuids import UUID, is_cluster

A = UUID("aaaaaaaa-0000-4000-8000-000000000001")
B = UUID("bbbbbbbb-0000-4000-8000-000000000002")


class HandClock:
    """A clock that a test turns by hand."""

    def __init__(self, time: float = 1000.0) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1.7e9 + self.time


def content_of(number: int, size: int = 100) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(size)


def key_of(content: bytes) -> Key:
    return Key(b"SHA256E", hashlib.sha256(content).hexdigest().encode() + b".dat", len(content))


CONTENT = content_of(0)
KEY = key_of(CONTENT)
WORM = Key(b"WORM", b"hundred", len(CONTENT), mtime=1)


async def store(
    remote: Remote, key: Key, content: bytes, valid: bool = True, piece: int = 1 << 18, name: str = ""
) -> Stored:
    async with remote.put(key, associated_file=name) as upload:
        assert upload.already is None
        await upload.start(len(content) - upload.offset)
        for start in range(upload.offset, len(content), piece):
            await upload.write(content[start : start + piece])
        return await upload.finish(valid)


async def read(remote: Remote, key: Key, offset: int = 0, end: int | None = None, name: str = "") -> bytes:
    async with remote.get(key, offset=offset, end=end, associated_file=name) as download:
        content = b"".join([chunk async for chunk in download])
        assert len(content) == download.length
        assert download.valid
        assert download.source
        return content


async def removed(remote: Remote, key: Key, deadline: Deadline | None = None) -> bool:
    """Whether *key* was given up. A stock server hangs up where it refuses."""
    try:
        return (await remote.remove_content(key, deadline=deadline)).ok
    except TransportError:
        return False


class RemoteContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    locks = True
    """Whether content can be locked. A cluster refuses."""
    locks_overlap = True
    """Whether two locks end with the later one. Stock git-annex keeps the retention of such a pair until it expires."""
    deadlines = True
    """Whether a removal can have a deadline. Without, it must be refused and not happen."""
    patient_cancel = 40
    """At how many of the first awaits of an operation it is cancelled, each in turn."""

    def remote(self, clock: HandClock) -> AbstractAsyncContextManager[Remote]:
        raise NotImplementedError

    def places(self, remote: Remote) -> frozenset[UUID]:
        """Which repositories have the content after a put."""
        return frozenset({remote.uuid})

    @asynccontextmanager
    async def holding(self, *keys: Key, clock: HandClock | None = None) -> AsyncIterator[Remote]:
        """A remote that has CONTENT under *keys*."""
        async with self.remote(clock or HandClock()) as remote:
            for key in keys:
                await store(remote, key, CONTENT)
            yield remote

    # -- who it is ------------------------------------------------------------------------------------

    async def test_a_remote_says_who_it_is(self) -> None:
        async with self.remote(HandClock()) as remote:
            assert remote.uuid
            assert remote.name
            assert remote.cost > 0

    # -- put and get ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "content", [b"", b"x", CONTENT, content_of(1, 64 * 1024), content_of(2, 64 * 1024 + 1), content_of(3, 700_001)]
    )
    async def test_what_was_put_can_be_got(self, content: bytes) -> None:
        key = key_of(content)
        async with self.remote(HandClock()) as remote:
            assert not await remote.check_present(key)

            stored = await store(remote, key, content, piece=50_001)

            assert stored.ok
            assert not stored.failed
            assert stored.uuids == self.places(remote)
            assert not any(map(is_cluster, stored.copies))
            assert await remote.check_present(key)
            assert await read(remote, key) == content

    @pytest.mark.parametrize(
        "raw",
        [
            b"WORM-s100-m1--a name with  spaces ",
            b"WORM-s100--na\xffme \xc3\xa9\xe2\x82\xac",
            b"WORM--no size",
            b"URL--http&c%%example.org%x",
            b"XUNKNOWN-s100--whatever",
        ],
    )
    async def test_keys_are_bytes_and_travel_unchanged(self, raw: bytes) -> None:
        key = Key.parse(raw)
        async with self.holding(key) as remote:
            assert await remote.check_present(key)
            assert await read(remote, key) == CONTENT
            assert await removed(remote, key)
            assert not await remote.check_present(key)

    @pytest.mark.parametrize("name", ["", "dir/a file%.dat", "/etc/passwd", "../up", "à \u00a0 ü\n", "x" * 5000])
    async def test_a_name_of_the_file_is_a_hint_and_changes_nothing(self, name: str) -> None:
        async with self.remote(HandClock()) as remote:
            assert (await store(remote, KEY, CONTENT, name=name)).ok
            assert await read(remote, KEY, name=name) == CONTENT

    @pytest.mark.parametrize(
        ("offset", "end"), [(0, 0), (0, 1), (30, None), (30, 70), (99, 1000), (100, None), (170, None), (70, 30)]
    )
    async def test_a_get_starts_at_the_offset_and_stops_before_the_end(self, offset: int, end: int | None) -> None:
        async with self.holding(KEY) as remote:
            assert await read(remote, KEY, offset, end) == CONTENT[offset:end]
            assert await read(remote, KEY) == CONTENT

    async def test_a_part_of_something_large_can_be_got_and_the_rest_is_left(self) -> None:
        content = content_of(5, 1_500_000)
        key = key_of(content)
        async with self.remote(HandClock()) as remote:
            await store(remote, key, content)
            assert await read(remote, key, 17, 70_000) == content[17:70_000]
            async with remote.get(key) as download:
                chunks = aiter(download)
                assert content.startswith(await anext(chunks))
                if isinstance(chunks, AsyncGenerator):
                    await chunks.aclose()
            assert await read(remote, key, 1_499_990) == content[-10:]

    @pytest.mark.parametrize("offset", [0, 1, 100, 1000])
    async def test_absent_content_cannot_be_got(self, offset: int) -> None:
        async with self.remote(HandClock()) as remote:
            with pytest.raises(KeyNotPresent):
                await read(remote, KEY, offset)
            assert not await remote.check_present(KEY)

    async def test_an_error_of_the_reader_is_not_an_error_of_the_remote(self) -> None:
        async with self.holding(KEY) as remote:
            for step in range(2):
                with pytest.raises(ZeroDivisionError):
                    await self._reader_that_fails(remote, step)
            assert await read(remote, KEY) == CONTENT

    @staticmethod
    async def _reader_that_fails(remote: Remote, step: int) -> None:
        async with remote.get(KEY) as download:
            if step:
                async for _ in download:
                    pass
            raise ZeroDivisionError

    # -- puts that do not go well ---------------------------------------------------------------------

    @pytest.mark.parametrize("cut", [0, 1, 50, 99, 100])
    async def test_a_put_that_was_left_can_be_finished_from_where_the_remote_says(self, cut: int) -> None:
        async with self.remote(HandClock()) as remote:
            async with remote.put(KEY) as upload:
                await upload.start(len(CONTENT))
                await upload.write(CONTENT[:cut])
            assert not await remote.check_present(KEY)

            async with remote.put(KEY) as upload:
                assert 0 <= upload.offset <= cut
                await upload.start(len(CONTENT) - upload.offset)
                await upload.write(CONTENT[upload.offset :])
                assert (await upload.finish()).ok
            assert await read(remote, KEY) == CONTENT

    async def test_content_that_is_there_is_not_asked_for_again(self) -> None:
        async with self.holding(KEY) as remote:
            async with remote.put(KEY) as upload:
                assert upload.already
            assert await read(remote, KEY) == CONTENT

    async def test_wrong_content_is_refused_and_the_right_one_is_welcome(self) -> None:
        async with self.remote(HandClock()) as remote:
            for wrong in (bytes(len(CONTENT)), CONTENT[:-1] + b"x"):
                with pytest.raises(AnnexError):
                    await store(remote, KEY, wrong)
                assert not await remote.check_present(KEY)
            assert (await store(remote, KEY, CONTENT)).ok

    async def test_content_that_changed_is_kept_only_when_its_hash_proves_it(self) -> None:
        async with self.remote(HandClock()) as remote:
            with pytest.raises(AnnexError):
                await store(remote, WORM, CONTENT, valid=False)
            assert not await remote.check_present(WORM)
            try:
                await store(remote, KEY, CONTENT, valid=False)
            except AnnexError:
                assert not await remote.check_present(KEY)
            else:
                assert await read(remote, KEY) == CONTENT

    async def test_more_than_the_key_has_is_refused_and_the_remote_goes_on(self) -> None:
        async with self.remote(HandClock()) as remote:
            async with remote.put(KEY) as upload:
                with pytest.raises(InvalidInput):
                    await upload.start(len(CONTENT) + 1)
            assert (await store(remote, KEY, CONTENT)).ok

    async def test_less_than_was_announced_is_never_stored(self) -> None:
        async with self.remote(HandClock()) as remote:
            async with remote.put(KEY) as upload:
                await upload.start(len(CONTENT))
                await upload.write(CONTENT[:-1])
                with pytest.raises(IncompleteTransfer):
                    await upload.finish()
            assert not await remote.check_present(KEY)
            assert (await store(remote, KEY, CONTENT)).ok

    async def test_asking_with_no_bytes_stores_nothing_and_breaks_nothing(self) -> None:
        async with self.remote(HandClock()) as remote:
            for _ in range(2):
                async with remote.put(KEY) as upload:
                    await upload.start(0)
                    with pytest.raises(AnnexError):
                        await upload.finish(valid=False)
            assert not await remote.check_present(KEY)
            assert (await store(remote, KEY, CONTENT)).ok

    async def test_two_puts_of_one_key_at_once_end_with_the_right_content(self) -> None:
        content = content_of(7, 300_000)
        key = key_of(content)
        results: list[bool] = []

        async def one(remote: Remote) -> None:
            try:
                async with remote.put(key) as upload:
                    if upload.already is None:
                        await upload.start(len(content) - upload.offset)
                        for start in range(upload.offset, len(content), 10_000):
                            await upload.write(content[start : start + 10_000])
                        await upload.finish()
                results.append(True)
            except AnnexError:
                results.append(False)

        async with self.remote(HandClock()) as remote:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(one, remote)
            assert any(results)
            assert await read(remote, key) == content

    # -- presence and removal -------------------------------------------------------------------------

    async def test_presence_of_many_keys_is_told_in_their_order(self) -> None:
        keys = [key_of(content_of(number)) for number in range(12)]
        async with self.remote(HandClock()) as remote:
            for number in (0, 3, 4, 11):
                await store(remote, keys[number], content_of(number))

            found = await check_present_many(remote, keys + keys[::-1])

            assert found == [number in (0, 3, 4, 11) for number in [*range(12), *range(11, -1, -1)]]
            assert await check_present_many(remote, []) == []

    async def test_a_thousand_questions_at_once_are_answered(self) -> None:
        absent = [key_of(content_of(number)) for number in range(1, 1001)]
        async with self.holding(KEY) as remote:
            assert await check_present_many(remote, [*absent, KEY]) == [False] * 1000 + [True]

    async def test_what_was_removed_is_gone_and_absent_content_counts_as_removed(self) -> None:
        async with self.holding(KEY) as remote:
            for _ in range(2):
                result = await remote.remove_content(KEY)
                assert result.ok
                assert result.uuids == self.places(remote)
                assert not result.failed
                assert not await remote.check_present(KEY)

    async def test_many_removals_are_answered_in_their_order(self) -> None:
        async with self.holding(KEY, WORM) as remote:
            if not isinstance(remote, BatchRemove):
                return
            absent = key_of(content_of(9))

            results = await remote.remove_content_many([KEY, absent, WORM])

            assert all(isinstance(result, Removed) and result.ok for result in results)
            assert await check_present_many(remote, [KEY, WORM]) == [False, False]
            assert await remote.remove_content_many([]) == []

    async def test_a_removal_happens_before_its_deadline_and_not_after(self) -> None:
        clock = HandClock()
        async with self.holding(KEY, clock=clock) as remote:
            for late in (clock.now() - 5, clock.now(), clock.now() + MAX_REMOVAL_AHEAD + 2):
                assert not await removed(remote, KEY, Deadline(late))
                assert await remote.check_present(KEY)
                if isinstance(remote, BatchRemove):
                    (result,) = await remote.remove_content_many([KEY], deadline=Deadline(late))
                    assert not result.ok
                    assert result.failed

            assert await removed(remote, KEY, Deadline(clock.now() + 500)) == self.deadlines
            assert await remote.check_present(KEY) != self.deadlines

    # -- locks ----------------------------------------------------------------------------------------

    async def test_locked_content_stays_until_every_lock_is_released(self) -> None:
        clock = HandClock()
        async with self.holding(KEY, clock=clock) as remote:
            if not self.locks:
                with pytest.raises((NotLocked, AnnexError)):
                    await remote.lock_content(KEY).__aenter__()
                return
            async with remote.lock_content(KEY) as first:
                async with remote.lock_content(KEY) as second:
                    assert first.uuid == second.uuid == remote.uuid
                    assert await first.held()
                    assert await second.held()
                    assert clock.now() < first.expires <= clock.now() + LOCK_RETENTION
                    assert await read(remote, KEY) == CONTENT
                assert not await removed(remote, KEY)
                assert await remote.check_present(KEY)
                assert await first.held()
            assert not await first.held()
            assert await removed(remote, KEY) == self.locks_overlap

    async def test_a_lock_that_was_left_with_an_error_is_released(self) -> None:
        async with self.holding(KEY) as remote:
            if self.locks:
                with pytest.raises(ZeroDivisionError):
                    async with remote.lock_content(KEY):
                        raise ZeroDivisionError
            assert await removed(remote, KEY)

    async def test_absent_content_cannot_be_locked(self) -> None:
        async with self.remote(HandClock()) as remote:
            with pytest.raises(NotLocked):
                async with remote.lock_content(KEY):
                    pass
            assert (await store(remote, KEY, CONTENT)).ok

    # -- many at once, and giving up ------------------------------------------------------------------

    async def test_tasks_do_not_get_in_each_others_way(self) -> None:
        async def one(remote: Remote, number: int) -> None:
            content = content_of(number, 20_000 + number)
            key = key_of(content)
            assert (await store(remote, key, content, piece=7001)).ok
            assert await remote.check_present(key)
            assert await read(remote, key, number) == content[number:]
            assert (await remote.remove_content(key)).ok
            assert not await remote.check_present(key)

        async with self.remote(HandClock()) as remote, anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, remote, number)

    @pytest.mark.parametrize("what", ["check", "many", "get", "put", "put a lot", "lock", "remove"])
    async def test_cancelling_at_any_await_leaves_a_remote_that_works(self, what: str) -> None:
        large = content_of(8, 200_000)
        other = key_of(content_of(1))

        async def lock(remote: Remote) -> None:
            if self.locks:
                async with remote.lock_content(KEY) as copy:
                    await copy.held()

        works: dict[str, Callable[[Remote], Awaitable[object]]] = {
            "check": lambda remote: remote.check_present(KEY),
            "many": lambda remote: check_present_many(remote, [KEY, WORM]),
            "get": lambda remote: read(remote, KEY),
            "put": lambda remote: self._put(remote, other, content_of(1)),
            "put a lot": lambda remote: self._put(remote, key_of(large), large),
            "lock": lock,
            "remove": lambda remote: remote.remove_content(WORM),
        }
        async with self.holding(KEY) as remote:
            for awaits in range(self.patient_cancel):
                done = False

                async def work() -> None:
                    nonlocal done
                    await works[what](remote)
                    done = True

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work)
                    for _ in range(awaits):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
                with anyio.fail_after(10):
                    assert await remote.check_present(KEY)
                    assert await read(remote, KEY) == CONTENT
                if done and awaits > 3:
                    break
            if what.startswith("put"):
                key, content = (other, content_of(1)) if what == "put" else (key_of(large), large)
                await self._put(remote, key, content)
                assert await read(remote, key) == content
            await self._unlocked(remote)

    @staticmethod
    async def _put(remote: Remote, key: Key, content: bytes) -> None:
        for _ in range(200):
            try:
                async with remote.put(key) as upload:
                    if upload.already is None:
                        await upload.start(len(content) - upload.offset)
                        for start in range(upload.offset, len(content), 50_000):
                            await upload.write(content[start : start + 50_000])
                        await upload.finish()
                return
            except AnnexError:
                await checkpoint()  # the far side may still be busy with a put that was given up
        raise AssertionError("the put of a key is stuck")

    async def _unlocked(self, remote: Remote) -> None:
        """No lock was left behind, though the far side may hear of the end of one a little later."""
        for _ in range(200):
            if await removed(remote, KEY):
                return
            await checkpoint()
        raise AssertionError("a lock was left behind")
