"""Which nodes of a cluster a key goes to: chosen as a set, so that nobody gets a copy that nobody asked for.

Each node is asked in turn whether it wants the key, as if the nodes chosen before it had it already. Asked
side by side, four repositories of the group ``archive`` would all take the key, each because no archive has
it yet; asked in turn, the first takes it and the other three are content. Whoever would give it up again because
of those chosen after it (a ``transfer`` repository, once the clients have it) does not get it in the first place.

The order of the candidates is the caller's, and with it every choice: the same candidates in the same order
give the same answer. Whoever wants the load spread hands them in another order for each key.

Source: fact sheet users, table of the seed document ("Upload only to nodes that prefer it");
p2p-protocol, section 0 G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from annexpy.uuids import UUID

__all__ = ["Candidate", "Choice", "Unwanted", "Wants", "choose"]

Wants: TypeAlias = Callable[[UUID, frozenset[UUID]], bool]
"""Does this repository want the key, if those have it?"""


class Unwanted(Enum):
    """What to do with a key that no node wants and none has."""

    ALL = "all"  # every node gets it, as git-annex does
    ONE = "one"  # one node gets it
    REFUSE = "refuse"  # it is not stored


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that could take the key.

    Attributes:
        uuid: Which.
        free: Bytes that it can still take, or None when nothing is known. Nothing left means that it is full.
    """

    uuid: UUID
    free: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a key goes.

    Attributes:
        nodes: Who is to get it, in the order they were chosen. Nobody who has it is among them.
        spare: Who may take it when one of *nodes* refuses, best first: those that want it if none of *nodes*
            takes it, then, unless that is forbidden, those that nobody asked. For a substitute that is exact
            call ``choose`` again (see there).
        wanted: False when no node wants it, so that *nodes* comes from ``Unwanted``.
    """

    nodes: tuple[UUID, ...]
    spare: tuple[UUID, ...] = ()
    wanted: bool = True


def choose(
    candidates: Sequence[Candidate],
    wants: Wants,
    *,
    holders: frozenset[UUID],
    unwanted: Unwanted = Unwanted.ALL,
    size: int | None = None,
    refused: frozenset[UUID] = frozenset(),
) -> Choice:
    """The nodes that a key goes to, and who stands in for one that refuses.

    After a refusal, call it again with whoever refused in *refused* and everybody who took the key or is
    still taking it in *holders*: ``nodes`` are then those that it goes to instead. They are none where the
    one that refused was a node too many anyway.

    Args:
        candidates: In the order of preference; a UUID that stands there twice counts once.
        wants: Called with a candidate and everybody else who has the key by then: *holders* and nodes chosen. It
            must not depend on when it is called.
        holders: Who has the key already, node or not. They are never chosen.
        unwanted: What to do when no node wants the key and none has it.
        size: Bytes of the key; None: unknown, so that only a node with nothing left is full.
        refused: Who was asked already and did not take it.

    A node that wants the key and is full, or refused, is passed over. When that leaves nobody, the key goes
    to one other node, wanted there or not: a copy in the wrong place is better than none. Under
    ``Unwanted.REFUSE`` it goes to a full node that wants it instead, which may have more room than is known.
    """
    possible = {candidate.uuid: candidate for candidate in candidates if candidate.uuid not in holders}
    asked = [uuid for uuid in possible if uuid not in refused]
    roomy = [uuid for uuid in asked if _fits(possible[uuid], size)]
    full = [uuid for uuid in asked if uuid not in roomy]
    chosen = _settled(roomy, wants, holders)
    if chosen:
        left = [uuid for uuid in roomy if uuid not in chosen]
        eager = [uuid for uuid in left if wants(uuid, holders)]
        others = [uuid for uuid in left if uuid not in eager] if unwanted is not Unwanted.REFUSE else []
        return Choice(tuple(chosen), (*eager, *others))
    if any(candidate.uuid in holders for candidate in candidates):
        return Choice(())
    eager = [uuid for uuid in full if wants(uuid, holders)]
    others = [*roomy, *eager, *(uuid for uuid in full if uuid not in eager)]
    if eager or refused:
        others = eager if unwanted is Unwanted.REFUSE else others
        return Choice(tuple(others[:1]), tuple(others[1:]))
    match unwanted:
        case Unwanted.ALL:
            return Choice(tuple(roomy or full), tuple(full if roomy else ()), wanted=False)
        case Unwanted.ONE:
            return Choice(tuple(others[:1]), tuple(others[1:]), wanted=False)
        case Unwanted.REFUSE:
            return Choice((), wanted=False)
        case _:
            assert_never(unwanted)


def _settled(candidates: Sequence[UUID], wants: Wants, holders: frozenset[UUID]) -> list[UUID]:
    """Those of *candidates* that want the key and go on wanting it once all of them have it.

    Whoever was chosen early and would give it up again for what was chosen after it is left out, for good.
    """
    having, chosen, left_out = holders, list[UUID](), set[UUID]()
    while True:
        for uuid in candidates:
            if uuid not in having and uuid not in left_out and wants(uuid, having):
                chosen.append(uuid)
                having |= {uuid}
        # the last one has seen all others
        fickle = next((uuid for uuid in chosen[:-1] if not wants(uuid, having - {uuid})), None)
        if fickle is None:
            return chosen
        chosen.remove(fickle)
        left_out.add(fickle)
        having -= {fickle}


def _fits(candidate: Candidate, size: int | None) -> bool:
    return candidate.free is None or candidate.free >= max(1, size or 1)
