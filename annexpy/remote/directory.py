"""A directory special remote (``type=directory``) as a Remote: a folder on a disk, laid out as git-annex does it.

::

    abc/def/KEY/KEY        the content, 444 in a 555 folder; read from xX/yY/KEY/KEY too
    tmp/annexpy/…          what is arriving, under names of its own

Nothing in it says which remote it is or what it should hold, nothing can be locked in it, and whoever mounts it
may take it away at any moment. So it is opened for each operation, what cannot be looked at is an error and never
"not present", and an empty folder where something is recorded counts as not mounted.

Source: git-annex-initremote(1), and the real git-annex 10.20261026 by running it (test_directory_interop).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from anyio import CapacityLimiter, move_on_after, to_thread

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ConnectFailed,
    InvalidInput,
    KeyNotPresent,
    NotLocked,
    Refused,
    TimedOut,
    UnknownUUID,
)
from annexpy.keys.key import Key
from annexpy.keys.storable import check_storable
from annexpy.remote.base import LockedCopy, Removed
from annexpy.remote.directory_folder import ARRIVING, RESERVE, TMP, Opened
from annexpy.remote.local_content import LocalDownload, LocalPut, LocalUpload
from annexpy.remote.refusal import Refusal
from annexpy.repo.content import ContentStore, StoredObject
from annexpy.repo.files import DiskFiles
from annexpy.repo.key_folder import KeyFolder
from annexpy.system import CLOCK
from annexpy.uuids import UUID

__all__ = ["DirectoryRemote", "Records"]

_OLD: Final = 7 * 86400.0
"""Seconds after which what somebody left in the middle of a put is thrown away."""
_DEADLINE: Final = 60.0
_BATCH: Final = 256

_T = TypeVar("_T")


class Records(Protocol):
    """What the branch says about the remote, for what the folder itself cannot say."""

    def anything(self) -> bool:
        """Something is recorded to be in the remote."""
        ...

    def in_chunks(self, key: Key) -> bool:
        """The remote has *key* in chunks, which are not looked for."""
        ...


class DirectoryRemote:
    """A folder that holds contents and nothing else. Pickles as its path, without records.

    Args:
        path: The folder. It must exist.
        uuid: Of the special remote; the folder does not tell.
        name: For messages; the path when None.
        cost: As git-annex's ``annex-cost``.
        clock: Time.
        reserve: Bytes to leave free, ``annex.diskreserve``.
        records: What is known about it; without, an empty folder is never believed to be empty.
        deadline: Seconds after which a file system that does not answer counts as away.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        uuid: UUID | None,
        name: str | None = None,
        cost: int = 100,
        clock: Clock = CLOCK,
        reserve: int = RESERVE,
        records: Records | None = None,
        deadline: float = _DEADLINE,
    ) -> None:
        self.path = os.path.abspath(path)
        self._uuid, self._name, self._cost = uuid, self.path if name is None else name, cost
        self._clock, self._reserve, self._records, self._deadline = clock, reserve, records, deadline
        self._opened: Opened | None = None
        self._swept = False

    def __reduce__(self) -> tuple[object, ...]:
        arguments = (self.path, self._uuid, self._name, self._cost, self._clock, self._reserve, self._deadline)
        return _again, arguments

    def __repr__(self) -> str:
        return f"<DirectoryRemote {self._name} {self.path}>"

    @property
    def uuid(self) -> UUID:
        """Of the special remote.

        Raises:
            UnknownUUID: None was given.
        """
        if self._uuid is None:
            raise UnknownUUID(f"{self._name}: a directory does not tell its UUID; give it, or the name of the remote")
        return self._uuid

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return self._cost

    # -- the folder -------------------------------------------------------------------------------

    async def connect(self) -> UUID:
        """See that the folder is there.

        Raises:
            ConnectFailed: It is not, or it is empty and should not be.
            UnknownUUID: As ``uuid``.
        """
        async with self._using():
            return self.uuid

    @asynccontextmanager
    async def _using(self, *, storing: bool = False) -> AsyncIterator[Opened]:
        """The folder as it is now, open. Whoever began before it was replaced goes on with the old one."""
        known = self._opened
        if known is not None and not known.try_hold():
            known = None  # the last who held it was a thread that nobody waited for
        try:
            opened = await self._within("answer of the file system", self._open, known)
            opened.hold()
        finally:
            if known is not None:
                known.release()
        try:
            # What was recorded meanwhile is in place by now, so the second look finds it.
            if (
                opened.empty
                and not self._may_be_empty(storing)
                and await self._within("answer of the file system", opened.is_empty)
            ):
                raise ConnectFailed(self._name, f"{self.path} is empty and should not be: is it mounted?")
            self._opened = opened
            yield opened
        finally:
            opened.release()
            if opened.closed and self._opened is opened:
                self._opened = None  # nobody shall be kept from unmounting it

    def _open(self, known: Opened | None) -> Opened:
        try:
            files = DiskFiles(self.path)
            try:
                if known is not None and known.is_same(files):
                    files.close()
                    return known
                return Opened(files, self._clock, self._reserve)
            except BaseException:
                files.close()
                raise
        except OSError as error:
            raise ConnectFailed(self._name, f"{self.path}: {error.strerror or error}") from error

    def _may_be_empty(self, storing: bool) -> bool:
        """Nothing was ever stored in it; or that is not known, and something is about to be *stored*."""
        return storing if self._records is None else not self._records.anything()

    async def _within(self, what: str, work: Callable[..., _T], *arguments: object) -> _T:
        """Do *work* in a thread of its own; network file systems may hang, and hold it for ever."""
        with move_on_after(self._deadline):
            return await to_thread.run_sync(work, *arguments, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        raise TimedOut(self._name, what, self._deadline)

    async def _in_thread(self, what: str, opened: Opened, work: Callable[..., _T], *arguments: object) -> _T:
        """As ``_within``, of what works on the folder; as long as the thread hangs in there, it stays open."""

        def held() -> _T:
            opened.hold()
            try:
                return work(opened, *arguments)
            finally:
                opened.release()

        return await self._within(what, held)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to give back: the folder is open while somebody uses it."""

    # -- presence ---------------------------------------------------------------------------------

    async def check_present(self, key: Key) -> bool:
        return (await self.check_present_many((key,)))[0]

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        found: list[bool] = []
        if keys:
            async with self._using() as opened:
                for start in range(0, len(keys), _BATCH):
                    batch = keys[start : start + _BATCH]
                    found += await self._in_thread("answer about a content", opened, self._look, batch)
        for key, present in zip(keys, found, strict=True):
            if not present:
                self._refuse_chunks(key)
        return found

    def _look(self, opened: Opened, keys: Sequence[Key]) -> list[bool]:
        store, found = opened.store, []
        for key in keys:
            present = store.present(key)
            if not present:  # it takes some things that go wrong for absence
                self._find(store, key)
            found.append(present)
        if not all(found):
            self._still_there(opened)
        return found

    def _still_there(self, opened: Opened) -> None:
        """Absence counts as long as the folder that was looked into is the one of that name.

        Raises:
            ConnectFailed: It is gone, or another one.
        """
        if self._open(opened) is not opened:
            raise ConnectFailed(self._name, f"{self.path} was replaced while it was looked into")

    def _find(self, store: ContentStore, key: Key) -> list[bytes]:
        """Every place where *key* is.

        Raises:
            NotRegularFile: Something else stands there, or a symbolic link on the way.
            AnnexError: It could not be looked at.
        """
        try:
            places = []
            for path, _ in store.folders.find_all(key):
                store.folders.files.close_fd(store.folders.files.open_read(path))
                places.append(path)
        except OSError as error:
            raise store.folders.error(key, error) from error
        return places

    def _refuse_chunks(self, key: Key) -> None:
        if self._records is not None and self._records.in_chunks(key):
            raise Refused("chunk", str(key), f"{self._name} has it in chunks, which git-annex itself has to read")

    # -- locks and removal ------------------------------------------------------------------------

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        """Refused on entering: nothing keeps others from removing files of a folder."""
        return Refusal(NotLocked(key, self._name, "a directory special remote has no locks"))

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Remove the file, if the deadline has not passed in the moment before that.

        Nothing can be held against somebody who stores it again, or is reading it, meanwhile.
        """
        try:
            at = None if deadline is None else deadline.at
            if at is not None and at > self._clock.now() + MAX_REMOVAL_AHEAD:
                raise InvalidInput("removal deadline", at, f"at most {MAX_REMOVAL_AHEAD} s ahead")
            async with self._using() as opened:
                found = await self._in_thread("end of a removal", opened, self._remove, key, at)
            if not found:
                self._refuse_chunks(key)
        except AnnexError as error:
            return Removed(ok=False, failed={self.uuid: error})
        return Removed(ok=True, uuids=frozenset((self.uuid,)))

    def _remove(self, opened: Opened, key: Key, not_after: float | None) -> bool:
        store = opened.store
        places = self._find(store, key)
        if not places:
            self._still_there(opened)
        try:
            for path in places:
                self._remove_at(store, key, path, not_after)
        except OSError as error:
            raise store.folders.error(key, error) from error
        return bool(places)

    def _remove_at(self, store: ContentStore, key: Key, path: bytes, not_after: float | None) -> None:
        folders = store.folders
        try:
            folder = KeyFolder(folders, folders.files, path, None)
        except FileNotFoundError:
            return
        gone = False
        try:
            if folder.content(key, self._name) is not None:
                if not_after is not None and self._clock.now() >= not_after:
                    raise TimedOut(self._name, "removal before its deadline", 0)
                folder.remove(folder.name)
            gone = folders.files.prune(folder.path)
        finally:
            folder.close(gone=gone)

    # -- contents ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[LocalUpload]:
        """Start storing *key*, always from its first byte: what is cut off is thrown away.

        Raises:
            InvalidKey: A key that annexpy does not write.
            NoSpace: It would leave less free than the reserve.
            ConnectFailed: The folder is not there.
        """
        async with self._using(storing=True) as opened:
            if not self._swept:
                self._swept = True
                await self._in_thread("answer of the file system", opened, self._sweep)
            async with LocalPut(_Place(self, opened), key, associated_file, None) as upload:
                yield upload

    def _sweep(self, opened: Opened) -> None:
        """Throw away what was left long ago by whoever was killed in the middle of a put."""
        arriving = opened.store.folders.existing(ARRIVING)
        before = self._clock.wall() - _OLD
        for name in [] if arriving is None else arriving.names():
            assert arriving is not None
            status = arriving.status(name)
            if status is not None and status.st_mtime < before:
                arriving.unlink(name)

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[LocalDownload]:
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        async with self._using() as opened:
            try:
                stored = await self._in_thread("content", opened, self._read, key)
            except KeyNotPresent:
                self._refuse_chunks(key)
                raise
            with stored:
                yield LocalDownload(self._name, self.uuid, stored, offset, end)

    def _read(self, opened: Opened, key: Key) -> StoredObject:
        try:
            return opened.store.open(key)
        except KeyNotPresent:
            self._still_there(opened)
            raise

    @property
    def ranges(self) -> bool:
        return True


class _Place:
    """The folder, as ``LocalPut`` stores in it."""

    __slots__ = ("_remote", "store")

    def __init__(self, remote: DirectoryRemote, opened: Opened) -> None:
        self._remote, self.store = remote, opened.store

    @property
    def name(self) -> str:
        return self._remote.name

    @property
    def uuid(self) -> UUID:
        return self._remote.uuid

    def check_accepts(self, key: Key) -> None:
        check_storable(key)

    async def check_present(self, key: Key) -> bool:
        if self.store.folders.files.absent(TMP):
            return False  # nothing was ever stored
        return await self._remote.check_present(key)

    async def record_present(self, key: Key) -> None:
        """Have it on disk. Who stores in a special remote records it in his own repository."""
        if not self.store.settled(key):  # git-annex syncs nothing
            await self.store.sync_content(key)


def _again(
    path: str, uuid: UUID | None, name: str, cost: int, clock: Clock, reserve: int, deadline: float
) -> DirectoryRemote:
    return DirectoryRemote(path, uuid=uuid, name=name, cost=cost, clock=clock, reserve=reserve, deadline=deadline)
