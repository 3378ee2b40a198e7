"""Recorded conversations: JSON lines ⇄ rows, and what the table of ``states`` has to say about them.

One object a line, as in ``tests/transcripts``: ``dir`` is ``C>S`` or ``S>C`` (after the name of the wire, where one
file holds several), ``text`` the bytes as UTF-8, or ``b64``, or for long bodies ``len`` with ``sha256`` and
``head_b64``. Anything else is a remark.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from annexpy.errors import InvalidInput, LocalProtocolError, RemoteProtocolError
from annexpy.p2p.connection import Closed, Connection, Data, NeedData, Paused
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import DataHeader, Message, Unknown
from annexpy.p2p.states import Role, State, Unexpected

__all__ = ["Observer", "Row", "Step", "format_row", "parse_row", "replay"]

_WHOLE: Final = 8 * 1024
_SIDES: Final = {"C>S": Role.CLIENT, "S>C": Role.SERVER}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a transcript.

    Attributes:
        wire: Which connection, "" when there is only one.
        sender: Who sent *data*; None for a remark.
        data: What was sent. Of a long body only the length is right.
        remark: What else the line says, for people.
        ends: What follows is another connection.
    """

    wire: str
    sender: Role | None
    data: bytes = b""
    remark: str = ""
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was said.

    Attributes:
        wire: Which connection.
        sender: Who said it; None for a remark.
        text: The line, or a remark about the body.
        state: Of the session afterwards.
        problem: Why it should not have been said, "" when it was in order.
    """

    wire: str
    sender: Role | None
    text: str
    state: State
    problem: str = ""


_MOST: Final = 32 << 20  # that one row may stand for


def parse_row(line: str | bytes) -> Row:
    """One line of a transcript.

    Raises:
        InvalidInput: No JSON object, no ``dir``, or a body that cannot be read.
    """
    try:
        fields = json.loads(line)
        wire, _, kind = str(fields["dir"]).rpartition(" ")
        wire = str(fields.get("conn", wire))
        if kind not in _SIDES:
            said = str(fields.get("comment", fields.get("text", "")))
            return Row(
                wire, None, remark=f"{kind}: {said}" if said else kind, ends=kind in ("exec", "argv", "exit", "EOF")
            )
        if "text" in fields:
            data = str(fields["text"]).encode("utf-8", "surrogateescape")
        elif "b64" in fields:
            data = base64.b64decode(fields["b64"], validate=True)
        else:
            data = base64.b64decode(fields.get("head_b64", ""), validate=True)
            length = int(fields["len"])
            if length > _MOST:
                raise ValueError(f"more than {_MOST} bytes at once")
            data += bytes(max(0, length - len(data)))
    except (ValueError, OverflowError, RecursionError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidInput("transcript line", line, "a JSON object with dir and text, b64 or len") from error
    return Row(wire, _SIDES[kind], data)


def format_row(sender: Role, data: bytes, seconds: float) -> str:
    """What *sender* sent, *seconds* after the start, as a line without LF. Tokens are left out."""
    fields: dict[str, object] = {"t": round(seconds, 3), "dir": "C>S" if sender is Role.CLIENT else "S>C"}
    if data.startswith(b"AUTH ") and data.endswith(b"\n"):
        data = data[: data.rfind(b" ")] + b" (token)\n"
    if len(data) > _WHOLE:
        fields |= {"len": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        fields["head_b64"] = base64.b64encode(data[:64]).decode()
    else:
        try:
            fields["text"] = data.decode()
        except UnicodeDecodeError:
            fields["b64"] = base64.b64encode(data).decode()
    return json.dumps(fields, ensure_ascii=False)


class Observer:
    """Watches one conversation from outside, both directions, and says what each line meant."""

    def __init__(self, wire: str = "", state: State = State.GREETING) -> None:
        self._wire = wire
        self._connection = Connection(Role.SERVER, state=state)
        self._line = b""  # the beginning of a line of the server
        self._body = 0  # bytes of DATA that the server still has to send
        self._lost = False

    @property
    def state(self) -> State:
        """Of the session now."""
        return self._connection.state

    def see(self, sender: Role, data: bytes) -> Iterator[Step]:
        """What *sender* says with *data*. Lines and bodies may be cut anywhere."""
        if sender is Role.CLIENT:
            self._connection.receive_data(data)
        else:
            yield from self._server(data)
        yield from self._client()

    def _client(self) -> Iterator[Step]:
        while not self._lost:
            try:
                event = self._connection.next_event()
            except RemoteProtocolError as error:
                self._lost = True
                yield self._step(Role.CLIENT, "…", str(error))
                return
            match event:
                case NeedData() | Paused() | Closed():
                    return
                case Data(chunk):
                    if chunk:
                        yield self._step(Role.CLIENT, f"({len(chunk)} bytes)")
                case Unexpected(message, answer):
                    yield self._step(Role.CLIENT, _shown(message), f"the server owes: ERROR {answer.text}")
                case message:
                    yield self._step(Role.CLIENT, _shown(message))

    def _server(self, data: bytes) -> Iterator[Step]:
        while data:
            if self._body:
                chunk, data = data[: self._body], data[self._body :]
                self._body -= len(chunk)
                if not self._lost:
                    self._connection.send_data(chunk)
                yield self._step(Role.SERVER, f"({len(chunk)} bytes)")
                continue
            line, end, data = data.partition(b"\n")
            self._line += line
            if not end:
                return
            message = parse(self._line.removesuffix(b"\r"))
            self._line = b""
            yield self._say(message)

    def _say(self, message: Message) -> Step:
        problem = ""
        if not self._lost:
            try:
                self._connection.send(message)
            except LocalProtocolError as error:
                self._lost = True
                problem = str(error)
        if isinstance(message, DataHeader):
            self._body = message.length
        return self._step(Role.SERVER, _shown(message), problem)

    def _step(self, sender: Role, text: str, problem: str = "") -> Step:
        return Step(self._wire, sender, text, self._connection.state, problem)


def replay(rows: Iterable[Row]) -> Iterator[Step]:
    """Follow a whole transcript; each wire has its own session, until the transcript says that it ended."""
    observers: dict[str, Observer] = {}
    for row in rows:
        if row.ends:
            observers.pop(row.wire, None)
        if row.sender is None:
            known = observers.get(row.wire)
            yield Step(row.wire, None, row.remark, known.state if known else State.GREETING)
            continue
        if row.wire not in observers:
            asks_in = row.sender is Role.CLIENT and row.data.startswith(b"AUTH ")
            observers[row.wire] = Observer(row.wire, State.AUTH if asks_in else State.GREETING)
        yield from observers[row.wire].see(row.sender, row.data)


def _shown(message: Message) -> str:
    raw = message.raw if isinstance(message, Unknown) else message.line()
    if raw.startswith(b"AUTH "):
        raw = raw[: raw.rfind(b" ")] + b" (token)"
    return raw.decode("utf-8", "backslashreplace")
