"""What the logs say now: the branch, and everything laid over it that is on its way into it.

From the bottom up: the branch (and its siblings where nobody can merge them), the journal, the records in
spools and in this process, the private journal. Whoever moves something from one of these towards the
branch removes it from where it was afterwards, so they are looked at in the opposite order, without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from annexpy.logs.line import union_merge
from annexpy.repo.files import Files
from annexpy.repo.format import repository_error
from annexpy.repo.history import History
from annexpy.repo.journal import Journal
from annexpy.repo.queue import Batch, Change, Queue
from annexpy.repo.records import Queued, apply_records, is_private
from annexpy.repo.scan import read_all, read_many
from annexpy.repo.spool import Spool

__all__ = ["View"]

_WINDOW: Final = 8192  # logs read together


@dataclass(frozen=True, slots=True)
class _Over:
    """What lies over the branch at one path."""

    journal: bytes | None
    private: bytes | None
    records: list[Queued]
    changes: list[Change]


class View:
    """Reading the logs of one repository. For any number of threads.

    Args:
        files: The git directory.
        history: The branch.
        journal: Of git-annex.
        private: The private one.
        spool: Records of all processes.
        queue: Records of this process.
        writable: False: nobody can merge siblings here, so they are read too, as git-annex does.
    """

    def __init__(
        self,
        files: Files,
        history: History,
        journal: Journal,
        private: Journal,
        spool: Spool,
        queue: Queue,
        *,
        writable: bool,
    ) -> None:
        self._files, self._history, self._spool, self._queue = files, history, spool, queue
        self._journal, self._private, self._writable = journal, private, writable

    def read(self, path: bytes) -> bytes:
        """What a log says; empty when there is none.

        Raises:
            RepositoryError, AccessDenied: Something could not be read.
        """
        try:
            over = self._over(path)
            content = b""
            for tip in self._tips():
                content = union_merge(content, self._history.read(tip, path))
        except OSError as error:
            raise self._error(error) from error
        return self._laid_over(path, content, over)

    def read_many(self, paths: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says), in the order of *paths*. Raises as ``read``."""
        todo = iter(paths)
        try:
            while window := list(islice(todo, _WINDOW)):  # few enough that what is known of them all is little
                overlaid = self._may_be_overlaid()
                tips = self._tips()
                found: dict[bytes, bytes] = {}
                for tip in tips:
                    for path, content in read_many(self._history, tip, window).items():
                        found[path] = union_merge(found[path], content) if path in found else content
                for path in window:
                    content = found.get(path, b"")
                    if overlaid(path):
                        over = self._over(path)
                        # what lay over it may have become part of the branch in between
                        content = self._laid_over(path, content, over) if self._tips() == tips else self.read(path)
                    yield path, content
        except OSError as error:
            raise self._error(error) from error

    def scan(self, only: Callable[[bytes], bool] | None) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says) of every log that *only* wants. Raises as ``read``."""
        try:
            apart = self.overlaid()
            tips = self._tips()
            if len(tips) > 1:
                from annexpy.repo.merge import changed_paths
            for other in tips[1:]:
                apart.update(changed_paths(self._history, tips[0], other))
            if tips:
                yield from read_all(self._history, tips[0], only=only, without=apart)
        except OSError as error:
            raise self._error(error) from error
        for path, content in self.read_many([path for path in sorted(apart) if only is None or only(path)]):
            if content:
                yield path, content

    # -- what lies over it -----------------------------------------------------------------------

    def _over(self, path: bytes) -> _Over:
        # order matters, see above
        batches = self._queue.batches()
        records = [record for batch in batches for record in batch.records(path)]
        changes = [change for batch in batches for change in batch.changes if change[0] == path]
        spooled = self._spool.records(path)
        if spooled:
            records = sorted([*spooled, *records])
        return _Over(self._journal.read(path), self._private.read(path), records, changes)

    def _may_be_overlaid(self) -> Callable[[bytes], bool]:
        """Tells, as of now, whether a path may have something over it. It is never wrong to say yes."""
        # order matters, see above
        batches = self._queue.batches()
        spooled = self._spool.may_have()
        others = {*self._journal.paths(), *self._private.paths()}
        others.update(*[batch.paths() for batch in batches])
        if spooled is None:
            return others.__contains__
        return lambda path: path in others or spooled(path)

    def overlaid(self) -> set[bytes]:
        """Every path that has something over it."""
        paths = set().union(*[batch.paths() for batch in self._queue.batches()])
        paths.update(self._spool.paths(), self._journal.paths(), self._private.paths())
        return paths

    def _laid_over(self, path: bytes, content: bytes, over: _Over) -> bytes:
        content, private = self._both(path, content, over)
        if content and private and not content.endswith(b"\n"):
            content += b"\n"
        return content + private

    def _both(self, path: bytes, content: bytes, over: _Over) -> tuple[bytes, bytes]:
        """What is for everybody and what is private."""
        private = over.private or b""
        if over.journal is not None:
            # git-annex takes the journal instead of the branch; the union loses nothing the branch gained since
            content = union_merge(content, over.journal)
        if over.records:
            own = [record for record in over.records if is_private(record.line)]
            if own:
                private = apply_records(private, own, lambda base: None)
            if len(own) < len(over.records):
                public = [record for record in over.records if not is_private(record.line)] if own else over.records
                content = apply_records(content, public, lambda base: self._history.read_or_none(base, path))
        for _, change, is_own in over.changes:
            if is_own:
                private = change(private)
            else:
                content = change(content)
        return content, private

    def outcome(self, batch: Batch) -> dict[tuple[bytes, bool], bytes]:
        """(path, private) → what the changes of *batch* make of the log, given everything else that waits."""
        outcome: dict[tuple[bytes, bool], bytes] = {}
        for path in dict.fromkeys([path for path, _, _ in batch.changes]):
            over = self._over(path)
            content, private = self._both(path, self._history.read(self._history.tip(), path), over)
            for is_own in {is_own for changed, _, is_own in batch.changes if changed == path}:
                outcome[path, is_own] = private if is_own else content
        return outcome

    def _tips(self) -> list[bytes]:
        tip = self._history.tip()
        if tip is not None and self._writable:
            return [tip]
        siblings = self._history.siblings().values()
        return list(dict.fromkeys(siblings if tip is None else [tip, *siblings]))

    def _error(self, error: OSError) -> Exception:
        return repository_error(self._files.path, "read the git-annex branch", error)
