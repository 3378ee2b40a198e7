"""A JSON API as a mount: a table of routes, one method for each, bodies that are read with care.

Who asks has a credential: the operator's is good for every path, a tenant's for its own pages. Bodies are JSON objects,
of 64 KiB at most; an error is an object with ``error`` and, where something can be done about it, ``remedy``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from anyio import to_thread

import annexpy as annex
from annexpy import server
from glimmer_store.errors import ConfigError, TenantError
from glimmer_store.jobs.spec import JobError
from glimmer_store.tenants import Tenants

__all__ = ["BASE", "OPERATOR", "PUBLIC", "APIMount", "Body", "Route", "field", "route"]

BASE: Final = "/api/v1"
OPERATOR: Final = annex.UUID("6f706572-6174-4f72-8000-000000000000")
"""Stands for what only the operator may do, where rules go by UUID. No repository has it."""
PUBLIC: Final = annex.UUID("7075626c-6963-4000-8000-000000000000")
"""Stands for what anybody may do."""
_MAX_BODY: Final = 64 * 1024
_MOST: Final = 2**63 - 1
"""Numbers that the state can hold."""
_JSON: Final = (b"Content-Type", b"application/json")
_NO_CACHE: Final = (b"Cache-Control", b"no-store")
_WORDS: Final = {"NAME": "([^/]+)", "ID": r"(\d{1,18})", "JOB": "([a-z]{2}-[0-9]{8}-[0-9a-f]{6})"}

Body: TypeAlias = dict[str, Any]
"""Parsed JSON (so Any), looked at by ``field``."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked.

    Attributes:
        method, path: Of the request.
        role: What has to be allowed.
        whose: On which repository; None: the tenant's that the path names.
        handler: Name of the method, less its underscore.
    """

    method: str
    path: re.Pattern[str]
    role: server.Role
    whose: annex.UUID | None
    handler: str


def route(line: str, role: server.Role, whose: annex.UUID | None, handler: str) -> Route:
    """The route of a *line* such as ``GET /tenants/NAME``."""
    method, path = line.split()
    pattern = re.sub("|".join(_WORDS), lambda found: _WORDS[found[0]], path)
    return Route(method, re.compile(BASE + pattern + r"\Z"), role, whose, handler)


class APIMount:
    """Answers the requests of its routes. A subclass has ``routes``, and a method for each handler."""

    routes: Sequence[Route] = ()

    def __init__(self, tenants: Tenants, *, changed: Callable[[], Awaitable[None]]) -> None:
        """Speak for *tenants*.

        Args:
            tenants: The state.
            changed: Awaited before a change is answered, so that it holds when the client hears of it.
        """
        self._tenants, self._changed = tenants, changed

    def asks(self, exchange: server.Exchange) -> tuple[annex.UUID, server.Role] | None:
        """Whose rules hold, and what has to be allowed."""
        found = self._find(exchange)
        if found is None:
            return None
        asked, words = found
        if asked.whose is not None:
            return asked.whose, asked.role
        try:
            return self._tenants.get(words[0]).uuid, asked.role
        except TenantError:
            return OPERATOR, asked.role  # whoever is not the operator learns nothing about who there is

    def _find(self, exchange: server.Exchange) -> tuple[Route, tuple[str, ...]] | None:
        path = exchange.head.target.partition(b"?")[0].decode("latin-1")
        method = exchange.head.method.decode("latin-1")
        for one in self.routes:
            match = one.path.match(path)
            if match is not None and method == one.method:
                return one, match.groups()
        return None

    async def answer(self, exchange: server.Exchange, visitor: server.Visitor) -> bool:
        """Do it. Nothing in a repository was changed, so there is nothing to commit."""
        found = self._find(exchange)
        assert found is not None
        asked, words = found
        try:
            body = await _body(exchange) if asked.method == "POST" else {}
            status, said = await getattr(self, f"_{asked.handler}")(visitor, body, *words)
        except (TenantError, ConfigError, JobError) as error:
            status, said = 400, {"error": str(error), **({"remedy": error.remedy} if error.remedy else {})}
        exchange.answer(status, [_JSON, _NO_CACHE], json.dumps(said).encode() + b"\n")
        return False

    async def _change(self, change: Callable[[], Any]) -> Any:  # what the change gives
        done = await to_thread.run_sync(change)
        await self._changed()
        return done

    def _manages(self, who: server.Visitor, name: str) -> bool:
        """Speaks for the tenant: the operator, or somebody who may do everything with its repositories."""
        return server.Role.WRITE in who.grants.get(self._tenants.get(name).uuid, server.Role(0))


async def _body(exchange: server.Exchange) -> Body:
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


def field(body: Body, name: str, kind: type, usual: object = _REQUIRED) -> Any:  # of that kind
    """The member *name*, which is of that *kind*; *usual* where it is not there. Raises TenantError."""
    value = body.get(name, usual)
    if value is usual and usual is not _REQUIRED:
        return usual
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TenantError(f"{name}: {kind.__name__} is wanted")
    if isinstance(value, int) and abs(value) > _MOST:
        raise TenantError(f"{name}: {_MOST} at most")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise TenantError(f"{name}: text is wanted, and half a character is none")
    return value
