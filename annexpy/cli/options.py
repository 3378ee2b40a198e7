"""The options that every command has, accepted before the command's name and after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click

__all__ = ["CommandGroup", "Options", "add_common_options", "as_command"]


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every command.

    Attributes:
        json: One JSON object a line on stdout, with the fields git-annex uses.
        json_progress: Progress as JSON lines too.
        quiet: Results only when they are failures.
        jobs: How many transfers may run at once.
        durability: "full": done means on disk. "fast": done means handed to the system.
        debug: Every protocol message on stderr.
        repository: The repository to work in; None: the one around the current directory, if any.
    """

    json: bool = False
    json_progress: bool = False
    quiet: bool = False
    jobs: int = 16
    durability: Literal["full", "fast"] = "full"
    debug: bool = False
    repository: str | None = None

    @property
    def place(self) -> str:
        """Where to look for the repository to work in: as git, which tells its hooks with GIT_DIR."""
        return self.repository or os.environ.get("GIT_DIR") or "."


def _common() -> list[click.Option]:
    return [
        click.Option(["--json", "-j", "json"], is_flag=True, default=None, help="One JSON object per result."),
        click.Option(["--json-progress"], is_flag=True, default=None, help="JSON progress lines as well."),
        # Wrappers of git-annex pass it; messages are always in our JSON.
        click.Option(["--json-error-messages", "json"], is_flag=True, default=None, hidden=True),
        click.Option(["--quiet", "-q"], is_flag=True, default=None, help="Print failures only."),
        click.Option(["--jobs", "-J"], type=click.IntRange(1, 64), metavar="N", help="Transfers at once (16)."),
        click.Option(
            ["--durability"],
            type=click.Choice(["full", "fast"]),
            help="full: what is done is on disk (default). fast: it is handed to the system.",
        ),
        click.Option(["--debug", "-d"], is_flag=True, default=None, help="Show the protocol on stderr."),
        click.Option(
            ["-C", "repository"],
            metavar="REPO",
            type=click.Path(file_okay=False),
            help="The repository to work in (the one around the current directory).",
        ),
    ]


_NAMES = tuple(Options.__dataclass_fields__)


class _Common(click.Command):
    """The common options in a section of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # click's own signature
        super().__init__(*args, **kwargs)
        add_common_options(self)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                (common if param.name in _NAMES else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _Command(_Common):
    """A command with the common options, handed over as ``options``."""

    def invoke(self, ctx: click.Context) -> object:
        merged: dict[str, Any] = {}  # click's own
        above = ctx.parent
        while above is not None:  # a command of a group of commands has several
            merged = above.params | {name: value for name, value in merged.items() if value is not None}
            above = above.parent
        for name in _NAMES:
            value = ctx.params.pop(name, None)
            if value is not None:
                merged[name] = value
        given = {name: merged[name] for name in _NAMES if merged.get(name) is not None}
        if given.get("json_progress"):
            given["json"] = True
        ctx.params["options"] = Options(**given)
        return super().invoke(ctx)


class CommandGroup(_Common, click.Group):
    """Commands under one name, such as ``annexpy cluster init``."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def add_common_options(target: click.Command) -> None:
    """Give *target* the options of ``Options``."""
    target.params.extend(_common())


def as_command(name: str, **settings: Any) -> Callable[[Callable[..., object]], click.Command]:  # click's settings
    """Make a function the command *name*; its docstring is the help, ``options`` its first argument."""
    return click.command(name, cls=_Command, **settings)
