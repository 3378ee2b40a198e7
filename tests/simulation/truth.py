"""What is really so, on every disk at every moment, and what must never be otherwise.

The simulator looks at the disks themselves: no answer of any program is believed here.
"""

from __future__ import annotations

import hashlib
import traceback
import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, assert_never

from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file, object_paths
from annexpy.policy.numcopies import Copies, DropProof, HeldCopy
from annexpy.remote.base import Removed
from annexpy.uuids import UUID, is_cluster
from glimmer_store.receipts import Attestation, Verdict
from tests.simulation.jumps import current_time
from tests.simulation.machines import Machine, SimulatedRepository

if TYPE_CHECKING:
    from annexpy.repo.memory_files import MemoryFiles

__all__ = ["Operation", "Truth", "content_of", "key_of"]

_LATE = 1000.0
"""Seconds for which something may still happen that was sent and never answered: longer than anything is stalled."""


def content_of(number: int, size: int) -> bytes:
    return hashlib.shake_128(b"content %d" % number).digest(size)


def key_of(content: bytes) -> Key:
    return Key(b"SHA256E", hashlib.sha256(content).hexdigest().encode() + b".dat", len(content))


@dataclass(eq=False)
class Operation:
    """Something that a client does.

    Attributes:
        end: When it was over for good; ``inf`` while it is not.
    """

    kind: str
    key: Key
    start: float
    end: float = inf


