"""A P2P server on standard input and output whose connection breaks: ``faulty_server.py REPOSITORY HOW BYTE TIMES``.

HOW is ``cut`` (it ends after that many bytes in both directions) or ``stall`` (it says nothing more). After TIMES
connections that had a fault it has none; they are counted in a file, since each connection is a process of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

import annexpy as annex
from annexpy.server import ServerMode, serve_remote
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.pipe import stdio


class Faulty:
    """Breaks at one byte. Wraps a transport."""

    def __init__(self, inner: Transport, how: str, byte: int, count: Path) -> None:
        self._inner, self._how, self._left, self._count = inner, how, byte, count
        self.peer, self.complaint = inner.peer, inner.complaint

    @property
    def at_eof(self) -> bool:
        return self._inner.at_eof

    @property
    def has_input(self) -> bool:
        return False

    async def _moved(self, size: int) -> None:
        self._left -= size
        if self._left > 0:
            return
        with self._count.open("ab") as file:
            file.write(b".")
        if self._how == "cut":
            os._exit(1)
        await anyio.sleep_forever()

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        data = await self._inner.receive(min(max_bytes, self._left))
        await self._moved(len(data))
        return data

    async def send(self, data: bytes) -> None:
        await self._inner.send(data[: self._left])
        await self._moved(len(data))

    def send_soon(self, data: bytes) -> None:
        self._left -= len(data)
        self._inner.send_soon(data)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def main(path: str, how: str, byte: str, times: str) -> None:
    with annex.Repository.open(path) as repository:
        local = annex.Local(repository, durability="fast")
        count = Path(os.fsdecode(repository.git_dir), "faults")
        transport: Transport = stdio()
        if not count.exists() or count.stat().st_size < int(times):
            transport = Faulty(transport, how, int(byte), count)
        await serve_remote(transport, local, mode=ServerMode.WRITE)
        await local.aclose()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
