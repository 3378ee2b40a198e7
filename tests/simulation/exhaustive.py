"""Every interleaving of two drops: two clients, three nodes, one key, one fault, and any message as late as can be.

The messages go through real ``Connection``s, the decision is the real ``safe_drop``, the real ``P2PLock`` says how long
a lock is relied on, and deadlines are translated by the real ``P2PRemote`` and kept by the real ``MemoryRemote``. What
stands between them (whom to ask next, when to give up) is spelt out here, because only so every order of events can be
tried. Time comes in steps of 300 seconds, of which a lock lasts two; any event may happen in any of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from annexpy.clock import LOCK_RETENTION, Deadline
from annexpy.errors import NotEnoughCopies
from annexpy.keys.key import Key
from annexpy.p2p.connection import Connection, Role
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import (
    FAILURE,
    GET_TIMESTAMP,
    SUCCESS,
    UNLOCK_CONTENT,
    CheckPresent,
    LockContent,
    Message,
    Remove,
    RemoveBefore,
    Success,
    Timestamp,
)
from annexpy.p2p.states import State as Turn
from annexpy.policy import numcopies
from annexpy.policy.numcopies import CheckedCopy, Copies, HeldCopy
from annexpy.remote import p2p_lock, p2p_removal
from annexpy.remote.memory import MemoryLock, MemoryRemote
from annexpy.uuids import UUID

__all__ = ["LONG", "SETTINGS", "Found", "Setting", "explore"]

KEY = Key.parse(b"SHA256-s1--" + b"0" * 64)
STEP = 300.0
STEPS = 2
UPTIME = (50.0, 290.0, 80_000.0)
BEGINNING = 1_000_000.0
"""Of all clocks; after a reboot they begin at 0."""
UUIDS = tuple(UUID(f"{number}0000000-0000-4000-8000-000000000000") for number in range(3))

Line: TypeAlias = tuple[str, bytes]
"""Who said it (C or S), and what."""


@dataclass(frozen=True)
class Setting:
    """Who wants to drop from where.

    Attributes:
        targets: Of either client.
        copies: What has to stay.
        orders: In which order either client asks the others.
        unlockable: Nodes that refuse to lock.
        having: Who has the content in the beginning.
        stateless: A request may outlive the process it was sent to, as over HTTP with something in between.
    """

    targets: tuple[int, int]
    copies: tuple[int, int]
    orders: tuple[bool, bool] = (False, False)
    unlockable: frozenset[int] = frozenset()
    stateless: bool = False
    steps: int = STEPS
    having: tuple[bool, bool, bool] = (True, True, True)


class Node(NamedTuple):
    has: bool
    clock: float
    """What its clock shows at step 0."""
    locks: tuple[tuple[int, float], ...] = ()
    """(client, until when by its clock)."""
    retained: float = -1.0


class Wire(NamedTuple):
    """One connection of a client to a node.

    Attributes:
        said: What both have heard of each other.
        flying: What only one of them knows of.
        client, server: They still have it open.
    """

    said: tuple[Line, ...] = ()
    flying: Line | None = None
    client: bool = True
    server: bool = True


class Client(NamedTuple):
    """*asking*: what it waits for, of which node, since when; "ready" for the decision, "over" at the end."""

    asking: str = "start"
    node: int = -1
    since: int = 0
    held: tuple[tuple[int, float], ...] = ()
    checked: tuple[tuple[int, float], ...] = ()
    deadline: float = 0.0


class State(NamedTuple):
    step: int
    fault: bool
    nodes: tuple[Node, ...]
    clients: tuple[Client, ...]
    wires: tuple[tuple[Wire, ...], ...]


@dataclass
class Found:
    """What came of one setting."""

    states: int = 0
    removals: int = 0
    violation: str = ""


# -- the real code ------------------------------------------------------------------------------------------------


@cache
def _heard(role: Role, said: tuple[Line, ...]) -> tuple[Message, bool]:
    """What one side makes of the last line, having said and heard everything before it; and whether it is at rest."""
    connection = Connection(role, state=Turn.IDLE, version=4)
    mine, event = "C" if role is Role.CLIENT else "S", None
    for who, line in said:
        if who == mine:
            sent = connection.send(parse(line[:-1]))
            assert sent == line
        else:
            connection.receive_data(line)
            event = connection.next_event()
    assert event is not None
    return event, connection.state is Turn.IDLE and not connection.outstanding  # type: ignore[return-value]


class _Now:
    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def now_is(self, now: float) -> None:
        self._now = now


def _at_once(coroutine: Any) -> Any:
    """What *coroutine*, which waits for nobody, gives."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


