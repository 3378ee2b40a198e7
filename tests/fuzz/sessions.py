"""Whole sessions from both sides: what the peer says is the input, and our side answers as its table lets it."""

from __future__ import annotations

from functools import cache
from random import Random

from annexpy.errors import LocalProtocolError, RemoteProtocolError
from annexpy.p2p.connection import Closed, Connection, Data, NeedData, Paused
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import DataHeader, Message
from annexpy.p2p.states import Role, State
from annexpy.p2p.transcript import Observer, parse_row
from tests.fuzz import seeds

__all__ = ["client", "observer", "pieces", "server"]

MOST_KEPT = 4 * 32_768 + 1
"""Bytes of one line that a connection may keep: it counts characters, of up to four bytes."""

MOST_PIECES = 40

States = list[object]


@cache
def samples() -> dict[type, Message]:
    """One message of each kind."""
    return {type(message): message for message in map(parse, seeds.lines())}


def pieces(data: bytes, random: Random) -> list[bytes]:
    """*data*, cut somewhere; into small pieces for a stretch only, each costs as much as a large one."""
    if random.random() < 0.3:
        return [data] if data else []
    most = random.choice((1, 3, 20, 200))
    at = int(random.random() * len(data)) if most < 20 else 0
    found = [data[:at]] if at else []
    if len(data) > 2000:
        most *= 200
    while at < len(data):
        end = at + 1 + int(random.random() * most) if len(found) < MOST_PIECES else len(data)
        found.append(data[at:end])
        at = end
    return found


class Side:
    """Our side of a session; what it says depends on nothing but on what it heard."""

    def __init__(self, role: Role, state: State, version: int) -> None:
        self.connection = Connection(role, state=state, version=version)
        self.heard: States = []
        self.body = bytearray()

    def say(self, number: int) -> None:
        """The *number*-th of what may be said now, if anything may."""
        legal = [samples()[kind] for kind in self.connection.legal() if kind in samples()]
        if legal:
            message = legal[number % len(legal)]
            try:
                self.connection.send(message)
                if isinstance(message, DataHeader):
                    self.connection.sent_data(message.length)
            except LocalProtocolError:
                pass  # of which there is no more room

    def hear(self) -> bool:
        """All that can be heard of what has come; False when it is over."""
        event: object = None
        while True:
            paused = isinstance(event, Paused)
            try:
                event = self.connection.next_event()
            except RemoteProtocolError:
                self.heard.append("protest")
                return False
            match event:
                case NeedData():
                    return True
                case Paused():
                    if paused:
                        return False  # nothing that we may say gets on from here
                    self.say(len(self.heard))
                case Closed():
                    return False
                case Data(chunk, last):
                    self.body += chunk
                    if last:
                        self.heard.append(bytes(self.body))
                        self.body.clear()
                case _:
                    self.heard.append(event)
                    self.say(len(self.heard))


def conversation(role: Role, parts: list[bytes], begin: int) -> States:
    state = (State.IDLE, State.GREETING, State.AUTH)[begin % 3]
    side = Side(role, state, begin // 3 % 5 if state is State.IDLE else 0)
    if role is Role.CLIENT or state is State.GREETING:
        for number in range(begin % 4 + 1):
            side.say(begin // 15 + number)
    for part in (*parts, b""):
        side.connection.receive_data(part)
        if not side.hear():
            break
        kept = len(side.connection._received._tail) + len(side.connection._received._chunk)
        assert kept <= MOST_KEPT + len(part), f"keeps {kept} bytes"
    return [*side.heard, bytes(side.body)]


def both_ways(role: Role, data: bytes, random: Random) -> None:
    begin = int(random.random() * 100_000)
    cut = conversation(role, pieces(data, random), begin)
    if begin % 7 == 0:
        whole = conversation(role, [data] if data else [], begin)
        assert cut == whole, f"begin {begin}: what was heard depends on how it was cut: {cut} {whole}"


def server(data: bytes, random: Random) -> None:
    both_ways(Role.SERVER, data, random)


def client(data: bytes, random: Random) -> None:
    both_ways(Role.CLIENT, data, random)


def observer(data: bytes, random: Random) -> None:
    """As ``annexpy replay`` looks at a transcript, line by line."""
    watches = Observer(state=State.GREETING)
    for line in data.split(b"\n"):
        row = parse_row(line)
        if row.sender is not None:
            for part in pieces(row.data, random):
                list(watches.see(row.sender, part))
