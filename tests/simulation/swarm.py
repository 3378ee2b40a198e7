"""What goes wrong in a schedule: each draws a mix of its own, because where everything fails little is seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from tests.simulation.jumps import current_time, sleep

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["KINDS", "SCENES", "Mix"]

Fault = Callable[["World", trio.Nursery], Awaitable[None]]

KINDS = (
    *("kill", "power", "partition", "lost", "stall", "full", "errors", "rot", "wall", "cancel", "slow", "flip"),
    *("boast",),
)


@dataclass
class Mix:
    """One draw; also the weather on the wires."""

    dice: Random
    kinds: frozenset[str]
    keys: int = 3
    moved: int = 0
    copies: tuple[int, int] = (2, 2)
    clients: int = 2
    think: float = 20.0
    seconds: float = 1500.0
    sizes: tuple[int, ...] = (100,)
    min_copies: int = 0
    fast: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()
    boastful: tuple[str, ...] = ()
    commits: bool = False
    stalls: tuple[float, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    scene: str = ""
    late: float = 0.0
    """How often a removal is stalled."""
    slow_nodes: dict[str, float] = field(default_factory=dict)
    """Seconds that contents take to get into the wires to these."""
    idle: float = 600.0
    """Seconds for which a node waits for the next request: behind ssh, for ever."""
    slow_locks: float = 0.0
    """Seconds that some answers to LOCKCONTENT take."""
    stock: bool = False
    """The nodes forget a lock with its connection, as git-annex does, and take their time to give one."""
    proxied: tuple[str, ...] = ()
    """Nodes that clients reach through the gateway only."""
    count: Callable[[str], None] = lambda fault: None
    """Told of what goes wrong on the wires."""

    @classmethod
    def drawn(cls, seed: int, dice: Random, scene: str | None = None) -> Mix:
        """A mix of *scene*; by default half of them are anything, and half one of the scenes."""
        more, drawn = Random(f"{seed} archives"), scene is None
        if scene is None:
            scene = dice.choice(["", "", "", "", *_DRAWN])
        mix = cls._anything(dice)
        if drawn and not scene:
            archives = more.random()
            if archives < 0.3:
                mix.weights |= {"store": 2.0, "prove": 1.0}
            if archives < 0.15:
                scene = _ARCHIVES
            if more.random() < 0.3:
                mix.proxied = tuple(more.sample(("n0", "n1", "n2"), 2))
        mix.scene = scene
        if scene:
            mix.kinds, mix.fast, mix.untrusted, mix.boastful, mix.moved = frozenset(), (), (), (), 0
            SCENES[scene](mix)
        return mix

    @classmethod
    def _anything(cls, dice: Random) -> Mix:
        kinds = frozenset(kind for kind in KINDS if dice.random() < 0.35)
        mix = cls(dice, kinds)
        mix.keys = dice.choice([1, 2, 3])
        mix.copies = dice.choice([(1, 1), (2, 2), (2, 2), (2, 1), (3, 2), (1, 2)])
        mix.clients = dice.choice([2, 2, 3])
        mix.seconds = dice.choice([300.0, 900.0, 2000.0])
        mix.sizes = dice.choice([(100, 3000), (100,), (20_000, 100)])
        mix.min_copies = dice.choice([0, 1, 2])
        mix.moved = dice.choice([0, 0, 1])
        if dice.random() < 0.3 and "power" not in kinds:
            mix.fast = tuple(dice.sample(("n0", "n1", "n2", "n3"), 2))
        if dice.random() < 0.3:
            mix.untrusted = (dice.choice(("n0", "n1", "n2", "n3", "c1")),)
        if "boast" in kinds:
            mix.boastful = (dice.choice(("n0", "n1", "n2", "n3")),)
        mix.idle = dice.choice([600.0, inf])
        mix.commits = dice.random() < 0.2
        mix.stalls = dice.choice([(2.0, 20.0), (30.0, 65.0, 300.0), (590.0, 615.0, 640.0, 700.0, 900.0)])
        if "stall" in kinds and mix.stalls[-1] > 600:
            mix.seconds = 2000.0
        mix.think = mix.seconds / dice.choice([5, 8, 12])
        for kind in KINDS:
            mix.rates[kind] = dice.choice([0.3, 1.0, 2.0])
        for verb in ("put", "put cluster", "copy", "drop", "drop cluster", "drop here", "move", "get", "put and drop"):
            mix.weights[verb] = dice.choice([0.2, 1.0, 1.0, 3.0])
        return mix

    def end(self) -> None:
        """No more faults."""
        self.kinds = frozenset()
        self.boastful, self.late, self.slow_nodes, self.slow_locks, self.stock = (), 0.0, {}, 0.0, False

    # -- on the wires ---------------------------------------------------------------------------------------------

    def latency(self) -> float:
        return self.dice.choice((0.01, 0.2, 1.5)) if "slow" in self.kinds else 0.0

    def stall(self, data: bytes, to: str) -> float:
        if self.late and b"REMOVE" in data and self.dice.random() < self.late:
            self.count("late removal")
            return self.dice.choice(self.stalls) + self.dice.uniform(0.0, 40.0)
        if "stall" in self.kinds and self.dice.random() < 0.02 * self.rates["stall"]:
            self.count("stall")
            return self.dice.choice(self.stalls)
        return 0.0

    def narrow(self, data: bytes, to: str) -> float:
        return self.slow_nodes[to] if to in self.slow_nodes and not data.isascii() else 0.0

    def breaks(self) -> bool:
        return "lost" in self.kinds and self.dice.random() < 0.01 * self.rates["lost"]

    def flip(self, data: bytes) -> bytes:
        if "flip" in self.kinds and not data.isascii() and self.dice.random() < 0.05 * self.rates["flip"]:
            self.count("flip")
            place = self.dice.choice([place for place, byte in enumerate(data) if byte > 127])  # of a body
            return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        return data

    # -- on the machines ------------------------------------------------------------------------------------------

    def faults(self, world: World) -> Iterator[Fault]:
        """Everything that happens now and then."""
        for name in ("kill", "power", "partition", "full", "errors", "rot", "wall"):
            if name in self.kinds:
                yield _now_and_then(name, getattr(_Faults, name), self.seconds / 4 / self.rates[name])


def _late_removals(mix: Mix) -> None:
    """What was asked for arrives after whoever asked has given up."""
    dice = mix.dice
    mix.kinds = frozenset({"slow"} if dice.random() < 0.3 else ())
    mix.keys, mix.copies, mix.clients = 1, dice.choice([(1, 1), (2, 2)]), 3
    mix.late, mix.stalls = 0.4, dice.choice([(100.0, 300.0), (540.0, 580.0, 620.0), (620.0, 700.0, 850.0)])
    mix.seconds, mix.think, mix.idle = 1500.0, 80.0, inf
    mix.weights = {**dict.fromkeys(mix.weights, 0.0), "put": 1.0, "copy": 0.5, "drop": 3.0}


def _late_wall(mix: Mix) -> None:
    """The same while clocks are set."""
    _late_removals(mix)
    mix.kinds = frozenset({"wall"})
    mix.rates["wall"] = 3.0


def _late_copies(mix: Mix) -> None:
    """A put is answered before every node has the content, and then the key is removed."""
    mix.keys, mix.copies, mix.clients, mix.min_copies = 1, (1, 1), 2, 1
    mix.slow_nodes = {mix.dice.choice(("n0", "n1", "n2")): mix.dice.choice([0.5, 1.5, 3.0])}
    mix.seconds, mix.think, mix.sizes = 160.0, 10.0, (100, 3000)
    mix.weights = {**dict.fromkeys(mix.weights, 0.0), "put and drop": 3.0, "drop cluster": 0.5, "copy": 1.0, "put": 1.0}


def _power_cuts(mix: Mix) -> None:
    """Machines lose their power all the time."""
    mix.kinds = frozenset({"power", "kill"})
    mix.rates |= {"power": 4.0, "kill": 2.0}
    mix.seconds, mix.think = 600.0, 40.0


def _stock_locks(mix: Mix) -> None:
    """Locks end with their connection, connections end, and to lock takes its time. Nothing else is slow."""
    mix.kinds, mix.stock = frozenset({"kill"}), True
    mix.rates["kill"] = 12.0
    mix.keys, mix.copies, mix.clients = 1, (2, 2), 3
    mix.seconds, mix.think = 600.0, 40.0
    mix.weights = {**dict.fromkeys(mix.weights, 0.0), "put": 1.5, "drop": 3.0}


def _bad_wires(mix: Mix) -> None:
    """Answers are lost, bytes change, and nodes boast."""
    mix.kinds = frozenset({"lost", "flip", "boast", "cancel"})
    mix.rates |= {"lost": 4.0, "flip": 6.0}
    mix.boastful = (mix.dice.choice(("n0", "n1", "n2", "n3")),)
    mix.sizes, mix.min_copies = (100, 3000), 0


def _half_removed(mix: Mix) -> None:
    """Nodes of the cluster are away or cannot write while the cluster is asked to remove."""
    mix.kinds = frozenset({"kill", "errors", "partition"})
    mix.rates |= {"kill": 3.0, "errors": 3.0, "partition": 2.0}
    mix.keys, mix.copies, mix.min_copies = 1, (1, 1), 0
    mix.seconds, mix.think = 500.0, 30.0
    mix.weights = {**dict.fromkeys(mix.weights, 0.0), "put cluster": 2.0, "drop cluster": 3.0, "copy": 1.0, "put": 1.0}


def _looked_at(mix: Mix) -> None:
    """Some copies need not be locked, some repositories are not trusted."""
    mix.kinds, mix.copies, mix.clients = frozenset({"slow"}), (2, 1), 3
    mix.untrusted = (mix.dice.choice(("n0", "n1", "n2", "n3")),)
    mix.seconds, mix.think = 300.0, 25.0


def _archives(mix: Mix) -> None:
    """Outputs are archived and their copies proven, while copies rot and processes are killed."""
    dice = mix.dice
    mix.kinds = frozenset({"rot", *dice.sample(("kill", "lost", "boast", "slow", "stall", "wall"), 3)})
    mix.rates |= {"rot": 6.0, "kill": 2.0, "lost": 2.0}
    mix.boastful = (dice.choice(("n0", "n1", "n2", "n3")),) if "boast" in mix.kinds else ()
    mix.keys, mix.sizes, mix.seconds, mix.think = 2, (100, 3000), 900.0, 60.0
    few = {"put": 0.3, "copy": 0.3, "get": 0.5, "drop": 2.0, "drop here": 0.3}
    mix.weights = {**dict.fromkeys(mix.weights, 0.0), **few, "store": 2.0, "prove": 3.0}


def _late_answers(mix: Mix) -> None:
    """Locks are answered late, and removals that rely on them arrive when the locks are just over."""
    _late_removals(mix)
    mix.late, mix.stalls, mix.copies = 0.5, (550.0, 570.0, 590.0), (1, 1)
    mix.slow_locks, mix.think, mix.clients = 55.0, 30.0, 3


_ARCHIVES = "archives and proofs"

SCENES: dict[str, Callable[[Mix], None]] = {
    "late removals": _late_removals,
    "late removals and clocks that are set": _late_wall,
    "late copies": _late_copies,
    "power cuts": _power_cuts,
    "stock locks": _stock_locks,
    "bad wires": _bad_wires,
    "half removed": _half_removed,
    "looked at": _looked_at,
    "late answers": _late_answers,
    _ARCHIVES: _archives,
}
_DRAWN = [scene for scene in SCENES if scene != _ARCHIVES]
"""The others take the place of some that would be anything."""


def _now_and_then(name: str, fault: Any, pause: float) -> Fault:
    async def run(world: World, nursery: trio.Nursery) -> None:
        dice = Random(f"{world.seed} {name}")
        while world.storm:
            await sleep(dice.expovariate(1 / pause))
            if world.storm:
                await fault(world, nursery, dice)

    return run


class _Faults:
    @staticmethod
    async def kill(world: World, nursery: trio.Nursery, dice: Random) -> None:
        machines = [machine for name, machine in world.machines.items() if name[0] == "n" or not world.mix.stock]
        machine = dice.choice(machines)
        if machine.up:
            world.fault("kill")
            machine.kill()
            await _back(world, nursery, machine, 0.0 if world.mix.stock else dice.choice([0.0, 5.0, 100.0]))

    @staticmethod
    async def power(world: World, nursery: trio.Nursery, dice: Random) -> None:
        machine = dice.choice(list(world.machines.values()))
        if machine.up:
            world.fault("power")
            machine.lose_power(dice.choice([None, dice.randrange]))
            await _back(world, nursery, machine, dice.choice([20.0, 200.0]), booted=True)

    @staticmethod
    async def partition(world: World, nursery: trio.Nursery, dice: Random) -> None:
        one, other = dice.sample(list(world.machines.values()), 2)
        world.fault("partition")
        world.network.partition(one, other, current_time() + dice.choice([5.0, 70.0, 300.0, 620.0]))

    @staticmethod
    async def full(world: World, nursery: trio.Nursery, dice: Random) -> None:
        machine = dice.choice(list(world.machines.values()))
        world.fault("full")
        machine.full(dice.choice([0, 50, 1200, 2500]))
        await sleep(dice.choice([20.0, 100.0]))
        machine.full(None)

    @staticmethod
    async def errors(world: World, nursery: trio.Nursery, dice: Random) -> None:
        machine = dice.choice(list(world.machines.values()))
        world.fault("errors")
        machine.errors = dice.choice([0.02, 0.2, 1.0])
        await sleep(dice.choice([20.0, 100.0]))
        machine.errors = 0.0

    @staticmethod
    async def rot(world: World, nursery: trio.Nursery, dice: Random) -> None:
        truth = world.truth
        places = [(machine, key) for machine, keys in truth.has.items() for key in sorted(keys, key=str)]
        if not places:
            return
        machine, key = dice.choice(places)
        if any(spoilt == key for _, spoilt in truth.rotten | truth.truncated):
            return
        cut = dice.random() < 0.5 and not truth.being_dropped(key)  # what was looked at may not be cut after that
        if cut and len(truth.copies_of(key)) <= truth.copies.needed:
            return  # that would be the simulator's own doing
        world.fault("rot")
        node = machine.disk._walk(truth.path(key).rpartition(b"/")[0]).entries[truth.path(key).rpartition(b"/")[2]]
        data = bytearray(truth.contents[key])
        if cut:
            del data[len(data) // 2 :]
        else:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        truth.spoil(machine, key, bytes(data))
        node.data[:] = data  # type: ignore[attr-defined]
        node.durable = bytes(data)  # type: ignore[attr-defined]

    @staticmethod
    async def wall(world: World, nursery: trio.Nursery, dice: Random) -> None:
        machine = dice.choice(list(world.machines.values()))
        world.fault("wall")
        machine.clock.set(dice.choice([-3600.0, -60.0, 60.0, 700.0, 3600.0]))


async def _back(world: World, nursery: trio.Nursery, machine: Any, after: float, *, booted: bool = False) -> None:
    await sleep(after)
    if booted:
        machine.reboot_clock(5.0)
        world.mix.count("reboot")
    if not machine.up:
        world.mix.count("restart")
        machine.start(nursery)
