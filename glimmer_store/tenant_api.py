"""The tenants of a server over HTTP: a mount beside git and the contents. ``GET /api/v1/openapi.json`` describes it.

Who asks has a credential: the operator's is good for every path, a tenant's for its own page. With an invitation
anybody can become somebody of a tenant. Bodies are JSON, of 64 KiB at most; an error is an object with ``error`` and,
where something can be done about it, ``remedy``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from anyio import to_thread

import annexpy as annex
from annexpy import server
from glimmer_store.errors import TenantError
from glimmer_store.tenant import Access, Credential, Granted, Tenant
from glimmer_store.tenant_openapi import document
from glimmer_store.tenants import Tenants

__all__ = ["BASE", "OPERATOR", "PUBLIC", "ROUTES", "TenantAPI"]

BASE: Final = "/api/v1"
OPERATOR: Final = annex.UUID("6f706572-6174-4f72-8000-000000000000")
"""Stands for what only the operator may do, where rules go by UUID. No repository has it."""
PUBLIC: Final = annex.UUID("7075626c-6963-4000-8000-000000000000")
"""Stands for what anybody may do."""
_MAX_BODY: Final = 64 * 1024
_JSON: Final = (b"Content-Type", b"application/json")
_NO_CACHE: Final = (b"Cache-Control", b"no-store")

_Body: TypeAlias = dict[str, Any]  # Any: parsed JSON, looked at by ``_field``


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: re.Pattern[str]
    role: server.Role
    whose: annex.UUID | None
    """None: the tenant's that the path names."""
    handler: str


def _route(line: str, role: server.Role, whose: annex.UUID | None, handler: str) -> _Route:
    method, path = line.split()
    return _Route(
        method, re.compile(BASE + path.replace("NAME", "([^/]+)").replace("ID", r"(\d+)") + r"\Z"), role, whose, handler
    )


_READ, _APPEND, _WRITE = server.Role.READ, server.Role.APPEND, server.Role.WRITE
ROUTES: Final = (
    _route("GET /openapi.json", _READ, PUBLIC, "describe"),
    _route("POST /invitations/accept", _READ, PUBLIC, "accept"),
    _route("GET /tenants", _READ, OPERATOR, "list"),
    _route("POST /tenants", _WRITE, OPERATOR, "create"),
    _route("GET /tenants/NAME", _READ, None, "show"),
    _route("DELETE /tenants/NAME", _WRITE, OPERATOR, "delete"),
    _route("POST /tenants/NAME/suspend", _WRITE, OPERATOR, "suspend"),
    _route("POST /tenants/NAME/resume", _WRITE, OPERATOR, "resume"),
    _route("POST /tenants/NAME/quota", _WRITE, OPERATOR, "limit"),
    _route("POST /tenants/NAME/invitations", _APPEND, None, "invite"),
    _route("GET /tenants/NAME/credentials", _READ, None, "credentials"),
    _route("POST /tenants/NAME/credentials/ID/rotate", _READ, None, "rotate"),
    _route("DELETE /tenants/NAME/credentials/ID", _READ, None, "revoke"),
    _route("GET /tenants/NAME/audit", _READ, None, "audit"),
)


