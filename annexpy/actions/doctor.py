"""Doctor: what is wrong with existing repositories, found by looking only, and the git-annex command that mends it.

Each repository is compared with what its branch says of it, and all of them together with what their branches say of
each key. Nothing is written, no content is read, and nobody else is asked.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, TypeVar

from annexpy.actions.facts import Facts
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.malformed import malformed
from annexpy.logs.paths import Log, identify, log_key
from annexpy.logs.settings import MINCOPIES, NUMCOPIES
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["Finding", "Problem", "examine_repositories"]

T = TypeVar("T")
_BATCH: Final = 1000
_UUID: Final = 36
_MISPLACED: Final = re.compile(rb"(?<= )timestamp=\S* ?")
_SAYING: Final = {
    Log.UUID: ("describe",),
    Log.TRUST: ("semitrust",),
    Log.GROUP: ("group",),
    Log.PREFERRED_CONTENT: ("wanted",),
    Log.REQUIRED_CONTENT: ("required",),
}
"""What sets one entry of a log."""


class Problem(StrEnum):
    """What can be wrong."""

    UNRECORDED = "unrecorded copy"
    STALE = "stale claim"
    DAMAGED = "wrong size"
    SOLE = "sole copy"
    LOST = "no copy"
    MALFORMED = "malformed line"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        problem: Which kind.
        path: The repository that shows it.
        key: Whose copies, or None.
        detail: What exactly, for people.
        command: The stock git-annex command that mends it, for a shell.
    """

    problem: Problem
    path: str
    key: Key | None
    detail: str
    command: str


def examine_repositories(repositories: Sequence[Repository]) -> Iterator[Finding]:
    """Look at *repositories*, which stay as they are. Findings come as they are made; memory does not grow with keys.

    Copies in repositories that were not handed in are believed; copies in those that were are looked for.
    """
    patients = [_Patient(repository) for repository in repositories]
    for number, patient in enumerate(patients):
        yield from patient.unrecorded()
        yield from patient.logs(patients[:number], patients)


