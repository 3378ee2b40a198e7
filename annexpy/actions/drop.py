"""Drop: give up one copy of a key, with proof that enough others stay.

Order (docs/design.md, "Drop with proof"): lock the content in enough other repositories; where one
cannot be locked, look at it; ask every lock again whether it still stands; let
``policy.numcopies.safe_drop`` decide; only then ask for the removal, with the end of the earliest
lock as its deadline. Nothing is awaited between the decision and the request.

What was removed is recorded by the remote that removed it (``Local``, ``Recording``) before the
error about the rest is raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from annexpy.actions.drop_here import drop_here, result_of
from annexpy.actions.gather import Gathering, Others
from annexpy.actions.many import Each
from annexpy.actions.results import DropResult
from annexpy.clock import Clock
from annexpy.errors import AnnexError, InvalidInput, NotEnoughCopies
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies, DropProof
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import BatchRemove, Remote, Removed, Stored, may_happen_yet
from annexpy.remote.kinds import is_local, known, members
from annexpy.system import CLOCK
from annexpy.uuids import UUID, is_cluster

__all__ = ["drop", "drop_for_move", "drop_many", "examine"]

_BATCH: Final = 64
"""Removals in one pipelined request, which share the earliest of their deadlines."""
_READY: Final = 2 * _BATCH
"""Drops under way where removals are pipelined: while one request is answered, the locks for the next are taken."""
_MOST_HELD: Final = 128
"""Locks on this machine that are held together, at two descriptors each."""


async def drop(
    key: Key,
    *,
    from_: Remote,
    others: Sequence[Remote],
    copies: Copies,
    trust: Mapping[UUID, TrustLevel] | None = None,
    recorded: Mapping[UUID, str] | None = None,
    nodes: Mapping[UUID, Collection[UUID]] | None = None,
    force: bool = False,
    clock: Clock = CLOCK,
) -> Removed:
    """Remove the content of *key* from *from_*, if enough other copies are proven to stay.

    Args:
        key: What to drop.
        from_: Where to drop it. For the local repository hand in the ``Local``; wrap it in
            ``Recording`` where others' locations are to be logged.
        others: Where copies may be. Named twice, or by two paths, a repository counts once; the
            second path is tried when the first fails.
        copies: How many must stay.
        trust: Trust levels; semitrusted where silent.
        recorded: UUID → description of the repositories that the location log says have it. Those
            are asked first, trusted ones among them count even when they cannot be asked, and a
            refusal names those that no remote leads to.
        nodes: Cluster → its nodes, needed to drop from a cluster by way of its gateway.
        force: Ask for the removal without any proof.
        clock: Time for locks and deadlines.

    Returns:
        Who no longer has the content.

    Raises:
        NotEnoughCopies: Nothing was asked of *from_*.
        DropIncomplete: Some repositories gave it up and some did not, or may not have. What is gone
            was recorded before. A repeat collects a new proof.
        ContentLocked, AccessDenied …: The one repository asked did not give it up.
        TransportError: Outcome unknown.
    """
    result = await _Drop(from_, others, copies, trust, nodes, force, clock).one(key, _same(recorded))
    if result.error is not None:
        raise result.error
    assert result.removed is not None
    return result.removed


def drop_many(
    keys: Iterable[Key] | AsyncIterable[Key],
    *,
    from_: Remote,
    others: Sequence[Remote],
    copies: Copies | Callable[[Key], Copies],
    trust: Mapping[UUID, TrustLevel] | None = None,
    recorded: Callable[[Key], Mapping[UUID, str]] | None = None,
    nodes: Mapping[UUID, Collection[UUID]] | None = None,
    force: bool = False,
    clock: Clock = CLOCK,
    jobs: int | None = None,
) -> Each[Key, DropResult]:
    """``drop`` for many keys: locks and removals of different keys overlap, removals are pipelined where possible.

    Every key has its own proof, and is removed or refused alone.

    Args:
        keys: Taken in windows; memory does not grow with their number.
        from_, others, trust, nodes, force, clock: As for ``drop``.
        copies: The same for all, or asked per key; it may raise to refuse one (``Wanted.keeping``).
        recorded: Asked per key.
        jobs: Drops at once; by default as many as suit the remotes. Each holds its locks meanwhile. A lock at
            the other end of a wire has that wire to itself, so few of them have such locks at once, whatever this is.
    """
    what = _Drop(from_, others, copies, trust, nodes, force, clock, batch=isinstance(from_, BatchRemove))

    async def work(key: Key) -> DropResult:
        return await what.one(key, recorded)

    if jobs is None:
        here = sum(map(is_local, [member for other in others for member in members(other)]))
        jobs = 16 if what.remover is None else _READY if here <= 1 else _BATCH  # each may have a lock in each of them
    return Each(keys, work, jobs=jobs, before=what.begin, same=lambda key: key, quickly=what.quickly)


async def examine(
    key: Key,
    *,
    from_: Remote,
    others: Sequence[Remote],
    copies: Copies,
    trust: Mapping[UUID, TrustLevel] | None = None,
    recorded: Mapping[UUID, str] | None = None,
    nodes: Mapping[UUID, Collection[UUID]] | None = None,
    clock: Clock = CLOCK,
) -> DropResult:
    """What ``drop`` would decide now. Locks are taken and given back; nothing is removed.

    The proof in the result is a report, no permission: its locks are over. The arguments are those of ``drop``, and
    what it would raise is the result's ``error``.
    """
    return await _Drop(from_, others, copies, trust, nodes, False, clock).one(key, _same(recorded), only_look=True)


def drop_for_move(
    source: Remote,
    destination: Remote,
    others: Sequence[Remote],
    copies: Copies | Callable[[Key], Copies],
    trust: Mapping[UUID, TrustLevel] | None,
    nodes: Mapping[UUID, Collection[UUID]] | None,
    force: bool,
    clock: Clock,
) -> Callable[[Key, Stored, Mapping[UUID, str] | None], Awaitable[DropResult]]:
    """The second half of a move: asked with a key, how *destination* got it, and who is said to have it.

    When *destination* did not have the content before, one locked copy there is enough, because one copy
    goes and one came. In all other cases, and where that copy cannot be locked or does not count, a move
    needs what every drop needs. Leaving a cluster always does: all its copies go.
    """
    full = _Drop(source, [destination, *others], copies, trust, nodes, force, clock)
    places = [member for remote in (destination, *others) for member in members(remote)]
    one_for_one = Copies(1, 1, "one copy for another", "one copy for another")

    async def give_up(key: Key, stored: Stored, recorded: Mapping[UUID, str] | None) -> DropResult:
        try:
            dropped_from = (await full.others()).dropped_from
            if destination.uuid in dropped_from:
                raise InvalidInput("destination", destination.name, "what is moved would leave it")
            if callable(copies) and not force:
                copies(key)  # may refuse whatever the number
        except AnnexError as error:
            return DropResult(key, error=error)
        one_copy_goes = len(dropped_from) == 1 and not is_cluster(source.uuid)
        if stored.uuids and not stored.already and one_copy_goes:
            new = [place for place in places if place.uuid in stored.uuids]
            exchange = _Drop(source, new, one_for_one, trust, nodes, force, clock)
            result = await exchange.one(key, None)
            if not isinstance(result.error, NotEnoughCopies):
                return result
        return await full.one(key, _same(recorded))

    return give_up


class _Drop:
    """What is the same for all keys of one drop."""

    def __init__(
        self,
        from_: Remote,
        others: Sequence[Remote],
        copies: Copies | Callable[[Key], Copies],
        trust: Mapping[UUID, TrustLevel] | None,
        nodes: Mapping[UUID, Collection[UUID]] | None,
        force: bool,
        clock: Clock,
        *,
        batch: bool = False,
    ) -> None:
        self._from, self._others, self._copies, self._trust = from_, others, copies, trust or {}
        self._nodes, self._force, self._clock = nodes or {}, force, clock
        self.remover = _Remover(from_) if batch and isinstance(from_, BatchRemove) else None
        self._ready: Others | None = None
        self._beginning = anyio.Lock()

    async def begin(self, keys: object = ()) -> None:
        """Get ready before many keys come at once."""
        try:
            await self.others()
        except AnnexError:
            return  # each key meets it again, and has it in its result

    async def others(self) -> Others:
        """Where other copies may be.

        Raises:
            AnnexError: It cannot be found out which repository this drops from.
        """
        if self._ready is None:
            async with self._beginning:
                if self._ready is None:
                    uuids = await _dropped_from(self._from, self._nodes)
                    found = Others(uuids, self._trust, within=is_local(self._from))
                    await found.add(self._others)
                    self._ready = found
        return self._ready

    async def quickly(self, keys: Sequence[Key]) -> list[DropResult | None]:
        """Drop those of *keys* that nobody has to be waited for; None for the others."""
        others = self._ready
        if others is None or self._force or all(map(is_cluster, others.dropped_from)):
            return [None] * len(keys)
        wanted: dict[Key, Copies] = {}
        done: dict[Key, DropResult] = {}
        for key in keys:
            try:
                copies = self._copies(key) if callable(self._copies) else self._copies
            except AnnexError as error:
                done[key] = DropResult(key, error=error)
                continue
            if copies.needed <= min(len(others.here), _MOST_HELD // len(keys)):
                wanted[key] = copies
        if wanted:
            done |= await drop_here(self._from, wanted, others, self._clock)
        return [done.get(key) for key in keys]

    async def one(
        self, key: Key, recorded: Callable[[Key], Mapping[UUID, str]] | None, *, only_look: bool = False
    ) -> DropResult:
        """Drop one key; whatever goes wrong with it is in the result."""
        try:
            if self._force and not only_look:
                return result_of(key, await self._from.remove_content(key), None)
            copies = self._copies(key) if callable(self._copies) else self._copies
            others = await self.others()
            if all(is_cluster(uuid) for uuid in others.dropped_from):
                why = "a cluster whose nodes are not known, so no copy can be told from those it would remove"
                raise NotEnoughCopies(key, 0, copies.needed, missing={self._from.name: why})
            if len(others.here) >= copies.needed and not only_look:
                done = await drop_here(self._from, {key: copies}, others, self._clock)
                if done:
                    return done[key]
            gathering = Gathering(key, copies, others, recorded, self._clock, thorough=only_look)
            if only_look:
                return await gathering.run(lambda: _look(gathering))
            return await gathering.run(lambda: self._remove(gathering))
        except AnnexError as error:
            return DropResult(key, error=error)

    async def _remove(self, gathering: Gathering) -> DropResult:
        if self.remover is not None:
            return await self.remover.remove(gathering)
        key = gathering.key
        await gathering.look_again()
        proof = gathering.prove()
        gathering.under_way = True
        try:
            removed = await self._request(key, proof)
        except AnnexError as error:
            gathering.under_way = may_happen_yet(error)
            return DropResult(key, proof=proof, error=error)
        gathering.under_way = may_happen_yet(*removed.failed.values())
        return result_of(key, removed, proof)

    async def _request(self, key: Key, proof: DropProof) -> Removed:
        return await self._from.remove_content(key, deadline=proof.deadline)


class _Waiting:
    """One key whose locks are held, on its way into a pipelined removal."""

    __slots__ = ("done", "gathering", "result")

    def __init__(self, gathering: Gathering) -> None:
        self.gathering, self.done = gathering, anyio.Event()
        self.result: DropResult | None = None


class _Remover:
    """Collects the removals of keys that are ready at the same time into one request.

    Each key's task holds its locks meanwhile. Whoever comes first sends, for all who have come by then.
    """

    def __init__(self, from_: BatchRemove) -> None:
        self._from = from_
        self._waiting: deque[_Waiting] = deque()
        self._sending = False

    async def remove(self, gathering: Gathering) -> DropResult:
        mine = _Waiting(gathering)
        self._waiting.append(mine)
        if self._sending:
            await mine.done.wait()
            await cancel_shielded_checkpoint()  # the next request goes out before we go on
        else:
            self._sending = True
            try:
                await checkpoint()  # the others get to here
                while self._waiting:
                    await self._send([self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))])
            finally:
                self._sending = False
        assert mine.result is not None
        return mine.result

    async def _send(self, batch: list[_Waiting]) -> None:
        proven: list[tuple[_Waiting, DropProof]] = []
        for one in batch:
            await one.gathering.look_again()
        for one in batch:
            try:
                proven.append((one, one.gathering.prove()))
            except NotEnoughCopies as error:
                one.result = DropResult(one.gathering.key, error=error)
        if proven:
            ends = [proof.deadline for _, proof in proven if proof.deadline is not None]
            keys = [proof.key for _, proof in proven]
            for one, _ in proven:
                one.gathering.under_way = True
            try:
                removed = await self._from.remove_content_many(keys, deadline=min(ends, default=None))
            except AnnexError as error:
                for one, proof in proven:
                    one.gathering.under_way = may_happen_yet(error)
                    one.result = DropResult(proof.key, proof=proof, error=error)
            else:
                for (one, proof), answer in zip(proven, removed, strict=True):
                    one.gathering.under_way = may_happen_yet(*answer.failed.values())
                    one.result = result_of(proof.key, answer, proof)
        for one in batch:
            one.done.set()


def _same(recorded: Mapping[UUID, str] | None) -> Callable[[Key], Mapping[UUID, str]] | None:
    return None if recorded is None else lambda key: recorded


async def _look(gathering: Gathering) -> DropResult:
    await gathering.look_again()
    return DropResult(gathering.key, proof=gathering.prove())


async def _dropped_from(from_: Remote, nodes: Mapping[UUID, Collection[UUID]]) -> frozenset[UUID]:
    """Every repository that would lose the content: a cluster takes it from all its nodes."""
    uuids = {await known(from_)} | {await known(member) for member in members(from_)}
    for cluster in [uuid for uuid in uuids if is_cluster(uuid)]:
        uuids.update(nodes.get(cluster, ()))
    return frozenset(uuids)
