"""Contents are verified by reading them again, and fsck repairs what git-annex's fsck repairs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from annexpy.actions.facts import Facts
from annexpy.actions.fsck import fsck
from annexpy.actions.put import put
from annexpy.actions.results import Verified
from annexpy.actions.verify import Checked, verify
from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    KeyNotPresent,
    NotEnoughCopies,
    VerificationFailed,
)
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

SMALL = b"content\n"
LARGE = bytes(range(251)) * 12_000
OTHER = UUID("aaaaaaaa-1111-4111-8111-111111111111")


def key_of(content: bytes) -> Key:
    return name_content([content])


def remote(objects: dict[Key, bytes]) -> MemoryRemote:
    return MemoryRemote(OTHER, name="vault", objects=objects)


async def checked(place: Any, *keys: Key, **more: Any) -> dict[Key, Checked]:
    return {one.key: one async for one in fsck(place, keys, **more)}


def object_of(repository: Repository, key: Key) -> Path:
    path = repository.content.path(key)
    assert path is not None
    return Path(os.fsdecode(repository.git_dir + b"/" + path))


def damage(path: Path, content: bytes | None) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o644)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        path.chmod(0o444)
    path.parent.chmod(0o555)


# -- one key --


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
async def test_good_content_is_verified_by_its_hash(content: bytes) -> None:
    key, progress = key_of(content), []

    verified = await verify(remote({key: content}), key, progress=lambda *call: progress.append(call))

    assert verified is Verified.HASH
    assert not content or progress[-1] == (key, len(content), len(content))


async def test_without_a_hash_the_size_is_what_can_be_compared() -> None:
    worm, url = Key.parse(b"WORM-s8-m1--x"), Key.parse(b"URL--x")
    place = remote({worm: SMALL, url: SMALL})

    assert await verify(place, worm) is Verified.SIZE
    assert await verify(place, url) is Verified.NOT
    place.objects[worm] = b"short"
    with pytest.raises(VerificationFailed, match="5 bytes"):
        await verify(place, worm)


@pytest.mark.parametrize("content", [SMALL[::-1], SMALL[:-1], SMALL + b"x", b""])
async def test_any_other_content_is_found_out(content: bytes) -> None:
    with pytest.raises(VerificationFailed):
        await verify(remote({key_of(SMALL): content}), key_of(SMALL))


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_the_disk_is_asked_where_memory_is_not_to_answer(tmp_path: Path, content: bytes) -> None:
    with Repository.init(tmp_path / "vault.git", bare=True) as repository:
        local, key = Local(repository), key_of(content)
        await put(local, key, content)
        assert await verify(local, key, cached=False) is Verified.HASH

        found = object_of(repository, key)
        found.chmod(0o644)
        found.write_bytes(content[:-1] + b"!")

        with pytest.raises(VerificationFailed):
            await verify(local, key, cached=False)
        with pytest.raises(KeyNotPresent):
            await verify(local, key_of(b"other"), cached=False)


async def test_absence_is_said_to_be_absence() -> None:
    with pytest.raises(KeyNotPresent):
        await verify(remote({}), key_of(SMALL))


async def test_content_that_changes_while_it_is_read_proves_nothing_without_a_hash() -> None:
    class Changes(MemoryRemote):
        @asynccontextmanager
        async def get(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            async with super().get(key, **more) as download:
                download.valid = False
                yield download

    worm = Key.parse(b"WORM-s8-m1--x")
    place = Changes(OTHER, objects={worm: SMALL, key_of(SMALL): SMALL})

    assert await verify(place, key_of(SMALL)) is Verified.HASH
    with pytest.raises(ContentChanged):
        await verify(place, worm)


async def test_a_reader_that_is_given_less_than_announced_notices() -> None:
    class Less:
        length, source, valid = len(SMALL), OTHER, True

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield SMALL[:3]

    class Short(MemoryRemote):
        @asynccontextmanager
        async def get(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            yield Less()

    with pytest.raises(IncompleteTransfer):
        await verify(Short(OTHER), key_of(SMALL))


# -- fsck of a repository on this machine --


async def test_bad_content_is_moved_aside_and_its_location_line_set_right(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        local = Local(repository, name="r")
        good, bad, lost, large = b"good", b"bad!", b"lost", LARGE
        for content in (good, bad, lost, large):
            await put(local, key_of(content), content)
        path = object_of(repository, key_of(bad))
        damage(path, b"evil")
        damage(object_of(repository, key_of(lost)), None)
        damage(object_of(repository, key_of(large)), large[:-1] + b"x")

        found = await checked(local, *map(key_of, (good, bad, lost, large)))

        assert found[key_of(good)] == Checked(key_of(good), True, Verified.HASH)
        assert isinstance(found[key_of(bad)].error, VerificationFailed)
        assert found[key_of(bad)].repaired == (f"moved to r/annex/bad/{key_of(bad)}", "fixing location log")
        assert (tmp_path / "r/annex/bad" / str(key_of(bad))).read_bytes() == b"evil"
        assert not path.parent.exists()
        assert isinstance(found[key_of(lost)].error, KeyNotPresent)
        assert found[key_of(lost)].repaired == ("fixing location log",)
        assert isinstance(found[key_of(large)].error, VerificationFailed)
        for content, recorded in ((good, [repository.uuid]), (bad, []), (lost, []), (large, [])):
            assert repository.branch.locations(key_of(content)).present == recorded
        again = await checked(local, *map(key_of, (bad, lost)))
        assert all(isinstance(one.error, NotEnoughCopies) and not one.repaired for one in again.values())


async def test_an_object_nobody_recorded_is_recorded(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        local = Local(repository)
        await put(local, key_of(SMALL), SMALL)
        repository.branch.set_present(key_of(SMALL), repository.uuid, False)

        found = await checked(local, key_of(SMALL))

        assert found[key_of(SMALL)].repaired == ("fixing location log",)
        assert found[key_of(SMALL)].ok
        assert repository.branch.locations(key_of(SMALL)).present == [repository.uuid]


async def test_content_that_somebody_relies_on_is_not_moved(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        local = Local(repository)
        await put(local, key_of(SMALL), SMALL)

        async with local.lock_content(key_of(SMALL)):
            damage(object_of(repository, key_of(SMALL)), b"evil")
            found = await checked(local, key_of(SMALL))

        assert isinstance(found[key_of(SMALL)].error, ContentLocked)
        assert repository.content.path(key_of(SMALL)) is not None


async def test_write_permissions_are_taken_away_again(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        local = Local(repository)
        await put(local, key_of(SMALL), SMALL)
        path = object_of(repository, key_of(SMALL))
        path.chmod(0o664)

        assert (await checked(local, key_of(SMALL)))[key_of(SMALL)].ok

        assert path.stat().st_mode & 0o777 == 0o444


async def test_too_few_copies_are_a_problem_of_their_own(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True, description="me") as repository:
        local = Local(repository)
        await put(local, key_of(SMALL), SMALL)
        repository.branch.change(b"numcopies.log", lambda _: b"1s 2\n")
        repository.branch.change(b"trust.log", lambda _: f"{OTHER} 0 timestamp=1s\n".encode())
        repository.branch.set_present(key_of(SMALL), OTHER, True)

        found = (await checked(local, key_of(SMALL)))[key_of(SMALL)]

        assert found.present
        assert isinstance(found.error, NotEnoughCopies)
        assert (found.error.have, found.error.need) == (1, 2)
        assert found.error.missing == {OTHER: "the repository is untrusted"}


# -- fsck of a remote --


async def test_a_remote_is_read_and_our_log_set_right(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        here, lost, bad = key_of(b"here"), key_of(b"lost"), key_of(b"bad!")
        place = remote({here: b"here", bad: b"evil"})
        repository.branch.set_present(lost, OTHER, True)
        repository.branch.set_present(bad, OTHER, True)

        found = await checked(place, here, lost, bad, facts=Facts(repository))

        assert found[here].repaired == ("fixing location log",)
        assert isinstance(found[lost].error, KeyNotPresent)
        assert isinstance(found[bad].error, VerificationFailed)
        assert bad in place.objects  # nothing is taken from others
        assert [repository.branch.locations(key).present for key in (here, lost, bad)] == [[OTHER], [], [OTHER]]


async def test_a_remote_that_cannot_be_read_changes_no_log(tmp_path: Path) -> None:
    class Gone(MemoryRemote):
        def get(self, key: Key, **more: Any) -> Any:
            raise ConnectionLost("vault", "an answer to GET")

    with Repository.init(tmp_path / "r", bare=True) as repository:
        repository.branch.set_present(key_of(SMALL), OTHER, True)

        found = await checked(Gone(OTHER), key_of(SMALL), facts=Facts(repository))

        assert isinstance(found[key_of(SMALL)].error, ConnectionLost)
        assert repository.branch.locations(key_of(SMALL)).present == [OTHER]


# -- beside the real one --


@pytest.mark.interop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_fsck_leaves_what_the_fsck_of_git_annex_leaves(tmp_path: Path, git_annex: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    contents = [b"good", b"bad", b"short", b"lost", b"unrecorded", b"writable"]
    with Repository.init(ours, bare=True) as repository:
        local = Local(repository)
        for content in contents:
            await put(local, key_of(content), content)
        repository.branch.set_present(key_of(b"unrecorded"), repository.uuid, False)
        await repository.branch.commit()
        damage(object_of(repository, key_of(b"bad")), b"dab")
        damage(object_of(repository, key_of(b"short")), b"shor")
        damage(object_of(repository, key_of(b"lost")), None)
        object_of(repository, key_of(b"writable")).chmod(0o666)
    shutil.copytree(ours, theirs)
    out = subprocess.run([git_annex, "fsck", "--all", "--json"], cwd=theirs, capture_output=True, text=True).stdout
    answers = {Key.parse(answer["key"]): answer["success"] for answer in map(json.loads, out.splitlines())}

    with Repository.open(ours) as repository:
        local = Local(repository)
        found = await checked(local, *map(key_of, contents))
        await repository.branch.commit()

    assert {key: one.ok for key, one in found.items()} == answers
    assert tree(ours) == tree(theirs)
    with Repository.open(ours) as one, Repository.open(theirs) as other:
        for content in contents:
            assert one.branch.locations(key_of(content)).present == other.branch.locations(key_of(content)).present
    run = subprocess.run([git_annex, "fsck", "--all"], cwd=ours, capture_output=True, text=True)
    assert "fixing location log" not in run.stdout


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every object and bad file, with its mode and content."""
    return {
        str(file.relative_to(path)): (file.stat().st_mode & 0o777, file.read_bytes())
        for folder in ("annex/objects", "annex/bad")
        for file in (path / folder).rglob("*")
        if file.is_file()
    }


async def test_bad_content_in_one_hash_directory_does_not_cost_the_good_content_in_the_other(tmp_path: Path) -> None:
    key = key_of(SMALL)
    with Repository.init(str(tmp_path / "r"), bare=True) as repository:
        place = Local(repository)
        await put(place, key, SMALL)
        bad = object_of(repository, key)
        good = Path(os.fsdecode(repository.git_dir + b"/annex/objects/" + repository.content.folders.paths(key)[1]))
        good.parent.mkdir(parents=True)
        good.write_bytes(SMALL)
        good.chmod(0o444)
        damage(bad, b"CONTENT\n")
        first = (await checked(place, key))[key]
        assert isinstance(first.error, VerificationFailed)
        assert good.read_bytes() == SMALL
        assert not bad.exists()
        assert repository.uuid in repository.branch.locations(key).present
        assert (await checked(place, key))[key].ok
