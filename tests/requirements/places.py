"""Real repositories, and the ways to reach one: in this process, through ``annexpy-shell``, over a unix socket."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.remote.base import Remote, Stored
from annexpy.remote.local import Local
from annexpy.remote.p2p import P2PRemote
from annexpy.repo.repository import Repository
from annexpy.transport.base import Dial, Transport
from annexpy.transport.pipe import DialCommand
from annexpy.transport.sockets import DialUnix
from annexpy.uuids import UUID

ROOT = Path(__file__).parents[2]
CLIENT = UUID("cccccccc-0000-4000-8000-000000000001")
SHELL = (sys.executable, "-m", "annexpy.server.shell")
OURS = (("PYTHONPATH", str(ROOT)), ("PYTHONDONTWRITEBYTECODE", "1"))

SERVER = """
import sys, anyio
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.server.limits import ServerMode
from annexpy.server.serve import serve
from annexpy.transport.sockets import listen_unix

async def main(path, socket, mode):
    with Repository.open(path) as repository:
        remote = Local(repository)
        async def one(transport):
            await serve(transport, remote, mode=ServerMode[mode], on_idle=repository.branch.commit)
        async with await listen_unix(socket) as listener:
            print("listening", flush=True)
            await listener.serve(one)

anyio.run(main, *sys.argv[1:])
"""


# -- contents -----------------------------------------------------------------------------------------------------


def content_of(number: int, size: int = 2048) -> bytes:
    """Some bytes that no other number gives."""
    return random.Random(number).randbytes(size)


def key_of(content: bytes) -> Key:
    return Key.parse(b"SHA256-s%d--%s" % (len(content), hashlib.sha256(content).hexdigest().encode()))


async def read(remote: Remote, key: Key, offset: int = 0) -> bytes:
    async with remote.get(key, offset=offset) as download:
        chunks = [chunk async for chunk in download]
        assert download.valid
    return b"".join(chunks)


async def store(remote: Remote, key: Key, content: bytes) -> Stored:
    async with remote.put(key) as upload:
        if upload.already is not None:
            return Stored(already=upload.already)
        await upload.start(len(content) - upload.offset)
        await upload.write(content[upload.offset :])
        return await upload.finish()


# -- commands -------------------------------------------------------------------------------------------------------


def annexpy(path: Path, *words: object, fails: bool | None = False) -> list[dict]:
    """A command of ours; its results. *fails* None: it may or may not."""
    done = subprocess.run(
        [sys.executable, "-m", "annexpy.cli.app", "--json", "-C", str(path), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict(OURS),
    )
    assert fails is None or (done.returncode != 0) == fails, (words, done.stdout[-3000:], done.stderr[-3000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- repositories -------------------------------------------------------------------------------------------------


class Place:
    """A repository on disk, looked at without any help of the store that is on trial."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git_dir = path / ".git" if (path / ".git").is_dir() else path
        self.uuid = UUID(self.git("config", "annex.uuid"))

    @classmethod
    def make(cls, path: Path, contents: Iterable[bytes] = ()) -> Place:
        """A new one that holds *contents* from the beginning."""
        with Repository.init(path, bare=True) as repository:
            objects = path / "annex" / "objects"
            for content in contents:
                key = key_of(content)
                file = objects / os.fsdecode(object_paths(key)[0])
                file.parent.mkdir(parents=True)
                file.write_bytes(content)
                file.chmod(0o444)
                repository.branch.set_present(key, repository.uuid, True)
            repository.branch.commit_now()
        return cls(path)

    def git(self, *argv: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", *argv], cwd=self.path, input=given, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.strip()

    def set(self, name: str, value: str) -> None:
        self.git("config", name, value)

    def object(self, key: Key) -> Path | None:
        """The file that holds the content of *key*."""
        for path in object_paths(key):
            file = self.git_dir / "annex" / "objects" / os.fsdecode(path)
            if file.is_file():
                return file
        return None

    def lay(self, key: Key, content: bytes) -> None:
        """Put *content* in place and record it, without any help of the store that is on trial."""
        file = self.git_dir / "annex" / "objects" / os.fsdecode(object_paths(key)[0])
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        file.chmod(0o444)
        with Repository.open(self.path) as repository:
            repository.branch.set_present(key, repository.uuid, True)
            repository.branch.commit_now()

    def holds(self, key: Key, content: bytes) -> bool:
        """Whole, or not at all; anything else fails."""
        file = self.object(key)
        if file is None:
            return False
        assert file.read_bytes() == content, f"{file} is torn"
        return True

    def lose(self, keys: Iterable[Key]) -> None:
        """The contents vanish, and the logs do not know."""
        for key in keys:
            file = self.object(key)
            assert file is not None
            file.parent.chmod(0o755)
            file.unlink()

    def partial(self, key: Key) -> Path:
        return self.git_dir / "annex" / "tmp" / os.fsdecode(object_paths(key)[0].rpartition(b"/")[2])

    def logged(self, keys: Iterable[Key]) -> dict[Key, set[str]]:
        """Who has them according to our reader of the branch."""
        with Repository.open(self.path) as repository:
            return {key: set(repository.branch.locations(key).present) for key in keys}

    def whereis(self, keys: Iterable[Key]) -> dict[Key, set[str]]:
        """Who has them according to the real git-annex."""
        asked = "".join(f"{key}\n" for key in keys)
        found = {}
        for line in self.git("annex", "whereis", "--json", "--batch-keys", given=asked).splitlines():
            shown = json.loads(line)
            found[Key.parse(shown["key"])] = {one["uuid"] for one in (*shown["whereis"], *shown["untrusted"])}
        return found


# -- the ways -----------------------------------------------------------------------------------------------------


class Counted:
    """*dial*, and how often it was asked."""

    def __init__(self, dial: Dial) -> None:
        self.dial, self.calls = dial, 0

    async def __call__(self) -> Transport:
        self.calls += 1
        return await self.dial()

    def __str__(self) -> str:
        return str(self.dial)


@contextmanager
def served(place: Place, socket: Path, mode: str = "WRITE") -> Iterator[subprocess.Popen[str]]:
    """A process of its own that shows *place* on *socket*."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(place.path), str(socket), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict(OURS),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


def over_pipe(place: Place, *, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Counted:
    """``annexpy-shell`` as a child; *prefix* runs it."""
    argv = (*prefix, *SHELL, "p2pstdio", str(place.path), CLIENT, "--uuid", place.uuid)
    return Counted(DialCommand(argv, env=(*OURS, *(env or {}).items()), name="shell"))


def over_socket(socket: Path) -> Counted:
    return Counted(DialUnix(str(socket)))


@asynccontextmanager
async def remote_at(dial: Dial, place: Place, name: str) -> AsyncIterator[P2PRemote]:
    """What *dial* leads to; no dearer than a repository in this process, so that all nodes take turns."""
    remote = P2PRemote(dial, uuid=place.uuid, name=name, cost=100)
    try:
        yield remote
    finally:
        await remote.aclose()


@asynccontextmanager
async def in_process(place: Place, name: str) -> AsyncIterator[Local]:
    with Repository.open(place.path) as repository:
        remote = Local(repository, name=name, cost=100)
        try:
            yield remote
        finally:
            await remote.aclose()
