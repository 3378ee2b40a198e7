"""Put, get, copy and move: contents arrive whole and verified, resume where they stopped, or fail with a reason."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from annexpy.actions.copy import copy, move
from annexpy.actions.destination import partial_name
from annexpy.actions.get import get
from annexpy.actions.has import has_many
from annexpy.actions.put import put, put_many
from annexpy.actions.reader import open_key
from annexpy.actions.results import Verified
from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    InvalidPath,
    KeyNotPresent,
    NotEnoughCopies,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import Download, Remote, Stored, Upload
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local, LocalUpload
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.recording import Recording
from annexpy.remote.traced import Traced
from annexpy.remote.wrappers import ReadOnly, Wrapper
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio

SMALL = bytes(range(256)) * 16
LARGE = bytes(range(251)) * 12_000  # 3 MB, and no chunk like another
SIZES = {"empty": b"", "small": SMALL, "large": LARGE}


def key_of(content: bytes) -> Key:
    return name_content([content])


def uuid(name: str) -> UUID:
    return UUID(f"{name}{'0' * (8 - len(name))}-1111-4111-8111-111111111111")


def place(name: str, *contents: bytes) -> MemoryRemote:
    return MemoryRemote(uuid(name), name=name, objects={key_of(content): content for content in contents})


class Progress:
    def __init__(self) -> None:
        self.calls: list[tuple[Key, int, int | None]] = []

    def __call__(self, key: Key, done: int, total: int | None) -> None:
        self.calls.append((key, done, total))

    @property
    def done(self) -> list[int]:
        return [done for _, done, _ in self.calls]


class Cut(MemoryRemote):
    """Breaks off after so many bytes, in either direction."""

    def __init__(self, name: str, after: int, **more: Any) -> None:
        super().__init__(uuid(name), name=name, **more)
        self.left = after

    def spend(self, data: bytes) -> bytes:
        fits, self.left = data[: self.left], max(0, self.left - len(data))
        return fits

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Any]:
        async with super().put(key, associated_file=associated_file) as upload:
            yield _CutUpload(self, upload)

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[Any]:
        async with super().get(key, offset=offset, end=end) as download:
            yield _CutDownload(self, download)


class _CutUpload:
    def __init__(self, remote: Cut, upload: Upload) -> None:
        self._remote, self._upload = remote, upload
        self.already, self.offset = upload.already, upload.offset
        self.start, self.finish = upload.start, upload.finish

    async def write(self, data: bytes) -> None:
        fits = self._remote.spend(data)
        await self._upload.write(fits)
        if len(fits) < len(data):
            raise ConnectionLost(self._remote.name, "the content")


class _CutDownload:
    def __init__(self, remote: Cut, download: Download) -> None:
        self._remote, self._download = remote, download
        self.length, self.source, self.valid = download.length, download.source, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._download:
            fits = self._remote.spend(chunk)
            if fits:
                yield fits
            if len(fits) < len(chunk):
                raise ConnectionLost(self._remote.name, "the content")


async def stream(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


# -- put --


@pytest.mark.parametrize("content", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", ["path", "bytes", "stream"])
@pytest.mark.parametrize("resumed", [False, True])
async def test_put_stores_what_the_source_holds(content: bytes, kind: str, resumed: bool, tmp_path: Path) -> None:
    remote, key, progress = place("a"), key_of(content), Progress()
    (tmp_path / "f").write_bytes(content)
    if resumed and content:
        remote.partials[key] = bytearray(content[:1500])
    source: Any = {"path": tmp_path / "f", "bytes": content, "stream": stream(content)}[kind]

    stored = await put(remote, key, source, progress=progress)

    assert stored == Stored(uuids=frozenset({remote.uuid}))
    assert remote.objects[key] == content
    assert progress.done == sorted(progress.done)
    assert progress.calls[0][1] == (1500 if resumed and content else 0)
    assert progress.calls[-1] == (key, len(content), len(content))


async def test_put_sends_nothing_that_is_there_already(tmp_path: Path) -> None:
    remote, progress = place("a", SMALL), Progress()

    results = [r async for r in put_many(remote, [(key_of(SMALL), SMALL)], progress=progress)]

    assert results[0].stored == Stored(already=frozenset({remote.uuid}))
    assert (results[0].ok, results[0].bytes, results[0].verified) == (True, 0, Verified.NOT)
    assert progress.done == [len(SMALL)]


async def test_put_follows_links(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(SMALL)
    (tmp_path / "link").symlink_to("object")
    remote = place("a")

    await put(remote, key_of(SMALL), tmp_path / "link")

    assert remote.objects


async def test_put_says_how_the_content_was_verified() -> None:
    worm, nothing = Key.parse(b"WORM-s4096-m1--x"), Key.parse(b"URL--x")
    items: list[tuple[Key, Any]] = [(key_of(SMALL), SMALL), (worm, SMALL), (nothing, SMALL)]

    results = {r.key: r async for r in put_many(place("a"), items)}

    assert results[key_of(SMALL)].verified is Verified.HASH
    assert results[worm].verified is Verified.SIZE
    assert results[nothing].verified is Verified.NOT
    assert all(result.bytes == len(SMALL) for result in results.values())


async def test_a_source_of_another_size_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(SMALL + b"x")
    remote = place("a")

    with pytest.raises(ContentChanged, match="4097 bytes"):
        await put(remote, key_of(SMALL), tmp_path / "f")

    assert not remote.partials


@pytest.mark.parametrize("change", ["rewrite", "cut"])
async def test_a_source_that_changes_while_it_is_sent_is_not_stored(change: str, tmp_path: Path) -> None:
    key = Key.parse(b"WORM-s%d-m1--x" % len(LARGE))  # nothing but the sender can notice
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    remote = place("a")

    def progress(key: Key, done: int, total: int | None) -> None:
        if done:
            with path.open("r+b") as file:
                file.write(b"changed")
                if change == "cut":
                    file.truncate(100)
            os.utime(path, ns=(1, 1))

    with pytest.raises(ContentChanged):
        await put(remote, key, path, progress=progress)

    assert not remote.objects


@pytest.mark.parametrize("have", [0, 1_000_000])
async def test_a_large_file_for_this_machine_does_not_pass_the_event_loop(
    have: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalUpload, "write", None)
    key, path, progress = key_of(LARGE), tmp_path / "f", Progress()
    path.write_bytes(LARGE)
    with (
        Repository.init(tmp_path / "r.git", bare=True) as repository,
        Repository.init(tmp_path / "here.git", bare=True) as here,
    ):
        local = Local(repository, durability="fast")
        (tmp_path / "r.git" / "annex" / "tmp").mkdir(parents=True)
        (tmp_path / "r.git" / "annex" / "tmp" / str(key)).write_bytes(LARGE[:have])

        stored = await put(Recording(local, here.branch), key, path, progress=progress)
        await local.aclose()

        assert stored.uuids == {local.uuid}
        with local.store.open(key) as there:
            assert there.pread(len(LARGE) + 1, 0) == LARGE
    assert progress.calls[0] == (key, have, len(LARGE))
    assert progress.calls[-1] == (key, len(LARGE), len(LARGE))


async def test_a_large_file_that_changes_on_its_way_into_a_repository_here_is_not_stored(tmp_path: Path) -> None:
    key, path = Key.parse(b"WORM-s%d-m1--x" % len(LARGE)), tmp_path / "f"
    path.write_bytes(LARGE)
    with Repository.init(tmp_path / "r.git", bare=True) as repository:
        local = Local(repository, durability="fast")

        with pytest.raises(ContentChanged):
            await put(local, key, path, progress=lambda *_: os.utime(path, ns=(1, 1)))

        assert not local.store.present(key)


class UnderWay(Wrapper):
    """Counts how many puts are under way: of all, and of large contents."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote)
        self.now = {True: 0, False: 0}
        self.most = {True: 0, False: 0}

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Upload]:
        large = (key.size or 0) > len(SMALL)
        self.now[large] += 1
        self.most[large] = max(self.most[large], self.now[large])
        async with self.remote.put(key, associated_file=associated_file) as upload:
            yield upload
        self.now[large] -= 1


