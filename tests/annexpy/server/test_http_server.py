from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from faulty_remote import Faulty

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectFailed, ContentLocked, NoSpace, RemoteProtocolError
from annexpy.keys.key import Key
from annexpy.p2p import http as h
from annexpy.p2p import http_answers as a
from annexpy.remote.base import Remote, Removed
from annexpy.remote.local import Local
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.wrappers import Wrapper
from annexpy.repo.content import StoredObject
from annexpy.repo.repository import Repository
from annexpy.server.auth import (
    APPEND_ONLY,
    EVERYTHING,
    NOTHING,
    READ_ONLY,
    Access,
    Role,
    Secret,
    User,
    everywhere,
    open_to_all,
    users_of_environment,
)
from annexpy.server.http import Routes
from annexpy.server.limits import LockQuota
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.http_client import HTTPConnection
from annexpy.transport.memory import memory_pair
from annexpy.transport.sockets import DialTCP, listen_tcp
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

HERE, CLIENT = UUID("87ab9089-b663-40ac-b7c2-52e054520871"), UUID("11111111-2222-4333-8444-555555555555")
CONTENT = bytes(range(256)) * 20
LARGE = bytes(range(256)) * 8000
OPEN = Access(anonymous=everywhere(EVERYTHING))


def key_of(content: bytes) -> Key:
    return Key.parse(b"SHA256-s%d--%b" % (len(content), sha256(content).hexdigest().encode()))


KEY, NO_HASH, NO_SIZE = key_of(CONTENT), Key.parse(b"WORM-s5120-m1--a b"), Key.parse(b"URL--http&c%%x/y")


