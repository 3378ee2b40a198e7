"""Writes the pages that are made from the code: docs/cli.md, docs/states.md and docs/p2p-as-spoken.md.

``python docs/generate.py`` writes them; a test fails when they are not what the code says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from annexpy.cli.group import COMMANDS, annexpy
from annexpy.p2p.states import AFTER_DATA, PIPELINING, ROWS, Role, Row, State, Unexpected
from annexpy.p2p.versions import MAX_VERSION
from protocol_tests.specification import specification

__all__ = ["PAGES", "cli_page", "spoken_page", "states_page"]

_HERE = Path(__file__).parent
_MADE = "<!-- Made by docs/generate.py: change the code instead. -->\n"


def cli_page() -> str:
    """The reference of every command."""
    parts = [_MADE, "# Commands\n"]
    parts += [
        "Every command takes the common options, before its name or after it. "
        "Exit codes stand on [a page of their own](exit-codes.md).\n",
        "```text\n" + _help(annexpy, "annexpy") + "\n```\n",
    ]
    for name in sorted(COMMANDS):
        command = annexpy.get_command(click.Context(annexpy), name)
        assert command is not None
        parts += [f"## annexpy {name}\n", "```text\n" + _help(command, f"annexpy {name}") + "\n```\n"]
        for one, part in sorted(command.commands.items() if isinstance(command, click.Group) else ()):
            said = _help(part, f"annexpy {name} {one}").partition("\nCommon options:")[0].rstrip()
            parts += [f"### annexpy {name} {one}\n", "```text\n" + said + "\n```\n"]
    return "\n".join(parts)


def _help(command: click.Command, name: str) -> str:
    settings = {**annexpy.context_settings, "terminal_width": 100, "max_content_width": 100}
    context = click.Context(command, info_name=name, **settings)
    text = command.get_help(context)
    if command is not annexpy:
        text = text.split("\nCommon options:")[0]
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def states_page() -> str:
    """The state diagram and the table behind it."""
    return "\n".join(
        [
            _MADE,
            "# States of a P2P session\n",
            "One *exchange* is a request with everything that belongs to it. `annexpy/p2p/states.py` holds the whole "
            "protocol as one table; client, server, `annexpy talk`, `annexpy replay` and this page read it.\n",
            "```mermaid\nstateDiagram-v2",
            *_arrows(),
            "```\n",
            "`C` is the client, `S` the server. Requests that may be pipelined: "
            + ", ".join(f"`{_name(row)}`" for row in ROWS if row.pipelined and row.state is State.IDLE)
            + ". While the server owes the answer to one of them, the client may already send its next request.\n",
            "| state | sender | message | next state | from version |",
            "|---|---|---|---|---|",
            *(
                f"| {row.state} | {row.sender} | {_name(row)} | {row.next} | {row.since} |"
                for row in ROWS
                if not issubclass(row.message, Unexpected)
            ),
            *(
                f"| {state} | {_sender(state)} | the last byte | {later} ({first} at version 0) | 0 |"
                for state, (first, later) in AFTER_DATA.items()
            ),
            "",
            f"Versions 0 to {MAX_VERSION} are spoken. A message that has no place in a state is answered by `ERROR` "
            "and the session goes on, except inside a relayed git service.",
            "",
        ]
    )


def _arrows() -> list[str]:
    grouped: dict[tuple[State, State], list[str]] = {}
    for row in ROWS:
        if issubclass(row.message, Unexpected) or row.state in (State.PUT_REFUSED, State.CLOSED):
            continue
        side = "C" if row.sender is Role.CLIENT else "S"
        grouped.setdefault((row.state, row.next), []).append(f"{side} {_name(row)}")
    for state, (_, later) in AFTER_DATA.items():
        grouped.setdefault((state, later), []).append("the last byte")
    lines = ["    [*] --> GREETING", "    [*] --> AUTH"]
    for (state, following), labels in grouped.items():
        lines.append(f"    {_node(state)} --> {_node(following)}: {' / '.join(dict.fromkeys(labels))}")
    return lines + [f"    class {_node(state)} pipelining" for state in sorted(PIPELINING)]


def _sender(state: State) -> Role:
    return Role.SERVER if state is State.GET_DATA else Role.CLIENT


def _name(row: Row) -> str:
    return row.message.verb.decode() if not issubclass(row.message, Unexpected) else "anything else"


def _node(state: State) -> str:
    return state.replace("-", "_")


def spoken_page() -> str:
    """What implementations of the protocol keep to."""
    return f"{_MADE}\n{specification()}"


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli_page, "states.md": states_page, "p2p-as-spoken.md": spoken_page}
"""Page → what makes its text."""


if __name__ == "__main__":
    for name, make in PAGES.items():
        (_HERE / name).write_text(make())
