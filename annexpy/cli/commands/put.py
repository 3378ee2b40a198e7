"""``annexpy put``: store files on a remote."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import click

from annexpy.cli.backends import BACKEND
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("put")
@click.argument("remote", type=REMOTE)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(readable=False))
@click.option("--backend", metavar="NAME", type=BACKEND, help="How keys are made (annex.backend, else SHA256E).")
@click.option("--key", "named", metavar="KEY", help="The key of the only FILE, instead of computing it.")
@click.option("--batch", is_flag=True, help="Read file names from standard input, one a line.")
def command(
    options: Options, remote: str, files: tuple[str, ...], backend: str | None, named: str | None, batch: bool
) -> int:
    """Store each FILE on REMOTE.

    REMOTE checks size and hash before a file counts as stored. What it has already is found out and not sent again,
    and a put that was interrupted goes on where it was. An annexed file of the work tree keeps its key, whatever
    --backend says; one that is unlocked and was modified gets a new one.
    """
    if bool(files) == batch:
        raise click.UsageError("Give FILEs, or --batch to read their names from standard input.")
    if named is not None and len(files) != 1:
        raise click.UsageError("--key goes with one FILE.")
    report = Report(options, "put")

    async def work() -> int:
        from annexpy.cli.work import at_work
        from annexpy.errors import AnnexError
        from annexpy.keys.key import Key

        names: dict[Key, list[str]] = {}

        async def items() -> AsyncIterator[tuple[Key, str]]:
            async for file in _names(files):
                try:
                    key = Key.parse(named) if named else annexed_key(file) or await tree.key_of(file, backend=backend)
                except AnnexError as error:
                    report.failed(error, file=file, input=[file])
                    continue
                names.setdefault(key, []).append(file)
                yield key, file

        async with at_work(options) as at:
            target = await at.remote(remote)

            from annexpy.actions.key import annexed_key  # while a server far away does the same
            from annexpy.actions.put import put_many
            from annexpy.actions.results import Transfer
            from annexpy.actions.work_tree_keys import WorkTreeKeys
            from annexpy.cli.progress import progress

            tree = WorkTreeKeys(at.repository)

            note = f"to {target.name}..."
            with progress(options, "put", note) as told:

                def show(result: Transfer) -> None:
                    file = names[result.key].pop(0)
                    report.transfer(result, note=note, file=file, input=[file])

                await put_many(target, items(), jobs=options.jobs, progress=told).tell(show)
        return report.exit_code

    return in_event_loop(work)


async def _names(files: tuple[str, ...]) -> AsyncIterator[str]:
    for file in files:
        yield file
    if files:
        return
    from anyio import to_thread

    while line := await to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
