"""A repository on this machine as a Remote, opened when it is first used."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, NoReturn, Self

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectFailed, NotARepository, UnknownUUID
from annexpy.keys.key import Key
from annexpy.remote.base import Download, LockedCopy, Removed, Upload
from annexpy.remote.local import Local
from annexpy.remote.local_repository import LocalRepository
from annexpy.repo.discovery import as_git_finds, find_exactly
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

__all__ = ["LocalPlace"]

log = logging.getLogger(__name__)

_LOOK: Final = 1.0
"""Seconds between two looks whether it is still the repository that was opened."""
_FORMER: Final = 4
"""Replaced ones whose records are committed in the end; of those before, what was not is in their spools."""


class LocalPlace:
    """A repository on this machine that is opened when it is first used, and again after it was away.

    What was opened is what it was: of a repository that was moved away, and has another one in its place now, the
    files would still be there. So it is looked at once a second whether it stands at its path and has its UUID.

    Pickles as its path. A forked child may go on using it.

    Args:
        path: The repository itself: a bare one, the top of a work tree, or its ``.git``. Directories inside
            a work tree do not count, or a misspelt path would mean the repository around it.
        uuid: Which repository it must be.
        name: For messages.
        cost: As git-annex's ``annex-cost``.
        durability: As for ``Local``.
        client: Who puts.
        absent: What to say when there is no such directory.
    """

    def __init__(
        self,
        path: str,
        *,
        uuid: UUID | None = None,
        name: str = "",
        cost: int = 100,
        durability: Durability = "full",
        client: UUID | None = None,
        absent: str = "",
    ) -> None:
        self._absent = absent or "no such directory"
        self._path, self._expected, self._name = os.path.abspath(path), uuid, name or path
        self._cost, self._durability, self._client = cost, durability, client
        self._local: Local | None = None
        self._looked = 0.0
        self._former: deque[Local] = deque(maxlen=_FORMER)

    def __reduce__(self) -> tuple[object, ...]:
        return _place_again, (self._path, self._expected, self._name, self._cost, self._durability, self._client)

    def __repr__(self) -> str:
        return f"<LocalPlace {self._path}>"

    @property
    def uuid(self) -> UUID:
        """Of the repository.

        Raises:
            UnknownUUID: None was given, and there is nothing at the path.
        """
        if self._expected is None:
            try:
                return self._opened().uuid
            except AnnexError as error:
                raise UnknownUUID(f"{self._name}: its UUID is not known: {error}") from error
        return self._expected

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return self._cost

    @property
    def local(self) -> Local:
        """The repository behind it, opened.

        Raises:
            ConnectFailed: No repository there.
            UnknownUUID: Another one.
        """
        return self._opened()

    @property
    def is_open(self) -> bool:
        """It has been used, and not been closed since."""
        return self._local is not None

    def _opened(self) -> Local:
        if self._local is not None:
            now = self._local.repository.clock.now()
            if not 0 <= now - self._looked < _LOOK:
                self._looked = now
                if not _is_still(self._local.repository):
                    log.warning("%s: %s is not the repository any more that was opened", self._name, self._path)
                    self._former.append(self._local)  # whoever is using it goes on
                    self._local = None
        if self._local is None:
            try:
                place = find_exactly(as_git_finds(self._path))
                if place is None:
                    exists = os.path.isdir(self._path)
                    raise NotARepository(self._path, "not a git repository" if exists else self._absent)
                repository = Repository(place)
            except (NotARepository, OSError) as error:
                reason = error.reason if isinstance(error, NotARepository) else error.strerror or "cannot be opened"
                raise ConnectFailed(self._name, reason) from error
            if self._expected is not None and repository.uuid != self._expected:
                found = repository.uuid
                repository.close()
                raise UnknownUUID(f"{self._name}: expected repository {self._expected}, found {found}")
            self._local = Local(
                repository, durability=self._durability, name=self._name, cost=self._cost, client=self._client
            )
            self._looked = repository.clock.now()
        return self._local

    async def connect(self) -> UUID:
        """Open it; its UUID.

        Raises:
            ConnectFailed: No repository there.
            UnknownUUID: Another one.
        """
        return self._opened().uuid

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        local, self._local = self._local, None
        while self._former:
            one = self._former.popleft()
            try:
                await one.aclose()
            except (AnnexError, OSError) as error:
                log.warning("%s: it was replaced: %s", self._name, error)
            finally:
                one.repository.close()
        if local is not None:
            try:
                await local.aclose()
            finally:
                local.repository.close()

    # -- Remote: whatever cannot be opened fails on entering, as a wire would -------------------------

    async def check_present(self, key: Key) -> bool:
        return await self._opened().check_present(key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await self._opened().check_present_many(keys)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return await self._opened().remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        return await self._opened().remove_content_many(keys, deadline=deadline)

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        try:
            return self._opened().lock_content(key)
        except AnnexError as error:
            return _Unopened(error)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        try:
            return self._opened().put(key, associated_file=associated_file)
        except AnnexError as error:
            return _Unopened(error)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        try:
            return self._opened().get(key, offset=offset, end=end, associated_file=associated_file)
        except AnnexError as error:
            return _Unopened(error)


def _is_still(repository: LocalRepository) -> bool:
    """It stands where it was opened, and is called what it was called."""
    try:
        there, ours = os.stat(repository.files.path), repository.files.status(b"")
        if ours is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            return False
        repository.config.refresh()
    except (OSError, AnnexError):
        return False  # opening it again tells
    return repository.config.get("annex.uuid") == repository.uuid


class _Unopened:
    """A context that cannot be entered."""

    __slots__ = ("_error",)

    def __init__(self, error: AnnexError) -> None:
        self._error = error

    async def __aenter__(self) -> NoReturn:
        raise self._error

    async def __aexit__(self, *_: object) -> None:
        """Never entered, never left."""


def _place_again(
    path: str, uuid: UUID | None, name: str, cost: int, durability: Durability, client: UUID | None
) -> LocalPlace:
    return LocalPlace(path, uuid=uuid, name=name, cost=cost, durability=durability, client=client)
