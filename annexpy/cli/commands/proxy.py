"""``annexpy proxy``: whom this repository is a proxy for."""

from __future__ import annotations

from annexpy.cli.options import CommandGroup, Options, as_command
from annexpy.cli.show_cluster import Changes, Work, record_changes

__all__ = ["command"]

command = CommandGroup("proxy", help="Show remotes of this repository to those who have it as a git remote.")


@as_command("update")
def update(options: Options) -> int:
    """Record for which remotes this repository is a proxy: those with `annex-proxy`, and nodes of clusters.

    Clients that have this repository as the git remote GATEWAY reach them as GATEWAY-REMOTE.
    """

    async def change(at: Work) -> Changes:
        from annexpy.actions.cluster import update as do

        return await do(at.here)

    return record_changes(options, "proxy update", change)


command.add_command(update)
