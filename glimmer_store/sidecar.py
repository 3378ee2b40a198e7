"""Glimmer node files: YAML front matter between ``---`` lines, then a body.

Edits touch only the lines of the fields named; comments, order, line ends and the body stay as
they were, byte for byte. ``provenance-hash`` covers the body, so it stays right as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from glimmer_store.errors import SidecarError

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_FRONT_MATTER", "Sidecar", "load_yaml", "provenance_hash"]

MAX_FRONT_MATTER = 1 << 20
"""Bytes of front matter that we are willing to parse."""

_FRONT = re.compile(rb"---(\r?\n)(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(rb"^(?:([A-Za-z0-9_-]+)|\"([^\"\n]+)\"|'([^'\n]+)')[ \t]*:(?=[ \t\r\n]|\Z)", re.MULTILINE)


MAX_DEPTH = 64
MAX_DIGITS = 400
"""Digits of the longest number that is read: Python itself needs time that grows with their square."""
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: only one of the two has stubs everywhere


class _Loader(_BASE):  # type: ignore[misc]
    """Safe, and refuses what Glimmer's own validator refuses: a field that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys (<<) are not allowed")
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(made) < len(node.value):
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.YAMLError(f"field {key!r} stands twice, again in line {key_node.start_mark.line + 2}")
                seen.add(key)
        return made

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a number of {len(node.value)} digits, at most {MAX_DIGITS} are read")
        number: int = super().construct_yaml_int(node)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def load_yaml(text: str) -> Any:  # Any: whatever YAML holds
    """Parse safely: no aliases (a node file needs none, and YAML bombs are made of them), at most 64 levels.

    Raises:
        yaml.YAMLError, ValueError, OverflowError, RecursionError: It does not parse, or is refused by name.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels")
    return yaml.load(text, Loader=_Loader)


def _dump(fields: Mapping[str, object]) -> str:
    """*fields* as YAML that reads back as they are."""
    whole = dict(fields)
    text: str = yaml.dump(whole, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True)
    if yaml.safe_load(text) != whole:  # PyYAML folds U+0085 and its like into blanks unless it escapes them
        text = yaml.dump(whole, Dumper=_Dumper, sort_keys=False, default_flow_style=False)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: an alias would be refused on reading."""

    def ignore_aliases(self, data: object) -> bool:
        return True


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
            fields = load_yaml(front.decode())
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
        try:
            edited = Sidecar.parse(self.raw[: self.start] + front + self.raw[self.end :])
        except SidecarError as error:
            raise SidecarError(
                f"node: cannot change {', '.join(changes)}: {error}",
                remedy="does a field stand there in an unusual form? mend the file by hand",
            ) from error
        for name in {**self.fields, **edited.fields}:
            wanted = changes.get(name, self.fields.get(name))
            # NaN equals nothing, and is written as it was
            if edited.fields.get(name) != wanted and repr(edited.fields.get(name)) != repr(wanted):
                raise SidecarError(
                    f"node: cannot change {', '.join(changes)} without changing {name!r} to something else",
                    remedy="does a field stand there twice, or text that looks like one? mend the file by hand",
                )
        return edited

    def without_fields(self, names: Collection[str]) -> Sidecar:
        """The same node without the lines of these fields: what ``with_fields`` added is gone again.

        Raises:
            SidecarError: One of them stands in a form that cannot be told from others.
        """
        front = self.raw[self.start : self.end]
        for name in names:
            found = _span(front, name.encode()) if name in self.fields else None
            if found is not None:
                front = front[: found[0]] + front[found[1] :]
        left = Sidecar.parse(self.raw[: self.start] + front + self.raw[self.end :])
        if repr(left.fields) != repr({name: value for name, value in self.fields.items() if name not in names}):
            raise SidecarError(
                f"node: cannot take {', '.join(names)} out without changing other fields",
                remedy="does text that looks like one of them stand in another field? mend the file by hand",
            )
        return left


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
