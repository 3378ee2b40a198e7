"""Heads of HTTP/1.1, without input or output: read by h11, which is strict about what a head may be.

That is where requests are smuggled. Beyond h11, a head with both a length and a transfer coding is refused, whoever
sent it. ``http_server`` and ``http_client`` put it on a transport; ``http_body`` reads what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias, TypeVar

import h11

from annexpy.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "CONTINUE",
    "MAX_HEAD",
    "BadHTTP",
    "Headers",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
    "format_request_head",
    "format_response_head",
    "read_response_head",
]

MAX_HEAD: Final = 32 * 1024
"""Bytes of a head (fact sheet reliability, table 1.3); as many may trail a chunked body."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

Headers: TypeAlias = Mapping[bytes, bytes]
"""Names in lower case; what was given more than once is joined by a comma."""

T = TypeVar("T")

_END: Final = b"\r\n\r\n"
_FIELD = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_FIRST_LINE = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) ([\x21-\x7e]+) HTTP/1\.1\Z")
_ORIGIN = re.compile(rb"https?://[^/?#]+(?=/|\Z)", re.IGNORECASE)
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_KINDS: Final = 4
"""Heads that are remembered for a connection,"""
_KEPT: Final = 2048
"""of so many bytes at most."""
_REASONS: Final = {
    200: b"OK",
    204: b"No Content",
    206: b"Partial Content",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    411: b"Length Required",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    507: b"Insufficient Storage",
}


class BadHTTP(RemoteProtocolError):
    """What the peer sent is no HTTP. *status* is what a server answers to it."""

    def __init__(self, text: str, status: int = 400) -> None:
        self.status = status
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request.

    Attributes:
        method, target, headers: As they came; but *target* begins with its path.
        length: Bytes of its body; None when that is chunked.
        keep_alive: The client may ask more on this connection.
        expects: The client waits for ``CONTINUE`` before it sends the body.
        old: HTTP/1.0: it does not know chunks.
    """

    method: bytes
    target: bytes
    headers: Headers
    length: int | None
    keep_alive: bool
    expects: bool
    old: bool


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of a response; attributes as in ``RequestHead``.

    Attributes:
        to_the_end: The body ends with the connection; *length* is None then too.
    """

    status: int
    headers: Headers
    length: int | None
    keep_alive: bool
    to_the_end: bool


# -- reading heads ----------------------------------------------------------------------------------


