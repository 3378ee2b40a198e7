"""A get from several nodes: whatever one node does, the reader gets the content or a reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import anyio
import pytest
from faulty_remote import Cancelled, Faulty

from annexpy.errors import (
    AccessDenied,
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    NodesFailed,
    PeerError,
    RemoteProtocolError,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
SMALL = Random(1).randbytes(60)
LARGE = Random(2).randbytes(3 * CHUNK + 77)


def sha256_key(content: bytes) -> Key:
    return Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content))


SMALL_KEY, LARGE_KEY = sha256_key(SMALL), sha256_key(LARGE)
WORM = Key(b"WORM", b"it", len(SMALL), mtime=1)
UNSIZED = Key(b"SHA256", hashlib.sha256(SMALL).hexdigest().encode())


def three(**objects: bytes) -> list[MemoryRemote]:
    have = {SMALL_KEY: SMALL, LARGE_KEY: LARGE, WORM: SMALL, UNSIZED: SMALL}
    return [MemoryRemote(uuid, name=f"node {uuid[0]}", objects=have) for uuid in (A, B, C)]


async def read(remote: Remote, key: Key, offset: int = 0, end: int | None = None) -> bytes:
    content = b""
    async with remote.get(key, offset=offset, end=end) as download:
        async for chunk in download:
            content += chunk
        assert len(content) == download.length
        assert download.valid
    return content


def first(nodes: Sequence[Remote]) -> Remote:
    """A chooser: the equals come in the order of the nodes."""
    return nodes[0]


# -- which node ----------------------------------------------------------------------------------------


async def test_equals_take_turns() -> None:
    whole = Cluster(three())
    sources = []
    for _ in range(9):
        async with whole.get(SMALL_KEY) as download:
            sources.append(download.source)
            assert await anext(aiter(download))
    assert sources == [A, B, C] * 3


async def test_the_chooser_picks_among_equals_and_the_cheapest_are_the_equals() -> None:
    nodes = [MemoryRemote(uuid, cost=cost, objects={SMALL_KEY: SMALL}) for uuid, cost in ((A, 200), (B, 100), (C, 100))]
    offered = []

    def last(equals: Sequence[Remote]) -> Remote:
        offered.append([node.uuid for node in equals])
        return equals[-1]

    whole = Cluster(nodes, chooser=last)
    assert whole.cost == 100
    for _ in range(2):
        async with whole.get(SMALL_KEY) as download:
            assert download.source == C
    assert sorted(offered[0]) == [B, C]


async def test_the_least_busy_of_equals_is_taken() -> None:
    whole = Cluster(three())
    async with whole.get(SMALL_KEY) as one, whole.get(SMALL_KEY) as two, whole.get(SMALL_KEY) as other:
        assert {one.source, two.source, other.source} == {A, B, C}
    async with whole.get(SMALL_KEY) as one:
        for _ in range(4):
            async with whole.get(SMALL_KEY) as other:
                assert other.source != one.source


async def test_the_selected_come_first_and_the_others_are_not_forgotten() -> None:
    nodes = three()
    asked = []

    def select(verb: str, key: Key, associated_file: str, among: Sequence[Remote]) -> Sequence[Remote]:
        asked.append((verb, key, associated_file))
        return [nodes[1]]

    whole = Cluster(nodes, select=select)
    for _ in range(3):
        async with whole.get(SMALL_KEY, associated_file="sub-01/bold.nii") as download:
            assert download.source == B
    assert asked[0] == ("get", SMALL_KEY, "sub-01/bold.nii")

    del nodes[1].objects[SMALL_KEY]
    async with whole.get(SMALL_KEY) as download:
        assert download.source in (A, C)

    async with whole.put(LARGE_KEY) as upload:
        assert upload.already == {B}


# -- before the first byte -------------------------------------------------------------------------------

FAULTS: tuple[Callable[[], AnnexError], ...] = (
    lambda: ConnectFailed("there", "refused"),
    lambda: ConnectionLost("node", "an answer"),
    lambda: PeerError("node", "no"),
    lambda: AccessDenied("not you"),
    lambda: RemoteProtocolError("garbage"),
    lambda: KeyNotPresent(SMALL_KEY, "node"),
)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_node_that_does_not_give_it_is_passed_over(fault: Any) -> None:
    nodes: list[Any] = three()
    nodes[0] = Faulty(nodes[0], "get", fault)
    nodes[1] = Faulty(nodes[1], "get", fault)
    whole = Cluster(nodes)
    for _ in range(4):
        assert await read(whole, SMALL_KEY) == SMALL


async def test_absent_is_said_only_when_every_node_said_so() -> None:
    nodes: list[Any] = [MemoryRemote(uuid) for uuid in (A, B, C)]
    with pytest.raises(KeyNotPresent):
        await read(Cluster(nodes), SMALL_KEY)

    nodes[1] = Faulty(nodes[1], "get", lambda: ConnectFailed("there", "refused"))
    with pytest.raises(NodesFailed) as caught:
        await read(Cluster(nodes), SMALL_KEY)
    assert {uuid: type(error) for uuid, error in caught.value.failed.items()} == {
        A: KeyNotPresent,
        B: ConnectFailed,
        C: KeyNotPresent,
    }
    with pytest.raises(NodesFailed, match="it has no nodes"):
        await read(Cluster([]), SMALL_KEY)


async def test_a_node_with_the_wrong_length_is_passed_over() -> None:
    nodes = three()
    nodes[0].objects[SMALL_KEY] = SMALL[:-1]
    nodes[1].objects[SMALL_KEY] = SMALL + b"x"
    whole = Cluster(nodes, chooser=first)
    assert await read(whole, SMALL_KEY) == SMALL
    with pytest.raises(NodesFailed, match="incomplete transfer"):
        await read(Cluster(nodes[:2]), SMALL_KEY)


@pytest.mark.parametrize("key", [SMALL_KEY, UNSIZED])
@pytest.mark.parametrize(("offset", "end"), [(0, 0), (0, 9), (5, None), (7, 19), (59, 99), (60, None), (77, None)])
async def test_ranges_come_through(key: Key, offset: int, end: int | None) -> None:
    assert await read(Cluster(three()), key, offset, end) == SMALL[offset:end]


@pytest.mark.parametrize(("offset", "end"), [(-1, None), (0, -1)])
async def test_a_negative_offset_is_refused(offset: int, end: int | None) -> None:
    with pytest.raises(InvalidInput):
        await read(Cluster(three()), SMALL_KEY, offset, end)


# -- in the middle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [SMALL_KEY, UNSIZED], ids=["sized", "unsized"])
@pytest.mark.parametrize(("offset", "end"), [(0, None), (11, None), (3, 41)])
async def test_a_node_cut_at_every_byte_is_replaced_at_that_byte(key: Key, offset: int, end: int | None) -> None:
    wanted = SMALL[offset:end]
    for cut in range(len(wanted) + 1):
        plain = three()
        cutting = Faulty(plain[0], "read", after=cut, piece=8)
        second = Faulty(plain[1], "read", after=(len(wanted) - cut) // 2, piece=5)
        whole = Cluster([cutting, second, plain[2]], chooser=first)

        sources = []
        content = b""
        async with whole.get(key, offset=offset, end=end) as download:
            assert download.length == len(wanted)
            async for chunk in download:
                content += chunk
                sources.append(download.source)
            assert download.valid
        assert content == wanted
        assert set(sources) <= {A, B, C}
        assert cutting.inside == second.inside == 0
        assert all(node.busy == 0 for node in whole._nodes)


async def test_the_source_is_who_sends_now() -> None:
    nodes: list[Any] = three()
    nodes[0] = Faulty(nodes[0], "read", after=20, piece=20)
    async with Cluster(nodes[:2], chooser=first).get(SMALL_KEY) as download:
        chunks = aiter(download)
        assert await anext(chunks) == SMALL[:20]
        assert download.source == A
        assert await anext(chunks) == SMALL[20:]
        assert download.source == B
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_a_cut_node_gets_a_second_chance_when_it_is_the_only_one() -> None:
    node = Faulty(three()[0], "read", after=20, times=1)
    assert await read(Cluster([node]), SMALL_KEY) == SMALL

    node = Faulty(three()[0], "read", after=20)
    with pytest.raises(ConnectionLost):
        await read(Cluster([node]), SMALL_KEY)
    assert node.calls["get"] == 2


async def test_content_without_a_hash_never_comes_from_two_nodes() -> None:
    nodes: list[Any] = three()
    nodes[1].objects[WORM] = b"B" * len(SMALL)  # as may be: nothing proves which one is right
    for cut in range(len(SMALL) + 1):
        cutting = Faulty(nodes[0], "read", after=cut)
        content = b""
        with pytest.raises(ConnectionLost):  # noqa: PT012
            async with Cluster([cutting, nodes[1]], chooser=first).get(WORM) as download:
                async for chunk in download:
                    content += chunk
        assert content == SMALL[:cut]

    # Before the first byte it may come from anybody.
    dead = Faulty(nodes[0], "get")
    assert await read(Cluster([dead, nodes[1]], chooser=first), WORM) == b"B" * len(SMALL)


async def test_a_stream_that_ends_early_or_runs_over_is_replaced() -> None:
    class Wrong(MemoryRemote):
        def __init__(self, uuid: UUID, sent: bytes) -> None:
            super().__init__(uuid, objects={SMALL_KEY: SMALL})
            self.sent = sent

        def get(self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = "") -> Any:
            inner, sent = super().get(key, offset=offset, end=end), self.sent

            class Lie:
                async def __aenter__(self) -> Any:
                    download = await inner.__aenter__()
                    download._content, length = sent, download.length

                    class Lying:
                        source, valid = download.source, True

                        def __init__(self) -> None:
                            self.length = length

                        def __aiter__(self) -> AsyncIterator[bytes]:
                            return download.__aiter__()

                    return Lying()

                async def __aexit__(self, *exc: Any) -> bool | None:
                    return await inner.__aexit__(*exc)

            return Lie()

    good = three()[2]
    for sent in (SMALL[:13], b"", SMALL + b"more"):
        assert await read(Cluster([Wrong(A, sent), good], chooser=first), SMALL_KEY) == SMALL
    with pytest.raises(IncompleteTransfer):
        await read(Cluster([Wrong(A, SMALL[:13])]), SMALL_KEY)
    with pytest.raises(RemoteProtocolError):
        await read(Cluster([Wrong(A, SMALL + b"more")]), SMALL_KEY)


async def test_2000_random_cuts_of_gets_end_in_identical_bytes() -> None:
    random = Random(20260702)
    cuts = 0
    while cuts < 2000:
        nodes: list[Any] = three()
        for number in range(3):
            if random.random() < 0.6:
                at = random.choice(("get", "read", "read", "read"))
                nodes[number] = Faulty(
                    nodes[number], at, random.choice(FAULTS), after=random.randrange(len(LARGE) + 1), piece=100_000
                )
        whole = Cluster(nodes)
        partial = b""
        while len(partial) < len(LARGE):  # a reader that keeps what it got, and comes again
            try:
                async with whole.get(LARGE_KEY, offset=len(partial)) as download:
                    async for chunk in download:
                        partial += chunk
                        if random.random() < 0.05:
                            cuts += 1
                            break
            except AnnexError:
                cuts += 1
                nodes = three()
                whole = Cluster(nodes)
        cuts += sum(isinstance(node, Faulty) for node in nodes)
        assert partial == LARGE
        assert all(node.busy == 0 for node in whole._nodes)


# -- how it ends ----------------------------------------------------------------------------------------------


class Hears:
    """Notes how each get was left: the SUCCESS or FAILURE that a peer would hear."""

    def __init__(self, remote: Any) -> None:
        self.remote = remote
        self.heard: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.remote, name)

    def get(self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = "") -> Any:
        inner, heard = self.remote.get(key, offset=offset, end=end), self.heard

        class Context:
            async def __aenter__(self) -> Any:
                return await inner.__aenter__()

            async def __aexit__(self, kind: Any, *exc: Any) -> bool | None:
                heard.append("SUCCESS" if kind is None else "FAILURE" if issubclass(kind, Exception) else "cancelled")
                return await inner.__aexit__(kind, *exc)

        return Context()


@pytest.mark.parametrize("switched", [False, True])
async def test_the_last_source_hears_how_it_went(switched: bool) -> None:
    nodes: list[Any] = three()
    if switched:
        nodes[0] = Faulty(nodes[0], "read", after=20)
    hears = nodes[1 if switched else 0] = Hears(nodes[1 if switched else 0])
    whole = Cluster(nodes, chooser=first)

    assert await read(whole, SMALL_KEY) == SMALL
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with whole.get(SMALL_KEY) as download:
            async for _ in download:
                pass
            _ = 1 // 0
    assert hears.heard == ["SUCCESS", "FAILURE"]


async def test_who_took_over_hears_no_success_for_what_was_not_read() -> None:
    nodes: list[Any] = three()
    nodes[0] = Faulty(nodes[0], "read", after=20)
    hears = nodes[1] = Hears(Faulty(nodes[1], piece=10))
    async with Cluster(nodes, chooser=first).get(SMALL_KEY) as download:
        chunks = aiter(download)
        assert await anext(chunks) == SMALL[:20]
        assert await anext(chunks) == SMALL[20:30]
        await anyio.wait_all_tasks_blocked()  # all the rest is waiting for us
    assert hears.heard == ["cancelled"]


async def test_a_source_that_broke_off_cannot_spoil_the_end() -> None:
    class LeavesBadly(Faulty):
        def get(self, key: Key, **options: Any) -> Any:
            inner = super().get(key, **options)

            class Context:
                async def __aenter__(self) -> Any:
                    return await inner.__aenter__()

                async def __aexit__(self, *exc: Any) -> None:
                    await inner.__aexit__(*exc)
                    raise ConnectionLost("node", "the end of a get")

            return Context()

    nodes: list[Any] = three()
    nodes[0] = LeavesBadly(nodes[0], "read", after=20)
    nodes[1] = LeavesBadly(nodes[1])
    assert await read(Cluster(nodes[:2], chooser=first), SMALL_KEY) == SMALL


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_leaving_early_leaves_everything(taken: int) -> None:
    for after in (0, 30, 60):
        nodes: list[Any] = [Faulty(node, piece=20) for node in three()]
        nodes[0].at, nodes[0].after = "read", after
        whole = Cluster(nodes, chooser=first)
        async with whole.get(SMALL_KEY) as download:
            chunks = aiter(download)
            for _ in range(taken):
                await anext(chunks)
        assert all(node.inside == 0 for node in nodes)
        assert all(node.busy == 0 for node in whole._nodes)


async def test_a_scope_opened_while_reading_may_outlive_a_change_of_nodes() -> None:
    nodes: list[Any] = three()
    nodes[0] = Faulty(nodes[0], "read", after=20, piece=10)
    content = b""
    async with Cluster(nodes, chooser=first).get(SMALL_KEY) as download:
        with anyio.fail_after(30):
            async for chunk in download:
                content += chunk
    assert content == SMALL


@pytest.mark.parametrize("cut", [None, 0, 30, 60])
async def test_cancelled_at_any_step_nothing_leaks(cut: int | None) -> None:
    for stop in range(1, 100):
        at_stop = Cancelled(stop)
        nodes: list[Any] = [Faulty(node, piece=20, watch=at_stop.watch) for node in three()]
        if cut is not None:
            nodes[0].at, nodes[0].after = "read", cut
        whole = Cluster(nodes, chooser=first)
        with at_stop.scope:
            assert await read(whole, SMALL_KEY) == SMALL
        assert all(node.inside == 0 for node in nodes)
        assert all(node.busy == 0 for node in whole._nodes)
        if at_stop.over:
            break
    assert 4 <= stop < 100


async def test_gets_spread_evenly_while_all_is_well() -> None:
    whole = Cluster(three())
    sources: Counter[UUID] = Counter()

    async def one() -> None:
        async with whole.get(LARGE_KEY) as download:
            sources[download.source] += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(one)
    assert sources == {A: 10, B: 10, C: 10}


async def test_a_cluster_in_a_cluster_fails_over_too() -> None:
    nodes: list[Any] = three()
    inner = Cluster([Faulty(nodes[0], "read", after=20), Faulty(nodes[1], "read", after=20)], name="in")
    assert await read(Cluster([inner, nodes[2]], chooser=first), SMALL_KEY) == SMALL
