"""Bytes through file descriptors: the one loop under sockets, children and inherited stdin/stdout.

Why not asyncio's own transports: they copy what they cannot write at once, read 256 KiB at a time
(which costs 14 µs of memory mapping per small message) and cannot be read from a plain descriptor
in the same way as from a socket. Here

* the descriptor stays registered with the event loop, and its callback reads and hands the bytes
  to the waiting task itself;
* without a waiting task at most one chunk is read ahead, which also tells of a peer that hung up;
* ``send`` writes straight from the caller's bytes and waits only when the kernel takes no more;
* reads start small and grow while they come back full.

On trio (or any loop but asyncio) the same reads and writes wait through anyio. Fact sheet
performance, section 3.2 and 3.5.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import anyio.lowlevel
from anyio import to_thread

from annexpy.errors import ConnectionLost
from annexpy.transport.allocation import keep_memory
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.sendfile import Own, send_file

__all__ = ["AnyioDescriptors", "AsyncioDescriptors", "Close", "descriptors", "on_asyncio"]

Close: TypeAlias = Callable[[], Awaitable[None]]
"""Gives the descriptors back; called once, when nothing is registered any more; must not raise."""

_SMALL = 64 * 1024
_HOP = 4 * 1024 * 1024  # bytes of a file that are sent in one thread hop at most
_RUN = 2 * 1024 * 1024  # bytes that may move without giving other tasks a turn


class _Descriptors:
    """What both event loops share."""

    __slots__ = (
        "_close",
        "_ended",
        "_failure",
        "_kept",
        "_read_fd",
        "_run",
        "_size",
        "_soon",
        "_unsendable",
        "_write_fd",
        "complaint",
        "peer",
    )

    def __init__(self, read_fd: int, write_fd: int, peer: str, close: Close, prefix: bytes = b"") -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self.peer = peer
        self.complaint = ""
        self._close: Close | None = close
        self._kept = prefix
        self._ended = False
        self._failure = ""  # why reading failed, where it did not simply end
        self._unsendable = ""
        self._soon = b""
        self._size = _SMALL
        self._run = 0

    @property
    def at_eof(self) -> bool:
        return self._ended or self._close is None

    @property
    def has_input(self) -> bool:
        return bool(self._kept) or self._ended or self._close is None

    def _read(self, max_bytes: int) -> bytes | None:
        """Bytes, b"" at the end, None when there is nothing now."""
        size = min(max_bytes, self._size)
        try:
            data = os.read(self._read_fd, size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._failure = error.strerror or str(error)
            self._ended = True
            return b""
        if len(data) == size:
            if size == CHUNK:
                keep_memory()
            self._size = max(self._size, min(self._size * 4, max_bytes))
        elif len(data) < _SMALL:
            self._size = _SMALL
            if not data:
                self._ended = True
        return data

    def _take(self, max_bytes: int) -> bytes:
        """From what was read ahead."""
        data = self._kept
        if len(data) > max_bytes:
            self._kept = data[max_bytes:]
            return data[:max_bytes]
        self._kept = b""
        return data

    def _end(self) -> bytes:
        """What ``receive`` says once the stream is over."""
        if self._failure:
            raise ConnectionLost(self.peer, "data", self._failure)
        if self._close is None:
            raise ConnectionLost(self.peer, "data", "closed on this side")
        return b""

    def _flush_soon(self) -> None:
        """Write what ``send_soon`` was given, as far as that is possible now."""
        if self._soon and self._close is not None and not self._unsendable:
            try:
                self._soon = self._soon[os.write(self._write_fd, self._soon) :]
            except (BlockingIOError, InterruptedError):
                pass  # nobody waits for it: it goes out with the next send
            except OSError as error:
                self._unsendable = error.strerror or str(error)

    def _write(self, data: bytes | memoryview) -> int:
        """How many bytes went out, 0 when none can now.

        Raises:
            ConnectionLost: The peer no longer reads.
        """
        if self._unsendable or self._close is None:
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable or "closed on this side")
        try:
            return os.write(self._write_fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._unsendable = error.strerror or str(error)
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable) from error

    async def send(self, data: bytes) -> None:
        """As ``Transport`` has it."""
        raise NotImplementedError

    async def send_file(self, fd: int, offset: int, size: int) -> int:
        """As ``SendsFiles`` has it."""
        await self.send(b"")  # what was to go out soon
        sent, at_work = 0, False
        owned: list[Own] = []
        try:
            owned += [target := Own(self._write_fd)]
            owned += [source := Own(fd)]
            self._unsendable = "cancelled while sending"
            while sent < size:
                hop = min(size - sent, _HOP)
                at_work = True
                # In a thread, because the file may have to come from a slow disk.
                part, ended = await to_thread.run_sync(send_file, target, source, offset + sent, hop)
                at_work = False
                sent += part
                if ended:
                    break
                if part < hop:
                    await self._room()
            self._unsendable = ""
        except OSError as error:
            at_work = False
            self._unsendable = error.strerror or str(error)
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable) from error
        finally:
            if not at_work:  # else it was cancelled by others than anyio, which waits for its threads
                for one in owned:
                    one.close()
        return sent

    async def _room(self) -> None:
        """Wait until the kernel takes more."""
        raise NotImplementedError


class AsyncioDescriptors(_Descriptors):
    """A transport on an asyncio loop. Make it with ``descriptors()``."""

    __slots__ = ("_loop", "_receiver", "_registered", "_sender", "_want")

    def __init__(self, read_fd: int, write_fd: int, peer: str, close: Close, prefix: bytes = b"") -> None:
        super().__init__(read_fd, write_fd, peer, close, prefix)
        self._loop = asyncio.get_running_loop()
        self._receiver: asyncio.Future[bytes] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._want = CHUNK
        self._registered = False
        self._register()

    def _register(self) -> None:
        try:
            self._loop.add_reader(self._read_fd, self._readable)
            self._registered = True
        except PermissionError:
            pass  # a regular file cannot be waited for: it is always ready, so it is always read directly

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self._read_fd)

    def _readable(self) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            data = self._read(self._want)
            if data is not None:
                receiver.set_result(data)
        elif not self._kept:
            self._kept = self._read(CHUNK) or b""
        else:
            self._unregister()  # one chunk ahead is enough: from here on the kernel holds the peer back
        if self._ended:
            self._unregister()

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        if self._run > _RUN:
            self._run = 0
            await asyncio.sleep(0)
        if self._kept:
            return self._take(max_bytes)
        if self._ended or self._close is None:
            await asyncio.sleep(0)
            return self._end()
        if self._size > _SMALL or not self._registered:
            # The last read came back full, so the next one is likely to find something too.
            data = self._read(max_bytes)
            if data is not None:
                self._run += len(data)
                return data or self._end()
            if not self._registered:
                self._register()
        self._run = 0
        self._want = max_bytes
        receiver = self._receiver = self._loop.create_future()
        try:
            data = await receiver
        except asyncio.CancelledError:
            if receiver.done() and not receiver.cancelled() and receiver.exception() is None:
                self._kept = receiver.result() + self._kept  # it came in the same turn as the cancellation
            raise
        finally:
            self._receiver = None
        return data or self._end()

    def send_soon(self, data: bytes) -> None:
        if not self._soon:
            # In the turn after the next: whoever is to use the wire next has woken up then and takes this along.
            self._loop.call_soon(self._loop.call_soon, self._flush_soon)
        self._soon += data

    async def send(self, data: bytes) -> None:
        if self._run > _RUN:
            self._run = 0
            await asyncio.sleep(0)
        if self._soon:
            data, self._soon = self._soon + data, b""
        sent = self._write(data)
        self._run += sent
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            self._unsendable = "cancelled while sending"
            await self._room()
            self._unsendable = ""
            rest = rest[self._write(rest) :]
        self._run = 0

    async def _room(self) -> None:
        if self._close is None:
            raise ConnectionLost(self.peer, "the peer to read", "closed on this side")
        sender = self._sender = self._loop.create_future()
        self._loop.add_writer(self._write_fd, self._writable)
        try:
            await sender
        finally:
            self._sender = None
            if self._close is not None:
                self._loop.remove_writer(self._write_fd)

    def _writable(self) -> None:
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    async def aclose(self) -> None:
        if (close := self._close) is not None:
            self._flush_soon()
            self._close = None
            if not self._loop.is_closed():
                self._unregister()
                self._loop.remove_writer(self._write_fd)
            for future in (self._receiver, self._sender):
                if future is not None and not future.done():
                    future.set_exception(ConnectionLost(self.peer, "data", "closed on this side"))
            with anyio.CancelScope(shield=True):
                await close()


class AnyioDescriptors(_Descriptors):
    """A transport on any loop that anyio knows. Make it with ``descriptors()``."""

    __slots__ = ("_waiting",)

    def __init__(self, read_fd: int, write_fd: int, peer: str, close: Close, prefix: bytes = b"") -> None:
        super().__init__(read_fd, write_fd, peer, close, prefix)
        self._waiting = False

    @property
    def at_eof(self) -> bool:
        self._look()
        return self._ended or self._close is None

    @property
    def has_input(self) -> bool:
        self._look()
        return bool(self._kept) or self._ended or self._close is None

    def _look(self) -> None:
        """Read ahead: nothing does it for us between two ``receive``."""
        if not (self._kept or self._ended or self._waiting or self._close is None):
            self._kept = self._read(CHUNK) or b""

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self._kept:
            return self._take(max_bytes)
        while not self._ended and self._close is not None:
            data = self._read(max_bytes)
            if data:
                return data
            if data is None:
                self._waiting = True
                try:
                    await self._ready(anyio.wait_readable, self._read_fd)
                finally:
                    self._waiting = False
        return self._end()

    def send_soon(self, data: bytes) -> None:
        self._soon += data
        self._flush_soon()

    async def send(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._soon:
            data, self._soon = self._soon + data, b""
        rest = memoryview(data)
        while rest := rest[self._write(rest) :]:
            self._unsendable = "cancelled while sending"
            await self._ready(anyio.wait_writable, self._write_fd)
            self._unsendable = ""

    async def _room(self) -> None:
        if self._close is None:
            raise ConnectionLost(self.peer, "the peer to read", "closed on this side")
        await self._ready(anyio.wait_writable, self._write_fd)

    async def _ready(self, wait: Callable[[int], Awaitable[None]], fd: int) -> None:
        try:
            await wait(fd)
        except PermissionError:
            await anyio.lowlevel.checkpoint()  # a regular file is always ready
        except anyio.ClosedResourceError as error:
            raise ConnectionLost(self.peer, "data", "closed on this side") from error

    async def aclose(self) -> None:
        if (close := self._close) is not None:
            self._flush_soon()
            self._close = None
            for fd in {self._read_fd, self._write_fd}:
                anyio.notify_closing(fd)
            with anyio.CancelScope(shield=True):
                await close()


def descriptors(read_fd: int, write_fd: int, peer: str, close: Close, *, prefix: bytes = b"") -> Transport:
    """A transport over two non-blocking descriptors, which may be the same one.

    Args:
        read_fd: Open for reading, ``O_NONBLOCK`` where it can block.
        write_fd: Likewise, for writing.
        peer: For messages.
        close: Closes the descriptors.
        prefix: Bytes that were already read from *read_fd* by somebody else.
    """
    return (AsyncioDescriptors if on_asyncio() else AnyioDescriptors)(read_fd, write_fd, peer, close, prefix)


def on_asyncio() -> bool:
    """Whether the running task is one of an asyncio loop (then descriptors wait without anyio)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
