"""Machines: a clock, a disk in memory, and a process that can be killed at any moment.

A process that was killed has no effect any more: its disk raises ``Killed`` and its wires are shut before a single
``finally`` of it runs.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import TYPE_CHECKING

import trio

from annexpy.keys.key import Key
from annexpy.repo.branch import Branch
from annexpy.repo.config import GitConfig
from annexpy.repo.content import ContentStore
from annexpy.repo.door import Files
from annexpy.repo.faulty_files import Faults, FaultyFiles, Killed
from annexpy.repo.format import Tuning
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.repository import Repository
from annexpy.repo.settings import ContentSettings, Durability
from annexpy.uuids import UUID
from tests.simulation.jumps import current_time
from tests.simulation.network import Network, WireEnd

if TYPE_CHECKING:
    from tests.simulation.truth import Truth

__all__ = ["EPOCH", "Machine", "MachineClock", "Process", "SimulatedRepository"]

EPOCH = 1.7e9
BEGINNINGS = 1 << 30
"""A clock begins somewhere in these seconds with each boot."""
_ROOMY = 1 << 40


class MachineClock:
    """Two clocks: one begins somewhere with each boot and never steps, the other one is what somebody set it to."""

    def __init__(self, uptime: float, skew: float, beginning: float = 0.0) -> None:
        self.skew = self.furthest = skew
        self.boot(-uptime, beginning)

    def boot(self, at: float, beginning: float) -> None:
        """At that moment of the simulation it began anew."""
        self._beginning, self._zero = beginning, at - beginning

    def set(self, by: float) -> None:
        """Somebody sets the second one."""
        self.skew += by
        self.furthest = max(self.furthest, self.skew)

    def now(self) -> float:
        return current_time() - self._zero

    def booted(self) -> float:
        return self._beginning

    def wall(self) -> float:
        return EPOCH + current_time() + self.skew


class _Power(Faults):
    """Whether a process lives, and errors of its disk."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def step(self, name: str) -> bool:
        if self.dead:
            raise Killed(name)
        machine = self.machine
        return machine.errors > 0 and name in ("write", "sync", "sync_all") and machine.error_now()

    def fail(self, name: str) -> None:
        raise OSError(5, os.strerror(5))


class WatchedFiles(FaultyFiles):
    """The disk of a machine as one process sees it. The truth hears of every object that comes or goes."""

    __slots__ = ()

    def folder(self, path: bytes, *, create: bool = False) -> WatchedFiles:
        self._step("folder")
        return WatchedFiles(self._inner.folder(path, create=create), self._faults)

    def rename_from(self, source: Files, old: bytes, new: bytes) -> None:
        super().rename_from(source, old, new)
        self._tell(new, True)
        assert isinstance(source, WatchedFiles)
        source._tell(old, False)

    def rename(self, old: bytes, new: bytes) -> None:
        super().rename(old, new)
        self._tell(new, True)
        self._tell(old, False)

    def unlink(self, path: bytes) -> bool:
        gone = super().unlink(path)
        if gone:
            self._tell(path, False)
        return gone

    def _tell(self, path: bytes, present: bool) -> None:
        power = self._faults
        assert isinstance(power, _Power)
        whole = self.path + b"/" + path
        if b"/annex/objects/" in whole:
            power.machine.truth.object_changed(power.machine, whole.rpartition(b"/")[2], present)


class SimulatedRepository(Repository):
    """A bare repository on the disk of a machine."""

    def __init__(self, machine: Machine, files: Files) -> None:
        self.machine = machine
        self.git_dir = self.worktree_git_dir = files.path
        self.clock = machine.clock
        self.files = files
        self._branches = {}
        self._contents = {}
        self.config = GitConfig(files, git_dir=files.path, environ={})
        self.work_tree = None
        self.path = machine.name
        self.version, self.uuid = self._check_annex()
        self.tuning = Tuning.of(self.config)

    @property
    def writable(self) -> bool:
        return True

    @property
    def branch(self) -> Branch:
        for branch in self._branches.values():
            return branch
        made = WatchedBranch(self.files, self.config, clock=self.clock, uuid=self.uuid, git=False)
        made.machine = self.machine
        return self._branches.setdefault(None, made)

    def content_store(self, *, durability: Durability = "full") -> ContentStore:
        settings = ContentSettings.of(self.config, bare=True, durability=durability)
        return ContentStore(self.files, clock=self.clock, settings=settings)


