"""Bring what waits into the branch: journal files, spooled and queued records, changes.

Everything here happens under the journal lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final, TypeAlias

from annexpy.logs.line import union_merge
from annexpy.repo.history import History
from annexpy.repo.journal import Journal
from annexpy.repo.objects import BULK
from annexpy.repo.pack import ObjectWriter
from annexpy.repo.records import Queued, apply_records, record_path
from annexpy.repo.treeedit import TreeEdit
from annexpy.values import dataclass, field

__all__ = ["Waiting", "absorb", "leave_in_journal"]

_WINDOW: Final = 8192

_Row: TypeAlias = tuple[bytes, int, list[Queued]]


@dataclass(slots=True)
class Waiting:
    """What waits for one commit.

    Attributes:
        records: Sorted.
        journal: Paths that have a journal file.
        changes: Path → functions to apply, last of all.
    """

    records: list[Queued] = field(default_factory=list)
    journal: list[bytes] = field(default_factory=list)
    changes: dict[bytes, list[Callable[[bytes], bytes]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.records or self.journal or self.changes)

    def __len__(self) -> int:
        return len(self.records) + len(self.journal) + len(self.changes)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done to one path."""

    path: bytes
    records: Sequence[Queued]
    journal: bool
    changes: Sequence[Callable[[bytes], bytes]]


def _works(waiting: Waiting) -> Iterator[_Work]:
    """The work of each path, in the order in which records sort."""
    if not waiting.journal and not waiting.changes:
        for path, records in groupby(waiting.records, key=_path):
            yield _Work(path, list(records), False, ())
        return
    rows: list[Iterator[_Row]] = [
        ((path + b"\t", 0, list(records)) for path, records in groupby(waiting.records, key=_path)),
        iter([(path, 1, []) for path in sorted([path + b"\t" for path in waiting.journal])]),
        iter([(path, 2, []) for path in sorted([path + b"\t" for path in waiting.changes])]),
    ]
    for sort_key, parts in groupby(heapq.merge(*rows, key=_first), key=_first):
        found: list[Queued] = []
        in_journal = False
        for _, kind, some in parts:
            found += some
            in_journal = in_journal or kind == 1
        path = sort_key[:-1]
        yield _Work(path, found, in_journal, waiting.changes.get(path, ()))


def _path(record: Queued) -> bytes:
    return record_path(record.line)


def _first(row: _Row) -> bytes:
    return row[0]


def _windows(works: Iterator[_Work]) -> Iterator[list[_Work]]:
    """The same in windows that hold whole top-level directories."""
    window: list[_Work] = []
    last = b""
    for work in works:
        first = work.path.partition(b"/")[0]
        if len(window) >= _WINDOW and first != last:
            yield window
            window = []
        last = first
        window.append(work)
    if window:
        yield window


def absorb(
    history: History,
    journal: Journal,
    waiting: Waiting,
    message: str,
    before_publishing: Callable[[bytes], None],
    *,
    sync: bool,
) -> bytes | None:
    """One commit of everything that waits; None when that changed nothing. Raises as ``History.publish``.

    The caller unlinks journal files and spools afterwards, in either case.
    """

    def build(tip: bytes | None, tree: bytes, writer: ObjectWriter) -> tuple[bytes, Sequence[bytes]] | None:
        reader = history.objects.reader() if tip is not None and len(waiting) >= BULK else None
        try:
            edit = TreeEdit(history.objects, writer, tree, reader)
            for window in _windows(_works(waiting)):
                edit.apply([work.path for work in window], lambda at, old, window=window: _after(window[at], old))  # type: ignore[misc]
            new = edit.finish()
        finally:
            if reader is not None:
                reader.close()
        return None if new == tree else (new, ())

    def _after(work: _Work, old: bytes) -> bytes:
        if work.journal:
            old = union_merge(old, journal.read(work.path) or b"")
        return _with_records(history, work, old)

    return history.publish(build, message, before_publishing, sync=sync)


def _with_records(history: History, work: _Work, content: bytes) -> bytes:
    if work.records:
        path = work.path
        content = apply_records(content, work.records, lambda base: history.read_or_none(base, path))
    for change in work.changes:
        content = change(content)
    return content


def leave_in_journal(history: History, journal: Journal, waiting: Waiting, *, private: bool, sync: bool) -> None:
    """Write journal files instead of committing: for ``annex.alwayscommit=false``, and for private records.

    Private ones know nothing of the branch. The others start from the union of branch and journal: from the
    journal alone, the next commit of git-annex would undo what the branch has gained meanwhile.
    """
    tip = None if private else history.tip()
    written = False
    for work in _works(waiting):
        old = union_merge(history.read(tip, work.path), journal.read(work.path) or b"")
        new = _with_records(history, work, old)
        if new != old:
            journal.write(work.path, new, sync=sync)
            written = True
    if written and sync:
        journal.sync()
