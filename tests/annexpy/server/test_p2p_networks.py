"""``p2p-annex::`` addresses, both ways, with the real git-annex: ours serves, and ours asks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import AuthFailed, InvalidInput
from annexpy.keys.key import Key
from annexpy.remote.connect import connect
from annexpy.repo.p2p_networks import P2PAddress, own_addresses, parse_p2p_address, token_for
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop
SECONDS = 20


class Net:
    """Two repositories that a network could connect; programs that do are in PATH."""

    def __init__(self, top: Path, git_annex: str) -> None:
        self.top = top
        for name in ("bin", "net"):
            (top / name).mkdir()
        program = top / "bin" / "git-annex-p2p-test"
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("git_annex_p2p_test.py")} "$@"\n'
        )
        program.chmod(0o755)
        (top / "bin" / "git-remote-p2p-annex").symlink_to(git_annex)
        path = f"{top / 'bin'}:{Path(git_annex).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.variables = {"PATH": path, "P2P_TEST_NET": str(top / "net")}
        self.srv, self.cl = top / "srv", top / "cl"

    def fill(self) -> None:
        """Make the two repositories."""
        self.made("srv")
        self.made("cl")
        self.annex(self.srv, "p2p", "--enable", "test")

    def made(self, name: str) -> None:
        folder = self.top / name
        self.run(self.top, "git", "init", "-q", "-b", "main", name)
        self.annex(folder, "init", name)
        (folder / name).write_text(f"content of {name}\n" * 2000)
        self.annex(folder, "add", "-q", name)
        self.run(folder, "git", "commit", "-qm", name)

    def run(self, folder: Path, *words: str, stdin: str = "", ok: bool = True) -> str:
        done = subprocess.run(
            words,
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, **self.variables},
        )
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def annex(self, folder: Path, *words: str, stdin: str = "", ok: bool = True) -> str:
        return self.run(folder, "git", "annex", *words, stdin=stdin, ok=ok)

    def key(self, name: str) -> Key:
        return Key.parse(self.annex(self.top / name, "lookupkey", name).strip().encode())

    def address(self) -> str:
        said = self.annex(self.srv, "p2p", "--gen-addresses")
        return next(line for line in said.splitlines() if line.startswith("p2p-annex::"))

    def link(self) -> None:
        self.annex(self.cl, "p2p", "--link", "--name", "peer", stdin=self.address() + "\n")

    def serving(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words,
            cwd=self.srv,
            env={**os.environ, **self.variables},
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        end = time.monotonic() + SECONDS
        while not os.path.exists(self.place) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.02)  # another process: its socket is the only sign of it
        return process

    @property
    def place(self) -> str:
        return str(self.top / "net" / "at-srv")

    def call(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(os.path.realpath(self.place))
        return sock


@pytest.fixture(scope="module")
def filled(git_annex: str, own_home: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = Net(tmp_path_factory.mktemp("net"), git_annex)
    net.fill()
    return net.top


@pytest.fixture
def net(git_annex: str, filled: Path) -> Iterator[Net]:
    with tempfile.TemporaryDirectory(prefix="p") as top:  # the path of a socket has to be short
        made = Net(Path(top), git_annex)
        for name in ("srv", "cl"):
            shutil.copytree(filled / name, Path(top, name), symlinks=True)
        yield made
        subprocess.run(["chmod", "-R", "u+w", top], check=True)


def end(process: subprocess.Popen[str]) -> None:
    """It and the network's program, which git-annex leaves behind."""
    assert process.stdin is not None
    process.stdin.close()
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(SECONDS)


@pytest.fixture
def ours(net: Net) -> Iterator[Net]:
    process = net.serving(sys.executable, "-m", "annexpy.cli.app", "--quiet", "serve", "--p2p")
    yield net
    end(process)


