"""Explain: why a key may or may not be dropped, with the proof in full.

Other repositories are really asked, and lock the content for a moment. Nothing is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from annexpy.actions.drop import examine
from annexpy.actions.facts import Facts
from annexpy.actions.results import DropResult
from annexpy.actions.whereis import Whereis, whereis
from annexpy.clock import Clock
from annexpy.errors import NotEnoughCopies
from annexpy.keys.key import Key
from annexpy.policy.numcopies import CheckedCopy, Copies, HeldCopy, TrustedCopy
from annexpy.remote.base import Remote
from annexpy.system import CLOCK
from annexpy.uuids import UUID

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that decides about one copy of one key.

    Attributes:
        key: Which.
        place: The repository that the copy would be dropped from, as the user knows it.
        where: Who has it, according to the location log; None without a repository to ask.
        copies: How many must stay, and who says so.
        result: What a drop would have decided: its proof, or the refusal.
        now: ``Clock.now()`` when it was decided, for the margins.
    """

    key: Key
    place: str
    where: Whereis | None
    copies: Copies
    result: DropResult
    now: float

    @property
    def allowed(self) -> bool:
        """The copy could be dropped."""
        return self.result.ok

    def lines(self) -> list[str]:
        """The explanation for people, a sentence a line."""
        said = [f"{self.key} in {self.place}"]
        if self.where is not None:
            said += [f"recorded: {location}" for location in (*self.where.locations, *self.where.untrusted)]
        said.append(f"must stay: {self.copies}")
        proof, error = self.result.proof, self.result.error
        if proof is not None:
            for copy in proof.counted:
                match copy:
                    case HeldCopy(expires=expires):
                        said.append(f"counted: {copy.name}, locked for {expires - self.now:.0f} more s")
                    case CheckedCopy(at=at):
                        said.append(f"counted: {copy.name}, seen {self.now - at:.0f} s ago, for numcopies only")
                    case TrustedCopy():
                        said.append(f"counted: {copy.name}, trusted, nobody looked")
            said += [f"not counted: {place} ({why})" for place, why in proof.not_counted.items()]
            if not proof.verifiable:
                said.append("no hash says what the content must be, so a copy that is present may still be wrong")
            deadline = proof.deadline
            left = "no lock limits it" if deadline is None else f"within {deadline.at - self.now:.0f} s"
            said.append(f"may be dropped, {left}")
        elif isinstance(error, NotEnoughCopies):
            said += [f"counted: {place}, {how}" for place, how in error.counted.items()]
            said += [f"not counted: {place} ({why})" for place, why in error.missing.items()]
            said.append(f"may not be dropped: {error.have} of {error.need} needed")
        else:
            said.append(f"may not be dropped: {error}")
        return said


async def explain(
    key: Key,
    *,
    from_: Remote,
    others: Sequence[Remote],
    copies: Copies | None = None,
    facts: Facts | None = None,
    nodes: Mapping[UUID, Collection[UUID]] | None = None,
    clock: Clock = CLOCK,
) -> Explanation:
    """Decide about a drop of *key* from *from_* without dropping anything.

    Args:
        key: Which.
        from_: Where the copy is.
        others: Where other copies may be.
        copies: How many must stay; what *facts* say, or one, when None.
        facts: What a repository knows: locations, trust, clusters, numcopies.
        nodes: Cluster → its nodes, where there are no *facts*.
        clock: Time for locks.
    """
    needed = copies or (Copies() if facts is None else facts.copies(key))
    result = await examine(
        key,
        from_=from_,
        others=others,
        copies=needed,
        trust=None if facts is None else facts.trust,
        recorded=None if facts is None else facts.recorded(key),
        nodes=nodes if facts is None else facts.clusters,
        clock=clock,
    )
    where = None if facts is None else whereis(facts, key)
    return Explanation(key, from_.name, where, needed, result, clock.now())
