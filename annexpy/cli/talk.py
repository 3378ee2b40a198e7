"""A conversation by hand: what is typed goes out as protocol messages, what comes back is shown.

The table of ``p2p.states`` decides what may be said; what may not is refused here, with the messages that
would be legal. Lines that were read ahead (a script on standard input) wait until it is the client's turn.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

import anyio

from annexpy.cli.show import human_size, printable
from annexpy.errors import ConnectionLost, InvalidPath, LocalProtocolError, TimedOut
from annexpy.p2p.connection import NEED_DATA, PAUSED, Closed, Connection, Data
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import Connect, DataHeader, Message, PutFrom, Unknown, Version
from annexpy.p2p.states import Role, State, transitions
from annexpy.p2p.transcript import format_row
from annexpy.p2p.versions import MAX_VERSION
from annexpy.system import CLOCK
from annexpy.transport.base import Transport

__all__ = ["Talk"]

_PREVIEW = 60


@dataclass(slots=True)
class Talk:
    """One conversation.

    Attributes:
        transport: Where the other side is.
        show: Called with every line for the user.
        transcript: Where to record, or None.
        patience: Seconds to wait for an answer.
        version: The version to offer at the start; 0 offers none.
        refused: How many of the typed lines were not sent.
    """

    transport: Transport
    show: Callable[[str], None]
    transcript: TextIO | None = None
    patience: float = 60.0
    version: int = MAX_VERSION
    refused: int = 0
    _connection: Connection = field(init=False, default_factory=lambda: Connection(Role.CLIENT))
    _offset: int = field(init=False, default=0)
    _start: float = field(init=False, default_factory=CLOCK.now)

    async def run(self, lines: AsyncIterator[bytes], prompt: Callable[[State], None] = lambda state: None) -> None:
        """Talk until *lines* end or the other side hangs up.

        Args:
            lines: What was typed, without LF. Bytes that follow ``DATA n`` are not typed: ``DATA @FILE`` sends a file.
            prompt: Called when the next line is wanted.

        Raises:
            ConnectionLost: The other side hung up while it owed an answer, or before *lines* ended.
            TimedOut: No answer within ``patience``.
            RemoteProtocolError: It said something that is not legal.
        """
        await self._listen()
        if self.version:
            await self._say(Version(self.version))
        while True:
            prompt(self._connection.state)
            line = await anext(lines, None)
            if line is None:
                return
            await self._typed(line.strip(b"\r"))

    async def _typed(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if not verb:
            return
        if verb in (b"?", b"HELP"):
            self.show(f"   legal in state {self._connection.state}: {self._legal()}")
            return
        try:
            if verb == b"DATA" and rest.startswith(b"@"):
                await self._send_named(Path(os.fsdecode(rest[1:])))
                return
            message = parse(verb + line[len(verb) :])
            if isinstance(message, Unknown):
                self._refuse(f"{message.reason}: {line.decode('utf-8', 'backslashreplace')}")
            elif isinstance(message, Connect):
                self._refuse("a git service cannot be spoken by hand")
            elif isinstance(message, DataHeader) and message.length:
                self._refuse("DATA @FILE sends a file from the offset that was asked for")
            else:
                await self._say(message)
        except LocalProtocolError as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self.refused += 1
        self.show(f"refused: {printable(why)} (legal: {self._legal()})")

    def _legal(self) -> str:
        return ", ".join(message.verb.decode() for message in self._connection.legal()) or "nothing"

    async def _say(self, message: Message) -> None:
        await self._send(self._connection.send(message))
        self._said("C", message)
        await self._listen()

    async def _send_named(self, path: Path) -> None:
        try:
            file = _opened(path)
        except OSError as error:
            self._refuse(f"{path}: {error.strerror}")
            return
        with file:
            await self._send_file(file, path)

    async def _send_file(self, file: BinaryIO, path: Path) -> None:
        length = max(0, file.seek(0, os.SEEK_END) - self._offset)
        header = DataHeader(length)
        await self._send(self._connection.send(header))
        self._said("C", header)
        file.seek(self._offset)
        while length:
            chunk = file.read(min(length, 1024 * 1024))
            if not chunk:
                raise InvalidPath("file", str(path), "was cut while it was sent")
            length -= len(chunk)
            await self._send(self._connection.send_data(chunk))
        self.show(f"C: ({human_size(header.length)} of {printable(str(path))})")
        await self._listen()

    async def _send(self, data: bytes) -> None:
        self._record(Role.CLIENT, data)
        await self.transport.send(data)

    async def _listen(self) -> None:
        """Show what comes until it is our turn again."""
        await self._events()
        while not transitions(self._connection.state, Role.CLIENT):
            try:
                with anyio.fail_after(self.patience):
                    await self._receive()
            except TimeoutError as error:
                raise TimedOut(self.transport.peer, self._connection.waiting_for, self.patience) from error
            await self._events()

    async def _receive(self) -> None:
        data = await self.transport.receive()
        if data:
            self._record(Role.SERVER, data)
        self._connection.receive_data(data)

    async def _events(self) -> None:
        while (event := self._connection.next_event()) not in (NEED_DATA, PAUSED):
            match event:
                case Closed(waiting_for):
                    raise ConnectionLost(self.transport.peer, waiting_for or "the next message")
                case Data(chunk):
                    if chunk:
                        self.show(f"S: ({human_size(len(chunk))}) {printable(repr(chunk[:_PREVIEW])[1:])}")
                case PutFrom(offset):
                    self._offset = offset
                    self._said("S", event)
                case message:
                    self._said("S", message)  # type: ignore[arg-type]  # everything else is a Message

    def _said(self, who: str, message: Message) -> None:
        raw = message.raw if isinstance(message, Unknown) else message.line()
        if raw.startswith(b"AUTH "):
            raw = raw[: raw.rfind(b" ")] + b" (token)"
        self.show(f"{who}: {printable(raw.decode('utf-8', 'surrogateescape')):<44}  {self._connection.state}")

    def _record(self, sender: Role, data: bytes) -> None:
        if self.transcript is not None:
            print(format_row(sender, data, CLOCK.now() - self._start), file=self.transcript, flush=True)


def _opened(path: Path) -> BinaryIO:
    """The regular file at *path*: a pipe could keep us waiting for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "no regular file")
    return path.open("rb")
