"""What a command that moves contents works with: the repository it stands in, and the remotes it names.

Standing in a repository is not needed. Where there is one, its git remotes can be named, and what is
learnt about locations goes into its git-annex branch, in one commit at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from annexpy.actions.facts import Facts
from annexpy.cli.options import Options
from annexpy.errors import NotARepository
from annexpy.remote.address import LocalPlace, connect
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.remote.wrappers import Recording
from annexpy.repo.repository import Repository

__all__ = ["Session", "session"]

_COMMIT_SECONDS = 60.0


class Session:
    """One command's repository and remotes; made by ``session``.

    Attributes:
        repository: The one around the current directory, or of ``-C``; None where there is none.
    """

    def __init__(self, options: Options, repository: Repository | None, stack: AsyncExitStack) -> None:
        self.repository, self._options, self._stack = repository, options, stack

    def facts(self, numcopies: int | None = None, mincopies: int | None = None) -> Facts | None:
        """What the repository knows about the others."""
        if self.repository is None:
            return None
        return Facts(self.repository, numcopies=numcopies, mincopies=mincopies)

    def here(self) -> Local:
        """The repository itself, as a remote.

        Raises:
            NotARepository: There is none.
        """
        if self.repository is None:
            raise NotARepository(self._options.repository, "not in a git-annex repository; name one with -C")
        # The branch is committed when the session ends, for everything at once.
        return Local(self.repository, durability=self._options.durability, name="here", commit=False)

    async def remote(self, address: str) -> Remote:
        """The remote at *address*, reached, and recorded in the repository's branch.

        Raises:
            ConnectFailed, UnknownUUID, InvalidInput: It cannot be used.
        """
        found = connect(address, repository=self.repository, durability=self._options.durability)
        self._stack.push_async_callback(found.aclose)
        uuid = await found.connect()
        if self.repository is None:
            return found
        if uuid == self.repository.uuid and isinstance(found, LocalPlace):
            return self.here()
        return Recording(found, self.repository.branch)

    async def others(self, named: Sequence[str]) -> list[Remote]:
        """Where other copies may be: the remotes *named*, or every git remote and the repository itself.

        A remote that cannot be reached is kept: it refuses when it is asked, and a refusal names it.
        """
        if named or self.repository is None:
            return [await self.remote(address) for address in named]
        found: list[Remote] = [self.here()]
        for remote in self.repository.config.remotes().values():
            if remote.ignore or remote.url is None or remote.uuid is None:
                continue
            other = connect(remote.name, repository=self.repository, durability=self._options.durability)
            self._stack.push_async_callback(other.aclose)
            found.append(Recording(other, self.repository.branch))
        return found


@asynccontextmanager
async def session(options: Options) -> AsyncIterator[Session]:
    """Open the repository if there is one; close everything in the end and commit what was recorded."""
    async with AsyncExitStack() as stack:
        try:
            repository = Repository.open(options.repository)
        except NotARepository:
            if options.repository != ".":
                raise
            repository = None
        if repository is not None:
            stack.callback(repository.close)
            stack.push_async_callback(_commit, repository)
        yield Session(options, repository, stack)


async def _commit(repository: Repository) -> None:
    # Also after Ctrl-C. What is not committed in time is in the spool, and the next command commits it.
    with anyio.move_on_after(_COMMIT_SECONDS, shield=True):
        await repository.branch.commit()
