"""``annexpy serve --stdio --unix --p2p``: those who speak P2P, and their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import anyio
import click

from annexpy.server.gateway import Gateway
from annexpy.server.limits import Authenticate, Deadlines, Quota, ServerMode
from annexpy.server.p2p_networks import serve_p2p_networks
from annexpy.server.serve import serve
from annexpy.server.services import RepositoryServices, WatchedRefs
from annexpy.transport.base import Transport
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.remote.base import Remote
    from annexpy.repo.repository import Repository
    from annexpy.server.wire import ClientWire

__all__ = ["GRACE", "Door", "Doors", "socket_of", "sockets_of"]

GRACE: Final = 30.0
"""Seconds for what is under way when the server is told to stop."""
_DEADLINES: Final = Deadlines(idle=6 * 3600.0)
"""Stock clients fall silent for hours while they work."""
_LOOK: Final = 0.1


class Doors:
    """All that P2P is spoken with in this process."""

    def __init__(self, mode: ServerMode, uuids: frozenset[UUID] | None, locks: Quota) -> None:
        """Let in.

        Args:
            mode: What they may do.
            uuids: For which their pushes may speak; None: for everybody.
            locks: Shared with other servers of the process.
        """
        self.mode, self.uuids, self.locks = mode, uuids, locks
        self.running: set[ClientWire] = set()
        self.leaving = False

    async def leave(self, grace: float = GRACE) -> None:
        """Take nobody any more, and wait *grace* seconds for what is under way; who has asked for nothing has to go."""
        self.leaving = True
        with anyio.move_on_after(grace):
            while self.running:
                for wire in [*self.running]:
                    await wire.let_go()
                await anyio.sleep(_LOOK)


class Door:
    """One remote, for whoever comes to it."""

    def __init__(
        self,
        doors: Doors,
        shown: Remote,
        *,
        on_idle: Callable[[], Awaitable[object]] | None,
        bypass: Callable[[tuple[UUID, ...]], Remote] | None = None,
        repository: Repository | None = None,
        gateway: Gateway | None = None,
    ) -> None:
        """Show *shown*.

        Args:
            doors: What holds for all.
            shown: Which remote.
            on_idle: To commit what was recorded.
            bypass: As for ``serve``.
            repository: Of ``listen_to_networks``.
            gateway: The same, where it is one.
        """
        self._doors, self._shown, self._on_idle, self._bypass = doors, shown, on_idle, bypass
        self._repository, self._gateway = repository, gateway
        self._watched: WatchedRefs | None = None

    @classmethod
    def of(cls, doors: Doors, gateway: Gateway) -> Door:
        """To a repository and what it is a gateway for."""
        uuid, repository = gateway.uuid, gateway.repository
        bypass = gateway.bypassing(uuid)
        shown = gateway.shown(uuid)
        return cls(doors, shown, on_idle=gateway.commit, bypass=bypass, repository=repository, gateway=gateway)

    async def answer(self, transport: Transport, authenticate: Authenticate | None = None) -> bool:
        """Answer one client; did it leave when nothing was owed?"""
        doors, watched = self._doors, self._watched
        if doors.leaving:
            await transport.aclose()
            return True
        ended = await serve(
            transport,
            self._shown,
            mode=doors.mode,
            authenticated=authenticate is None,
            authenticate=authenticate,
            services=None
            if watched is None or authenticate is None
            else RepositoryServices(watched, uuids=doors.uuids, gateway=self._gateway),
            deadlines=_DEADLINES,
            locks=doors.locks,
            running=doors.running,
            bypass=self._bypass,
            on_idle=self._on_idle,
        )
        return ended is None

    async def listen_to_networks(self, tell: Callable[[str], None]) -> None:
        """Answer who comes over the networks of the repository, until cancelled. Raises as ``serve_p2p_networks``."""
        repository = self._repository
        if repository is None:
            raise click.UsageError("--p2p shows a repository: work in it, or give --repository.")
        self._watched = WatchedRefs(repository)
        await serve_p2p_networks(
            repository, self.answer, self._doors.mode, ready=lambda them: tell(", ".join(map(str, them)))
        )


def socket_of(text: str) -> tuple[str, str]:
    """``[NAME=]PATH`` as NAME, or "", and PATH: what stands before the first ``=`` is a name if it has no slash."""
    name, is_named, path = text.partition("=")
    return (name, path) if is_named and name and "/" not in name else ("", text)


def sockets_of(sockets: Iterable[str], gateways: Mapping[str, Gateway]) -> list[tuple[Gateway, str]]:
    """Which repository is shown on which socket.

    Raises:
        UsageError: That is not said, or there is none of that name.
    """
    found = []
    for text in sockets:
        name, path = socket_of(text)
        if not name and len(gateways) == 1:
            (gateway,) = gateways.values()
        elif name in gateways:
            gateway = gateways[name]
        else:
            names = ", ".join(sorted(gateways)) or "none is served by itself"
            raise click.UsageError(f"--unix {text}: say which repository with NAME=SOCKET ({names}).")
        found.append((gateway, path))
    return found
