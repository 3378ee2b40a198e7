"""Push the branch that is checked out, and the git-annex branch with it: the full history of a dataset.

Refs are swapped, never forced: a remote that has commits of its own in that branch is reported, and keeps them.
The git-annex branch goes to ``synced/git-annex``, from where git-annex merges it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
from anyio import to_thread

from annexpy.actions.sync import remote_place, talk_to
from annexpy.errors import AnnexError, BranchConflict, InvalidInput, NotARepository
from annexpy.repo.carry import Gathered, carry
from annexpy.repo.config import RemoteConfig
from annexpy.repo.exchange import SENT, GitPlace
from annexpy.repo.head import Head
from annexpy.repo.journal import LOCK_SECONDS
from annexpy.repo.repository import Repository

__all__ = ["Pushed", "push"]

_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Pushed:
    """How the push to one remote ended.

    Attributes:
        remote: Its name.
        error: Why it does not have the history; None when it has.
    """

    remote: str
    error: AnnexError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def push(
    repository: Repository, remotes: Sequence[str], *, seconds: float = _SECONDS, locked: float = LOCK_SECONDS
) -> list[Pushed]:
    """Send the history of HEAD to git remotes. One that fails does not stop the others.

    A detached HEAD goes to ``refs/heads/detached/UUID``, the UUID being that of *repository*.

    Args:
        repository: With a work tree.
        remotes: Names of git remotes.
        seconds: That each may take.
        locked: Seconds to wait for the journal lock of one on this machine; its error is ``LockHeld`` then.

    Raises:
        InvalidInput: There is no such remote.
    """
    known = repository.config.remotes()
    for name in remotes:
        if name not in known or known[name].url is None:
            raise InvalidInput("remote", name, "the name of a git remote of the repository")
    tips = _tips(repository)
    pushed: dict[str, Pushed] = {}
    gathered = Gathered()

    async def one(remote: RemoteConfig) -> None:
        try:
            await _push_one(repository, remote, tips, seconds, gathered, locked)
            pushed[remote.name] = Pushed(remote.name)
        except AnnexError as error:
            pushed[remote.name] = Pushed(remote.name, error)

    async with anyio.create_task_group() as group:
        for name in dict.fromkeys(remotes):
            group.start_soon(one, known[name])
    return [pushed[name] for name in dict.fromkeys(remotes)]


def _tips(repository: Repository) -> dict[bytes, bytes]:
    """Ref over there → commit."""
    head = Head(repository)
    try:
        tip, branch = head.tip, head.branch
    finally:
        head.close()
    if tip is None:
        return {}
    ref = f"refs/heads/detached/{repository.uuid}" if branch is None else branch
    return {ref.encode("utf-8", "surrogateescape"): tip.encode()}


async def _push_one(
    repository: Repository,
    remote: RemoteConfig,
    tips: Mapping[bytes, bytes],
    seconds: float,
    gathered: Gathered,
    locked: float,
) -> None:
    place = remote_place(repository, remote, remote.pushurl or remote.url)
    annex = repository.branch.tip
    if place.host is None and place.carrier is None:
        try:
            there = Repository.open(place.path, clock=repository.clock)
        except NotARepository:
            pass  # git without git-annex: it is pushed to as git does
        else:
            with there:
                await to_thread.run_sync(
                    partial(_carry, repository, there, tips, annex, seconds=locked, gathered=gathered)
                )
            return
    for ref, tip in tips.items():
        if not await talk_to(repository, place, lambda to, ref=ref, tip=tip: to.push_branch(ref, tip), seconds):  # type: ignore[misc]
            raise _conflict(place, ref)
    if annex is not None:
        await talk_to(repository, place, lambda to: to.push(annex.encode(), annex=True), seconds)


def _carry(
    repository: Repository,
    there: Repository,
    tips: Mapping[bytes, bytes],
    annex: str | None,
    *,
    seconds: float,
    gathered: Gathered,
) -> None:
    to = partial(carry, repository, there, seconds=seconds, gathered=gathered)
    if annex is None:
        to(tips)
        return
    try:
        to({**tips, SENT: annex.encode()})
    except BranchConflict:
        to(tips)  # location logs of others wait there to be merged: that is for a sync


def _conflict(place: GitPlace, ref: bytes) -> BranchConflict:
    return BranchConflict(f"{place.name}: {ref.decode('utf-8', 'replace')} has commits that are not here")
