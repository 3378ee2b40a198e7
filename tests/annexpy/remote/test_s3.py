"""An S3 special remote as a Remote, on a real S3 server: the contract, and what is an error and never absence."""

from __future__ import annotations

import itertools
import pickle
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from remote_contract import CONTENT, KEY, A, B, HandClock, RemoteContract, content_of, key_of, read, store
from s3_server import S3Server, serving

from annexpy.actions.results import Verified
from annexpy.actions.verify import verify
from annexpy.clock import Deadline
from annexpy.errors import (
    AnnexError,
    ConnectFailed,
    InvalidInput,
    InvalidKey,
    NotLocked,
    Refused,
    TimedOut,
    TransportError,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.s3 import S3Remote
from annexpy.remote.s3_sender import PART
from annexpy.remote.s3_settings import S3Credentials, S3Settings
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio]
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
WHO = S3Credentials("somebody", "a-secret")
BUCKETS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3"), "--auth-key", "somebody,a-secret") as running:
        yield running


def make(
    server: S3Server,
    bucket: str,
    *,
    who: S3Credentials = WHO,
    uuid: UUID = A,
    clock: HandClock | None = None,
    deadline: float = 30.0,
) -> S3Remote:
    settings = S3Settings.of("cloud", server.settings(bucket, "pre/"))
    return S3Remote(settings, who, uuid=uuid, name="cloud", clock=clock or HandClock(), deadline=deadline)


@asynccontextmanager
async def fresh(server: S3Server, clock: HandClock | None = None) -> AsyncIterator[S3Remote]:
    bucket = f"bucket-{next(BUCKETS)}"
    (server.folder / bucket).mkdir()
    remote = make(server, bucket, clock=clock)
    await remote.provision()
    yield remote


def place(server: S3Server, remote: S3Remote, key: Key = KEY) -> Path:
    return server.folder / remote.settings.bucket / remote.settings.object_name(key)


@ASYNCIO
class TestS3(RemoteContract):
    locks = False
    patient_cancel = 4

    @pytest.fixture(autouse=True)
    def running(self, server: S3Server) -> None:
        self.server = server

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with fresh(self.server, clock) as remote:
            yield remote

    @pytest.mark.parametrize("content", [b"", content_of(3, 700_001)])
    async def test_what_was_put_can_be_got(self, content: bytes) -> None:
        await super().test_what_was_put_can_be_got(content)

    @pytest.mark.parametrize("raw", ["WORM-s100-m1--a%b&c:d e~#+?x\u00e9\u20ac".encode(), b"WORM--no size"])
    async def test_keys_are_bytes_and_travel_unchanged(self, raw: bytes) -> None:
        await super().test_keys_are_bytes_and_travel_unchanged(raw)

    @pytest.mark.parametrize(("offset", "end"), [(0, 0), (30, None), (30, 70), (99, 1000), (170, None)])
    async def test_a_get_starts_at_the_offset_and_stops_before_the_end(self, offset: int, end: int | None) -> None:
        await super().test_a_get_starts_at_the_offset_and_stops_before_the_end(offset, end)

    @pytest.mark.parametrize("offset", [0, 1000])
    async def test_absent_content_cannot_be_got(self, offset: int) -> None:
        await super().test_absent_content_cannot_be_got(offset)

    @pytest.mark.parametrize("cut", [0, 50])
    async def test_a_put_that_was_left_can_be_finished_from_where_the_remote_says(self, cut: int) -> None:
        await super().test_a_put_that_was_left_can_be_finished_from_where_the_remote_says(cut)

    @pytest.mark.parametrize("what", ["check", "put", "remove"])
    async def test_cancelling_at_any_await_leaves_a_remote_that_works(self, what: str) -> None:
        await super().test_cancelling_at_any_await_leaves_a_remote_that_works(what)

    # Many requests, of which each is one by itself here, and a name that no request has in it:
    test_a_thousand_questions_at_once_are_answered = None  # type: ignore[assignment]
    test_tasks_do_not_get_in_each_others_way = None  # type: ignore[assignment]
    test_a_name_of_the_file_is_a_hint_and_changes_nothing = None  # type: ignore[assignment]


async def test_it_works_on_any_event_loop(server: S3Server) -> None:
    async with fresh(server) as remote:
        await store(remote, KEY, CONTENT)
        assert await read(remote, KEY, 30, 70) == CONTENT[30:70]
        assert (await remote.remove_content(KEY)).ok
        assert not await remote.check_present(KEY)


@ASYNCIO
async def test_a_large_content_goes_in_parts_and_only_the_right_one_becomes_an_object(server: S3Server) -> None:
    content = content_of(1, PART + 1_234_567)
    key = key_of(content)
    async with fresh(server) as remote:
        with pytest.raises(VerificationFailed):
            await store(remote, key, content[:-1] + bytes([content[-1] ^ 1]))
        assert not place(server, remote, key).exists()
        async with remote.put(key) as upload:
            await upload.start(len(content))
            await upload.write(content[: PART + 100_000])  # and the sender goes away
        assert not place(server, remote, key).exists()

        await store(remote, key, content)

        assert place(server, remote, key).read_bytes() == content
        assert await verify(remote, key) is Verified.HASH
        assert await read(remote, key, PART - 5, PART + 5) == content[PART - 5 : PART + 5]


@ASYNCIO
async def test_a_flipped_bit_is_found_by_reading_it_again_and_repaired(server: S3Server) -> None:
    async with fresh(server) as remote:
        await store(remote, KEY, CONTENT)
        place(server, remote).write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
        with pytest.raises(VerificationFailed):
            await verify(remote, KEY)
        assert (await remote.remove_content(KEY)).ok
        await store(remote, KEY, CONTENT)
        assert await verify(remote, KEY) is Verified.HASH

        place(server, remote).write_bytes(CONTENT[:-1])
        assert not await remote.check_present(KEY)