class Client:
    """Asks one server over one connection at a time."""

    def __init__(self, routes: Routes, group: anyio.abc.TaskGroup, secure: bool) -> None:
        self.routes, self._group, self._secure = routes, group, secure
        self.connection = self.connect()

    def connect(self) -> HTTPConnection:
        ours, theirs = memory_pair(capacity=1 << 20)
        self.wire = ours

        async def serve() -> None:
            await self.routes.connections.serve(theirs, secure=self._secure)

        self._group.start_soon(serve)
        return HTTPConnection(ours, b"localhost", deadline=10)

    async def raw(
        self, method: bytes, target: bytes, headers: dict[bytes, bytes] | None = None, body: bytes = b""
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        if not self.connection.usable:
            self.connection = self.connect()
        self.connection.ask(method, target, (headers or {}).items(), body)
        response = await self.connection.response()
        return response.status, dict(response.headers), await response.body(1 << 26)

    async def ask(self, request: h.Request, body: bytes = b"", **headers: bytes) -> a.Answer | int:
        """The answer, or the status where that is not 200."""
        more = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        if isinstance(request, h.PutRequest):
            more[b"X-git-annex-data-length"] = b"%d" % request.length
        status, told, said = await self.raw(h.method_of(request), h.format_request(request), more, body)
        if status != 200:
            return status
        assert told[b"content-type"] == a.JSON_TYPE
        return a.parse_answer(request, said)

    async def get(self, target: bytes, **headers: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        return await self.raw(b"GET", target, {name.replace("_", "-").encode(): v for name, v in headers.items()})


@asynccontextmanager
async def serving(
    *remotes: Remote, access: Access = OPEN, secure: bool = False, shown: ShownRepositories | None = None, **options
) -> AsyncIterator[Client]:
    known = {remote.uuid: remote for remote in remotes}

    async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        return known.get(uuid)

    routes = Routes(shown or ShownRepositories((Shown(find),)), access=access, **options)
    async with routes, anyio.create_task_group() as group:
        client = Client(routes, group, secure)
        yield client
        group.cancel_scope.cancel()


def holding(**options) -> MemoryRemote:
    return MemoryRemote(HERE, objects={KEY: CONTENT, NO_HASH: CONTENT, NO_SIZE: CONTENT}, **options)


# -- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
async def test_every_version_asks_puts_gets_and_removes(version: int) -> None:
    new = key_of(b"new")
    async with serving(remote := holding()) as client:
        assert await client.ask(h.CheckPresentRequest(HERE, KEY, CLIENT, version)) == a.PresentAnswer(True)
        assert await client.ask(h.CheckPresentRequest(HERE, new, CLIENT, version)) == a.PresentAnswer(False)
        assert await client.ask(h.PutRequest(HERE, new, 3, CLIENT, version), b"new") == a.StoredAnswer(True)
        assert remote.objects[new] == b"new"
        got = await client.get(h.format_request(h.GetRequest(HERE, KEY, CLIENT, version)))
        assert (got[0], got[2]) == (200, CONTENT)
        assert got[1][b"x-git-annex-data-length"] == got[1][b"content-length"] == b"5120"
        got = await client.get(h.format_request(h.GetRequest(HERE, KEY, CLIENT, version, offset=5000)))
        assert (got[2], got[1][b"x-git-annex-data-length"]) == (CONTENT[5000:], b"120")
        assert await client.ask(h.RemoveRequest(HERE, new, CLIENT, version)) == a.RemovedAnswer(True)
        assert new not in remote.objects
        offset = await client.ask(h.PutOffsetRequest(HERE, new, CLIENT, version))
        assert offset == (a.OffsetAnswer(0) if version >= 1 else 404)
        already = await client.ask(h.PutOffsetRequest(HERE, KEY, CLIENT, version))
        assert already == (a.AlreadyHaveAnswer() if version >= 1 else 404)
        time = await client.ask(h.GetTimestampRequest(HERE, CLIENT, version))
        assert isinstance(time, a.TimestampAnswer) if version >= 3 else time == 404


async def test_presence_and_time_can_be_asked_with_get() -> None:
    async with serving(holding()) as client:
        for request in (h.CheckPresentRequest(HERE, KEY, CLIENT), h.GetTimestampRequest(HERE, CLIENT)):
            status, _, said = await client.get(h.format_request(request))
            assert status == 200
            a.parse_answer(request, said)
        status, headers, _ = await client.get(h.format_request(h.RemoveRequest(HERE, KEY, CLIENT)))
        assert (status, headers[b"allow"]) == (405, b"POST")


async def test_what_is_not_there_is_404_and_looks_the_same() -> None:
    said = set()
    async with serving(holding()) as client:
        for target in (
            h.format_request(h.CheckPresentRequest(UUID("stranger"), KEY, CLIENT)),
            h.format_request(h.CheckPresentRequest(HERE, KEY, CLIENT)).replace(b"/v4/", b"/v5/"),
            h.format_request(h.GetRequest(HERE, key_of(b"absent"), CLIENT)),
            b"/git-annex/" + HERE.encode() + b"/key/" + key_of(b"absent").raw,
            b"/elsewhere",
            b"/nobody/git-annex/" + HERE.encode() + b"/v4/checkpresent",
        ):
            status, headers, body = await client.get(target)
            said.add((status, headers[b"content-type"], body))
        status, _, body = await client.raw(b"HEAD", b"/git-annex/" + HERE.encode() + b"/key/" + key_of(b"absent").raw)
        assert (status, body) == (404, b"")
    assert {status for status, _, _ in said} == {404}
    assert len(said) == 1


async def test_a_bad_parameter_is_400_and_says_which() -> None:
    async with serving(holding()) as client:
        top = b"/git-annex/" + HERE.encode() + b"/v4/"
        for target, word in (
            (b"checkpresent?key=x", b"clientuuid"),
            (b"checkpresent?clientuuid=..%2fx", b"clientuuid"),
        ):
            status, _, body = await client.raw(b"POST", top + target)
            assert status == 400
            assert word in body
        put = h.format_request(h.PutRequest(HERE, KEY, 1, CLIENT))
        for length in (b"-1", b"99999999999999999999999", b"x", b"5121"):
            status, _, _ = await client.raw(b"POST", put, {b"X-git-annex-data-length": length})
            assert status == 400
        assert (await client.raw(b"POST", put))[0] == 400


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, NO_HASH, NO_SIZE], ids=["hash", "no hash", "no size"])
@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        (b"bytes=0-99", 206, 0, 100),
        (b"bytes=5000-", 206, 5000, 5120),
        (b"bytes=5000-9999999999", 206, 5000, 5120),
        (b"bytes=-20", 206, 5100, 5120),
        (b"bytes=-9999999", 206, 0, 5120),
        (b"Bytes=7-7", 206, 7, 8),
        (b"bytes=5120-", 416, 0, 0),
        (b"bytes=-0", 416, 0, 0),
        (b"bytes=9-3", 200, 0, 5120),
        (b"bytes=0-1,3-4", 200, 0, 5120),
        (b"lines=0-1", 200, 0, 5120),
        (b"bytes=a-b", 200, 0, 5120),
    ],
)
async def test_ranges_are_answered_as_rfc_9110_says(key: Key, asked: bytes, status: int, start: int, stop: int) -> None:
    target = h.format_request(h.GetRequest(HERE, key, version=None))
    async with serving(holding()) as client:
        got = await client.get(target, Range=asked)
        assert got[0] == status
        if status == 416:
            assert got[1][b"content-range"] == b"bytes */5120"
            return
        assert got[2] == CONTENT[start:stop]
        assert got[1][b"content-length"] == b"%d" % (stop - start)
        assert got[1][b"accept-ranges"] == b"bytes"
        if status == 206:
            assert got[1][b"content-range"] == b"bytes %d-%d/5120" % (start, stop - 1)
        head = await client.raw(b"HEAD", target, {b"Range": asked})
        assert head[0] == status
        assert {**head[1], b"date": b""} == {**got[1], b"date": b""}
        assert head[2] == b""