class _Patient:
    """One repository under examination."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.uuid = repository, repository.uuid
        self.facts = Facts(repository)
        self.levels = repository.tuning.branch_levels

    # -- what is there and not recorded --

    def unrecorded(self) -> Iterator[Finding]:
        """Contents that the repository's own branch does not know to be there."""
        for keys in _batches(self.repository.content.keys()):
            for key, log in self.repository.branch.locations_many(keys):
                if self.uuid not in log.present:
                    said = "says that it is not there" if self.uuid in log.entries else "does not mention it"
                    yield self._finding(
                        Problem.UNRECORDED, key, f"the content is there and its location log {said}", self._fsck(key)
                    )

    # -- what is recorded --

    def logs(self, examined: Collection[_Patient], everybody: Sequence[_Patient]) -> Iterator[Finding]:
        """Every log of the branch: lines that nobody reads, claims that are not true, copies that are too few.

        Args:
            examined: Repositories whose keys were judged already, so not again here.
            everybody: All repositories that can be looked at.
        """
        for some in _batches(self.repository.branch.scan()):
            known: dict[Key, bytes] = {}
            for path, content in some:
                for line, why in malformed(path, content, levels=self.levels):
                    yield self._malformed(path, content, line, why)
                if path.endswith(Log.LOCATION.value) and (key := log_key(path, levels=self.levels)) is not None:
                    known[key] = content
            for key, content in known.items():
                yield from self._claim(key, LocationLog.parse(content))
            yield from self._copies(known, examined, everybody)

    def _claim(self, key: Key, log: LocationLog) -> Iterator[Finding]:
        if self.uuid not in log.present:
            return
        size = self.repository.content.size(key)
        if size is None:
            yield self._finding(
                Problem.STALE, key, "the location log says that it is here, and it is not", self._fsck(key)
            )
        elif key.size is not None and key.size != size:
            detail = f"the object has {size} bytes, its key says {key.size}"
            yield self._finding(Problem.DAMAGED, key, detail, self._annex("fsck", "--key", str(key)))

    def _copies(
        self, known: dict[Key, bytes], examined: Collection[_Patient], everybody: Sequence[_Patient]
    ) -> Iterator[Finding]:
        logs = {key: dict(LocationLog.parse(content).entries) for key, content in known.items()}
        for other in everybody:
            if other is self:
                continue
            for key, log in other.repository.branch.locations_many(list(logs)):
                if not log.entries:
                    continue
                if other in examined:
                    del logs[key]  # judged when *other* was looked at
                    continue
                entries = logs[key]
                for uuid, entry in log.entries.items():
                    if uuid not in entries or entries[uuid][0] < entry[0]:
                        entries[uuid] = entry
        for key, entries in logs.items():
            yield from self._count(key, LocationLog(entries), everybody)

    def _count(self, key: Key, log: LocationLog, everybody: Sequence[_Patient]) -> Iterator[Finding]:
        if log.is_dead:
            return
        seen = {patient.uuid: patient.repository.content.size(key) is not None for patient in everybody}
        holders = [uuid for uuid in log.present if seen.get(uuid, True)]
        holders += [uuid for uuid, there in seen.items() if there and uuid not in holders]
        counted = [u for u in holders if self.facts.trust_of(u) not in (TrustLevel.DEAD, TrustLevel.UNTRUSTED)]
        if len(counted) == 1:
            where = self.facts.name(counted[0])
            here = counted[0] == self.uuid
            command = (
                self._annex("copy", "--key", str(key), "--to", self._another(counted[0]))
                if here
                else self._annex("get", "--key", str(key))
            )
            yield self._finding(Problem.SOLE, key, f"the only copy is in {where}", command)
        elif not counted:
            doubtful = f", except untrusted {', '.join(map(self.facts.name, holders))}" if holders else ""
            command = self._annex("dead", "--key", str(key))
            yield self._finding(Problem.LOST, key, f"nobody has it any more{doubtful}", command)

    def _another(self, holder: UUID) -> str:
        """A git remote to copy to."""
        remotes = self.repository.config.remotes().values()
        return next((r.name for r in remotes if not r.ignore and r.uuid not in (None, holder)), "REMOTE")

    # -- lines --

    def _malformed(self, path: bytes, content: bytes, line: bytes, why: str) -> Finding:
        found = identify(path, levels=self.levels)
        assert found is not None
        log, key = found
        shown = line[:120].decode("utf-8", "backslashreplace")
        detail = f"{path.decode('utf-8', 'backslashreplace')}: {why}: {shown!r}"
        return self._finding(Problem.MALFORMED, key, detail, self._rewriting(log, key, content, line))

    def _rewriting(self, log: Log, key: Key | None, content: bytes, line: bytes) -> str:
        """A command after which git-annex has written the log anew, with what it understands of it and no more."""
        match log:
            case Log.LOCATION if key is not None:
                # Only a changed status makes git-annex write; so there and back again.
                status = [self.uuid, "1" if self.uuid in LocationLog.parse(content).present else "0"]
                other = [self.uuid, "0" if status[1] == "1" else "1"]
                return " && ".join(self._annex("setpresentkey", str(key), *words) for words in (other, status))
            case Log.NUMCOPIES:
                return self._annex("numcopies", str(NUMCOPIES.parse(content) or 1))
            case Log.MINCOPIES:
                return self._annex("mincopies", str(MINCOPIES.parse(content) or 1))
            case Log.UUID | Log.TRUST | Log.GROUP | Log.PREFERRED_CONTENT | Log.REQUIRED_CONTENT if len(line) > _UUID:
                # Said again, it gets a timestamp.
                uuid, _, value = _MISPLACED.sub(b"", line).decode("utf-8", "surrogateescape").partition(" ")
                return self._annex(*_SAYING[log], uuid, *([value] if log is not Log.TRUST else []))
            case _:
                return self._annex("vicfg")

    # -- words --

    def _finding(self, problem: Problem, key: Key | None, detail: str, command: str) -> Finding:
        return Finding(problem, self.repository.path, key, detail, command)

    def _fsck(self, key: Key) -> str:
        return self._annex("fsck", "--fast", "--key", str(key))

    def _annex(self, *words: str) -> str:
        return shlex.join(["git", "-C", self.repository.path, "annex", *words])


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, _BATCH)):
        yield some
