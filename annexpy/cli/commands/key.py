"""``annexpy key``: the keys of files, as git-annex would name them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from annexpy.cli.backends import BACKEND
from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report
from annexpy.errors import AnnexError

__all__ = ["command"]


@as_command("key")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(readable=False))
@click.option(
    "--backend", metavar="NAME", type=BACKEND, help="SHA256E, SHA512E, MD5, WORM … (annex.backend, else SHA256E)"
)
@click.option("--batch", is_flag=True, help="Read file names from standard input, one a line.")
@click.option("--names", is_flag=True, help="Print the file's name after its key.")
def command(options: Options, files: tuple[str, ...], backend: str | None, batch: bool, names: bool) -> int:
    """Print the key of each FILE.

    The same key that `git annex calckey` gives: two people who run this on the same bytes, with the same extension and
    backend, print the same line.
    """
    from annexpy.actions.key import read_key
    from annexpy.actions.work_tree_keys import configured_backend
    from annexpy.cli.around import config_around

    if bool(files) == batch:
        raise click.UsageError("Give FILEs, or --batch to read their names from standard input.")
    report = Report(options, "key")
    if backend is None:
        backend = os.fsdecode(configured_backend(config_around(options)))
    for file in _lines() if batch else files:
        try:
            key = read_key(file, backend=backend)
        except AnnexError as error:
            report.failed(error, file=file, input=[file])
        else:
            report.done(key, file=file, input=[file], text=f"{key}  {file}" if names else str(key))
    return report.exit_code


def _lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
