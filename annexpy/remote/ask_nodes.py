"""One question to several nodes at once: is it there, and give it up.

Every answer has its node's deadline. Who is well, late or down afterwards, ``health`` notes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from anyio import CancelScope, create_task_group, current_time, move_on_after

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, DropIncomplete, PeerError, TimedOut
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Remote, Removed, check_present_many
from annexpy.remote.health import Node, not_asked, reasons
from annexpy.remote.kinds import bare_local
from annexpy.remote.put_lane import real
from annexpy.remote.waiting import Waiting
from annexpy.uuids import UUID

__all__ = ["Presence", "answer_within", "remove_many", "together"]

T = TypeVar("T")

_GRACE: Final = 0.02
"""Seconds, at least, that the other nodes get to end a presence check in order once one has said yes."""
_BATCH: Final = 64
"""Keys asked of a node in one go, so that each go can have the deadline of one answer."""


_Outcome: TypeAlias = tuple[Node, Removed | AnnexError]


class Presence:
    """One wave of a presence check: several nodes at once, until every key was found or everybody has answered."""

    def __init__(self, keys: Sequence[Key], found: list[bool], failed: dict[UUID, AnnexError]) -> None:
        self._keys, self._found, self._failed = keys, found, failed
        self._running: set[Node] = set()
        self._asker = Waiting()

    async def ask(self, nodes: Sequence[Node]) -> None:
        if len(nodes) == 1:
            await self._node(nodes[0], 0.0)
            return
        began = current_time()
        async with create_task_group() as group:
            for number, node in enumerate(nodes):
                self._running.add(node)
                group.start_soon(self._node, node, number / len(nodes))
            await self._asker.until(lambda: not self._running or all(self._found))
            # Whoever is about to answer may: to be cancelled in the middle can cost a node its connection.
            with move_on_after(max(_GRACE, current_time() - began)):
                await self._asker.until(lambda: not self._running)
            for node in self._running:
                node.overtaken(current_time() - began)
            group.cancel_scope.cancel()

    async def _node(self, node: Node, beginning: float) -> None:
        """Ask *node* for all that is not found yet, beginning at that part of the keys."""
        keys, found = self._keys, self._found
        starts = range(0, len(keys), _BATCH)
        first = int(beginning * len(starts))
        try:
            for start in (*starts[first:], *starts[:first]):
                numbers = [number for number in range(start, min(start + _BATCH, len(keys))) if not found[number]]
                if numbers:
                    answers = await answer_within(
                        node, "answer to CHECKPRESENT", _check(node.remote, [keys[number] for number in numbers])
                    )
                    for number, present in zip(numbers, answers, strict=True):
                        found[number] |= present
        except AnnexError as error:
            self._failed.update(reasons(node, error))
        self._running.discard(node)
        self._asker.tell()


async def _check(remote: Remote, keys: Sequence[Key]) -> Sequence[bool]:
    return (await remote.check_present(keys[0]),) if len(keys) == 1 else await check_present_many(remote, keys)


async def remove_many(
    nodes: Sequence[Node], not_asked: dict[UUID, AnnexError], keys: Sequence[Key], deadline: Deadline | None
) -> list[Removed]:
    """Ask every one of *nodes* to give up *keys*. Those *not_asked* count as failed."""
    outcomes: list[list[_Outcome]] = [[] for _ in keys]

    async def ask(node: Node, *, quick: bool = False) -> None:
        step = _BATCH if len(keys) > 1 and isinstance(node.remote, BatchRemove) else 1
        within = _at_once if quick else answer_within
        for start in range(0, len(keys), step):
            told: Sequence[Removed | AnnexError]
            some = keys[start : start + step]
            try:
                told = await within(node, "answer to REMOVE", _remove(node.remote, some, deadline))
            except AnnexError as error:
                told = [error] * len(some)
            for outcome, one in zip(outcomes[start : start + step], told, strict=True):
                outcome.append((node, one))

    slow = []
    for node in nodes:
        if _is_quick(node):
            await ask(node, quick=True)
        else:
            slow.append(node)
    await together(ask, slow)
    return [_removed(outcome, not_asked) for outcome in outcomes]


async def _remove(remote: Remote, keys: Sequence[Key], deadline: Deadline | None) -> Sequence[Removed]:
    if len(keys) > 1 and isinstance(remote, BatchRemove):
        return await remote.remove_content_many(keys, deadline=deadline)
    return [await remote.remove_content(key, deadline=deadline) for key in keys]


def _removed(outcomes: Sequence[_Outcome], not_asked: dict[UUID, AnnexError]) -> Removed:
    """What the outcomes at the nodes are together."""
    ok = bool(outcomes) and not not_asked
    gone: set[UUID] = set()
    failed = dict(not_asked)
    for node, outcome in outcomes:
        if isinstance(outcome, AnnexError):
            ok = False
            if isinstance(outcome, DropIncomplete):
                gone |= real(frozenset(map(UUID, outcome.removed)))
            failed.update(reasons(node, outcome))
            continue
        named = real(outcome.uuids)
        gone |= named or (real(frozenset((node.uuid,))) if outcome.ok else named)
        if not outcome.ok:
            ok = False
            failed.update(outcome.failed or reasons(node, PeerError(node.remote.name, "not removed")))
    return Removed(ok, frozenset(gone), {uuid: error for uuid, error in failed.items() if uuid not in gone})


async def answer_within(node: Node, what: str, answer: Coroutine[Any, Any, T]) -> T:
    """*answer* of *node*, which has its deadline to give it.

    Raises:
        AnnexError: The answer does, or the node is down, and was not asked.
        TimedOut: The deadline has passed.
    """
    try:
        began, patience = node.begin(), node.patience
    except AnnexError as error:
        answer.close()
        raise not_asked(node.remote.name, error) from error
    scope = CancelScope(deadline=current_time() + patience)
    node.waiting.add(scope)
    try:
        with scope:
            given = await answer
            node.heard(began)
            return given
        raise TimedOut(node.remote.name, what, patience)
    except AnnexError as error:
        node.failed(error, began)
        raise
    finally:
        node.waiting.discard(scope)
        node.end(began)


def _is_quick(node: Node) -> bool:
    """A removal there waits for nobody: a task and a deadline would cost as much as it does."""
    local = bare_local(node.remote) if node.error is None else None
    return local is not None and local.removes_at_once


async def _at_once(node: Node, _what: str, answer: Coroutine[Any, Any, T]) -> T:
    """As ``answer_within``, of a quick node."""
    began = node.glance()
    try:
        given = await answer
    except AnnexError as error:
        node.failed(error, began)
        raise
    node.heard(began)
    return given


async def together(ask: Callable[[Node], Coroutine[Any, Any, None]], nodes: Sequence[Node]) -> None:
    """Ask *nodes* at once; one alone needs no task."""
    if len(nodes) <= 1:
        for node in nodes:
            await ask(node)
        return
    async with create_task_group() as group:
        for node in nodes:
            group.start_soon(ask, node)
