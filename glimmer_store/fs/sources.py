"""Where contents come from: remotes by their addresses, opened once for each event loop, and anew after a fork."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Final
from weakref import WeakKeyDictionary

import annexpy as annex

__all__ = ["Sources"]

_TRIES: Final = 2
_LOGS_KEPT: Final = 4096


class Sources:
    """One or several remotes that may have a content.

    Args:
        remotes: Addresses, or names of git remotes of the dataset. Several are read as a cluster: the cheapest
            that has it gives it, and another goes on where one breaks off. None, with a dataset: the dataset
            itself and all of its git remotes, those first that are recorded to have the content.
        dataset: A repository on this machine, or None.
        uuid: Which repository the only remote must be.
    """

    def __init__(self, remotes: Sequence[str] | None, dataset: str | None, uuid: str | None) -> None:
        self._remotes, self._dataset, self._uuid = remotes, dataset, uuid
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, annex.Remote] = WeakKeyDictionary()
        self._pid = os.getpid()

    @cached_property
    def repository(self) -> annex.Repository | None:
        """The dataset."""
        return None if self._dataset is None else annex.Repository.open(self._dataset)

    @cached_property
    def tree(self) -> annex.FileTree | None:
        """Its commits."""
        return None if self.repository is None else annex.FileTree(self.repository)

    def remote(self) -> annex.Remote:
        """For the event loop that runs. Nothing is connected to yet."""
        if self.foreign:  # what the parent has open is the parent's
            self._open, self._pid = WeakKeyDictionary(), os.getpid()
        loop = asyncio.get_running_loop()
        found = self._open.get(loop)
        if found is None:
            found = self._open[loop] = self._connected()
        return found

    def _connected(self) -> annex.Remote:
        repository = self.repository
        if self._remotes is not None:
            nodes = [annex.connect(one, uuid=self._uuid, repository=repository) for one in self._remotes]
            return nodes[0] if len(nodes) == 1 else annex.Cluster(nodes, name=", ".join(self._remotes))
        assert repository is not None
        uuids: dict[str, str] = {}
        found: list[annex.Connected] = [annex.connect(repository.path, uuid=repository.uuid)]
        for remote in repository.config.remotes().values():
            if not remote.has_contents:
                continue
            try:
                found.append(annex.connect(remote.name, repository=repository))
            except annex.InvalidInput:
                continue  # a carrier that is not offered; the others may do
            uuids[remote.name] = remote.uuid or ""
        if len(found) == 1:
            return found[0]
        return annex.Cluster(found, name=repository.path, select=_Recorded(repository, uuids))

    async def read(self, key: annex.Key, start: int, end: int | None) -> bytes:
        """Bytes *start* to *end* of the content; a whole content is verified, as far as its key can be.

        A connection that is lost in the middle is made again, once: reading on changes nothing anywhere.
        """
        parts: list[bytes] = []
        at, left = start, _TRIES
        check = annex.verifier(key) if start == 0 and (end is None or end == key.size) else None
        while True:
            left -= 1
            try:
                async with self.remote().get(key, offset=at, end=end) as download:
                    async for chunk in download:
                        parts.append(chunk)
                        at += len(chunk)
                        if check is not None:
                            check.update(chunk)
                    if not download.valid:
                        raise annex.ContentChanged(key, self.remote().name)
                break
            except annex.ConnectionLost:
                if not left or not annex.is_verifiable(key):
                    raise
        if check is not None and not check.matches():
            raise annex.VerificationFailed(key, self.remote().name, "the content is not that of the key")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def size(self, key: annex.Key) -> int:
        """Of a content whose key does not tell: what its holder announces."""
        async with self.remote().get(key) as download:
            return download.length

    async def fetch(self, key: annex.Key, path: str) -> None:
        """The whole content as a file, verified; nothing that is not is ever at *path*."""
        await annex.get(self.remote(), key, path, durable=False)

    @property
    def foreign(self) -> bool:
        """Somebody forked since: what is open is the parent's."""
        return self._pid != os.getpid()

    async def close(self) -> None:
        """Give back the connections of the event loop that runs; they are made again when needed."""
        if not self.foreign:
            remote = self._open.pop(asyncio.get_running_loop(), None)
            if remote is not None:
                await remote.aclose()


class _Recorded:
    """Those first that the location log says have it; a cluster asks the others after them."""

    def __init__(self, repository: annex.Repository, uuids: Mapping[str, str]) -> None:
        self._uuids = uuids
        self._present = lru_cache(_LOGS_KEPT)(lambda key: frozenset(repository.branch.locations(key).present))

    def __call__(
        self, verb: str, key: annex.Key, associated_file: str, nodes: Sequence[annex.Remote]
    ) -> list[annex.Remote]:
        present = self._present(key)
        return [node for node in nodes if (self._uuids.get(node.name) or _uuid(node)) in present]


def _uuid(remote: annex.Remote) -> str:
    try:
        return remote.uuid
    except annex.AnnexError:
        return ""  # not known before it was connected to
