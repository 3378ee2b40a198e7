"""A directory special remote as a Remote: the contract, and what happens when the folder goes away."""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from remote_contract import CONTENT, KEY, A, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.actions.results import Verified
from annexpy.actions.verify import verify
from annexpy.clock import Deadline
from annexpy.errors import (
    AccessDenied,
    ConnectFailed,
    NoSpace,
    NotLocked,
    NotRegularFile,
    Refused,
    TimedOut,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.remote.base import Remote
from annexpy.remote.directory import DirectoryRemote
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio]
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Known:
    """What the branch says, by hand."""

    def __init__(self, anything: bool = False, chunks: frozenset[Key] = frozenset()) -> None:
        self.recorded, self.chunks = anything, chunks

    def anything(self) -> bool:
        return self.recorded

    def in_chunks(self, key: Key) -> bool:
        return key in self.chunks


class TestDirectory(RemoteContract):
    locks = False

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "disk"
        self.path.mkdir()

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        yield DirectoryRemote(self.path, uuid=A, clock=clock, records=Known())


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    return path


@pytest.fixture
def remote(disk: Path) -> DirectoryRemote:
    return DirectoryRemote(disk, uuid=A, name="disk", records=Known())


def place(disk: Path, key: Key = KEY, mixed: bool = False) -> Path:
    return disk / os.fsdecode(object_paths(key)[mixed])


@ASYNCIO
async def test_what_is_stored_lies_where_git_annex_puts_it_and_nobody_may_write_to_it(
    remote: DirectoryRemote, disk: Path
) -> None:
    await store(remote, KEY, CONTENT)

    assert place(disk).read_bytes() == CONTENT
    assert stat.S_IMODE(place(disk).stat().st_mode) == 0o444
    assert stat.S_IMODE(place(disk).parent.stat().st_mode) == 0o555
    assert list((disk / "tmp/annexpy").iterdir()) == []


@ASYNCIO
async def test_content_below_mixed_hash_directories_is_found_and_removed(remote: DirectoryRemote, disk: Path) -> None:
    (disk / "tmp").mkdir()
    place(disk, mixed=True).parent.mkdir(parents=True)
    place(disk, mixed=True).write_bytes(CONTENT)

    assert await remote.check_present(KEY)
    assert await read(remote, KEY) == CONTENT
    assert (await remote.remove_content(KEY)).ok
    assert [path.name for path in disk.iterdir()] == ["tmp"]


