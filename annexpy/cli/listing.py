"""Longer answers: where keys are, what a repository is and holds, when who got or lost a key.

In git-annex's words and fields.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from email.utils import formatdate
from itertools import islice
from typing import Final

from annexpy.actions.facts import Facts
from annexpy.actions.info import Info, RemoteInfo
from annexpy.actions.log import Logged
from annexpy.actions.whereis import Whereis
from annexpy.cli.options import Options
from annexpy.cli.show import Report, human_size, long_size, printable, whereis_locations, write_json, write_line

__all__ = ["WhereisLines", "show_info", "show_logged", "show_remote"]

_AT_ONCE: Final = 1000
_REMEMBERED: Final = 1024


def show_info(options: Options, found: Info, asked: Iterable[str] = ()) -> None:
    """What a repository says about itself and the others. *asked*: the words of the user."""
    if options.json:
        groups: dict[str, object] = {
            f"{level} repositories": [
                {"uuid": one.uuid, "description": one.description, "here": one.here} for one in places
            ]
            for level, places in found.by_trust.items()
        }
        fields: dict[str, object] = {
            "command": "info",
            "error-messages": [],
            "input": list(asked),
            "success": True,
            "uuid": found.uuid,
            "path": found.path,
            "bare": found.bare,
            "repository version": found.version,
            "numcopies": found.copies.num,
            "mincopies": found.copies.min,
            "available local disk space": _space(found.free, found.reserve),
        }
        if found.here is not None:
            fields |= {"local annex keys": found.here.keys, "local annex size": long_size(found.here.size)}
            fields["annex sizes of repositories"] = [
                {"uuid": one.uuid, "description": one.description, "here": one.here, "size": human_size(held.size)}
                for one, held in found.sizes
            ]
        fields["transfers in progress"] = [
            {
                "transfer": one.direction,
                "key": str(one.key),
                "file": None if one.file is None else os.fsdecode(one.file),
                "remote": one.uuid,
            }
            for one in found.transfers
        ]
        write_json(fields | groups)
        return
    names = {place.uuid: place.description for places in found.by_trust.values() for place in places}
    kind = "bare repository" if found.bare else "repository"
    write_line(f"{kind} {printable(found.path)}, version {found.version}")
    write_line(f"uuid: {found.uuid}")
    write_line(str(found.copies))
    for level, places in found.by_trust.items():
        write_line(f"{level} repositories: {len(places)}")
        for place in places:
            write_line(f"\t{printable(str(place))}")
    write_line("transfers in progress:" + ("" if found.transfers else " none"))
    for one in found.transfers:
        what = str(one.key) if one.file is None else os.fsdecode(one.file)
        way = "from" if one.direction == "download" else "to"
        write_line(f"\t{one.direction}ing {printable(what)} {way} {printable(names.get(one.uuid) or one.uuid)}")
    write_line(f"available local disk space: {_space(found.free, found.reserve)}")
    if found.here is not None:
        write_line(f"local annex keys: {found.here.keys}")
        write_line(f"local annex size: {long_size(found.here.size)}")
        write_line("annex sizes of repositories:")
        for place, held in found.sizes:
            write_line(f"\t{human_size(held.size):>10}: {printable(str(place))}")


def show_remote(report: Report, found: RemoteInfo) -> None:
    """What is known of a remote; a failure when it does not answer."""
    place = found.location
    fields: dict[str, object] = {"remote": found.name, "cost": f"{found.cost:.1f}"}
    if place is not None:
        fields |= {"uuid": place.uuid, "description": place.description, "trust": str(place.trust)}
    fields["available"] = "true" if found.problem is None else "false"
    if found.nodes:
        fields["nodes"] = list(found.nodes) if report.options.json else ", ".join(found.nodes)
    if found.held is not None:
        fields |= {"remote annex keys": found.held.keys, "remote annex size": long_size(found.held.size)}
    if not report.options.json:
        write_line("\n".join(f"{name}: {printable(str(value))}" for name, value in fields.items()))
    if found.problem is not None:
        report.failed(found.problem, input=[found.name], fields=fields)
    elif report.options.json:
        report.done(input=[found.name], fields=fields)


def _space(free: int, reserve: int) -> str:
    return f"{long_size(max(0, free - reserve))} (+{long_size(reserve)} reserved)"


def show_logged(options: Options, entry: Logged, facts: Facts) -> None:
    """One commit's news about one key: who got it, and who lost it."""
    for logged, sign, uuids in (("addition", "+", entry.got), ("removal", "-", entry.lost)):
        if options.json:
            here = facts.repository.uuid
            locations = [{"uuid": uuid, "description": facts.description(uuid), "here": uuid == here} for uuid in uuids]
            fields: dict[str, object] = {"command": "log", "error-messages": [], "input": [], "success": True}
            fields |= {"date": str(entry.seconds), "key": str(entry.key), "logged": logged, "locations": locations}
            write_json(fields)
            continue
        for uuid in uuids:
            when = formatdate(entry.seconds, usegmt=True).replace("GMT", "UTC")
            described = facts.description(uuid)
            place = f"{uuid} -- {described}" if described else uuid
            write_line(f"{sign} {when} {printable(str(entry.key))} | {printable(place)}")


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
