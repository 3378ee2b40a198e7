"""Copy tasks of one shard to its destination, and say of each failure what kind it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import anyio

import annexpy as annex
from glimmer_store.attest import Attestation, Signer, Verdict
from glimmer_store.jobs.event import Folded, Task
from glimmer_store.jobs.metered import Metered
from glimmer_store.jobs.places import Places
from glimmer_store.jobs.states import FailureKind
from glimmer_store.jobs.throttle import JobHeld, Throttle
from glimmer_store.proving import reread

__all__ = ["LARGE", "Copied", "Copying", "Failure", "batches", "kind_of", "look_at_source", "remove_bad"]

LARGE = 8 << 20
"""Bytes of a content that goes by itself, chunk by chunk; smaller ones go in batches."""
_ONLINE_FIRST = 2
"""Tries before a cold source is asked although another one is online."""
_TOGETHER = 256
_BYTES = 32 << 20
_FULL = ("not enough free disk space", "no space left", "quota", "insufficient storage")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed, and what that means."""

    kind: FailureKind
    text: str


@dataclass(frozen=True, slots=True)
class Copied:
    """How the copy of one task ended.

    Attributes:
        task: Which.
        source: UUID it came from; empty when no source was left.
        size: Bytes that were moved.
        seconds: The time it took, or its share of that of its batch.
        received: The destination took it now, and verified it while it did.
        failure: Why it is not there.
        held: Nothing may be moved now: the task is as it was before.
    """

    task: Task
    source: str = ""
    size: int = 0
    seconds: float = 0.0
    received: bool = False
    failure: Failure | None = None
    held: bool = False


def batches(tasks: Iterable[Task]) -> Iterable[list[Task]]:
    """Tasks that go together: small ones many at a time, large ones one by one."""
    some: list[Task] = []
    size = 0
    for task in tasks:
        length = task.size if task.size is not None else LARGE
        if some and (length >= LARGE or size + length > _BYTES or len(some) >= _TOGETHER):
            yield some
            some, size = [], 0
        some.append(task)
        size += length
        if length >= LARGE:
            yield some
            some, size = [], 0
    if some:
        yield some


