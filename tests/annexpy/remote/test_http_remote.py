"""A repository behind HTTP, seen from the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from http_peers import over_http
from remote_contract import A, HandClock, RemoteContract

from annexpy.remote.base import Remote
from annexpy.remote.memory import MemoryRemote


class TestHTTP(RemoteContract):
    """The two halves joined: whatever is served is the same Remote on the other side."""

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_http(MemoryRemote(A, clock=clock), clock) as remote:
            yield remote
