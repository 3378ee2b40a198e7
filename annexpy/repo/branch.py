"""The git-annex branch of one repository: read logs, queue records, commit.

What a log says is the branch, with the journal laid over it, then the records that wait in spools and in
this process, then the private journal. ``set_present`` only queues; ``sync`` makes queued records durable
without waiting for anybody; ``commit`` brings everything that waits, our own and everybody else's, into the
branch in one commit with one pack.

``set_present``, ``change``, ``read`` and ``locations`` never wait for a lock. ``sync``, ``commit`` and ``merge``
work in a worker thread; their twins ``sync_now``, ``commit_now`` and ``merge_now`` in the calling one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from annexpy.clock import Clock
from annexpy.errors import AnnexError, InvalidInput, RepositoryError
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.location import LocationLog
from annexpy.logs.presence import MISSING, PRESENT
from annexpy.repo.ahead import Ahead
from annexpy.repo.config import GitConfig
from annexpy.repo.files import Files
from annexpy.repo.format import Tuning, is_branch_path, repository_error
from annexpy.repo.history import History
from annexpy.repo.journal import JOURNAL, LOCK_SECONDS, PRIVATE, Journal, JournalLock
from annexpy.repo.journaled import Journaled
from annexpy.repo.queue import Batch, Queue
from annexpy.repo.records import Clockwork, lines_record, presence_records
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool import Spool
from annexpy.repo.view import View
from annexpy.uuids import UUID, is_cluster

if TYPE_CHECKING:
    from annexpy.repo.committer import Committer

__all__ = ["Branch"]

log = logging.getLogger(__name__)

_SPILL: Final = 4096  # records kept in memory before they go to the spool, unsynced
_REMEMBERED: Final = 1024
_COMMIT: Final = "commit to the git-annex branch"
_MERGE: Final = "merge into the git-annex branch"


class Branch:
    """The git-annex branch of a repository.

    Reading is for any number of threads. A forked child may go on using it: records that were queued before
    the fork stay the parent's.

    Args:
        files: The git directory that holds ``annex``, ``objects`` and ``refs``.
        config: The git configuration.
        clock: For vector clocks, commit times and deadlines.
        uuid: Of this repository.
        writable: False: nothing can be committed, so sibling refs are read as well, as git-annex does.
        git: A git process may be run to read many objects; False: dulwich alone.
    """

    def __init__(
        self,
        files: Files,
        config: GitConfig,
        *,
        clock: Clock,
        uuid: UUID,
        writable: bool = True,
        git: bool = True,
    ) -> None:
        self._files, self._config, self._clock = files, config, clock
        self.uuid = uuid
        self._pidlock = config.get_bool("annex.pidlock")
        self._lockdown = Lockdown.of(config.get("core.sharedrepository"))
        self._levels = Tuning.of(config).branch_levels
        self._history = History(files, config, clock, self._lockdown, git=git)
        self._journal = Journal(files, self._lockdown, JOURNAL)
        self._private = Journal(files, self._lockdown, PRIVATE)
        self._spool = Spool(files, self._lockdown, clock, locks=not self._pidlock)
        self._queue = Queue(self._known_tip)
        self._waiting = (self._journal, self._private, self._spool, self._queue)
        self._view = View(files, self._history, *self._waiting, writable=writable)
        self._committer: Committer | None = None
        self._infos: dict[UUID, tuple[bytes, bool]] = {}
        self._times = Clockwork()
        self._journaled = Journaled(self._journal, Ahead(self._spool, clock))

    # -- reading ---------------------------------------------------------------------------------

    def read(self, path: bytes) -> bytes:
        """What a log says now; empty when there is none.

        Lines of this and other processes that are not committed yet are in it, and those of private
        repositories. Never remove content on the strength of it alone: git-annex can show a state for 100 ms
        that lacks somebody's line (fact sheet repository-format, section 0 rule 7).

        Raises:
            RepositoryError: Objects are missing or corrupt.
        """
        return self._view.read(path)

    def locations(self, key: Key) -> LocationLog:
        """Where *key* is, as far as is known here."""
        return LocationLog.parse(self.read(location_log(key, levels=self._levels)))

    def read_many(self, paths: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says now), in the order of *paths*; from some hundreds on much faster than one by one."""
        return self._view.read_many(paths)

    def locations_many(self, keys: Iterable[Key]) -> Iterator[tuple[Key, LocationLog]]:
        """As ``locations``, for many keys, in their order."""
        asked: deque[Key] = deque()

        def paths() -> Iterator[bytes]:
            for key in keys:
                asked.append(key)
                yield location_log(key, levels=self._levels)

        known: dict[bytes, LocationLog] = {}  # thousands of logs that were written together say the same
        for _, content in self._view.read_many(paths()):
            log = known.get(content)
            if log is None:
                if len(known) >= _REMEMBERED:
                    known.clear()
                log = known[content] = LocationLog.parse(content)
            yield asked.popleft(), log

    def reading(self) -> AbstractContextManager[None]:
        """For a command that reads many logs again and again: until this is left, one git process serves them all."""
        return self._history.objects.keeping()

    def scan(self, only: Callable[[bytes], bool] | None = None) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says now) of every log, in no promised order.

        Args:
            only: Which paths are wanted; leaving others out saves reading them.
        """
        return self._view.scan(only)

    def overlaid(self) -> set[bytes]:
        """The paths of which something waits that is not in the branch yet."""
        return self._view.overlaid()

    @property
    def tip(self) -> str | None:
        """The commit the branch points to, 40 hex digits; None when there is no branch."""
        tip = self._history.tip()
        return None if tip is None else tip.decode()

    @property
    def queued(self) -> int:
        """Records queued here that are neither durable nor committed yet."""
        return sum(len(batch.lines) + len(batch.changes) for batch in self._queue.batches())

    # -- queueing --------------------------------------------------------------------------------

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
        """Record that *uuid* has, or no longer has, the content of *key*.

        Only queued: ``sync`` makes it durable, ``commit`` public. A record that says what the log says already
        changes nothing. The UUID of a cluster is ignored: a cluster is never a copy.

        Raises:
            InvalidInput: *uuid* holds a line break.
        """
        self.set_present_many((key,), uuid, present)

    def set_present_many(self, keys: Iterable[Key], uuid: UUID, present: bool) -> None:
        """As ``set_present``, of each of *keys*."""
        known = self._infos.get(uuid)
        if known is None:
            known = self._infos[uuid] = self._info(uuid)
        info, private = known
        if info:
            levels = self._levels
            paths = [location_log(key, levels=levels) for key in keys]
            self._record(paths, info, PRESENT if present else MISSING, private)

    def _record(self, paths: Sequence[bytes], info: bytes, status: bytes, private: bool) -> None:
        wall, time, second = self._clock.wall(), self._times.time, self._journaled.second
        if self._journaled.look(wall):
            when = [(path, time(wall, path, info, status, after=second(wall, path, info, status))) for path in paths]
        else:
            when = [(path, time(wall, path, info, status)) for path in paths]
        lines = presence_records(when, status, info, private=private)
        if not lines:
            return
        waiting = self._queue.add(*lines)
        if waiting // _SPILL != (waiting - len(lines)) // _SPILL:
            try:
                self.sync_now(durable=False)
            except AnnexError as error:  # what was done stands, and ``sync`` and ``commit`` meet the same
                log.warning("%s; the records are kept in memory", error)

    def _known_tip(self) -> bytes | None:
        try:
            return self._history.tip()
        except (OSError, RepositoryError):
            return None  # a record without it is a little weaker against wrong clocks, and still a record

    def _info(self, uuid: UUID) -> tuple[bytes, bool]:
        if is_cluster(uuid):
            return b"", False
        info = uuid.encode("utf-8", "surrogateescape")
        if b"\n" in info or b"\r" in info or not info:
            raise InvalidInput("uuid", uuid, "not empty, no line breaks")
        return info, uuid in self._private_uuids()

    def _private_uuids(self) -> set[str]:
        private = {remote.uuid for remote in self._config.remotes().values() if remote.private and remote.uuid}
        if self._config.get_bool("annex.private"):
            private.add(self.uuid)
        return private

    def set_presence(self, path: bytes, info: bytes, status: bytes, *, private: bool = False) -> None:
        """As ``set_present`` for any presence log: *info* got *status* (``1``, ``0``, ``X``)."""
        _check_path(path)
        if status not in (b"0", b"1", b"X"):
            raise InvalidInput("presence status", status, "one of 1, 0, X")
        if b"\n" in info or b"\r" in info:
            raise InvalidInput("presence info", info, "no line breaks")
        self._record((path,), info, status, private)

    def change(self, path: bytes, change: Callable[[bytes], bytes], *, private: bool = False) -> None:
        """Queue a change of any log: *change* gets its content and returns the new one.

        It is called at the commit, perhaps more than once, and by readers until then, so it must be pure: take
        the time before. ``sync`` stores what it yields now as lines to be merged in.

        Args:
            path: Branch path.
            change: Returning the very object it got means nothing to do.
            private: Keep it out of the branch: it belongs to a repository that must not be known elsewhere.
        """
        _check_path(path)
        self._queue.add_change((path, change, private))

    # -- making durable --------------------------------------------------------------------------

    async def sync(self) -> None:
        """What is queued survives a power cut when this returns. Waits for no lock of anybody else.

        Raises:
            RepositoryError, AccessDenied: It could not be written; the next ``sync`` or ``commit`` tries again.
        """
        if self._queue or self._spool.unsynced:
            from anyio import to_thread  # 10 ms that a process that only reads can do without

            await to_thread.run_sync(self.sync_now)

    def sync_now(self, *, durable: bool = True) -> None:
        """``sync``, in this thread. Not *durable*: it survives a kill, not a power cut, and waits for no disk."""
        if not durable:
            self._spool_queued()
            return
        with self._queue.syncing:
            self._spool_queued()
            try:
                self._spool.sync()
            except OSError as error:
                raise repository_error(self._files.path, "write location records", error) from error

    def _spool_queued(self) -> None:
        with self._queue.spooling:
            batch = self._queue.take()
            if not batch:
                return
            try:
                self._spool.append(self._as_lines(batch), batch.base, sync=False)
            except OSError as error:
                self._queue.give_back(batch)
                raise repository_error(self._files.path, "write location records", error) from error
            except BaseException:
                self._queue.give_back(batch)
                raise
            self._queue.done(batch)

    def _as_lines(self, batch: Batch) -> list[bytes]:
        if not batch.changes:
            return batch.lines
        return batch.lines + [
            lines_record(path, self._times.tick(self._clock.wall()), content, private=private)
            for (path, private), content in self._view.outcome(batch).items()
        ]

    # -- committing ------------------------------------------------------------------------------

    async def commit(self, message: str = "update", *, seconds: float = LOCK_SECONDS) -> bool:
        """Bring everything that waits in this repository into the branch; True when there was something.

        With ``annex.alwayscommit=false`` it goes to the journal instead, for a later command to commit.

        Args:
            message: Of the commit.
            seconds: How long to wait for the journal lock.

        Raises:
            LockHeld: The journal lock was not free in time. Nothing is lost: what was queued stays queued.
            BranchConflict: The branch kept moving.
        """
        from anyio import to_thread

        with self._naming(_COMMIT):
            if self._idle():
                return False
            lock = self._lock()
            # Of a crowd that waits, the first commits for all: the others need not queue for the lock after that.
            if not await lock.acquire(seconds, unless=self._idle):
                return False
            try:
                return await to_thread.run_sync(self._writer().commit, message, lock)
            finally:
                lock.release()

    def commit_now(self, message: str = "update", *, seconds: float = LOCK_SECONDS, always: bool = False) -> bool:
        """``commit``, in this thread; with *always* whatever ``annex.alwayscommit`` says."""
        with self._naming(_COMMIT):
            if self._idle():
                return False
            with self._lock().blocking(seconds) as lock:
                return self._writer().commit(message, lock, always=always)

    @contextmanager
    def _naming(self, doing: str) -> Iterator[None]:
        """The errors of the system get to say what they were met at."""
        try:
            yield
        except OSError as error:
            raise repository_error(self._files.path, doing, error) from error

    def _idle(self) -> bool:
        return not self._queue and self._spool.empty() and not self._journal.paths()

    def _writer(self) -> Committer:
        if self._committer is None:
            from annexpy.repo.committer import Committer  # readers do without

            self._committer = Committer(self._files, self._config, self._lockdown, self._history, *self._waiting)
        self._infos.clear()  # it reads the configuration again, where somebody may have become private
        return self._committer

    def _lock(self) -> JournalLock:
        return JournalLock(self._files, self._clock, self._lockdown, pidlock=self._pidlock)

    # -- merging ---------------------------------------------------------------------------------

    def unmerged(self) -> list[str]:
        """Refs named ``git-annex`` that have something the branch lacks, for ``merge`` to merge. Waits for no lock.

        Raises:
            RepositoryError: Objects are missing or corrupt.
        """
        tip = self._history.tip()
        if all(sibling == tip for sibling in self._history.siblings().values()):
            return []
        from annexpy.repo.ancestry import ignored_commits, unmerged

        return unmerged(self._history, ignored_commits(self._files))

    async def merge(self, *, seconds: float = LOCK_SECONDS) -> list[str]:
        """Merge every other ref named ``git-annex`` into the branch, then commit what waits.

        git-annex does the same at the start of most of its commands. Afterwards ``read`` knows everything that
        was fetched.

        Returns:
            The refs that had something new.

        Raises:
            BranchConflict: Some ref has other transitions or another tuning, or the branch kept moving. The
                other refs have been merged and what waits has been committed.
            LockHeld: The journal lock was not free in time.
        """
        from anyio import to_thread

        with self._naming(_MERGE):
            lock = self._lock()
            await lock.acquire(seconds)
            try:
                return await to_thread.run_sync(self._writer().merge, lock)
            finally:
                lock.release()

    def merge_now(self, *, seconds: float = LOCK_SECONDS) -> list[str]:
        """``merge``, in this thread."""
        with self._naming(_MERGE), self._lock().blocking(seconds) as lock:
            return self._writer().merge(lock)

    def close(self) -> None:
        """Give back file handles. Records that are queued and neither synced nor committed are kept."""
        self._spool.close()
        self._history.close()


def _check_path(path: bytes) -> None:
    if not is_branch_path(path):
        raise InvalidInput("branch path", path, "components that git allows in a tree, without NUL")