class WatchedBranch(Branch):
    """A branch whose records the truth hears of."""

    machine: Machine

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
        if not _MANY:
            self.machine.truth.recorded(self.machine, key, uuid, present)
        super().set_present(key, uuid, present)

    def set_present_many(self, keys: Iterable[Key], uuid: UUID, present: bool) -> None:
        keys = tuple(keys)
        for key in keys:
            self.machine.truth.recorded(self.machine, key, uuid, present)
        super().set_present_many(keys, uuid, present)


_MANY = hasattr(Branch, "set_present_many")
Life = Callable[["Process"], Awaitable[None]]


class Process:
    """What runs on a machine between a start and a kill."""

    def __init__(self, machine: Machine, life: Life) -> None:
        self.machine, self._life = machine, life
        self.power = _Power(machine)
        self.wires: list[WireEnd] = []
        self.nursery: trio.Nursery | None = None
        self.accepts = False
        self.serve: Callable[..., Awaitable[object]] | None = None
        self.repository = SimulatedRepository(machine, WatchedFiles(machine.disk, self.power))

    @property
    def dead(self) -> bool:
        return self.power.dead

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                await self._life(self)
                self.nursery.cancel_scope.cancel()
        except BaseException as error:
            if not self.dead:
                self.machine.truth.broke(self.machine, error)

    def accept(self, wire: WireEnd, **serving: object) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(self._session, wire, serving)

    async def _session(self, wire: WireEnd, serving: dict[str, object]) -> None:
        assert self.serve is not None
        try:
            await self.serve(wire, **serving)
        except Exception as error:
            if not self.dead:
                self.machine.truth.broke(self.machine, error)
        finally:
            wire.leave()
            if wire in self.wires:
                self.wires.remove(wire)

    def kill(self) -> None:
        """It ends here and now."""
        self.power.dead = True
        for wire in self.wires:
            wire.leave()
        self._end()

    def lose_power(self) -> None:
        self.power.dead = True
        for wire in self.wires:
            wire.vanish()
        self.machine.network.power_lost(self.machine, self.wires)
        self._end()

    def _end(self) -> None:
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()


class Machine:
    """A machine; ``start`` it."""

    def __init__(
        self, name: str, uuid: UUID, template: MemoryFiles, network: Network, truth: Truth, dice: Random, life: Life
    ) -> None:
        self.name, self.uuid, self.network, self.truth, self.dice = name, uuid, network, truth, dice
        self.disk = template
        self.clock = MachineClock(
            dice.choice([20.0, 150.0, 400.0, 5000.0]), dice.uniform(-30, 30), dice.randrange(BEGINNINGS)
        )
        self.process: Process | None = None
        self.dark = False
        self.errors = 0.0
        self._life = life
        self.kills = 0

    def error_now(self) -> bool:
        return self.dice.random() < self.errors

    @property
    def up(self) -> bool:
        return self.process is not None

    def start(self, world: trio.Nursery) -> Process:
        """A new process, with what is on the disk."""
        assert self.process is None
        self.dark = False
        self.network.power_back(self)
        self.process = Process(self, self._life)
        self.truth.started(self)
        world.start_soon(self.process.run)
        return self.process

    def kill(self) -> None:
        """The process ends; files and clocks stay."""
        assert self.process is not None
        self.process.kill()
        self._down()
        self.disk.kill()

    def lose_power(self, choose: Callable[[int], int] | None) -> None:
        """What was not synced is lost or not, as *choose* says."""
        assert self.process is not None
        self.dark = True
        self.process.lose_power()
        self._down()
        self.disk.crash(choose)
        self.truth.after_power_cut(self)

    def _down(self) -> None:
        self.kills += 1
        self.process = None

    def reboot_clock(self, uptime: float) -> None:
        self.clock.boot(current_time() - uptime, self.dice.randrange(BEGINNINGS))

    def full(self, left: int | None) -> None:
        """The disk has so many bytes left; None: plenty."""
        disk = self.disk._disk
        disk.capacity = _ROOMY if left is None else disk.used + left
