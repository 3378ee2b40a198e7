"""Servers that are old, busy, strict, dying or lying, and what a client of theirs makes of it."""

from __future__ import annotations

import base64

import anyio
import pytest
from http_peers import Asked, answer, json, over_http, scripted
from remote_contract import CONTENT, KEY, WORM, A, B, HandClock, content_of, key_of, read, store

from annexpy.clock import Deadline
from annexpy.errors import (
    AccessDenied,
    AnnexError,
    AuthFailed,
    ConnectionLost,
    ContentChanged,
    ContentError,
    KeyNotPresent,
    NoSpace,
    NotLocked,
    PeerError,
    RemoteProtocolError,
    TransportError,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.remote.base import Removed
from annexpy.remote.http_line import ServerFailed, seconds_of
from annexpy.remote.memory import MemoryRemote
from annexpy.server.auth import EVERYTHING, READ_ONLY, Access, Secret, User, everywhere
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

PRESENT, ABSENT = json('{"present":true}'), json('{"present":false}')
LARGE = content_of(4, 300_000)
CLUSTER = UUID("ac000000-0000-8000-8000-000000000001")
DATA = "X-git-annex-data-length"


def content(body: bytes, length: int | None = None, announced: int | None = None) -> bytes:
    size = len(body) if announced is None else announced
    return answer(200, body, (DATA, str(size)), length=length)


# -- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", range(5))
@pytest.mark.parametrize("unknown", [answer(404), answer(400, b"bad version")], ids=["404", "bad version"])
async def test_the_highest_version_that_the_server_knows_is_found_once_and_kept(known: int, unknown: bytes) -> None:
    def script(asked: Asked) -> bytes:
        return PRESENT if asked.version == known else unknown

    async with scripted(script) as (remote, asked):
        assert await remote.check_present(KEY)
        assert await remote.check_present(KEY)
        assert [one.version for one in asked] == [*range(4, known - 1, -1), known]


async def test_a_server_that_knows_no_version_has_no_such_repository() -> None:
    async with scripted(lambda asked: answer(404)) as (remote, asked):
        with pytest.raises(UnknownUUID):
            await remote.check_present(KEY)
        assert [one.version for one in asked] == [4, 3, 2, 1, 0]


async def test_a_get_that_finds_nothing_is_no_reason_to_speak_an_older_version() -> None:
    async with scripted(lambda asked: PRESENT if asked.verb == "checkpresent" else answer(404)) as (remote, asked):
        with pytest.raises(KeyNotPresent):
            await read(remote, KEY)
        assert {one.version for one in asked} == {4}


async def test_a_server_that_became_older_is_understood() -> None:
    known = 4

    def script(asked: Asked) -> bytes:
        return PRESENT if asked.version == known else answer(404)

    async with scripted(script) as (remote, _):
        assert await remote.check_present(KEY)
        known = 2
        assert await remote.check_present(KEY)


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_removal_with_a_deadline_is_never_sent_without_it(version: int) -> None:
    async with scripted(lambda asked: PRESENT, max_version=version) as (remote, asked):
        result = await remote.remove_content(KEY, deadline=Deadline(1e9))
        assert not result.ok
        results = await remote.remove_content_many([KEY, WORM], deadline=Deadline(1e9))
        assert not any(result.ok for result in results)
        assert {one.verb for one in asked} == {"checkpresent"}


# -- who asks -------------------------------------------------------------------------------------


def guarded(secret: str) -> Access:
    return Access(users=[User("app", Secret.of(secret), everywhere(EVERYTHING), token=True)], allow_plain_http=True)


async def test_a_token_is_refreshed_in_the_middle_of_a_job() -> None:
    calls: list[bool] = []
    valid = ["one"]

    def authorize(again: bool) -> str:
        calls.append(again)
        return f"Bearer {valid[0]}"

    clock = HandClock()
    memory = MemoryRemote(A, clock=clock)
    keys = [key_of(content_of(number)) for number in range(1, 201)]
    async with over_http(memory, clock, access=guarded("one"), authorize=authorize) as remote:
        await store(remote, KEY, CONTENT)
        assert calls == [False]
        valid[0] = "two"
        remote.routes.access = guarded("two")  # type: ignore[attr-defined]
        assert await remote.check_present_many([KEY, *keys]) == [True] + [False] * 200
        assert calls == [False, True]
        assert await read(remote, KEY) == CONTENT

        remote.routes.access = guarded("three")  # type: ignore[attr-defined]
        with pytest.raises(AuthFailed):
            await remote.check_present(KEY)
        valid[0] = "three"
        assert await remote.check_present(KEY)


async def test_a_large_put_ends_and_the_next_one_has_the_new_token() -> None:
    valid, clock = ["one"], HandClock()
    key = key_of(LARGE)

    async def authorize(again: bool) -> str:
        await anyio.lowlevel.checkpoint()
        return f"Bearer {valid[0]}"

    async with over_http(MemoryRemote(A, clock=clock), clock, access=guarded("one"), authorize=authorize) as remote:
        async with remote.put(key) as upload:
            valid[0] = "two"
            remote.routes.access = guarded("two")  # type: ignore[attr-defined]
            await upload.start(len(LARGE))
            with pytest.raises(ConnectionLost, match="sent again"):  # noqa: PT012, because either may be the one
                await upload.write(LARGE)
                await upload.finish()
        assert (await store(remote, key, LARGE)).ok


async def test_the_password_of_the_url_is_said_when_it_is_asked_for() -> None:
    def script(asked: Asked) -> bytes:
        said = asked.head.headers.get(b"authorization")
        if said == b"Basic " + base64.b64encode(b"ann:se:cret"):
            return PRESENT
        return answer(401, b"", ("WWW-Authenticate", "Basic"))

    async with scripted(script, url="annex+http://ann:se%3Acret@far/") as (remote, asked):
        assert await remote.check_present(KEY)
        assert await remote.check_present(KEY)
        assert [b"authorization" in one.head.headers for one in asked] == [False, True, True]
        assert "cret" not in repr(remote) + remote.name


@pytest.mark.parametrize("status", [403, 404, 500, 502])
async def test_only_401_is_about_credentials(status: int) -> None:
    calls: list[bool] = []

    def authorize(again: bool) -> str:
        calls.append(again)
        return "Bearer x"

    async with scripted(lambda asked: answer(status), authorize=authorize) as (remote, _):
        with pytest.raises(AnnexError):
            await remote.check_present(KEY)
    assert calls == [False]


async def test_what_may_not_be_done_is_denied_by_name() -> None:
    clock = HandClock()
    memory = MemoryRemote(A, clock=clock, objects={KEY: CONTENT})
    async with over_http(memory, clock, access=Access(anonymous=everywhere(READ_ONLY))) as remote:
        assert await read(remote, KEY) == CONTENT
        with pytest.raises(AccessDenied, match="putoffset"):
            await store(remote, WORM, CONTENT)
        with pytest.raises(AccessDenied, match="remove"):
            await remote.remove_content(KEY)
        (result,) = await remote.remove_content_many([KEY])
        assert not result.ok


# -- busy servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_asked_again_when_it_said(status: int) -> None:
    busy = 3

    def script(asked: Asked) -> bytes:
        nonlocal busy
        busy -= 1
        return answer(status, b"", ("Retry-After", "0")) if busy >= 0 else PRESENT

    async with scripted(script) as (remote, asked):
        assert await remote.check_present(KEY)
        assert len(asked) == 4


async def test_a_server_that_stays_busy_is_given_up() -> None:
    async with scripted(lambda asked: answer(503, b"later", ("Retry-After", "100000"))) as (remote, asked):
        with pytest.raises(ServerFailed, match="503 later"):
            await remote.check_present(KEY)
        assert len(asked) == 1


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_of(b" 7 ", 0) == 7
    assert seconds_of(b"Thu, 01 Jan 1970 00:01:40 GMT", 40) == 60
    assert seconds_of(b"Thu, 01 Jan 1970 00:01:40 GMT", 400) == 0
    assert seconds_of(b"-1", 0) is None
    assert seconds_of(b"soon", 0) is None
    assert seconds_of(b"9" * 40, 0) is None


# -- servers that die -------------------------------------------------------------------------------


async def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    async with scripted(lambda asked: b"!" + PRESENT) as (remote, asked):
        for _ in range(3):
            assert await remote.check_present(KEY)
        assert len(asked) == 3


async def test_a_server_that_hangs_up_leaves_the_outcome_open() -> None:
    def script(asked: Asked) -> bytes | None:
        return PRESENT if asked.verb == "checkpresent" else None

    async with scripted(script) as (remote, _):
        assert await remote.check_present(KEY)
        with pytest.raises(TransportError):
            await remote.remove_content(KEY)
        results = await remote.remove_content_many([KEY, WORM])
        assert [isinstance(*result.failed.values(), TransportError) for result in results] == [True, True]


@pytest.mark.parametrize("status", [500, 502, 504, 408])
async def test_a_removal_that_failed_somewhere_may_have_happened(status: int) -> None:
    async with scripted(lambda asked: PRESENT if asked.verb == "checkpresent" else answer(status)) as (remote, _):
        with pytest.raises(TransportError):
            await remote.remove_content(KEY)


async def test_a_body_that_breaks_off_is_a_good_prefix_and_no_content() -> None:
    def script(asked: Asked) -> bytes:
        return PRESENT if asked.verb == "checkpresent" else b"!" + content(CONTENT[:60], length=100, announced=100)

    async with scripted(script) as (remote, _):
        async with remote.get(KEY) as download:
            got = await anext(download)
            with pytest.raises(ConnectionLost):
                await anext(download)
        assert got == CONTENT[:60]


async def test_a_body_that_ends_early_says_that_the_content_changed() -> None:
    def script(asked: Asked) -> bytes:
        return PRESENT if asked.verb == "checkpresent" else content(CONTENT[:99], announced=100)

    async with scripted(script) as (remote, _):
        with pytest.raises(ContentChanged):
            await read(remote, KEY)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (content(CONTENT + b"x"), RemoteProtocolError),
        (content(CONTENT[:99]), VerificationFailed),
        (content(CONTENT, announced=99), (VerificationFailed, RemoteProtocolError)),
        (content(b""), None),
        (answer(200, CONTENT, (DATA, "-1")), RemoteProtocolError),
        (answer(200, CONTENT, (DATA, "many")), RemoteProtocolError),
        (b"!HTTP/1.1 200 OK\r\n\r\n" + CONTENT, RemoteProtocolError),
        (answer(206, CONTENT, (DATA, "100"), ("Content-Range", "bytes 0-99/100")), RemoteProtocolError),
        (answer(204), RemoteProtocolError),
        (answer(302, b"", ("Location", "http://elsewhere/")), PeerError),
        (b"!garbage\r\n\r\n", RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000, RemoteProtocolError),
    ],
)
async def test_lengths_and_heads_that_make_no_sense_are_no_content(said: bytes, error: type[AnnexError] | None) -> None:
    def script(asked: Asked) -> bytes:
        return PRESENT if asked.verb == "checkpresent" else said

    async with scripted(script) as (remote, _):
        if error is None:
            # It has it, and sends nothing: not what was announced by the key.
            error = VerificationFailed
        with pytest.raises(error):
            await read(remote, KEY)
        assert await remote.check_present(KEY)


