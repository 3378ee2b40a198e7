"""A P2P server on standard input and output that says SUCCESS and then loses or alters what it was given.

``lying_server.py REPOSITORY HOW [TIMES]``: HOW is ``drop``, ``flip`` or ``full``; after TIMES puts it is honest. How
many puts there were is counted in a file, since each connection is a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

import annexpy as annex
from annexpy.remote.wrappers import Wrapper
from annexpy.server import ServerMode, serve_remote
from annexpy.transport.pipe import stdio


class Lying(Wrapper):
    """A repository that spoils what it has just stored."""

    def __init__(self, local: annex.Local, how: str, times: int) -> None:
        super().__init__(local)
        self._local, self.how, self._times = local, how, times

    @asynccontextmanager
    async def put(  # type: ignore[override]
        self, key: annex.Key, *, associated_file: str = ""
    ) -> AsyncIterator[annex.Upload]:
        async with self.remote.put(key, associated_file=associated_file) as upload:
            yield _Upload(self, key, upload)

    def spoil(self, key: annex.Key) -> None:
        """Lose or alter the content of *key*, unless that was done often enough."""
        git_dir = Path(os.fsdecode(self._local.repository.git_dir))
        count = git_dir / "puts"
        with count.open("ab") as file:
            file.write(b".")
        if count.stat().st_size > self._times:
            return
        path = self._local.store.path(key)
        assert path is not None
        content = git_dir / os.fsdecode(path)
        if self.how == "drop":
            content.parent.chmod(0o755)
            content.unlink()
        else:
            data = bytearray(content.read_bytes())
            data[-1] ^= 0xFF
            content.chmod(0o644)
            content.write_bytes(data)
            content.chmod(0o444)


class _Upload:
    def __init__(self, lying: Lying, key: annex.Key, upload: annex.Upload) -> None:
        self._lying, self._key, self._upload = lying, key, upload
        self.already, self.offset = upload.already, upload.offset

    async def start(self, length: int) -> None:
        if self._lying.how == "full":
            raise annex.NoSpace(self._key, "the liar", length, 0)
        await self._upload.start(length)

    async def write(self, data: bytes) -> None:
        await self._upload.write(data)

    async def finish(self, valid: bool = True) -> annex.Stored:
        stored = await self._upload.finish(valid)
        self._lying.spoil(self._key)
        return stored

    async def data_present(self) -> annex.Stored:
        return await self._upload.data_present()


async def main(path: str, how: str, times: str = "1000000") -> None:
    with annex.Repository.open(path) as repository:
        local = annex.Local(repository, durability="fast")
        await serve_remote(stdio(), Lying(local, how, int(times)), mode=ServerMode.WRITE)
        await local.aclose()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
