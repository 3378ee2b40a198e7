"""Small contents between repositories on this machine go some at once, and every promise about one holds for each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import pytest

from annexpy.actions.copy import copy
from annexpy.actions.drop import drop_many
from annexpy.actions.results import Transfer, Verified
from annexpy.errors import ContentLocked, KeyNotPresent, NotEnoughCopies, VerificationFailed
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.local import Local
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

CONTENTS = {name_content([content]): content for content in (b"content %d" % number for number in range(70))}
KEYS = list(CONTENTS)


class Places:
    """Three repositories; the first and the second may have contents, the third keeps the records of a user."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.repositories = []
        for number, name in enumerate(("one", "two", "user")):
            Repository.init(
                path / name, bare=True, uuid=UUID(f"{number + 1}{'0' * 7}-1111-4111-8111-111111111111")
            ).close()
            self.repositories.append(Repository.open(path / name))
        self.one, self.two = (Local(repository, durability=durability) for repository in self.repositories[:2])
        self.user = self.repositories[2]

    async def store(self, *locals_: Local, keys: list[Key] = KEYS) -> None:
        for local in locals_:
            for key in keys:
                async with local.put(key) as upload:
                    await upload.start(len(CONTENTS[key]))
                    await upload.write(CONTENTS[key])
                    await upload.finish()

    def held(self, local: Local) -> list[Key]:
        """What *local* has, which is what its records and nobody else's say."""
        present = [key for key in KEYS if local.store.present(key)]
        with Repository.open(local.repository.path) as again:  # what a kill now would leave
            recorded = [key for key in KEYS if local.uuid in again.branch.locations(key).present]
        assert recorded == present
        return present

    def said(self, local: Local) -> list[Key]:
        """What the user's records say of *local*."""
        return [key for key in KEYS if local.uuid in self.user.branch.locations(key).present]


