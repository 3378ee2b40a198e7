"""What a transport is: bytes in order, both ways, and nothing about keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from annexpy.abilities import Ability

__all__ = ["CHUNK", "Dial", "Narrow", "SendsFiles", "Transport", "Watched"]

CHUNK = 256 * 1024
"""Bytes that one ``receive`` gives at most by default, and a good size to send."""


class Transport(Protocol):
    """A connection. One task receives and one task sends at a time."""

    @property
    def peer(self) -> str:
        """Who is at the other end, for messages ("ssh://host/path", "pid 4711")."""
        ...

    @property
    def at_eof(self) -> bool:
        """True as soon as the peer is known to have closed or reset, also while nobody receives.

        Not a promise the other way: False may only mean that the news has not arrived.
        """
        ...

    @property
    def has_input(self) -> bool:
        """True when ``receive`` is known to return at once, with bytes or with the end of the stream."""
        ...

    @property
    def complaint(self) -> str:
        """What the far side said outside of the stream (stderr of a child, words of ssh), for messages; mostly ""."""
        ...

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """The next bytes, at least one; ``b""`` at the end of the stream.

        The result is immutable and owned by the caller, so it can be handed to another thread.

        Raises:
            ConnectionLost: Reset, or closed under us.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send all of *data*, waiting while the peer does not read.

        After cancellation there is no way to know how much went out: nothing more can be sent then.

        Raises:
            ConnectionLost: The peer no longer reads. What it said before can still be received.
        """
        ...

    def send_soon(self, data: bytes) -> None:
        """Take a few bytes that go out with the next ``send``, or when the event loop gets its turn, or on closing.

        For last words that nobody waits for. Never raises: who sends next learns that the peer is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close both directions now. Idempotent, never raises, takes at most 2 s."""
        ...


@runtime_checkable
class SendsFiles(Protocol, metaclass=Ability):
    """A transport that can send a part of a file without reading it into this process."""

    async def send_file(self, fd: int, offset: int, size: int) -> int:
        """Send *size* bytes of the file *fd* from *offset*; as ``send`` otherwise.

        Returns:
            How many were sent: fewer when the file ends before.
        """
        ...


@runtime_checkable
class Watched(Protocol, metaclass=Ability):
    """A transport that can end its own waits: cheaper than a cancel scope around each."""

    def within(self, seconds: float) -> None:
        """Have what is, or will be, waited for end with TimeoutError so many seconds from now; ``inf``: never.

        A ``send`` that ended so was cancelled.
        """
        ...


Dial: TypeAlias = Callable[[], Awaitable[Transport]]
"""Opens one new connection; raises ConnectFailed, AuthFailed or TimedOut."""


@runtime_checkable
class Narrow(Protocol, metaclass=Ability):
    """A ``Dial`` that can bound what the peer may send ahead of the reader."""

    def narrow(self, window: int) -> Dial:
        """The same, with at most *window* bytes on their way that nobody has read yet."""
        ...
