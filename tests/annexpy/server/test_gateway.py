"""A gateway: what can be asked for, nodes of every kind, changes of the configuration, and several processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from places import OURS, Place, content_of, key_of, read, served, store

from annexpy.actions import cluster as clusters
from annexpy.errors import AccessDenied, ConnectionLost, KeyNotPresent, NotLocked, UnknownUUID
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import Log
from annexpy.remote.base import Remote
from annexpy.remote.p2p import P2PRemote
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.limits import ServerMode
from annexpy.server.serve import serve
from annexpy.system import CLOCK
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

CONTENT = content_of(1)
KEY = key_of(CONTENT)


class Turned:
    """A clock that can be turned on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return CLOCK.now() + self.ahead

    def booted(self) -> float:
        return CLOCK.booted()

    def wall(self) -> float:
        return CLOCK.wall()


class World:
    """A gateway and its nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Turned()
        self.gateway = Place.make(folder / "g")
        self.nodes: dict[str, Place] = {}

    def node(self, name: str, *, url: str = "", cluster: str = "safe", proxied: bool = False) -> Place:
        place = self.nodes.get(name) or self.nodes.setdefault(name, Place.make(self.folder / name))
        self.gateway.set(f"remote.{name}.url", url or str(place.path))
        self.gateway.set(f"remote.{name}.annex-uuid", place.uuid)
        self.gateway.set(f"remote.{name}.annex-cost", "100")
        if cluster:
            self.gateway.set(f"remote.{name}.annex-cluster-node", cluster)
        if proxied:
            self.gateway.set(f"remote.{name}.annex-proxy", "true")
        return place

    @asynccontextmanager
    async def open(self, *, record: bool = True) -> AsyncIterator[tuple[Gateway, UUID]]:
        """The gateway, and the UUID of its cluster."""
        with Repository.open(self.gateway.path, clock=self.clock) as repository:
            cluster = await clusters.init(repository, "safe")
            if record:
                await clusters.update(repository)
            async with Gateway(repository) as gateway:
                yield gateway, cluster

    async def update(self) -> None:
        """Record the configuration, in another process's stead, and let some time pass."""
        with Repository.open(self.gateway.path) as repository:
            await clusters.update(repository)
        self.clock.ahead += 2

    def letters(self, uuids: object) -> str:
        names = {place.uuid: name for name, place in self.nodes.items()}
        return "".join(sorted(names[uuid] for uuid in uuids))  # type: ignore[attr-defined]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def shown(gateway: Gateway, uuid: UUID) -> Remote:
    remote = await gateway.remote(uuid)
    assert remote is not None
    return remote


# -- what there is ------------------------------------------------------------------------------------------------


async def test_itself_its_proxied_nodes_and_its_clusters_can_be_asked_for(world: World) -> None:
    world.node("a")
    world.node("b", cluster="", proxied=True)
    stranger = world.node("c", cluster="")
    async with world.open() as (gateway, cluster):
        assert set(gateway.uuids()) == {gateway.uuid, cluster, world.nodes["a"].uuid, world.nodes["b"].uuid}
        assert await gateway.remote(stranger.uuid) is None
        assert await gateway.remote(UUID("somebody-else")) is None
        for uuid in gateway.uuids():
            remote = await shown(gateway, uuid)
            assert remote.uuid == uuid
            assert not await remote.check_present(KEY)


async def test_what_is_stored_in_itself_is_its_own(world: World) -> None:
    world.node("a")
    async with world.open() as (gateway, cluster):
        await store(await shown(gateway, gateway.uuid), KEY, CONTENT)
        assert world.gateway.holds(KEY, CONTENT)
        assert not await (await shown(gateway, cluster)).check_present(KEY), "its own copy is none of the cluster's"