class TenantAPI:
    """The mount."""

    def __init__(
        self, tenants: Tenants, *, ssh: Callable[[], tuple[str, ...]], changed: Callable[[], Awaitable[None]]
    ) -> None:
        """Speak for *tenants*.

        Args:
            tenants: The state.
            ssh: Gives the URLs at which the ssh side listens.
            changed: Awaited before a change is answered, so that it holds when the client hears of it.
        """
        self._tenants, self._ssh, self._changed = tenants, ssh, changed

    def asks(self, exchange: server.Exchange) -> tuple[annex.UUID, server.Role] | None:
        """Whose rules hold, and what has to be allowed."""
        found = self._find(exchange)
        if found is None:
            return None
        route, words = found
        if route.whose is not None:
            return route.whose, route.role
        try:
            return self._tenants.get(words[0]).uuid, route.role
        except TenantError:
            return OPERATOR, route.role  # whoever is not the operator learns nothing about who there is

    def _find(self, exchange: server.Exchange) -> tuple[_Route, tuple[str, ...]] | None:
        path = exchange.head.target.partition(b"?")[0].decode("latin-1")
        method = exchange.head.method.decode("latin-1")
        for route in ROUTES:
            match = route.path.match(path)
            if match is not None and method == route.method:
                return route, match.groups()
        return None

    async def answer(self, exchange: server.Exchange, visitor: server.Visitor) -> bool:
        """Do it. Nothing in a repository was changed, so there is nothing to commit."""
        found = self._find(exchange)
        assert found is not None
        route, words = found
        try:
            body = await _body(exchange) if route.method == "POST" else {}
            status, said = await getattr(self, f"_{route.handler}")(visitor, body, *words)
        except TenantError as error:
            status, said = 400, {"error": str(error), **({"remedy": error.remedy} if error.remedy else {})}
        exchange.answer(status, [_JSON, _NO_CACHE], json.dumps(said).encode() + b"\n")
        return False

    async def _change(self, change: Callable[[], Any]) -> Any:  # what the change gives
        done = await to_thread.run_sync(change)
        await self._changed()
        return done

    # -- one method a route: who asks, its body, words of the path → status, answer -------------------

    async def _describe(self, who: server.Visitor, body: _Body) -> tuple[int, object]:
        return 200, document()

    async def _accept(self, who: server.Visitor, body: _Body) -> tuple[int, object]:
        token, label = _field(body, "invitation", str), _field(body, "label", str, "")
        key = _field(body, "ssh-key", str, "")
        granted = await self._change(partial(self._tenants.accept, token, label=label, ssh_key=key))
        return 201, self._granted(granted)

    async def _list(self, who: server.Visitor, body: _Body) -> tuple[int, object]:
        return 200, {"tenants": [tenant.to_json() for tenant in await to_thread.run_sync(self._tenants.all)]}

    async def _create(self, who: server.Visitor, body: _Body) -> tuple[int, object]:
        create = partial(
            self._tenants.create,
            _field(body, "name", str),
            access=_access(body),
            quota=_field(body, "quota", int, None),
            actor=who.name,
        )
        if "repositories" in body:
            create = partial(create, repositories=[str(one) for one in _field(body, "repositories", list)])
        return 201, (await self._change(create)).to_json()

    async def _show(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        return 200, self._with_urls(await to_thread.run_sync(self._tenants.get, name))

    async def _delete(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        await self._change(partial(self._tenants.delete, name, actor=who.name))
        return 200, {"deleted": name}

    async def _suspend(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        return 200, (await self._change(partial(self._tenants.suspend, name, actor=who.name))).to_json()

    async def _resume(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        return 200, (await self._change(partial(self._tenants.resume, name, actor=who.name))).to_json()

    async def _limit(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        quota = _field(body, "quota", int, None)
        return 200, (await self._change(partial(self._tenants.limit, name, quota, actor=who.name))).to_json()

    async def _invite(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        # Nobody gives away more than they have.
        access = _access(body) if self._manages(who, name) else _access(body).at_most(Access.APPEND_ONLY)
        token = await self._change(partial(self._tenants.invite, name, access=access, actor=who.name))
        return 201, {"invitation": token}

    async def _credentials(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        found = await to_thread.run_sync(self._tenants.credentials, name)
        return 200, {"credentials": [_shown(one) for one in found]}

    async def _rotate(self, who: server.Visitor, body: _Body, name: str, id_: str) -> tuple[int, object]:
        self._check_own(who, name, id_)
        granted = await self._change(partial(self._tenants.rotate, name, int(id_), actor=who.name))
        return 201, self._granted(granted)

    async def _revoke(self, who: server.Visitor, body: _Body, name: str, id_: str) -> tuple[int, object]:
        self._check_own(who, name, id_)
        await self._change(partial(self._tenants.revoke, name, int(id_), actor=who.name))
        return 200, {"revoked": int(id_)}

    async def _audit(self, who: server.Visitor, body: _Body, name: str) -> tuple[int, object]:
        found = await to_thread.run_sync(self._tenants.audit, name)
        return 200, {"audit": [one.to_json() for one in found]}

    def _manages(self, who: server.Visitor, name: str) -> bool:
        """Speaks for the tenant: the operator, or somebody who may do everything with its repositories."""
        return server.Role.WRITE in who.grants.get(self._tenants.get(name).uuid, server.Role(0))

    def _check_own(self, who: server.Visitor, name: str, id_: str) -> None:
        if who.name != f"{name}-{id_}" and not self._manages(who, name):
            raise TenantError(f"credential {id_} is somebody else's", remedy="ask them, or the operator")

    # -- what is shown ----------------------------------------------------------------------------

    def _granted(self, granted: Granted) -> dict[str, object]:
        """With the secret: it is shown this once."""
        tenant = self._tenants.get(granted.credential.tenant)
        return {**_shown(granted.credential), "secret": granted.secret, "tenant": self._with_urls(tenant)}

    def _with_urls(self, tenant: Tenant) -> dict[str, object]:
        """Paths are below the URL that was asked; ssh is elsewhere."""
        shown = tenant.to_json()
        shown["repositories"] = [
            {
                "name": held.name,
                "uuid": str(held.uuid),
                "http": f"/{tenant.name}/{held.name}",
                "ssh": [f"{url}/{held.name}" for url in self._ssh()],
            }
            for held in tenant.repositories
        ]
        return shown


def _shown(credential: Credential) -> dict[str, object]:
    return {
        "id": credential.id,
        "user": credential.user,
        "label": credential.label,
        "access": credential.access.value,
        "ssh-key": credential.ssh_key,
    }


async def _body(exchange: server.Exchange) -> _Body:
    said = b""
    while piece := await exchange.receive():
        said += piece
        if len(said) > _MAX_BODY:
            raise TenantError(f"body: {_MAX_BODY} bytes at most")
    try:
        body = json.loads(said or b"{}")
    except (ValueError, RecursionError) as error:
        raise TenantError(f"body: not JSON ({error})") from error
    if not isinstance(body, dict):
        raise TenantError("body: an object is wanted")
    return body


_REQUIRED: Final = object()


def _field(body: _Body, name: str, kind: type, usual: object = _REQUIRED) -> Any:  # of that kind
    value = body.get(name, usual)
    if value is usual and usual is not _REQUIRED:
        return usual
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TenantError(f"{name}: {kind.__name__} is wanted")
    return value


def _access(body: _Body) -> Access:
    text = _field(body, "access", str, Access.WRITE.value)
    try:
        return Access(text)
    except ValueError:
        raise TenantError(f"access {text!r}: {', '.join(one.value for one in Access)}") from None
