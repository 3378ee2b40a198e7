"""HTTP servers for tests: ours in the same process, and scripts that answer by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from remote_contract import HandClock

from annexpy.remote.base import Remote
from annexpy.remote.http import HTTPRemote
from annexpy.server.auth import EVERYTHING, Access, everywhere
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.base import CHUNK, Transport
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
        yield remote
        await remote.aclose()
        tasks.cancel_scope.cancel()


Script = Callable[[bytes, bytes], Awaitable[bytes | None]]
