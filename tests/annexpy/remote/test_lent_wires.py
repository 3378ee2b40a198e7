"""Wires that are lent while an answer is still to come, and wires that somebody waits for in place of a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint
from peers import Step, scripted
from remote_contract import CONTENT, KEY, A, HandClock, content_of, key_of, store

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectionLost, TimedOut, VerificationFailed
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.wire import Wire
from annexpy.server.serve import serve
from annexpy.transport.base import CHUNK
from annexpy.transport.memory import MemoryTransport, memory_pair
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

STORED = Stored(uuids=frozenset((UUID(A),)))
OTHER = content_of(1)
LARGE = content_of(2, 200_000)
PUT: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID"]
BEHIND: list[Step] = ["< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", "< SUCCESS"]


async def both(remote: P2PRemote, *works: Callable[[], Awaitable[object]]) -> list[object]:
    """What became of each of *works*, all begun at once, in order."""
    ended: list[object] = [None] * len(works)

    async def run(number: int, work: Callable[[], Awaitable[object]]) -> None:
        try:
            ended[number] = await work()
        except AnnexError as error:
            ended[number] = error

    async with anyio.create_task_group() as tasks:
        for number, work in enumerate(works):
            tasks.start_soon(run, number, work)
            for _ in range(5):
                await checkpoint()
    return ended


def two_puts(remote: P2PRemote) -> tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]:
    return lambda: store(remote, KEY, CONTENT), lambda: store(remote, key_of(OTHER), OTHER)


async def test_the_next_put_is_asked_for_before_the_result_of_the_last_is_there() -> None:
    async with scripted([*PUT, "> PUT", "< SUCCESS", *BEHIND], connections=1) as (remote, _):
        assert await both(remote, *two_puts(remote)) == [STORED, STORED]


async def test_large_contents_lend_their_wire_too() -> None:
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 200000", ">> 200000", "> VALID", "> PUT", "< SUCCESS"]
    async with scripted([*script, *BEHIND], connections=1) as (remote, _):
        works = (lambda: store(remote, key_of(LARGE), LARGE, piece=50_000), lambda: store(remote, KEY, CONTENT))
        assert await both(remote, *works) == [STORED, STORED]


async def test_what_is_said_of_one_is_not_said_of_the_next() -> None:
    async with scripted([*PUT, "> PUT", "< FAILURE", *BEHIND], connections=1) as (remote, _):
        first, second = await both(remote, *two_puts(remote))
        assert isinstance(first, VerificationFailed)
        assert second == STORED


async def test_a_lost_result_is_an_unknown_outcome_and_the_next_put_goes_over_a_new_wire() -> None:
    async with scripted([*PUT, "> PUT", "hang up"], ["> PUT", *BEHIND], connections=1) as (remote, _):
        first, second = await both(remote, *two_puts(remote))
        assert isinstance(first, ConnectionLost)
        assert second == STORED


async def test_an_answer_that_makes_no_sense_spoils_the_wire_for_the_next() -> None:
    async with scripted([*PUT, "> PUT", "< TIMESTAMP 4"], ["> PUT", *BEHIND], connections=1) as (remote, _):
        first, second = await both(remote, *two_puts(remote))
        assert isinstance(first, AnnexError)
        assert second == STORED


async def test_who_gives_up_a_lent_wire_does_not_cost_the_other_his_answer() -> None:
    asked = anyio.Event()
    async with scripted([*PUT, "> PUT", asked.set, 0.05, "< SUCCESS"], connections=1) as (remote, _):
        ended: list[object] = []

        async def first() -> None:
            ended.append(await store(remote, KEY, CONTENT))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            for _ in range(5):
                await checkpoint()
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(store, remote, key_of(OTHER), OTHER)
                await asked.wait()
                cancelled.cancel_scope.cancel()
            assert not ended
        assert ended == [STORED]


async def test_who_lent_a_wire_and_gives_up_sends_the_next_to_a_new_one() -> None:
    asked = anyio.Event()
    async with scripted([*PUT, "> PUT", asked.set, "deaf"], ["> PUT", *BEHIND], connections=1) as (remote, _):
        ended: list[object] = []

        async def second() -> None:
            ended.append(await store(remote, key_of(OTHER), OTHER))

        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(store, remote, KEY, CONTENT)
                for _ in range(5):
                    await checkpoint()
                tasks.start_soon(second)
                await asked.wait()
                cancelled.cancel_scope.cancel()
        assert ended == [STORED]


async def test_a_pool_that_is_closed_leaves_the_answer_that_is_owed() -> None:
    asked = anyio.Event()
    async with scripted([*PUT, "> PUT", asked.set, "< SUCCESS", *BEHIND], connections=1) as (remote, _):
        ended: list[object] = []

        async def put(content: bytes) -> None:
            ended.append(await store(remote, key_of(content), content))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, CONTENT)
            for _ in range(5):
                await checkpoint()
            tasks.start_soon(put, OTHER)
            await asked.wait()
            await remote.aclose()
        assert ended == [STORED, STORED]


LOCKS: list[Step] = ["> LOCKCONTENT", "< SUCCESS", "> UNLOCKCONTENT"]


async def test_where_a_wire_is_dear_a_third_one_waits_for_one_to_come_back() -> None:
    async with scripted([*LOCKS], [*LOCKS, *LOCKS], price=60.0) as (remote, _):
        done = anyio.Event()

        async def third() -> None:
            async with remote.lock_content(KEY):
                pass
            done.set()

        async with anyio.create_task_group() as tasks, remote.lock_content(KEY):
            async with remote.lock_content(KEY):
                tasks.start_soon(third)
                for _ in range(5):
                    await checkpoint()
            await done.wait()


SLOW_PUT: list[Step] = ["> PUT", 0.02, "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", 0.02, "< SUCCESS"]


@pytest.mark.parametrize("version", [4, 2])
async def test_who_takes_a_lent_wire_and_asks_nothing_leaves_the_other_his_answer(version: int) -> None:
    greeting: list[Step] = ["> VERSION 4", f"< AUTH-SUCCESS {A}", f"< VERSION {version}"]
    again: list[Step] = ["> CHECKPRESENT", "< SUCCESS"]
    async with scripted(
        [*greeting, *LOCKS], [*greeting, *SLOW_PUT, *again], greet=False, price=60.0, clock=HandClock()
    ) as (remote, _):

        async def asks_nothing() -> object:
            if version == 4:
                return await remote.connect()
            # A peer of version 2 knows no deadlines, so it is not asked.
            return (await remote.remove_content(KEY, deadline=Deadline(1010.0))).ok

        async with remote.lock_content(KEY):
            ended = await both(remote, lambda: store(remote, KEY, CONTENT), asks_nothing)
            assert ended == [STORED, UUID(A) if version == 4 else False]
            assert await remote.check_present(KEY)  # over the same wire


async def test_one_who_asks_takes_a_lent_wire_that_another_gave_back() -> None:
    script: list[Step] = [*SLOW_PUT[:-2], "> CHECKPRESENT", "< SUCCESS", "< SUCCESS"]
    async with scripted([*LOCKS], script, price=60.0) as (remote, _):

        async def asks_nothing_first() -> object:
            await remote.connect()
            return await remote.check_present(KEY)

        async with remote.lock_content(KEY):
            ended = await both(remote, lambda: store(remote, KEY, CONTENT), asks_nothing_first)
            assert ended == [STORED, True]


async def test_the_wire_of_a_content_that_takes_long_to_hash_is_not_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever came next would wait behind that."""
    monkeypatch.delattr(Wire, "lend")
    script: list[Step] = ["> PUT", "< PUT-FROM 99999900", "> DATA 100", ">> 100", "> VALID", "< SUCCESS"]
    key = Key.parse(b"SHA256-s100000000--" + b"0" * 64)
    async with scripted([*script, "> PUT", *BEHIND], connections=1) as (remote, _):

        async def resumed() -> object:
            async with remote.put(key) as upload:
                await upload.start(100)
                await upload.write(CONTENT)
                return await upload.finish()

        assert await both(remote, resumed, lambda: store(remote, KEY, CONTENT)) == [STORED, STORED]


