"""``annexpy cluster``: set up clusters, and see how their nodes are."""

from __future__ import annotations

import click

from annexpy.cli.options import CommandGroup, Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report
from annexpy.cli.show_cluster import Changes, Work, record_changes

__all__ = ["command"]

command = CommandGroup(
    "cluster",
    help=(
        "Set up clusters that this repository is a gateway of, and see how they are.\n\n"
        "Clients that have this repository as the git remote GATEWAY reach the cluster as GATEWAY-NAME, and each "
        "node as GATEWAY-NODE, with git-annex as well as with annexpy."
    ),
)


@as_command("init")
@click.argument("name")
def init(options: Options, name: str) -> int:
    """Make this repository the gateway of a new cluster called NAME."""
    report = Report(options, "cluster init")

    async def work() -> int:
        from annexpy.actions.cluster import init as make
        from annexpy.actions.cluster import update
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            uuid = await make(at.here, name)
            await update(at.here)
            report.done(file=name, note=uuid, fields={"uuid": uuid})
        return report.exit_code

    return in_event_loop(work)


@as_command("add-node")
@click.argument("name")
@click.argument("remotes", metavar="REMOTE...", nargs=-1, required=True, type=REMOTE)
def add_node(options: Options, name: str, remotes: tuple[str, ...]) -> int:
    """Make each REMOTE, a git remote of this repository, a node of the cluster NAME."""

    async def change(at: Work) -> Changes:
        from annexpy.actions.cluster import add_nodes

        return await add_nodes(at.here, name, remotes)

    return record_changes(options, "cluster add-node", change)


@as_command("remove-node")
@click.argument("name")
@click.argument("remotes", metavar="REMOTE...", nargs=-1, required=True, type=REMOTE)
def remove_node(options: Options, name: str, remotes: tuple[str, ...]) -> int:
    """Take each REMOTE out of the cluster NAME. What it holds stays there."""

    async def change(at: Work) -> Changes:
        from annexpy.actions.cluster import remove_nodes

        return await remove_nodes(at.here, name, remotes)

    return record_changes(options, "cluster remove-node", change)


@as_command("extend")
@click.argument("gateway", type=REMOTE)
@click.argument("name")
def extend(options: Options, gateway: str, name: str) -> int:
    """Make this repository one more gateway of the cluster NAME that the git remote GATEWAY is a gateway of.

    Sync with GATEWAY first. For its clients to reach the nodes of this repository too, run the same there.
    """

    async def change(at: Work) -> Changes:
        from annexpy.actions.cluster import extend as do

        return await do(at.here, gateway, name)

    return record_changes(options, "cluster extend", change)


@as_command("update")
def update(options: Options) -> int:
    """Record what the git configuration says of clusters and proxies, as `git annex updatecluster` does."""

    async def change(at: Work) -> Changes:
        from annexpy.actions.cluster import update as do

        return await do(at.here)

    return record_changes(options, "cluster update", change)


@as_command("status")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def status(options: Options, names: tuple[str, ...]) -> int:
    """Ask every node of the clusters NAME, or of all, whether it is there, and show what is known of it.

    The exit code is 1 when a node could not be reached.
    """
    report = Report(options, "cluster status")

    async def work() -> int:
        from annexpy.actions.cluster_status import cluster_status
        from annexpy.cli.around import merge_fetched
        from annexpy.cli.show_cluster import show_status
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            merge_fetched(at.here)
            show_status(report, await cluster_status(at.here, names))
        return report.exit_code

    return in_event_loop(work)


for one in (init, add_node, remove_node, extend, update, status):
    command.add_command(one)
