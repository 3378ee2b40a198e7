"""Parts of a large content through fsspec: how many bytes leave the server for each, counted on their way."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WINDOW", "Counted", "Parts", "counting", "read_parts"]

WINDOW = 256 * 1024
"""Bytes that a peer of the P2P protocol may send after a part, at most."""


class Counted:
    """What has gone through a relay.

    Attributes:
        address: Where to connect to in place of the server: a path, or (host, port).
        sent: Bytes from the server to its clients.
        asked: Bytes from clients to the server.
        connections: How many there were.
        after: (bytes from the server, what to do once when so many have come).
    """

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.address = address
        self.sent = self.asked = self.connections = 0
        self.after: tuple[int, Callable[[], object]] | None = None
        self._lock = threading.Lock()

    def count(self, direction: str, size: int) -> None:
        """So many more."""
        with self._lock:
            setattr(self, direction, getattr(self, direction) + size)
            due = self.after if self.after is not None and self.sent >= self.after[0] else None
            if due is not None:
                self.after = None
        if due is not None:
            due[1]()


@contextmanager
def counting(server: str | tuple[str, int], folder: Path) -> Iterator[Counted]:
    """A relay on this machine in front of *server* (the path of a unix socket, or host and port)."""
    family = socket.AF_UNIX if isinstance(server, str) else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(str(folder / f"relay-{len(os.listdir(folder))}") if isinstance(server, str) else ("127.0.0.1", 0))
        listener.listen()
        counted = Counted(listener.getsockname())
        ends: list[socket.socket] = []
        threads = [threading.Thread(target=_accept, args=(listener, server, counted, ends))]
        threads[0].start()
        try:
            yield counted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join()
            for end in ends:
                with end:
                    _hang_up(end)


def _accept(
    listener: socket.socket, server: str | tuple[str, int], counted: Counted, ends: list[socket.socket]
) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        counted.connections += 1
        there = socket.socket(listener.family)
        ends += [client, there]
        try:
            there.connect(server)
        except OSError:  # it has been killed
            _hang_up(client)
            continue
        threading.Thread(target=_pump, args=(there, client, counted, "sent"), daemon=True).start()
        threading.Thread(target=_pump, args=(client, there, counted, "asked"), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, counted: Counted, direction: str) -> None:
    try:
        while data := source.recv(64 * 1024):
            counted.count(direction, len(data))
            target.sendall(data)
    except OSError:
        pass  # one of them is gone: so is the other, below
    _hang_up(source)
    _hang_up(target)


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has hung up itself


@dataclass(frozen=True)
class Parts:
    """Random parts of a content of *size* bytes.

    Attributes:
        starts, ends: Of each.
    """

    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, size: int, *, count: int = 100, longest: int = 64 * 1024, seed: int = 1) -> Parts:
        dice = random.Random(seed)
        starts = [dice.randrange(size - longest) for _ in range(count)]
        return cls(starts, [start + dice.randint(1, longest) for start in starts])

    @property
    def bytes(self) -> int:
        return sum(self.ends) - sum(self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def read_parts(remote: str | Sequence[str], key: str, parts: Parts, file: Path, *, together: bool) -> None:
    """Read *parts* of *key* through fsspec; they must be those of *file*.

    Args:
        remote: As ``AnnexFileSystem`` takes it.
        key: Whose content.
        parts: Which.
        file: What is right.
        together: All by one ``cat_ranges``; else one after the other, from one open file that keeps nothing.
    """
    from glimmer_store.fs import AnnexFileSystem

    fs = AnnexFileSystem(remote=remote, skip_instance_cache=True)
    if together:
        found = fs.cat_ranges([key] * len(parts), parts.starts, parts.ends, on_error="raise")
    else:
        with fs.open(key, cache_type="none") as opened:
            found = []
            for start, end in _pairs(parts):
                opened.seek(start)
                found.append(opened.read(end - start))
    with file.open("rb") as right:
        for (start, end), part in zip(_pairs(parts), found, strict=True):
            right.seek(start)
            assert part == right.read(end - start), (start, end)


def _pairs(parts: Parts) -> Iterator[tuple[int, int]]:
    return zip(parts.starts, parts.ends, strict=True)
