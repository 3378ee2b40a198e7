"""One expression, one key, one file: what ``git annex matchexpression`` answers.

It differs from what a repository wants: ``standard``, ``groupwanted`` and an empty expression are true, whatever the
groups of the repository; attributes of the file do not count; and a test whose fact was not told ends it, though
only where the test is come to.

Source: git-annex-matchexpression(1); the details are measured.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from annexpy.policy.expression import Expression
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.matcher import Question, answer, matches
from annexpy.policy.terms import Flag, InAllGroup, Include, OnlyInGroup, Size, Test
from annexpy.policy.wanted import is_stable
from annexpy.uuids import UUID

__all__ = ["Lacking", "match_expression"]


class Lacking(Enum):
    """What would have to be told for an answer."""

    KEY = "key"
    FILE = "file"
    SIZE = "size"


class _NotTold(Exception):
    def __init__(self, lacking: Lacking) -> None:
        self.lacking = lacking
        super().__init__(lacking)


def match_expression(
    expression: Expression,
    facts: KeyFacts,
    repositories: Repositories,
    here: UUID,
    *,
    without_key: bool = False,
) -> bool | Lacking:
    """Whether *expression* matches, asked in *here*.

    Args:
        expression: Which.
        facts: Of the key; a file that is None was not told.
        repositories: All there are.
        here: Where it is asked.
        without_key: The key in *facts* was not told; only its size counts, if it has one.
    """
    having = repositories.copies(facts.holders)
    question = Question(here, replace(facts, numcopies=None), repositories, having, having)

    def holds(test: Test) -> bool:
        match test:
            case Flag.STANDARD | Flag.GROUPWANTED:
                return True
            case Flag.ANYTHING | Flag.NOTHING:
                pass
            case Include() | Flag.IN_PREFERRED_DIR if facts.file is None:
                raise _NotTold(Lacking.FILE)
            case Size() if facts.key.size is None:
                raise _NotTold(Lacking.SIZE)
            case Include() | Flag.IN_PREFERRED_DIR | Size():
                pass
            case InAllGroup(group=group) | OnlyInGroup(group=group) if not repositories.members(group):
                pass
            case _ if without_key:
                raise _NotTold(Lacking.KEY)
        return answer(question, test)

    try:
        return matches(expression.root, holds) and is_stable(expression.root)
    except _NotTold as error:
        return error.lacking
