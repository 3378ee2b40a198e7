"""The routes of ``http`` as an ASGI application, to be mounted in somebody else's server or framework.

What that server does about slow clients is its own business, except that the next piece of a body has to come
within a minute. Its lifespan has to be on: content locks live in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import anyio

from annexpy.errors import LocalProtocolError
from annexpy.server.http import Routes
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import RequestHead
from annexpy.transport.http_wire import ClientLeft

__all__ = ["ASGI"]

_PATIENCE: Final = 60.0
"""Seconds for the next piece of a body."""

_Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own definition
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class ASGI:
    """An application. *routes* are entered while its lifespan lasts."""

    def __init__(self, routes: Routes, *, secure: bool = False) -> None:
        """Serve *routes*.

        Args:
            routes: Not entered yet.
            secure: Nobody can read along, whatever the scheme says: there is a proxy in front that speaks TLS.
        """
        self._routes, self._secure = routes, secure

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or live one life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            exchange = _ASGIExchange(scope, receive, send, self._secure or scope.get("scheme") == "https")
            await self._routes.answer(exchange)
            await exchange.finish()
        else:
            raise LocalProtocolError(f"no such thing is served here: {scope['type']}")

    async def _live(self, receive: _Receive, send: _Send) -> None:
        await receive()
        async with self._routes:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


class _ASGIExchange(Exchange):
    """An exchange whose bytes somebody else carries."""

    __slots__ = ("_broken", "_client", "_done", "_get", "_is_secure", "_pending", "_put", "_whole")

    def __init__(self, scope: _Message, receive: _Receive, send: _Send, secure: bool) -> None:
        self._get, self._put, self._is_secure = receive, send, secure
        client = scope.get("client")
        self._client = f"{client[0]}:{client[1]}" if client else "unix socket"
        self.head = _head(scope)
        self.status = self.received = self.sent = 0
        self._done = self.head.length == 0
        self._broken = self._whole = False
        self._pending: list[_Message] = []

    @property
    def peer(self) -> str:
        return self._client

    @property
    def secure(self) -> bool:
        return self._is_secure

    @property
    def at_eof(self) -> bool:
        return self._broken

    @property
    def sends_files(self) -> bool:
        return False

    @property
    def body_done(self) -> bool:
        return self._done

    def behind(self, wanted: Callable[[RequestHead], object]) -> None:
        """Whoever carries the requests hands over one at a time."""

    async def receive(self, patience: float | None = None) -> bytes:
        while not self._done:
            message: _Message | None = None
            with anyio.move_on_after(_PATIENCE if patience is None else patience):
                message = await self._get()
            if message is None or message["type"] == "http.disconnect":
                self._broken = True
                raise ClientLeft(self.peer, "the rest of a request")
            self._done = not message.get("more_body", False)
            body: bytes = message.get("body", b"")
            if body:
                self.received += len(body)
                return body
        return b""

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"") -> None:
        self.start(status, headers, len(body))
        if self.head.method != b"HEAD":
            self._pending.append({"type": "http.response.body", "body": body, "more_body": True})
            self.sent = len(body)
        self.end()

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        if self.status:
            raise LocalProtocolError("a request is answered once")
        self.status = status
        told = [(name.lower(), value) for name, value in headers]
        if length is not None:
            told.append((b"content-length", b"%d" % length))
        self._pending.append({"type": "http.response.start", "status": status, "headers": told})

    async def send(self, data: bytes) -> None:
        if data and self.head.method != b"HEAD":
            self.sent += len(data)
            await self.flush()
            await self._put({"type": "http.response.body", "body": data, "more_body": True})

    def end(self) -> None:
        self._pending.append({"type": "http.response.body", "body": b"", "more_body": False})
        self._whole = True

    async def flush(self) -> None:
        pending, self._pending = self._pending, []
        for message in pending:
            await self._put(message)

    @property
    def finished(self) -> bool:
        return self._whole

    async def finish(self) -> None:
        """Send what is left.

        Raises:
            ClientLeft: The answer is not whole; only hanging up says so.
        """
        if not self._whole:
            raise ClientLeft(self.peer, "an answer that broke off")
        await self.flush()


def _head(scope: _Message) -> RequestHead:
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers[name] = headers[name] + b", " + value if name in headers else value
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    above = quote(scope.get("root_path", "")).encode()
    if above and path.startswith(above + b"/"):
        path = path[len(above) :]
    query: bytes = scope.get("query_string", b"")
    method: str = scope["method"]
    said = headers.get(b"content-length")
    length = int(said) if said is not None and said.isdigit() else None
    if length is None and b"transfer-encoding" not in headers:
        length = 0 if method in ("GET", "HEAD") else None
    target = path + b"?" + query if query else path
    return RequestHead(method.encode(), target, headers, length, True, False, False)
