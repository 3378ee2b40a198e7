"""What is not as it should be with an object, each with the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from glimmer_store.status import Cell, Matter, ObjectStatus, Place, State, Tier

__all__ = ["matters", "shell_line"]


def shell_line(*words: object) -> str:
    """*words* as a line that a shell takes apart into them again."""
    return shlex.join(str(word) for word in words)


def matters(entry: ObjectStatus, places: Sequence[Place], root: Path) -> tuple[Matter, ...]:
    """Everything that is the matter with *entry*, what is at stake first. *places* are those of its cells."""
    return tuple(_matters(entry, places, root))


def _matters(entry: ObjectStatus, places: Sequence[Place], root: Path) -> Iterator[Matter]:
    subject = entry.node.id
    if entry.state is State.AT_RISK:
        said = f"{len(entry.live)} of {entry.needed} copies are there"
        if entry.node.record is None:
            said = "never archived" if entry.node.key is None else "has a key and no storage fields"
        elif entry.drift:
            said = f"{said}; {'; '.join(entry.drift)}"
        yield Matter("copies", subject, said, _more_copies(entry, places, root))
    elif entry.state is State.UNREACHABLE:
        names = ", ".join(entry.unreachable)
        said = f"{len(entry.live)} of {entry.needed} copies are there; {names} cannot be asked"
        yield Matter("unreachable", subject, said, shell_line("glimmer-store", "explain", "-C", root, subject))
    if entry.drift and entry.node.record is not None and entry.state is not State.AT_RISK:
        yield Matter("drift", subject, "; ".join(entry.drift), _record_again(entry, places, root))
    if entry.node.key is not None and entry.unverified and entry.live:
        names = ", ".join(entry.unproven)
        said = f"no fresh proof of the copy at {names}" if names else "the node does not say that its copies are proven"
        yield Matter("unverified", subject, said, shell_line("glimmer-store", "verify", "-C", root, subject))
    if entry.node.record is not None and entry.node.numcopies_required < entry.needed:
        said = f"asks for {entry.node.numcopies_required} copies, its class for {entry.needed}"
        yield Matter("policy", subject, said, _archive(entry, root))


def _more_copies(entry: ObjectStatus, places: Sequence[Place], root: Path) -> str:
    """From a place that has it to as many as are missing; from the work tree where no place has it."""
    durable = [(p, cell) for p, cell in zip(places, entry.cells, strict=True) if p.tier is Tier.BARE]
    sources = [p for p, cell in zip(places, entry.cells, strict=True) if cell in (Cell.PROVEN, Cell.THERE)]
    lacking = [p for p, cell in durable if cell is Cell.LOST] + [p for p, cell in durable if cell is Cell.MISSING]
    short = entry.needed - len(entry.live)
    if entry.node.record is None or entry.node.key is None or not sources:
        there = entry.node.output is not None and (root / entry.node.output).is_file()
        return _archive(entry, root) if there else ""
    if len(lacking) < short:
        return shell_line("glimmer-store", "init", root, "--durable") + " PATH"
    taken = [shell_line("annexpy", "-C", root, "copy", sources[0].url, p.url, entry.node.key) for p in lacking[:short]]
    return " && ".join(taken)


def _record_again(entry: ObjectStatus, places: Sequence[Place], root: Path) -> str:
    """Put back what was lost when others still have it; else let the node say what is there."""
    lost = [p for p, cell in zip(places, entry.cells, strict=True) if cell is Cell.LOST]
    source = next((p for p in places if p.name in entry.live), None)
    if lost and source is not None:
        copies = [shell_line("annexpy", "-C", root, "copy", source.url, p.url, entry.node.key) for p in lost]
        return " && ".join(copies)
    return _archive(entry, root)


def _archive(entry: ObjectStatus, root: Path) -> str:
    if entry.node.output is None:
        return ""
    kind = [] if entry.node.type != "dataset" else ["--type", "dataset"]
    where = ["--class", entry.storage_class.value, "-C", root, root / entry.node.output]
    return shell_line("glimmer-store", "archive", *kind, *where)
