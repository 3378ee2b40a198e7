"""Several nodes as one Remote, and therefore also clusters of clusters.

Content goes to every node (``fanout``), comes from whichever gives it (``failover``), is present when
any node has it, and is removed when every node has removed it. A cluster's UUID is never a copy, and
a cluster as a whole cannot be locked: lock its nodes.

Which nodes are to receive a key, and which are likely to have it, is decided by a function that is
handed in (the location log and preferred content, at a gateway): nothing here reads a branch.

A node that is dead costs at most one deadline a minute (``health``). While it is down it is not
asked, and is named with its reason wherever an outcome is told by node. It is never guessed at:
content is absent only when every node was asked and said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

from anyio import Semaphore

from annexpy.clock import Clock, Deadline
from annexpy.errors import AnnexError, InvalidInput, NodesFailed, NotLocked, NotWanted
from annexpy.keys.key import Key
from annexpy.remote.ask_nodes import Presence, remove_many, together
from annexpy.remote.base import Download, LockedCopy, Remote, Removed
from annexpy.remote.failover import Candidates, Wanted, reading
from annexpy.remote.fanout import FanOut, Instead
from annexpy.remote.health import Limited, Node, Patient, Usage, not_asked, reasons
from annexpy.remote.late_copies import Arrived, LateCopies
from annexpy.remote.quick_read import read_at_once
from annexpy.remote.refusal import Refusal
from annexpy.system import CLOCK, new_uuid
from annexpy.uuids import UUID, new_cluster_uuid

__all__ = ["Chooser", "Cluster", "Place", "Select", "Verb"]

T = TypeVar("T")
Verb: TypeAlias = Literal["put", "get"]


class Select(Protocol):
    """Which nodes a put goes to, or which are likely to have what a get wants (first choice first)."""

    def __call__(self, verb: Verb, key: Key, associated_file: str, nodes: Sequence[Remote]) -> Sequence[Remote]: ...


class Place(Protocol):
    """Which nodes a put goes to, those that have the key included: they say so. Asked again after refusals."""

    def __call__(
        self,
        key: Key,
        associated_file: str,
        nodes: Sequence[Remote],
        *,
        taking: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> Sequence[Remote]:
        """Choose from *nodes*.

        Args:
            key: What is stored.
            associated_file: What it is called, "" when nobody said.
            nodes: All of them; one that cannot be chosen twice may be, and is left out.
            taking: Who has it or takes it.
            refused: Who was asked and does not take it, or is down.
        """
        ...


Chooser: TypeAlias = Callable[[Sequence[Remote]], Remote]
"""Picks one of several equals: equally cheap, equally busy."""


class Cluster:
    """Nodes as one Remote.

    Args:
        nodes: Any Remotes. Closing the cluster closes them.
        uuid: Of the cluster; a fresh cluster UUID when left out. Never in a result.
        cost: That of the cheapest node when left out.
        select: Which nodes take part; every node when left out. For a get the others still come last,
            because a location log may be behind.
        place: Which nodes a put goes to, in place of *select*; also what stands in for a node that refuses.
        usage: Counts the requests to a node for other processes as well.
        chooser: Which of several equals a get goes to; in turn when left out.
        deadline: Seconds without progress after which a node counts as dead. A node that is itself a
            ``Cluster`` gets what it may need to wait for its own nodes.
        transfers: Puts at a time; more wait for their turn. Lowered to what the nodes say that they can
            take: two puts, each waiting for the node that the other one holds, would wait for ever.
        min_copies: A put is answered when there are that many copies; those before it count. What is
            left goes on as long as the cluster is open (``async with``); without that, a put waits for all.
        arrived: Hears of each copy that was finished after the answer: record it.
        late: Somebody else owns the late copies, and hears of them, for as long as that is open.
        hedge: Seconds after which a get asks the next node as well, when nothing is known of the first.
    """

    def __init__(
        self,
        nodes: Sequence[Remote],
        *,
        uuid: UUID | None = None,
        name: str = "cluster",
        cost: int | None = None,
        clock: Clock = CLOCK,
        select: Select | None = None,
        place: Place | None = None,
        usage: Callable[[Remote], Usage | None] | None = None,
        chooser: Chooser | None = None,
        deadline: float = 5.0,
        hedge: float = 1.0,
        transfers: int = 16,
        min_copies: int | None = None,
        arrived: Arrived | None = None,
        late: LateCopies | None = None,
    ) -> None:
        self._uuid = new_cluster_uuid(new_uuid()) if uuid is None else uuid
        self._options: dict[str, Any] = {  # to pickle; mixed, as the arguments are
            "uuid": self._uuid,
            "name": name,
            "cost": cost,
            "clock": clock,
            "select": select,
            "place": place,
            "usage": usage,
            "chooser": chooser,
            "deadline": deadline,
            "hedge": hedge,
            "transfers": transfers,
            "min_copies": min_copies,
            "arrived": arrived,
        }
        self._name, self._cost = name, cost
        self._nodes = [
            Node(
                remote,
                clock,
                max(deadline, remote.patience) if isinstance(remote, Patient) else deadline,
                None if usage is None else usage(remote),
            )
            for remote in nodes
        ]
        self._select, self._place, self._chooser = select, place, chooser
        self._hedge = min(hedge, deadline)
        self._turn = 0
        self.transfers = min([transfers, *(remote.transfers for remote in nodes if isinstance(remote, Limited))])
        self._puts = Semaphore(self.transfers, fast_acquire=True)
        self._min_copies, self._late = min_copies, LateCopies(arrived) if late is None else late
        self._late_is_shared = late is not None
        self._patience = 1.2 * max((node.deadline for node in self._nodes), default=deadline)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), **self._options), (self.nodes,)

    def of(self, nodes: Sequence[Remote]) -> Self:
        """The same cluster made of other nodes.

        What is known of those that it has already, the turns of puts, and the late copies are shared by both.
        """
        other = type(self)(nodes, **self._options)
        known = {id(node.remote): node for node in self._nodes}
        other._nodes = [known.get(id(node.remote), node) for node in other._nodes]
        other._puts, other._late, other._late_is_shared = self._puts, self._late, self._late_is_shared
        return other

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return min((node.remote.cost for node in self._nodes), default=100) if self._cost is None else self._cost

    @property
    def patience(self) -> float:
        """Seconds that an answer may take, because some node has all of its deadline."""
        return self._patience

    @property
    def nodes(self) -> tuple[Remote, ...]:
        return tuple(node.remote for node in self._nodes)

    @property
    def standing(self) -> tuple[Node, ...]:
        """What is known of each node, to look at."""
        return tuple(self._nodes)

    def __repr__(self) -> str:
        return f"<Cluster {self._name} {self._uuid} of {len(self._nodes)} nodes>"

    # -- presence ---------------------------------------------------------------------------------

    async def check_present(self, key: Key) -> bool:
        """True as soon as one node has it; False only when every node says that it does not.

        Raises:
            NodesFailed: No node was found to have it, and these could not say. One reason alone is
                raised as it is.
        """
        return (await self.check_present_many((key,)))[0]

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        """As ``check_present``. The nodes share the keys out: each begins elsewhere and skips what was found."""
        found = [False] * len(keys)
        asked, failed = self._up()
        for wave in ([node for node in asked if not node.late], [node for node in asked if node.late]):
            if not all(found):
                await Presence(keys, found, failed).ask(wave)
        if all(found) or (self._nodes and not failed):
            return found
        raise self._failure(f"to say whether {'content' if len(keys) > 1 else keys[0]} is present", failed)

    # -- locks ------------------------------------------------------------------------------------

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        """Refused on entering: a lock on "some node" would prove nothing. Lock the nodes."""
        return Refusal(NotLocked(key, self._name, "a cluster cannot be locked as a whole, only its nodes"))

    # -- removal ----------------------------------------------------------------------------------

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Ask every node, at once.

        Returns:
            ``ok`` when every node no longer has it; ``uuids`` is exact either way (SUCCESS-PLUS,
            FAILURE-PLUS), and who was not asked, or whose outcome is unknown, is in ``failed``.
        """
        return (await self.remove_content_many((key,), deadline=deadline))[0]

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        await self._late.settle(keys)
        asked, down = self._up()
        return await remove_many(asked, {uuid: not_asked(uuid, why) for uuid, why in down.items()}, keys, deadline)

    # -- content ----------------------------------------------------------------------------------

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[FanOut]:
        """Store *key* on every node that takes part.

        ``Stored`` says for each node: stored now, found there before, or failed and why.

        Raises:
            NodesFailed: On entering, when no node wants it and none has it; on writing or finishing,
                when no node has it.
        """
        return _Put(self, key, associated_file)

    def _fan_out(self, key: Key, associated_file: str) -> AbstractAsyncContextManager[FanOut]:
        """The put itself, once it is its turn."""
        asked, not_asked = self._up()
        instead: Instead | None = None
        if self._place is None:
            nodes = self._taking_part("put", key, associated_file, asked)
        else:
            instead = partial(self._placed, key, associated_file, asked, frozenset(not_asked))
            nodes = list(instead(frozenset(), frozenset()))
            if asked and not nodes:
                raise NotWanted(f"{self._name}: no node wants {key}")
        return self._putting(key, associated_file, nodes, not_asked, instead)

    def _placed(
        self,
        key: Key,
        associated_file: str,
        asked: list[Node],
        down: frozenset[UUID],
        taking: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> list[Node]:
        assert self._place is not None
        chosen = self._place(key, associated_file, self.nodes, taking=taking, refused=refused | down)
        wanted = {id(remote) for remote in chosen}
        return [node for node in asked if id(node.remote) in wanted]

    def _putting(
        self,
        key: Key,
        associated_file: str,
        nodes: list[Node],
        not_asked: dict[UUID, AnnexError],
        instead: Instead | None,
    ) -> AbstractAsyncContextManager[FanOut]:
        if self._min_copies is None or not self._late.entered:
            late = self._late_is_shared and self._late.entered
            fan = FanOut(self._name, key, associated_file, nodes, not_asked, afterwards=late, instead=instead)
            return self._late.making_up(fan) if late else fan
        arrived = self._late.arrived
        fan = FanOut(
            self._name,
            key,
            associated_file,
            nodes,
            not_asked,
            afterwards=True,
            enough=self._min_copies,
            slack=self._hedge,
            late=None if arrived is None else partial(arrived, key),
            behind=self._late.is_behind,
            instead=instead,
        )
        return self._late.running(fan)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        """Read *key* from the cheapest, least busy node that has it; the others stand by.

        Raises:
            KeyNotPresent: On entering: every node says that it does not have it.
            NodesFailed: On entering: none gave it, and some could not say. One reason alone is raised as it is.
        """
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", offset if offset < 0 else end, "0 or more")
        asked, not_asked = self._up()
        wanted = Wanted(key, offset, end, associated_file)
        ranked = self._ranked(asked)
        if (quick := read_at_once(wanted, ranked)) is not None:
            self._chosen(quick[0])
            return nullcontext(quick[1])
        likely = self._taking_part("get", key, associated_file, asked)
        if len(likely) < len(asked):
            ranked = self._ranked(likely) + [node for node in ranked if node not in likely]
        if ranked:
            self._chosen(ranked[0])
        return reading(wanted, Candidates(self._name, key, ranked, not_asked, self._hedge))

    def _chosen(self, node: Node) -> None:
        """It is *node*'s turn; equals come before it the next time."""
        self._turn += 1
        node.last = self._turn

    async def __aenter__(self) -> Self:
        await self._late.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._late.__aexit__(kind, error, traceback)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close every node. Late copies end with ``async with``, not here."""

        async def close(node: Node) -> None:
            await node.remote.aclose()

        await together(close, self._nodes)

    # -- which nodes ------------------------------------------------------------------------------

    def _up(self) -> tuple[list[Node], dict[UUID, AnnexError]]:
        """The nodes that are worth asking, and why the others are not."""
        asked: list[Node] = []
        not_asked: dict[UUID, AnnexError] = {}
        for node in self._nodes:
            error = node.down()
            if error is None:
                asked.append(node)
            else:
                not_asked.update(reasons(node, error))
        return asked, not_asked

    def _taking_part(self, verb: Verb, key: Key, associated_file: str, asked: list[Node]) -> list[Node]:
        if self._select is None:
            return asked
        chosen = {id(remote) for remote in self._select(verb, key, associated_file, self.nodes)}
        return [node for node in asked if id(node.remote) in chosen]

    def _ranked(self, nodes: Sequence[Node]) -> list[Node]:
        """*nodes* in the order in which to read from them."""
        ranked = sorted(nodes, key=_merit)
        if self._chooser is not None and ranked:
            best = _merit(ranked[0])[:3]
            equals = [node for node in nodes if _merit(node)[:3] == best]
            chosen = self._chooser([node.remote for node in equals])
            first = next(node for node in equals if node.remote is chosen)
            ranked.remove(first)
            ranked.insert(0, first)
        return ranked

    def _failure(self, doing: str, failed: dict[UUID, AnnexError]) -> AnnexError:
        """What to raise when the outcome is unknown because of *failed*."""
        if len(failed) == 1:
            return next(iter(failed.values()))
        return NodesFailed(self._name, doing, failed.items())


class _Put(AbstractAsyncContextManager[FanOut]):
    """The context of one put. A class, because generators cost as much as the put of a small content."""

    __slots__ = ("_cluster", "_file", "_inner", "_key")

    def __init__(self, cluster: Cluster, key: Key, associated_file: str) -> None:
        self._cluster, self._key, self._file = cluster, key, associated_file

    async def __aenter__(self) -> FanOut:
        cluster = self._cluster
        await cluster._late.settle((self._key,))
        await cluster._puts.acquire()
        try:
            self._inner = cluster._fan_out(self._key, self._file)
            return await self._inner.__aenter__()
        except BaseException:
            cluster._puts.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, error, trace)
        finally:
            self._cluster._puts.release()


def _merit(node: Node) -> tuple[bool, int, int, int]:
    return node.late, node.remote.cost, node.load, node.last