@ASYNCIO
@pytest.mark.parametrize("how", ["gone", "a file", "unreadable", "replaced by an empty folder"])
async def test_a_folder_that_cannot_be_looked_into_is_an_error_and_never_not_present(
    disk: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = DirectoryRemote(disk, uuid=A, records=Known(anything=True))
    (disk / "tmp").mkdir()
    await store(remote, KEY, CONTENT)
    moved = disk.rename(disk.with_name("elsewhere"))
    if how == "a file":
        disk.write_bytes(b"")
    elif how == "unreadable":
        disk.symlink_to(disk.with_name("nowhere"))
    elif how != "gone":
        disk.mkdir()

    other = key_of(content_of(1))
    for key in (KEY, other):
        with pytest.raises(ConnectFailed):
            await remote.check_present(key)
        with pytest.raises(ConnectFailed):
            await read(remote, key)
        removed = await remote.remove_content(key)
        assert not removed.ok
        assert isinstance(removed.failed[A], ConnectFailed)
        with pytest.raises(ConnectFailed):
            await store(remote, key, CONTENT)
    with pytest.raises(ConnectFailed):
        await remote.connect()

    if disk.is_symlink() or disk.is_file():
        disk.unlink()
    elif disk.exists():
        disk.rmdir()
    moved.rename(disk)
    assert await remote.check_present(KEY)
    assert not await remote.check_present(other)


@ASYNCIO
async def test_an_empty_folder_of_which_nothing_is_known_takes_contents_and_tells_no_absence(disk: Path) -> None:
    remote = DirectoryRemote(disk, uuid=A)
    with pytest.raises(ConnectFailed, match="mounted"):
        await remote.check_present(KEY)

    await store(remote, KEY, CONTENT)

    assert await remote.check_present(KEY)
    assert not await remote.check_present(key_of(b""))


@ASYNCIO
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("dangling", [False, True])
async def test_symbolic_links_are_not_followed(
    remote: DirectoryRemote, disk: Path, tmp_path: Path, depth: int, dangling: bool
) -> None:
    await store(remote, KEY, CONTENT)
    link = disk.joinpath(*place(disk).relative_to(disk).parts[:depth])
    link.parent.chmod(0o755)
    target = tmp_path / "target"
    if link.is_dir():
        link.chmod(0o755)
    link.rename(target)
    link.symlink_to(tmp_path / "nowhere" if dangling else target)

    with pytest.raises(NotRegularFile):
        await remote.check_present(KEY)
    with pytest.raises(NotRegularFile):
        await read(remote, KEY)
    assert not (await remote.remove_content(KEY)).ok
    with pytest.raises(NotRegularFile):
        await store(remote, KEY, CONTENT)
    assert target.exists()
    target.chmod(0o755)


@ASYNCIO
async def test_a_folder_that_may_not_be_read_is_no_absence(
    remote: DirectoryRemote, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annexpy.repo import beneath
    from annexpy.repo.files import DiskFiles

    await store(remote, KEY, CONTENT)

    def denied(files: DiskFiles, path: bytes) -> os.stat_result | None:
        if b"/" in path:
            raise PermissionError(13, "Permission denied", path)
        return status(files, path)

    status = DiskFiles.status  # root may read everything, so the system has to be told to refuse
    monkeypatch.setattr(DiskFiles, "status", denied)
    monkeypatch.setattr(beneath, "_opens", beneath._never)  # which would not ask it
    with pytest.raises(AccessDenied):
        await remote.check_present(KEY)


@ASYNCIO
async def test_a_flipped_bit_is_present_by_its_size_and_found_by_reading_it_again(
    remote: DirectoryRemote, disk: Path
) -> None:
    await store(remote, KEY, CONTENT)
    assert await verify(remote, KEY) is Verified.HASH
    place(disk).chmod(0o644)
    place(disk).write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    place(disk).chmod(0o444)

    with pytest.raises(VerificationFailed):
        await verify(remote, KEY)
    assert (await remote.remove_content(KEY)).ok
    await store(remote, KEY, CONTENT)
    assert await verify(remote, KEY) is Verified.HASH


@ASYNCIO
async def test_a_content_of_the_wrong_size_is_not_present(remote: DirectoryRemote, disk: Path) -> None:
    await store(remote, KEY, CONTENT)
    place(disk).chmod(0o644)
    place(disk).write_bytes(CONTENT[:-1])

    assert not await remote.check_present(KEY)


@pytest.mark.anyio
async def test_a_folder_whose_last_user_was_a_thread_that_nobody_waited_for_is_opened_again(
    remote: DirectoryRemote,
) -> None:
    async with remote._using() as opened:
        opened.hold()  # as a thread does that hangs in the file system while its caller is cancelled
    opened.release()

    assert await remote.connect() == A


@ASYNCIO
async def test_the_disk_reserve_is_looked_at_before_the_first_byte(disk: Path) -> None:
    remote = DirectoryRemote(disk, uuid=A, reserve=1 << 62)
    with pytest.raises(NoSpace):
        await store(remote, KEY, CONTENT)
    assert not [path for path in disk.rglob("*") if path.is_file()]


@ASYNCIO
async def test_what_git_annex_has_just_stored_is_on_disk_before_it_is_promised(
    remote: DirectoryRemote, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(disk).parent.mkdir(parents=True)
    place(disk).write_bytes(CONTENT)
    synced: list[int] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    async with remote.put(KEY) as upload:
        assert upload.already == {A}
        assert place(disk).stat().st_ino in synced


@ASYNCIO
async def test_what_a_killed_put_left_is_thrown_away_after_a_week(remote: DirectoryRemote, disk: Path) -> None:
    arriving = disk / "tmp/annexpy"
    arriving.mkdir(parents=True)
    theirs = disk / "tmp" / KEY.raw.decode()
    theirs.mkdir()
    for name, age in (("old", 8 * 86400), ("new", 6 * 86400)):
        (arriving / name).write_bytes(b"part")
        then = remote._clock.wall() - age
        os.utime(arriving / name, (then, then))

    await store(remote, KEY, CONTENT)

    assert [path.name for path in arriving.iterdir()] == ["new"]
    assert theirs.exists()


@ASYNCIO
async def test_nothing_can_be_locked_and_a_removal_looks_at_the_clock(disk: Path) -> None:
    clock = HandClock()
    remote = DirectoryRemote(disk, uuid=A, clock=clock, records=Known())
    await store(remote, KEY, CONTENT)
    with pytest.raises(NotLocked, match="no locks"):
        async with remote.lock_content(KEY):
            pass
    late = await remote.remove_content(KEY, deadline=Deadline(clock.now()))
    assert isinstance(late.failed[A], TimedOut)
    assert await remote.check_present(KEY)


@ASYNCIO
async def test_what_is_there_in_chunks_is_refused_by_name_and_not_called_absent(disk: Path) -> None:
    remote = DirectoryRemote(disk, uuid=A, records=Known(chunks=frozenset((KEY,))))
    (disk / "tmp").mkdir()
    with pytest.raises(Refused, match="chunk"):
        await remote.check_present(KEY)
    with pytest.raises(Refused, match="chunk"):
        await read(remote, KEY)
    assert isinstance((await remote.remove_content(KEY)).failed[A], Refused)


@ASYNCIO
async def test_the_folder_is_not_kept_open(remote: DirectoryRemote, disk: Path) -> None:
    await store(remote, KEY, CONTENT)
    await remote.check_present(KEY)
    async with remote.get(KEY) as download:
        assert [chunk async for chunk in download] == [CONTENT]
    del download

    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [path for path in held if path.startswith(str(disk))]


def test_it_pickles_and_says_what_it_does_not_know(disk: Path) -> None:
    again = pickle.loads(pickle.dumps(DirectoryRemote(disk, uuid=A, name="n", cost=7)))
    assert (again.path, again.uuid, again.name, again.cost) == (str(disk), A, "n", 7)
    with pytest.raises(UnknownUUID):
        _ = DirectoryRemote(disk, uuid=None).uuid


@pytest.mark.anyio
async def test_what_was_stored_beside_it_does_not_make_a_folder_look_unmounted(tmp_path: Path) -> None:
    """Somebody stores and records the first content between our look at the folder and our look at the records."""

    class Records:
        def anything(self) -> bool:
            (tmp_path / "aaa").mkdir(exist_ok=True)
            return True

        def in_chunks(self, key: Key) -> bool:
            return False

    remote = DirectoryRemote(str(tmp_path), uuid=UUID("00000000-0000-4000-8000-0000000000dd"), records=Records())
    assert not await remote.check_present(Key.parse("SHA256E-s3--" + 64 * "1"))
