"""Dialling and listening: names in errors, time-outs, TCP_NODELAY, rights of a unix socket."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import stat
from pathlib import Path

import anyio
import pytest

from annexpy.errors import ConnectFailed, TimedOut
from annexpy.transport.base import Transport
from annexpy.transport.sockets import DialTCP, DialUnix, listen_tcp, listen_unix, over_socket

pytestmark = pytest.mark.anyio


async def test_nobody_listening_is_told_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match=r"unix:.*/absent: No such file"):
        await DialUnix(str(tmp_path / "absent"))()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(ConnectFailed, match=rf"tcp:127\.0\.0\.1:{port}.*refused"):
            await DialTCP("127.0.0.1", port)()
    with pytest.raises(ConnectFailed, match=r"tcp:nowhere\.invalid:1"):
        await DialTCP("nowhere.invalid", 1)()


async def test_a_listener_with_a_full_queue_is_a_time_out_not_a_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen(0)
        first = await DialUnix(path)()
        with pytest.raises(TimedOut, match=r"no connection within 0\.2 s"):
            await DialUnix(path, timeout=0.2)()
        await first.aclose()


async def test_both_ends_of_a_tcp_connection_send_small_messages_at_once() -> None:
    seen = []

    async with await listen_tcp() as listener:
        # A listening socket made by hand is exactly the case in which asyncio would forget it.
        client = socket.create_connection(listener.address)  # type: ignore[arg-type]
        accepted = await listener.accept()
        ours = over_socket(client, "listener")
        for transport in (ours, accepted):
            fd = transport._read_fd  # type: ignore[attr-defined]
            with socket.socket(fileno=os.dup(fd)) as sock:
                seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await transport.aclose()

    assert seen == [1, 1]


async def test_a_unix_socket_is_for_its_owner_alone_unless_told_otherwise(tmp_path: Path) -> None:
    async with await listen_unix(str(tmp_path / "own")):
        assert stat.S_IMODE(os.stat(tmp_path / "own").st_mode) == 0o600
    async with await listen_unix(str(tmp_path / "group"), mode=0o660):
        assert stat.S_IMODE(os.stat(tmp_path / "group").st_mode) == 0o660
    assert os.listdir(tmp_path) == []


async def test_a_path_is_taken_over_only_from_a_dead_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    async with await listen_unix(path):
        with pytest.raises(ConnectFailed, match="in use"):
            await listen_unix(path)
        await (await DialUnix(path)()).aclose()

    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConnectFailed, match="in use"):
        await listen_unix(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


async def test_each_connection_is_served_by_a_task_and_closed_afterwards(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def shout(transport: Transport) -> None:
        await transport.send((await transport.receive()).upper())

    async with await listen_unix(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, shout)
        clients = [await DialUnix(path)() for _ in range(20)]
        for number, client in reversed(list(enumerate(clients))):
            await client.send(b"hello %d" % number)
            assert await client.receive() == b"HELLO %d" % number
            assert await client.receive() == b""
            await client.aclose()
        tasks.cancel_scope.cancel()


async def test_running_out_of_descriptors_delays_a_connection_and_does_not_end_the_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with await listen_unix(path) as listener, anyio.create_task_group() as tasks:
        client = await DialUnix(path)()
        got: list[Transport] = []

        async def accept() -> None:
            got.append(await listener.accept())

        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            tasks.start_soon(accept)
            with anyio.move_on_after(0.05):
                await client.receive()
            assert not got
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with anyio.fail_after(5):
            while not got:
                await anyio.sleep(0.01)
        await got[0].send(b"here")
        assert await client.receive() == b"here"
        await got[0].aclose()
        await client.aclose()


def test_a_dial_is_a_value_that_pickles_and_says_its_address() -> None:
    for dial, text in ((DialUnix("/run/annex"), "unix:/run/annex"), (DialTCP("::1", 7), "tcp:[::1]:7")):
        assert pickle.loads(pickle.dumps(dial)) == dial
        assert str(dial) == text
