"""REMOTE as a kind of argument: completed from the git remotes of the repository, and what they are proxies for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from annexpy.errors import AnnexError

__all__ = ["REMOTE"]

if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:  # older ones are no generics
    _Text = click.ParamType


class _Remote(_Text):
    name = "remote"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from annexpy.policy.routes import proxied_routes
        from annexpy.repo.repository import Repository
        from annexpy.repo.topology import topology

        where = ctx.params.get("repository") or (ctx.parent.params.get("repository") if ctx.parent else None) or "."
        try:
            with Repository.open(where) as repository:
                remotes = repository.config.remotes().values()
                names = {remote.name for remote in remotes if remote.has_contents}
                names |= {cluster for remote in remotes for cluster in remote.cluster_node}
                names |= {*proxied_routes(topology(repository))}
        except AnnexError:
            names = set()
        found = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="dir")]


REMOTE = _Remote()
"""For ``click.argument``."""
