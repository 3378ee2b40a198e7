"""Several clients drop and copy at the same time, over wires that are slow and break: enough copies always stay.

The code under test is the real one; its repositories are in memory, its wires and its clock are simulated
(trio's autojump clock). A request whose answer is lost may be carried out long after its sender gave up.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import random
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio._core import _run

from annexpy.actions import drop as drop_module
from annexpy.actions import gather as gather_module
from annexpy.actions.drop import drop
from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectionLost, ContentLocked
from annexpy.keys.key import Key
from annexpy.policy import numcopies
from annexpy.policy.numcopies import Copies
from annexpy.remote.base import Removed
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID

_run._hypothesis_plugin_setup()  # sorts ready tasks before it shuffles them: a world is a function of its seed

KEY = Key.parse(b"WORM-s1-m1--a")
SECONDS = 5000.0


class Clock:
    def now(self) -> float:
        return trio.current_time()

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return trio.current_time()


class World:
    """Repositories, clients, and whoever sees all of it."""

    def __init__(self, seed: int, *, hostile: bool = False) -> None:
        self.dice = random.Random(seed)
        self.num = 1 if hostile else self.dice.randint(1, 2)
        self.nodes = [
            MemoryRemote(UUID(f"{n:08d}-1111-4111-8111-111111111111"), name=f"n{n}", clock=Clock()) for n in range(4)
        ]
        for node in self.dice.sample(self.nodes, self.dice.randint(self.num, 4)):
            node.objects[KEY] = b"x"
        # how slow this world is, and how often a wire breaks: every world has its own mix
        slow = [30.0, 300.0, 650.0]
        self.delays = [0.0, 0.01, 1.0] * self.dice.choice([1, 5]) + slow * self.dice.choice([0, 1])
        self.late_by = [0.0, 1.0, *slow]
        self.loss = self.dice.choice([0.0, 0.1, 0.3])
        self.lost_removals, self.enough = self.loss, 3
        if hostile:  # where a mistake shows soon: much happens, and many removals arrive late
            self.delays, self.loss, self.lost_removals = [0.0, 0.01, 1.0], 0.0, 0.3
            self.late_by, self.enough = [1.0, 615.0, 640.0, 700.0], 2
        self.drops, self.violations = 0, list[str]()
        self.late: trio.Nursery

    def copies(self) -> int:
        return sum(KEY in node.objects for node in self.nodes)

    async def delay(self) -> None:
        await trio.sleep(self.dice.choice(self.delays))

    def breaks(self, loss: float) -> bool:
        return self.dice.random() < loss

    async def run(self, drop: Callable[..., Any]) -> None:
        async with trio.open_nursery() as self.late:
            async with trio.open_nursery() as clients:
                for _ in range(4):
                    clients.start_soon(self.client, drop)

    async def client(self, drop: Callable[..., Any]) -> None:
        dice = self.dice
        while trio.current_time() < SECONDS:
            await trio.sleep(dice.expovariate(1 / 20))
            node = dice.choice(self.nodes)
            if self.copies() < self.enough and dice.random() < 0.4:
                node.objects[KEY] = b"x"  # a copy from somebody who has it
                continue
            others = [Wire(self, other) for other in self.nodes if other is not node]
            dice.shuffle(others)
            try:
                await drop(KEY, from_=Wire(self, node), others=others, copies=Copies(self.num), clock=Clock())
            except AnnexError:
                pass

    async def remove(self, node: MemoryRemote, deadline: Deadline | None) -> Removed:
        had = KEY in node.objects
        removed = await node.remove_content(KEY, deadline=deadline)
        if had and KEY not in node.objects:
            self.drops += 1
            if self.copies() < self.num:
                self.violations.append(f"{self.copies()} of {self.num} copies at {trio.current_time():.1f}")
        return removed


class Wire:
    """One client's way to one repository."""

    cost = 200

    def __init__(self, world: World, node: MemoryRemote) -> None:
        self._world, self._node = world, node
        self.uuid, self.name = node.uuid, node.name

    async def _reach(self, waiting_for: str) -> None:
        await self._world.delay()
        if self._world.breaks(self._world.loss):
            raise ConnectionLost(self.name, waiting_for)

    async def check_present(self, key: Key) -> bool:
        await self._reach("CHECKPRESENT")
        return await self._node.check_present(key)

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[Any]:
        began = trio.current_time()
        await self._reach("LOCKCONTENT")
        async with self._node.lock_content(key) as lock:
            await self._reach("the answer to LOCKCONTENT")  # broken here, the server keeps its retention
            yield Held(self, lock, began + 600)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        await self._world.delay()
        if self._world.breaks(self._world.lost_removals):
            if self._world.dice.random() < 0.7:  # it arrives, after its sender has given up
                self._world.late.start_soon(self._later, deadline)
            raise ConnectionLost(self.name, "an answer to REMOVE-BEFORE")
        removed = await self._world.remove(self._node, deadline)
        await self._world.delay()
        return removed

    async def _later(self, deadline: Deadline | None) -> None:
        await trio.sleep(self._world.dice.choice(self._world.late_by))
        await self._world.remove(self._node, deadline)


