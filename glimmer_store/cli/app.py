"""The ``glimmer-store`` command: from argv to an exit code.

Exit codes: 0 done, 1 something failed, 2 usage or setup, 3 under-replicated, 4 unreachable.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

import click

from annexpy import AnnexError, __version__
from glimmer_store.errors import ConfigError, Shortfall, StoreError

__all__ = ["main"]

COMMANDS = {
    "archive": "Store outputs durably and create their nodes.",
    "backfill": "Bring every object to another repository, and prove each copy.",
    "demo": "Show everything on real files, in a new folder.",
    "emit": "Store the outputs that existing nodes name.",
    "explain": "Tell the proof of every copy of one output in full.",
    "export": "Write outputs as a bag, an RO-Crate or a data package.",
    "import": "Store the payload of a bag.",
    "fetch": "Get one content from the archive, or from the web.",
    "gate": "Refuse a push, a merge or a teardown that would lose something.",
    "hook": "Install the hook that asks the gate before a push.",
    "init": "Set a dataset up: repository, durable remotes, configuration.",
    "inspect": "Tell what there is of a manifest, here and in the archive.",
    "manifest": "Archive what a datamanifest.toml declares, and restore it.",
    "migrate": "Fill the storage fields of an existing graph.",
    "policy": "Hold git-annex's settings against the storage classes.",
    "report": "Tell everything about every output, as text, JSON or HTML.",
    "schema": "Show the storage fields: meaning, JSON Schema, patch for Glimmer.",
    "serve": "Host tenants over ssh and HTTP.",
    "status": "Show where each output is, and what is missing.",
    "sync": "Move datasets and cached results between machines.",
    "tenant": "Make tenants of a server, and let people in.",
    "validate": "Hold the graph against Glimmer's rules and ours.",
    "view": "Show stored contents in a folder, for datamanifest's read pools.",
    "verify": "Read every copy again, sign what is found, repair what is bad.",
}

UNDER_REPLICATED = 3
UNREACHABLE = 4
INTERRUPTED = 130
_OF_SYSTEM = {
    errno.EROFS: "work where that can be written to: git clone the dataset, or have it mounted so",
    errno.EACCES: "ask its owner to let you in, or git clone the dataset to a place of your own",
    errno.ENOSPC: "make room there, then run the same command again: it completes what is missing",
    errno.EDQUOT: "make room there, then run the same command again: it completes what is missing",
}


class _Lazy(click.Group):
    """Commands live in ``glimmer_store.cli.commands.NAME``, as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"glimmer_store.cli.commands.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="glimmer-store")
def glimmer_store() -> None:
    """Creating a research object is storing it durably, and every copy that is claimed has been proven."""


def _run(argv: Sequence[str] | None) -> object:
    """What the command gives. Of a group of errors the one that says most is raised."""
    try:
        return glimmer_store.main(
            args=None if argv is None else list(argv), prog_name="glimmer-store", standalone_mode=False
        )
    except BaseExceptionGroup as group:
        from annexpy.server import one_of

        raise one_of(group, KeyboardInterrupt, AnnexError, OSError) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if argv is None and sys.argv[1:2] == ["serve"]:
        from annexpy.server import ORDERS

        ORDERS.expect()  # to the very end of the process
    try:
        answer = _run(argv)
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 1
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("glimmer-store: interrupted; what is stored is recorded, run the same command to go on", err=True)
        return INTERRUPTED
    except AnnexError as error:
        complain(error, root=_dataset_in(sys.argv[1:] if argv is None else argv))
        if isinstance(error, Shortfall):
            return UNDER_REPLICATED
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:  # whoever read our output has gone; nothing may be flushed into the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a disk that is full or read-only, somebody else's folder
        complain(of_system(error))
        return 1
    return answer if isinstance(answer, int) else 0


def of_system(error: OSError) -> AnnexError:
    """*error* of the operating system as one of ours, which names the file."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return StoreError(f"{where}{error.strerror or error}", remedy=_OF_SYSTEM.get(error.errno or 0, ""))


def complain(error: AnnexError, remedy: str = "", *, root: str = ".") -> None:
    """One line for what went wrong, one for what to do about it; *remedy* where the caller knows better."""
    from glimmer_store.remedies import remedy_of

    click.echo(f"glimmer-store: {error}", err=True)
    click.echo(f"  remedy: {remedy or remedy_of(error, root)}", err=True)


def _dataset_in(words: Sequence[str]) -> str:
    return next((to for option, to in pairwise(words) if option == "-C"), ".")


if __name__ == "__main__":
    sys.exit(main())