@cache
def _removal(deadline: float, now: float, theirs: int) -> Message | None:
    """What is sent to a node whose clock showed *theirs*; None when it is too late for that."""

    async def ask(_: Message) -> Message:
        return Timestamp(theirs)

    wire = SimpleNamespace(version=4, clock_offset=None, ask=ask, name="node")
    remover = p2p_removal.Remover(SimpleNamespace(), _Now(now))  # type: ignore[arg-type]
    before = _at_once(remover._in_its_clock(wire, Deadline(deadline)))  # type: ignore[arg-type]
    return None if callable(before) else p2p_removal._removal(KEY, before)


@cache
def _promised(asked: float, heard: float) -> float:
    """Until when a client relies on a lock that it asked for at one moment and heard of at another."""
    clock = _Now(asked)

    async def ask(_: Message) -> Message:
        clock.now_is(heard)
        return SUCCESS

    async def take(_: object) -> object:
        return SimpleNamespace(ask=ask, uuid=UUIDS[0], name="node")

    lock = p2p_lock.P2PLock(SimpleNamespace(take=take), KEY, clock)  # type: ignore[arg-type]
    _at_once(lock.__aenter__())
    return lock.expires


@cache
def _removes(node: Node, now: float, deadline: float | None) -> bool:
    """Whether a node gives it up."""
    remote = MemoryRemote(UUIDS[0], clock=_Now(now), objects={KEY: b"x"} if node.has else {})  # type: ignore[arg-type]
    if node.locks:
        remote._locks[KEY] = [MemoryLock(UUIDS[0], until) for _, until in node.locks]
    if node.retained >= 0:
        remote._retained_until[KEY] = node.retained
    return bool(_at_once(remote.remove_content(KEY, deadline=None if deadline is None else Deadline(deadline))).ok)


@cache
def _proven(
    copies: Copies, held: tuple[tuple[int, float], ...], checked: tuple[tuple[int, float], ...], target: int, now: float
) -> Deadline | NotEnoughCopies | None:
    """Until when a removal may rely on these, if it may; each lock is seen by two paths."""
    verified: list[Any] = [HeldCopy(UUIDS[node], f"n{node}", until) for node, until in held]
    verified += [HeldCopy(UUIDS[node], f"n{node} by another path", until) for node, until in held]
    verified += [CheckedCopy(UUIDS[node], f"n{node}", at) for node, at in checked]
    try:
        return numcopies.safe_drop(KEY, copies, verified, dropped_from={UUIDS[target]}, trust={}, now=now).deadline
    except NotEnoughCopies as error:
        return error


# -- what can happen next -----------------------------------------------------------------------------------------


