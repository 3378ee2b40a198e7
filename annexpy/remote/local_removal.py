"""Contents on their way out of a repository on this machine for good.

First it is recorded that they are gone, then they go: a kill in between leaves copies that nobody counts on. In
the other order, which is git-annex's, it leaves records of copies that are not there. Some contents are locked
together, recorded by one write, and then removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from annexpy.errors import AnnexError, KeyNotPresent, UnknownUUID
from annexpy.keys.key import Key
from annexpy.remote.local_content import LocalDownload, LocalUpload, StoringPlace
from annexpy.remote.local_repository import LocalRepository
from annexpy.remote.trash import trash_bin
from annexpy.repo.locks import Removal
from annexpy.uuids import UUID

__all__ = ["LocalRemoval", "TrashBin"]

log = logging.getLogger(__name__)

_TOGETHER: Final = 32
"""Contents that are locked at once, at two descriptors each."""


class RecordingPlace(StoringPlace, Protocol):
    """What is asked of the Remote whose contents go."""

    @property
    def repository(self) -> LocalRepository: ...

    def record_many(self, keys: Sequence[Key], *, present: bool) -> None: ...

    async def sync_records(self) -> None: ...

    def beside(self, repository: LocalRepository) -> TrashPlace:
        """*repository* as a Remote that is as durable."""
        ...


class TrashPlace(Protocol):
    """What is asked of the Remote that keeps them."""

    @property
    def uuid(self) -> UUID: ...

    @property
    def repository(self) -> LocalRepository: ...

    def put(self, key: Key) -> AbstractAsyncContextManager[LocalUpload]: ...

    async def aclose(self) -> None: ...


class LocalRemoval:
    """Removes contents of *local*, once they are in its *trash* bin where there is one."""

    def __init__(self, local: RecordingPlace, trash: TrashBin | None) -> None:
        self._local, self._trash = local, trash

    async def remove(self, keys: Sequence[Key], not_after: float | None) -> dict[Key, AnnexError]:
        """Remove the contents of *keys* before *not_after*; of those that stay, why.

        What was not here is gone as well.
        """
        failed: dict[Key, AnnexError] = {}
        once = list(dict.fromkeys(keys))
        for start in range(0, len(once), _TOGETHER):
            await self._some(once[start : start + _TOGETHER], not_after, failed)
        return failed

    async def _some(self, keys: Sequence[Key], not_after: float | None, failed: dict[Key, AnnexError]) -> None:
        held: dict[Key, Removal] = {}
        gone: list[Key] = []  # according to our records
        removed: list[Key] = []
        try:
            await self._record(keys, not_after, held, gone, failed)
            while gone:
                key = gone[-1]
                try:
                    if key in held:
                        held[key].unlink(not_after=not_after)
                        removed.append(key)
                    elif self._local.store.present(key):  # it came before we recorded that it is not here
                        self._note((key,), present=True)
                except (AnnexError, OSError) as error:
                    self._still_here((key,))
                    failed[key] = self._error(key, error)
                gone.pop()
        except BaseException:
            self._still_here(gone)
            raise
        finally:
            self._note(removed, present=False)  # once more: somebody may have looked and recorded it meanwhile
            for key, removal in held.items():
                try:
                    removal.leave()
                except OSError as error:
                    failed.setdefault(key, self._error(key, error))

    async def _record(
        self,
        keys: Sequence[Key],
        not_after: float | None,
        held: dict[Key, Removal],
        gone: list[Key],
        failed: dict[Key, AnnexError],
    ) -> None:
        """Lock *keys*, and have it survive us that they go."""
        for key in keys:
            try:
                if self._may_go(key, not_after, held):
                    if self._trash is not None and key in held:
                        await self._trash.keep(key)
                    gone.append(key)
            except (AnnexError, OSError) as error:
                failed[key] = self._error(key, error)
        if gone:
            try:
                self._local.record_many(gone, present=False)
                await self._local.sync_records()
            except AnnexError as error:
                self._still_here(gone)
                failed.update(dict.fromkeys(gone, error))
                gone.clear()

    def _may_go(self, key: Key, not_after: float | None, held: dict[Key, Removal]) -> bool:
        """Whether it has to be recorded that *key* goes; locked then, if it is here."""
        local = self._local
        removal = local.store.removal(key)
        try:
            removal.enter()
        except KeyNotPresent:
            # Nothing to record, unless a record says otherwise.
            return local.uuid in local.repository.branch.locations(key).present
        held[key] = removal
        removal.check_time(not_after)
        return True

    def _still_here(self, keys: Iterable[Key]) -> None:
        for key in keys:
            try:
                self._note((key,), present=self._local.store.present(key))
            except AnnexError as error:
                log.warning("%s: recorded as removed, and may still be here: %s", key, error)
        try:
            self._local.repository.branch.sync_now(durable=False)
        except AnnexError as error:  # they are queued, and the next to write them down meets the same
            log.warning("%s: %s", self._local.name, error)

    def _note(self, keys: Sequence[Key], *, present: bool) -> None:
        """Record how it ended, which nothing that goes wrong with records changes any more."""
        try:
            self._local.record_many(keys, present=present)
        except AnnexError as error:  # they are queued, and the next to write them down meets the same
            log.warning("%s: %s", self._local.name, error)

    def _error(self, key: Key, error: AnnexError | OSError) -> AnnexError:
        return error if isinstance(error, AnnexError) else self._local.store.folders.error(key, error)


class TrashBin:
    """The repository that keeps what *local* gives up (``annex.trashbin``). Opened when it is needed."""

    def __init__(self, local: RecordingPlace) -> None:
        self._local = local
        self._opened: TrashPlace | None = None

    async def keep(self, key: Key) -> None:
        """Have the trash bin hold the content, and say so in our branch, as git-annex does before it removes."""
        local, trash = self._local, self._trash()
        async with trash.put(key) as upload:
            if upload.already is None:
                with local.store.open(key) as stored:
                    await upload.start(max(0, stored.size - upload.offset))
                    download = LocalDownload(local.name, local.uuid, stored, upload.offset)
                    await upload.copy(download)
                    await upload.finish(download.valid)
        local.repository.branch.set_present(key, trash.uuid, True)

    def _trash(self) -> TrashPlace:
        if self._opened is None:
            from annexpy.repo.repository import Repository  # only where there is a trash bin

            local = self._local
            path, uuid = trash_bin(local.repository.config, local.repository.path)
            trash = Repository.open(path)
            if trash.uuid == local.uuid or uuid not in (None, trash.uuid):
                raise UnknownUUID(f"annex.trashbin: {path} is {trash.uuid}, not {uuid or 'another repository'}")
            self._opened = local.beside(trash)
        return self._opened

    async def aclose(self) -> None:
        trash, self._opened = self._opened, None
        if trash is not None:
            await trash.aclose()
            trash.repository.close()
