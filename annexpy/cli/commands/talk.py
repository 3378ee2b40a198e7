"""``annexpy talk``: speak the P2P protocol by hand."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import TextIO

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import SOME_FAILED, in_event_loop
from annexpy.cli.show import write_line
from annexpy.p2p.states import State
from annexpy.p2p.versions import MAX_VERSION

__all__ = ["command"]


@as_command("talk")
@click.argument("remote", type=REMOTE)
@click.option("--transcript", type=click.File("w", lazy=False), help="Record the conversation, for `annexpy replay`.")
@click.option(
    "--p2p-version",
    "version",
    type=click.IntRange(0, MAX_VERSION),
    default=MAX_VERSION,
    metavar="N",
    help="Offer this version (4); 0 offers none.",
)
@click.option("--patience", type=click.FloatRange(0.1), default=60.0, metavar="SECONDS", help="Wait so long (60).")
def command(options: Options, remote: str, transcript: TextIO | None, version: int, patience: float) -> int:
    """Speak the P2P protocol with REMOTE: type messages, see the answers and the state of the session.

    What is not legal in a state is refused here, with what would be. `?` shows what is legal, `DATA @FILE` sends a
    file from the offset that the other side asked for. A repository on this machine is served by annexpy itself.
    """

    async def work() -> int:
        import anyio

        from annexpy.cli.talk import Talk
        from annexpy.cli.work import at_work
        from annexpy.remote.address import resolve

        async with at_work(options) as at:
            address = resolve(remote, at.repository)
            async with anyio.create_task_group() as tasks:
                if address.dial is not None:
                    wire = await address.dial()
                else:
                    from annexpy.server.serve import serve
                    from annexpy.transport.memory import memory_pair

                    local = await at.remote(remote)
                    wire, theirs = memory_pair(names=("talk", address.name))
                    tasks.start_soon(serve, theirs, local)
                talk = Talk(wire, write_line, transcript, patience, version)
                try:
                    await talk.run(_typed(), _prompt())
                finally:
                    with anyio.CancelScope(shield=True):
                        await wire.aclose()
                tasks.cancel_scope.cancel()
        return SOME_FAILED if talk.refused and not sys.stdin.isatty() else 0

    return in_event_loop(work)


async def _typed() -> AsyncIterator[bytes]:
    from anyio import to_thread

    while line := await to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        yield line.rstrip(b"\n")


def _prompt() -> Callable[[State], None]:
    def prompt(state: State) -> None:
        if sys.stdin.isatty():
            sys.stdout.write(f"{state}> ")
            sys.stdout.flush()

    return prompt
