"""The registrar: the one process that writes what workers proved into the dataset, many keys at a time.

Order: attestations → location log → nodes → ``registered`` in the ledger. All but the last are unions, so whoever comes
after a crash does it again and changes nothing. A copy that was read back and is wrong is written as absent: the
destination itself has claimed it since it took it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.attest import FOLDER, Attestation, Attestations, Verdict, fold, log_path
from glimmer_store.config import CONFIG_NAME
from glimmer_store.enter import Entering
from glimmer_store.entry import Entry, Part
from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.lease import claim
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.jobs.worker import new_worker
from glimmer_store.record import Location
from glimmer_store.sidecar import Sidecar

__all__ = ["Registered", "register", "registering"]

BATCH = 4096
"""Keys that share a commit."""
_SECONDS = 30.0
"""How long fewer of them wait for others."""
_ATTRIBUTES = b"* annex.largefiles=nothing\nattestations/** merge=union -text\n"


@dataclass(slots=True)
class Registered:
    """What was written into the dataset.

    Attributes:
        present, absent: Keys whose copy at a destination, or at a source that turned out to be bad, was recorded so.
        nodes: Nodes whose storage fields changed.
        behind: Durable remote → why it does not have the history.
    """

    present: int = 0
    absent: int = 0
    nodes: int = 0
    behind: dict[str, str] = field(default_factory=dict)


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

    present: list[tuple[str, Task, int]] = field(default_factory=list)  # (shard, task, try)
    absent: list[tuple[str, str, int]] = field(default_factory=list)  # (key, UUID, try)
    lines: dict[str, list[bytes]] = field(default_factory=dict)  # key → attestations

    def __len__(self) -> int:
        return len(self.present) + len(self.absent)


class Registrar:
    """Looks at the shards again and again; made by ``registering``."""

    def __init__(self, ledger: Ledger, writer: Writer, repository: annex.Repository, dataset: _Dataset) -> None:
        self._ledger, self._writer, self._repository, self._dataset = ledger, writer, repository, dataset
        self._seen: dict[str, tuple[int, ...]] = {}
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
        return cls(ledger, writer, repository, await _Dataset.open(Path(ledger.spec.dataset), repository, stack))

    async def look(self, *, to_the_end: bool = False) -> None:
        """Take up what is new in the ledger; written down when it is much, when it waited long, or at the end."""
        for shard in self._ledger.shards():
            stamp = _stamp(self._ledger.folder / "events" / shard)
            if stamp and self._seen.get(shard) != stamp:
                self._take(shard)
                self._seen[shard] = stamp
            if len(self._batch) >= BATCH:
                await self._flush()
        if len(self._batch) and (to_the_end or time.monotonic() - self._since > _SECONDS):
            await self._flush()

    def _take(self, shard: str) -> None:
        waiting = {task.key for _, task, _ in self._batch.present}
        folded = self._ledger.fold(shard)
        tasks = {task.key: task for task in self._ledger.tasks(shard)}
        good: set[str] = set()
        for key, one in folded.items():
            if one.state is State.VERIFIED and key not in waiting:
                self._batch.present.append((shard, tasks[key], one.attempt))
                good.add(key)
        bad = set(self._bad(tasks, folded))
        if not good and not bad:
            return
        wrong = {(key, uuid) for key, uuid, _ in bad}
        self._batch.present = [one for one in self._batch.present if (one[1].key, one[1].dest) not in wrong]
        for line in self._ledger.attestations(shard):
            one_line = Attestation.from_line(line)
            if one_line is None:
                continue
            if one_line.key in good or (one_line.key, one_line.uuid) in wrong:
                self._batch.lines.setdefault(one_line.key, []).append(line)
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
            _write_absence(branch, annex.Key.parse(key), annex.UUID(uuid))
        by_dest: dict[str, list[annex.Key]] = {}
        for _, task, _ in batch.present:
            by_dest.setdefault(task.dest, []).append(annex.Key.parse(task.key))
        for dest, keys in by_dest.items():
            branch.set_present_many(keys, annex.UUID(dest), True)
        await branch.sync()
        nodes = await self._dataset.enter(batch, self._ledger)
        self.done.present += len(batch.present)
        self.done.absent += len(batch.absent)
        self.done.nodes += nodes
        self.done.behind = self._dataset.behind
        _tell(self._told, batch.absent)
        shards: dict[str, list[Event]] = {}
        now, job = self._clock.wall(), self._ledger.spec.id
        for shard, task, attempt in batch.present:
            event = Event(now, job, task.key, task.dest, State.VERIFIED, State.REGISTERED, attempt, self._writer.worker)
            shards.setdefault(shard, []).append(event)
        for shard, events in shards.items():
            self._writer.write(shard, events)
            self._writer.close(shard)


def _write_absence(branch: annex.Branch, key: annex.Key, uuid: annex.UUID) -> None:
    """Write that it is not there, later than whatever its holder has claimed: also where that was written before."""
    branch.set_present(key, uuid, True)
    branch.set_present(key, uuid, False)


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
        with path.open("ab") as file:
            file.write(b"\n" + b"".join(lines))
            file.flush()
            os.fsync(file.fileno())


def _stamp(folder: Path) -> tuple[int, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(
                sorted(entry.stat().st_size for entry in entries if not entry.name.endswith("registrar.jsonl"))
            )
    except FileNotFoundError:
        return ()


class _Dataset:
    """What is written to the dataset besides the location log: attestations, and the nodes where there is a graph."""

    def __init__(self, root: Path, repository: annex.Repository, graph: object) -> None:
        from glimmer_store.graph import GlimmerGraph

        self._root, self._repository = root, repository
        self._graph = graph if isinstance(graph, GlimmerGraph) else None
        self._entering = None
        if self._graph is None and repository.work_tree is not None:
            self._entering = Entering(repository, "", ())
        self.behind: dict[str, str] = {}

    @classmethod
    async def open(cls, root: Path, repository: annex.Repository, stack: AsyncExitStack) -> _Dataset:
        if not (root / CONFIG_NAME).exists():
            return cls(root, repository, None)
        from glimmer_store.graph import GlimmerGraph

        return cls(root, repository, await stack.enter_async_context(GlimmerGraph.open(root)))

    async def enter(self, batch: _Batch, ledger: Ledger) -> int:
        """Commit the attestations of a batch, and the nodes that it makes better; how many nodes changed."""
        parts = [Part(log_path(key), "lines", b"".join(lines)) for key, lines in batch.lines.items()]
        if parts:
            parts.append(Part(f"{FOLDER}/.gitattributes".encode(), "once", _ATTRIBUTES))
            parts += [Part(f"{FOLDER}/keys/{n}.pem".encode(), "once", pem) for n, pem in ledger.public_keys().items()]
        nodes = self._nodes(batch, ledger)
        parts += nodes
        title = f"glimmer-store: {ledger.spec.type} {ledger.spec.id}: {len(batch.present)} copies proven"
        if self._graph is not None and parts:
            outcome = await self._graph.enter(title, parts)
            self.behind = dict(outcome.behind)
        elif self._entering is not None and parts:
            await self._entering.enter(Entry(title, tuple(parts)))
        await self._repository.branch.commit()
        return len(nodes)

    def _nodes(self, batch: _Batch, ledger: Ledger) -> Sequence[Part]:
        graph = self._graph
        if graph is None:
            return ()
        from glimmer_store.verify import keys_of

        known = Attestations(self._root)
        fresh = fold(
            one for lines in batch.lines.values() for line in lines if (one := Attestation.from_line(line)) is not None
        )
        touched: dict[str, set[str]] = {}
        for _, task, _ in batch.present:
            for node_id in task.nodes:
                touched.setdefault(node_id, set()).add(task.dest)
        parts = []
        for node_id, dests in touched.items():
            node = graph.node(node_id)
            if node.record is None or node.key is None:
                continue
            keys = keys_of(self._root, node)
            whole = {dest for dest in dests if all(_is_good(key, dest, known, fresh) for key in keys)}
            names = {str(place.uuid): place.name for place in ledger.spec.dests}
            places = {*node.record.stored_at, *(Location(names[d], annex.UUID(d)) for d in whole)}
            record = replace(node.record, stored_at=tuple(sorted({p.uuid: p for p in sorted(places)}.values())))
            before = Sidecar.read(graph.root / node.file)
            after = before.with_fields(record.to_fields())
            if after.raw != before.raw:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                path = os.fsencode((graph.root / node.file).relative_to(graph.root))
                parts.append(Part(path, "whole", after.with_fields({"modified": now}).raw, before.raw))
        return parts


def _is_good(key: annex.Key, dest: str, known: Attestations, fresh: dict[tuple[str, str], Attestation]) -> bool:
    one = fresh.get((str(key), dest)) or known.newest(key).get(dest)
    return one is not None and one.verdict is Verdict.GOOD
