"""Doctor: look at existing annexes and say what is wrong, each with the stock git-annex command that mends it.

Nothing is written, nothing is asked over a network, no content is read: logs are compared with the objects
that are there. The repositories are looked at together: one may know of a copy in another that is gone, and
the only copy of a key may be in one whose loss the others would not notice.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from annexpy.actions.facts import Facts
from annexpy.keys.key import Key
from annexpy.logs.compact import malformed_lines
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import Log, identify
from annexpy.logs.remotes import SPECIAL_REMOTES
from annexpy.policy.numcopies import not_a_copy
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import BITTORRENT, UUID, WEB, is_cluster

__all__ = ["Finding", "Trouble", "doctor"]


class Trouble(Enum):
    """What is wrong; the value is for people."""

    UNRECORDED = "unrecorded copy"
    STALE = "stale claim"
    LOST = "no known copy"
    SOLE = "sole copy"
    MALFORMED = "malformed log line"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        trouble: What kind of thing.
        repository: Path of the repository where the command is to be run.
        detail: What exactly, as a sentence without a full stop.
        command: The stock git-annex command that mends it, for a shell; empty where there is none.
        key: Which key, if it is about one.
        log: The file of the git-annex branch, if it is about one.
    """

    trouble: Trouble
    repository: str
    detail: str
    command: str = ""
    key: Key | None = None
    log: bytes | None = None


def doctor(repositories: Sequence[Repository]) -> Iterator[Finding]:
    """Look at *repositories*, which are open, and at what they know of each other.

    Malformed lines come as they are met, then what is wrong with keys, by key.
    """
    patients = [_Patient(repository) for repository in repositories]
    for patient in patients:
        yield from patient.read_logs()
    by_uuid = {patient.uuid: patient for patient in patients}
    for key in sorted({key for patient in patients for key in (*patient.logs, *patient.objects)}):
        yield from _about_key(key, patients, by_uuid)


