"""Children and inherited descriptors: a command as the far side, and stdin/stdout as a server's wire."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio

from annexpy.errors import ConnectFailed, ConnectionLost
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.descriptors import descriptors, on_asyncio
from annexpy.transport.sockets import SOCKET_BUFFER, over_socket

__all__ = ["Child", "DialCommand", "dial_command", "stdio"]

MAX_COMPLAINT = 8 * 1024
"""Bytes of a child's stderr that are kept: the last ones."""
CLOSE_SECONDS = 2.0
"""How long a child may take to leave after its stdin ended; then it is killed."""
_DEPARTURE_SECONDS = 0.5  # how long the end of the stream waits for the exit status, for the message


class Child:
    """A running command whose stdin and stdout are the stream. Make it with ``dial_command``.

    stdin and stdout are one end of a socket pair, because sockets hold more under way than pipes
    and need one descriptor. The child is always reaped: closing ends its stdin, waits, then kills.
    """

    def __init__(self, inner: Transport, process: subprocess.Popen[bytes], stderr: _Stderr) -> None:
        self._inner = inner
        self._process = process
        self._stderr = stderr
        self._pidfd: int | None = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        self._closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peer(self) -> str:
        return self._inner.peer

    @property
    def at_eof(self) -> bool:
        return self._inner.at_eof

    @property
    def has_input(self) -> bool:
        return self._inner.has_input

    @property
    def complaint(self) -> str:
        """The last lines of stderr, and how it ended if it has."""
        said = self._stderr.text()
        status = self._process.returncode
        if status is None:
            return said
        left = f"exit status {status}" if status >= 0 else f"killed by {_signal(-status)}"
        return f"{said}; {left}" if said else left

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        try:
            data = await self._inner.receive(max_bytes)
        except ConnectionLost:
            if self._closed:
                raise
            data = b""  # "reset" only means that the child left without reading all that we said
        if not data:
            await self._departure(_DEPARTURE_SECONDS)
        return data

    async def send(self, data: bytes) -> None:
        await self._inner.send(data)

    def send_soon(self, data: bytes) -> None:
        self._inner.send_soon(data)

    async def _departure(self, seconds: float) -> bool:
        """Wait for the child to leave, for *seconds* at most."""
        with anyio.move_on_after(seconds):
            while self._process.poll() is None:
                if self._pidfd is None:
                    await anyio.sleep(0.01)
                else:
                    await anyio.wait_readable(self._pidfd)
        self._stderr.drain()
        return self._process.poll() is not None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._inner.aclose()
            if not await self._departure(CLOSE_SECONDS):
                self._process.kill()
                self._process.wait()
            self._stderr.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Stderr:
    """Reads what a child says on stderr, so that it never blocks on it, and keeps the last of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._said = b""
        self._open = True
        os.set_blocking(fd, False)
        if on_asyncio():
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self._loop.add_reader(fd, self.drain)
        else:
            import trio  # the only other loop that anyio has

            self._loop = None
            trio.lowlevel.spawn_system_task(self._watch, name=f"stderr of a child, fd {fd}")

    async def _watch(self) -> None:
        while self._open:
            try:
                await anyio.wait_readable(self._fd)
            except anyio.ClosedResourceError:
                return
            self.drain()

    def drain(self) -> None:
        """Take everything that is there now."""
        while self._open:
            try:
                data = os.read(self._fd, CHUNK // 4)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            self._said = (self._said + data)[-MAX_COMPLAINT:]

    def text(self) -> str:
        lines = self._said.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return "; ".join(line.strip() for line in lines if line.strip())

    def close(self) -> None:
        if self._open:
            self._open = False
            if self._loop is None:
                anyio.notify_closing(self._fd)
            elif not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)


async def dial_command(
    argv: Sequence[str | bytes], *, env: Mapping[str, str] | None = None, name: str | None = None
) -> Transport:
    """Start *argv* with the stream as its stdin and stdout.

    Args:
        argv: Program, looked up in PATH, and its arguments. No shell.
        env: Set in addition to our own environment.
        name: For messages; the program's name otherwise.

    Raises:
        ConnectFailed: The program cannot be started.
    """
    name = name or f"exec:{_text(argv[0])}"
    ours, theirs = socket.socketpair()
    stderr_read, stderr_write = os.pipe()
    try:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        process = _start(argv, theirs.fileno(), stderr_write, {**os.environ, **env} if env else None)
    except OSError as error:
        ours.close()
        os.close(stderr_read)
        raise ConnectFailed(name, f"{_text(argv[0])}: {error.strerror}") from error
    finally:
        theirs.close()
        os.close(stderr_write)
    return Child(over_socket(ours, name), process, _Stderr(stderr_read))


def _start(
    argv: Sequence[str | bytes], stream: int, stderr: int, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    # Blocks for the millisecond until exec; the event loops' own ways to start a child do the same.
    return subprocess.Popen(argv, stdin=stream, stdout=stream, stderr=stderr, env=env)


def _text(argument: str | bytes) -> str:
    return os.fsdecode(argument)


@dataclass(frozen=True, slots=True)
class DialCommand:
    """``dial_command`` with its arguments, as a value that pickles."""

    argv: tuple[str | bytes, ...]
    env: tuple[tuple[str, str], ...] = ()
    name: str | None = None

    async def __call__(self) -> Transport:
        return await dial_command(self.argv, env=dict(self.env), name=self.name)

    def __str__(self) -> str:
        return self.name or "exec:" + " ".join(map(_text, self.argv))


# -- our own stdin and stdout ---------------------------------------------------------------------


def stdio(prefix: bytes = b"", *, read_fd: int = 0, write_fd: int = 1) -> Transport:
    """The stdin and stdout that this process was started with, as a server's transport.

    They may be sockets, pipes, files or a terminal. From here on descriptor 0 reads nothing and
    descriptor 1 is stderr, so that a stray ``print`` cannot end up in the middle of the protocol.

    Args:
        prefix: What was read from stdin already.
        read_fd, write_fd: Taken over and closed, when they are not 0 and 1.
    """
    reading, was_reading = _own(read_fd)
    writing, was_writing = _own(write_fd)
    if read_fd == 0:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    else:
        os.close(read_fd)
    if write_fd == 1:
        os.dup2(2, 1)
    elif write_fd != read_fd:
        os.close(write_fd)

    async def close() -> None:
        # Whoever shares these (a shell, a terminal) gets them back as they were.
        os.set_blocking(reading, was_reading)
        os.set_blocking(writing, was_writing)
        os.close(reading)
        os.close(writing)

    return descriptors(reading, writing, "stdin", close, prefix=prefix)


def _own(fd: int) -> tuple[int, bool]:
    """A duplicate of *fd* set up for us, and whether it was blocking before."""
    own = os.dup(fd)
    was_blocking = os.get_blocking(own)
    mode = os.fstat(own).st_mode
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(own)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    elif stat.S_ISFIFO(mode):
        try:
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, SOCKET_BUFFER)
        except OSError:
            pass  # above what this user may have: slower, not wrong
    if not os.isatty(own):
        os.set_blocking(own, False)
    return own, was_blocking
