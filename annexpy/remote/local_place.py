"""A repository on this machine as a Remote, opened when it is first used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NoReturn, Self

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectFailed, NotARepository, UnknownUUID
from annexpy.keys.key import Key
from annexpy.remote.base import Download, LockedCopy, Removed, Upload
from annexpy.remote.local import Local
from annexpy.repo.discovery import as_git_finds, find_exactly
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

__all__ = ["LocalPlace"]


class LocalPlace:
    """A repository on this machine that is opened when it is first used, and again after it was away.

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
