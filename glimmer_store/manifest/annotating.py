"""Tables ``[NAME._GLIMMER]`` in a manifest: what is stored, for people and for other tools.

Only the lines of our own tables are touched; comments, order and everything that others wrote stay as they were, byte
for byte. The result is read again and compared: if anything but our tables would differ, nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from glimmer_store.entry import Part
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.manifest.bundle import Bundle
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Declared, Project

__all__ = ["TABLE", "annotate_manifest", "annotated"]

TABLE: Final = "_GLIMMER"
_HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


def annotated(raw: bytes, tables: Mapping[str, Mapping[str, str | int]]) -> bytes:
    """*raw* with the table ``_GLIMMER`` of each of these datasets as it is given.

    Raises:
        ManifestError: A dataset is not there, or stands there in a form that a table cannot be added to.
    """
    text = raw.decode()
    before = tomllib.loads(text)
    for name, values in tables.items():
        if not isinstance(before.get(name), dict):
            raise ManifestError(f"{name}: no dataset of the manifest")
        table = before[name].get(TABLE)
        if table == values:
            continue
        if table is not None:
            text = _without(text, name)
        lines = [f"{_word(field)} = {json.dumps(value)}" for field, value in values.items()]
        text = text.rstrip("\n") + f"\n\n[{_word(name)}.{TABLE}]\n" + "\n".join(lines) + "\n"
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"the manifest cannot be annotated: {error}",
                            remedy="write its datasets as [NAME] tables") from error  # fmt: skip
    wanted = {name: {**value, TABLE: dict(tables[name])} if name in tables else value for name, value in before.items()}
    if after != wanted:
        raise ManifestError(
            "the manifest cannot be annotated without changing something else in it",
            remedy="does a table _GLIMMER stand there in an unusual form? take it out by hand",
        )
    return text.encode()


def _word(name: str) -> str:
    return name if _BARE.match(name) else json.dumps(name)


def _without(text: str, name: str) -> str:
    """*text* without the table that we wrote for *name*."""
    start = re.search(rf"^\n?\[{re.escape(_word(name))}\.{TABLE}\]\n", text, re.MULTILINE)
    if start is None:
        return text  # in another form: the comparison in the end says so
    follows = _HEADER.search(text, start.end())
    return text[: start.start()] + text[follows.start() if follows else len(text) :]


# Any: values of TOML
def table_of(record: Bundle, node: GlimmerNode | None) -> dict[str, Any]:
    """What is written of one dataset."""
    stored = {"tree-digest": record.digest} if record.tree else {}
    table: dict[str, Any] = {"annex-key": record.key, **stored, "storage-class": record.storage_class}
    if node is not None:
        table |= {"node": node.id, "numcopies": node.numcopies_required}
    return table


async def annotate_manifest(
    graph: GlimmerGraph, project: Project, stored: Iterable[tuple[Declared, Bundle | None, GlimmerNode | None]]
) -> None:
    """Write tables for what is stored of the manifest's datasets, and commit it.

    Raises:
        ManifestError: As ``annotated``.
    """
    tables = {
        declared.name: table_of(record, node)
        for declared, record, node in stored
        if record is not None and declared.kind == "dataset"
    }
    raw = annotated(project.raw, tables)
    if raw != project.raw:
        path = os.fsencode(Path(project.manifest).relative_to(graph.root))
        await graph.enter(f"glimmer-store: {project.manifest.name} annotated", [Part(path, "whole", raw, project.raw)])
