"""Preferred content expressions: text ⇄ syntax tree.

Terms are separated by blanks; ``(`` and ``)`` always stand alone and nothing can be quoted, so no value holds
a blank or a parenthesis. ``and`` and ``or`` have no precedence: an expression is evaluated from left to right,
starting with true. Terms that stand side by side are and-ed. ``not`` binds to the next term or group.

git-annex takes any row of terms, operators and parentheses, however odd: what is missing is true, a group that
is not closed ends where the expression does, a ``)`` too many is passed over. So does ``parse``, and means the
same by it (measured on every row of up to four words, and on 2,500 longer ones); it raises only for a term.

Source: fact sheet repository-format, section 6 (parse); git-annex-preferred-content(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from annexpy.errors import InvalidExpression, InvalidInput
from annexpy.patterns import regex
from annexpy.policy.terms import Test, parse_test

__all__ = ["MAX_DEPTH", "Chain", "Expression", "Node", "Not", "Step", "Term", "all_tests", "parse"]

MAX_DEPTH: Final = 100
"""How deep groups and ``not`` may be nested."""

# blanks as git-annex knows them; Python's \s has some more
_BLANK: Final = r" \t-\r\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_WORD: Final = regex(rf"[()]|[^(){_BLANK}]+")


@dataclass(frozen=True, slots=True)
class Term:
    """One term, as it was written and what it asks."""

    text: str
    test: Test

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    node: Node

    def __str__(self) -> str:
        return f"not {_operand(self.node)}"


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next in a chain, and whether it is or-ed or and-ed to what stands before."""

    either: bool
    node: Node

    def __str__(self) -> str:
        return f"{'or' if self.either else 'and'} {_operand(self.node)}"


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps from left to right, starting with true. Without a step it is true."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.steps)).removeprefix("and ")


Node: TypeAlias = Term | Not | Chain


@dataclass(frozen=True, slots=True)
class Expression:
    """A whole expression.

    Attributes:
        text: To the letter as it was written.
        root: What it means. ``str(root)`` is a tidy text with the same meaning, and is read to an equal root.
    """

    text: str
    root: Node

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        InvalidExpression: A word is no term, its value is none, or groups are nested too deep. In a log
            git-annex takes such an expression for ``present``, except one with a glob that cannot be used,
            which it fails on when it gets there.
    """
    return Expression(text, _Parser(text).all())


def all_tests(node: Node) -> list[Test]:
    """Every test of *node*, in the order of the text."""
    match node:
        case Term(test=test):
            return [test]
        case Not(node=inner):
            return all_tests(inner)
        case Chain(steps=steps):
            return [test for step in steps for test in all_tests(step.node)]
        case _:
            assert_never(node)


def _operand(node: Node) -> str:
    return f"({node})" if isinstance(node, Chain) else str(node)


def _chain(steps: list[Step]) -> Node:
    """*steps* as the shortest node that means the same."""
    if steps and not steps[0].either:
        first = steps[0].node
        if len(steps) == 1:
            return first
        if isinstance(first, Chain):
            return _chain([*first.steps, *steps[1:]])  # both start with true
    return Chain(tuple(steps))


class _Parser:
    """The words of one expression, from left to right. *depth* counts the groups we are in."""

    def __init__(self, text: str) -> None:
        self._words = [(match[0], match.start()) for match in _WORD.finditer(text)]
        self._words.reverse()
        self._nested = 0

    @property
    def _next(self) -> str:
        return self._words[-1][0] if self._words else ""

    def all(self) -> Node:
        steps: list[Step] = []
        while self._words:
            if self._next == ")":
                self._words.pop()
            else:
                self._step(steps, depth=0)
        return _chain(steps)

    def _step(self, steps: list[Step], *, depth: int) -> None:
        word = self._next
        if word in ("and", "or"):
            self._words.pop()
            steps.append(Step(word == "or", self._operand(depth)))
        elif word == "(" and depth:
            # inside a group, a group that no operator stands before goes on with the chain it is in
            self._words.pop()
            self._group(steps, depth)
        else:
            steps.append(Step(False, self._operand(depth)))

    def _group(self, steps: list[Step], depth: int) -> None:
        """The steps up to the ``)``, which is taken, too."""
        self._deeper()
        while self._words:
            if self._next == ")":
                self._words.pop()
                break
            self._step(steps, depth=depth + 1)
        self._nested -= 1

    def _operand(self, depth: int) -> Node:
        while self._next == ")" and not depth:
            self._words.pop()
        if self._next in ("", ")"):
            return Chain()
        word, position = self._words.pop()
        match word:
            case "not" | "and" | "or":
                self._deeper()
                inner = self._operand(depth)
                self._nested -= 1
                return Not(inner) if word == "not" else _chain([Step(word == "or", inner)])
            case "(":
                steps: list[Step] = []
                self._group(steps, depth)
                return _chain(steps)
            case _:
                try:
                    return Term(word, parse_test(word))
                except InvalidInput as error:
                    raise InvalidExpression(word, position, str(error)) from None

    def _deeper(self) -> None:
        self._nested += 1
        if self._nested > MAX_DEPTH:
            word, position = self._words[-1] if self._words else ("", 0)
            raise InvalidExpression(word, position, f"at most {MAX_DEPTH} groups and nots in each other")
