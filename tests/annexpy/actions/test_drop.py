"""A drop removes a copy only when enough others are proven to stay."""

from __future__ import annotations

import importlib
import inspect
import math
import random
import sys
import types
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from annexpy.actions import drop as drop_module
from annexpy.actions import gather as gather_module
from annexpy.actions.drop import drop, drop_many, examine
from annexpy.clock import Deadline
from annexpy.errors import (
    AccessDenied,
    AnnexError,
    ConnectionLost,
    ContentLocked,
    DropIncomplete,
    NotEnoughCopies,
    NotLocked,
    TimedOut,
)
from annexpy.keys.key import Key
from annexpy.policy import numcopies
from annexpy.policy.numcopies import Copies
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import Removed
from annexpy.remote.memory import MemoryLock, MemoryRemote
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio

KEY = Key.parse(b"WORM-s3-m1--abc")
KEYS = [Key.parse(b"WORM-s3-m1--%d" % n) for n in range(200)]
CLUSTER = new_cluster_uuid("12345678-1234-4234-9234-123456789012")


def uuid(name: str) -> UUID:
    return UUID(f"{name}{'0' * (8 - len(name))}-1111-4111-8111-111111111111")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Place(MemoryRemote):
    """A repository in memory that can misbehave and remembers what it was asked."""

    def __init__(self, name: str, clock: Clock, *, keys: Collection[Key] = (KEY,), uuid_: UUID | None = None) -> None:
        super().__init__(uuid_ or uuid(name), name=name, clock=clock, objects=dict.fromkeys(keys, b"abc"))
        self.asked: list[str] = []
        self.lockable = True
        self.loses_locks = False
        self.lock_error: AnnexError | None = None
        self.remove_error: AnnexError | None = None
        self.before_removal: Callable[[], None] = lambda: None
        self.most_at_once = self.now_locking = 0

    async def check_present(self, key: Key) -> bool:
        self.asked.append("check")
        await checkpoint()
        return await super().check_present(key)

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[Any]:
        self.asked.append("lock")
        self.now_locking += 1
        self.most_at_once = max(self.now_locking, self.most_at_once)
        try:
            await checkpoint()
            if self.lock_error is not None:
                raise self.lock_error
            if not self.lockable:
                raise NotLocked(key, self.name, "this kind of remote cannot lock")
            async with super().lock_content(key) as lock:
                lock.released = self.loses_locks
                yield lock
        finally:
            self.now_locking -= 1

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        self.asked.append("remove")
        self.before_removal()
        await checkpoint()
        if self.remove_error is not None:
            raise self.remove_error
        return await super().remove_content(key, deadline=deadline)

    @property
    def is_locked(self) -> bool:
        return bool(self._locks)

    @property
    def locked(self) -> set[Key]:
        return set(self._locks)

    def is_retained(self, key: Key = KEY) -> bool:
        return key in self._retained_until


class Group:
    """Several repositories as one, removed from together."""

    def __init__(self, nodes: Sequence[Place], *, uuid_: UUID = CLUSTER) -> None:
        self.nodes, self.uuid, self.name, self.cost = nodes, uuid_, "cluster", 200

    async def check_present(self, key: Key) -> bool:
        return any([await node.check_present(key) for node in self.nodes])

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[Any]:
        async with self.nodes[0].lock_content(key) as lock:  # wrong on purpose: a cluster refuses
            yield lock

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        answers = []
        for node in self.nodes:
            try:
                answers.append(await node.remove_content(key, deadline=deadline))
            except AnnexError as error:
                answers.append(Removed(ok=False, failed={node.uuid: error}))
        gone = frozenset().union(*(answer.uuids for answer in answers))
        failed = {u: error for answer in answers for u, error in answer.failed.items()}
        return Removed(ok=all(answer.ok for answer in answers), uuids=gone, failed=failed)

    put = get = aclose = None


# -- allowed and refused --


async def test_a_copy_goes_when_another_one_is_locked(clock: Clock) -> None:
    here, vault = Place("here", clock), Place("vault", clock)

    removed = await drop(KEY, from_=here, others=[vault], copies=Copies(), clock=clock)

    assert removed == Removed(ok=True, uuids=frozenset({here.uuid}))
    assert KEY not in here.objects
    assert vault.asked == ["lock"]
    assert not vault.is_locked


