"""Clusters whose nodes are real: behind wires, in repositories on disk, and shown to others by a gateway."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from faulty_remote import Faulty
from remote_contract import HandClock, RemoteContract

from annexpy.errors import AnnexError, ConnectionLost, NodesFailed, NoSpace, PeerError, TransportError
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.recording import Recording
from annexpy.remote.wrappers import ReadOnly
from annexpy.repo.repository import Repository
from annexpy.server.serve import serve
from annexpy.system import CLOCK
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.memory import MemoryTransport, memory_pair
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
CLUSTER = new_cluster_uuid("01234567-0123-4123-8123-0123456789ab")


def sha256_key(content: bytes) -> Key:
    return Key(b"SHA256E", hashlib.sha256(content).hexdigest().encode() + b".dat", len(content))


class Net:
    """Remotes shown over memory wires. ``cut`` hangs up every wire to one of them after so many bytes."""

    def __init__(self, tasks: anyio.abc.TaskGroup, clock: Any) -> None:
        self._tasks, self._clock = tasks, clock
        self._far: list[P2PRemote] = []

    def to(self, shown: Remote, *, cut: int | None = None) -> P2PRemote:
        async def dial() -> Transport:
            client, server = memory_pair()
            self._tasks.start_soon(lambda: serve(server, shown, clock=self._clock))
            return client if cut is None else Cut(client, cut)  # type: ignore[return-value]

        far = P2PRemote(dial, uuid=shown.uuid, name=f"far {shown.name}", clock=self._clock, deadline=20.0)
        self._far.append(far)
        return far

    async def aclose(self) -> None:
        for far in self._far:
            await far.aclose()
        self._tasks.cancel_scope.cancel()


@asynccontextmanager
async def net(clock: Any = CLOCK) -> AsyncIterator[Net]:
    async with anyio.create_task_group() as tasks:
        one = Net(tasks, clock)
        yield one
        await one.aclose()


class Cut:
    """A wire that is dead after so many bytes, counted in both directions."""

    def __init__(self, wire: MemoryTransport, left: int) -> None:
        self._wire, self._left = wire, left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    async def _passing(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            await self._wire.aclose()
            raise ConnectionLost("peer", "anything", "cut")

    async def send(self, data: bytes) -> None:
        if len(data) > self._left >= 0:
            await self._wire.send(data[: self._left])
        await self._passing(len(data))
        await self._wire.send(data)

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        data = await self._wire.receive(max_bytes)
        await self._passing(len(data))
        return data


# -- the contract ------------------------------------------------------------------------------------------------


class TestContractBehindWires(RemoteContract):
    """Three nodes, each behind a wire."""

    locks = False

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with net(clock) as wires:
            yield Cluster([wires.to(MemoryRemote(uuid, clock=clock)) for uuid in (A, B, C)], clock=clock)

    def places(self, remote: Remote) -> frozenset[UUID]:
        return frozenset((A, B, C))


class TestContractGateway(TestContractBehindWires):
    """A cluster shown by a gateway, as its client sees it."""

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with net(clock) as wires:
            nodes = [wires.to(MemoryRemote(uuid, clock=clock)) for uuid in (A, B, C)]
            yield wires.to(Recording(Cluster(nodes, uuid=CLUSTER, clock=clock), Log()))


class Log:
    def __init__(self) -> None:
        self.present: dict[Key, set[UUID]] = {}

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
        (self.present.setdefault(key, set()).add if present else self.present.setdefault(key, set()).discard)(uuid)


# -- what travels over a wire ------------------------------------------------------------------------------------


async def store(remote: Remote, key: Key, content: bytes, step: int = 100_000) -> Stored:
    async with remote.put(key) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(max(0, len(content) - upload.offset))
        for start in range(upload.offset, len(content), step):
            await upload.write(content[start : start + step])
        return await upload.finish()


async def read(remote: Remote, key: Key, offset: int = 0) -> bytes:
    async with remote.get(key, offset=offset) as download:
        content = b"".join([chunk async for chunk in download])
        assert download.valid
        return content


@pytest.mark.parametrize("size", [10, CHUNK + 10])
async def test_nodes_behind_wires_at_any_three_offsets_all_end_bit_identical(size: int) -> None:
    content = Random(size).randbytes(size)
    key = sha256_key(content)
    async with net() as wires:
        for starts in product({0, 1, min(size - 1, CHUNK - 1), size, size + 7}, repeat=3):
            nodes = [MemoryRemote(uuid) for uuid in (A, B, C)]
            for node, start in zip(nodes, starts, strict=True):
                if start:
                    node.partials[key] = bytearray((content + b"too much"[:7])[:start])
            log = Log()
            gateway = wires.to(Recording(Cluster([wires.to(node) for node in nodes], uuid=CLUSTER), log))
            assert (await store(gateway, key, content)).copies == {A, B, C}, starts
            assert all(node.objects == {key: content} for node in nodes)
            assert log.present == {key: {A, B, C}}


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_wire_cut_anywhere_costs_that_node_alone_and_the_log_is_exact(bad: int) -> None:
    content = Random(3).randbytes(2000)
    key = sha256_key(content)
    async with net() as wires:
        for cut in (*range(0, 260, 3), *range(260, 2400, 97)):
            nodes = [MemoryRemote(uuid) for uuid in (A, B, C)]
            log = Log()
            far: list[Any] = [wires.to(node, cut=cut if number == bad else None) for number, node in enumerate(nodes)]
            gateway = wires.to(Recording(Cluster(far, uuid=CLUSTER), log))
            stored = await store(gateway, key, content, step=300)
            assert stored.copies == log.present[key]
            assert {A, B, C} - {nodes[bad].uuid} <= stored.copies
            for node in nodes:
                assert node.objects.get(key, content) == content
                assert key in node.objects or node.uuid not in stored.copies

            healed = Cluster([wires.to(node) for node in nodes], uuid=CLUSTER)
            assert (await store(healed, key, content)).copies == {A, B, C}
            assert all(node.objects == {key: content} for node in nodes)


async def test_a_get_goes_on_from_another_node_when_its_wire_is_cut_anywhere() -> None:
    content = Random(4).randbytes(3000)
    key = sha256_key(content)
    async with net() as wires:
        nodes = [MemoryRemote(uuid, objects={key: content}) for uuid in (A, B, C)]
        for cut in (*range(0, 260, 3), *range(260, 3400, 97)):
            far = [wires.to(node, cut=cut if number < 2 else None) for number, node in enumerate(nodes)]
            gateway = wires.to(Cluster(far, uuid=CLUSTER))
            assert await read(gateway, key) == content
            assert await gateway.check_present(key)
            assert await read(gateway, key, 1234) == content[1234:]


async def test_a_gateway_without_usable_nodes_never_says_already_there() -> None:
    key = sha256_key(b"content")
    async with net() as wires:
        for nodes in ([], [wires.to(MemoryRemote(A), cut=0)], [ReadOnly(MemoryRemote(A))]):
            gateway = wires.to(Cluster(nodes, uuid=CLUSTER))
            with pytest.raises(AnnexError):
                await store(gateway, key, b"content")
            with pytest.raises(AnnexError):
                await store(Cluster(nodes), key, b"content")


@pytest.mark.parametrize(
    "fault", [lambda: NoSpace("key", "node", 10, 1), lambda: PeerError("node", "no"), lambda: ConnectionLost("n", "x")]
)
@pytest.mark.parametrize("at", ["put", "start", "write", "finish"])
async def test_a_far_node_that_fails_is_named_with_a_reason(at: str, fault: Callable[[], AnnexError]) -> None:
    content = Random(5).randbytes(1000)
    key = sha256_key(content)
    async with net() as wires:
        nodes: list[Any] = [MemoryRemote(uuid) for uuid in (A, B, C)]
        nodes[1] = Faulty(nodes[1], at, fault)
        whole = Cluster([wires.to(node) for node in nodes])
        stored = await store(whole, key, content)
        assert stored.uuids == {A, C}
        assert list(stored.failed) == [B]


async def test_two_gateways_with_the_second_already_holding_the_key() -> None:
    key, content = sha256_key(b"content"), b"content"
    a1, b1, b2 = (MemoryRemote(uuid) for uuid in (A, B, C))
    b1.objects[key] = content
    async with net() as wires:
        second = wires.to(Recording(Cluster([b1, b2], uuid=CLUSTER), Log()))
        log = Log()
        first = wires.to(Recording(Cluster([a1, second], uuid=CLUSTER), log))
        stored = await store(first, key, content)
        assert stored.copies == {A, B, C}
        assert log.present == {key: {A, B, C}}

        removed = await first.remove_content(key)
        assert removed.ok
        assert removed.uuids == {A, B, C}
        assert log.present == {key: set()}


async def test_nodes_whose_uuid_is_not_known_yet_are_named_all_the_same() -> None:
    key, content = sha256_key(b"content"), b"content"
    async with net() as wires:
        known = wires.to(MemoryRemote(A))

        async def refuse() -> Transport:
            raise TransportError("nobody there")

        unknown = P2PRemote(refuse, name="vault 9")
        stored = await store(Cluster([known, unknown]), key, content)
        assert stored.uuids == {A}
        assert list(stored.failed) == ["vault 9"]
        with pytest.raises(NodesFailed, match="vault 9"):
            await store(Cluster([unknown]), key, content)


# -- repositories on disk ------------------------------------------------------------------------------------------


@pytest.fixture
def bares(tmp_path: Path) -> list[Repository]:
    return [Repository.init(tmp_path / name, bare=True) for name in ("one", "two", "three")]


async def test_three_bare_repositories_and_their_logs(bares: list[Repository]) -> None:
    small, large = b"small", Random(6).randbytes(3 * CHUNK + 5)
    nodes = [Local(repository) for repository in bares]
    everybody = {node.uuid for node in nodes}
    async with Cluster(nodes) as whole:
        for content in (small, large, b""):
            key = sha256_key(content)
            async with nodes[1].put(key) as upload:
                if content:
                    await upload.start(len(content))
                    await upload.write(content[: len(content) // 2])
            stored = await store(whole, key, content, step=70_000)
            assert stored.uuids == everybody
            assert await read(whole, key) == content
            assert await whole.check_present(key)
            for repository in bares:
                assert repository.branch.locations(key).present == [repository.uuid]
        removed = await whole.remove_content(sha256_key(small))
        assert removed.ok
        assert removed.uuids == everybody
    for repository in bares:
        assert repository.branch.locations(sha256_key(small)).present == []
        repository.close()


async def test_a_repository_that_cannot_be_written_leaves_the_others_right(
    bares: list[Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Random(7).randbytes(1000)
    key = sha256_key(content)
    nodes = [Local(repository) for repository in bares]
    tmp = Path(os.fsdecode(bares[1].git_dir)) / "annex" / "tmp"
    if tmp.exists():
        tmp.rmdir()
    tmp.write_bytes(b"a file where the directory of partials should be")
    whole = Cluster(nodes)
    stored = await store(whole, key, content)
    assert stored.uuids == {nodes[0].uuid, nodes[2].uuid}
    assert list(stored.failed) == [nodes[1].uuid]
    assert await read(whole, key) == content

    tmp.unlink()
    assert (await store(whole, key, content)).copies == {node.uuid for node in nodes}
    for repository in bares:
        repository.close()
