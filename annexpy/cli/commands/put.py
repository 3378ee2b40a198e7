"""``annexpy put``: files into a remote."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report
from annexpy.errors import AnnexError
from annexpy.keys.backend import DEFAULT_BACKEND

__all__ = ["command"]


@as_command("put")
@click.argument("remote")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path())
@click.option("--backend", metavar="NAME", default=DEFAULT_BACKEND.decode(), help="How keys are made (SHA256E).")
@click.option("--batch", is_flag=True, help="Read file names from standard input, one a line.")
def command(options: Options, remote: str, files: tuple[str, ...], backend: str, batch: bool) -> int:
    """Store each FILE on REMOTE and print its key.

    A put that was cut off is resumed by the next one. A file whose content REMOTE has already is not sent.
    """
    from annexpy.cli.run import in_event_loop

    if bool(files) == batch:
        raise click.UsageError("Give FILEs, or --batch to read their names from standard input.")
    return in_event_loop(lambda: _put(options, remote, files, backend, batch))


async def _put(options: Options, address: str, files: tuple[str, ...], backend: str, batch: bool) -> int:
    from anyio import to_thread

    from annexpy.actions.key import key_of
    from annexpy.actions.put import put_many
    from annexpy.cli.progress import progress
    from annexpy.cli.session import session
    from annexpy.cli.transfers import show_transfer
    from annexpy.keys.key import Key

    report = Report(options, "put")
    names: dict[Key, str] = {}

    async def lines() -> AsyncIterator[str]:
        if not batch:
            for file in files:
                yield file
            return
        while line := await to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
            if name := line.rstrip(b"\r\n"):
                yield os.fsdecode(name)

    async def sources() -> AsyncIterator[tuple[Key, str]]:
        async for file in lines():
            try:
                key = await key_of(file, backend=backend)
            except AnnexError as error:
                report.failed(error, file=file, input=[file])
                continue
            names[key] = file
            yield key, file

    async with session(options) as here:
        remote = await here.remote(address)
        with progress(options, "put") as told:
            async for transfer in put_many(remote, sources(), jobs=options.jobs, progress=told):
                show_transfer(report, transfer, file=names.pop(transfer.key, None))
    return report.exit_code
