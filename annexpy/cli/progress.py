"""Progress while bytes move: bars by rich on a terminal, one line without it, JSON lines for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from annexpy.cli.options import Options
from annexpy.cli.show import human_size, printable, write_json
from annexpy.keys.key import Key
from annexpy.system import CLOCK

__all__ = ["Told", "progress"]

Told: TypeAlias = Callable[[Key, int, int | None], None]
"""Told the key, how many bytes are where they should be, and how many there are."""

_EVERY: Final = 0.1
_FOR_PROGRAMS: Final = 0.5


@contextmanager
def progress(options: Options, command: str, note: str = "") -> Iterator[Told | None]:
    """What to hand to an action as its progress callback; None when nobody would see it.

    Args:
        options: JSON lines with --json-progress, nothing with --json or --quiet.
        command: For JSON: the name of the command.
        note: For JSON: as in the result.
    """
    if options.json_progress:
        yield _json(command, note)
    elif options.json or options.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
    else:
        try:
            from annexpy.cli.bars import bars
        except ImportError:  # rich is an extra
            with _line() as told:
                yield told
        else:
            with bars() as told:
                yield told


def _json(command: str, note: str) -> Told:
    """Lines as ``git annex --json-progress`` prints them: at most two a second for a key, and always the last."""
    last: dict[Key, float] = {}

    def told(key: Key, done: int, total: int | None) -> None:
        now, ended = CLOCK.now(), done == total
        if not ended and now - last.get(key, -_FOR_PROGRAMS) < _FOR_PROGRAMS:
            return
        last[key] = now
        if ended:
            del last[key]
        action: dict[str, object] = {"command": command, "input": [], "key": str(key)}
        line: dict[str, object] = {"action": action | ({"note": note} if note else {}), "byte-progress": done}
        if total is not None:
            percent = f"{100 * done / total:.2f}".rstrip("0").rstrip(".") if total else "100"
            line |= {"percent-progress": f"{percent}%", "total-size": total}
        write_json(line)

    return told


@contextmanager
def _line() -> Iterator[Told]:
    """One line on stderr, written over again and again."""
    shown = 0
    last = 0.0
    running: dict[Key, tuple[int, int | None]] = {}

    def told(key: Key, done: int, total: int | None) -> None:
        nonlocal shown, last
        running[key] = done, total
        if done == total:
            del running[key]
        now = CLOCK.now()
        if now - last < _EVERY:
            return
        last = now
        text = " · ".join(_short(key, *state) for key, state in list(running.items())[:3])
        sys.stderr.write("\r" + text.ljust(shown))
        sys.stderr.flush()
        shown = len(text)

    try:
        yield told
    finally:
        if shown:
            sys.stderr.write("\r" + " " * shown + "\r")
            sys.stderr.flush()


def _short(key: Key, done: int, total: int | None) -> str:
    percent = f" {100 * done // total}%" if total else ""
    return f"{printable(str(key))[-24:]} {human_size(done)}{percent}"
