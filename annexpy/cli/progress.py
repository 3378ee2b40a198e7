"""Progress while contents move: bars on a terminal, JSON lines with --json-progress, else nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from annexpy.actions.results import Progress
from annexpy.cli.options import Options
from annexpy.cli.show import printable, write_json
from annexpy.keys.key import Key

__all__ = ["progress"]

_EVERY = 0.1
"""Seconds between two lines, or two drawings, of one transfer."""
_WORTH_A_BAR = 1 << 20


@contextmanager
def progress(options: Options, command: str) -> Iterator[Progress | None]:
    """The callback to hand to an action, or None when nobody looks."""
    if options.json_progress:
        yield _Lines(command).told
    elif options.json or options.quiet or not sys.stderr.isatty():
        yield None
    else:
        with _bars() as told:
            yield told


class _Lines:
    """The fields of git-annex's ``--json-progress``."""

    def __init__(self, command: str) -> None:
        self._command, self._last = command, 0.0

    def told(self, key: Key, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY and done != total:
            return
        self._last = now
        line: dict[str, object] = {
            "action": {"command": self._command, "key": str(key), "file": None, "input": []},
            "byte-progress": done,
        }
        if total is not None:
            line |= {"total-size": total, "percent-progress": f"{100 * done / total if total else 100:.2f}%"}
        write_json(line)


@contextmanager
def _bars() -> Iterator[Progress | None]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError:  # rich is an extra: without it the results alone are shown
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        shown: dict[Key, tuple[int, int | None, float]] = {}

        def told(key: Key, done: int, total: int | None) -> None:
            if total is not None and total < _WORTH_A_BAR:
                return
            if key not in shown:
                text = printable(str(key))
                task = bars.add_task(text if len(text) < 44 else text[:40] + "…", total=total)
                shown[key] = (int(task), total, 0.0)
            task_id, _, last = shown[key]
            now = time.monotonic()
            if done == total or now - last >= _EVERY:
                shown[key] = (task_id, total, now)
                bars.update(bars.tasks[task_id].id, completed=done)
            if done == total:
                bars.remove_task(bars.task_ids[bars.task_ids.index(shown.pop(key)[0])])  # type: ignore[arg-type]

        yield told
