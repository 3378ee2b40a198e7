"""``annexpy replay``: read a recorded conversation and say where it left the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import printable, write_json, write_line
from annexpy.p2p.states import Role
from annexpy.p2p.transcript import Row, Step, parse_row, replay

__all__ = ["command"]


@as_command("replay")
@click.argument("transcript", type=click.File("rb"))
def command(options: Options, transcript: BinaryIO) -> int:
    """Show the conversation in TRANSCRIPT, and before each line the state it leads to.

    A line that the protocol does not allow there is marked, with the reason. The format is that of
    `annexpy talk --transcript` and of the project's own recordings: one JSON object a line. `-` reads standard
    input. The exit code is 1 when something was out of order.
    """
    problems = 0
    for step in replay(_rows(transcript)):
        problems += bool(step.problem)
        if options.json:
            write_json(
                {
                    "command": "replay",
                    "wire": step.wire,
                    "sender": step.sender,
                    "text": step.text,
                    "state": step.state,
                    "problem": step.problem,
                }
            )
        elif step.problem or not options.quiet:
            write_line(_line(step))
    return 1 if problems else 0


def _rows(transcript: BinaryIO) -> Iterator[Row]:
    for line in transcript:
        if line.strip():
            yield parse_row(line)


def _line(step: Step) -> str:
    wire = f"[{printable(step.wire)[:40]}] " if step.wire else ""
    if step.sender is None:
        return f"{'':<14}{wire}# {printable(step.text)}"
    said = f"{step.state:<14}{wire}{'C' if step.sender is Role.CLIENT else 'S'}: {printable(_short(step.text))}"
    return said + (f"\n{'':<14}^ out of order: {printable(step.problem)}" if step.problem else "")


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
