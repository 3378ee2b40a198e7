"""The place a command works in: its repository, the remotes it was told, and closing them all in the end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from annexpy.cli.around import merge_fetched, outside, repository_around, show_debug
from annexpy.cli.options import Options
from annexpy.errors import AnnexError, UnknownUUID
from annexpy.remote.base import Connects, HasNodes, Remote
from annexpy.remote.connect import Connected, cluster_nodes, connect
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.recording import Recording
from annexpy.remote.traced import Traced
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.actions.facts import Facts

__all__ = ["Work", "at_work"]

_COMMIT_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Work:
    """A command at work. Make it with ``at_work``.

    Attributes:
        options: The common options.
        repository: What -C names, or the repository around the current directory; None outside of any.
    """

    def __init__(self, options: Options, repository: Repository | None, stack: AsyncExitStack) -> None:
        self.options, self.repository, self._stack = options, repository, stack
        self._here: Local | None = None
        self.away: list[Connected] = []
        """Repositories at the other ends of wires, which commit what they recorded when they are left."""

    @property
    def here(self) -> Repository:
        """The repository.

        Raises:
            NotARepository: There is none.
        """
        if self.repository is None:
            raise outside(self.options)
        return self.repository

    def facts(self, numcopies: int | None = None, mincopies: int | None = None) -> Facts:
        """What the repository knows, all that was fetched or pushed to it included."""
        from annexpy.actions.facts import Facts

        merge_fetched(self.here)
        return Facts(self.here, numcopies=numcopies, mincopies=mincopies)

    def local(self) -> Local:
        """The repository as a remote."""
        if self._here is None:
            self._here = Local(self.here, durability=self.options.durability, name="here", commit=False)
            self._stack.push_async_callback(self._here.aclose)
        return self._here

    def receiver(self, source: Remote) -> Local:
        """The repository as a remote that tells who looks on, by its transfer locks, that *source* sends."""
        here, client = self.here, source.uuid
        if client == here.uuid:
            return self.local()
        made = Local(here, durability=self.options.durability, name="here", commit=False, client=client)
        self._stack.push_async_callback(made.aclose)
        return made

    async def remote(self, address: str) -> Remote:
        """The remote at *address*, connected. What it stores and gives up is recorded in the repository.

        Raises:
            ConnectFailed, TimedOut …: It cannot be reached.
        """
        await self._meet_gateway(address)
        remote = self.other(address)
        if self.repository is not None and cluster_nodes(address, self.repository):
            self.remember_neighbours()
        if isinstance(remote, Connects):
            self._remember(address, await remote.connect())
        if self.repository is None or isinstance(remote, Local):
            return remote
        return Recording(remote, self.repository.branch)

    async def _meet_gateway(self, address: str) -> None:
        """Learn which repository the git remote is that *address* may be behind, and what it is a proxy for."""
        remotes = {} if self.repository is None else self.repository.config.remotes()
        if address in remotes:
            return
        for remote in remotes.values():
            if address.startswith(f"{remote.name}-") and remote.url is not None and not remote.ignore:
                merge_fetched(self.here)
                gateway = self.other(remote.name)
                if remote.uuid is None and isinstance(gateway, Connects):
                    self._remember(remote.name, await gateway.connect())

    def _remember(self, address: str, uuid: UUID) -> None:
        """Write down which repository a git remote leads to, as git-annex does when it first meets one."""
        if self.repository is None:
            return
        known = self.repository.config.remotes().get(address)
        if known is not None and known.uuid is None:
            self.repository.config.set(f"remote.{address}.annex-uuid", uuid)

    def remember_neighbours(self) -> None:
        """Write down which repositories the git remotes on this machine are, where that is not known yet."""
        for remote in self.here.config.remotes().values():
            if remote.url is None or remote.uuid is not None or remote.ignore:
                continue
            found = self.other(remote.name)
            if isinstance(found, LocalPlace | Local):
                try:
                    self._remember(remote.name, found.uuid)
                except UnknownUUID as error:
                    _log.debug("%s", error)

    def other(self, address: str) -> Remote:
        """The remote at *address*, for asking only. It may be out of reach, which shows when it is used."""
        if address == "." and self.repository is not None:
            return self.local()
        remote = connect(address, repository=self.repository, durability=self.options.durability)
        if isinstance(remote, LocalPlace | HasNodes):
            self._stack.push_async_callback(remote.aclose)  # these may record something while they close
        else:
            self.away.append(remote)
        if self.repository is not None and isinstance(remote, LocalPlace):
            try:
                if remote.uuid == self.repository.uuid:
                    # It records for itself, and would otherwise be two writers of one branch.
                    return self.local()
            except UnknownUUID as error:
                _log.debug("%s", error)
        return Traced(remote) if self.options.debug else remote


@asynccontextmanager
async def at_work(options: Options) -> AsyncIterator[Work]:
    """Open the repository, and in the end close every remote and commit what was recorded."""
    show_debug(options)
    repository = repository_around(options)
    async with AsyncExitStack() as stack:
        if repository is not None:
            stack.callback(repository.close)
        work = Work(options, repository, stack)
        stack.push_async_callback(_leave, work)
        yield work


async def _leave(work: Work) -> None:
    """Commit, while those at the other ends of wires do the same. What fails here is no group of failures."""
    failure: AnnexError | None = None
    async with anyio.create_task_group() as leaving:
        for remote in work.away:
            leaving.start_soon(remote.aclose)
        if work.repository is not None:
            # Also after Ctrl-C. What is not committed in time is in the spool, and the next command commits it.
            with anyio.move_on_after(_COMMIT_SECONDS, shield=True):
                try:
                    await work.repository.branch.commit()
                except AnnexError as error:
                    failure = error
    if failure is not None:
        raise failure
