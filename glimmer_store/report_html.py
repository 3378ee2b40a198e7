"""The report as one HTML file that needs nothing else.

The objects stand in the file as one compact block of columns; the page shows them a hundred at a time. Without
JavaScript it still shows the figures, the places and the first objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from glimmer_store.report_text import human_size
from glimmer_store.status import Cell, ObjectStatus, Place, Report, State, Tier, as_text

__all__ = ["page"]

_FOLDER: Final = Path(__file__).parent / "page"
_FIRST: Final = 50
"""Objects that are shown without JavaScript."""
_CODES: Final = dict(zip(Cell, "ptlbmauqc", strict=True))
_LOOK: Final = {
    Cell.PROVEN: "good",
    Cell.THERE: "warn",
    Cell.LOST: "bad",
    Cell.BAD: "bad",
    Cell.MISSING: "warn",
    Cell.ABSENT: "none",
    Cell.UNREACHABLE: "odd",
    Cell.UNKNOWN: "none",
    Cell.CLAIMED: "none",
}
_STATES: Final = {
    State.SAFE: ("s", "good", "✓"),
    State.AT_RISK: ("r", "bad", "✗"),
    State.UNREACHABLE: ("u", "odd", "?"),
}
_TILES: Final = {
    "safe": ("good", "✓", "Safe"),
    "at risk": ("bad", "✗", "At risk"),
    "one copy": ("bad", "1", "One copy or none"),
    "unverified": ("warn", "○", "Unverified"),
    "unreachable": ("odd", "?", "Unreachable"),
    "drift": ("warn", "≠", "Drift"),
}
_FIGURES: Final = ("Objects", "Used", "Free", "Maxsize")
"""Of a place."""
_TIERS: Final = {Tier.BARE: "Durable", Tier.ADJUNCT: "Adjunct", Tier.OTHER: "Other"}


def page(report: Report) -> str:
    """The whole page. Objects that need something stand first."""
    order = {State.AT_RISK: 0, State.UNREACHABLE: 1, State.SAFE: 2}
    objects = sorted(report.objects, key=lambda entry: (order[entry.state], not entry.drift, entry.name))
    data = json.dumps(_data(report, objects), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "name": escape(Path(report.dataset).name or report.dataset),
        "css": _part("report.css"),
        "dataset": escape(report.dataset),
        "made": f"{report.made:%Y-%m-%d %H:%M} UTC",
        "verdict": _verdict(report),
        "tiles": "".join(_tile(name, count) for name, count in report.tiles.items()),
        "places": _places(report),
        "general": _general(report),
        "legend": "".join(f"<li>{_chip(cell)} {cell.meaning}</li>" for cell in Cell),
        "columns": len(report.places) + 3,
        "head": _head(report.places),
        "rows": "".join(_row(entry, report.places) for entry in objects[:_FIRST]),
        "first": min(_FIRST, len(objects)),
        "count": len(objects),
        "data": data,
        "js": _part("report.js"),
    }
    return as_text(Template(_part("report.html")).substitute(parts))


def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


# -- the parts of the page --


def _verdict(report: Report) -> str:
    tiles, whole = report.tiles, len(report.objects)
    short, unknown = tiles["at risk"], tiles["unreachable"]
    if not whole:
        return '<p class="verdict none">Nothing is archived here yet</p>'
    if not short and not unknown:
        return '<p class="verdict good">✓ Every object has all the copies it needs</p>'
    said = [f"✗ {short:,} of {whole:,} objects lack copies"] if short else []
    said += [f"{'' if short else '? '}{unknown:,} cannot be checked now"] if unknown else []
    return f'<p class="verdict {"bad" if short else "odd"}">{"; ".join(said)}</p>'


def _tile(name: str, count: int) -> str:
    look, symbol, label = _TILES[name]
    colour = look if count else "none"
    return (
        f'<li><button type="button" class="tile" data-filter="{name}" aria-pressed="false"><b>{count:,}</b>'
        f'<i class="{colour}" aria-hidden="true">{symbol}</i>{label}</button></li>\n'
    )


def _places(report: Report) -> str:
    rows = []
    for at, place in enumerate(report.places):
        there = sum(entry.cells[at] in (Cell.PROVEN, Cell.THERE, Cell.CLAIMED) for entry in report.objects)
        answer = '<span class="badge good">✓ answers</span>'
        if place.error:
            answer = f'<span class="badge odd">? no answer</span> <span class="dim">{escape(place.error)}</span>'
        elif place.tier is Tier.OTHER:
            answer = '<span class="badge none">~ not asked</span>'
        figures = (
            "?" if place.error else f"{there:,}",
            human_size(place.used) + _bar(place),
            _free(place),
            human_size(place.maxsize),
        )
        rows.append(
            f'<tr role="row"><th scope="row" role="rowheader">{escape(place.name)}<br>'
            f'<code class="dim uuid">{escape(place.uuid)}</code></th>'
            f'<td role="cell" class="kind">{_TIERS[place.tier]}</td><td role="cell" class="answer">{answer}'
            + (f'<br><code class="dim url">{escape(place.url)}</code>' if place.url else "")
            + "</td>"
            + "".join(
                f'<td role="cell" class="number" data-of="{of}">{figure}</td>'
                for of, figure in zip(_FIGURES, figures, strict=True)
            )
            + "</tr>\n"
        )
    heads = "".join(f'<th scope="col" role="columnheader">{of}</th>' for of in ("Place", "Tier", "State"))
    heads += "".join(f'<th scope="col" role="columnheader" class="number">{of}</th>' for of in _FIGURES)
    # With roles, because the narrow form is a table to those who hear it, and not to those who see it.
    return (
        f'<table id="places" role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f'<tbody role="rowgroup">{"".join(rows)}</tbody></table>\n'
    )


def _free(place: Place) -> str:
    if place.free is None:
        return '<span class="dim">unknown</span>'
    return human_size(place.free) + (
        f'<br><span class="dim">by {escape(place.free_by)}</span>' if place.free_by else ""
    )


def _bar(place: Place) -> str:
    if place.used is None or place.free is None:
        return ""
    share = 100 * place.used / max(1, place.used + place.free)
    return (
        f'<span class="bar" role="img" aria-label="{share:.0f} % used"><span style="width:{share:.1f}%"></span></span>'
    )


def _general(report: Report) -> str:
    """What is the matter with the dataset as a whole."""
    return "".join(
        f'<div class="matter">{escape(found.subject)}: {escape(found.text)}'
        + (f'<div class="command"><code>{escape(found.command)}</code></div>' if found.command else "")
        + "</div>\n"
        for found in report.general
    )


def _head(places: Sequence[Place]) -> str:
    tiers = [tier for tier in Tier if any(place.tier is tier for place in places)]
    groups = "".join(
        f'<th scope="colgroup" class="tier" colspan="{sum(p.tier is tier for p in places)}">{_TIERS[tier]}</th>'
        for tier in tiers
    )
    first = _first_of_tier(places)
    names = "".join(
        f'<th scope="col" class="place{" first" if at in first else ""}"><span>{escape(place.name)}</span></th>'
        for at, place in enumerate(places)
    )
    return (
        f'<thead><tr id="tiers"><th></th><th class="class"></th><th></th>{groups}</tr>'
        f'<tr><th scope="col">Object</th><th scope="col" class="class">Class</th><th scope="col">Copies</th>'
        f"{names}</tr></thead>"
    )


def _first_of_tier(places: Sequence[Place]) -> list[int]:
    return [at for at, place in enumerate(places) if at == 0 or places[at - 1].tier is not place.tier]


def _chip(cell: Cell) -> str:
    return f'<span class="chip {_LOOK[cell]}" aria-hidden="true">{cell.symbol}</span>'


def _breakable(name: str) -> str:
    return re.sub("(?<=[/_])", "<wbr>", escape(name))


def _row(entry: ObjectStatus, places: Sequence[Place]) -> str:
    _, look, symbol = _STATES[entry.state]
    cells = "".join(
        f'<td class="cell" title="{escape(place.name)}: {cell.meaning}">{_chip(cell)}</td>'
        for place, cell in zip(places, entry.cells, strict=True)
    )
    return (
        f'<tr><th scope="row">{_breakable(entry.name)}</th><td class="class">{entry.storage_class.value}</td>'
        f'<td><span class="badge {look}">{len(entry.live)}/{entry.needed} {symbol}</span></td>{cells}</tr>\n'
    )


# -- the block of data --


def _data(report: Report, objects: Sequence[ObjectStatus]) -> dict[str, object]:
    """Everything about the objects, by columns; what few of them have stands by index."""
    at = {place.name: index for index, place in enumerate(report.places)}
    events: dict[tuple[object, ...], int] = {}
    kinds: dict[str, int] = {}
    times = [proof.when for entry in objects for proof in entry.proofs.values() if proof.when is not None]
    base = int(min(times).timestamp() // 60) if times else 0

    def refer(names: Iterable[str]) -> tuple[int | str, ...]:
        return tuple(at.get(name, name) for name in names)

    def proofs(entry: ObjectStatus) -> list[tuple[int | None, int, list[int | str]]]:
        alike: dict[tuple[int | None, int], list[int | str]] = {}
        for name, proof in entry.proofs.items():
            kind = kinds.setdefault(proof.words, len(kinds))
            when = None if proof.when is None else int(proof.when.timestamp() // 60) - base
            alike.setdefault((when, kind), []).append(at.get(name, name))
        return [(when, kind, names) for (when, kind), names in alike.items()]

    def history(entry: ObjectStatus) -> list[int]:
        told = [(int(e.when.timestamp()), refer(e.got), refer(e.lost)) for e in entry.history]
        return [events.setdefault(event, len(events)) for event in told]

    return {
        "places": [{"name": place.name} for place in report.places],
        "first": _first_of_tier(report.places),
        "codes": {code: (cell.symbol, cell.meaning, _LOOK[cell]) for cell, code in _CODES.items()},
        "states": {code: (symbol, look) for code, look, symbol in _STATES.values()},
        "classes": ("irreplaceable", "generated"),
        "names": _folded([entry.name for entry in objects]),
        "ids": _folded([entry.node.id for entry in objects]),
        "keys": ["" if entry.node.key is None else str(entry.node.key) for entry in objects],
        "class": "".join("01"[entry.storage_class.value == "generated"] for entry in objects),
        "state": "".join(_STATES[entry.state][0] for entry in objects),
        "one": "".join("01"[entry.single] for entry in objects),
        "unverified": "".join("01"[entry.unverified] for entry in objects),
        "live": [len(entry.live) for entry in objects],
        "needed": [entry.needed for entry in objects],
        "cells": "".join([_CODES[cell] for entry in objects for cell in entry.cells]),
        "drift": {index: entry.drift for index, entry in enumerate(objects) if entry.drift},
        "matters": {
            index: [(found.text, _without_names(found.command, entry)) for found in entry.findings]
            for index, entry in enumerate(objects)
            if entry.findings
        },
        "proofs": {index: proofs(entry) for index, entry in enumerate(objects) if entry.proofs},
        "history": {index: history(entry) for index, entry in enumerate(objects) if entry.history},
        "proofKinds": list(kinds),
        "base": base,
        "events": list(events),
    }


def _without_names(command: str, entry: ObjectStatus) -> str:
    """*command* with the id and the key of *entry*, which the page has already, as one character each."""
    if entry.node.key is not None:
        command = command.replace(str(entry.node.key), "\2")
    return re.sub(rf"(?<= ){re.escape(entry.node.id)}\Z", "\1", command)


def _folded(words: Sequence[str]) -> list[str]:
    """Each word as how much of it is that of the one before (two digits to the base of 36), and the rest."""
    folded, last = [], ""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    for word in words:
        same = 0
        for one, other in zip(word, last, strict=False):
            if one != other or ord(one) > 0xFFFF or same == 1295:  # JavaScript counts such characters twice
                break
            same += 1
        folded.append(digits[same // 36] + digits[same % 36] + word[same:])
        last = word
    return folded
