"""The report as text: one screen, a whole table, and DataLad's result records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glimmer_store.status import Cell, ObjectStatus, Report, State, Tier

__all__ = ["human_size", "records", "screen", "table"]

_SHOWN = 8
_WORDS = {
    Cell.PROVEN: "there",
    Cell.THERE: "there?",
    Cell.LOST: "LOST",
    Cell.BAD: "BAD",
    Cell.UNREACHABLE: "no answer",
    Cell.UNKNOWN: "no answer",
    Cell.CLAIMED: "claimed",
}


def human_size(size: int | None) -> str:
    """A size for people; a dash where it is not known."""
    if size is None:
        return "–"
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def table(report: Report) -> str:
    """One line per object: copies, class, where."""
    if not report.objects:
        return "no outputs are archived here yet (glimmer-store archive FILE…)"
    asked = [at for at, place in enumerate(report.places) if place.tier is not Tier.OTHER]
    rows = [("output", "class", "copies", *(report.places[at].name for at in asked), "")]
    rows += [
        (
            entry.name,
            entry.storage_class.value,
            f"{len(entry.live)}/{entry.needed}",
            *(_WORDS.get(entry.cells[at], "-") for at in asked),
            "; ".join((*(() if entry.safe else ("too few copies",)), *entry.drift)),
        )
        for entry in report.objects
    ]
    return "\n".join([*_columns(rows), "", *_columns(_capacity(report)), "", _verdict(report)])


def _capacity(report: Report) -> list[tuple[str, ...]]:
    """What each place holds, and what still fits."""
    rows: list[tuple[str, ...]] = [("place", "tier", "used", "free", "known by")]
    for place in report.places:
        free = "unknown" if place.free is None else human_size(place.free)
        rows.append((place.name, place.tier.value, human_size(place.used), free, place.free_by or "–"))
    return rows


def screen(report: Report) -> str:
    """All that fits on one screen: figures, places, and what to do first."""
    lines = [f"{report.dataset}: {_verdict(report)}", ""]
    lines += ["  ".join(f"{name} {count}" for name, count in report.tiles.items()), ""]
    rows = [("place", "tier", "objects", "")]
    for at, place in enumerate(report.places):
        there = sum(entry.cells[at] in (Cell.PROVEN, Cell.THERE, Cell.CLAIMED) for entry in report.objects)
        note = f"no answer: {place.error}" if place.error else ""
        rows.append((place.name, place.tier.value, "?" if place.error else str(there), note))
    lines += _columns(rows)
    found = report.findings
    for one in found[:_SHOWN]:
        lines += ["", f"{one.subject}: {one.text}"]
        if one.command:
            lines.append(f"  remedy: {one.command}")
    if len(found) > _SHOWN:
        lines += ["", f"and {len(found) - _SHOWN} more: glimmer-store report"]
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    safe = len(report.objects) - len(report.under_replicated)
    return f"{safe} of {len(report.objects)} outputs have all the copies they need"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def records(report: Report) -> Iterator[dict[str, object]]:
    """A result record for each object, as DataLad has them.

    ``ok``: as many copies as needed. ``impossible``: a place could not be asked. ``error``: too few.
    """
    for entry in report.objects:
        record: dict[str, object] = {
            "action": "glimmer-store-report",
            "path": f"{report.dataset}/{entry.node.output or entry.node.file}",
            "type": "file",
            "status": {State.SAFE: "ok", State.UNREACHABLE: "impossible", State.AT_RISK: "error"}[entry.state],
            "message": _message(entry),
            "refds": report.dataset,
        }
        if entry.node.key is not None:
            record["key"] = str(entry.node.key)
        yield record
    for found in report.general:
        path, message = f"{report.dataset}/{found.subject}", found.text
        record = {"action": "glimmer-store-report", "path": path, "type": "file", "status": "error"}
        yield {**record, "message": message, "refds": report.dataset}


def _message(entry: ObjectStatus) -> str:
    said = [f"{len(entry.live)} of {entry.needed} copies are there", *entry.drift]
    return "; ".join(said)
