"""The git-annex branch of one repository: read logs, queue records, commit.

What a log says is the branch, with the journal laid over it, then the records that wait in spools and in
this process, then the private journal. ``set_present`` only queues; ``sync`` makes queued records durable
without waiting for anybody; ``commit`` brings everything that waits, our own and everybody else's, into the
branch in one commit with one pack.

The rules of a commit (fact sheet repository-format, section 0; lock and compare-and-swap alone lose records):
journal lock → tip → union of branch and journal for every journal file → records → objects → compare-and-swap,
again from the tip when it moved → unlink what was absorbed → unlock. ``annex/index`` is left alone:
git-annex merges the branch into it by itself.

``set_present``, ``change``, ``read`` and ``locations`` never wait for a lock. ``sync``, ``commit`` and ``merge``
work in a worker thread; their twins ``sync_now``, ``commit_now`` and ``merge_now`` in the calling one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, RepositoryError
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.line import union_merge
from annexpy.logs.location import LocationLog
from annexpy.logs.presence import MISSING, PRESENT
from annexpy.repo.absorb import Waiting, absorb, leave_in_journal
from annexpy.repo.config import GitConfig
from annexpy.repo.files import Files
from annexpy.repo.format import Tuning, repository_error
from annexpy.repo.history import History
from annexpy.repo.journal import JOURNAL, LOCK_SECONDS, PRIVATE, Journal, JournalLock
from annexpy.repo.pack import remove_leftovers
from annexpy.repo.queue import Batch, Queue
from annexpy.repo.records import Clockwork, Queued, apply_records, is_private, lines_record, presence_record
from annexpy.repo.refs import GIT_ANNEX
from annexpy.repo.scan import read_all, read_many
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool import Spool
from annexpy.uuids import UUID, is_cluster

__all__ = ["Branch"]

_SPILL: Final = 32_768  # records kept in memory before they go to the spool, unsynced
_WINDOW: Final = 32_768  # logs read together
_COMMIT: Final = "commit to the git-annex branch"
_MERGE: Final = "merge into the git-annex branch"
_ROUND: Final = 32 << 20  # bytes of spools absorbed in one commit


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
        self.uuid, self._writable = uuid, writable
        self._pidlock = config.get_bool("annex.pidlock")
        self._lockdown = Lockdown.of(config.get("core.sharedrepository"))
        self._tuning = Tuning.of(config)
        self._levels = self._tuning.branch_levels
        self._history = History(files, config, clock, self._lockdown, git=git)
        self._journal = Journal(files, self._lockdown, JOURNAL)
        self._private = Journal(files, self._lockdown, PRIVATE)
        self._spool = Spool(files, self._lockdown, clock, locks=not self._pidlock)
        self._queue = Queue(self._known_tip)
        self._io = threading.Lock()
        self._cleared = False
        self._infos: dict[UUID, tuple[bytes, bool]] = {}
        self._times = Clockwork()

    # -- reading ---------------------------------------------------------------------------------

    def read(self, path: bytes) -> bytes:
        """What a log says now; empty when there is none.

        Lines of this and other processes that are not committed yet are in it, and those of private
        repositories. Never remove content on the strength of it alone: git-annex can show a state for 100 ms
        that lacks somebody's line (fact sheet repository-format, section 0 rule 7).

        Raises:
            RepositoryError: Objects are missing or corrupt.
        """
        try:
            # order matters: whoever brings a record from one of these to the next removes it afterwards
            batches = self._queue.batches()
            queued = [record for batch in batches for record in batch.records(path)]
            changes = [change for batch in batches for change in batch.changes if change[0] == path]
            waiting = self._spool.overlay().get(path, ())
            journal = self._journal.read(path)
            private = self._private.read(path)
            content = b""
            for tip in self._tips():
                content = union_merge(content, self._history.read(tip, path))
        except OSError as error:
            raise repository_error(self._files.path, "read the git-annex branch", error) from error
        if journal is not None:
            content = union_merge(content, journal)
        if not queued and not waiting and private is None and not changes:
            return content
        return self._overlaid(path, content, private or b"", sorted([*waiting, *queued]), changes)

    def _overlaid(
        self,
        path: bytes,
        content: bytes,
        private: bytes,
        records: list[Queued],
        changes: Iterable[tuple[bytes, Callable[[bytes], bytes], bool]],
    ) -> bytes:
        for_us = [record for record in records if is_private(record.line)]
        if len(for_us) < len(records):
            public = [record for record in records if not is_private(record.line)] if for_us else records
            content = apply_records(content, public, lambda base: self._history.read_or_none(base, path))
        private = apply_records(private, for_us, lambda base: None)
        for _, change, is_own in changes:
            if is_own:
                private = change(private)
            else:
                content = change(content)
        if content and private and not content.endswith(b"\n"):
            content += b"\n"
        return content + private

    def _tips(self) -> list[bytes]:
        tip = self._history.tip()
        if tip is not None and self._writable:
            return [tip]
        # nobody can merge them for us: read them all, as git-annex does in a read-only repository
        return list(dict.fromkeys([*([] if tip is None else [tip]), *self._history.siblings().values()]))

    def locations(self, key: Key) -> LocationLog:
        """Where *key* is, as far as is known here."""
        return LocationLog.parse(self.read(location_log(key, levels=self._levels)))

    def read_many(self, paths: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says now), in the order of *paths*; from some hundreds on much faster than one by one."""
        todo = iter(paths)
        while window := list(islice(todo, _WINDOW)):
            overlaid, tips = self._overlaid_paths()
            plain = [path for path in window if path not in overlaid]
            found = read_many(self._history, tips[0], plain) if tips else {}
            for path in window:
                yield path, self.read(path) if path in overlaid else found.get(path, b"")

    def locations_many(self, keys: Iterable[Key]) -> Iterator[tuple[Key, LocationLog]]:
        """As ``locations``, for many keys, in their order."""
        todo = iter(keys)
        while window := list(islice(todo, _WINDOW)):
            logs = self.read_many([location_log(key, levels=self._levels) for key in window])
            for key, (_, content) in zip(window, logs, strict=True):
                yield key, LocationLog.parse(content)

    def scan(self, only: Callable[[bytes], bool] | None = None) -> Iterator[tuple[bytes, bytes]]:
        """(path, what the log says now) of every log, in no promised order.

        Args:
            only: Which paths are wanted; leaving others out saves reading them.
        """
        overlaid, tips = self._overlaid_paths()
        if tips:
            yield from read_all(self._history, tips[0], only=only, without=overlaid)
        for path in overlaid:
            if only is None or only(path):
                content = self.read(path)
                if content:
                    yield path, content

    def _overlaid_paths(self) -> tuple[set[bytes], list[bytes]]:
        """Paths where the first tip is not all there is, and the tips."""
        # order matters, as in read
        paths = set().union(*[batch.paths() for batch in self._queue.batches()])
        paths.update(self._spool.overlay(), self._journal.paths(), self._private.paths())
        tips = self._tips()
        if len(tips) > 1:
            from annexpy.repo.merge import changed_paths
        for other in tips[1:]:
            paths.update(changed_paths(self._history, tips[0], other))
        return paths, tips

    @property
    def tip(self) -> str | None:
        """The commit the branch points to, 40 hex digits; None when there is no branch."""
        tip = self._history.tip()
        return None if tip is None else tip.decode()

    @property
    def waiting(self) -> int:
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
        known = self._infos.get(uuid)
        if known is None:
            known = self._infos[uuid] = self._info(uuid)
        info, private = known
        if not info:
            return
        path = location_log(key, levels=self._levels)
        self._record(path, info, PRESENT if present else MISSING, private)

    def _record(self, path: bytes, info: bytes, status: bytes, private: bool) -> None:
        time = self._times.time(self._clock.wall(), path, info, status)
        if self._queue.add(presence_record(path, time, status, info, private=private)) >= _SPILL:
            self.sync_now(durable=False)

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
        if status not in (b"0", b"1", b"X"):
            raise InvalidInput("presence status", status, "one of 1, 0, X")
        if b"\n" in info or b"\r" in info:
            raise InvalidInput("presence info", info, "no line breaks")
        self._record(path, info, status, private)

    def change(self, path: bytes, change: Callable[[bytes], bytes], *, private: bool = False) -> None:
        """Queue a change of any log: *change* gets its content and returns the new one.

        It is called at the commit, perhaps more than once, and by readers until then, so it must be pure: take
        the time before. ``sync`` stores what it yields now as lines to be merged in.

        Args:
            path: Branch path.
            change: Returning the very object it got means nothing to do.
            private: Keep it out of the branch: it belongs to a repository that must not be known elsewhere.
        """
        self._queue.add_change((path, change, private))

    # -- making durable --------------------------------------------------------------------------

    async def sync(self) -> None:
        """What is queued survives a power cut when this returns. Waits for no lock of anybody else.

        Raises:
            RepositoryError, AccessDenied: It could not be written, and is still queued.
        """
        if self._queue:
            from anyio import to_thread  # 10 ms that a process that only reads can do without

            await to_thread.run_sync(self.sync_now)

    def sync_now(self, *, durable: bool = True) -> None:
        """``sync``, in this thread. Not *durable*: it survives a kill, not a power cut."""
        with self._io:
            batch = self._queue.take()
            if not batch:
                return
            try:
                self._spool.append(self._as_lines(batch), batch.base, sync=durable)
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
        outcome: dict[tuple[bytes, bool], bytes] = {}
        for path, change, private in batch.changes:
            content = outcome.get((path, private))
            if content is None:
                records = sorted([*self._spool.overlay().get(path, ()), *batch.records(path)])
                if private:
                    content = self._overlaid(path, b"", self._private.read(path) or b"", records, ())
                else:
                    public = [record for record in records if not is_private(record.line)]
                    branch = self._history.read(self._history.tip(), path)
                    journal = self._journal.read(path) or b""
                    content = self._overlaid(path, union_merge(branch, journal), b"", public, ())
            outcome[path, private] = change(content)
        return batch.lines + [
            lines_record(path, self._times.tick(self._clock.wall()), content, private=private)
            for (path, private), content in outcome.items()
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
            await lock.acquire(seconds)
            try:
                return await to_thread.run_sync(self._commit, message, lock)
            finally:
                lock.release()

    def commit_now(self, message: str = "update", *, seconds: float = LOCK_SECONDS, always: bool = False) -> bool:
        """``commit``, in this thread; with *always* whatever ``annex.alwayscommit`` says."""
        with self._naming(_COMMIT):
            if self._idle():
                return False
            with self._lock().blocking(seconds) as lock:
                return self._commit(message, lock, always=always)

    @contextmanager
    def _naming(self, doing: str) -> Iterator[None]:
        """The errors of the system get to say what they were met at."""
        try:
            yield
        except OSError as error:
            raise repository_error(self._files.path, doing, error) from error

    def _idle(self) -> bool:
        return not self._queue and self._spool.empty() and not self._journal.paths()

    def _lock(self) -> JournalLock:
        return JournalLock(self._files, self._clock, self._lockdown, pidlock=self._pidlock)

    def _commit(self, message: str, lock: JournalLock, *, always: bool = False) -> bool:
        """Under the journal lock."""
        self._prepare(lock)
        if self._history.tip() is None:
            self._merge_siblings(lock)  # a clone: the branch begins where the others are
        with self._io:  # whatever is being synced right now is in the spool before it is sealed
            batch = self._queue.take()
        try:
            committed = self._commit_batch(batch, message, always, lock)
        except BaseException:
            self._queue.give_back(batch)
            raise
        self._queue.done(batch)
        return committed

    def _prepare(self, lock: JournalLock) -> None:
        if lock.left or not self._cleared:  # a power cut may have taken the note as well
            self._clear_up(lock.left)
            lock.left, self._cleared = b"", True
        if self._config.refresh():
            self._infos.clear()

    def _clear_up(self, left: bytes) -> None:
        """One of us died committing: undo what its commit left behind, whether it became public or not."""
        from annexpy.repo.merge import is_ancestor

        remove_leftovers(self._files)
        commit, *spools = left.split(b"\n")[1:-1] or [b""]
        if not commit:
            return
        self._history.refs.unlock_stale(GIT_ANNEX, commit)
        tip = self._history.tip()
        if tip is not None and self._history.has(commit) and is_ancestor(self._history, commit, tip):
            self._spool.discard(spools)

    def _commit_batch(self, batch: Batch, message: str, always: bool, lock: JournalLock) -> bool:
        spools = self._spool.seal()
        if sum(map(self._spool.size, spools)) > _ROUND and batch.lines:
            # more than one round: ours takes its place behind what this process spooled before
            self._spool.append(batch.lines, batch.base, sync=False)
            batch.lines.clear()
            spools = self._spool.seal()
        committed = False
        while True:
            some: list[bytes] = []
            size = 0
            while spools and (not some or size + self._spool.size(spools[0]) <= _ROUND):
                size += self._spool.size(spools[0])
                some.append(spools.pop(0))
            last = not spools
            committed = self._absorb(some, batch if last else Batch(), message, always, lock) or committed
            self._spool.discard(some)
            if last:
                return committed

    def _absorb(self, spools: list[bytes], batch: Batch, message: str, always: bool, lock: JournalLock) -> bool:
        records = batch.queued()
        for spool in spools:
            records += self._spool.load(spool)
        records.sort()
        waiting, private = Waiting(), Waiting()
        waiting.records = records
        if any(is_private(record.line) for record in records):
            waiting.records = [record for record in records if not is_private(record.line)]
            private.records = [record for record in records if is_private(record.line)]
        for path, change, is_own in batch.changes:
            (private if is_own else waiting).changes.setdefault(path, []).append(change)
        if private:
            leave_in_journal(self._history, self._private, private, private=True, sync=True)
        if not always and not self._config.get_bool("annex.alwayscommit", True):
            if waiting:
                leave_in_journal(self._history, self._journal, waiting, private=False, sync=True)
            return False
        waiting.journal = self._journal.paths()
        if not waiting:
            return False

        def note(commit: bytes) -> None:
            lock.note([commit, *spools], sync=True)

        committed = absorb(self._history, self._journal, waiting, message, note, sync=True)
        # order matters: readers without the lock look at the journal first, then at the branch
        for path in waiting.journal:
            self._journal.remove(path)
        return committed is not None

    # -- merging ---------------------------------------------------------------------------------

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
                return await to_thread.run_sync(self._merge, lock)
            finally:
                lock.release()

    def merge_now(self, *, seconds: float = LOCK_SECONDS) -> list[str]:
        """``merge``, in this thread."""
        with self._naming(_MERGE), self._lock().blocking(seconds) as lock:
            return self._merge(lock)

    def _merge(self, lock: JournalLock) -> list[str]:
        self._prepare(lock)
        try:
            return self._merge_siblings(lock)
        finally:
            self._commit("update", lock, always=True)

    def _merge_siblings(self, lock: JournalLock) -> list[str]:
        from annexpy.repo.merge import merge_siblings  # and what it knows of logs, which readers do without

        ignored = frozenset((self._files.read(b"annex/ignoredrefs") or b"").split())

        def note(commit: bytes) -> None:
            lock.note([commit], sync=True)

        return merge_siblings(self._history, ignored, self._tuning.differences, note)

    def close(self) -> None:
        """Give back file handles. Records that are queued and neither synced nor committed are kept."""
        self._history.close()
