"""Commit what waits, and merge siblings: everything the branch does under the journal lock.

The rules of a commit (fact sheet repository-format, section 0; lock and compare-and-swap alone lose records):
journal lock → tip → union of branch and journal for every journal file → records → objects → compare-and-swap,
again from the tip when it moved → unlink what was absorbed → unlock. ``annex/index`` is left alone:
git-annex merges the branch into it by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from annexpy.repo.absorb import Waiting, absorb, leave_in_journal
from annexpy.repo.config import GitConfig
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, Tuning, is_branch_path
from annexpy.repo.history import History
from annexpy.repo.journal import Journal, JournalLock
from annexpy.repo.pack import remove_leftovers
from annexpy.repo.queue import Batch, Queue
from annexpy.repo.records import is_private
from annexpy.repo.recovery import Recovery, TakenOut
from annexpy.repo.refs import GIT_ANNEX
from annexpy.repo.runs import Runs
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool import Spool

__all__ = ["Committer"]


class Committer:
    """Writes to the branch of one repository. Every method needs the journal lock.

    Args:
        files: The git directory.
        config: For ``annex.alwayscommit``.
        lockdown: Permissions.
        history: The branch.
        journal: Of git-annex.
        private: The private one.
        spool: Records of all processes.
        queue: Records of this process.
    """

    def __init__(
        self,
        files: Files,
        config: GitConfig,
        lockdown: Lockdown,
        history: History,
        journal: Journal,
        private: Journal,
        spool: Spool,
        queue: Queue,
    ) -> None:
        self._files, self._config, self._lockdown, self._history = files, config, lockdown, history
        self._journal, self._private, self._spool, self._queue = journal, private, spool, queue
        self._recovery = Recovery(files, lockdown, history, Tuning.of(config).branch_levels)
        self._cleared = False

    def commit(self, message: str, lock: JournalLock, *, always: bool = False) -> bool:
        """Bring everything that waits into the branch, or into the journal with ``annex.alwayscommit=false``.

        Returns:
            Whether there is a new commit.
        """
        self._prepare(lock)
        return self._commit(self._recovery.taken_out(), message, lock, always)

    def _commit(self, taken_out: TakenOut, message: str, lock: JournalLock, always: bool) -> bool:
        if self._history.tip() is None:
            self._merge_siblings(lock)  # a clone: the branch begins where the others are
        with self._queue.spooling:  # whatever is being synced right now is in the spool before it is sealed
            batch = self._queue.take()
        try:
            committed = self._commit_all(batch, taken_out, message, lock, always)
        except BaseException:
            self._queue.give_back(batch)
            raise
        self._queue.done(batch)
        self._recovery.note()
        return committed

    def merge(self, lock: JournalLock) -> list[str]:
        """Merge siblings, then commit what waits; the refs that had something new."""
        self._prepare(lock)
        taken_out = self._recovery.taken_out()
        try:
            return self._merge_siblings(lock)
        finally:
            self._commit(taken_out, "update", lock, True)

    def _prepare(self, lock: JournalLock) -> None:
        self._config.refresh()
        if lock.left or not self._cleared:  # a power cut may have taken the note as well
            self._clear_up(lock.left)
            lock.left, self._cleared = b"", True

    def _clear_up(self, left: bytes) -> None:
        """One of us died committing: undo what its commit left behind, whether it became public or not."""
        from annexpy.repo.ancestry import is_ancestor

        # who began to clear up and lost its power took the note with it; what the lock is a link to is still there
        meant = (self._files.read(STATE + b"/ref") or b"").strip()
        remove_leftovers(self._files)
        commit, *spools = left.split(b"\n")[1:-1] or [b""]
        if commit or meant:
            self._history.refs.unlock_stale(GIT_ANNEX, commit or meant)
        if not commit:
            return
        tip = self._history.tip()
        if tip is not None and self._history.has(commit) and is_ancestor(self._history, commit, tip):
            self._history.on_disk.ensure((tip,), GIT_ANNEX)  # whoever died may not have come to sync the ref
            self._spool.discard(spools)

    def _commit_all(self, batch: Batch, taken_out: TakenOut, message: str, lock: JournalLock, always: bool) -> bool:
        spools = self._spool.seal()
        with Runs(self._files, self._lockdown) as records, Runs(self._files, self._lockdown) as own:
            waiting, private = Waiting(records), Waiting(own)
            for spool in spools:
                for spooled in self._spool.load(spool):
                    _divide(spooled.lines, spooled.base, waiting, private)
            _divide(batch.lines, batch.base, waiting, private)
            waiting.taken_out = taken_out
            for path, change, is_own in batch.changes:
                (private if is_own else waiting).changes.setdefault(path, []).append(change)
            committed = self._absorb(waiting, private, spools, message, lock, always)
        self._spool.discard(spools)
        return committed

    def _absorb(
        self, waiting: Waiting, private: Waiting, spools: list[bytes], message: str, lock: JournalLock, always: bool
    ) -> bool:
        if private:
            leave_in_journal(self._history, self._private, private, private=True, sync=True)
        if not always and not self._config.get_bool("annex.alwayscommit", True):
            leave_in_journal(self._history, self._journal, waiting, private=False, sync=True)
            return False
        # what cannot stand in a tree was not put there by git-annex: leave it where it is
        waiting.journal = [path for path in self._journal.paths() if is_branch_path(path)]
        if not waiting:
            return False
        committed = absorb(self._history, self._journal, waiting, message, _noting(lock, spools), sync=True)
        # order matters: readers without the lock look at the journal first, then at the branch
        for path in waiting.journal:
            self._journal.remove(path)
        return committed is not None

    def _merge_siblings(self, lock: JournalLock) -> list[str]:
        # Here, and with it what it knows of logs: readers do without.
        from annexpy.repo.ancestry import ignored_commits
        from annexpy.repo.merge import merge_siblings

        ignored = ignored_commits(self._files)
        return merge_siblings(self._history, ignored, Tuning.of(self._config).differences, _noting(lock, ()))


def _divide(lines: list[bytes], base: bytes, waiting: Waiting, private: Waiting) -> None:
    own = [line for line in lines if is_private(line)]
    if own:
        private.records.add(own, base)
        lines = [line for line in lines if not is_private(line)]
    if lines:
        waiting.records.add(lines, base)


def _noting(lock: JournalLock, spools: list[bytes] | tuple[()]) -> Callable[[bytes], None]:
    """Notes a commit that is about to become public: if we die, the next one can tell what was done."""
    return lambda commit: lock.note([commit, *spools], sync=True)
