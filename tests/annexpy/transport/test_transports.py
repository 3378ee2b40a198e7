"""What every transport promises, asked of every transport we have."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from annexpy.errors import ConnectionLost
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.memory import Cut, memory_pair
from annexpy.transport.pipe import stdio
from annexpy.transport.sockets import DialTCP, DialUnix, listen_tcp, listen_unix, over_socket

pytestmark = pytest.mark.anyio

Pair = AbstractAsyncContextManager[tuple[Transport, Transport]]


@contextlib.asynccontextmanager
async def closing(*ends: Transport) -> AsyncIterator[tuple[Transport, Transport]]:
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.aclose()


@contextlib.asynccontextmanager
async def unix(tmp_path: Path) -> AsyncIterator[tuple[Transport, Transport]]:
    path = str(tmp_path / "s")
    async with await listen_unix(path) as listener:
        client = await DialUnix(path)()
        async with closing(client, await listener.accept()) as ends:
            yield ends


@contextlib.asynccontextmanager
async def tcp(tmp_path: Path) -> AsyncIterator[tuple[Transport, Transport]]:
    async with await listen_tcp() as listener:
        host, port = listener.address
        client = await DialTCP(str(host), int(port))()
        async with closing(client, await listener.accept()) as ends:
            yield ends


def socketpair(tmp_path: Path) -> Pair:
    one, other = socket.socketpair()
    return closing(over_socket(one, "other"), over_socket(other, "one"))


def pipes(tmp_path: Path) -> Pair:
    there_read, there_write = os.pipe()
    back_read, back_write = os.pipe()
    return closing(
        stdio(read_fd=back_read, write_fd=there_write),
        stdio(read_fd=there_read, write_fd=back_write),
    )


def stdio_sockets(tmp_path: Path) -> Pair:
    one, other = socket.socketpair()
    with one, other:
        ours, theirs = one.detach(), other.detach()
    return closing(stdio(read_fd=ours, write_fd=ours), stdio(read_fd=theirs, write_fd=theirs))


def memory(tmp_path: Path) -> Pair:
    return closing(*memory_pair())


def memory_bytewise(tmp_path: Path) -> Pair:
    return closing(*memory_pair(split=3))


@pytest.fixture(params=[unix, tcp, socketpair, pipes, stdio_sockets, memory, memory_bytewise], ids=lambda f: f.__name__)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    make: Callable[[Path], Pair] = request.param
    return make(tmp_path)


@pytest.fixture
def body(request: pytest.FixtureRequest) -> bytes:
    """More than all buffers on the way hold."""
    return os.urandom(CHUNK + 17 if "memory" in request.node.callspec.id else 3 * 1024 * 1024 + 17)


async def receive_all(transport: Transport) -> bytes:
    found = []
    while data := await transport.receive():
        found.append(data)
    return b"".join(found)


async def receive_exactly(transport: Transport, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = await transport.receive()
        assert data, found
        found += data
    return found


async def pour(transport: Transport, chunk: bytes = bytes(CHUNK)) -> NoReturn:
    while True:
        await transport.send(chunk)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Let the loop run until the news has arrived."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_what_was_sent_before_a_close_arrives_and_then_the_stream_ends(pair: Pair) -> None:
    async with pair as (one, other):
        await one.send(b"hello ")
        await one.send(b"world\n")
        await one.aclose()

        assert await receive_all(other) == b"hello world\n"
        assert other.at_eof
        assert other.has_input
        assert await other.receive() == b""


async def test_a_receive_gives_immutable_bytes_and_no_more_than_asked(pair: Pair) -> None:
    async with pair as (one, other):
        await one.send(b"0123456789")

        first = await other.receive(4)

        assert type(first) is bytes
        assert 1 <= len(first) <= 4
        assert first + await receive_exactly(other, 10 - len(first)) == b"0123456789"


async def test_more_than_all_buffers_travels_both_ways_at_once(pair: Pair, body: bytes) -> None:
    got: dict[str, bytes] = {}

    async def talk(name: str, end: Transport) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end.send, body)
            got[name] = await receive_exactly(end, len(body))

    async with pair as (one, other):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk, "one", one)
            tasks.start_soon(talk, "other", other)

    assert got["one"] == body
    assert got["other"] == body


async def test_send_waits_while_the_peer_does_not_read(pair: Pair) -> None:
    async with pair as (one, _):
        with anyio.move_on_after(0.2) as scope:
            await pour(one)

        assert scope.cancelled_caught
        with pytest.raises(ConnectionLost):
            await one.send(b"never after half a message")


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    async with pair as (one, other):
        for size in range(1, 30):
            found = b""
            async with anyio.create_task_group() as tasks:

                async def impatient() -> None:
                    nonlocal found
                    found += await other.receive()

                tasks.start_soon(impatient)
                for _ in range(size % 5):
                    await anyio.lowlevel.checkpoint()
                await one.send(b"x" * size)
                for _ in range(size % 3):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

            assert found + await receive_exactly(other, size - len(found)) == b"x" * size


async def test_a_peer_that_left_is_noticed_while_nobody_receives(pair: Pair) -> None:
    async with pair as (one, other):
        assert not one.at_eof
        assert not one.has_input
        await other.aclose()

        await wait_for(lambda: one.at_eof)

        assert one.has_input


async def test_input_is_noticed_while_nobody_receives(pair: Pair) -> None:
    async with pair as (one, other):
        await other.send(b"ERROR early\n")

        await wait_for(lambda: one.has_input)

        assert await receive_exactly(one, 12) == b"ERROR early\n"


async def test_sending_to_a_peer_that_left_is_a_lost_connection_and_its_words_are_still_heard(pair: Pair) -> None:
    async with pair as (one, other):
        await other.send(b"ERROR no\n")
        await other.aclose()

        with pytest.raises(ConnectionLost), anyio.fail_after(5):
            await pour(one)

        assert await receive_exactly(one, 9) == b"ERROR no\n"


async def test_last_words_go_out_when_the_loop_has_its_turn(pair: Pair) -> None:
    async with pair as (one, other):
        one.send_soon(b"SUCCESS\n")
        with anyio.fail_after(5):
            assert await receive_exactly(other, 8) == b"SUCCESS\n"


async def test_last_words_go_before_what_is_sent_next(pair: Pair) -> None:
    async with pair as (one, other):
        one.send_soon(b"SUCC")
        one.send_soon(b"ESS\n")
        await one.send(b"GET\n")
        assert await receive_exactly(other, 12) == b"SUCCESS\nGET\n"


async def test_last_words_are_said_before_closing(pair: Pair) -> None:
    async with pair as (one, other):
        one.send_soon(b"UNLOCKCONTENT\n")
        await one.aclose()
        one.send_soon(b"too late")
        assert await receive_all(other) == b"UNLOCKCONTENT\n"


async def test_last_words_to_a_peer_that_left_hurt_nobody(pair: Pair) -> None:
    async with pair as (one, other):
        await other.aclose()
        for _ in range(3):
            one.send_soon(b"SUCCESS\n")
            for _ in range(5):
                await anyio.lowlevel.checkpoint()


async def test_closing_is_idempotent_and_wakes_the_receiver(pair: Pair) -> None:
    async with pair as (one, _):

        async def receiver() -> None:
            with pytest.raises(ConnectionLost):
                await one.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receiver)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            await one.aclose()
            await one.aclose()
        with pytest.raises(ConnectionLost):
            await one.send(b"x")
        with pytest.raises(ConnectionLost):
            await one.receive()


async def test_no_file_descriptor_is_left(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for make in (unix, tcp, socketpair, pipes, stdio_sockets):
        async with make(tmp_path) as (one, other):
            await one.send(b"x")
            await other.receive()

    assert len(os.listdir("/proc/self/fd")) == before


async def test_other_tasks_get_their_turn_during_a_bulk_transfer(tmp_path: Path) -> None:
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with unix(tmp_path) as (one, other):
        async with anyio.create_task_group() as tasks:

            async def pour() -> None:
                for _ in range(64):
                    await one.send(bytes(CHUNK))
                await one.aclose()

            tasks.start_soon(bystander)
            tasks.start_soon(pour)
            size = 0
            while data := await other.receive():
                size += len(data)
            tasks.cancel_scope.cancel()

    assert size == 64 * CHUNK
    assert turns > 8


async def test_lockstep_returns_from_send_only_when_everything_was_received() -> None:
    one, other = memory_pair(lockstep=True, split=2)
    log = []
    async with closing(one, other), anyio.create_task_group() as tasks:

        async def sender() -> None:
            await one.send(b"abcd")
            log.append("sent")

        tasks.start_soon(sender)
        for _ in range(2):
            log.append((await other.receive()).decode())

    assert log == ["ab", "cd", "sent"]


@pytest.mark.parametrize("after", range(8))
async def test_a_cut_loses_the_connection_after_exactly_that_many_bytes(after: int) -> None:
    one, other = memory_pair()
    cut = Cut(one, sent=after)
    async with closing(cut, other):
        with pytest.raises(ConnectionLost):
            await pour(cut, b"12"[: 1 + after % 2])
        assert len(await receive_all(other)) == after
        assert cut.at_eof
        assert await cut.receive() == b""


async def test_a_cut_towards_us_ends_the_stream_or_resets_it() -> None:
    for reset in (False, True):
        one, other = memory_pair()
        cut = Cut(one, received=3, reset=reset)
        async with closing(cut, other):
            await other.send(b"12345")
            assert await receive_exactly(cut, 3) == b"123"
            if reset:
                with pytest.raises(ConnectionLost):
                    await cut.receive()
            else:
                assert await cut.receive() == b""
            assert other.at_eof
