r"""Globs as git-annex matches them, which is not how shells do.

git-annex turns a glob into a regular expression in two steps that know little of each other, and its
expressions match line by line. So ``*`` crosses ``/`` and stops at a line break, one ``/`` stands for several,
a set ends at its first ``]`` whatever stands around that, and ``<``, ``>``, a quote and a back quote are
ends of words and of texts. What comes out is the same here; the steps are kept apart for that.

Source: fact sheet repository-format, section 6 (include); the details are measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from annexpy.errors import InvalidInput
from annexpy.patterns import regex

__all__ = ["Glob", "compile_glob"]

# an escaped character that is no literal in the regular expressions of git-annex
_ANCHORS: Final = {
    "<": r"(?<!\w)(?=\w)",
    ">": r"(?<=\w)(?!\w)",
    "`": r"\A",
    "'": r"\Z",
}
# as ranges of a Python set; other names match nothing
_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t-\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_NAMED: Final = regex(r"\[:([^:]*):\]|\[=(.+?)=\]|\[\.(.+?)\.\]", re.DOTALL)
_NEVER: Final = r"(?!)"


@dataclass(frozen=True, slots=True)
class Glob:
    """A glob, ready to be matched."""

    pattern: re.Pattern[str]
    ambiguous: bool

    def matches(self, text: str) -> bool:
        """Whether *text* matches: all of it, or all of one of its lines.

        A row of slashes in *text* counts as one where the glob has something else than a name after a slash more
        than once (``/?/?``): to try every way to share them out could take for ever. No path in a repository has
        any.
        """
        if self.ambiguous and "//" in text:
            text = _SLASHES.sub("/", text)
        return self.pattern.search(text) is not None


_SLASHES: Final = regex("//+")


@lru_cache(maxsize=512)
def compile_glob(glob: str, *, ignore_case: bool = False) -> Glob:
    """*glob*, ready to be matched.

    Raises:
        InvalidInput: git-annex cannot use it either.
    """
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    pattern, ambiguous = _second_step(glob, _first_step(glob))
    return Glob(re.compile(f"^{pattern}$", flags), ambiguous)


def _first_step(glob: str) -> str:
    """The regular expression that git-annex makes: ``.*``, ``.``, ``/+``, sets, a backslash before what is literal."""
    parts = []
    at = 0
    while at < len(glob):
        character = glob[at]
        at += 1
        match character:
            case "*":
                parts.append(".*")
            case "?":
                parts.append(".")
            case "/":
                parts.append("/+")
            case "[":
                end = glob.find("]", at)
                if end < 0:
                    raise _invalid(glob)
                inside = glob[at : end + 1].replace("\\", "\\\\")
                parts.append("[" + ("^" + inside[1:] if inside.startswith("!") else inside))
                at = end + 1
            case _ if character.isalnum() or character == "_":
                parts.append(character)
            case _:
                parts.append("\\" + character)
    return "".join(parts)


def _second_step(glob: str, expression: str) -> tuple[str, bool]:
    """*expression* as Python writes it, and whether slashes are ambiguous in it.

    What stands between two stars matches where it first can, for good: the next star takes up whatever is
    left, so an earlier end is never worse.
    """
    between: list[list[str]] = [[]]
    ambiguous = 0
    at = 0
    while at < len(expression):
        character = expression[at]
        at += 1
        match character:
            case "\\":
                literal = expression[at]
                between[-1].append(_ANCHORS.get(literal) or re.escape(literal))
                at += 1
            case "[":
                part, at = _set(glob, expression, at)
                between[-1].append(part)
            case "." if expression.startswith("*", at):
                between.append([])
                at += 1
            case "/":
                row = _ROW.match(expression, at - 1)
                assert row is not None
                at = row.end()
                may_be_short = expression[at : at + 1] in (".", "[")
                ambiguous += may_be_short and not expression.startswith(".*", at)
                between[-1].append(f"/{{{len(row[0]) // 2},}}{'?' if may_be_short else '+'}")
            case _:
                between[-1].append(character)
    *atomic, last = map("".join, between)
    return "".join([f"(?>{'.*?' if n and part else ''}{part})" for n, part in enumerate(atomic)]) + (
        f".*{last}" if atomic else last
    ), ambiguous > 1


_ROW: Final = regex(r"(?:/\+)+")


def _set(glob: str, expression: str, at: int) -> tuple[str, int]:
    """The set that starts at *at*, and where it ends. A backslash is a character like any other in it."""
    negated = expression.startswith("^", at)
    at += negated
    items: list[str] = []
    first = True
    while True:
        if at >= len(expression):
            raise _invalid(glob)
        if expression[at] == "]" and not first:
            break
        first = False
        named = _NAMED.match(expression, at)
        if named is not None:
            items.append(_CLASSES.get(named[1], "") if named[1] is not None else re.escape(named[2] or ""))
            at = named.end()
        elif expression[at + 1 : at + 2] == "-" and expression[at + 2 : at + 3] not in ("]", ""):
            low, high = expression[at], expression[at + 2]
            if high < low:
                raise _invalid(glob)
            items.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            items.append(re.escape(expression[at]))
            at += 1
    inside = "".join(items)
    if negated:
        # "not this" is no line break either
        return f"[^{inside}\n]", at + 1
    return f"[{inside}]" if inside else _NEVER, at + 1


def _invalid(glob: str) -> InvalidInput:
    return InvalidInput("glob", glob, "every [ has its ], and ranges go upwards")
