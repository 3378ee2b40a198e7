"""Drop tasks of one shard from the repository that is emptied, each when enough copies of it elsewhere are proven.

First who has it elsewhere is proven: by an attestation that is new enough, else by having the copy read again now. Only
then, and only with those, ``annex.drop_many`` locks the copies, decides once more, and asks for the removal. Where a
lock says that a copy with an older proof is not there, that copy is read again, too, and the drop is decided anew.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import annexpy as annex
from glimmer_store.attest import Attestation, Signer, Verdict
from glimmer_store.errors import StoreError
from glimmer_store.jobs.copying import Failure, kind_of
from glimmer_store.jobs.event import Folded, Task
from glimmer_store.jobs.leaving import Leaving
from glimmer_store.jobs.places import Places
from glimmer_store.jobs.rereader import Rereader
from glimmer_store.jobs.states import FailureKind
from glimmer_store.jobs.throttle import JobHeld, Throttle

__all__ = ["Drained", "Draining"]


@dataclass(frozen=True, slots=True)
class Drained:
    """How the drop of one task ended.

    Attributes:
        task: Which.
        text: What allowed it.
        seconds: Its share of the time that it took.
        source: Of a failure: UUID of a copy elsewhere that turned out to be bad.
        failure: Why it is still there.
        held: Nothing may be moved now: the task is as it was before.
    """

    task: Task
    text: str = ""
    seconds: float = 0.0
    source: str = ""
    failure: Failure | None = None
    held: bool = False

    def absence(self, signer: Signer, name: str) -> Attestation:
        """A signed line that voids the proofs of the copy that went."""
        key = annex.Key.parse(self.task.key)
        return signer.attest(key, self.task.dest, name, Verdict.MISSING, "reread")


@dataclass(slots=True)
class _Case:
    """One task on its way out.

    Attributes:
        task, key, copies: What, and how many copies must stay.
        proven: UUID → how; *fresh*: those among them that were read just now.
        ask: UUIDs of copies that can be read, the cheapest first.
        why: Name → why that copy does not count.
        bad: UUID of one that was read and is not right.
        silent: One that might count cannot be asked now.
    """

    task: Task
    key: annex.Key
    copies: annex.Copies
    proven: dict[str, str]
    ask: list[str]
    fresh: set[str] = field(default_factory=set)
    why: dict[str, str] = field(default_factory=dict)
    bad: str = ""
    silent: bool = False

    @property
    def lacking(self) -> int:
        """Proofs that are missing."""
        return max(0, self.copies.needed - len(self.proven))

    @property
    def hopeful(self) -> bool:
        """Reading may lead to enough of them; else it is not worth the bytes."""
        return 0 < self.lacking <= len(self.ask)

    def doubt(self) -> None:
        """Let no proof count but those of just now."""
        self.ask = [uuid for uuid in self.proven if uuid not in self.fresh] + self.ask
        self.proven = {uuid: how for uuid, how in self.proven.items() if uuid in self.fresh}


class Draining:
    """What a worker drops with.

    Args:
        places: Its connections.
        throttle: What the job may use.
        rereading: Reads copies again.
    """

    def __init__(self, places: Places, throttle: Throttle, rereading: Rereader) -> None:
        self._places, self._throttle, self._rereading = places, throttle, rereading

    async def drain(
        self, shard: str, tasks: Sequence[Task], folded: dict[str, Folded], rules: Leaving
    ) -> list[Drained]:
        """Drop *tasks* where that is safe.

        Args:
            shard: Theirs.
            tasks: With one destination.
            folded: Where they are.
            rules: As they are now.
        """
        dest = str(rules.dest)
        begun, done = time.monotonic(), dict[str, Drained]()
        try:
            await self._throttle.ready(dest)
            await self._throttle.spend(dest=dest, requests=len(tasks))
            cases = await self._cases(tasks, folded, rules, done)
            await self._prove(shard, cases, rules)
            await self._drop(self._ready(cases, rules, done), rules, done)
            again = [case for case in cases if case.task.key not in done]  # a lock said otherwise than its proof
            for case in again:
                case.doubt()
            await self._prove(shard, again, rules)
            await self._drop(self._ready(again, rules, done), rules, done, last=True)
        except JobHeld:
            pass  # what is done is done
        each = (time.monotonic() - begun) / len(tasks)
        found = [done.get(task.key) or Drained(task, held=True) for task in tasks]
        return [Drained(one.task, one.text, each, one.source, one.failure, one.held) for one in found]

    async def _cases(
        self, tasks: Sequence[Task], folded: dict[str, Folded], rules: Leaving, done: dict[str, Drained]
    ) -> list[_Case]:
        """Those that are there and may go as far as rules say; the others are done."""
        taker = self._places.remote(str(rules.dest))
        try:
            if taker is None:
                raise annex.ConnectFailed(rules.name(rules.dest), "it cannot be used here")
            there = await annex.has_many(taker, [annex.Key.parse(task.key) for task in tasks])
        except annex.AnnexError as error:
            done |= {task.key: _kept(task, _kind(error), str(error)) for task in tasks}
            return []
        cases = []
        for task, present in zip(tasks, there, strict=True):
            key = annex.Key.parse(task.key)
            try:
                if not present:
                    done[task.key] = Drained(task, "it was not there any more")
                elif not annex.is_verifiable(key):
                    why = "its key has no hash that could prove a copy"
                    done[task.key] = _kept(task, FailureKind.TERMINAL, why)
                else:
                    cases.append(self._case(task, key, rules, folded[task.key].bad_sources))
            except annex.RequiredContent as error:
                done[task.key] = _kept(task, FailureKind.REQUIRED, _without(task, error))
            except annex.AnnexError as error:
                done[task.key] = _kept(task, FailureKind.TERMINAL, str(error))
        return cases

    def _case(self, task: Task, key: annex.Key, rules: Leaving, bad: Collection[str]) -> _Case:
        copies = rules.copies(task)
        said = [str(uuid) for uuid in rules.recorded(key)]
        there = [uuid for uuid in said if uuid not in bad]
        proven = {str(uuid): how for uuid, how in rules.proven(task).items() if uuid in there}
        case = _Case(task, key, copies, proven, [])
        case.why |= {rules.name(uuid): "it was read, and is bad or missing" for uuid in said if uuid in bad}
        case.why |= rules.uncounted(key) if len(there) < copies.needed else {}
        for uuid in there:
            if uuid in proven:
                continue
            if self._places.remote(uuid) is None:
                case.why[rules.name(uuid)] = "no proof of it is new enough, and it cannot be reached from here"
            elif self._places.is_cold(uuid):
                case.why[rules.name(uuid)] = "no proof of it is new enough, and it is cold"
            else:
                case.ask.append(uuid)
        case.ask.sort(key=lambda uuid: (self._cost(uuid), rules.name(uuid)))  # the same ones each time
        return case

    def _cost(self, uuid: str) -> float:
        remote = self._places.remote(uuid)
        return 0.0 if remote is None else remote.cost

    # -- proofs --

    async def _prove(self, shard: str, cases: Sequence[_Case], rules: Leaving) -> None:
        """Have as many copies read as are lacking, place by place, until there are enough or nobody is left."""
        while True:
            asked: dict[str, list[_Case]] = {}
            for case in cases:
                for _ in range(case.lacking if case.hopeful else 0):
                    asked.setdefault(case.ask.pop(0), []).append(case)
            if not asked:
                return
            for uuid, some in asked.items():
                await self._read(shard, uuid, some, rules.name(uuid))

    async def _read(self, shard: str, uuid: str, cases: Sequence[_Case], name: str) -> None:
        size = sum(case.task.size or 0 for case in cases)
        await self._throttle.spend(source=uuid, size=size, requests=len(cases))
        found = await self._rereading.read(shard, uuid, [case.task.key for case in cases])
        for case, one in zip(cases, found, strict=True):
            if one.verdict is Verdict.GOOD:
                case.proven[uuid] = one.method
                case.fresh.add(uuid)
                continue
            case.why[name] = one.why
            if one.verdict is None:
                case.silent = True
            else:
                case.bad, case.why[name] = uuid, f"{one.verdict.value}: {one.why}"

    def _ready(self, cases: Sequence[_Case], rules: Leaving, done: dict[str, Drained]) -> list[_Case]:
        """Those with enough proofs; the others are done."""
        ready = []
        for case in cases:
            if case.bad:
                said = f"{rules.name(case.bad)}: {case.why[rules.name(case.bad)]}"
                done[case.task.key] = _kept(case.task, FailureKind.SOURCE_BAD, said, case.bad)
            elif case.lacking:
                kind = FailureKind.TRANSIENT if case.silent else FailureKind.TOO_FEW
                done[case.task.key] = _kept(case.task, kind, _too_few(case, rules))
            else:
                ready.append(case)
        return ready

    # -- the drop --

    async def _drop(
        self, cases: Sequence[_Case], rules: Leaving, done: dict[str, Drained], *, last: bool = False
    ) -> None:
        """Ask for the removal; what is refused although a proof of it is not of just now is left, unless *last*."""
        together: dict[frozenset[str], list[_Case]] = {}
        for case in cases:
            together.setdefault(frozenset(case.proven), []).append(case)
        for uuids, some in together.items():
            by_key = {case.key: case for case in some}
            for result in await self._drop_with(uuids, by_key, rules):
                case = by_key[result.key]
                doubtful = isinstance(result.error, annex.NotEnoughCopies) and set(case.proven) - case.fresh
                if last or not doubtful:
                    done[case.task.key] = _judged(case.task, result)

    async def _drop_with(
        self, uuids: Iterable[str], cases: Mapping[annex.Key, _Case], rules: Leaving
    ) -> list[annex.DropResult]:
        """Drop while the copies at *uuids*, and no others, are locked."""
        taker = self._places.remote(str(rules.dest))
        assert taker is not None  # it was asked what it has
        stays = {annex.UUID(uuid): rules.name(uuid) for uuid in uuids}
        results: list[annex.DropResult] = []
        await annex.drop_many(
            cases,
            from_=taker,
            others=[remote for uuid in stays if (remote := self._places.remote(uuid)) is not None],
            copies=lambda key: cases[key].copies,
            trust=rules.trust,
            recorded=lambda _: stays,
            jobs=self._jobs(),
        ).tell(results.append)
        return results

    def _jobs(self) -> int | None:
        most = self._throttle.limits.per_dest
        return None if most is None else max(1, self._throttle.share.slots(most))


def _judged(task: Task, result: annex.DropResult) -> Drained:
    error = result.error
    if error is None:
        stay = {} if result.proof is None else result.proof.how
        return Drained(task, "stays: " + ", ".join(f"{name} ({how})" for name, how in stay.items()))
    match error:
        case annex.NotEnoughCopies():
            return _kept(task, FailureKind.TOO_FEW, _without(task, error))
        case annex.RequiredContent():
            return _kept(task, FailureKind.REQUIRED, _without(task, error))
        case _:
            return _kept(task, _kind(error), str(error))


def _kind(error: annex.AnnexError) -> FailureKind:
    """What a failed drop means: nothing was lost, so what no person is needed for is tried again."""
    if isinstance(error, StoreError):
        return FailureKind.TERMINAL
    return FailureKind.TERMINAL if kind_of(error) is FailureKind.TERMINAL else FailureKind.TRANSIENT


def _too_few(case: _Case, rules: Leaving) -> str:
    counted = {rules.name(uuid): f"proven, {how}" for uuid, how in sorted(case.proven.items())}
    missing = case.why | {rules.name(uuid): "not read: it would not have been enough" for uuid in case.ask}
    need = case.copies.needed
    error = annex.NotEnoughCopies(case.key, len(counted), need, counted=counted, missing=missing)
    return f"{_without(case.task, error)}; {need} needed: {case.copies.num_from}"


def _without(task: Task, error: annex.AnnexError) -> str:
    """What *error* says, but for the key, so that the same reason reads the same for all keys."""
    return str(error).removeprefix(f"{task.key}: ")


def _kept(task: Task, kind: FailureKind, text: str, source: str = "") -> Drained:
    return Drained(task, source=source, failure=Failure(kind, text))