class Copying:
    """The copier of one worker.

    Args:
        places: Its connections.
        throttle: What the job may use.
    """

    def __init__(self, places: Places, throttle: Throttle) -> None:
        self._places, self._throttle = places, throttle
        self._turn = 0
        self._one_at_a_time = anyio.Lock()

    async def copy(self, tasks: Sequence[Task], folded: dict[str, Folded]) -> list[Copied]:
        """Copy *tasks*, which share a destination; from several sources at once where there are several."""
        async with self._one_at_a_time:  # the limits are those of one batch
            return await self._copy(tasks, folded)

    async def _copy(self, tasks: Sequence[Task], folded: dict[str, Folded]) -> list[Copied]:
        self._turn += 1
        by_source: dict[str, list[Task]] = {}
        done: list[Copied] = []
        for number, task in enumerate(tasks):
            source = self.source_of(task, folded[task.key], number)
            if not annex.is_verifiable(annex.Key.parse(task.key)):
                done.append(_failed(task, "", FailureKind.TERMINAL, "its key has no hash that could prove a copy"))
            elif source is None:
                done.append(_failed(task, "", FailureKind.TERMINAL, "no source is left"))
            else:
                by_source.setdefault(source, []).append(task)

        async def from_one(source: str, some: list[Task]) -> None:
            done.extend(await self._from(source, some))

        async with anyio.create_task_group() as group:
            for source, some in by_source.items():
                group.start_soon(from_one, source, some)
        return done

    def source_of(self, task: Task, folded: Folded, number: int = 0) -> str | None:
        """UUID of the best source that is left; those that cost the same take turns."""
        bad, throttle = folded.bad_sources, self._throttle
        usable = [u for u in task.sources if u not in bad and self._places.remote(u) is not None]
        if folded.asked in usable:  # it is brought up there, and would have to be paid for once more elsewhere
            return folded.asked
        free = [uuid for uuid in usable if uuid not in throttle.control.held] or usable
        if folded.tries <= _ONLINE_FIRST:
            free = [uuid for uuid in free if not self._places.is_cold(uuid)] or free
        if not free:
            return None
        cost = {uuid: remote.cost for uuid in free if (remote := self._places.remote(uuid)) is not None}
        if folded.tries > 1:  # what failed at the cheapest may go well elsewhere
            return free[(folded.tries - 1 + number) % len(free)]
        cheapest = [uuid for uuid in free if cost[uuid] == min(cost.values())]
        return cheapest[(self._turn + number // 64) % len(cheapest)]

    async def _from(self, source: str, tasks: list[Task]) -> list[Copied]:
        dest = tasks[0].dest
        giver, taker = self._places.remote(source), self._places.remote(dest)
        if giver is None or taker is None:
            where = self._places.name(dest if taker is None else source)
            return [_failed(task, source, FailureKind.TRANSIENT, f"{where}: cannot be used here") for task in tasks]
        whole = sum(task.size or 0 for task in tasks)
        from_: annex.Remote = giver
        large = len(tasks) == 1 and (tasks[0].size is None or tasks[0].size >= LARGE)
        try:
            await self._throttle.ready(source, dest)
            await self._throttle.spend(source=source, dest=dest, size=0 if large else whole, requests=len(tasks))
        except JobHeld:
            return [Copied(task, source, held=True) for task in tasks]
        for place in (giver, taker):
            try:
                await place.connect()
            except annex.AnnexError as error:  # once for all of them, not once for each
                kind = kind_of(error)
                return [_failed(task, source, kind, str(error)) for task in tasks]
        if large:
            from_ = Metered(giver, lambda size: self._throttle.spend(source=source, dest=dest, size=size))
        known = {task.key: task for task in tasks}
        begun = time.monotonic()
        found: list[annex.Transfer] = []
        await annex.copy(from_, taker, map(annex.Key.parse, known), jobs=self._jobs()).tell(found.append)
        each = (time.monotonic() - begun) / len(tasks)
        return [await self._judged(known[str(one.key)], source, one, each) for one in found]

    def _jobs(self) -> int:
        limits = self._throttle.limits
        most = [n for n in (limits.per_source, limits.per_dest) if n is not None]
        return max(1, min([16, *(self._throttle.share.slots(n) for n in most)]))

    async def _judged(self, task: Task, source: str, transfer: annex.Transfer, seconds: float) -> Copied:
        if transfer.ok:
            received = task.dest in transfer.stored.uuids
            return Copied(task, source, transfer.bytes, seconds, received)
        error = transfer.error or annex.ContentError(task.key, self._places.name(task.dest), "it was not stored")
        if isinstance(error, JobHeld):
            return Copied(task, source, held=True)
        return Copied(task, source, transfer.bytes, seconds, failure=Failure(kind_of(error), str(error)))


def _failed(task: Task, source: str, kind: FailureKind, text: str) -> Copied:
    return Copied(task, source, failure=Failure(kind, text))


def kind_of(error: annex.AnnexError) -> FailureKind:
    """What a failed copy means. That a source is bad is only suspected: ``look_at_source`` finds out."""
    from glimmer_store.errors import ContentCold

    match error:
        case ContentCold():
            return FailureKind.COLD
        case annex.NoSpace():
            return FailureKind.DEST_FULL
        case annex.KeyNotPresent() | annex.VerificationFailed() | annex.ContentChanged():
            return FailureKind.SOURCE_BAD
        case annex.AuthFailed() | annex.AccessDenied() | annex.UnknownUUID() | annex.InvalidInput():
            return FailureKind.TERMINAL
        case annex.PeerError() | annex.ContentError() if any(text in str(error).lower() for text in _FULL):
            return FailureKind.DEST_FULL
        case _:
            return FailureKind.TRANSIENT


async def look_at_source(places: Places, source: str, key: annex.Key, signer: Signer) -> tuple[Attestation, str] | None:
    """Read the content at a source that is suspected.

    Returns:
        That it is bad or missing, to be signed, and why; None when it is right, or cannot be asked: then something
        else went wrong.
    """
    remote = places.remote(source)
    if remote is None:
        return None
    verdict, why = await reread(remote, key)
    if verdict is None or verdict is Verdict.GOOD:
        return None
    return signer.attest(key, source, places.name(source), verdict, "reread"), why


async def remove_bad(places: Places, task: Task, source: str) -> None:
    """Take a bad copy away from the destination alone: aside where it is on this machine, else by a drop with proof.

    For that somebody must have it who was read just now: a copy that is only said to be there may be as bad, or worse.

    Raises:
        AnnexError: It is still there.
    """
    dest, key = places.remote(task.dest), annex.Key.parse(task.key)
    if dest is None:
        return
    if places.is_here(task.dest):
        async for _ in annex.fsck(dest, [key]):
            pass
    if not await dest.check_present(key):
        return
    why = "nobody is left to get it from"
    for uuid in dict.fromkeys((source, *task.sources)):
        giver = places.remote(uuid) if uuid else None
        if giver is not None and uuid != task.dest and (uuid == source or not places.is_cold(uuid)):
            verdict, why = await reread(giver, key, cached=False)
            if verdict is Verdict.GOOD:
                await annex.drop(key, from_=dest, others=[giver], copies=annex.Copies(1, min=1))
                return
    raise annex.ContentError(key, places.name(task.dest), f"no good copy is known: {why}")