async def test_interim_answers_are_read_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with scripted(lambda asked: early + PRESENT) as (remote, _):
        assert await remote.check_present(KEY)


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"present":1}', '{"present":"true"}', "[" * 100_000])
async def test_answers_that_say_nothing_are_not_believed(body: str) -> None:
    async with scripted(lambda asked: json(body)) as (remote, _):
        with pytest.raises(RemoteProtocolError):
            await remote.check_present(KEY)


# -- puts -------------------------------------------------------------------------------------------


async def test_a_claim_to_have_the_content_is_looked_at() -> None:
    def script(asked: Asked) -> bytes:
        return ABSENT if asked.verb == "checkpresent" else json('{"alreadyhave":true,"plusuuids":[]}')

    async with scripted(script) as (remote, asked):
        with pytest.raises(ContentError, match="claims"):
            await store(remote, KEY, CONTENT)
        assert "put" not in {one.verb for one in asked}


async def test_a_confirmed_claim_counts_for_who_made_it_and_nobody_else() -> None:
    def script(asked: Asked) -> bytes:
        return PRESENT if asked.verb == "checkpresent" else json(f'{{"alreadyhave":true,"plusuuids":["{B}"]}}')

    async with scripted(script) as (remote, _):
        async with remote.put(KEY) as upload:
            assert upload.already == {A}