async def refuses_everything(remote: S3Remote, error: type[AnnexError]) -> None:
    for key in (KEY, key_of(content_of(4))):
        with pytest.raises(error):
            await remote.check_present(key)
        with pytest.raises(error):
            await read(remote, key)
        with pytest.raises(error):
            await store(remote, key, CONTENT)
        removed = await remote.remove_content(key)
        assert not removed.ok
        assert isinstance(removed.failed[A], error)
    with pytest.raises(error):
        await remote.connect()


@ASYNCIO
async def test_a_bucket_that_is_not_there_or_nobodys_is_an_error_and_never_absence(server: S3Server) -> None:
    await refuses_everything(make(server, "no-such-bucket"), ConnectFailed)
    (server.folder / "nobodys").mkdir()
    await refuses_everything(make(server, "nobodys"), ConnectFailed)


@ASYNCIO
async def test_the_bucket_of_another_remote_is_not_used(server: S3Server) -> None:
    async with fresh(server) as remote:
        await store(remote, KEY, CONTENT)
        other = make(server, remote.settings.bucket, uuid=B)
        with pytest.raises(UnknownUUID):
            await other.connect()
        with pytest.raises(UnknownUUID):
            await other.provision()
        with pytest.raises(UnknownUUID):
            await other.check_present(key_of(content_of(3)))


@ASYNCIO
async def test_wrong_credentials_and_a_dead_server_are_errors_and_never_absence(server: S3Server) -> None:
    async with fresh(server) as remote:
        await store(remote, KEY, CONTENT)
        bucket = remote.settings.bucket
        await refuses_everything(make(server, bucket, who=S3Credentials("somebody", "guessed")), TransportError)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            await refuses_everything(make(S3Server(nobody.getsockname()[1], server.folder), bucket), TransportError)


@ASYNCIO
async def test_a_server_that_does_not_answer_runs_into_the_deadline(server: S3Server) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        remote = make(S3Server(silent.getsockname()[1], server.folder), "b", deadline=0.3)
        with anyio.fail_after(60), pytest.raises(TransportError):
            await remote.check_present(KEY)


@ASYNCIO
async def test_nothing_can_be_locked_and_a_removal_looks_at_the_clock(server: S3Server) -> None:
    clock = HandClock()
    async with fresh(server, clock) as remote:
        await store(remote, KEY, CONTENT)
        with pytest.raises(NotLocked, match="no locks"):
            async with remote.lock_content(KEY):
                pass
        late = await remote.remove_content(KEY, deadline=Deadline(clock.now()))
        assert isinstance(late.failed[A], TimedOut)
        assert await remote.check_present(KEY)


@ASYNCIO
@pytest.mark.parametrize("raw", [b"URL--http://example.org/x", b"WORM-s100--na\xffme", b"WORM-s100--x/../up"])
async def test_keys_that_cannot_be_names_of_objects_are_refused(server: S3Server, raw: bytes) -> None:
    async with fresh(server) as remote:
        with pytest.raises(InvalidKey):
            await store(remote, Key.parse(raw), CONTENT)


@pytest.mark.parametrize(
    ("settings", "error", "field"),
    [
        ({}, InvalidInput, "bucket"),
        ({"bucket": "a/b"}, InvalidInput, "bucket"),
        ({"bucket": "b", "host": "h", "port": "x"}, InvalidInput, "port"),
        ({"bucket": "b", "fileprefix": "/x/"}, InvalidInput, "fileprefix"),
        ({"bucket": "b", "host": "h", "protocol": "ftp"}, InvalidInput, "protocol"),
        ({"bucket": "b", "host": "s3.us.archive.org"}, Refused, "host"),
        ({"bucket": "b", "storageclass": "DEEP_ARCHIVE"}, Refused, "storageclass"),
        ({"bucket": "b", "public": "yes"}, Refused, "public"),
        ({"bucket": "b", "signature": "anonymous"}, Refused, "signature"),
        ({"bucket": "b", "x-amz-meta-a": "1"}, Refused, "x-amz-meta-a"),
    ],
)
def test_a_setting_that_is_not_offered_is_refused_by_its_name(
    settings: dict[str, str], error: type[AnnexError], field: str
) -> None:
    with pytest.raises(error, match=f"remote cloud: {field}"):
        S3Settings.of("cloud", settings)


def test_settings_are_read_as_git_annex_means_them() -> None:
    amazon = {"bucket": "b", "host": "s3.amazonaws.com", "port": "80", "datacenter": "EU", "storageclass": "STANDARD"}
    assert S3Settings.of("n", amazon) == S3Settings("b", "", "eu-west-1", by_path=False)
    other = {"bucket": "b", "host": "h", "port": "443", "fileprefix": "p/", "storageclass": "STANDARD_IA"}
    assert S3Settings.of("n", other) == S3Settings("b", "https://b.h:443", "us-east-1", "p/", False, "STANDARD_IA")
    assert S3Settings.of("n", other | {"fileprefix": "p"}).object_name(KEY) == f"p{KEY}"  # as it is: no folder


def test_the_secret_is_not_shown(server: S3Server) -> None:
    remote = make(server, "b")
    assert "a-secret" not in f"{remote!r} {WHO!r}"
    again = pickle.loads(pickle.dumps(remote))
    assert (again.uuid, again.name, again.settings) == (A, "cloud", remote.settings)
