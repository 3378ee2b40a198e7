"""``annexpy lock``: keep a content from being dropped."""

from __future__ import annotations

import sys

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import SOME_FAILED, in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]

_LOOK = 5.0


@as_command("lock")
@click.argument("remote", type=REMOTE)
@click.argument("key")
@click.argument("run", metavar="[-- COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(options: Options, remote: str, key: str, run: tuple[str, ...]) -> int:
    """Keep KEY from being dropped from REMOTE while COMMAND runs, or until standard input ends.

    The exit code is that of COMMAND (127 or 126 where it cannot be run), or 1 when the lock was lost before COMMAND
    had ended. A lock lasts as long as its connection; a server of annexpy keeps the content for ten minutes even when
    the connection is lost.
    """
    from annexpy.keys.key import Key

    report = Report(options, "lock")
    wanted = Key.parse(key)

    async def work() -> int:
        import anyio

        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            place = await at.remote(remote)
            async with place.lock_content(wanted) as lock:
                if not run:
                    report.done(wanted, note=f"locked in {place.name}", fields={"uuid": lock.uuid})
                lost = False
                code = 0

                async with anyio.create_task_group() as tasks:

                    async def watch() -> None:
                        nonlocal lost
                        while not lost:
                            await anyio.sleep(_LOOK)
                            lost = not await lock.held()
                        tasks.cancel_scope.cancel()

                    tasks.start_soon(watch)
                    if run:
                        try:
                            done = await anyio.run_process(run, check=False, stdin=None, stdout=None, stderr=None)
                            code = done.returncode
                        except OSError as error:
                            report.failed(f"command {run[0]!r}: {error.strerror}")
                            code = 127 if isinstance(error, FileNotFoundError) else 126  # as shells say it
                    else:
                        await anyio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
                    tasks.cancel_scope.cancel()
                lost = lost or not await lock.held()
            if lost:
                report.failed(f"the lock in {place.name} was lost", wanted)
                return code or SOME_FAILED
        return code

    return in_event_loop(work)
