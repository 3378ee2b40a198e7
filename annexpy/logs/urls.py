"""Logs of URLs (``KEY.log.web``) and of equivalent keys (``KEY.log.ek``): presence logs with typed infos.

Whoever records a URL of the web records the web as a location too (``uuids.WEB``).

Source: fact sheet repository-format, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.logs.presence import present
from annexpy.logs.uuidbased import raw, text

__all__ = ["Downloader", "RecordedUrl", "equivalent_keys", "urls"]


class Downloader(Enum):
    """Who can get the content of a URL; the value stands before it in the log."""

    WEB = ""
    VIDEO = "yt:"
    QUVI = "quvi:"
    REMOTE = ":"  # another special remote than the web


_PREFIXED: Final = tuple([downloader for downloader in Downloader if downloader.value])


@dataclass(frozen=True, slots=True)
class RecordedUrl:
    """A URL as it is recorded."""

    url: str
    downloader: Downloader = Downloader.WEB

    @classmethod
    def parse(cls, info: bytes) -> RecordedUrl:
        """Read the info of a line."""
        recorded = text(info)
        for downloader in _PREFIXED:
            if recorded.startswith(downloader.value):
                return cls(recorded[len(downloader.value) :], downloader)
        return cls(recorded)

    def __bytes__(self) -> bytes:
        return raw(self.downloader.value + self.url)


def urls(content: bytes) -> list[RecordedUrl]:
    """The URLs of a key, in the order of the log."""
    return [RecordedUrl.parse(info) for info in present(content)]


def equivalent_keys(content: bytes) -> list[Key]:
    """The keys that name the same content. What is no key is left out."""
    keys = []
    for info in present(content):
        try:
            keys.append(Key.parse(info))
        except InvalidKey:
            continue
    return keys