async def test_a_range_of_something_else_is_all_of_this() -> None:
    target = h.format_request(h.GetRequest(HERE, KEY, version=None))
    async with serving(holding()) as client:
        tag = (await client.raw(b"HEAD", target))[1][b"etag"]
        assert (await client.get(target, Range=b"bytes=0-1", If_Range=tag))[0] == 206
        assert (await client.get(target, Range=b"bytes=0-1", If_Range=b'"other"'))[0] == 200
        worm = h.format_request(h.GetRequest(HERE, NO_HASH, version=None))
        assert b"etag" not in (await client.raw(b"HEAD", worm))[1]


async def test_content_that_changes_while_it_is_sent_never_arrives_whole() -> None:
    class Changing(MemoryRemote):
        @asynccontextmanager
        async def get(self, key: Key, **options):  # type: ignore[no-untyped-def]
            class Download:
                length, source, valid = len(LARGE), HERE, False

                async def __aiter__(self) -> AsyncIterator[bytes]:
                    for at in range(0, len(LARGE), 100_000):
                        yield LARGE[at : at + 100_000]

            yield Download()

    async with serving(Changing(HERE, objects={KEY: b""})) as client:
        client.connection.ask(b"GET", h.format_request(h.GetRequest(HERE, KEY, CLIENT)))
        response = await client.connection.response()
        got = b""
        with pytest.raises(AnnexError):  # noqa: PT012
            while piece := await response.receive():
                got += piece
        assert len(got) < len(LARGE)


