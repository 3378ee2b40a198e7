"""``annexpy check``: which keys a remote really has."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("check")
@click.argument("remote")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, remote: str, keys: tuple[str, ...], batch: bool) -> int:
    """Ask REMOTE whether it has each KEY. It looks; no log is believed. Exit code 1 when one is not there."""
    from annexpy.cli.keys import wants_stdin
    from annexpy.cli.run import in_event_loop

    wants_stdin(keys, batch)
    return in_event_loop(lambda: _check(options, remote, keys, batch))


async def _check(options: Options, address: str, keys: tuple[str, ...], batch: bool) -> int:
    from annexpy.actions.has import has_many
    from annexpy.cli.keys import key_batches
    from annexpy.cli.session import session
    from annexpy.errors import KeyNotPresent

    report = Report(options, "check")
    async with session(options) as here:
        remote = await here.remote(address)
        async for some in key_batches(keys, batch, report):
            for key, present in zip(some, await has_many(remote, some), strict=True):
                if present:
                    report.done(key, input=[str(key)], present=True)
                else:
                    report.failed(KeyNotPresent(key, remote.name), key, input=[str(key)], present=False)
    return report.exit_code
