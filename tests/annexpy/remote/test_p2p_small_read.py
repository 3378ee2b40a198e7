"""Small contents that are only read, one after the other over a wire, are judged as by a get of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from peers import Step, scripted, served
from remote_contract import A, content_of, key_of, store

from annexpy.actions.facts import Facts
from annexpy.actions.fsck import fsck
from annexpy.actions.results import Verified
from annexpy.actions.verify import Checked, verify_many
from annexpy.errors import AnnexError, ConnectionLost, KeyNotPresent, RemoteProtocolError, VerificationFailed
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

ONE, TWO = content_of(1), content_of(2)
FIRST, SECOND = key_of(ONE), key_of(TWO)
SENT_ONE: list[Step] = ["< DATA 100", ONE, "< VALID"]
SENT_TWO: list[Step] = ["< DATA 100", TWO, "< VALID"]


def get(key: Key) -> str:
    return f"> GET 0  {key}"


async def looked(remote: Remote, keys: Sequence[Key] = (FIRST, SECOND)) -> list[Checked]:
    found = {one.key: one async for one in verify_many(remote, keys)}
    return [found[key] for key in keys]


def good(key: Key) -> Checked:
    return Checked(key, True, Verified.HASH)


async def test_the_next_get_goes_out_with_the_verdict_on_the_one_before() -> None:
    script: list[Step] = [get(FIRST), *SENT_ONE, "> SUCCESS", get(SECOND), *SENT_TWO, "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, peers):
        assert await looked(remote) == [good(FIRST), good(SECOND)]
        assert any(chunk.startswith(b"SUCCESS\nGET ") for chunk in peers.met[0].chunks)


async def test_what_is_not_the_content_is_read_once_more_and_then_called_so() -> None:
    wrong: list[Step] = [get(FIRST), *SENT_TWO, "> FAILURE"]
    async with scripted([*wrong, get(SECOND), *SENT_TWO, "> SUCCESS", *wrong], connections=1) as (remote, _):
        first, second = await looked(remote)
        assert (first.present, type(first.error)) == (False, VerificationFailed)
        assert second == good(SECOND)


async def test_what_the_peer_does_not_have_is_said_of_its_key_alone() -> None:
    absent: list[Step] = [get(FIRST), "< DATA 0", "< INVALID", "> FAILURE"]
    async with scripted([*absent, get(SECOND), *SENT_TWO, "> SUCCESS", *absent], connections=1) as (remote, _):
        first, second = await looked(remote)
        assert (first.present, type(first.error)) == (False, KeyNotPresent)
        assert second == good(SECOND)


@pytest.mark.parametrize(
    ("said", "error"),
    [(["< DATA 101"], RemoteProtocolError), (["< DATA 100", ONE[:50], "hang up"], ConnectionLost)],
    ids=["too much", "too little"],
)
async def test_a_peer_that_breaks_off_has_shown_nothing(said: list[Step], error: type[AnnexError]) -> None:
    script: list[Step] = [get(FIRST), *said]
    async with scripted(script, script, connections=1) as (remote, _):
        (first,) = await looked(remote, [FIRST])
        assert (first.present, type(first.error)) == (False, error)


async def test_content_that_changed_while_it_was_sent_is_read_once_more() -> None:
    script: list[Step] = [get(FIRST), "< DATA 100", ONE, "< INVALID", "> FAILURE", get(FIRST), *SENT_ONE, "> SUCCESS"]
    async with scripted(script, connections=1) as (remote, _):
        assert await looked(remote, [FIRST]) == [good(FIRST)]


# -- with a server --

CONTENTS = {key_of(content): content for content in (content_of(n, n * 1300) for n in range(100))}
KEYS = list(CONTENTS)
FLIPPED, GONE, LARGE_FLIPPED = KEYS[7], KEYS[8], KEYS[90]


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Local]:
    """A new repository."""
    Repository.init(tmp_path / "there", bare=True, uuid=A).close()
    with Repository.open(tmp_path / "there") as repository:
        yield Local(repository, durability="fast")


async def spoiled(there: Local) -> None:
    """It gets contents of all sizes, and then two of them are flipped and one goes away."""
    for key, content in CONTENTS.items():
        await store(there, key, content)
    await there.remove_content(GONE)
    for key in (FLIPPED, LARGE_FLIPPED):
        path = there.store.path(key)
        assert path is not None
        file = Path(os.fsdecode(there.repository.git_dir + b"/" + path))
        file.chmod(0o644)
        file.write_bytes(bytes([CONTENTS[key][0] ^ 1]) + CONTENTS[key][1:])


def judged(found: Sequence[Checked]) -> dict[Key, type[AnnexError]]:
    assert [one.key for one in found] == KEYS
    assert all(one.verified is Verified.HASH for one in found if one.ok)
    return {one.key: type(one.error) for one in found if one.error is not None}


WRONG = {FLIPPED: VerificationFailed, GONE: KeyNotPresent, LARGE_FLIPPED: VerificationFailed}


@pytest.mark.parametrize("connections", [1, 4])
async def test_of_many_of_all_sizes_those_are_found_that_are_wrong_or_gone(there: Local, connections: int) -> None:
    await spoiled(there)
    async with served(there, connections) as remote:
        assert judged(await looked(remote, KEYS)) == WRONG
    assert judged(await looked(there, KEYS)) == WRONG  # read where they are


async def test_fsck_over_a_wire_sets_right_what_our_log_says_of_all_of_them(there: Local, tmp_path: Path) -> None:
    await spoiled(there)
    Repository.init(tmp_path / "here", bare=True, uuid=UUID("cccccccc-0000-4000-8000-000000000003")).close()
    with Repository.open(tmp_path / "here") as here:
        here.branch.set_present(GONE, A, True)
        async with served(there, 2) as remote:
            found = {one.key: one async for one in fsck(remote, KEYS, facts=Facts(here))}
        assert {key: type(found[key].error) for key in WRONG} == WRONG
        assert {key for key in KEYS if A in here.branch.locations(key).present} == set(KEYS) - set(WRONG)
