"""Large bodies that a thread sends or gathers: nothing is lost, also when the task in whose name it works goes away."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from annexpy.errors import ConnectionLost
from annexpy.transport.base import CHUNK, SendsFiles, Transport
from annexpy.transport.bulk import Gathering, Own
from annexpy.transport.sockets import over_socket

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PACKET = 32 * 1024
BODY = os.urandom(1 << 20) * 8


@asynccontextmanager
async def poured(body: bytes, last: bytes = b"") -> AsyncIterator[Transport]:
    """Somebody sends *body* in packets as sshd does, then *last*, and hangs up."""
    ours, theirs = socket.socketpair()

    def pour() -> None:
        with theirs:
            try:
                for at in range(0, len(body), PACKET):
                    theirs.sendall(body[at : at + PACKET])
                theirs.sendall(last)
            except OSError:
                return  # whoever was to read it has gone

    transport = over_socket(ours, "sshd")
    sender = threading.Thread(target=pour)
    sender.start()
    try:
        yield transport
    finally:
        await transport.aclose()
        await anyio.to_thread.run_sync(sender.join)


async def test_a_stream_that_flows_arrives_whole_and_its_end_is_heard() -> None:
    async with poured(BODY, b"VALID\n") as transport:
        found, most = [], 0
        while data := await transport.receive():
            found.append(data)
            most = max(most, len(data))

        assert b"".join(found) == BODY + b"VALID\n"
        assert PACKET < most <= CHUNK
        assert transport.at_eof


async def test_a_cancelled_receive_of_a_stream_that_flows_loses_nothing() -> None:
    found = b""
    async with poured(BODY) as transport:
        for turn in range(1 << 20):
            with anyio.move_on_after(0.0003 * (turn % 4)):
                data = await transport.receive()
                if not data:
                    break
                found += data

    assert found == BODY


async def test_after_a_cancellation_that_waited_for_no_thread_nothing_is_left_out() -> None:
    """As by ``asyncio.wait_for``: what the thread read is gone, so nothing that came after it may be taken for it."""
    broken = 0
    for turn in range(60):
        found = b""
        async with poured(BODY[: 4 << 20]) as transport:
            while len(found) < 2 << 20:
                found += await transport.receive()
            task = asyncio.ensure_future(transport.receive())
            for _ in range(turn % 6):
                await asyncio.sleep(0)
            task.cancel()
            try:
                found += await task
            except asyncio.CancelledError:
                pass
            try:
                while data := await transport.receive():
                    found += data
                assert found == BODY[: 4 << 20]
            except ConnectionLost:
                broken += 1
                assert BODY.startswith(found)
    assert broken < 60


async def test_a_peer_that_left_after_a_stream_is_noticed_while_nobody_receives() -> None:
    async with poured(BODY) as transport:
        left = len(BODY)
        while left:
            left -= len(await transport.receive(min(left, CHUNK)))

        with anyio.fail_after(5):
            while not transport.at_eof:
                await anyio.lowlevel.checkpoint()


async def test_a_thread_that_outlives_its_task_meets_no_other_file(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(4 << 20))
    other = tmp_path / "other"
    for _ in range(20):
        ours, theirs = socket.socketpair()
        transport = over_socket(ours, "peer")
        assert isinstance(transport, SendsFiles)
        with theirs, content.open("rb") as file:
            task = asyncio.ensure_future(transport.send_file(file.fileno(), 0, 4 << 20))
            await asyncio.sleep(0.0005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await transport.aclose()
        with other.open("wb"):  # under the number that was the socket's
            await asyncio.sleep(0.001)
        assert other.read_bytes() == b""


async def test_what_is_called_off_reads_nothing_and_what_has_begun_cannot_be() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"still there")
        late, early = Gathering(ours.fileno()), Gathering(ours.fileno())

        assert late.call_off()
        assert late.run(100) == b""
        assert early.run(11) == b"still there"
        assert not early.call_off()


async def test_a_number_of_its_own_is_given_back_by_whoever_holds_it_last() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        own = Own(ours.fileno())
        ours.close()
        os.fstat(number := own.fd)
        del own

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
