"""Proofs of possession: between our own ends only, and nobody passes who has not got the content."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from http_peers import over_http, routes_for
from http_peers import scripted as scripted_http
from peers import Step, scripted
from remote_contract import KEY, A, B, HandClock, content_of, key_of, store

import annexpy as annex
from annexpy.errors import ConnectFailed, KeyNotPresent, PeerError, VerificationFailed
from annexpy.p2p.extensions import PROOFS
from annexpy.remote.base import Remote
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.possession import new_nonce, possession
from annexpy.remote.traced import Traced
from annexpy.remote.wrappers import ReadOnly
from annexpy.repo.repository import Repository
from annexpy.server.serve import serve
from annexpy.transport.base import Transport
from annexpy.transport.memory import memory_pair
from annexpy.transport.pipe import DialCommand
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

LARGE = content_of(7, 700_001)
LARGE_KEY = key_of(LARGE)
CLUSTER = UUID("acacacac-0000-8000-8000-000000000004")
CLIENT = UUID("cccccccc-0000-4000-8000-000000000003")


class Counting:
    """A transport that keeps what went over it."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.said, self.heard = inner, b"", b""

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def send(self, data: bytes) -> None:
        self.said += data
        await self.inner.send(data)

    async def receive(self, limit: int = 1 << 18) -> bytes:
        data = await self.inner.receive(limit)
        self.heard += data
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


class Far(P2PRemote):
    """*shown* behind a wire; remembers what went over its wires."""

    wires: list[Counting]


@asynccontextmanager
async def far(shown: Remote, *, most: int = 4) -> AsyncIterator[Far]:
    wires: list[Counting] = []
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(lambda: serve(server, shown, max_version=most))
            wires.append(Counting(client))
            return wires[-1]  # type: ignore[return-value]

        remote = Far(dial, uuid=shown.uuid, name="far", deadline=20.0)
        remote.wires = wires
        yield remote
        await remote.aclose()
        tasks.cancel_scope.cancel()


# -- between our own ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", [far, lambda shown: over_http(shown, HandClock())], ids=["p2p", "http"])
async def test_who_has_the_content_proves_it_and_who_has_not_does_not(way) -> None:
    has, lost, flipped = (MemoryRemote(UUID(f"{n}" * 8 + "-0000-4000-8000-000000000000")) for n in range(3))
    await store(has, LARGE_KEY, LARGE)
    flipped.objects[LARGE_KEY] = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    async with way(has) as one, way(lost) as two, way(flipped) as three:
        found = await annex.prove([one, two, three], LARGE_KEY, LARGE)
        assert found[0] is annex.Verified.HASH
        assert isinstance(found[1], KeyNotPresent)
        assert isinstance(found[2], VerificationFailed)
        assert await annex.verify(one, LARGE_KEY) is annex.Verified.HASH  # the wires are as good as before


async def test_a_proof_moves_no_content() -> None:
    has = MemoryRemote(A)
    await store(has, LARGE_KEY, LARGE)
    async with far(has) as remote:
        assert await annex.prove([remote], LARGE_KEY, LARGE) == [annex.Verified.HASH]
        assert sum(len(wire.said) + len(wire.heard) for wire in remote.wires) < 1000


async def test_the_digest_is_of_the_nonce_and_then_the_content() -> None:
    has, nonce = MemoryRemote(A), new_nonce()
    await store(has, LARGE_KEY, LARGE)
    expected = hashlib.sha256(nonce + LARGE).digest()
    async with far(ReadOnly(has)) as remote, far(Traced(remote)) as through, over_http(has, HandClock()) as web:
        for one in (remote, through, web):
            assert await one.proves()
            assert await one.prove(LARGE_KEY, nonce) == expected
    assert await possession(has, LARGE_KEY, nonce) == expected


