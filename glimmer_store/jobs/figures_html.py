"""The figures of a job as one HTML file that needs nothing else, in the looks of the report."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Final

import glimmer_store
from glimmer_store.jobs.figures_text import Table, duration, headline, tables
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.summary import Figures
from glimmer_store.status import as_text

__all__ = ["page"]

_FOLDER: Final = Path(glimmer_store.__file__).parent / "page"
_FIGURE: Final = 40
"""Letters of the longest cell that is a figure; what is longer is text."""
_STATES: Final = {
    JobState.ACCEPTED: "none",
    JobState.PROCESSING: "good",
    JobState.PAUSED: "warn",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.CANCELLED: "warn",
}


def page(figures: Figures) -> str:
    """The whole page."""
    around = figures.around
    parts = {
        "type": escape(around.type),
        "job": escape(around.job),
        "css": (_FOLDER / "report.css").read_text(encoding="utf-8"),
        "dests": escape(", ".join(map(figures.name, around.free))),
        "made": f"{datetime.fromtimestamp(around.now, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "look": _verdict(figures),
        "first": escape(figures.first_line),
        "headline": escape(headline(figures)),
        "tiles": "".join(_tile(*tile) for tile in _tiles(figures)),
        "tables": "".join(map(_table, tables(figures))),
    }
    return as_text(Template((_FOLDER / "job.html").read_text(encoding="utf-8")).substitute(parts))


def _verdict(figures: Figures) -> str:
    safety = figures.around.safety
    if safety is not None and safety.irreplaceable_below:
        return "bad"
    return "warn" if figures.at_risk else "good"


def _tiles(figures: Figures) -> list[tuple[str, str, str, str]]:
    failed, stalled, eta = figures.group("failed")[0], len(figures.stalled), figures.eta
    bad = sum(figures.bad_copies().values())
    not_yet = "not dropped" if figures.drains else "not proven"
    return [
        (f"{figures.percent['bytes']:.0f} %", _STATES[figures.around.state], "↑", str(figures.around.state).title()),
        ("–" if eta is None else duration(eta.seconds), "none", "⧗", "Left"),
        (f"{figures.at_risk:,}", "warn" if figures.at_risk else "none", "!", "Irreplaceable, " + not_yet),
        (f"{failed:,}", "bad" if failed else "none", "✗", "Failed"),
        (f"{bad:,}", "bad" if bad else "none", "≠", "Bad copies found"),
        (f"{stalled:,}", "odd" if stalled else "none", "?", "Stalled"),
    ]


def _tile(value: str, look: str, symbol: str, label: str) -> str:
    inside = f'<b>{escape(value)}</b><i class="{look}" aria-hidden="true">{symbol}</i>{escape(label)}'
    return f'<li><div class="tile">{inside}</div></li>\n'


def _table(table: Table) -> str:
    title, heads, rows = table
    head = ""
    if any(heads):
        cells = "".join(_cell("th", number, name, ' scope="col"') for number, name in enumerate(heads))
        head = f"<thead><tr>{cells}</tr></thead>\n"
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(_cell("td", number, cell) for number, cell in enumerate(row[1:], 1))
        + "</tr>\n"
        for row in rows
    )
    name = escape(title)
    return (
        f'<h2>{name}</h2>\n<div class="card scroll" tabindex="0" role="region" aria-label="{name}">\n'
        f"<table>{head}<tbody>\n{body}</tbody></table>\n</div>\n"
    )


def _cell(tag: str, number: int, text: str, more: str = "") -> str:
    kind = ' class="number"' if number and len(text) <= _FIGURE else ""
    return f"<{tag}{kind}{more}>{escape(text)}</{tag}>"
