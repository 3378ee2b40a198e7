"""A command that an ssh client has asked for, as the server sees it: who it is, the stream, its stderr and its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import anyio

from annexpy.p2p.connection import Connection, State
from annexpy.server.authorized import Rights
from annexpy.transport.ssh_channel import SSHTransport

__all__ = ["SSHClient", "SSHSession"]

_AsyncSSH: TypeAlias = Any
"""A thing of asyncssh; see transport/ssh.py."""
_STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR
_CLOSE_SECONDS: Final = 2.0
_QUIET: Final = frozenset((State.IDLE, State.GREETING))


class SSHClient:
    """Somebody who is connected.

    Attributes:
        rights: What they may do; None until they have logged in.
        candidate: Of the key that they showed last.
        blob: That key.
        sessions: How many channels they have.
    """

    def __init__(self, address: str, port: int) -> None:
        self.address, self.peer = address, f"{address}:{port}"
        self.rights: Rights | None = None
        self.candidate: Rights | None = None
        self.blob = b""
        self.sessions = 0


class SSHSession(SSHTransport):
    """One command: the server's side of a channel, and the transport that it makes.

    Attributes:
        rights: Whose command it is.
        command: As it came; "" for a shell.
        received, sent: Bytes.
        protocol: Of p2pstdio, once it has begun.
    """

    def __init__(self, connection: SSHClient, rights: Rights, start: Callable[[SSHSession], None]) -> None:
        super().__init__(connection.peer, _nothing)
        self._start = start
        self.connection, self.rights = connection, rights
        self.command = ""
        self.received = self.sent = 0
        self.protocol: Connection | None = None

    def environment(self, name: bytes) -> bytes:
        """A variable that the client wants to be set."""
        channel: _AsyncSSH = self._channel
        value = channel.get_environment_bytes().get(name, b"")
        return bytes(value)

    def complain(self, text: bytes) -> None:
        """On the stderr of the command."""
        if self._channel is not None and not self._gone:
            channel: _AsyncSSH = self._channel
            with suppress(OSError):  # the client has closed it
                channel.write(text, _STDERR)

    def let_go(self) -> None:
        """Let the client go if it has asked for nothing: as if it had left."""
        waits = self._reader is not None and self.protocol is not None and self.protocol.state in _QUIET
        if waits and not self._chunks:
            self.eof_received()

    async def finish(self, code: int, said: str) -> None:
        """The command is over: last words, exit code, and the channel is closed."""
        channel: _AsyncSSH = self._channel
        await self.aclose()
        if channel is None or self._gone:
            return
        if self._held_back:
            channel.abort()
            return
        with suppress(OSError):
            if said:
                channel.write(said.encode("utf-8", "surrogateescape"), _STDERR)
            channel.exit(code)
        with anyio.move_on_after(_CLOSE_SECONDS):
            await channel.wait_closed()
        if not self._gone:
            channel.abort()

    # -- Transport ----------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        await super().send(data)

    async def aclose(self) -> None:
        """The stream is over. The channel stays open for the exit code."""
        if not self._closed:
            self._flush_soon()
            self._closed = True
            self._wake()
            if self._paused and self._channel is not None:
                self._paused = False
                self._channel.resume_reading()

    async def _departure(self) -> None:
        """A client says nothing after the end of its stream."""

    # -- asyncssh.SSHServerSession ------------------------------------------------------------------------

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Bytes from the client."""
        self.received += len(data)
        super().data_received(data, datatype)

    def exec_requested(self, command: str) -> bool:
        """A command: which one is looked at when it runs."""
        self.command = command
        return True

    def shell_requested(self) -> bool:
        """Told that there is none, when it runs."""
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Such as sftp."""
        return False

    def pty_requested(self, *wanted: object) -> bool:
        """No terminals."""
        return False

    def terminal_size_changed(self, *size: int) -> None:
        """Of no terminal."""

    def break_received(self, msec: int) -> bool:
        """To nobody."""
        return False

    def signal_received(self, signal: str) -> None:
        """To nobody: who wants to end a command closes its stream."""

    def soft_eof_received(self) -> None:
        """Of no terminal."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self.connection.sessions -= 1
        super().connection_lost(exc)

    def session_started(self) -> None:
        """The channel is open."""
        self._start(self)


async def _nothing() -> None: ...
