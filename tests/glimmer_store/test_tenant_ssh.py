"""Who may do what over ssh on a server of tenants: every command × every way to write a path × everybody with a key.

What should come of each is said here once more, by itself; a command of the server without a line here fails.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import asyncssh
import pytest
from hosting import Server

import annexpy as annex
from annexpy.server.shell import COMMANDS, GIT_COMMANDS
from glimmer_store.tenant import Access

PEOPLE = {"reader": Access.READ_ONLY, "adder": Access.APPEND_ONLY, "writer": Access.WRITE}
CLIENT = "c8bf4a10-0000-4000-8000-000000000001"
KEY = "SHA256E-s5--2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # hello
ABSENT = "SHA256E-s1--" + "0" * 64
SECONDS = 120

# -- what is asked: words with PATH, what is said then, and what is answered to who may: 1 read, 2 append, 3 write ----

P2P = f"git-annex-shell p2pstdio PATH {CLIENT} --uuid UUID"
ASKED: dict[str, tuple[str, bytes, int, bytes]] = {
    "configlist": ("git-annex-shell configlist PATH", b"", 1, b"annex.uuid=UUID"),
    "inannex": (f"git-annex-shell inannex PATH {KEY}", b"", 1, b""),
    "git-upload-pack": ("git-upload-pack PATH", b"0000", 1, b"refs/heads/git-annex"),
    "git upload-pack": ("git upload-pack PATH", b"0000", 1, b"refs/heads/git-annex"),
    "git-upload-archive": ("git-upload-archive PATH", b"0017argument git-annex\n0000", 1, b"ACK"),
    "git-receive-pack": ("git-receive-pack PATH", b"0000", 2, b"report-status"),
    "p2pstdio": (P2P, b"", 1, b"AUTH-SUCCESS UUID"),
    "p2pstdio CHECKPRESENT": (P2P, b"VERSION 1\nCHECKPRESENT %b\n" % KEY.encode(), 1, b"\nSUCCESS"),
    "p2pstdio GET": (P2P, b"VERSION 1\nGET 0  %b\n" % KEY.encode(), 1, b"DATA 5\nhello"),
    "p2pstdio PUT": (P2P, b"VERSION 1\nPUT  %b\n" % ABSENT.encode(), 2, b"\nPUT-FROM 0"),
    "p2pstdio REMOVE": (P2P, b"VERSION 1\nREMOVE %b\n" % ABSENT.encode(), 3, b"\nSUCCESS"),
}
WRITTEN = ("configlist", "git-upload-pack")
"""Asked for with every way to write the path."""
LEVEL = {"reader": 1, "adder": 2, "writer": 3}
UNKNOWN = [
    "sh -c id",
    "scp -t PATH",
    "rsync --server . PATH",
    "git-annex-shell notifychanges PATH",
    "configlist PATH",
    "cat PATH/config",
    "git-shell",
    "",
]


class Hosted:
    """A running server with the tenants ``alice`` (three people) and ``bob``, and what may be called one's own."""

    def __init__(self, server: Server) -> None:
        self.server, folder = server, server.folder
        tenants = server.tenants
        self.alice = tenants.create("alice", repositories=["one"])
        self.bob = tenants.create("bob", repositories=["two"])
        tenants.create("carol", repositories=["one"])
        self.keys = {name: self._key("alice", access) for name, access in PEOPLE.items()}
        self.keys |= {"bob": self._key("bob", Access.WRITE), "carol": self._key("carol", Access.WRITE)}
        self.keys["stranger"] = asyncssh.generate_private_key("ssh-ed25519")
        self.own, self.other = self.alice.repositories[0], self.bob.repositories[0]
        for held in (self.own, self.other):
            anyio.run(_store, held.path)
        anyio.run(self._until_known)
        home = self.own.path.parent
        (home / "link.git").symlink_to(self.other.path)
        (home / "self.git").symlink_to(self.own.path)
        (home / "root").symlink_to("/")
        mine, theirs = str(self.own.path), str(self.other.path)
        self.mine = ["/one", "one", "/one.git", "one.git/", "~/one", "/~/one.git", "/self", mine, f"{mine}/"]
        self.not_mine = [
            *("/two", "two.git", "/bob/two", theirs, "../bob/two.git", "/one/../../bob/two.git", "/link", "link.git"),
            *("/link.git/", "/root/etc", f"/root{theirs}", "~bob/two", "/~bob/two", str(folder), str(home), "/", ""),
            *(".", "..", "/one.git/hooks", "/one.git/objects", f"{mine}/../one.git", "/nowhere", "--help", "-one"),
            *("/one\n", "/one\0", "$HOME/one", "/one;id", "`id`", f"/{self.other.uuid}", "//etc/passwd", "x" * 5000),
        ]

    def _key(self, tenant: str, access: Access) -> asyncssh.SSHKey:
        key = asyncssh.generate_private_key("ssh-ed25519")
        public = key.export_public_key().decode().strip()
        self.server.tenants.accept(self.server.tenants.invite(tenant, access=access), label="x", ssh_key=public)
        return key

    async def _until_known(self) -> None:
        """The server looks for new keys now and then; when the last one is let in, all are."""
        with anyio.fail_after(SECONDS):
            while True:
                with suppress(asyncssh.PermissionDenied):
                    async with self.login("carol"):
                        return
                await anyio.sleep(0.1)

    @asynccontextmanager
    async def login(self, who: str) -> AsyncIterator[asyncssh.SSHClientConnection]:
        at = urlsplit(self.server.ssh)
        async with asyncssh.connect(
            *(at.hostname, at.port), known_hosts=None, client_keys=[self.keys[who]], config=None, username="git"
        ) as connection:
            yield connection


