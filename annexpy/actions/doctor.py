"""Doctor: what is wrong with existing annexes, found by looking only, each with the stock command that mends it.

Nothing is written, nothing is asked over a network, no content is read: logs are compared with the objects
that are there. The repositories are looked at together: one may know of a copy in another that is gone, and
the only copy of a key may be in one whose loss the others would not notice.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, TypeVar

from annexpy.actions.facts import Facts
from annexpy.keys.key import Key
from annexpy.logs.compact import malformed_lines
from annexpy.logs.location import LocationLog
from annexpy.logs.malformed import malformed
from annexpy.logs.paths import Log, identify, log_key
from annexpy.logs.remotes import SPECIAL_REMOTES
from annexpy.logs.repos import TRUST
from annexpy.logs.settings import MINCOPIES, NUMCOPIES
from annexpy.policy.numcopies import not_a_copy
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import BITTORRENT, UUID, WEB, is_cluster

__all__ = ["Finding", "Problem", "examine_repositories"]

T = TypeVar("T")
_BATCH: Final = 1000


class Problem(StrEnum):
    """What can be wrong; the value is for people."""

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
        path: The repository that shows it, and where the command is to be run.
        key: Whose copies, or None.
        detail: What exactly, as a phrase.
        command: The stock git-annex command that mends it, for a shell; empty where there is none.
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
    """One repository: what its logs claim, and what is there."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.uuid, self.path = repository, repository.uuid, repository.path
        self.facts = Facts(repository)
        self._levels = repository.tuning.branch_levels

    def has(self, key: Key) -> bool:
        """The object is there, whatever is in it."""
        return self.repository.content.size(key) is not None

    def annex(self, *words: str) -> str:
        """A git-annex command line for this repository."""
        return shlex.join(("git", "-C", self.path, "annex", *words))

    def _finding(self, problem: Problem, key: Key | None, detail: str, command: str) -> Finding:
        return Finding(problem, self.path, key, detail, command)

    # -- what is there and not recorded --

    def unrecorded(self) -> Iterator[Finding]:
        """Contents that the repository's own branch does not know to be there."""
        for keys in _batches(self.repository.content.keys()):
            for key, log in self.repository.branch.locations_many(keys):
                if self.uuid not in log.present:
                    detail = "the content is here and its location log does not say so"
                    yield self._finding(Problem.UNRECORDED, key, detail, self.annex("fsck", "--key", str(key)))

    # -- what is recorded --

    def logs(self, examined: Sequence[_Patient], everybody: Sequence[_Patient]) -> Iterator[Finding]:
        """Every log of the branch: lines that nobody reads, claims that are not true, copies that are too few.

        Args:
            examined: Repositories whose keys were counted already, so not again here.
            everybody: All repositories that can be looked at.
        """
        for some in _batches(self.repository.branch.scan()):
            known: dict[Key, LocationLog] = {}
            for path, content in some:
                yield from self._lines(path, content)
                key = log_key(path, levels=self._levels) if path.endswith(Log.LOCATION.value) else None
                if key is not None:
                    known[key] = LocationLog.parse(content)
            for key, log in known.items():
                yield from self._own_claim(key, log)
            yield from self._count_all(known, examined, everybody)

    def _own_claim(self, key: Key, log: LocationLog) -> Iterator[Finding]:
        if self.uuid not in log.present:
            return
        size = self.repository.content.size(key)
        if size is None:
            command = self.annex("fsck", "--fast", "--key", str(key))
            yield self._finding(Problem.STALE, key, "the location log says that it is here, and it is not", command)
        elif key.size is not None and key.size != size:
            detail = f"the object has {size} bytes, its key says {key.size}"
            yield self._finding(Problem.DAMAGED, key, detail, self.annex("fsck", "--key", str(key)))

    def _count_all(
        self, known: Mapping[Key, LocationLog], examined: Sequence[_Patient], everybody: Sequence[_Patient]
    ) -> Iterator[Finding]:
        said: dict[Key, list[tuple[_Patient, LocationLog]]] = {key: [(self, log)] for key, log in known.items()}
        for other in everybody:
            if other is not self:
                for key, log in other.repository.branch.locations_many(list(known)):
                    if log.entries:
                        said[key].append((other, log))
        for key, logs in said.items():
            yield from self._claims_about_others(key, logs[0][1], {other.uuid: log for other, log in logs}, everybody)
            if not any(other in examined for other, _ in logs):
                yield from self._count(key, [log for _, log in logs], everybody)

    def _claims_about_others(
        self, key: Key, log: LocationLog, said: Mapping[UUID, LocationLog], everybody: Sequence[_Patient]
    ) -> Iterator[Finding]:
        for other in everybody:
            if other is self or other.uuid not in log.present or other.has(key):
                continue
            its_own = said.get(other.uuid)
            if its_own is not None and other.uuid in its_own.present:
                continue  # its own stale claim, which is found there
            detail = f"the location log says that {other.path} has it, where it is known to be gone"
            command = self._told_by(other, key, its_own is not None and other.uuid in its_own.entries)
            yield self._finding(Problem.STALE, key, detail, command)

    def _told_by(self, other: _Patient, key: Key, recorded: bool) -> str:
        """A command after which the log of *key* has what *other* knows of itself, if it *recorded* that."""
        to, back = self.facts.remote_names.get(other.uuid), other.facts.remote_names.get(self.uuid)
        if recorded and to is not None:
            return self.annex("sync", "--no-content", to)
        if recorded and back is not None and not other.repository.bare:  # those do not push
            return other.annex("sync", "--no-content", back)
        return self.annex("setpresentkey", str(key), other.uuid, "0")

    def _count(self, key: Key, logs: Sequence[LocationLog], everybody: Sequence[_Patient]) -> Iterator[Finding]:
        if all(log.is_dead for log in logs):
            return
        there = {patient.uuid: patient.has(key) for patient in everybody}
        # What can be seen is believed, what cannot is taken from the logs.
        having = {uuid for log in logs for uuid in log.present if not is_cluster(uuid) and there.get(uuid, True)}
        having |= {uuid for uuid, present in there.items() if present}
        counting = [uuid for uuid in having if not_a_copy(uuid, (), self.facts.trust) is None]
        name = str(key)
        if not counting:
            doubtful = ", ".join(sorted(f"{self.facts.trust_of(uuid)} {self.facts.name(uuid)}" for uuid in having))
            detail = "nobody is known to have it" + (f" but {doubtful}" if doubtful else "")
            yield self._finding(Problem.LOST, key, detail, self._fetched(name, having))
        elif len(counting) == 1:
            (holder,) = counting
            detail = f"the only copy is in {self.facts.name(holder)}"
            if holder == self.uuid:
                command = self.annex("copy", "--key", name, "--to", self._another_remote(having))
            else:
                command = self.annex("get", "--key", name)
            yield self._finding(Problem.SOLE, key, detail, command)

    def _fetched(self, key: str, having: Collection[UUID]) -> str:
        """A command that fetches *key* from one of those *having* it; that gives it up when none can be asked."""
        if any(self.facts.trust_of(uuid) is not TrustLevel.DEAD for uuid in having):
            return self.annex("get", "--key", key)
        remote = next((name for uuid, name in self.facts.remote_names.items() if uuid in having), None)
        if remote is not None:  # git-annex asks dead repositories only when it is told to
            return self.annex("get", "--from", remote, "--key", key)
        gone = [self.annex("setpresentkey", key, uuid, "0") for uuid in sorted(having)]
        return " && ".join([*gone, self.annex("dead", "--key", key)])

    def _another_remote(self, having: Collection[UUID]) -> str:
        """A git remote whose copies count, and which does not have the content; REMOTE for one that is yet to be."""
        remotes = self.repository.config.remotes().values()
        others = {r.name: UUID(r.uuid) for r in remotes if not r.ignore and r.uuid not in (None, self.uuid)}
        left = (self.uuid, *having)
        return next(
            (name for name, uuid in others.items() if not_a_copy(uuid, left, self.facts.trust) is None), "REMOTE"
        )

    # -- lines --

    def _lines(self, path: bytes, content: bytes) -> Iterator[Finding]:
        odd = malformed(path, content, levels=self._levels)
        found = identify(path, levels=self._levels) if odd or b"/" not in path else None
        if found is None:
            return
        log, key = found
        if not log.per_key:  # the form is right and the value is not
            known = {line for line, _ in odd}
            odd += [(line, "not a value of this log") for line in malformed_lines(log, content) if line not in known]
        for line, why in odd:
            shown = line[:120].decode("utf-8", "backslashreplace")
            detail = f"{path.decode('utf-8', 'backslashreplace')}: {why}: {shown!r}"
            yield self._finding(Problem.MALFORMED, key, detail, self._mending(log, key, content, line))

    def _mending(self, log: Log, key: Key | None, content: bytes, line: bytes) -> str:
        """A command after which git-annex has written *log* anew, saying the same as it reads in it now."""
        match log:
            case Log.LOCATION if key is not None:
                # Whoever has no line does not have the content: to say so changes nothing but makes it write.
                entries = LocationLog.parse(content).entries
                absent = next((uuid for uuid in (self.uuid, WEB, BITTORRENT) if uuid not in entries), None)
                return "" if absent is None else self.annex("setpresentkey", str(key), absent, "0")
            case Log.METADATA if key is not None:
                there = self.annex("metadata", "--key", str(key), "-s", "mended=1")
                return f"{there} && {self.annex('metadata', '--key', str(key), '-r', 'mended')}"
            case Log.NUMCOPIES:
                return self._there_and_back("numcopies", NUMCOPIES.parse(content))
            case Log.MINCOPIES:
                return self._there_and_back("mincopies", MINCOPIES.parse(content))
            case Log.UUID | Log.TRUST | Log.GROUP | Log.PREFERRED_CONTENT | Log.REQUIRED_CONTENT:
                return self._said_again(log, line)
            case Log.REMOTE:
                for fields in SPECIAL_REMOTES.parse(line).values():
                    setting = f"autoenable={fields.get('autoenable', 'false')}"
                    return self.annex("configremote", fields.get("name", "NAME"), setting)
        return "" if log.per_key else self.annex("vicfg")

    def _said_again(self, log: Log, line: bytes) -> str:
        """A line without a timestamp at its end is read, so it stays until what it says is said again."""
        uuid, _, value = _MISPLACED.sub(b"", line).decode("utf-8", "surrogateescape").partition(" ")
        if log is Log.TRUST:
            levels = TRUST.parse(f"{uuid} {value}".encode("utf-8", "surrogateescape"))
            uuid, level = next(iter(levels.items()), (self.uuid, self.facts.trust_of(self.uuid)))
            value, command = "", _TRUST[level]
        else:
            command = _SAYING[log]
        if log is not Log.UUID and uuid not in {self.uuid, *self.facts.descriptions, *self.facts.remote_names}:
            return ""  # git-annex knows of no such repository, and says so
        return self.annex(command, uuid, *((value,) if value else ()))

    def _there_and_back(self, command: str, number: int | None) -> str:
        # git-annex leaves the log alone when the number is the same
        number = number or 1
        return f"{self.annex(command, str(number + 1))} && {self.annex(command, str(number))}"


_MISPLACED: Final = re.compile(rb"(?<= )timestamp=\S* ?")
_SAYING: Final = {
    Log.UUID: "describe",
    Log.GROUP: "group",
    Log.PREFERRED_CONTENT: "wanted",
    Log.REQUIRED_CONTENT: "required",
}
_TRUST: Final = {
    TrustLevel.TRUSTED: "trust",
    TrustLevel.SEMITRUSTED: "semitrust",
    TrustLevel.UNTRUSTED: "untrust",
    TrustLevel.DEAD: "dead",
}


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, _BATCH)):
        yield some
