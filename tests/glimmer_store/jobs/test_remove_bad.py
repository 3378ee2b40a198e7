"""A copy that seems bad is taken away only where another one was read and is right."""

from __future__ import annotations

from hashlib import sha256

import pytest

import annexpy as annex
from annexpy.remote.memory import MemoryRemote
from glimmer_store.jobs.copying import remove_bad
from glimmer_store.jobs.event import Task
from glimmer_store.jobs.places import Places

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

GOOD, WRONG = b"measured", b"measurEd"
KEY = annex.Key.parse(f"SHA256-s{len(GOOD)}--{sha256(GOOD).hexdigest()}")


def place(number: int, content: bytes | None) -> MemoryRemote:
    uuid = annex.UUID(f"{number:08d}-1111-4111-8111-111111111111")
    objects = {} if content is None else {KEY: content}
    return MemoryRemote(uuid, name=f"n{number}", clock=annex.SystemClock(), objects=objects)


class Known(Places):
    """Those that are given, all of them elsewhere."""

    def __init__(self, *remotes: MemoryRemote) -> None:
        self._known = {str(remote.uuid): remote for remote in remotes}

    def remote(self, uuid: str) -> annex.Remote | None:
        return self._known.get(uuid)

    def name(self, uuid: str) -> str:
        return uuid

    def is_here(self, uuid: str) -> bool:
        return False

    def is_cold(self, uuid: str) -> bool:
        return False


def task(dest: MemoryRemote, *sources: MemoryRemote) -> Task:
    return Task(str(KEY), KEY.size, "", (), tuple(str(one.uuid) for one in sources), str(dest.uuid))


async def test_it_stays_when_the_copy_that_was_to_replace_it_is_bad_too() -> None:
    dest, source = place(1, WRONG), place(2, WRONG)
    with pytest.raises(annex.ContentError, match="no good copy"):
        await remove_bad(Known(dest, source), task(dest, source), str(source.uuid))
    assert KEY in dest.objects


async def test_it_goes_when_any_source_is_right() -> None:
    dest, source, other = place(1, WRONG), place(2, WRONG), place(3, GOOD)
    await remove_bad(Known(dest, source, other), task(dest, source, other), str(source.uuid))
    assert KEY not in dest.objects
    assert KEY in other.objects


async def test_it_stays_when_no_source_can_be_asked() -> None:
    dest = place(1, WRONG)
    with pytest.raises(annex.ContentError):
        await remove_bad(Known(dest), task(dest), "")
    assert KEY in dest.objects
