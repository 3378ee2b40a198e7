"""Wires between machines, in memory and in simulated time: slow, cut, stalled, or of no use for a while.

A wire behaves like TCP: bytes come in order or not at all, what was sent before its sender left still arrives, and
whoever is cut off by a partition hears nothing, not even that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from annexpy.errors import ConnectFailed, ConnectionLost
from annexpy.transport.base import CHUNK, Transport
from tests.simulation.jumps import Bell, current_time, sleep, sleep_until

if TYPE_CHECKING:
    from tests.simulation.machines import Machine, Process

__all__ = ["Network", "Weather", "WireEnd"]


class Weather(Protocol):
    """What happens to what is sent."""

    def latency(self) -> float:
        """Seconds on the way, of most things."""
        ...

    def stall(self, data: bytes, to: str) -> float:
        """Seconds that *data* is held up on the way to the machine *to*; mostly 0."""
        ...

    def narrow(self, data: bytes, to: str) -> float:
        """Seconds before there is room for *data* on the way to the machine *to*; mostly 0."""
        ...

    def breaks(self) -> bool:
        """This piece, and whatever would come after it, is lost."""
        ...

    def flip(self, data: bytes) -> bytes:
        """*data*, or something like it."""
        ...

    def count(self, fault: str) -> None:
        """Something went wrong."""
        ...


class _Way:
    """One direction."""

    __slots__ = ("changed", "chunks", "end", "last")

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.end: float | None = None
        self.last = 0.0
        self.changed = Bell()


class WireEnd:
    """One end of a wire; a ``Transport``."""

    def __init__(self, network: Network, owner: Process, peer: str, inward: _Way, outward: _Way) -> None:
        self._network, self._owner, self.peer = network, owner, peer
        self._in, self._out = inward, outward
        self._closed = False
        self._due = inf
        self.complaint = ""
        self.other: WireEnd
        self.serves = False
        """It is the end that was dialled."""

    @property
    def at_eof(self) -> bool:
        end = self._in.end
        return self._closed or (end is not None and end <= current_time())

    @property
    def has_input(self) -> bool:
        chunks = self._in.chunks
        return self.at_eof or bool(chunks and chunks[0][0] <= current_time())

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        way = self._in
        if self.has_input:
            await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise ConnectionLost(self.peer, "data", "closed on this side")
            until = inf if way.end is None else way.end
            if way.chunks:
                until = way.chunks[0][0]
            if until > current_time():
                if self._due <= current_time():
                    raise TimeoutError
                await way.changed.wait_until(min(until, self._due))
            elif not way.chunks:
                return b""
            else:
                chunk = way.chunks.popleft()[1]
                if len(chunk) > max_bytes:
                    way.chunks.appendleft((until, chunk[max_bytes:]))
                return chunk[:max_bytes]

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.at_eof:
            raise ConnectionLost(self.peer, "the peer to read", "closed" if self._closed else "connection reset")
        if pause := self._network.weather.narrow(data, self.other._owner.machine.name):
            late = current_time() + pause > self._due
            await sleep_until(min(current_time() + pause, self._due))
            if late:
                raise TimeoutError
        self.send_soon(data)

    def send_soon(self, data: bytes) -> None:
        if self.at_eof or self._out.end is not None or not data or self._owner.dead:
            return
        weather = self._network.weather
        if weather.breaks():
            weather.count("lost reply" if self.serves else "lost request")
            self.cut()
            return
        way = self._out
        way.last = max(way.last, self._arrival() + weather.stall(data, self.other._owner.machine.name))
        way.chunks.append((way.last, weather.flip(data)))
        way.changed.ring()

    def _arrival(self) -> float:
        network = self._network
        leaves = max(current_time(), network.blocked_until(self._owner.machine, self.other._owner.machine))
        return leaves + network.weather.latency()

    def cut(self) -> None:
        """Nothing more gets through, and both ends hear of it."""
        self._finish(self._out)
        self._finish(self._in)

    def _finish(self, way: _Way) -> None:
        if way.end is None:
            way.last = way.end = max(way.last, self._arrival())
            way.changed.ring()

    async def aclose(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Close, as the system does for a process that ends."""
        if not self._closed:
            self._closed = True
            self._finish(self._out)
            self._in.chunks.clear()
            self._in.changed.ring()

    def vanish(self) -> None:
        """The machine lost its power: the other end hears nothing before it is up again."""
        self._closed = True
        self._out.chunks = deque(chunk for chunk in self._out.chunks if chunk[0] <= current_time())
        self._in.changed.ring()


class PunctualEnd(WireEnd):
    """One that ends its own waits, as sockets do; who has another one opens a cancel scope around each."""

    def within(self, seconds: float) -> None:
        self._due = current_time() + seconds
        self._in.changed.ring()


class Network:
    """Every machine can dial every other one, except where a partition stands in between."""

    def __init__(self, weather: Weather, *, punctual: bool) -> None:
        self.weather = weather
        self._end = PunctualEnd if punctual else WireEnd
        self._blocked: dict[frozenset[str], float] = {}
        self._silent: list[tuple[Machine, WireEnd]] = []

    def partition(self, one: Machine, other: Machine, until: float) -> None:
        self._blocked[frozenset((one.name, other.name))] = until

    def heal(self) -> None:
        self._blocked.clear()

    def blocked_until(self, one: Machine, other: Machine) -> float:
        return self._blocked.get(frozenset((one.name, other.name)), 0.0) if self._blocked else 0.0

    def dial(self, process: Process, machine: Machine, **serving: object) -> Callable[[], Awaitable[Transport]]:
        """How *process* opens a wire to *machine*."""

        async def dialled() -> Transport:
            await sleep(self.weather.latency())
            while (until := self.blocked_until(process.machine, machine)) > current_time():
                await sleep_until(until)
            there = machine.process
            if there is None or not there.accepts:
                if machine.dark:
                    await trio.sleep_forever()
                raise ConnectFailed(machine.name, "connection refused")
            forth, back = _Way(), _Way()
            here = self._end(self, process, machine.name, back, forth)
            far = self._end(self, there, process.machine.name, forth, back)
            here.other, far.other, far.serves = far, here, True
            process.wires.append(here)
            there.wires.append(far)
            there.accept(far, **serving)
            return here

        return dialled

    def power_lost(self, machine: Machine, wires: list[WireEnd]) -> None:
        self._silent += [(machine, wire) for wire in wires]

    def power_back(self, machine: Machine) -> None:
        """Who still talks to *machine* over a wire of before hears that there is no such wire."""
        for down, wire in self._silent:
            if down is machine:
                wire._finish(wire._out)
        self._silent = [pair for pair in self._silent if pair[0] is not machine]