@pytest.mark.parametrize(
    ("uuid", "plus", "expected"), [(A, "", {A}), (A, f'"{B}"', {A, B}), (CLUSTER, f'"{A}","{B}"', {A, B})]
)
async def test_everybody_who_stored_it_is_known_and_no_cluster_is(uuid: UUID, plus: str, expected: set[UUID]) -> None:
    def script(asked: Asked) -> bytes:
        match asked.verb:
            case "checkpresent":
                return ABSENT
            case "putoffset":
                return json('{"offset":0}')
        return json(f'{{"plusuuids":[{plus}],"stored":true}}')

    async with scripted(script, uuid=uuid) as (remote, _):
        assert (await store(remote, KEY, CONTENT)).uuids == expected


@pytest.mark.parametrize("size", [100, 300_000])
async def test_a_put_that_was_refused_is_not_stored(size: int) -> None:
    body = content_of(4, size)
    key = key_of(body)
    final = json('{"plusuuids":[],"stored":false}')

    def script(asked: Asked) -> bytes:
        match asked.verb:
            case "checkpresent":
                return ABSENT
            case "putoffset":
                return json('{"offset":10}')
        assert asked.body == body[10:]
        assert b"offset=10" in asked.head.target
        assert asked.head.headers[b"x-git-annex-data-length"] == b"%d" % (size - 10)
        return final

    async with scripted(script) as (remote, _):
        with pytest.raises(VerificationFailed):
            await store(remote, key, body)
        final = answer(507, b"full")
        with pytest.raises(NoSpace):
            await store(remote, key, body)
        final = answer(403)
        with pytest.raises(AccessDenied):
            await store(remote, key, body)