async def test_the_removal_gets_the_end_of_the_earliest_lock_as_its_deadline(clock: Clock) -> None:
    here, one, two = (Place(name, clock) for name in ("here", "one", "two"))
    seen: list[Deadline | None] = []

    async def remove(key: Key, *, deadline: Deadline | None = None) -> Removed:
        seen.append(deadline)
        return Removed(ok=True)

    here.remove_content = remove  # type: ignore[method-assign]
    await drop(KEY, from_=here, others=[one, two], copies=Copies(2), clock=clock)

    assert seen == [Deadline(1600.0)]


async def test_a_refusal_names_every_copy_and_asks_nothing_of_the_place_dropped_from(clock: Clock) -> None:
    here, vault, gone, old, far = (Place(name, clock) for name in ("here", "vault", "gone", "old", "far"))
    gone.objects.clear()
    far.lock_error = ConnectionLost("far", "LOCKCONTENT")
    recorded = {p.uuid: p.name for p in (here, vault, gone, far)} | {uuid("tape"): "tape library"}

    with pytest.raises(NotEnoughCopies) as refused:
        await drop(
            KEY,
            from_=here,
            others=[vault, gone, old, far],
            copies=Copies(3),
            trust={old.uuid: TrustLevel.UNTRUSTED},
            recorded=recorded,
            clock=clock,
        )

    assert here.asked == []
    assert (refused.value.have, refused.value.need) == (1, 3)
    assert refused.value.counted == {"vault": "locked"}
    assert refused.value.missing == {
        "old": "the repository is untrusted",
        "gone": "it is not present",
        "far": "unreachable: far hung up while waiting for LOCKCONTENT",
        "here": "it is where the content would be dropped",
        "tape library": "no remote leads there",
    }
    assert not vault.is_locked


async def test_no_more_repositories_are_locked_than_needed_while_they_answer(clock: Clock) -> None:
    here, *others = (Place(name, clock) for name in ("here", "a", "b", "c", "d"))

    await drop(KEY, from_=here, others=others, copies=Copies(2), clock=clock)

    assert [other.asked for other in others] == [["lock"], ["lock"], [], []]


async def test_locks_are_asked_for_at_the_same_time(clock: Clock) -> None:
    here, a, b, c = (Place(name, clock) for name in ("here", "a", "b", "c"))
    together = anyio.Event()
    arrived = 0

    def meeting(place: Place) -> None:
        inner = place.lock_content

        @asynccontextmanager
        async def lock(key: Key) -> AsyncIterator[Any]:
            nonlocal arrived
            arrived += 1
            if arrived == 3:
                together.set()
            await together.wait()  # for ever, if they came one after the other
            async with inner(key) as held:
                yield held

        place.lock_content = lock  # type: ignore[method-assign]

    for place in (a, b, c):
        meeting(place)
    with anyio.fail_after(5):
        await drop(KEY, from_=here, others=[a, b, c], copies=Copies(3), clock=clock)


async def test_the_next_repository_is_asked_when_one_refuses(clock: Clock) -> None:
    here, a, b, c = (Place(name, clock) for name in ("here", "a", "b", "c"))
    a.lock_error = TimedOut("a", "LOCKCONTENT", 5)

    await drop(KEY, from_=here, others=[a, b, c], copies=Copies(2), clock=clock)

    assert KEY not in here.objects


async def test_those_known_to_have_it_are_asked_first(clock: Clock) -> None:
    here, a, b = (Place(name, clock) for name in ("here", "a", "b"))

    await drop(KEY, from_=here, others=[a, b], copies=Copies(), recorded={b.uuid: "b"}, clock=clock)

    assert (a.asked, b.asked) == ([], ["lock"])


async def test_what_cannot_be_locked_counts_for_numcopies_only(clock: Clock) -> None:
    here, vault, bucket = (Place(name, clock) for name in ("here", "vault", "bucket"))
    bucket.lockable = False

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=here, others=[vault, bucket], copies=Copies(2, 2), clock=clock)
    await drop(KEY, from_=here, others=[vault, bucket], copies=Copies(2, 1), clock=clock)

    assert "check" in bucket.asked


