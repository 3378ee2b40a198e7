"""Leases: which worker works on which shard, in plain files that also work on a shared file system.

A lease of shard S is the file ``leases/S.N``; the highest N counts. It is made whole under another name and linked
into place, which only one process can do for each N. Its holder sets its modification time every heartbeat; after
five of them without one it is expired, and whoever makes ``S.N+1`` has it. So nobody ever removes another's file, and
N - 1 workers were lost on S.

All times are those of the file system: "now" is the modification time of a file that is touched to ask. Clocks of
machines that are wrong by hours are no matter. A lease that is taken over too early costs work that is done twice,
never a wrong state: events are folded whoever wrote them.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["EXPIRES_AFTER", "Holding", "Lease", "claim", "file_system_now", "holdings", "new_worker"]

log = logging.getLogger(__name__)

EXPIRES_AFTER: Final = 5
"""Heartbeats without a sign of life."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Who has a shard.

    Attributes:
        shard: Which.
        number: 1 for the first worker that ever claimed it, or the first after it was given back.
        worker: Who.
        host, pid: Where that runs.
        age: Seconds since its last sign of life.
        expired: It counts as lost.
    """

    shard: str
    number: int
    worker: str
    host: str
    pid: int
    age: float
    expired: bool


class Lease:
    """A shard that this worker has; made by ``claim``. Its heart beats in a thread of its own until ``release``."""

    def __init__(self, path: Path, shard: str, number: int, heartbeat: float, said: bytes) -> None:
        self.shard, self.number, self._said = shard, number, said
        self._path, self._next = path, path.with_name(f"{shard}.{number + 1}")
        self._heartbeat = heartbeat
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name=f"lease {shard}", daemon=True)
        self._thread.start()

    @property
    def inherited(self) -> bool:
        """Somebody had it before and was lost."""
        return self.number > 1

    def held(self) -> bool:
        """Look whether it is still ours: after a long stop of this process it may be another's."""
        if not self._lost and (self._next.exists() or not self._is_ours()):
            self._lost = True
        return not self._lost

    def _is_ours(self) -> bool:
        try:
            return self._path.read_bytes() == self._said
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it back."""
        self._stop.set()
        self._thread.join()
        if self.held():
            self._path.unlink(missing_ok=True)
            for number in range(1, self.number):  # of those that were lost
                self._path.with_name(f"{self.shard}.{number}").unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat):
            try:
                if not self.held():
                    return
                os.utime(self._path)
            except OSError as error:  # the file system is away: it may come back before the lease is over
                log.warning("lease of %s: %s", self.shard, error)


def new_worker() -> str:
    """A name that no other process has."""
    host = "".join(c if c.isalnum() else "_" for c in os.uname().nodename)[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


def claim(folder: Path, shard: str, worker: str, heartbeat: float) -> Lease | None:
    """Take the lease of *shard*; None when somebody who is alive has it."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    for holding in holdings(folder, heartbeat, only=shard):
        if not holding.expired:
            return None
        number = holding.number + 1
    path = folder / f"{shard}.{number}"
    aside = folder / f".{shard}.{worker}.{os.getpid()}.{threading.get_ident()}"
    said = json.dumps({"worker": worker, "host": os.uname().nodename, "pid": os.getpid()}).encode()
    aside.write_bytes(said)
    try:
        os.link(aside, path)
    except FileExistsError:
        return None
    finally:
        aside.unlink(missing_ok=True)
    os.utime(path)
    return Lease(path, shard, number, heartbeat, said)


def holdings(folder: Path, heartbeat: float, *, only: str | None = None) -> Iterator[Holding]:
    """Who has which shard, of each the newest lease.

    Args:
        folder: ``leases`` of a job.
        heartbeat: Of the job.
        only: Look at this shard alone.
    """
    newest: dict[str, int] = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        shard, _, end = name.rpartition(".")
        if end.isdigit() and shard and not shard.startswith(".") and (only is None or shard == only):
            newest[shard] = max(int(end), newest.get(shard, 0))
    if not newest:
        return
    now = file_system_now(folder)
    for shard, number in newest.items():
        path = folder / f"{shard}.{number}"
        try:
            age = max(0.0, now - path.stat().st_mtime)
            said = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # given back just now
        except ValueError:
            said = {}
        yield Holding(
            shard,
            number,
            str(said.get("worker", "")),
            str(said.get("host", "")),
            int(said.get("pid", 0)),
            age,
            age > EXPIRES_AFTER * heartbeat,
        )


def file_system_now(folder: Path) -> float:
    """What the file system of *folder* thinks the time is, as it stamps files."""
    probe = folder / f".now.{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
    probe.touch()
    os.utime(probe)
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