class RequestReader:
    """Reads the heads of the requests of one connection.

    A client sends the same headers again and again, so those that come again to the byte were looked at already; only
    the first line is new then.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, RequestHead] = {}

    def read(self, buffer: bytes) -> tuple[RequestHead, bytes] | None:
        """The head at the start of *buffer*, and what comes after it; None while it is not whole.

        Raises:
            BadHTTP: It will never be one.
        """
        cut = _cut(buffer)
        if cut is None:
            return None
        raw, rest = cut
        line, _, block = raw.partition(b"\r\n")
        again = self._known.get(block)
        if again is not None:
            match = _FIRST_LINE.match(line)
            if match is not None:
                method, target = match.groups()
                head = RequestHead(
                    method, _path(target), again.headers, again.length, again.keep_alive, again.expects, again.old
                )
                return head, rest
        head = _request_head(raw)
        if not head.old:
            _remember(self._known, block, head)
        return head, rest


def _remember(known: dict[bytes, T], block: bytes, head: T) -> None:
    """One connection has few kinds of heads; one that has many, or large ones, gets nothing kept for it."""
    if len(known) >= _KINDS:
        known.clear()
    if len(block) <= _KEPT:
        known[block] = head


def _path(target: bytes) -> bytes:
    """*target* without the origin that clients of proxies put before it."""
    if target[:1] == b"/":
        return target
    match = _ORIGIN.match(target)
    return target if match is None else target[match.end() :] or b"/"


def _request_head(raw: bytes) -> RequestHead:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    event = _event(connection, raw)
    if not isinstance(event, h11.Request):
        raise BadHTTP("no request")
    headers = _joined(event.headers)
    if event.http_version[:2] != b"1.":
        raise BadHTTP(f"HTTP/{event.http_version.decode()}", 505)
    old = event.http_version == b"1.0"
    length = _length(headers, default=0)
    if length is None and old:
        raise BadHTTP("chunks in HTTP/1.0")
    words = _words(headers, b"connection")
    return RequestHead(
        event.method,
        _path(event.target),
        headers,
        length,
        b"keep-alive" in words if old else b"close" not in words,
        not old and b"100-continue" in _words(headers, b"expect"),
        old,
    )


class ResponseReader:
    """Reads the heads of the answers on one connection.

    Small answers are alike but for their bodies, so a head that came before to the byte was looked at already.
    """

    __slots__ = ("_known", "_method")

    def __init__(self) -> None:
        self._known: dict[bytes, ResponseHead] = {}
        self._method = b""

    def read(self, buffer: bytes, method: bytes) -> tuple[ResponseHead, bytes] | None:
        """As ``read_response_head``."""
        if method != self._method:
            self._method = method
            self._known.clear()
        end = buffer.find(_END) + len(_END)
        raw = buffer[:end]
        again = self._known.get(raw)
        if again is not None:
            return again, buffer[end:]
        found = read_response_head(buffer, method)
        if found is not None and found[0].status >= 200 and end + len(found[1]) == len(buffer):
            _remember(self._known, raw, found[0])
        return found


def read_response_head(buffer: bytes, method: bytes) -> tuple[ResponseHead, bytes] | None:
    """The head at the start of *buffer*, which answers *method*, and what comes after it; None while it is not whole.

    Those of 1xx responses are given too; they have no body, and the response is yet to come.

    Raises:
        BadHTTP: It will never be one.
    """
    cut = _cut(buffer)
    if cut is None:
        return None
    raw, rest = cut
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    connection.send(_ASKED)
    event = _event(connection, raw)
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        raise BadHTTP("no response")
    headers, status = _joined(event.headers), event.status_code
    old = event.http_version < b"1.1"
    words = _words(headers, b"connection")
    keep_alive = b"keep-alive" in words if old else b"close" not in words
    to_the_end = False
    if method == b"HEAD" or status in (204, 304) or status < 200:
        length: int | None = 0
    else:
        length = _length(headers, default=-1)
        if length == -1:
            length, to_the_end, keep_alive = None, True, False
    return ResponseHead(status, headers, length, keep_alive, to_the_end), rest


_ASKED: Final = h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"-")])


def _cut(buffer: bytes) -> tuple[bytes, bytes] | None:
    at = buffer.find(_END)
    if at < 0 or at > MAX_HEAD:
        if len(buffer) > MAX_HEAD:
            raise BadHTTP(f"a head of more than {MAX_HEAD} bytes", 431)
        return None
    start = 2 if buffer[:2] == b"\r\n" else 0  # left over by clients that end a body with a line
    return buffer[start : at + 4], buffer[at + 4 :]


def _event(connection: h11.Connection, raw: bytes) -> object:
    try:
        connection.receive_data(raw)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise BadHTTP(str(error), error.error_status_hint) from error
    if connection.trailing_data[0]:
        raise BadHTTP("an empty line inside of a head")
    return event


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _words(headers: Headers, name: bytes) -> list[bytes]:
    value = headers.get(name)
    return [] if value is None else [word.strip() for word in value.lower().split(b",")]


def _length(headers: Headers, default: int) -> int | None:
    """How many bytes the body has; None when it is chunked."""
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadHTTP("both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise BadHTTP("a transfer coding other than chunked", 501)
        return None
    if length is None:
        return default
    return int(length)  # h11 has looked at it


# -- writing heads ----------------------------------------------------------------------------------


def format_request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request; ``Host`` has to be among *headers*.

    Raises:
        LocalProtocolError: Something would not arrive as it is.
    """
    if not _FIELD.match(method) or not _TARGET.match(target):
        raise LocalProtocolError(f"not to be sent as a request: {method[:20]!r} {target[:80]!r}")
    return _head(b"%b %b HTTP/1.1\r\n" % (method, target), headers)


def format_response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a response.

    Raises:
        LocalProtocolError: Something would not arrive as it is.
    """
    return _head(b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b"Unknown")), headers)


def _head(first: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [first, *[_line(name, value) for name, value in headers], b"\r\n"]
    return b"".join(lines)


@lru_cache(512)
def _line(name: bytes, value: bytes) -> bytes:
    if not _FIELD.match(name) or not _VALUE.match(value):
        raise LocalProtocolError(f"not to be sent as a header: {name[:40]!r}")
    return b"%b: %b\r\n" % (name, value)
