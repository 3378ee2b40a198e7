"""One process that hosts all tenants, over ssh and HTTP.

What each tenant may see and do follows from the state alone (``tenants.Tenants``), and is looked up again as soon as
that changes, whoever changed it: a command of the operator, the HTTP API, a restored backup. To somebody of one
tenant the others' repositories look as if they were not there.

Over HTTP a repository is ``/TENANT/NAME``, git and contents both; over ssh it is ``/NAME``, for whoever has a key of
the tenant.
"""

from __future__ import annotations

import fcntl
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

import annexpy as annex
from annexpy import server
from glimmer_store.api_mount import OPERATOR, PUBLIC
from glimmer_store.errors import TenantError
from glimmer_store.job_api import JobAPI
from glimmer_store.tenant import Access, Credential, Tenant
from glimmer_store.tenant_api import TenantAPI
from glimmer_store.tenant_jobs import TenantJobs
from glimmer_store.tenants import Tenants

__all__ = ["Listening", "TenantServer"]

log = logging.getLogger(__name__)

_LOOK: Final = 0.5
"""Seconds between two looks at the state."""
_GRACE: Final = 30.0
_READ: Final = server.Role.READ | server.Role.LOCK
_ROLES: Final = {
    Access.READ_ONLY: _READ,
    Access.APPEND_ONLY: _READ | server.Role.APPEND | server.Role.PUSH,
    Access.WRITE: _READ | server.Role.APPEND | server.Role.WRITE,
}
_Grants: TypeAlias = dict[annex.UUID | None, server.Role]
_SSH: Final = {
    Access.READ_ONLY: "GIT_ANNEX_SHELL_READONLY=1",
    Access.APPEND_ONLY: "GIT_ANNEX_SHELL_APPENDONLY=1",
    Access.WRITE: "",
}


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients find the server.

    Attributes:
        http: ``(host, port)`` of each HTTP listener; port 0 is a free one.
        ssh: The same of ssh.
        tls: For HTTP.
        plain: Take passwords over HTTP without TLS: on one machine, or behind a proxy that has TLS.
        url: By which clients find the HTTP side, where it is not what they call it.
    """

    http: Sequence[tuple[str, int]] = ()
    ssh: Sequence[tuple[str, int]] = ()
    tls: ssl.SSLContext | None = None
    plain: bool = False
    url: str = ""


class TenantServer:
    """The server of the tenants in one folder."""

    def __init__(
        self,
        tenants: Tenants,
        listening: Listening,
        *,
        durability: Literal["full", "fast"] = "full",
        ready: Callable[[str], None] = log.info,
        callbacks: Sequence[str] = (),
    ) -> None:
        """Serve nobody yet.

        Args:
            tenants: Who there is.
            listening: Where.
            durability: Of what is stored; "full" is on disk before a client hears of it.
            ready: Told each address that is listened on, as a URL.
            callbacks: Hosts, or HOST:PORT, that may be told when a job ends.
        """
        self._tenants, self._listening, self._ready = tenants, listening, ready
        self._places = server.Places({}, [str(tenants.folder / "tenants")], durability=durability)
        self._api = TenantAPI(tenants, ssh=lambda: self._ssh_urls, changed=self._look_now)
        self._jobs = TenantJobs(tenants.folder, callbacks=callbacks)
        self._job_api = JobAPI(tenants, self._jobs, changed=self._look_now)
        self._routes = server.Routes(
            server.ShownRepositories(()), access=server.Access(), mounts=self._mounts, on_idle=self._commit
        )
        self._sshd: server.SSHServer | None = None
        self._ssh_urls: tuple[str, ...] = ()
        self._shown: dict[Path, tuple[server.Gateway, anyio.Event]] = {}
        self._stamp: tuple[int, int] | None = None
        self._looking = anyio.Lock()
        self._group: TaskGroup | None = None

    @property
    def _mounts(self) -> tuple[server.Mount, ...]:
        return self._api, self._job_api

    async def run(self, stop: anyio.Event) -> None:
        """Answer until *stop* is set; then what is under way is answered, for half a minute at most.

        Raises:
            TenantError: Another process serves this folder.
            ConnectFailed: An address is taken.
        """
        with _alone(self._tenants.folder):
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._places)
                listeners = [
                    await stack.enter_async_context(await server.listen_tcp(*at)) for at in self._listening.http
                ]
                await stack.enter_async_context(self._routes)
                await self._open_ssh(stack)
                self._group = await stack.enter_async_context(anyio.create_task_group())
                await self._look()
                active = [tenant for tenant in await to_thread.run_sync(self._tenants.all) if tenant.active]
                self._jobs.run(self._group, active)
                self._group.start_soon(self._watch)
                scheme = "http" if self._listening.tls is None else "https"
                async with anyio.create_task_group() as serving:
                    for listener in listeners:
                        assert isinstance(listener.address, tuple)
                        host, port = listener.address
                        self._ready(f"{scheme}://{_in_url(host)}:{port}")
                        serving.start_soon(self._answer, listener, stop)
                    for url in self._ssh_urls:
                        self._ready(url)
                    await stop.wait()
                    if self._sshd is not None:
                        serving.start_soon(self._sshd.leave, _GRACE)
                for _, leave in self._shown.values():
                    leave.set()
                self._group.cancel_scope.cancel()

    async def _answer(self, listener: server.Listener, stop: anyio.Event) -> None:
        await self._routes.serve(listener, tls=self._listening.tls, stop=stop, grace=_GRACE)

    async def _open_ssh(self, stack: AsyncExitStack) -> None:
        if not self._listening.ssh:
            return
        key = await to_thread.run_sync(server.host_key, str(self._tenants.folder / "ssh_host_ed25519_key"))
        sshd = server.SSHServer(self._places, server.AuthorizedKeys(""), [key], metrics=self._routes.metrics)
        self._sshd = await stack.enter_async_context(sshd)
        found = [await sshd.listen(*at) for at in self._listening.ssh]
        self._ssh_urls = tuple(f"ssh://{_in_url(host)}:{port}" for host, port in found)

    # -- following the state ----------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(_LOOK)
            try:
                await self._look()
            except annex.AnnexError as error:  # what was known goes on to hold
                log.warning("%s", error)

    async def _look_now(self) -> None:
        self._stamp = None
        await self._look()

    async def _look(self) -> None:
        async with self._looking:
            stamp = await to_thread.run_sync(self._tenants.stamp)
            if stamp == self._stamp:
                return
            tenants = await to_thread.run_sync(self._tenants.all)
            credentials = await to_thread.run_sync(self._tenants.credentials)
            active = {tenant.name: tenant for tenant in tenants if tenant.active}
            # Nobody is let in to what is not shown any more, nor shown something before the rules for it hold.
            self._let_in(active, credentials)
            await self._show(active)
            self._stamp = stamp

    def _let_in(self, active: dict[str, Tenant], credentials: Sequence[Credential]) -> None:
        users, lines = [], []
        for one in credentials:
            tenant = active.get(one.tenant)
            if one.tenant and tenant is None:
                continue
            grants = _grants(one, tenant, active)
            secret = server.Secret.of(f"sha256:{one.digest}")
            users += [server.User(one.user, secret, grants, token=token) for token in (False, True)]
            if tenant is not None and one.ssh_key:
                lines.append(_line(self._tenants.folder / "tenants" / tenant.name, one, tenant))
        secure = self._listening.plain
        public: _Grants = {PUBLIC: server.Role.READ}
        self._routes.access = server.Access(anonymous=public, users=users, allow_plain_http=secure)
        if self._sshd is not None:
            self._sshd.reload(server.AuthorizedKeys("\n".join(lines), name="the tenants' keys"))

    async def _show(self, active: dict[str, Tenant]) -> None:
        wanted = {held.path: f"{name}/{held.name}" for name, tenant in active.items() for held in tenant.repositories}
        assert self._group is not None
        for path in [path for path in self._shown if path not in wanted]:
            self._shown.pop(path)[1].set()
        for path in wanted:
            if path not in self._shown:
                try:
                    self._shown[path] = await self._group.start(self._keep, path)
                except annex.AnnexError as error:  # the others are served
                    log.warning("%s", error)
        named = {quote(wanted[path]).encode(): gateway for path, (gateway, _) in self._shown.items()}
        self._routes.shown = server.ShownRepositories(
            server.Shown(gateway.remote, gateway.uuid, name) for name, gateway in named.items()
        )
        self._routes.mounts = (*self._mounts, server.GitMount(named, url=self._listening.url))

    async def _keep(self, path: Path, *, task_status: TaskStatus[tuple[server.Gateway, anyio.Event]]) -> None:
        leave = anyio.Event()
        async with self._places.using(str(path)) as gateway:  # below a folder that was resolved
            task_status.started((gateway, leave))
            await leave.wait()

    async def _commit(self) -> None:
        for gateway, _ in [*self._shown.values()]:
            try:
                await gateway.commit()
            except annex.AnnexError as error:
                log.warning("%s: %s", gateway.repository.path, error)


def _grants(credential: Credential, tenant: Tenant | None, active: dict[str, Tenant]) -> _Grants:
    """What a credential is good for: the operator's for the API alone, a tenant's for what is the tenant's."""
    if tenant is None:
        pages = [PUBLIC, OPERATOR, *(one.uuid for one in active.values())]
        return dict.fromkeys(pages, _ROLES[Access.WRITE])
    roles = _ROLES[credential.access.at_most(tenant.access)]
    return {**dict.fromkeys([tenant.uuid, *(held.uuid for held in tenant.repositories)], roles), PUBLIC: _READ}


def _line(home: Path, credential: Credential, tenant: Tenant) -> str:
    settings = [
        f"ANNEXPY_ROOT={home}",
        f"ANNEXPY_NAME={credential.user}",
        _SSH[credential.access.at_most(tenant.access)],
    ]
    return ",".join(f'environment="{one}"' for one in settings if one) + f" {credential.ssh_key} {credential.user}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process serves a folder; the lock goes with it."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TenantError(f"{folder}: another process serves it", remedy="end that one first") from error
        yield
