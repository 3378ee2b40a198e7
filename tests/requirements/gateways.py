"""Gateways, nodes and clients on one machine: our gateways, reached by the real git-annex as if over ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from places import CLIENT, OURS, ROOT, Place, content_of, key_of

from annexpy.actions import cluster as clusters
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.transport.pipe import DialCommand
from annexpy.uuids import UUID

__all__ = ["Gateways", "Session", "annexpy", "content_of", "git", "key_of"]

FAKE = Path(__file__).with_name("fake_node.py")
SSH = """#!/bin/sh
# What ssh does for git and git-annex, without a network: the command runs here.
for word in "$@"; do case "$word" in *@127.0.0.1) exec {openssh} "$@";; esac; done
while [ $# -gt 0 ]; do case "$1" in -o|-p|-S|-F|-i) shift 2;; -*) shift;; *) break;; esac; done
case "$1" in host-*) shift;; *) echo "ssh: no such host: $1" >&2; exit 255;; esac
while [ $# -gt 0 ]; do case "$1" in -o|-p|-S|-F|-i) shift 2;; -*) shift;; *) break;; esac; done
echo "$*" >> {log}
exec sh -c "$*"
"""
SHELL = """#!{python}
import sys
sys.path.insert(0, {root!r})
from annexpy.server.shell import main
sys.exit(main())
"""


def git(path: Path, *words: str, fails: bool = False) -> str:
    done = subprocess.run(
        ["git", *words], cwd=path, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert (done.returncode != 0) == fails, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout + done.stderr


def annexpy(path: Path, *words: object, fails: bool = False) -> str:
    """A command of ours."""
    done = subprocess.run(
        [sys.executable, "-m", "annexpy.cli.app", *map(str, words)],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict(OURS),
    )
    assert (done.returncode != 0) == fails, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


class Gateways:
    """A small world. Places have names of one letter or digit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, stock: bool = False) -> None:
        """With *stock*, the gateways are those of the real git-annex."""
        self.folder, self.stock = folder, stock
        self.places: dict[str, Place] = {}
        self.calls = folder / "ssh.log"
        self.openssh = folder / "openssh"
        """What goes through a network after all, if somebody makes it."""
        self.shell = "git-annex-shell" if stock else str(folder / "annexpy-shell")
        for name, text in (
            ("ssh", SSH.format(log=shlex.quote(str(self.calls)), openssh=shlex.quote(str(self.openssh)))),
            ("annexpy-shell", SHELL.format(python=sys.executable, root=str(ROOT))),
        ):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("GIT_SSH_COMMAND", str(folder / "ssh"))
        monkeypatch.setenv("GIT_ANNEX_USE_GIT_SSH", "1")
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def path(self, name: str) -> Path:
        return self.folder / name

    def place(self, name: str, contents: Iterable[bytes] = ()) -> Place:
        """A bare repository, made when it is first asked for."""
        if name not in self.places:
            self.places[name] = Place.make(self.path(name), contents)
        return self.places[name]

    def uuid(self, name: str) -> UUID:
        """Of a place, or of a cluster by its name."""
        if name in self.places:
            return self.places[name].uuid
        for place in self.places.values():
            done = subprocess.run(
                ["git", "config", f"annex.cluster.{name}"], cwd=place.path, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return UUID(done.stdout.strip())
        raise AssertionError(f"nobody knows {name}")

    def gateway(
        self, name: str, *, nodes: str = "", cluster: str = "", extends: str = "", proxied: bool = False
    ) -> Place:
        """A gateway with *nodes* on this machine, in *cluster*, or *proxied* one by one.

        One that *extends* another is a gateway of the same cluster, and both know of each other.
        """
        place = self.place(name)
        for node in nodes:
            git(place.path, "remote", "add", node, str(self.place(node).path))
            place.set(f"remote.{node}.annex-uuid", self.uuid(node))
            if proxied:
                place.set(f"remote.{node}.annex-proxy", "true")
        with Repository.open(place.path) as repository:
            if extends:
                self.connect(name, extends)
                self.connect(extends, name)
                self.learn(name, extends)
                repository.config.reload()
                anyio.run(partial(clusters.extend, repository, extends, cluster))
            elif cluster:
                anyio.run(clusters.init, repository, cluster)
            place.set("annexpy.deadline", "4")  # enough for what is only slow, on a machine that is busy
            repository.config.reload()
            if cluster and nodes:
                anyio.run(clusters.add_nodes, repository, cluster, [*nodes])
            else:
                anyio.run(clusters.update, repository)
        if extends:
            self.learn(extends, name)
            with Repository.open(self.path(extends)) as other:
                anyio.run(partial(clusters.extend, other, name, cluster))
            self.learn(name, extends)
        return place

    def connect(self, here: str, there: str) -> None:
        """*there* as a git remote of *here*, over ssh."""
        path = self.path(here)
        git(path, "remote", "add", there, f"ssh://host-{there}{self.path(there)}")
        git(path, "config", f"remote.{there}.annex-uuid", self.uuid(there))
        git(path, "config", f"remote.{there}.annex-shell", self.shell)

    def learn(self, here: str, there: str) -> None:
        """*here* gets what the branch of *there* says."""
        git(self.path(here), "fetch", "-q", str(self.path(there)), f"git-annex:refs/remotes/{there}/git-annex")
        with Repository.open(self.path(here)) as repository:
            repository.branch.merge_now()

    def link(self, one: str, other: str, cluster: str) -> None:
        """Two gateways of the same cluster come to know of each other."""
        for here, there in ((one, other), (other, one)):
            self.connect(here, there)
            self.learn(here, there)
            with Repository.open(self.path(here)) as repository:
                anyio.run(partial(clusters.extend, repository, there, cluster))

    def update(self, name: str) -> None:
        """What the configuration of a gateway says is recorded."""
        with Repository.open(self.path(name)) as repository:
            anyio.run(clusters.update, repository)

    def client(self, name: str, contents: Mapping[str, bytes], *, remotes: Sequence[str]) -> dict[str, Key]:
        """A work tree of the real git-annex; the keys of its files."""
        path = self.path(name)
        path.mkdir()
        git(path, "init", "-q")
        git(path, "annex", "init", "-q", name)
        for file, content in contents.items():
            (path / file).write_bytes(content)
        if contents:
            git(path, "annex", "add", "-q", *contents)
            git(path, "commit", "-qm", "files")
        self.places[name] = Place(path)
        for remote in remotes:
            self.connect(name, remote)
            self.fetch(path, remote)
        git(path, "annex", "merge", "-q")
        return {file: Key.parse(git(path, "annex", "lookupkey", file).strip()) for file in contents}

    def fetch(self, path: Path, remote: str) -> None:
        """The branches of *remote*, into the client at *path*."""
        git(path, "fetch", "-q", remote)

    # -- trouble ----------------------------------------------------------------------------------

    def spoil(self, gateway: str, node: str, fault: str, content: bytes = b"") -> Path:
        """Something is wrong with a node from now on; the file that lists what it was asked.

        ``gone``: its disk is away. ``refused``: nobody answers. ``read-only``, ``full``: so. Anything else is a
        fault of ``fake_node.py``, which then answers in the node's place.
        """
        place, log = self.places[gateway], self.folder / f"{node}.log"
        if fault == "gone":
            self.path(node).rename(self.path(f"{node}-is-away"))
            return log
        if fault == "full":
            self.places[node].set("annex.diskreserve", "9000 TB")
            return log
        host = "nowhere" if fault == "refused" else f"host-{node}"
        place.set(f"remote.{node}.url", f"ssh://{host}{self.path(node)}")
        script = self.folder / f"shell-{node}"
        if fault == "read-only":
            command = 'GIT_ANNEX_SHELL_READONLY=1 exec git-annex-shell "$@"'
        else:
            (self.folder / f"{node}.content").write_bytes(content)
            words = [sys.executable, "-S", str(FAKE), self.uuid(node), fault, str(log)]
            command = f"exec {shlex.join([*words, *([str(self.folder / f'{node}.content')] if content else [])])}"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
        place.set(f"remote.{node}.annex-shell", str(script))
        return log

    def fakes(self, node: str) -> list[int]:
        """The processes that answer in place of *node*."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(FAKE).encode() in words and str(self.folder / f"{node}.log").encode() in words:
                    found.append(int(entry.name))
        return found

    @contextmanager
    def over_http(self, gateway: str, client: str) -> Iterator[None]:
        """The client talks to the gateway over HTTP, except for git."""
        with subprocess.Popen(
            [sys.executable, "-m", "annexpy.cli.app", "serve", "--http", "127.0.0.1:0", "--wideopen", "."],
            cwd=self.path(gateway),
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(OURS),
        ) as server:
            try:
                assert server.stderr is not None
                told = server.stderr.readline()
                address = next(word for word in told.split() if word.startswith("http://")).split("/")[2]
                place = self.places[client]
                place.set(f"remote.{gateway}.annexurl", f"annex+http://{address}/git-annex/")
                place.set("annex.security.allowed-ip-addresses", "127.0.0.1")
                threading.Thread(target=server.stderr.read, daemon=True).start()
                yield
            finally:
                server.terminate()
                server.wait(20)

    # -- looking ----------------------------------------------------------------------------------

    def holders(self, key: Key, content: bytes) -> str:
        """Who has it, by the disks."""
        return "".join(sorted(name for name, place in self.places.items() if place.holds(key, content)))

    def letters(self, uuids: Iterable[str]) -> str:
        names = {place.uuid: name for name, place in self.places.items()}
        return "".join(sorted(names.get(UUID(uuid), f"<{uuid}>") for uuid in uuids))

    def logged(self, name: str, keys: Iterable[Key]) -> dict[Key, set[str]]:
        """Who has them by the branch of a place."""
        return self.places[name].logged(keys)

    def believed(self, name: str, key: Key) -> str:
        """Who has it by the branch of a place, by letters."""
        return self.letters(self.logged(name, [key])[key])

    def asked(self) -> list[str]:
        """The commands that went over ssh so far."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    # -- talking ----------------------------------------------------------------------------------

    def dial(self, gateway: str, target: str, *, env: Mapping[str, str] | None = None) -> DialCommand:
        """To *target*, a place or the name of a cluster, through our shell at *gateway*."""
        argv = (sys.executable, "-m", "annexpy.server.shell", "p2pstdio", str(self.path(gateway)), CLIENT)
        return DialCommand((*argv, "--uuid", self.uuid(target)), env=(*OURS, *(env or {}).items()), name=target)

    def talk(self, gateway: str, target: str, *, env: Mapping[str, str] | None = None) -> Session:
        """As ``dial``, to say lines by hand."""
        dialled = self.dial(gateway, target, env=env)
        process = subprocess.Popen(
            dialled.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | dict(dialled.env),
        )
        return Session(process)


class Session:
    """A conversation by hand. Every answer is awaited for as long as a test may last."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, *lines: str | bytes) -> None:
        assert self.process.stdin is not None
        for line in lines:
            self.process.stdin.write(line if isinstance(line, bytes) else line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line; "" when the server has left."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().removesuffix("\n")

    def ask(self, *lines: str | bytes) -> str:
        self.say(*lines)
        return self.hear()

    def greet(self, version: int = 4) -> None:
        assert self.hear().startswith("AUTH-SUCCESS ")
        if version:
            assert self.ask(f"VERSION {version}") == f"VERSION {version}"

    def read(self, length: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(length)

    def put(self, key: Key, content: bytes) -> str:
        """PUT, DATA from where it is wanted, VALID; the last answer."""
        answer = self.ask(f"PUT f {key}")
        if not answer.startswith("PUT-FROM "):
            return answer
        body = content[int(answer[9:]) :]
        return self.ask(f"DATA {len(body)}".encode() + b"\n" + body + b"VALID\n")

    def get(self, key: Key, offset: int = 0) -> tuple[bytes, str]:
        """GET; the bytes, and VALID or INVALID or why there are none."""
        answer = self.ask(f"GET {offset} f {key}")
        if not answer.startswith("DATA "):
            return b"", answer
        body = self.read(int(answer[5:]))
        valid = self.hear()
        self.say("SUCCESS")
        return body, valid

    def close(self) -> tuple[int, str]:
        """Leave; exit status and what was said on stderr."""
        if self.process.stderr is None or self.process.stderr.closed:
            return self.process.wait(60), ""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        self.process.stderr.close()
        return self.process.wait(60), said
