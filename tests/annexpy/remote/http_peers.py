"""HTTP servers for tests: ours in the same process, and scripts that answer by hand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from remote_contract import A, HandClock

from annexpy.errors import AnnexError
from annexpy.remote.base import Remote
from annexpy.remote.http import HTTPRemote
from annexpy.server.auth import EVERYTHING, Access, everywhere
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.http_body import BodyReader
from annexpy.transport.http_head import RequestHead, RequestReader
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

OPEN = Access(anonymous=everywhere(EVERYTHING))


def routes_for(*remotes: Remote, access: Access = OPEN, **options) -> Routes:
    known = {remote.uuid: remote for remote in remotes}

    async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        return known.get(uuid)

    return Routes(ShownRepositories((Shown(find),)), access=access, **options)


@asynccontextmanager
async def over_http(
    shown: Remote,
    clock: HandClock,
    *,
    split: int | None = None,
    capacity: int = CHUNK,
    connections: int = 16,
    stock: bool = False,
    access: Access = OPEN,
    **options,
) -> AsyncIterator[HTTPRemote]:
    """*shown*, behind our server and seen through an ``HTTPRemote``; *stock*: it does not say that it is ours."""
    routes = routes_for(shown, access=access, clock=clock)
    async with routes, anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair(split=split, capacity=capacity)
            tasks.start_soon(lambda: routes.connections.serve(server))
            return client

        remote = HTTPRemote(
            "annex+http://far/", uuid=shown.uuid, name="far", clock=clock, connections=connections, deadline=20.0,
            dial=dial, **options,
        )  # fmt: skip
        if stock:
            remote._session.pipelines = False
        remote.routes = routes  # type: ignore[attr-defined]
        yield remote
        await remote.aclose()
        tasks.cancel_scope.cancel()


class Asked:
    """A request as a script sees it."""

    def __init__(self, head: RequestHead, body: bytes) -> None:
        self.head, self.body = head, body
        path = head.target.partition(b"?")[0]
        self.verb = "key" if b"/key/" in path else path.rpartition(b"/")[2].decode()
        match = re.search(rb"/v(\d)/", path)
        self.version = None if match is None else int(match[1])

    def __repr__(self) -> str:
        return f"{self.verb} v{self.version}"


def answer(status: int, body: bytes = b"", *headers: tuple[str, str], length: int | None = None) -> bytes:
    """Bytes of an answer; *length* is what its head says."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {size}", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json(text: str, *headers: tuple[str, str]) -> bytes:
    return answer(200, text.encode(), ("Content-Type", "application/json;charset=utf-8"), *headers)


Script = Callable[[Asked], bytes | None]
"""What to send back for a request; None hangs up. Bytes that begin with ``!`` are sent without it, then it hangs up."""


@asynccontextmanager
async def scripted(
    script: Script, *, uuid: UUID = A, url: str = "annex+http://far/", **options
) -> AsyncIterator[tuple[HTTPRemote, list[Asked]]]:
    """A client of a server that answers as *script* says, and what it was asked."""
    asked: list[Asked] = []

    async def connection(transport: Transport) -> None:
        kept = b""
        reader = RequestReader()
        try:
            while True:
                while (found := reader.read(kept)) is None:
                    data = await transport.receive()
                    if not data:
                        return
                    kept += data
                head, kept = found
                body, frames = b"", BodyReader(head.length)
                while not frames.done:
                    if not kept:
                        kept = await transport.receive()
                        if not kept:
                            return
                    some, kept = frames.take(kept)
                    body += some
                    if head.target.find(b"/keeplocked") > 0:
                        break
                one = Asked(head, body)
                asked.append(one)
                said = script(one)
                if said is None:
                    return
                hangs_up = said[:1] == b"!"
                await transport.send(said[hangs_up:])
                if hangs_up:
                    return
        except AnnexError:
            return
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(connection, server)
            return client

        remote = HTTPRemote(url, uuid=uuid, deadline=5.0, dial=dial, **options)
        yield remote, asked
        await remote.aclose()
        tasks.cancel_scope.cancel()