async def test_nodes_of_every_kind_make_one_cluster(world: World, tmp_path: Path) -> None:
    world.node("a")
    b, c = Place.make(tmp_path / "b"), Place.make(tmp_path / "c")
    world.nodes |= {"b": b, "c": c}
    world.node("b", url=f"unix:{tmp_path / 'b.s'}")
    shell = " ".join([sys.executable, "-m", "annexpy.server.shell", "p2pstdio", str(c.path), world.gateway.uuid])
    world.node("c", url=f"exec:env {' '.join(f'{name}={value}' for name, value in OURS)} {shell}")
    with served(b, tmp_path / "b.s"):
        async with world.open() as (gateway, cluster):
            remote = await shown(gateway, cluster)

            stored = await store(remote, KEY, CONTENT)
            assert world.letters(stored.uuids) == "abc"
            for _ in range(4):
                assert await read(remote, KEY) == CONTENT
            removed = await remote.remove_content(KEY)
            assert removed.ok
            assert world.letters(removed.uuids) == "abc"
    assert not any(place.holds(KEY, CONTENT) for place in world.nodes.values())
    assert world.gateway.logged([KEY])[KEY] == set()


async def test_a_cluster_is_not_locked_and_its_nodes_are(world: World) -> None:
    a = world.node("a")
    async with world.open() as (gateway, cluster):
        await store(await shown(gateway, cluster), KEY, CONTENT)
        with pytest.raises(NotLocked):
            async with (await shown(gateway, cluster)).lock_content(KEY):
                pass
        async with (await shown(gateway, a.uuid)).lock_content(KEY):
            removed = await (await shown(gateway, cluster)).remove_content(KEY)
            assert not removed.ok
            assert not removed.uuids


async def test_a_remote_that_is_read_only_here_takes_nothing(world: World) -> None:
    world.node("a")
    b = world.node("b")
    world.gateway.set("remote.b.annex-readonly", "true")
    async with world.open() as (gateway, cluster):
        stored = await store(await shown(gateway, cluster), KEY, CONTENT)
        assert world.letters(stored.uuids) == "a"
        assert isinstance(stored.failed[b.uuid], AccessDenied)


# -- changes ------------------------------------------------------------------------------------------------------


async def test_a_change_of_the_configuration_is_seen_while_it_serves(world: World) -> None:
    world.node("a")
    async with world.open() as (gateway, cluster):
        remote = await shown(gateway, cluster)
        assert world.letters((await store(remote, KEY, CONTENT)).copies) == "a"

        world.node("b")
        await world.update()
        stored = await store(remote, KEY, CONTENT)
        assert (world.letters(stored.uuids), world.letters(stored.already)) == ("b", "a")

        world.gateway.git("config", "--unset", "remote.a.annex-cluster-node")
        await world.update()
        removed = await remote.remove_content(KEY)
        assert world.letters(removed.uuids) == "b"


async def test_what_is_no_longer_proxied_for_is_refused_from_then_on(world: World) -> None:
    a = world.node("a", cluster="", proxied=True)
    async with world.open() as (gateway, _):
        remote = await shown(gateway, a.uuid)
        await store(remote, KEY, CONTENT)
        world.gateway.git("config", "--unset", "remote.a.annex-proxy")
        await world.update()

        with pytest.raises(UnknownUUID, match="no longer"):
            await remote.check_present(KEY)
        assert await gateway.remote(a.uuid) is None
    assert a.holds(KEY, CONTENT)


async def test_a_node_that_has_moved_is_found_where_it_is_now(world: World, tmp_path: Path) -> None:
    a = world.node("a")
    async with world.open() as (gateway, cluster):
        remote = await shown(gateway, cluster)
        assert (await store(remote, KEY, CONTENT)).uuids == {a.uuid}
        a.path.rename(tmp_path / "elsewhere")
        world.gateway.set("remote.a.url", str(tmp_path / "elsewhere"))
        await world.update()

        assert await read(remote, KEY) == CONTENT
        assert (await remote.remove_content(KEY)).uuids == {a.uuid}


async def test_a_node_in_the_log_alone_is_not_used(world: World) -> None:
    world.node("a")
    b = world.node("b")
    async with world.open() as (gateway, cluster):
        world.gateway.git("config", "--unset", "remote.b.annex-cluster-node")
        world.clock.ahead += 2
        assert world.letters((await store(await shown(gateway, cluster), KEY, CONTENT)).copies) == "a"
    assert not b.holds(KEY, CONTENT)


# -- several processes --------------------------------------------------------------------------------------------


