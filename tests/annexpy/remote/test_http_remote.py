"""A repository behind HTTP, seen from the client: the whole contract, and what goes over the wire for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from http_peers import over_http, routes_for
from remote_contract import CONTENT, KEY, A, B, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.actions.reader import open_key
from annexpy.errors import AnnexError, RemoteProtocolError, TimedOut
from annexpy.remote.base import BatchPresence, BatchRemove, Ranged, Remote, may_happen_yet
from annexpy.remote.cluster import Cluster
from annexpy.remote.health import Limited
from annexpy.remote.http import HTTPRemote
from annexpy.remote.memory import MemoryRemote
from annexpy.transport.sockets import listen_tcp
from annexpy.uuids import new_cluster_uuid

LARGE = content_of(6, 3_000_000)


class TestHTTP(RemoteContract):
    """The two halves joined: whatever is served is the same Remote on the other side."""

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_http(MemoryRemote(A, clock=clock), clock) as remote:
            yield remote


class TestHTTPInSmallPieces(RemoteContract):
    """One connection that gives a few bytes at a time, to a server that is not known to be ours."""

    patient_cancel = 20

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        memory = MemoryRemote(A, clock=clock)
        async with over_http(memory, clock, split=997, capacity=5000, connections=1, stock=True) as remote:
            yield remote


class TestHTTPVersion0(RemoteContract):
    patient_cancel = 5
    version = 0
    deadlines = False

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_http(MemoryRemote(A, clock=clock), clock, max_version=self.version) as remote:
            yield remote


class TestHTTPVersion2(TestHTTPVersion0):
    version = 2


class TestHTTPVersion3(TestHTTPVersion0):
    version = 3
    deadlines = True


class TestHTTPTwice(RemoteContract):
    """A proxy: a served HTTPRemote."""

    patient_cancel = 5

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_http(MemoryRemote(A, clock=clock), clock) as near, over_http(near, clock) as far:
            yield far


class TestHTTPOverSockets(RemoteContract):
    patient_cancel = 5

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        routes = routes_for(MemoryRemote(A, clock=clock), clock=clock)
        async with await listen_tcp() as listener, routes, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(routes.serve, listener))
            host, port = listener.address
            remote = HTTPRemote(f"annex+http://{host}:{port}/git-annex/{A}", clock=clock)
            yield remote
            await remote.aclose()
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_reading_here_and_there_fetches_little_more_than_that() -> None:
    clock, key = HandClock(), key_of(LARGE)
    memory = MemoryRemote(A, objects={key: LARGE}, clock=clock)
    async with over_http(memory, clock) as remote:
        dialled = _count_connections(remote)
        async with open_key(remote, key) as file:
            for position in (2_900_000, 17, 1_500_000, 0):
                file.seek(position)
                assert await file.read(1000) == LARGE[position : position + 1000]
            file.seek(-10, 2)
            assert await file.read() == LARGE[-10:]
        assert sum(b.count for b in _sent(remote)) < 600_000
        assert len(dialled) <= 2
        async with open_key(remote, key) as file:
            parts = []
            while part := await file.read(10_000):
                parts.append(part)
            assert b"".join(parts) == LARGE


class _Sent:
    def __init__(self, count: int) -> None:
        self.count = count


def _sent(remote: HTTPRemote) -> list[_Sent]:
    text = remote.routes.metrics.text().decode()  # type: ignore[attr-defined]
    lines = [line for line in text.splitlines() if "sent" in line and line[0] != "#"]
    assert lines, text
    return [_Sent(int(float(line.rpartition(" ")[2]))) for line in lines]


def _count_connections(remote: HTTPRemote) -> list[object]:
    made: list[object] = []
    session = remote._session
    open_ = session.pool._open

    async def counted():
        line = await open_()
        made.append(line)
        return line

    session.pool._open = counted
    return made


@pytest.mark.anyio
async def test_a_small_put_of_what_was_just_asked_for_is_one_request() -> None:
    clock = HandClock()
    async with over_http(MemoryRemote(A, clock=clock), clock) as remote:
        keys = [key_of(content_of(number)) for number in range(5)]
        assert await remote.check_present_many(keys) == [False] * 5
        for number, key in enumerate(keys):
            assert (await store(remote, key, content_of(number))).uuids == {A}
        text = remote.routes.metrics.text().decode()  # type: ignore[attr-defined]
        assert "putoffset" not in text
        assert await remote.check_present_many(keys) == [True] * 5


@pytest.mark.anyio
async def test_a_small_put_into_a_cluster_is_one_request_and_says_who_had_it() -> None:
    clock = HandClock()
    nodes = [MemoryRemote(uuid, clock=clock) for uuid in (A, B)]
    whole = Cluster(nodes, uuid=new_cluster_uuid(A), clock=clock)
    async with over_http(whole, clock) as remote:
        await remote.connect()
        assert (await store(remote, KEY, CONTENT)).uuids == {A, B}
        assert "putoffset" not in remote.routes.metrics.text().decode()  # type: ignore[attr-defined]

        again = await store(remote, KEY, CONTENT)
        assert (again.uuids, again.already) == (frozenset(), {whole.uuid})
        assert (await nodes[1].remove_content(KEY)).ok
        assert (await store(remote, KEY, CONTENT)).copies == {A, B}
        assert await nodes[1].check_present(KEY)

        large = key_of(LARGE)
        assert (await store(remote, large, LARGE)).uuids == {A, B}
        assert "putoffset" in remote.routes.metrics.text().decode()  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_hundred_thousand_answers_need_few_round_trips() -> None:
    clock = HandClock()
    keys = [key_of(content_of(number)) for number in range(3000)]
    async with over_http(MemoryRemote(A, objects={KEY: CONTENT}, clock=clock), clock) as remote:
        made = _count_connections(remote)
        assert await remote.check_present_many([*keys, KEY]) == [True] + [False] * 2999 + [True]
        assert len(made) <= 5


@pytest.mark.anyio
async def test_what_it_can_do_is_seen_through_a_wrapper() -> None:
    remote = HTTPRemote(f"annex+http://far/git-annex/{B}")
    for able in (BatchPresence, BatchRemove, Limited, Ranged):
        assert isinstance(remote, able)
    assert remote.transfers == 16
    assert not remote.ranges
    async with over_http(MemoryRemote(A, objects={KEY: CONTENT}, clock=HandClock()), HandClock()) as far:
        assert await read(far, KEY) == CONTENT
        assert far.ranges


# -- removals that may come yet --


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("error", [TimedOut("n2", "answer to REMOVE", 5), RemoteProtocolError("nonsense")])
async def test_a_lock_that_a_removal_may_rely_on_is_not_given_back(error: AnnexError) -> None:
    clock = HandClock()
    async with over_http(MemoryRemote(A, clock=clock, objects={KEY: CONTENT}), clock) as remote:
        with pytest.raises(type(error)):
            async with remote.lock_content(KEY):
                raise error
        await anyio.wait_all_tasks_blocked()
        assert not (await remote.remove_content(KEY)).ok


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("many", [False, True])
async def test_what_a_gateway_does_not_know_about_a_removal_nobody_knows(many: bool) -> None:
    class Silent(MemoryRemote):
        async def remove_content(self, key, *, deadline=None):  # type: ignore[no-untyped-def]
            raise TimedOut("n1", "answer to REMOVE", 5)

        async def remove_content_many(self, keys, *, deadline=None):  # type: ignore[no-untyped-def]
            raise TimedOut("n1", "answer to REMOVE", 5)

    clock = HandClock()
    async with over_http(Silent(A, clock=clock, objects={KEY: CONTENT}), clock) as remote:
        if many:
            found = await remote.remove_content_many([KEY, key_of(b"other")])
            assert all(may_happen_yet(*one.failed.values()) for one in found)
        else:
            with pytest.raises(AnnexError) as raised:
                await remote.remove_content(KEY)
            assert may_happen_yet(raised.value)