@pytest.fixture(params=["fast", "full"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    places = Places(tmp_path, request.param)
    yield places
    for repository in places.repositories:
        repository.close()


def spoil(local: Local, key: Key) -> None:
    """Other bytes of the same length."""
    path = local.store.path(key)
    assert path is not None
    object_ = Path(os.fsdecode(local.repository.files.path + b"/" + path))
    object_.chmod(0o644)
    object_.write_bytes(CONTENTS[key][::-1])
    object_.chmod(0o444)


# -- copy -----------------------------------------------------------------------------------------


async def test_every_content_is_stored_and_recorded_before_its_result_is_told(places: Places) -> None:
    await places.store(places.one)
    told: list[Key] = []

    def tell(result: Transfer) -> None:
        assert result.ok
        assert result.stored.uuids == {places.two.uuid}
        assert (result.bytes, result.verified) == (len(CONTENTS[result.key]), Verified.HASH)
        told.append(result.key)
        if len(told) in (1, 40):
            assert set(told) <= set(places.held(places.two))

    await copy(places.one, Recording(places.two, places.user.branch), KEYS).tell(tell)

    assert sorted(told) == sorted(KEYS)
    assert places.held(places.two) == KEYS
    assert places.said(places.two) == KEYS


async def test_what_goes_wrong_with_one_content_is_its_own_affair(places: Places) -> None:
    spoiled, absent, there = KEYS[3], KEYS[20], KEYS[40]
    await places.store(places.one, keys=[key for key in KEYS if key != absent])
    await places.store(places.two, keys=[there])
    spoil(places.one, spoiled)

    results = {result.key: result async for result in copy(places.one, places.two, KEYS)}

    assert isinstance(results[spoiled].error, VerificationFailed)
    assert isinstance(results[absent].error, KeyNotPresent)
    assert results[there].stored.already == {places.two.uuid}
    assert {key for key, result in results.items() if not result.ok} == {spoiled, absent}
    assert places.held(places.two) == [key for key in KEYS if key not in (spoiled, absent)]
    assert places.repositories[1].files.names(b"annex/tmp") == []
    assert places.repositories[1].files.names(b"annex/transfer/download/lck") == []


async def test_a_content_that_was_begun_is_gone_on_with(places: Places) -> None:
    key = KEYS[5]
    await places.store(places.one)
    async with places.two.put(key) as upload:
        await upload.start(len(CONTENTS[key]))
        await upload.write(CONTENTS[key][:4])

    results = {result.key: result async for result in copy(places.one, places.two, KEYS)}

    assert results[key].offset == 4
    assert all(result.ok for result in results.values())
    assert places.held(places.two) == KEYS


async def test_a_key_that_is_named_twice_is_copied_once(places: Places) -> None:
    await places.store(places.one, keys=KEYS[:2])

    results = [result async for result in copy(places.one, places.two, [*KEYS[:2], *KEYS[:2]])]

    assert sorted(len(result.stored.uuids) for result in results) == [0, 0, 1, 1]


async def test_no_lock_and_no_descriptor_is_left_when_a_copy_of_some_is_cancelled(places: Places) -> None:
    await places.store(places.one)
    folder, before = Path("/proc/self/fd"), 0
    for number in range(6):  # each further on, in the middle of what is synced among it
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel(scope: anyio.CancelScope = scope, turns: int = 2 * number) -> None:
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                tasks.start_soon(cancel)
                await copy(places.one, places.two, KEYS).tell(id)
        assert places.repositories[1].files.names(b"annex/transfer/download/lck") == []
        for local in (places.one, places.two):
            local.store.close()
        before = before or len(list(folder.iterdir()))
        assert len(list(folder.iterdir())) < before + 10  # a file of records among them, and none for each key

    results = [result async for result in copy(places.one, places.two, KEYS)]

    assert all(result.ok for result in results)
    assert places.held(places.two) == KEYS


async def test_progress_ends_with_the_whole_content(places: Places) -> None:
    await places.store(places.one)
    done: dict[Key, int] = {}

    await copy(places.one, places.two, KEYS, progress=lambda key, so_far, size: done.update({key: so_far})).tell(id)

    assert done == {key: len(content) for key, content in CONTENTS.items()}


# -- drop -----------------------------------------------------------------------------------------


async def test_what_is_dropped_is_what_the_records_say(places: Places) -> None:
    await places.store(places.one, places.two)
    user = places.user.branch
    for key in KEYS:
        user.set_present(key, places.two.uuid, True)

    dropping = drop_many(KEYS, from_=Recording(places.two, user), others=[places.one], copies=Copies())
    results = [result async for result in dropping]

    assert all(result.ok and result.proof is not None for result in results)
    assert places.held(places.two) == []
    assert places.held(places.one) == KEYS
    assert places.said(places.two) == []
    assert places.repositories[0].files.names(b"annex/objects") != []
    assert places.repositories[1].files.names(b"annex/objects") == []


async def test_one_content_that_may_not_go_keeps_no_other(places: Places) -> None:
    single, locked, absent, spoiled = KEYS[1], KEYS[33], KEYS[50], KEYS[60]
    await places.store(places.one, keys=[key for key in KEYS if key != single])
    await places.store(places.two, keys=[key for key in KEYS if key != absent])
    path = places.one.store.path(spoiled)
    assert path is not None
    object_ = Path(os.fsdecode(places.one.repository.files.path + b"/" + path))
    object_.parent.chmod(0o755)
    object_.unlink()

    async with places.two.lock_content(locked):
        dropping = drop_many(KEYS, from_=places.two, others=[places.one], copies=Copies())
        results = {result.key: result async for result in dropping}

    assert isinstance(results[single].error, NotEnoughCopies)
    assert isinstance(results[locked].error, ContentLocked)
    assert isinstance(results[spoiled].error, NotEnoughCopies)
    assert results[absent].ok
    assert {key for key, result in results.items() if not result.ok} == {single, locked, spoiled}
    assert places.held(places.two) == [single, locked, spoiled]


async def test_a_key_that_is_named_twice_is_dropped_twice(places: Places) -> None:
    await places.store(places.one, places.two, keys=KEYS[:3])
    keys = [*KEYS[:3], *KEYS[:3]]

    results = [result async for result in drop_many(keys, from_=places.two, others=[places.one], copies=Copies())]

    assert [result.error for result in results] == [None] * 6
    removed = await places.one.remove_content_many(keys)
    assert [result.ok for result in removed] == [True] * 6
    assert places.held(places.one) == []


async def test_no_lock_is_left_when_a_drop_of_some_is_cancelled(places: Places) -> None:
    await places.store(places.one, places.two)
    with anyio.CancelScope() as scope:

        def tell(result: object) -> None:
            scope.cancel()

        await drop_many(KEYS, from_=places.two, others=[places.one], copies=Copies()).tell(tell)

    left = places.held(places.two)
    assert len(left) < len(KEYS)
    assert places.held(places.one) == KEYS
    for key in KEYS:
        assert places.one.store.remove(key)  # nothing keeps it


def test_drops_from_both_sides_at_once_leave_one_copy_and_no_lock(tmp_path: Path) -> None:
    places = Places(tmp_path, "fast")
    gone = [0, 0]
    for number in range(12):
        start = threading.Barrier(2)
        for local in (places.one, places.two):
            anyio.run(partial(places.store, local, keys=[key for key in KEYS if not local.store.present(key)]))

        def drop(side: int, number: int = number, start: threading.Barrier = start) -> int:
            """As another process would: nothing is shared, and one goes the other way."""
            with Repository.open(places.one.repository.path) as one, Repository.open(places.two.repository.path) as two:
                here, there = [Local(two), Local(one)] if side else [Local(one), Local(two)]
                keys = KEYS[:: -1 if side and number % 2 else 1]

                async def dropped() -> int:
                    dropping = drop_many(keys, from_=here, others=[there], copies=Copies())
                    done = sum([result.ok async for result in dropping])
                    await here.aclose()
                    return done

                start.wait(10)
                return anyio.run(dropped)

        with ThreadPoolExecutor(2) as pool:
            for side, done in enumerate(pool.map(drop, range(2))):
                gone[side] += done
        held = [set(places.held(local)) for local in (places.one, places.two)]
        assert held[0] | held[1] == set(KEYS), "the last copy is gone"
    assert all(gone)
    for key in KEYS:
        for local in (places.one, places.two):
            local.store.remove(key)  # nothing keeps it
    for repository in places.repositories:
        repository.close()
