"""Channel data by the shorter way through asyncssh, against a real sshd: every byte arrives, and every check stands."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from annexpy.transport import ssh as ssh_module
from annexpy.transport import ssh_packets
from annexpy.transport.ssh import DialSSH
from annexpy.transport.ssh_channel import SSHTransport

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

BODY = os.urandom(1_500_000)


@asynccontextmanager
async def echo(sshd) -> AsyncIterator[SSHTransport]:
    transport = await DialSSH(sshd.host, "cat")()
    try:
        yield transport
    finally:
        await transport.aclose()


async def receive_exactly(transport: SSHTransport, size: int) -> bytes:
    found = bytearray()
    with anyio.fail_after(30):
        while len(found) < size:
            data = await transport.receive()
            assert data, (len(found), transport.complaint)
            found += data
    return bytes(found)


async def there_and_back(transport: SSHTransport, body: bytes) -> bytes:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.send, body)
        return await receive_exactly(transport, len(body))


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[object, bytes], list[bytes]]], None]:
    """Have what a connection receives pass a function first."""
    import asyncssh.connection

    real = asyncssh.connection.SSHConnection.data_received

    def install(passing: Callable[[object, bytes], list[bytes]]) -> None:
        def data_received(self: object, data: bytes, datatype: int | None = None) -> None:
            for piece in passing(self, data):
                real(self, piece, datatype)

        monkeypatch.setattr(asyncssh.connection.SSHConnection, "data_received", data_received)

    return install


async def test_asyncssh_itself_sees_no_data_in_either_direction(sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh.connection

    kinds: list[int] = []
    for name in ("log_received_packet", "log_sent_packet"):
        monkeypatch.setattr(asyncssh.connection.SSHConnection, name, lambda self, kind, *rest: kinds.append(kind))
        monkeypatch.setattr(asyncssh.channel.SSHChannel, name, lambda self, kind, *rest: kinds.append(kind))
    async with echo(sshd) as cat:
        assert await there_and_back(cat, BODY) == BODY
        for size in range(1, 70):  # every length of padding
            assert await there_and_back(cat, BODY[:size]) == BODY[:size]
        assert kinds.count(ssh_packets._DATA) == 0
        assert kinds.count(93) == 0  # nor that the window is open again
        assert kinds.count(98)  # while it still sees what else there is


@pytest.mark.parametrize("most", [3, 17, 5000, 70_000])
async def test_packets_may_come_in_pieces_of_any_size(sshd, received, most: int) -> None:
    chance = random.Random(most)

    def in_pieces(_: object, data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size = chance.randint(1, most)
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    received(in_pieces)
    body = BODY[: min(len(BODY), 5000 * most)]
    async with echo(sshd) as cat:
        assert await there_and_back(cat, body) == body


async def test_keys_are_exchanged_again_in_the_middle(sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh.connection

    exchanges: list[int] = []
    options = ssh_module._options
    log = asyncssh.connection.SSHConnection.log_sent_packet

    def logged(self: object, kind: int, *rest: object) -> None:
        if kind == asyncssh.constants.MSG_NEWKEYS:
            exchanges.append(kind)
        log(self, kind, *rest)

    monkeypatch.setattr(asyncssh.connection.SSHConnection, "log_sent_packet", logged)
    monkeypatch.setattr(ssh_module, "_options", lambda *given: options(*given) | {"rekey_bytes": 100_000})
    async with echo(sshd) as cat:
        assert await there_and_back(cat, BODY) == BODY
        assert await there_and_back(cat, b"small") == b"small"
    assert len(exchanges) > 3


@pytest.mark.parametrize("place", [0, 3, 4, 40, -1])
async def test_a_forged_packet_ends_the_connection_and_nothing_of_it_is_heard(sshd, received, place: int) -> None:
    forging = False

    def forged(_: object, data: bytes) -> list[bytes]:
        if not forging:
            return [data]
        changed = bytearray(data)
        changed[place] ^= 1
        return [bytes(changed)]

    received(forged)
    async with echo(sshd) as cat:
        assert await there_and_back(cat, b"meow") == b"meow"
        forging = True
        await cat.send(b"x" * 100)
        heard = b""
        with anyio.move_on_after(2) as waiting:
            heard = await cat.receive()
        assert not heard
        # A length that became greater can be that of a packet that is not complete yet.
        assert not waiting.cancelled_caught or place == 3


async def test_an_asyncssh_of_another_make_does_without() -> None:
    class Bare:
        __slots__ = ()

    ssh_packets.receive_quickly(Bare())
    ssh_packets.send_quickly(Bare(), Bare())


async def test_much_that_comes_is_looked_at_now_and_then_until_we_say_something(
    sshd, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[int] = []
    came = ssh_packets._Stream.came

    def counted(self, size: int) -> None:
        reading = self._connection._transport.is_reading()
        came(self, size)
        if reading and not self._connection._transport.is_reading():
            paused.append(size)

    monkeypatch.setattr(ssh_packets._Stream, "came", counted)
    (tmp_path / "some").write_bytes(BODY[:65536])
    # Not more at a time than a busy reader has read before the next of them comes.
    transport = await DialSSH(sshd.host, f"for _ in $(seq 50); do cat {tmp_path / 'some'}; sleep 0.01; done; cat")()
    try:
        assert await receive_exactly(transport, 50 * 65536) == 50 * BODY[:65536]
        assert paused
        for number in range(3):
            await transport.send(b"%d" % number)
            assert await receive_exactly(transport, 1) == b"%d" % number
            paused.clear()
        await transport.send(b"more")
        assert await receive_exactly(transport, 4) == b"more"
        assert not paused
    finally:
        await transport.aclose()


async def test_a_connection_that_is_closed_while_it_is_not_looked_at_ends(sshd, tmp_path) -> None:
    (tmp_path / "much").write_bytes(BODY * 6)
    transport = await DialSSH(sshd.host, f"cat {tmp_path / 'much'}")()
    await receive_exactly(transport, 3 * len(BODY))
    with anyio.fail_after(30):
        await transport.aclose()
    assert transport.at_eof
