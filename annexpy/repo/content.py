"""The content store: the objects below ``annex/objects`` of one repository.

Looking, opening, locking and removing are quick and synchronous; receiving is an async context
(``Receiving``). A reader never sees a partial object: content gets its name by a rename, once it has been
verified. What arrived of a content that was not finished stays in ``annex/tmp`` for the next time.

Source: fact sheet repository-format, section 2.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from stat import S_ISREG
from types import TracebackType
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import AnnexError, InvalidKey, KeyNotPresent, NotLocked, NotRegularFile, RepositoryError
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file
from annexpy.repo.durability import Change, GroupCommit
from annexpy.repo.files import WRITE, DiskFiles, Files, Status
from annexpy.repo.folders import ANNEX, AnnexFolders, Layout
from annexpy.repo.locks import ContentLock, Removal
from annexpy.repo.partial import Arrivals
from annexpy.repo.pidlock import PidLock
from annexpy.repo.pipeline import PIECE
from annexpy.repo.receiving import Receiving
from annexpy.repo.settings import ContentSettings, Durability
from annexpy.uuids import UUID

__all__ = ["ContentStore", "StoredObject"]

_SETTLED: Final = 3600.0
"""Seconds after which the system has written back what nobody synced. Linux begins with that after 30."""


class StoredObject:
    """An object, open for reading. Close it, or use it as a context.

    Attributes:
        key: Of the content.
        fd: The descriptor, of the store's files.
        size: Bytes, when it was opened.
        path: Where it is, below the git directory.
    """

    __slots__ = ("_files", "_status", "fd", "key", "path", "size")

    def __init__(self, key: Key, files: Files, path: bytes, fd: int, status: Status) -> None:
        self.key, self._files, self.path, self.fd, self._status = key, files, path, fd, status
        self.size: int = status.st_size

    @property
    def system_fd(self) -> int | None:
        """The descriptor, where it is one of the operating system's."""
        return self.fd if isinstance(self._files, DiskFiles) else None

    def pread(self, size: int, offset: int) -> bytes:
        """At most *size* bytes from *offset*; fewer at the end."""
        return self._files.pread(self.fd, size, offset)

    def drop_cached(self) -> None:
        """Have what is read next come from the disk, as far as the system can be asked for that."""
        if isinstance(self._files, DiskFiles):
            self._files.drop_cached(self.fd)

    def unchanged(self) -> bool:
        """Nobody wrote to it since it was opened, as far as the file system tells."""
        now, then = self._files.fstatus(self.fd), self._status
        return (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close_fd(fd)

    def __enter__(self) -> StoredObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ContentStore:
    """The objects of one repository. Works over event loops and forks."""

    def __init__(
        self,
        files: Files,
        *,
        clock: Clock,
        settings: ContentSettings,
        recorded: Callable[[Key], None] | None = None,
        sync_records: Callable[[], Awaitable[None]] | None = None,
        layout: Layout = ANNEX,
    ) -> None:
        """Open it; nothing is read or made yet.

        Args:
            files: The git directory that holds ``annex/`` (that of the main repository for a linked worktree).
            clock: Time.
            settings: ``ContentSettings.of(config, bare=…)``.
            recorded: Told each key whose content has been put in place, before anybody else learns of it.
            sync_records: Makes durable what *recorded* recorded. Awaited once for all puts that are synced
                together, before any of them is acknowledged. Not used when the durability is "fast".
            layout: Where things are below *files*.
        """
        self._files, self._clock = files, clock
        self.settings = settings
        self.folders = AnnexFolders(files, settings, clock, layout)
        self._pidlock = PidLock.of(files) if settings.pidlock else None
        group = None
        if settings.durability == "full":
            group = GroupCommit(files, clock, sync_records, syncfs=settings.syncfs)
        self._arrivals = Arrivals(self.folders, clock, group, recorded, self._pidlock, present=self.present)
        self._trusted: dict[bytes, tuple[int, ...]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        if self._arrivals.recorded is not None:
            raise TypeError("a content store that records does not pickle: pickle what it records for")
        return (_unpickle, (self._files, self._clock, self.settings, self.folders.layout))

    def variant(
        self,
        *,
        durability: Durability,
        recorded: Callable[[Key], None] | None = None,
        sync_records: Callable[[], Awaitable[None]] | None = None,
    ) -> ContentStore:
        """The same store with another durability and other hooks."""
        return ContentStore(
            self._files,
            clock=self._clock,
            settings=replace(self.settings, durability=durability),
            recorded=recorded,
            sync_records=sync_records,
            layout=self.folders.layout,
        )

    def close(self) -> None:
        """Give back the folders that were kept open. Using the store again opens them again."""
        self.folders.forget()

    @property
    def where(self) -> str:
        """The repository, for messages."""
        return self.folders.where

    # -- looking --

    def present(self, key: Key) -> bool:
        """The content is here: looked for and found, a regular file of the right size that nobody has written to."""
        found = self._find(key)
        return found is not None and self._is_content(key, *found)

    def present_many(self, keys: Sequence[Key]) -> list[bool]:
        """``present`` of each, quicker than one by one."""
        try:
            found = self.folders.look_for(keys, 0)
            missing = [number for number, status in enumerate(found) if status is None or not S_ISREG(status.st_mode)]
            if missing and not self.settings.lower_only:
                elsewhere = self.folders.look_for([keys[number] for number in missing], 1)
                for number, status in zip(missing, elsewhere, strict=True):
                    found[number] = status
        except OSError as error:
            name = os.path.basename(error.filename) if isinstance(error.filename, bytes) else b""
            key = next((key for key in keys if key_file(key) == name), keys[0])
            raise self.folders.error(key, error) from error
        return [
            status is not None
            and S_ISREG(status.st_mode)
            and (key.size is None or key.size == status.st_size)
            and (not status.st_mode & WRITE or self.present(key))  # may have to be read
            for key, status in zip(keys, found, strict=True)
        ]

    def _is_content(self, key: Key, path: bytes, status: Status) -> bool:
        """A regular file with that *status* is the content of *key*."""
        if key.size is not None and status.st_size != key.size:
            return False
        return not status.st_mode & WRITE or self._unmodified(key, path, status)

    def _find(self, key: Key) -> tuple[bytes, Status] | None:
        try:
            return self.folders.find_regular(key)
        except OSError as error:
            raise self.folders.error(key, error) from error

    def _unmodified(self, key: Key, path: bytes, status: Status) -> bool:
        """An object that may be written to, as with ``annex.thin``, still is the content of its key."""
        if not self.settings.thin and status.st_nlink == 1:
            return True
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._trusted.get(path) == stamp:
            return True
        if not self.verified(key):
            return False
        self._trusted[path] = stamp
        return True

    def verified(self, key: Key) -> bool:
        """The content is here and is what *key* says, by hash, or by size when nothing can verify it. Reads it all."""
        check = verifier(key)
        try:
            with self.open(key) as stored:
                if check is None:
                    return key.size is None or key.size == stored.size
                while piece := stored.pread(PIECE, check.received):
                    check.update(piece)
        except KeyNotPresent:
            return False
        except OSError as error:
            raise self.folders.error(key, error) from error
        return check.matches()

    def size(self, key: Key) -> int | None:
        """Bytes of the object; None when it is not here."""
        found = self._find(key)
        return None if found is None else found[1].st_size

    def path(self, key: Key) -> bytes | None:
        """Where the object is, below the git directory; None when it is not here."""
        found = self._find(key)
        return None if found is None else self.folders.below(found[0])

    def keys(self) -> Iterator[Key]:
        """Every key whose object is here, in no order. Names that are no keys are passed over.

        Raises:
            RepositoryError: The objects cannot be listed.
        """
        try:
            yield from self._keys()
        except OSError as error:
            raise RepositoryError(f"{self.folders.where}: cannot list the objects: {error.strerror}") from error

    def _keys(self) -> Iterator[Key]:
        objects = self.folders.existing(self.folders.layout.objects)
        if objects is None:
            return
        levels = self.settings.levels
        folders = [b""]
        for _ in range(levels):
            folders = [below + b"/" + name if below else name for below in folders for name in objects.names(below)]
        for folder in folders:
            for name in objects.names(folder):
                status = objects.status(folder + b"/" + name + b"/" + name)
                if status is not None and S_ISREG(status.st_mode):
                    try:
                        yield file_key(name)
                    except InvalidKey:
                        continue

    def open(self, key: Key) -> StoredObject:
        """The object, for reading.

        Raises:
            KeyNotPresent: It is not here.
            NotRegularFile: Something else stands where it should be, or a symbolic link on the way.
        """
        try:
            objects = self.folders.existing(self.folders.layout.objects)
            for path in self.folders.paths(key) if objects is not None else ():
                assert objects is not None
                try:
                    fd = objects.open_read(path)
                except FileNotFoundError:
                    continue
                return StoredObject(key, objects, self.folders.below(path), fd, objects.fstatus(fd))
            if self.folders.find(key) is not None:
                raise NotRegularFile(key, self.where)
        except OSError as error:
            raise self.folders.error(key, error) from error
        raise KeyNotPresent(key, self.where)

    # -- receiving --

    def receive(
        self,
        key: Key,
        *,
        source: UUID | None = None,
        associated_file: str = "",
        recorded: Callable[[Key], None] | None = None,
    ) -> Receiving:
        """An async context in which the content of *key* arrives. See ``Receiving``.

        Args:
            key: What arrives.
            source: Who sends it, for the transfer lock and its info file.
            associated_file: Its path in the work tree, for the info file.
            recorded: Told the key in place of the store's own.
        """
        return Receiving(self._arrivals, key, source, associated_file, recorded or self._arrivals.recorded)

    async def receive_from(
        self,
        key: Key,
        stored: StoredObject,
        *,
        source: UUID | None = None,
        associated_file: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Copy an object of another store on this machine, verifying what was read.

        Returns:
            False when it was here already.

        Raises:
            As ``Receiving``; ContentChanged when *stored* changed meanwhile and cannot be verified.
        """
        async with self.receive(key, source=source, associated_file=associated_file) as receiving:
            await receiving.copy(stored, progress)
            return await receiving.finish(valid=stored.unchanged())

    async def commit(self, changes: Mapping[Key, Change]) -> dict[Key, AnnexError]:
        """Put contents in place that ``Receiving.prepare`` prepared, and sync them together.

        Returns:
            What stood in the way, of those that are not stored.
        """
        failed: dict[Key, AnnexError] = {}
        if self._arrivals.group is None:
            return failed
        await self._arrivals.group.commit_many(list(changes.values()))
        for key, change in changes.items():
            match change.error:
                case None:
                    pass
                case AnnexError() as error:
                    failed[key] = error
                case OSError() as error:
                    failed[key] = self.folders.error(key, error)
                case error:
                    raise error
        return failed

    async def sync_content(self, key: Key) -> None:
        """Have the content of *key*, which is here, on disk when this returns, unless the durability is "fast".

        Raises:
            KeyNotPresent: It is gone.
        """
        if self._arrivals.group is not None:
            try:
                with self.open(key) as stored:
                    await self._arrivals.group.commit(Change(lambda: self.folders.above(stored.path), fd=stored.fd))
            except OSError as error:
                raise self.folders.error(key, error) from error

    # -- keeping and removing --

    @asynccontextmanager
    async def exclusion(self) -> AsyncIterator[None]:
        """Where ``annex.pidlock`` is set, have the pid lock inside, waiting for it as long as is configured.

        Without it, ``receive``, ``lock`` and ``removal`` fail at once while another process has the pid lock.

        Raises:
            LockHeld: Another process kept it.
        """
        if self._pidlock is None:
            yield
            return
        await self._pidlock.take(self.settings.pidlock_timeout, self._clock)
        try:
            yield
        finally:
            self._pidlock.release()

    def lock(self, key: Key, *, retention: bool = True) -> ContentLock:
        """Keep the content of *key* from being removed. See ``ContentLock.take``.

        What is not ``present`` is not locked either: with ``annex.thin`` an object may have been modified.
        """
        try:
            lock = ContentLock.take(self.folders, key, self._clock, self._pidlock, retention=retention)
            try:
                present = lock.status is not None and self._is_content(key, lock.path, lock.status)
            except BaseException:
                lock.release()
                raise
            if not present:
                lock.release()
                raise NotLocked(key, self.where, "its object is not the content: cut, or modified")
            return lock
        except OSError as error:
            raise self.folders.error(key, error) from error

    def hold(self, key: Key) -> ContentLock:
        """As ``lock`` without retention, and without a look at the content: see whether it ``holds`` before it counts.

        Raises:
            NotLocked …: As ``ContentLock.take``.
        """
        try:
            return ContentLock.take(self.folders, key, self._clock, self._pidlock, retention=False, look=False)
        except OSError as error:
            raise self.folders.error(key, error) from error

    def holds(self, lock: ContentLock) -> bool:
        """The lock still keeps others out, and what it keeps is the content, as far as ``present`` tells."""
        try:
            return lock.held() and lock.status is not None and self._is_content(lock.key, lock.path, lock.status)
        except OSError as error:
            raise self.folders.error(lock.key, error) from error

    def settled(self, key: Key) -> bool:
        """The content has been here for so long that it is on disk, whoever stored it and synced it or not."""
        found = self._find(key)
        return found is not None and self._has_settled(found[1])

    def _has_settled(self, status: Status) -> bool:
        return self._clock.wall() - status.st_ctime > _SETTLED

    async def sync_lock(self, lock: ContentLock) -> None:
        """Have the retention of *lock* and the content on disk when this returns, unless the durability is "fast"."""
        if self._arrivals.group is not None:
            try:
                with self._relied_upon(lock) as change:
                    await self._arrivals.group.commit(change)
            except OSError as error:
                raise self.folders.error(lock.key, error) from error

    def sync_lock_now(self, lock: ContentLock) -> None:
        """``sync_lock``, in this thread and by itself."""
        if self._arrivals.group is not None:
            try:
                with self._relied_upon(lock) as change:
                    if change.fd is not None:
                        self._files.sync(change.fd)
                    change.publish()
                    for folder in change.folders:
                        self._files.sync_folder(folder)
            except OSError as error:
                raise self.folders.error(lock.key, error) from error

    @contextmanager
    def _relied_upon(self, lock: ContentLock) -> Iterator[Change]:
        """What must be on disk before somebody drops another copy."""
        if lock.status is not None and self._has_settled(lock.status):
            yield Change(lock.sync_retention)
            return
        with self.open(lock.key) as stored:
            yield Change(lambda: [*lock.sync_retention(), *self.folders.above(stored.path)], fd=stored.fd)

    def removal(self, key: Key) -> Removal:
        """A context in which the object is about to be removed. See ``Removal``."""
        return Removal(self.folders, key, self._clock, self._pidlock)

    def remove(self, key: Key, *, not_after: float | None = None) -> bool:
        """Remove the object.

        Args:
            key: Whose.
            not_after: ``Clock.now()`` from which it must stay.

        Returns:
            False when it was not here.

        Raises:
            ContentLocked: Somebody relies on it, or a retention runs.
            TimedOut: *not_after* has passed.
            NotRegularFile: Something else stands where the object should be.
        """
        try:
            with self.removal(key) as removal:
                removal.unlink(not_after=not_after)
        except KeyNotPresent:
            return False
        except OSError as error:
            raise self.folders.error(key, error) from error
        return True


def _unpickle(files: Files, clock: Clock, settings: ContentSettings, layout: Layout) -> ContentStore:
    return ContentStore(files, clock=clock, settings=settings, layout=layout)
