"""Associated files on the wire: one word without white space, lossy by design.

The name of the file that a key belongs to travels with PUT and GET so that the other side can judge
preferred content and name the file in messages. Nothing else may depend on it: the escaping loses
information (fact sheet p2p-protocol, section 1).
"""

from __future__ import annotations

from annexpy.patterns import regex

__all__ = ["escape_associated_file", "unescape_associated_file"]

_SPACES_OF_UNICODE = regex("[\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_ESCAPED = regex(rb"%|[\x09-\x0d\x20\xa0]")
_UNESCAPED = regex(rb"%%|[%\x00-\x1f\x7f]")


def escape_associated_file(path: str) -> bytes:
    """*path* as the reference sends it: ``%`` doubled, white space (as Latin-1, byte by byte) a single ``%``.

    Beyond the reference, the other white space of Unicode becomes ``%`` too: a stock server splits
    there and would take the rest of the name for the key.
    """
    raw = _SPACES_OF_UNICODE.sub(" ", path).encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda found: b"%%" if found[0] == b"%" else b"%", raw)


def unescape_associated_file(wire: bytes) -> str:
    """What *wire* may have been: ``%%`` is ``%``, a lone ``%`` or a control character is ``_``."""
    raw = _UNESCAPED.sub(lambda found: b"%" if found[0] == b"%%" else b"_", wire)
    return raw.decode("utf-8", "surrogateescape")
