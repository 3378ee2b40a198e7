"""One connection to an HTTP server, one small answer, and the error that a status means."""

from __future__ import annotations

from dataclasses import dataclass

from annexpy.errors import (
    AccessDenied,
    AnnexError,
    ConnectionLost,
    NoSpace,
    PeerError,
    RemoteProtocolError,
    TransportError,
)
from annexpy.p2p.http import PutRequest, Request
from annexpy.p2p.http_answers import Answer, parse_answer
from annexpy.transport.base import Transport
from annexpy.transport.http_client import HTTPConnection, Response
from annexpy.transport.http_head import Headers

__all__ = ["Line", "Said", "ServerFailed", "refusal", "seconds_of", "was_stale"]


class ServerFailed(TransportError):
    """The server, or something in front of it, answered with a status that leaves the outcome open.

    Attributes:
        peer: Who.
        status: 408, 429, 5xx.
    """

    def __init__(self, peer: str, status: int, text: str) -> None:
        self.peer, self.status = peer, status
        super().__init__(f"{peer}: {status} {text}".rstrip())


class Line(HTTPConnection):
    """A connection of a pool.

    Attributes:
        clock_offset: As that of ``Wire``: of the server that this connection leads to.
    """

    __slots__ = ("clock_offset", "doomed", "heard")

    lent = False
    lendable = False

    def __init__(self, transport: Transport, authority: bytes, *, deadline: float) -> None:
        super().__init__(transport, authority, deadline=deadline)
        self.clock_offset: tuple[float, float] | None = None
        self.doomed = self.heard = False

    async def response(self, deadline: float | None = None) -> Response:
        response = await super().response(deadline)
        self.heard = True
        return response

    def flush_soon(self) -> None:
        """Nothing is kept back."""


def was_stale(line: Line, error: BaseException) -> bool:
    """The server had closed a kept connection before it could hear us, so the same may be asked over a new one."""
    return isinstance(error, ConnectionLost) and line.used and not line.heard


@dataclass(frozen=True, slots=True)
class Said:
    """A small answer, and what it answers.

    Attributes:
        request: What was asked.
        used: The authorization that went with it.
        status, headers, body: Of the answer.
    """

    request: Request
    used: bytes | None
    status: int
    headers: Headers
    body: bytes

    def answer(self) -> Answer:
        """The answer in it; only of status 200."""
        return parse_answer(self.request, self.body)


def seconds_of(retry_after: bytes, wall: float) -> float | None:
    """How long a header ``Retry-After`` says to wait; None where it says nothing that makes sense."""
    text = retry_after.decode("latin-1").strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall)
    except (ValueError, OverflowError):
        return None


def refusal(name: str, said: Said) -> AnnexError:
    """The error for a status that is none of success."""
    request, status = said.request, said.status
    text = said.body[:200].decode("utf-8", "backslashreplace").strip().partition("\n")[0]
    if text[:1] in ("<", "{"):
        text = ""  # a page for people, or somebody else's JSON
    match status:
        case 401 | 403:
            what = {b"key": "get", b"keeplocked": "lockcontent"}.get(request.verb, request.verb.decode())
            return AccessDenied(f"{name}: not allowed to ask for {what} ({status})")
        case 507:
            key = "content" if not isinstance(request, PutRequest) else request.key
            return NoSpace(key, name, request.length if isinstance(request, PutRequest) else 0, 0)
        case 408 | 429:
            return ServerFailed(name, status, text)
        case _ if status >= 500:
            return ServerFailed(name, status, text)
        case _ if 300 <= status < 400:
            where = said.headers.get(b"location", b"").decode("latin-1")
            return PeerError(name, f"{status}: it has moved to {where or 'nowhere'}; use that address")
        case _ if 200 <= status < 300:
            return RemoteProtocolError(f"{name}: {status} as an answer to {request.verb.decode()}")
        case _:
            return PeerError(name, f"{status} {text}".rstrip())
