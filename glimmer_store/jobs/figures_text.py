"""The figures of a job for people: one screen, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from glimmer_store.jobs.eta import ETA
from glimmer_store.jobs.summary import GROUPS, Figures
from glimmer_store.report_text import human_size

__all__ = ["duration", "duration_range", "headline", "markdown", "screen", "tables", "told_limits"]

_ROLES = (("source", "source"), ("dest", "destination"), ("worker", "worker"))
_SHOWN = 6


def duration(seconds: float) -> str:
    """For people: ``40 s``, ``12 min``, ``3.5 h``, ``4.2 days``."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 10 and unit != "min" else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def duration_range(eta: ETA | None) -> str:
    """What is left, as a guess and a range."""
    if eta is None:
        return "not known yet"
    if not eta.high:
        return "nothing left"
    return f"{duration(eta.seconds)} ({duration(eta.low)} to {duration(eta.high)})"


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, heads of the columns, rows."""


def tables(figures: Figures) -> list[Table]:
    """All figures as tables; those with nothing in them are left out."""
    found = [
        _progress(figures),
        _speed(figures),
        _health(figures),
        _failed(figures),
        _cold(figures),
        _resources(figures),
    ]
    return [table for table in found if table[2]]


def _progress(figures: Figures) -> Table:
    rows: list[tuple[str, ...]] = [
        (name, f"{keys:,}", human_size(size))
        for name in GROUPS
        if (keys := (counted := figures.group(name))[0]) or name in ("planned", "registered")
        for size in counted[1:]
    ]
    keys, size = figures.total
    nodes, every = figures.around.nodes
    rows.append(("all", f"{keys:,}", human_size(size)))
    if every:
        rows.append(("nodes complete", f"{nodes:,} of {every:,}", f"{figures.percent['nodes']:.1f} %"))
    return "Progress", ("state", "keys", "bytes"), rows


def _speed(figures: Figures) -> Table:
    rows: list[tuple[str, ...]] = []
    now = figures.around.now
    for word, what in figures.flow_words:
        whole = figures.flow(what)
        if not whole.keys:
            continue
        named = [(word, whole)]
        for role, told in _ROLES:
            flows = list(figures.flows(what, role))
            named += [(f"  {told} {name}", flow) for name, flow in flows[:_SHOWN]]
            if len(flows) > _SHOWN:
                named.append((f"  and {len(flows) - _SHOWN} more of them", flows[_SHOWN][1]))
        for name, flow in named:
            if name.startswith("  and "):
                rows.append((name, "", "", "", ""))
                continue
            (_, at_once), (keys, ten) = flow.speed(now, 30), flow.speed(now, 600)
            speeds = [f"{human_size(int(rate))}/s" for rate in (at_once, ten, flow.size / flow.active)]
            rows.append((name, *speeds, f"{keys:.1f}/s"))
    return "Speed", ("", "now", "10 min", "whole run", "keys, 10 min"), rows


def _health(figures: Figures) -> Table:
    around = figures.around
    rows: list[tuple[str, ...]] = [("workers alive", f"{len({one.worker for one in figures.alive}):,}")]
    if figures.expired:
        rows.append(("expired leases", f"{figures.expired:,}"))
    rows += [(f"retries: {kind}", f"{count:,}") for kind, count in figures.retries().items()]
    rows += [(f"failed: {kind} at {where}", f"{count:,}") for kind, where, count in figures.failures()[:_SHOWN]]
    rows += [(f"bad copies found at {where}", f"{count:,}") for where, count in figures.bad_copies().items()]
    rows += [(f"held: {figures.name(uuid)}", why) for uuid, why in around.held.items()]
    oldest = figures.oldest
    if oldest is not None:
        rows.append(("oldest open task", f"{oldest.key} ({oldest.state}, {duration(around.now - oldest.since)})"))
    stalled = figures.stalled
    rows += [(f"stalled: {one.what}", f"{one.worker}, {duration(one.seconds)}") for one in stalled[:_SHOWN]]
    if len(stalled) > _SHOWN:
        rows.append(("stalled: more", f"{len(stalled) - _SHOWN:,}"))
    claimed = figures.group("copied")[0]
    if claimed:
        rows.append(("claimed, not verified", f"{claimed:,}"))
    return "Health", ("", ""), rows


def _failed(figures: Figures) -> Table:
    rows: list[tuple[str, ...]] = [
        (f"{one.keys:,}", one.place, f"{one.kind}: {one.text}", one.remedy) for one in figures.reasons()[:_SHOWN]
    ]
    return "Failed", ("keys", "at", "why", "what to do"), rows


def _cold(figures: Figures) -> Table:
    cold = figures.around.cold
    rows: list[tuple[str, ...]] = (
        []
        if cold is None
        else [(name.replace("-", " "), "–" if value is None else str(value)) for name, value in cold.to_json().items()]
    )
    return "Cold tiers", ("", ""), rows


def _resources(figures: Figures) -> Table:
    around = figures.around
    rows: list[tuple[str, ...]] = [
        (
            f"free at {figures.name(uuid)}",
            f"{human_size(free)}, {human_size(figures.to_come(uuid))} to {'go' if figures.drains else 'come'}",
        )
        for uuid, free in around.free.items()
    ]
    rows.append(("ledger", human_size(around.ledger)))
    if around.connections is not None:
        rows.append(("open sockets of workers here", f"{around.connections:,}"))
    rows += [(f"limit: {name}", text) for name, text in told_limits(around.limits, figures.name).items()]
    return "Resources", ("", ""), rows


def told_limits(limits: Mapping[str, object], name: Callable[[str], str]) -> dict[str, str]:
    """Limits as ``Limits.to_json`` gives them, for people; *name* says what a repository is called."""
    places = limits.get("places")
    told = {what: _rate(what, value) for what, value in limits.items() if what != "places"}
    for uuid, of in places.items() if isinstance(places, Mapping) else ():
        told |= {f"{what} at {name(uuid)}": _rate(what, value) for what, value in of.items() if value}
    return told


def _rate(what: str, value: object) -> str:
    if isinstance(value, float):
        return f"{human_size(int(value))}/s" if what.endswith("bandwidth") else f"{value:g}/s"
    return str(value)


def headline(figures: Figures) -> str:
    """Where the job is, in one line."""
    around, percent = figures.around, figures.percent
    why = f" ({around.reason})" if around.reason else ""
    done = f"{percent['bytes']:.1f} % of the bytes, {percent['keys']:.1f} % of the keys"
    nodes = f", {percent['nodes']:.1f} % of the nodes" if around.nodes[1] else ""
    return f"{around.type} {around.job}: {around.state}{why}; {done}{nodes}; left: {duration_range(figures.eta)}"


def screen(figures: Figures) -> str:
    """All that fits on one screen. What must not be lost comes first."""
    lines = [figures.first_line, headline(figures)]
    safety = figures.around.safety
    if safety is not None and safety.objects:
        counted = ", ".join(f"{n}: {count:,}" for n, count in sorted(safety.by_copies.items()))
        lines.append(f"objects by proven copies: {counted}; {safety.enough:,} have enough")
    for title, _, rows in tables(figures):
        lines += ["", title, *(f"  {line}" for line in _columns(rows))]
    return "\n".join(lines)


def markdown(figures: Figures) -> str:
    """The report as Markdown."""
    lines = [f"# {figures.around.type} {figures.around.job}", "", f"**{_plain(figures.first_line)}**", ""]
    lines += [_plain(headline(figures)), ""]
    for title, heads, rows in tables(figures):
        lines += [f"## {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return "".join(f"\\{one}" if one in "|\\`*_<>[]" else one if one.isprintable() else " " for one in text.strip())


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
