"""``annexpy log``: when which repository got or lost keys."""

from __future__ import annotations

from email.utils import formatdate

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import printable, write_json, write_line

__all__ = ["command"]


@as_command("log")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("-n", "--max-count", "limit", type=click.IntRange(1), metavar="N", help="At most this many changes.")
def command(options: Options, keys: tuple[str, ...], limit: int | None) -> int:
    """Show when which repository got (+) or lost (-) each KEY, or any key, the newest first.

    From the history of the git-annex branch, so only what was committed there.
    """
    from annexpy.keys.key import Key

    wanted = [Key.parse(key) for key in keys]

    async def work() -> int:
        from annexpy.actions.log import log
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            facts = at.facts()
            await at.here.branch.commit()
            for number, entry in enumerate(log(at.here, wanted or None)):
                if number == limit:
                    break
                for logged, uuids in (("addition", entry.got), ("removal", entry.lost)):
                    if options.json:
                        locations = [
                            {"uuid": uuid, "description": facts.description(uuid), "here": uuid == at.here.uuid}
                            for uuid in uuids
                        ]
                        write_json(
                            {
                                "command": "log",
                                "date": str(entry.seconds),
                                "error-messages": [],
                                "input": [],
                                "key": str(entry.key),
                                "locations": locations,
                                "logged": logged,
                                "success": True,
                            }
                        )
                        continue
                    for uuid in uuids:
                        sign = "+" if logged == "addition" else "-"
                        when = formatdate(entry.seconds, usegmt=True).replace("GMT", "UTC")
                        place = f"{uuid} -- {facts.description(uuid)}" if facts.description(uuid) else uuid
                        write_line(f"{sign} {when} {printable(str(entry.key))} | {printable(place)}")
        return 0

    return in_event_loop(work)
