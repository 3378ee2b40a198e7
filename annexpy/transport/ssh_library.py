"""asyncssh as we use it: imported the cheap way, and what it has no public way for.

Where a version of asyncssh does not have what is reached for here, it is left as it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import socket
import sys
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from annexpy.transport.allocation import keep_memory

__all__ = [
    "PACKET",
    "AsyncSSH",
    "Room",
    "acknowledging",
    "keep_alive_cheaply",
    "leave_out_empty",
    "load_asyncssh",
    "open_when_read",
    "room_of",
    "write_together",
]

AsyncSSH: TypeAlias = Any
"""The module, or a thing of it. Its types would be an import, which costs 150 ms."""
PACKET: Final = 256 * 1024
"""Doubles the rate between two asyncssh; OpenSSH caps it to 32 KiB by itself."""
_AUTHENTICATED: Final = ("-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_IGNORE: Final = 2  # SSH_MSG_IGNORE
_NO_TEXT: Final = bytes(4)  # an empty string on the wire
_TOGETHER: Final = 64 * 1024  # packets that are collected before they go out
_SMALL: Final = 16 * 1024
_UNSENT: Final = 512 * 1024  # bytes that wait for the socket before a channel waits too
_CERTIFICATES: Final = "asyncssh.crypto.x509"


def load_asyncssh() -> AsyncSSH:
    """asyncssh, imported the cheap way: looking for liboqs and nettle would run ldconfig and gcc.

    X.509 certificates, which OpenSSH does not know either, are a fifth of the time; it does without them.
    """
    if (found := sys.modules.get("asyncssh")) is not None:
        return found
    find_library = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None
    without: dict[str, Any] = {} if _CERTIFICATES in sys.modules else {_CERTIFICATES: None}
    sys.modules.update(without)
    try:
        import asyncssh
    finally:
        ctypes.util.find_library = find_library
        for name in without:
            del sys.modules[name]
    keep_memory()
    return asyncssh


class _Together:
    """The socket under a connection of asyncssh, which would write packet by packet, and each one alone.

    What the tasks of one turn of the event loop say goes out in one write, or sshd wakes up for every packet
    (and for the empty one that asyncssh puts before each of them).
    """

    def __init__(self, socket: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = socket, loop
        self._others: Sized | None = getattr(loop, "_ready", None)
        self._packets: list[bytes] = []
        self._size = 0

    def write(self, packet: bytes) -> None:
        if not self._packets:
            if len(packet) <= _SMALL and self._others is not None and not self._others:
                self._socket.write(packet)  # nobody else has a turn before the event loop looks at sockets again
                return
            self._loop.call_soon(self._flush)
        self._packets.append(packet)
        self._size += len(packet)
        if self._size > _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._packets:
            packets, self._packets, self._size = self._packets, [], 0
            self._socket.write(packets[0] if len(packets) == 1 else b"".join(packets))

    def close(self) -> None:
        self._flush()
        self._socket.close()

    def abort(self) -> None:
        self._packets.clear()
        self._socket.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def write_together(connection: AsyncSSH) -> None:
    """Put ``_Together`` under *connection*. There is no public way, so where it has no such socket nothing is done."""
    socket = getattr(connection, "_transport", None)
    if isinstance(socket, asyncio.Transport):
        connection._transport = _Together(socket, asyncio.get_running_loop())


class Room:
    """Whether the socket under a connection takes more, for all channels that it has.

    asyncssh waits for the window of each channel alone: what all of them together are allowed to send stood in memory
    for a reader who is slower (measured: 56 MiB for sixteen).

    Attributes:
        full: More waits for the socket than we like to keep.
        waiting: Who is called when there is room again.
    """

    def __init__(self, connection: AsyncSSH) -> None:
        self.full = False
        self.waiting: set[Callable[[], None]] = set()
        self._pause: Callable[[], None] = connection.pause_writing
        self._resume: Callable[[], None] = connection.resume_writing

    def pause_writing(self) -> None:
        """As of ``asyncio.BaseProtocol``."""
        self.full = True
        self._pause()

    def resume_writing(self) -> None:
        """As of ``asyncio.BaseProtocol``."""
        self.full = False
        self._resume()
        for wake in tuple(self.waiting):
            wake()


def room_of(connection: AsyncSSH) -> Room:
    """The room of *connection*, which has one for all its channels."""
    found = getattr(connection.pause_writing, "__self__", None)
    if isinstance(found, Room):
        return found
    room = Room(connection)
    connection.pause_writing, connection.resume_writing = room.pause_writing, room.resume_writing
    socket = getattr(connection, "_transport", None)
    if socket is not None:
        socket.set_write_buffer_limits(high=_UNSENT)
    return room


@contextmanager
def acknowledging(connection: AsyncSSH) -> Iterator[None]:
    """Have the system acknowledge at once what comes over *connection*, not only when there is something to say.

    sshd keeps a small packet back until the one before is acknowledged (Nagle's algorithm), and it says several in a
    row before a channel is open: else that takes the 40 ms for which the system waits. Where asyncssh has no such
    method, or the system no such option, nothing is done.
    """
    tcp, option = connection.get_extra_info("socket"), getattr(socket, "TCP_QUICKACK", None)
    received, own = getattr(connection, "data_received", None), getattr(connection, "__dict__", None)
    internet = getattr(tcp, "family", None) in (socket.AF_INET, socket.AF_INET6)
    if received is None or option is None or own is None or not internet or "data_received" in own:
        yield
        return

    def data_received(data: bytes, datatype: int | None = None) -> None:
        try:
            tcp.setsockopt(socket.IPPROTO_TCP, option, 1)
        finally:
            received(data, datatype)

    connection.data_received = data_received
    try:
        yield
    finally:
        del connection.data_received


def leave_out_empty(connection: AsyncSSH) -> None:
    """Spare both ends the empty packet that asyncssh sends before each one, where the cipher does not need it.

    It keeps the initial vector of ciphers in CBC mode unknown (RFC 4251, section 9.3.1). Authenticated ciphers
    have none that depends on what was sent before. Where asyncssh has no such method, nothing is done.
    """
    send = getattr(connection, "send_packet", None)
    if send is None or not str(connection.get_extra_info("send_cipher")).endswith(_AUTHENTICATED):
        return

    def send_packet(kind: int, *parts: bytes, **named: object) -> None:
        if kind != _IGNORE or parts != (_NO_TEXT,):
            send(kind, *parts, **named)

    connection.send_packet = send_packet


def keep_alive_cheaply(connection: AsyncSSH) -> None:
    """Have *connection* set the clock of its keepalive anew once a second at most, not with everything that comes.

    So it may ask whether the peer is there a second early. Where asyncssh has no such method, nothing is done.
    """
    reset = getattr(connection, "_reset_keepalive_timer", None)
    if reset is None or not hasattr(connection, "__dict__"):
        return
    again, loop = 0.0, asyncio.get_running_loop()

    def reset_rarely() -> None:
        nonlocal again
        now = loop.time()
        if now >= again:
            again = now + 1.0
            reset()

    connection._reset_keepalive_timer = reset_rarely


def open_when_read(channel: Any) -> None:
    """Have *channel* let the peer send more only when everything that came has been read.

    asyncssh opens the whole window again with the first piece it delivers, however much it still holds back for a
    reader that has paused: the faster the peer, the more of the content stood in memory (measured: 360 of 512 MiB).
    There is no public way, so where it has no such method nothing is done.
    """
    deliver = getattr(channel, "_deliver_data", None)
    if deliver is None or not hasattr(channel, "_init_recv_window"):
        return

    def deliver_data(data: bytes, datatype: int | None) -> None:
        window = channel._init_recv_window
        if channel._recv_buf:
            channel._init_recv_window = 0  # never less than half open, so it is left as it is
        try:
            deliver(data, datatype)
        finally:
            channel._init_recv_window = window

    channel._deliver_data = deliver_data
