"""Requests to one repository over HTTP: connections, versions, credentials, and what to do about every status.

What a request does may be asked for twice without harm, so a kept connection that turns out to be closed, a version
that the server does not know (404), credentials that are no longer good (401) and a server that is busy (503, 429)
all lead to the same request once more. Everything else is an error; where the outcome is unknown, a TransportError.

Source: fact sheet p2p-protocol, section 6; RFC 9110, sections 10.2.3 and 15.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import anyio

from annexpy.clock import Clock
from annexpy.errors import AuthFailed, ConnectFailed, ConnectionLost, PeerError, UnknownUUID
from annexpy.keys.key import Key
from annexpy.p2p.http import (
    BASE,
    CheckPresentRequest,
    RemoveBeforeRequest,
    RemoveRequest,
    Request,
    format_request,
    method_of,
)
from annexpy.p2p.http_answers import Answer, parse_answer
from annexpy.p2p.messages import MAX_VERSION
from annexpy.remote.http_auth import Authorization, Authorize
from annexpy.remote.http_line import Line, Said, refusal, seconds_of, was_stale
from annexpy.remote.http_url import HTTPPlace
from annexpy.remote.pool import Pool, Use
from annexpy.system import new_uuid
from annexpy.transport.base import Dial
from annexpy.transport.http_client import Response
from annexpy.transport.http_dial import DialHTTP, authority, proxy_for
from annexpy.uuids import UUID, is_cluster

__all__ = ["Attempts", "HTTPSession", "HTTPWay", "KeyRequest", "Pair"]

_USER_AGENT: Final = (b"User-Agent", b"annexpy")
_OURS: Final = b"annexpy"
_SMALL_ANSWER: Final = 64 * 1024
SMALL: Final = 64 * 1024
"""A content up to this size is one request, which can be asked again."""
_TINY: Final = 16 * 1024
"""A content up to this size is sent in vain rather than asked for."""
_REMEMBERED: Final = 4096
_MOST_CONFIG: Final = 256 * 1024
_WAITS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further request to a server that is busy and does not say for how long."""
_LONGEST: Final = 120.0
"""Seconds that one request waits for a busy server altogether."""
_CREDENTIALS: Final = 3

_AHEAD: Final = 32 * 1024
"""Bytes of requests that may be unanswered: neither side ever waits for room with so little on its way."""
_HEAD: Final = 300
"""Bytes of a request without its key, or of its answer, about."""

Pair: TypeAlias = tuple[bytes, bytes]
KeyRequest: TypeAlias = CheckPresentRequest | RemoveRequest | RemoveBeforeRequest


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


