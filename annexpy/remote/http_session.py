"""Requests to one repository over HTTP: versions, credentials, and what to do about every status.

What a request does may be asked for twice without harm, so a kept connection that turns out to be closed, a version
that the server does not know (404), credentials that are no longer good (401) and a server that is busy (503, 429)
all lead to the same request once more. Everything else is an error; where the outcome is unknown, a TransportError.

Source: fact sheet p2p-protocol, section 6; RFC 9110, sections 10.2.3 and 15.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import anyio

from annexpy.clock import Clock
from annexpy.errors import ConnectionLost, UnknownUUID
from annexpy.keys.key import Key
from annexpy.p2p.http import (
    CheckPresentRequest,
    RemoveBeforeRequest,
    RemoveRequest,
    Request,
    format_request,
    method_of,
)
from annexpy.p2p.http_answers import Answer, PresentAnswer, parse_answer
from annexpy.remote.http_connections import CREDENTIALS, HTTPConnections, HTTPWay, Pair
from annexpy.remote.http_line import Line, Said, refusal, seconds_of, was_stale
from annexpy.remote.pool import Use
from annexpy.system import new_uuid
from annexpy.transport.http_client import Response
from annexpy.uuids import UUID, is_cluster

__all__ = ["SMALL", "Attempts", "HTTPSession", "KeyRequest", "copies", "is_present", "sent_name"]

_OURS: Final = b"annexpy"
_SMALL_ANSWER: Final = 64 * 1024
SMALL: Final = 64 * 1024
"""A content up to this size is one request, which can be asked again."""
_TINY: Final = 16 * 1024
"""A content up to this size is sent in vain rather than asked for."""
_REMEMBERED: Final = 4096
_WAITS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further request to a server that is busy and does not say for how long."""
_LONGEST: Final = 120.0
"""Seconds that one request waits for a busy server altogether."""

_AHEAD: Final = 32 * 1024
"""Bytes of requests that may be unanswered: neither side ever waits for room with so little on its way."""
_HEAD: Final = 300
"""Bytes of a request without its key, or of its answer, about."""

KeyRequest: TypeAlias = CheckPresentRequest | RemoveRequest | RemoveBeforeRequest


class HTTPSession(HTTPConnections):
    """Asks one server for one repository.

    Attributes:
        bypass: As in ``HTTPWay``.
        client: Who we say we are.
        version: To ask with; *settled* when the server has answered to it.
        ours: The server is one of ours, and nothing stands in between that says so: requests may go ahead of answers.
        pipelines: False: do not, whoever it is.
        proofs: It knows the verb ``possession``; None before it was asked.
        ranges: It has offered to send parts of contents.
    """

    def __init__(self, way: HTTPWay, clock: Clock) -> None:
        super().__init__(way)
        self.bypass, self.client, self._clock = way.bypass, way.client_uuid or new_uuid(), clock
        self.version = way.max_version
        self.settled = self.ours = self.ranges = False
        self.pipelines = True
        self.proofs: bool | None = None
        self._absent: dict[Key, None] = {}

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
            said = await self.once(request, more, body, patience)
            if said.status == 200:
                return said.answer()
            request = await attempts.after(said)

    async def once(
        self, request: Request, more: Sequence[Pair] = (), body: bytes = b"", patience: float | None = None
    ) -> Said:
        """Ask for something small; what is said to that, whatever it is."""
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
            return said

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
                if self._credentials <= CREDENTIALS:
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


def copies(uuid: UUID, named: tuple[UUID, ...]) -> frozenset[UUID]:
    """Who has done it, when *uuid* says so and names these: itself too, unless it is a cluster, which is nobody."""
    found = frozenset(one for one in named if not is_cluster(one))
    return found if found and is_cluster(uuid) else found | {uuid}


async def is_present(session: HTTPSession, key: Key) -> bool:
    """Was *key* looked for and found?"""
    answer = await session.ask(CheckPresentRequest(session.uuid, key, session.client, session.version, session.bypass))
    assert isinstance(answer, PresentAnswer)
    return answer.present


def sent_name(associated_file: str) -> str:
    """The associated file to name in a request: none for an absolute path, which every server refuses."""
    return "" if associated_file[:1] == "/" else associated_file
