"""Does this expression match? Tests applied to facts.

Nothing here reads anything, and the same facts give the same answer.

Source: fact sheet repository-format, section 6; vectors preferred_content.json and balanced.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from annexpy.keys.backend import is_secure
from annexpy.logs.uuidbased import raw, text
from annexpy.patterns import regex
from annexpy.policy.balanced import has_room, pick, roomiest
from annexpy.policy.expression import Chain, Node, Not, Term
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.globs import compile_glob
from annexpy.policy.terms import (
    Balanced,
    Copies,
    Flag,
    InAllGroup,
    InBackend,
    Include,
    LackingCopies,
    MetadataCompared,
    MetadataMatches,
    OnlyInGroup,
    Size,
    Test,
    Url,
)
from annexpy.policy.trust import TrustLevel
from annexpy.uuids import UUID

__all__ = ["Question", "answer", "matches"]

_PUBLIC: Final = "public"
_RISING: Final = (TrustLevel.DEAD, TrustLevel.UNTRUSTED, TrustLevel.SEMITRUSTED, TrustLevel.TRUSTED)
_NUMBER: Final = regex(r"\s*-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\s*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Question:
    """What an expression is asked.

    Attributes:
        uuid: The repository whose expression it is.
        facts: Of the key.
        repositories: All there are.
        holders: Who has the key: living repositories, no clusters (``Repositories.copies``).
        copies: Who is to be counted as having it: the same, or without *uuid*, to see what would be if it
            had given the content up.
    """

    uuid: UUID
    facts: KeyFacts
    repositories: Repositories
    holders: frozenset[UUID]
    copies: frozenset[UUID]

    @property
    def numcopies(self) -> int:
        """For the file."""
        number = self.facts.numcopies
        return self.approximate_numcopies if number is None else number

    @property
    def approximate_numcopies(self) -> int:
        """Of the log alone."""
        return self.repositories.numcopies or 1


def matches(node: Node, holds: Callable[[Test], bool]) -> bool:
    """True when *node* matches. No more tests are asked than it takes, from left to right."""
    match node:
        case Term(test=test):
            return holds(test)
        case Not(node=inner):
            return not matches(inner, holds)
        case Chain(steps=steps):
            value = True
            for step in steps:
                if value is not step.either:
                    value = matches(step.node, holds)
            return value
        case _:
            assert_never(node)


def answer(question: Question, test: Test) -> bool:
    """Whether *test* holds. What is left of ``standard`` and ``groupwanted`` is ``present``."""
    facts, repositories = question.facts, question.repositories
    match test:
        case Flag():
            return _flag(test, question)
        case Include(glob=glob, exclude=exclude):
            return facts.file is not None and compile_glob(glob).matches(text(facts.file)) is not exclude
        case Size(size=size, smaller=smaller):
            known = facts.key.size
            return smaller if known is None else known < size if smaller else known > size
        case Copies():
            return _copies(test, question)
        case LackingCopies(number=number, approximate=approximate):
            needed = question.approximate_numcopies if approximate else question.numcopies
            return needed - len(repositories.trustworthy(question.copies)) >= number
        case InBackend(backend=backend):
            return facts.key.backend == raw(backend)
        case InAllGroup(group=group):
            return repositories.members(group) <= question.copies
        case OnlyInGroup(group=group):
            return bool(question.copies) and question.copies <= repositories.members(group)
        case Url(glob=glob):
            return any(compile_glob(glob).matches(url) for url in facts.urls)
        case MetadataMatches(field=name, glob=glob):
            compiled = compile_glob(glob, ignore_case=True)
            return any(compiled.matches(value) for value in facts.metadata.get(name, ()))
        case MetadataCompared(field=name, operator=operator, value=right):
            return any(_compare(left, operator, right) for left in facts.metadata.get(name, ()))
        case Balanced():
            return _balanced(test, question)
        case _:
            assert_never(test)


def _flag(flag: Flag, question: Question) -> bool:
    facts = question.facts
    match flag:
        case Flag.ANYTHING:
            return True
        case Flag.NOTHING:
            return False
        case Flag.PRESENT | Flag.STANDARD | Flag.GROUPWANTED:
            return question.uuid in question.holders
        case Flag.IN_PREFERRED_DIR:
            name = raw(question.repositories.preferred_dirs.get(question.uuid, _PUBLIC))
            return facts.file is not None and name in facts.file.split(b"/")[:-1]
        case Flag.UNUSED:
            return facts.file is None and facts.unused
        case Flag.SECURE_HASH:
            return is_secure(facts.key, facts.equivalent)
        case _:
            assert_never(flag)


def _copies(test: Copies, question: Question) -> bool:
    repositories = question.repositories
    having = list(question.copies)
    if test.group is not None:
        having = [uuid for uuid in having if test.group in repositories.groups.get(uuid, ())]
    elif test.trust is not None:
        levels = _RISING[_RISING.index(test.trust) :] if test.or_more else (test.trust,)
        having = [uuid for uuid in having if repositories.level(uuid) in levels]
    return len(having) >= test.number


def _compare(left: str, operator: str, right: str) -> bool:
    one: float | bytes
    other: float | bytes
    if _NUMBER.match(left) and _NUMBER.match(right):
        one, other = float(left), float(right)
    else:
        one, other = raw(left), raw(right)
    # mypy knows of no order between the two kinds, and there is never one of each
    less, equal = one < other, one == other  # type: ignore[operator]
    match operator:
        case "<":
            return less
        case "<=":
            return less or equal
        case ">":
            return not less and not equal
        case _:
            return not less


def _balanced(test: Balanced, question: Question) -> bool:
    repositories, key = question.repositories, question.facts.key
    members = repositories.members(test.group)
    number = test.number
    if number is None:
        number = question.numcopies - len(repositories.trustworthy(question.copies - members))
    if not test.full and not repositories.rebalance:
        if question.uuid in question.holders:
            return True
        if test.number is None:
            if question.numcopies - len(repositories.trustworthy(question.copies)) < 1:
                return False
        elif len(members & question.copies) >= number:
            return False
    if question.uuid not in members:
        return False
    sizes, maxsizes, holders = repositories.sizes, repositories.maxsizes, question.holders
    candidates = [uuid for uuid in members if has_room(uuid, key, uuid in holders, sizes, maxsizes)]
    if test.by_size:
        candidates = roomiest(candidates, key, holders, number, sizes, maxsizes)
    return question.uuid in pick(members, candidates, key, number)