async def test_a_large_object_is_sent_from_its_file_and_not_when_it_is_cut(tmp_path: Path) -> None:
    key, size = key_of(LARGE), len(LARGE)
    with Repository.init(tmp_path / "bare", bare=True) as repository:
        local = Local(repository, commit=False)
        async with local.put(key) as upload:
            await upload.start(size)
            await upload.write(LARGE)
            await upload.finish()

        async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
            return local

        async with (
            await listen_tcp() as listener,
            Routes(ShownRepositories((Shown(find),)), access=OPEN) as routes,
            anyio.create_task_group() as group,
        ):
            group.start_soon(routes.serve, listener)
            client = HTTPConnection(await DialTCP(*listener.address)(), b"localhost")  # type: ignore[misc]
            target = h.format_request(h.GetRequest(HERE, key, version=None))
            for asked, start, stop in (
                (b"", 0, size),
                (b"bytes=3-1500000", 3, 1_500_001),
                (b"bytes=-1100000", -1_100_000, size),
            ):
                client.ask(b"GET", target, [(b"Range", asked)] if asked else [])
                assert await (await client.response()).body(1 << 26) == LARGE[start:stop]
            with local.store.open(key) as stored:
                path = os.path.join(os.fsdecode(repository.git_dir), os.fsdecode(stored.path))
            os.chmod(path, 0o644)
            unchanged = StoredObject.unchanged
            for change in (lambda: os.utime(path), lambda: os.truncate(path, size - 1)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(StoredObject, "unchanged", lambda stored, c=change: (c(), unchanged(stored))[1])
                    client.ask(b"GET", target)
                    response = await client.response()
                    got = b""
                    with pytest.raises(AnnexError):  # noqa: PT012
                        while piece := await response.receive():
                            got += piece
                    assert len(got) < size
                await client.aclose()
                client = HTTPConnection(await DialTCP(*listener.address)(), b"localhost")  # type: ignore[misc]
            await client.aclose()
            group.cancel_scope.cancel()


# -- storing --------------------------------------------------------------------------------------


async def test_a_put_resumes_where_the_server_says() -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        remote.partials[key] = bytearray(LARGE[:1000])
        assert await client.ask(h.PutOffsetRequest(HERE, key, CLIENT)) == a.OffsetAnswer(1000)
        request = h.PutRequest(HERE, key, len(LARGE) - 1000, CLIENT, offset=1000)
        assert await client.ask(request, LARGE[1000:]) == a.StoredAnswer(True)
        assert remote.objects[key] == LARGE


@pytest.mark.parametrize(("have", "offset"), [(1000, 0), (1000, 999), (1000, 1000), (len(LARGE), 0), (len(LARGE), 5)])
async def test_what_the_server_has_already_is_skipped(have: int, offset: int) -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        remote.partials[key] = bytearray(LARGE[:have])
        request = h.PutRequest(HERE, key, len(LARGE) - offset, CLIENT, offset=offset)
        assert await client.ask(request, LARGE[offset:]) == a.StoredAnswer(True)
        assert remote.objects[key] == LARGE


async def test_a_put_that_leaves_a_gap_stores_nothing_and_harms_nothing() -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        remote.partials[key] = bytearray(LARGE[:1000])
        request = h.PutRequest(HERE, key, len(LARGE) - 2000, CLIENT, offset=2000)
        assert await client.ask(request, LARGE[2000:]) == a.StoredAnswer(False)
        assert remote.partials[key] == LARGE[:1000]
        assert client.connection.usable


async def test_a_put_by_chunks_as_the_stock_client_sends_it_is_stored() -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        target = h.format_request(h.PutRequest(HERE, key, len(LARGE), CLIENT))
        client.connection.ask(b"POST", target, [(b"X-git-annex-data-length", b"%d" % len(LARGE))], chunked=True)
        for at in range(0, len(LARGE), 32752):
            await client.connection.send(LARGE[at : at + 32752])
        client.connection.end()
        assert json.loads(await (await client.connection.response()).body()) == {"plusuuids": [], "stored": True}
        assert remote.objects[key] == LARGE


@pytest.mark.parametrize(
    ("sent", "kept"), [(LARGE[:-1], len(LARGE) - 1), (LARGE + b"x", None), (LARGE[:-1] + b"x", None), (b"", 0)]
)
async def test_a_body_that_is_not_the_content_is_not_stored(sent: bytes, kept: int | None) -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        target = h.format_request(h.PutRequest(HERE, key, len(LARGE), CLIENT))
        client.connection.ask(b"POST", target, [(b"X-git-annex-data-length", b"%d" % len(LARGE))], chunked=True)
        if sent:
            await client.connection.send(sent)
        client.connection.end()
        assert json.loads(await (await client.connection.response()).body())["stored"] is False
        assert not remote.objects
        if kept is not None:
            assert len(remote.partials.get(key, b"")) == kept
        assert await client.ask(h.PutRequest(HERE, key, len(LARGE), CLIENT), LARGE) == a.StoredAnswer(True)


async def test_what_a_client_sent_before_it_vanished_is_kept() -> None:
    key, remote = key_of(LARGE), MemoryRemote(HERE)
    async with serving(remote) as client:
        target = h.format_request(h.PutRequest(HERE, key, len(LARGE), CLIENT))
        length = [(b"X-git-annex-data-length", b"%d" % len(LARGE))]
        client.connection.ask(b"POST", target, length, length=len(LARGE))
        await client.connection.send(LARGE[:100_000])
        await anyio.wait_all_tasks_blocked()
        await client.connection.aclose()
        await anyio.wait_all_tasks_blocked()
        assert not remote.objects
        assert remote.partials[key] == LARGE[:100_000]


async def test_content_that_got_there_otherwise_is_stored_if_it_is_there() -> None:
    async with serving(holding()) as client:
        request = h.PutRequest(HERE, KEY, 0, CLIENT, data_present=True)
        assert await client.ask(request) == a.StoredAnswer(True)
        request = h.PutRequest(HERE, key_of(b"absent"), 0, CLIENT, data_present=True)
        assert await client.ask(request) == a.StoredAnswer(False)


@pytest.mark.parametrize("error", [lambda: ConnectFailed("node", "refused"), lambda: AnnexError("read-only")])
async def test_a_node_that_fails_is_never_taken_for_one_that_has_the_content(error) -> None:  # type: ignore[no-untyped-def]
    key = key_of(b"new")
    async with serving(Faulty(MemoryRemote(HERE), "put", error)) as client:
        assert await client.ask(h.PutOffsetRequest(HERE, key, CLIENT)) in (500, 502)
        assert await client.ask(h.PutRequest(HERE, key, 3, CLIENT), b"new") in (500, 502)


async def test_a_full_store_says_so_and_the_connection_lives() -> None:
    full = Faulty(MemoryRemote(HERE), "write", lambda: NoSpace("key", "here", 5, 3), after=10)
    async with serving(full) as client:
        request = h.PutRequest(HERE, key_of(LARGE), len(LARGE), CLIENT)
        assert await client.ask(request, LARGE) == a.StoredAnswer(False)
        assert client.connection.usable


async def test_a_key_that_may_not_be_stored_is_refused() -> None:
    async with serving(holding(), allow_unverifiable=False) as client:
        for key in (Key.parse(b"../../x-s3--foo"), Key.parse(b"SHA256-s3--short"), Key.parse(b"WORM-s3-m1--x")):
            assert await client.ask(h.PutRequest(HERE, key, 3, CLIENT), b"abc") == 400


# -- removing and locking -------------------------------------------------------------------------


async def test_a_removal_before_a_time_is_made_before_it_only(clock_of) -> None:  # type: ignore[no-untyped-def]
    clock = clock_of(1000.5)
    async with serving(remote := holding(clock=clock), clock=clock) as client:
        assert await client.ask(h.GetTimestampRequest(HERE, CLIENT)) == a.TimestampAnswer(1000)
        for seconds, answer in ((1000, a.RemovedAnswer(False)), (0, a.RemovedAnswer(False)), (1901, 400)):
            assert await client.ask(h.RemoveBeforeRequest(HERE, KEY, seconds, CLIENT)) == answer
            assert KEY in remote.objects
        assert await client.ask(h.RemoveBeforeRequest(HERE, KEY, 1001, CLIENT)) == a.RemovedAnswer(True)


class Batches(Wrapper):
    """Tells how many keys were removed together."""

    def __init__(self, remote: Remote, error: type[AnnexError] | None = None) -> None:
        super().__init__(remote)
        self.sizes: list[int] = []
        self._error = error

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        self.sizes.append(len(keys))
        if self._error is not None:
            raise self._error(keys[0], "all of them", "for some reason")
        return await super().remove_content_many(keys, deadline=deadline)


async def ahead(client: Client, requests: Sequence[h.Request]) -> list[a.Answer | int]:
    """The answers to *requests*, which are all there before the first is read."""
    client.connection = client.connect()
    for request in requests:
        client.connection.ask(b"POST", h.format_request(request), {})
    answers: list[a.Answer | int] = []
    for request in requests:
        response = await client.connection.response()
        said = await response.body(1 << 20)
        answers.append(a.parse_answer(request, said) if response.status == 200 else response.status)
    return answers


async def test_removals_that_were_sent_ahead_are_made_together_and_answered_one_by_one(clock_of) -> None:  # type: ignore[no-untyped-def]
    gone, late = [key_of(b"%d" % number) for number in range(100)], [key_of(b"late %d" % number) for number in range(3)]
    clock, content = clock_of(1000.5), dict.fromkeys((*gone, *late, KEY), b"")
    remote = MemoryRemote(HERE, objects=content, clock=clock)
    bad = h.RemoveBeforeRequest(HERE, gone[0], 9999, CLIENT)
    async with serving(batches := Batches(remote), clock=clock) as client:
        answers = await ahead(
            client,
            [
                *(h.RemoveBeforeRequest(HERE, key, 1001, CLIENT) for key in gone),
                *(h.RemoveBeforeRequest(HERE, key, 1000, CLIENT) for key in late),
                bad,
                h.CheckPresentRequest(HERE, KEY, CLIENT),
                h.RemoveRequest(HERE, KEY, CLIENT),
                h.CheckPresentRequest(HERE, KEY, CLIENT),
            ],
        )
        _, _, metrics = await client.get(b"/metrics")
    yes, no = a.RemovedAnswer(True), a.RemovedAnswer(False)
    assert answers == [yes] * 100 + [no] * 3 + [400, a.PresentAnswer(True), yes, a.PresentAnswer(False)]
    assert set(remote.objects) == set(late)
    assert batches.sizes == [64, 36, 3]
    assert b'annexpy_requests_total{verb="remove-before",status="200"} 103' in metrics
    assert b'annexpy_requests_total{verb="remove-before",status="400"} 1' in metrics


async def test_what_goes_wrong_with_a_batch_of_removals_is_told_of_each_key() -> None:
    keys = [KEY, NO_HASH, NO_SIZE]
    requests = [h.RemoveRequest(HERE, key, CLIENT) for key in keys]
    async with serving(Batches(remote := holding(), ContentLocked)) as client:
        async with remote.lock_content(NO_HASH):
            answers = await ahead(client, requests)
        assert answers == [a.RemovedAnswer(key is not NO_HASH) for key in keys]
    async with serving(Batches(remote := holding(), Unreachable)) as client:
        assert await ahead(client, requests) == [502] * 3
        assert set(remote.objects) == set(keys)


async def test_a_batch_of_removals_that_may_happen_yet_is_not_asked_for_again() -> None:
    keys = [KEY, NO_HASH, NO_SIZE]
    async with serving(Batches(remote := holding(), Garbled)) as client:
        assert await ahead(client, [h.RemoveRequest(HERE, key, CLIENT) for key in keys]) == [502] * 3
        assert set(remote.objects) == set(keys)


class Garbled(RemoteProtocolError):
    def __init__(self, key: Key, where: str, reason: str) -> None:
        super().__init__(reason)


class Unreachable(ConnectFailed):
    def __init__(self, key: Key, where: str, reason: str) -> None:
        super().__init__(where, reason)


async def locked(client: Client, key: Key = KEY) -> str:
    answer = await client.ask(h.LockContentRequest(HERE, key, CLIENT))
    assert isinstance(answer, a.LockAnswer)
    assert answer.lock_id
    return answer.lock_id


def keep(client: Client, lock_id: str) -> HTTPConnection:
    connection = client.connect()
    connection.ask(b"POST", h.format_request(h.KeepLockedRequest(HERE, lock_id, CLIENT)), chunked=True)
    return connection


async def test_a_lock_holds_from_lockcontent_to_the_end_of_keeplocked() -> None:
    async with serving(remote := holding()) as client:
        lock_id = await locked(client)
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
        keeping = keep(client, lock_id)
        await keeping.send(a.format_unlock(False))
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
        await keeping.send(a.format_unlock(True))
        keeping.end()
        assert await (await keeping.response()).body() == b'{"locked":false}'
        assert keeping.usable
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(True)
        assert KEY not in remote.objects


async def test_a_lock_whose_client_vanished_keeps_its_retention(clock_of) -> None:  # type: ignore[no-untyped-def]
    clock = clock_of()
    async with serving(holding(clock=clock)) as client:
        keeping = keep(client, await locked(client))
        await keeping.send(a.format_unlock(False))
        await anyio.wait_all_tasks_blocked()
        await keeping.aclose()
        await anyio.wait_all_tasks_blocked()
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
        clock.time += 601
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(True)


async def test_a_lock_outlives_a_server_that_is_cancelled(clock_of) -> None:  # type: ignore[no-untyped-def]
    clock = clock_of()
    remote = holding(clock=clock)
    with anyio.CancelScope() as scope:
        async with serving(remote) as client:
            await locked(client)
            keeping = keep(client, await locked(client))
            await keeping.send(a.format_unlock(False))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep(1)
    assert not (await remote.remove_content(KEY)).ok
    clock.time += 601
    assert (await remote.remove_content(KEY)).ok


async def test_a_lock_that_was_not_given_uses_nothing_up() -> None:
    async with serving(holding(), locks=LockQuota(2)) as client:
        for _ in range(5):
            assert await client.ask(h.LockContentRequest(HERE, key_of(b"absent"), CLIENT)) == a.LockAnswer()
        await locked(client)
        await locked(client)
        assert await client.ask(h.LockContentRequest(HERE, KEY, CLIENT)) == a.LockAnswer()


async def test_who_changes_names_has_no_end_of_locks_either() -> None:
    async with serving(holding(), locks=LockQuota(crowd=3)) as client:
        given = [await client.ask(h.LockContentRequest(HERE, KEY, UUID(f"client-{n}"))) for n in range(5)]
    assert [bool(answer.lock_id) for answer in given] == [True, True, True, False, False]  # type: ignore[union-attr]


async def test_nobody_else_can_unlock() -> None:
    async with serving(holding(), MemoryRemote(UUID("other"))) as client:
        lock_id = await locked(client)
        for uuid, name in ((HERE, "not-it"), (UUID("other"), lock_id)):
            status, _, said = await client.raw(
                b"POST",
                h.format_request(h.KeepLockedRequest(uuid, name, CLIENT)),
                body=a.format_unlock(True),
            )
            assert (status, said) == (200, b'{"locked":false}')
        assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)


