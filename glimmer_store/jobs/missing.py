"""What has not been backfilled: wanted at a destination and not there, or there and not proven. By class and node.

Of a job that empties a repository: what is still there.

That it is not there is what the location log says, so it is the count of ``git annex findkeys --not --in``; that it is
proven, only an attestation does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import annexpy as annex
from glimmer_store.jobs.plan import Chosen, Plan, needs_of
from glimmer_store.jobs.spec import JobSpec

__all__ = ["Missing", "missing", "missing_text"]

_SHOWN = 20
_NO_NODE = "(no node)"
_NO_CLASS = "(no class)"


@dataclass(slots=True)
class Group:
    """Keys and bytes that are not there, and keys that are there and not proven."""

    missing: int = 0
    size: int = 0
    unproven: int = 0

    def note(self, size: int, *, there: bool) -> None:
        """One more."""
        self.unproven += there
        self.missing += not there
        self.size += 0 if there else size

    def to_json(self, *, drains: bool = False) -> dict[str, int]:
        if drains:
            return {"left": self.missing, "bytes": self.size}
        return {"missing": self.missing, "bytes": self.size, "unproven": self.unproven}


@dataclass(slots=True)
class Missing:
    """All of it.

    Attributes:
        whole: Together.
        dests, classes, nodes: By name.
        drains: What is missing is what is still there.
    """

    whole: Group = field(default_factory=Group)
    dests: dict[str, Group] = field(default_factory=dict)
    classes: dict[str, Group] = field(default_factory=dict)
    nodes: dict[str, Group] = field(default_factory=dict)
    drains: bool = False

    def to_json(self) -> dict[str, object]:
        groups = {"dest": self.dests, "class": self.classes, "node": self.nodes}
        by = {
            name: {one: group.to_json(drains=self.drains) for one, group in sorted(of.items())}
            for name, of in groups.items()
        }
        return {**self.whole.to_json(drains=self.drains), "by": by}


async def missing(spec: JobSpec) -> Missing:
    """What the destinations of a job lack now, planned or not.

    Raises:
        AnnexError: The dataset cannot be read.
    """
    found = Missing(drains=spec.drains)
    needs = await needs_of(Path(spec.dataset))
    with annex.Repository.open(spec.dataset) as repository:
        for key, place, there in _lacking(spec, repository):
            needed = needs.get(key)
            storage_class = "" if needed is None else needed.storage_class
            nodes = () if needed is None else needed.nodes
            if spec.select.storage_class not in ("", storage_class):
                continue
            if spec.select.nodes and not set(spec.select.nodes) & set(nodes):
                continue
            size = annex.Key.parse(key).size or 0
            groups = [found.whole, found.dests.setdefault(place, Group())]
            groups.append(found.classes.setdefault(storage_class or _NO_CLASS, Group()))
            groups += [found.nodes.setdefault(node, Group()) for node in nodes or (_NO_NODE,)]
            for group in groups:
                group.note(size, there=there and not spec.drains)
    return found


def _lacking(spec: JobSpec, repository: annex.Repository) -> Iterator[tuple[str, str, bool]]:
    """(key, name of the destination, whether it is said to be there) of what is wanted and not proven."""
    chosen = Chosen(spec, repository, Plan())
    for where in annex.whereis_all(repository):
        having = {location.uuid for location in (*where.locations, *where.untrusted) if not location.cluster}
        for place in spec.dests:
            if chosen.wanted(place.uuid, where.key, having):
                yield str(where.key), place.name, place.uuid in having


def missing_text(found: Missing) -> str:
    """For people."""
    whole = found.whole
    if not whole.missing and not whole.unproven:
        return "nothing is left there" if found.drains else "nothing is missing, and every copy is proven"
    word = "left" if found.drains else "missing"
    lines = [f"{whole.missing:,} keys are {word} ({whole.size:,} bytes)"]
    lines[0] += "" if found.drains else f", {whole.unproven:,} are there and not proven"
    for title, groups in (("class", found.classes), ("node", found.nodes)):
        most = sorted(groups, key=lambda name: (-groups[name].missing - groups[name].unproven, name))
        lines += ["", title]
        for name in most[:_SHOWN]:
            one = groups[name]
            lines.append(
                f"  {name}: {one.missing:,} {word}" + ("" if found.drains else f", {one.unproven:,} not proven")
            )
        if len(most) > _SHOWN:
            lines.append(f"  and {len(most) - _SHOWN:,} more: --json has all")
    return "\n".join(lines)
