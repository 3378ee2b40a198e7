"""The jobs of tenants over HTTP: a mount beside that of the tenants, below ``/api/v1/tenants/NAME/jobs``.

A POST is answered 201 with the id when the job is written down, and before it is worked on. Somebody of one tenant can
name the repositories and jobs of that tenant only; others' look as if they were not there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread

from annexpy import server
from glimmer_store.api_mount import APIMount, Body, field, route
from glimmer_store.errors import TenantError
from glimmer_store.jobs.ledger import SPEC
from glimmer_store.jobs.operate import cancel, pause, resume, retry, set_limits
from glimmer_store.jobs.states import FailureKind, JobState
from glimmer_store.jobs.waterfall import FINAL, JobLog
from glimmer_store.tenant_jobs import TenantJobs, ledger_of
from glimmer_store.tenants import Tenants

__all__ = ["JOB_ROUTES", "JobAPI"]

_READ, _APPEND = server.Role.READ, server.Role.APPEND
JOB_ROUTES: Final = (
    route("GET /tenants/NAME/jobs", _READ, None, "list"),
    route("POST /tenants/NAME/jobs", _APPEND, None, "create"),
    route("GET /tenants/NAME/jobs/JOB", _READ, None, "show"),
    route("GET /tenants/NAME/jobs/JOB/events", _READ, None, "events"),
    route("POST /tenants/NAME/jobs/JOB/pause", _APPEND, None, "pause"),
    route("POST /tenants/NAME/jobs/JOB/resume", _APPEND, None, "resume"),
    route("POST /tenants/NAME/jobs/JOB/cancel", _APPEND, None, "cancel"),
    route("POST /tenants/NAME/jobs/JOB/retry", _APPEND, None, "retry"),
    route("POST /tenants/NAME/jobs/JOB/limits", _APPEND, None, "limits"),
)
_REMOVES: Final = {"repair": "bad copies", "drain": "contents"}


class JobAPI(APIMount):
    """The mount."""

    routes = JOB_ROUTES

    def __init__(self, tenants: Tenants, jobs: TenantJobs, *, changed: Callable[[], Awaitable[None]]) -> None:
        """Speak for *jobs* of *tenants*; *changed* as in ``APIMount``."""
        super().__init__(tenants, changed=changed)
        self._jobs = jobs

    def _folder(self, name: str, job: str) -> Path:
        return self._jobs.get(self._tenants.get(name), job)

    async def _told(self, folder: Path) -> tuple[int, object]:
        return 200, await to_thread.run_sync(self._jobs.shown, folder)

    # -- one method a route: who asks, its body, words of the path → status, answer -------------------

    async def _list(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        def look() -> list[dict[str, object]]:
            return [self._jobs.shown(folder) for folder in self._jobs.all(self._tenants.get(name))]

        return 200, {"jobs": await to_thread.run_sync(look)}

    async def _create(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        type_ = field(body, "type", str, "backfill")
        if type_ in _REMOVES and not self._manages(who, name):
            raise TenantError(
                f"{type_} removes {_REMOVES[type_]}: that is for who may write", remedy="verify, or ask for access"
            )
        create = partial(
            self._jobs.create,
            self._tenants.get(name),
            type_,
            field(body, "to", str) if type_ != "drain" else field(body, "to", str, ""),
            sources=[str(one) for one in field(body, "from", list, [])],
            verify=field(body, "verify", str, "reread"),
            limits=field(body, "limits", dict, {}),
            callback=field(body, "callback", str, ""),
        )
        folder = await to_thread.run_sync(create)
        await to_thread.run_sync(self._note, who, "job", name, f"{type_} {folder.name}")
        self._jobs.start(folder)
        return 201, (await self._told(folder))[1]

    async def _show(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        return 200, await to_thread.run_sync(partial(self._jobs.shown, self._folder(name, job), figures=True))

    async def _events(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        events = JobLog(self._folder(name, job)).events()
        return 200, {"events": [{"time": one.time, "status": one.status, "text": one.text} for one in events]}

    async def _pause(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        folder, reason = self._folder(name, job), field(body, "reason", str, "")
        await self._operate(who, name, folder, "pause", partial(pause, ledger_of(folder), reason=reason))
        return await self._told(folder)

    async def _resume(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        folder = self._folder(name, job)
        await self._operate(who, name, folder, "resume", partial(resume, ledger_of(folder)))
        self._jobs.start(folder)
        return await self._told(folder)

    async def _cancel(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        folder, reason = self._folder(name, job), field(body, "reason", str, "")
        running = self._jobs.running(folder)
        await self._operate(who, name, folder, "cancel", partial(cancel, ledger_of(folder), reason=reason))
        if not running:  # else the process that runs it says so when it has stopped
            await to_thread.run_sync(JobLog(folder).say, "job cancelled by an operator", JobState.CANCELLED)
        return await self._told(folder)

    async def _retry(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        folder, kind = self._folder(name, job), field(body, "kind", str, "")
        if kind and kind not in [one.value for one in FailureKind]:
            raise TenantError(f"kind {kind!r}: {', '.join(one.value for one in FailureKind)}")
        kinds = [FailureKind(kind)] if kind else []
        planned = (folder / SPEC).exists()  # else the planning is what failed
        again = partial(retry, ledger_of(folder), kinds) if planned else dict[str, int]
        await self._operate(who, name, folder, "retry", again)
        self._jobs.start(folder)
        return await self._told(folder)

    async def _limits(self, who: server.Visitor, body: Body, name: str, job: str) -> tuple[int, object]:
        folder = self._folder(name, job)
        limits, place = field(body, "limits", dict), field(body, "at", str, "")
        await self._operate(who, name, folder, "limits", partial(set_limits, ledger_of(folder), limits, place=place))
        return await self._told(folder)

    async def _operate(
        self, who: server.Visitor, name: str, folder: Path, action: str, change: Callable[[], object]
    ) -> None:
        """Do it to a job that is not at its end, and note who did."""
        status = JobLog(folder).status
        if status in FINAL:
            raise TenantError(f"{folder.name}: {status}, and that is its end", remedy="make a new job for more work")
        await to_thread.run_sync(change)
        await to_thread.run_sync(self._note, who, f"job {action}", name, folder.name)

    def _note(self, who: server.Visitor, action: str, name: str, detail: str) -> None:
        self._tenants.note(who.name, action, name, detail)
