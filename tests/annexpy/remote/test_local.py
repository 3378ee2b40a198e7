"""A repository on this machine as a Remote: the contract, and what it writes down."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import subprocess
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from remote_contract import CONTENT, KEY, WORM, A, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.clock import Deadline
from annexpy.errors import (
    AccessDenied,
    ConnectionLost,
    ContentLocked,
    InvalidKey,
    KeyNotPresent,
    NotEnoughCopies,
    Refused,
    RemoteProtocolError,
    TimedOut,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import BatchPresence, Remote
from annexpy.remote.local import Local, LocalDownload, LocalUpload
from annexpy.remote.local_removal import TrashBin
from annexpy.repo.locks import Removal
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio
TRASH = UUID("eeeeeeee-0000-4000-8000-000000000005")


def make(path: Path, clock: HandClock | None = None, *, bare: bool = True, uuid: UUID = A) -> Repository:
    Repository.init(path, bare=bare, uuid=uuid).close()
    return Repository.open(path) if clock is None else Repository.open(path, clock=clock)


class LocalContract(RemoteContract):
    durability: Durability = "fast"
    bare = True
    pidlock = False

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "some-repository-with-a-long-name"

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        make(self.path, bare=self.bare).close()
        if self.pidlock:
            with open(self.path / "config", "a") as config:
                config.write("[annex]\n\tpidlock = true\n")
        with Repository.open(self.path, clock=clock) as repository:
            local = Local(repository, durability=self.durability)
            yield local
            await local.aclose()


class TestLocal(LocalContract):
    pass


class TestLocalDurable(LocalContract):
    durability = "full"


class TestLocalWithAWorkTree(LocalContract):
    bare = False


class TestLocalWithPidlock(LocalContract):
    pidlock = True


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["full", "fast"])
def local(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> Local:
    return Local(make(tmp_path / "r.git", clock), durability=request.param)


def log_lines(local: Local, key: Key) -> list[str]:
    """The location log in the branch, without times."""
    with Repository.open(local.repository.path) as repository:
        from annexpy.keys.layout import location_log

        return [line.split(b"s ", 1)[1].decode() for line in repository.branch.read(location_log(key)).splitlines()]


# -- records --------------------------------------------------------------------------------------


async def test_what_is_stored_and_removed_is_recorded_for_its_own_uuid(local: Local) -> None:
    await store(local, KEY, CONTENT)
    assert log_lines(local, KEY) == [f"1 {A}"]

    assert (await local.remove_content(KEY)).ok
    assert log_lines(local, KEY) == [f"0 {A}"]

    await local.aclose()
    assert log_lines(local, KEY) == [f"0 {A}"]


async def test_a_record_survives_the_process_before_success_is_said(local: Local) -> None:
    """Another process sees it at once: it is in the spool, not in our memory."""
    async with local.put(KEY) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT)
        await upload.finish()
        assert log_lines(local, KEY) == [f"1 {A}"]


async def test_content_that_was_there_unrecorded_is_recorded_when_somebody_puts_it(local: Local) -> None:
    await store(local, KEY, CONTENT)
    local.repository.branch.set_present(KEY, A, False)
    await local.repository.branch.commit()

    async with local.put(KEY) as upload:
        assert upload.already == {A}

    assert log_lines(local, KEY) == [f"1 {A}"]


async def test_removing_what_was_never_here_records_nothing(local: Local) -> None:
    removed = await local.remove_content(KEY)

    assert removed.ok
    assert log_lines(local, KEY) == []


async def test_removing_what_is_gone_mends_a_stale_record(local: Local) -> None:
    local.repository.branch.set_present(KEY, A, True)

    assert (await local.remove_content(KEY)).ok

    assert log_lines(local, KEY) == [f"0 {A}"]


async def test_a_removal_that_is_cancelled_leaves_a_record_that_is_true(local: Local) -> None:
    await store(local, KEY, CONTENT)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await local.remove_content(KEY)

    await local.aclose()
    assert await local.check_present(KEY) is scope.cancelled_caught
    assert log_lines(local, KEY) == [f"{int(scope.cancelled_caught)} {A}"]


async def test_a_removal_whose_deadline_passes_while_it_is_recorded_leaves_a_record_that_is_true(
    local: Local, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(local, KEY, CONTENT)
    branch = local.repository.branch
    sync_now = branch.sync_now

    def slow(*, durable: bool = True) -> None:
        sync_now(durable=durable)
        clock.time += 20

    monkeypatch.setattr(branch, "sync_now", slow)
    removed = await local.remove_content(KEY, deadline=Deadline(clock.now() + 10))

    assert isinstance(removed.failed[A], TimedOut)
    await local.aclose()
    assert await local.check_present(KEY)
    assert log_lines(local, KEY) == [f"1 {A}"]


async def test_that_a_removal_failed_survives_a_kill(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(local, KEY, CONTENT)

    def broken(removal: Removal, **more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Removal, "unlink", broken)
    removed = await local.remove_content(KEY)

    assert removed.failed[A]
    with Repository.open(local.repository.path) as again:  # what a kill now would leave
        assert again.content.present(KEY)
        assert again.branch.locations(KEY).present == [A]


async def test_data_present_is_believed_only_after_a_look(local: Local) -> None:
    """Whoever says so brought the content there by other means."""
    path = b"annex/objects/" + local.store.folders.paths(KEY)[0]
    files = local.repository.files
    async with local.put(KEY) as upload:
        with pytest.raises(KeyNotPresent):
            await upload.data_present()
        files.make_folders(os.path.dirname(path))
        files.replace(path, CONTENT[::-1], sync=False)
        with pytest.raises(VerificationFailed):
            await upload.data_present()
        assert log_lines(local, KEY) == []
        files.replace(path, CONTENT, sync=False)
        assert (await upload.data_present()).uuids == {A}
    assert log_lines(local, KEY) == [f"1 {A}"]


# -- locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (None, False),
        (NotEnoughCopies(KEY, 1, 2), False),
        (ConnectionLost("client", "UNLOCKCONTENT"), True),
        (TimedOut("somebody", "an answer to REMOVE", 5), True),
        (RemoteProtocolError("no answer to REMOVE"), True),
        (ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [ConnectionLost("x", "y")])]), True),
        (ExceptionGroup("tasks", [ValueError(), KeyNotPresent(KEY)]), False),
        (RuntimeError("anything else"), False),
    ],
)
async def test_a_lock_outlives_a_holder_that_cannot_unlock(
    local: Local, clock: HandClock, error: Exception | None, kept: bool
) -> None:
    await store(local, KEY, CONTENT)
    try:
        async with local.lock_content(KEY) as lock:
            assert lock.expires == 1600.0
            assert await lock.held()
            if error is not None:
                raise error
    except Exception as raised:
        assert raised is error  # noqa: PT017  # also nothing
    assert not await lock.held()

    removed = await local.remove_content(KEY)
    assert removed.ok is not kept
    if kept:
        assert isinstance(removed.failed[A], ContentLocked)
        clock.time += 601
        assert (await local.remove_content(KEY)).ok


@pytest.mark.parametrize("client", [None, TRASH])
async def test_a_client_who_is_served_keeps_his_retention_when_the_server_stops(
    tmp_path: Path, client: UUID | None
) -> None:
    local = Local(make(tmp_path / "r.git"), client=client)
    await store(local, KEY, CONTENT)
    with anyio.CancelScope() as scope:
        async with local.lock_content(KEY):
            scope.cancel()
            await anyio.sleep_forever()

    assert (await local.remove_content(KEY)).ok is (client is None)


@pytest.mark.parametrize("client", [None, TRASH])
async def test_a_client_who_is_served_keeps_his_retention_when_the_server_is_interrupted(
    tmp_path: Path, client: UUID | None
) -> None:
    local = Local(make(tmp_path / "r.git"), client=client)
    await store(local, KEY, CONTENT)
    with pytest.raises(KeyboardInterrupt):
        async with local.lock_content(KEY):
            raise KeyboardInterrupt

    assert (await local.remove_content(KEY)).ok is (client is None)


# -- what may be stored ---------------------------------------------------------------------------


async def test_keys_that_we_do_not_write_are_refused(local: Local) -> None:
    with pytest.raises(InvalidKey):
        async with local.put(Key.parse("../x-s1--x")):
            pass


async def test_secure_hashes_only(tmp_path: Path) -> None:
    repository = make(tmp_path / "r.git")
    repository.config.set("annex.securehashesonly", "true")
    local = Local(Repository.open(tmp_path / "r.git"), durability="fast")

    with pytest.raises(AccessDenied, match="securehashesonly"):
        async with local.put(WORM):
            pass
    await store(local, KEY, CONTENT)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_repository_may_take_only_what_can_be_verified(tmp_path: Path, anyio_backend: str) -> None:
    repository = make(tmp_path / "r.git")
    repository.config.set("annexpy.verifiable", "true")
    local = Local(Repository.open(tmp_path / "r.git"), durability="fast")

    for key in (WORM, Key.parse("URL--http://x/y"), Key.parse("FOO-s5--x")):
        with pytest.raises(InvalidKey, match="verif"):
            async with local.put(key):
                pass
    await store(local, Key.parse("MD5E-s5--5d41402abc4b2a76b9719d911017c592.txt"), b"hello")


# -- contents -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, 300_000, 9_000_000])
async def test_ranges_of_a_content_of_any_size(local: Local, size: int) -> None:
    content = content_of(5, size)
    await store(local, key_of(content), content)

    for offset, end in ((0, None), (size // 3, None), (size, None), (size + 5, None), (10, size // 2), (0, size + 9)):
        assert await read(local, key_of(content), offset, end) == content[offset:end]


@pytest.mark.parametrize("offset", [0, 5])
async def test_a_large_content_in_memory_leaves_others_their_turns(local: Local, offset: int) -> None:
    content, turns = content_of(5, 9_000_000), 0

    async def others() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    await store(local, key_of(content), content)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        async with local.get(key_of(content), offset=offset) as download:
            await anyio.lowlevel.checkpoint()
            turns = 0
            async for _ in download:
                pass
        assert turns >= 3  # one in two MiB, at least
        tasks.cancel_scope.cancel()


async def test_content_that_changes_while_it_is_sent_is_invalid_and_of_the_promised_length(local: Local) -> None:
    content = content_of(6, 6_000_000)
    key = key_of(content)
    await store(local, key, content)
    path = local.store.path(key)
    assert path is not None
    local.repository.files.chmod(path, 0o644)

    async with local.get(key) as download:
        received = 0
        async for chunk in download:
            if not received:
                fd = local.repository.files.open_write(path)
                local.repository.files.truncate(fd, 5_000_000)
                local.repository.files.close_fd(fd)
            received += len(chunk)
        assert received == download.length == 6_000_000
        assert not download.valid


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
@pytest.mark.parametrize("partial", [0, 100])
async def test_one_local_repository_copies_from_another_without_the_event_loop(
    tmp_path: Path, size: int, partial: int
) -> None:
    source = Local(make(tmp_path / "a.git"), durability="fast")
    destination = Local(make(tmp_path / "b.git", uuid=UUID("b")), durability="fast")
    content = content_of(7, size)
    key = key_of(content)
    await store(source, key, content)
    if size and partial:
        async with destination.put(key) as upload:
            await upload.start(size)
            await upload.write(content[:partial])

    async with destination.put(key) as upload, source.get(key, offset=upload.offset) as download:
        assert isinstance(upload, LocalUpload)
        assert isinstance(download, LocalDownload)
        await upload.start(download.length)
        await upload.copy(download)
        assert download.valid
        assert (await upload.finish(download.valid)).uuids == {UUID("b")}

    assert await read(destination, key) == content


async def test_many_keys_are_looked_for_at_once(local: Local) -> None:
    keys = [key_of(content_of(number)) for number in range(600)]
    for number in range(0, 600, 100):
        await store(local, keys[number], content_of(number))

    assert isinstance(local, BatchPresence)
    assert await local.check_present_many(keys) == [number % 100 == 0 for number in range(600)]


# -- processes ------------------------------------------------------------------------------------


async def test_it_pickles_with_its_repository(tmp_path: Path) -> None:
    local = Local(make(tmp_path / "r.git"), durability="fast", name="here", cost=50, client=TRASH, commit=False)
    await store(local, KEY, CONTENT)

    again = pickle.loads(pickle.dumps(local))

    assert (again.name, again.cost, again.uuid) == ("here", 50, A)
    assert await again.check_present(KEY)
    await store(again, key_of(b"more"), b"more")
    assert await local.check_present(key_of(b"more"))


def test_a_forked_child_goes_on_using_it(tmp_path: Path) -> None:
    local = Local(make(tmp_path / "r.git"))

    async def put(content: bytes) -> None:
        await store(local, key_of(content), content)

    anyio.run(put, b"parent")
    child = os.fork()
    if child == 0:
        try:
            anyio.run(put, b"child")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    anyio.run(put, b"parent again")

    assert all(local.store.present(key_of(content)) for content in (b"parent", b"child", b"parent again"))
    for content in (b"parent", b"child", b"parent again"):
        assert log_lines(local, key_of(content)) == [f"1 {A}"]


async def test_what_comes_while_it_is_found_to_be_gone_stays_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Local(make(tmp_path / "r.git"))
    local.record(KEY, present=True)  # which is wrong
    record = local.record_many

    def after_another(keys: Sequence[Key], *, present: bool) -> None:
        monkeypatch.undo()
        with Repository.open(local.repository.path) as repository, ThreadPoolExecutor(1) as another:
            another.submit(anyio.run, store, Local(repository), KEY, CONTENT).result()
        record(keys, present=present)

    monkeypatch.setattr(local, "record_many", after_another)
    removed = await local.remove_content(KEY)

    assert removed.ok
    assert await local.check_present(KEY)
    assert A in local.repository.branch.locations(KEY).present


# -- annex.trashbin -------------------------------------------------------------------------------


def with_trash(tmp_path: Path, url: str = "../trash.git") -> Local:
    make(tmp_path / "trash.git", uuid=TRASH).close()
    repository = make(tmp_path / "r.git")
    repository.config.change({"remote.bin.url": url, "annex.trashbin": "bin"})
    repository.close()
    return Local(Repository.open(tmp_path / "r.git"))


@pytest.mark.parametrize("form", ["../trash.git", "{}/trash.git", "file://{}/trash.git"])
async def test_content_goes_to_the_trash_bin_before_it_is_removed(tmp_path: Path, git_annex: str, form: str) -> None:
    local = with_trash(tmp_path, form.format(tmp_path))
    await store(local, KEY, CONTENT)
    await store(local, WORM, CONTENT)

    assert (await local.remove_content(KEY)).ok
    assert (await local.remove_content(WORM)).ok
    await local.aclose()

    assert not await local.check_present(KEY)
    assert log_lines(local, KEY) == [f"0 {A}", f"1 {TRASH}"]
    with Repository.open(tmp_path / "trash.git") as trash:
        assert trash.content.present(KEY)
        assert trash.content.present(WORM)
    for name in ("r.git", "trash.git"):
        said = subprocess.run(
            [git_annex, "whereis", "--key", str(KEY)], cwd=tmp_path / name, capture_output=True, text=True
        )
        assert TRASH in said.stdout
        assert A not in said.stdout


async def test_the_trash_bin_may_have_it_already(tmp_path: Path) -> None:
    local = with_trash(tmp_path)
    for _ in range(2):
        await store(local, KEY, CONTENT)
        assert (await local.remove_content(KEY)).ok
    await local.aclose()


async def test_nothing_is_removed_when_the_trash_bin_does_not_take_it(tmp_path: Path) -> None:
    local = with_trash(tmp_path)
    await store(local, KEY, CONTENT)
    (tmp_path / "trash.git").rename(tmp_path / "elsewhere")

    removed = await local.remove_content(KEY)

    assert not removed.ok
    assert await local.check_present(KEY)
    assert log_lines(local, KEY) == [f"1 {A}"]


async def test_what_did_not_go_before_a_cancellation_is_still_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = with_trash(tmp_path)
    await store(local, KEY, CONTENT)
    await store(local, WORM, CONTENT)
    keep, scope = TrashBin.keep, anyio.CancelScope()

    async def then_cancelled(bin: TrashBin, key: Key) -> None:
        await keep(bin, key)
        if key == WORM:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(TrashBin, "keep", then_cancelled)
    with scope:
        await local.remove_content_many([KEY, WORM])

    for key in (KEY, WORM):
        assert await local.check_present(key)
        assert A in local.repository.branch.locations(key).present


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"annex.trashbin": "nobody"}, Refused),
        ({"remote.bin.url": "ssh://host/path"}, Refused),
        ({"remote.bin.url": "host:path"}, Refused),
        ({"remote.bin.annex-uuid": "another"}, UnknownUUID),
        ({"remote.bin.url": "."}, UnknownUUID),
    ],
)
async def test_a_trash_bin_that_is_no_local_repository_is_refused_by_name(
    tmp_path: Path, settings: dict[str, str], error: type[Exception]
) -> None:
    local = with_trash(tmp_path)
    await store(local, KEY, CONTENT)
    local.repository.config.change(settings)
    local.repository.config.reload()

    removed = await local.remove_content(KEY)

    assert isinstance(removed.failed[A], error)
    assert await local.check_present(KEY)


def test_a_locked_content_does_not_go_to_the_trash(tmp_path: Path) -> None:
    local = with_trash(tmp_path)

    async def main() -> None:
        await store(local, KEY, CONTENT)
        async with local.lock_content(KEY):
            assert not (await local.remove_content(KEY)).ok
        with Repository.open(tmp_path / "trash.git") as trash:
            assert not trash.content.present(KEY)

    anyio.run(main)
    assert hashlib.sha256(CONTENT).hexdigest() in str(KEY)


async def test_what_is_removed_while_it_is_synced_is_wanted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "r") as repository:
        local = Local(repository, commit=False)
        await store(local, KEY, CONTENT)
        repository.branch.set_present(KEY, A, False)  # as if it had been stored by somebody who was killed
        sync = local.store.sync_content

        async def synced_and_removed(key: Key) -> None:
            await sync(key)
            assert repository.content.remove(key)

        monkeypatch.setattr(local.store, "sync_content", synced_and_removed)
        async with local.put(KEY) as upload:
            assert upload.already is None
        assert A not in repository.branch.locations(KEY).present
