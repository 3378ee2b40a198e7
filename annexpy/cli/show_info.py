"""What a repository or a remote says about itself, in git-annex's words and fields."""

from __future__ import annotations

import os
from collections.abc import Iterable

from annexpy.actions.info import Info, RemoteInfo
from annexpy.cli.options import Options
from annexpy.cli.show import Report, human_size, long_size, printable, write_json, write_line

__all__ = ["show_info", "show_remote"]


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