def test_a_lock_that_nobody_keeps_is_over_after_ten_minutes() -> None:
    import trio.testing

    async def work() -> None:
        async with serving(holding(clock=TrioClock())) as client:
            await locked(client)
            assert len(client.routes._locks) == 1  # type: ignore[arg-type]
            await anyio.sleep(590)
            assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
            await anyio.sleep(15)
            assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(True)
            assert len(client.routes._locks) == 0  # type: ignore[arg-type]

    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_lock_that_is_kept_outlives_its_retention_and_a_silent_keeper_does_not() -> None:
    import trio.testing

    async def work() -> None:
        async with serving(holding(clock=TrioClock())) as client:
            keeping = keep(client, await locked(client))
            await keeping.send(a.format_unlock(False))
            await anyio.sleep(1100)
            assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
            await keeping.send(a.format_unlock(False))
            await anyio.sleep(1100)
            assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(False)
            await anyio.sleep(150)
            assert await client.ask(h.RemoveRequest(HERE, KEY, CLIENT)) == a.RemovedAnswer(True)

    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


class TrioClock:
    def now(self) -> float:
        return anyio.current_time()

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_700_000_000.0


# -- who may do what ------------------------------------------------------------------------------

VERBS = ["get", "check", "time", "lock", "put", "remove"]


