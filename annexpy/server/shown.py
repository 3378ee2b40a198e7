"""What an HTTP server shows: repositories, each with whatever it is a gateway for, and what is served beside them.

What may be done is a matter of the repository that is asked, never of a UUID alone: two repositories may be a
proxy for one remote, and who may use one of them may not use the other. ``/git-annex/UUID/…`` asks any repository
that knows the UUID, ``/NAME/git-annex/UUID/…`` the one of that name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from annexpy.errors import InvalidInput
from annexpy.p2p.http import BASE
from annexpy.remote.base import Remote
from annexpy.server.auth import Role, Visitor
from annexpy.transport.http_exchange import Exchange
from annexpy.uuids import UUID

__all__ = ["Find", "Mount", "Shown", "ShownRepositories"]

Find: TypeAlias = Callable[[UUID, tuple[UUID, ...]], Awaitable[Remote | None]]
"""UUID that is asked for, gateways to bypass → what to show; None: not here."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One repository.

    Attributes:
        find: Gives the repository, its nodes and its clusters. Called for every request.
        uuid: Whose rules hold; None: those of the UUID that is asked for.
        name: First part of its own paths, or several, percent-encoded; b"": it has none.
    """

    find: Find
    uuid: UUID | None = None
    name: bytes = b""


class ShownRepositories:
    """All repositories of a server. Replaced as a whole when that changes."""

    def __init__(self, shown: Iterable[Shown]) -> None:
        """These.

        Raises:
            InvalidInput: Two of one name.
        """
        self._all = tuple(shown)
        self._by_uuid = {one.uuid: one for one in self._all}
        self._by_name: dict[bytes, Shown] = {}
        for one in self._all:
            if one.name and self._by_name.setdefault(one.name, one) is not one:
                raise InvalidInput("name of a repository", one.name, "each once")

    def named(self, name: bytes) -> Shown | None:
        """The repository of that name."""
        return self._by_name.get(name)

    def base(self, path: bytes) -> bytes:
        """With what *path* begins, up to ``/git-annex/``; b"" when it has no such thing, or of an unknown name."""
        at = path.find(BASE)
        if at <= 0:
            return BASE if at == 0 else b""
        return path[:at] + BASE if path[1:at] in self._by_name else b""

    def ways(self, base: bytes, uuid: UUID) -> Iterator[Shown]:
        """Whom to ask for *uuid*, the likeliest first."""
        if base != BASE:
            yield self._by_name[base[1 : -len(BASE)]]
            return
        first = self._by_uuid.get(uuid)
        if first is not None:
            yield first
        for one in self._all:
            if one is not first:
                yield one


class Mount(Protocol):
    """Something else that is served, below paths of its own."""

    def asks(self, exchange: Exchange) -> tuple[UUID, Role] | None:
        """What has to be allowed for this request, and on which repository; None: no path of its own.

        Raises:
            InvalidInput: Of its own, but not right.
        """
        ...

    async def answer(self, exchange: Exchange, visitor: Visitor) -> bool:
        """Answer a request that is allowed to *visitor*; may it have changed something? Raises as handlers do."""
        ...
