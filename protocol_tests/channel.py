"""Byte streams to a server, on which no wait lasts for ever.

A ``Channel`` is whatever has a file descriptor to read from and one to write to: the pipes of a child process, a
socket, the two ends that a caller hands in. ``Patience`` says how long a wait may last.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final, Protocol

__all__ = ["Channel", "Gone", "HasFileno", "Patience", "Process", "Silent", "over_socket", "over_streams"]

_CHUNK: Final = 64 * 1024
_FORGIVEN: Final = 3  # waits for nothing
_SLOW: Final = 10_000  # bytes a second


class Gone(Exception):
    """The server has closed the connection."""


class Silent(Exception):
    """The server let a deadline pass."""


class HasFileno(Protocol):
    """A file, a pipe, a socket."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class Patience:
    """How many seconds a server gets for one answer.

    A server that has been late three times gets a tenth of it from then on (half a second at least, and several
    times what its slowest answer took): it has failed already, and the other requirements are to be looked at too.

    Attributes:
        slowest: How long the slowest answer took that came in time.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        """*seconds* for each wait."""
        self._seconds, self._late = seconds, 0
        self.slowest = 0.0

    @property
    def seconds(self) -> float:
        """For the wait that begins now."""
        if self._late < _FORGIVEN:
            return self._seconds
        return min(self._seconds, max(0.5, self._seconds / 10, 5 * self.slowest))

    def whole(self, length: int) -> float:
        """For *length* bytes, as long as some of them come in each wait: a server may be slow."""
        return self.seconds + length / _SLOW

    def answered(self, seconds: float) -> None:
        """An answer came after *seconds*."""
        self.slowest = max(self.slowest, seconds)

    def late(self) -> None:
        """A wait was for nothing."""
        self._late += 1


class Channel:
    """Two byte streams with a deadline on every wait."""

    def __init__(self, read: int, write: int, close: Callable[[], None]) -> None:
        """*read* and *write* are descriptors that belong to whoever *close* s them."""
        self._read, self._write, self._close = read, write, close
        self._open = True
        os.set_blocking(read, False)
        os.set_blocking(write, False)

    def send(self, data: bytes, patience: Patience) -> None:
        """All of *data*.

        Raises:
            Gone: Nobody reads any more.
            Silent: The server does not take it.
        """
        view, end = memoryview(data), time.monotonic() + patience.whole(len(data))
        while view:
            _wait(self._write, select.POLLOUT, min(end, time.monotonic() + patience.seconds), "take what it is sent")
            try:
                view = view[os.write(self._write, view[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone("the server does not read any more") from error

    def receive(self, seconds: float) -> bytes:
        """Some bytes; none at the end of the stream.

        Raises:
            Silent: Nothing came.
        """
        end = time.monotonic() + seconds
        while True:
            _wait(self._read, select.POLLIN, end, "say something")
            try:
                return os.read(self._read, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    @property
    def is_open(self) -> bool:
        """Nobody has left yet, on this side."""
        return self._open

    def close(self) -> None:
        """Leave, without a word."""
        if self._open:
            self._open = False
            self._close()

    def fate(self, seconds: float) -> str:
        """How the server ended, as far as can be seen from here within *seconds*; "" when it cannot."""
        del seconds
        return ""


class Process(Channel):
    """A server that is a child process of its own: standard input and output."""

    def __init__(self, argv: Sequence[str], patience: Patience, env: Mapping[str, str] | None = None) -> None:
        """Start *argv*; *env* is added to the environment.

        Raises:
            OSError: It cannot be started.
        """
        self._patience = patience
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._streams = (stdin, stdout)
        super().__init__(stdout.fileno(), stdin.fileno(), self._leave)

    def stop_sending(self) -> None:
        """Close its standard input, and go on listening."""
        try:
            self._streams[0].close()
        except OSError:  # what it did not take
            pass

    def kill(self) -> None:
        """End it as a power cut would."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def exit_code(self, seconds: float) -> int | None:
        """Its exit code; None when it still runs after *seconds*."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def fate(self, seconds: float) -> str:
        """Exit code and the last of what it said on standard error."""
        code = self.exit_code(seconds)
        if self._errors.closed:
            return ""
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode("utf-8", "backslashreplace").strip()
        return ("still runs" if code is None else f"exit code {code}") + (f"\n{said}" if said else "")

    def _leave(self) -> None:
        self.stop_sending()
        if self.exit_code(self._patience.seconds / 2) is None:
            self._patience.late()
            self.kill()
        self._streams[1].close()
        self._errors.close()


def over_socket(connected: socket.socket) -> Channel:
    """A connected socket, which is closed with the channel."""
    return Channel(connected.fileno(), connected.fileno(), connected.close)


def over_streams(read: HasFileno, write: HasFileno, close: Callable[[], None]) -> Channel:
    """What a caller hands in: *read* gives what the server says, *write* takes what it is told."""
    return Channel(read.fileno(), write.fileno(), close)


def _wait(descriptor: int, event: int, end: float, what: str) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
        raise Silent(f"the server did not {what} in time")