async def statuses(client: Client, credentials: str = "") -> list[int]:
    headers = {b"Authorization": b"Basic " + base64.b64encode(credentials.encode())} if credentials else {}
    found = []
    for verb, request in zip(
        VERBS,
        (
            h.GetRequest(HERE, KEY, CLIENT),
            h.CheckPresentRequest(HERE, KEY, CLIENT),
            h.GetTimestampRequest(HERE, CLIENT),
            h.LockContentRequest(HERE, KEY, CLIENT),
            h.PutOffsetRequest(HERE, KEY, CLIENT),
            h.RemoveRequest(HERE, key_of(b"absent"), CLIENT),
        ),
        strict=True,
    ):
        status, told, _ = await client.raw(h.method_of(request), h.format_request(request), headers)
        assert (b"www-authenticate" in told) == (status == 401), verb
        found.append(status)
    return found


ENV = {
    "GIT_ANNEX_P2PHTTP_PASSWORD_alice": "foo:123",
    "GIT_ANNEX_P2PHTTP_PASSWORD_bob": "b",
    "GIT_ANNEX_P2PHTTP_PERMISSIONS_bob": "readonly",
    "GIT_ANNEX_P2PHTTP_PASSWORD_carl": "c",
    "GIT_ANNEX_P2PHTTP_PERMISSIONS_carl": "appendonly",
    "HOME": "/",
}
ALL, READ, APPEND = [200] * 6, [200, 200, 200, 200], [200, 200, 200, 200, 200]