class Search:
    """All states of one setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.copies, self.found = setting, Copies(*setting.copies), Found()
        self.bound = self.copies.min if self.copies.min < self.copies.num else self.copies.needed
        self._others = [self._asked(client) for client in (0, 1)]

    def _asked(self, client: int) -> list[int]:
        others = [node for node in range(3) if node != self.setting.targets[client]]
        return others[::-1] if self.setting.orders[client] else others

    def run(self) -> Found:
        nodes = tuple(Node(has, BEGINNING + uptime) for has, uptime in zip(self.setting.having, UPTIME, strict=True))
        start = State(0, False, nodes, (Client(), Client()), ((Wire(),) * 3,) * 2)
        seen, waiting = {start}, [start]
        while waiting and not self.found.violation:
            for following in self.following(waiting.pop()):
                following = _plain(following)
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        self.found.states = len(seen)
        return self.found

    def following(self, state: State) -> Iterator[State]:
        if state.step < self.setting.steps:
            yield State(state.step + 1, *state[1:])
        for client in (0, 1):
            yield from self._acts(state, client)
            for node in range(3):
                yield from self._arrives(state, client, node)
        if not state.fault:
            yield from self._faults(State(state.step, True, *state[2:]))

    def _acts(self, state: State, client: int) -> Iterator[State]:
        me = state.clients[client]
        if me.asking == "start":
            yield self._ask_next(state, client)
        elif me.asking == "ready":
            yield self._decide(state, client)
        elif me.asking != "over" and not state.wires[client][me.node].client:
            yield self._give_up(state, client)

    def _give_up(self, state: State, client: int) -> State:
        """No answer. About a removal: hang up on everybody, so that the locks stay. Else: the next one, or the end."""
        me = state.clients[client]
        state = _hang_up(state, client, me.node)
        if me.asking in ("lock", "look"):
            return self._ask_next(state, client)
        if me.asking == "time":
            return self._unlock(state, client)
        for node in range(3):
            state = _hang_up(state, client, node)
        return _with_client(state, client, Client("over"))

    def _ask_next(self, state: State, client: int) -> State:
        me = state.clients[client]
        enough = len(me.held) + len(me.checked) >= self.copies.needed and len(me.held) >= self.copies.min
        others = self._others[client]
        at = 0 if me.asking == "start" else others.index(me.node) + 1
        if enough or at == len(others):
            return _with_client(state, client, me._replace(asking="ready", node=-1, since=0))
        return self._send(state, client, others[at], "lock", LockContent(KEY))

    def _send(self, state: State, client: int, node: int, asking: str, message: Message) -> State:
        since = state.step if asking in ("lock", "look") else 0
        me = state.clients[client]._replace(asking=asking, node=node, since=since)
        wire = state.wires[client][node]
        if not wire.client:
            return self._give_up(_with_client(state, client, me), client)
        line = ("C", message.line() + b"\n")
        return _with_client(_with_wire(state, client, node, wire._replace(flying=line)), client, me)

    def _decide(self, state: State, client: int) -> State:
        """Look at the locks again, prove, and ask for the removal."""
        me, now = state.clients[client], state.step * STEP
        held = tuple(copy for copy in me.held if state.wires[client][copy[0]].client)
        target = self.setting.targets[client]
        deadline = _proven(self.copies, held, me.checked, target, now)
        if isinstance(deadline, NotEnoughCopies):
            return self._unlock(state, client)
        if deadline is None:
            self.found.violation = f"at {now}, a proof stands on locks {held} and has no deadline"
            return state
        if deadline.at <= now or deadline.at > min(until for _, until in held):
            self.found.violation = f"at {now}, a proof until {deadline.at} stands on locks {held}"
        state = _with_client(state, client, me._replace(deadline=deadline.at))
        return self._send(state, client, target, "time", GET_TIMESTAMP)

    def _unlock(self, state: State, client: int) -> State:
        """The end, in good order."""
        for node, _ in state.clients[client].held:
            wire = state.wires[client][node]
            if wire.client:
                assert wire.flying is None
                line = ("C", UNLOCK_CONTENT.line() + b"\n")
                state = _with_wire(state, client, node, wire._replace(flying=line, client=False))
        return _with_client(state, client, Client("over"))

    # -- messages ---------------------------------------------------------------------------------------------------

    def _arrives(self, state: State, client: int, node: int) -> Iterator[State]:
        wire = state.wires[client][node]
        if wire.flying is None:
            if not wire.client and wire.server:
                yield _vanished(state, client, node)
            return
        who = wire.flying[0]
        if who == "C" and wire.server:
            said = (*wire.said, wire.flying)
            heard, rests = _heard(Role.SERVER, said)
            wire = Wire(() if rests else said, None, wire.client, wire.server)
            yield from self._served(_with_wire(state, client, node, wire), client, node, heard)
        elif who == "S" and wire.client:
            said = (*wire.said, wire.flying)
            heard, rests = _heard(Role.CLIENT, said)
            wire = Wire(() if rests else said, None, wire.client, wire.server)
            yield self._answered(_with_wire(state, client, node, wire), client, node, heard)
        elif who == "S":
            yield _with_wire(state, client, node, Wire(wire.said, None, wire.client, wire.server))

    def _served(self, state: State, client: int, number: int, request: Message) -> Iterator[State]:
        node, now = state.nodes[number], state.nodes[number].clock + state.step * STEP
        answer: Message | None = None
        match request:
            case LockContent():
                if node.has and number not in self.setting.unlockable:
                    lock = (client, now + LOCK_RETENTION)
                    state = _with_node(state, number, node._replace(locks=(*node.locks, lock)))
                    answer = SUCCESS
                else:
                    answer = FAILURE
            case CheckPresent():
                answer = SUCCESS if node.has else FAILURE
            case Timestamp() | _ if request == GET_TIMESTAMP:
                answer = Timestamp(int(now))
            case Remove() | RemoveBefore():
                deadline = float(request.timestamp) if isinstance(request, RemoveBefore) else None
                gone = _removes(node, now, deadline)
                if gone and node.has:
                    state = _with_node(state, number, node._replace(has=False))
                    self._removed(state, client, number)
                answer = SUCCESS if gone else FAILURE
            case _:
                assert request == UNLOCK_CONTENT
                locks = tuple(lock for lock in node.locks if lock[0] != client)
                state = _with_node(state, number, node._replace(locks=locks))
        if answer is not None:
            wire = state.wires[client][number]
            state = _with_wire(
                state, client, number, Wire(wire.said, ("S", answer.line() + b"\n"), wire.client, wire.server)
            )
        yield state

    def _removed(self, state: State, client: int, number: int) -> None:
        self.found.removals += 1
        left = sum(node.has for node in state.nodes)
        if left < self.bound:
            self.found.violation = f"client {client} removed it from node {number}: {left} of {self.bound} are left"

    def _answered(self, state: State, client: int, node: int, answer: Message) -> State:
        me, now = state.clients[client], state.step * STEP
        yes = isinstance(answer, Success)
        match me.asking:
            case "lock" if yes:
                held = (*me.held, (node, _promised(me.since * STEP, now)))
                return self._ask_next(_with_client(state, client, me._replace(held=held)), client)
            case "lock":
                return self._send(state, client, node, "look", CheckPresent(KEY))
            case "look":
                checked = (*me.checked, (node, me.since * STEP)) if yes else me.checked
                return self._ask_next(_with_client(state, client, me._replace(checked=checked)), client)
            case "time":
                assert isinstance(answer, Timestamp)
                removal = _removal(me.deadline, now, answer.seconds)
                if removal is None:
                    return self._unlock(state, client)
                return self._send(state, client, node, "removal", removal)
            case _:
                return self._unlock(state, client)

    # -- faults -----------------------------------------------------------------------------------------------------

    def _faults(self, state: State) -> Iterator[State]:
        for client, node in product((0, 1), range(3)):
            wire = state.wires[client][node]
            used = wire.flying or any(owner == client for owner, _ in state.nodes[node].locks)
            if used and wire.client and wire.server:  # it is cut, and what was on its way is lost
                cut = _with_wire(state, client, node, Wire(wire.said, None, False, wire.server))
                yield _vanished(cut, client, node)
        for client in (0, 1):
            if state.clients[client].node >= 0:
                yield self._give_up(state, client)  # the answer takes longer than anybody waits
            if state.clients[client].asking != "over":
                dead = state
                for node in range(3):
                    dead = _hang_up(dead, client, node)
                yield _with_client(dead, client, Client("over"))
        for number in range(3):
            crashed = self._crash(state, number)
            yield crashed
            node = crashed.nodes[number]
            reborn = Node(node.has, -state.step * STEP, node.locks, _later(node, state.step))
            yield _with_node(crashed, number, reborn)

    def _crash(self, state: State, number: int) -> State:
        for client in (0, 1):
            wire = state.wires[client][number]
            if wire.client and wire.flying is None and all(owner != client for owner, _ in state.nodes[number].locks):
                continue  # nothing was on it: the next request opens another one
            kept = wire.flying if self.setting.stateless and wire.flying and wire.flying[0] == "C" else None
            state = _with_wire(
                _vanished(state, client, number) if wire.server else state,
                client,
                number,
                Wire(wire.said, kept, False, kept is not None),
            )
        return state


_DEAD = Wire((), None, False, False)


def _plain(state: State) -> State:
    """The same without what makes no difference any more."""
    for client, row in enumerate(state.wires):
        for number, wire in enumerate(row):
            if wire.said and not wire.client and not wire.server and wire.flying is None:
                state = _with_wire(state, client, number, _DEAD)
    for number, node in enumerate(state.nodes):
        if not node.has and node.retained >= 0:
            state = _with_node(state, number, Node(False, node.clock))
    return state


def _later(node: Node, step: int) -> float:
    """A retention, which stands on the disk, by a clock that begins anew."""
    left = node.retained - (node.clock + step * STEP)
    return left if node.retained >= 0 and left > 0 else -1.0


def _vanished(state: State, client: int, number: int) -> State:
    """The node hears that the client is gone: a lock stays until its retention is over."""
    node = state.nodes[number]
    retained = max([node.retained, *(until for owner, until in node.locks if owner == client)])
    locks = tuple(lock for lock in node.locks if lock[0] != client)
    if locks != node.locks or retained != node.retained:
        state = _with_node(state, number, Node(node.has, node.clock, locks, retained))
    wire = state.wires[client][number]
    return _with_wire(state, client, number, Wire(wire.said, wire.flying, wire.client, False))


def _hang_up(state: State, client: int, number: int) -> State:
    wire = state.wires[client][number]
    return _with_wire(state, client, number, Wire(wire.said, wire.flying, False, wire.server))


def _with_node(state: State, number: int, node: Node) -> State:
    nodes = (*state.nodes[:number], node, *state.nodes[number + 1 :])
    return State(state.step, state.fault, nodes, state.clients, state.wires)


def _with_client(state: State, number: int, client: Client) -> State:
    clients = (client, state.clients[1]) if number == 0 else (state.clients[0], client)
    return State(state.step, state.fault, state.nodes, clients, state.wires)


def _with_wire(state: State, client: int, number: int, wire: Wire) -> State:
    wires = state.wires
    row = (*wires[client][:number], wire, *wires[client][number + 1 :])
    both = (row, wires[1]) if client == 0 else (wires[0], row)
    return State(state.step, state.fault, state.nodes, state.clients, both)


_TWO = (True, True, False)

SETTINGS = (
    Setting((0, 1), (1, 1), having=_TWO),
    Setting((0, 1), (1, 1), (False, True), having=_TWO),
    Setting((0, 1), (1, 1), having=_TWO, stateless=True),
    Setting((0, 0), (1, 1), (False, True), having=_TWO),
    Setting((0, 1), (2, 2), (False, True), steps=1),
    Setting((0, 1), (2, 1), (False, True), steps=1),
    Setting((0, 2), (2, 2), unlockable=frozenset({2}), steps=1),
)
"""Dropping from two nodes or both from one; one or two copies; somebody who cannot lock."""

LONG = (
    Setting((0, 1), (2, 2), (True, False)),
    Setting((0, 1), (2, 1), (False, True)),
    Setting((0, 1), (2, 2), (False, True), stateless=True),
)
"""Millions of states; for campaigns."""


def explore(setting: Setting) -> Found:
    """Try everything. What the real code says to the same question is remembered, until the next call."""
    for remembered in (_heard, _removal, _promised, _removes, _proven):
        remembered.cache_clear()
    collects = gc.isenabled()
    gc.disable()  # millions of values, and no cycle among them
    try:
        return Search(setting).run()
    finally:
        if collects:
            gc.enable()
