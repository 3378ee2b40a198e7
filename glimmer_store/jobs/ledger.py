"""The ledger of a job: a folder of plain files that any number of workers on any machines share.

::

    job.toml               what the job is (spec)
    keys/SHARD.tsv         its tasks, frozen when it was planned: key, size, class, nodes, sources
    events/SHARD/W.jsonl   what worker W did about them; one writer each, flushed to disk per batch
    attest/SHARD/W.log     signed attestations of what was read back; keys/NAME.pem beside them check the signatures
    leases/SHARD.N         who works on it now
    settled/SHARD          nothing in it is left for a worker
    control.toml           what an operator changes while it runs, and destinations that take nothing (control)

Nothing is ever changed but by adding, so a worker may die at any moment. A shard is named ``D-RANK-NUMBER``: the
number of its destination, how soon it is due, and a number; it holds keys of one destination only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from glimmer_store.entry import write_whole
from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.event import Event, Folded, Task, fold_shard, read_events
from glimmer_store.jobs.lease import Holding, Lease, claim, holdings
from glimmer_store.jobs.spec import JobError, JobSpec
from glimmer_store.receipts import Receipts
from glimmer_store.synced import sync, sync_above

__all__ = ["Ledger", "Writer"]

SPEC = "job.toml"


class Ledger:
    """One job. Make it with ``create``, find it with ``open``."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec = folder, spec
        self._names: list[str] | None = None

    @classmethod
    def create(cls, folder: Path, spec: JobSpec, shards: Iterable[tuple[str, Iterable[Task]]]) -> Ledger:
        """Write the frozen part of a job. ``job.toml`` comes last: without it there is no job.

        Raises:
            JobError: There is one already.
        """
        if (folder / SPEC).exists():
            raise JobError(f"{folder}: there is a job already", remedy="run it, or name another folder")
        keys = folder / "keys"
        there = next(above for above in folder.absolute().parents if above.exists())
        keys.mkdir(parents=True, exist_ok=True)
        for left in keys.iterdir():  # of a plan that was interrupted
            left.unlink()
        for shard, tasks in shards:
            with (keys / f"{shard}.tsv").open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.writelines(task.to_line() + "\n" for task in tasks)
                file.flush()
                os.fsync(file.fileno())
        sync(keys)
        write_whole(folder / SPEC, spec.to_toml().encode())
        sync_above(folder.absolute(), there)
        return cls(folder, spec)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Ledger:
        """The job in *folder*.

        Raises:
            JobError: There is none, or its ``job.toml`` is malformed.
        """
        path = Path(folder).resolve()
        try:
            text = (path / SPEC).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise JobError(
                f"{folder}: no job ({SPEC} is missing)", remedy="plan one: glimmer-store backfill plan"
            ) from (None)
        except (OSError, ValueError) as error:
            raise JobError(f"{path / SPEC}: {error}") from error
        return cls(path, JobSpec.from_toml(text, str(path / SPEC)))

    # -- tasks and what happened to them --

    def shards(self) -> Sequence[str]:
        """Every shard, the one that is due first at the front."""
        if self._names is None:
            self._names = sorted(name[:-4] for name in os.listdir(self.folder / "keys") if name.endswith(".tsv"))
        return self._names

    def dest(self, shard: str) -> str:
        """UUID of the destination of a shard."""
        return str(self.spec.dests[int(shard.partition("-")[0])].uuid)

    def tasks(self, shard: str) -> Iterator[Task]:
        """Its tasks, in order.

        Raises:
            JobError: No such shard, or a malformed line.
        """
        dest, path = self.dest(shard), self.folder / "keys" / f"{shard}.tsv"
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                for line in file:
                    yield Task.from_line(line.rstrip("\n"), dest)
        except (OSError, ValueError) as error:
            raise JobError(f"{path}: {error}") from error

    def events(self, shard: str) -> Iterator[Event]:
        """What every worker wrote about it, in no order that matters."""
        for path in _files(self.folder / "events" / shard, ".jsonl"):
            with path.open("rb") as file:
                yield from read_events(file)

    def fold(self, shard: str) -> dict[str, Folded]:
        """Key → where its task is."""
        return fold_shard(self.tasks(shard), self.events(shard))

    def attestations(self, shard: str) -> Iterator[Receipts]:
        """Every line of attestations about it."""
        for path in _files(self.folder / "attest" / shard, ".log"):
            with path.open("rb") as file:
                whole = (line for line in file if line.endswith(b"\n"))
                yield from (one for one in map(Receipts.from_line, whole) if one is not None)

    def public_keys(self) -> dict[str, bytes]:
        """Name → PEM of everybody who signed."""
        return {path.stem: path.read_bytes() for path in _files(self.folder / "attest" / "keys", ".pem")}

    # -- writing --

    def writer(self, worker: str) -> Writer:
        """What *worker* writes with. No other process may use the same name."""
        return Writer(self, worker)

    # -- claiming --

    def claim(self, worker: str, shards: Sequence[str] | None = None, *, skip: Iterable[str] = ()) -> Lease | None:
        """The first shard with work that nobody has; None when there is none at the moment.

        Args:
            worker: Who claims.
            shards: Among these only.
            skip: Not these: what can be done there now is done.
        """
        left_out = {*skip, *self.settled()}
        held = self.held()
        for shard in self.shards() if shards is None else shards:
            if shard in left_out or self.dest(shard) in held:
                continue
            lease = claim(self.folder / "leases", shard, worker, self.spec.heartbeat)
            if lease is None:
                continue
            if not (self.folder / "settled" / shard).exists():
                return lease
            lease.release()  # somebody has just finished it
        return None

    def holdings(self) -> Iterator[Holding]:
        """Who works on which shard."""
        return holdings(self.folder / "leases", self.spec.heartbeat)

    def settled(self) -> set[str]:
        """Shards in which nothing is left for a worker."""
        return _names(self.folder / "settled")

    def settle(self, shard: str) -> None:
        """Nothing is left in it for a worker: the events that say so, whoever wrote them, are on disk before this."""
        events = _files(self.folder / "events" / shard, ".jsonl")
        for path in events:
            sync(path)
        if events:
            sync_above(events[0], self.folder)
        (self.folder / "settled").mkdir(exist_ok=True)
        (self.folder / "settled" / shard).touch()

    def reopen(self, shard: str) -> None:
        """There is work in it again (an operator's retry, written before this)."""
        (self.folder / "settled" / shard).unlink(missing_ok=True)

    # -- destinations that take nothing --

    def held(self) -> Mapping[str, str]:
        """UUID of a repository that nothing is moved to or from at the moment → why. Raises ConfigError."""
        return ControlFile(self.folder).read().held

    def hold(self, uuid: str, why: str) -> None:
        """Nothing more goes to this destination until somebody frees it: it is full."""
        ControlFile(self.folder).change(lambda control: replace(control, held={**control.held, uuid: why}))

    def free(self, *uuids: str) -> None:
        """They may take something again."""
        if any(uuid in self.held() for uuid in uuids):
            ControlFile(self.folder).change(
                lambda control: replace(
                    control, held={uuid: why for uuid, why in control.held.items() if uuid not in uuids}
                )
            )