async def test_a_trusted_repository_counts_when_it_cannot_be_asked_and_is_said_to_have_it(clock: Clock) -> None:
    here, tape = Place("here", clock), Place("tape", clock)
    tape.lock_error = ConnectionLost("tape", "LOCKCONTENT")
    trust = {tape.uuid: TrustLevel.TRUSTED}

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=here, others=[tape], copies=Copies(), trust=trust, recorded={}, clock=clock)
    await drop(KEY, from_=here, others=[], copies=Copies(), trust=trust, recorded={tape.uuid: "t"}, clock=clock)

    assert KEY not in here.objects


async def test_a_trusted_repository_that_was_asked_and_does_not_have_it_is_not_believed(clock: Clock) -> None:
    here, tape = Place("here", clock), Place("tape", clock, keys=())
    trust = {tape.uuid: TrustLevel.TRUSTED}

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=here, others=[tape], copies=Copies(), trust=trust, recorded={tape.uuid: "t"}, clock=clock)


async def test_force_asks_for_no_proof(clock: Clock) -> None:
    here = Place("here", clock)

    await drop(KEY, from_=here, others=[], copies=Copies(3), force=True, clock=clock)

    assert KEY not in here.objects


# -- the holes that were found in practice --


async def test_a_lock_lost_before_the_removal_voids_the_proof(clock: Clock) -> None:
    here, vault = Place("here", clock), Place("vault", clock)
    vault.loses_locks = True

    with pytest.raises(NotEnoughCopies, match="vault \\(its lock was lost\\)"):
        await drop(KEY, from_=here, others=[vault], copies=Copies(), clock=clock)

    assert here.asked == []


async def test_the_second_path_to_a_repository_is_tried_and_counts_once(clock: Clock) -> None:
    here, by_path = Place("here", clock), Place("path", clock)
    by_ssh = Place("ssh", clock, uuid_=by_path.uuid)
    by_ssh.lock_error = ConnectionLost("ssh", "LOCKCONTENT")

    with pytest.raises(NotEnoughCopies) as refused:
        await drop(KEY, from_=here, others=[by_ssh, by_path], copies=Copies(2), clock=clock)
    await drop(KEY, from_=here, others=[by_ssh, by_path], copies=Copies(1), clock=clock)

    assert refused.value.have == 1


async def test_the_repository_dropped_from_never_counts_not_even_by_another_path(clock: Clock) -> None:
    here = Place("here", clock)
    again = Place("again", clock, uuid_=here.uuid)

    with pytest.raises(NotEnoughCopies, match="again \\(it is where the content would be dropped\\)"):
        await drop(KEY, from_=here, others=[here, again], copies=Copies(), clock=clock)

    assert again.asked == []


async def test_a_lock_from_a_repository_that_is_not_the_expected_one_does_not_count(clock: Clock) -> None:
    here, liar = Place("here", clock), Place("liar", clock)

    class Proxy(Place):
        @asynccontextmanager
        async def lock_content(self, key: Key) -> AsyncIterator[Any]:
            async with here.lock_content(key) as lock:
                yield lock

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=here, others=[Proxy("proxy", clock)], copies=Copies(), clock=clock)
    assert liar.asked == []


async def test_dropping_from_a_cluster_never_counts_its_nodes(clock: Clock) -> None:
    a, b, vault = (Place(name, clock) for name in ("a", "b", "vault"))
    cluster = Group([a, b])

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=cluster, others=[a, b, cluster], copies=Copies(), clock=clock)  # type: ignore[arg-type, list-item]
    removed = await drop(KEY, from_=cluster, others=[a, b, vault], copies=Copies(), clock=clock)  # type: ignore[arg-type]

    assert removed.uuids == {a.uuid, b.uuid}
    assert KEY in vault.objects


async def test_a_cluster_whose_nodes_are_unknown_is_not_dropped_from(clock: Clock) -> None:
    gateway, a, vault = Place("gw", clock, uuid_=CLUSTER), Place("a", clock), Place("vault", clock)

    with pytest.raises(NotEnoughCopies, match="nodes are not known"):
        await drop(KEY, from_=gateway, others=[a, vault], copies=Copies(), clock=clock)
    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=gateway, others=[a], copies=Copies(), nodes={CLUSTER: [a.uuid]}, clock=clock)
    await drop(KEY, from_=gateway, others=[a, vault], copies=Copies(), nodes={CLUSTER: [a.uuid]}, clock=clock)

    assert a.asked == []