async def test_a_file_and_another_remote_are_good_to_compare_with_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    has = MemoryRemote(A)
    await store(has, LARGE_KEY, LARGE)
    (tmp_path / "file").write_bytes(LARGE)
    async with far(has) as remote:
        for copy in (str(tmp_path / "file"), has):
            assert await annex.prove([remote], LARGE_KEY, copy) == [annex.Verified.HASH]
        (tmp_path / "file").write_bytes(LARGE[:-1] + b"!")
        with pytest.raises(VerificationFailed):
            await annex.prove([remote], LARGE_KEY, str(tmp_path / "file"))


async def test_a_key_without_a_hash_is_never_proven() -> None:
    async with far(MemoryRemote(A)) as remote:
        assert await annex.prove([remote], annex.Key.parse(b"WORM-s3-m1--x"), b"abc") == [None]


async def test_what_cannot_be_reached_is_told_and_does_not_hold_up_the_others() -> None:
    has = MemoryRemote(A)
    await store(has, LARGE_KEY, LARGE)

    async def nowhere() -> Transport:
        raise ConnectFailed("nowhere", "no")

    async with far(has) as remote:
        found = await annex.prove([P2PRemote(nowhere, uuid=B), remote], LARGE_KEY, LARGE)
    assert isinstance(found[0], ConnectFailed)
    assert found[1] is annex.Verified.HASH


# -- lies -----------------------------------------------------------------------------------------------

_HELLO: tuple[Step, ...] = (f"> VERSION {PROOFS}", f"< AUTH-SUCCESS {A}", f"< VERSION {PROOFS}")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("< POSSESSED " + hashlib.sha256(content_of(0)).hexdigest(), VerificationFailed),  # what the key's name says
        ("< POSSESSED " + "0" * 64, VerificationFailed),
        ("< FAILURE", KeyNotPresent),
        ("< ERROR disk on fire", PeerError),
    ],
)
async def test_a_server_that_knows_only_the_name_of_the_key_cannot_answer(answer: str, error: type[Exception]) -> None:
    async with scripted([*_HELLO, "> POSSESSION ", answer], greet=False) as (remote, _):
        (found,) = await annex.prove([remote], KEY, content_of(0))
        assert type(found) is error


async def test_an_answer_that_was_good_once_is_not_good_again() -> None:
    has = MemoryRemote(A)
    await store(has, KEY, content_of(0))
    async with far(has) as remote:
        assert await annex.prove([remote], KEY, content_of(0)) == [annex.Verified.HASH]
        kept = remote.wires[-1].heard.split(b"POSSESSED ")[1][:64].decode()
    async with scripted([*_HELLO, "> POSSESSION ", f"< POSSESSED {kept}"], greet=False) as (liar, _):
        assert isinstance((await annex.prove([liar], KEY, content_of(0)))[0], VerificationFailed)


async def test_an_http_server_that_knows_only_the_name_of_the_key_cannot_answer() -> None:
    from http_peers import json

    def script(asked):
        ours = ("Server", "annexpy")
        if asked.verb == "possession":
            return json(f'{{"sha256":"{hashlib.sha256(content_of(0)).hexdigest()}"}}', ours)
        return json('{"present":true}', ours)

    async with scripted_http(script) as found:
        remote = found[0] if isinstance(found, tuple) else found
        assert isinstance((await annex.prove([remote], KEY, content_of(0)))[0], VerificationFailed)


# -- clusters -------------------------------------------------------------------------------------------


async def test_a_cluster_proves_nothing_and_its_nodes_do() -> None:
    nodes = [MemoryRemote(A), MemoryRemote(B)]
    for node in nodes:
        await store(node, KEY, content_of(0))
    cluster = Cluster(nodes, uuid=CLUSTER, name="all")
    async with far(cluster) as remote, over_http(cluster, HandClock()) as web, far(nodes[0]) as node:
        found = await annex.prove([remote, web, cluster, node], KEY, content_of(0))
        assert found == [None, None, None, annex.Verified.HASH]
        assert b"POSSESSION" not in b"".join(wire.said for wire in remote.wires)
    for asked in (cluster, Cluster(nodes, name="no uuid")):
        with pytest.raises(annex.Refused):
            await possession(asked, KEY, new_nonce())


