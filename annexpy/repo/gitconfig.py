"""The text of a git configuration file: parse it, and change single settings in it.

Bytes in, bytes out; no files here. A change keeps every byte that is not part of the changed setting, so
comments, order and odd formatting of a hand-written file survive.

Source: git-config(1), "Syntax".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from annexpy.errors import InvalidInput
from annexpy.patterns import regex

__all__ = ["Entry", "Section", "boolean", "parse_config", "quote_value", "setting_name", "with_value", "without"]

_BLANK: Final = regex(rb"[ \t\r\n\x0b\x0c]*")
_HEADER: Final = regex(rb'\[[ \t]*([A-Za-z0-9.-]+)(?:[ \t]+"((?:[^"\\\n]|\\[^\n])*)")?[ \t]*\]')
_NAME: Final = regex(rb"([A-Za-z][A-Za-z0-9-]*)[ \t]*(=?)[ \t]*")
_PLAIN: Final = regex(rb'[^"\\#;\n]*(?=\n|\Z)')
_ESCAPES: Final = {b"n": b"\n", b"t": b"\t", b"b": b"\b", b"\\": b"\\", b'"': b'"'}


class Section(NamedTuple):
    """A ``[section "subsection"]`` header, and where it ends."""

    section: str
    subsection: str | None
    start: int
    end: int


class Entry(NamedTuple):
    """One setting of a file.

    Attributes:
        name: Canonical: section and key in lower case, the subsection as it stands (``remote.NAS.url``).
        value: None when there is no ``=``.
        section, subsection: Where it stands; no section for what stands before the first header.
        start, end: Its bytes, from the first of the key to behind the line's end.
    """

    name: str
    value: str | None
    section: str
    subsection: str | None
    start: int
    end: int


def setting_name(name: str) -> str:
    """*name* in canonical form.

    Raises:
        InvalidInput: No ``section.key`` or ``section.subsection.key``.
    """
    section, dot, rest = name.partition(".")
    subsection, _, key = rest.rpartition(".")
    if not dot or not re.fullmatch(r"[A-Za-z0-9-]+", section) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key):
        raise InvalidInput("git config name", name, "section.key or section.subsection.key")
    if "\n" in subsection or "\0" in subsection:
        raise InvalidInput("git config name", name, "no line feed and no NUL")
    return f"{section.lower()}.{subsection}.{key.lower()}" if "." in rest else f"{section.lower()}.{key.lower()}"


def parse_config(text: bytes) -> Iterator[Section | Entry]:
    """Headers and settings in the order of the file.

    Raises:
        InvalidInput: A line that git would call bad.
    """
    at = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    section, subsection, prefix = "", None, ""
    length = len(text)
    while True:
        at = _skip(text, at)
        if at >= length:
            return
        if text[at] in b"#;":
            at = _line_end(text, at)
            continue
        if text[at] == 91:  # [
            header = _HEADER.match(text, at)
            if header is None:
                raise _bad(text, at)
            section = header[1].decode().lower()
            subsection = (
                None if header[2] is None else re.sub(rb"\\(.)", rb"\1", header[2]).decode("utf-8", "surrogateescape")
            )
            if subsection is None and "." in section:
                section, _, subsection = section.partition(".")
            prefix = section + "." if subsection is None else f"{section}.{subsection}."
            yield Section(section, subsection, at, header.end())
            at = header.end()
            continue
        key = _NAME.match(text, at)
        if key is None:
            raise _bad(text, at)
        value: str | None = None
        if key[2]:
            raw, end = _value(text, key.end())
            value = raw.decode("utf-8", "surrogateescape")
        else:
            end = _line_end(text, key.end())
            if text[key.end() : end].strip():  # not even a comment may stand here
                raise _bad(text, at)
        yield Entry(prefix + key[1].decode().lower(), value, section, subsection, at, end)
        at = end


def _skip(text: bytes, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _line_end(text: bytes, at: int) -> int:
    end = text.find(b"\n", at)
    return len(text) if end < 0 else end + 1


def _bad(text: bytes, at: int) -> InvalidInput:
    line = text.count(b"\n", 0, at) + 1
    return InvalidInput("git config", text[at : _line_end(text, at)].rstrip(), f"bad line {line}")


def _value(text: bytes, at: int) -> tuple[bytes, int]:
    plain = _PLAIN.match(text, at)
    if plain is not None:
        return plain[0].strip(b" \t\r"), min(plain.end() + 1, len(text))
    value, kept, quoted, start = bytearray(), 0, False, at
    while at < len(text):
        char = text[at : at + 1]
        at += 1
        if char == b"\n" or (char == b"\r" and text[at : at + 1] == b"\n" and not quoted):
            if quoted:
                raise _bad(text, start)
            at += char == b"\r"
            break
        if char == b"\\":
            escaped = text[at : at + 1]
            at += 1
            if escaped == b"\r" and text[at : at + 1] == b"\n":
                escaped, at = b"\n", at + 1
            if escaped == b"\n":  # the line goes on
                continue
            if escaped not in _ESCAPES:
                raise _bad(text, start)
            value += _ESCAPES[escaped]
            kept = len(value)
        elif char == b'"':
            quoted = not quoted
            kept = len(value)
        elif char in b"#;" and not quoted:
            at = _line_end(text, at)
            break
        else:
            value += char
            if quoted or char not in b" \t":
                kept = len(value)
    else:
        if quoted:
            raise _bad(text, start)
    return bytes(value[:kept]), at


def quote_value(value: str) -> bytes:
    """*value* as it has to stand behind ``=``.

    Raises:
        InvalidInput: It holds a NUL.
    """
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise InvalidInput("git config value", value, "no NUL")
    quoted = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n").replace(b"\t", b"\\t")
    if raw.strip() != raw or b"#" in raw or b";" in raw or b"\r" in raw:
        return b'"' + quoted + b'"'
    return quoted


def with_value(text: bytes, name: str, value: str, *, replace: bool) -> bytes:
    """*text* with ``name = value``: instead of all values *name* has, or as one more behind them."""
    name = setting_name(name)
    section, _, rest = name.partition(".")
    subsection, dot, _ = rest.rpartition(".")
    home = (section, subsection if dot else None)
    # git keeps the case in which the user wrote the key only for existing entries; so do we
    line = b"%b = %b\n" % (name.rpartition(".")[2].encode(), quote_value(value))
    same: list[Entry] = []
    behind = -1  # end of the last thing in the right section
    for found in parse_config(text):
        if (found.section, found.subsection) == home:
            behind = found.end
        if isinstance(found, Entry) and found.name == name:
            same.append(found)
    if same and replace:
        if same[-1].value == value and len(same) == 1:
            return text
        for old in reversed(same):
            text = text[: old.start] + (line if old is same[-1] else b"") + text[old.end :]
        return text
    if behind < 0:
        head = section if subsection == "" and not dot else f"{section} {_quoted_subsection(subsection)}"
        return _ended(text) + b"[%b]\n\t%b" % (head.encode("utf-8", "surrogateescape"), line)
    before, after = text[:behind], text[behind:]
    if not before.endswith(b"\n"):
        # the last thing of the section is its header, perhaps with a comment behind it
        end = _line_end(after, 0)
        if after[:end].strip()[:1] in (b"", b"#", b";"):
            before, after = before + after[:end], after[end:]
    return _ended(before) + b"\t" + line + after


def _ended(text: bytes) -> bytes:
    """*text* with its last line complete, so that another may follow."""
    if text.endswith(b"\\\n"):  # a value that was to go on
        return text + b"\n"
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _quoted_subsection(subsection: str) -> str:
    return '"' + subsection.replace("\\", "\\\\").replace('"', '\\"') + '"'


def without(text: bytes, name: str) -> bytes:
    """*text* without any value of *name*, and without sections that this left empty."""
    name = setting_name(name)
    found = list(parse_config(text))
    cuts: list[tuple[int, int]] = []
    for number, entry in enumerate(found):
        if not (isinstance(entry, Entry) and entry.name == name):
            continue
        start, end = _whole_line(text, entry.start), entry.end
        cuts.append((start, end))
        header = next((f for f in reversed(found[:number]) if isinstance(f, Section)), None)
        if header is None:
            continue
        following = next((f.start for f in found[number + 1 :] if isinstance(f, Section)), len(text))
        rest = text[header.end : start] + text[end:following]
        if not rest.strip():
            cuts[-1] = (_whole_line(text, header.start), following)
    for start, end in reversed(cuts):
        text = text[:start] + text[end:]
    return text


def _whole_line(text: bytes, at: int) -> int:
    """The start of the line of *at* when only blanks stand before it."""
    start = text.rfind(b"\n", 0, at) + 1
    return at if text[start:at].strip() else start


def boolean(name: str, value: str) -> bool:
    """*value* of the setting *name* as git reads a boolean.

    Raises:
        InvalidInput: It is none.
    """
    match value.lower():
        case "true" | "yes" | "on":
            return True
        case "false" | "no" | "off" | "":
            return False
    try:
        return int(value) != 0
    except ValueError:
        raise InvalidInput(name, value, "true or false") from None
