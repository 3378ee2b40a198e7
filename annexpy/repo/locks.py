"""Content locks: what keeps an object from being removed, and the removal of one.

As version 10 repositories have them (fact sheet repository-format, section 2, and traces of git-annex
10.20261026). Beside an object lie, in its key directory:

* ``.lck``: shared while somebody relies on the content, exclusive while somebody removes it;
* ``.rtm``: the retention, the moment until which the content stays even when its locker is gone;
* ``.rtl``: the lock of whoever writes the retention.

Where annexpy goes further than git-annex: a retention whose locker vanished survives a later lock and
unlock by somebody else, and it does not end before its time where somebody sets the clock (``retention``).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from annexpy.clock import LOCK_RETENTION, Clock
from annexpy.errors import (
    ContentLocked,
    KeyNotPresent,
    NotLocked,
    TimedOut,
    UnsupportedRepository,
)
from annexpy.keys.key import Key
from annexpy.repo.files import Status
from annexpy.repo.folders import OBJECTS, AnnexFolders
from annexpy.repo.key_folder import KeyFolder
from annexpy.repo.lockfile import HeldLock
from annexpy.repo.pidlock import PidLock
from annexpy.repo.retention import NEVER, NONE, Moments, Retention

__all__ = ["ContentLock", "Removal"]


def _version_10(folders: AnnexFolders) -> None:
    version = folders.settings.version
    if version < 10:
        raise UnsupportedRepository(
            f"{folders.where}: annex.version is {version}, which locks contents in another way: run git annex upgrade"
        )


class ContentLock:
    """A content that nobody may remove: a shared lock, and mostly a retention for the case that we vanish.

    Attributes:
        key: Of the content.
        expires: ``Clock.now()`` until which the retention keeps the content in any case.
        status: Of the object, when it was looked at last under the lock; None when it was not there.
    """

    __slots__ = ("_before", "_clock", "_first", "_key_folder", "_lock", "_own", "_retained", "expires", "key", "status")

    def __init__(self, key: Key, folder: KeyFolder, lock: HeldLock, clock: Clock) -> None:
        self.key, self._key_folder, self._lock, self._clock = key, folder, lock, clock
        self.status: Status | None = None
        self._own = self._before = NEVER
        self._first: tuple[int, int, int] | None = None
        self._retained = False
        self.expires = clock.now() + LOCK_RETENTION

    @classmethod
    def take(
        cls,
        folders: AnnexFolders,
        key: Key,
        clock: Clock,
        pidlock: PidLock | None = None,
        *,
        retention: bool = True,
        look: bool = True,
    ) -> ContentLock:
        """Lock the content of *key*. Any number may.

        Args:
            folders, key, clock, pidlock: What and where.
            retention: Keep the content for a while when we vanish. Needless, and dear, where nobody outside of
                this process relies on the lock: what ends with the process cannot remove anything later.
            look: Make sure that the content is there. Else ``held`` it must be, before anything relies on the lock.

        Raises:
            NotLocked: It is not here, or somebody is removing it.
            NotRegularFile: Something else stands where the object should be.
            UnsupportedRepository: A repository version that locks in another way.
        """
        _version_10(folders)
        for folder in KeyFolder.of(folders, key, pidlock):
            try:
                lock = folder.take(b".lck", exclusive=False)
                if lock is None:
                    raise NotLocked(key, folders.where, f"it is being removed by {folder.holder(b'.lck')}")
            except FileNotFoundError:  # somebody has just removed it all
                folder.close()
                continue
            except BaseException:
                folder.close()
                raise
            content_lock = cls(key, folder, lock, clock)
            try:
                if look:
                    content_lock.status = folder.content(key, folders.where)
                    if content_lock.status is None:
                        content_lock.release()
                        continue
                    content_lock._first = _identity(content_lock.status)
                if retention:
                    content_lock._retained = True
                    content_lock._write_retention()
                    folder.freeze()  # without, it is given back in a moment
            except BaseException:
                content_lock._let_go()
                raise
            return content_lock
        raise NotLocked(key, folders.where, "it is not present")

    def _let_go(self) -> None:
        try:
            self._lock.release()
        finally:
            self._key_folder.close()

    def _write_retention(self) -> None:
        folder, clock = self._key_folder, self._clock
        with folder.changing_retention(clock) as found:
            own, vanished = Moments.of(clock, LOCK_RETENTION), found.vanished
            if found.until.left(Moments.of(clock)) > 0 and not self._lock.shared_with_others:
                # Nobody holds a lock, yet a retention runs: its locker vanished, and still wants it kept.
                vanished = found.whole
            folder.retain(Retention(found.until.later(own), vanished), before=found)
            self._own, self._before = own, found.until

    def held(self) -> bool:
        """The lock still keeps others out, and the object is as it was when it was looked at first.

        Its ``status`` is that of now then. One that is a hard link to an unlocked file may be written to at any time.
        """
        self.status = self._key_folder.regular() if self._lock.stands else None
        if self.status is None:
            return False
        self._first = self._first or _identity(self.status)
        return self._first == _identity(self.status)

    @property
    def path(self) -> bytes:
        """Of the object, below ``annex/objects``."""
        return self._key_folder.path + b"/" + self._key_folder.name

    def sync_retention(self) -> Sequence[bytes]:
        """Bring the retention to the disk, all but the directory entries; the folder that has those.

        Blocks. Without it, a power cut frees the content although somebody was told that it is locked.
        """
        folder = self._key_folder
        for suffix in (b".rtm", b".rtl"):
            try:
                fd = folder.files.open_read(folder.name + suffix)
            except FileNotFoundError:
                continue
            try:
                folder.files.sync(fd)
            finally:
                folder.files.close_fd(fd)
        return (OBJECTS + b"/" + folder.path,)

    def release(self) -> None:
        """Unlock in order: the content may be removed at once. Idempotent."""
        folder, lock = self._key_folder, self._lock
        if not lock.stands:
            self._let_go()
            return
        try:
            if lock.become_exclusive():
                alone: HeldLock | None = lock
            else:  # whoever lets go last, of all who do it now, is alone
                lock.release()
                alone = folder.take(b".lck", exclusive=True)
            try:
                if self._retained:
                    self._take_back(alone is not None)
            finally:
                if alone is not None:
                    folder.give_back(b".lck", alone)
        finally:
            folder.close()

    def _take_back(self, alone: bool) -> None:
        """Remove our own retention, but not what others need.

        Sharers that are still here locked before us: their retention is the one that ours replaced. Those
        that vanished are noted.
        """
        folder, own = self._key_folder, self._own
        with folder.changing_retention(self._clock) as found:
            needed = found.vanished if alone else found.vanished.later(self._before)
            until = Moments(
                *(theirs if last == ours else last for last, ours, theirs in zip(found.until, own, needed, strict=True))
            )
            if until.left(Moments.of(self._clock)) > 0:
                folder.retain(found._replace(until=until), before=found)
            elif alone or found.until.wall == own.wall:
                folder.forget_retention()

    def vanish(self) -> None:
        """Let go without unlocking, as a client that hung up: the retention keeps the content until ``expires``."""
        folder, lock = self._key_folder, self._lock
        if not self._retained:
            self.release()
            return
        try:
            if lock.stands:
                with folder.changing_retention(self._clock) as found:
                    folder.retain(found._replace(vanished=found.whole), before=found)
        finally:
            self._let_go()


def _identity(status: Status) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class Removal:
    """An object that is about to be removed: a context in which nobody can lock it, or rely on it.

    ``unlink`` it inside, or not. Leaving clears away lock files and empty directories.
    """

    __slots__ = ("_clock", "_empty", "_folders", "_held", "_key", "_pidlock", "_retained")

    def __init__(self, folders: AnnexFolders, key: Key, clock: Clock, pidlock: PidLock | None = None) -> None:
        self._folders, self._key, self._clock, self._pidlock = folders, key, clock, pidlock
        self._empty = self._retained = False
        self._held: list[tuple[KeyFolder, HeldLock]] = []

    def __enter__(self) -> Removal:
        self.enter()
        return self

    def enter(self) -> None:
        """Lock it. ``leave`` it then.

        Raises:
            KeyNotPresent: It is not here.
            ContentLocked: Somebody holds a content lock, or a retention runs.
            NotRegularFile: Something else stands where the object should be.
        """
        folders, key = self._folders, self._key
        _version_10(folders)
        try:
            for folder in KeyFolder.of(folders, key, self._pidlock):
                self._lock(folder)
            if not self._held:
                raise KeyNotPresent(key, folders.where)
        except BaseException:
            self.leave()
            raise

    def _lock(self, folder: KeyFolder) -> None:
        try:
            there = folder.content(self._key, self._folders.where) is not None
            lock = folder.take(b".lck", exclusive=True) if there else None
            if there and lock is None:
                raise ContentLocked(self._key, self._folders.where, f"{folder.holder(b'.lck')} relies on it")
        except FileNotFoundError:  # somebody else removed it all
            lock = None
        except BaseException:
            folder.close()
            raise
        if lock is None:
            folder.close()
            return
        self._held.append((folder, lock))
        retention = folder.retention(self._clock)
        if retention is NONE:
            return
        self._retained = True
        left = retention.whole.left(Moments.of(self._clock))
        if left >= 0:
            raise ContentLocked(self._key, self._folders.where, f"its lock expires in {left:.0f} s")

    def check_time(self, not_after: float | None) -> None:
        """Raises TimedOut when *not_after* has passed."""
        if not_after is not None and self._clock.now() >= not_after:
            raise TimedOut(self._folders.where, "removal before its deadline", 0)

    def unlink(self, *, not_after: float | None = None, only: bytes | None = None) -> None:
        """Remove it.

        Args:
            not_after: ``Clock.now()`` from which it must stay.
            only: The path of one object, below the git directory, where another one may be good.

        Raises:
            TimedOut: It is too late; nothing was removed.
            ContentLocked: The lock was lost.
        """
        for _, lock in self._held:
            if not lock.stands:
                raise ContentLocked(self._key, self._folders.where, "its lock file was replaced")
        self.check_time(not_after)
        for folder, _ in self._held:
            if only is not None and only != b"/".join((OBJECTS, folder.path, folder.name)):
                continue
            folder.remove(folder.name)
            if self._retained:
                folder.forget_retention()
            self._empty = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Unlock it, and clear away what it leaves behind. Idempotent."""
        objects = self._folders.existing(OBJECTS)
        while self._held:
            folder, lock = self._held.pop()
            gone = False
            try:
                folder.give_back(b".lck", lock)
                if self._empty and objects is not None:
                    gone = objects.prune(folder.path)
            finally:
                folder.close(gone=gone)
