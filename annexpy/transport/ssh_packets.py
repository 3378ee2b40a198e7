"""Packets with the bytes of a channel, to and from asyncssh by a shorter way than its own.

asyncssh copies every byte that it receives a dozen times or more (all that waits behind a packet is copied twice for
each one), and makes a cipher for every packet. What is done here is the same as there, byte for byte: one packet
after the other is decrypted and authenticated where it lies, and what came for the channel is handed to the channel.
It is done for data alone, in AES-GCM without compression. Everything else (another kind of packet, one that is not
complete, too long, forged, or for no open channel, a due exchange of keys) is left to asyncssh before anything was
changed. Where a version of asyncssh does not have what is reached for here, all of it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from annexpy import system
from annexpy.transport.base import CHUNK

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["receive_quickly", "send_quickly"]

_DATA: Final = 94  # SSH_MSG_CHANNEL_DATA
_ADJUST: Final = 93  # SSH_MSG_CHANNEL_WINDOW_ADJUST
_DATA_HEAD: Final = 10  # length of the padding, kind, channel, length of the data
_TAG: Final = 16
_BLOCK: Final = 16
_LEAST_PADDING: Final = 4
_OPEN: Final = frozenset(("open", "eof_pending", "eof"))
_MUCH: Final = 1024 * 1024  # bytes that came one after the other
_FULL: Final = 192 * 1024  # so many at once, and there are more: asyncio reads 256 KiB
_AWHILE: Final = 0.001
_RECEIVING: Final = (
    "_recv_pkthdr", "_recv_handler", "_inpbuf", "_recv_encryption", "_recv_seq", "_decompressor", "_channels",
    "_auth_complete", "_auth_final", "_max_recv_pktlen", "_rekey_bytes_sent", "_transport",
)  # fmt: skip
_SENDING: Final = (
    "_send", "_send_encryption", "_send_seq", "_compressor", "_auth_complete", "_kex_complete", "_rekey_bytes_sent",
    "_rekey_bytes", "_rekey_seconds", "_rekey_time",
)  # fmt: skip
_TAKING: Final = ("_recv_state", "_recv_window", "_accept_data")
_GIVING: Final = (
    "write", "_flush_send_buf", "_send_state", "_send_buf", "_send_buf_len", "_send_window", "_send_pktsize",
    "_send_chan", "_encoding",
)  # fmt: skip
_CIPHER: Final = ("_key", "_iv", "_update_iv")


def _has(thing: Any, names: tuple[str, ...]) -> bool:
    return all(hasattr(thing, name) for name in names)


class _Cipher:
    """AES-GCM of one direction of a connection, made once for each key."""

    def __init__(self) -> None:
        self._encryption: Any = None
        self._shim: Any = None
        self._aes: AESGCM | None = None

    def of(self, encryption: Any) -> tuple[AESGCM, Any] | None:
        """The cipher, and where asyncssh keeps its initial vector; None for another kind of *encryption*."""
        if encryption is not self._encryption:
            self._encryption, self._aes = encryption, None
            self._shim = getattr(encryption, "_cipher", None)
            if type(encryption).__name__ == "GCMEncryption" and _has(self._shim, _CIPHER):
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # asyncssh has imported it by now

                self._aes = AESGCM(self._shim._key)
        return None if self._aes is None else (self._aes, self._shim)


def receive_quickly(connection: Any) -> None:
    """Have *connection* of asyncssh take packets with the bytes of a channel by the shorter way."""
    if not _has(connection, _RECEIVING) or not hasattr(connection, "__dict__"):
        return
    kept, header, stream = _Cipher(), connection._recv_pkthdr, _Stream(connection)

    def next_header() -> bool:
        # asyncssh calls this where a packet begins, and again as long as it returns true.
        found = kept.of(connection._recv_encryption)
        if connection._decompressor is not None or not connection._auth_final:
            found = None
        size = len(connection._inpbuf)
        if found is not None and not _Taking(connection).take(*found):
            stream.came(size)
            return False
        return bool(header())

    connection._recv_pkthdr = next_header
    if connection._recv_handler == header:
        connection._recv_handler = next_header


class _Stream:
    """Much that comes and is not answered is looked at once a millisecond, not for every packet.

    Else everybody wakes up for each 32 KiB: we, and who hashes, and who writes. It is over with whatever we say.
    """

    __slots__ = ("_connection", "_sent", "_size")

    def __init__(self, connection: Any) -> None:
        self._connection, self._size, self._sent = connection, 0, 0

    def came(self, size: int) -> None:
        """*size* bytes lay there, and no whole packet does any more."""
        sent, socket = self._connection._rekey_bytes_sent, self._connection._transport
        if sent - self._sent > _BLOCK:  # more than "go on": that the window is open again
            self._size = 0
        self._sent = sent
        self._size += size
        if self._size > _MUCH and size < _FULL and socket is not None and socket.is_reading():
            socket.pause_reading()
            asyncio.get_running_loop().call_later(_AWHILE, socket.resume_reading)


class _Taking:
    """What lies there of *connection*, taken packet by packet. Bytes of one channel are collected to a larger piece."""

    __slots__ = ("_channel", "_connection", "_opened", "_parts", "_size")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel: Any = None  # whose bytes are collected
        self._parts: list[memoryview] = []
        self._size = 0
        self._opened: list[Any] = []  # channels that may send more

    def take(self, aes: AESGCM, shim: Any) -> bool:
        """Hand all that is complete and concerns open channels to them, up to the first other packet.

        Returns:
            False when no packet is complete any more: there is nothing left to do until more comes.
        """
        from cryptography.exceptions import InvalidTag

        connection = self._connection
        buffer: bytes = connection._inpbuf
        whole, at, end, asyncssh_next = memoryview(buffer), 0, len(buffer), False
        encryption, most = connection._recv_encryption, connection._max_recv_pktlen
        while end - at >= 4:
            head = whole[at : at + 4]
            length = int.from_bytes(head, "big")
            stop = at + 4 + length + _TAG
            asyncssh_next = length > most or length < _BLOCK or length % _BLOCK > 0
            if asyncssh_next or stop > end:
                break
            asyncssh_next = True
            try:
                packet = aes.decrypt(shim._iv, whole[at + 4 : stop], head)
            except InvalidTag:
                break  # asyncssh finds out again, and says so
            if not self._collect(packet, length):
                break
            asyncssh_next = False
            shim._update_iv()
            connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
            at = stop
            if self._size >= CHUNK:
                self._deliver()
                if connection._inpbuf is not buffer or connection._recv_encryption is not encryption:
                    return False  # whoever got it has closed the connection
        self._deliver()
        if connection._inpbuf is not buffer or connection._recv_encryption is not encryption:
            return False
        if at:
            connection._inpbuf = buffer[at:]
        for channel in self._opened:
            channel._flush_send_buf()
        return asyncssh_next

    def _collect(self, packet: bytes, length: int) -> bool:
        """Take *packet*, whose length is *length*, for its channel; False when it is none of ours."""
        channel = self._connection._channels.get(int.from_bytes(packet[2:6], "big"))
        if channel is None or packet[0] < _LEAST_PADDING:
            return False
        size = int.from_bytes(packet[6:10], "big")
        if packet[1] == _ADJUST and _DATA_HEAD + packet[0] == length:
            if not _has(channel, _GIVING) or channel._recv_state not in _OPEN:
                return False
            channel._send_window += size
            self._opened.append(channel)
            return True
        if packet[1] != _DATA or _DATA_HEAD + size + packet[0] != length:
            return False
        if channel is not self._channel:
            if not _has(channel, _TAKING):
                return False
            self._deliver()
            self._channel = channel
        if channel._recv_state != "open" or self._size + size > channel._recv_window:
            return False
        self._parts.append(memoryview(packet)[_DATA_HEAD : _DATA_HEAD + size])
        self._size += size
        return True

    def _deliver(self) -> None:
        if self._size:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._channel._accept_data(data)


def send_quickly(connection: Any, channel: Any) -> None:
    """Have *channel* of *connection* send bytes by the shorter way."""
    if not (_has(connection, _SENDING) and _has(channel, _GIVING)) or "_send_window" not in vars(channel):
        return  # what only passes attributes on to a channel has none to count with
    kept, write, flush = _Cipher(), channel.write, channel._flush_send_buf

    def give(data: bytes | bytearray) -> int:
        found = kept.of(connection._send_encryption)
        return 0 if found is None else _give(connection, channel, *found, data)

    def quick_write(data: bytes, datatype: int | None = None) -> None:
        sent = 0
        if datatype is None and channel._send_state == "open" and not channel._send_buf:
            sent = give(data)
        if sent < len(data):
            write(data[sent:] if sent else data, datatype)

    def quick_flush() -> None:  # what waited for the window
        while channel._send_buf and channel._send_buf[0][1] is None:
            data = channel._send_buf[0][0]
            sent = give(data)
            del data[:sent]
            channel._send_buf_len -= sent
            if data:
                break
            del channel._send_buf[0]
        flush()

    channel.write, channel._flush_send_buf = quick_write, quick_flush


def _give(connection: Any, channel: Any, aes: AESGCM, shim: Any, data: bytes | bytearray) -> int:
    """Send as much of *data* as the window of the channel has room for; how much that was."""
    if not (connection._auth_complete and connection._kex_complete) or connection._compressor is not None:
        return 0
    if channel._encoding or channel._send_chan is None:
        return 0
    kind, at, end = b"%c%b" % (_DATA, channel._send_chan.to_bytes(4, "big")), 0, len(data)
    packets: list[bytes] = []
    with memoryview(data) as whole:
        while at < end and channel._send_window > 0 and not _is_rekeying_due(connection):
            size = min(end - at, channel._send_window, channel._send_pktsize)
            padding = -(_DATA_HEAD + size) % _BLOCK
            if padding < _LEAST_PADDING:
                padding += _BLOCK
            length = _DATA_HEAD + size + padding
            head = length.to_bytes(4, "big")
            begin = b"%c%b%b" % (padding, kind, size.to_bytes(4, "big"))
            packet = b"".join((begin, whole[at : at + size], system.RANDOM.randbytes(padding)))
            packets += (head, aes.encrypt(shim._iv, packet, head))
            shim._update_iv()
            connection._send_seq = (connection._send_seq + 1) & 0xFFFFFFFF
            connection._rekey_bytes_sent += length
            channel._send_window -= size
            at += size
    if packets:
        connection._send(b"".join(packets))
    return at


def _is_rekeying_due(connection: Any) -> bool:
    if connection._rekey_bytes_sent >= connection._rekey_bytes:
        return True
    # asyncio's clock is the one that asyncssh looks at.
    return bool(connection._rekey_seconds) and asyncio.get_running_loop().time() >= connection._rekey_time
