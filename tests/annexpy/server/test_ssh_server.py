"""The ssh server in this process, with our own client and with asyncssh by hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncssh
import pytest
from places import Place, content_of, key_of, read, store

from annexpy.actions import cluster as clusters
from annexpy.clock import Deadline
from annexpy.errors import ConnectFailed, InvalidInput, KeyNotPresent
from annexpy.remote.connect import connect
from annexpy.remote.p2p import P2PRemote
from annexpy.repo.repository import Repository
from annexpy.server.authorized import AuthorizedKeys
from annexpy.server.gateway import Gateway
from annexpy.server.limits import LockQuota
from annexpy.server.metrics import Metrics
from annexpy.server.places import Places
from annexpy.server.ssh import SSHLimits, SSHServer, host_key
from annexpy.system import CLOCK
from annexpy.transport.ssh import DialSSH
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

CLIENT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def identity() -> asyncssh.SSHKey:
    """Our key, in the home directory as well."""
    path = Path(os.environ["HOME"], ".ssh", "id_ed25519")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return asyncssh.read_private_key(str(path))


class Server:
    """A server of one gateway named g."""

    def __init__(self, folder: Path, identity: asyncssh.SSHKey) -> None:
        self.folder, self.identity = folder, identity
        self.place = Place.make(folder / "g")
        self.sshd: SSHServer
        self.gateway: Gateway
        self.port = 0
        self.metrics = Metrics()

    def keys(self, options: str = "") -> AuthorizedKeys:
        return AuthorizedKeys(f"{options} {self.identity.export_public_key().decode()}".strip())

    @asynccontextmanager
    async def running(
        self, *, options: str = "", limits: SSHLimits | None = None, locks: LockQuota | None = None
    ) -> AsyncIterator[Server]:
        key = host_key(str(self.folder / "host"))
        with Repository.open(self.place.path) as repository:
            async with Gateway(repository) as self.gateway, Places({"g": self.gateway}) as places:
                sshd = SSHServer(places, self.keys(options), [key], limits=limits, locks=locks, metrics=self.metrics)
                async with sshd as self.sshd:
                    _, self.port = await sshd.listen()
                    with Path(os.environ["HOME"], ".ssh", "known_hosts").open("a") as file:
                        file.write(f"[127.0.0.1]:{self.port} {key.export_public_key().decode()}")
                    yield self

    def url(self, path: str = "g") -> str:
        return f"ssh://127.0.0.1:{self.port}/{path}"

    async def connect(self) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            "127.0.0.1", self.port, known_hosts=None, client_keys=[self.identity], config=None, username="x"
        )

    def p2p(self, uuid: UUID | None = None) -> str:
        return f"git-annex-shell 'p2pstdio' '/g' '{CLIENT}' --uuid {uuid or self.place.uuid}"


@pytest.fixture
def server(tmp_path: Path, identity: asyncssh.SSHKey, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("GIT_SSH_COMMAND", "GIT_SSH"):
        monkeypatch.delenv(name, raising=False)
    return Server(tmp_path, identity)


async def test_our_client_does_everything_there(server: Server) -> None:
    contents = {key_of(content_of(number)): content_of(number) for number in range(8)}
    large = content_of(99, 3_000_000)
    async with server.running(), connect(server.url()) as remote:
        assert remote.uuid == server.place.uuid

        async def one(content: bytes) -> None:
            await store(remote, key_of(content), content)
            assert await read(remote, key_of(content)) == content

        async with anyio.create_task_group() as tasks:
            for content in (*contents.values(), large):
                tasks.start_soon(one, content)
        async with remote.lock_content(key_of(large)) as lock:
            assert await lock.held()
        assert (await remote.remove_content(key_of(large), deadline=Deadline(CLOCK.now() + 60))).ok
        with pytest.raises(KeyNotPresent):
            await read(remote, key_of(large))
        assert server.sshd.connections == 1
    assert all(server.place.holds(key, content) for key, content in contents.items())
    assert server.place.logged(contents) == {key: {server.place.uuid} for key in contents}
    assert b'annexpy_requests_total{verb="ssh p2pstdio",status="0"}' in server.metrics.text()


async def test_a_client_that_does_not_read_gets_no_more_than_it_has_room_for(server: Server) -> None:
    content = content_of(7, 3_000_000)
    async with server.running(), connect(server.url()) as remote:
        await store(remote, key_of(content), content)
        transport = await DialSSH("127.0.0.1", server.p2p(), port=server.port, window=256 * 1024)()
        said = await transport.receive()
        await transport.send(b"GET 0  %b\n" % key_of(content).raw)
        for _ in range(300):
            await anyio.lowlevel.checkpoint()  # it may go on, and its client would end the connection for that
        while not said.endswith(content):
            data = await transport.receive()
            assert data, (len(said), transport.complaint)
            said += data
        await transport.aclose()


async def test_what_a_connection_does_not_take_waits_on_disk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    unsent, sockets = [0], asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    write = sockets.write

    def watched(transport: asyncio.Transport, data: bytes) -> None:
        write(transport, data)
        unsent.append(transport.get_write_buffer_size())

    content = content_of(8, 6_000_000)
    async with server.running(), connect(server.url()) as remote:
        await store(remote, key_of(content), content)
        monkeypatch.setattr(sockets, "write", watched)
        client = await server.connect()
        processes = [await client.create_process(server.p2p(), encoding=None, window=8 << 20) for _ in range(4)]
        for process in processes:
            await process.stdout.readline()
            process.stdin.write(b"GET 0  %b\n" % key_of(content).raw)
        client._transport.pause_reading()
        with anyio.fail_after(60):
            while not max(unsent):  # the system takes some
                await anyio.lowlevel.checkpoint()
        for _ in range(500):
            await anyio.lowlevel.checkpoint()
        assert max(unsent) < 3_000_000, "of 24,000,000 bytes that four windows would take"
        client._transport.resume_reading()
        for process in processes:
            assert (await process.stdout.readexactly(len(content) + 13)).endswith(content)
        client.abort()


def asked_for(server: Server, uuid: UUID) -> P2PRemote:
    return P2PRemote(DialSSH("127.0.0.1", server.p2p(uuid), port=server.port), uuid=uuid, name="asked for")


async def test_nodes_and_clusters_are_behind_it(server: Server, tmp_path: Path) -> None:
    nodes = [Place.make(tmp_path / name) for name in "ab"]
    for node in nodes:
        name = node.path.name
        server.place.set(f"remote.{name}.url", str(node.path))
        server.place.set(f"remote.{name}.annex-uuid", node.uuid)
        server.place.set(f"remote.{name}.annex-cluster-node", "safe")
    with Repository.open(server.place.path) as repository:
        cluster = await clusters.init(repository, "safe")
        await clusters.update(repository)
    content = content_of(1)
    key = key_of(content)

    async with server.running():
        async with asked_for(server, cluster) as remote:
            assert (await store(remote, key, content)).uuids == {node.uuid for node in nodes}
        async with asked_for(server, nodes[0].uuid) as remote:
            assert (await remote.remove_content(key)).ok
        with pytest.raises(ConnectFailed, match="expected repository UUID somebody-else but found"):
            await asked_for(server, UUID("somebody-else")).connect()

    assert [node.holds(key, content) for node in nodes] == [False, True]
    assert server.place.logged([key]) == {key: {nodes[1].uuid}}


async def test_two_hundred_connections_leave_nothing_behind(server: Server) -> None:
    async with server.running():

        async def one(number: int) -> None:
            async with await server.connect() as connection:
                if number % 3 == 0:
                    done = await connection.run("git-annex-shell 'configlist' '/g'")
                    assert f"annex.uuid={server.place.uuid}" in str(done.stdout)
                elif number % 3 == 1:
                    process = await connection.create_process(server.p2p())
                    assert await process.stdout.readline() == f"AUTH-SUCCESS {server.place.uuid}\n"
                    process.stdin.write("CHECKPRESENT WORM--x\nGET 0 ")
                    if number % 2:
                        connection.abort()

        async def wave(count: int) -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(count):
                    tasks.start_soon(one, number)
            with anyio.fail_after(10):
                while server.sshd.connections or server.sshd.sessions:
                    await anyio.sleep(0.01)

        await wave(20)
        before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for _ in range(5):
            await wave(40)

        descriptors, tasks = before
        assert len(os.listdir("/proc/self/fd")) <= descriptors  # what other tests left may be collected meanwhile
        assert len(asyncio.all_tasks()) == tasks


async def test_a_connection_has_only_so_many_channels_and_the_server_so_many_connections(server: Server) -> None:
    async with server.running(limits=SSHLimits(connections=2, sessions=2)):
        async with await server.connect() as one, await server.connect():
            for _ in range(2):
                await one.create_process(server.p2p())
            with pytest.raises(asyncssh.ChannelOpenError):
                await one.create_process(server.p2p())
            with pytest.raises((asyncssh.DisconnectError, OSError)):
                await server.connect()
        with anyio.fail_after(5):
            while server.sshd.connections:
                await anyio.sleep(0.01)
        async with await server.connect():
            pass


async def test_who_does_not_log_in_or_asks_nothing_is_let_go(server: Server) -> None:
    async with server.running(limits=SSHLimits(login=0.2, idle=0.2)):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with await server.connect() as connection:
            process = await connection.create_process(server.p2p())
            with anyio.fail_after(20):
                await reader.read()
                done = await process.wait()
            assert done.exit_status == 1
            assert "failed" in str(done.stderr)
        writer.close()


async def test_nothing_is_forwarded_and_no_agent_terminal_or_sftp_is_there(server: Server) -> None:
    async with server.running(), await server.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", server.port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
        with pytest.raises(asyncssh.Error):
            await connection.start_sftp_client()
        with pytest.raises(asyncssh.Error):
            await connection.create_process("git-annex-shell configlist /g", term_type="xterm")
        done = await connection.run("git-annex-shell configlist /g", env={"GIT_DIR": "/x", "LD_PRELOAD": "/x"})
        assert done.exit_status == 0


async def test_the_end_waits_for_what_is_under_way_and_takes_nothing_new(server: Server) -> None:
    content = content_of(5, 100_000)
    key = key_of(content)
    async with server.running(), await server.connect() as connection:
        idle = await connection.create_process(server.p2p(), encoding=None)
        busy = await connection.create_process(server.p2p(), encoding=None)
        await busy.stdout.readline()
        busy.stdin.write(b"VERSION 1\nPUT x %b\n" % bytes(key))
        assert await busy.stdout.readline() == b"VERSION 1\n"
        assert await busy.stdout.readline() == b"PUT-FROM 0\n"
        busy.stdin.write(b"DATA %d\n" % len(content) + content[:50_000])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.sshd.leave, 20)
            assert (await idle.wait()).exit_status == 0
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(server.p2p())
            with pytest.raises(OSError):
                await server.connect()
            busy.stdin.write(content[50_000:] + b"VALID\n")
            assert await busy.stdout.readline() == b"SUCCESS\n"
            assert (await busy.wait()).exit_status == 0
    assert server.place.holds(key, content)


async def test_a_key_holds_only_so_many_locks(server: Server) -> None:
    content = content_of(6)
    async with server.running(locks=LockQuota(2)):
        async with connect(server.url()) as remote:
            await store(remote, key_of(content), content)
        async with await server.connect() as connection:
            said = []
            for _ in range(3):
                process = await connection.create_process(server.p2p())
                process.stdin.write(f"LOCKCONTENT {key_of(content)}\n")
                await process.stdout.readline()
                said.append(await process.stdout.readline())
            assert said[:2] == ["SUCCESS\n", "SUCCESS\n"]
            assert said[2].startswith("ERROR too many")


async def test_host_keys_are_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "host"
    made = host_key(str(path))
    assert made.get_algorithm() == "ssh-ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert host_key(str(path)).public_data == made.public_data
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        host_key(str(path))
    with pytest.raises(InvalidInput):
        host_key(str(tmp_path / "none" / "host"))


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_another_event_loop_there_is_no_ssh(tmp_path: Path) -> None:
    async with Places({}) as places, SSHServer(places, AuthorizedKeys(""), []) as sshd:
        with pytest.raises(InvalidInput, match="asyncio"):
            await sshd.listen()
