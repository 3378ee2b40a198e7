"""Progress bars by rich: one for each running transfer, and one for them all. Imported on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from annexpy.cli.show import printable
from annexpy.keys.key import Key

__all__ = ["bars"]

_SMALL = 1024 * 1024
"""Smaller contents show in the total only: their bars would be gone before they are drawn."""


@contextmanager
def bars() -> Iterator[Callable[[Key, int, int | None], None]]:
    """Bars on stderr while the block runs, gone afterwards."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        total = drawn.add_task("total", total=0)
        tasks: dict[Key, tuple[TaskID | None, int]] = {}
        begun = 0

        def show(key: Key, done: int, size: int | None) -> None:
            nonlocal begun
            if key not in tasks:
                begun += size or 0
                task = None
                if size is None or size > _SMALL:
                    task = drawn.add_task(printable(str(key))[-32:], total=size, completed=done)
                drawn.update(total, total=begun, advance=done)
            else:
                task, before = tasks[key]
                drawn.update(total, advance=done - before)
                if task is not None:
                    drawn.update(task, completed=done)
            if done == size:
                tasks.pop(key, None)
                if task is not None:
                    drawn.remove_task(task)
            else:
                tasks[key] = task, done

        yield show
