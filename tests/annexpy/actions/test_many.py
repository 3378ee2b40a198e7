"""Each: several at a time, but what touches the same content goes one after another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import anyio
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


# -- tell: results at once ------------------------------------------------------------------------


async def test_a_result_is_told_while_the_others_are_under_way() -> None:
    slow = anyio.Event()
    told: list[int] = []

    async def work(number: int) -> int:
        if number == 0:
            await slow.wait()
        else:
            await checkpoint()
        return number

    def tell(number: int) -> None:
        told.append(number)
        if len(told) == 9:
            slow.set()

    await Each(range(10), work, jobs=3).tell(tell)

    assert told[-1] == 0
    assert sorted(told) == list(range(10))


async def test_items_that_are_made_as_they_are_asked_for_are_worked_on_at_once() -> None:
    made: list[int] = []
    worked: list[int] = []

    async def items() -> AsyncIterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    async def work(number: int) -> int:
        worked.append(len(made))
        await checkpoint()
        return number

    await Each(items(), work, jobs=2).tell(lambda _: None)

    assert worked[0] == 1
    assert len(worked) == 4


async def test_the_same_content_in_two_windows_goes_one_after_another() -> None:
    running: set[str] = set()
    seen: list[list[str]] = []

    async def before(items: Sequence[str]) -> None:
        seen.append(list(items))

    async def work(name: str) -> str:
        assert name not in running
        running.add(name)
        for _ in range(5):
            await checkpoint()
        running.remove(name)
        return name

    told: list[str] = []
    each = Each(["a", "b", "a", "a"], work, jobs=4, window=2, before=before, same=lambda name: name)
    await each.tell(told.append)

    assert seen == [["a", "b"], ["a", "a"]]
    assert sorted(told) == ["a", "a", "a", "b"]


@pytest.mark.parametrize("where", ["work", "told", "items"])
async def test_what_goes_wrong_ends_everything_and_is_raised_as_it_is(where: str) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        yield from range(3)
        if where == "items":
            raise ZeroDivisionError
        yield from range(3, 100)

    async def work(number: int) -> int:
        begun.append(number)
        if where == "work" and number == 2:
            raise ZeroDivisionError
        await checkpoint()
        return number

    def tell(number: int) -> None:
        if where == "told":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Each(items(), work, jobs=2, window=2).tell(tell)
    assert len(begun) < 20


async def test_a_cancelled_tell_leaves_nothing_running() -> None:
    running = 0

    async def work(number: int) -> int:
        nonlocal running
        running += 1
        try:
            await anyio.sleep_forever()
        finally:
            running -= 1
        return number

    with anyio.move_on_after(0.01):
        await Each(range(100), work, jobs=8).tell(lambda _: None)

    assert running == 0