@pytest.mark.parametrize(
    ("options", "authenv", "who", "expected"),
    [
        ({}, "", "", [401] * 6),
        ({"unauth_readonly": True}, "", "", [*READ, 403, 403]),
        ({"unauth_appendonly": True}, "", "", [*APPEND, 403]),
        ({"unauth_readonly": True, "unauth_nolocking": True}, "", "", [200, 200, 200, 403, 403, 403]),
        ({"wideopen": True}, "", "", ALL),
        ({}, "http", "alice:foo:123", ALL),
        ({}, "http", "bob:b", [200, 200, 200, 403, 403, 403]),
        ({}, "http", "carl:c", [*APPEND, 403]),
        ({}, "http", "alice:wrong", [401] * 6),
        ({}, "http", "zed:x", [401] * 6),
        ({}, "http", "", [401] * 6),
        ({"unauth_readonly": True}, "http", "", [*READ, 401, 401]),
        ({"unauth_readonly": True}, "http", "alice:wrong", [*READ, 401, 401]),
        ({"unauth_readonly": True}, "http", "alice:foo:123", ALL),
        ({"wideopen": True}, "http", "bob:b", [200, 200, 200, 403, 403, 403]),
        ({"wideopen": True}, "http", "alice:wrong", ALL),
        ({}, "https", "alice:foo:123", [403] * 6),  # somebody may read along
        ({"unauth_readonly": True}, "https", "alice:foo:123", [*READ, 403, 403]),
        ({}, "secure", "alice:foo:123", ALL),
    ],
)
async def test_the_options_mean_what_they_mean_for_git_annex(
    options: dict[str, bool], authenv: str, who: str, expected: list[int]
) -> None:
    access = Access(
        anonymous=open_to_all(**{"unauth_nolocking": False, **options}),
        users=users_of_environment(ENV) if authenv else (),
        allow_plain_http=authenv == "http",
    )
    async with serving(holding(), access=access, secure=authenv == "secure") as client:
        assert await statuses(client, who) == expected


async def test_a_bearer_token_opens_what_it_is_for() -> None:
    other = UUID("other")
    digest = "sha256:" + sha256(b"t0ken").hexdigest()
    users = [User("job", Secret.of(digest), {HERE: READ_ONLY}, token=True)]
    async with serving(holding(), MemoryRemote(other), access=Access(users=users, allow_plain_http=True)) as client:

        async def status(uuid: UUID, verb: type, said: bytes) -> int:
            request = verb(uuid, KEY, CLIENT)
            return (await client.raw(b"POST", h.format_request(request), {b"Authorization": said}))[0]

        assert await status(HERE, h.CheckPresentRequest, b"Bearer t0ken") == 200
        assert await status(HERE, h.CheckPresentRequest, b"bearer t0ken") == 200
        assert await status(HERE, h.RemoveRequest, b"Bearer t0ken") == 403
        # no business there: as if it was not there
        assert await status(other, h.CheckPresentRequest, b"Bearer t0ken") == 404
        assert await status(UUID("nowhere"), h.CheckPresentRequest, b"Bearer t0ken") == 404
        for uuid in (HERE, other, UUID("nowhere")):
            assert await status(uuid, h.CheckPresentRequest, b"Bearer wrong") == 401
            assert await status(uuid, h.CheckPresentRequest, b"Bearer t0ke\xff") == 401
        for said in (b"Basic " + base64.b64encode(b"nocolon"), b"Bearer"):
            assert await status(HERE, h.CheckPresentRequest, said) == 401
        for said in (b"Basic !", b"Basic", b"Digest x"):
            assert await status(HERE, h.CheckPresentRequest, said) == 400
    assert "t0ken" not in repr(users)
    assert digest not in repr(users)


