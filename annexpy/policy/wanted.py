"""Preferred and required content: does a repository want a key, would it let it go, must it keep it?

``Policy`` binds the expression of each repository once, with ``standard`` and ``groupwanted`` put in, and then
answers for any number of keys. An expression that cannot be read means ``present``, as in git-annex: the
repository keeps what it has and asks for nothing. One that is not stable, so that it would get a content because
it is not there and then drop it because it is (``not present``), matches nothing.

Source: fact sheet repository-format, section 6; git-annex-preferred-content(1).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag as Flags
from enum import auto
from functools import partial
from typing import Final

from annexpy.errors import InvalidExpression
from annexpy.policy.expression import Chain, Node, Not, Step, Term, all_tests, parse
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.groups import STANDARD_GROUPS
from annexpy.policy.matcher import Question, answer, matches
from annexpy.policy.terms import (
    Balanced,
    Flag,
    LackingCopies,
    MetadataCompared,
    MetadataMatches,
    Test,
    Url,
)
from annexpy.uuids import UUID

__all__ = ["Needs", "Policy", "is_stable", "needs_of"]

_PRESENT: Final = Term("present", Flag.PRESENT)
_NOTHING: Final = Term("nothing", Flag.NOTHING)
_BOTH: Final = frozenset((Flag.STANDARD, Flag.GROUPWANTED))


class Needs(Flags):
    """Facts that cost something to gather."""

    METADATA = auto()
    URLS = auto()
    NUMCOPIES = auto()  # of the file; that of the log is known anyway
    UNUSED = auto()
    SIZES = auto()  # what each repository holds
    EQUIVALENT = auto()  # only of VURL keys


_NONE: Final = Needs(0)


class Policy:
    """What each repository wants.

    Attributes:
        repositories: What it goes by.
    """

    def __init__(self, repositories: Repositories) -> None:
        self.repositories = repositories
        self._preferred: dict[UUID, Node | None] = {}
        self._required: dict[UUID, Node | None] = {}

    def configured(self, uuid: UUID) -> bool:
        """Whether anything was said about what *uuid* wants."""
        return self._wanted(uuid) is not None

    def wants(
        self,
        uuid: UUID,
        facts: KeyFacts,
        *,
        holders: frozenset[UUID] | None = None,
        default: bool = True,
    ) -> bool:
        """Would *uuid* want to get the key, or to keep it where it has it?

        Args:
            uuid: Which repository.
            facts: Of the key.
            holders: Instead of those in *facts*; for "as if these had it".
            default: The answer where nothing was said, as also by ``()``. git-annex's ``sync`` wants everything
                then, its ``find --want-get`` nothing.
        """
        node = self._wanted(uuid)
        having = self.repositories.copies(facts.holders if holders is None else holders)
        return default if node is None else _asked(node, Question(uuid, facts, self.repositories, having, having))

    def wants_drop(self, uuid: UUID, facts: KeyFacts, *, default: bool = True) -> bool:
        """Would *uuid* rather not have the key? Asked as if it had dropped it already.

        Not the opposite of ``wants``: what wants two copies lets the third go, and keeps the second. Nor does it
        say that it may drop it (``numcopies.safe_drop``). Where nothing was said, the opposite of *default*.
        """
        node = self._wanted(uuid)
        return not default if node is None else not _asked(node, self._without(uuid, facts))

    def requires(self, uuid: UUID, facts: KeyFacts) -> bool:
        """Must *uuid* keep the key? A drop has to be refused then. False where nothing was said."""
        node = self._required_node(uuid)
        return node is not None and _asked(node, self._without(uuid, facts))

    def needs(self, uuids: Iterable[UUID]) -> Needs:
        """Which facts the answers for *uuids* depend on."""
        nodes = [node for uuid in uuids if (node := self._wanted(uuid)) is not None]
        return needs_of(Chain(tuple([Step(False, node) for node in nodes])))

    def _without(self, uuid: UUID, facts: KeyFacts) -> Question:
        having = self.repositories.copies(facts.holders)
        return Question(uuid, facts, self.repositories, having, having - {uuid})

    # -- expressions --

    def _wanted(self, uuid: UUID) -> Node | None:
        if uuid not in self._preferred:
            preferred, required = self.repositories.preferred, self.repositories.required
            # what is required is wanted
            self._preferred[uuid] = self._bound(uuid, preferred.get(uuid, ""), required.get(uuid, ""))
        return self._preferred[uuid]

    def _required_node(self, uuid: UUID) -> Node | None:
        if uuid not in self._required:
            self._required[uuid] = self._bound(uuid, self.repositories.required.get(uuid, ""))
        return self._required[uuid]

    def _bound(self, uuid: UUID, *texts: str) -> Node | None:
        """What *texts*, or-ed, mean for *uuid*; None when they say nothing. One that cannot be read spoils all."""
        try:
            roots = [root for text in texts if (root := parse(text).root) != Chain()]
            said = [self._put_in(uuid, root, _BOTH, negated=False) for root in roots]
        except InvalidExpression:
            return _PRESENT
        if not said:
            return None
        node = Chain(tuple([Step(n > 0, node) for n, node in enumerate(said)]))
        return node if is_stable(node) else _NOTHING

    def _put_in(self, uuid: UUID, node: Node, may: frozenset[Flag], *, negated: bool) -> Node:
        """*node*, with those of *may* put in that lead somewhere. What leads in a circle is ``present``."""
        match node:
            case Term(test=Flag.STANDARD | Flag.GROUPWANTED as flag):
                known = STANDARD_GROUPS if flag is Flag.STANDARD else self.repositories.groupwanted
                found = [text for group in self.repositories.groups.get(uuid, ()) if (text := known.get(group))]
                if flag not in may or len(found) != 1:
                    return _PRESENT
                inner = self._put_in(uuid, parse(found[0]).root, may - {flag}, negated=negated)
                # git-annex does not look how often such a test is negated in there
                return _PRESENT if negated and any(map(_varies, all_tests(inner))) else inner
            case Term():
                return node
            case Not(node=inner):
                return Not(self._put_in(uuid, inner, may, negated=not negated))
            case Chain(steps=steps):
                put_in = [Step(step.either, self._put_in(uuid, step.node, may, negated=negated)) for step in steps]
                return Chain(tuple(put_in))


def _asked(node: Node, question: Question) -> bool:
    return matches(node, partial(answer, question))


def is_stable(node: Node, *, negated: bool = False) -> bool:
    """False for an expression that would get a content for not being there, and then drop it for being there."""
    match node:
        case Term(test=test):
            return not (negated and _varies(test))
        case Not(node=inner):
            return is_stable(inner, negated=not negated)
        case Chain(steps=steps):
            return all(is_stable(step.node, negated=negated) for step in steps)


def _varies(test: Test) -> bool:
    """The answer depends on whether the repository has the content."""
    return test is Flag.PRESENT or (isinstance(test, Balanced) and not test.full)


def needs_of(node: Node) -> Needs:
    """Which facts the answer of *node* depends on."""
    needed = _NONE
    for test in all_tests(node):
        needed |= _needs(test)
    return needed


def _needs(test: Test) -> Needs:
    match test:
        case LackingCopies(approximate=False):
            return Needs.NUMCOPIES
        case Balanced(number=None):
            return Needs.NUMCOPIES | Needs.SIZES
        case Balanced():
            return Needs.SIZES
        case MetadataMatches() | MetadataCompared():
            return Needs.METADATA
        case Url():
            return Needs.URLS
        case Flag.UNUSED:
            return Needs.UNUSED
        case Flag.SECURE_HASH:
            return Needs.EQUIVALENT
        case _:
            return _NONE