@pytest.fixture
def judging(net: Net) -> Iterator[Net]:
    """Pushes speak for the client alone."""
    mine = net.run(net.cl, "git", "config", "annex.uuid").strip()
    process = net.serving(sys.executable, "-m", "annexpy.cli.app", "--quiet", "serve", "--p2p", "--uuid", mine)
    yield net
    end(process)


@pytest.fixture
def theirs(net: Net) -> Iterator[Net]:
    process = net.serving("git", "annex", "remotedaemon", "--foreground")
    yield net
    end(process)


def line(sock: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        piece = sock.recv(1)
        assert piece, said
        said += piece
    return said


def let_in(net: Net) -> socket.socket:
    sock = net.call()
    sock.sendall(b"AUTH client " + net.address().rpartition(":")[2].encode() + b"\n")
    assert line(sock).startswith(b"AUTH-SUCCESS ")
    return sock


def test_the_stock_client_pairs_fetches_gets_copies_pushes_moves_and_syncs(ours: Net) -> None:
    ours.link()
    ours.run(ours.cl, "git", "fetch", "-q", "peer")
    ours.run(ours.cl, "git", "merge", "-q", "--allow-unrelated-histories", "-m", "both", "peer/main")
    ours.annex(ours.cl, "get", "srv")
    ours.annex(ours.cl, "copy", "--to", "peer", "cl")
    ours.annex(ours.cl, "drop", "cl")
    ours.annex(ours.cl, "move", "--from", "peer", "cl")
    ours.annex(ours.cl, "fsck", "--fast", "--from", "peer", "srv")
    ours.annex(ours.cl, "sync", "--no-content", "peer")
    assert "synced/main" in ours.run(ours.srv, "git", "branch")
    key = str(ours.key("srv"))
    assert len(re.findall(r"^\s+\S+ -- ", ours.annex(ours.srv, "whereis", "--key", key), re.MULTILINE)) == 2


def test_a_push_through_connect_speaks_for_the_repositories_it_may_only(judging: Net) -> None:
    net = judging
    net.link()
    net.run(net.cl, "git", "fetch", "-q", "peer")
    net.annex(net.cl, "merge", "-q")
    net.run(net.cl, "git", "push", "-q", "peer", "git-annex", "HEAD:refs/heads/theirs")

    def refused(because: str, *words: str) -> None:
        tip = net.run(net.cl, "git", "rev-parse", "git-annex").strip()
        before = net.run(net.srv, "git", "for-each-ref")
        net.annex(net.cl, *words)
        net.annex(net.cl, "merge", "-q")
        for ref in ("git-annex", "git-annex:refs/heads/synced/git-annex"):
            said = net.run(net.cl, "git", "push", "peer", ref, "HEAD:refs/heads/new", ok=False)
            assert "refused: refs/heads/" in said
            assert because in said
        assert net.run(net.srv, "git", "for-each-ref") == before
        net.run(net.cl, "git", "update-ref", "refs/heads/git-annex", tip)
        (net.cl / ".git/annex/index").unlink()

    other = "11111111-2222-4333-8444-555555555555"
    refused(other, "setpresentkey", str(net.key("srv")), other, "1")
    refused("all repositories", "numcopies", "5")
    assert "deleted" in net.run(net.cl, "git", "push", "peer", ":refs/heads/git-annex", ok=False)


def test_a_wrong_token_gets_auth_failure_and_nothing_else(ours: Net) -> None:
    ours.address()
    with ours.call() as sock:
        sock.sendall(b"AUTH client " + b"0" * 128 + b"\nCHECKPRESENT WORM--a\nCONNECT git-upload-pack\nNOTIFYCHANGE\n")
        assert line(sock) == b"AUTH-FAILURE\n"
        assert [line(sock) for _ in range(3)] == [b"ERROR unexpected command\n"] * 3
        sock.sendall(b"AUTH client " + ours.address().rpartition(":")[2].encode() + b"\n")
        assert line(sock).startswith(b"AUTH-SUCCESS ")


def test_a_session_lives_on_after_bad_input(ours: Net) -> None:
    with let_in(ours) as sock:
        sock.sendall(b"NONSENSE\nCONNECT sh\nCHECKPRESENT " + bytes(ours.key("srv")) + b"\n")
        assert [line(sock) for _ in range(3)] == [b"ERROR unknown command\n", b"ERROR unknown command\n", b"SUCCESS\n"]


@pytest.mark.alone
def test_a_push_is_told_within_a_second_and_once(ours: Net) -> None:
    with let_in(ours) as sock:
        sock.sendall(b"NOTIFYCHANGE\n")
        sock.settimeout(0.6)
        with pytest.raises(TimeoutError):
            line(sock)
        sock.settimeout(SECONDS)
        ours.run(ours.srv, "git", "branch", "new", "main")
        began = time.monotonic()
        assert line(sock).split() == [b"CHANGED", ours.run(ours.srv, "git", "rev-parse", "new").strip().encode()]
        assert time.monotonic() - began < 1
        # what happens before the client asks again is not missed
        ours.run(ours.srv, "git", "commit", "-q", "--allow-empty", "-m", "more")
        sock.sendall(b"NOTIFYCHANGE\n")
        assert line(sock).split()[1:] == [ours.run(ours.srv, "git", "rev-parse", "main").strip().encode()]
        sock.sendall(b"CHECKPRESENT " + bytes(ours.key("srv")) + b"\n")
        assert line(sock) == b"SUCCESS\n"


@pytest.mark.parametrize("server", ["ours", "theirs"])
def test_our_client_syncs_and_asks(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    net: Net = request.getfixturevalue(server)
    net.link()
    said = net.run(net.cl, sys.executable, "-m", "annexpy.cli.app", "sync", "peer")
    assert "fetched, sent" in said
    for name, value in net.variables.items():
        monkeypatch.setenv(name, value)
    import anyio

    async def ask() -> list[bool]:
        with Repository.open(net.cl) as repository:
            async with connect("peer", repository=repository) as peer:
                return [await peer.check_present(net.key("srv")), await peer.check_present(net.key("cl"))]

    assert anyio.run(ask) == [True, False]
    (net.cl / ".git" / "annex" / "creds" / "test%3Aat%2Dsrv").write_text("0" * 128)
    with pytest.raises(AuthFailed):
        anyio.run(ask)
    said = net.run(net.cl, sys.executable, "-m", "annexpy.cli.app", "sync", "peer", ok=False)
    assert "failed" in said
    assert "Traceback" not in said


def test_a_sync_asks_again_when_the_answer_to_its_push_was_cut_off(ours: Net) -> None:
    ours.link()
    mark = ours.top / "net" / "cut"
    mark.touch()
    said = ours.run(ours.cl, sys.executable, "-m", "annexpy.cli.app", "sync", "peer")
    assert "fetched, sent" in said
    assert not mark.exists()
    sent = ours.run(ours.cl, "git", "rev-parse", "git-annex")
    assert ours.run(ours.srv, "git", "rev-parse", "synced/git-annex") == sent


def test_addresses_and_tokens_are_where_git_annex_has_them(ours: Net) -> None:
    net = ours
    net.link()
    with Repository.open(net.srv) as repository:
        (address,) = own_addresses(repository.files)
        assert address == P2PAddress("test", "at-srv")
    with Repository.open(net.cl) as repository:
        assert token_for(repository.files, address) in (net.srv / ".git/annex/creds/p2pauth").read_text()


@pytest.mark.parametrize(
    "text", ["p2p-annex::", "p2p-annex::a", "p2p-annex::../x:y", "p2p-annex::a:-x", "p2p-annex::a:", "p2p-annex::a:b\n"]
)
def test_what_could_run_another_program_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_p2p_address(text)


def test_who_leaves_while_it_waits_for_changes_is_let_go(ours: Net) -> None:
    with let_in(ours) as sock:
        sock.sendall(b"NOTIFYCHANGE\n")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