async def test_two_tenants_who_are_a_proxy_for_one_remote_do_not_reach_it_through_each_other() -> None:
    public, private, node = MemoryRemote(UUID("public")), MemoryRemote(UUID("private")), holding()

    def finder(*remotes: Remote):  # type: ignore[no-untyped-def]
        async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
            return next((remote for remote in remotes if remote.uuid == uuid), None)

        return find

    shown = ShownRepositories(
        (
            Shown(finder(public), UUID("public"), b"pub"),
            Shown(finder(private, node), UUID("private"), b"priv"),
        )
    )
    access = Access(
        anonymous={UUID("public"): EVERYTHING},
        users=[
            User("eve", Secret.of("e"), {UUID("public"): EVERYTHING}),
            User("ann", Secret.of("a"), everywhere(EVERYTHING)),
        ],
        allow_plain_http=True,
    )

    async with serving(shown=shown, access=access) as client:
        for base, who, expected in (
            (b"", "ann:a", 200),
            (b"/priv", "ann:a", 200),
            (b"/pub", "ann:a", 404),
            (b"", "eve:e", 404),
            (b"/priv", "eve:e", 404),
            (b"/pub", "eve:e", 404),
            (b"/priv", "", 401),
            (b"/pub", "", 404),
        ):
            headers = {b"Authorization": b"Basic " + base64.b64encode(who.encode())} if who else {}
            target = base + h.format_request(h.CheckPresentRequest(HERE, KEY, CLIENT))
            assert (await client.raw(b"POST", target, headers))[0] == expected, (base, who)


def test_roles_are_what_they_are_called() -> None:
    assert NOTHING not in (READ_ONLY, APPEND_ONLY)
    assert Role.WRITE in EVERYTHING
    assert Role.WRITE not in APPEND_ONLY
    assert Role.APPEND not in READ_ONLY


# -- running --------------------------------------------------------------------------------------


async def test_one_line_is_logged_for_every_request_and_no_secret_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    access = Access(users=[User("ann", Secret.of("hidden-password"), everywhere(EVERYTHING))], allow_plain_http=True)
    async with serving(holding(), access=access) as client:
        await statuses(client, "ann:hidden-password")
        said = base64.b64encode(b"ann:hidden-password")
        request = h.LockContentRequest(HERE, KEY, CLIENT)
        _, _, body = await client.raw(b"POST", h.format_request(request), {b"Authorization": b"Basic " + said})
        lock_id = json.loads(body)["lockid"]
        await client.raw(
            b"POST",
            h.format_request(h.KeepLockedRequest(HERE, lock_id, CLIENT)),
            {b"Authorization": b"Basic " + said},
            a.format_unlock(True),
        )
    lines = [r.getMessage() for r in caplog.records if r.name == "annexpy.server.http" and r.levelno == logging.INFO]
    assert len(lines) == len(VERBS) + 2
    assert all(" ann " in line and " 200 " in line for line in lines)
    for secret in ("hidden-password", said.decode(), lock_id):
        assert secret not in caplog.text


async def test_health_and_metrics_are_told() -> None:
    async with serving(holding()) as client:
        assert (await client.get(b"/healthz"))[::2] == (200, b"ok\n")
        await client.ask(h.CheckPresentRequest(HERE, KEY, CLIENT))
        await client.get(h.format_request(h.GetRequest(HERE, KEY, CLIENT)))
        await locked(client)
        status, headers, body = await client.get(b"/metrics")
        assert status == 200
        assert headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
        lines = body.decode().splitlines()
        assert 'annexpy_requests_total{verb="checkpresent",status="200"} 1' in lines
        assert "annexpy_locks 1" in lines
        assert "annexpy_connections 1" in lines
        assert f"annexpy_sent_bytes_total {len(CONTENT) + 3 + 16 + 63}" in lines
        assert (await client.raw(b"POST", b"/healthz"))[0] == 405


def test_changes_are_committed_soon_after_the_last_and_at_times_while_they_go_on() -> None:
    import trio.testing

    commits = []

    async def work() -> None:
        async def commit() -> None:
            commits.append(anyio.current_time() - begun)

        async with serving(MemoryRemote(HERE), on_idle=commit) as client:
            begun = anyio.current_time()
            await client.ask(h.CheckPresentRequest(HERE, KEY, CLIENT))
            await anyio.sleep(5)
            assert not commits
            await client.ask(h.PutRequest(HERE, KEY, len(CONTENT), CLIENT), CONTENT)
            await anyio.sleep(5)
            assert len(commits) == 1
            assert 6 <= commits[0] <= 6.1
            for _ in range(50):
                await client.ask(h.RemoveRequest(HERE, KEY, CLIENT))
                await anyio.sleep(0.5)
            assert 2 <= len(commits) - 1 <= 4
            await client.ask(h.RemoveRequest(HERE, KEY, CLIENT))
        assert commits[-1] >= 35

    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_defect_ends_one_connection_and_not_the_server(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(MemoryRemote):
        async def check_present(self, key: Key) -> bool:
            raise ZeroDivisionError

    async with serving(Defective(HERE), holding_other()) as client:
        with pytest.raises(AnnexError):
            await client.ask(h.CheckPresentRequest(HERE, KEY, CLIENT))
        assert await client.ask(h.CheckPresentRequest(UUID("other"), KEY, CLIENT)) == a.PresentAnswer(True)
    assert "ZeroDivisionError" in caplog.text


def holding_other() -> MemoryRemote:
    return MemoryRemote(UUID("other"), objects={KEY: CONTENT})