class Truth:
    """The omniscient view of one schedule."""

    def __init__(self, contents: dict[Key, bytes], copies: Copies, moved: Collection[Key]) -> None:
        self.contents, self.copies, self.moved = contents, copies, frozenset(moved)
        self._names = {key_file(key): key for key in contents}
        self._paths = {key: b"annex/objects/" + object_paths(key)[0] for key in contents}
        self.machines: dict[UUID, Machine] = {}
        self.discounted: set[UUID] = set()
        self.has: dict[Machine, set[Key]] = {}
        self.rotten: set[tuple[Machine, Key]] = set()
        self.truncated: set[tuple[Machine, Key]] = set()
        self.acknowledged: set[tuple[Machine, Key]] = set()
        self.operations: list[Operation] = []
        self.gateway_removals: list[tuple[float, Key, Removed]] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.events = 0
        self.digest = 0
        self.trace: list[str] | None = None
        self._present_until: dict[tuple[Machine, Key], float] = {}
        self._absent_until: dict[tuple[Machine, Key], float] = {}
        self._intact_until: dict[tuple[Machine, Key], float] = {}
        self._spoilt_until: dict[tuple[Machine, Key], float] = {}
        self._removed: dict[tuple[Machine, Key], float] = {}
        self.fast: set[Machine] = set()
        self.wires_lie = False
        """Bytes may change on the way."""
        self.since: dict[Machine, float] = {}
        """Since when a client does what it does now."""
        self._spoilt: dict[tuple[Machine, Key], list[bytes]] = {}

    # -- telling --------------------------------------------------------------------------------------

    @staticmethod
    def now() -> float:
        return current_time()

    def event(self, text: str) -> None:
        self.events += 1
        line = f"{current_time():10.3f} {text}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self.trace is not None:
            self.trace.append(line)

    def violation(self, text: str) -> None:
        self.event(f"VIOLATION {text}")
        self.violations.append(f"at {current_time():.3f}: {text}")

    def broke(self, machine: Machine, error: BaseException) -> None:
        shown = "".join(traceback.format_exception(error)[-12:]) if self.trace is not None else ""
        self.violation(f"{machine.name} broke: {error!r} {shown}")

    def short(self, key: Key) -> str:
        return f"key{list(self.contents).index(key)}"

    # -- who is there ---------------------------------------------------------------------------------

    def add(self, machine: Machine) -> None:
        self.machines[machine.uuid] = machine
        self.has[machine] = set()

    def on_disk(self, machine: Machine, key: Key) -> bytes | None:
        return machine.disk.read(self._paths[key])

    def path(self, key: Key) -> bytes:
        return self._paths[key]

    def copies_of(self, key: Key, without: Collection[Machine] = ()) -> list[Machine]:
        """Whose copies count: those with the content, and those that the simulator itself spoilt unseen."""
        found = []
        for machine, keys in self.has.items():
            if key in keys and machine not in without and machine.uuid not in self.discounted:
                spoilt = (machine, key)
                if spoilt in self.truncated:
                    continue
                if spoilt in self.rotten or self.on_disk(machine, key) == self.contents[key]:
                    found.append(machine)
                else:
                    self.violation(f"{machine.name} has something else as {self.short(key)}")
        return found

    # -- objects --------------------------------------------------------------------------------------

    def object_changed(self, machine: Machine, name: bytes, present: bool) -> None:
        key = self._names.get(name)
        if key is None:
            return
        now, place = current_time(), (machine, key)
        if present:
            self.event(f"{machine.name} has {self.short(key)}")
            self.has[machine].add(key)
            self._absent_until[place] = now
            self._replaced(place, now)
            if self.on_disk(machine, key) != self.contents[key]:
                self.violation(f"{machine.name} stored something else as {self.short(key)}")
            self._came(machine, key, now)
        elif key in self.has[machine] and machine.disk.status(self._paths[key]) is None:
            self.event(f"{machine.name} lost {self.short(key)}")
            self._gone(machine, key, now)

    def _gone(self, machine: Machine, key: Key, now: float) -> None:
        place = (machine, key)
        self.has[machine].discard(key)
        self._present_until[place] = now
        self.acknowledged.discard(place)
        if self._replaced(place, now):
            return
        self._intact_until[place] = now
        self.counts["removed"] += 1
        left, needed = len(self.copies_of(key)), self.needed(key)
        if left < needed:
            self.violation(f"{self.short(key)} was removed from {machine.name}; {left} of {needed} copies are left")
        elif left < self.copies.needed and key not in self.moved:
            self.counts["numcopies broken by a race"] += 1

    def _replaced(self, place: tuple[Machine, Key], now: float) -> bool:
        """Whether what was in this place had been spoilt."""
        spoilt = self.is_spoilt(place)
        if spoilt:
            self._spoilt_until[place] = now
            self.rotten.discard(place)
            self.truncated.discard(place)
        return spoilt

    def is_spoilt(self, place: tuple[Machine, Key]) -> bool:
        return place in self.rotten or place in self.truncated

    def needed(self, key: Key) -> int:
        """Copies that stay whatever happens: a race between drops may break numcopies, never mincopies."""
        if key in self.moved:
            return 1
        return self.copies.min if self.copies.min < self.copies.num else self.copies.needed

    def _came(self, machine: Machine, key: Key, now: float) -> None:
        since = self._removed.get((machine, key))
        if since is None:
            return
        for operation in self.operations:
            if not operation.kind.startswith("drop") and operation.key == key and operation.end >= since:
                return
        self.violation(f"{self.short(key)} came back to {machine.name}, from where it was removed")

    def began(self, kind: str, key: Key) -> Operation:
        operation = Operation(kind, key, current_time())
        self.operations.append(operation)
        return operation

    def ended(self, operation: Operation, *, known: bool) -> None:
        operation.end = current_time() + (0 if known else _LATE)

    def being_dropped(self, key: Key) -> bool:
        """Somebody drops it, or may still."""
        now = current_time()
        return any(
            one.kind.startswith(("drop", "move")) and one.key == key and one.end > now for one in self.operations
        )

    def was_removed(self, operation: Operation, removed: Removed) -> None:
        """A client was told so."""
        for uuid in removed.uuids:
            machine = self.machines.get(uuid)
            if machine is None:
                self.violation(f"{uuid} is said to have removed {self.short(operation.key)}, and is nobody")
                continue
            if not self._was(machine, operation.key, False, operation.start):
                self.violation(f"{machine.name} is said to have removed {self.short(operation.key)}, and did not")
            if operation.kind == "drop cluster":  # who removes from one node may meet a put that is under way
                self._removed[machine, operation.key] = operation.start

    def all_removed(self, operation: Operation, machines: Iterable[Machine]) -> None:
        """A client was told that these no longer have it, whoever they are."""
        for machine in machines:
            if not self._was(machine, operation.key, False, operation.start):
                self.violation(f"{machine.name} still has {self.short(operation.key)}, said to be removed everywhere")

    def was_stored(self, key: Key, uuids: Iterable[UUID], since: float) -> None:
        for uuid in uuids:
            if is_cluster(uuid):
                continue  # "it is there already", of a cluster that says no more: nobody's copy
            machine = self.machines.get(uuid)
            if machine is None:
                self.violation(f"{uuid} is said to have {self.short(key)}, and is nobody")
            elif key in self.has[machine]:
                if machine not in self.fast:
                    self.acknowledged.add((machine, key))
            elif not self._was(machine, key, True, since):
                self.violation(f"{machine.name} is said to have {self.short(key)}, and had it never")

    def attested(self, key: Key, proofs: Iterable[Attestation], since: float) -> None:
        """A client found this out, and signed it."""
        for proof in proofs:
            machine = self.machines[UUID(proof.uuid)]
            place = (machine, key)
            self.counts[f"attested {proof.verdict.value}"] += 1
            match proof.verdict:
                case Verdict.GOOD:
                    there = key in self.has[machine] and not self.is_spoilt(place)
                    true = there or self._intact_until.get(place, -inf) >= since
                case Verdict.MISSING:
                    true = self._was(machine, key, False, since)
                case Verdict.BAD:
                    true = self.wires_lie or self.is_spoilt(place) or self._spoilt_until.get(place, -inf) >= since
                case _:
                    assert_never(proof.verdict)
            if not true:
                self.violation(
                    f"{self.short(key)} in {machine.name} is attested as {proof.verdict.value}, and never was"
                )

    def _was(self, machine: Machine, key: Key, present: bool, since: float) -> bool:
        """Whether *machine* had, or had not, *key* at some moment since then."""
        if (key in self.has[machine]) is present:
            return True
        until = (self._present_until if present else self._absent_until).get((machine, key), -inf)
        return until >= since

    # -- records --------------------------------------------------------------------------------------

    def recorded(self, machine: Machine, key: Key, uuid: UUID, present: bool) -> None:
        """A process on *machine* writes a location line."""
        if key not in self.contents:
            return
        self.event(f"{machine.name} records {self.short(key)} {'in' if present else 'not in'} {uuid[:4]}")
        if is_cluster(uuid):
            self.violation(f"{machine.name} records a cluster as a place of {self.short(key)}")
            return
        place = self.machines.get(uuid)
        if place is None:
            self.violation(f"{machine.name} records {uuid}, who is nobody")
        elif place is machine:
            if present and key not in self.has[machine]:
                self.violation(f"{machine.name} records that it has {self.short(key)}, and has not")
            if not present:  # it is about to go; killed then, it may be here without a line
                self.acknowledged.discard((machine, key))
        elif not self._was(place, key, present, self.since.get(machine, current_time() - _LATE)):
            self.violation(f"{machine.name} records {self.short(key)} wrongly as {present} in {place.name}")

    def proof(self, key: Key, proof: DropProof, dropped: Collection[UUID]) -> None:
        """What a drop was decided upon."""
        counted = [copy.uuid for copy in proof.counted]
        if len(set(counted)) < self.copies.needed and key not in self.moved:
            self.violation(f"a proof for {self.short(key)} stands on {counted}")
        locked = {copy.uuid for copy in proof.counted if isinstance(copy, HeldCopy)}
        if len(locked) < self.copies.min and key not in self.moved:
            self.violation(f"a proof for {self.short(key)} has only {len(locked)} locks")
        for uuid in counted:
            if uuid in dropped or uuid in self.discounted or uuid not in self.machines:
                self.violation(f"a proof for {self.short(key)} counts {uuid}")

    def told_of_removal(self, operation: Operation, removed: Removed) -> None:
        """What a client heard about a cluster is what the gateway found out."""
        said = [told for at, key, told in self.gateway_removals if key == operation.key and at >= operation.start]
        if not removed.ok and not removed.uuids and not (said and all(told.uuids for told in said)):
            return  # it heard of nobody, and so may have been meant another time or an error
        if not any(told.ok == removed.ok and told.uuids == removed.uuids for told in said):
            names = sorted(self.machines[uuid].name for uuid in removed.uuids)
            self.violation(f"a client hears that {self.short(operation.key)} was removed from {names}: {said}")

    def spoil(self, machine: Machine, key: Key, data: bytes) -> None:
        """The simulator has changed a copy."""
        self._intact_until[machine, key] = current_time()
        (self.rotten if len(data) == key.size else self.truncated).add((machine, key))
        self._spoilt.setdefault((machine, key), []).append(data)

    # -- machines -------------------------------------------------------------------------------------

    def after_power_cut(self, machine: Machine) -> None:
        """Some of what was not synced is gone, and some is back."""
        now = current_time()
        for key, content in self.contents.items() if machine in self.has else ():
            place, there = (machine, key), machine.disk.read(self._paths[key])
            had = key in self.has[machine]
            if (
                there is not None
                and there in self._spoilt.get(place, ())
                and not {place} & (self.rotten | self.truncated)
            ):
                self.spoil(machine, key, there)  # its removal was not written back
            if there is not None and not had:
                self.has[machine].add(key)
                self._absent_until[place] = now
                if there != content and not {place} & (self.rotten | self.truncated):
                    self.violation(f"{machine.name} has something else as {self.short(key)} after a power cut")
            elif there is None and had:
                self.has[machine].discard(key)
                self._present_until[place] = now
                if place in self.acknowledged and place not in self.truncated:
                    self.violation(f"{machine.name} lost {self.short(key)} in a power cut; it was acknowledged")
                self.acknowledged.discard(place)
                (self._spoilt_until if self.is_spoilt(place) else self._intact_until)[place] = now
            elif there is not None and there != content and not {place} & (self.rotten | self.truncated):
                if machine in self.fast:
                    self._intact_until[place] = now
                    self.truncated.add(place)
                else:
                    self.violation(f"{machine.name} has something else as {self.short(key)} after a power cut")

    def started(self, machine: Machine) -> None:
        if machine.kills and machine in self.has:
            self.check_own_log(machine)

    def check_own_log(self, machine: Machine, disk: MemoryFiles | None = None) -> None:
        """What a repository says of itself, to a process that has just begun."""
        files = disk or machine.disk
        repository = SimulatedRepository(machine, files)
        branch = repository.branch
        for key in self.contents:
            says = machine.uuid in branch.locations(key).present
            there = key in self.has[machine]
            if says and not there and machine not in self.fast:
                self.violation(f"{machine.name} has a line that it has {self.short(key)}, and has not")
            if there and not says and (machine, key) in self.acknowledged:
                self.violation(f"{machine.name} has no line that it has {self.short(key)}, which it acknowledged")
        repository.close()


assert file_key  # a name of an object is its key
