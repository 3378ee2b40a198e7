"""Sync the git-annex branch with other repositories: fetch, merge, send.

Location logs travel, contents and other branches do not. A repository on this machine is not only sent the
branch but merges it at once, under its own lock; one behind ssh merges it with its next git-annex command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import anyio
from anyio import to_thread

from annexpy.errors import AnnexError, BranchConflict, ConnectionLost, InvalidInput, NotARepository, TimedOut
from annexpy.remote.p2p_git import p2p_git_place
from annexpy.repo.config import RemoteConfig
from annexpy.repo.exchange import SENT, Exchange, GitPlace, git_place, synced_by
from annexpy.repo.history import History
from annexpy.repo.p2p_networks import SCHEME
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown

__all__ = ["Synced", "remote_place", "sync", "talk_to"]

_TRIES: Final = 10
_SECONDS: Final = 600.0
_CUT_OFF: Final = 3  # tries that may end so before it is an error

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Synced:
    """How the sync with one remote ended.

    Attributes:
        remote: Its name.
        fetched: It had something that was new here.
        sent: It has everything now that was known here when this began.
        error: What went wrong, or None.
    """

    remote: str
    fetched: bool = False
    sent: bool = False
    error: AnnexError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def sync(
    repository: Repository,
    remotes: Sequence[str] | None = None,
    *,
    pull: bool = True,
    push: bool = True,
    own: bool = False,
    seconds: float = _SECONDS,
) -> list[Synced]:
    """Exchange the git-annex branch with *remotes*. One that fails does not stop the others.

    First everything is fetched, then merged, then sent, so that one sync with several remotes brings to each
    what the others knew.

    Args:
        repository: What waits in it is committed first.
        remotes: Names of git remotes; every one that is a git repository and not ignored, when None.
        pull: Fetch and merge.
        push: Send.
        own: Send to a ref that nobody else sends to. For who does so unasked: of two that send to ``synced/git-annex``
            at the same moment, git-annex among them, one is refused.
        seconds: That each exchange may take.

    Raises:
        InvalidInput: There is no such remote.
        LockHeld, BranchConflict: Our own branch cannot be merged.
    """
    syncing = [_Syncing(repository, remote, own, seconds) for remote in _chosen(repository, remotes)]
    await repository.branch.commit()
    if pull:
        for one in syncing:
            await one.fetch()
        merged = await repository.branch.merge()
        for one in syncing:
            one.was_merged(merged)
    if push:
        for one in syncing:
            await one.send(pull)
    return [one.result for one in syncing]


def _chosen(repository: Repository, names: Sequence[str] | None) -> list[RemoteConfig]:
    known = repository.config.remotes()
    if names is None:
        return [remote for remote in known.values() if remote.url is not None and not remote.is_set("annex-ignore")]
    for name in names:
        if name not in known or known[name].url is None:
            raise InvalidInput("remote", name, "the name of a git remote of the repository")
    return [known[name] for name in names]


class _Syncing:
    """One remote."""

    def __init__(self, repository: Repository, remote: RemoteConfig, own: bool, seconds: float) -> None:
        self._repository, self._remote, self._seconds = repository, remote, seconds
        self._into = synced_by(repository.uuid) if own else SENT
        self._fetched = self._sent = False
        self._error: AnnexError | None = None

    @property
    def result(self) -> Synced:
        return Synced(self._remote.name, self._fetched, self._sent, self._error)

    async def fetch(self) -> None:
        try:
            place = self._place(self._remote.url)
            if place.host is None:
                await self._at(place, lambda there: there.branch.commit())  # what waits in its journal, too
            await self._talk(lambda exchange: exchange.fetch(), place)
        except AnnexError as error:
            self._error = error

    def was_merged(self, refs: Sequence[str]) -> None:
        self._fetched = any(ref.startswith(f"refs/remotes/{self._remote.name}/") for ref in refs)

    async def send(self, pull: bool) -> None:
        if self._error is not None:
            return
        try:
            place = self._place(self._remote.pushurl or self._remote.url)
            self._sent = await self._push(place, pull)
            if self._sent and place.host is None:
                await self._at(place, lambda there: there.branch.merge())
        except AnnexError as error:
            self._error = error

    async def _push(self, place: GitPlace, pull: bool) -> bool:
        branch = self._repository.branch
        annex = self._remote.uuid is not None or place.host is None
        for _ in range(_TRIES):
            tip = branch.tip
            if tip is None:
                return True  # nobody recorded anything here yet
            raw = tip.encode()
            if await self._talk(partial(Exchange.push, tip=raw, annex=annex, into=self._into), place):
                return True
            if not pull:
                raise BranchConflict(f"{self._remote.name} has a git-annex branch that was not fetched")
            await self._talk(lambda exchange: exchange.fetch(), place)
            await branch.merge()
        raise BranchConflict(f"the git-annex branch of {self._remote.name} moved {_TRIES} times while it was sent to")

    async def _at(self, place: GitPlace, do: Callable[[Repository], Awaitable[object]]) -> None:
        """Do something in a repository on this machine, if it is one of git-annex that we may write to."""
        try:
            there = Repository.open(place.path, clock=self._repository.clock)
        except NotARepository:
            return
        with there:
            if there.writable:
                await do(there)

    def _place(self, url: str | None) -> GitPlace:
        return remote_place(self._repository, self._remote, url)

    async def _talk(self, request: Callable[[Exchange], R], place: GitPlace) -> R:
        return await talk_to(self._repository, place, request, self._seconds)


def remote_place(repository: Repository, remote: RemoteConfig, url: str | None) -> GitPlace:
    """Where *url*, of the git remote *remote*, leads to. Raises Refused for what git cannot be asked at."""
    assert url is not None
    if url.startswith(SCHEME):
        return p2p_git_place(remote.name, url, repository.files, repository.uuid)
    return git_place(remote.name, url, repository.path, repository.config)


async def talk_to(repository: Repository, place: GitPlace, request: Callable[[Exchange], R], seconds: float) -> R:
    """*request*, again where the carrier may have cut off the end of the answer: it changes nothing twice.

    Raises:
        TimedOut: It took longer than *seconds*.
        AnnexError: As the request does.
    """
    for _ in range(_CUT_OFF if place.carrier is not None else 0):
        try:
            return await _talk_once(repository, place, request, seconds)
        except ConnectionLost:
            continue
    return await _talk_once(repository, place, request, seconds)


async def _talk_once(repository: Repository, place: GitPlace, request: Callable[[Exchange], R], seconds: float) -> R:
    """*request* in a worker thread, which is stopped when it takes too long or is cancelled."""
    lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
    history = History(repository.files, repository.config, repository.clock, lockdown)
    exchange = Exchange(history, place)
    try:
        with anyio.move_on_after(seconds):
            return await to_thread.run_sync(request, exchange, abandon_on_cancel=True)
        raise TimedOut(place.name, "git", seconds)
    finally:
        exchange.stop()
        history.close()
