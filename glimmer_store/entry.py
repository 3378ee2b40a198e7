"""What one emit enters into the dataset: files as they are to be, and lines for logs; and the file it waits in.

A waiting entry is one file, ``<git dir>/glimmer-store/NAME.ready``, written by its process alone and renamed
into place when it is whole: no lock, no shared file. Its first line is a JSON head, with the SHA-256 of what
follows: a file that is seen in part, as network file systems may show one, is left for later. Whoever has
committed and pushed it renames it to ``NAME.done``, which tells the process that waits for it: that a file is
*there* is proof, while one that is not there may only not be seen yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

import annexpy as annex
from glimmer_store.errors import GraphError

__all__ = ["Done", "Entry", "Kind", "Part", "Row", "Spool", "changes", "union", "write_whole"]

Kind: TypeAlias = Literal["whole", "once", "lines"]
"""The file is to have this content; it is to be there, with this content if it is not yet; it is to have these lines
besides its own, sorted."""

_OLD_DONE = 3600.0
_OLD_UNFINISHED = 86_400.0
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes of one file.

    Attributes:
        path: From the top of the dataset.
        kind: How *content* is meant.
        content: Whole, or lines.
        replaces: What the file in the work tree says now although no commit does: it may be replaced.
    """

    path: bytes
    kind: Kind
    content: bytes
    replaces: bytes | None = None

    def change(self, old: bytes | None) -> bytes:
        """The file as it is to be."""
        match self.kind:
            case "whole":
                return self.content
            case "once":
                return self.content if old is None else old
            case "lines":
                return union(old or b"", self.content)


def union(one: bytes, other: bytes) -> bytes:
    """Every complete line of both, once, sorted: merging is commutative, associative and idempotent."""
    lines = {line for line in (one + other).split(b"\n") if line}
    return b"".join(line + b"\n" for line in sorted(lines))


@dataclass(frozen=True, slots=True)
class Row:
    """A node, as the index of the graph names it; *path* is relative to the graph's folder."""

    id: str
    type: str
    path: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What one emit enters.

    Attributes:
        title: For the message of the commit.
        parts: Files.
        rows: For the index of the graph.
    """

    title: str
    parts: tuple[Part, ...]
    rows: tuple[Row, ...] = ()

    def to_bytes(self) -> bytes:
        body = b"".join(part.content + (part.replaces or b"") for part in self.parts)
        # Any: JSON
        head: dict[str, Any] = {"sha256": hashlib.sha256(body).hexdigest(), "title": self.title}
        head["parts"] = [
            {
                "path": os.fsdecode(part.path),
                "kind": part.kind,
                "size": len(part.content),
                "replaces": None if part.replaces is None else len(part.replaces),
            }
            for part in self.parts
        ]
        head["rows"] = [[row.id, row.type, row.path] for row in self.rows]
        return json.dumps(head).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry | None:
        """None when it is not whole."""
        first, _, body = data.partition(b"\n")
        try:
            head = json.loads(first)
            if head["sha256"] != hashlib.sha256(body).hexdigest():
                return None
            parts, at = [], 0
            for part in head["parts"]:
                content, at = body[at : at + part["size"]], at + part["size"]
                replaces = None
                if part["replaces"] is not None:
                    replaces, at = body[at : at + part["replaces"]], at + part["replaces"]
                parts.append(Part(os.fsencode(part["path"]), part["kind"], content, replaces))
            return cls(head["title"], tuple(parts), tuple(Row(*row) for row in head["rows"]))
        except (ValueError, KeyError, TypeError):
            return None


def changes(entries: Iterable[Entry]) -> dict[bytes, annex.FileChange]:
    """What all of them together make of each file, the later ones last."""
    parts: dict[bytes, list[Part]] = {}
    for entry in entries:
        for part in entry.parts:
            parts.setdefault(part.path, []).append(part)
    return {path: _change(some) for path, some in parts.items()}


def _change(parts: list[Part]) -> annex.FileChange:
    def change(old: bytes | None) -> bytes:
        for part in parts:
            old = part.change(old)
        assert old is not None
        return old

    replaces = [part.replaces for part in parts if part.replaces is not None]
    return annex.FileChange(change, replaces[-1] if replaces else None, merges=parts[-1].kind == "lines")


class Done(Enum):
    """How an entry that was entered is called: everybody has the history with it, or somebody is behind."""

    EVERYWHERE = ".done"
    BEHIND = ".behind"

    @property
    def behind(self) -> bool:
        return self is Done.BEHIND


class Spool:
    """The entries of all processes that wait.

    Args:
        folder: Where; made when the first entry comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, entry: Entry) -> str:
        """Let *entry* wait; its name. It survives a power cut when this returns."""
        host = "".join(c if c.isalnum() else "_" for c in os.uname().nodename)[:64]
        name = f"{time.time_ns() // 1000:015x}-{host}-{os.getpid()}-{next(_NUMBERS):06d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{name}.ready", entry.to_bytes())
        return name

    def waiting(self) -> dict[str, Entry]:
        """Name → entry of all that wait and are whole, the oldest first."""
        return dict(self._read())

    def _read(self) -> Iterator[tuple[str, Entry]]:
        for file in sorted(self._names(".ready")):
            try:
                entry = Entry.from_bytes((self.folder / file).read_bytes())
            except FileNotFoundError:
                continue
            if entry is not None:
                yield file.removesuffix(".ready"), entry

    def _names(self, end: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if name.endswith(end)]
        except FileNotFoundError:
            return []

    def done(self, name: str) -> Done | None:
        """Somebody has entered it; it is forgotten with that. None: it waits.

        Raises:
            GraphError: It cannot be entered.
        """
        for done in Done:
            try:
                (self.folder / f"{name}{done.value}").unlink()
            except FileNotFoundError:
                continue
            return done
        try:
            why = (self.folder / f"{name}.failed").read_text()
        except FileNotFoundError:
            return None
        (self.folder / f"{name}.failed").unlink(missing_ok=True)
        raise GraphError(f"the node cannot be committed: {why}", remedy="mend that, then run the same command again")

    def fail(self, name: str, why: str) -> None:
        """It cannot be entered, now or later."""
        write_whole(self.folder / f"{name}.failed", why.encode("utf-8", "replace"))
        (self.folder / f"{name}.ready").unlink(missing_ok=True)

    def finish(self, names: Iterable[str], *, behind: bool = False) -> None:
        """They are entered. *behind*: not everybody who is to have the history has it."""
        end = Done.BEHIND if behind else Done.EVERYWHERE
        for name in names:
            try:
                (self.folder / f"{name}.ready").rename(self.folder / f"{name}{end.value}")
            except FileNotFoundError:
                continue  # not seen yet, or finished by somebody before us: it says the same a second time
        self._sweep()

    def _sweep(self) -> None:
        """Remove what processes left that died while they waited."""
        now = time.time()
        for end, age in (
            *((done.value, _OLD_DONE) for done in Done),
            (".failed", _OLD_UNFINISHED),
            (".tmp", _OLD_UNFINISHED),
        ):
            for name in self._names(end):
                try:
                    if now - (self.folder / name).stat().st_mtime > age:
                        (self.folder / name).unlink()
                except FileNotFoundError:
                    continue


def write_whole(path: Path, data: bytes) -> None:
    """Whole and on disk, or not at all."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
