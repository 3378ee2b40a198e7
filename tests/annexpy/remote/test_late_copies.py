"""A cluster that answers before every node is done: what it answers, and what becomes of the rest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import anyio.abc
import pytest
import trio.testing
from faulty_remote import Cancelled, Faulty, LoopClock

from annexpy.errors import ConnectFailed, NodesFailed, TimedOut
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.fanout import WINDOW
from annexpy.remote.late_copies import LateCopies
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.named_cluster import NamedCluster
from annexpy.remote.recording import record
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")


def sha256_key(content: bytes) -> Key:
    return Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content))


SMALL = Random(1).randbytes(1000)
LARGE = bytes(3 * WINDOW)
SMALL_KEY, LARGE_KEY = sha256_key(SMALL), sha256_key(LARGE)


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        anyio.run(test, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})

    run.__name__ = test.__name__  # type: ignore[attr-defined]
    return run


def nodes_and_log() -> tuple[list[Any], list[tuple[Key, Stored]]]:
    return [MemoryRemote(uuid, name=f"node {uuid[0]}", clock=LoopClock()) for uuid in (A, B, C)], []


def cluster(nodes: list[Any], log: list[tuple[Key, Stored]], **options: Any) -> Cluster:
    return Cluster(
        nodes, clock=LoopClock(), min_copies=2, arrived=lambda key, stored: log.append((key, stored)), **options
    )


async def store(remote: Remote, key: Key, content: bytes) -> Stored:
    async with remote.put(key) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(len(content) - upload.offset)
        for start in range(upload.offset, len(content), CHUNK):
            await upload.write(content[start : start + CHUNK])
        return await upload.finish()


@virtual
async def test_a_slow_node_does_not_hold_up_the_answer_and_finishes_later() -> None:
    for key, content in ((SMALL_KEY, SMALL), (LARGE_KEY, LARGE)):
        nodes, log = nodes_and_log()
        slow = nodes[2]
        nodes[2] = Faulty(slow, delay=0.25)  # 1 MiB a second
        async with cluster(nodes, log) as whole:
            began = anyio.current_time()
            stored = await store(whole, key, content)
            assert anyio.current_time() - began <= 1.0
            assert stored.uuids == {A, B}
            assert isinstance(stored.failed[C], TimedOut)
            assert not log
            await anyio.sleep(60)
            assert slow.objects == {key: content}
            assert log == [(key, Stored(uuids=frozenset({C})))]
            assert not whole._late._puts


@virtual
async def test_a_cluster_that_was_named_has_late_copies_too_and_one_that_cannot_be_reached_leaves_nothing() -> None:
    nodes, log = nodes_and_log()
    slow = nodes[2]
    nodes[2] = Faulty(slow, delay=0.25)
    async with NamedCluster(
        nodes, clock=LoopClock(), min_copies=2, arrived=lambda key, stored: log.append((key, stored))
    ) as whole:
        assert (await store(whole, LARGE_KEY, LARGE)).uuids == {A, B}
        await anyio.sleep(60)
        assert slow.objects == {LARGE_KEY: LARGE}
    away = NamedCluster([LocalPlace("/nowhere")])
    with pytest.raises(ConnectFailed):
        async with away:
            pytest.fail("there is nobody")
    assert not away._late.entered


@virtual
async def test_copies_that_were_there_before_count() -> None:
    nodes, log = nodes_and_log()
    nodes[0].objects[SMALL_KEY] = nodes[1].objects[SMALL_KEY] = SMALL
    nodes[2] = Faulty(nodes[2], "finish", None)
    async with cluster(nodes, log) as whole:
        stored = await store(whole, SMALL_KEY, SMALL)
        assert stored.already == {A, B}
        assert set(stored.failed) == {C}
        assert anyio.current_time() < 1


@virtual
async def test_a_silent_node_costs_no_more_than_the_slack() -> None:
    nodes, log = nodes_and_log()
    nodes[1] = Faulty(nodes[1], "put", None)
    async with cluster(nodes, log) as whole:
        began = anyio.current_time()
        stored = await store(whole, SMALL_KEY, SMALL)
        assert anyio.current_time() - began <= 1.0
        assert stored.uuids == {A, C}
        assert set(stored.failed) == {B}
    assert not log


@virtual
async def test_a_wrong_partial_is_made_up_for_late() -> None:
    for partial in (b"x", b"x" * 1000):
        for delay in (0.0, 0.6):  # it says so before the answer, or after it
            nodes, log = nodes_and_log()
            spoilt = nodes[2]
            spoilt.partials[SMALL_KEY] = bytearray(partial)
            nodes[2] = Faulty(spoilt, delay=delay)
            async with cluster(nodes, log) as whole:
                stored = await store(whole, SMALL_KEY, SMALL)
                assert stored.uuids == {A, B}
                assert isinstance(stored.failed[C], TimedOut)
                assert not log
                await anyio.sleep(60)
                assert spoilt.objects == {SMALL_KEY: SMALL}
                assert log == [(SMALL_KEY, Stored(uuids=frozenset({C})))]
                assert not whole._late._puts


@virtual
async def test_whoever_shares_late_copies_makes_up_for_wrong_partials_with_any_number_of_copies() -> None:
    nodes, log = nodes_and_log()
    for node in nodes[1:]:
        node.partials[SMALL_KEY] = bytearray(b"x")
    late = LateCopies(lambda key, stored: log.append((key, stored)))
    async with late:
        for name, options in (("all", {}), ("two", {"min_copies": 2})):
            whole = Cluster(nodes, clock=LoopClock(), late=late, **options)
            stored = await store(whole, SMALL_KEY, SMALL)
            assert stored.uuids == {A}, name
            assert set(stored.failed) == {B, C}
            await anyio.sleep(60)
            assert log == [(SMALL_KEY, Stored(uuids=frozenset({uuid}))) for uuid in (B, C)]
            assert all(node.objects == {SMALL_KEY: SMALL} for node in nodes)
            assert not late._puts
            for node in nodes:
                node.objects.clear()
                node.partials[SMALL_KEY] = bytearray(b"x" if node is not nodes[0] else b"")
            log.clear()


@virtual
async def test_a_removal_ends_what_makes_up_for_a_wrong_partial() -> None:
    for moment in (0.05, 0.35, 0.6, 1.1, 1.6):
        nodes, log = nodes_and_log()
        nodes[2].partials[LARGE_KEY] = bytearray(b"x")
        slow = [Faulty(node, delay=0.01) for node in nodes]
        late = LateCopies(lambda key, stored, log=log: log.append((key, stored)))
        async with late:
            whole = Cluster(slow, clock=LoopClock(), late=late)
            assert (await store(whole, LARGE_KEY, LARGE)).uuids == {A, B}
            await anyio.sleep(moment)
            assert (await whole.remove_content(LARGE_KEY)).uuids == {A, B, C}
            heard = list(log)
            await anyio.sleep(60)
            assert not any(node.objects for node in nodes), moment
            assert log == heard


@virtual
async def test_a_node_with_a_wrong_partial_needs_nobody_to_stand_in_for_it() -> None:
    def one(key: Key, name: str, nodes: Any, *, taking: frozenset[UUID], refused: frozenset[UUID]) -> list[Remote]:
        return [node for node in nodes if node.uuid == A or (node.uuid not in refused and not taking - {A})][:2]

    nodes, log = nodes_and_log()
    nodes[1].partials[SMALL_KEY] = bytearray(b"x")
    late = LateCopies(lambda key, stored: log.append((key, stored)))
    async with late:
        whole = Cluster(nodes, clock=LoopClock(), late=late, place=one)
        assert (await store(whole, SMALL_KEY, SMALL)).uuids == {A}
        await anyio.sleep(60)
    assert [bool(node.objects) for node in nodes] == [True, True, False]


@virtual
async def test_who_cannot_give_what_he_has_is_no_fault_of_the_node_that_lacks_it() -> None:
    for error in (lambda: ConnectFailed("there", "refused"), None):
        nodes, log = nodes_and_log()
        nodes[2].partials[SMALL_KEY] = bytearray(b"x")
        first, lacking = Faulty(nodes[0], "get", error), Faulty(nodes[2])
        late = LateCopies(lambda key, stored, log=log: log.append((key, stored)))
        async with late:
            whole = Cluster([first, nodes[1], lacking], clock=LoopClock(), late=late)
            assert (await store(whole, SMALL_KEY, SMALL)).uuids == {A, B}
            await anyio.sleep(60)
            assert nodes[2].objects == {SMALL_KEY: SMALL}
            assert [node.error is None for node in whole._nodes] == [False, True, True]


@virtual
async def test_a_copy_that_has_rotted_is_no_fault_of_the_node_that_gets_it() -> None:
    nodes, log = nodes_and_log()
    nodes[0].objects[SMALL_KEY] = bytes(len(SMALL))
    nodes[1].objects[SMALL_KEY] = SMALL
    nodes[2].partials[SMALL_KEY] = bytearray(b"x")
    late = LateCopies(lambda key, stored: log.append((key, stored)))
    async with late:
        whole = Cluster(nodes, clock=LoopClock(), late=late)
        assert (await store(whole, SMALL_KEY, SMALL)).already == {A, B}
        assert await late.made_up()
        assert log == [(SMALL_KEY, Stored(uuids=frozenset({C})))]
        assert not await late.made_up()
    assert nodes[2].objects == {SMALL_KEY: SMALL}


@virtual
async def test_a_source_that_is_left_badly_takes_nothing_back() -> None:
    class Hangs(Faulty):
        @asynccontextmanager
        async def get(self, key: Key, **options: Any) -> AsyncIterator[Any]:
            async with super().get(key, **options) as download:
                yield download
            if self.error is None:
                await anyio.sleep_forever()
            raise self.error()

    for error in (lambda: ConnectFailed("there", "refused"), None):
        nodes, log = nodes_and_log()
        nodes[2].partials[SMALL_KEY] = bytearray(b"x")
        late = LateCopies(lambda key, stored, log=log: log.append((key, stored)))
        async with late:
            whole = Cluster([Hangs(nodes[0], error=error), *nodes[1:]], clock=LoopClock(), late=late)
            assert (await store(whole, SMALL_KEY, SMALL)).uuids == {A, B}
            await anyio.sleep(60)
            assert log == [(SMALL_KEY, Stored(uuids=frozenset({C})))]
            assert whole._nodes[2].error is None


@virtual
async def test_a_node_that_stands_in_gives_up_a_partial_that_is_too_long() -> None:
    def one(key: Key, name: str, nodes: Any, *, taking: frozenset[UUID], refused: frozenset[UUID]) -> list[Remote]:
        return [node for node in nodes if node.uuid == A or (node.uuid not in refused and not taking - {A})][:2]

    nodes, log = nodes_and_log()
    nodes[2].partials[SMALL_KEY] = bytearray(b"x" * 2000)
    whole = Cluster([nodes[0], Faulty(nodes[1], "finish"), nodes[2]], clock=LoopClock(), place=one)
    stored = await store(whole, SMALL_KEY, SMALL)
    assert stored.uuids == {A, C}
    assert not log


@virtual
async def test_whoever_has_left_his_late_copies_gets_none_and_nobody_waits_for_them() -> None:
    nodes, log = nodes_and_log()
    nodes[2].partials[SMALL_KEY] = bytearray(b"x")
    late = LateCopies(lambda key, stored: log.append((key, stored)))
    whole = Cluster(nodes, clock=LoopClock(), late=late)

    async def put_slowly() -> None:
        async with whole.put(SMALL_KEY) as upload:
            await upload.start(len(SMALL))
            await upload.write(SMALL)
            assert (await upload.finish()).uuids == {A, B}
            await anyio.sleep(20)

    async with anyio.create_task_group() as group:
        async with late:
            group.start_soon(put_slowly)
            await anyio.sleep(10)
    assert (await whole.remove_content(SMALL_KEY)).ok
    assert not any(node.objects for node in nodes)


@virtual
async def test_a_node_that_was_overtaken_catches_up_in_spite_of_a_wrong_partial() -> None:
    nodes, log = nodes_and_log()
    slow = nodes[2]
    slow.partials[LARGE_KEY] = bytearray(b"x" * CHUNK)
    nodes[2] = Faulty(slow, delay=0.25)  # 1 MiB a second
    async with cluster(nodes, log) as whole:
        assert (await store(whole, LARGE_KEY, LARGE)).uuids == {A, B}
        await anyio.sleep(120)
    assert slow.objects == {LARGE_KEY: LARGE}
    assert log == [(LARGE_KEY, Stored(uuids=frozenset({C})))]


@virtual
async def test_too_few_quick_nodes_are_waited_for() -> None:
    nodes, log = nodes_and_log()
    nodes[1] = Faulty(nodes[1], delay=1.5)
    nodes[2] = Faulty(nodes[2], delay=2.0)
    async with cluster(nodes, log) as whole:
        stored = await store(whole, SMALL_KEY, SMALL)
        assert stored.uuids == {A, B}
        await anyio.sleep(60)
    assert [arrived.uuids for _, arrived in log] == [{C}]


@virtual
async def test_fewer_than_enough_is_still_an_answer() -> None:
    nodes, log = nodes_and_log()
    nodes[1] = Faulty(nodes[1], "write")
    nodes[2] = Faulty(nodes[2], "write")
    async with cluster(nodes, log) as whole:
        assert (await store(whole, SMALL_KEY, SMALL)).uuids == {A}
        nodes[0] = Faulty(nodes[0], "write")
    async with cluster(nodes, log) as whole:
        with pytest.raises(NodesFailed):
            await store(whole, LARGE_KEY, LARGE)


@virtual
async def test_without_async_with_a_put_waits_for_all() -> None:
    nodes, log = nodes_and_log()
    nodes[2] = Faulty(nodes[2], delay=1.0)
    assert (await store(cluster(nodes, log), SMALL_KEY, SMALL)).uuids == {A, B, C}


@virtual
async def test_a_removal_stops_late_copies_first_so_nothing_comes_back() -> None:
    for late in (0.0, 0.3, 1.0, 3.0, 6.0):
        for key, content in ((SMALL_KEY, SMALL), (LARGE_KEY, LARGE)):
            nodes, log = nodes_and_log()
            plain = list(nodes)
            nodes[2] = Faulty(nodes[2], delay=0.25)
            async with cluster(nodes, log) as whole:
                await store(whole, key, content)
                await anyio.sleep(late)
                assert (await whole.remove_content(key)).ok
                assert nodes[2].inside == 0
                await anyio.sleep(60)
                assert not any(node.objects or node._receiving for node in plain)
                assert all(node.busy == 0 for node in whole._nodes)


class StoresAnyway(MemoryRemote):
    """What it has been sent it stores three seconds later, whether somebody waits for the answer or not."""

    tasks: anyio.abc.TaskGroup

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Any]:
        content, stored = bytearray(), anyio.Event()

        async def store_it() -> None:
            await anyio.sleep(3)
            self.objects[key] = bytes(content)
            stored.set()

        class Sent:
            already, offset = None, 0

            async def start(_, length: int) -> None:
                pass

            async def write(_, data: bytes) -> None:
                content.extend(data)

            async def finish(_, valid: bool = True) -> Stored:
                self.tasks.start_soon(store_it)
                await stored.wait()
                return Stored(uuids=frozenset((self.uuid,)))

        yield Sent()


@virtual
async def test_a_removal_waits_for_a_node_that_has_been_sent_everything() -> None:
    for late in (0.0, 0.5, 2.9, 3.1):
        nodes, log = nodes_and_log()
        anyway = nodes[2] = StoresAnyway(C, name="node c", clock=LoopClock())
        async with anyio.create_task_group() as anyway.tasks, cluster(nodes, log) as whole:
            assert (await store(whole, SMALL_KEY, SMALL)).uuids == {A, B}
            await anyio.sleep(late)
            removed = await whole.remove_content(SMALL_KEY)
            assert removed.ok
            await anyio.sleep(60)
            assert not any(node.objects for node in nodes), late


@virtual
async def test_a_new_put_of_the_key_stops_late_copies_first() -> None:
    nodes, log = nodes_and_log()
    plain = list(nodes)
    nodes[2] = Faulty(nodes[2], delay=0.25)
    async with cluster(nodes, log) as whole:
        await store(whole, LARGE_KEY, LARGE)
        await anyio.sleep(2)
        async with whole.put(LARGE_KEY) as upload:
            assert upload.already is None  # the late node is free to take part, from where it was
            assert upload.offset > 0
            await upload.start(len(LARGE) - upload.offset)
            await upload.write(LARGE[upload.offset :])
            assert (await upload.finish()).already == {A, B}
        await anyio.sleep(60)
    assert all(node.objects == {LARGE_KEY: LARGE} for node in plain)


@virtual
async def test_closing_the_cluster_ends_late_copies_and_keeps_their_partials() -> None:
    nodes, log = nodes_and_log()
    slow = nodes[2]
    nodes[2] = Faulty(slow, delay=0.25)
    async with cluster(nodes, log) as whole:
        await store(whole, LARGE_KEY, LARGE)
        await anyio.sleep(1)
    assert nodes[2].inside == 0
    assert not log
    assert 0 < len(slow.partials[LARGE_KEY]) < len(LARGE)
    assert nodes[2].calls["aclose"] == 1


@virtual
async def test_what_the_holder_raises_leaves_the_cluster_as_it_is() -> None:
    nodes, log = nodes_and_log()
    nodes[2] = Faulty(nodes[2], delay=0.25)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with cluster(nodes, log) as whole:
            await store(whole, LARGE_KEY, LARGE)
            _ = 1 // 0
    assert nodes[2].inside == 0


@virtual
async def test_a_put_that_is_left_or_fails_waits_for_its_nodes() -> None:
    nodes, log = nodes_and_log()
    async with cluster(nodes, log) as whole:
        async with whole.put(SMALL_KEY) as upload:
            await upload.start(len(SMALL))
            await upload.write(SMALL[:100])
        assert [len(node.partials[SMALL_KEY]) for node in nodes] == [100] * 3
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with whole.put(SMALL_KEY) as upload:
                assert upload.offset == 100
                _ = 1 // 0
        assert not any(node._receiving for node in nodes)


@virtual
async def test_late_content_is_bounded() -> None:
    nodes, log = nodes_and_log()
    slow = nodes[2]

    class StartsSlowly(Faulty):
        async def step(self, step: str) -> None:
            await super().step(step)
            if step == "start":
                await anyio.sleep(100)

    nodes[2] = StartsSlowly(slow)
    async with cluster(nodes, log, deadline=1000.0) as whole:
        contents = [Random(number).randbytes(1000) for number in range(40)]
        for content in contents:
            assert (await store(whole, sha256_key(content), content)).uuids == {A, B}
        with_content = sum(
            lane.follows for puts in whole._late._puts.values() for put in puts for lane in put._fan.lanes
        )
        assert with_content == 16
        await anyio.sleep(40 * 1000)
        assert len(slow.objects) == len(log) == 40


@virtual
async def test_cancelled_at_any_step_nothing_leaks() -> None:
    for stop in range(1, 1000):
        at_stop = Cancelled(stop)
        plain, log = nodes_and_log()
        nodes = [Faulty(node, watch=at_stop.watch, delay=delay) for node, delay in zip(plain, (0, 0, 0.1), strict=True)]
        async with cluster(nodes, log) as whole:
            with at_stop.scope:
                await store(whole, SMALL_KEY, SMALL)
            if stop % 2:
                await whole.remove_content(SMALL_KEY)
                assert not any(node.objects for node in plain)
        assert all(node.inside == 0 for node in nodes)
        assert all(node.busy == 0 for node in whole._nodes)
        assert not any(node._receiving for node in plain)
        if at_stop.over:
            break
    assert stop > 10


@virtual
async def test_late_copies_can_be_recorded() -> None:
    lines = []

    class Log:
        def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
            lines.append((key, uuid, present))

    nodes, _ = nodes_and_log()
    nodes[1] = Faulty(nodes[1], delay=0.25)
    whole = Cluster(
        nodes,
        clock=LoopClock(),
        min_copies=2,
        arrived=lambda key, stored: record(Log(), key, stored.copies, present=True),
    )
    async with whole:
        await store(whole, LARGE_KEY, LARGE)
        await anyio.sleep(60)
    assert lines == [(LARGE_KEY, B, True)]


@pytest.mark.anyio
async def test_in_real_time_on_either_event_loop() -> None:
    nodes: list[Any] = [MemoryRemote(uuid) for uuid in (A, B, C)]
    nodes[2] = Faulty(nodes[2], "start", None)
    async with Cluster(nodes, min_copies=2, hedge=0.01) as whole:
        stored = await store(whole, SMALL_KEY, SMALL)
        assert stored.uuids == {A, B}
        assert nodes[2].inside == 1
        assert not (await whole.remove_content_many([SMALL_KEY]))[0].failed
        assert nodes[2].inside == 0
