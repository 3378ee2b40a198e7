"""What the people of a schedule do: put, copy, drop, move and read, and give up now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

import trio

from annexpy.actions.copy import copy, move
from annexpy.actions.drop import drop_many
from annexpy.actions.put import put
from annexpy.errors import AnnexError, ConnectionLost, RemoteProtocolError, TransportError
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.remote.base import Remote, Stored
from annexpy.remote.local import Local
from annexpy.remote.recording import Recording
from tests.simulation.archives import Dataset
from tests.simulation.jumps import current_time, sleep

if TYPE_CHECKING:
    from tests.simulation.machines import Process
    from tests.simulation.world import World

__all__ = ["Client"]

_KINDS = {"get": "gets", "store": "archived", "prove": "proven"}
_LATE = 10.0
"""Seconds after which a node that had a wrong partial must have got the content anew, with no faults any more."""


class Client:
    """Somebody with a laptop, which has a repository as well."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process, self.truth = world, process, world.truth
        self.name = process.machine.name
        self.dice = Random(f"{world.seed} {self.name} {process.machine.kills}")
        self.busy = ""
        repository = process.repository
        self.local = Local(repository, commit=False)
        self.branch = repository.branch
        self.nodes: dict[str, Remote] = {
            name: Recording(world.remote(process, name), self.branch) for name in ("n0", "n1", "n2", "n3")
        }
        self.cluster = Recording(world.remote(process, "g"), self.branch)

    @cached_property
    def dataset(self) -> Dataset:
        return Dataset(self)

    async def live(self) -> None:
        verbs: Mapping[str, Callable[[Key], Awaitable[bool]]] = {
            "put": self.put,
            "put cluster": self.put_cluster,
            "copy": self.copy,
            "drop": self.drop,
            "drop cluster": self.drop_cluster,
            "drop here": self.drop_here,
            "move": self.move,
            "get": self.get,
            "put and drop": self.put_and_drop,
            "store": lambda key: self.dataset.store(key),
            "prove": lambda key: self.dataset.prove(key),
        }
        dice, world, mix = self.dice, self.world, self.world.mix
        names = list(verbs)
        weights = [mix.weights.get(name, 0.0) for name in names]
        while world.storm:
            await sleep(dice.expovariate(1 / mix.think))
            if not world.storm:
                break
            verb, key = dice.choices(names, weights)[0], dice.choice(world.keys)
            if verb == "move" and key not in self.truth.moved:
                verb = "drop"
            if verb.startswith("drop") and len(self.truth.copies_of(key)) <= world.truth.copies.needed:
                verb = dice.choice(["put", "put cluster", verb])
            patience = dice.choice([0.5, 30.0]) if "cancel" in mix.kinds and dice.random() < 0.1 else 4000.0
            with trio.move_on_after(patience) as scope:
                await self.attempt(verb, verbs[verb], key)
            if scope.cancelled_caught and patience < 4000.0:
                mix.count("cancel")
        await trio.sleep_forever()

    async def attempt(self, verb: str, action: Callable[[Key], Awaitable[bool]], key: Key) -> bool:
        counts = self.truth.counts
        counts["operations"] += 1
        self.busy = f"{verb} {self.truth.short(key)}"
        self.truth.since[self.process.machine] = current_time()
        self.truth.event(f"{self.name}: {self.busy}")
        try:
            done = await action(key)
        finally:
            self.busy = ""
        if done:
            counts["succeeded"] += 1
            counts[_KINDS.get(verb, "drops" if verb.startswith(("drop", "move")) else "puts")] += 1
        return done

    # -- what can be done -----------------------------------------------------------------------------------------

    async def put(self, key: Key, where: Remote | None = None) -> bool:
        remote = where or self.dice.choice([*self.nodes.values(), self.local])
        operation = self.truth.began("put", key)
        stored: Stored | None = None
        known = False
        try:
            stored = await put(remote, key, self.truth.contents[key])
            known = True
        except AnnexError as error:
            known = not _open(error)
            self.truth.event(f"{self.name}: no put: {type(error).__name__}")
        finally:
            self.truth.ended(operation, known=known)
        if stored is not None:
            self.truth.was_stored(key, stored.copies, operation.start)
        return stored is not None

    async def put_cluster(self, key: Key) -> bool:
        return await self.put(key, self.cluster)

    async def put_and_drop(self, key: Key) -> bool:
        """Change one's mind."""
        await self.put_cluster(key)
        await sleep(self.dice.choice((0.0, 0.0, 1.5)))
        return await self.drop_cluster(key)

    async def copy(self, key: Key) -> bool:
        source, destination = self.dice.sample([*self.nodes.values(), self.local, self.cluster], 2)
        operation, known = self.truth.began("copy", key), False
        try:
            async for transfer in copy(source, destination, [key]):
                known = transfer.error is None or not _open(transfer.error)
                if transfer.ok:
                    self.truth.was_stored(key, transfer.stored.copies - {self.cluster.uuid}, operation.start)
                return transfer.ok
        finally:
            self.truth.ended(operation, known=known)
        return False

    async def move(self, key: Key) -> bool:
        source, destination = self.dice.sample([*self.nodes.values(), self.local], 2)
        operation, known = self.truth.began("move", key), False
        try:
            async for moved in move(
                source,
                destination,
                [key],
                copies=self.truth.copies,
                others=self.others(),
                trust=self.world.trust,
                clock=self.process.machine.clock,
            ):
                known = moved.error is None or not _open(moved.error)
                if moved.transfer.ok:
                    self.truth.was_stored(key, moved.transfer.stored.copies, operation.start)
                return moved.ok
        finally:
            self.truth.ended(operation, known=known)
        return False

    def others(self) -> list[Remote]:
        others: list[Remote] = [*self.nodes.values(), self.local]
        self.dice.shuffle(others)
        if self.dice.random() < 0.2:
            others.insert(0, self.cluster)
        return others

    async def drop(self, key: Key) -> bool:
        having = [node for node in self.nodes.values() if key in self.truth.has[self.truth.machines[node.uuid]]]
        return await self.drop_from(self.dice.choice(having or list(self.nodes.values())), key)

    async def drop_here(self, key: Key) -> bool:
        return await self.drop_from(self.local, key)

    async def drop_cluster(self, key: Key) -> bool:
        return await self.drop_from(self.cluster, key)

    async def drop_from(self, remote: Remote, key: Key) -> bool:
        truth = self.truth
        dropped = {remote.uuid}
        nodes = {self.cluster.uuid: frozenset(self.nodes[name].uuid for name in ("n0", "n1", "n2"))}
        if remote is self.cluster:
            dropped |= nodes[remote.uuid]
        operation = truth.began("drop cluster" if remote is self.cluster else "drop", key)
        try:
            async for result in drop_many(
                [key],
                from_=remote,
                others=self.others(),
                copies=truth.copies,
                trust=self.world.trust,
                nodes=nodes,
                clock=self.process.machine.clock,
            ):
                if result.proof is not None:
                    truth.proof(key, result.proof, dropped)
                if result.removed is not None:
                    truth.was_removed(operation, result.removed)
                    lost = any(_open(one) and "FAILURE-PLUS" not in str(one) for one in result.removed.failed.values())
                    if remote is self.cluster and result.removed.ok:
                        truth.all_removed(operation, [self.world.machines[name] for name in ("n0", "n1", "n2")])
                    if remote is self.cluster and not lost:
                        truth.told_of_removal(operation, result.removed)
                if result.error is not None:
                    truth.event(f"{self.name}: no drop: {type(result.error).__name__}")
                return result.ok
        finally:
            truth.ended(operation, known=False)
        return False

    async def get(self, key: Key) -> bool:
        source = self.dice.choice([*self.nodes.values(), self.cluster])
        return await self.copy_to_here(source, key)

    async def copy_to_here(self, source: Remote, key: Key) -> bool:
        operation, known = self.truth.began("copy", key), False
        try:
            async for transfer in copy(source, self.local, [key]):
                known = True
                return transfer.ok
        finally:
            self.truth.ended(operation, known=known)
        return False

    # -- the end --------------------------------------------------------------------------------------------------

    async def converge(self, keys: list[Key]) -> None:
        """Everybody gets everything; then what is too much goes."""
        truth = self.truth
        for key in keys:
            # Bits that were flipped on the wire, of a transfer that broke off before they could be verified.
            wrong_partial = any(self._has_wrong_partial(name, key) for name in ("n0", "n1", "n2"))
            for place in (self.cluster, self.nodes["n3"]):
                if not await self.attempt("put", lambda key, place=place: self.put(key, place), key):
                    truth.violation(f"no faults, and {truth.short(key)} cannot be put into {place.name}")
            if wrong_partial:
                await sleep(_LATE)
            for name in ("n0", "n1", "n2", "n3"):
                if key not in truth.has[self.world.machines[name]]:
                    truth.violation(f"no faults, and {name} has not got {truth.short(key)}")
            gateway = self.world.machines["g"].process
            assert gateway is not None
            self._compare(key, gateway.repository.branch.locations(key).present, ("n0", "n1", "n2"))
            for name in ("n3", "n0"):
                machine = self.world.machines[name]
                if len(truth.copies_of(key, (machine,))) < truth.copies.needed:
                    continue
                dropped = await self.attempt("drop", lambda key, name=name: self.drop_from(self.nodes[name], key), key)
                if not dropped and self._enough(key, name):
                    truth.violation(f"no faults, and {truth.short(key)} cannot be dropped from {name}")
            self._compare(key, self.branch.locations(key).present, ("n3",))

    def _has_wrong_partial(self, name: str, key: Key) -> bool:
        partial = self.world.machines[name].disk.read(b"annex/tmp/" + key_file(key)) or b""
        return not self.truth.contents[key].startswith(partial)

    def _compare(self, key: Key, says: Collection[str], names: Sequence[str]) -> None:
        for name in names:
            machine = self.world.machines[name]
            if (machine.uuid in says) is not (key in self.truth.has[machine]):
                self.truth.violation(f"no faults, and a log is wrong about {self.truth.short(key)} in {name}")

    def _enough(self, key: Key, dropped: str) -> bool:
        """Copies that this client can lock."""
        machines = self.world.machines
        reached = [machines[name] for name in ("n0", "n1", "n2", "n3", self.name) if name != dropped]
        found = [place for place in self.truth.copies_of(key) if place in reached]
        return len(found) >= self.truth.copies.needed


def _open(error: BaseException) -> bool:
    """Nobody knows how it ended."""
    failed = getattr(error, "failed", None)
    if isinstance(failed, Mapping) and failed:
        return any(isinstance(one, BaseException) and _open(one) for one in failed.values())
    return isinstance(error, TransportError | RemoteProtocolError | ConnectionLost)
