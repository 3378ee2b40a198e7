"""Connections to one repository over HTTP: where it is, by which way, and with which credentials.

Source: fact sheet p2p-protocol, section 6.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio

from annexpy.errors import AuthFailed, ConnectFailed, PeerError, UnknownUUID
from annexpy.p2p.http import BASE
from annexpy.p2p.versions import MAX_VERSION
from annexpy.remote.http_auth import Authorization, Authorize
from annexpy.remote.http_line import Line
from annexpy.remote.http_url import HTTPPlace
from annexpy.remote.pool import Pool, Use
from annexpy.transport.base import Dial
from annexpy.transport.http_dial import DialHTTP, authority, proxy_for
from annexpy.uuids import UUID

__all__ = ["CREDENTIALS", "HTTPConnections", "HTTPWay", "Pair"]

CREDENTIALS: Final = 3
"""How often a request is asked again with other credentials."""
_USER_AGENT: Final = (b"User-Agent", b"annexpy")
_MOST_CONFIG: Final = 256 * 1024

Pair: TypeAlias = tuple[bytes, bytes]
"""A header."""


@dataclass(frozen=True, slots=True)
class HTTPWay:
    """How to get to a repository; picklable when *dial* and *authorize* are.

    Attributes:
        place: Its contents; or its git repository, whose ``config`` says where these are.
        name: For messages.
        uuid: Which repository; None takes that of *place*.
        gateway: Which repository must be at *place*, when *uuid* is one behind it.
        client_uuid: Who we say we are; None is somebody new each time.
        bypass: Gateways that have been passed already.
        max_version: Highest protocol version to speak.
        connections: At once, up to 16.
        deadline: Seconds without a byte after which the server counts as stuck.
        connect_deadline: Seconds for connecting.
        authorize: Gives the header ``Authorization``.
        folder: Whose git configuration says how git finds credentials.
        dial: Opens a connection, in place of TCP, TLS and what the environment says about proxies.
    """

    place: HTTPPlace
    name: str
    uuid: UUID | None = None
    gateway: UUID | None = None
    client_uuid: UUID | None = None
    bypass: tuple[UUID, ...] = ()
    max_version: int = MAX_VERSION
    connections: int = 16
    deadline: float = 60.0
    connect_deadline: float = 20.0
    authorize: Authorize | None = None
    folder: str | None = None
    dial: Dial | None = None


class HTTPConnections:
    """Finds the contents of one repository, and connects.

    Attributes:
        name, deadline: As in ``HTTPWay``.
        place: The contents, once it has begun.
        authorization: What the server is told about us.
        pool: The connections.
    """

    def __init__(self, way: HTTPWay) -> None:
        self.name, self.deadline, self._way = way.name, way.deadline, way
        self.known_uuid = way.uuid or way.place.uuid
        self._beginning = anyio.Lock()
        self._begun = False
        self._go_to(way.place)
        self.pool: Pool[Line] = Pool(self._open, self.name, limit=way.connections, patience=10 * way.deadline)

    def _go_to(self, place: HTTPPlace) -> None:
        way = self._way
        self.place = place
        self.authorization = Authorization(place, way.authorize, folder=way.folder)
        self._authority = authority(place.host, place.port, tls=place.tls).encode()
        self._base = place.base
        self._extra: tuple[Pair, ...] = ()
        self._dial: Dial | None = way.dial

    @property
    def uuid(self) -> UUID:
        """Of the repository.

        Raises:
            UnknownUUID: Nobody has found out yet.
        """
        if self.known_uuid is None:
            raise UnknownUUID(f"{self.name}: its UUID is not known before it was connected to")
        return self.known_uuid

    async def _open(self) -> Line:
        if self._dial is None:
            self._dial = self._dial_from_environment()
        return Line(await self._dial(), self._authority, deadline=self.deadline)

    def _dial_from_environment(self) -> Dial:
        place, way = self.place, self._way
        proxy = proxy_for(place.host, place.port, tls=place.tls)
        verify = os.environ.get("GIT_SSL_NO_VERIFY", "").lower() in ("", "0", "false", "no")
        cafile = os.environ.get("GIT_SSL_CAINFO")
        dial = DialHTTP(place.host, place.port, place.tls, proxy, cafile, verify, way.connect_deadline)
        if dial.prefix:
            self._base, self._extra = dial.prefix + place.base, tuple(proxy.headers) if proxy else ()
        return dial

    async def begin(self) -> None:
        """Be ready for requests: what is still to be found out about the place is found out.

        Raises:
            UnknownUUID: No UUID was given, and the place has none to tell.
            AnnexError: It cannot be asked.
        """
        if self._begun:
            return
        async with self._beginning:
            if not self.place.path.endswith(BASE.decode()):
                self._go_to(await self._find())
            if self.known_uuid is None:
                raise UnknownUUID(f"{self.name}: which repository? Put its UUID behind {self.place}")
            await self.authorization.begin()
            self._begun = True

    async def _find(self) -> HTTPPlace:
        """Where the contents are that belong to a git repository, as its ``config`` says."""
        from annexpy.remote.http_find import find_contents

        found = find_contents(self.name, self.place, await self._config())
        expected = self._way.gateway or self.known_uuid
        if expected is not None and found.uuid != expected:
            raise UnknownUUID(f"{self.name}: expected repository {expected}, found {found.uuid}")
        self.known_uuid = self.known_uuid or found.uuid
        await self.pool.aclose()  # the contents may be at another server
        return found

    async def _config(self) -> bytes:
        """The file ``config``, which servers of git repositories show."""
        authorization = self.authorization
        await authorization.begin()
        for _ in range(CREDENTIALS + 1):
            line = await self.pool.take(Use.QUESTION)
            try:
                used = authorization.now
                line.ask(b"GET", self._base.rstrip(b"/") + b"/config", self.headers(used))
                response = await line.response()
                said = await response.body(_MOST_CONFIG)
            except BaseException:
                await self.pool.discard(line, Use.QUESTION)
                raise
            await self.pool.give_back(line, Use.QUESTION)
            match response.status:
                case 200:
                    await self.accepted()
                    return said
                case 401:
                    await authorization.refused(used, response.headers.get(b"www-authenticate", b"").decode("latin-1"))
                case 404:
                    raise ConnectFailed(self.name, f"there is no git repository at {self.place}")
                case status:
                    where = response.headers.get(b"location", b"").decode("latin-1")
                    raise PeerError(self.name, f"{status} {where}".rstrip())
        raise AuthFailed(self.name, "it keeps asking for credentials (401)")

    def headers(self, authorization: bytes | None, more: Sequence[Pair] = ()) -> list[Pair]:
        """The headers of a request."""
        found = [_USER_AGENT, *self._extra, *more]
        if authorization is not None:
            found.append((b"Authorization", authorization))
        return found

    async def accepted(self) -> None:
        """The server has answered to our credentials."""
        if self.authorization.now is not None:
            await self.authorization.accepted()

    async def aclose(self) -> None:
        await self.pool.aclose()