async def test_a_cluster_among_the_others_stands_for_its_nodes(clock: Clock) -> None:
    here, a, b = (Place(name, clock) for name in ("here", "a", "b"))

    await drop(KEY, from_=here, others=[Group([a, b])], copies=Copies(2), clock=clock)  # type: ignore[list-item]

    assert (a.asked, b.asked) == (["lock"], ["lock"])


# -- what happens to the answer --


async def test_a_partial_removal_is_an_error_that_says_who_is_left(clock: Clock) -> None:
    a, b, vault = (Place(name, clock) for name in ("a", "b", "vault"))
    b.remove_error = AccessDenied("read-only")

    with pytest.raises(DropIncomplete) as incomplete:
        await drop(KEY, from_=Group([a, b]), others=[vault], copies=Copies(), clock=clock)  # type: ignore[arg-type]

    assert incomplete.value.removed == (a.uuid,)
    assert incomplete.value.remaining == {b.uuid: "read-only"}
    assert not vault.is_locked


async def test_content_that_somebody_else_has_locked_stays(clock: Clock) -> None:
    here, vault = Place("here", clock), Place("vault", clock)

    async with here.lock_content(KEY):
        with pytest.raises(ContentLocked):
            await drop(KEY, from_=here, others=[vault], copies=Copies(), clock=clock)

    assert KEY in here.objects
    assert not vault.is_locked


@pytest.mark.parametrize("num", [1, 2])
async def test_after_a_removal_of_unknown_outcome_the_retentions_stand(num: int, clock: Clock) -> None:
    here, *others = (Place(name, clock) for name in ("here", "a", "b"))
    here.remove_error = ConnectionLost("here", "an answer to REMOVE-BEFORE")

    with pytest.raises(ConnectionLost, match="here hung up"):
        await drop(KEY, from_=here, others=others, copies=Copies(num), clock=clock)

    assert [other.is_retained() for other in others[:num]] == [True] * num
    assert not any(other.is_locked for other in others)


async def test_after_a_refusal_no_retention_is_left(clock: Clock) -> None:
    here, a, b = (Place(name, clock) for name in ("here", "a", "b"))

    with pytest.raises(NotEnoughCopies):
        await drop(KEY, from_=here, others=[a, b], copies=Copies(3), clock=clock)

    assert not any(place.is_locked or place.is_retained() for place in (a, b))


async def test_a_lock_that_cannot_be_given_back_does_not_undo_the_drop(clock: Clock) -> None:
    here = Place("here", clock)

    class Flaky(Place):
        @asynccontextmanager
        async def lock_content(self, key: Key) -> AsyncIterator[Any]:
            async with super().lock_content(key) as lock:
                yield lock
            raise ConnectionLost(self.name, "UNLOCKCONTENT")

    for others in ([Flaky("a", clock)], [Flaky("a", clock), Flaky("b", clock)]):
        here.objects[KEY] = b"abc"
        assert (await drop(KEY, from_=here, others=others, copies=Copies(len(others)), clock=clock)).ok


async def test_a_repository_that_never_answers_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    here, vault = Place("here", clock), Place("vault", clock)
    monkeypatch.setattr(gather_module, "LOCK_TIMEOUT", 0.01)

    class Silent(Place):
        @asynccontextmanager
        async def lock_content(self, key: Key) -> AsyncIterator[Any]:
            await anyio.sleep_forever()
            yield

    with pytest.raises(NotEnoughCopies, match="silent"):
        await drop(KEY, from_=here, others=[Silent("silent", clock)], copies=Copies(), clock=clock)
    await drop(KEY, from_=here, others=[Silent("silent", clock), vault], copies=Copies(), clock=clock)


async def test_examine_removes_nothing_and_gives_the_locks_back(clock: Clock) -> None:
    here, vault = Place("here", clock), Place("vault", clock)

    allowed = await examine(KEY, from_=here, others=[vault], copies=Copies(), clock=clock)
    refused = await examine(KEY, from_=here, others=[vault], copies=Copies(2), clock=clock)

    assert allowed.proof is not None
    assert [copy.name for copy in allowed.proof.counted] == ["vault"]
    assert isinstance(refused.error, NotEnoughCopies)
    assert here.asked == []
    assert not vault.is_locked


# -- many keys --


class Pipelined(Place):
    """Takes removals in batches."""

    batches: list[int]

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        self.batches.append(len(keys))
        await checkpoint()
        return [await MemoryRemote.remove_content(self, key, deadline=deadline) for key in keys]


