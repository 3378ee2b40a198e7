"""``glimmer-store backfill …``: jobs that bring every object to a new repository, prove it, and tell how they stand."""

from __future__ import annotations

from importlib import import_module

import click

__all__ = ["SUBCOMMANDS", "command"]

SUBCOMMANDS = {
    "plan": "Tell what a job amounts to, or freeze it.",
    "run": "Plan, or go on with, a job, and work on it from here.",
    "worker": "Work on a job until nothing is left to be done.",
    "status": "Show on one screen how a job stands.",
    "report": "Write the whole report, or tell what is missing.",
    "pause": "Move nothing from the next chunk on.",
    "resume": "Go on.",
    "set-limit": "Change bandwidth, requests or times while a job runs.",
    "retry": "Plan anew what failed.",
    "cancel": "End a job for good.",
    "explain": "Tell everything about one key.",
}
"""Name → what it does; each is ``command`` of ``glimmer_store.cli.backfill.NAME``."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        found: click.Command = import_module(f"glimmer_store.cli.backfill.{cmd_name.replace('-', '_')}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group("backfill", cls=_Lazy)
def command() -> None:
    """Bring every object to another repository, read each copy back, and register what is proven."""
