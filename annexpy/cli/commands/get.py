"""``annexpy get``: fetch contents into files or into a repository."""

from __future__ import annotations

from pathlib import Path

import click

from annexpy.cli.keys import key_batches, wants_stdin
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("get")
@click.argument("remote", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option(
    "-o", "--output", metavar="PATH", type=click.Path(readable=False), help="Write to this file, or into this folder."
)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, remote: str, keys: tuple[str, ...], output: str | None, batch: bool) -> int:
    """Fetch each KEY from REMOTE: into the repository, or with -o into a file or folder.

    The content is verified while it comes and appears whole or not at all. An interrupted get goes on where it
    was. With several keys, -o names a folder, and each content is called as its key.
    """
    several = wants_stdin(keys, batch) or len(keys) > 1
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
            from annexpy.keys.key import Key
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

                async for some in key_batches(keys, batch, report):
                    fetched = (
                        copy(source, at.local(), some, jobs=options.jobs, progress=told)
                        if output is None
                        else Each(some, to_file, jobs=options.jobs, same=lambda key: key)
                    )
                    await fetched.tell(lambda result: report.transfer(result, note=note))
        return report.exit_code

    return in_event_loop(work)
