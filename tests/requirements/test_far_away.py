"""Presence of many keys far away: what counts is how often an answer is waited for, and that is seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
from places import Place, content_of, key_of
from server_under_load import Served, serve_http, serve_unix

from annexpy.keys.key import Key
from annexpy.remote.base import Remote, check_present_many
from annexpy.remote.http import HTTPRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.transport.sockets import DialUnix

pytestmark = pytest.mark.slow

DELAY = 0.05
"""Seconds each way."""
WINDOW = 4 * 1024 * 1024
"""Bytes on their way in one direction of one connection."""
Serve: TypeAlias = Callable[[Place, Path], AbstractContextManager[Served]]


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Everything arrives ``DELAY`` after it was sent, in order, however much there is."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW // 65536)

    async def take() -> None:
        chunk = b"?"
        while chunk:
            with suppress(ConnectionError):
                chunk = await source.read(65536)
            await under_way.put((loop.time() + DELAY, chunk))

    taking = asyncio.create_task(take())
    try:
        while (due := await under_way.get())[1]:
            await asyncio.sleep(due[0] - loop.time())
            target.write(due[1])
            await target.drain()
    except ConnectionError:
        pass  # the other side has left
    finally:
        taking.cancel()
        target.close()


@asynccontextmanager
async def far(served: Served, path: Path) -> AsyncIterator[list[int]]:
    """A relay at *path*; how many connections went through it."""
    connections = [0]

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        if served.port:
            behind, onward = await asyncio.open_connection("127.0.0.1", served.port)
        else:
            behind, onward = await asyncio.open_unix_connection(served.socket)
        await asyncio.gather(carry(reader, onward), carry(behind, writer))

    relay = await asyncio.start_unix_server(one, str(path))
    try:
        yield connections
    finally:
        relay.close()


@pytest.mark.parametrize(("count", "seconds"), [(10_000, 10), pytest.param(100_000, 60, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("serve", [pytest.param(serve_unix, id="unix"), pytest.param(serve_http, id="http")])
def test_presence_of_many_keys_is_known_soon(serve: Serve, count: int, seconds: float, tmp_path: Path) -> None:
    contents = [content_of(number, 20) for number in range(count // 100)]
    place = Place.make(tmp_path / "place", contents)
    there = {key_of(content) for content in contents}
    keys = [*there, *(Key(b"SHA256", b"%064x" % number, 20) for number in range(count - len(there)))]
    keys.sort(key=lambda key: key.raw[-64:])

    async def work() -> tuple[float, list[bool], int]:
        relay = tmp_path / "relay"
        async with far(served, relay) as connections:
            if served.port:
                url = f"annex+http://127.0.0.1:{served.port}/git-annex/{place.uuid}"
                remote: Remote = HTTPRemote(url, uuid=place.uuid, dial=DialUnix(str(relay)))
            else:
                remote = P2PRemote(DialUnix(str(relay)), uuid=place.uuid)
            begun = time.monotonic()
            found = [*await check_present_many(remote, keys)]
            took = time.monotonic() - begun
            await remote.aclose()
            return took, found, connections[0]

    with serve(place, tmp_path / "socket") as served:
        took, found, connections = anyio.run(work)
    print(f"{count} keys in {took:.2f} s over {connections} connections")
    assert found == [key in there for key in keys]
    assert took < seconds
    assert connections <= 16
