"""One schedule: four repositories, a gateway, some clients, faults, and an end at which everything is well again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from annexpy.actions import cluster as clusters
from annexpy.actions.fsck import fsck
from annexpy.clock import Deadline
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import LockedCopy, Removed, Stored, Upload
from annexpy.remote.local import Local
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.wrappers import Wrapper
from annexpy.repo.memory_files import MemoryFiles
from annexpy.server.gateway import Gateway
from annexpy.server.serve import Deadlines, serve
from annexpy.uuids import UUID
from tests.simulation.clients import Client
from tests.simulation.jumps import current_time, sleep
from tests.simulation.machines import Machine, Process, SimulatedRepository
from tests.simulation.network import Network
from tests.simulation.swarm import Mix
from tests.simulation.truth import Truth, content_of, key_of

__all__ = ["CLUSTER", "Report", "World", "prepare"]

CLUSTER = UUID("ac000000-0000-8000-8000-00000000000c")
NODES = ("n0", "n1", "n2", "n3")
CLIENTS = ("c0", "c1", "c2")
CALM = 1300.0
"""Seconds after the last fault in which whatever was locked or under way comes to its end."""
_templates: dict[tuple[str, int], dict[bytes, bytes]] = {}


def uuid_of(name: str) -> UUID:
    kind = {"n": "a", "c": "c", "g": "e"}[name[0]]
    return UUID(f"{kind * 7}{name[1:] or 0}-0000-4000-8000-000000000000")


@dataclass
class Report:
    """What happened in one schedule."""

    seed: int
    violations: list[str] = field(default_factory=list)
    operations: int = 0
    succeeded: int = 0
    puts: int = 0
    drops: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    events: int = 0
    digest: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    scene: str = ""


# -- disks ------------------------------------------------------------------------------------------------------


def _settings(name: str, min_copies: int) -> bytes:
    lines = ["[core]", "\tbare = true", "[user]", "\tname = n", "\temail = e", "[annex]", f"\tuuid = {uuid_of(name)}"]
    lines += ["\tversion = 10", "\tdiskreserve = 1kb"]
    if name == "g":
        lines += ['[annex "cluster"]', f"\tsafe = {CLUSTER}"]
        if min_copies:
            lines += ["[annexpy]", f"\tmin-copies = {min_copies}"]
        for node in NODES[:3]:
            lines += [f'[remote "{node}"]', f"\turl = {node}:r", f"\tannex-uuid = {uuid_of(node)}"]
            lines += ["\tannex-cluster-node = safe"]
    return "\n".join(lines).encode() + b"\n"


def _empty(name: str, min_copies: int) -> MemoryFiles:
    files = MemoryFiles(b"/" + name.encode())
    for folder in (b"objects/info", b"objects/pack", b"refs/heads", b"annex"):
        files.make_folders(folder)
    files.replace(b"HEAD", b"ref: refs/heads/main\n", sync=False)
    files.replace(b"config", _settings(name, min_copies), sync=False)
    return files


def _content(files: MemoryFiles, path: bytes = b"") -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name in files.names(path):
        below = path + b"/" + name if path else name
        status = files.status(below)
        assert status is not None
        if status.st_mode & 0o040000:
            found[below + b"/"] = b""
            found |= _content(files, below)
        else:
            found[below] = files.read(below) or b""
    return found


def _disk(name: str, min_copies: int) -> MemoryFiles:
    files = MemoryFiles(b"/" + name.encode())
    for path, data in _templates[name, min_copies if name == "g" else 0].items():
        if path[-1:] == b"/":
            files.make_folders(path[:-1])
        else:
            fd = files.open_write(path)
            files.write(fd, data)
            files.close_fd(fd)
    files.sync_all()
    return files


class _Nobody:
    """The truth, while disks are made."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


async def prepare() -> None:
    """Make the disks that every schedule begins with."""
    if _templates:
        return
    for name in (*NODES, *CLIENTS):
        _templates[name, 0] = _content(_empty(name, 0))
    for enough in (0, 1, 2):
        files = _empty("g", enough)
        machine: Any = Machine("g", uuid_of("g"), files, None, _Nobody(), Random(0), None)  # type: ignore[arg-type]
        repository = SimulatedRepository(machine, files)
        await clusters.update(repository)
        repository.close()
        _templates["g", enough] = _content(files)


# -- what the machines do -----------------------------------------------------------------------------------------


