"""What hypothesis draws: keys, UUIDs, associated files, messages, splits of bytes, and where a client vanishes."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

__all__ = ["Cut", "associated_files", "faults", "keys", "messages", "splits", "uuids"]

_LETTERS: Final = string.ascii_letters + string.digits
VERBS: Final = (
    *(b"AUTH", b"VERSION", b"BYPASS", b"CHECKPRESENT", b"LOCKCONTENT", b"UNLOCKCONTENT", b"REMOVE", b"REMOVE-BEFORE"),
    *(b"GETTIMESTAMP", b"PUT-FROM", b"ALREADY-HAVE", b"DATA-PRESENT", b"VALID", b"INVALID", b"SUCCESS", b"FAILURE"),
    *(b"AUTH-SUCCESS", b"AUTH-FAILURE", b"SUCCESS-PLUS", b"FAILURE-PLUS", b"TIMESTAMP", b"CHANGED", b"CONNECTDONE"),
)
"""All verbs that a client may say at the wrong moment, without those that begin a transfer or end the session."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The client vanishes after *after* bytes, having sent them in pieces of *piece*."""

    after: int
    piece: int


def uuids() -> st.SearchStrategy[bytes]:
    """As git-annex makes them."""
    return st.uuids(version=4).map(lambda uuid: str(uuid).encode())


def keys() -> st.SearchStrategy[bytes]:
    """Well-formed ones that nobody has stored, with whatever a name may have in it."""
    name = st.binary(min_size=1, max_size=60).map(lambda raw: raw.translate(None, b"\n\r\0").strip() or b"x")
    field = st.integers(0, 2**40)
    return st.builds(lambda size, time, name: b"WORM-s%d-m%d--%s" % (size, time, name), field, field, name)


def associated_files() -> st.SearchStrategy[bytes]:
    """Relative names, before they are escaped."""
    part = st.text(st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=12)
    return st.lists(part, max_size=4).map(lambda parts: "/".join(parts).encode()).filter(lambda name: name[:1] != b"/")


def messages() -> st.SearchStrategy[bytes]:
    """Lines that no client should say: known verbs with anything behind them, unknown ones, and noise."""
    noise = st.binary(max_size=80).map(lambda raw: raw.translate(None, b"\n"))
    known = st.builds(lambda verb, rest: verb + b" " + rest, st.sampled_from(VERBS), noise)
    unknown = st.text(_LETTERS, min_size=1, max_size=12).map(lambda word: b"X" + word.encode())
    return st.one_of(known, unknown, noise).filter(lambda line: not line.lstrip().startswith((b"ERROR", b"AUTH")))


def splits(length: int) -> st.SearchStrategy[list[int]]:
    """Where *length* bytes are cut into packets."""
    return st.lists(st.integers(1, max(1, length - 1)), max_size=8, unique=True).map(sorted)


def faults(length: int) -> st.SearchStrategy[Cut]:
    """A client that vanishes while it sends *length* bytes."""
    anywhere = st.integers(0, length) | st.integers(0, 8).map(lambda eighths: length * eighths // 8)
    return st.builds(Cut, anywhere, st.integers(1, length + 1))