@pytest.mark.parametrize("kind", [Place, Pipelined])
async def test_every_key_is_removed_or_refused_alone(kind: type[Place], clock: Clock) -> None:
    here, vault = kind("here", clock, keys=KEYS), Place("vault", clock, keys=KEYS[::2])
    here.batches = []  # type: ignore[attr-defined]

    results = [r async for r in drop_many(KEYS, from_=here, others=[vault], copies=Copies(), clock=clock)]

    assert sorted(result.key for result in results) == sorted(KEYS)
    assert {result.key for result in results if result.ok} == set(KEYS[::2])
    assert set(here.objects) == set(KEYS[1::2])
    assert all(isinstance(result.error, NotEnoughCopies) for result in results if not result.ok)
    assert not vault.is_locked


async def test_removals_are_pipelined_where_the_remote_can(clock: Clock) -> None:
    here, vault = Pipelined("here", clock, keys=KEYS), Place("vault", clock, keys=KEYS)
    here.batches = []

    results = [r async for r in drop_many(KEYS, from_=here, others=[vault], copies=Copies(), clock=clock)]

    assert all(result.ok for result in results)
    assert sum(here.batches) == len(KEYS)
    assert len(here.batches) <= 10


async def test_the_locks_for_the_next_removals_are_held_when_the_answer_to_the_last_ones_comes(clock: Clock) -> None:
    class Answering(Pipelined):
        ready: list[int]

        async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
            removed = await super().remove_content_many(keys, deadline=deadline)
            self.ready.append(len(vault.locked - set(keys)))
            return removed

    here, vault = Answering("here", clock, keys=KEYS), Place("vault", clock, keys=KEYS)
    here.batches, here.ready = [], []

    results = [r async for r in drop_many(KEYS, from_=here, others=[vault], copies=Copies(), clock=clock)]

    assert all(result.ok for result in results)
    assert here.ready[0] >= here.batches[1] > 1


async def test_with_several_places_on_this_machine_no_more_locks_are_held_at_once(clock: Clock) -> None:
    class Counting(Pipelined):
        async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
            most.append(sum(len(place.locked) for place in vaults))
            return await super().remove_content_many(keys, deadline=deadline)

    most: list[int] = []
    here, vaults = Counting("here", clock, keys=KEYS), [Place(name, clock, keys=KEYS) for name in ("one", "two")]
    here.batches = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("annexpy.actions.drop.is_local", lambda place: place in vaults)
        dropping = drop_many(KEYS, from_=here, others=vaults, copies=Copies(2, 2), clock=clock)

    assert all([result.ok async for result in dropping])
    assert max(most) <= 128


class BehindWire(Place):
    """Every lock has a wire of its own."""

    transfers = 4


async def test_a_remote_behind_a_wire_that_nobody_has_to_ask_makes_no_batch_smaller(clock: Clock) -> None:
    here, vault = Pipelined("here", clock, keys=KEYS), Place("vault", clock, keys=KEYS)
    far = BehindWire("far", clock, keys=KEYS)
    here.batches = []

    results = [r async for r in drop_many(KEYS, from_=here, others=[vault, far], copies=Copies(), clock=clock)]

    assert all(result.ok for result in results)
    assert len(here.batches) <= 10
    assert not far.asked


@pytest.mark.parametrize("needed", [1, 2])
async def test_few_keys_hold_locks_at_the_other_end_of_wires_at_once(needed: int, clock: Clock) -> None:
    class Counting(Pipelined):
        async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
            most.append(max(len(place.locked) for place in vaults))
            return await super().remove_content_many(keys, deadline=deadline)

    most: list[int] = []
    vaults = [BehindWire(name, clock, keys=KEYS) for name in ("one", "two", "three")]
    near = Place("near", clock, keys=KEYS[::3])
    here = Counting("here", clock, keys=KEYS)
    here.batches = []
    dropping = drop_many(KEYS, from_=here, others=[near, *vaults], copies=Copies(needed, needed), clock=clock, jobs=128)

    with anyio.fail_after(30):
        assert all([result.ok async for result in dropping])
    assert not here.objects
    assert 1 <= max(most) <= 4
    assert not any(place.is_locked for place in (near, *vaults))