class Heard(Wrapper):
    """Tells the truth what the gateway found out about a removal."""

    def __init__(self, remote: Any, truth: Truth) -> None:
        super().__init__(remote)
        self._truth = truth

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        removed = await super().remove_content(key, deadline=deadline)
        self._truth.gateway_removals.append((current_time(), key, removed))
        return removed

    async def remove_content_many(self, keys: Any, *, deadline: Deadline | None = None) -> list[Removed]:
        removed = await super().remove_content_many(keys, deadline=deadline)
        self._truth.gateway_removals += [(current_time(), *pair) for pair in zip(keys, removed, strict=True)]
        return removed


class Boastful(Wrapper):
    """Says now and then that it has what it has not, as a proxy with an old log might."""

    def __init__(self, remote: Any, mix: Mix, dice: Random) -> None:
        super().__init__(remote)
        self._mix, self._dice = mix, dice

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Upload]:  # type: ignore[override]
        if self._mix.boastful and self._dice.random() < 0.3:
            self._mix.count("boast")
            yield _Claim(self.uuid)
            return
        async with self.remote.put(key, associated_file=associated_file) as upload:
            yield upload


class Slow(Wrapper):
    """Takes its time to say that a content is locked."""

    def __init__(self, remote: Any, mix: Mix, dice: Random) -> None:
        super().__init__(remote)
        self._mix, self._dice = mix, dice

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[LockedCopy]:  # type: ignore[override]
        async with self.remote.lock_content(key) as lock:
            await sleep(self._dice.choice((0.0, self._mix.slow_locks)))
            yield lock


class Stock(Wrapper):
    """Forgets a lock with its connection, and takes its time to give one."""

    def __init__(self, remote: Any, mix: Mix, dice: Random) -> None:
        super().__init__(remote)
        self._mix, self._dice = mix, dice

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[LockedCopy]:  # type: ignore[override]
        lost: AnnexError | None = None
        async with self.remote.lock_content(key, retention=False) as lock:
            if self._mix.stock:
                await sleep(self._dice.choice((0.0, 0.0, 5.0, 50.0)))
            try:
                yield lock
            except AnnexError as error:
                lost = error
        if lost is not None:
            raise lost


class _Claim:
    def __init__(self, uuid: UUID) -> None:
        self.already = frozenset((uuid,))
        self.offset = 0

    async def finish(self, valid: bool = True) -> Stored:
        raise AssertionError