async def test_a_get_goes_to_a_node_that_no_other_process_keeps_busy(world: World) -> None:
    content = content_of(8, 1 << 20)  # a small one is read at once, and keeps nobody busy
    key = key_of(content)
    for name in "abc":
        world.node(name)
    async with world.open() as (gateway, cluster), world.open() as (other, _):
        remote, theirs = await shown(gateway, cluster), await shown(other, cluster)
        await store(remote, key, content)
        async with theirs.get(key) as first, theirs.get(key) as second:
            busy = {first.source, second.source}
            assert len(busy) == 2
            for _ in range(6):
                async with remote.get(key) as download:
                    assert download.source not in busy
                    assert b"".join([chunk async for chunk in download]) == content
            async for _chunk in first:
                pass
            async for _chunk in second:
                pass
        sources = set()
        for _ in range(6):
            async with remote.get(key) as download:
                sources.add(download.source)
                async for _chunk in download:
                    pass
        assert len(sources) == 3, "in turn again"


async def test_what_was_stored_is_committed_at_the_gateway_and_at_its_nodes(world: World) -> None:
    a = world.node("a")
    async with world.open() as (gateway, cluster):
        await store(await shown(gateway, cluster), KEY, CONTENT)
        await gateway.commit()
        with Repository.open(world.gateway.path) as looking:
            assert set(looking.branch.locations(KEY).present) == {a.uuid}
        log = subprocess.run(
            ["git", "show", "git-annex:" + location(KEY)], cwd=a.path, capture_output=True, check=True
        ).stdout
        assert a.uuid in LocationLog.parse(log).present, "the node's own branch too"


async def test_a_node_with_a_wrong_partial_gets_the_content_after_the_answer_even_if_the_session_ends(
    world: World,
) -> None:
    a, b = world.node("a"), world.node("b")
    content = content_of(7, 16 << 20)
    key = key_of(content)
    leave_partial(b, key, b"wrong")
    async with world.open() as (gateway, cluster):
        stored = await store(await shown(gateway, cluster), key, content)
        assert stored.uuids == {a.uuid}
        await gateway.linger()
    assert b.holds(key, content)
    assert world.gateway.logged([key])[key] == {a.uuid, b.uuid}


async def test_what_was_removed_from_a_node_does_not_come_back_to_make_up_for_a_wrong_partial(world: World) -> None:
    b = world.node("b", proxied=True)
    world.node("a")
    leave_partial(b, KEY, b"wrong")
    async with world.open() as (gateway, cluster):
        await store(await shown(gateway, cluster), KEY, CONTENT)
        assert (await (await shown(gateway, b.uuid)).remove_content(KEY)).ok
        assert not b.holds(KEY, CONTENT)
        await gateway.linger()
    assert not b.holds(KEY, CONTENT)
    assert b.uuid not in world.gateway.logged([KEY])[KEY]


def leave_partial(place: Place, key: Key, content: bytes) -> None:
    path = place.path / "annex" / "tmp" / str(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def location(key: Key) -> str:
    from annexpy.keys.layout import location_log

    return location_log(key).decode()


# -- over a wire --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client(
    gateway: Gateway, uuid: UUID, bypass: tuple[UUID, ...] = (), mode: ServerMode = ServerMode.WRITE
) -> AsyncIterator[P2PRemote]:
    """Somebody who asks *gateway* for *uuid*."""
    async with anyio.create_task_group() as group:

        async def dial() -> object:
            ours, theirs = memory_pair()

            async def answer() -> None:
                remote = await shown(gateway, uuid)
                await serve(theirs, remote, mode=mode, bypass=gateway.bypassing(uuid))

            group.start_soon(answer)
            return ours

        remote = P2PRemote(dial, uuid=uuid, bypass=bypass)  # type: ignore[arg-type]
        yield remote
        await remote.aclose()
        group.cancel_scope.cancel()


