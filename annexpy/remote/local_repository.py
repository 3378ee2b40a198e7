"""What a Remote on this machine asks of its repository; ``annexpy.repo.repository.Repository`` is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from annexpy.clock import Clock
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.repo.config import GitConfig
from annexpy.repo.content import ContentStore
from annexpy.repo.files import Files
from annexpy.uuids import UUID

__all__ = ["LocalRepository"]


class _Branch(Protocol):
    """What is asked of the git-annex branch."""

    @property
    def queued(self) -> int: ...

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None: ...

    def set_present_many(self, keys: Iterable[Key], uuid: UUID, present: bool) -> None: ...

    def locations(self, key: Key) -> LocationLog: ...

    async def sync(self) -> None: ...

    def sync_now(self, *, durable: bool = True) -> None: ...

    async def commit(self, message: str = "update") -> bool: ...


class LocalRepository(Protocol):
    """What is asked of a repository."""

    @property
    def path(self) -> str: ...

    @property
    def uuid(self) -> UUID: ...

    @property
    def bare(self) -> bool: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def config(self) -> GitConfig: ...

    @property
    def content(self) -> ContentStore: ...

    @property
    def branch(self) -> _Branch: ...

    @property
    def files(self) -> Files: ...

    @property
    def work_tree(self) -> bytes | None: ...

    @property
    def worktree_git_dir(self) -> bytes: ...

    def close(self) -> None: ...
