"""The tenants of a server over HTTP: a mount beside git and the contents. ``GET /api/v1/openapi.json`` describes it.

Who asks has a credential: the operator's is good for every path, a tenant's for its own page. With an invitation
anybody can become somebody of a tenant. Bodies are JSON, of 64 KiB at most; an error is an object with ``error`` and,
where something can be done about it, ``remedy``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from anyio import to_thread

from annexpy import server
from glimmer_store.api_mount import OPERATOR, PUBLIC, APIMount, Body, field, route
from glimmer_store.errors import TenantError
from glimmer_store.tenant import Access, Credential, Granted, Tenant
from glimmer_store.tenant_openapi import document
from glimmer_store.tenants import Tenants

__all__ = ["ROUTES", "TenantAPI"]

_READ, _APPEND, _WRITE = server.Role.READ, server.Role.APPEND, server.Role.WRITE
ROUTES: Final = (
    route("GET /openapi.json", _READ, PUBLIC, "describe"),
    route("POST /invitations/accept", _READ, PUBLIC, "accept"),
    route("GET /tenants", _READ, OPERATOR, "list"),
    route("POST /tenants", _WRITE, OPERATOR, "create"),
    route("GET /tenants/NAME", _READ, None, "show"),
    route("DELETE /tenants/NAME", _WRITE, OPERATOR, "delete"),
    route("POST /tenants/NAME/suspend", _WRITE, OPERATOR, "suspend"),
    route("POST /tenants/NAME/resume", _WRITE, OPERATOR, "resume"),
    route("POST /tenants/NAME/quota", _WRITE, OPERATOR, "limit"),
    route("POST /tenants/NAME/hashes", _WRITE, OPERATOR, "hashes"),
    route("POST /tenants/NAME/invitations", _APPEND, None, "invite"),
    route("GET /tenants/NAME/credentials", _READ, None, "credentials"),
    route("POST /tenants/NAME/credentials/ID/rotate", _READ, None, "rotate"),
    route("DELETE /tenants/NAME/credentials/ID", _READ, None, "revoke"),
    route("GET /tenants/NAME/audit", _READ, None, "audit"),
)


class TenantAPI(APIMount):
    """The mount."""

    routes = ROUTES

    def __init__(
        self, tenants: Tenants, *, ssh: Callable[[], tuple[str, ...]], changed: Callable[[], Awaitable[None]]
    ) -> None:
        """Speak for *tenants*.

        Args:
            tenants: The state.
            ssh: Gives the URLs at which the ssh side listens.
            changed: Awaited before a change is answered, so that it holds when the client hears of it.
        """
        super().__init__(tenants, changed=changed)
        self._ssh = ssh

    # -- one method a route: who asks, its body, words of the path → status, answer -------------------

    async def _describe(self, who: server.Visitor, body: Body) -> tuple[int, object]:
        return 200, document()

    async def _accept(self, who: server.Visitor, body: Body) -> tuple[int, object]:
        token, label = field(body, "invitation", str), field(body, "label", str, "")
        key = field(body, "ssh-key", str, "")
        granted = await self._change(partial(self._tenants.accept, token, label=label, ssh_key=key))
        return 201, self._granted(granted)

    async def _list(self, who: server.Visitor, body: Body) -> tuple[int, object]:
        return 200, {"tenants": [tenant.to_json() for tenant in await to_thread.run_sync(self._tenants.all)]}

    async def _create(self, who: server.Visitor, body: Body) -> tuple[int, object]:
        create = partial(
            self._tenants.create,
            field(body, "name", str),
            access=_access(body),
            quota=field(body, "quota", int, None),
            secure=field(body, "secure-hashes", bool, False),
            actor=who.name,
        )
        if "repositories" in body:
            create = partial(create, repositories=[str(one) for one in field(body, "repositories", list)])
        return 201, (await self._change(create)).to_json()

    async def _show(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        return 200, self._with_urls(await to_thread.run_sync(self._tenants.get, name))

    async def _delete(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        await self._change(partial(self._tenants.delete, name, actor=who.name))
        return 200, {"deleted": name}

    async def _suspend(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        return 200, (await self._change(partial(self._tenants.suspend, name, actor=who.name))).to_json()

    async def _resume(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        return 200, (await self._change(partial(self._tenants.resume, name, actor=who.name))).to_json()

    async def _limit(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        quota = field(body, "quota", int, None)
        return 200, (await self._change(partial(self._tenants.limit, name, quota, actor=who.name))).to_json()

    async def _hashes(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        secure = field(body, "secure-hashes", bool)
        return 200, (await self._change(partial(self._tenants.hashes, name, secure=secure, actor=who.name))).to_json()

    async def _invite(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        # Nobody gives away more than they have.
        access = _access(body) if self._manages(who, name) else _access(body).at_most(Access.APPEND_ONLY)
        token = await self._change(partial(self._tenants.invite, name, access=access, actor=who.name))
        return 201, {"invitation": token}

    async def _credentials(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        found = await to_thread.run_sync(self._tenants.credentials, name)
        return 200, {"credentials": [_shown(one) for one in found]}

    async def _rotate(self, who: server.Visitor, body: Body, name: str, id_: str) -> tuple[int, object]:
        self._check_own(who, name, id_)
        granted = await self._change(partial(self._tenants.rotate, name, int(id_), actor=who.name))
        return 201, self._granted(granted)

    async def _revoke(self, who: server.Visitor, body: Body, name: str, id_: str) -> tuple[int, object]:
        self._check_own(who, name, id_)
        await self._change(partial(self._tenants.revoke, name, int(id_), actor=who.name))
        return 200, {"revoked": int(id_)}

    async def _audit(self, who: server.Visitor, body: Body, name: str) -> tuple[int, object]:
        found = await to_thread.run_sync(self._tenants.audit, name)
        return 200, {"audit": [one.to_json() for one in found]}

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


def _access(body: Body) -> Access:
    text = field(body, "access", str, Access.WRITE.value)
    try:
        return Access(text)
    except ValueError:
        raise TenantError(f"access {text!r}: {', '.join(one.value for one in Access)}") from None
