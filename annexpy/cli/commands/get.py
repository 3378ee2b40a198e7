"""``annexpy get``: fetch contents into files, into a repository or to standard output."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from annexpy.cli.keys import key_batches, wants_stdin
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report, write_bytes

if TYPE_CHECKING:
    from annexpy.keys.key import Key

__all__ = ["command"]

_STDOUT: Final = ("-", "/dev/stdout")


@as_command("get")
@click.argument("remote", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(readable=False, allow_dash=True),
    help="Write to this file, into this folder, or with - to standard output.",
)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, remote: str, keys: tuple[str, ...], output: str | None, batch: bool) -> int:
    """Fetch each KEY from REMOTE: into the repository, or with -o into a file or folder.

    The content is verified while it comes and appears whole or not at all. An interrupted get goes on where it
    was. With several keys, -o names a folder, and each content is called as its key.

    With `-o -` the content of the one KEY is all that standard output gets; its last part, a MiB or more, comes when
    the whole is verified. So what ends early, with exit code 1, is not the content.
    """
    several = wants_stdin(keys, batch) or len(keys) > 1
    if output is not None and _flows(output):
        if several or options.json:
            raise click.UsageError(f"-o {output} takes one KEY, and no --json.")
        return _pour(options, remote, keys[0], output)
    folder = output is not None and Path(output).is_dir()
    if output is not None and several and not folder:
        raise click.UsageError("-o names a folder when there are several KEYs, and it has to be there.")
    report = Report(options, "get")

    async def work() -> int:
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            source = await at.remote(remote)

            from annexpy.actions.copy import copy  # while a server far away does the same
            from annexpy.actions.get import get
            from annexpy.actions.many import Each
            from annexpy.actions.results import Transfer
            from annexpy.cli.progress import progress
            from annexpy.errors import AnnexError
            from annexpy.keys.layout import key_file

            note = f"from {source.name}..."
            with progress(options, "get", note) as told:

                async def to_file(key: Key) -> Transfer:
                    assert output is not None
                    place = Path(output) / key_file(key).decode("utf-8", "surrogateescape") if folder else output
                    try:
                        return await get(source, key, place, progress=told, durable=options.durability == "full")
                    except AnnexError as error:
                        return Transfer(key, error=error)

                here = at.receiver(source) if output is None else None
                async for some in key_batches(keys, batch, report):
                    fetched = (
                        copy(source, here, some, jobs=options.jobs, progress=told)
                        if here is not None
                        else Each(some, to_file, jobs=options.jobs, same=lambda key: key)
                    )
                    await fetched.tell(lambda result: report.transfer(result, note=note))
        return report.exit_code

    return in_event_loop(work)


def _flows(output: str) -> bool:
    """*output* takes bytes one after the other, and keeps no file."""
    if output in _STDOUT:
        return True
    try:
        mode = os.stat(output).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _pour(options: Options, remote: str, key: str, output: str) -> int:
    """Write the content of *key* to a stream. Only failures are spoken of, on standard error."""
    from annexpy.keys.key import Key

    wanted = Key.parse(key)
    if output in _STDOUT:
        return _pour_into(write_bytes, options, remote, wanted)
    with open(output, "wb") as stream:

        def write(data: bytes) -> None:
            stream.write(data)
            stream.flush()

        return _pour_into(write, options, remote, wanted)


def _pour_into(write: Callable[[bytes], None], options: Options, remote: str, key: Key) -> int:
    report = Report(replace(options, quiet=True), "get")

    async def work() -> int:
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            source = await at.remote(remote)

            from annexpy.actions.get import relay
            from annexpy.actions.outflow import Outflow
            from annexpy.cli.progress import progress

            with progress(options, "get") as told:
                flow = Outflow(write)
                report.transfer(await relay(source, key, lambda: flow.put(key), progress=told))
        return report.exit_code

    return in_event_loop(work)
