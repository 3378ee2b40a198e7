"""Each: several at a time, but what touches the same content goes one after another."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint

from annexpy.actions.copy import copy
from annexpy.actions.many import Each
from annexpy.actions.put import put_many
from annexpy.keys.backend import name_content
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio


async def test_items_of_the_same_content_go_one_after_another_and_others_overlap() -> None:
    running: set[str] = set()
    most = 0

    async def work(item: tuple[str, int]) -> int:
        nonlocal most
        assert item[0] not in running
        running.add(item[0])
        most = max(most, len(running))
        await checkpoint()
        running.remove(item[0])
        return item[1]

    items = [("a", 0), ("b", 1), ("a", 2), ("c", 3), ("a", 4), ("b", 5)]
    results = [result async for result in Each(items, work, jobs=4, same=lambda item: item[0])]

    assert sorted(results) == [0, 1, 2, 3, 4, 5]
    assert results.index(0) < results.index(2) < results.index(4)
    assert most == 3


async def test_two_files_with_the_same_content_are_both_stored(tmp_path_factory: pytest.TempPathFactory) -> None:
    content = b"the same" * 100_000
    key = name_content([content])
    folder = tmp_path_factory.mktemp("twice")
    with Repository.init(str(folder / "store"), bare=True) as repository:
        remote = Local(repository)

        results = [result async for result in put_many(remote, [(key, content), (key, content)])]

        assert [result.error for result in results] == [None, None]


async def test_a_key_that_is_named_twice_is_copied_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    content = b"the same" * 100_000
    key = name_content([content])
    source = MemoryRemote(UUID("11111111-1111-4111-8111-111111111111"), name="source", objects={key: content})
    folder = tmp_path_factory.mktemp("twice")
    with Repository.init(str(folder / "store"), bare=True) as repository:
        results = [result async for result in copy(source, Local(repository), [key, key])]

        assert [result.error for result in results] == [None, None]
        assert sum(result.bytes for result in results) == len(content)