async def test_a_key_that_waits_for_its_turn_at_a_wire_can_be_cancelled(clock: Clock) -> None:
    class Stuck(Pipelined):
        async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
            stuck.set()
            await anyio.sleep_forever()
            raise AssertionError

    stuck = anyio.Event()
    here, vault = Stuck("here", clock, keys=KEYS), BehindWire("vault", clock, keys=KEYS)
    here.batches = []

    async def drop_all() -> None:
        await drop_many(KEYS, from_=here, others=[vault], copies=Copies(), clock=clock).tell(print)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drop_all)
            await stuck.wait()
            tasks.cancel_scope.cancel()
    assert not vault.locked - {key for key in KEYS if vault.is_retained(key)}


async def test_a_lost_connection_in_a_batch_leaves_every_key_of_it_unknown_and_retained(clock: Clock) -> None:
    class Cut(Pipelined):
        async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
            raise ConnectionLost(self.name, "answers to REMOVE-BEFORE")

    here, vault = Cut("here", clock, keys=KEYS[:5]), Place("vault", clock, keys=KEYS[:5])

    results = [r async for r in drop_many(KEYS[:5], from_=here, others=[vault], copies=Copies(), clock=clock)]

    assert all(isinstance(result.error, ConnectionLost) for result in results)
    assert all(vault.is_retained(key) for key in KEYS[:5])


@pytest.mark.parametrize("kind", [Place, Pipelined])
async def test_a_lock_that_cannot_say_whether_it_stands_is_no_copy_and_no_other_key_waits_for_it(
    kind: type[Place], clock: Clock
) -> None:
    class SilentLock(MemoryLock):
        async def held(self) -> bool:
            raise ConnectionLost("vault", "an answer about the lock")

    class Silent(Place):
        @asynccontextmanager
        async def lock_content(self, key: Key) -> AsyncIterator[Any]:
            async with super().lock_content(key) as lock:
                yield SilentLock(lock.uuid, lock.expires) if key == KEYS[0] else lock

    here, vault = kind("here", clock, keys=KEYS[:5]), Silent("vault", clock, keys=KEYS[:5])
    here.batches = []  # type: ignore[attr-defined]

    with anyio.fail_after(10):
        results = [r async for r in drop_many(KEYS[:5], from_=here, others=[vault], copies=Copies(), clock=clock)]

    [failed] = [result for result in results if not result.ok]
    assert failed.key == KEYS[0]
    assert isinstance(failed.error, NotEnoughCopies)
    assert "an answer about the lock" in failed.error.missing["vault"]
    assert set(here.objects) == {KEYS[0]}
    assert not vault.is_locked


async def test_leaving_the_loop_early_leaves_nothing_running(clock: Clock) -> None:
    here, vault = Place("here", clock, keys=KEYS), Place("vault", clock, keys=KEYS)

    async for result in drop_many(KEYS, from_=here, others=[vault], copies=Copies(), clock=clock):
        assert result.ok
        break

    assert not vault.is_locked


async def test_how_many_copies_may_be_asked_per_key(clock: Clock) -> None:
    here, vault = Place("here", clock, keys=KEYS[:2]), Place("vault", clock, keys=KEYS[:2])
    copies = {KEYS[0]: Copies(1), KEYS[1]: Copies(2)}

    results = [r async for r in drop_many(KEYS[:2], from_=here, others=[vault], copies=copies.__getitem__, clock=clock)]

    assert [result.ok for result in sorted(results, key=lambda r: r.key)] == [True, False]


# -- cancelled at every await --


@pytest.mark.parametrize("kind", [Place, Pipelined])
@pytest.mark.parametrize("num", [1, 3])
async def test_a_drop_cancelled_anywhere_leaves_no_lock_behind(kind: type[Place], num: int, clock: Clock) -> None:
    """Cancels at the first await, then at the second, and so on until the drop runs to its end."""
    for nth in range(200):
        here, *others = (kind(name, clock) for name in ("here", "a", "b", "c"))
        here.batches = []  # type: ignore[attr-defined]
        with awaits(nth) as scope, scope:
            async for result in drop_many([KEY], from_=here, others=others, copies=Copies(num), clock=clock):
                assert result.ok
        assert not any(place.is_locked for place in others)
        asked = "remove" in here.asked or getattr(here, "batches", [])
        if scope.cancelled_caught and asked:
            assert sum(place.is_retained() for place in others) >= num  # it may be under way
        else:
            assert not any(place.is_retained() for place in others)
        if not scope.cancelled_caught:
            assert KEY not in here.objects
            assert nth >= num + 1
            return
    pytest.fail("the drop never ended")


