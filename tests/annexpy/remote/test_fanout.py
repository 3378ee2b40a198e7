"""A put into several nodes: each gets exactly the content, and the result is exactly what happened."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import product
from random import Random
from typing import Any

import anyio
import pytest
from faulty_remote import Cancelled, Faulty
from hypothesis import given
from hypothesis import strategies as st

from annexpy.actions.put import put, put_many
from annexpy.errors import (
    AccessDenied,
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    LocalProtocolError,
    NodesFailed,
    NoSpace,
    PeerError,
    RemoteProtocolError,
    TimedOut,
    VerificationFailed,
    WrongPartial,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored, Upload
from annexpy.remote.cluster import Cluster
from annexpy.remote.fanout import WINDOW
from annexpy.remote.memory import MemoryRemote
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio

A, B, C = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc")
CLUSTER = new_cluster_uuid("01234567-0123-4123-8123-0123456789ab")


def content_of(size: int, seed: int = 7) -> bytes:
    return Random(seed).randbytes(size)


def sha256_key(content: bytes) -> Key:
    return Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content))


SMALL = content_of(1000)
LARGE = content_of(3 * CHUNK + 77)
SMALL_KEY, LARGE_KEY = sha256_key(SMALL), sha256_key(LARGE)
WORM = Key(b"WORM", b"it", len(SMALL), mtime=1)
URL = Key(b"URL", b"http://example.org/it")


def three() -> list[MemoryRemote]:
    return [MemoryRemote(uuid, name=f"node {uuid[0]}") for uuid in (A, B, C)]


def cluster(nodes: Sequence[Remote], **options: Any) -> Cluster:
    return Cluster(nodes, uuid=CLUSTER, **options)


async def store(remote: Remote, key: Key, content: bytes, *, step: int = 100_000, valid: bool = True) -> Stored:
    """What a source does: sends from the offset that it is told."""
    async with remote.put(key) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        wanted = content[upload.offset :]
        await upload.start(len(wanted))
        for start in range(0, len(wanted), step):
            await upload.write(wanted[start : start + step])
        return await upload.finish(valid)


def at_rest(*nodes: MemoryRemote) -> bool:
    return not any(node._receiving or node._locks for node in nodes)


# -- where each node stands ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 10, CHUNK, 2 * CHUNK + 10])
async def test_nodes_at_any_three_offsets_all_end_bit_identical(size: int) -> None:
    content = content_of(size)
    key = sha256_key(content)
    offsets = sorted({o for o in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, size - 1, size, size + 7) if 0 <= o <= size + 7})
    for starts in product(offsets, repeat=3):
        nodes = three()
        for node, start in zip(nodes, starts, strict=True):
            if start:
                node.partials[key] = bytearray((content + b"too much"[:7])[:start])

        async with cluster(nodes).put(key) as upload:
            # a partial longer than the key is given up before the source is told where to begin
            assert upload.offset == min(0 if start > size else start for start in starts)
            await upload.start(size - upload.offset)
            await upload.write(content[upload.offset :])
            stored = await upload.finish()

        assert stored == Stored(uuids=frozenset({A, B, C})), starts
        assert all(node.objects == {key: content} and not node.partials and at_rest(node) for node in nodes), starts


@pytest.mark.parametrize("step", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK])
async def test_the_steps_of_the_source_do_not_matter(step: int) -> None:
    content = LARGE[: 5000 if step < 10 else None]
    key = sha256_key(content)
    nodes = three()
    nodes[1].partials[key] = bytearray(content[:4321])
    assert (await store(cluster(nodes), key, content, step=step)).uuids == {A, B, C}
    assert all(node.objects[key] == content for node in nodes)


async def test_nodes_that_have_it_are_counted_and_not_sent_to() -> None:
    nodes = three()
    nodes[1].objects[SMALL_KEY] = SMALL
    second = Faulty(nodes[1])
    stored = await store(cluster([nodes[0], second, nodes[2]]), SMALL_KEY, SMALL)
    assert stored == Stored(uuids=frozenset({A, C}), already=frozenset({B}))
    assert not second.calls["start"]


async def test_when_everybody_has_it_nothing_is_asked_for() -> None:
    nodes = three()
    for node in nodes:
        node.objects[SMALL_KEY] = SMALL
    async with cluster(nodes).put(SMALL_KEY) as upload:
        assert upload.already == {A, B, C}
        with pytest.raises(LocalProtocolError):
            await upload.start(0)


async def test_what_some_have_and_the_others_cannot_take_is_already_there() -> None:
    nodes = three()
    nodes[0].objects[SMALL_KEY] = SMALL
    dead = [Faulty(node, "put", lambda: ConnectFailed("there", "refused")) for node in nodes[1:]]
    async with cluster([nodes[0], *dead]).put(SMALL_KEY) as upload:
        assert upload.already == {A}
        assert set(upload.failed) == {B, C}  # type: ignore[attr-defined]


class Claims:
    """Says that it has everything, and names nobody."""

    def __init__(self, remote: MemoryRemote, uuids: frozenset[UUID]) -> None:
        self.remote, self.uuids = remote, uuids

    def __getattr__(self, name: str) -> Any:
        return getattr(self.remote, name)

    def put(self, key: Key, *, associated_file: str = "") -> Any:
        class Claim:
            already = self.uuids

            async def __aenter__(self) -> Claim:
                return self

            async def __aexit__(self, *_: object) -> None: ...

        return Claim()


@pytest.mark.parametrize("claim", [frozenset(), frozenset({CLUSTER})])
async def test_a_bare_claim_to_have_it_is_checked_and_never_believed(claim: frozenset[UUID]) -> None:
    nodes = three()
    liar = Claims(nodes[2], claim)
    stored = await store(cluster([nodes[0], nodes[1], liar]), SMALL_KEY, SMALL)  # type: ignore[list-item]
    assert stored.copies == {A, B}
    assert isinstance(stored.failed[C], RemoteProtocolError)

    nodes[2].objects[SMALL_KEY] = SMALL
    async with cluster([*nodes[:2], liar]).put(SMALL_KEY) as upload:  # type: ignore[list-item]
        assert upload.already == {A, B, C}


async def test_nobody_left_is_an_error_with_every_reason_and_never_already_there() -> None:
    nodes = three()
    reasons = (ConnectFailed("there", "refused"), AccessDenied("read-only"), TimedOut("c", "PUT", 5))
    out = [Faulty(node, "put", lambda why=why: why) for node, why in zip(nodes, reasons, strict=True)]
    with pytest.raises(NodesFailed) as caught:
        await store(cluster(out), SMALL_KEY, SMALL)
    assert caught.value.failed == dict(zip((A, B, C), reasons, strict=True))
    assert all(str(reason) in str(caught.value) for reason in reasons)


async def test_one_repository_by_two_paths_is_one_copy() -> None:
    nodes = three()
    stored = await store(cluster([nodes[0], nodes[0], nodes[1]]), SMALL_KEY, SMALL)
    assert stored == Stored(uuids=frozenset({A, B}))


async def test_a_cluster_without_nodes_stores_nothing_and_says_so() -> None:
    with pytest.raises(NodesFailed, match="it has no nodes"):
        await store(cluster([]), SMALL_KEY, SMALL)


# -- nodes that fail ----------------------------------------------------------------------------------

FAULTS: tuple[Callable[[], AnnexError], ...] = (
    lambda: ConnectionLost("node", "an answer"),
    lambda: NoSpace(SMALL_KEY, "node", 1000, 10),
    lambda: AccessDenied("this repository is read-only; write access denied"),
    lambda: PeerError("node", "no"),
    lambda: RemoteProtocolError("garbage"),
)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", ["put", "start", "write", "finish", "finished"])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("key", [SMALL_KEY, LARGE_KEY], ids=["small", "large"])
async def test_one_node_that_fails_anywhere_leaves_the_others_right(
    fault: Callable[[], AnnexError], at: str, which: int, key: Key
) -> None:
    content = SMALL if key is SMALL_KEY else LARGE
    nodes: list[Any] = three()
    error = fault()
    bad = nodes[which]
    nodes[which] = Faulty(bad, at, lambda: error)

    stored = await store(cluster(nodes), key, content)

    others = {A, B, C} - {bad.uuid}
    assert stored.uuids == others
    assert stored.failed == {bad.uuid: error}
    assert all(node.objects == {key: content} for node in nodes if node.uuid in others)
    assert nodes[which].inside == 0
    assert at_rest(bad)
    # Only the answer was lost: then it has it, which the next put finds out.
    assert (key in bad.objects) == (at == "finished")
    nodes[which] = bad
    assert (await store(cluster(nodes), key, content)).copies == {A, B, C}


async def test_success_stands_even_if_leaving_fails() -> None:
    nodes: list[Any] = three()
    nodes[0] = Faulty(nodes[0], "leave")
    assert (await store(cluster(nodes), SMALL_KEY, SMALL)) == Stored(uuids=frozenset({A, B, C}))


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_node_cut_at_every_byte_leaves_the_others_right_and_resumes(which: int) -> None:
    content = SMALL[:60]
    key = sha256_key(content)
    for starts in ((0, 0, 0), (0, 20, 40), (40, 0, 20), (20, 40, 0)):
        for cut in range(61 - starts[which]):
            nodes: list[Any] = three()
            for node, start in zip(nodes, starts, strict=True):
                if start:
                    node.partials[key] = bytearray(content[:start])
            bad = nodes[which]
            nodes[which] = Faulty(bad, "write", after=cut, times=1)
            stored = await store(cluster(nodes), key, content, step=7)
            assert stored.uuids == {A, B, C} - {bad.uuid}
            assert list(stored.failed) == [bad.uuid]
            assert bytes(bad.partials.get(key, b"")) == content[: starts[which] + cut]

            async with cluster(nodes).put(key) as upload:
                assert upload.offset == starts[which] + cut
                await upload.start(60 - upload.offset)
                await upload.write(content[upload.offset :])
                stored = await upload.finish()
            assert stored == Stored(uuids=frozenset({bad.uuid}), already=frozenset({A, B, C} - {bad.uuid}))
            assert bad.objects == {key: content}


async def test_a_source_cut_at_every_byte_leaves_partials_that_resume() -> None:
    content = SMALL[:60]
    key = sha256_key(content)
    for cut in range(61):
        nodes = three()
        nodes[1].partials[key] = bytearray(content[:33])
        with pytest.raises(ConnectionLost):  # noqa: PT012
            async with cluster(nodes).put(key) as upload:
                await upload.start(60)
                await upload.write(content[:cut])
                raise ConnectionLost("client", "content")
        assert [len(node.partials.get(key, b"")) for node in nodes] == [cut, max(33, cut), cut]
        assert at_rest(*nodes)

        assert (await store(cluster(nodes), key, content)).uuids == {A, B, C}


async def test_when_all_are_out_writing_says_so_early() -> None:
    nodes = [Faulty(node, "write") for node in three()]
    async with cluster(nodes).put(LARGE_KEY) as upload:
        await upload.start(len(LARGE))
        with pytest.raises(NodesFailed) as caught:  # noqa: PT012
            for start in range(0, len(LARGE), CHUNK):
                await upload.write(LARGE[start : start + CHUNK])
                await anyio.lowlevel.checkpoint()
    assert set(caught.value.failed) == {A, B, C}


async def test_2000_random_faults_of_a_fan_out_resume_to_identical_bytes() -> None:
    random = Random(20260701)
    content = content_of(CHUNK + 12_345)
    key = sha256_key(content)
    size = len(content)
    cuts = 0
    while cuts < 2000:
        nodes = three()
        while True:
            faulty: list[Any] = list(nodes)
            clean = random.random() < 0.3
            for number in random.sample(range(3), 0 if clean else random.randint(1, 3)):
                at = random.choice(("put", "start", "write", "write", "write", "finish", "finished", "leave"))
                fault = random.choice(FAULTS)
                faulty[number] = Faulty(nodes[number], at, fault, after=random.randrange(size + 1))
                cuts += 1
            client_cut = random.randrange(size) if not clean and random.random() < 0.3 else None
            cuts += client_cut is not None
            before = {node.uuid for node in nodes if key in node.objects}
            try:
                async with cluster(faulty).put(key) as upload:
                    if upload.already is not None:
                        stored = Stored(already=upload.already)
                    else:
                        wanted = content[upload.offset : client_cut]
                        await upload.start(size - upload.offset)
                        step = random.choice((1000, 50_000, CHUNK, size))
                        for start in range(0, len(wanted), step):
                            await upload.write(wanted[start : start + step])
                        if client_cut is not None:
                            raise ConnectionLost("client", "content")
                        stored = await upload.finish()
            except (NodesFailed, ConnectionLost):
                stored = Stored()
            # Exactly who has it, and never somebody who has not.
            assert all(node.objects[key] == content for node in nodes if node.uuid in stored.copies)
            assert stored.already <= before
            assert not stored.uuids & before
            assert not set(stored.failed) & stored.copies
            if stored.copies:
                assert stored.copies | set(stored.failed) == {A, B, C} or stored.already == stored.copies
            assert at_rest(*nodes)
            for node in nodes:
                assert content.startswith(bytes(node.partials.get(key, b"")))
            if clean:
                break
        assert stored.copies == {A, B, C}


# -- the end of the source -----------------------------------------------------------------------------


async def test_wrong_content_is_the_fault_of_the_source() -> None:
    nodes = three()
    with pytest.raises(VerificationFailed) as caught:
        await store(cluster(nodes), SMALL_KEY, b"x" * len(SMALL))
    assert isinstance(caught.value.__cause__, NodesFailed)
    assert set(caught.value.__cause__.failed) == {A, B, C}
    assert not any(node.objects or node.partials for node in nodes)


@pytest.mark.parametrize("size", [10, 999, 1000])
async def test_a_wrong_partial_is_the_fault_of_its_node_alone_and_gone_at_the_next_attempt(size: int) -> None:
    nodes = three()
    nodes[1].partials[SMALL_KEY] = bytearray(b"x" * size)
    first = await store(cluster(nodes), SMALL_KEY, SMALL)
    assert first.uuids == {A, C}
    assert isinstance(first.failed[B], WrongPartial)
    second = await store(cluster(nodes), SMALL_KEY, SMALL)
    assert (second.uuids, second.already, second.failed) == ({B}, {A, C}, {})
    assert first.then(second) == Stored(uuids=frozenset((A, B, C)))


@pytest.mark.parametrize("had", [False, True])
async def test_putting_into_several_is_tried_again_for_those_with_a_wrong_partial(had: bool) -> None:
    nodes = three()
    if had:
        nodes[0].objects[SMALL_KEY] = SMALL
    for node in nodes[1:]:
        node.partials[SMALL_KEY] = bytearray(b"x" * 10)
    counted = [Faulty(node) for node in nodes]
    [result] = [result async for result in put_many(cluster(counted), [(SMALL_KEY, SMALL)])]
    assert result.stored == Stored(frozenset((B, C) if had else (A, B, C)), frozenset((A,) if had else ()))
    assert all(node.objects == {SMALL_KEY: SMALL} for node in nodes)
    assert [node.calls["finish"] for node in counted] == [0 if had else 1, 2, 2]
    assert result.bytes == len(SMALL) + (len(SMALL) - 10 if had else len(SMALL))


async def test_what_the_first_attempt_stored_stands_when_the_second_fails() -> None:
    class Once(Faulty):
        async def step(self, step: str) -> None:
            await super().step(step)
            if step == "put" and self.calls["put"] > 1:
                raise ConnectionLost("peer", "an answer")

    nodes = three()[:2]
    nodes[1].partials[SMALL_KEY] = bytearray(b"x" * 10)
    stored = await put(cluster([Once(node) for node in nodes]), SMALL_KEY, SMALL)
    assert stored.uuids == {A}
    assert isinstance(stored.failed[B], WrongPartial)


async def test_a_stream_that_can_be_read_once_is_not_sent_twice() -> None:
    async def once() -> AsyncIterator[bytes]:
        yield SMALL

    nodes = three()[:2]
    nodes[1].partials[SMALL_KEY] = bytearray(b"x" * 10)
    stored = await put(cluster(nodes), SMALL_KEY, once())
    assert stored.uuids == {A}
    assert isinstance(stored.failed[B], WrongPartial)


async def test_wrong_partials_alone_are_what_the_put_failed_of() -> None:
    nodes = three()
    for node in nodes:
        node.partials[SMALL_KEY] = bytearray(b"x" * 10)
    with pytest.raises(VerificationFailed):
        await store(cluster(nodes), SMALL_KEY, SMALL)
    assert not any(node.objects or node.partials for node in nodes)


async def test_a_node_that_refuses_the_whole_content_is_not_given_it_twice() -> None:
    nodes = three()
    refusing = Faulty(nodes[1], "finish", lambda: VerificationFailed(SMALL_KEY, "node b"))
    stored = await put(cluster([nodes[0], refusing, nodes[2]]), SMALL_KEY, SMALL)
    assert stored.uuids == {A, C}
    assert isinstance(stored.failed[B], VerificationFailed)
    assert refusing.calls["put"] == 1


async def test_content_that_changed_is_stored_only_where_a_hash_proves_it() -> None:
    nodes = three()
    assert (await store(cluster(nodes), SMALL_KEY, SMALL, valid=False)).uuids == {A, B, C}
    with pytest.raises(ContentChanged):
        await store(cluster(nodes), WORM, SMALL, valid=False)
    assert all(list(node.objects) == [SMALL_KEY] for node in nodes)


async def test_no_bytes_and_invalid_asks_for_the_offset_and_costs_no_partial() -> None:
    nodes = three()
    for node, size in zip(nodes, (5, 0, 9), strict=True):
        node.partials[WORM] = bytearray(SMALL[:size])
    for _ in range(2):
        async with cluster(nodes).put(WORM) as upload:
            assert upload.offset == 0
            await upload.start(0)
            with pytest.raises(ContentChanged):
                await upload.finish(valid=False)
    assert [len(node.partials[WORM]) for node in nodes] == [5, 0, 9]


async def test_a_partial_longer_than_content_of_unknown_size_is_not_taken_for_the_content() -> None:
    nodes = three()
    nodes[2].partials[URL] = bytearray(b"something longer than the content")
    stored = await store(cluster(nodes), URL, b"content")
    assert stored.uuids == {A, B}
    assert isinstance(stored.failed[C], IncompleteTransfer)
    assert URL not in nodes[2].objects


async def test_data_present_is_confirmed_by_each_node_for_itself() -> None:
    nodes = three()
    async with cluster(nodes).put(SMALL_KEY) as upload:
        nodes[0].objects[SMALL_KEY] = nodes[2].objects[SMALL_KEY] = SMALL
        stored = await upload.data_present()
    assert stored.uuids == {A, C}
    assert set(stored.failed) == {B}


async def test_steps_out_of_order_are_refused() -> None:
    async with cluster(three()).put(SMALL_KEY) as upload:
        with pytest.raises(LocalProtocolError):
            await upload.write(b"x")
        with pytest.raises(LocalProtocolError):
            await upload.finish()
        with pytest.raises(InvalidInput, match="length of content"):
            await upload.start(len(SMALL) + 1)
        await upload.start(len(SMALL))
        with pytest.raises(LocalProtocolError):
            await upload.start(len(SMALL))
        with pytest.raises(LocalProtocolError):
            await upload.write(SMALL + b"x")
        with pytest.raises(LocalProtocolError):
            await upload.data_present()
        await upload.write(SMALL)
        await upload.finish()
        with pytest.raises(LocalProtocolError):
            await upload.finish()


async def test_what_the_holder_raises_comes_out_as_it_is() -> None:
    nodes = three()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with cluster(nodes).put(SMALL_KEY) as upload:
            await upload.start(3)
            _ = 1 // 0
    assert at_rest(*nodes)


# -- memory, turns, nesting ------------------------------------------------------------------------------


class Slow:
    """Takes each write only when it is told to."""

    def __init__(self, remote: MemoryRemote) -> None:
        self.remote, self.go, self.bytes_written = remote, anyio.Event(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.remote, name)

    def put(self, key: Key, *, associated_file: str = "") -> Any:
        slow = self
        inner = self.remote.put(key)

        class SlowUpload:
            def __init__(self, upload: Upload) -> None:
                self.upload, self.already, self.offset = upload, upload.already, upload.offset
                self.start, self.finish = upload.start, upload.finish

            async def write(self, data: bytes) -> None:
                await slow.go.wait()
                slow.bytes_written += len(data)
                await self.upload.write(data)

        class Context:
            async def __aenter__(self) -> SlowUpload:
                return SlowUpload(await inner.__aenter__())

            async def __aexit__(self, *exc: Any) -> bool | None:
                return await inner.__aexit__(*exc)

        return Context()


async def test_a_slow_node_does_not_grow_memory() -> None:
    nodes = three()
    slow = Slow(nodes[2])
    content = bytes(3 * WINDOW)
    key = sha256_key(content)
    given = 0

    async def send(upload: Upload) -> None:
        nonlocal given
        for start in range(0, len(content), 100_000):
            await upload.write(content[start : start + 100_000])
            given += len(content[start : start + 100_000])

    async with cluster([nodes[0], nodes[1], slow]).put(key) as upload:  # type: ignore[list-item]
        await upload.start(len(content))
        async with anyio.create_task_group() as group:
            group.start_soon(send, upload)
            await anyio.wait_all_tasks_blocked()
            assert not slow.bytes_written
            assert WINDOW - CHUNK <= given <= WINDOW + 2 * CHUNK
            slow.go.set()
        stored = await upload.finish()
    assert stored.uuids == {A, B, C}
    assert nodes[2].objects[key] == content


async def test_nothing_is_kept_for_a_node_that_is_out() -> None:
    nodes: list[Any] = three()
    nodes[1] = Faulty(nodes[1], "write", after=CHUNK)
    async with cluster(nodes).put(LARGE_KEY) as upload:
        await upload.start(len(LARGE))
        await upload.write(LARGE)
        await anyio.wait_all_tasks_blocked()
        out = upload.lanes[1]  # type: ignore[attr-defined]
        assert out.error is not None
        assert not out.queue
        assert (await upload.finish()).uuids == {A, C}


async def test_puts_wait_for_their_turn() -> None:
    nodes = three()
    one = cluster(nodes, transfers=1)
    async with anyio.create_task_group() as group, one.put(SMALL_KEY) as upload:
        group.start_soon(store, one, LARGE_KEY, LARGE)
        await anyio.wait_all_tasks_blocked()
        assert not any(node._receiving - {SMALL_KEY} for node in nodes)
        await upload.start(len(SMALL))
        await upload.write(SMALL)
        await upload.finish()
    assert all(len(node.objects) == 2 for node in nodes)


async def test_a_cluster_in_a_cluster_is_just_a_node() -> None:
    nodes = three()
    nodes[0].partials[SMALL_KEY] = bytearray(SMALL[:7])
    nodes[1].partials[SMALL_KEY] = bytearray(SMALL[:2])
    inner = Cluster([nodes[1], Faulty(nodes[2], "write", after=3)], name="inner")
    stored = await store(cluster([nodes[0], inner]), SMALL_KEY, SMALL, step=10)
    assert stored.uuids == {A, B}
    assert list(stored.failed) == [C]
    assert nodes[0].objects == nodes[1].objects == {SMALL_KEY: SMALL}

    # All of the inner one out: its nodes are named, not itself.
    dead = Cluster([Faulty(node, "put") for node in nodes[1:]], name="inner")
    nodes[0].objects.clear()
    stored = await store(cluster([nodes[0], dead]), SMALL_KEY, SMALL)
    assert stored.uuids == {A}
    assert set(stored.failed) == {B, C}


async def test_no_cluster_uuid_is_ever_in_a_result() -> None:
    class Boasts(MemoryRemote):
        def put(self, key: Key, *, associated_file: str = "") -> Any:
            inner = super().put(key)
            uuid = self.uuid

            class Context:
                async def __aenter__(self) -> Any:
                    upload = await inner.__aenter__()
                    if upload.already is not None:
                        upload.already |= {CLUSTER}
                    finish = upload.finish

                    class Wrapped:
                        already, offset, start, write = upload.already, upload.offset, upload.start, upload.write

                        async def finish(self, valid: bool = True) -> Stored:
                            await finish(valid)
                            return Stored(uuids=frozenset({CLUSTER, uuid}))

                    return Wrapped()

                async def __aexit__(self, *exc: Any) -> bool | None:
                    return await inner.__aexit__(*exc)

            return Context()

    node = Boasts(A)
    assert await store(Cluster([node]), SMALL_KEY, SMALL) == Stored(uuids=frozenset({A}))
    assert await store(Cluster([node]), SMALL_KEY, SMALL) == Stored(already=frozenset({A}))


# -- cancellation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [SMALL_KEY, LARGE_KEY], ids=["small", "large"])
async def test_cancelled_at_any_step_of_any_node_nothing_leaks(key: Key) -> None:
    content = SMALL if key is SMALL_KEY else LARGE
    for stop in range(1, 1000):
        nodes = three()
        at_stop = Cancelled(stop)
        faulty = [Faulty(node, watch=at_stop.watch) for node in nodes]
        whole = cluster(faulty)
        done = False
        with at_stop.scope:
            await store(whole, key, content)
            done = True
        assert all(node.inside == 0 for node in faulty)
        assert at_rest(*nodes)
        assert all(node.busy == 0 for node in whole._nodes)
        assert all(content.startswith(bytes(node.partials.get(key, b""))) for node in nodes)
        if at_stop.over:
            assert done
            break
        assert (await store(cluster(nodes), key, content)).copies == {A, B, C}
    assert stop > 12


# -- a model: whatever happens, the result is what the nodes hold ------------------------------------------


@given(
    size=st.integers(0, 40),
    starts=st.lists(st.integers(0, 50), min_size=3, max_size=3),
    have=st.sets(st.integers(0, 2)),
    fault=st.lists(
        st.tuples(st.sampled_from(["", "", "put", "start", "write", "finish", "finished"]), st.integers(0, 40)),
        min_size=3,
        max_size=3,
    ),
    step=st.integers(1, 41),
)
def test_the_result_is_what_the_nodes_hold(
    size: int,
    starts: list[int],
    have: set[int],
    fault: list[tuple[str, int]],
    step: int,
) -> None:
    content = content_of(size, seed=size)
    key = sha256_key(content)
    nodes = three()
    for number, (node, start) in enumerate(zip(nodes, starts, strict=True)):
        if number in have:
            node.objects[key] = content
        elif start:
            node.partials[key] = bytearray((content + bytes(60))[:start])
    faulty = [Faulty(node, at, after=after) for node, (at, after) in zip(nodes, fault, strict=True)]

    async def run() -> Stored:
        try:
            return await store(cluster(faulty), key, content, step=step)
        except NodesFailed as error:
            return Stored(failed={UUID(uuid): why for uuid, why in error.failed.items()})

    stored = anyio.run(run)

    had = {nodes[number].uuid for number in have}
    for node, (at, _) in zip(nodes, fault, strict=True):
        holds = node.objects.get(key) == content
        if node.uuid in stored.copies:
            assert holds
        if not at or (at in ("write", "start", "finish", "finished") and node.uuid in had):
            assert node.uuid in stored.copies
    assert stored.already <= had
    assert at_rest(*nodes)