# -- cancelled at every await --


class Counted:
    """A transport that says each time before it waits."""

    def __init__(self, inner: MemoryTransport, waits: Callable[[], object]) -> None:
        self.inner, self._waits, self.closed = inner, waits, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        self._waits()
        return await self.inner.receive(max_bytes)

    async def send(self, data: bytes) -> None:
        self._waits()
        await self.inner.send(data)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


async def stopped_at(nth: int, stopped: int, price: float) -> bool:
    """Three puts and a question over as few wires as may be; whether the *stopped* one was, at the *nth* await."""
    contents, place, scope = [content_of(number) for number in range(3)], MemoryRemote(UUID(A)), anyio.CancelScope()
    opened: list[Counted] = []
    left = nth

    def waits() -> None:
        nonlocal left
        if left == 0:
            scope.cancel()
        left -= 1

    async def dial() -> Counted:
        client, server = memory_pair()
        servers.start_soon(serve, server, place)
        opened.append(Counted(client, waits))
        return opened[-1]

    remote = P2PRemote(dial, uuid=UUID(A), connections=1, price=price)
    ended: list[object] = [None] * 4

    async def run(number: int) -> None:
        with scope if number == stopped else anyio.CancelScope():
            if number == 3:
                ended[number] = await remote.check_present(key_of(contents[0]))
            else:
                ended[number] = await store(remote, key_of(contents[number]), contents[number])

    async with anyio.create_task_group() as servers:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    tasks.start_soon(run, number)
        assert all(ended[number] is not None for number in range(4) if number != stopped), (nth, ended)
        pool = remote._pool
        assert pool._busy == [0, 0, 0]
        assert not pool._hoping
        assert not any(wire.lent or not wire.usable for wire in pool._idle)
        assert len(pool._idle) == sum(not transport.closed for transport in opened)
        await remote.aclose()
        assert all(transport.closed for transport in opened)
    assert all(place.objects[key_of(content)] == content for at, content in enumerate(contents) if at != stopped)
    return scope.cancelled_caught or left < 0


@pytest.mark.parametrize("price", [0.0, 60.0])
@pytest.mark.parametrize("stopped", range(4))
async def test_whoever_is_cancelled_at_any_await_costs_nobody_else_an_answer(stopped: int, price: float) -> None:
    nth = 0
    while await stopped_at(nth, stopped, price):
        nth += 1
        assert nth < 200
    assert nth > 10


class TestInTime:
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, object]]:
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}

    async def test_a_result_that_never_comes_fails_one_put_and_not_the_next(self) -> None:
        async with scripted([*PUT, "> PUT", "deaf"], ["> PUT", *BEHIND], connections=1) as (remote, _):
            first, second = await both(remote, *two_puts(remote))
            assert isinstance(first, TimedOut)
            assert second == STORED

    async def test_who_waits_in_vain_for_a_dear_wire_opens_one(self) -> None:
        async with scripted(LOCKS, LOCKS, LOCKS, price=0.3) as (remote, _):
            before = anyio.current_time()
            async with remote.lock_content(KEY), remote.lock_content(KEY), remote.lock_content(KEY):
                assert anyio.current_time() - before == pytest.approx(0.3)