class Held:
    def __init__(self, wire: Wire, lock: Any, expires: float) -> None:
        self._wire, self._lock, self.uuid, self.expires = wire, lock, wire.uuid, expires

    async def held(self) -> bool:
        return await self._lock.held() and trio.current_time() < self.expires


def simulate(drop: Callable[..., Any], seeds: range, *, hostile: bool = False) -> tuple[int, list[str]]:
    """How many drops there were, and what went wrong. In a hostile world the first thing that does is enough."""
    drops, violations = 0, list[str]()
    for seed in seeds:
        world = World(seed, hostile=hostile)
        _run._r.seed(seed)  # the order in which trio runs tasks that are ready at the same time
        trio.run(world.run, drop, clock=trio.testing.MockClock(autojump_threshold=0))
        drops += world.drops
        violations += [f"world {seed}: {text}" for text in world.violations]
        if violations and hostile:
            break
    return drops, violations


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "annexpy")


def test_whatever_happens_at_the_same_time_enough_copies_stay() -> None:
    drops, violations = simulate(drop, range(8))
    more, worse = simulate(drop, range(8), hostile=True)

    assert violations + worse == []
    assert drops > 200  # progress is real
    assert more > 10


@pytest.mark.campaign
def test_the_same_for_a_long_time() -> None:
    drops, violations = simulate(drop, range(1000, 6000))

    assert violations == []
    assert drops > 50_000


MISTAKES: dict[str, list[tuple[types.ModuleType, str, str]]] = {
    "nothing is locked": [
        (gather_module, "lock = await self._lock(remote, locks)", "lock = await _forget(remote, self.key)")
    ],
    "a removal has no deadline": [(drop_module, "deadline=proof.deadline)", "deadline=None)")],
    "locks are given back although the removal may come": [
        (gather_module, "        if self.under_way:\n            raise", "        if False:\n            raise")
    ],
    "the deadline is after the last lock": [(numcopies, "Deadline(min(ends)) if", "Deadline(max(ends) + 290) if")],
}

FORGET = """

async def _forget(remote, key):
    async with remote.lock_content(key) as lock:
        pass
    lock.held = _yes
    return lock


async def _yes():
    return True
"""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_shows(mistake: str) -> None:
    with variant(MISTAKES[mistake]) as mistaken:
        _, violations = simulate(mistaken, range(60), hostile=True)

    assert violations


@contextmanager
def variant(changes: list[tuple[types.ModuleType, str, str]]) -> Iterator[Callable[..., Any]]:
    """``drop`` with some places of its source replaced."""
    sources = {module: inspect.getsource(module) for module in (numcopies, gather_module, drop_module)}
    for where, right, wrong in changes:
        assert sources[where].count(right) == 1, right
        sources[where] = sources[where].replace(right, wrong)
    sources[gather_module] += FORGET
    saved = {module.__name__: module for module in sources}
    try:
        for module, source in sources.items():
            changed = types.ModuleType(module.__name__)
            sys.modules[module.__name__] = changed
            exec(compile(source, module.__name__, "exec"), changed.__dict__)
        yield importlib.import_module(drop_module.__name__).drop
    finally:
        sys.modules.update(saved)


def test_a_locked_copy_is_not_removed_in_this_world_either() -> None:
    """The world itself keeps the rules that servers keep."""

    async def main() -> None:
        world = World(1)
        node = world.nodes[0]
        node.objects[KEY] = b"x"
        async with node.lock_content(KEY):
            removed = await world.remove(node, None)
        assert isinstance(removed.failed[node.uuid], ContentLocked)

    trio.run(main)
