"""What is not as it should be with an object, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import annexpy as annex
from glimmer_store.errors import AGAIN, StoreError, shell_line
from glimmer_store.nodes import Unreadable
from glimmer_store.status import Cell, Matter, ObjectStatus, Place, State, Tier

__all__ = ["in_words", "matters", "more_copies", "of_unreadable", "remedy_of"]


def remedy_of(error: annex.AnnexError, root: str | Path = ".") -> str:
    """What to do about *error*, met in the dataset *root*: its own remedy, or what is usual for errors of its kind."""
    match error:
        case StoreError():
            return error.remedy
        case annex.LockHeld():
            return f"wait for {error.holder}, then run the same command again: it completes what waits"
        case annex.NotARepository():
            return shell_line("glimmer-store", "init", error.path)
        case annex.NotEnoughCopies() | annex.KeyNotPresent() | annex.VerificationFailed():
            return shell_line("glimmer-store", "verify", "--repair", "--all", "-C", Path(root).resolve())
        case annex.NoSpace():
            return "make room there, then run the same command again: it completes what is missing"
        case annex.AuthFailed() | annex.AccessDenied():
            return "ask whoever runs that place to let you in, or take another credential"
        case annex.BranchConflict():
            return "annexpy sync, then run the same command again"
        case annex.UnknownUUID():
            return "another repository is there now than the one that was set up: bring that one back"
        case annex.TransportError():
            return AGAIN
        case annex.InvalidInput():
            return f"give what is allowed as {error.field}"
    return "run the same command again" if error.retryable else StoreError.usual


def in_words(error: annex.AnnexError, root: str | Path = ".") -> str:
    """What went wrong, and what to do about it, where there is one line for both."""
    return f"{error}; remedy: {remedy_of(error, root)}"


def matters(entry: ObjectStatus, places: Sequence[Place], root: Path) -> tuple[Matter, ...]:
    """Everything that is the matter with *entry*, what is at stake first. *places* are those of its cells."""
    return tuple(_matters(entry, places, root))


def of_unreadable(one: Unreadable, root: Path) -> Matter:
    """A node that cannot be read: nobody can say how many copies it has."""
    command = shell_line("glimmer-store", "validate", root)
    return Matter("graph", str(one.file), f"cannot be read: {one.reason}", command)


def _matters(entry: ObjectStatus, places: Sequence[Place], root: Path) -> Iterator[Matter]:
    subject = entry.node.id
    if entry.state is State.AT_RISK:
        said = f"{len(entry.live)} of {entry.needed} copies are there"
        if entry.node.record is None:
            said = "never archived" if entry.node.key is None else "has a key and no storage fields"
        elif entry.drift:
            said = f"{said}; {'; '.join(entry.drift)}"
        yield Matter("copies", subject, said, more_copies(entry, places, root))
    elif entry.state is State.UNREACHABLE:
        names = ", ".join(entry.unreachable)
        said = f"{len(entry.live)} of {entry.needed} copies are there; {names} cannot be asked"
        yield Matter("unreachable", subject, said, shell_line("glimmer-store", "explain", "-C", root, subject))
    if entry.drift and entry.node.record is not None and entry.state is not State.AT_RISK:
        yield Matter("drift", subject, "; ".join(entry.drift), _verify(entry, root, "--repair"))
    if entry.node.key is not None and entry.unverified and entry.live:
        names = ", ".join(entry.unproven)
        said = f"no fresh proof of the copy at {names}" if names else "the node does not say that its copies are proven"
        yield Matter("unverified", subject, said, _verify(entry, root))
    if entry.node.record is not None and entry.node.numcopies_required < entry.needed:
        said = f"asks for {entry.node.numcopies_required} copies, its class for {entry.needed}"
        yield Matter("policy", subject, said, _emit(entry, root))


def more_copies(entry: ObjectStatus, places: Sequence[Place], root: Path) -> str:
    """From a place that has it to the others; from the work tree where no place has it; empty where nobody does."""
    durable = [(place, cell) for place, cell in zip(places, entry.cells, strict=True) if place.tier is Tier.BARE]
    if len(durable) < entry.needed:
        return shell_line("glimmer-store", "init", root)  # asks which
    if entry.node.record is not None and any(cell in (Cell.PROVEN, Cell.THERE) for _, cell in durable):
        return _verify(entry, root, "--repair")
    there = entry.node.output is not None and (root / entry.node.output).exists()
    return _emit(entry, root) if there else ""


def _verify(entry: ObjectStatus, root: Path, *options: str) -> str:
    return shell_line("glimmer-store", "verify", *options, "-C", root, entry.node.id)


def _emit(entry: ObjectStatus, root: Path) -> str:
    return shell_line("glimmer-store", "emit", "-C", root, root / entry.node.file)
