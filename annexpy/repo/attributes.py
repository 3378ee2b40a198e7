"""Git attributes of the files of one work tree, as git resolves them.

For each attribute the last line that matches and mentions it counts, in this order of sources, later
ones winning: system, user, the ``.gitattributes`` of the top and of each directory down to the file's
own, ``info/attributes``. dulwich matches the patterns; lines are read here, because dulwich knows
neither quoted patterns nor macros.

Source: gitattributes(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from annexpy.patterns import regex
from annexpy.repo.config import GitConfig
from annexpy.repo.files import DiskFiles

if TYPE_CHECKING:
    from dulwich.attrs import Pattern

    from annexpy.repo.repository import Repository

__all__ = ["AttributeLine", "Attributes", "parse_attributes"]

_MOST: Final = 16 * 1024 * 1024
_MACRO: Final = b"[attr]"
_NAME: Final = regex(rb"[A-Za-z0-9_.][A-Za-z0-9_.-]*")
_ESCAPES: Final = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_QUOTED: Final = regex(rb'"((?:[^"\\]|\\.)*)"(?:[ \t]|\Z)', re.DOTALL)
_ESCAPED: Final = regex(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)


# -- lines ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttributeLine:
    """One line of an attributes file.

    Attributes:
        pattern: What it matches; for a macro its name.
        values: Attribute → value in the order of the line: bytes, True (set), False (unset), None (unspecified).
        macro: It defines a macro.
    """

    pattern: bytes
    values: tuple[tuple[bytes, bytes | bool | None], ...]
    macro: bool = False


def parse_attributes(content: bytes) -> list[AttributeLine]:
    """The lines of an attributes file. What git ignores is left out: comments, negative patterns, odd names."""
    lines = []
    for raw in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        line = raw.lstrip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        quoted = _QUOTED.match(line)
        if quoted is not None:
            pattern = _ESCAPED.sub(_unescape, quoted[1])
            rest = line[quoted.end() :]
        else:
            pattern, _, rest = line.replace(b"\t", b" ").partition(b" ")
        macro = quoted is None and pattern.startswith(_MACRO)
        if macro:
            pattern = pattern.removeprefix(_MACRO)
            if not _NAME.fullmatch(pattern):
                continue
        elif pattern.startswith(b"!"):
            continue  # "Negative patterns are forbidden"
        lines.append(AttributeLine(pattern, tuple(filter(None, map(_value, rest.split()))), macro))
    return lines


def _unescape(match: re.Match[bytes]) -> bytes:
    text = match[1]
    return bytes((int(text, 8) & 0xFF,)) if b"0" <= text[:1] <= b"7" else _ESCAPES.get(text, text)


def _value(word: bytes) -> tuple[bytes, bytes | bool | None] | None:
    value: bytes | bool | None
    if word.startswith((b"-", b"!")):
        name, value = word[1:], False if word[:1] == b"-" else None
    else:
        name, equals, text = word.partition(b"=")
        value = text if equals else True
    return (name, value) if _NAME.fullmatch(name) else None


# -- resolution -----------------------------------------------------------------------------------


class _Lines:
    """One attributes file, ready for matching."""

    def __init__(self, lines: Sequence[AttributeLine], base: bytes) -> None:
        self.lines = lines
        self._base = base

    @cached_property
    def rules(self) -> list[tuple[Pattern, AttributeLine]]:
        """Patterns in the order of the file."""
        from dulwich.attrs import Pattern
        from dulwich.wildmatch import MalformedPattern

        rules = []
        for line in self.lines:
            # a directory can be named, but attributes are asked for files
            if not line.macro and not line.pattern.endswith(b"/"):
                try:
                    rules.append((Pattern(line.pattern, self._base), line))
                except MalformedPattern:
                    continue  # matches nothing, as in git
        return rules


class Attributes:
    """The attributes of one work tree. Files are read once, when a path below them is first asked for."""

    def __init__(
        self,
        top: bytes,
        info: bytes | None,
        config: GitConfig,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Read what holds for all paths.

        Args:
            top: The work tree.
            info: The directory that holds ``attributes`` for this repository alone (``GIT_DIR/info``).
            config: For ``core.attributesFile``.
            environ: Instead of the environment.
        """
        self._top = DiskFiles(top)
        env = os.environ if environ is None else environ
        self._before = [_outside(path) for path in _everybodys(config, env)]
        self._after = _outside(None if info is None else info + b"/attributes")
        self._folders: dict[bytes, _Lines] = {}
        self._macros: dict[bytes, tuple[tuple[bytes, bytes | bool | None], ...]] = {
            b"binary": ((b"diff", False), (b"merge", False), (b"text", False))
        }
        for source in (*self._before, self._of_folder(b""), self._after):
            self._macros.update((line.pattern, line.values) for line in source.lines if line.macro)

    @classmethod
    def of(cls, repository: Repository) -> Self | None:
        """Those of the work tree of *repository*; None where there is none."""
        if repository.work_tree is None:
            return None
        return cls(repository.work_tree, repository.git_dir + b"/info", repository.config)

    def close(self) -> None:
        self._top.close()

    def values(self, path: bytes, names: Collection[bytes]) -> dict[bytes, bytes | bool]:
        """What each of *names* is for the file at *path*; left out where it is unspecified."""
        sources = [*self._before, self._of_folder(b"")]
        at = path.find(b"/")
        while at >= 0:
            sources.append(self._of_folder(path[:at]))
            at = path.find(b"/", at + 1)
        sources.append(self._after)
        wanted, found = set(names), dict[bytes, bytes | bool]()
        decided = set[bytes]()  # macros that a line further down has spoken of: as with other names, that one counts
        for source in reversed(sources):
            if not source.lines:
                continue
            for pattern, line in reversed(source.rules):
                mentioned = self._of_line(line, wanted, decided)
                macros = [name for name, _ in line.values if name in self._macros]
                if (mentioned or macros) and pattern.match(path):
                    decided.update(macros)
                    wanted.difference_update(mentioned)
                    found.update({name: value for name, value in mentioned.items() if value is not None})
                    if not wanted:
                        return found
        return found

    def mention(self, names: Collection[bytes], paths: Iterable[bytes]) -> bool:
        """Whether any file that has a say about *paths* mentions one of *names* at all."""
        folders = {b""}
        for path in paths:
            at = path.find(b"/")
            while at >= 0:
                folders.add(path[:at])
                at = path.find(b"/", at + 1)
        wanted = set(names)
        return any(
            self._of_line(line, wanted)
            for source in (*self._before, self._after, *map(self._of_folder, folders))
            for line in source.lines
        )

    def _of_line(
        self, line: AttributeLine, wanted: Collection[bytes], decided: Collection[bytes] = ()
    ) -> dict[bytes, bytes | bool | None]:
        """What *line* says about *wanted*, macros expanded that are not *decided*; a later word of a line wins."""
        if line.macro:
            return {}
        said: dict[bytes, bytes | bool | None] = {}
        last = dict(line.values)
        for name, value in line.values:
            if value is True and name in self._macros and name not in decided and last[name] is True:
                expanded = self._expand(name, decided)
                said.update((inner, state) for inner, state in expanded if inner in wanted)
            if name in wanted:
                said[name] = value
        return said

    def _expand(
        self, macro: bytes, decided: Collection[bytes], depth: int = 0
    ) -> list[tuple[bytes, bytes | bool | None]]:
        expanded: list[tuple[bytes, bytes | bool | None]] = []
        for name, value in self._macros[macro]:
            if value is True and name in self._macros and name not in decided and depth < 8:
                expanded += self._expand(name, decided, depth + 1)
            expanded.append((name, value))
        return expanded

    def _of_folder(self, folder: bytes) -> _Lines:
        lines = self._folders.get(folder)
        if lines is None:
            try:
                content = self._top.read(folder + b"/.gitattributes" if folder else b".gitattributes")
            except OSError:
                content = None  # a link, or a folder that is none: git ignores it too
            lines = self._folders[folder] = _lines(content, folder)
        return lines


def _everybodys(config: GitConfig, environ: Mapping[str, str]) -> list[bytes]:
    """The attributes files of the system and of the user."""
    paths = [] if environ.get("GIT_ATTR_NOSYSTEM") else [b"/etc/gitattributes"]
    configured = config.get("core.attributesfile")
    home = environ.get("HOME", "")
    if configured:
        paths.append(os.fsencode(home + configured[1:] if configured.startswith("~/") else configured))
    elif xdg := environ.get("XDG_CONFIG_HOME") or (home and home + "/.config"):
        paths.append(os.fsencode(xdg + "/git/attributes"))
    return paths


def _outside(path: bytes | None) -> _Lines:
    """An attributes file that is reached as any program reaches it, through links."""
    content = None
    if path is not None:
        folder, name = os.path.split(os.path.realpath(path))
        try:
            files = DiskFiles(folder)
        except OSError:
            return _lines(None, b"")
        try:
            content = files.read(name)
        except OSError:
            content = None
        finally:
            files.close()
    return _lines(content, b"")


def _lines(content: bytes | None, base: bytes) -> _Lines:
    return _Lines(parse_attributes(content) if content is not None and len(content) <= _MOST else (), base)
