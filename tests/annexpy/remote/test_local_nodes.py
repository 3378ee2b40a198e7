"""A cluster of repositories on this machine: the same whether anything is synced or not."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from faulty_remote import Faulty

from annexpy.clock import Deadline
from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    NodesFailed,
    NoSpace,
    TransferInProgress,
    VerificationFailed,
    WrongPartial,
)
from annexpy.keys.backend import Verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.files import DiskFiles
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
CONTENT = Random(1).randbytes(60)
KEY = Key(b"SHA256", hashlib.sha256(CONTENT).hexdigest().encode(), len(CONTENT))


@pytest.fixture(params=["fast", "full"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Local]]:
    with ExitStack() as stack:
        made = []
        for uuid in (A, B, C):
            path = tmp_path / f"{uuid[0]}.git"
            Repository.init(path, bare=True, uuid=uuid).close()
            repository = stack.enter_context(Repository.open(path))
            made.append(Local(repository, durability=request.param, client=UUID("gateway")))
        yield made


def partial(node: Local) -> Path:
    return Path(os.fsdecode(node.repository.git_dir)) / "annex/tmp" / str(KEY)


def begun(node: Local, content: bytes) -> None:
    partial(node).parent.mkdir(parents=True, exist_ok=True)
    partial(node).write_bytes(content)


def arrived(node: Local) -> bytes:
    return partial(node).read_bytes() if partial(node).exists() else b""


def locked(node: Local) -> list[str]:
    """What is left of transfer locks."""
    folder = Path(os.fsdecode(node.repository.git_dir)) / "annex/transfer"
    return [name for _, _, names in os.walk(folder) for name in names]


async def store(remote: Remote, content: bytes = CONTENT, *, valid: bool = True) -> Stored:
    async with remote.put(KEY) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(len(content) - upload.offset)
        for at in range(upload.offset, len(content), 7):
            await upload.write(content[at : at + 7])
        return await upload.finish(valid)


async def test_what_is_stored_is_there_and_recorded_at_each_node(nodes: list[Local]) -> None:
    assert await store(Cluster(nodes)) == Stored(uuids=frozenset({A, B, C}))

    for node in nodes:
        assert await node.check_present(KEY)
        assert node.uuid in node.repository.branch.locations(KEY).present
        assert not locked(node)


async def test_a_node_that_has_it_is_named_and_gets_nothing(nodes: list[Local]) -> None:
    await store(nodes[1])

    assert await store(Cluster(nodes)) == Stored(uuids=frozenset({A, C}), already=frozenset({B}))
    assert await store(Cluster(nodes)) == Stored(already=frozenset({A, B, C}))


@pytest.mark.parametrize("starts", [(0, 20, 40), (40, 0, 20), (20, 40, 20)])
async def test_each_node_goes_on_from_what_it_has(nodes: list[Local], starts: tuple[int, ...]) -> None:
    for node, start in zip(nodes, starts, strict=True):
        begun(node, CONTENT[:start])

    async with Cluster(nodes).put(KEY) as upload:
        assert upload.offset == min(starts)
    assert await store(Cluster(nodes)) == Stored(uuids=frozenset({A, B, C}))


async def test_a_partial_longer_than_the_key_is_given_up(nodes: list[Local]) -> None:
    begun(nodes[0], CONTENT + b"more")

    assert await store(Cluster(nodes)) == Stored(uuids=frozenset({A, B, C}))


@pytest.mark.parametrize("cut", range(0, 60, 9))
async def test_a_source_that_goes_away_leaves_partials(nodes: list[Local], cut: int) -> None:
    begun(nodes[1], CONTENT[:33])

    with pytest.raises(ConnectionLost):  # noqa: PT012
        async with Cluster(nodes).put(KEY) as upload:
            await upload.start(60)
            await upload.write(CONTENT[:cut])
            raise ConnectionLost("client", "content")

    assert [arrived(node) for node in nodes] == [CONTENT[:cut], CONTENT[: max(33, cut)], CONTENT[:cut]]
    assert not any(map(locked, nodes))
    assert await store(Cluster(nodes)) == Stored(uuids=frozenset({A, B, C}))


@pytest.mark.parametrize(
    ("content", "valid", "error"),
    [
        (b"x" + CONTENT[1:], True, VerificationFailed),
        (b"x" + CONTENT[1:], False, VerificationFailed),
        (CONTENT[:-1], True, IncompleteTransfer),
        (b"", False, ContentChanged),
    ],
)
async def test_what_is_not_the_content_is_stored_nowhere(
    nodes: list[Local], content: bytes, valid: bool, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store(Cluster(nodes), content, valid=valid)

    for node in nodes:
        assert not await node.check_present(KEY)
        assert not node.repository.branch.locations(KEY).present
        assert not arrived(node)
        assert not locked(node)


async def test_more_than_the_key_has_is_refused_before_it_comes(nodes: list[Local]) -> None:
    async with Cluster(nodes).put(KEY) as upload:
        with pytest.raises(InvalidInput):
            await upload.start(61)


async def test_a_node_that_receives_it_already_costs_the_others_nothing(nodes: list[Local]) -> None:
    async with nodes[0].put(KEY):
        stored = await store(Cluster(nodes))

    assert stored.uuids == {B, C}
    assert isinstance(stored.failed[A], TransferInProgress)


async def test_a_full_node_costs_the_others_nothing(tmp_path: Path, nodes: list[Local]) -> None:
    path = os.fsdecode(nodes[2].repository.git_dir)
    with open(f"{path}/config", "a") as config:
        config.write("[annex]\n\tdiskreserve = 1000 petabytes\n")
    with Repository.open(path) as repository:
        durability = nodes[2].store.settings.durability
        full = Local(repository, durability=durability)
        stored = await store(Cluster([*nodes[:2], full]))
        await full.aclose()

    assert stored.uuids == {A, B}
    assert isinstance(stored.failed[C], NoSpace)


async def test_a_node_elsewhere_that_breaks_off_costs_those_here_nothing(nodes: list[Local]) -> None:
    for at in ("put", "start", "write", "finish", "leave"):
        far: Remote = Faulty(MemoryRemote(UUID("far")), at)
        stored = await store(Cluster([*nodes, far]))

        assert stored.uuids >= {A, B, C}
        for node in nodes:
            assert (await node.remove_content(KEY)).ok


async def test_content_that_is_said_to_be_there_is_looked_at(nodes: list[Local]) -> None:
    begun(nodes[0], CONTENT)
    async with nodes[0].put(KEY) as upload:
        await upload.start(0)
        await upload.finish()

    async with Cluster(nodes[1:]).put(KEY) as upload:
        with pytest.raises((NodesFailed, KeyNotPresent)):
            await upload.data_present()


async def test_what_is_left_for_later_ends_with_a_removal(nodes: list[Local]) -> None:
    far: Remote = Faulty(MemoryRemote(UUID("far")), "finish", None)
    async with Cluster([*nodes, far], min_copies=2, hedge=0.01) as cluster:
        stored = await store(cluster)
        assert len(stored.uuids & {A, B, C}) >= 2

        for removed in await cluster.remove_content_many([KEY]):
            assert removed.uuids >= {A, B, C}
    for node in nodes:
        assert not await node.check_present(KEY)


# -- removals -------------------------------------------------------------------------------------


async def test_who_no_longer_has_it_is_named_and_recorded_when_one_has_it_locked(nodes: list[Local]) -> None:
    far = MemoryRemote(UUID("far"))
    cluster = Cluster([*nodes, far])
    await store(cluster)

    async with nodes[1].lock_content(KEY):
        removed = await cluster.remove_content(KEY)
    assert (removed.ok, removed.uuids) == (False, {A, C, far.uuid})
    assert isinstance(removed.failed[B], ContentLocked)
    assert [uuid for node in nodes for uuid in node.repository.branch.locations(KEY).present] == [B]

    (removed,) = await cluster.remove_content_many([KEY])
    assert (removed.ok, removed.uuids) == (True, {A, B, C, far.uuid})


async def test_nothing_is_removed_after_its_deadline(nodes: list[Local]) -> None:
    cluster = Cluster(nodes)
    await store(cluster)

    removed = await cluster.remove_content(KEY, deadline=Deadline(nodes[0].repository.clock.now() - 1))

    assert (removed.ok, removed.uuids) == (False, frozenset())
    assert all([await node.check_present(KEY) for node in nodes])


# -- gets -----------------------------------------------------------------------------------------


async def read(remote: Remote, offset: int = 0, end: int | None = None) -> tuple[bytes, UUID, bool]:
    async with remote.get(KEY, offset=offset, end=end) as download:
        content = b"".join([chunk async for chunk in download])
        assert len(content) == download.length
        return content, download.source, download.valid


async def test_equal_nodes_are_read_in_turn(nodes: list[Local]) -> None:
    cluster = Cluster(nodes)
    await store(cluster)

    assert [(await read(cluster))[1] for _ in range(6)] == [A, B, C, A, B, C]


async def test_any_part_can_be_read_from_the_one_that_has_it(nodes: list[Local]) -> None:
    await store(nodes[2])
    cluster = Cluster(nodes)

    for offset, end in ((0, None), (13, None), (13, 20), (20, 13), (0, 99), (60, None), (99, None)):
        assert await read(cluster, offset, end) == (CONTENT[offset:end], C, True)


async def test_absent_content_is_absent_when_every_node_says_so(nodes: list[Local]) -> None:
    with pytest.raises(KeyNotPresent):
        await read(Cluster(nodes))


async def test_a_node_whose_object_was_cut_does_not_spoil_what_another_has(nodes: list[Local]) -> None:
    cluster = Cluster(nodes)
    await store(cluster)
    path = nodes[0].store.path(KEY)
    assert path is not None
    cut = Path(os.fsdecode(nodes[0].repository.git_dir + b"/" + path))
    cut.chmod(0o644)
    cut.write_bytes(CONTENT[:30])

    for _ in range(4):
        assert (await read(cluster))[0] == CONTENT


async def test_what_is_only_elsewhere_comes_from_there(nodes: list[Local]) -> None:
    far = MemoryRemote(UUID("far"))
    await store(far)

    assert await read(Cluster([*nodes, far])) == (CONTENT, UUID("far"), True)


# -- large contents -------------------------------------------------------------------------------

LARGE = Random(2).randbytes(3_000_000)
LARGE_KEY = Key(b"SHA256", hashlib.sha256(LARGE).hexdigest().encode(), len(LARGE))


async def store_large(remote: Remote, content: bytes = LARGE) -> Stored:
    async with remote.put(LARGE_KEY) as upload:
        await upload.start(len(content) - upload.offset)
        for at in range(upload.offset, len(content), 100_000):
            await upload.write(content[at : at + 100_000])
        return await upload.finish()


async def test_what_goes_to_several_nodes_is_hashed_once(nodes: list[Local], monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    update = Verifier.update

    def counted(self: Verifier, data: bytes) -> None:
        hashed.append(len(data))
        update(self, data)

    monkeypatch.setattr(Verifier, "update", counted)
    assert (await store_large(Cluster(nodes))).uuids == {A, B, C}

    assert sum(hashed) == len(LARGE)
    monkeypatch.undo()
    for node in nodes:
        assert node.store.verified(LARGE_KEY)


async def test_large_content_that_is_wrong_is_stored_nowhere(nodes: list[Local]) -> None:
    with pytest.raises(VerificationFailed):
        await store_large(Cluster(nodes), LARGE[:-1] + b"x")
    for node in nodes:
        assert not await node.check_present(LARGE_KEY)


async def test_a_node_that_goes_on_from_a_wrong_part_is_found_out_alone(nodes: list[Local]) -> None:
    for node, start in zip(nodes, (b"wrong" * 1000, b"", LARGE[:70_000]), strict=True):
        path = partial(node).with_name(str(LARGE_KEY))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(start)

    stored = await store_large(Cluster(nodes))

    assert stored.uuids == {B, C}
    assert isinstance(stored.failed[A], WrongPartial)
    for node in nodes[1:]:
        assert node.store.verified(LARGE_KEY)


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_node_that_breaks_off_leaves_the_hash_to_the_others(nodes: list[Local], which: int) -> None:
    broken: list[Remote] = [*nodes]
    broken[which] = Faulty(nodes[which], "write", after=1_000_000)

    stored = await store_large(Cluster(broken))

    assert stored.uuids == {A, B, C} - {nodes[which].uuid}
    assert (await store_large(nodes[which])).uuids == {nodes[which].uuid}


async def test_a_node_may_hash_what_it_had_before_it_goes_on(
    nodes: list[Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(32 << 20) + Random(2).randbytes(1 << 20) * 40
    key = Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content))
    there = partial(nodes[0]).with_name(str(key))
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(content[: 32 << 20])
    read = DiskFiles.pread

    def slowly(files: DiskFiles, fd: int, size: int, offset: int) -> bytes:
        time.sleep(size / (20 << 20))
        return read(files, fd, size, offset)

    monkeypatch.setattr(DiskFiles, "pread", slowly)

    async with Cluster(nodes[:1], deadline=0.5).put(key) as upload:
        assert upload.offset == 32 << 20
        await upload.start(40 << 20)
        for at in range(32 << 20, 72 << 20, 1 << 20):
            await upload.write(content[at : at + (1 << 20)])
        stored = await upload.finish()

    assert stored.uuids == {A}
