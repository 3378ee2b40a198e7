"""What becomes of a removal behind a gateway may be unknown: the copies that it relied on stay while it may come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import TaskGroup

from annexpy.actions.drop import drop, drop_many
from annexpy.clock import Deadline
from annexpy.errors import (
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    ContentLocked,
    PeerError,
    RemoteProtocolError,
    TimedOut,
)
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.base import Remote, Removed
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.server.kept_locks import Keeping, KeptLocks
from annexpy.server.serve import serve
from annexpy.system import CLOCK
from annexpy.transport.base import Transport
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

KEYS = [Key.parse(b"WORM-s1-m1--%d" % number) for number in range(3)]
KEY = KEYS[0]


class Place(MemoryRemote):
    """A repository in memory, which raises *error* in place of removing anything."""

    def __init__(self, number: int, error: AnnexError | None = None) -> None:
        uuid = UUID(f"{number:08d}-1111-4111-8111-111111111111")
        super().__init__(uuid, name=f"n{number}", clock=CLOCK, objects=dict.fromkeys(KEYS, b"x"))
        self.error = error

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        if self.error is not None:
            raise self.error
        return await super().remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if self.error is not None:
            raise self.error
        return await super().remove_content_many(keys, deadline=deadline)

    async def keeps(self, key: Key = KEY) -> bool:
        """It would not give it up now."""
        removed = await super().remove_content(key)
        return not removed.ok


@asynccontextmanager
async def behind(remote: Remote) -> AsyncIterator[P2PRemote]:
    """*remote* as a gateway shows it."""

    def serving(group: TaskGroup) -> P2PRemote:
        async def dial() -> Transport:
            near, far = memory_pair()
            group.start_soon(serve, far, remote)
            return near

        return P2PRemote(dial, uuid=remote.uuid, name="gateway", clock=CLOCK)

    async with anyio.create_task_group() as group:
        shown = serving(group)
        try:
            yield shown
        finally:
            await shown.aclose()
            group.cancel_scope.cancel()


@pytest.mark.parametrize("why", [ConnectionLost("n1", "an answer"), TimedOut("n1", "answer to REMOVE", 5)])
async def test_locks_stay_when_a_gateway_does_not_know_what_became_of_a_removal(why: AnnexError) -> None:
    node, vault = Place(1, why), Place(2)
    async with behind(node) as shown:
        with pytest.raises(ConnectionLost):
            await drop(KEY, from_=shown, others=[vault], copies=Copies())
    assert await vault.keeps()


@pytest.mark.parametrize("why", [ConnectionLost("n1", "an answer"), TimedOut("n1", "answer to REMOVE", 5)])
async def test_that_is_so_for_many_keys_at_once(why: AnnexError) -> None:
    node, vault = Place(1, why), Place(2)
    async with behind(node) as shown:
        results = [one async for one in drop_many(KEYS, from_=shown, others=[vault], copies=Copies())]
    assert len(results) == len(KEYS)
    assert all([await vault.keeps(key) for key in KEYS])


async def test_locks_stay_when_only_some_nodes_of_a_cluster_are_known_to_have_removed_it() -> None:
    lost, vault = Place(1, ConnectionLost("n1", "an answer")), Place(3)
    other = Place(2)
    cluster = Cluster([other, lost])
    async with behind(cluster) as shown:
        with pytest.raises(AnnexError):
            await drop(KEY, from_=shown, others=[vault], copies=Copies(), nodes={cluster.uuid: [other.uuid, lost.uuid]})
    assert KEY not in other.objects
    assert await vault.keeps()


@pytest.mark.parametrize(
    "why",
    [ContentLocked(KEY, "n1"), ConnectFailed("n1", "no route"), PeerError("n1", "no"), TimedOut("n1", "time", 0)],
)
async def test_locks_end_when_it_is_known_that_nothing_was_removed(why: AnnexError) -> None:
    node, vault = Place(1, why), Place(2)
    async with behind(node) as shown:
        with pytest.raises(AnnexError):
            await drop(KEY, from_=shown, others=[vault], copies=Copies())
    assert not await vault.keeps()


async def test_a_node_that_is_down_is_not_asked_and_so_removes_nothing() -> None:
    node, vault = Place(1, TimedOut("n1", "answer to REMOVE", 5)), Place(2)
    cluster = Cluster([node], deadline=5)
    await cluster.remove_content(KEYS[1])  # from now on it is left alone
    async with behind(cluster) as shown:
        with pytest.raises(AnnexError):
            await drop(KEY, from_=shown, others=[vault], copies=Copies(), nodes={cluster.uuid: [node.uuid]})
    assert not await vault.keeps()


# -- a lock by way of a gateway that ends while somebody relies on it --


@pytest.mark.parametrize("client_is_gone", [True, False])
async def test_a_lock_at_a_node_outlives_the_end_of_its_gateway(client_is_gone: bool) -> None:
    node = Place(1)
    async with behind(node) as wire:
        with anyio.CancelScope() as gateway:
            async with KeptLocks(CLOCK) as kept:
                with suppress(ConnectionLost):
                    async with Keeping(wire, kept).lock_content(KEY):
                        if client_is_gone:
                            raise ConnectionLost("client", "UNLOCKCONTENT")
                        gateway.cancel()
                        await anyio.sleep_forever()
    assert await node.keeps()


@pytest.mark.parametrize("error", [RemoteProtocolError("nonsense"), TimedOut("n2", "answer to REMOVE", 5)])
async def test_a_lock_at_a_node_is_not_given_back_by_whoever_may_rely_on_it(error: AnnexError) -> None:
    node = Place(1)
    async with behind(node) as wire, KeptLocks(CLOCK) as kept:
        with suppress(AnnexError):
            async with Keeping(wire, kept).lock_content(KEY):
                raise error
    assert await node.keeps()


async def test_a_lock_at_a_node_that_is_left_in_order_is_given_back() -> None:
    node = Place(1)
    async with behind(node) as wire, KeptLocks(CLOCK) as kept:
        async with Keeping(wire, kept).lock_content(KEY):
            pass
        assert not await node.keeps()