class World:
    """See the module."""

    def __init__(self, seed: int, *, trace: bool = False, scene: str | None = None) -> None:
        self.seed = seed
        self.dice = dice = Random(seed)
        self.mix = mix = Mix.drawn(seed, dice, scene)
        contents = [content_of(number, dice.choice(mix.sizes)) for number in range(mix.keys)]
        copies = Copies(*mix.copies)
        keyed = {key_of(content): content for content in contents}
        self.keys = list(keyed)
        self.truth = Truth(keyed, copies, self.keys[: mix.moved])
        if trace:
            self.truth.trace = []
        self.truth.wires_lie = "flip" in mix.kinds
        self.truth.discounted = {uuid_of(name) for name in mix.untrusted}
        self.trust = {uuid_of(name): TrustLevel.UNTRUSTED for name in mix.untrusted}
        self.storm = True
        self.network = Network(mix, punctual=bool(seed % 4))
        self.machines: dict[str, Machine] = {}
        for name in (*NODES, "g", *CLIENTS[: mix.clients]):
            life = {"n": self._node, "g": self._gateway, "c": self._client}[name[0]]
            made = Machine(
                name,
                uuid_of(name),
                _disk(name, mix.min_copies),
                self.network,
                self.truth,
                Random(f"{seed} {name}"),
                life,
            )
            self.machines[name] = made
            if name != "g":
                self.truth.add(made)
            if mix.fast and name in mix.fast:
                self.truth.fast.add(made)
        self.clients: dict[str, Client] = {}
        self.faults: Counter[str] = Counter()
        mix.count = self.count

    # -- lives ----------------------------------------------------------------------------------------------------

    async def _node(self, process: Process) -> None:
        machine, mix = process.machine, self.mix
        durability = "fast" if machine in self.truth.fast else "full"
        local: Any = Local(process.repository, durability=durability, client=UUID("a-client"), commit=False)
        if machine.name in mix.boastful:
            local = Boastful(local, mix, machine.dice)
        if mix.slow_locks:
            local = Slow(local, mix, machine.dice)
        if mix.stock:
            local = Stock(local, mix, machine.dice)
        on_idle = process.repository.branch.commit if mix.commits else None

        deadlines = Deadlines(idle=mix.idle)

        async def session(wire: Any) -> object:
            return await serve(wire, local, clock=machine.clock, on_idle=on_idle, deadlines=deadlines)

        process.serve, process.accepts = session, True
        await trio.sleep_forever()

    async def _gateway(self, process: Process) -> None:
        machine = process.machine
        async with Gateway(process.repository) as gateway:
            arrived = gateway._late.arrived

            def late(key: Key, stored: Stored) -> None:
                self.truth.counts["late copies"] += 1
                assert arrived is not None
                arrived(key, stored)

            gateway._late.arrived = late

            async def session(wire: Any, asked: UUID) -> object:
                shown: Any = gateway.shown(asked)
                if asked == CLUSTER:
                    shown = Heard(shown, self.truth)
                return await serve(wire, shown, clock=machine.clock, bypass=gateway.bypassing(asked))

            process.serve, process.accepts = session, True
            await trio.sleep_forever()

    async def _client(self, process: Process) -> None:
        client = self.clients[process.machine.name] = Client(self, process)
        await client.live()

    def remote(self, process: Process, name: str, **options: Any) -> P2PRemote:
        """What *process* uses to talk to a node, maybe through the gateway, or to the cluster behind that."""
        machine, asked = self.machines[name], {}
        uuid = CLUSTER if name == "g" else machine.uuid
        if name == "g" or name in self.mix.proxied:
            machine, asked = self.machines["g"], {"asked": uuid}
        dial = self.network.dial(process, machine, **asked)
        return P2PRemote(dial, uuid=uuid, name=name, clock=process.machine.clock, **options)

    # -- the schedule ---------------------------------------------------------------------------------------------

    async def run(self) -> Report:
        """All of it."""
        truth = self.truth
        async with trio.open_nursery() as nursery:
            for machine in self.machines.values():
                machine.start(nursery)
            for fault in self.mix.faults(self):
                nursery.start_soon(self._weather, fault, nursery)
            await sleep(self.mix.seconds)
            self.storm = False
            await self._heal(nursery)
            # A content stays locked for so much longer whose owner set the clock back: git-annex's is a time of day.
            await sleep(CALM + max(one.clock.furthest - one.clock.skew for one in self.machines.values()))
            await self._converge()
            for machine in self.machines.values():
                if machine.process is not None:
                    machine.kill()
                    if machine.name != "g":
                        truth.check_own_log(machine)
            nursery.cancel_scope.cancel()
        counts = truth.counts
        return Report(
            self.seed,
            truth.violations,
            counts["operations"],
            counts["succeeded"],
            counts["puts"],
            counts["drops"],
            dict(self.faults),
            truth.events,
            truth.digest,
            counts=dict(counts),
            trace=truth.trace or [],
            scene=self.mix.scene,
        )

    async def _weather(self, fault: Callable[[World, trio.Nursery], Awaitable[None]], nursery: trio.Nursery) -> None:
        await fault(self, nursery)

    def count(self, name: str) -> None:
        """One more of these faults."""
        self.faults[name] += 1

    def fault(self, name: str) -> None:
        self.count(name)
        self.truth.event(f"fault: {name}")

    async def _heal(self, nursery: trio.Nursery) -> None:
        self.truth.event("the storm is over")
        self.mix.end()
        self.network.heal()
        for machine in self.machines.values():
            machine.errors = 0.0
            machine.full(None)
            if not machine.up:
                machine.start(nursery)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _converge(self) -> None:
        """Nothing fails any more, so everything must succeed."""
        truth = self.truth
        for client in self.clients.values():
            if client.busy:
                truth.violation(f"{client.name} is still busy with {client.busy} long after the last fault")
        for name, machine in self.machines.items():
            spoilt = [key for place, key in sorted(truth.rotten | truth.truncated, key=str) if place is machine]
            if spoilt:
                assert machine.process is not None
                async for checked in fsck(Local(machine.process.repository), spoilt):
                    if checked.ok:
                        truth.violation(f"fsck finds nothing wrong with a spoilt {truth.short(checked.key)} in {name}")
                await machine.process.repository.branch.sync()
        if truth.rotten or truth.truncated:
            truth.violation("spoilt copies are still in their place")
        first = next(iter(self.clients.values()))
        try:
            with trio.fail_after(3600):
                await first.converge(self.keys[-2:])
        except (AnnexError, trio.TooSlowError) as error:
            truth.violation(f"no faults, and still: {error!r}")