async def test_small_contents_wait_for_the_disk_of_this_machine_together_and_large_ones_for_each_other(
    tmp_path: Path,
) -> None:
    contents = [bytes([number]) * size for number in range(12) for size in (100, 300_000)]
    with Repository.init(tmp_path / "r.git", bare=True) as repository:
        local = UnderWay(Local(repository))

        results = [result async for result in put_many(local, [(key_of(one), one) for one in contents], jobs=2)]
        await local.aclose()

        assert all(result.ok for result in results)
        assert len(results) == 24
    assert local.most[True] == 2
    assert 2 < local.most[False] <= 6


async def test_content_that_is_not_the_keys_is_refused_by_the_far_side() -> None:
    remote = place("a")

    with pytest.raises(VerificationFailed):
        await put(remote, key_of(SMALL), SMALL[::-1])

    assert not remote.objects


@pytest.mark.parametrize("partial", [b"wrong" * 100, SMALL + b"too long"])
async def test_a_wrong_partial_costs_a_second_attempt_and_no_more(partial: bytes) -> None:
    remote, key = place("a"), key_of(SMALL)
    remote.partials[key] = bytearray(partial)

    results = [r async for r in put_many(remote, [(key, SMALL)])]

    assert results[0].ok
    assert remote.objects[key] == SMALL


