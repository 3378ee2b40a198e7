"""What an HTTP client is told when something is not done, and the line that the log gets for every request."""

from __future__ import annotations

from typing import Final

from annexpy.errors import (
    AccessDenied,
    AnnexError,
    InvalidInput,
    KeyNotPresent,
    LockHeld,
    NoSpace,
    ProtocolError,
    TimedOut,
    TransportError,
)
from annexpy.p2p.http import NoSuchRoute, WrongMethod
from annexpy.server.auth import Verdict
from annexpy.transport.http_exchange import Exchange

__all__ = ["Asked", "hardest", "line", "refuse", "say", "tell"]

_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
_WHO: Final = (b"WWW-Authenticate", b'Basic realm="git-annex", charset="UTF-8"')
_HARDNESS: Final = (Verdict.WHO_ARE_YOU, Verdict.FORBIDDEN, Verdict.NOT_THERE)
_NOT_HERE: Final = b"not found\n"


class Asked:
    """What is known about a request, for the log."""

    __slots__ = ("user", "verb", "why")

    def __init__(self, verb: str = "other", user: str = "") -> None:
        self.verb, self.user, self.why = verb, user, ""


def hardest(one: Verdict, other: Verdict) -> Verdict:
    """What to say when there is more than one way, and none is open."""
    return min(one, other, key=_HARDNESS.index)


def refuse(exchange: Exchange, verdict: Verdict) -> None:
    """Answer that it may not be, or is not there."""
    match verdict:
        case Verdict.WHO_ARE_YOU:
            say(exchange, 401, b"authentication needed\n", _WHO)
        case Verdict.FORBIDDEN:
            say(exchange, 403, b"not allowed\n")
        case _:
            say(exchange, 404, _NOT_HERE)


def say(exchange: Exchange, status: int, text: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer with a line of text."""
    exchange.answer(status, [_TEXT, *headers], text)


def _status(error: AnnexError) -> tuple[int, list[tuple[bytes, bytes]]]:
    """What a client is told; and what goes with it."""
    match error:
        case WrongMethod():
            return 405, [(b"Allow", error.allowed)]
        case NoSuchRoute() | KeyNotPresent():
            return 404, []
        case AccessDenied():
            return 403, []
        case InvalidInput():
            return 400, []
        case NoSpace():
            return 507, []
        case TimedOut():
            return 504, []
        case LockHeld():
            return 503, []
        case TransportError() | ProtocolError():
            return 502, []
        case _:
            return 500, []


def line(exchange: Exchange, asked: Asked, seconds: float) -> str:
    """One line about a request. The query of ``keeplocked`` is left out: whoever knows the id can unlock."""
    target = exchange.head.target
    if asked.verb == "keeplocked":
        target = target.partition(b"?")[0]
    why = f" ({asked.why})" if asked.why else ""
    return (
        f"{exchange.peer} {asked.user or '-'} {exchange.head.method.decode()} {target[:400].decode('latin-1')} "
        f"{exchange.status} {exchange.received}+{exchange.sent} bytes {seconds * 1000:.1f} ms{why}"
    )


def tell(exchange: Exchange, error: AnnexError) -> None:
    """Answer with *error*."""
    status, more = _status(error)
    text = _NOT_HERE if status == 404 else f"{error}\n".encode("utf-8", "backslashreplace")
    say(exchange, status, text, *more)
