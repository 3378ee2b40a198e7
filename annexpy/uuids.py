"""Repository UUIDs. Opaque in git-annex, so no RFC 4122 check; only what may cross a wire or name a file."""

from __future__ import annotations

from typing import NewType

from annexpy.errors import InvalidUUID
from annexpy.patterns import regex

__all__ = ["BITTORRENT", "UUID", "WEB", "is_cluster", "new_cluster_uuid", "parse_uuid"]

UUID = NewType("UUID", str)

WEB = UUID("00000000-0000-0000-0000-000000000001")
"""The web, as a repository."""
BITTORRENT = UUID("00000000-0000-0000-0000-000000000002")

_ALLOWED = regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z")


def parse_uuid(value: str | bytes) -> UUID:
    """*value* as a UUID that is safe on the wire and as a file name.

    Raises:
        InvalidUUID: Empty, longer than 64 bytes, a byte outside ``[A-Za-z0-9._-]``, or a leading dot.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if not _ALLOWED.match(text):
        raise InvalidUUID("uuid", value, "1 to 64 of [A-Za-z0-9._-], not starting with a dot")
    return UUID(text)


def is_cluster(uuid: str) -> bool:
    """True for the UUID of a cluster: starts with ``ac``, version nibble ``8``. Never a copy.

    Source: fact sheet repository-format, section 5.
    """
    return len(uuid) > 14 and uuid[:2] == "ac" and uuid[14] == "8"


def new_cluster_uuid(random_uuid: str) -> UUID:
    """A cluster UUID from the text of a fresh version-4 UUID."""
    return UUID("ac" + random_uuid[2:14] + "8" + random_uuid[15:])
