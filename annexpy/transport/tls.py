"""TLS over any transport."""

from __future__ import annotations

import ssl
from typing import Final

from anyio import CancelScope, current_time

from annexpy.errors import ConnectFailed, ConnectionLost, TimedOut
from annexpy.transport.base import CHUNK, Transport

__all__ = ["TLS", "start_tls"]

_PIECE: Final = 256 * 1024


class TLS:
    """A transport inside of another one. Make it with ``start_tls``."""

    __slots__ = ("_closed", "_ended", "_in", "_inner", "_object", "_out", "_unsendable")

    def __init__(self, inner: Transport, context: ssl.SSLContext, *, server_side: bool, hostname: str | None) -> None:
        self._inner = inner
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=hostname)
        self._ended = self._closed = False
        self._unsendable = ""

    @property
    def peer(self) -> str:
        return self._inner.peer

    @property
    def at_eof(self) -> bool:
        return self._closed or self._ended or self._inner.at_eof

    @property
    def has_input(self) -> bool:
        return self._object.pending() > 0 or self._ended or self._inner.at_eof

    @property
    def complaint(self) -> str:
        return self._inner.complaint

    async def shake_hands(self) -> None:
        """Agree on keys.

        Raises:
            ConnectFailed: The other side is not who it should be, or does not speak TLS.
            ConnectionLost: It left.
        """
        while True:
            try:
                self._object.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionLost(self.peer, "TLS handshake", self.complaint) from None
            except ssl.SSLError as error:
                self._inner.send_soon(self._out.read())  # the alert that says why
                raise ConnectFailed(self.peer, _why(error)) from error
            finally:
                await self._flush()

    async def _flush(self) -> None:
        if self._out.pending:
            await self._inner.send(self._out.read())

    async def _feed(self) -> bool:
        data = await self._inner.receive(CHUNK)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        if self._closed:
            raise ConnectionLost(self.peer, "data", "closed on this side")
        pieces: list[bytes] = []
        size = 0
        while not self._ended:
            try:
                # One record at a time, 16 KiB at most: take what is there.
                while size < max_bytes and (piece := self._object.read(max_bytes - size)):
                    pieces.append(piece)
                    size += len(piece)
                self._ended = size < max_bytes  # the other side has said that this is the end
                break
            except ssl.SSLWantReadError:
                if size:
                    break
                await self._flush()  # an answer of TLS's own, to new keys for example
                await self._feed()
            except ssl.SSLEOFError as error:
                if size:
                    break
                raise ConnectionLost(self.peer, "data", "cut off") from error
            except ssl.SSLError as error:
                if size:
                    break
                raise ConnectionLost(self.peer, "data", _why(error)) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def send(self, data: bytes) -> None:
        if self._closed or self._unsendable:
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable or "closed on this side")
        view = memoryview(data)
        self._unsendable = "cancelled while sending"
        for at in range(0, len(view), _PIECE):
            try:
                self._object.write(view[at : at + _PIECE])
            except ssl.SSLError as error:
                self._unsendable = _why(error)
                raise ConnectionLost(self.peer, "the peer to read", self._unsendable) from error
            await self._inner.send(self._out.read())
        self._unsendable = ""

    def send_soon(self, data: bytes) -> None:
        if not self._closed and not self._unsendable:
            try:
                self._object.write(data)
            except ssl.SSLError as error:
                self._unsendable = _why(error)
            else:
                self._inner.send_soon(self._out.read())

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._unsendable:
                try:
                    self._object.unwrap()
                except ssl.SSLError:
                    pass  # it wants to hear the other side's farewell, which we do not wait for
                if self._out.pending:
                    self._inner.send_soon(self._out.read())
        await self._inner.aclose()


def _why(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", "") or error.reason or str(error)


async def start_tls(
    transport: Transport,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    hostname: str | None = None,
    timeout: float = 15.0,
) -> TLS:
    """TLS over *transport*, which is closed when that fails.

    Args:
        transport: Connected, nothing said yet.
        context: Certificates, and what is trusted.
        server_side: We are the server.
        hostname: Who the server has to be; clients only.
        timeout: Seconds.

    Raises:
        ConnectFailed: Somebody else, or no TLS.
        ConnectionLost, TimedOut: The other side left, or is silent.
    """
    try:
        with CancelScope(deadline=current_time() + timeout) as scope:
            tls = TLS(transport, context, server_side=server_side, hostname=hostname)
            await tls.shake_hands()
            return tls
        assert scope.cancelled_caught
        raise TimedOut(transport.peer, "TLS handshake", timeout)
    except BaseException:
        with CancelScope(shield=True):
            await transport.aclose()
        raise
