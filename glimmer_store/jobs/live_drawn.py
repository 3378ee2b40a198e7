"""The figures of a job drawn by rich, over the whole screen. Imported on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from glimmer_store.jobs.figures_text import headline, tables
from glimmer_store.jobs.summary import Figures

__all__ = ["drawing", "drawn"]


@contextmanager
def drawing() -> Iterator[Callable[[Figures], None]]:
    """Draw figures while the block runs; the screen is as it was afterwards."""
    with Live(auto_refresh=False, screen=True) as live:
        yield lambda figures: live.update(drawn(figures), refresh=True)


def drawn(figures: Figures) -> Group:
    """All of it: what comes first, a bar, and the tables."""
    safety = figures.around.safety
    alarm = figures.at_risk or (safety is not None and safety.irreplaceable_below)
    parts: list[RenderableType] = [Text(figures.first_line, style="bold red" if alarm else "bold green")]
    parts += [Text(headline(figures)), ProgressBar(total=100, completed=figures.percent["bytes"])]
    for title, heads, rows in tables(figures):
        table = Table(title=title, title_justify="left", box=None, show_header=any(heads), pad_edge=False)
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number and any(heads) else "left", overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        parts.append(table)
    return Group(*parts)
