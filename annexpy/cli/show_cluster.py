"""How clusters and proxies are shown: what was recorded anew, in git-annex's words, and how nodes are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, TypeAlias

from annexpy.cli.options import Options
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report, human_size, printable, write_json, write_line

if TYPE_CHECKING:  # they bring more than a command line needs
    from annexpy.actions.cluster import Changes
    from annexpy.actions.cluster_status import NodeStatus
    from annexpy.cli.work import Work
else:
    Changes = NodeStatus = Work = object

__all__ = ["Changes", "Work", "record_changes", "show_status"]

Change: TypeAlias = Callable[["Work"], Awaitable["Changes"]]


def record_changes(options: Options, name: str, change: Change) -> int:
    """Do *change* and say what was recorded anew; the exit code."""
    report = Report(options, name)

    async def work() -> int:
        from annexpy.cli.around import merge_fetched
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            merge_fetched(at.here)
            _show_changes(report, await change(at))
        return report.exit_code

    return in_event_loop(work)


def _show_changes(report: Report, changes: Changes) -> None:
    if report.options.json:
        fields: dict[str, object] = {
            "added": [{"cluster": cluster, "uuid": uuid} for cluster, uuid in changes.added],
            "removed": [{"cluster": cluster, "uuid": uuid} for cluster, uuid in changes.removed],
            "started": [{"name": one.name, "uuid": one.uuid} for one in changes.started],
            "stopped": [{"name": one.name, "uuid": one.uuid} for one in changes.stopped],
        }
        report.done(fields=fields)
        return
    if report.options.quiet:
        return
    names = {one.uuid: one.name for one in (*changes.stopped, *changes.started)}
    for verb, towards, nodes in (("Added", "to", changes.added), ("Removed", "from", changes.removed)):
        for cluster, uuid in nodes:
            write_line(f"{verb} node {printable(names.get(uuid, uuid))} {towards} cluster: {printable(cluster)}")
    for verb, proxied in (("Started", changes.started), ("Stopped", changes.stopped)):
        for one in proxied:
            write_line(f"{verb} proxying for {printable(one.name)}")
    if not changes:
        write_line("Nothing has changed.")


def show_status(report: Report, nodes: Sequence[NodeStatus]) -> None:
    """A table, or one JSON object for each node. A node that is down is a failure."""
    report.failures += sum(node.error is not None for node in nodes)
    if report.options.json:
        for node in nodes:
            write_json(_as_json(report.command, node))
        return
    for cluster in dict.fromkeys(node.cluster for node in nodes):
        write_line(f"cluster {printable(cluster)}")
        rows: list[tuple[str, ...]] = [("node", "health", "answers in", "in use", "lag", "keys", "size", "of")]
        rows += [_row(node) for node in nodes if node.cluster == cluster]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            write_line("  " + "  ".join(map(str.ljust, row, widths)).rstrip())
        for node in nodes:
            if node.cluster == cluster and node.error is not None:
                write_line(f"  {_name(node)}: {printable(str(node.error))}")
            elif node.cluster == cluster and node.last_error is not None:
                text, when = node.last_error
                write_line(f"  {_name(node)}: last error {formatdate(when)}: {printable(text)}")


def _name(node: NodeStatus) -> str:
    return printable(node.name if node.name and not node.gateway else node.description or node.uuid)


def _row(node: NodeStatus) -> tuple[str, ...]:
    return (
        _name(node),
        printable(node.health),
        "" if node.seconds is None else f"{node.seconds * 1000:.0f} ms",
        str(node.in_use),
        str(node.lag),
        str(node.keys),
        human_size(node.size),
        "" if node.maxsize is None else human_size(node.maxsize),
    )


def _as_json(command: str, node: NodeStatus) -> dict[str, object]:
    last = None if node.last_error is None else {"error": node.last_error[0], "time": node.last_error[1]}
    return {
        "command": command,
        "error-messages": [] if node.error is None else [str(node.error)],
        "input": [],
        "success": node.error is None,
        "cluster": node.cluster,
        "uuid": node.uuid,
        "name": node.name,
        "description": node.description,
        "gateway": node.gateway or None,
        "health": node.health,
        "seconds": node.seconds,
        "in-use": node.in_use,
        "lag": node.lag,
        "last-error": last,
        "keys": node.keys,
        "size": node.size,
        "maxsize": node.maxsize,
    }
