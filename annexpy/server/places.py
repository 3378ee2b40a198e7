"""The repositories of this machine that a server shows by path: what clients call them, and what is kept open.

A client's path is looked for among the repositories that are served, below the folders that are, and below the
root of who asks; it is followed through symbolic links first, and only where it really leads counts. To whoever may
not have it a repository looks as if it was not there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from annexpy.errors import AnnexError
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.server.gateway import Gateway
from annexpy.server.refusal import Refusal

__all__ = ["Places", "is_folder"]

log = logging.getLogger(__name__)

_KEPT: Final = 64
"""Repositories below folders that stay open although nobody uses them."""
_OFTEN: Final = 1.0


class _Kept:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.users = 0
        self.changed = False
        self.leave = anyio.Event()


class Places:
    """Repositories by path. An async context manager: what it opens is open while it is entered."""

    def __init__(
        self, named: Mapping[str, Gateway], folders: Iterable[str] = (), *, durability: Durability = "full"
    ) -> None:
        """Show these.

        Args:
            named: By name; entered, and theirs who did it.
            folders: Every repository below one of them is shown too, and opened when somebody asks.
            durability: Of those.
        """
        self._named = {name: os.path.realpath(gateway.repository.path) for name, gateway in named.items()}
        self._kept = {os.path.realpath(gateway.repository.path): _Kept(gateway) for gateway in named.values()}
        self._owned: set[str] = set()
        self._folders = tuple(map(os.path.realpath, folders))
        self._durability: Durability = durability
        self._opening = anyio.Lock()
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._commit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)  # or what was raised inside comes in a group
        with anyio.CancelScope(shield=True):
            await self._commit_changed()

    # -- finding ----------------------------------------------------------------------------------------

    def find(self, path: str, *, root: str = "", directory: str = "") -> str:
        """Where the repository is that a client calls *path*.

        Args:
            path: As it came.
            root: Only what is below it.
            directory: Only this one.

        Raises:
            Refusal: Not there, or not to be had.
        """
        for candidate in self._candidates(path, root):
            try:
                real = os.path.realpath(candidate, strict=True)
            except (OSError, ValueError):
                continue
            if root and not _below(real, os.path.realpath(root)):
                continue
            if directory and real != os.path.realpath(directory):
                continue
            if real in self._kept or self._in_folder(real):
                return real
        raise Refusal(f"no repository {path!a} is served here")

    def _candidates(self, path: str, root: str) -> Iterator[str]:
        if not path.isprintable() or ".." in path.split("/") or len(path) > 4096:
            return
        home = path.removeprefix("/")
        if home == "~" or home.startswith("~/"):
            path = home[2:]
        plain = os.path.normpath(path).strip("/").removesuffix("/.git")
        for name in (plain, plain.removesuffix(".git")):
            if name in self._named:
                yield self._named[name]
        for folder in (root,) if root else self._folders:
            yield os.path.join(folder, plain)
            yield os.path.join(folder, plain + ".git")
        if path.startswith("/"):
            yield path

    def _in_folder(self, real: str) -> bool:
        """Is it a repository below a folder, and not somewhere inside of another one?

        git and we would look upwards from a directory that is none; and who may push into a work tree could make
        something in it that looks like one, with a configuration and hooks of their own.
        """
        for folder in self._folders:
            if _below(real, folder) and _is_repository(real):
                above = os.path.dirname(real) if real != folder else real
                while _below(above, folder) and above != real:
                    if _is_repository(above):
                        return False
                    above = os.path.dirname(above)
                return True
        return False

    # -- opening ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def using(self, directory: str) -> AsyncIterator[Gateway]:
        """What *find* found, open.

        Raises:
            AnnexError: It cannot be opened, or is none of git-annex.
        """
        async with self._opening:
            kept = self._kept.get(directory)
            if kept is None or kept.leave.is_set():
                assert self._group is not None
                kept = await self._group.start(self._keep, directory)
            kept.users += 1
        try:
            yield kept.gateway
        finally:
            kept.users -= 1
            kept.changed = True  # perhaps; a commit of nothing costs nothing
            self._let_go()

    async def _keep(self, directory: str, *, task_status: TaskStatus[_Kept]) -> None:
        kept = None
        try:
            with Repository.open(directory) as repository:
                async with Gateway(repository, durability=self._durability) as gateway:
                    kept = self._kept[directory] = _Kept(gateway)
                    self._owned.add(directory)
                    task_status.started(kept)
                    try:
                        await kept.leave.wait()
                    finally:
                        if self._kept.get(directory) is kept:
                            del self._kept[directory]
                            self._owned.discard(directory)
        except AnnexError as error:
            if kept is None:
                raise
            log.warning("%s: %s", directory, error)  # what is not committed now is in the journal

    def _let_go(self) -> None:
        if len(self._owned) > _KEPT:
            for directory in [*self._owned]:
                kept = self._kept[directory]
                if not kept.users:
                    kept.leave.set()
                    return

    # -- commits ----------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        while True:
            await anyio.sleep(_OFTEN)
            await self._commit_changed()

    async def _commit_changed(self) -> None:
        for kept in [*self._kept.values()]:
            if kept.changed:
                kept.changed = False
                try:
                    await kept.gateway.commit()
                except AnnexError as error:
                    log.warning("%s: %s", kept.gateway.repository.path, error)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_folder(path: str) -> bool:
    """A directory that is no repository itself."""
    return os.path.isdir(path) and not _is_repository(path)


def _is_repository(path: str) -> bool:
    return os.path.lexists(os.path.join(path, ".git")) or (
        os.path.isfile(os.path.join(path, "HEAD")) and os.path.isdir(os.path.join(path, "objects"))
    )
