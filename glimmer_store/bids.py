"""Nodes in JSON: a BIDS sidecar with an ``_x-glimmer`` block, or a node file that is JSON throughout.

Edits touch only the members named: everything before, between and after them stays as it was, byte for
byte, and a new member is laid out like its neighbours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_store.errors import SidecarError
from glimmer_store.sidecar import Sidecar
from glimmer_store.strict_json import MAX_JSON, Member, members, parse_json

__all__ = ["BLOCK", "JsonSidecar", "bids_files", "read_node"]

BLOCK = "_x-glimmer"
"""The member of a BIDS sidecar that is the node."""


@dataclass(frozen=True, slots=True)
class JsonSidecar:
    """One JSON file with a node in it.

    Attributes:
        raw: The whole file.
        fields: The node: the block, or the whole object.
        block: Name of the member that is the node; empty when the whole file is.
    """

    raw: bytes
    fields: Mapping[str, Any]  # Any: JSON
    block: str

    @classmethod
    def parse(cls, raw: bytes, *, name: str = "node", block: str = BLOCK) -> JsonSidecar:
        """Read a file. One without the block is read as well, and gets the block with its first field.

        Raises:
            SidecarError: Not JSON as ``parse_json`` takes it, not an object, or a block that is none.
        """
        try:
            whole = parse_json(raw)
        except (ValueError, RecursionError) as error:
            raise SidecarError(f"{name}: does not parse: {error}") from error
        fields = whole.get(block, {}) if block and isinstance(whole, dict) else whole
        if not isinstance(fields, dict):
            what = f"{block} is" if block and isinstance(whole, dict) else "is"
            raise SidecarError(f"{name}: {what} a {type(fields).__name__}, not an object")
        return cls(raw, fields, block)

    @classmethod
    def read(cls, path: Path, *, block: str = BLOCK) -> JsonSidecar:
        """The file at *path*."""
        try:
            return cls.parse(path.read_bytes(), name=str(path), block=block)
        except OSError as error:
            raise SidecarError(f"{path}: {error.strerror}") from error

    def with_fields(self, changes: Mapping[str, object]) -> JsonSidecar:
        """The same file with *changes*; a field that already says so keeps its bytes, new ones go last.

        Raises:
            SidecarError: A value has no JSON.
        """
        text = self.raw.decode()
        for name, value in changes.items():
            if name in self.fields and self.fields[name] == value and type(self.fields[name]) is type(value):
                continue
            try:
                text = self._set(text, name, value)
            except (TypeError, ValueError) as error:
                raise SidecarError(f"{name}: {error}") from error
        return JsonSidecar.parse(text.encode(), block=self.block)

    def without_fields(self, names: Collection[str]) -> JsonSidecar:
        """The same file without these fields; a block that is empty then stays, since others may have made it."""
        text = self.raw.decode()
        for name in names:
            if name in self.fields:
                found, close = members(text, self._place(text))
                text = _cut(text, found, [member.name for member in found].index(name), close)
        return JsonSidecar.parse(text.encode(), block=self.block)

    def _place(self, text: str) -> int:
        """Where the object of the node begins; −1 when there is none yet."""
        if not self.block:
            return 0
        return next((member.value for member in members(text)[0] if member.name == self.block), -1)

    def _set(self, text: str, name: str, value: object) -> str:
        place = self._place(text)
        if place < 0:
            found, close = members(text)
            text = _append(text, 0, found, close, self.block, {})
            place = self._place(text)
        found, close = members(text, place)
        for member in found:
            if member.name == name:
                laid = _laid_out(value, _before(text, member))
                return text[: member.value] + laid + text[member.end :]
        return _append(text, place, found, close, name, value)


def read_node(path: Path) -> Sidecar | JsonSidecar:
    """The node file at *path*, whichever form it has.

    Raises:
        SidecarError: It cannot be read.
    """
    if path.suffix != ".json":
        return Sidecar.read(path)
    sidecar = JsonSidecar.read(path)
    return sidecar if sidecar.fields else JsonSidecar.read(path, block="")


def _before(text: str, member: Member) -> str:
    """The blanks in front of a member."""
    return text[len(text[: member.start].rstrip(" \t\r\n")) : member.start]


def _append(text: str, place: int, found: list[Member], close: int, name: str, value: object) -> str:
    if found:
        blanks = _before(text, found[-1])
        added = f",{blanks}{_json(name)}: {_laid_out(value, blanks)}"
        return text[: found[-1].end] + added + text[found[-1].end :]
    # An empty object: indented once more than the line it stands in, when the file has lines at all.
    newline = "\r\n" if "\r\n" in text else "\n"
    row = text[text.rfind("\n", 0, place) + 1 : place]
    outer = row[: len(row) - len(row.lstrip(" \t"))]
    first = re.search(r"\n([ \t]+)\S", text)
    step = first[1] if first else "  "
    opening = text.index("{", place)
    if "\n" not in text.strip():
        return f"{text[: opening + 1]}{_json(name)}: {_laid_out(value, '')}{text[close:]}"
    inner = newline + outer + step
    added = f"{inner}{_json(name)}: {_laid_out(value, inner)}{newline}{outer}"
    return text[: opening + 1] + added + text[close:]


def _cut(text: str, found: list[Member], index: int, close: int) -> str:
    """*text* without one member, and without the comma that is then too much."""
    if index:
        return text[: found[index - 1].end] + text[found[index].end :]
    if len(found) > 1:
        return text[: found[0].start] + text[found[1].start :]
    opening = text.rindex("{", 0, found[0].start)
    return text[: opening + 1] + text[close:]


def _laid_out(value: object, blanks: str) -> str:
    """JSON of *value*; the entries of a list on lines of their own where the members are."""
    if not isinstance(value, list) or not value or "\n" not in blanks:
        return _json(value)
    newline, indent = blanks[: blanks.rindex("\n") + 1], blanks[blanks.rindex("\n") + 1 :]
    line_end = "\r\n" if newline.endswith("\r\n") else "\n"
    inner = line_end + indent + (indent[: len(indent) // 2] or "  ")
    rows = f",{inner}".join(_json(entry) for entry in value)
    return f"[{inner}{rows}{line_end}{indent}]"


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, allow_nan=False)
    return text


def bids_files(dataset: Path, graph: Path) -> Iterator[Path]:
    """The JSON files of *dataset* that hold a node, without those of the folder *graph*; sorted, hidden ones left out.

    Links are not followed into folders; a file whose content is not here, or is too large to be a sidecar, holds none.
    """
    mark = f'"{BLOCK}"'.encode()
    for place, folders, names in os.walk(dataset):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(place, name) != graph)
        for name in sorted(names):
            path = Path(place, name)
            if not name.endswith(".json"):
                continue
            with suppress(OSError):
                if path.stat().st_size <= MAX_JSON and mark in path.read_bytes():
                    yield path
