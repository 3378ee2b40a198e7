"""Nodes as one Remote: what is said of them together, and what a bad one of them costs."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest
import trio.testing
from faulty_remote import Cancelled, Faulty, LoopClock
from remote_contract import HandClock, RemoteContract

from annexpy.clock import Deadline
from annexpy.errors import (
    AccessDenied,
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    ContentLocked,
    DropIncomplete,
    KeyNotPresent,
    NodesFailed,
    NoSpace,
    NotLocked,
    PeerError,
    TimedOut,
)
from annexpy.keys.key import Key
from annexpy.remote.base import BatchPresence, BatchRemove, Remote, Removed, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID, is_cluster, new_cluster_uuid

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
CLUSTER = new_cluster_uuid("01234567-0123-4123-8123-0123456789ab")


def content_of(number: int) -> bytes:
    return Random(number).randbytes(100)


def key_of(number: int) -> Key:
    content = content_of(number)
    return Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content))


KEY, CONTENT = key_of(0), content_of(0)
KEYS = [key_of(number) for number in range(300)]


def three(*keys: Key, clock: Any = None) -> list[MemoryRemote]:
    options = {"clock": clock} if clock else {}
    have = dict.fromkeys(keys, CONTENT)
    return [MemoryRemote(uuid, name=f"node {uuid[0]}", objects=have, **options) for uuid in (A, B, C)]


async def store(remote: Remote, key: Key, content: bytes) -> Stored:
    async with remote.put(key) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(len(content) - upload.offset)
        await upload.write(content[upload.offset :])
        return await upload.finish()


async def read(remote: Remote, key: Key) -> bytes:
    async with remote.get(key) as download:
        content = b"".join([chunk async for chunk in download])
        assert download.valid
        return content


class Dead(Faulty):
    """Connects and never says a word, or (with *error*) cannot be reached."""

    def __init__(self, remote: Remote, error: Callable[[], AnnexError] | None = None) -> None:
        super().__init__(remote, error=error)

    async def step(self, step: str) -> None:
        self.calls[step] += 1
        await self.go_wrong()


def refused() -> AnnexError:
    return ConnectFailed("there", "refused")


# -- the contract of every Remote --------------------------------------------------------------------------


class TestContract(RemoteContract):
    locks = False

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        yield Cluster([MemoryRemote(uuid, clock=clock) for uuid in (A, B, C)], clock=clock)

    def places(self, remote: Remote) -> frozenset[UUID]:
        return frozenset((A, B, C))


class TestContractNested(TestContract):
    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        a, b, c = (MemoryRemote(uuid, clock=clock) for uuid in (A, B, C))
        yield Cluster([Cluster([a, b], clock=clock), Cluster([c], clock=clock)], clock=clock)


# -- who it is -------------------------------------------------------------------------------------------------


def test_a_cluster_is_a_remote_with_batches() -> None:
    whole = Cluster(three(), name="vaults")
    assert isinstance(whole, BatchPresence)
    assert isinstance(whole, BatchRemove)
    assert is_cluster(whole.uuid)
    assert whole.name == "vaults"
    assert Cluster(three(), uuid=CLUSTER, cost=42).cost == 42
    assert "3 nodes" in repr(whole)


@pytest.mark.anyio
async def test_a_cluster_cannot_be_locked() -> None:
    with pytest.raises(NotLocked, match="only its nodes"):
        async with Cluster(three(KEY)).lock_content(KEY):
            pass


def test_a_cluster_pickles() -> None:
    again = pickle.loads(pickle.dumps(Cluster(three(KEY), uuid=CLUSTER, name="vaults", deadline=9.0, transfers=5)))
    assert (again.uuid, again.name, again.transfers, again.patience) == (CLUSTER, "vaults", 5, 1.2 * 9)
    assert anyio.run(read, again, KEY) == CONTENT


def test_a_cluster_serves_one_event_loop_after_another() -> None:
    whole = Cluster(three())
    for number in range(3):
        assert anyio.run(store, whole, KEYS[number], content_of(number)).uuids == {A, B, C}
        assert anyio.run(read, whole, KEYS[number]) == content_of(number)


def test_a_cluster_puts_no_more_at_a_time_than_its_nodes_can_take() -> None:
    class Limited(MemoryRemote):
        transfers = 3

    assert Cluster(three()).transfers == 16
    assert Cluster([*three(), Limited(A)]).transfers == 3
    assert Cluster([Cluster([Limited(A)]), *three()], transfers=8).transfers == 3
    assert Cluster(three(), transfers=8).transfers == 8


@pytest.mark.anyio
async def test_closing_a_cluster_closes_its_nodes() -> None:
    nodes = [Faulty(node) for node in three()]
    await Cluster(nodes).aclose()
    assert [node.calls["aclose"] for node in nodes] == [1, 1, 1]


# -- presence --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("holders", [(), (0,), (2,), (0, 1), (0, 1, 2)])
async def test_present_is_what_any_node_has(holders: tuple[int, ...]) -> None:
    nodes = three()
    for holder in holders:
        nodes[holder].objects[KEY] = CONTENT
    assert await Cluster(nodes).check_present(KEY) == bool(holders)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [refused, lambda: PeerError("node", "no"), lambda: ConnectionLost("node", "it")])
async def test_absence_is_never_invented(error: Callable[[], AnnexError]) -> None:
    nodes: list[Any] = three()
    nodes[1] = Faulty(nodes[1], "present", error)
    whole = Cluster(nodes)
    for _ in range(3):  # also while the node is left alone
        with pytest.raises(type(error())):
            await whole.check_present(KEY)
    nodes[2] = Faulty(nodes[2], "present", refused)
    with pytest.raises(NodesFailed) as caught:
        await Cluster(nodes).check_present(KEY)
    assert set(caught.value.failed) == {B, C}

    nodes[0].objects[KEY] = CONTENT
    assert await Cluster(nodes).check_present(KEY)


@pytest.mark.anyio
async def test_a_cluster_without_nodes_knows_nothing() -> None:
    with pytest.raises(NodesFailed, match="it has no nodes"):
        await Cluster([]).check_present(KEY)
    removed = await Cluster([]).remove_content(KEY)
    assert not removed.ok
    assert not removed.uuids


@pytest.mark.anyio
async def test_many_keys_are_shared_out_and_none_is_lost() -> None:
    random = Random(3)
    nodes = [Faulty(node) for node in three()]
    present = []
    for key in KEYS:
        holders = random.sample(nodes, random.choice((0, 1, 1, 2, 3)))
        present.append(bool(holders))
        for node in holders:
            node.remote.objects[key] = b""  # type: ignore[attr-defined]
    assert await Cluster(nodes).check_present_many(KEYS) == present
    assert await Cluster(nodes).check_present_many([]) == []

    for node in nodes:
        node.remote.objects.update(dict.fromkeys(KEYS, b""))  # type: ignore[attr-defined]
        node.calls.clear()
    assert all(await Cluster(nodes).check_present_many(KEYS))
    assert sum(node.calls["present"] for node in nodes) < 2 * len(KEYS)

    bad: list[Any] = [nodes[0], nodes[1], Dead(nodes[2], refused)]
    assert all(await Cluster(bad).check_present_many(KEYS))
    with pytest.raises(ConnectFailed):
        await Cluster(bad).check_present_many([*KEYS, key_of(999)])


# -- removal -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_removed_everywhere_is_success_naming_everybody() -> None:
    nodes = three(KEY)
    del nodes[1].objects[KEY]  # absent counts as removed
    assert await Cluster(nodes).remove_content(KEY) == Removed(ok=True, uuids=frozenset((A, B, C)))
    assert not any(node.objects for node in nodes)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [refused, lambda: ConnectionLost("node", "an answer"), lambda: AccessDenied("append-only")]
)
async def test_removed_from_some_is_failure_naming_exactly_those(error: Callable[[], AnnexError]) -> None:
    nodes: list[Any] = three(KEY)
    why = error()
    nodes[2] = Faulty(nodes[2], "remove", lambda: why)
    assert await Cluster(nodes).remove_content(KEY) == Removed(ok=False, uuids=frozenset((A, B)), failed={C: why})


@pytest.mark.anyio
async def test_a_locked_node_keeps_it_and_says_why() -> None:
    nodes = three(KEY)
    async with nodes[0].lock_content(KEY):
        removed = await Cluster(nodes).remove_content(KEY)
    assert not removed.ok
    assert removed.uuids == {B, C}
    assert isinstance(removed.failed[A], ContentLocked)
    assert nodes[0].objects


@pytest.mark.anyio
async def test_a_deadline_goes_to_every_node_as_it_is() -> None:
    seen = []

    class Notes(MemoryRemote):
        async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
            seen.append(deadline)
            return await super().remove_content(key, deadline=deadline)

    clock = HandClock()
    nodes = [Notes(uuid, clock=clock, objects={KEY: CONTENT, KEYS[1]: b""}) for uuid in (A, B, C)]
    deadline = Deadline(clock.now() + 1)
    inner = Cluster(nodes[1:], clock=clock)
    assert (await Cluster([nodes[0], inner], clock=clock).remove_content(KEY, deadline=deadline)).ok
    clock.time += 1
    removed = await Cluster([nodes[0], inner], clock=clock).remove_content_many([KEYS[1]], deadline=deadline)
    assert [set(one.failed) for one in removed] == [{A, B, C}]
    assert seen == [deadline] * 6
    assert all(node.objects for node in nodes)


@pytest.mark.anyio
async def test_a_node_that_only_says_no_is_named_with_a_reason() -> None:
    class SaysNo(MemoryRemote):
        async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
            return Removed(ok=False)

    removed = await Cluster([SaysNo(A), *three(KEY)[1:]]).remove_content(KEY)
    assert removed.uuids == {B, C}
    assert isinstance(removed.failed[A], PeerError)


@pytest.mark.anyio
async def test_a_nested_cluster_is_named_by_its_nodes() -> None:
    nodes: list[Any] = three(KEY)
    inner = Cluster([nodes[1], Faulty(nodes[2], "remove")], uuid=CLUSTER)
    removed = await Cluster([nodes[0], inner]).remove_content(KEY)
    assert not removed.ok
    assert removed.uuids == {A, B}
    assert set(removed.failed) == {C}

    class V1Gateway(MemoryRemote):  # said SUCCESS, and cannot say for whom
        async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
            return Removed(ok=True, uuids=frozenset((CLUSTER,)))

    removed = await Cluster([nodes[0], V1Gateway(CLUSTER)]).remove_content(KEY)
    assert removed == Removed(ok=True, uuids=frozenset((A,)))


@pytest.mark.anyio
async def test_a_node_that_removed_in_part_is_named_in_part() -> None:
    class Partly(MemoryRemote):
        async def remove_content(self, key: Key, **_: Any) -> Removed:
            raise DropIncomplete(key, [A, CLUSTER], {B: "locked"})

    removed = await Cluster([Partly(CLUSTER), *three(KEY)[2:]]).remove_content(KEY)
    assert not removed.ok
    assert removed.uuids == {A, C}


@pytest.mark.anyio
async def test_many_removals_are_each_exact() -> None:
    nodes: list[Any] = three(*KEYS)
    nodes[1] = Faulty(nodes[1], "remove", refused)
    nodes[1].at = ""
    whole = Cluster(nodes)
    async with nodes[2].lock_content(KEYS[7]):
        results = await whole.remove_content_many(KEYS)
    assert [one.ok for one in results] == [key != KEYS[7] for key in KEYS]
    assert results[7].uuids == {A, B}
    assert list(nodes[2].objects) == [KEYS[7]]
    assert await whole.remove_content_many([]) == []

    nodes = three(*KEYS)
    dying = Faulty(nodes[1], watch=lambda _: setattr(dying, "at", "remove" if dying.calls["remove"] > 100 else ""))
    results = await Cluster([nodes[0], dying, nodes[2]]).remove_content_many(KEYS)
    for key, one in zip(KEYS, results, strict=True):
        assert one.uuids | set(one.failed) == {A, B, C}
        assert one.uuids >= {A, C}
        assert (B in one.uuids) == (key not in nodes[1].objects)
    assert results[0].ok
    assert not results[-1].ok


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["present", "remove"])
async def test_cancelled_at_any_step_nothing_leaks(call: str) -> None:
    for stop in range(1, 50):
        at_stop = Cancelled(stop)
        nodes = [Faulty(node, watch=at_stop.watch) for node in three(KEY)]
        whole = Cluster(nodes)
        with at_stop.scope:
            if call == "present":
                await whole.check_present(KEY)
            else:
                await whole.remove_content(KEY)
        assert all(node.busy == 0 for node in whole._nodes)
        if at_stop.over:
            break
    assert stop == 4


# -- what a bad node costs, on a clock that only moves when everybody waits --------------------------------------


@pytest.fixture
def virtual_time() -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run(test: Callable[[], Awaitable[None]]) -> None:
        anyio.run(test, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})

    return run


LATENCY = 0.01


def quick(node: Remote) -> Faulty:
    return Faulty(node, delay=LATENCY)


def cluster(nodes: list[Any], **options: Any) -> Cluster:
    return Cluster(nodes, uuid=CLUSTER, clock=LoopClock(), **options)


async def timed(call: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    began = anyio.current_time()
    result = await call()
    return anyio.current_time() - began, result


def p95(times: list[float]) -> float:
    return sorted(times)[len(times) * 95 // 100]


BAD: dict[str, Callable[[MemoryRemote], Faulty]] = {
    "well": quick,
    "silent": Dead,
    "refusing": lambda node: Dead(node, refused),
    "hanging up": lambda node: Dead(node, lambda: ConnectionLost("node", "an answer")),
    "stale": lambda node: node.objects.clear() or quick(node),  # type: ignore[func-returns-value]
    "full": lambda node: Faulty(node, "start", lambda: NoSpace(KEY, "node", 100, 1), delay=LATENCY),
    "read-only": lambda node: Faulty(node, "put", lambda: AccessDenied("read-only"), delay=LATENCY),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_with_one_bad_node_every_answer_is_right_and_nearly_as_quick(
    virtual_time: Callable[..., None], kind: str, which: int
) -> None:
    old, new = KEYS[:200], KEYS[200:250]
    costs: dict[str, dict[str, list[float]]] = {}

    async def run(kind: str) -> None:
        nodes: list[Any] = three(clock=LoopClock())
        for node in nodes:
            node.objects.update((key, content_of(number)) for number, key in enumerate(old))
        plain = list(nodes)
        for number, node in enumerate(nodes):
            nodes[number] = BAD[kind](node) if number == which else quick(node)
        whole = cluster(nodes)
        bad = plain[which].uuid
        costs[kind] = {"get": [], "present": [], "put": []}

        began = anyio.current_time()
        for number, key in enumerate(old):
            took, content = await timed(lambda key=key: read(whole, key))
            assert content == content_of(number)
            costs[kind]["get"].append(took)
        for key in old:
            took, present = await timed(lambda key=key: whole.check_present(key))
            assert present
            costs[kind]["present"].append(took)
        for number, key in enumerate(new, 200):
            took, stored = await timed(lambda key=key, number=number: store(whole, key, content_of(number)))
            holders = {node.uuid for node in plain if key in node.objects}
            assert stored.uuids == holders
            assert set(stored.failed) == {A, B, C} - holders
            assert holders >= {A, B, C} - {bad}
            if kind in ("well", "stale"):
                assert holders == {A, B, C}
            costs[kind]["put"].append(took)
        # At most one deadline a minute, and never for a second request.
        slow = [took for times in costs[kind].values() for took in times if took > 1.5]
        assert len(slow) <= 1 + (anyio.current_time() - began) / 60

    virtual_time(lambda: run("well"))
    virtual_time(lambda: run(kind))

    for call, times in costs[kind].items():
        assert p95(times) <= 2 * p95(costs["well"][call]) + 1e-9, call


def test_a_silent_node_costs_one_deadline_and_no_second_request(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        dead = nodes[1] = Dead(nodes[1])
        whole = cluster(nodes)

        took, stored = await timed(lambda: store(whole, KEYS[0], content_of(0)))
        assert took == 5.0
        assert stored.uuids == {A, C}
        assert isinstance(stored.failed[B], TimedOut)
        for number in range(1, 50):
            took, stored = await timed(lambda number=number: store(whole, KEYS[number], content_of(number)))
            assert took == 0
            assert stored.uuids == {A, C}
            assert isinstance(stored.failed[B], TimedOut)
        removed = await whole.remove_content(KEYS[0])
        assert removed.uuids == {A, C}
        assert set(removed.failed) == {B}
        with pytest.raises(TimedOut):
            await whole.check_present(KEYS[0])
        assert sum(dead.calls.values()) == 1

        await anyio.sleep(60)
        took, stored = await timed(lambda: store(whole, KEYS[99], content_of(99)))
        assert took == 5.0
        assert sum(dead.calls.values()) == 2

    virtual_time(run)


def test_a_node_that_is_back_is_used_again(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        for bad, pause in ((Dead(nodes[1]), 60.0), (Dead(nodes[1], refused), 1.0)):
            whole = cluster([nodes[0], bad, nodes[2]])
            assert set((await store(whole, KEY, CONTENT)).failed) == {B}
            bad.step = Faulty.step.__get__(bad)  # type: ignore[method-assign]
            bad.at = ""
            assert set((await store(whole, KEYS[1], content_of(1))).failed) == {B}  # not asked yet
            await anyio.sleep(pause)
            assert (await store(whole, KEYS[1], content_of(1))).uuids == {B}
            sources = set()
            for _ in range(3):
                async with whole.get(KEYS[1]) as download:
                    sources.add(download.source)
            assert sources == {A, B, C}
            for node in nodes:
                node.objects.clear()

    virtual_time(run)


def test_a_refusing_node_is_tried_ever_more_rarely(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        dead = nodes[1] = Dead(nodes[1], refused)
        whole = cluster(nodes)
        tried = []
        for _ in range(400):
            await whole.remove_content(KEY)
            tried.append(dead.calls["remove"])
            await anyio.sleep(1)
        assert tried[:8] == [1, 2, 2, 3, 3, 3, 3, 4]
        assert tried[-1] - tried[-121] == 2  # once a minute in the end

    virtual_time(run)


def test_requests_that_fail_together_count_as_one_failure(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        bad = nodes[1] = Faulty(nodes[1], "put", refused, delay=0.1)
        whole = cluster(nodes)
        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(store, whole, KEYS[number], content_of(number))
        assert bad.calls["put"] == 16
        bad.at = ""
        await anyio.sleep(1.3)  # a minute for a whole deadline, and so much less for a tenth of a second
        assert (await store(whole, KEYS[20], content_of(20))).uuids == {A, B, C}

    virtual_time(run)


def test_half_open_means_one_at_a_time(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        dead = nodes[1] = Dead(nodes[1])
        whole = cluster(nodes)
        await store(whole, KEY, CONTENT)
        await anyio.sleep(60)
        times = []

        async def one(number: int) -> None:
            times.append((await timed(lambda: store(whole, KEYS[number], content_of(number))))[0])

        async with anyio.create_task_group() as group:
            for number in range(1, 11):
                group.start_soon(one, number)
        assert dead.calls["put"] == 2
        assert sorted(times) == [0.0] * 9 + [5.0]

    virtual_time(run)


def test_a_first_get_from_a_silent_node_is_answered_by_another(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = [quick(node) for node in three(KEY, clock=LoopClock())]
        nodes[0] = Dead(nodes[0].remote)
        whole = cluster(nodes)
        times = [(await timed(lambda: read(whole, KEY)))[0] for _ in range(100)]
        assert max(times) < 1.1
        assert sum(took > 0.1 for took in times) == 1
        times = [(await timed(lambda: whole.check_present(KEY)))[0] for _ in range(100)]
        assert max(times) <= 2 * (LATENCY + 0.01)

    virtual_time(run)


def test_requests_of_all_kinds_together_wait_one_deadline_for_a_silent_node(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        for node in nodes:
            node.objects.update((key, content_of(number)) for number, key in enumerate(KEYS[:50]))
        dead = nodes[1] = Dead(nodes[1])
        whole = cluster(nodes)
        began = anyio.current_time()
        for number, key in enumerate(KEYS[:50]):
            assert await read(whole, key) == content_of(number)
            assert await whole.check_present(key)
            stored = await store(whole, KEYS[50 + number], content_of(50 + number))
            assert stored.uuids == {A, C}
        assert anyio.current_time() - began == pytest.approx(5.0)
        assert 1 <= sum(dead.calls.values()) <= 2  # one, when the put is the first to ask it

    virtual_time(run)


def test_a_silent_node_is_not_asked_again_where_another_one_answers(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = [quick(node) for node in three(KEY, clock=LoopClock())]
        dead = nodes[2] = Dead(nodes[2].remote)
        whole = cluster(nodes)
        times = [(await timed(lambda: whole.check_present(KEY)))[0] for _ in range(50)]
        assert times[0] == pytest.approx(LATENCY + 0.02)
        assert times[1:] == pytest.approx([LATENCY] * 49)
        assert dead.calls["present"] == 1
        with pytest.raises(TimedOut):  # but its answer is missed where nobody else has one
            await whole.check_present(KEYS[1])
        assert dead.calls["present"] == 2

    virtual_time(run)


def test_a_slow_holder_is_waited_for_when_nobody_else_has_it(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        nodes[0].objects[KEY] = CONTENT
        nodes[0] = Faulty(nodes[0], delay=2.0)
        took, content = await timed(lambda: read(cluster(nodes), KEY))
        assert content == CONTENT
        assert took == 1.0 + 2.0 + 2.0  # the hedge, then the answer, then the chunk

    virtual_time(run)


def test_a_node_that_stalls_in_the_middle_is_left(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        nodes[1] = Faulty(nodes[1], "write", None, after=50)
        took, stored = await timed(lambda: store(cluster(nodes), KEY, CONTENT))
        assert stored.uuids == {A, C}
        assert isinstance(stored.failed[B], TimedOut)
        assert 5.0 <= took < 5.1

        nodes = three(KEY, clock=LoopClock())
        nodes[1] = Faulty(nodes[1], "read", None, after=50)
        nodes[0].objects.clear()
        whole = cluster(nodes)
        took, content = await timed(lambda: read(whole, KEY))
        assert content == CONTENT
        assert took in (0.0, 5.0)
        assert all(node.busy == 0 for node in whole._nodes)

    virtual_time(run)


def test_a_node_that_stalls_at_the_end_gets_time_to_sync(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        for at in ("finish", "finished"):
            nodes: list[Any] = three(clock=LoopClock())
            nodes[1] = Faulty(nodes[1], at, None)
            took, stored = await timed(lambda nodes=nodes: store(cluster(nodes), KEY, CONTENT))
            assert 5.0 <= took < 5.1
            assert stored.uuids == {A, C}
            assert isinstance(stored.failed[B], TimedOut)
        # and in being left it cannot take back what it said
        nodes = three(clock=LoopClock())
        nodes[1] = Faulty(nodes[1], "leave", None)
        took, stored = await timed(lambda: store(cluster(nodes), KEY, CONTENT))
        assert stored == Stored(uuids=frozenset((A, B, C)))
        assert 5.0 <= took < 5.1

    virtual_time(run)


def test_a_source_may_take_its_time(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes = three(clock=LoopClock())
        whole = cluster(nodes)
        async with whole.put(KEY) as upload:
            await anyio.sleep(1000)
            await upload.start(len(CONTENT))
            await anyio.sleep(1000)
            await upload.write(CONTENT)
            await anyio.sleep(1000)
            assert (await upload.finish()).uuids == {A, B, C}
        async with whole.get(KEY) as download:
            await anyio.sleep(1000)
            async for _ in download:
                await anyio.sleep(1000)
        assert not any(node.down() or node.late for node in whole._nodes)

    virtual_time(run)


def test_waiting_for_a_busy_node_does_not_make_it_a_dead_one(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        gate = anyio.Semaphore(1)

        class OneWire(Faulty):
            async def step(self, step: str) -> None:
                if step == "put":
                    await gate.acquire()
                await anyio.sleep(0)
                if step == "leave":
                    gate.release()

        nodes[1] = OneWire(nodes[1])
        whole = cluster(nodes)
        large = bytes(40 * 256 * 1024)
        key = Key(b"SHA256", hashlib.sha256(large).hexdigest().encode(), len(large))

        async def slowly() -> None:
            async with whole.put(key) as upload:
                await upload.start(len(large))
                for start in range(0, len(large), 256 * 1024):
                    await upload.write(large[start : start + 256 * 1024])
                    await anyio.sleep(1)
                assert (await upload.finish()).uuids == {A, B, C}

        async with anyio.create_task_group() as group:
            group.start_soon(slowly)
            await anyio.sleep(2)
            took, stored = await timed(lambda: store(whole, KEY, CONTENT))
            assert stored.uuids == {A, B, C}
            assert 35 < took < 40

    virtual_time(run)


def test_a_node_that_stalls_at_the_start_of_something_large_is_left_as_soon(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        for at in ("start", "write"):
            nodes: list[Any] = three(clock=LoopClock())
            nodes[1] = Faulty(nodes[1], at, None)
            async with cluster(nodes).put(Key(b"WORM", b"huge", 1 << 40, mtime=1)) as upload:
                began = anyio.current_time()
                await upload.start(1 << 40)
                for _ in range(20):
                    await upload.write(bytes(1 << 20))
                assert anyio.current_time() - began == 5.0

    virtual_time(run)


def test_a_nested_cluster_may_wait_for_its_own_dead_node(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(clock=LoopClock())
        nodes[2] = Dead(nodes[2])
        inner = Cluster(nodes[1:], clock=LoopClock())
        whole = cluster([nodes[0], inner])
        took, stored = await timed(lambda: store(whole, KEY, CONTENT))
        assert stored.uuids == {A, B}
        assert set(stored.failed) == {C}
        assert took == 5.0
        assert not any(node.down() for node in whole._nodes)

    virtual_time(run)


def test_a_removal_waits_one_deadline_for_a_silent_node(virtual_time: Callable[..., None]) -> None:
    async def run() -> None:
        nodes: list[Any] = three(KEY, clock=LoopClock())
        nodes[0] = Dead(nodes[0])
        took, removed = await timed(lambda: cluster(nodes).remove_content(KEY))
        assert took == 5.0
        assert not removed.ok
        assert removed.uuids == {B, C}
        assert isinstance(removed.failed[A], TimedOut)

    virtual_time(run)


@pytest.mark.anyio
async def test_in_real_time_a_silent_node_is_left_after_its_deadline() -> None:
    nodes: list[Any] = three()
    nodes[2] = Dead(nodes[2])
    whole = Cluster(nodes, deadline=0.05, hedge=0.02)
    assert (await store(whole, KEY, CONTENT)).uuids == {A, B}
    for _ in range(3):
        assert await read(whole, KEY) == CONTENT
    assert not await Cluster(nodes[:2]).check_present(KEYS[5])
    with pytest.raises(KeyNotPresent):
        await read(Cluster(nodes[:2]), KEYS[5])
