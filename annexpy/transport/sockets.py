"""Unix and TCP sockets: dial, listen, and any connected socket as a transport."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from annexpy.errors import ConnectFailed, TimedOut, TransportError
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.descriptors import descriptors

__all__ = ["DialTCP", "DialUnix", "Listener", "listen_tcp", "listen_unix", "over_socket"]

SOCKET_BUFFER = 1024 * 1024
"""Bytes each way that the kernel may hold for a unix socket. With its default of 208 KiB a bulk transfer is four
times slower, because sender and receiver wait for each other at every chunk."""

_NO_MORE_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def over_socket(sock: socket.socket, peer: str, *, prefix: bytes = b"") -> Transport:
    """*sock*, connected, as a transport that owns it."""
    prepare(sock)

    async def close() -> None:
        close_socket(sock)

    return descriptors(sock.fileno(), sock.fileno(), peer, close, prefix=prefix)


def prepare(sock: socket.socket) -> None:
    """Non-blocking, and set up for small answers at once and large bodies in few turns."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    else:
        # Always by hand: asyncio forgets it for sockets it did not make, and a pipelined batch then takes
        # 43 ms instead of 0.4 (fact sheet performance, section 3.4).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def close_socket(sock: socket.socket) -> None:
    """Close so that the peer still gets our last words: unread input would turn them into a reset."""
    try:
        sock.shutdown(socket.SHUT_WR)
        for _ in range(16):
            if not sock.recv(CHUNK):
                break
    except OSError:
        pass  # nothing left to read, or the peer is gone already
    finally:
        sock.close()


# -- dial -----------------------------------------------------------------------------------------


async def _connect(sock: socket.socket, address: object, name: str, timeout: float) -> Transport:
    """Connect *sock* or close it."""
    try:
        with anyio.fail_after(timeout):
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(address)  # type: ignore[arg-type]  # typeshed: a tuple, str or bytes
                except BlockingIOError as error:
                    if error.errno == errno.EAGAIN:  # a unix listener whose backlog is full
                        await anyio.sleep(0.01)
                        continue
                    await anyio.wait_writable(sock)
                break
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
        return over_socket(sock, name)
    except TimeoutError as error:
        sock.close()
        raise TimedOut(name, "connection", timeout) from error
    except OSError as error:
        sock.close()
        raise ConnectFailed(name, error.strerror or str(error)) from error
    except BaseException:
        sock.close()
        raise


@dataclass(frozen=True, slots=True)
class DialUnix:
    """Connects to the unix socket at *path*; *timeout* in seconds.

    Raises:
        ConnectFailed: No such socket, or nobody listens.
        TimedOut: The listener's queue stayed full.
    """

    path: str
    timeout: float = 10.0

    async def __call__(self) -> Transport:
        return await _connect(socket.socket(socket.AF_UNIX), self.path, str(self), self.timeout)

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class DialTCP:
    """Connects to *host* and *port*; *timeout* is for every address of the host together.

    Raises:
        ConnectFailed: Unknown host, or none of its addresses accepts.
        TimedOut: No address answered.
    """

    host: str
    port: int
    timeout: float = 10.0

    async def __call__(self) -> Transport:
        name = str(self)
        try:
            with anyio.fail_after(self.timeout):
                found = await anyio.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise TimedOut(name, f"address of {self.host}", self.timeout) from error
        except OSError as error:
            raise ConnectFailed(name, error.strerror or str(error)) from error
        failure: TransportError = ConnectFailed(name, "no address")
        for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
            try:
                return await _connect(socket.socket(family, kind, protocol), address, name, self.timeout / left)
            except TransportError as error:
                failure = error
        raise failure

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


# -- listen ---------------------------------------------------------------------------------------


class Listener:
    """Waits for connections. An ``async with`` block; leaving it stops listening.

    Attributes:
        address: Path, or (host, port) as bound.
    """

    def __init__(self, sock: socket.socket, remove: str | None = None) -> None:
        sock.setblocking(False)
        self._socket: socket.socket | None = sock
        self.address: str | tuple[str, int] = sock.getsockname() if remove else sock.getsockname()[:2]
        self._remove = (remove, os.stat(remove).st_ino) if remove else None
        self._ready: socket.socket | None = None

    async def accept(self) -> Transport:
        """The next connection.

        Out of file descriptors is not an end: the connection waits in the queue until some are free.
        """
        while True:
            sock = self._socket
            if sock is None:
                raise anyio.ClosedResourceError
            try:
                connected, address = sock.accept()
            except BlockingIOError:
                await anyio.wait_readable(sock)
            except OSError as error:
                if error.errno in _NO_MORE_DESCRIPTORS:
                    await anyio.sleep(0.1)
                elif error.errno not in {errno.ECONNABORTED, errno.EINTR, errno.EPROTO}:
                    raise
            else:
                return over_socket(connected, _who(connected, address))

    async def serve(self, handle: Callable[[Transport], Awaitable[object]]) -> None:
        """Run *handle* for every connection, each in a task of its own, until cancelled.

        The transport is closed after *handle*. An error of *handle* ends ``serve``: it has to deal
        with its own.
        """
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(self._one, handle, await self.accept())

    @staticmethod
    async def _one(handle: Callable[[Transport], Awaitable[object]], transport: Transport) -> None:
        try:
            await handle(transport)
        finally:
            await transport.aclose()

    async def aclose(self) -> None:
        """Stop listening and remove the path, unless somebody else has taken it over. Idempotent."""
        if self._socket is not None:
            sock, self._socket = self._socket, None
            anyio.notify_closing(sock)
            sock.close()
            if self._remove is not None:
                path, inode = self._remove
                try:
                    if os.stat(path).st_ino == inode:
                        os.unlink(path)
                except FileNotFoundError:
                    pass  # somebody tidied up before us

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _who(sock: socket.socket, address: object) -> str:
    if sock.family == socket.AF_UNIX:
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return "unix socket"
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))
        return f"pid {pid} of uid {uid}"
    host, port = address[:2]  # type: ignore[index]  # accept() gives (host, port, …) for both IP families
    return f"{host}:{port}"


async def listen_unix(path: str, *, mode: int = 0o600, backlog: int = 256) -> Listener:
    """Listen at *path*, which gets *mode* from the first moment.

    A socket that nobody listens on any more is replaced.

    Raises:
        ConnectFailed: Something else is there, somebody listens already, or the path cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(sock.fileno(), mode)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _abandoned(path):
                raise
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, mode)
        sock.listen(backlog)
        return Listener(sock, remove=path)
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"unix:{path}", error.strerror or str(error)) from error


def _abandoned(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


async def listen_tcp(host: str = "127.0.0.1", port: int = 0, *, backlog: int = 256) -> Listener:
    """Listen on one address. Nothing here asks who connects: use it on loopback, or behind something that does.

    Args:
        host: An IPv4 or IPv6 address, or a name of one.
        port: 0: a free one; ``Listener.address`` says which.
        backlog: Connections that may wait to be accepted.

    Raises:
        ConnectFailed: The address is taken, or not ours.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        return Listener(sock)
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"tcp:{host}:{port}", error.strerror or str(error)) from error
