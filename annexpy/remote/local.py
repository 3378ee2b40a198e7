"""A repository on this machine as a Remote.

It records for its own UUID what it stores, before it says so, and what it removes, before it does so:
callers wrap other remotes in ``Recording``, never this one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from anyio import lowlevel, to_thread

from annexpy.clock import MAX_REMOVAL_AHEAD, Deadline
from annexpy.errors import (
    AccessDenied,
    AnnexError,
    InvalidInput,
    KeyNotPresent,
)
from annexpy.keys.backend import is_secure
from annexpy.keys.key import Key
from annexpy.keys.storable import check_storable
from annexpy.remote.base import Removed, is_open_end
from annexpy.remote.local_content import LocalDownload, LocalLock, LocalPut, LocalUpload
from annexpy.remote.local_removal import LocalRemoval, TrashBin
from annexpy.remote.local_repository import LocalRepository
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles
from annexpy.repo.locks import ContentLock
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.repo.worktree import WorkTreeChanges

__all__ = ["Local", "LocalDownload", "LocalLock", "LocalRepository", "LocalUpload"]

log = logging.getLogger(__name__)

_BATCH: Final = 256


class Local:
    """A repository as a Remote. Pickles with its repository; works over event loops and forks.

    Attributes:
        repository: The repository; closing it is its owner's business.
    """

    def __init__(
        self,
        repository: LocalRepository,
        *,
        durability: Durability = "full",
        name: str | None = None,
        cost: int = 100,
        client: UUID | None = None,
        commit: bool = True,
    ) -> None:
        """Show *repository* as a Remote.

        Args:
            repository: What to show.
            durability: "full": stored means on disk, content and location line, before anybody is told.
                "fast": it survives the end of this process, not a power cut.
            name: For messages; its path when None.
            cost: As git-annex's ``annex-cost``.
            client: Who is served, for the transfer locks that git-annex sees and for what becomes of his locks.
            commit: Commit the git-annex branch in ``aclose``; a server that does it for many says False.
        """
        self.repository = repository
        self._durability: Durability = durability
        self._name = repository.path if name is None else name
        self._cost, self._client, self._commit = cost, client, commit
        self._uuid = repository.uuid
        self._store = repository.content.variant(
            durability=durability, recorded=self._stored, sync_records=repository.branch.sync
        )
        self._trash = TrashBin(self) if repository.config.get("annex.trashbin") else None
        self._changed: dict[Key, None] = {}
        self._recorded = False

    def __reduce__(self) -> tuple[object, ...]:
        return (_unpickle, (self.repository, self._durability, self._name, self._cost, self._client, self._commit))

    def __repr__(self) -> str:
        return f"<Local {self._name} {self._uuid}>"

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return self._cost

    @property
    def store(self) -> ContentStore:
        """The content store, which records what it stores for this remote's UUID."""
        return self._store

    # -- records --

    def _stored(self, key: Key) -> None:
        self.record(key, present=True)
        if self._durability == "fast":
            self.repository.branch.sync_now(durable=False)

    def record(self, key: Key, *, present: bool) -> None:
        """Record whether the content of *key* is here. ``sync_records`` before anybody is told."""
        self.record_many((key,), present=present)

    def record_many(self, keys: Sequence[Key], *, present: bool) -> None:
        """As ``record``, of each of *keys*."""
        self.repository.branch.set_present_many(keys, self._uuid, present)
        self._recorded = True
        if not self.repository.bare:
            self._changed.update(dict.fromkeys(keys))

    async def record_present(self, key: Key) -> None:
        """Record, as durably as contents are stored, that the content of *key* was found to be here.

        Raises:
            KeyNotPresent: It was removed meanwhile.
        """
        if self._durability != "fast" and not (
            self._store.settled(key) and self._uuid in self.repository.branch.locations(key).present
        ):
            # Whoever stored it was killed, or his sync failed, or he syncs nothing, like git-annex.
            await self._store.sync_content(key)
            if not self._store.present(key):
                raise KeyNotPresent(key, self._name)
        self.record(key, present=True)
        await self.sync_records()

    async def sync_records(self) -> None:
        """Have what was recorded survive: a power cut, or with "fast" the end of this process."""
        if self._durability == "fast":
            self.repository.branch.sync_now(durable=False)
        else:
            await self.repository.branch.sync()

    # -- presence --

    async def check_present(self, key: Key) -> bool:
        if self._store.settings.thin:  # may have to read the object
            return await to_thread.run_sync(self._store.present, key)
        return self._store.present(key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        present: list[bool] = []
        for start in range(0, len(keys), _BATCH):
            if self._store.settings.thin:
                present += [await self.check_present(key) for key in keys[start : start + _BATCH]]
            else:
                present += self._store.present_many(keys[start : start + _BATCH])
                await lowlevel.checkpoint()
        return present

    # -- keeping and removing --

    @asynccontextmanager
    async def lock_content(self, key: Key, *, retention: bool = True) -> AsyncIterator[LocalLock]:
        """Keep the content. Leaving unlocks it, with two exceptions.

        An open end (``is_open_end``) says that whoever relies on the lock may not have come to unlock it, and where a
        *client* is served, a cancellation or an interrupt says that we do: he may have asked for a removal elsewhere
        already, which relies on it. Then the content stays locked until the retention is over.

        Args:
            key: Of the content.
            retention: False only where what relies on the lock cannot outlive this process.
        """
        if self._store.settings.thin:
            await self.check_present(key)  # reads the object, in a thread, so that locking need not
        async with self._store.exclusion():
            lock = self._store.lock(key, retention=retention)
        try:
            if retention:
                await self._store.sync_lock(lock)
            yield LocalLock(self._uuid, lock)
        except BaseException as error:
            stopped = self._client is not None and not isinstance(error, Exception)  # cancelled, or interrupted
            self._let_go(lock.vanish if stopped or is_open_end(error) else lock.release)
            raise
        self._let_go(lock.release)

    def _let_go(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            # Whoever held it is done; at worst its retention keeps the content for ten more minutes.
            log.warning("%s: a content lock could not be given back: %s", self._name, error)

    @property
    def waits(self) -> bool:
        """Locking may take its time: for another process with ``annex.pidlock``, to read with ``annex.thin``."""
        return self._store.settings.pidlock or self._store.settings.thin

    @property
    def removes_at_once(self) -> bool:
        """Removing waits for nobody: nothing is synced, and nothing is kept in a trash bin."""
        return self._durability == "fast" and not self.waits and self._trash is None

    def hold(self, key: Key) -> ContentLock:
        """Lock *key* without retention, where nothing *waits*. It counts while it ``holds``. ``release`` it.

        Raises:
            NotLocked …: As ``ContentLock.take``.
        """
        return self._store.hold(key)

    def holds(self, lock: ContentLock) -> bool:
        """What ``hold`` locked keeps others out, and is the content."""
        return self._store.holds(lock)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return (await self.remove_content_many((key,), deadline=deadline))[0]

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        not_after = None if deadline is None else deadline.at
        try:
            if not_after is not None and not_after > self.repository.clock.now() + MAX_REMOVAL_AHEAD:
                raise InvalidInput("removal deadline", not_after, f"at most {MAX_REMOVAL_AHEAD} s ahead")
            async with self._store.exclusion():
                failed = await LocalRemoval(self, self._trash).remove(keys, not_after)
        except AnnexError as error:
            failed = dict.fromkeys(keys, error)
        gone = Removed(ok=True, uuids=frozenset((self._uuid,)))
        return [Removed(ok=False, failed={self._uuid: failed[key]}) if key in failed else gone for key in keys]

    def beside(self, repository: LocalRepository) -> Local:
        """Another repository that is as durable, for what this one does there."""
        return Local(repository, durability=self._durability, client=self._uuid)

    # -- contents --

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[LocalUpload]:
        """Start storing *key*.

        Raises:
            InvalidKey: A key that annexpy does not write (``check_storable``); with ``annexpy.verifiable``, also one
                whose content nobody can verify.
            AccessDenied: ``annex.securehashesonly`` is set and the key has no secure hash.
            TransferInProgress, NoSpace: As ``ContentStore.receive``.
        """
        return LocalPut(self, key, associated_file, self._client)

    def check_accepts(self, key: Key) -> None:
        """Say whether content of *key* may come in; raises as ``put``."""
        config = self.repository.config
        check_storable(key, allow_unverifiable=not config.get_bool("annexpy.verifiable"))
        if config.get_bool("annex.securehashesonly") and not is_secure(key):
            raise AccessDenied(f"{self._name}: annex.securehashesonly is set and {key} has no secure hash")

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[LocalDownload]:
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        if self._store.settings.thin and not await self.check_present(key):
            raise KeyNotPresent(key, self._name)
        with self._store.open(key) as stored:
            yield LocalDownload(self._name, self._uuid, stored, offset, end)

    async def update_work_tree(self) -> WorkTreeChanges | None:
        """Fill the unlocked files of what was stored since the last call, and empty those of what was removed.

        One pass over the git index for all of them; ``aclose`` does it too. None in a bare repository, and
        when nothing was stored or removed.

        Raises:
            UnsupportedRepository: The git index is of a kind that annexpy does not update.
        """
        changed, self._changed = self._changed, {}
        work_tree = self.repository.work_tree
        if not changed or work_tree is None:
            return None
        return await to_thread.run_sync(self._update_work_tree, work_tree, list(changed))

    def _update_work_tree(self, path: bytes, keys: list[Key]) -> WorkTreeChanges:
        from annexpy.repo.worktree import WorkTree  # not for bare repositories

        repository = self.repository
        tree, index_files = DiskFiles(path), DiskFiles(repository.worktree_git_dir)
        try:
            return WorkTree(repository.files, index_files, tree, self._store).update(keys)
        finally:
            index_files.close()
            tree.close()

    async def aclose(self) -> None:
        """Bring the branch, and the unlocked files of the work tree, up to date with what was done."""
        try:
            if self._commit and (self._recorded or self.repository.branch.queued):
                await self.repository.branch.commit()
                self._recorded = False
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            await self.update_work_tree()
        except (AnnexError, OSError) as error:
            # The contents are stored and recorded; what is missing can be made up for.
            log.warning(
                "%s: unlocked files were not updated: %s; run git annex fsck or git annex fix", self._name, error
            )
        if self._trash is not None:
            await self._trash.aclose()
        self._store.close()


def _unpickle(
    repository: LocalRepository, durability: Durability, name: str, cost: int, client: UUID | None, commit: bool
) -> Local:
    return Local(repository, durability=durability, name=name, cost=cost, client=client, commit=commit)
