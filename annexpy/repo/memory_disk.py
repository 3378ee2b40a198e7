"""What a file system in memory is made of: nodes, names, and which of both are on disk.

Content of a file is on disk after a sync of it, an entry of a folder after a sync of that folder. A power cut
keeps of the rest nothing, all, or any part: bytes that were never written back read as zeros, and names and
contents survive independently of each other, which is more than any journalling file system does to us. The
one promise: a rename loses neither both names nor the file.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from annexpy.repo.door import Status

__all__ = ["Disk", "Entry", "File", "Folder", "Link", "Node", "Open", "holds", "status_of"]

_DEVICE: Final = 7


class Node:
    """A file, folder or symbolic link."""

    __slots__ = ("links", "mode", "mtime", "number")

    def __init__(self, number: int, mode: int) -> None:
        self.number, self.mode = number, mode
        self.links = 0
        self.mtime = 0


class File(Node):
    """Content now, on disk, and the locks on it."""

    __slots__ = ("data", "durable", "locks")

    def __init__(self, number: int, mode: int) -> None:
        super().__init__(number, stat.S_IFREG | mode)
        self.data = bytearray()
        self.durable = b""
        self.locks: dict[int, bool] = {}


class Folder(Node):
    """Entries now and on disk."""

    __slots__ = ("durable", "entries")

    def __init__(self, number: int, mode: int) -> None:
        super().__init__(number, stat.S_IFDIR | mode)
        self.entries: dict[bytes, Node] = {}
        self.durable: dict[bytes, Node] = {}


class Link(Node):
    """A symbolic link. Nothing here follows one."""

    __slots__ = ("target",)

    def __init__(self, number: int, target: bytes) -> None:
        super().__init__(number, stat.S_IFLNK | 0o777)
        self.target = target


@dataclass(slots=True)
class Entry:
    """A change of a folder that is not on disk: *name* becomes *node*, or nothing.

    Attributes:
        after: What must be on disk first: the new name of a file whose old name goes.
    """

    folder: Folder
    name: bytes
    node: Node | None
    after: Entry | None = None
    done: bool = False


@dataclass(slots=True)
class Open:
    """A descriptor."""

    node: File
    writable: bool
    append: bool
    position: int = 0


@dataclass(slots=True)
class Disk:
    """What all views of one file system share."""

    root: Folder
    capacity: int
    mutex: threading.RLock = field(default_factory=threading.RLock)
    numbers: int = 1
    ticks: int = 0
    descriptors: int = 1000
    used: int = 0
    open: dict[int, Open] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)
    written: set[File] = field(default_factory=set)
    """Since the last ``sync_all``."""

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def touch(self, node: Node) -> None:
        self.ticks += 1
        node.mtime = self.ticks * 1_000_000
        if isinstance(node, File):
            self.written.add(node)

    def change(self, folder: Folder, name: bytes, node: Node | None, after: Entry | None = None) -> Entry:
        """Set or remove an entry now; it is on disk later."""
        old = folder.entries.get(name)
        if node is None:
            del folder.entries[name]
        else:
            folder.entries[name] = node
            node.links += 1
        if old is not None:
            old.links -= 1
            if isinstance(old, File) and not old.links:
                self.used -= len(old.data)
        self.touch(folder)
        entry = Entry(folder, name, node, after)
        self.pending.append(entry)
        return entry

    def write_back(self, entry: Entry) -> None:
        """Bring one change of a folder to the disk."""
        if entry.done:
            return
        if entry.after is not None:
            self.write_back(entry.after)
        entry.done = True
        if entry.node is None:
            entry.folder.durable.pop(entry.name, None)
        else:
            entry.folder.durable[entry.name] = entry.node

    def sync_folder(self, folder: Folder) -> None:
        for entry in self.pending:
            if entry.folder is folder:
                self.write_back(entry)
        self.pending = [entry for entry in self.pending if not entry.done]

    def sync_all(self) -> None:
        for entry in self.pending:
            self.write_back(entry)
        self.pending.clear()
        for file in self.written:
            file.durable = bytes(file.data)
        self.written.clear()

    def kill(self) -> None:
        """End every process."""
        for handle in self.open.values():
            handle.node.locks.clear()
        self.open.clear()

    def crash(self, choose: Callable[[int], int] | None) -> None:
        """Cut the power. *choose* gives a number below its argument; None: nothing was written back."""
        for entry in self.pending:
            if choose is not None and choose(2):
                self.write_back(entry)
        self.pending.clear()
        self.written.clear()
        self.kill()
        self.used = 0
        self._revert(self.root, choose, set())

    def _revert(self, folder: Folder, choose: Callable[[int], int] | None, seen: set[int]) -> None:
        """Make what is on disk of *folder* what there is."""
        folder.entries = dict(folder.durable)
        for node in folder.entries.values():
            if node.number in seen:
                node.links += 1
                continue
            seen.add(node.number)
            node.links = 1
            if isinstance(node, Folder):
                self._revert(node, choose, seen)
            elif isinstance(node, File):
                node.data = bytearray(_left_of(node, choose))
                node.durable = bytes(node.data)
                self.used += len(node.data)


def _left_of(node: File, choose: Callable[[int], int] | None) -> bytes:
    written = bytes(node.data)
    if choose is None or written == node.durable:
        return node.durable
    # what was synced is not harmed by writing behind it
    kept = len(node.durable) if written.startswith(node.durable) else 0
    half = written[: kept + choose(len(written) - kept + 1)]
    return (node.durable, written, half, half.ljust(len(written), b"\0"), written[:kept])[choose(5)]


def status_of(node: Node) -> Status:
    """As the system would give it."""
    size = len(node.data) if isinstance(node, File) else 0
    nanoseconds, part = node.mtime, node.mtime / 1e9
    seconds = nanoseconds // 1_000_000_000
    whole = (node.mode, node.number, _DEVICE, node.links, 0, 0, size, seconds, seconds, seconds)
    return os.stat_result((*whole, part, part, part, nanoseconds, nanoseconds, nanoseconds))


def holds(folder: Folder, other: Folder) -> bool:
    """*other* is *folder*, or somewhere below it."""
    return folder is other or any(holds(below, other) for below in folder.entries.values() if isinstance(below, Folder))
