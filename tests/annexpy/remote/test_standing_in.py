"""Where a node takes nothing, another one stands in for it; what other processes do there counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
from faulty_remote import Faulty

from annexpy.errors import AnnexError, ConnectFailed, ConnectionLost, NodesFailed, NoSpace, NotWanted
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
CONTENT = bytes(range(256)) * 3000
KEY = Key(b"SHA256", hashlib.sha256(CONTENT).hexdigest().encode(), len(CONTENT))


async def store(remote: Remote) -> Stored:
    async with remote.put(KEY) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(len(CONTENT) - upload.offset)
        for at in range(upload.offset, len(CONTENT), 100_000):
            await upload.write(CONTENT[at : at + 100_000])
        return await upload.finish()


def full() -> AnnexError:
    return NoSpace(KEY, "there", len(CONTENT), 0)


def place(copies: int) -> Callable[..., Sequence[Remote]]:
    """So many of the nodes, in their order, refusals left out."""

    def chosen(
        key: Key, name: str, nodes: Sequence[Remote], *, taking: frozenset[UUID], refused: frozenset[UUID]
    ) -> Sequence[Remote]:
        able = [node for node in nodes if node.uuid not in refused and node.uuid not in taking]
        return able[: copies - len(taking)]

    return chosen


def nodes(**faults: tuple[str, Callable[[], AnnexError]]) -> list[Remote]:
    """Three, some of which go wrong: where, and with what."""
    made: list[Remote] = []
    for uuid in (A, B, C):
        remote = MemoryRemote(uuid, name=f"node {uuid[0]}")
        fault = faults.get(uuid[0])
        made.append(remote if fault is None else Faulty(remote, *fault))
    return made


@pytest.mark.parametrize("at", ["put", "start", "write", "finish"])
@pytest.mark.parametrize(
    "error", [full, lambda: ConnectFailed("there", "refused"), lambda: ConnectionLost("there", "more")]
)
async def test_the_next_node_takes_what_one_does_not(at: str, error: Callable[[], AnnexError]) -> None:
    cluster = Cluster(nodes(a=(at, error)), place=place(1))

    if at == "put":
        stored = await store(cluster)
    else:
        # All that were asked are out, and so is the source: it has to say it again, and then goes elsewhere.
        with pytest.raises((NodesFailed, NoSpace)):
            await store(cluster)
        return

    assert stored.uuids == {B}
    assert set(stored.failed) == {A}


@pytest.mark.parametrize("at", ["put", "start", "write", "finish", "finished"])
async def test_a_third_node_gets_it_from_the_second_when_the_first_breaks_off(at: str) -> None:
    cluster = Cluster(nodes(a=(at, full)), place=place(2))

    stored = await store(cluster)

    assert stored.uuids == {B, C}
    assert set(stored.failed) == {A}
    assert await cluster.nodes[2].check_present(KEY)


async def test_when_nobody_is_left_the_others_are_kept() -> None:
    cluster = Cluster(nodes(a=("put", full), c=("finish", full)), place=place(2))

    stored = await store(cluster)

    assert stored.uuids == {B}
    assert set(stored.failed) == {A, C}


async def test_a_node_that_is_down_is_not_chosen_the_next_time() -> None:
    faulty = Faulty(MemoryRemote(A), "put", lambda: ConnectFailed("there", "refused"))
    cluster = Cluster([faulty, MemoryRemote(B), MemoryRemote(C)], place=place(1))

    assert (await store(cluster)).uuids == {B}
    tries = faulty.calls["put"]
    await cluster.remove_content(KEY)
    assert (await store(cluster)).copies == {B}
    assert faulty.calls["put"] == tries


async def test_what_no_node_wants_is_refused() -> None:
    cluster = Cluster(nodes(), place=lambda *words, **more: ())

    with pytest.raises(NotWanted):
        await store(cluster)


class Count:
    """What others do at a node."""

    def __init__(self) -> None:
        self.mine = self.theirs = 0
        self.errors: list[str] = []

    def begin(self) -> None:
        self.mine += 1

    def end(self) -> None:
        self.mine -= 1

    def others(self) -> int:
        return self.theirs

    def down(self, error: str, time: float, until: float) -> None:
        self.errors.append(error)

    def up(self) -> None:
        self.errors.clear()

    def told_down(self, now: float) -> tuple[str, float] | None:
        return (self.errors[-1], now + 5) if self.errors else None


async def test_what_others_ask_of_a_node_counts() -> None:
    counts = {A: Count(), B: Count(), C: Count()}
    made = [MemoryRemote(uuid, objects={KEY: CONTENT}) for uuid in counts]
    cluster = Cluster(made, usage=lambda remote: counts[remote.uuid])
    counts[A].theirs = counts[C].theirs = 1

    for _ in range(4):
        async with cluster.get(KEY) as download:
            assert download.source == B
            assert counts[B].mine == 1
            async for _chunk in download:
                pass
    counts[B].theirs = 2
    async with cluster.get(KEY) as download:
        assert download.source != B
        async for _chunk in download:
            pass
    assert {count.mine for count in counts.values()} == {0}


async def test_why_a_node_is_down_is_told() -> None:
    count = Count()
    faulty = Faulty(MemoryRemote(A), "put", lambda: ConnectFailed("there", "refused"))
    other = MemoryRemote(B)
    cluster = Cluster([faulty, other], usage=lambda remote: Count() if remote is other else count)

    assert (await store(cluster)).uuids == {B}

    assert count.errors == ["cannot connect to there: refused"]
    assert count.mine == 0


async def test_a_node_that_another_process_found_down_is_not_tried() -> None:
    count = Count()
    count.down("cannot connect to there: refused", 0, 0)
    faulty = Faulty(MemoryRemote(A), "never")
    cluster = Cluster([faulty, MemoryRemote(B)], usage=lambda remote: count if remote.uuid == A else Count())

    stored = await store(cluster)

    assert stored.uuids == {B}
    assert "another process" in str(stored.failed[A])
    assert not faulty.calls


async def test_clusters_of_the_same_nodes_share_what_is_known_of_them() -> None:
    faulty = Faulty(MemoryRemote(A), "put", lambda: ConnectFailed("there", "refused"))
    b, c = MemoryRemote(B), MemoryRemote(C)
    cluster = Cluster([faulty, b, c])
    other = cluster.of([faulty, b])

    assert other.uuid == cluster.uuid
    assert (await store(cluster)).uuids == {B, C}
    tries = faulty.calls["put"]
    assert (await store(other)).copies == {B}
    assert faulty.calls["put"] == tries, "known to be down"
    assert [node.remote for node in other.standing] == [faulty, b]