class HTTPSession:
    """Asks one server for one repository.

    Attributes:
        name, bypass, deadline: As in ``HTTPWay``.
        client: Who we say we are.
        place: The contents, once it has begun.
        authorization: What the server is told about us.
        version: To ask with; *settled* when the server has answered to it.
        ours: The server is one of ours, and nothing stands in between that says so: requests may go ahead of answers.
        pipelines: False: do not, whoever it is.
        ranges: It has offered to send parts of contents.
        pool: The connections.
    """

    def __init__(self, way: HTTPWay, clock: Clock) -> None:
        self.name, self.bypass, self.deadline = way.name, way.bypass, way.deadline
        self.client, self._way, self._clock = way.client_uuid or new_uuid(), way, clock
        self.known_uuid = way.uuid or way.place.uuid
        self.version = way.max_version
        self.settled = self.ours = self.ranges = False
        self.pipelines = True
        self._absent: dict[Key, None] = {}
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
        for _ in range(_CREDENTIALS + 1):
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

    # -- saying and hearing --------------------------------------------------------------------------

    def headers(self, authorization: bytes | None, more: Sequence[Pair] = ()) -> list[Pair]:
        """The headers of a request."""
        found = [_USER_AGENT, *self._extra, *more]
        if authorization is not None:
            found.append((b"Authorization", authorization))
        return found

    def say(
        self,
        line: Line,
        request: Request,
        more: Sequence[Pair] = (),
        body: bytes = b"",
        *,
        length: int | None = None,
        chunked: bool = False,
    ) -> bytes | None:
        """Put *request* on *line*; the authorization it went with."""
        used = self.authorization.now
        headers = self.headers(used, more)
        line.ask(method_of(request), format_request(request, self._base), headers, body, length=length, chunked=chunked)
        return used

    def heard(self, response: Response) -> None:
        """Learn from an answer that was no refusal."""
        self.settled = True
        headers = response.headers
        self.ours = self.pipelines and headers.get(b"server", b"") == _OURS and b"via" not in headers
        if not self.ranges and headers.get(b"accept-ranges") == b"bytes":
            self.ranges = True

    async def accepted(self) -> None:
        """The server has answered to our credentials."""
        if self.authorization.now is not None:
            await self.authorization.accepted()

    async def hear(
        self, line: Line, request: Request, more: Sequence[Pair] = (), body: bytes = b"", patience: float | None = None
    ) -> Said:
        """Ask for something small over *line*, and hear the answer."""
        used = self.say(line, request, more, body)
        return await self.read(line, request, used, patience)

    async def read(self, line: Line, request: Request, used: bytes | None, patience: float | None = None) -> Said:
        """Hear the small answer to *request*, which *line* has asked with the authorization *used*."""
        return await self.said(await line.response(patience), request, used)

    async def said(self, response: Response, request: Request, used: bytes | None) -> Said:
        """All of *response*, which answers *request*."""
        said = Said(request, used, response.status, response.headers, await response.body(_SMALL_ANSWER))
        if said.status == 200:
            self.heard(response)
            await self.accepted()
        return said

    async def ask(
        self, request: Request, more: Sequence[Pair] = (), body: bytes = b"", patience: float | None = None
    ) -> Answer:
        """Ask for something small; the answer.

        Raises:
            AnnexError: As ``Attempts.after``.
        """
        attempts = Attempts(self)
        while True:
            line = await self.pool.take(Use.QUESTION)
            try:
                said = await self.hear(line, request, more, body, patience)
            except BaseException as error:
                await self.pool.discard(line, Use.QUESTION)
                if was_stale(line, error):
                    continue
                raise
            await self.pool.give_back(line, Use.QUESTION)
            if said.status == 200:
                return said.answer()
            request = await attempts.after(said)

    async def ask_many(self, line: Line, requests: Sequence[KeyRequest], answers: list[Answer | None]) -> None:
        """Ask *requests* over *line*, ahead of the answers where the server can be trusted with that.

        Args:
            line: Nobody else uses it.
            requests: In their order.
            answers: Grows in the same order, from what it has already. None: no answer that means anything; ask that
                once more.

        Raises:
            AnnexError: No more answers come.
        """
        asked, unanswered = len(answers), 0
        for request in requests[len(answers) :]:
            while asked < len(requests) and (asked <= len(answers) or (self.ours and unanswered < _AHEAD)):
                self.say(line, requests[asked])
                unanswered += _HEAD + len(requests[asked].key.raw)
                asked += 1
            response = await line.response()
            said = await response.body(_SMALL_ANSWER)
            unanswered -= _HEAD + len(request.key.raw)
            answers.append(parse_answer(request, said) if response.status == 200 else None)
            if line.closing and len(answers) < len(requests):
                raise ConnectionLost(self.name, "more answers", "it closes the connection")

    def lower(self, request: Request) -> Request:
        """*request* once more, in the next version below; after this, ``version`` is that one.

        Raises:
            UnknownUUID: There is none.
        """
        version = request.version
        if not version:
            self.unsettle()
            raise UnknownUUID(f"{self.name}: there is no repository {self.uuid}")
        if version == self.version and not self.settled:
            self.version = version - 1
        return replace(request, version=self.version)

    def found_absent(self, key: Key) -> None:
        """*key* was looked for, for somebody who is likely to put it next."""
        if self.ours and key.size is not None and key.size <= SMALL:
            if len(self._absent) >= _REMEMBERED:
                self._absent.clear()
            self._absent[key] = None

    def need_not_ask(self, key: Key) -> bool:
        """A put may begin at its first byte unasked: it is small, and the server says if it was there.

        Of a cluster nobody looks before, because its put tells which node has what. Another gateway does have to ask:
        it wants to know that of each node.
        """
        absent = self._absent.pop(key, 0) is None
        cluster = not self.bypass and self.known_uuid is not None and is_cluster(self.known_uuid)
        return self.ours and (absent or (cluster and key.size is not None and key.size <= _TINY))

    def unsettle(self) -> None:
        """Begin again with the highest version."""
        self.settled, self.version = False, self._way.max_version

    async def settle(self, key: Key) -> None:
        """Find out which version the server speaks, and whether it listens to us, by asking for a key."""
        if not self.settled:
            await self.ask(CheckPresentRequest(self.uuid, key, self.client, self.version, self.bypass))

    async def aclose(self) -> None:
        await self.pool.aclose()


class Attempts:
    """How often the same was asked."""

    __slots__ = ("_again", "_credentials", "_session", "_waited", "_waits")

    def __init__(self, session: HTTPSession) -> None:
        self._session = session
        self._credentials = self._waits = 0
        self._waited = 0.0
        self._again = False

    async def after(self, said: Said) -> Request:
        """What to ask after *said*, which is none of success; waits when the server is busy.

        Raises:
            AuthFailed: 401, and there are no other credentials.
            AccessDenied: 403.
            UnknownUUID: 404 in every version.
            NoSpace: 507.
            ServerFailed: Outcome unknown.
            PeerError: Anything else that is refused.
        """
        session, request = self._session, said.request
        match said.status:
            case 401:
                self._credentials += 1
                if self._credentials <= _CREDENTIALS:
                    challenges = said.headers.get(b"www-authenticate", b"").decode("latin-1")
                    await session.authorization.refused(said.used, challenges)
                    return request
            case 404:
                if session.settled and not self._again:
                    # It was another server's answer, or it is another one now: begin anew.
                    self._again = True
                    session.unsettle()
                    return replace(request, version=session.version)
                return session.lower(request)
            case 400 if not session.settled and b"bad version" in said.body:
                return session.lower(request)
            case 429 | 503:
                if await self._waited_for(said.headers.get(b"retry-after")):
                    return request
        raise refusal(session.name, said)

    async def _waited_for(self, retry_after: bytes | None) -> bool:
        asked = None if retry_after is None else seconds_of(retry_after, self._session._clock.wall())
        if asked is None:
            if self._waits >= len(_WAITS):
                return False
            asked = _WAITS[self._waits]
        self._waits += 1
        self._waited += max(asked, 0.01)
        if self._waited > _LONGEST or self._waits > 100:
            return False
        await anyio.sleep(asked)
        return True
