"""Jobs of a server's tenants: backfills, verifications, repairs and drains between the repositories of one tenant.

A job is a folder ``jobs/UUID/ID`` of the server, by the tenant's UUID, in which ``asked.toml`` and the event ``job
accepted`` stand before anything is done or answered. Each runs in a process of its own (``glimmer_store.jobs.hosted``),
some at a time; what was not at its end when the server ended goes on when it starts again. Repositories are written to
through ``annexpy-shell``, so quotas hold for jobs as they do for clients.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

import anyio
from anyio.abc import TaskGroup

from glimmer_store.errors import TenantError
from glimmer_store.jobs.callback import check_url, known
from glimmer_store.jobs.control import ControlFile, replace_file
from glimmer_store.jobs.hosted import place
from glimmer_store.jobs.ledger import SPEC, Ledger
from glimmer_store.jobs.limits import Limits
from glimmer_store.jobs.spec import JobSpec, Place, Select, Strength
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.survey import Survey
from glimmer_store.jobs.waterfall import FINAL, JobLog
from glimmer_store.synced import sync_above
from glimmer_store.tenant import Held, Tenant

__all__ = ["ASKED", "TYPES", "TenantJobs", "ledger_of"]

log = logging.getLogger(__name__)

ASKED: Final = "asked.toml"
"""The job as it was asked for."""
TYPES: Final[Mapping[str, str]] = {"backfill": "bf", "verify": "ve", "repair": "re", "drain": "dr"}
_ID: Final = re.compile(r"[a-z]{2}-\d{8}-[0-9a-f]{6}\Z")
_AT_ONCE: Final = 2
_MOST: Final = 20
"""Jobs of one tenant that are not at their end."""
_GRACE: Final = 10.0


class TenantJobs:
    """The jobs in the server's *folder*.

    Args:
        folder: Of the server.
        callbacks: Hosts, or HOST:PORT, that may be called back; by default nobody is.
        at_once: Jobs that run at the same time.
    """

    def __init__(self, folder: Path, *, callbacks: Sequence[str] = (), at_once: int = _AT_ONCE) -> None:
        self._folder, self._callbacks = folder / "jobs", frozenset(callbacks)
        self._limiter = anyio.CapacityLimiter(at_once)
        self._running: set[Path] = set()
        self._turns: dict[Path, anyio.Lock] = {}
        self._group: TaskGroup | None = None

    # -- looking ----------------------------------------------------------------------------------

    def all(self, tenant: Tenant) -> list[Path]:
        """The folders of a tenant's jobs, the oldest first."""
        found = (self._folder / tenant.uuid).glob(f"*/{ASKED}")
        return sorted((path.parent for path in found), key=lambda path: (path / ASKED).stat().st_mtime)

    def get(self, tenant: Tenant, job: str) -> Path:
        """The folder of one job.

        Raises:
            TenantError: The tenant has no such job.
        """
        folder = self._folder / tenant.uuid / job
        if not _ID.match(job) or not (folder / ASKED).is_file():
            raise TenantError(f"{tenant.name}: no job {job}")
        return folder

    def shown(self, folder: Path, *, figures: bool = False) -> dict[str, object]:
        """A job for the API; *figures* costs reading its ledger.

        Raises:
            StoreError: A file of it is malformed.
        """
        spec, events = _asked(folder), list(JobLog(folder).events())
        told: dict[str, object] = {
            "id": spec.id,
            "type": spec.type,
            "status": JobLog(folder).status,
            "to": [] if spec.drains else [place.name for place in spec.dests],
            "from": [place.name for place in (spec.dests if spec.drains else spec.sources)],
            "created": _iso(events[0].time) if events else None,
            "modified": _iso(events[-1].time) if events else None,
            "running": self.running(folder),
            "callback": {end: called.to_json() for end, called in known(folder).items()} if spec.callback else None,
        }
        control = ControlFile(folder).read()
        told |= {"paused": control.paused, "reason": control.reason}
        if figures and (folder / SPEC).exists():
            whole = Survey(Ledger.open(folder)).look().to_json()
            told["figures"] = {name: whole[name] for name in ("first", "progress", "speed", "eta", "health", "limits")}
        return told

    # -- making -----------------------------------------------------------------------------------

    def create(
        self,
        tenant: Tenant,
        type_: str,
        to: str = "",
        *,
        sources: Sequence[str] = (),
        verify: str = "reread",
        limits: Mapping[str, object] | None = None,
        callback: str = "",
    ) -> Path:
        """Write a new job down. It is not running yet.

        Args:
            tenant: Whose repositories alone can be named.
            type_: ``backfill``, ``verify``, ``repair`` or ``drain``.
            to: The repository that is to have what the others have; or that is looked at; none for a drain.
            sources: Where from; none: all others of the tenant. Of a drain the one that is emptied.
            verify: How strong a proof has to be.
            limits: As of any job.
            callback: URL that is told of the end.

        Raises:
            TenantError: A name is not of this tenant, or something cannot be.
            ConfigError: A limit is malformed.
        """
        if type_ not in TYPES or verify not in get_args(Strength):
            kinds = f"{', '.join(TYPES)}; verify: {', '.join(get_args(Strength))}"
            raise TenantError(f"{type_}, {verify}: there is no such job", remedy=f"type: {kinds}")
        if type_ == "drain":
            if to or len(sources) != 1:
                raise TenantError("a drain empties one repository", remedy="name it, and no other, in from; and no to")
            to, sources = sources[0], ()
        held = {one.name: one for one in tenant.repositories}
        dest = _named(held, to)
        given = [_named(held, one) for one in sources] or [one for one in held.values() if one is not dest]
        if dest in given or (not given and type_ != "verify"):
            raise TenantError(f"{to}: a job needs another repository as its source", remedy="name it in from")
        if callback and not self._may_call(callback):
            raise TenantError(f"callback {callback}: not allowed here", remedy="ask the operator for --callback-host")
        Limits.of(limits or {})
        if "places" in (limits or {}):
            raise TenantError("limits: of one repository they are set when the job is there", remedy="POST …/limits")
        if len([one for one in self.all(tenant) if JobLog(one).status not in FINAL]) >= _MOST:
            raise TenantError(f"{tenant.name}: {_MOST} jobs are not at their end", remedy="wait for, or cancel, some")
        id_ = f"{TYPES[type_]}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}"
        # What is known of keys is known where the contents come from; of a job that looks or drops, where it does that.
        knows = given[0] if type_ == "backfill" else dest
        spec = JobSpec(
            id_, type_, str(knows.path), (_place(dest),), tuple(map(_place, given)), Select(), verify,  # type: ignore[arg-type]  # both were looked at
            limits={"workers": 1, **(limits or {})}, callback=callback,
        )  # fmt: skip
        folder = self._folder / tenant.uuid / id_
        folder.mkdir(mode=0o700, parents=True)
        replace_file(folder / ASKED, spec.to_toml().encode())
        sync_above(folder / ASKED, self._folder)
        JobLog(folder).say("job accepted", JobState.ACCEPTED)
        return folder

    def _may_call(self, url: str) -> bool:
        from urllib.parse import urlsplit

        parts = urlsplit(check_url(url))
        return not self._callbacks.isdisjoint((parts.hostname or "", f"{parts.hostname}:{parts.port}"))

    # -- running ----------------------------------------------------------------------------------

    def run(self, group: TaskGroup, tenants: Iterable[Tenant]) -> None:
        """From now on run jobs in *group*, and first those of *tenants* that are not at their end."""
        self._group = group
        for tenant in tenants:
            for folder in self.all(tenant):
                if JobLog(folder).status in (JobState.ACCEPTED, JobState.PROCESSING):
                    self.start(folder)

    def running(self, folder: Path) -> bool:
        """A process works on it, or will as soon as there is room."""
        return folder in self._running

    def start(self, folder: Path) -> None:
        """Run a job as soon as there is room, unless it runs already."""
        assert self._group is not None
        if folder not in self._running:
            self._running.add(folder)
            self._group.start_soon(self._run, folder)

    async def _run(self, folder: Path) -> None:
        try:
            # those of one tenant one after the other, so that what fits into a quota is told before it is moved
            async with self._turns.setdefault(folder.parent, anyio.Lock()), self._limiter:
                argv = [sys.executable, "-m", "glimmer_store.jobs.hosted", str(folder)]
                process = await anyio.open_process(
                    argv, stdin=None, stdout=None, stderr=None, start_new_session=True, env=self._environment()
                )
                try:
                    await process.wait()
                finally:
                    if process.returncode is None:
                        with anyio.CancelScope(shield=True):
                            await _end(process)
                if process.returncode:
                    log.warning("%s: the job ended with exit code %s", folder, process.returncode)
        finally:
            self._running.discard(folder)

    def _environment(self) -> dict[str, str]:
        """What jobs attest, they sign with a key of this server."""
        return {**os.environ, "GLIMMER_STORE_HOME": str(self._folder.parent / "signing")}


async def _end(process: anyio.abc.Process) -> None:
    """End a job with its workers; it can go on later."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass  # the last of them has ended by itself
        with anyio.move_on_after(_GRACE):
            await process.wait()
            return


def ledger_of(folder: Path) -> Ledger:
    """The ledger of a job, whether it was planned yet or not.

    Raises:
        JobError: What was asked for cannot be read.
    """
    return Ledger(folder, _asked(folder))


def _asked(folder: Path) -> JobSpec:
    return JobSpec.from_toml((folder / ASKED).read_text(encoding="utf-8"), str(folder / ASKED))


def _named(held: Mapping[str, Held], name: str) -> Held:
    if name not in held:
        raise TenantError(f"{name}: no repository of that name", remedy=f"name one of {', '.join(sorted(held))}")
    return held[name]


def _place(held: Held) -> Place:
    return place(held.name, held.uuid, held.path)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
