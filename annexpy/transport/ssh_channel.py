"""One channel of an ssh connection: the stdin and stdout of a command, at either end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Protocol

import anyio

from annexpy.errors import ConnectionLost
from annexpy.transport.base import CHUNK
from annexpy.transport.pipe import MAX_COMPLAINT
from annexpy.transport.ssh_library import Room, open_when_read, room_of
from annexpy.transport.ssh_packets import send_quickly

__all__ = ["AHEAD", "CLOSE_SECONDS", "WINDOW", "SSHTransport"]

WINDOW: Final = 8 * 1024 * 1024
AHEAD: Final = 1024 * 1024
_UNSENT: Final = 1024 * 1024  # sent bytes that wait for the window before ``send`` waits too
CLOSE_SECONDS: Final = 2.0
_DEPARTURE_SECONDS: Final = 0.5


class _Channel(Protocol):
    """What is used of an ``asyncssh.SSHClientChannel``."""

    def get_connection(self) -> object: ...
    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    async def wait_closed(self) -> None: ...


class SSHTransport:
    """The stdin and stdout of a command on another host; also the ``asyncssh.SSHClientSession`` behind it.

    Args:
        peer: For messages.
        leave: Awaited when the channel is over.
        ahead: Received bytes that may wait for us before the peer is held back; 0 also means that closing does not
            wait for the peer, so that our last words may be lost.
    """

    def __init__(self, peer: str, leave: Callable[[], Awaitable[None]], ahead: int = AHEAD) -> None:
        self.peer, self._ahead = peer, ahead
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._channel: _Channel | None = None
        self._room: Room | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False  # nothing more is to be read
        self._gone = False  # the channel is closed
        self._held_back = False  # the peer takes no more for now
        self._closed = False
        self._unsendable = ""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._soon = b""
        self._said = b""
        self._status = ""
        self._failure = ""
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None

    def abandon(self) -> None:
        """Starting the command was given up; the server may have started it all the same."""
        if self._channel is not None:
            self._channel.abort()

    # -- Transport --------------------------------------------------------------------------------------

    @property
    def at_eof(self) -> bool:
        return self._ended or self._closed

    @property
    def has_input(self) -> bool:
        return bool(self._chunks) or self._ended or self._closed

    @property
    def complaint(self) -> str:
        """What the command said on stderr, how it ended, and what ssh had to say."""
        lines = self._said.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return "; ".join([*said, *filter(None, (self._status, self._failure))])

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        while not self._chunks:
            if self._closed:
                raise ConnectionLost(self.peer, "data", "closed on this side")
            if self._ended:
                await self._departure()
                return b""
            reader = self._reader = self._loop.create_future()
            try:
                await reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        if self._chunks and len(data) + len(self._chunks[0]) <= max_bytes:
            some, size = [data], len(data)
            while self._chunks and size + len(self._chunks[0]) <= max_bytes:
                some.append(self._chunks.popleft())
                size += len(some[-1])
            data = b"".join(some)
        elif len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._size -= len(data)
        if self._paused and self._size <= self._ahead // 2 and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()
        return data

    def within(self, seconds: float) -> None:
        """As ``transport.base.Watched``. One timer serves many waits, as most end long before it goes off."""
        self._due = inf if seconds == inf else self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._due == inf or self._closed else self._loop.call_at(self._due, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._set_timer()
            return
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_exception(TimeoutError())

    async def _departure(self) -> None:
        """The exit status and the last words come after the end of the stream."""
        if not self._gone and self._channel is not None:
            with anyio.move_on_after(_DEPARTURE_SECONDS):
                await self._channel.wait_closed()

    def send_soon(self, data: bytes) -> None:
        if not self._soon:
            # In the turn after the next: whoever is to use the wire next has woken up then and takes this along.
            self._loop.call_soon(self._loop.call_soon, self._flush_soon)
        self._soon += data

    def _flush_soon(self) -> None:
        if self._soon and self._channel is not None and not (self._gone or self._unsendable):
            data, self._soon = self._soon, b""
            try:
                self._channel.write(data)
            except OSError as error:
                self._unsendable = error.strerror or str(error)

    async def send(self, data: bytes) -> None:
        if self._soon:
            data, self._soon = self._soon + data, b""
        if self._room is not None and self._room.full:
            await self._until_room(self._room)
        if self._unsendable or self._closed or self._gone or self._channel is None:
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable or self._failure)
        try:
            self._channel.write(data)
        except OSError as error:
            self._unsendable = error.strerror or str(error)
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable) from error
        while self._held_back:
            self._unsendable = "cancelled while sending"
            await self._until_woken()
            self._unsendable = ""

    async def _until_room(self, room: Room) -> None:
        room.waiting.add(self._wake)
        try:
            while room.full and not (self._closed or self._gone):
                await self._until_woken()
        finally:
            room.waiting.discard(self._wake)

    async def _until_woken(self) -> None:
        writer = self._writer = self._loop.create_future()
        try:
            await writer
        finally:
            self._writer = None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._flush_soon()
        self._closed, self._due = True, inf
        self._set_timer()
        held_back, self._held_back = self._held_back, False
        self._wake()
        channel = self._channel
        with anyio.CancelScope(shield=True):
            if channel is not None and not self._gone:
                # One with no room ahead is closed at once: reading on until the peer has left is what it must not do.
                if self._paused and self._ahead:
                    channel.resume_reading()
                if self._ahead and not (held_back or self._unsendable):
                    # As with a child: the end of its stdin tells it to leave. Closing at once could cost it
                    # what we said last.
                    channel.write_eof()
                    with anyio.move_on_after(CLOSE_SECONDS):
                        await channel.wait_closed()
                if not self._gone:
                    channel.abort()
            await self._leave()

    def _wake(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # -- asyncssh.SSHClientSession --------------------------------------------------------------------

    def connection_made(self, chan: _Channel) -> None:
        """The channel is open; the command is not running yet."""
        self._channel = chan
        open_when_read(chan)
        self._room = room_of(chan.get_connection())
        send_quickly(chan.get_connection(), chan)
        chan.set_write_buffer_limits(_UNSENT)

    def session_started(self) -> None:
        """The command runs."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Bytes of stdout, or of stderr when *datatype* is set."""
        if datatype is not None:
            self._said = (self._said + data)[-MAX_COMPLAINT:]
            return
        if self._closed:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._ahead and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Stdout is over; ours may go on until we close."""
        self._ended = True
        self._wake()
        return True

    def exit_status_received(self, status: int) -> None:
        """The command ended by itself."""
        self._status = f"exit status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """The command was killed."""
        self._status = f"killed by SIG{signal}"

    def pause_writing(self) -> None:
        """More waits for the window than we like to keep."""
        self._held_back = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._held_back = False
        self._wake()

    def xon_xoff_requested(self, client_can_do: bool) -> None:
        """Nothing that concerns bytes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, with *exc* when the connection broke."""
        if exc is not None:
            self._failure = getattr(exc, "reason", "") or str(exc)
        self._ended = self._gone = True
        self._held_back = False
        self._wake()
