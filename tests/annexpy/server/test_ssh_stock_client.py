"""The stock git-annex, git and OpenSSH as clients of ``annexpy serve --ssh``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from places import Place

from annexpy.actions import cluster as clusters
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[3]
LARGE = bytes(range(256)) * 4000


class Served:
    """A running server, the keys of its clients, and how to reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authorized = folder / "authorized_keys"
        self.authorized.touch(mode=0o600)
        self.known = folder / "known_hosts"
        self.lines: list[str] = []
        self.process: subprocess.Popen[str]
        self.port = 0

    def admit(self, name: str, options: str = "") -> None:
        """Make a key for *name*, and let it in."""
        identity = self.folder / name
        if not identity.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(identity)], check=True)
        with self.authorized.open("a") as file:
            file.write(f"{options} {identity.with_suffix('.pub').read_text()}".lstrip())

    def ssh(self, name: str) -> str:
        return (
            f"ssh -F none -i {self.folder / name} -o IdentitiesOnly=yes -o UserKnownHostsFile={self.known}"
            " -o StrictHostKeyChecking=yes -o BatchMode=yes"
        )

    def start(self, *args: str) -> None:
        command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from annexpy.cli.app import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", command, "serve", "--ssh", "127.0.0.1:0"),
                *("--authorized-keys", str(self.authorized), *args),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        match = re.search(r"ssh://127\.0\.0\.1:(\d+)/", line)
        assert match, line + self.process.stderr.read()
        self.port = int(match[1])
        self.known.write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'ssh_host_ed25519_key.pub').read_text()}")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def url(self, path: str) -> str:
        return f"ssh://anybody@127.0.0.1:{self.port}/{path}"

    def run(self, name: str, *command: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """*command* by OpenSSH."""
        argv = [*self.ssh(name).split(), "-p", str(self.port), "anybody@127.0.0.1", *command]
        return subprocess.run(argv, capture_output=True, input=said, check=False, timeout=30)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Served(folder)
    yield server
    if server.process.poll() is None:
        server.stop()


class Work:
    """A work tree of the real git-annex."""

    def __init__(self, path: Path, served: Served, name: str) -> None:
        self.path = path
        self.env = os.environ | {"GIT_SSH_COMMAND": served.ssh(name), "GIT_ANNEX_USE_GIT_SSH": "1"}

    def git(self, *argv: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["git", *argv],
            cwd=self.path if self.path.exists() else self.path.parent,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert (done.returncode != 0) == fails, (argv, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout + done.stderr

    def annex(self, *argv: str, fails: bool = False) -> str:
        return self.git("annex", *argv, fails=fails)


def bare(path: Path) -> Repository:
    return Repository.init(path, bare=True, description=path.name)


def test_git_annex_works_as_with_its_own_server(served: Served, tmp_path: Path, git_annex: str) -> None:
    with bare(tmp_path / "lab.git") as lab:
        served.admit("alice")
        served.start(str(tmp_path / "lab.git"))
        work = Work(tmp_path / "work", served, "alice")

        work.git("clone", "-q", served.url("lab"), "work")
        work.annex("init", "-q", "work")
        (work.path / "large").write_bytes(LARGE)
        (work.path / "small").write_bytes(b"small")
        work.annex("add", "-q", ".")
        work.git("commit", "-qm", "files")
        work.annex("sync", "-q", "--content", "origin")
        keys = [Key.parse(work.annex("lookupkey", name).strip()) for name in ("large", "small")]
        assert all(lab.content.present(key) for key in keys)
        work.annex("drop", ".")
        work.annex("get", "-J2", ".")
        assert (work.path / "large").read_bytes() == LARGE
        work.annex("fsck", "-q", "--from", "origin", ".")
        work.annex("move", "--to", "origin", "small")
        work.annex("move", "--from", "origin", "small")
        work.annex("sync", "-q", "origin")
        assert [lab.content.present(key) for key in keys] == [True, False]
        work.annex("copy", "--to", "origin", "small")
        work.annex("drop", "--from", "origin", "large")
        assert [lab.content.present(key) for key in keys] == [False, True]

        again = Work(tmp_path / "again", served, "alice")
        again.git("clone", "-q", served.url("lab"), "again")
        again.annex("init", "-q", "again")
        again.annex("get", "small")
        assert "[origin]" in again.annex("whereis", "small")
        assert served.stop() == 0
    assert any("git-receive-pack" in line and " alice ssh " in line for line in served.lines)


def test_read_only_and_append_only_keys_can_do_no_more(served: Served, tmp_path: Path, git_annex: str) -> None:
    with bare(tmp_path / "lab.git") as lab:
        served.admit("writer")
        served.admit("reader", 'environment="GIT_ANNEX_SHELL_READONLY=1"')
        served.admit(
            "adder", r'restrict,command="GIT_ANNEX_SHELL_APPENDONLY=1 annexpy-shell -c \"$SSH_ORIGINAL_COMMAND\""'
        )
        served.admit("limited", 'environment="GIT_ANNEX_SHELL_LIMITED=1"')
        served.start(str(tmp_path / "lab.git"))
        work = Work(tmp_path / "work", served, "writer")
        work.git("clone", "-q", served.url("lab"), "work")
        work.annex("init", "-q", "work")
        for name in "abc":
            (work.path / name).write_bytes(name.encode())
        work.annex("add", "-q", ".")
        work.git("commit", "-qm", "files")
        work.annex("sync", "-q", "origin")
        work.annex("copy", "--to", "origin", "a")
        a, b, c = (Key.parse(work.annex("lookupkey", name).strip()) for name in "abc")

        work.env["GIT_SSH_COMMAND"] = served.ssh("reader")
        work.annex("drop", "a")
        work.annex("get", "a")
        work.git("fetch", "-q", "origin")
        work.annex("copy", "--to", "origin", "b", fails=True)
        work.annex("drop", "--from", "origin", "a", fails=True)
        assert "read-only" in work.git("push", "origin", "HEAD:refs/heads/other", fails=True)
        assert (lab.content.present(a), lab.content.present(b)) == (True, False)

        work.env["GIT_SSH_COMMAND"] = served.ssh("adder")
        work.annex("copy", "--to", "origin", "b")
        work.annex("drop", "--from", "origin", "a", "b", fails=True)
        assert (lab.content.present(a), lab.content.present(b)) == (True, True)
        work.git("commit", "-q", "--allow-empty", "-m", "more")
        work.git("push", "-q", "origin", "HEAD:refs/heads/other")
        work.git("push", "origin", "HEAD~1:refs/heads/other", fails=True)
        work.git("push", "-f", "origin", "HEAD~1:refs/heads/other", fails=True)
        work.git("push", "origin", ":refs/heads/other", fails=True)
        assert "only branches" in work.git("push", "origin", "HEAD:refs/replace/" + "a" * 40, fails=True)

        work.env["GIT_SSH_COMMAND"] = served.ssh("limited")
        work.git("fetch", "origin", fails=True)
        work.annex("copy", "--to", "origin", "c")
        assert lab.content.present(c)


def test_nothing_but_the_commands_is_to_be_had(served: Served, tmp_path: Path) -> None:
    with bare(tmp_path / "lab.git"):
        served.admit("alice")
        served.admit("stranger")
        lines = served.authorized.read_text().splitlines()
        served.authorized.write_text(lines[0] + "\n")
        served.start(str(tmp_path / "lab.git"))

        assert b"Permission denied" in served.run("stranger", "git-annex-shell configlist /lab").stderr
        assert b"annex.uuid=" in served.run("alice", "git-annex-shell 'configlist' '/lab'").stdout
        for command in ("ls", "git-annex-shell -c 'ls'", "git-annex-shell sendkey /lab x", "git gc /lab", ""):
            done = served.run("alice", *filter(None, [command]))
            assert done.returncode == 1, (command, done)
            assert done.stdout == b""
            assert b"annex" in done.stderr
        for options in ("-N -R 0:127.0.0.1:22", "-tt", "-s", "-W 127.0.0.1:22"):
            argv = [*served.ssh("alice").split(), "-o", "ExitOnForwardFailure=yes", *options.split()]
            argv += ["-p", str(served.port), "anybody@127.0.0.1", *(["sftp"] if options == "-s" else [])]
            done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=30)
            assert done.returncode != 0, options


def test_nobody_leaves_the_root(served: Served, tmp_path: Path) -> None:
    root, other = tmp_path / "srv" / "alice", tmp_path / "srv" / "bob"
    for folder in (root, other):
        folder.mkdir(parents=True)
        bare(folder / "lab.git").close()
    bare(tmp_path / "outside.git").close()
    bare(root / "lab.git" / "annex" / "inner.git").close()
    (root / "out.git").symlink_to(other / "lab.git")
    (root / "far.git").symlink_to(tmp_path / "outside.git")
    (root / "plain").mkdir()
    served.admit("alice", f'environment="ANNEXPY_ROOT={root}"')
    served.admit("carol", f'environment="GIT_ANNEX_SHELL_DIRECTORY={root / "lab.git"}"')
    served.admit("admin")
    served.start(str(tmp_path / "srv"))
    with Repository.open(root / "lab.git") as lab:
        uuid = lab.uuid.encode()

    def found(who: str, path: object) -> bool:
        done = served.run(who, f"git-annex-shell 'configlist' '{path}'")
        assert (b"annex.uuid=" in done.stdout) == (done.returncode == 0), done
        if done.returncode:
            assert b"is served here" in done.stderr
        else:
            assert served.run(who, f"git-upload-pack '{path}'", said=b"0000").returncode == 0
        return uuid in done.stdout

    for path in ("lab", "/lab.git", "/~/lab.git", "~/lab", "lab.git/", root / "lab.git"):
        assert found("alice", path), path
    for path in (
        *("../bob/lab.git", "/../bob/lab.git", "lab.git/../../bob/lab.git", "~bob/lab.git", "", "/", ".", "~"),
        *("out", "/out.git", "far.git", "plain", "lab.git/annex", "lab.git/annex/inner.git", "bob/lab", "nothing"),
        *(other / "lab.git", tmp_path / "outside.git", root / "out.git", root, "lab\\x00.git", "lab.git\n"),
    ):
        assert not found("alice", path), path
    assert found("carol", root / "lab.git")
    assert found("carol", "alice/lab")
    assert not found("carol", other / "lab.git")
    assert not found("carol", "bob/lab")
    assert found("admin", "/alice/lab")
    assert served.run("admin", "git-annex-shell configlist /bob/lab").returncode == 0
    assert not found("admin", tmp_path / "outside.git")


def test_a_push_speaks_for_its_own_repositories_only(served: Served, tmp_path: Path, git_annex: str) -> None:
    with bare(tmp_path / "lab.git") as lab:
        served.admit("writer")
        served.start(str(tmp_path / "lab.git"))
        works = [Work(tmp_path / name, served, "writer") for name in ("alice", "bob")]
        for work in works:
            work.git("clone", "-q", served.url("lab"), work.path.name)
            work.annex("init", "-q", work.path.name)
            (work.path / work.path.name).write_bytes(work.path.name.encode())
            work.annex("add", "-q", ".")
            work.git("commit", "-qm", "files")
            work.annex("sync", "-q", "origin")
            work.annex("sync", "-q", "--content", "origin")
        alice, bob = works
        uuids = [work.git("config", "annex.uuid").strip() for work in works]
        key = bob.annex("lookupkey", "bob").strip()
        marker = tmp_path / "hook-ran"
        hook = Path(os.fsdecode(lab.git_dir), "hooks", "pre-receive")
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ncat > '{marker}'\n")
        hook.chmod(0o755)
        served.authorized.write_text("")
        served.admit("tenant", f'environment="ANNEXPY_UUIDS={uuids[0]}"')
        served.process.send_signal(signal.SIGHUP)
        alice.env["GIT_SSH_COMMAND"] = served.ssh("tenant")

        # What a client does anyway goes through: contents, their locations here and there, and the files.
        alice.annex("get", ".")
        (alice.path / "more").write_bytes(b"more")
        alice.annex("add", "-q", ".")
        alice.git("commit", "-qm", "more")
        alice.annex("move", "--to", "origin", "more")
        alice.annex("drop", "--from", "origin", "alice")
        alice.annex("fsck", "-q", "--from", "origin")
        alice.annex("describe", "here", "my own")
        alice.annex("sync", "origin")
        assert marker.read_text().endswith("git-annex\n")
        assert alice.git("rev-parse", "git-annex").strip() == lab.branch.tip

        # What is about bob does not, nor what holds for all, and then nothing of the push is there.
        def refused(because: str, *argv: str) -> None:
            refs = lab_git("for-each-ref")
            objects = lab_git("count-objects", "-v")
            tip = alice.git("rev-parse", "git-annex").strip()
            marker.unlink(missing_ok=True)
            alice.annex(*argv)
            alice.git("annex", "merge", "-q")
            said = alice.git("push", "origin", "git-annex", "HEAD:refs/heads/new", fails=True)
            assert "refused: refs/heads/git-annex: " in said
            assert because in said
            said = alice.git("push", "origin", "git-annex:refs/heads/synced/git-annex", fails=True)
            assert because in said
            assert lab_git("for-each-ref") == refs
            assert lab_git("count-objects", "-v") == objects
            assert not marker.exists()
            alice.git("update-ref", "refs/heads/git-annex", tip)
            (alice.path / ".git/annex/index").unlink()

        def lab_git(*argv: str) -> str:
            return subprocess.run(["git", *argv], cwd=tmp_path / "lab.git", capture_output=True, text=True).stdout

        refused(uuids[1], "setpresentkey", key, uuids[1], "0")
        refused(str(lab.uuid), "setpresentkey", key, str(lab.uuid), "0")
        refused(uuids[1], "describe", uuids[1], "mine")
        refused("all repositories", "numcopies", "5")
        refused("all repositories", "untrust", "here")
        said = alice.git("push", "-f", "origin", "HEAD:refs/heads/git-annex", fails=True)
        assert "merge first" in said
        assert "deleted" in alice.git("push", "origin", ":refs/heads/git-annex", fails=True)
        assert [*map(str, lab.branch.locations(Key.parse(key)).present)].count(uuids[1]) == 1


def test_a_key_that_is_taken_away_loses_its_connection(served: Served, tmp_path: Path) -> None:
    with bare(tmp_path / "lab.git") as lab:
        served.admit("alice")
        served.admit("bob")
        served.start(str(tmp_path / "lab.git"))
        sessions = []
        for name in ("alice", "bob"):
            argv = [*served.ssh(name).split(), "-p", str(served.port), "anybody@127.0.0.1"]
            argv.append(f"git-annex-shell 'p2pstdio' '/lab' '{lab.uuid}' --uuid {lab.uuid}")
            session = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            assert session.stdout is not None
            assert session.stdout.readline() == f"AUTH-SUCCESS {lab.uuid}\n"
            sessions.append(session)
        alice, bob = sessions

        served.authorized.write_text(served.authorized.read_text().splitlines()[1] + "\n")
        served.process.send_signal(signal.SIGHUP)

        alice.wait(timeout=60)  # with its stdin open: at the end of that it would leave by itself
        assert alice.communicate()[0] == ""
        assert alice.returncode == 255
        assert b"Permission denied" in served.run("alice", "git-annex-shell configlist /lab").stderr
        assert bob.stdin is not None
        assert bob.stdout is not None
        bob.stdin.write("VERSION 2\n")
        bob.stdin.flush()
        assert bob.stdout.readline() == "VERSION 2\n"
        # And who has asked for nothing does not hold up the end.
        assert served.stop() == 0
        bob.communicate(timeout=10)


def test_a_git_repository_becomes_an_annex_when_git_annex_pushes_to_it(served: Served, tmp_path: Path) -> None:
    plain = tmp_path / "srv" / "plain.git"
    subprocess.run(["git", "init", "-q", "--bare", str(plain)], check=True)
    served.admit("alice")
    served.start(str(tmp_path / "srv"))

    configlist = "git-annex-shell 'configlist' '/plain'"
    assert served.run("alice", configlist).stdout.startswith(b"annex.uuid=\n")
    p2p = served.run("alice", "git-annex-shell 'p2pstdio' '/plain' '11111111-2222-4333-8444-555555555555'")
    assert (p2p.returncode, p2p.stdout) == (1, b"")
    work = Work(tmp_path / "work", served, "alice")
    work.git("clone", "-q", served.url("plain"), "work")
    with Repository.init(work.path):
        pass
    work.git("push", "-q", "origin", "git-annex")

    with_uuid = served.run("alice", configlist).stdout
    with Repository.open(plain) as made:
        assert with_uuid.startswith(f"annex.uuid={made.uuid}\n".encode())


def test_the_stock_client_finds_nodes_and_clusters_behind_it(served: Served, tmp_path: Path, git_annex: str) -> None:
    gateway = Place.make(tmp_path / "gate")
    nodes = {name: Place.make(tmp_path / name) for name in ("n1", "n2")}
    for name, node in nodes.items():
        gateway.set(f"remote.{name}.url", str(node.path))
        gateway.set(f"remote.{name}.annex-uuid", node.uuid)
        gateway.set(f"remote.{name}.annex-cluster-node", "safe")
        gateway.set(f"remote.{name}.annex-proxy", "true")

    async def configure() -> None:
        with Repository.open(gateway.path) as repository:
            await clusters.init(repository, "safe")
            await clusters.update(repository)

    anyio.run(configure)
    served.admit("alice")
    served.start(str(gateway.path))
    work = Work(tmp_path / "work", served, "alice")
    work.git("clone", "-q", served.url("gate"), "work")
    work.annex("init", "-q", "work")
    (work.path / "a").write_bytes(LARGE)
    work.annex("add", "-q", "a")
    work.git("commit", "-qm", "a")
    work.annex("sync", "-q", "origin")
    key = Key.parse(work.annex("lookupkey", "a").strip())

    work.annex("copy", "--to", "origin-safe", "a")
    work.annex("drop", "a")
    work.annex("get", "a", "--from", "origin-n2")
    work.annex("drop", "--from", "origin-n1", "a")

    assert [node.holds(key, LARGE) for node in nodes.values()] == [False, True]
    assert served.stop() == 0
    own = work.git("config", "annex.uuid").strip()  # which synced before it dropped
    assert gateway.logged([key]) == {key: {nodes["n2"].uuid, own}}