async def test_a_stream_cannot_be_read_twice_so_a_wrong_partial_is_an_error() -> None:
    remote, key = place("a"), key_of(SMALL)
    remote.partials[key] = bytearray(b"wrong")

    with pytest.raises(VerificationFailed):
        await put(remote, key, stream(SMALL))
    await put(remote, key, stream(SMALL))


@pytest.mark.parametrize("content", [SMALL[:-1], SMALL + b"x"])
async def test_a_stream_of_another_length_is_not_stored(content: bytes) -> None:
    remote = place("a")

    with pytest.raises(IncompleteTransfer):
        await put(remote, key_of(SMALL), stream(content))

    assert not remote.objects


async def test_a_stream_needs_a_key_with_a_size() -> None:
    with pytest.raises(InvalidInput, match="a stream needs a key that tells its size"):
        await put(place("a"), Key.parse(b"URL--x"), stream(SMALL))


@pytest.mark.parametrize("path", ["nothing", "folder", "pipe"])
async def test_a_source_that_is_no_file_is_refused_at_once(path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    with anyio.fail_after(5), pytest.raises(InvalidPath):
        await put(place("a"), key_of(SMALL), tmp_path / path)


async def test_one_failure_among_many_puts_does_not_stop_the_others(tmp_path: Path) -> None:
    contents = [b"%d" % number for number in range(40)]
    items: list[tuple[Key, Any]] = [(key_of(content), content) for content in contents]
    items[7] = (items[7][0], tmp_path / "gone")
    items[9] = (items[9][0], b"9 changed")
    remote = place("a")

    results = {result.key: result async for result in put_many(remote, items)}

    assert len(results) == 40
    assert {key for key, result in results.items() if not result.ok} == {items[7][0], items[9][0]}
    assert isinstance(results[items[7][0]].error, InvalidPath)
    assert len(remote.objects) == 38


async def test_put_resumes_after_any_cut() -> None:
    key = key_of(SMALL)
    for after in range(0, len(SMALL), 97):
        remote = Cut("a", after)
        with pytest.raises(ConnectionLost):
            await put(remote, key, SMALL)
        assert bytes(remote.partials.get(key, b"")) == SMALL[:after]
        remote.left = len(SMALL)

        results = [r async for r in put_many(remote, [(key, SMALL)])]

        assert (results[0].offset, results[0].bytes) == (after, len(SMALL) - after)
        assert remote.objects[key] == SMALL


async def test_a_put_to_a_cluster_tells_who_has_it_and_who_has_not() -> None:
    good, had, bad = place("good"), place("had", SMALL), Cut("bad", 10)

    stored = await put(Cluster([good, had, bad]), key_of(SMALL), SMALL)

    assert stored.uuids == {good.uuid}
    assert stored.already == {had.uuid}
    assert set(stored.failed) == {bad.uuid}


class Log:
    def __init__(self) -> None:
        self.lines: set[tuple[Key, UUID, bool]] = set()

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None:
        self.lines.add((key, uuid, present))


@pytest.mark.parametrize("wrap", [lambda remote: remote, lambda remote: Recording(remote, Log()), Traced])
async def test_who_failed_is_told_also_when_all_the_others_had_it(wrap: Any) -> None:
    had, bad = place("had", SMALL), ReadOnly(place("bad"))
    whole = wrap(Cluster([had, bad]))

    stored = await put(whole, key_of(SMALL), SMALL)
    (copied,) = [result async for result in copy(place("a", SMALL), whole, [key_of(SMALL)])]

    for one in (stored, copied.stored):
        assert one.already == {had.uuid}
        assert set(one.failed) == {bad.uuid}


# -- get --


@pytest.mark.parametrize("content", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("have", [0, 1500, None])
async def test_get_writes_the_content_and_resumes_what_is_there(
    content: bytes, have: int | None, tmp_path: Path
) -> None:
    key, progress = key_of(content), Progress()
    partial = tmp_path / os.fsdecode(partial_name(key))
    have = len(content) if have is None else min(have, len(content))
    if have:
        partial.write_bytes(content[:have])

    result = await get(place("a", content), key, tmp_path / "f", progress=progress)

    assert (tmp_path / "f").read_bytes() == content
    assert os.listdir(tmp_path) == ["f"]
    assert (result.offset, result.bytes, result.verified) == (have, len(content) - have, Verified.HASH)
    assert progress.calls[0] == (key, have, len(content))
    assert progress.calls[-1] == (key, len(content), len(content))


async def test_get_replaces_a_file_only_when_all_is_there(tmp_path: Path) -> None:
    key = key_of(SMALL)
    (tmp_path / "f").write_bytes(b"old")

    with pytest.raises(ConnectionLost):
        await get(Cut("a", 100, objects={key: SMALL}), key, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"old"
    result = await get(place("a", SMALL), key, tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == SMALL
    assert result.offset == 100


async def test_wrong_content_never_appears(tmp_path: Path) -> None:
    key = key_of(SMALL)

    with pytest.raises(VerificationFailed):
        await get(MemoryRemote(uuid("a"), objects={key: SMALL[::-1]}), key, tmp_path / "f")

    assert os.listdir(tmp_path) == []


async def test_a_get_of_what_is_not_there_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyNotPresent):
        await get(place("a"), key_of(SMALL), tmp_path / "f")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("partial", [b"wrong" * 100, SMALL + b"too long", LARGE])
async def test_a_wrong_partial_is_thrown_away_and_all_is_fetched(partial: bytes, tmp_path: Path) -> None:
    key = key_of(SMALL)
    (tmp_path / os.fsdecode(partial_name(key))).write_bytes(partial)

    await get(place("a", SMALL), key, tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == SMALL


async def test_several_sources_stand_in_for_each_other(tmp_path: Path) -> None:
    key = key_of(LARGE)
    sources = [place("no"), Cut("cut", 1_000_000, objects={key: LARGE}), place("yes", LARGE)]

    await get(sources, key, tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == LARGE


async def test_content_that_is_nowhere_is_said_to_be(tmp_path: Path) -> None:
    for source in (place("a"), [place("a"), place("b")]):
        with pytest.raises(KeyNotPresent):
            await get(source, key_of(SMALL), tmp_path / "f")
    with pytest.raises(InvalidInput, match="at least one"):
        await get([], key_of(SMALL), tmp_path / "f")


async def test_two_gets_of_one_key_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    key = key_of(SMALL)
    second: list[BaseException] = []

    class Meets(MemoryRemote):
        @asynccontextmanager
        async def get(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            try:
                await get(place("b", SMALL), key, tmp_path / "g")
            except TransferInProgress as error:
                second.append(error)
            async with super().get(key, **more) as download:
                yield download

    await get(Meets(uuid("a"), objects={key: SMALL}), key, tmp_path / "f")

    assert len(second) == 1
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("path", ["no/folder/f", "folder/..", "."])
async def test_a_destination_that_cannot_be_written_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidPath):
        await get(place("a", SMALL), key_of(SMALL), f"{tmp_path}/{path}")


async def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    for name in ("pipe", "folder"):
        with pytest.raises(InvalidPath, match="no file that could be replaced"):
            await get(place("a", SMALL), key_of(SMALL), tmp_path / name)

    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


async def test_get_into_a_remote_is_a_copy() -> None:
    destination = place("b")

    result = await get(place("a", SMALL), key_of(SMALL), destination)

    assert result.stored.uuids == {destination.uuid}


# -- copy --


async def test_copy_streams_resumes_and_skips() -> None:
    contents = [b"%d" % number * 50 for number in range(50)]
    source, destination = place("a", *contents), place("b", *contents[:10])
    keys = [key_of(content) for content in contents]
    destination.partials[keys[20]] = bytearray(contents[20][:30])
    missing = key_of(b"nowhere")

    results = {result.key: result async for result in copy(source, destination, [*keys, missing])}

    assert destination.objects == source.objects
    assert {key for key, result in results.items() if result.stored.already} == set(keys[:10])
    assert isinstance(results[missing].error, KeyNotPresent)
    assert (results[keys[20]].offset, results[keys[20]].bytes) == (30, len(contents[20]) - 30)


async def test_presence_is_asked_for_many_keys_at_once_where_the_destination_can() -> None:
    class Asked(MemoryRemote):
        questions: list[int]
        puts: int = 0

        async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
            self.questions.append(len(keys))
            return [key in self.objects for key in keys]

        def put(self, key: Key, **more: Any) -> Any:
            self.puts += 1
            return super().put(key, **more)

    contents = [b"%d" % number for number in range(100)]
    destination = Asked(uuid("b"), objects={key_of(content): content for content in contents[:90]})
    destination.questions = []

    results = [r async for r in copy(place("a", *contents), destination, [key_of(c) for c in contents])]

    assert all(result.ok for result in results)
    assert (sum(destination.questions), destination.puts) == (100, 10)
    assert len(destination.questions) <= 2

    empty = Asked(uuid("c"))
    empty.questions = []
    results = [r async for r in copy(place("a", *contents), empty, [key_of(c) for c in contents])]

    assert all(result.ok for result in results)
    assert sum(empty.questions) < 10  # none of those is there, and every put finds out by itself


async def test_what_was_found_without_a_put_is_recorded_as_a_put_would_have() -> None:
    class Asked(MemoryRemote):
        async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
            return [key in self.objects for key in keys]

    contents = [b"%d" % number for number in range(20)]
    keys, log = [key_of(content) for content in contents], Log()
    destination = Asked(uuid("b"), objects={key_of(content): content for content in contents[:15]})

    results = [r async for r in copy(place("a", *contents), Recording(destination, log), keys)]

    assert sum(bool(result.stored.already) for result in results) == 15
    assert log.lines == {(key, destination.uuid, True) for key in keys}


async def test_invalid_content_without_a_hash_is_not_stored() -> None:
    class Changes(MemoryRemote):
        @asynccontextmanager
        async def get(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            async with super().get(key, **more) as download:
                download.valid = False
                yield download

    worm = Key.parse(b"WORM-s4096-m1--x")
    source = Changes(uuid("a"), objects={worm: SMALL, key_of(SMALL): SMALL})
    destination = place("b")

    results = {r.key: r async for r in copy(source, destination, [worm, key_of(SMALL)])}

    assert isinstance(results[worm].error, ContentChanged)
    assert results[key_of(SMALL)].ok  # the hash proves it
    assert set(destination.objects) == {key_of(SMALL)}


async def test_copy_takes_keys_from_an_async_iterable() -> None:
    async def keys() -> AsyncIterator[Key]:
        yield key_of(SMALL)

    assert [r.ok async for r in copy(place("a", SMALL), place("b"), keys())] == [True]


@pytest.mark.parametrize("jobs", [1, 16])
async def test_copy_can_be_left_between_two_results_and_gone_on_with(jobs: int) -> None:
    contents = [b"%d" % number for number in range(20)]
    source, destination = place("a", *contents), place("b")
    copying = copy(source, destination, [key_of(content) for content in contents], jobs=jobs)

    async for _ in copying:
        break

    assert not destination._receiving
    assert len([result async for result in copying]) == 19


# -- move --


async def moved(source: Any, destination: Any, *, num: int = 1, least: int = 1, **more: Any) -> Any:
    results = [r async for r in move(source, destination, [key_of(SMALL)], copies=Copies(num, least), **more)]
    assert len(results) == 1
    return results[0]


async def test_a_move_makes_no_fewer_copies_so_it_needs_no_others() -> None:
    source, destination = place("a", SMALL), place("b")

    result = await moved(source, destination, num=3, least=2)

    assert result.ok
    assert not source.objects
    assert destination.objects
    assert result.dropped.proof.copies.num_from == "one copy for another"


async def test_a_move_from_a_place_to_itself_removes_nothing() -> None:
    one, other = place("a", SMALL), place("b", SMALL)
    cluster = Cluster([one, other])

    for source, destination in ((one, one), (cluster, one)):
        refused = await moved(source, destination, others=[other, place("c", SMALL), place("d", SMALL)])

        assert isinstance(refused.error, InvalidInput)
        assert one.objects
        assert other.objects


async def test_a_move_to_where_it_was_already_is_a_drop() -> None:
    source, destination, other = place("a", SMALL), place("b", SMALL), place("c", SMALL)

    refused = await moved(source, destination, num=2)
    assert isinstance(refused.error, NotEnoughCopies)
    assert source.objects
    assert (await moved(source, destination, num=2, others=[other])).ok

    assert not source.objects


@pytest.mark.parametrize("level", [TrustLevel.UNTRUSTED, TrustLevel.DEAD])
async def test_a_move_to_a_repository_whose_copies_do_not_count_is_refused(level: TrustLevel) -> None:
    source, destination = place("a", SMALL), place("b")

    result = await moved(source, destination, trust={destination.uuid: level})

    assert isinstance(result.error, NotEnoughCopies)
    assert source.objects


async def test_a_move_from_a_cluster_needs_copies_outside_of_it() -> None:
    one, two, destination = place("one", SMALL), place("two", SMALL), place("b")

    refused = await moved(Cluster([one, two]), destination, num=2)
    assert isinstance(refused.error, NotEnoughCopies)
    allowed = await moved(Cluster([one, two]), destination, num=1)

    assert allowed.ok
    assert not one.objects
    assert not two.objects


async def test_a_move_to_a_cluster_locks_the_nodes_that_got_it() -> None:
    source, one, two = place("a", SMALL), place("one"), place("two")

    result = await moved(source, Cluster([one, two]), num=3)

    assert result.ok
    assert not source.objects
    assert one.objects == two.objects != {}


async def test_a_bare_claim_to_have_it_deletes_nothing() -> None:
    """Fact sheet p2p-protocol, section 0, A and B: stock clients believe it and lose the only copy."""

    class Claims(MemoryRemote):
        @asynccontextmanager
        async def put(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            upload = _CutUpload(Cut("x", 0), _Nothing())  # type: ignore[arg-type]
            upload.already = frozenset({self.uuid})
            yield upload

    class _Nothing:
        already, offset, start, finish = None, 0, None, None

    source = place("a", SMALL)
    result = await moved(source, Claims(uuid("b")))

    assert isinstance(result.error, NotEnoughCopies)
    assert source.objects


async def test_when_the_transfer_fails_nobody_is_asked_to_remove_anything() -> None:
    source, destination = place("a", SMALL), Cut("b", 100)

    result = await moved(source, destination)

    assert isinstance(result.error, ConnectionLost)
    assert result.dropped is None
    assert source.objects


async def test_a_destination_that_lost_it_again_keeps_the_source() -> None:
    class Loses(MemoryRemote):
        @asynccontextmanager
        async def put(self, key: Key, **more: Any) -> AsyncIterator[Any]:
            async with super().put(key, **more) as upload:
                yield upload
            self.objects.clear()

    source = place("a", SMALL)
    result = await moved(source, Loses(uuid("b"), name="b"))

    assert isinstance(result.error, NotEnoughCopies)
    assert source.objects


# -- presence --


async def test_has_many_answers_in_order() -> None:
    contents = [b"%d" % number for number in range(2500)]
    remote = place("a", *contents[::2])

    assert await has_many(remote, map(key_of, contents)) == [number % 2 == 0 for number in range(2500)]
    assert await has_many(remote, []) == []


# -- reading --


async def test_a_key_reads_like_a_file() -> None:
    remote, key = place("a", LARGE), key_of(LARGE)

    async with open_key(remote, key) as reader:
        assert reader.size == len(LARGE)
        assert await reader.read(10) == LARGE[:10]
        assert await reader.read(300_000) == LARGE[10:300_010]
        assert reader.tell() == 300_010
        reader.seek(5)
        assert await reader.read(5) == LARGE[5:10]
        reader.seek(-7, os.SEEK_END)
        assert await reader.read() == LARGE[-7:]
        assert await reader.read(1) == b""
        reader.seek(1_000, os.SEEK_CUR)
        assert await reader.read() == b""
        reader.seek(0)
        assert await reader.read() == LARGE
        with pytest.raises(InvalidInput):
            reader.seek(-1)


async def test_reading_on_costs_one_get_and_a_jump_another() -> None:
    class Counts(MemoryRemote):
        gets: list[int]

        def get(self, key: Key, **more: Any) -> Any:
            self.gets.append(more["offset"])
            return super().get(key, **more)

    remote = Counts(uuid("a"), objects={key_of(LARGE): LARGE})
    remote.gets = []

    async with open_key(remote, key_of(LARGE)) as reader:
        for _ in range(10):
            await reader.read(1000)
        reader.seek(1000, os.SEEK_CUR)
        assert await reader.read(1) == LARGE[11_000:11_001]
        reader.seek(2_000_000)
        assert await reader.read(1) == LARGE[2_000_000:2_000_001]

    assert remote.gets == [0, 2_000_000]


async def test_reading_what_is_not_there_or_breaks_off() -> None:
    key = key_of(SMALL)
    async with open_key(place("a"), key) as reader:
        with pytest.raises(KeyNotPresent):
            await reader.read(1)
    cut = Cut("b", 100, objects={key: SMALL})
    async with open_key(cut, key) as reader:
        with pytest.raises(ConnectionLost):
            await reader.read()
        assert reader.tell() == 100
        cut.left = len(SMALL)
        assert await reader.read() == SMALL[100:]


async def test_a_key_without_size_learns_it_from_the_first_read() -> None:
    key = Key.parse(b"URL--x")
    async with open_key(MemoryRemote(uuid("a"), objects={key: SMALL}), key) as reader:
        assert reader.size is None
        await reader.read(1)
        assert reader.size == len(SMALL)
        assert await reader.read() == SMALL[1:]


async def test_what_the_holder_of_a_reader_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with open_key(place("a", SMALL), key_of(SMALL)) as reader:
            await reader.read(1)
            raise ZeroDivisionError


async def test_two_readers_do_not_disturb_each_other() -> None:
    remote, key = place("a", LARGE), key_of(LARGE)
    async with open_key(remote, key) as one, open_key(remote, key) as two:
        for _ in range(5):
            assert await one.read(400_000) == await two.read(400_000)


# -- cancelled at every await --


class Waits(MemoryRemote):
    """Every step of a transfer is an await at which it can be cancelled."""

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Any]:
        await checkpoint()
        async with super().put(key) as upload:
            yield _WaitingUpload(upload)

    @asynccontextmanager
    async def get(self, key: Key, **more: Any) -> AsyncIterator[Any]:
        await checkpoint()
        async with super().get(key, **more) as download:
            yield _WaitingDownload(download)


class _WaitingUpload:
    def __init__(self, upload: Any) -> None:
        self._upload, self.already, self.offset = upload, upload.already, upload.offset

    async def start(self, length: int) -> None:
        await checkpoint()
        await self._upload.start(length)

    async def write(self, data: bytes) -> None:
        await checkpoint()
        await self._upload.write(data)

    async def finish(self, valid: bool = True) -> Stored:
        await checkpoint()
        stored: Stored = await self._upload.finish(valid)
        await checkpoint()
        return stored


class _WaitingDownload:
    def __init__(self, download: Any) -> None:
        self._download, self.length, self.source, self.valid = download, download.length, download.source, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._download:
            for start in range(0, len(chunk), 1000):
                await checkpoint()
                yield chunk[start : start + 1000]


@contextmanager
def cancelled_at(nth: int) -> Iterator[anyio.CancelScope]:
    import sys

    scope, left, original, module = anyio.CancelScope(), [nth], checkpoint, sys.modules[__name__]

    async def counted() -> None:
        if left[0] == 0:
            scope.cancel()
        left[0] -= 1
        await original()

    module.checkpoint = counted  # type: ignore[attr-defined]
    try:
        with scope:
            yield scope
    finally:
        module.checkpoint = original  # type: ignore[attr-defined]


async def do(what: str, key: Key, source: MemoryRemote, destination: MemoryRemote, folder: Path) -> None:
    match what:
        case "put":
            await put(destination, key, SMALL)
        case "get":
            await get(source, key, folder / "f")
        case "copy":
            assert [r.ok async for r in copy(source, destination, [key])] == [True]
        case "move":
            assert [r.ok async for r in move(source, destination, [key], copies=Copies())] == [True]


@pytest.mark.parametrize("what", ["put", "get", "copy", "move"])
async def test_whatever_is_cancelled_can_be_resumed_and_leaves_nothing_open(what: str, tmp_path: Path) -> None:
    key = key_of(SMALL)
    for nth in range(100):
        source = Waits(uuid("a"), objects={key: SMALL})
        destination = Waits(uuid("b"))
        folder = tmp_path / str(nth)
        folder.mkdir()
        open_before = len(os.listdir("/proc/self/fd"))

        once = partial(do, what, key, source, destination, folder)

        with cancelled_at(nth) as scope:
            await once()

        assert len(os.listdir("/proc/self/fd")) == open_before
        assert not destination._receiving
        assert not destination._locks
        assert source.objects or destination.objects
        if what != "move" or source.objects:
            await once()
        assert (folder / "f").read_bytes() == SMALL if what == "get" else destination.objects[key] == SMALL
        if not scope.cancelled_caught:
            assert nth > 4
            return
    pytest.fail("it never ended")


async def test_nothing_counts_a_cluster_as_the_place_of_a_copy() -> None:
    """A gateway that says yes for a whole cluster does not say who has it."""

    class Gateway(MemoryRemote):
        async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
            raise AssertionError("this answer is of no use")

    gateway = Gateway(new_cluster_uuid("12345678-1234-4234-9234-123456789012"))
    contents = [b"%d" % number for number in range(10)]

    assert all([r.ok async for r in copy(place("a", *contents), gateway, [key_of(c) for c in contents])])
