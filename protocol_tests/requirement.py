"""What a requirement is, and the list of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from protocol_tests.need import NEWEST, Need, Role
from protocol_tests.trial import Trial

__all__ = ["Check", "Requirement", "requirement"]

Check: TypeAlias = Callable[[Trial], None]
"""Tries one requirement; raises when it is not met."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One sentence that an implementation must make true, and the check of it.

    Attributes:
        id: Its number, for ever.
        text: The sentence.
        document: What it rests on: a section of git-annex's documentation, or ``measured:`` and a recording.
        check: Tries it.
        since: The first version in which it holds.
        until: The last.
        once: It is the same in all versions, and is tried in the highest only.
        needs: What the subject must have.
        roles: In which it is tried.
    """

    id: str
    text: str
    document: str
    check: Check
    since: int = 0
    until: int = NEWEST
    once: bool = False
    needs: frozenset[Need] = frozenset((Need.LINES,))
    roles: frozenset[Role] = frozenset((Role.WRITE,))

    @property
    def theme(self) -> str:
        """The module that it stands in."""
        return self.check.__module__.rpartition(".")[2].replace("_", " ")

    def versions(self, asked: Iterable[int]) -> list[int]:
        """Those of *asked* in which it is to be tried."""
        fitting = [version for version in sorted(asked) if self.since <= version <= self.until]
        return fitting[-1:] if self.once else fitting


def requirement(
    number: str,
    text: str,
    document: str,
    *,
    since: int = 0,
    until: int = NEWEST,
    once: bool = False,
    needs: tuple[Need, ...] = (Need.LINES, Need.REPOSITORY),
    roles: Iterable[Role] = (Role.WRITE,),
) -> Callable[[Check], Requirement]:
    """Make the function below it the check of a requirement."""

    def make(check: Check) -> Requirement:
        return Requirement(number, text, document, check, since, until, once, frozenset(needs), frozenset(roles))

    return make