class Writer:
    """Adds to the ledger in the name of one worker. Files are opened per shard and stay open until ``close``."""

    def __init__(self, ledger: Ledger, worker: str) -> None:
        self._ledger, self.worker = ledger, worker
        self._files: dict[Path, BinaryIO] = {}

    def write(self, shard: str, events: Iterable[Event]) -> None:
        """Add events of one shard; on disk when this returns."""
        self._append(self._ledger.folder / "events" / shard / f"{self.worker}.jsonl", (e.to_line() for e in events))

    def attest(self, shard: str, receipts: Iterable[Receipts]) -> None:
        """Add attestations; on disk when this returns."""
        self._append(self._ledger.folder / "attest" / shard / f"{self.worker}.log", (one.line for one in receipts))

    def public_key(self, name: str, pem: bytes) -> None:
        """Lay down what checks the signatures of *name*."""
        path = self._ledger.folder / "attest" / "keys" / f"{name}.pem"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, pem)

    def _append(self, path: Path, lines: Iterable[bytes]) -> None:
        data = b"".join(lines)
        if not data:
            return
        file = self._files.get(path)
        opened = file is None
        if file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[path] = path.open("ab", buffering=0)
            if file.tell() and not _ends_line(path):
                data = b"\n" + data  # what a process of the same name left torn ends here
        file.write(data)
        os.fsync(file.fileno())
        if opened:
            sync_above(path, self._ledger.folder)

    def close(self, shard: str | None = None) -> None:
        """Close the files of a shard, or all."""
        for path in [path for path in self._files if shard is None or path.parent.name == shard]:
            self._files.pop(path).close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _files(folder: Path, end: str) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if name.endswith(end)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _names(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except FileNotFoundError:
        return set()