async def test_what_is_on_its_way_to_a_node_counts_when_the_next_key_is_placed(world: World) -> None:
    """balanced with maxsize: a key goes where its number says among the nodes that have room."""
    for name in "abc":
        world.node(name)
    async with world.open() as (gateway, cluster):
        branch = gateway.repository.branch
        for place in world.nodes.values():
            for log, line in (
                (Log.PREFERRED_CONTENT, f"{place.uuid} balanced=box:1 timestamp=1s"),
                (Log.GROUP, f"{place.uuid} box timestamp=1s"),
                (Log.MAXSIZE, f"1s {place.uuid} 10000"),
            ):
                branch.change(log.value, lambda old, line=line: old + line.encode() + b"\n")  # type: ignore[misc]
        world.clock.ahead += 2
        remote, nodes = await shown(gateway, cluster), gateway.cluster(cluster).nodes  # type: ignore[union-attr]

        def alone(key: Key) -> UUID:
            (node,) = gateway.placing.place(key, "", nodes, taking=frozenset(), refused=frozenset())
            return node.uuid

        contents = [content_of(number, 6000) for number in range(40)]
        same = [content for content in contents if alone(key_of(content)) == world.nodes["a"].uuid][:3]
        assert len(same) == 3

        async with AsyncExitStack() as stack:
            uploads = [await stack.enter_async_context(remote.put(key_of(content))) for content in same]
            places = []
            for upload, content in zip(uploads, same, strict=True):
                await upload.start(len(content))
                await upload.write(content)
                places.append(world.letters((await upload.finish()).uuids))
        assert places[0] == "a"
        assert sorted(places) == ["a", "b", "c"]

        # what did not come to stay makes room again
        small = content_of(100, 3000)
        for _ in range(5):
            with suppress(ConnectionLost):
                async with remote.put(key_of(small)) as upload:
                    await upload.start(3000)
                    raise ConnectionLost("client", "the rest")
        async with remote.put(key_of(small)) as upload:
            await upload.start(3000)
            await upload.write(small)
            assert len((await upload.finish()).uuids) == 1


async def test_what_was_read_from_a_cluster_is_read_from_the_cache_and_is_no_copy(world: World, tmp_path: Path) -> None:
    content = content_of(3, 600_000)
    key, cache = key_of(content), world.gateway.path / "annex" / "annexpy" / "cache"
    async with served_cluster(world, tmp_path) as (gateway, cluster, node):
        remote = await shown(gateway, cluster)
        await store(remote, key, content)
        assert await read(remote, key) == content
        assert not cache.exists(), "only on request"

        world.gateway.set("annexpy.read-cache", "10 MB")
        world.clock.ahead += 2
        assert await read(remote, key) == content
        assert len([*cache.iterdir()]) == 1
        path = node.object(key)
        assert path is not None
        away = path.rename(path.with_name("away"))
        assert await read(remote, key) == content
        assert await read(remote, key, 599_000) == content[599_000:]
        async with remote.get(key, offset=10, end=20) as download:
            assert download.source == cluster
            assert b"".join([piece async for piece in download]) == content[10:20]

        # no copy: it is not there, cannot be locked, is in no log, and the node alone gives what it has
        assert not await remote.check_present(key)
        assert gateway.uuid not in gateway.repository.branch.locations(key).present
        with pytest.raises(NotLocked):
            async with remote.lock_content(key):
                pass
        with pytest.raises(KeyNotPresent):
            await read(await shown(gateway, node.uuid), key)

        # gone with the content
        away.rename(path)
        assert (await remote.remove_content(key)).ok
        assert not [*cache.iterdir()]
        with pytest.raises(KeyNotPresent):
            await read(remote, key)