async def test_a_gateway_proves_for_a_node_that_cannot_by_reading_it() -> None:
    node = MemoryRemote(A)
    await store(node, LARGE_KEY, LARGE)
    async with far(node, most=3) as behind, far(behind) as remote:  # the node is no server of ours
        assert not await behind.proves()
        assert await annex.prove([remote], LARGE_KEY, LARGE) == [annex.Verified.HASH]


# -- peers that are not ours ------------------------------------------------------------------------------


async def test_only_who_asks_for_proofs_is_told_of_them() -> None:
    for asked, told in ((4, 4), (5, 4), (PROOFS - 1, 4), (PROOFS + 1, 4), (PROOFS, PROOFS), (10**30, 4)):
        client, server = memory_pair()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server, MemoryRemote(A))
            await client.send(b"VERSION %d\nPOSSESSION %b %b\n" % (asked, b"ab" * 32, KEY.raw))
            said = b""
            while said.count(b"\n") < 3:
                said += await client.receive()
            last = b"FAILURE" if told == PROOFS else b"ERROR unknown command"
            assert said == b"AUTH-SUCCESS %b\nVERSION %d\n%b\n" % (A.encode(), told, last)
            await client.aclose()


async def test_what_is_not_about_proofs_asks_for_version_4_as_ever() -> None:
    has = MemoryRemote(A)
    await store(has, KEY, content_of(0))
    async with far(has) as remote:
        assert await annex.verify(remote, KEY)
        assert await remote.check_present(KEY)
        assert {wire.said.partition(b"\n")[0] for wire in remote.wires} == {b"VERSION 4"}


async def test_an_older_server_of_ours_is_read_instead() -> None:
    has = MemoryRemote(A)
    await store(has, KEY, content_of(0))
    async with routes_for(has), over_http(has, HandClock(), stock=True) as stock, far(has, most=2) as old:
        assert await annex.prove([stock, old], KEY, content_of(0)) == [None, None]
        assert await annex.verify(stock, KEY) is annex.Verified.HASH


@pytest.mark.interop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_git_annex_is_asked_for_a_version_and_for_nothing_that_it_does_not_know(
    git_annex: str, tmp_path: Path
) -> None:
    path = tmp_path / "stock.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    subprocess.run([git_annex, "init", "-q", "stock"], cwd=path, check=True, capture_output=True)
    wires: list[Counting] = []
    command = DialCommand(("git-annex-shell", "p2pstdio", str(path), CLIENT))

    async def dial() -> Transport:
        wires.append(Counting(await command()))
        return wires[-1]  # type: ignore[return-value]

    remote = P2PRemote(dial, name="stock")
    await store(remote, KEY, content_of(0))
    assert await annex.prove([remote], KEY, content_of(0)) == [None]
    assert await annex.verify(remote, KEY) is annex.Verified.HASH
    await remote.aclose()
    asked = [wire for wire in wires if wire.said.startswith(b"VERSION %d\n" % PROOFS)]
    assert [wire.said for wire in asked] == [b"VERSION %d\n" % PROOFS]
    assert [wire.heard.splitlines()[1] for wire in asked] == [b"VERSION 4"]
    assert not any(b"POSSESS" in wire.said for wire in wires)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_annexpy_shell_proves_what_is_on_its_disk(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "vault.git", bare=True) as vault:
        local = annex.Local(vault)
        await annex.put(local, LARGE_KEY, LARGE)
        await local.aclose()
        place = next(Path(tmp_path / "vault.git").glob("annex/objects/*/*/*/*"))
    command = (sys.executable, "-m", "annexpy.server.shell", "p2pstdio", str(tmp_path / "vault.git"), CLIENT)
    remote = P2PRemote(DialCommand(command), name="vault")
    assert await annex.prove([remote], LARGE_KEY, LARGE) == [annex.Verified.HASH]
    place.chmod(0o644)
    with place.open("r+b") as file:
        file.seek(350_000)
        file.write(bytes([LARGE[350_000] ^ 4]))
    assert isinstance((await annex.prove([remote], LARGE_KEY, LARGE))[0], VerificationFailed)
    await remote.aclose()