@contextmanager
def awaits(nth: int) -> Iterator[anyio.CancelScope]:
    """A scope that is cancelled when the *nth* checkpoint of a ``Place`` is reached."""
    scope, left, original = anyio.CancelScope(), [nth], checkpoint

    async def counted() -> None:
        if left[0] == 0:
            scope.cancel()
        left[0] -= 1
        await original()

    module = sys.modules[__name__]
    module.checkpoint = counted  # type: ignore[attr-defined]
    try:
        yield scope
    finally:
        module.checkpoint = original  # type: ignore[attr-defined]


# -- random worlds, seen by somebody who knows everything --


@dataclass
class World:
    """A few repositories with what may be wrong with them, and one drop among them."""

    seed: int
    drops: int = 0
    violations: list[str] = field(default_factory=list)

    async def run(self, drop: Callable[..., Any]) -> None:
        dice, clock = random.Random(self.seed), Clock()
        names = ["here", "a", "b", "c", "d"]
        places = {name: Place(name, clock, keys=() if dice.random() < 0.2 else (KEY,)) for name in names}
        twin = Place("twin", clock, uuid_=places["a"].uuid)
        twin.objects, twin._locks = places["a"].objects, places["a"]._locks
        gateway = Place("gateway", clock, uuid_=CLUSTER)
        here, others = places["here"], [*(places[name] for name in names), twin, gateway]
        dice.shuffle(others)
        others = others[: dice.randint(1, len(others))]
        levels = [TrustLevel.SEMITRUSTED] * 4 + [TrustLevel.UNTRUSTED, TrustLevel.DEAD, TrustLevel.TRUSTED]
        trust = {place.uuid: dice.choice(levels) for place in places.values()}
        copies = Copies(dice.randint(1, 3), dice.randint(1, 2))
        recorded = {place.uuid: place.name for place in places.values() if dice.random() < 0.8}
        for place in others:
            place.lockable = dice.random() < 0.8
            place.loses_locks = dice.random() < 0.15
            if dice.random() < 0.1:
                place.lock_error = ConnectionLost(place.name, "LOCKCONTENT")
            if dice.random() < 0.2:
                self._shorten(place, dice.choice([-1.0, 0.0, 30.0, 60.0]), clock)
        deadlines: list[Deadline | None] = []
        here.before_removal = lambda: self.check(here, places, trust, recorded, copies, clock, deadlines[-1])
        original = here.remove_content

        async def remove(key: Key, *, deadline: Deadline | None = None) -> Removed:
            deadlines.append(deadline)
            return await original(key, deadline=None)

        here.remove_content = remove  # type: ignore[method-assign]
        try:
            await drop(KEY, from_=here, others=others, copies=copies, trust=trust, recorded=recorded, clock=clock)
        except AnnexError:
            pass
        if any(place.is_locked for place in others):
            self.violations.append("a lock was left behind")

    def _shorten(self, place: Place, left: float, clock: Clock) -> None:
        inner = place.lock_content

        @asynccontextmanager
        async def lock(key: Key) -> AsyncIterator[Any]:
            async with inner(key) as held:
                held.expires = clock.now() + left
                yield held

        place.lock_content = lock  # type: ignore[method-assign]

    def check(
        self,
        here: Place,
        places: dict[str, Place],
        trust: dict[UUID, TrustLevel],
        recorded: dict[UUID, str],
        copies: Copies,
        clock: Clock,
        deadline: Deadline | None,
    ) -> None:
        """What is protected in the last moment in which this removal may happen."""
        self.drops += 1
        last = deadline.at - 1e-6 if deadline is not None else math.inf
        sure, seen = 0, 0
        for place in places.values():
            level = trust.get(place.uuid, TrustLevel.SEMITRUSTED)
            if place is here or level in ("untrusted", "dead"):
                continue
            held = [
                lock for locked in place._locks.values() for lock in locked if not lock.released and lock.expires > last
            ]
            present = KEY in place.objects
            trusted = level == "trusted" and (present or (place.uuid in recorded and place.lock_error is not None))
            trusted = trusted or (level == "trusted" and place.uuid in recorded and not place.asked)
            sure += bool((held and present) or trusted)
            seen += bool(present or trusted)
        if sure < copies.min or seen < copies.needed:
            self.violations.append(f"{sure} sure and {seen} seen of {copies}")


