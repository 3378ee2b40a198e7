"""Where keys are, in git-annex's words and fields, for one key or for millions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from annexpy.actions.whereis import Whereis
from annexpy.cli.show import Report, printable, whereis_locations, write_json, write_line

__all__ = ["WhereisLines"]

_AT_ONCE: Final = 1000
_REMEMBERED: Final = 1024


class WhereisLines:
    """Answers of whereis as lines or JSON objects. A failure for each key that nobody has.

    Args:
        report: Of the command.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        # by identity: many answers share their locations
        self._texts: dict[tuple[int, int], tuple[Whereis, tuple[str, str]]] = {}

    def show(self, answers: Iterable[Whereis]) -> None:
        """Print them, many at a time; all are out when this returns."""
        todo = iter(answers)
        while some := list(islice(todo, _AT_ONCE)):
            self._report.failures += sum(not found.locations for found in some)
            if self._report.options.json:
                for found in some:
                    write_json(_whereis_fields(found))
                continue
            if self._report.options.quiet:
                some = [found for found in some if not found.locations]
            if some:
                write_line("\n".join(map(self._text, some)))

    def _text(self, found: Whereis) -> str:
        shared = id(found.locations), id(found.untrusted)
        known = self._texts.get(shared)
        if known is None:
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            known = self._texts[shared] = found, (f" ({_copies(found)})", _below(found))
        _, (head, below) = known
        return f"whereis {printable(str(found.key))}{head}{below}"


def _copies(found: Whereis) -> str:
    copies = found.copies
    return f"{copies} {'copy' if copies == 1 else 'copies'}"


def _below(found: Whereis) -> str:
    """What follows the first line."""
    lines = [""] + [f"  \t{printable(str(location))}" for location in found.locations]
    if found.untrusted:
        lines += [""] if found.locations else []
        lines.append("  The following untrusted locations may also have copies:")
        lines += [f"  \t{printable(str(location))}" for location in found.untrusted]
    if len(lines) == 1:
        return " failed"
    return "\n".join([*lines, "ok" if found.ok else "failed"])


def _whereis_fields(found: Whereis) -> dict[str, object]:
    note = "\n\t".join([_copies(found), *map(str, found.locations)]) + ("\n" if found.locations else "")
    if found.untrusted:
        note += "\nThe following untrusted locations may also have copies:\n\t"
        note += "\n\t".join(map(str, found.untrusted)) + "\n"
    return {
        "command": "whereis",
        "error-messages": [],
        "input": [],
        "key": str(found.key),
        "note": note,
        "success": found.ok,
        "whereis": whereis_locations(found.locations),
        "untrusted": whereis_locations(found.untrusted),
    }
