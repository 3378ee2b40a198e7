"""The terms of preferred content expressions: what each of them asks.

Source: fact sheet repository-format, section 6 (terms); git-annex-preferred-content(1); how numbers are read
is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from annexpy.errors import InvalidInput
from annexpy.logs.number import leading_integer
from annexpy.logs.sizes import parse_size
from annexpy.logs.uuidbased import raw
from annexpy.patterns import regex
from annexpy.policy.globs import compile_glob
from annexpy.policy.trust import TrustLevel

__all__ = [
    "Balanced",
    "Copies",
    "Flag",
    "InAllGroup",
    "InBackend",
    "Include",
    "LackingCopies",
    "MetadataCompared",
    "MetadataMatches",
    "OnlyInGroup",
    "Size",
    "Test",
    "Url",
    "parse_test",
]


class Flag(Enum):
    """A term without a value."""

    ANYTHING = "anything"
    NOTHING = "nothing"
    PRESENT = "present"
    IN_PREFERRED_DIR = "inpreferreddir"
    STANDARD = "standard"
    GROUPWANTED = "groupwanted"
    UNUSED = "unused"
    SECURE_HASH = "securehash"


@dataclass(frozen=True, slots=True)
class Include:
    """The path of the file matches, or with *exclude* does not."""

    glob: str
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """The key is larger, or with *smaller* smaller, than *size* bytes."""

    size: int
    smaller: bool = False


@dataclass(frozen=True, slots=True)
class Copies:
    """At least *number* copies in repositories of a group, or of a level of trust, or in all.

    Attributes:
        number: How many.
        group: Only in that group.
        trust: Only of that level, or with *or_more* of that level and those above it.
    """

    number: int
    group: str | None = None
    trust: TrustLevel | None = None
    or_more: bool = False


@dataclass(frozen=True, slots=True)
class LackingCopies:
    """At least *number* copies are missing; *approximate*: by numcopies.log alone."""

    number: int
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class InBackend:
    """The key is of that backend."""

    backend: str


@dataclass(frozen=True, slots=True)
class InAllGroup:
    """Every repository of the group has it."""

    group: str


@dataclass(frozen=True, slots=True)
class OnlyInGroup:
    """Some repository of the group has it, and none outside does."""

    group: str


@dataclass(frozen=True, slots=True)
class Url:
    """One of the recorded URLs matches."""

    glob: str


@dataclass(frozen=True, slots=True)
class MetadataMatches:
    """A value of the field matches, in upper or lower case."""

    field: str
    glob: str


@dataclass(frozen=True, slots=True)
class MetadataCompared:
    """A value of the field compares so (``<``, ``<=``, ``>``, ``>=``) with *value*."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Balanced:
    """It is this repository's turn among those of the group.

    Attributes:
        group: Which share the keys.
        number: How many of them are to have each key; None: as many as copies are lacking.
        full: Contents may be moved to keep the balance: a present key is not wanted for being there.
        by_size: By how full each is, instead of evenly.
    """

    group: str
    number: int | None
    full: bool
    by_size: bool


Test: TypeAlias = (
    Flag
    | Include
    | Size
    | Copies
    | LackingCopies
    | InBackend
    | InAllGroup
    | OnlyInGroup
    | Url
    | MetadataMatches
    | MetadataCompared
    | Balanced
)

_LACKING: Final = "lackingcopies"
_FLAGS: Final = {flag.value: flag for flag in Flag}
_LEVELS: Final = {level.value: level for level in TrustLevel}
_METADATA: Final = regex(r"([^=<>]*)(=|<=?|>=?|\Z)(.*)", re.DOTALL)
_FIELD: Final = regex(r"[^\W_][\w.-]*")


def parse_test(term: str) -> Test:
    """What *term* asks.

    Raises:
        InvalidInput: It is no term of preferred content, or its value is none.
    """
    flag = _FLAGS.get(term)
    if flag is not None:
        return flag
    name, _, value = term.partition("=")
    read = _READERS.get(name)
    if read is None:
        raise InvalidInput("term", term, "a term of preferred content expressions")
    return read(value)


def _number(value: str, name: str) -> int:
    number = leading_integer(raw(value))
    if number is None:
        raise InvalidInput(name, value, "a whole number")
    return number


def _glob(value: str, *, ignore_case: bool = False) -> str:
    compile_glob(value, ignore_case=ignore_case)
    return value


def _size(value: str, *, smaller: bool) -> Size:
    size = parse_size(value)
    if size is None:
        raise InvalidInput("smallerthan" if smaller else "largerthan", value, "a size, like 10mb")
    return Size(size, smaller)


def _among_and_number(value: str, name: str) -> tuple[str | None, int]:
    """``WHAT:NUMBER``, or with a ``=`` between where no single colon is, or a number alone."""
    parts = value.split(":")
    if len(parts) != 2:
        parts = value.split("=")
    match parts:
        case [number]:
            return None, _number(number, name)
        case [among, number]:
            return among, _number(number, name)
        case _:
            raise InvalidInput(name, value, "NUMBER, or GROUP:NUMBER")


def _copies(value: str) -> Copies:
    among, number = _among_and_number(value, "copies")
    if among is None:
        return Copies(number)
    level = _LEVELS.get(among.removesuffix("+"))
    if level is None:
        return Copies(number, group=among)
    return Copies(number, trust=level, or_more=among.endswith("+"))


def _lacking(value: str, *, approximate: bool) -> LackingCopies:
    # git-annex reads a group here too, and does not look at it
    return LackingCopies(_among_and_number(value, "lackingcopies")[1], approximate)


def _metadata(value: str) -> MetadataMatches | MetadataCompared:
    match = _METADATA.fullmatch(value)
    assert match is not None
    field, operator, right = match.groups()
    if not _FIELD.fullmatch(field):
        raise InvalidInput("metadata field", field, "letters, digits and _-. after a letter or digit")
    if operator in ("=", ""):
        return MetadataMatches(field.lower(), _glob(right, ignore_case=True))
    return MetadataCompared(field.lower(), operator, right)


def _balanced(value: str, *, full: bool, by_size: bool) -> Balanced:
    parts = value.split(":")
    match parts:
        case [group]:
            number: int | None = 1
        case [group, text] if text.partition("=")[0] == _LACKING:
            number = None
        case [group, text]:
            number = _number(text, "balanced")
        case _:
            raise InvalidInput("balanced", value, "GROUP, GROUP:NUMBER or GROUP:lackingcopies")
    return Balanced(group, number, full, by_size)


_READERS: Final[dict[str, Callable[[str], Test]]] = {
    "include": lambda value: Include(_glob(value)),
    "exclude": lambda value: Include(_glob(value), exclude=True),
    "largerthan": lambda value: _size(value, smaller=False),
    "smallerthan": lambda value: _size(value, smaller=True),
    "copies": _copies,
    "lackingcopies": lambda value: _lacking(value, approximate=False),
    "approxlackingcopies": lambda value: _lacking(value, approximate=True),
    "inbackend": InBackend,
    "inallgroup": InAllGroup,
    "onlyingroup": OnlyInGroup,
    "url": lambda value: Url(_glob(value)),
    "metadata": _metadata,
    "balanced": lambda value: _balanced(value, full=False, by_size=False),
    "fullybalanced": lambda value: _balanced(value, full=True, by_size=False),
    "sizebalanced": lambda value: _balanced(value, full=False, by_size=True),
    "fullysizebalanced": lambda value: _balanced(value, full=True, by_size=True),
}