async def _store(path: Path) -> None:
    with annex.Repository.open(path) as repository:
        local = annex.Local(repository)
        try:
            await annex.put(local, annex.Key.parse(KEY), b"hello")
        finally:
            await local.aclose()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    server = Server(tmp_path_factory.mktemp("ssh") / "server")
    try:
        yield Hosted(server)
    finally:
        server.stop()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ended(connection: asyncssh.SSHClientConnection, command: str, given: bytes) -> tuple[int, bytes, str]:
    """Exit code, what was said, and what was complained of."""
    async with connection.create_process(command, encoding=None) as process:
        with suppress(BrokenPipeError):  # it has ended without listening
            process.stdin.write(given)
            process.stdin.write_eof()
        done = await process.wait(check=False, timeout=SECONDS)
        return done.exit_status, bytes(done.stdout), bytes(done.stderr).decode()


def test_every_command_of_the_server_has_a_line_here() -> None:
    assert {asked.split(" ")[0] for asked in ASKED} - {"git"} == {*COMMANDS, *GIT_COMMANDS}


@pytest.mark.anyio
@pytest.mark.parametrize("who", PEOPLE)
async def test_people_of_a_tenant_do_what_they_may_in_their_own_repositories(hosted: Hosted, who: str) -> None:
    wrong = []
    async with hosted.login(who) as connection:
        for name, (words, given, level, answer) in ASKED.items():
            for path in hosted.mine if name in WRITTEN else hosted.mine[:1]:
                command = words.replace("PATH", shlex.quote(path)).replace("UUID", hosted.own.uuid)
                code, said, complaint = await ended(connection, command, given)
                did = answer.replace(b"UUID", hosted.own.uuid.encode()) in said and (answer != b"" or code == 0)
                if did is not (LEVEL[who] >= level) or (not did and not (complaint or b"ERROR" in said)):
                    wrong.append((name, path, code, said[:200], complaint))
    assert not wrong


@pytest.mark.anyio
async def test_what_is_not_theirs_looks_as_if_it_were_not_there(hosted: Hosted) -> None:
    wrong = []
    async with hosted.login("writer") as connection:
        for name in ("configlist", "inannex", "git-upload-pack", "git-receive-pack", "git-upload-archive", "p2pstdio"):
            words, given, _, _ = ASKED[name]
            for path in hosted.not_mine:
                command = words.replace("PATH", shlex.quote(path)).replace("UUID", hosted.other.uuid)
                code, said, complaint = await ended(connection, command, given)
                expected = f"git-annex-shell: no repository {path!a} is served here\n\n"
                known = complaint == expected or path in ("", "--help", "-one")
                if code == 0 or said or not known or str(hosted.other.path) in complaint.replace(path, ""):
                    wrong.append((name, path[:80], code, said[:200], complaint[:200]))
    assert not wrong


@pytest.mark.anyio
async def test_a_uuid_that_is_elsewhere_is_none_of_theirs(hosted: Hosted) -> None:
    async with hosted.login("writer") as connection:
        told = []
        for uuid in (hosted.other.uuid, uuid4()):
            command = P2P.replace("PATH", "/one").replace("UUID", str(uuid))
            code, said, complaint = await ended(connection, command, ASKED["p2pstdio GET"][1])
            assert (code, said) == (1, b"")
            told.append(complaint.replace(str(uuid), "UUID"))
    assert told[0] == told[1]


@pytest.mark.anyio
async def test_nothing_else_is_run(hosted: Hosted) -> None:
    async with hosted.login("writer") as connection:
        for words in UNKNOWN:
            code, said, complaint = await ended(connection, words.replace("PATH", "/one"), b"")
            assert (code, said) == (1, b""), words
            assert "unrecognized command" in complaint or "bad parameters" in complaint, (words, complaint)
    assert not (hosted.own.path / "id").exists()


@pytest.mark.anyio
async def test_a_stranger_and_people_of_a_suspended_tenant_are_not_let_in_and_those_inside_are_put_out(
    hosted: Hosted,
) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with hosted.login("stranger"):
            pass
    async with hosted.login("carol") as connection:
        assert (await ended(connection, "git-annex-shell configlist /one", b""))[0] == 0
        hosted.server.tenants.suspend("carol")
        with anyio.fail_after(SECONDS):
            await connection.wait_closed()
    with pytest.raises(asyncssh.PermissionDenied):
        async with hosted.login("carol"):
            pass
    hosted.server.tenants.resume("carol")
    with anyio.fail_after(SECONDS):
        while True:
            try:
                async with hosted.login("carol") as connection:
                    assert (await ended(connection, "git-annex-shell configlist /one", b""))[0] == 0
                    return
            except asyncssh.PermissionDenied:
                await anyio.sleep(0.1)  # the server looks at its state twice a second
