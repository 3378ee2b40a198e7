"""A repository that is open for long: what is claimed in its name is in it, whatever stands at its path now."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from places import content_of, key_of, read, store

from annexpy.errors import AnnexError, ConnectFailed, UnknownUUID
from annexpy.remote import local_place
from annexpy.remote.local_place import LocalPlace
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

CONTENT = content_of(1)
KEY = key_of(CONTENT)
OTHER = UUID("bbbbbbbb-0000-4000-8000-000000000001")


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalPlace]:
    """Open, with a content in it."""
    monkeypatch.setattr(local_place, "_LOOK", 0.0)
    with Repository.init(tmp_path / "node", bare=True) as repository:
        uuid = repository.uuid
    async with LocalPlace(str(tmp_path / "node"), uuid=uuid, name="node") as place:
        await store(place, KEY, CONTENT)
        yield place


async def test_another_repository_in_its_place_is_not_taken_for_it(place: LocalPlace, tmp_path: Path) -> None:
    (tmp_path / "node").rename(tmp_path / "away")
    Repository.init(tmp_path / "node", bare=True).close()
    for attempt in (place.check_present(KEY), store(place, key_of(b"new"), b"new"), place.connect()):
        with pytest.raises(UnknownUUID):
            await attempt
    with pytest.raises(UnknownUUID):
        async with place.lock_content(KEY):
            pass


async def test_one_that_was_initialised_anew_is_another_one(place: LocalPlace, tmp_path: Path) -> None:
    with Repository.open(tmp_path / "node") as repository:
        repository.config.set("annex.uuid", OTHER)
    with pytest.raises(UnknownUUID):
        await place.check_present(KEY)


@pytest.mark.parametrize("mount_point", [True, False])
async def test_one_that_is_away_is_away_and_is_found_again(
    place: LocalPlace, tmp_path: Path, mount_point: bool
) -> None:
    (tmp_path / "node").rename(tmp_path / "away")
    if mount_point:
        (tmp_path / "node").mkdir()
    with pytest.raises(ConnectFailed):
        await place.check_present(KEY)
    with pytest.raises(AnnexError):
        await store(place, key_of(b"new"), b"new")
    shutil.rmtree(tmp_path / "node", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "node")
    assert await read(place, KEY) == CONTENT


async def test_what_is_under_way_goes_on_where_it_was_begun(place: LocalPlace, tmp_path: Path) -> None:
    new = key_of(b"new")
    async with place.put(new) as upload:
        await upload.start(3)
        await upload.write(b"new")
        (tmp_path / "node").rename(tmp_path / "away")
        with pytest.raises(ConnectFailed):
            await place.check_present(KEY)
        assert (await upload.finish()).uuids == {place.uuid}
    (tmp_path / "away").rename(tmp_path / "node")
    assert await read(place, new) == b"new"