class _Patient:
    """One repository: what its logs claim, and what is there."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.facts = repository, Facts(repository)
        self.path, self.uuid = repository.path, repository.uuid
        self.objects = set(repository.content.keys())
        self.logs: dict[Key, list[UUID]] = {}

    def read_logs(self) -> Iterator[Finding]:
        """Take in every location log; the lines of any log that are none."""
        repository = self.repository
        for path, content in repository.branch.scan():
            found = identify(path, levels=repository.tuning.branch_levels)
            if found is None:
                continue
            log, key = found
            for line in malformed_lines(log, content):
                yield self._malformed(log, key, path, content, line, "is passed over by every reader")
            if log is Log.REMOTE:
                yield from self._undated(content)
            if log is Log.LOCATION and key is not None:
                said = LocationLog.parse(content)
                if said.present or not said.is_dead:
                    self.logs[key] = said.present

    def _malformed(self, log: Log, key: Key | None, path: bytes, content: bytes, line: bytes, why: str) -> Finding:
        shown = line.decode("utf-8", "backslashreplace")
        detail = f"{path.decode('utf-8', 'backslashreplace')}: line {shown[:100]!r} {why}"
        return Finding(Trouble.MALFORMED, self.path, detail, self._rewriting(log, key, content), key, path)

    def _rewriting(self, log: Log, key: Key | None, content: bytes) -> str:
        """A command that changes nothing but makes git-annex write *log* anew."""
        if key is not None:
            match log:
                case Log.LOCATION:
                    entries = LocationLog.parse(content).entries
                    absent = next((u for u in (self.uuid, WEB, BITTORRENT) if u not in entries), None)
                    return "" if absent is None else self.annex("setpresentkey", str(key), absent, "0")
                case Log.METADATA:
                    name = str(key)
                    setting = self.annex("metadata", "--key", name, "-s", "mended=1")
                    return f"{setting} && {self.annex('metadata', '--key', name, '-r', 'mended')}"
            return ""
        commands: dict[Log, Callable[[], Sequence[str]]] = {
            Log.UUID: lambda: ("describe", "here", self.facts.descriptions.get(self.uuid, "")),
            Log.TRUST: lambda: (_TRUST[self.facts.trust_of(self.uuid)], "here"),
            Log.GROUP: lambda: ("ungroup", "here", "no-such-group"),
        }
        words = commands.get(log)
        if words is not None:
            return self.annex(*words())
        copies = {Log.NUMCOPIES: ("numcopies", 0), Log.MINCOPIES: ("mincopies", 1)}.get(log)
        if copies is not None:
            name, at = copies
            number = self.facts.logged_copies[at] or 1
            return f"{self.annex(name, str(number + 1))} && {self.annex(name, str(number))}"
        return ""

    def _undated(self, content: bytes) -> Iterator[Finding]:
        """Lines of remote.log whose timestamp is not at their end, as some programs write them.

        git-annex takes them for the oldest of all, so any other line about the same remote wins.
        """
        for line in content.splitlines():
            for entry in SPECIAL_REMOTES.entries(line).values():
                if entry.clock is None:
                    name = entry.value.get("name", "NAME")
                    setting = f"autoenable={entry.value.get('autoenable', 'false')}"
                    detail = f"remote.log: the line of {name} has no timestamp at its end, so any other line wins"
                    command = self.annex("configremote", name, setting)
                    yield Finding(Trouble.MALFORMED, self.path, detail, command, log=Log.REMOTE.value)

    def annex(self, *words: str) -> str:
        """A git-annex command line to be run for this repository."""
        return shlex.join(("git", "-C", self.path, "annex", *words))


_TRUST: Final = {
    TrustLevel.TRUSTED: "trust",
    TrustLevel.SEMITRUSTED: "semitrust",
    TrustLevel.UNTRUSTED: "untrust",
    TrustLevel.DEAD: "dead",
}


def _about_key(key: Key, patients: Sequence[_Patient], by_uuid: Mapping[UUID, _Patient]) -> Iterator[Finding]:
    for patient in patients:
        yield from _own_claims(key, patient)
    yield from _claims_about_others(key, patients, by_uuid)
    yield from _how_many(key, patients, by_uuid)


def _own_claims(key: Key, patient: _Patient) -> Iterator[Finding]:
    there, claimed = key in patient.objects, patient.uuid in patient.logs.get(key, ())
    if there and not claimed:
        command = patient.annex("fsck", "--key", str(key))
        yield Finding(Trouble.UNRECORDED, patient.path, "it has the content and does not say so", command, key)
    if claimed and not there:
        command = patient.annex("fsck", "--fast", "--key", str(key))
        yield Finding(Trouble.STALE, patient.path, "it says that it has the content and does not", command, key)


def _claims_about_others(key: Key, patients: Sequence[_Patient], by_uuid: Mapping[UUID, _Patient]) -> Iterator[Finding]:
    for patient in patients:
        for uuid in patient.logs.get(key, ()):
            other = by_uuid.get(uuid)
            if other is None or other is patient or key in other.objects:
                continue
            if uuid in other.logs.get(key, ()):
                continue  # its own stale claim, which was found already
            remote = patient.facts.remote_names.get(uuid)
            words = ("sync", "--no-content", *((remote,) if remote else ()))
            detail = f"it says that {other.path} has the content, where it is known to be gone"
            yield Finding(Trouble.STALE, patient.path, detail, patient.annex(*words), key)


def _how_many(key: Key, patients: Sequence[_Patient], by_uuid: Mapping[UUID, _Patient]) -> Iterator[Finding]:
    knowing = [patient for patient in patients if key in patient.logs or key in patient.objects]
    first = knowing[0]
    claimed = {uuid for patient in knowing for uuid in patient.logs.get(key, ()) if not is_cluster(uuid)}
    # What can be seen is believed, what cannot is taken from the logs.
    having = {uuid for uuid in claimed if uuid not in by_uuid}
    having |= {patient.uuid for patient in patients if key in patient.objects}
    counting = {uuid for uuid in having if all(not_a_copy(uuid, (), p.facts.trust) is None for p in knowing)}
    name = str(key)
    if not having:
        command = first.annex("dead", "--key", name)
        yield Finding(Trouble.LOST, first.path, "nobody is known to have the content", command, key)
    elif len(counting) <= 1:
        holder = next(iter(counting or having))
        owner = by_uuid.get(holder)
        where = owner.path if owner is not None else first.facts.name(holder)
        detail = f"the only copy is in {where}" + ("" if counting else ", which is untrusted or dead")
        yield Finding(Trouble.SOLE, *_copying(key, holder, owner, first, detail), key)


def _copying(key: Key, holder: UUID, owner: _Patient | None, first: _Patient, detail: str) -> tuple[str, str, str]:
    """(repository, detail, command) to make a second copy."""
    name = str(key)
    patient = owner or first
    if owner is None:
        return patient.path, detail, patient.annex("get", "--key", name)
    remotes = (remote for uuid, remote in patient.facts.remote_names.items() if uuid != holder)
    return patient.path, detail, patient.annex("copy", "--key", name, "--to", next(remotes, "REMOTE"))
