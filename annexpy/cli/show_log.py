"""When who got or lost a key, in git-annex's words and fields."""

from __future__ import annotations

from email.utils import formatdate

from annexpy.actions.facts import Facts
from annexpy.actions.log import Logged
from annexpy.cli.options import Options
from annexpy.cli.show import printable, write_json, write_line

__all__ = ["show_logged"]


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
