"""Somebody else is at the same repository in between: what we say that we did is what we did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from places import Place, content_of, key_of, store

from annexpy.actions.copy import move
from annexpy.errors import NotEnoughCopies
from annexpy.policy.numcopies import Copies
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

CONTENT = content_of(1)
KEY = key_of(CONTENT)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    with Repository.init(tmp_path / "here", bare=True) as repository:
        yield Local(repository, durability="fast")


def comes_before_its_turn(monkeypatch: pytest.MonkeyPatch, local: Local) -> None:
    """Somebody else stores the content between our look and our lock."""
    receive, place = local.store.receive, Place(Path(local.repository.path))

    def receive_late(*args: object, **options: object) -> object:
        if place.object(KEY) is None:
            place.lay(KEY, CONTENT)
        return receive(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(local.store, "receive", receive_late)


async def test_what_came_before_it_was_our_turn_was_there_already(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    comes_before_its_turn(monkeypatch, local)
    async with local.put(KEY) as upload:
        assert upload.already == {local.uuid}


async def test_what_came_while_we_received_it_was_there_already(local: Local) -> None:
    async with local.put(KEY) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT)
        Place(Path(local.repository.path)).lay(KEY, CONTENT)
        stored = await upload.finish()
    assert (stored.uuids, stored.already) == (frozenset(), {local.uuid})


async def test_a_move_counts_a_copy_that_came_from_somebody_else_as_one_that_was_there(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.init(tmp_path / "source", bare=True) as repository:
        source = Local(repository, durability="fast")
        await store(source, KEY, CONTENT)
        comes_before_its_turn(monkeypatch, local)
        moved = [one async for one in move(source, local, [KEY], copies=Copies(2))]
        assert isinstance(moved[0].error, NotEnoughCopies), "it may have left another place for it"
        assert await source.check_present(KEY)


async def test_a_lock_on_a_content_that_somebody_writes_to_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "thin"
    with Repository.init(path) as repository:
        repository.config.set("annex.thin", "true")
    with Repository.open(path) as repository:
        local = Local(repository, durability="fast")
        await store(local, KEY, CONTENT)
        file = Place(path).object(KEY)
        assert file is not None
        file.chmod(0o644)  # as for an unlocked file, of which it is a hard link
        async with local.lock_content(KEY) as lock:
            assert await lock.held()
            with file.open("r+b") as written:
                written.write(b"changed")
            assert not await lock.held()
            assert not await lock.held()