async def test_content_that_came_there_meanwhile_is_not_taken_for_a_new_copy() -> None:
    clock = HandClock()
    memory = MemoryRemote(A, clock=clock)
    async with over_http(memory, clock) as remote:
        await remote.connect()
        assert await remote.check_present_many([KEY, WORM]) == [False, False]
        memory.objects[KEY] = CONTENT
        stored = await store(remote, KEY, CONTENT)
        assert (stored.uuids, stored.already) == (frozenset(), {A})
        assert (await store(remote, WORM, CONTENT)).uuids == {A}


# -- locks, removals, batches -----------------------------------------------------------------------


async def test_a_lock_is_asked_for_kept_and_given_back_on_one_connection() -> None:
    def script(asked: Asked) -> bytes:
        if asked.verb == "lockcontent":
            return json('{"locked":true,"lockid":"one"}')
        assert asked.body == b'{"unlock":false}\n'
        assert b"lockid=one" in asked.head.target
        return b""

    async with scripted(script) as (remote, asked):
        locking = remote.lock_content(KEY)
        lock = await locking.__aenter__()
        assert await lock.held()
        await locking.__aexit__(ConnectionLost, ConnectionLost("x", "y"), None)
        assert [one.verb for one in asked] == ["lockcontent", "keeplocked"]


async def test_a_lock_that_the_server_gave_up_is_not_held() -> None:
    def script(asked: Asked) -> bytes:
        if asked.verb == "lockcontent":
            return json('{"locked":true,"lockid":"one"}')
        return json('{"locked":false}')

    async with scripted(script) as (remote, _):
        async with remote.lock_content(KEY) as lock:
            with anyio.fail_after(5):
                while await lock.held():
                    await anyio.lowlevel.checkpoint()


async def test_what_is_not_locked_is_refused() -> None:
    async with scripted(lambda asked: json('{"locked":false}')) as (remote, _):
        with pytest.raises(NotLocked):
            await remote.lock_content(KEY).__aenter__()


async def test_the_deadline_of_a_removal_is_said_in_the_servers_clock_and_never_later() -> None:
    clock, said = HandClock(1000.0), []

    def script(asked: Asked) -> bytes:
        match asked.verb:
            case "checkpresent":
                return PRESENT
            case "gettimestamp":
                return json('{"timestamp":-50}')
        said.append(int(asked.head.target.rpartition(b"timestamp=")[2]))
        return json('{"plusuuids":[],"removed":true}')

    async with scripted(script, clock=clock) as (remote, asked):
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.7))).ok
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.7))).ok
        assert said[0] == 50
        assert said[1] <= 50
        assert [one.verb for one in asked].count("gettimestamp") == 1


@pytest.mark.parametrize("ours", [True, False])
async def test_a_batch_goes_on_where_the_server_left_off(ours: bool) -> None:
    # After each few answers this server hangs up, and one of its answers is no answer.
    count = 0
    header = (("Server", "annexpy"),) if ours else ()
    keys = [key_of(content_of(number)) for number in range(120)]

    def script(asked: Asked) -> bytes:
        nonlocal count
        count += 1
        if count == 5:
            return answer(500, b"oops", *header)
        there = "true" if asked.head.target.find(keys[7].raw) > 0 else "false"
        return (b"!" if count % 17 == 0 else b"") + json(f'{{"present":{there}}}', *header)

    async with scripted(script) as (remote, _):
        assert await remote.check_present_many(keys) == [number == 7 for number in range(120)]


async def test_a_partial_removal_tells_who_no_longer_has_it() -> None:
    async with scripted(lambda asked: json(f'{{"plusuuids":["{B}"],"removed":false}}')) as (remote, _):
        result = await remote.remove_content(KEY)
        assert isinstance(result, Removed)
        assert (result.ok, result.uuids, set(result.failed)) == (False, {B}, {A})
