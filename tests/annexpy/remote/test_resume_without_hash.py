"""A key without a hash cannot tell two versions of its content apart, so they must never be joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from annexpy.actions.get import get
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.repository import Repository
from annexpy.system import new_uuid

pytestmark = pytest.mark.anyio
KEY = Key.parse(b"WORM-s8-m1--x")


async def leave_a_partial(remote: Remote, content: bytes) -> None:
    async with remote.put(KEY) as upload:
        await upload.start(8)
        await upload.write(content)
        raise RuntimeError("cut")


async def test_a_put_of_a_key_without_a_hash_begins_anew(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r.git", bare=True) as repository:
        remote = Local(repository)
        with pytest.raises(RuntimeError, match="cut"):
            await leave_a_partial(remote, b"AAAA")

        async with remote.put(KEY) as upload:
            assert upload.offset == 0
            await upload.start(8)
            await upload.write(b"BBBBBBBB")
            assert (await upload.finish()).ok

        async with remote.get(KEY) as download:
            assert b"".join([chunk async for chunk in download]) == b"BBBBBBBB"


async def test_a_get_of_a_key_without_a_hash_begins_anew(tmp_path: Path) -> None:
    source = MemoryRemote(new_uuid(), objects={KEY: b"BBBBBBBB"})
    target = tmp_path / "x"
    partial = await _partial_of(target)
    partial.write_bytes(b"AAAA")

    await get(source, KEY, target)

    assert target.read_bytes() == b"BBBBBBBB"


async def _partial_of(target: Path) -> Path:
    from annexpy.actions.destination import partial_name

    return target.parent / partial_name(KEY).decode()
