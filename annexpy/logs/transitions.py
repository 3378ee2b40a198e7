"""transitions.log: what was done to the git-annex branch as a whole.

Branches whose transitions differ may not be merged line by line: after ``git annex forget`` the one without
it would bring back what was forgotten. annexpy refuses such a merge and leaves it to git-annex.

Source: fact sheet repository-format, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from annexpy.logs.line import VectorClock, format_clock, log_lines, parse_clock
from annexpy.logs.uuidbased import raw, text

__all__ = ["FORGET_DEAD_REMOTES", "FORGET_GIT_HISTORY", "Transition", "compact_transitions", "parse_transitions"]

FORGET_GIT_HISTORY: Final = "ForgetGitHistory"
FORGET_DEAD_REMOTES: Final = "ForgetDeadRemotes"


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition.

    Attributes:
        name: As in the log; a whole line that could not be read, where the clock is None.
        clock: When.
    """

    name: str
    clock: VectorClock | None


def parse_transitions(content: bytes) -> frozenset[Transition]:
    """Every transition of the log. Two branches may be merged when these are the same.

    A line that cannot be read is kept as a transition of its own: it must not look like none. git-annex stops
    at it.
    """
    found = set()
    for line in log_lines(content):
        name, _, tail = line.partition(b" ")
        clock = parse_clock(tail)
        found.add(Transition(text(line if clock is None else name), clock))
    return frozenset(found)


def compact_transitions(content: bytes) -> bytes:
    """*content* as git-annex writes it: each transition once, by clock."""
    lines = []
    for transition in sorted(parse_transitions(content), key=_order):
        name = raw(transition.name)
        lines.append(name if transition.clock is None else name + b" " + format_clock(transition.clock))
    return b"".join([line + b"\n" for line in lines])


def _order(transition: Transition) -> tuple[object, ...]:
    known = transition.name != FORGET_GIT_HISTORY
    return transition.clock is not None, transition.clock or 0, known, raw(transition.name)
