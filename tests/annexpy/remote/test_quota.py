"""A repository that may hold so many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import NoSpace
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.remote.local import Local
from annexpy.remote.quota import WithinQuota
from annexpy.repo.repository import Repository

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "bare.git", bare=True) as repository:
        yield repository


def content(number: int, size: int = 1000) -> tuple[Key, bytes]:
    data = bytes([number]) * size
    return name_content([data], b"SHA256"), data


async def put(remote: WithinQuota, key: Key, data: bytes) -> None:
    async with remote.put(key) as upload:
        if upload.already is None:
            await upload.start(len(data) - upload.offset)
            await upload.write(data[upload.offset :])
            assert (await upload.finish()).ok


async def test_contents_fit_up_to_the_limit_and_not_beyond(bare: Repository) -> None:
    remote = WithinQuota(Local(bare, durability="fast"), lambda: 2500)
    await put(remote, *content(1))
    await put(remote, *content(2))
    third, data = content(3)
    with pytest.raises(NoSpace, match="the quota is 2500 bytes: 1000 bytes needed, 500 free"):
        await put(remote, third, data)
    assert not await remote.check_present(third)
    await put(remote, *content(1))  # is there
    await put(remote, *content(4, 500))


async def test_what_was_removed_makes_room(bare: Repository) -> None:
    remote = WithinQuota(Local(bare, durability="fast"), lambda: 1000)
    first, data = content(1)
    await put(remote, first, data)
    with pytest.raises(NoSpace):
        await put(remote, *content(2))
    assert (await remote.remove_content(first)).ok
    await put(remote, *content(2))


async def test_what_lay_there_before_counts_whatever_the_logs_say(bare: Repository) -> None:
    local = Local(bare, durability="fast")
    first, data = content(1)
    await put(WithinQuota(local, lambda: None), first, data)
    bare.branch.set_present(first, bare.uuid, False)
    with pytest.raises(NoSpace):
        await put(WithinQuota(local, lambda: 1500), *content(2))


async def test_contents_on_their_way_count(bare: Repository) -> None:
    remote = WithinQuota(Local(bare, durability="fast"), lambda: 1500)
    async with remote.put(content(1)[0]) as upload:
        await upload.start(1000)
        with pytest.raises(NoSpace):
            await put(remote, *content(2))
    await put(remote, *content(2))  # the first did not come to stay


async def test_a_key_without_a_size_is_measured_when_its_length_is_said(bare: Repository) -> None:
    remote = WithinQuota(Local(bare, durability="fast"), lambda: 1500)
    async with remote.put(Key.parse("WORM-m1--one")) as upload:
        with pytest.raises(NoSpace):
            await upload.start(2000)
    async with remote.put(Key.parse("WORM-m1--two")) as upload:
        await upload.start(1000)
        await upload.write(bytes(1000))
        assert (await upload.finish()).ok
    assert await remote.held() == 1000
