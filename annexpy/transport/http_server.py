"""The server's end of HTTP/1.1 connections: requests one after the other, answers, and how long a client may take.

Requests that a client sends ahead are answered in order, and small answers to them leave in one write. Deadlines
count only while the client is waited for: how long an answer takes to make, or waits for its turn, is never held
against the client. One task looks after the deadlines of all connections.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from annexpy.clock import Clock
from annexpy.errors import AnnexError
from annexpy.system import CLOCK
from annexpy.transport.base import Transport
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import BadHTTP, format_response_head
from annexpy.transport.http_wire import ClientLeft, Date, HTTPDeadlines, ServerWire

__all__ = ["HTTPConnections", "Handle"]

log = logging.getLogger(__name__)

_LOOK: Final = 1.0  # seconds between two looks at the deadlines
_USUAL: Final = HTTPDeadlines()

Handle = Callable[[Exchange], Awaitable[None]]
"""Answers one request. Errors of ours that it raises become a status where nothing was answered, else the end."""


class HTTPConnections:
    """All connections of a server.

    Attributes:
        open: How many there are.
        busy: How many of them are being answered.
    """

    def __init__(self, handle: Handle, *, deadlines: HTTPDeadlines = _USUAL, clock: Clock = CLOCK) -> None:
        self._handle, self._deadlines = handle, deadlines
        self._date = Date(clock)
        self._connections: set[ServerWire] = set()
        self._leaving = False
        self._empty = anyio.Event()

    @property
    def open(self) -> int:
        return len(self._connections)

    @property
    def busy(self) -> int:
        return sum(connection.busy for connection in self._connections)

    async def serve(self, transport: Transport, *, secure: bool = False) -> None:
        """Answer one client until it leaves, then close *transport*. What the client does is never raised."""
        connection = ServerWire(transport, self._deadlines, self._date, secure)
        connection.leaving = self._leaving
        self._connections.add(connection)
        try:
            await self._serve(connection)
        except BadHTTP as error:
            log.info("%s: %s", connection.peer, error)
            body = f"{error}\n".encode("utf-8", "backslashreplace")
            length = (b"Content-Length", b"%d" % len(body))
            connection.say(format_response_head(error.status, [length, (b"Connection", b"close")]) + body)
            await self._last_words(connection)
        except AnnexError as error:
            log.debug("%s: %s", connection.peer, error)
        except Exception:
            # A defect that one request has found may not end the server for everybody else.
            log.exception("%s: hung up", connection.peer)
        finally:
            self._connections.discard(connection)
            if self._leaving and not self._connections:
                self._empty.set()
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    @staticmethod
    async def _last_words(connection: ServerWire) -> None:
        try:
            await connection.flush()
        except ClientLeft as error:
            log.debug("%s", error)

    async def _serve(self, connection: ServerWire) -> None:
        first = True
        while (head := await connection.head(first=first)) is not None:
            first = False
            connection.busy = True
            exchange = Exchange(connection, head)
            await self._handle(exchange)
            if not exchange.finished:
                # The length is promised and the bytes are not there: only hanging up says so.
                await self._last_words(connection)
                return
            if not exchange.body_done:
                await connection.flush()
                if (head.expects and not exchange.received) or not await exchange.drain():
                    return
            await connection.trim()
            connection.busy = False
            if connection.leaving:
                await connection.flush()
                return

    async def watch(self) -> None:
        """Hang up on clients whose time is up, until cancelled."""
        while True:
            await anyio.sleep(_LOOK)
            now = anyio.current_time()
            for connection in [one for one in self._connections if one.until <= now]:
                await connection.expire()

    async def leave(self, grace: float) -> bool:
        """Take no more requests: close what is idle, wait *grace* seconds for what is being answered.

        Returns:
            Whether all were answered. What is left is to be cancelled.
        """
        self._leaving = True
        for connection in list(self._connections):
            connection.leaving = True
            if not connection.busy and not connection.kept:
                await connection.transport.aclose()
        if self._connections:
            with anyio.move_on_after(grace):
                await self._empty.wait()
        return not self._connections