def simulate(drop: Callable[..., Any], seeds: range, *, until_violated: bool = False) -> tuple[int, list[str]]:
    drops, violations = 0, []
    for seed in seeds:
        world = World(seed)
        anyio.run(world.run, drop)
        drops += world.drops
        violations += [f"world {seed}: {text}" for text in world.violations]
        if violations and until_violated:
            break
    return drops, violations


def test_in_no_world_does_a_drop_leave_too_few_copies() -> None:
    drops, violations = simulate(drop, range(600))

    assert violations == []
    assert drops > 150  # a proof that never succeeds is safe and useless


NOT_ASKED_AGAIN = (gather_module, "if not await lock.held():", "if False:")
NOT_LEFT_OUT = (gather_module, "why = not_a_copy(uuid, self.dropped_from, self.trust)", "why = None")
MISTAKES: dict[str, list[tuple[types.ModuleType, str, str]]] = {
    "a look is taken for a lock": [
        (
            gather_module,
            "append(CheckedCopy(remote.uuid, remote.name, at))",
            "append(HeldCopy(remote.uuid, '', at + 600))",
        )
    ],
    "an absence is taken for a lock": [
        (gather_module, "self._absent.add(remote.uuid)", "self._verified.append(HeldCopy(remote.uuid, '', at + 600))")
    ],
    "a lost lock is not noticed": [NOT_ASKED_AGAIN],
    "one lock is given back too early": [
        NOT_ASKED_AGAIN,
        (gather_module, "                self._fall_back_on_trust()\n", "                await locks.aclose()\n"),
    ],
    "many locks are given back too early": [
        NOT_ASKED_AGAIN,
        (gather_module, "holding.of(release.wait)", "holding.of(anyio.lowlevel.checkpoint)"),
    ],
    "the place dropped from counts, and clusters": [
        NOT_LEFT_OUT,
        (numcopies, "if is_cluster(uuid):", "if False:"),
        (numcopies, "if uuid in dropped_from:", "if False:"),
    ],
    "the untrusted and the dead count": [
        NOT_LEFT_OUT,
        (gather_module, "trust=self._others.trust,\n            now", "trust={},\n            now"),
    ],
    "the same repository counts twice": [
        (numcopies, "counted = tuple(best.values())", "counted = tuple(verified)"),
        (gather_module, "self.candidates.setdefault(uuid,", "self.candidates.setdefault(remote.name,"),
    ],
    "trust wins over what was seen": [
        (gather_module, "self._others.trust, self._absent |", "self._others.trust, set() |")
    ],
    "a lock that is over is used": [
        (numcopies, 'return None if now < expires else "its lock is over"', "return None"),
        (numcopies, "Deadline(min(ends)) if ends else None", "Deadline(now + 60)"),
    ],
    "the removal has no deadline": [(drop_module, "deadline=proof.deadline)", "deadline=None)")],
    "the removal may come after a lock ends": [(numcopies, "Deadline(min(ends)) if", "Deadline(max(ends)) if")],
    "mincopies is forgotten": [(numcopies, "if len(sure) < copies.min:", "if False:")],
    "nothing is proven": [(drop_module, "proof = gathering.prove()", "proof = types.SimpleNamespace(deadline=None)")],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_noticed(mistake: str) -> None:
    with variant(MISTAKES[mistake]) as mistaken:
        _, violations = simulate(mistaken, range(1500), until_violated=True)

    assert violations


@contextmanager
def variant(changes: Sequence[tuple[types.ModuleType, str, str]]) -> Iterator[Callable[..., Any]]:
    """``drop`` with some places of its source replaced."""
    sources = {module: inspect.getsource(module) for module in (numcopies, gather_module, drop_module)}
    for where, right, wrong in changes:
        assert sources[where].count(right) == 1, right
        sources[where] = sources[where].replace(right, wrong)
    saved = {module: sys.modules[module.__name__] for module in sources}
    try:
        for module, source in sources.items():
            changed = types.ModuleType(module.__name__)
            sys.modules[module.__name__] = changed
            changed.types = types  # type: ignore[attr-defined]
            exec(compile(source, module.__name__, "exec"), changed.__dict__)
        yield importlib.import_module(drop_module.__name__).drop
    finally:
        sys.modules.update({module.__name__: old for module, old in saved.items()})
