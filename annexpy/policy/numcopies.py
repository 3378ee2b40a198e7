"""May this copy go? How many copies must stay, which ones count, and the proof that a drop is safe.

Nothing here asks anybody anything. ``actions/drop`` collects facts (locks held, contents looked at)
and hands them in; ``safe_drop`` turns them into a ``DropProof`` or into a refusal that names every
copy it counted and every one it did not, and why.

The rule (fact sheet repository-format, section 5): a drop needs max(numcopies, mincopies) other
copies, of which mincopies are locked or in a trusted repository. So a race between drops may break
numcopies, never mincopies. What never counts: the repositories dropped from, a cluster (its nodes
are the copies), untrusted and dead repositories, a lock that is over, a second path to a repository
that was counted already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, assert_never

from annexpy.clock import LOCK_RETENTION, Deadline
from annexpy.errors import NotEnoughCopies
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.logs.number import leading_integer
from annexpy.policy.trust import TrustLevel
from annexpy.uuids import UUID, is_cluster

__all__ = [
    "CHECK_LIFETIME",
    "CheckedCopy",
    "Copies",
    "DropProof",
    "FileCopies",
    "HeldCopy",
    "TrustedCopy",
    "VerifiedCopy",
    "find_copies",
    "not_a_copy",
    "read_number",
    "safe_drop",
]

CHECK_LIFETIME: Final = LOCK_RETENTION
"""Seconds for which having looked at a content counts; a lock is never older either."""


# -- how many -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copies:
    """How many copies must stay, and who says so.

    Attributes:
        num: numcopies. Values below 1 act as 1.
        min: mincopies, of which each must be locked or trusted. Values below 1 act as 1.
        num_from, min_from: Where each came from, as the user knows it.
    """

    num: int = 1
    min: int = 1
    num_from: str = "default"
    min_from: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "num", max(self.num, 1))
        object.__setattr__(self, "min", max(self.min, 1))

    @property
    def needed(self) -> int:
        """Copies that must be left in all."""
        return max(self.num, self.min)

    def __str__(self) -> str:
        return f"numcopies {self.num} ({self.num_from}), mincopies {self.min} ({self.min_from})"


@dataclass(frozen=True, slots=True)
class FileCopies:
    """What the git attributes say about one file with the key's content.

    Attributes:
        path: Of the file, from the top of the work tree.
        num, min: Values of ``annex.numcopies`` and ``annex.mincopies``; None where not set or unreadable.
    """

    path: bytes
    num: int | None = None
    min: int | None = None


def read_number(value: str | bytes | None) -> int | None:
    """A number of copies as git-annex reads it from an attribute or a git config; None when it does not.

    It takes what starts with an integer (``3abc`` is 3); ``4.5``, ``+4`` and ``1e1`` are none (measured).
    """
    if value is None:
        return None
    return leading_integer(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)


def find_copies(
    files: Iterable[FileCopies] = (),
    *,
    command_line: tuple[int | None, int | None] = (None, None),
    log: tuple[int | None, int | None] = (None, None),
    config: int | None = None,
) -> Copies:
    """How many copies of one key must stay, from every source in git-annex's order.

    Command line, then git attributes, then numcopies.log and mincopies.log, then the git config
    ``annex.numcopies``, then 1. With several files the largest number counts, where a file without
    an attribute has the number of the sources behind it.

    Args:
        files: Every file in the index that has the key; none for a key without a file.
        command_line: ``--numcopies`` and ``--mincopies``.
        log: numcopies.log and mincopies.log.
        config: git config ``annex.numcopies``, deprecated and still read. There is none for mincopies.
    """
    known = list(files)
    num, num_from = _find("numcopies", command_line[0], [(f.num, f.path) for f in known], log[0], config)
    least, min_from = _find("mincopies", command_line[1], [(f.min, f.path) for f in known], log[1], None)
    return Copies(num, least, num_from, min_from)


def _find(
    name: str, command_line: int | None, files: list[tuple[int | None, bytes]], log: int | None, config: int | None
) -> tuple[int, str]:
    if command_line is not None:
        return command_line, "command line"
    if log is not None:
        behind = log, f"{name}.log"
    elif config is not None:
        behind = config, f"git config annex.{name}"
    else:
        behind = 1, "default"
    best: tuple[int, str] | None = None
    for value, path in files:
        here = behind if value is None else (value, f"git attribute of {path.decode('utf-8', 'backslashreplace')}")
        if best is None or max(here[0], 1) > max(best[0], 1):
            best = here
    return best or behind


# -- which ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeldCopy:
    """A copy that was locked. *expires*: ``Clock.now()`` from which the lock promises nothing."""

    uuid: UUID
    name: str
    expires: float


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """A copy that was looked at and found, but could not be locked. *at*: ``Clock.now()`` before it was asked."""

    uuid: UUID
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class TrustedCopy:
    """A copy that a trusted repository has according to the location log. Nobody looked."""

    uuid: UUID
    name: str


VerifiedCopy: TypeAlias = HeldCopy | CheckedCopy | TrustedCopy


def not_a_copy(uuid: UUID, dropped_from: Collection[UUID], trust: Mapping[UUID, TrustLevel]) -> str | None:
    """Why content at *uuid* may not count towards the copies that stay, or None when it may.

    Asked before anything is locked, and again by ``safe_drop`` of what was locked.
    """
    if is_cluster(uuid):
        return "a cluster is not a copy"
    if uuid in dropped_from:
        return "it is where the content would be dropped"
    match trust.get(uuid, TrustLevel.SEMITRUSTED):
        case TrustLevel.DEAD:
            return "the repository is dead"
        case TrustLevel.UNTRUSTED:
            return "the repository is untrusted"
        case TrustLevel.SEMITRUSTED | TrustLevel.TRUSTED:
            return None
        case level:
            assert_never(level)


def _over(copy: VerifiedCopy, trust: Mapping[UUID, TrustLevel], now: float) -> str | None:
    """Why what is known about *copy* is no longer worth anything at *now*."""
    match copy:
        case HeldCopy(expires=expires):
            return None if now < expires else "its lock is over"
        case CheckedCopy(at=at):
            return None if at <= now < at + CHECK_LIFETIME else "it was looked at too long ago"
        case TrustedCopy(uuid=uuid):
            return None if trust.get(uuid) is TrustLevel.TRUSTED else "the repository is not trusted"
        case _:
            assert_never(copy)


def _strength(copy: VerifiedCopy) -> tuple[int, float]:
    """Which of several facts about one repository is worth most."""
    match copy:
        case HeldCopy(expires=expires):
            return 2, expires
        case TrustedCopy():
            return 1, 0.0
        case CheckedCopy(at=at):
            return 0, at
        case _:
            assert_never(copy)


def _how(copy: VerifiedCopy) -> str:
    match copy:
        case HeldCopy():
            return "locked"
        case CheckedCopy():
            return "present"
        case TrustedCopy():
            return "trusted"
        case _:
            assert_never(copy)


# -- the proof ------------------------------------------------------------------------------------


class DropProof:
    """Evidence that one copy of one key may go now. Only ``safe_drop`` makes one.

    It is worth something only while the locks behind it are held, and for one removal: a repeated
    drop has to collect a new one, because copies changed.

    Attributes:
        key: What may be dropped.
        copies: What had to be proven.
        counted: The copies that will stay.
        not_counted: Place → why it did not count.
        deadline: Earliest end of a lock behind it; the removal must not happen later. None when it
            stands on trust alone.
        verifiable: False when no hash says what the content must be, so that "present" means the
            right size at most.
    """

    __slots__ = ("copies", "counted", "deadline", "key", "not_counted", "verifiable")

    key: Key
    copies: Copies
    counted: tuple[VerifiedCopy, ...]
    not_counted: Mapping[str, str]
    deadline: Deadline | None
    verifiable: bool

    def __init__(self) -> None:
        raise TypeError("a DropProof comes from safe_drop() alone")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"DropProof is immutable: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"DropProof is immutable: {name}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DropProof is valid only here and now")

    @property
    def how(self) -> Mapping[str, str]:
        """Place that counted → how it was proven, as ``NotEnoughCopies.counted`` has it."""
        return _counted(self.counted)

    def __repr__(self) -> str:
        return f"<DropProof {self.key}: {', '.join(f'{c.name} {_how(c)}' for c in self.counted)}>"


def _seal(
    key: Key,
    copies: Copies,
    counted: tuple[VerifiedCopy, ...],
    not_counted: Mapping[str, str],
    deadline: Deadline | None,
) -> DropProof:
    proof = object.__new__(DropProof)
    put = object.__setattr__
    put(proof, "key", key)
    put(proof, "copies", copies)
    put(proof, "counted", counted)
    put(proof, "not_counted", not_counted)
    put(proof, "deadline", deadline)
    put(proof, "verifiable", is_verifiable(key))
    return proof


def safe_drop(
    key: Key,
    copies: Copies,
    verified: Iterable[VerifiedCopy],
    *,
    dropped_from: Collection[UUID],
    trust: Mapping[UUID, TrustLevel],
    now: float,
    missing: Mapping[str, str] | None = None,
) -> DropProof:
    """A proof that *key* may be dropped, from what is known at *now*.

    Args:
        key: What is to be dropped.
        copies: How many must stay.
        verified: What was locked, looked at, or is trusted. Anything may stand here: what does not
            count is left out by name.
        dropped_from: Every repository that would lose the content (the nodes, for a cluster).
        trust: Trust levels; semitrusted where silent.
        now: ``Clock.now()``.
        missing: Place → why it could not be verified; for the refusal only.

    Raises:
        NotEnoughCopies: It names each copy that counted and each that did not.
    """
    not_counted = dict(missing or {})
    best: dict[UUID, VerifiedCopy] = {}
    for copy in verified:
        why = not_a_copy(copy.uuid, dropped_from, trust) or _over(copy, trust, now)
        known = best.get(copy.uuid)
        if why is not None:
            not_counted.setdefault(copy.name, why)
        elif known is None or _strength(known) < _strength(copy):
            best[copy.uuid] = copy
        if why is None and known is not None and known.name != copy.name:
            other = best[copy.uuid]
            second = known if other is copy else copy
            not_counted.setdefault(second.name, f"the same repository as {other.name}")
    counted = tuple(best.values())
    if len(counted) < copies.needed:
        raise NotEnoughCopies(key, len(counted), copies.needed, counted=_counted(counted), missing=not_counted)
    sure = [copy for copy in counted if not isinstance(copy, CheckedCopy)]
    if len(sure) < copies.min:
        for copy in counted:
            if isinstance(copy, CheckedCopy):
                not_counted[copy.name] = f"present but not locked, and mincopies asks for {copies.min} locked"
        raise NotEnoughCopies(key, len(sure), copies.min, counted=_counted(sure), missing=not_counted)
    ends = [copy.expires for copy in counted if isinstance(copy, HeldCopy)]
    return _seal(key, copies, counted, not_counted, Deadline(min(ends)) if ends else None)


def _counted(copies: Iterable[VerifiedCopy]) -> dict[str, str]:
    return {copy.name: _how(copy) for copy in copies}
