"""The registrar: the one process that writes what workers proved into the dataset, many keys at a time.

Order: attestations → location log → nodes → ``registered`` in the ledger. All but the last are unions, so whoever comes
after a crash does it again and changes nothing. A copy that was read back and is wrong is written as absent: the
destination itself has claimed it since it took it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.jobs.dataset import Dataset
from glimmer_store.jobs.event import Event, Folded, Task, fold_shard
from glimmer_store.jobs.lease import claim, new_worker
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.ran import Registered
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.receipts import Receipts
from glimmer_store.synced import append

__all__ = ["register", "registering"]

BATCH = 4096
"""Keys that share a commit."""
_SECONDS = 30.0
"""How long fewer of them wait for others."""


async def register(job_dir: str | os.PathLike[str], *, wait: bool = True) -> Registered:
    """Write all that is proven and not yet registered into the dataset.

    Args:
        job_dir: The folder of the job.
        wait: For another registrar to end; False: leave it to that one.

    Raises:
        AnnexError: The dataset could not be written to; what is proven stays in the ledger.
    """
    ledger = Ledger.open(job_dir)
    done = Registered()
    async with registering(ledger, wait=wait) as registrar:
        if registrar is not None:
            done = registrar.done
            await registrar.look(to_the_end=True)
    return done


@asynccontextmanager
async def registering(ledger: Ledger, *, wait: bool = True) -> AsyncIterator[Registrar | None]:
    """The registrar of a job; None when another is at work and is not waited for."""
    name = f"{new_worker()}.registrar"
    folder, heartbeat = ledger.folder / "registrar", ledger.spec.heartbeat
    while (lease := claim(folder, "registrar", name, heartbeat)) is None:
        if not wait:
            yield None
            return
        await anyio.sleep(min(0.2, heartbeat))
    try:
        async with AsyncExitStack() as stack:
            with ledger.writer(name) as writer:
                yield await Registrar.open(ledger, writer, stack)
    finally:
        lease.release()


@dataclass(slots=True)
class _Batch:
    """What is written together."""

    present: list[tuple[str, Task, int]] = field(default_factory=list)  # (shard, task, try); of a drain: gone
    absent: list[tuple[str, str, int]] = field(default_factory=list)  # (key, UUID, try)
    receipts: dict[bytes, Receipts] = field(default_factory=dict)  # by line
    nodes: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.present) + len(self.absent)


class Registrar:
    """Looks at the shards again and again; made by ``registering``."""

    def __init__(self, ledger: Ledger, writer: Writer, repository: annex.Repository, dataset: Dataset) -> None:
        self._ledger, self._writer, self._repository, self._dataset = ledger, writer, repository, dataset
        self._seen: dict[str, tuple[int, ...]] = {}
        self._looked: dict[str, float] = {}
        self._told = ledger.folder / "registrar" / "absent.jsonl"
        self._absent = _read_told(self._told)
        self._batch = _Batch()
        self._since = time.monotonic()
        self._clock = annex.SystemClock()
        self.done = Registered()

    @classmethod
    async def open(cls, ledger: Ledger, writer: Writer, stack: AsyncExitStack) -> Registrar:
        repository = annex.Repository.open(ledger.spec.dataset)
        stack.callback(repository.close)
        return cls(ledger, writer, repository, await Dataset.open(repository, stack))

    async def look(self, *, to_the_end: bool = False) -> None:
        """Take up what is new in the ledger; written down when it is much, when it waited long, or at the end.

        A shard is looked at when nothing is left in it for a worker, and else as rarely as that: it is read as a whole.
        """
        settled, now = self._ledger.settled(), time.monotonic()
        for shard in self._ledger.shards():
            if not to_the_end and shard not in settled and now - self._looked.setdefault(shard, now) < _SECONDS:
                continue
            stamp = _stamp(self._ledger.folder / "events" / shard)
            if stamp and self._seen.get(shard) != stamp:
                self._take(shard)
                self._seen[shard], self._looked[shard] = stamp, now
            if len(self._batch) >= BATCH:
                await self._flush()
        if len(self._batch) and (to_the_end or time.monotonic() - self._since > _SECONDS):
            await self._flush()

    def _take(self, shard: str) -> None:
        waiting = {task.key for _, task, _ in self._batch.present}
        tasks = {task.key: task for task in self._ledger.tasks(shard)}
        folded = fold_shard(tasks.values(), self._ledger.events(shard))
        good: set[str] = set()
        for key, one in folded.items():
            if one.state in (State.VERIFIED, State.DROPPED) and key not in waiting:
                self._batch.present.append((shard, tasks[key], one.attempt))
                good.add(key)
        bad = set(self._bad(tasks, folded))
        if not good and not bad:
            return
        wrong = {(key, uuid) for key, uuid, _ in bad}
        self._batch.present = [one for one in self._batch.present if (one[1].key, one[1].dest) not in wrong]
        for receipts in self._ledger.attestations(shard):
            if any(one.key in good or (one.key, one.uuid) in wrong for one in receipts.attestations):
                self._batch.receipts[receipts.line] = receipts
        self._batch.nodes.update(node for key in (*good, *(key for key, _ in wrong)) for node in tasks[key].nodes)
        self._absent |= bad
        self._batch.absent += sorted(bad)

    def _bad(self, tasks: dict[str, Task], folded: dict[str, Folded]) -> Iterable[tuple[str, str, int]]:
        """(key, UUID, try) of copies that were looked at and are not there, and that nobody has been told of yet."""
        for key, one in folded.items():
            found = [(key, uuid, one.attempt) for uuid in one.bad_sources]
            if one.last is not None and one.last.kind is FailureKind.DEST_BAD:
                found.append((key, tasks[key].dest, one.attempt))
            yield from (bad for bad in found if bad not in self._absent)

    async def _flush(self) -> None:
        batch, self._batch, self._since = self._batch, _Batch(), time.monotonic()
        if not len(batch):
            return
        branch = self._repository.branch
        for key, uuid, _ in batch.absent:  # before what is present: it may have been copied again since
            self._dataset.absent(annex.Key.parse(key), annex.UUID(uuid))
        by_dest: dict[str, list[annex.Key]] = {}
        for _, task, _ in batch.present:
            by_dest.setdefault(task.dest, []).append(annex.Key.parse(task.key))
        for dest, keys in by_dest.items():
            branch.set_present_many(keys, annex.UUID(dest), not self._ledger.spec.drains)
        await branch.sync()
        what = "dropped" if self._ledger.spec.drains else "proven"
        title = f"glimmer-store: {self._ledger.spec.type} {self._ledger.spec.id}: {len(batch.present)} copies {what}"
        publics = self._ledger.public_keys()
        nodes = await self._dataset.enter(title, batch.receipts.values(), batch.nodes, publics)
        gone = self._ledger.spec.drains
        self.done.present += 0 if gone else len(batch.present)
        self.done.absent += len(batch.absent) + (len(batch.present) if gone else 0)
        self.done.nodes += nodes
        self.done.behind = self._dataset.behind
        _tell(self._told, batch.absent)
        shards: dict[str, list[Event]] = {}
        now, job, was = self._clock.wall(), self._ledger.spec.id, State.DROPPED if gone else State.VERIFIED
        for shard, task, attempt in batch.present:
            event = Event(now, job, task.key, task.dest, was, State.REGISTERED, attempt, self._writer.worker)
            shards.setdefault(shard, []).append(event)
        for shard, events in shards.items():
            self._writer.write(shard, events)
            self._writer.close(shard)


def _read_told(path: Path) -> set[tuple[str, str, int]]:
    """The absences that were written already: a source may have been mended since."""
    told = set()
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return set()
    for line in lines:
        try:
            key, uuid, attempt = json.loads(line)
            told.add((str(key), str(uuid), int(attempt)))
        except (ValueError, TypeError):
            continue  # torn: it is written once more
    return told


def _tell(path: Path, absent: Iterable[tuple[str, str, int]]) -> None:
    lines = [json.dumps(one).encode() + b"\n" for one in absent]
    if lines:
        append(path, [b"\n", *lines])


def _stamp(folder: Path) -> tuple[int, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(
                sorted(entry.stat().st_size for entry in entries if not entry.name.endswith("registrar.jsonl"))
            )
    except FileNotFoundError:
        return ()