async def test_the_cache_keeps_what_is_the_content_and_no_more_than_it_may(world: World, tmp_path: Path) -> None:
    cache = world.gateway.path / "annex" / "annexpy" / "cache"
    world.gateway.set("annexpy.read-cache", "1000000")
    contents = [content_of(number, 200_000) for number in range(8)]
    async with served_cluster(world, tmp_path) as (gateway, cluster, node):
        remote = await shown(gateway, cluster)
        large = content_of(100, 300_000)
        for content in (*contents, large):
            await store(remote, key_of(content), content)
            assert await read(remote, key_of(content)) == content
            assert sum(file.stat().st_size for file in cache.iterdir()) <= 1_000_000
        assert len([*cache.iterdir()]) == 5, "what takes more than a quarter is not kept"

        # what has rotted in the cache is INVALID once, and then comes from the node again
        for file in cache.iterdir():
            file.chmod(0o600)
            file.write_bytes(bytes(200_000))
        last = key_of(contents[-1])
        async with remote.get(last) as download:
            assert [piece async for piece in download]
            assert not download.valid
        assert await read(remote, last) == contents[-1]

        # who does not read to the end, and what the node sends wrong, leaves nothing behind
        for file in cache.iterdir():
            file.unlink()
        async with remote.get(last) as download:
            async with aclosing(aiter(download)) as pieces:  # type: ignore[type-var]
                assert await anext(pieces)
        assert not [*cache.iterdir()]
        path = node.object(last)
        assert path is not None
        path.chmod(0o600)
        path.write_bytes(bytes(200_000))
        async with remote.get(last) as download:
            assert [piece async for piece in download]
        assert not [*cache.iterdir()]


@asynccontextmanager
async def served_cluster(world: World, tmp_path: Path) -> AsyncIterator[tuple[Gateway, UUID, Place]]:
    """A cluster of one node that is reached over a wire."""
    node = world.nodes["a"] = Place.make(tmp_path / "a")
    with served(node, tmp_path / "s"):
        world.node("a", url=f"unix:{tmp_path}/s", proxied=True)
        async with world.open() as (gateway, cluster):
            yield gateway, cluster, node


async def test_who_is_in_a_bypass_is_left_out(world: World) -> None:
    for name in "abc":
        world.node(name)
    async with (
        world.open() as (gateway, cluster),
        client(gateway, cluster, bypass=(world.nodes["b"].uuid, UUID("x"))) as one,
    ):
        assert world.letters((await store(one, KEY, CONTENT)).uuids) == "ac"
        async with client(gateway, cluster) as everybody:
            stored = await store(everybody, KEY, CONTENT)
            assert "b" in world.letters(stored.uuids)
        assert world.letters((await one.remove_content(KEY)).uuids) == "ac"
    assert world.nodes["b"].holds(KEY, CONTENT)
    assert world.gateway.logged([KEY])[KEY] == {world.nodes["b"].uuid}


@pytest.mark.parametrize(
    ("mode", "put", "remove"),
    [(ServerMode.READ_ONLY, "read-only", "read-only"), (ServerMode.APPEND_ONLY, None, "append-only")],
)
async def test_what_a_client_may_not_do_no_node_hears_of(
    world: World, mode: ServerMode, put: str | None, remove: str
) -> None:
    world.node("a")
    async with world.open() as (gateway, cluster), client(gateway, cluster, mode=mode) as remote:
        if put is None:
            assert (await store(remote, KEY, CONTENT)).ok
        else:
            with pytest.raises(Exception, match=put):
                await store(remote, KEY, CONTENT)
        removed = await remote.remove_content(KEY)
        assert not removed.ok
        assert remove in str(next(iter(removed.failed.values())))
    assert world.nodes["a"].holds(KEY, CONTENT) is (put is None)


async def test_nothing_is_left_open(world: World, anyio_backend: str) -> None:
    world.node("a")

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    counts: list[int] = []
    look: Callable[[], int] = descriptors
    for _ in range(3):
        async with world.open() as (gateway, cluster), client(gateway, cluster) as remote:
            await store(remote, KEY, CONTENT)
            await read(remote, KEY)
            await remote.remove_content(KEY)
        counts.append(look())
    assert counts[1] == counts[2]


async def test_a_gateway_that_is_cancelled_while_a_node_is_locked_ends_in_good_order(
    world: World, tmp_path: Path
) -> None:
    node = Place.make(tmp_path / "a")
    world.nodes["a"] = node
    world.node("a", url=f"unix:{tmp_path / 'a.s'}")
    with served(node, tmp_path / "a.s"), anyio.CancelScope() as scope:
        async with world.open() as (gateway, _):
            remote = await shown(gateway, node.uuid)
            await store(remote, KEY, CONTENT)
            async with remote.lock_content(KEY) as lock:
                assert await lock.held()
                scope.cancel()
                await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert not gateway._late.entered
