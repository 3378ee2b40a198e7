"""A small content from a repository on this machine: read whole before it is given, so that nobody need take over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from annexpy.errors import AnnexError, KeyNotPresent
from annexpy.remote.failover import Wanted
from annexpy.remote.health import Node
from annexpy.remote.kinds import bare_local
from annexpy.remote.local import Local
from annexpy.uuids import UUID

__all__ = ["SmallDownload", "read_at_once"]


class SmallDownload:
    """``Download`` of bytes that are here.

    Attributes:
        source: Where they come from.
        valid: Nobody wrote to the object while they were read.
    """

    __slots__ = ("_content", "source", "valid")

    def __init__(self, content: bytes, source: UUID, *, valid: bool) -> None:
        self._content, self.source, self.valid = content, source, valid

    @property
    def length(self) -> int:
        return len(self._content)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content:
            yield self._content


def read_at_once(wanted: Wanted, ranked: Sequence[Node]) -> tuple[Node, SmallDownload] | None:
    """What is *wanted*, from the first of *ranked* that has it; None when that takes more than to read a small file.

    To look in a node on this machine costs less than to read in the location log whether it may have the content.
    Anything but absence is left to whoever asks the nodes one after the other and says what went wrong.
    """
    size = wanted.key.size
    for node in ranked:
        local = bare_local(node.remote)
        if local is None or size is None or size > local.store.settings.inline or local.store.settings.thin:
            return None
        try:
            found = _read(local, wanted, size)
        except KeyNotPresent:
            continue
        except (AnnexError, OSError):
            return None
        return None if found is None else (node, found)
    return None


def _read(local: Local, wanted: Wanted, size: int) -> SmallDownload | None:
    with local.store.open(wanted.key) as stored:
        length = wanted.length(wanted.offset) or 0
        content = stored.pread(length, wanted.offset) if length else b""
        if stored.size != size or len(content) != length:
            return None
        return SmallDownload(content, local.uuid, valid=stored.unchanged())
