from __future__ import annotations

import gzip
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from places import content_of, key_of

from annexpy.remote.base import Remote
from annexpy.repo.repository import Repository
from annexpy.server import git as git_module
from annexpy.server.auth import EVERYTHING, NOTHING, READ_ONLY, Access, Role, everywhere
from annexpy.server.git import GitMount
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.http_client import HTTPConnection
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

Asked = tuple[int, dict[bytes, bytes], bytes]


class Client:
    def __init__(self, routes: Routes, group: anyio.abc.TaskGroup) -> None:
        self._routes, self._group = routes, group

    async def ask(self, method: bytes, target: bytes, body: bytes = b"", **headers: bytes) -> Asked:
        ours, theirs = memory_pair(capacity=1 << 20)
        self._group.start_soon(self._routes.connections.serve, theirs)
        connection = HTTPConnection(ours, b"example.org:9417", deadline=20)
        connection.ask(method, target, [(name.replace("_", "-").encode(), v) for name, v in headers.items()], body)
        response = await connection.response()
        said = response.status, dict(response.headers), await response.body(1 << 24)
        await connection.aclose()
        return said


@asynccontextmanager
async def serving(path: Path, roles: Role = EVERYTHING, *, url: str = "") -> AsyncIterator[tuple[Client, Repository]]:
    async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        return None

    with Repository.open(path) as repository:
        shown = ShownRepositories((Shown(find, repository.uuid, b"lab"),))
        mount = GitMount({b"lab": repository}, url=url)
        access = Access(anonymous=everywhere(roles))
        async with Routes(shown, access=access, mounts=(mount,)) as routes, anyio.create_task_group() as group:
            yield Client(routes, group), repository
            group.cancel_scope.cancel()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "lab.git", bare=True).close()
    return tmp_path / "lab.git"


def ref(path: Path, name: str = "git-annex") -> bytes:
    return subprocess.run(["git", "rev-parse", name], cwd=path, capture_output=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", [b"/lab", b"/lab.git"])
async def test_git_annex_learns_the_uuid_and_where_the_contents_are(bare: Path, name: bytes) -> None:
    async with serving(bare) as (client, repository):
        status, _, said = await client.ask(b"GET", name + b"/config")
        assert status == 200
        assert f"uuid = {repository.uuid}\n".encode() in said
        assert b"url = annex+http://example.org:9417/lab/\n" in said
        repository.config.set("annex.url", "annex+https://elsewhere/")
        assert b"url = annex+https://elsewhere/\n" in (await client.ask(b"GET", name + b"/config"))[2]
    async with serving(bare, url="https://example.org/annex/") as (client, repository):
        repository.config.unset("annex.url")
        assert b"annex+https://example.org/annex/lab/\n" in (await client.ask(b"GET", name + b"/config"))[2]


async def test_what_is_journalled_is_committed_before_git_shows_its_refs(bare: Path) -> None:
    key = key_of(content_of(1))
    async with serving(bare) as (client, repository):
        before = ref(bare)
        repository.branch.set_present(key, UUID("somebody"), True)
        for service in (b"git-upload-pack", b"git-receive-pack"):
            status, headers, said = await client.ask(b"GET", b"/lab/info/refs?service=" + service)
            assert status == 200
            assert headers[b"content-type"] == b"application/x-" + service + b"-advertisement"
            assert said.startswith(b"%04x# service=%b\n0000" % (len(service) + 15, service))
            assert ref(bare) in said
        assert ref(bare) != before


async def test_the_newer_protocol_is_spoken_when_it_is_asked_for(bare: Path) -> None:
    async with serving(bare) as (client, _):
        target = b"/lab/info/refs?service=git-upload-pack"
        assert (await client.ask(b"GET", target, Git_Protocol=b"version=2"))[2].startswith(b"000eversion 2\n")
        assert (await client.ask(b"GET", target, Git_Protocol=b"version=2; rm"))[2].startswith(b"001e# service")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"GET", b"/lab/info/refs", 404),
        (b"GET", b"/lab/info/refs?service=git-upload-archive", 404),
        (b"GET", b"/lab/info/refs?service=git-upload-pack&x=1", 404),
        (b"POST", b"/lab/info/refs?service=git-upload-pack", 405),
        (b"GET", b"/lab/git-upload-pack", 405),
        (b"GET", b"/lab/HEAD", 404),
        (b"GET", b"/lab/../lab/config", 404),
        (b"GET", b"/lab", 404),
        (b"GET", b"/nobody/info/refs?service=git-upload-pack", 404),
    ],
)
async def test_nothing_else_is_served(bare: Path, method: bytes, target: bytes, status: int) -> None:
    async with serving(bare) as (client, _):
        assert (await client.ask(method, target))[0] == status


@pytest.mark.parametrize(
    ("roles", "fetch", "push"),
    [(EVERYTHING, 200, 200), (READ_ONLY, 200, 403), (Role.LOCK, 403, 403), (NOTHING, 401, 401)],
)
async def test_a_fetch_needs_to_read_and_a_push_to_write(bare: Path, roles: Role, fetch: int, push: int) -> None:
    async with serving(bare, roles) as (client, _):
        for service, expected in ((b"git-upload-pack", fetch), (b"git-receive-pack", push)):
            assert (await client.ask(b"GET", b"/lab/info/refs?service=" + service))[0] == expected
            assert (await client.ask(b"POST", b"/lab/" + service, b"0000"))[0] == expected
        assert (await client.ask(b"GET", b"/lab/config"))[0] == fetch


async def test_a_compressed_request_is_inflated_and_a_bomb_is_not(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(bare) as (client, _):
        want = b"0032want %b\n00000009done\n" % ref(bare)
        for coding in (b"gzip", b"x-gzip"):
            status, _, said = await client.ask(
                b"POST", b"/lab/git-upload-pack", gzip.compress(want), Content_Encoding=coding
            )
            assert status == 200
            assert said.startswith(b"0008NAK\nPACK")
        assert (await client.ask(b"POST", b"/lab/git-upload-pack", want, Content_Encoding=b"br"))[0] == 400
        assert (await client.ask(b"POST", b"/lab/git-upload-pack", want, Content_Encoding=b"gzip"))[0] == 400
        monkeypatch.setattr(git_module, "_MAX_INFLATED", 1_000_000)
        bomb = gzip.compress(want[:-9] + b"0032have %b\n" % (b"0" * 40) * 100_000)
        assert (await client.ask(b"POST", b"/lab/git-upload-pack", bomb, Content_Encoding=b"gzip"))[0] == 400
        assert (await client.ask(b"POST", b"/lab/git-upload-pack", want))[0] == 200


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("service", [b"git-upload-pack", b"git-receive-pack"])
async def test_a_body_that_is_no_request_of_git_is_the_clients_fault(bare: Path, service: bytes) -> None:
    want = b"0032want %b\n00000009done\n" % ref(bare)
    cut = gzip.compress(want)[:-20]
    async with serving(bare) as (client, _):
        for body in (b"", b"nonsense", b"ffff", b"0032want", b"0032want %b\n" % (b"z" * 40)):
            status, _, said = await client.ask(b"POST", b"/lab/" + service, body)
            assert status == 400, body
            assert service in said
        assert (await client.ask(b"POST", b"/lab/" + service, cut, Content_Encoding=b"gzip"))[0] == 400
        # whoever has nothing to ask or to push says just that, as git does to see whether it is let in
        assert (await client.ask(b"POST", b"/lab/" + service, b"0000"))[0] == 200
