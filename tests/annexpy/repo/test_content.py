"""The content store: what is kept, what is thrown away, what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import stat
from pathlib import Path

import anyio
import pytest

from annexpy.errors import (
    AccessDenied,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NoSpace,
    NotRegularFile,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.repo import beneath
from annexpy.repo.content import ContentStore
from annexpy.repo.faulty_files import Faults, FaultyFiles
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.settings import ContentSettings, Durability
from annexpy.system import CLOCK
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

CLIENT = UUID("11111111-2222-3333-4444-555555555555")
SMALL = b"0123456789" * 10
LARGE = bytes(range(256)) * 4096 * 3  # 3 MiB: above what is handled inline


def key_of(data: bytes, extension: str = ".dat") -> Key:
    return Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}{extension}")


def unsized(data: bytes) -> Key:
    return Key.parse(f"SHA256--{hashlib.sha256(data).hexdigest()}")


def worm(data: bytes) -> Key:
    return Key.parse(f"WORM-s{len(data)}-m1--name")


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return DiskFiles(tmp_path) if request.param == "disk" else MemoryFiles()


@pytest.fixture(params=["full", "fast"])
def store(request: pytest.FixtureRequest, files: Files) -> ContentStore:
    return make(files, durability=request.param)


def make(files: Files, **settings: object) -> ContentStore:
    return ContentStore(files, clock=CLOCK, settings=ContentSettings(**settings))  # type: ignore[arg-type]


async def put(store: ContentStore, key: Key, data: bytes, *, valid: bool = True, step: int = 1 << 16) -> bool:
    async with store.receive(key) as receiving:
        for start in range(receiving.offset, len(data), step):
            await receiving.write(data[start : start + step])
        return await receiving.finish(valid)


async def leave_partial(store: ContentStore, key: Key, data: bytes) -> None:
    async with store.receive(key) as receiving:
        await receiving.write(data)


def content(store: ContentStore, key: Key) -> bytes:
    with store.open(key) as stored:
        return stored.pread(stored.size, 0)


def partial(files: Files, key: Key) -> bytes | None:
    return files.read(b"annex/tmp/" + key_file(key))


# -- the PUT table: fact sheet p2p-protocol, section 4 --------------------------------------------


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_was_put_is_there_and_nothing_else_is_left(store: ContentStore, files: Files, data: bytes) -> None:
    key = key_of(data)

    assert await put(store, key, data)

    assert store.present(key)
    assert store.size(key) == len(data)
    assert content(store, key) == data
    assert list(store.keys()) == [key]
    assert files.names(b"annex/tmp") == []
    assert files.names(b"annex/transfer/download/lck") == []


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("cut", [1, 50, -1, 0])
async def test_a_put_that_was_left_goes_on_where_it_stopped(
    store: ContentStore, files: Files, data: bytes, cut: int
) -> None:
    key = key_of(data)
    await leave_partial(store, key, data[:cut])
    assert not store.present(key)

    async with store.receive(key) as receiving:
        assert receiving.offset == len(data[:cut])
        await receiving.write(data[receiving.offset :])
        assert await receiving.finish()

    assert content(store, key) == data


async def test_a_partial_that_is_complete_needs_no_more_bytes(store: ContentStore) -> None:
    for data in (SMALL, LARGE):
        key = key_of(data)
        await leave_partial(store, key, data)

        async with store.receive(key) as receiving:
            assert receiving.offset == len(data)
            assert await receiving.finish()

        assert content(store, key) == data


async def test_a_reception_that_got_nothing_leaves_nothing(store: ContentStore, files: Files) -> None:
    async with store.receive(key_of(SMALL)):
        pass

    assert files.names(b"annex/tmp") == []


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("valid", [True, False])
async def test_wrong_bytes_are_thrown_away(store: ContentStore, files: Files, data: bytes, valid: bool) -> None:
    key = key_of(data)

    with pytest.raises(VerificationFailed):
        await put(store, key, data[:-1] + b"X", valid=valid)

    assert not store.present(key)
    assert partial(files, key) is None


async def test_a_resume_over_a_wrong_partial_throws_it_away(store: ContentStore, files: Files) -> None:
    for data in (SMALL, LARGE):
        key = key_of(data)
        await leave_partial(store, key, b"X" * 10)

        with pytest.raises(VerificationFailed):
            await put(store, key, data)

        assert partial(files, key) is None
        assert await put(store, key, data)


@pytest.mark.parametrize("valid", [True, False])
async def test_too_few_bytes_are_thrown_away(store: ContentStore, files: Files, valid: bool) -> None:
    key = key_of(SMALL)

    with pytest.raises(IncompleteTransfer) as caught:
        await put(store, key, SMALL[:50], valid=valid)

    assert (caught.value.received, caught.value.expected) == (50, 100)
    assert partial(files, key) is None


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_too_many_bytes_are_refused_as_they_come_and_all_are_thrown_away(
    store: ContentStore, files: Files, data: bytes
) -> None:
    key = key_of(data)

    async with store.receive(key) as receiving:
        await receiving.write(data)
        with pytest.raises(IncompleteTransfer):
            await receiving.write(b"X")

    assert partial(files, key) is None


async def test_a_partial_longer_than_the_key_ends_with_data_0_valid(store: ContentStore, files: Files) -> None:
    key = key_of(SMALL)
    files.make_folders(b"annex/tmp")
    files.replace(b"annex/tmp/" + key_file(key), SMALL + b"more", sync=False)

    async with store.receive(key) as receiving:
        assert receiving.offset == 104
        with pytest.raises(IncompleteTransfer):
            await receiving.finish()

    assert partial(files, key) is None


async def test_data_0_invalid_keeps_the_partial_even_a_complete_one(store: ContentStore, files: Files) -> None:
    for data in (SMALL[:30], SMALL):
        key = key_of(SMALL)
        files.unlink(b"annex/tmp/" + key_file(key))
        await leave_partial(store, key, data)

        async with store.receive(key) as receiving:
            with pytest.raises(ContentChanged):
                await receiving.finish(valid=False)

        assert partial(files, key) == data
        assert not store.present(key)


async def test_invalid_content_is_stored_when_its_hash_is_right(store: ContentStore) -> None:
    assert await put(store, key_of(SMALL), SMALL, valid=False)
    assert await put(store, unsized(LARGE), LARGE, valid=False)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_invalid_content_that_nothing_can_verify_is_thrown_away(
    store: ContentStore, files: Files, data: bytes
) -> None:
    key = worm(data)

    with pytest.raises(ContentChanged):
        await put(store, key, data, valid=False)

    assert not store.present(key)
    assert partial(files, key) is None
    assert await put(store, key, data)


async def test_a_key_without_a_hash_is_checked_by_its_size(store: ContentStore) -> None:
    with pytest.raises(IncompleteTransfer):
        await put(store, worm(SMALL), SMALL[1:])


async def test_a_key_without_a_size_may_grow_out_of_the_event_loop(store: ContentStore) -> None:
    key = unsized(LARGE)
    await leave_partial(store, key, LARGE[:1000])

    assert await put(store, key, LARGE)

    assert content(store, key) == LARGE


async def test_an_object_that_is_there_stays_and_the_new_copy_goes(store: ContentStore, files: Files) -> None:
    key = worm(SMALL)
    await put(store, key, SMALL)

    assert await put(store, key, SMALL[::-1]) is False

    assert content(store, key) == SMALL
    assert files.names(b"annex/tmp") == []


async def test_an_object_in_the_other_kind_of_folder_counts(files: Files) -> None:
    work_tree, bare = make(files, bare=False, durability="fast"), make(files, bare=True, durability="fast")
    key = worm(SMALL)
    await put(work_tree, key, SMALL)

    assert bare.present(key)
    assert content(bare, key) == SMALL
    assert await put(bare, key, SMALL[::-1]) is False
    assert bare.path(key) == work_tree.path(key)


@pytest.mark.parametrize("way", ["disk", "disk, step by step", "memory"])
@pytest.mark.parametrize("settings", [{}, {"bare": False}, {"lower_only": True}, {"levels": 1}], ids=str)
def test_many_are_looked_for_as_each_is(
    way: str, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_opens", beneath._never if "step" in way else None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    files: Files = MemoryFiles() if way == "memory" else DiskFiles(tmp_path)
    store = make(files, **settings)
    expected: dict[Key, bool] = {Key.parse(b"WORM-s1--" + b"n" * 300): False}

    def have(key: Key, path: bytes, data: bytes, mode: int = 0o444) -> None:
        path = b"annex/objects/" + path
        files.make_folders(os.path.dirname(path))
        fd = files.open_write(path, mode=0o600)
        files.write(fd, data)
        files.close_fd(fd)
        files.chmod(path, mode)

    places = 1 if settings.get("lower_only") else 2
    for place in range(places):
        for number, (data, mode, there) in enumerate(
            ((b"1", 0o444, True), (b"12", 0o444, False), (b"1", 0o644, True), (b"", 0o400, False))
        ):
            key = Key.parse(f"WORM-s1--{place}/{number}..")
            have(key, store.folders.paths(key)[place], data, mode)
            expected[key] = there
        folder, link, behind = (Key.parse(f"WORM-s1--{kind}{place}") for kind in ("folder", "link", "behind"))
        files.make_folders(b"annex/objects/" + store.folders.paths(folder)[place])
        real = Key.parse(f"WORM-s1--{place}/0..")
        for path in (store.folders.paths(link)[place], os.path.dirname(store.folders.paths(behind)[place])):
            files.make_folders(os.path.dirname(b"annex/objects/" + path))
            target = b"/".join([b".."] * path.count(b"/")) + b"/" + store.folders.paths(real)[place]
            if isinstance(files, MemoryFiles):
                files.symlink(target, b"annex/objects/" + path)
            else:
                os.symlink(target, os.path.join(files.path, b"annex/objects", path))
        expected |= dict.fromkeys((folder, link, behind), False)
    both = Key.parse("WORM-s1--both")
    for place in range(places):
        have(both, store.folders.paths(both)[place], b"1" if place else b"other")
    expected[both] = store.present(both)

    assert store.present_many([*expected]) == [*expected.values()]
    assert [store.present(key) for key in expected] == [*expected.values()]
    assert make(files, **settings).present_many([]) == []


def test_what_cannot_be_looked_at_is_not_called_absent(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [worm(SMALL), key_of(SMALL)]
    for at in (1, 3):  # the first place of the first key, or that of the second one
        faulty = FaultyFiles(files, Faults(at=at, error=errno.EIO, only=frozenset(("status",))))
        store = make(faulty, durability="fast")
        store.folders.needed(b"annex/objects")
        with pytest.raises(ContentError, match="Input/output error"):
            store.present_many(keys)
    faulty = FaultyFiles(files, Faults(at=2, error=errno.EIO, only=frozenset(("status",))))
    store = make(faulty, durability="fast")
    store.folders.needed(b"annex/objects")
    with pytest.raises(ContentError, match="Input/output error"):
        store.present(keys[0])


def test_nothing_is_made_by_looking(store: ContentStore, files: Files) -> None:
    key = key_of(SMALL)

    assert not store.present(key)
    assert store.size(key) is None
    assert store.path(key) is None
    assert list(store.keys()) == []
    assert store.remove(key) is False
    with pytest.raises(KeyNotPresent):
        store.open(key)
    assert files.names() == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bare": True}, b"annex/objects/f87/4d5/"),
        ({"bare": False}, b"annex/objects/pX/ZJ/"),
        ({"bare": True, "levels": 1}, b"annex/objects/f87/"),
        ({"bare": False, "levels": 1}, b"annex/objects/pX/"),
        ({"bare": False, "lower_only": True}, b"annex/objects/f87/4d5/"),
    ],
)
async def test_content_goes_where_the_tuning_says(files: Files, settings: dict[str, object], expected: bytes) -> None:
    store = make(files, durability="fast", **settings)
    key = Key.parse("SHA256E-s0--" + hashlib.sha256(b"").hexdigest())

    await put(store, key, b"")

    assert store.path(key) == expected + key.raw + b"/" + key.raw
    assert list(store.keys()) == [key]


# -- exclusion ------------------------------------------------------------------------------------


async def test_one_key_is_received_once_at_a_time(files: Files) -> None:
    store, other = make(files), make(files)
    key = key_of(SMALL)

    async with store.receive(key, source=CLIENT):
        with pytest.raises(TransferInProgress):
            async with other.receive(key):
                pass
        assert await put(other, key_of(LARGE), LARGE)
        assert files.names(b"annex/transfer/download/" + CLIENT.encode()) != []

    assert files.names(b"annex/transfer/download/" + CLIENT.encode()) == []
    assert await put(other, key, SMALL)


async def test_a_reception_that_is_over_takes_no_more(store: ContentStore) -> None:
    async with store.receive(key_of(SMALL)) as receiving:
        await receiving.write(SMALL)
        await receiving.finish()
        with pytest.raises(LocalProtocolError):
            await receiving.finish()
        with pytest.raises(LocalProtocolError):
            await receiving.write(b"")


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_cancellation_keeps_what_arrived_and_leaks_nothing(tmp_path: Path, data: bytes) -> None:
    store = make(DiskFiles(tmp_path))
    key = key_of(data)
    await put(store, key_of(b"first"), b"first")
    descriptors = len(os.listdir("/proc/self/fd"))

    with anyio.CancelScope() as scope:
        async with store.receive(key) as receiving:
            await receiving.write(data[:90])
            scope.cancel()
            await anyio.sleep_forever()

    assert partial(DiskFiles(tmp_path), key) == data[:90]
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # what others left may be collected meanwhile
    assert await put(store, key, data)


async def test_cancelled_puts_of_a_group_do_not_hold_up_the_others(files: Files) -> None:
    store = make(files)
    stored: list[bytes] = []

    async def one(data: bytes, scope: anyio.CancelScope) -> None:
        with scope:
            await put(store, key_of(data), data)
            stored.append(data)

    scopes = [anyio.CancelScope() for _ in range(20)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number, scope in enumerate(scopes):
                tasks.start_soon(one, b"%d" % number, scope)
            await anyio.lowlevel.checkpoint()
            for scope in scopes[::3]:
                scope.cancel()

    expected = {b"%d" % number for number in range(20) if number % 3}
    assert expected <= set(stored)
    assert all(store.present(key_of(data)) for data in expected)


# -- space ----------------------------------------------------------------------------------------


async def test_the_disk_reserve_is_kept_before_any_byte_is_written() -> None:
    files = MemoryFiles(capacity=1000)
    store = make(files, reserve=900)
    key = key_of(b"x" * 101)

    with pytest.raises(NoSpace) as caught:
        async with store.receive(key):
            pass

    assert (caught.value.need, caught.value.free, caught.value.reserve) == (101, 1000, 900)
    assert files.names(b"annex/tmp") == []
    assert await put(store, key_of(b"x" * 100), b"x" * 100)


async def test_space_that_was_promised_to_one_put_is_not_promised_to_another() -> None:
    store = make(MemoryFiles(capacity=1000), reserve=0)

    async with store.receive(key_of(b"a" * 600)):
        with pytest.raises(NoSpace):
            await put(store, key_of(b"b" * 600), b"b" * 600)
    assert await put(store, key_of(b"b" * 600), b"b" * 600)


async def test_space_that_has_been_written_to_is_not_counted_twice() -> None:
    store = make(MemoryFiles(capacity=1000), reserve=0)

    async with store.receive(key_of(b"a" * 400)) as receiving:
        await receiving.write(b"a" * 390)
        assert await put(store, key_of(b"b" * 500), b"b" * 500)
        with pytest.raises(NoSpace):
            await put(store, key_of(b"c" * 105), b"c" * 105)
        await receiving.write(b"a" * 10)
        assert await receiving.finish()
    assert await put(store, key_of(b"c" * 100), b"c" * 100)


async def test_a_partial_counts_as_space_that_is_taken_already() -> None:
    store = make(MemoryFiles(capacity=1000), reserve=300)
    data = b"x" * 700
    await leave_partial(store, key_of(data), data[:500])

    assert await put(store, key_of(data), data)


async def test_an_announced_length_stands_in_for_a_size_that_is_not_known() -> None:
    store = make(MemoryFiles(capacity=1000), reserve=0)

    async with store.receive(unsized(SMALL)) as receiving:
        with pytest.raises(NoSpace):
            receiving.expect(1001)
        receiving.expect(100)
        with pytest.raises(IncompleteTransfer):
            await receiving.write(SMALL + b"x")
    async with store.receive(key_of(SMALL)) as receiving:
        with pytest.raises(InvalidInput):
            receiving.expect(101)


async def test_a_disk_that_fills_up_keeps_what_arrived() -> None:
    files = MemoryFiles(capacity=60)
    key = unsized(SMALL)

    with pytest.raises(NoSpace):
        await put(make(files, reserve=0), key, SMALL)

    assert partial(files, key) == SMALL[:60]


# -- things that should not be there --------------------------------------------------------------


def plant(files: Files, target: bytes, path: bytes) -> None:
    if isinstance(files, MemoryFiles):
        files.symlink(target, path)
    else:
        os.symlink(target, files.path + b"/" + path)


async def test_an_object_that_is_a_symbolic_link_is_no_content(files: Files) -> None:
    store = make(files)
    key = key_of(SMALL)
    await put(store, key, SMALL)
    path = store.path(key)
    assert path is not None
    files.chmod(path.rpartition(b"/")[0], 0o755)
    files.rename(path, b"elsewhere")
    plant(files, b"../../../../../elsewhere", path)

    assert not store.present(key)
    for action in (lambda: store.open(key), lambda: store.remove(key), lambda: store.lock(key)):
        with pytest.raises(NotRegularFile):
            action()
    assert files.read(b"elsewhere") == SMALL


async def test_a_hash_directory_that_is_a_symbolic_link_is_not_followed(files: Files) -> None:
    store = make(files)
    key = key_of(SMALL)
    path = store.folders.paths(key)[0]
    files.make_folders(b"outside")
    files.make_folders(b"annex/objects")
    plant(files, b"../../outside", b"annex/objects/" + path[:3])

    with pytest.raises(NotRegularFile):
        await put(store, key, SMALL)

    assert files.names(b"outside") == []
    assert partial(files, key) == SMALL


async def test_a_partial_that_is_a_symbolic_link_is_not_written_to(files: Files) -> None:
    store = make(files)
    key = key_of(SMALL)
    files.make_folders(b"annex/tmp")
    files.replace(b"outside", b"precious", sync=False)
    plant(files, b"../../outside", b"annex/tmp/" + key_file(key))

    with pytest.raises(NotRegularFile):
        await put(store, key, SMALL)

    assert files.read(b"outside") == b"precious"


async def test_a_partial_that_is_another_name_of_something_is_left_alone(files: Files) -> None:
    store = make(files)
    key = key_of(SMALL)
    files.make_folders(b"annex/tmp")
    files.replace(b"precious", SMALL[:10], sync=False)
    files.link(b"precious", b"annex/tmp/" + key_file(key))

    assert await put(store, key, SMALL)

    assert files.read(b"precious") == SMALL[:10]


async def test_a_partial_without_write_permission_is_taken_up(files: Files) -> None:
    """A put that died between the chmod and the rename leaves one."""
    store = make(files)
    key = key_of(SMALL)
    await leave_partial(store, key, SMALL[:10])
    files.chmod(b"annex/tmp/" + key_file(key), 0o444)

    assert await put(store, key, SMALL)


async def test_annex_objects_may_be_replaced_under_a_running_store(files: Files) -> None:
    class Clock:
        seconds = 0.0

        def now(self) -> float:
            return self.seconds

        wall = now

    clock = Clock()
    store = ContentStore(files, clock=clock, settings=ContentSettings(durability="fast"))
    await put(store, key_of(SMALL), SMALL)
    files.rename(b"annex/objects", b"annex/before")

    clock.seconds = 2.0
    assert not store.present(key_of(SMALL))
    await put(store, key_of(b"new"), b"new")
    files.rename(b"annex/objects", b"annex/later")
    files.rename(b"annex/before", b"annex/objects")

    clock.seconds = 4.0
    assert store.present(key_of(SMALL))
    assert not store.present(key_of(b"new"))


async def test_folders_that_vanish_between_two_puts_are_made_again(tmp_path: Path) -> None:
    store = make(DiskFiles(tmp_path), durability="fast")
    await put(store, key_of(SMALL), SMALL)
    store.remove(key_of(SMALL))
    (tmp_path / "annex/objects").rmdir()

    assert await put(store, key_of(SMALL), SMALL)
    assert store.present(key_of(SMALL))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, AccessDenied), (errno.EIO, ContentError)],
)
async def test_errors_of_the_system_become_our_own(number: int, expected: type[Exception]) -> None:
    for name in ("open_write", "write", "rename"):
        files = FaultyFiles(MemoryFiles(), Faults(at=1, error=number, only=frozenset((name,))))
        store = make(files, durability="fast", transfer_locks=False)

        with pytest.raises(expected, match=os.strerror(number)) as caught:
            await put(store, key_of(SMALL), SMALL)

        if isinstance(caught.value, NoSpace):
            assert (caught.value.need, caught.value.free) == (len(SMALL), files.free())
        assert not store.present(key_of(SMALL))
        assert await put(store, key_of(SMALL), SMALL)


# -- copying from one store to another ------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("durability", ["full", "fast"])
async def test_a_copy_between_stores_is_verified_and_resumes(
    tmp_path: Path, data: bytes, durability: Durability
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source = make(DiskFiles(tmp_path / "a"), durability="fast")
    destination = make(DiskFiles(tmp_path / "b"), durability=durability)
    key = key_of(data)
    await put(source, key, data)
    await leave_partial(destination, key, data[:70])
    told: list[int] = []

    with source.open(key) as stored:
        assert await destination.receive_from(key, stored, source=CLIENT, progress=told.append)

    assert content(destination, key) == data
    assert sum(told) in (0, max(0, len(data) - 70))


async def test_a_copy_of_something_else_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source, destination = make(DiskFiles(tmp_path / "a")), make(DiskFiles(tmp_path / "b"))
    for data, error in ((SMALL, VerificationFailed), (LARGE, VerificationFailed), (LARGE + b"x", IncompleteTransfer)):
        wrong = worm(data)
        await put(source, wrong, data)
        asked = key_of(data[: len(LARGE)][::-1])

        with source.open(wrong) as stored, pytest.raises(error):
            await destination.receive_from(asked, stored)

        assert partial(DiskFiles(tmp_path / "b"), asked) is None


# -- the object -----------------------------------------------------------------------------------


async def test_a_stored_object_tells_when_somebody_wrote_to_it(files: Files) -> None:
    store = make(files)
    key = key_of(SMALL)
    await put(store, key, SMALL)
    path = store.path(key)
    assert path is not None

    with store.open(key) as stored:
        assert stored.unchanged()
        files.chmod(path, 0o644)
        fd = files.open_write(path, append=True)
        files.write(fd, b"more")
        files.close_fd(fd)
        assert not stored.unchanged()


@pytest.mark.parametrize("change", ["bytes", "nothing", "length"])
async def test_an_object_that_unlocked_files_share_counts_only_while_it_is_right(files: Files, change: str) -> None:
    store = make(files, bare=False, thin=True)
    key = key_of(SMALL)
    await put(store, key, SMALL)
    path = store.path(key)
    assert path is not None
    files.chmod(path, 0o644)
    files.link(path, b"unlocked")

    fd = files.open_write(b"unlocked")
    files.write(fd, {"bytes": b"X", "nothing": SMALL[:1], "length": b""}[change])
    if change == "length":
        files.truncate(fd, 5)
    files.close_fd(fd)

    assert store.present(key) is (change == "nothing")


async def test_settings_travel_and_records_do_not(tmp_path: Path) -> None:
    store = make(DiskFiles(tmp_path), durability="fast", bare=False)
    await put(store, key_of(SMALL), SMALL)

    again = pickle.loads(pickle.dumps(store))

    assert again.present(key_of(SMALL))
    assert again.settings == store.settings
    with pytest.raises(TypeError):
        pickle.dumps(store.variant(durability="fast", recorded=lambda key: None))


@pytest.mark.parametrize("durability", ["full", "fast"])
async def test_what_is_stored_is_recorded_before_finish_returns(files: Files, durability: Durability) -> None:
    events: list[str] = []

    async def sync_records() -> None:
        events.append("synced")

    store = make(files).variant(
        durability=durability,
        recorded=lambda key: events.append(f"recorded, present: {store.present(key)}"),
        sync_records=sync_records,
    )

    for _ in range(2):
        await put(store, key_of(SMALL), SMALL)

    assert events == ["recorded, present: True", *(["synced"] if durability == "full" else [])] * 2


async def test_what_is_not_stored_is_not_recorded(files: Files) -> None:
    recorded: list[Key] = []
    store = make(files).variant(durability="full", recorded=recorded.append)

    with pytest.raises(VerificationFailed):
        await put(store, key_of(SMALL), SMALL[::-1])

    assert recorded == []


async def test_a_record_that_fails_fails_the_put_that_it_was_for(files: Files) -> None:
    async def broken() -> None:
        raise OSError(errno.EIO, "the log cannot be written")

    store = make(files).variant(durability="full", recorded=lambda key: None, sync_records=broken)

    with pytest.raises(ContentError, match="the log cannot be written"):
        await put(store, key_of(SMALL), SMALL)


def test_stat_of_a_thawed_directory_is_restored_after_a_failed_lock(tmp_path: Path) -> None:
    folder = tmp_path / "annex/objects"
    folder.mkdir(parents=True)
    store = make(DiskFiles(tmp_path))
    key = key_of(SMALL)
    path = tmp_path / "annex/objects" / os.fsdecode(store.folders.paths(key)[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(SMALL)
    path.parent.chmod(0o555)
    lock = store.lock(key)

    with pytest.raises(ContentError):
        store.remove(key)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o555
    lock.release()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o555
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("found", [SMALL[:10], SMALL.upper()[::-1]], ids=["cut", "modified"])
@pytest.mark.parametrize("durability", ["full", "fast"])
async def test_content_is_not_stored_while_something_else_stands_in_its_place(
    files: Files, found: bytes, durability: Durability
) -> None:
    store = ContentStore(files, clock=CLOCK, settings=ContentSettings(thin=True, durability=durability))
    path = b"annex/objects/" + store.folders.paths(key_of(SMALL))[0]
    files.make_folders(os.path.dirname(path))
    files.replace(path, found, mode=0o644, sync=False)
    async with store.receive(key_of(SMALL)) as receiving:
        await receiving.write(SMALL)
        with pytest.raises(ContentError, match="not the content"):
            await receiving.finish()
    assert files.read(path) == found
