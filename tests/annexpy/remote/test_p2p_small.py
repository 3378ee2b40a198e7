"""Small contents that go over a wire one after the other keep every promise of a single put and get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest
from peers import Step, scripted, served
from remote_contract import A, content_of, key_of, store

from annexpy.actions.copy import copy
from annexpy.actions.results import Transfer, Verified
from annexpy.errors import (
    ConnectionLost,
    ContentError,
    KeyNotPresent,
    PeerError,
    RemoteProtocolError,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.local import Local
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

ONE, TWO = content_of(1), content_of(2)
FIRST, SECOND = key_of(ONE), key_of(TWO)
CONTENT: list[Step] = ["> DATA 100", ">> 100", "> VALID"]
THERE = Stored(uuids=frozenset((A,)))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Local]:
    """A repository with nothing in it."""
    path = tmp_path / "here"
    Repository.init(path, bare=True, uuid=UUID("cccccccc-0000-4000-8000-000000000003")).close()
    with Repository.open(path) as repository:
        yield Local(repository, durability="fast")


async def with_both(here: Local) -> None:
    for key, content in ((FIRST, ONE), (SECOND, TWO)):
        await store(here, key, content)


async def copied(source: Remote, destination: Remote, keys: Sequence[Key] = (FIRST, SECOND)) -> list[Transfer]:
    results = {result.key: result async for result in copy(source, destination, keys)}
    return [results[key] for key in keys]


def put(key: Key) -> str:
    return f"> PUT  {key}"


def get(key: Key, offset: int = 0) -> str:
    return f"> GET {offset}  {key}"


def recorded(here: Local, key: Key) -> set[str]:
    return set(here.repository.branch.locations(key).present)


# -- put --------------------------------------------------------------------------------------------


async def test_the_next_put_is_asked_for_with_the_last_word_about_the_one_before(here: Local) -> None:
    await with_both(here)
    script: list[Step] = [put(FIRST), "< PUT-FROM 0", *CONTENT, put(SECOND), "< SUCCESS", "< PUT-FROM 0", *CONTENT]
    async with scripted([*script, "< SUCCESS"], connections=1) as (remote, peers):
        results = await copied(here, Recording(remote, here.repository.branch))
        assert [(result.stored, result.error, result.bytes) for result in results] == [(THERE, None, 100)] * 2
        assert results[0].verified is Verified.HASH
        assert {A} < recorded(here, FIRST)
        assert {A} < recorded(here, SECOND)
        assert peers.met[0].chunks[-2].count(b"PUT ") == 1  # in one write with the content before it


async def test_what_is_stored_is_recorded_before_the_answer_to_the_next(here: Local) -> None:
    await with_both(here)
    script: list[Step] = [put(FIRST), "< PUT-FROM 0", *CONTENT, put(SECOND), "< SUCCESS"]

    def seen() -> None:
        assert A in recorded(here, FIRST)
        assert A not in recorded(here, SECOND)

    async with scripted([*script, 0.05, seen, "< PUT-FROM 0", *CONTENT, "< SUCCESS"], connections=1) as (remote, _):
        assert all(result.ok for result in await copied(here, Recording(remote, here.repository.branch)))


async def test_a_claim_to_have_it_is_checked(here: Local) -> None:
    await with_both(here)
    claim: list[Step] = ["< ALREADY-HAVE", f"> CHECKPRESENT {FIRST}"]
    script: list[Step] = [put(FIRST), *claim, "< SUCCESS", put(SECOND), "< PUT-FROM 0", *CONTENT, "< SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        first, second = await copied(here, Recording(remote, here.repository.branch))
        assert (first.stored, first.bytes) == (Stored(already=frozenset((A,))), 0)
        assert second.stored == THERE
        assert A in recorded(here, FIRST)


async def test_a_claim_that_a_check_does_not_confirm_is_not_believed(here: Local) -> None:
    await with_both(here)
    claim: list[Step] = [put(FIRST), "< ALREADY-HAVE", f"> CHECKPRESENT {FIRST}", "< FAILURE"]
    async with scripted([*claim, *claim], connections=1) as (remote, _):
        (result,) = await copied(here, Recording(remote, here.repository.branch), [FIRST])
        assert isinstance(result.error, ContentError)
        assert not result.stored.ok
        assert A not in recorded(here, FIRST)


async def test_a_hang_up_after_the_content_is_an_unknown_outcome_and_the_others_are_put_all_the_same(
    here: Local,
) -> None:
    await with_both(here)
    lost: list[Step] = [put(FIRST), "< PUT-FROM 0", *CONTENT, put(SECOND), "hang up"]
    again: list[Step] = [put(SECOND), "< PUT-FROM 0", *CONTENT, "< SUCCESS"]
    async with scripted(lost, again, connections=1) as (remote, _):
        first, second = await copied(here, Recording(remote, here.repository.branch))
        assert isinstance(first.error, ConnectionLost)
        assert second.stored == THERE
        assert A not in recorded(here, FIRST)
        assert A in recorded(here, SECOND)


async def test_a_hang_up_before_the_content_costs_nothing(here: Local) -> None:
    await with_both(here)
    again: list[Step] = [put(FIRST), "< PUT-FROM 0", *CONTENT, "< SUCCESS"]
    async with scripted([put(FIRST), "hang up"], again, connections=1) as (remote, _):
        (result,) = await copied(here, remote, [FIRST])
        assert result.stored == THERE


async def test_what_the_peer_refuses_is_its_own_affair(here: Local) -> None:
    await with_both(here)
    script: list[Step] = [put(FIRST), "< ERROR no room", put(SECOND), "< PUT-FROM 0", *CONTENT, "< FAILURE"]
    async with scripted(script, connections=1) as (remote, _):
        first, second = await copied(here, Recording(remote, here.repository.branch))
        assert isinstance(first.error, PeerError)
        assert "no room" in str(first.error)
        assert isinstance(second.error, VerificationFailed)
        assert recorded(here, FIRST) == recorded(here, SECOND) == {here.uuid}


async def test_what_the_peer_began_with_is_gone_on_from(here: Local) -> None:
    await with_both(here)
    script: list[Step] = [put(FIRST), "< PUT-FROM 60", "> DATA 40", ">> 40", "> VALID", "< SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        (result,) = await copied(here, remote, [FIRST])
        assert (result.stored, result.bytes) == (THERE, 40)


async def test_a_wrong_beginning_at_the_peer_is_put_once_more_as_a_whole(here: Local) -> None:
    await with_both(here)
    wrong: list[Step] = [put(FIRST), "< PUT-FROM 60", "> DATA 40", ">> 40", "> VALID", "< FAILURE"]
    async with scripted([*wrong, put(FIRST), "< PUT-FROM 0", *CONTENT, "< SUCCESS"], connections=1) as (remote, _):
        (result,) = await copied(here, remote, [FIRST])
        assert result.stored == THERE


async def test_a_peer_of_version_0_is_asked_for_one_after_the_other(here: Local) -> None:
    await with_both(here)
    once: list[Step] = ["< PUT-FROM 0", "> DATA 100", ">> 100", "< SUCCESS"]
    greeting: list[Step] = [f"< AUTH-SUCCESS {A}", put(FIRST), *once, put(SECOND), *once]
    async with scripted(greeting, greet=False, connections=1, max_version=0) as (remote, _):
        assert [result.stored for result in await copied(here, remote)] == [THERE] * 2


async def test_what_is_not_here_is_said_of_its_key_alone(here: Local) -> None:
    await store(here, SECOND, TWO)
    script: list[Step] = [put(SECOND), "< PUT-FROM 0", *CONTENT, "< SUCCESS", put(FIRST), "< PUT-FROM 0"]
    async with scripted(script, connections=1) as (remote, _):
        first, second = await copied(here, remote)
        assert isinstance(first.error, KeyNotPresent)
        assert second.stored == THERE


# -- get --------------------------------------------------------------------------------------------

SENT_ONE: list[Step] = ["< DATA 100", ONE, "< VALID"]
SENT_TWO: list[Step] = ["< DATA 100", TWO, "< VALID"]


async def test_the_next_get_goes_out_with_the_verdict_on_the_one_before(here: Local) -> None:
    script: list[Step] = [get(FIRST), *SENT_ONE, "> SUCCESS", get(SECOND), *SENT_TWO, "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, peers):
        results = await copied(remote, here)
        assert [(result.stored.uuids, result.error) for result in results] == [({here.uuid}, None)] * 2
        assert [result.verified for result in results] == [Verified.HASH] * 2
        assert here.store.present(FIRST)
        assert here.store.present(SECOND)
        assert recorded(here, FIRST) == recorded(here, SECOND) == {here.uuid}
        assert any(chunk.startswith(b"SUCCESS\nGET ") for chunk in peers.met[0].chunks)


async def test_what_is_not_the_content_is_not_stored(here: Local) -> None:
    script: list[Step] = [get(FIRST), *SENT_TWO, "> FAILURE", get(SECOND), *SENT_TWO, "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        first, second = await copied(remote, here)
        assert isinstance(first.error, VerificationFailed)
        assert second.ok
        assert not here.store.present(FIRST)
        assert recorded(here, FIRST) == set()


async def test_more_than_the_key_has_is_not_read(here: Local) -> None:
    async with scripted([get(FIRST), "< DATA 101"], [get(FIRST), "< DATA 101"], connections=1) as (remote, _):
        (result,) = await copied(remote, here, [FIRST])
        assert isinstance(result.error, RemoteProtocolError)
        assert not here.store.present(FIRST)


async def test_a_get_that_breaks_off_is_got_once_more_over_another_wire(here: Local) -> None:
    lost: list[Step] = [get(FIRST), "< DATA 100", ONE[:50], "hang up"]
    async with scripted(lost, [get(FIRST), *SENT_ONE, "> SUCCESS"], connections=1) as (remote, _):
        (result,) = await copied(remote, here, [FIRST])
        assert result.ok


async def test_what_the_peer_does_not_have_is_said_of_its_key_alone(here: Local) -> None:
    absent: list[Step] = [get(FIRST), "< DATA 0", "< INVALID", "> FAILURE"]
    script: list[Step] = [*absent, get(SECOND), *SENT_TWO, "> SUCCESS", *absent]
    async with scripted(script, connections=1) as (remote, _):
        first, second = await copied(remote, here)
        assert isinstance(first.error, KeyNotPresent)
        assert second.ok


async def test_content_that_changed_while_it_was_sent_is_asked_for_once_more(here: Local) -> None:
    script: list[Step] = [get(FIRST), "< DATA 100", ONE, "< INVALID", "> FAILURE", get(FIRST), *SENT_ONE, "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        (result,) = await copied(remote, here, [FIRST])
        assert result.ok


async def test_what_was_begun_is_gone_on_with(here: Local) -> None:
    async with here.put(FIRST) as upload:  # and left
        await upload.start(100)
        await upload.write(ONE[:60])
    script: list[Step] = [get(FIRST, 60), "< DATA 40", ONE[60:], "< VALID", "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        (result,) = await copied(remote, here, [FIRST])
        assert (result.ok, result.bytes, result.offset) == (True, 40, 60)


async def test_who_gives_up_leaves_no_lock_behind(here: Local) -> None:
    asked = anyio.Event()
    async with scripted([get(FIRST), asked.set, "deaf"], [get(FIRST), *SENT_ONE, "> SUCCESS"]) as (remote, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(copied, remote, here, [FIRST])
            await asked.wait()
            tasks.cancel_scope.cancel()
        (result,) = await copied(remote, here, [FIRST])
        assert result.ok


async def test_what_had_come_when_it_was_given_up_is_recorded(here: Local) -> None:
    asked = anyio.Event()
    script: list[Step] = [get(FIRST), *SENT_ONE, "> SUCCESS", get(SECOND), asked.set, "deaf"]
    async with scripted(script, connections=1) as (remote, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(copied, remote, here)
            await asked.wait()
            tasks.cancel_scope.cancel()
        assert here.store.present(FIRST)
        assert recorded(here, FIRST) == {here.uuid}
        assert recorded(here, SECOND) == set()


# -- both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 2, 4])
async def test_many_of_all_sizes_go_there_and_back(here: Local, tmp_path: Path, connections: int) -> None:
    contents = {key_of(content): content for content in (content_of(n, n * 1300) for n in range(120))}
    keys = list(contents)
    Repository.init(tmp_path / "there", bare=True, uuid=UUID("dddddddd-0000-4000-8000-000000000004")).close()
    with Repository.open(tmp_path / "there") as repository:
        there = Local(repository, durability="fast", client=here.uuid)
        for key in keys:
            await store(here, key, contents[key])
        await store(there, keys[50], contents[keys[50]])
        async with served(there, connections) as remote:
            results = await copied(here, Recording(remote, here.repository.branch), keys)
            assert [bool(result.stored.already) for result in results] == [n == 50 for n in range(120)]
            assert all(recorded(here, key) == recorded(there, key) | {here.uuid} for key in keys)
            assert all(there.store.verified(key) for key in keys)

            await here.remove_content_many(keys[20:])
            results = await copied(remote, here, keys)
            assert [bool(result.stored.already) for result in results] == [n < 20 for n in range(120)]
            assert all(here.store.verified(key) and here.uuid in recorded(here, key) for key in keys)
