"""Bring what waits into the branch: what was taken out of it, journal files, spooled and queued records, changes.

Everything here happens under the journal lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from annexpy.logs.line import union_merge
from annexpy.repo.history import History
from annexpy.repo.journal import Journal
from annexpy.repo.objects import BULK
from annexpy.repo.pack import ObjectWriter
from annexpy.repo.records import Queued, apply_records, escaped, record_path
from annexpy.repo.recovery import TakenOut, put_back_all
from annexpy.repo.refs import GIT_ANNEX
from annexpy.repo.runs import Runs
from annexpy.repo.treeedit import TreeEdit

__all__ = ["Waiting", "absorb", "leave_in_journal"]

_WINDOW: Final = 4096
_REMEMBERED: Final = 4096
_FEW: Final = 4
_SHORT: Final = 1024


class _Work(NamedTuple):
    """What is to be done to one path."""

    path: bytes
    records: list[Queued]
    journal: bool = False
    changes: Sequence[Callable[[bytes], bytes]] = ()


class Waiting:
    """What waits for one commit.

    Attributes:
        taken_out: What is put back first of all: records are judged by what the log said before.
        records: Of all processes.
        journal: Paths that have a journal file.
        changes: Path → functions to apply, last of all.
    """

    __slots__ = ("changes", "journal", "records", "taken_out")

    def __init__(self, records: Runs) -> None:
        self.taken_out = TakenOut({}, b"")
        self.records = records
        self.journal: list[bytes] = []
        self.changes: dict[bytes, list[Callable[[bytes], bytes]]] = {}

    def __bool__(self) -> bool:
        return bool(self.taken_out.logs or self.records or self.journal or self.changes)

    def __len__(self) -> int:
        return len(self.taken_out.logs) + len(self.records) + len(self.journal) + len(self.changes)

    def put_back(self, path: bytes, content: bytes) -> bytes:
        """*content*, which the branch has at *path*, with what was taken out of it."""
        return put_back_all(self.taken_out.logs.get(path, ()), content)


def _works(waiting: Waiting) -> Iterator[_Work]:
    """The work of each path, in the order in which records sort."""
    recorded = _recorded(waiting.records)
    if not waiting.taken_out.logs and not waiting.journal and not waiting.changes:
        return recorded
    return _joined(
        recorded,
        (_Work(path, []) for path in sorted(waiting.taken_out.logs, key=_sort_key)),
        (_Work(path, [], journal=True) for path in sorted(waiting.journal, key=_sort_key)),
        (_Work(path, [], changes=waiting.changes[path]) for path in sorted(waiting.changes, key=_sort_key)),
    )


def _joined(*works: Iterator[_Work]) -> Iterator[_Work]:
    """Works of several kinds, sorted, one for each path."""
    for path, parts in groupby(heapq.merge(*works, key=lambda work: _sort_key(work.path)), key=lambda work: work.path):
        some = list(parts)
        yield _Work(
            path,
            [record for work in some for record in work.records],
            any(work.journal for work in some),
            [change for work in some for change in work.changes],
        )


def _recorded(records: Iterable[Queued]) -> Iterator[_Work]:
    last, some = b"", list[Queued]()
    for record in records:
        line = record.line
        path = line[: line.index(b"\t")]
        if path == last:
            some.append(record)
            continue
        if some:
            yield _Work(record_path(some[0].line), some)
        last, some = path, [record]
    if some:
        yield _Work(record_path(some[0].line), some)


def _sort_key(path: bytes) -> bytes:
    return escaped(path) + b"\t"


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
    outcomes = _Outcomes(history, waiting)

    def build(tip: bytes | None, tree: bytes, writer: ObjectWriter) -> tuple[bytes, Sequence[bytes]] | None:
        reader = history.objects.reader() if tip is not None and len(waiting) >= BULK else None
        try:
            edit = TreeEdit(history.objects, writer, tree, reader)
            for window in _windows(_works(waiting)):
                edit.apply([work.path for work in window], lambda at, old, window=window: after(window[at], old))  # type: ignore[misc]
            new = edit.finish()
        finally:
            if reader is not None:
                reader.close()
        return None if new == tree else (new, ())

    def after(work: _Work, old: bytes) -> bytes:
        if waiting.taken_out.logs:
            old = waiting.put_back(work.path, old)
        if work.journal:
            old = union_merge(old, journal.read(work.path) or b"")
        return outcomes.of(work, old)

    return history.publish(build, message, before_publishing, sync=sync)


class _Outcomes:
    """What logs become. Thousands of one commit say the same before and after, so that is remembered."""

    def __init__(self, history: History, waiting: Waiting) -> None:
        self._history, self._waiting = history, waiting
        self._known: dict[tuple[bytes, ...], bytes] = {}

    def of(self, work: _Work, content: bytes) -> bytes:
        """*content* with what is to be done to it; *content* itself when nothing changes."""
        if work.changes or len(work.records) > _FEW or len(content) > _SHORT:
            return self._made(work, content)
        key = [content]
        for line, _ in work.records:
            if len(line) > _SHORT:
                return self._made(work, content)
            time = line.index(b"\t")
            kind = line.index(b"\t", time + 1)
            key += line[time : kind - 6], line[kind:]  # all that counts of the time are the seconds
        known = self._known.get(said := tuple(key))
        if known is None:
            looked: list[bytes] = []
            known = self._made(work, content, looked)
            if not looked:  # else it depends on the path
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[said] = known
        return known

    def _made(self, work: _Work, content: bytes, looked: list[bytes] | None = None) -> bytes:
        def at_base(base: bytes) -> bytes | None:
            if looked is not None:
                looked.append(base)
            said = self._history.read_or_none(base, work.path)
            # who looked at a commit that lacks something had it on record before
            return (
                said if said is None or base != self._waiting.taken_out.tip else self._waiting.put_back(work.path, said)
            )

        if work.records:
            content = apply_records(content, work.records, at_base)
        for change in work.changes:
            content = change(content)
        return content


def leave_in_journal(history: History, journal: Journal, waiting: Waiting, *, private: bool, sync: bool) -> None:
    """Write journal files instead of committing: for ``annex.alwayscommit=false``, and for private records.

    Private ones know nothing of the branch. The others start from the union of branch and journal: from the
    journal alone, the next commit of git-annex would undo what the branch has gained meanwhile.
    """
    tip = None if private else history.tip()
    outcomes = _Outcomes(history, waiting)
    written = False
    for work in _works(waiting):
        there = journal.read(work.path)
        content = history.read(tip, work.path)
        back = waiting.put_back(work.path, content)
        old = union_merge(content, there or b"")
        new = outcomes.of(work, old if back is content else union_merge(back, there or b""))
        if new != old or there is not None:  # what is there may never have been synced: it is written again
            journal.write(work.path, new, sync=sync)
            written = True
    if written and sync:
        journal.sync()
    if tip is not None and sync:
        history.on_disk.ensure((tip,), GIT_ANNEX)
