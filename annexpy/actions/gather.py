"""Collect the evidence for one drop: lock other copies, look at those that cannot be locked, keep the locks.

The locks live as long as ``Gathering.run`` runs the action that relies on them. Each lock belongs to
the task that took it, from enter to exit; several are taken at once.

A removal whose answer never came may still happen, up to its deadline. The locks behind it are then
left as a lost connection leaves them, without an unlock, so that repositories which keep a retention
go on protecting the copies that the removal relied on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, Generic, TypeVar

import anyio

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ConnectionLost, ContentError, NotLocked, TimedOut, TransportError
from annexpy.keys.key import Key
from annexpy.policy.numcopies import (
    CheckedCopy,
    Copies,
    DropProof,
    HeldCopy,
    TrustedCopy,
    VerifiedCopy,
    not_a_copy,
    safe_drop,
)
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import LockedCopy, Remote
from annexpy.remote.kinds import bare_local, is_behind_wire, known, members
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.uuids import UUID

__all__ = ["LOCK_TIMEOUT", "Gathering", "Others"]

_log = logging.getLogger(__name__)

LOCK_TIMEOUT: Final = 60.0
"""Seconds that one repository gets to lock a content, or to say whether it has it."""
_WIRES: Final = 4
"""Keys at once with locks at the other end of wires: to open one more wire for each of these costs as much as some
hundred locks over those that are open."""

R = TypeVar("R")


class Others:
    """Where copies may be, apart from the places that a drop would take them from.

    Attributes:
        candidates: UUID → every path to that repository.
        rejected: Place → why no copy in it could count.
        turned_away: Those of them that are known by UUID.
        within: The removal happens in this process or not at all, so that no lock has to outlive it.
        near: Those that need no wire.
        here: Those on this machine that can be locked without waiting, when the removal is *within*.
        wires: For keys that need others.
    """

    __slots__ = ("candidates", "dropped_from", "here", "near", "rejected", "trust", "turned_away", "wires", "within")

    def __init__(
        self, dropped_from: Collection[UUID], trust: Mapping[UUID, TrustLevel], *, within: bool = False
    ) -> None:
        self.dropped_from, self.trust, self.within = dropped_from, trust, within
        self.candidates: dict[UUID, list[Remote]] = {}
        self.rejected: dict[str, str] = {}
        self.turned_away: set[UUID] = set()
        self.near: set[UUID] = set()
        self.here: dict[UUID, tuple[str, Local]] = {}
        self.wires = anyio.Semaphore(_WIRES)

    async def add(self, others: Iterable[Remote]) -> None:
        """Take in *others*; of a cluster, its nodes."""
        for remote in (member for other in others for member in members(other)):
            try:
                uuid = await known(remote)
            except AnnexError as error:
                self.rejected[remote.name] = _reason(error)
                continue
            why = not_a_copy(uuid, self.dropped_from, self.trust)
            if why is None:
                self.candidates.setdefault(uuid, []).append(remote)
                if not is_behind_wire(remote):
                    self.near.add(uuid)
                local = bare_local(remote) if self.within else None
                if local is not None and local.uuid == uuid and not local.waits:
                    self.here.setdefault(uuid, (remote.name, local))
            else:
                self.rejected.setdefault(remote.name, why)
                self.turned_away.add(uuid)

    def in_order(self, recorded: Mapping[UUID, str] | None) -> list[list[Remote]]:
        """The candidates, those first that are known to have the content."""
        every = list(self.candidates.items())
        if recorded is None:
            return [paths for _, paths in every]
        return [paths for _, paths in sorted(every, key=lambda item: item[0] not in recorded)]


class Gathering:
    """The evidence about one key."""

    __slots__ = (
        "_absent",
        "_clock",
        "_copies",
        "_locks",
        "_others",
        "_recorded",
        "_said",
        "_thorough",
        "_turn",
        "_turning",
        "_verified",
        "key",
        "missing",
        "under_way",
    )

    def __init__(
        self,
        key: Key,
        copies: Copies,
        others: Others,
        recorded: Callable[[Key], Mapping[UUID, str]] | None,
        clock: Clock,
        *,
        thorough: bool = False,
    ) -> None:
        """Nothing is asked yet.

        Args:
            key, copies, others, clock: As in ``_Drop``.
            recorded: Asked only where the answer matters: reading a log costs as much as taking a lock.
            thorough: Say of every copy why it does not count, also when enough others do.
        """
        self.key, self._copies, self._others, self._recorded, self._clock = key, copies, others, recorded, clock
        self._thorough = thorough
        self._said: Mapping[UUID, str] | None = None
        self._verified: list[VerifiedCopy] = []
        self._locks: list[tuple[HeldCopy, LockedCopy]] = []
        self._absent: set[UUID] = set()
        self._turning: anyio.Lock | None = None
        self._turn = False
        self.missing: dict[str, str] = dict(others.rejected)
        self.under_way = False
        """True while a removal that relies on these locks may be going on, as far as is known."""

    async def run(self, action: Callable[[], Awaitable[R]]) -> R:
        """Take locks until there is enough to prove, run *action* while they are held, give them back.

        There may turn out to be too few; ``prove`` says so. An AnnexError of *action* is raised after the
        locks were given back in good order.
        """
        several = len(self._others.candidates) > 1
        candidates = self._others.in_order(self._recorded_there() if several else None)
        try:
            if self._copies.needed > len(self._others.near):
                await self._wait_for_turn()  # before any lock that could expire meanwhile
            if self._copies.needed == 1 or len(candidates) <= 1:
                return await self._one_by_one(candidates, action)
            return await self._at_once(candidates, action)
        finally:
            if self._turn:
                self._others.wires.release()

    async def look_again(self) -> None:
        """Ask every lock whether it still stands, and strike out the copies whose lock does not, or cannot say."""
        for copy, lock in list(self._locks):
            try:
                if not await lock.held():
                    raise NotLocked(self.key, copy.name, "its lock was lost")
            except AnnexError as error:  # also whoever cannot say
                self._verified.remove(copy)
                self._locks.remove((copy, lock))
                self.missing[copy.name] = _reason(error)

    def prove(self) -> DropProof:
        """The proof. Look again right before, and await nothing between this and the removal.

        Raises:
            NotEnoughCopies: It names what was counted and what was not.
        """
        return safe_drop(
            self.key,
            self._copies,
            self._verified,
            dropped_from=self._others.dropped_from,
            trust=self._others.trust,
            now=self._clock.now(),
            missing=self.missing,
        )

    # -- taking locks --

    async def _wait_for_turn(self) -> None:
        """Before the first lock at the other end of a wire; the turn lasts as long as the locks do.

        A key that has it waits for no other key.
        """
        if self._turning is None:
            self._turning = anyio.Lock()
        async with self._turning:
            if not self._turn:
                await self._others.wires.acquire()
                self._turn = True

    async def _one_by_one(self, candidates: Sequence[Sequence[Remote]], action: Callable[[], Awaitable[R]]) -> R:
        outcome = _Outcome[R]()
        try:
            async with AsyncExitStack() as locks:
                try:
                    for paths in candidates:
                        if not self._short():
                            break
                        await self._ask(paths, locks)
                    self._fall_back_on_trust()
                    await outcome.of(action)
                except BaseException as stopped:
                    outcome.stopped = stopped
                self._leave()
        except AnnexError as error:
            self._not_given_back(error)
        return outcome.get()

    async def _at_once(self, candidates: Sequence[Sequence[Remote]], action: Callable[[], Awaitable[R]]) -> R:
        waiting = list(candidates)
        release = anyio.Event()
        outcome = _Outcome[R]()

        async def hold(paths: Sequence[Remote], answered: Callable[[], None]) -> None:
            holding = _Outcome[None]()
            try:
                async with AsyncExitStack() as locks:
                    try:
                        await self._ask(paths, locks)
                        answered()
                        await holding.of(release.wait)
                    except BaseException as stopped:
                        holding.stopped = stopped
                    self._leave()
            except AnnexError as error:
                self._not_given_back(error)
            holding.get()

        async with anyio.create_task_group() as tasks:
            while waiting and (short := self._short()):
                wave, waiting = waiting[:short], waiting[short:]
                answers = _Countdown(len(wave))
                for paths in wave:
                    tasks.start_soon(hold, paths, answers.one)
                await answers.zero.wait()
            self._fall_back_on_trust()
            try:
                await outcome.of(action)
            except AnnexError as error:  # a task group would wrap it
                outcome.stopped = error
            release.set()
        return outcome.get()

    def _leave(self) -> None:
        """The last thing inside the locks, also when cancelled.

        Leaving them with an exception would say that their holder vanished, and keep the content locked for ten
        minutes. That is right only while the removal that relies on them may be under way.
        """
        if self.under_way:
            raise ConnectionLost("whoever relies on this lock", "the outcome of a removal")

    def _not_given_back(self, error: AnnexError) -> None:
        # The drop is over and its result stands; the lock ends by itself.
        if self.under_way:
            _log.warning("%s: whether it was removed is not known, so the locks behind that stay for a while", self.key)
        else:
            _log.warning("%s: a lock could not be given back: %s", self.key, error)

    async def _ask(self, paths: Sequence[Remote], locks: AsyncExitStack) -> None:
        """Lock one repository by the first path that works; where it cannot be locked, look at it."""
        for remote in paths:
            try:
                lock = await self._lock(remote, locks)
            except NotLocked as error:
                await self._look(remote, error)
                return
            except AnnexError as error:
                self.missing[remote.name] = _reason(error)
                continue
            why = not_a_copy(lock.uuid, self._others.dropped_from, self._others.trust)
            if why is not None:  # it is not the repository we took it for
                self.missing[remote.name] = why
                continue
            copy = HeldCopy(lock.uuid, remote.name, lock.expires)
            self._verified.append(copy)
            self._locks.append((copy, lock))
            self.missing.pop(remote.name, None)
            return

    async def _lock(self, remote: Remote, locks: AsyncExitStack) -> LockedCopy:
        local = remote.local if isinstance(remote, LocalPlace) else remote
        if isinstance(local, Local):  # waits for nobody, or as long as its repository says
            return await locks.enter_async_context(local.lock_content(self.key, retention=not self._others.within))
        if is_behind_wire(remote) and not self._turn:
            await self._wait_for_turn()
        async with AsyncExitStack() as attempt:
            # The scope stays open around the lock, and stops being a limit once the lock is there.
            scope = attempt.enter_context(anyio.CancelScope(deadline=anyio.current_time() + LOCK_TIMEOUT))
            lock = await attempt.enter_async_context(remote.lock_content(self.key))
            scope.deadline = math.inf
            if scope.cancel_called:  # in the same moment
                raise TimedOut(remote.name, "a lock on the content", LOCK_TIMEOUT)
            await locks.enter_async_context(attempt.pop_all())
            return lock
        raise TimedOut(remote.name, "a lock on the content", LOCK_TIMEOUT)

    async def _look(self, remote: Remote, refusal: NotLocked) -> None:
        at = self._clock.now()
        present = False
        try:
            with anyio.move_on_after(LOCK_TIMEOUT) as scope:
                present = await remote.check_present(self.key)
            if scope.cancelled_caught:
                raise TimedOut(remote.name, "an answer about the content", LOCK_TIMEOUT)
        except AnnexError as error:
            self.missing[remote.name] = _reason(error)
            return
        if present:
            self._verified.append(CheckedCopy(remote.uuid, remote.name, at))
        else:
            self._absent.add(remote.uuid)
            self.missing[remote.name] = refusal.reason or "the content is not there"

    def _recorded_there(self) -> Mapping[UUID, str]:
        if self._said is None:
            self._said = {} if self._recorded is None else self._recorded(self.key)
        return self._said

    def _short(self) -> int:
        """How many more copies have to be asked for."""
        everywhere = {copy.uuid for copy in self._verified}
        locked = {copy.uuid for copy, _ in self._locks}
        return max(self._copies.needed - len(everywhere), self._copies.min - len(locked), 0)

    def _fall_back_on_trust(self) -> None:
        """Count what trusted repositories are said to have; say of the others why they were not asked.

        A trusted repository that was asked and does not have the content is not believed, unlike in git-annex.
        """
        if not (self._thorough or self._short()):
            return
        trust, known = self._others.trust, self._absent | {copy.uuid for copy, _ in self._locks}
        looked_at = {copy.uuid: copy.name for copy in self._verified if copy.uuid not in known}
        for uuid, name in {**self._recorded_there(), **looked_at}.items():
            paths = self._others.candidates.get(uuid, [])
            if uuid in known or uuid in self._others.turned_away:
                continue  # asked, or named already, by the name of its remote
            if trust.get(uuid) is TrustLevel.TRUSTED:
                for remote in paths:
                    self.missing.pop(remote.name, None)
                self._verified.append(TrustedCopy(uuid, paths[0].name if paths else name))
            elif not paths:
                why = not_a_copy(uuid, self._others.dropped_from, trust)
                self.missing.setdefault(name, why or "no remote leads there")


class _Outcome(Generic[R]):
    """What an action came to, kept until the locks are left.

    Attributes:
        stopped: What ended it early: an error, or a cancellation that goes on later.
    """

    __slots__ = ("_value", "stopped")

    def __init__(self) -> None:
        self._value: list[R] = []
        self.stopped: BaseException | None = None

    async def of(self, action: Callable[[], Awaitable[R]]) -> None:
        self._value.append(await action())

    def get(self) -> R:
        if self.stopped is not None:
            raise self.stopped
        return self._value[0]


class _Countdown:
    """*zero* is set when ``one`` was called so many times."""

    def __init__(self, count: int) -> None:
        self._left, self.zero = count, anyio.Event()

    def one(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.zero.set()


def _reason(error: AnnexError) -> str:
    """*error* as the reason why a copy does not count, without the key and the place that stand beside it."""
    if isinstance(error, ContentError):
        return error.reason or error.what
    if isinstance(error, TransportError):
        return f"unreachable: {error}"
    return str(error)
