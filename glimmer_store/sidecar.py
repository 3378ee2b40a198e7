"""Glimmer node files: YAML front matter between ``---`` lines, then a body.

Edits touch only the lines of the fields named; comments, order, line ends and the body stay as
they were, byte for byte. ``provenance-hash`` covers the body, so it stays right as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from glimmer_store.errors import SidecarError

__all__ = ["MAX_FRONT_MATTER", "Sidecar", "provenance_hash"]

MAX_FRONT_MATTER = 1 << 20
"""Bytes of front matter that we are willing to parse."""

_FRONT = re.compile(rb"---(\r?\n)(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(rb"^(?:([A-Za-z0-9_-]+)|\"([^\"\n]+)\"|'([^'\n]+)')[ \t]*:(?=[ \t\r\n]|\Z)", re.MULTILINE)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 64


def _load(front: bytes) -> Any:  # Any: whatever YAML holds
    """Parse safely: no aliases (a node file needs none, and YAML bombs are made of them), at most 64 levels."""
    depth = 0
    for event in yaml.parse(front.decode(), Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels")
    return yaml.load(front.decode(), Loader=_Loader)


def _dump(fields: Mapping[str, object]) -> str:
    """*fields* as YAML that reads back as they are."""
    whole = dict(fields)
    text: str = yaml.safe_dump(whole, sort_keys=False, default_flow_style=False, allow_unicode=True)
    if yaml.safe_load(text) != whole:  # PyYAML folds U+0085 and its like into blanks unless it escapes them
        text = yaml.safe_dump(whole, sort_keys=False, default_flow_style=False)
    return text


def provenance_hash(body: str) -> str:
    """Glimmer's hash of a body, as its reference example computes it."""
    return "sha256:" + hashlib.sha256(body.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One node file.

    Attributes:
        raw: The whole file.
        fields: The parsed front matter.
        start, end: Where in ``raw`` the lines of the front matter are.
        newline: Its line end, LF or CRLF.
    """

    raw: bytes
    fields: Mapping[str, Any]  # Any: values of a YAML mapping
    start: int
    end: int
    newline: bytes

    @classmethod
    def parse(cls, raw: bytes, *, name: str = "node") -> Sidecar:
        """Read a node file.

        Raises:
            SidecarError: No front matter, more than 1 MiB of it, YAML that does not parse to a mapping,
                an alias, or bytes that are not UTF-8.
        """
        match = _FRONT.match(raw)
        if match is None:
            raise SidecarError(f"{name}: does not start with YAML front matter between '---' lines")
        front = match.group(2)
        if len(front) > MAX_FRONT_MATTER:
            raise SidecarError(f"{name}: front matter is {len(front)} bytes, at most {MAX_FRONT_MATTER} are read")
        try:
            fields = _load(front)
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # of dates and numbers too
            raise SidecarError(f"{name}: front matter does not parse: {error}") from error
        if fields is None:
            fields = {}
        if not isinstance(fields, dict):
            raise SidecarError(f"{name}: front matter is a {type(fields).__name__}, not a mapping")
        return cls(raw, fields, match.start(2), match.end(2), match.group(1))

    @classmethod
    def create(cls, fields: Mapping[str, object], body: str = "") -> Sidecar:
        """A new node file in the layout of Glimmer's own example."""
        return cls.parse(f"---\n{_dump(fields)}---\n\n{body}".encode())

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """The node file at *path*."""
        try:
            return cls.parse(path.read_bytes(), name=str(path))
        except OSError as error:
            raise SidecarError(f"{path}: {error.strerror}") from error

    @property
    def body(self) -> bytes:
        """Everything after the closing ``---`` line."""
        match = _FRONT.match(self.raw)
        return self.raw[match.end() :] if match else b""

    def with_fields(self, changes: Mapping[str, object]) -> Sidecar:
        """The same node with *changes*; a field that already says so keeps its bytes, new ones go last.

        Raises:
            SidecarError: The front matter is such that this would not change these fields, or others as well.
        """
        front = self.raw[self.start : self.end]
        for name, value in changes.items():
            if name in self.fields and self.fields[name] == value and type(self.fields[name]) is type(value):
                continue
            text = _dump({name: value}).encode().replace(b"\n", self.newline)
            found = _span(front, name.encode())
            if found is None:
                if front and not front.endswith(b"\n"):
                    front += self.newline
                front += text
            else:
                front = front[: found[0]] + text + front[found[1] :]
        edited = Sidecar.parse(self.raw[: self.start] + front + self.raw[self.end :])
        for name in {**self.fields, **edited.fields}:
            wanted = changes.get(name, self.fields.get(name))
            # NaN equals nothing, and is written as it was
            if edited.fields.get(name) != wanted and repr(edited.fields.get(name)) != repr(wanted):
                raise SidecarError(
                    f"node: cannot change {', '.join(changes)} without changing {name!r} to something else",
                    remedy="does a field stand there twice, or text that looks like one? mend the file by hand",
                )
        return edited


def _span(front: bytes, name: bytes) -> tuple[int, int] | None:
    """Where the field *name* of the top level stands: from its name to where its value's last line ends.

    Comments and blank lines that follow the value belong to what comes next and are left alone.
    """
    for match in _FIELD.finditer(front):
        if name not in match.groups():
            continue
        end = front.find(b"\n", match.end())
        end = len(front) if end < 0 else end + 1
        last = end
        while end < len(front):
            stop = front.find(b"\n", end)
            stop = len(front) if stop < 0 else stop + 1
            line = front[end:stop]
            # A list may be written without indentation; everything else of a value is indented.
            indented = line[:1] in b" \t" and line.strip() and not line.lstrip().startswith(b"#")
            if indented or line[:2] in (b"- ", b"-\n", b"-\r"):
                last = stop
            elif line.strip() and not line.lstrip().startswith(b"#"):
                break
            end = stop
        return match.start(), last
    return None
