"""ssh to a real OpenSSH server: asyncssh on asyncio, the system's ssh where asked for and on trio."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import socket
import subprocess
import sys
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from annexpy.errors import AuthFailed, ConnectFailed, ConnectionLost, InvalidInput, TimedOut
from annexpy.transport import ssh as ssh_module
from annexpy.transport import ssh_library
from annexpy.transport.base import Transport
from annexpy.transport.pipe import Child
from annexpy.transport.sockets import listen_tcp
from annexpy.transport.ssh import DialSSH, DialSystemSSH
from annexpy.transport.ssh_channel import WINDOW, SSHTransport

pytestmark = pytest.mark.anyio


def system(sshd, command: str) -> DialSystemSSH:
    return DialSystemSSH(sshd.host, command, program=("ssh", "-F", sshd.config), batch=True)


@pytest.fixture(params=["asyncssh", "system ssh"])
def way(request: pytest.FixtureRequest, anyio_backend: str, sshd):
    """Makes a dial for a command."""
    if request.param == "asyncssh" and anyio_backend == "asyncio":
        return lambda command: DialSSH(sshd.host, command)
    return lambda command: system(sshd, command)


@asynccontextmanager
async def dialled(dial) -> AsyncIterator[Transport]:
    transport = await dial()
    try:
        yield transport
    finally:
        await transport.aclose()


async def receive_exactly(transport: Transport, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = await transport.receive()
        assert data, (len(found), transport.complaint)
        found += data
    return found


async def pour(transport: Transport) -> NoReturn:
    while True:
        await transport.send(bytes(1_000_000))


async def test_a_command_on_another_host_talks_to_us(way) -> None:
    async with dialled(way("cat")) as cat:
        await cat.send(b"meow\n")
        assert await cat.receive() == b"meow\n"
        assert not cat.at_eof
        assert not cat.has_input


async def test_large_amounts_travel_both_ways_at_once(way) -> None:
    body = os.urandom(5 * 1024 * 1024 + 3)
    async with dialled(way("cat")) as cat, anyio.create_task_group() as tasks:

        async def send() -> None:
            for start in range(0, len(body), 300_000):
                await cat.send(body[start : start + 300_000])

        tasks.start_soon(send)
        with anyio.fail_after(30):
            assert await receive_exactly(cat, len(body)) == body


async def test_a_receiver_that_is_slow_holds_the_sender_back(way) -> None:
    async with dialled(way("cat")) as cat:
        with anyio.move_on_after(1) as scope:
            await pour(cat)
        assert scope.cancelled_caught
        with pytest.raises(ConnectionLost):
            await cat.send(b"after half a message")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_slow_reader_has_not_read_is_never_more_than_the_window(sshd) -> None:
    async with dialled(DialSSH(sshd.host, "head -c 100000000 /dev/zero")) as transport:
        assert isinstance(transport, SSHTransport)
        read = most = 0
        while data := await transport.receive():
            read += len(data)
            await anyio.sleep(0.005)  # the peer goes on sending
            held_back = getattr(transport._channel, "_recv_buf")  # noqa: B009 (of asyncssh)
            most = max(most, transport._size + sum(len(piece) for piece, _ in held_back))
    assert read == 100_000_000
    assert WINDOW // 4 < most <= WINDOW + 2 * 1024 * 1024


async def test_the_end_of_the_command_and_its_last_words_are_told(way) -> None:
    async with dialled(way("echo out; echo not today >&2; exit 7")) as transport:
        assert await receive_exactly(transport, 4) == b"out\n"
        assert await transport.receive() == b""
        assert transport.at_eof
        assert transport.complaint == "not today; exit status 7"
        with pytest.raises(ConnectionLost):
            await pour(transport)


async def test_a_cancelled_receive_loses_nothing(way) -> None:
    async with dialled(way("cat")) as cat:
        for _ in range(5):
            with anyio.move_on_after(0.01):
                await cat.receive()
        await cat.send(b"all of it")
        assert await receive_exactly(cat, 9) == b"all of it"


async def test_last_words_go_out_by_themselves_with_the_next_or_on_closing(way, tmp_path: Path) -> None:
    async with dialled(way(f"tee '{tmp_path}/heard'")) as tee:
        tee.send_soon(b"one ")
        assert await receive_exactly(tee, 4) == b"one "
        tee.send_soon(b"two ")
        await tee.send(b"three ")
        assert await receive_exactly(tee, 10) == b"two three "
        tee.send_soon(b"four")
    with anyio.fail_after(5):
        while (tmp_path / "heard").read_bytes() != b"one two three four":
            await anyio.sleep(0.01)


async def test_closing_wakes_whoever_waits(way) -> None:
    transport = await way("cat")()

    async def wait() -> None:
        with pytest.raises(ConnectionLost):
            await transport.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.05)
        await transport.aclose()
        await transport.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestAsyncSSH:
    async def test_many_channels_share_a_connection_and_more_are_opened_when_it_is_full(self, sshd) -> None:
        dial = DialSSH(sshd.host, "echo $SSH_CONNECTION; cat")
        async with anyio.create_task_group() as tasks:
            opened: list[Transport] = []

            async def open_one() -> None:
                opened.append(await dial())

            for _ in range(7):
                tasks.start_soon(open_one)
        ports = [(await transport.receive()).split()[1] for transport in opened]
        for transport in opened:
            await transport.send(b"still here")
            assert await transport.receive() == b"still here"

        assert len(set(ports)) == 3  # the server allows three channels each
        for transport in opened:
            await transport.aclose()

    async def test_nothing_is_left_open_when_the_last_channel_is_closed(self, sshd) -> None:
        async with dialled(DialSSH(sshd.host, "cat")):
            pass
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            async with dialled(DialSSH(sshd.host, "cat")), dialled(DialSSH(sshd.host, "cat")):
                pass
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_user_port_and_key_may_be_given_instead_of_a_configuration(self, sshd, tmp_path: Path) -> None:
        dial = DialSSH("127.0.0.1", "whoami", user=sshd.user, port=sshd.port, identities=(sshd.identity,))
        async with dialled(dial) as transport:
            assert (await transport.receive()).decode().strip() == sshd.user

    async def test_the_fast_cipher_is_used_unless_the_configuration_names_another(self, sshd) -> None:
        with Path(sshd.config).open("a") as file:
            file.write(
                f"Host slow\n\tHostName 127.0.0.1\n\tPort {sshd.port}\n\tCiphers aes256-ctr\n\tUser {sshd.user}\n"
            )
        for host, cipher in ((sshd.host, "aes128-gcm@openssh.com"), ("slow", "aes256-ctr")):
            transport = await DialSSH(host, "cat")()
            assert isinstance(transport, SSHTransport)
            assert transport._channel.get_extra_info("send_cipher") == cipher  # type: ignore[union-attr]
            await transport.aclose()

    @pytest.mark.parametrize(("cipher", "empty"), [("aes128-gcm@openssh.com", False), ("aes128-ctr", True)])
    async def test_empty_packets_go_before_others_only_where_the_cipher_needs_them(
        self, sshd, cipher: str, empty: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import asyncssh.connection

        kinds: list[int] = []
        log = asyncssh.connection.SSHConnection.log_sent_packet
        monkeypatch.setattr(
            asyncssh.connection.SSHConnection,
            "log_sent_packet",
            lambda self, kind, *rest: (kinds.append(kind), log(self, kind, *rest)),
        )
        monkeypatch.setattr("annexpy.transport.ssh.CIPHERS", (cipher,))
        async with dialled(DialSSH(sshd.host, "cat")) as cat:
            kinds.clear()
            await cat.send(b"meow\n")
            assert await cat.receive() == b"meow\n"
        assert (2 in kinds) is empty

    @pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"])
    async def test_keys_are_exchanged_again_and_bytes_compressed_with_packets_left_out(
        self, sshd, cipher: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import asyncssh.connection

        exchanges: list[int] = []
        log = asyncssh.connection.SSHConnection.log_sent_packet

        def logged(self: object, kind: int, *rest: object) -> None:
            if kind == asyncssh.constants.MSG_NEWKEYS:
                exchanges.append(kind)
            log(self, kind, *rest)

        monkeypatch.setattr(asyncssh.connection.SSHConnection, "log_sent_packet", logged)
        options = ssh_module._options

        def with_rekeying(*given: object) -> dict[str, object]:
            compressed = {"compression_algs": ["zlib@openssh.com"], "rekey_bytes": 100_000}
            return options(*given) | compressed | {"encryption_algs": [cipher]}

        monkeypatch.setattr(ssh_module, "_options", with_rekeying)
        body = os.urandom(1_000_000) + bytes(1_000_000)
        async with dialled(DialSSH(sshd.host, "cat")) as cat, anyio.create_task_group() as tasks:
            assert cat._channel.get_extra_info("send_compression") == "zlib@openssh.com"  # type: ignore[attr-defined]
            tasks.start_soon(cat.send, body)
            with anyio.fail_after(30):
                assert await receive_exactly(cat, len(body)) == body
            for _ in range(50):
                await cat.send(b"small")
                assert await receive_exactly(cat, 5) == b"small"
        assert len(exchanges) > 3

    async def test_what_is_said_in_one_turn_goes_out_in_one_write(self, sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        writes: list[int] = []
        join = ssh_library._Together._flush

        def counted(self: ssh_library._Together) -> None:
            writes.append(len(self._packets))
            join(self)

        monkeypatch.setattr(ssh_library._Together, "_flush", counted)
        dial = DialSSH(sshd.host, "cat")
        async with dialled(dial) as one, dialled(dial) as two:
            await anyio.sleep(0.05)
            writes.clear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.send, b"one")
                tasks.start_soon(two.send, b"two")
            assert await receive_exactly(one, 3) == b"one"
            assert await receive_exactly(two, 3) == b"two"
        assert writes[0] == 2

    @pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the system has no such option")
    async def test_what_comes_is_acknowledged_at_once_until_the_channels_are_open(
        self, sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted: list[object] = []
        ask = TransportSocket.setsockopt

        def asked(self: TransportSocket, *option: int) -> None:
            wanted.append(option)
            ask(self, *option)

        monkeypatch.setattr(TransportSocket, "setsockopt", asked)
        dial, at_once = DialSSH(sshd.host, "cat"), (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        async with AsyncExitStack() as open_:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(open_.enter_async_context, dialled(dial))
            assert wanted.count(at_once) > 1
            wanted.clear()
            async with dialled(dial) as cat:
                assert at_once in wanted
                wanted.clear()
                await cat.send(b"body")
                assert await receive_exactly(cat, 4) == b"body"
        assert at_once not in wanted

    async def test_a_wait_ends_when_its_time_is_over_and_the_next_has_a_time_of_its_own(self, sshd) -> None:
        async with dialled(DialSSH(sshd.host, "cat")) as cat:
            assert isinstance(cat, SSHTransport)
            with anyio.fail_after(30):
                for first, then in ((1000, 0.01), (0.01, 0.02)):
                    cat.within(first)
                    cat.within(then)
                    with pytest.raises(TimeoutError):
                        await cat.receive()
                cat.within(math.inf)
                await cat.send(b"meow")
                assert await receive_exactly(cat, 4) == b"meow"
        async with dialled(DialSSH(sshd.host, "sleep 1000")) as deaf:
            assert isinstance(deaf, SSHTransport)
            deaf.within(0.5)
            with anyio.fail_after(30), pytest.raises(TimeoutError):
                await pour(deaf)
            with pytest.raises(ConnectionLost, match="cancelled while sending"):
                await deaf.send(b"more")

    async def test_the_keepalive_is_not_set_anew_by_every_packet(self, sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        import asyncssh.connection

        timers: list[object] = []
        connection = asyncssh.connection.SSHConnection
        start = connection._set_keepalive_timer
        monkeypatch.setattr(connection, "_set_keepalive_timer", lambda self: (timers.append(self), start(self)))
        async with dialled(DialSSH(sshd.host, "cat")) as cat:
            assert timers
            timers.clear()
            for _ in range(500):
                await cat.send(b"meow")
                assert await receive_exactly(cat, 4) == b"meow"
        assert len(timers) < 250

    async def test_an_asyncssh_of_another_make_does_without_our_shortcuts(self) -> None:
        class Bare:
            __slots__ = ()

            def get_extra_info(self, name: str) -> str:
                return "aes128-gcm@openssh.com"

        ssh_library.write_together(Bare())
        ssh_library.leave_out_empty(Bare())
        ssh_library.open_when_read(Bare())
        ssh_library.keep_alive_cheaply(Bare())
        with ssh_library.acknowledging(Bare()):
            pass

    async def test_a_key_that_is_not_accepted_is_told_apart(self, sshd) -> None:
        stranger = (str(sshd.folder / "stranger"),)
        dial = DialSSH("127.0.0.1", "cat", user=sshd.user, port=sshd.port, identities=stranger)
        with pytest.raises(AuthFailed, match="Permission denied"):
            await dial()

    @pytest.mark.parametrize(
        "setting", ["", "UserKnownHostsFile none", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking no"]
    )
    async def test_an_unknown_host_is_refused_whatever_the_configuration_says(
        self, sshd, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text(
            f"Host unknown\n\tHostName 127.0.0.1\n\tPort {sshd.port}\n\tUser {sshd.user}\n"
            f"\tIdentityFile {sshd.identity}\n\t{setting}\n"
        )
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConnectFailed, match="host key"):
            await DialSSH("unknown", "cat")()

    async def test_a_host_that_nobody_answers_for_is_told(self) -> None:
        with pytest.raises(ConnectFailed, match=r"ssh://nowhere\.invalid"):
            await DialSSH("nowhere.invalid", "cat")()
        with pytest.raises(ConnectFailed, match=r"ssh://127\.0\.0\.1:1: Connection refused$"):
            await DialSSH("127.0.0.1", "cat", port=1)()

    async def test_a_host_that_says_nothing_is_given_up(self) -> None:
        async with await listen_tcp() as deaf:
            dial = DialSSH("127.0.0.1", "cat", port=int(deaf.address[1]), timeout=0.3)
            with pytest.raises(TimedOut, match=r"no ssh connection within 0\.3 s"):
                await dial()

    async def test_a_connection_that_breaks_ends_every_channel(self, sshd) -> None:
        async with dialled(DialSSH(sshd.host, "echo $PPID; cat")) as one, dialled(DialSSH(sshd.host, "cat")) as two:
            pid = int(await one.receive())
            os.kill(pid, 9)  # the server's process for this connection, which the fixture started
            with anyio.fail_after(5):
                assert await one.receive() == b""
                assert await two.receive() == b""
            assert "onnection" in two.complaint
        async with dialled(DialSSH(sshd.host, "echo again")) as transport:
            assert await transport.receive() == b"again\n"

    async def test_cancelling_a_dial_at_any_moment_leaves_nothing_behind(self, sshd) -> None:
        async with dialled(DialSSH(sshd.host, "cat")):
            pass
        before = len(os.listdir("/proc/self/fd"))
        for milliseconds in (0, 1, 3, 10, 20, 30, 40, 50, 60, 80):
            with anyio.move_on_after(milliseconds / 1000):
                transport = await DialSSH(sshd.host, "cat")()
                await transport.aclose()
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) == before
        async with dialled(DialSSH(sshd.host, "echo fine")) as transport:
            assert await transport.receive() == b"fine\n"

    async def test_each_event_loop_has_connections_of_its_own(self, sshd) -> None:
        async def once() -> bytes:
            async with dialled(DialSSH(sshd.host, "echo hello")) as transport:
                return await transport.receive()

        assert await once() == b"hello\n"
        assert await anyio.to_thread.run_sync(lambda: anyio.run(once)) == b"hello\n"


async def test_the_program_of_the_environment_is_run_by_a_shell(sshd, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = f"echo used >> '{log}'; ssh -F '{sshd.config}'"
    dial = DialSystemSSH(sshd.host, 'echo "it\'s fine"', program=(program,), shell=True)
    async with dialled(dial) as transport:
        assert isinstance(transport, Child)
        assert await receive_exactly(transport, 10) == b"it's fine\n"
    assert log.read_text() == "used\n"


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/owned", "", "a b", "a\nb"])
def test_what_ssh_would_take_for_an_option_is_no_host(host: str) -> None:
    with pytest.raises(InvalidInput, match="ssh host"):
        DialSSH(host, "cat")
    with pytest.raises(InvalidInput, match="ssh host"):
        DialSystemSSH(host, "cat")
    with pytest.raises(InvalidInput, match="ssh user"):
        DialSSH("host", "cat", user="-l root")


def test_a_dial_is_a_value_that_pickles() -> None:
    for dial in (DialSSH("h", "cat", "me", 22), DialSystemSSH("h", "cat", "me", 22)):
        assert pickle.loads(pickle.dumps(dial)) == dial
        assert str(dial) == "ssh://me@h:22"
    assert DialSystemSSH("h", "cat x", "me", 7).argv == ("ssh", "-p", "7", "-T", "me@h", "cat x")


def test_importing_asyncssh_runs_no_other_program() -> None:
    code = (
        "import sys\n"
        "sys.addaudithook(lambda event, args: sys.exit(f'{event} {args}') if event in ('subprocess.Popen', 'os.exec',"
        " 'os.posix_spawn', 'os.system') else None)\n"
        "import annexpy.transport.ssh, annexpy.transport.ssh_library as ssh\n"
        "assert 'asyncssh' not in sys.modules\n"
        "ssh.load_asyncssh()\n"
        "import ctypes.util\n"
        "assert ctypes.util.find_library.__module__ == 'ctypes.util'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
