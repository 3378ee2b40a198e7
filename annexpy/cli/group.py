"""The table of commands, and the click group that imports each one only when it is used."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from annexpy import __version__
from annexpy.cli.options import add_common_options

__all__ = ["COMMANDS", "SERVER", "annexpy"]

COMMANDS = {
    "check": "Ask a remote whether it has keys.",
    "cluster": "Set up clusters, and see how their nodes are.",
    "completion": "Print the completion script of a shell.",
    "copy": "Copy keys from one remote to another.",
    "doctor": "Look at repositories, read-only, and name what is wrong.",
    "drop": "Remove keys from a remote when enough other copies are proven.",
    "examinekey": "Print what a key says.",
    "explain": "Say everything that decides about the copies of a key.",
    "fsck": "Read content again and compare it with its key.",
    "get": "Fetch keys from a remote.",
    "info": "Describe a repository.",
    "init": "Make a git-annex repository.",
    "key": "Print the keys of files.",
    "lock": "Keep a key from being dropped while something runs.",
    "log": "Show when which repository got or lost keys.",
    "matchexpression": "Check if a preferred content expression matches.",
    "move": "Move keys from one remote to another.",
    "proxy": "Show remotes of this repository to others.",
    "put": "Store files on a remote.",
    "replay": "Show a recorded conversation and check it against the protocol.",
    "serve": "Show a repository to others.",
    "sync": "Fetch, merge and push the git-annex branch.",
    "talk": "Speak the P2P protocol by hand.",
    "whereis": "Tell where keys are.",
}
"""Command → its first sentence, so that the list of commands needs no import of theirs."""
SERVER = "serve"
"""The command that goes on until it is told to end."""


class LazyGroup(click.Group):
    """A group whose commands live in ``annexpy.cli.commands.NAME``, as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"annexpy.cli.commands.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"annexpy {__version__}")
        ctx.exit()


annexpy = LazyGroup(
    "annexpy",
    help=(
        "Store, prove and find every copy of your git-annex content, without git-annex.\n\n"
        "REMOTE is a path, ssh://HOST/PATH, https://HOST/PATH, annex+https://HOST/git-annex/UUID, unix:SOCKET, "
        "exec:COMMAND, or the name of a git remote of the repository you work in. KEY is a git-annex key; `-` or "
        "--batch reads keys from standard input."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Print the version.",
            callback=_print_version,
        )
    ],
)
"""The whole command line."""

add_common_options(annexpy)
