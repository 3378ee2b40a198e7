"""Servers made by hand: a script for each connection, so that a client meets what no honest server says.

A script is a list of steps, worked off in order:

==================  =============================================================
``"> CHECKPRESENT"``  the next line of the client must begin like this
``">> 5"``            the client must send five raw bytes
``"< SUCCESS"``       send a line
``b"raw"``            send these bytes
``"hang up"``         close; what the client still sends is lost
``"silence"``         say nothing any more, read nothing any more
``"deaf"``            read on and say nothing
``59.0``              wait so many seconds
callable              called (turn a clock, note something)
==================  =============================================================

After the last step the peer waits for the client to leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from remote_contract import A

from annexpy.errors import ConnectFailed, ConnectionLost
from annexpy.remote.local import Local
from annexpy.remote.p2p import P2PRemote
from annexpy.server.serve import serve
from annexpy.transport.base import Transport
from annexpy.transport.memory import MemoryTransport, memory_pair

Step: TypeAlias = str | bytes | float | Callable[[], object]

GREETING: tuple[Step, ...] = ("> VERSION 4", f"< AUTH-SUCCESS {A}", "< VERSION 4")


class Peer:
    """One connection, following its script."""

    def __init__(self, script: Sequence[Step]) -> None:
        self.script = list(script)
        self.done = 0
        self.wrong = ""
        self.heard: list[str] = []
        self.chunks: list[bytes] = []
        self._kept = b""

    @property
    def unheard(self) -> list[Step]:
        """What the client should have said and did not. (What it did not care to hear is its own business.)"""
        return [step for step in self.script[self.done :] if isinstance(step, str) and step.startswith(">")]

    async def run(self, transport: MemoryTransport) -> None:
        try:
            await self._run(transport)
        except ConnectionLost:
            if not self.wrong and self.unheard:
                self.wrong = f"the client left before {self.unheard[0]!r}"
        finally:
            await transport.aclose()

    async def _run(self, transport: MemoryTransport) -> None:
        for step in self.script:
            match step:
                case bytes():
                    await transport.send(step)
                case float():
                    await anyio.sleep(step)
                case "hang up":
                    self.done += 1
                    return
                case "silence":
                    self.done += 1
                    await anyio.sleep_forever()
                case "deaf":
                    self.done += 1
                    while await transport.receive():
                        pass
                    return
                case str() if step.startswith(">> "):
                    size = int(step[3:])
                    while len(self._kept) < size:
                        await self._more(transport, step)
                    self._kept = self._kept[size:]
                case str() if step.startswith("> "):
                    line = await self._line(transport, step)
                    self.heard.append(line)
                    if not line.startswith(step[2:]):
                        self.wrong = f"{line!r} where {step!r} was expected"
                        return
                case str():
                    await transport.send(step[2:].encode() + b"\n")
                case _:
                    step()
            self.done += 1
        while data := await transport.receive():
            self.chunks.append(data)
            self.heard.append(data.decode("latin-1").rstrip("\n"))

    async def _line(self, transport: Transport, step: Step) -> str:
        while b"\n" not in self._kept:
            await self._more(transport, step)
        line, _, self._kept = self._kept.partition(b"\n")
        return line.decode("utf-8", "surrogateescape")

    async def _more(self, transport: Transport, step: Step) -> None:
        data = await transport.receive()
        if not data:
            self.wrong = self.wrong or f"the client left before {step!r}"
            raise ConnectionLost("client", str(step))
        self.chunks.append(data)
        self._kept += data


class Peers:
    """The scripts for the connections to come, and what became of those that came."""

    def __init__(self, scripts: Sequence[Sequence[Step]]) -> None:
        self.waiting = [Peer(script) for script in scripts]
        self.met: list[Peer] = []

    def check(self) -> None:
        for number, peer in enumerate(self.met):
            assert not peer.wrong, f"connection {number}: {peer.wrong}"
            assert not peer.unheard, f"connection {number} was left before {peer.unheard}"
        assert not self.waiting, f"{len(self.waiting)} connections were not made"


@asynccontextmanager
async def scripted(
    *scripts: Sequence[Step], greet: bool = True, **options: Any
) -> AsyncIterator[tuple[P2PRemote, Peers]]:
    """A P2PRemote whose connections meet *scripts*, one after the other. Afterwards all must have been followed.

    Args:
        scripts: Without the greeting, unless *greet* is False.
        greet: Put the usual greeting of version 4 before each.
        options: For P2PRemote.
    """
    peers = Peers([(*GREETING, *script) if greet else script for script in scripts])
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            if not peers.waiting:
                raise ConnectFailed("peer", "no more connections are planned")
            peer = peers.waiting.pop(0)
            peers.met.append(peer)
            client, server = memory_pair()
            tasks.start_soon(peer.run, server)
            return client

        options.setdefault("uuid", A)
        options.setdefault("name", "peer")
        remote = P2PRemote(dial, **options)
        yield remote, peers
        await remote.aclose()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    peers.check()


@asynccontextmanager
async def served(local: Local, connections: int) -> AsyncIterator[P2PRemote]:
    """*local* behind wires, each with a server of ours."""
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(serve, server, local)
            return client

        remote = P2PRemote(dial, uuid=local.uuid, connections=connections)
        yield remote
        await remote.aclose()
        for _ in range(5):
            await checkpoint()
        tasks.cancel_scope.cancel()
