"""What a client does with servers that are old, odd, slow or dishonest."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint
from peers import GREETING, Peers, Step, scripted
from remote_contract import CONTENT, KEY, WORM, A, B, HandClock, content_of, key_of, read, store

from annexpy.clock import LOCK_RETENTION, Deadline
from annexpy.errors import (
    AnnexError,
    AuthFailed,
    ConnectFailed,
    ConnectionLost,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    OutcomeUnknown,
    PeerError,
    Refused,
    RemoteProtocolError,
    TimedOut,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.p2p.extensions import RANGES
from annexpy.remote.base import BatchPresence, BatchRemove, Stored
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.p2p_upload import P2PUpload
from annexpy.remote.removal_end import NO_DEADLINE
from annexpy.transport.sockets import DialUnix
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

C = UUID("cccccccc-0000-4000-8000-000000000003")
CLUSTER = UUID("acacacac-0000-8000-8000-000000000004")


async def nothing(remote: P2PRemote) -> None:
    """The peer and the pool are as good as before."""
    assert await remote.check_present(KEY)


# -- the greeting -----------------------------------------------------------------------------------


async def test_the_version_is_asked_for_without_waiting_for_the_greeting() -> None:
    async with scripted(["> VERSION 4", f"< AUTH-SUCCESS {A}", "< VERSION 4"], greet=False) as (remote, _):
        assert await remote.connect() == A


async def test_a_server_that_knows_no_version_is_spoken_to_in_version_0() -> None:
    script: list[Step] = [
        "> VERSION 4",
        f"< AUTH-SUCCESS {A}",
        "< ERROR unknown command",
        "> GET 0  SHA256E-s100--",
        "< DATA 100",
        CONTENT,
        "> SUCCESS",
    ]
    async with scripted(script, greet=False) as (remote, _):
        assert await read(remote, KEY) == CONTENT


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (["< ERROR no such user", "hang up"], PeerError),
        (["< AUTH-FAILURE"], RemoteProtocolError),
        (["< Welcome to Debian!"], RemoteProtocolError),
        (["hang up"], ConnectFailed),
        ([f"< AUTH-SUCCESS {B}"], UnknownUUID),
        ([f"< AUTH-SUCCESS {A}", "< VERSION 5"], RemoteProtocolError),
        ([f"< AUTH-SUCCESS {A}", "< SUCCESS"], RemoteProtocolError),
        ([f"< AUTH-SUCCESS {A}", "hang up"], ConnectFailed),
        (["< AUTH-SUCCESS ../../etc/passwd"], RemoteProtocolError),
        ([b"x" * 200_000], RemoteProtocolError),
    ],
)
async def test_a_greeting_that_is_none_is_an_error_and_the_next_connection_may_be_better(
    script: list[Step], error: type[AnnexError]
) -> None:
    good: list[Step] = [*GREETING, "> CHECKPRESENT", "< SUCCESS"]
    async with scripted(["> VERSION 4", *script], good, greet=False) as (remote, _):
        with pytest.raises(error, match="peer"):
            await remote.connect()
        await nothing(remote)


async def test_where_the_server_waits_for_it_the_token_is_said_first() -> None:
    script: list[Step] = [f"> AUTH {C} secret", f"< AUTH-SUCCESS {A}", "> VERSION 4", "< VERSION 4"]
    refused: list[Step] = [f"> AUTH {C} secret", "< AUTH-FAILURE"]
    async with scripted(script, greet=False, token="secret", client_uuid=C) as (remote, _):
        assert await remote.connect() == A
    async with scripted(refused, greet=False, token="secret", client_uuid=C) as (remote, _):
        with pytest.raises(AuthFailed):
            await remote.connect()


@pytest.mark.parametrize("version", [1, 2, 4])
async def test_gateways_that_were_passed_are_named_from_version_2(version: int) -> None:
    named: list[Step] = [f"> BYPASS {B} {C}"] if version >= 2 else []
    script: list[Step] = ["> VERSION 4", f"< AUTH-SUCCESS {A}", f"< VERSION {version}", *named]
    script += ["> CHECKPRESENT", "< SUCCESS"]
    async with scripted(script, greet=False, bypass=(B, C)) as (remote, _):
        await nothing(remote)


async def test_the_uuid_that_answered_first_must_answer_ever_after() -> None:
    async with scripted(
        [*GREETING, "> CHECKPRESENT", "< SUCCESS", "hang up"],
        ["> VERSION 4", f"< AUTH-SUCCESS {B}", "< VERSION 4"],
        greet=False,
        uuid=None,
    ) as (remote, _):
        await nothing(remote)
        assert remote.uuid == A
        with pytest.raises(UnknownUUID, match=f"expected repository {A} but found {B}"):
            await remote.check_present(KEY)


# -- questions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("< ERROR disk on fire", PeerError),
        ("< PUT-FROM 0", RemoteProtocolError),
        ("< SUCCESS-PLUS", RemoteProtocolError),
        ("< DATA 5", RemoteProtocolError),
        ("< success", RemoteProtocolError),
        (b"\0\0\0\0\n", RemoteProtocolError),
        (b"S" * 40_000, RemoteProtocolError),
        ("hang up", ConnectionLost),
    ],
)
async def test_an_odd_answer_costs_the_wire_and_nothing_else(answer: Step, error: type[AnnexError]) -> None:
    after: list[Step] = ["> CHECKPRESENT", "< SUCCESS"]
    scripts: list[list[Step]] = [["> CHECKPRESENT", answer], after]
    if error is PeerError:
        scripts = [[*scripts[0], *after]]
    async with scripted(*scripts) as (remote, _):
        with pytest.raises(error, match="peer"):
            await remote.check_present(KEY)
        await nothing(remote)


async def test_a_batch_with_an_error_in_it_fails_whole_and_keeps_the_wire_in_step() -> None:
    script: list[Step] = ["> CHECKPRESENT", "< SUCCESS", "< ERROR no", "< FAILURE", "> CHECK", "> CHECK"]
    async with scripted([*script, "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(PeerError, match="no"):
            await remote.check_present_many([KEY, WORM, KEY])
        await nothing(remote)


async def test_no_more_than_32_kib_of_questions_are_unanswered() -> None:
    keys = [key_of(content_of(number)) for number in range(1000)]
    line = len(f"CHECKPRESENT {keys[0]}\n")
    unanswered = []
    answered = 0

    def look(peers: Peers) -> None:
        unanswered.append(sum(map(len, peers.met[0].chunks)) - answered * line)

    async with scripted([]) as (remote, peers):
        script = peers.waiting[0].script
        for number in range(1000):

            def count(number: int = number) -> None:
                nonlocal answered
                look(peers)
                answered = number + 1

            script += ["> CHECKPRESENT", count, "< SUCCESS"]
        assert await remote.check_present_many(keys) == [True] * 1000
    assert 16_000 < max(unanswered) <= 32 * 1024 + 100


async def test_a_key_that_does_not_fit_on_a_line_is_refused_and_the_rest_goes_on() -> None:
    async with scripted([], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(LocalProtocolError):
            await remote.check_present(Key(b"WORM", b"a\nREMOVE b"))
        await nothing(remote)


# -- wires that were kept -----------------------------------------------------------------------------


async def test_a_wire_that_the_peer_closed_meanwhile_is_not_used_again() -> None:
    async with scripted(["> CHECKPRESENT", "< SUCCESS", "hang up"], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        await nothing(remote)
        for _ in range(5):
            await checkpoint()
        await nothing(remote)


async def test_a_wire_on_which_the_peer_says_something_unasked_is_not_used_again() -> None:
    async with scripted(["> CHECKPRESENT", "< SUCCESS", "< ERROR bye"], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        await nothing(remote)
        for _ in range(5):
            await checkpoint()
        await nothing(remote)


@pytest.mark.parametrize("what", ["check", "many", "get", "put", "lock", "remove", "remove many"])
async def test_a_kept_wire_that_ends_before_it_is_heard_is_replaced_once(what: str) -> None:
    first: list[Step] = ["> CHECKPRESENT", "< SUCCESS", "> ", "hang up"]
    second: dict[str, list[Step]] = {
        "check": ["> CHECKPRESENT", "< SUCCESS"],
        "many": ["> CHECKPRESENT", "< SUCCESS", "> CHECKPRESENT", "< SUCCESS"],
        "get": ["> GET", "< DATA 100", CONTENT, "< VALID", "> SUCCESS"],
        "put": ["> PUT", "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", "< SUCCESS"],
        "lock": ["> LOCKCONTENT", "< SUCCESS", "> UNLOCKCONTENT"],
        "remove": ["> REMOVE", "< SUCCESS"],
        "remove many": ["> REMOVE", "< SUCCESS", "> REMOVE", "< SUCCESS"],
    }
    async with scripted(first, second[what]) as (remote, _):
        await nothing(remote)
        match what:
            case "check":
                await nothing(remote)
            case "many":
                assert await remote.check_present_many([KEY, WORM]) == [True, True]
            case "get":
                assert await read(remote, KEY) == CONTENT
            case "put":
                assert (await store(remote, KEY, CONTENT)).uuids == {A}
            case "lock":
                async with remote.lock_content(KEY) as lock:
                    assert await lock.held()
            case "remove":
                assert (await remote.remove_content(KEY)).ok
            case _:
                assert all(found.ok for found in await remote.remove_content_many([KEY, WORM]))


async def test_a_new_wire_that_ends_before_it_is_heard_is_not_tried_again() -> None:
    async with scripted(["> CHECKPRESENT", "hang up"]) as (remote, _):
        with pytest.raises(ConnectionLost, match="peer hung up while waiting for the answer to CHECKPRESENT"):
            await remote.check_present(KEY)


# -- put --------------------------------------------------------------------------------------------


async def test_a_small_put_is_one_write_after_the_offset_is_known() -> None:
    async with scripted(
        ["> PUT dir/a%file SHA256E-s100--", "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", "< SUCCESS"]
    ) as (
        remote,
        peers,
    ):
        assert await store(remote, KEY, CONTENT, piece=7, name="dir/a file") == Stored(uuids=frozenset({A}))
    assert peers.met[0].chunks[-1] == b"DATA 100\n" + CONTENT + b"VALID\n"


async def test_a_bare_claim_to_have_it_is_checked_before_it_counts() -> None:
    async with scripted(["> PUT", "< ALREADY-HAVE", "> CHECKPRESENT SHA256E", "< SUCCESS"]) as (remote, _):
        async with remote.put(KEY) as upload:
            assert upload.already == {A}


@pytest.mark.parametrize("claim", ["ALREADY-HAVE", f"ALREADY-HAVE-PLUS {B} {C}"])
@pytest.mark.parametrize(("answer", "error"), [("FAILURE", ContentError), ("ERROR cannot tell", PeerError)])
async def test_a_claim_that_is_not_confirmed_is_an_error_and_no_copy(
    claim: str, answer: str, error: type[AnnexError]
) -> None:
    script: list[Step] = ["> PUT", f"< {claim}", "> CHECKPRESENT", f"< {answer}", "> CHECKPRESENT", "< SUCCESS"]
    async with scripted(script) as (remote, _):
        with pytest.raises(error):
            await store(remote, KEY, CONTENT)
        await nothing(remote)


async def test_others_that_are_claimed_to_have_it_are_told_apart_from_what_was_checked() -> None:
    async with scripted(["> PUT", f"< ALREADY-HAVE-PLUS {B} {A} {C}", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        async with remote.put(KEY) as upload:
            assert isinstance(upload, P2PUpload)
            assert upload.already == {A}
            assert upload.claimed == {B, C}


@pytest.mark.parametrize(
    ("uuid", "answer", "uuids"),
    [
        (A, "SUCCESS", {A}),
        (A, f"SUCCESS-PLUS {B}", {A, B}),
        (A, f"SUCCESS-PLUS {CLUSTER} {B}", {A, B}),
        (A, "SUCCESS-PLUS", {A}),
        (CLUSTER, f"SUCCESS-PLUS {A} {B}", {A, B}),
        (CLUSTER, f"SUCCESS-PLUS {A} {CLUSTER}", {A}),
        (CLUSTER, "SUCCESS", {CLUSTER}),
    ],
)
async def test_who_stored_it_is_who_was_named_and_never_a_cluster_beside_its_nodes(
    uuid: UUID, answer: str, uuids: set[UUID]
) -> None:
    script: list[Step] = ["> VERSION", f"< AUTH-SUCCESS {uuid}", "< VERSION 4", "> PUT", "< PUT-FROM 0"]
    script += ["> DATA 100", ">> 100", "> VALID", f"< {answer}", "> REMOVE", f"< {answer}"]
    async with scripted(script, greet=False, uuid=uuid) as (remote, _):
        assert (await store(remote, KEY, CONTENT)).uuids == uuids
        assert (await remote.remove_content(KEY)).uuids == uuids


@pytest.mark.parametrize(
    ("answer", "error"),
    [("FAILURE", VerificationFailed), ("ERROR no space", PeerError), ("FAILURE-PLUS", VerificationFailed)],
)
async def test_a_put_that_is_refused_after_its_content_stored_nothing(answer: str, error: type[AnnexError]) -> None:
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", f"< {answer}"]
    async with scripted([*script, "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(error):
            await store(remote, KEY, CONTENT)
        await nothing(remote)


async def test_a_put_that_failed_for_the_most_part_names_those_that_have_it() -> None:
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 100", ">> 100", "> VALID", f"< FAILURE-PLUS {B}"]
    async with scripted(script) as (remote, _):
        stored = await store(remote, KEY, CONTENT)
        assert stored.uuids == {B}
        assert isinstance(stored.failed[A], ContentError)


@pytest.mark.parametrize("answer", ["FAILURE", "ERROR this repository is read-only; write access denied"])
async def test_a_put_that_is_refused_at_once_leaves_the_wire_in_step(answer: str) -> None:
    async with scripted(["> PUT", f"< {answer}", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(ContentError if answer == "FAILURE" else PeerError):
            await store(remote, KEY, CONTENT)
        await nothing(remote)


@pytest.mark.parametrize("last", ["hang up", "deaf"])
async def test_a_peer_that_gives_up_during_the_content_is_heard_and_not_sent_the_rest(last: str) -> None:
    content = content_of(1, 3_000_000)
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 3000000", ">> 100", "< ERROR disk full", last]
    async with scripted(script, ["> CHECKPRESENT", "< SUCCESS"]) as (remote, peers):
        with pytest.raises(PeerError, match="disk full"):
            await store(remote, key_of(content), content, piece=100_000)
        await nothing(remote)
    assert sum(map(len, peers.met[0].chunks)) < 1_500_000


async def test_leaving_a_put_hangs_up_because_a_short_end_would_cost_the_partial() -> None:
    content = content_of(1, 200_000)
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 200000", ">> 100000"]
    async with scripted(script, ["> CHECKPRESENT", "< SUCCESS"]) as (remote, peers):
        async with remote.put(key_of(content)) as upload:
            await upload.start(200_000)
            await upload.write(content[:100_000])
        await nothing(remote)
    assert b"VALID" not in b"".join(peers.met[0].chunks)


async def test_a_put_that_is_left_before_its_content_keeps_the_wire_when_the_peer_has_nothing_to_lose() -> None:
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 0", "> INVALID", "< FAILURE", "> CHECKPRESENT", "< SUCCESS"]
    async with scripted(script) as (remote, _):
        async with remote.put(KEY) as upload:
            assert upload.offset == 0
        await nothing(remote)


@pytest.mark.parametrize(("key", "offset"), [(KEY, 50), (WORM, 0), (Key(b"SHA256", KEY.name), 0)])
async def test_a_put_that_is_left_before_its_content_hangs_up_where_an_end_could_change_something(
    key: Key, offset: int
) -> None:
    async with scripted(["> PUT", f"< PUT-FROM {offset}"], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, peers):
        async with remote.put(key):
            pass
        await nothing(remote)
    assert b"DATA" not in b"".join(peers.met[0].chunks)


async def test_unverifiable_content_is_not_complete_before_it_is_valid() -> None:
    content = content_of(1, 200_000)
    key = Key(b"WORM", b"x", 200_000)
    script: list[Step] = ["> PUT", "< PUT-FROM 0", "> DATA 200000", ">> 199999"]
    async with scripted(script, [*script, ">> 1", "> VALID", "< SUCCESS"]) as (remote, peers):
        with pytest.raises(ContentChanged):
            await store(remote, key, content, valid=False)
        assert (await store(remote, key, content)).ok
    assert peers.met[1].chunks[-1] == content[-1:] + b"VALID\n"


async def test_an_offset_beyond_the_key_is_handed_on_for_the_caller_to_send_nothing() -> None:
    async with scripted(["> PUT", "< PUT-FROM 600", "> DATA 0", "> VALID", "< FAILURE"]) as (remote, _):
        async with remote.put(KEY) as upload:
            assert upload.offset == 600
            await upload.start(0)
            with pytest.raises(VerificationFailed):
                await upload.finish()


async def test_data_present_is_said_from_version_4() -> None:
    old: list[Step] = ["> VERSION 4", f"< AUTH-SUCCESS {A}", "< VERSION 3", "> PUT", "< PUT-FROM 0"]
    old += ["> DATA 0", "> INVALID", "< FAILURE"]
    async with scripted([*GREETING, "> PUT", "< PUT-FROM 0", "> DATA-PRESENT", "< SUCCESS"], greet=False) as (
        remote,
        _,
    ):
        async with remote.put(KEY) as upload:
            assert (await upload.data_present()).uuids == {A}
    async with scripted(old, greet=False) as (remote, _):
        async with remote.put(KEY) as upload:
            with pytest.raises(Refused, match="version 4"):
                await upload.data_present()


# -- get --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (["< DATA 101"], RemoteProtocolError),
        (["< DATA 99999999999999999999"], RemoteProtocolError),
        (["< DATA -1"], RemoteProtocolError),
        (["< DATA 99", CONTENT[:99], "< VALID"], VerificationFailed),
        (["< DATA 0", "< VALID"], VerificationFailed),
        (["< DATA 100", CONTENT, "< PERHAPS"], RemoteProtocolError),
        (["< DATA 100", CONTENT[:99], "hang up"], ConnectionLost),
        (["< DATA 100", CONTENT, "hang up"], ConnectionLost),
        (["< SUCCESS"], RemoteProtocolError),
    ],
)
async def test_content_of_the_wrong_length_is_an_error_and_costs_the_wire(
    answer: list[Step], error: type[AnnexError]
) -> None:
    async with scripted(["> GET 0  SHA256E", *answer], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(error):
            await read(remote, KEY)
        await nothing(remote)


async def test_no_content_and_invalid_is_absence_and_the_wire_goes_on() -> None:
    async with scripted(["> GET", "< DATA 0", "< INVALID", "> FAILURE", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(KeyNotPresent):
            await read(remote, KEY)
        await nothing(remote)


async def test_an_error_in_answer_to_a_get_is_told_and_the_wire_goes_on() -> None:
    async with scripted(["> GET", "< ERROR gone", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(PeerError, match="peer: gone"):
            await read(remote, KEY)
        await nothing(remote)


async def test_content_that_changed_while_it_was_sent_is_marked_and_not_called_a_success() -> None:
    async with scripted(["> GET", "< DATA 100", CONTENT, "< INVALID", "> FAILURE"]) as (remote, _):
        async with remote.get(KEY) as download:
            assert b"".join([chunk async for chunk in download]) == CONTENT
            assert not download.valid


@pytest.mark.parametrize("failing", [False, True])
async def test_the_sender_is_told_how_the_get_ended(failing: bool) -> None:
    script: list[Step] = ["> GET", "< DATA 100", CONTENT, "< VALID", "> FAILURE" if failing else "> SUCCESS"]
    async with scripted(script) as (remote, _):
        try:
            async with remote.get(KEY) as download:
                async for _ in download:
                    pass
                if failing:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert failing


@pytest.mark.parametrize("answer", ["SUCCESS", "FAILURE"])
async def test_an_empty_answer_of_version_0_is_looked_into(answer: str) -> None:
    key = Key(b"URL", b"http://example.org/")
    script: list[Step] = ["> VERSION", f"< AUTH-SUCCESS {A}", "< ERROR what", "> GET", "< DATA 0", "> SUCCESS"]
    async with scripted([*script, "> CHECKPRESENT", f"< {answer}"], greet=False) as (remote, _):
        if answer == "SUCCESS":
            assert await read(remote, key) == b""
        else:
            with pytest.raises(KeyNotPresent):
                await read(remote, key)


async def test_the_rest_of_a_long_content_is_not_waited_for() -> None:
    content = content_of(1, 1_000_000)
    hello: tuple[Step, ...] = (f"< AUTH-SUCCESS {A}", "< VERSION 4")
    stock: list[Step] = [f"> VERSION {RANGES}", *hello, "> GET 10  SHA256E", "< DATA 999990", content[10:90_000]]
    again: list[Step] = ["> VERSION 4", *hello, "> GET 10  SHA256E", "< DATA 999990", content[10:90_000]]
    asked: list[Step] = ["> VERSION 4", *hello, "> CHECKPRESENT", "< SUCCESS"]
    async with scripted(stock, again, asked, greet=False) as (remote, _):
        for _ in range(2):
            async with remote.get(key_of(content), offset=10, end=20) as download:
                assert download.length == 10
                assert b"".join([chunk async for chunk in download]) == content[10:20]
            assert not remote.ranges
        await nothing(remote)


_PARTS: list[Step] = [f"> VERSION {RANGES}", f"< AUTH-SUCCESS {A}", f"< VERSION {RANGES}"]


async def test_a_peer_of_ours_sends_what_is_asked_for_and_the_wire_goes_on() -> None:
    content = content_of(1, 1_000_000)
    key = key_of(content)
    script: list[Step] = [*_PARTS, f"> GET-RANGE 10 20  {key}", "< DATA 10", content[10:20], "< VALID"]
    script += ["> SUCCESS", f"> GET-RANGE 30 33  {key}", "< DATA 3", content[30:33], "< VALID", "> SUCCESS"]
    async with scripted(script, greet=False) as (remote, _):
        for start, end in ((10, 20), (30, 33)):
            assert await read(remote, key, start, end) == content[start:end]
        assert remote.ranges


@pytest.mark.parametrize("announced", [9, 11, 999_990])
async def test_another_part_than_the_one_that_was_asked_for_is_refused(announced: int) -> None:
    key = key_of(content_of(1, 1_000_000))
    script: list[Step] = [*_PARTS, f"> GET-RANGE 10 20  {key}", f"< DATA {announced}"]
    async with scripted(script, greet=False) as (remote, _):
        with pytest.raises((RemoteProtocolError, VerificationFailed)):
            await read(remote, key, 10, 20)


async def test_what_reaches_to_the_end_is_asked_for_as_ever() -> None:
    content = content_of(1, 1000)
    async with scripted(["> GET 990  SHA256E", "< DATA 10", content[990:], "< VALID", "> SUCCESS"]) as (remote, _):
        assert await read(remote, key_of(content), 990, 1000) == content[990:]


# -- locks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "error"), [("FAILURE", NotLocked), ("ERROR no locks here", PeerError)])
async def test_a_lock_that_is_not_given_is_an_error(answer: str, error: type[AnnexError]) -> None:
    async with scripted(["> LOCKCONTENT", f"< {answer}", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        with pytest.raises(error):
            async with remote.lock_content(KEY):
                raise AssertionError
        await nothing(remote)


async def test_a_lock_expires_from_the_moment_before_it_was_asked_for() -> None:
    clock = HandClock(1000.0)

    def slowly() -> None:
        clock.time += 30

    async with scripted(["> LOCKCONTENT", slowly, "< SUCCESS", "> UNLOCKCONTENT"], clock=clock) as (remote, _):
        async with remote.lock_content(KEY) as lock:
            assert lock.expires == 1000.0 + LOCK_RETENTION
            assert await lock.held()
            clock.time = lock.expires
            assert not await lock.held()


@pytest.mark.parametrize("end", ["hang up", "< ERROR sorry"])
async def test_a_lock_is_not_held_once_its_wire_is_gone_or_says_anything(end: str) -> None:
    async with scripted(["> LOCKCONTENT", "< SUCCESS", end], ["> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        async with remote.lock_content(KEY) as lock:
            for _ in range(5):
                await checkpoint()
            assert not await lock.held()
        await nothing(remote)


# -- removal ----------------------------------------------------------------------------------------


async def test_a_deadline_is_said_in_the_clock_of_the_peer_and_never_later() -> None:
    clock = HandClock(1000.25)

    def slowly() -> None:
        clock.time += 3  # the answer takes this long: it must shorten the time, not lengthen it

    script: list[Step] = ["> GETTIMESTAMP", slowly, "< TIMESTAMP 77000", "> REMOVE-BEFORE 77096 SHA256E", "< SUCCESS"]
    async with scripted(script, clock=clock) as (remote, _):
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.0))).ok


async def test_the_clock_of_the_peer_is_asked_again_after_a_minute() -> None:
    clock = HandClock(1000.0)
    script: list[Step] = ["> GETTIMESTAMP", "< TIMESTAMP 50", "> REMOVE-BEFORE 150 SHA256E", "< SUCCESS"]
    script += ["> REMOVE-BEFORE 149 SHA256E", "< SUCCESS"]  # a second less, for what the clocks may drift apart
    script += ["> GETTIMESTAMP", "< TIMESTAMP 111", "> REMOVE-BEFORE 150 SHA256E", "< SUCCESS"]
    async with scripted(script, clock=clock) as (remote, _):
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.0))).ok
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.0))).ok
        clock.time += 61
        assert (await remote.remove_content(KEY, deadline=Deadline(1100.0))).ok


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_peer_without_deadlines_is_never_asked_to_remove_without_one(version: int) -> None:
    answer = f"< VERSION {version}" if version else "< ERROR unknown command"
    async with scripted(["> VERSION", f"< AUTH-SUCCESS {A}", answer], greet=False) as (remote, peers):
        (one,) = await remote.remove_content_many([KEY], deadline=Deadline(remote._clock.now() + 60))
        other = await remote.remove_content(KEY, deadline=Deadline(remote._clock.now() + 60))
        for found in (one, other):
            assert not found.ok
            error = found.failed[A]
            assert isinstance(error, ContentError)
            assert error.reason.startswith(NO_DEADLINE)
    assert not any("REMOVE" in line for line in peers.met[0].heard)


async def test_nothing_is_sent_when_no_time_is_left() -> None:
    clock = HandClock(1000.0)

    def too_slowly() -> None:
        clock.time += 100

    async with scripted(["> GETTIMESTAMP", too_slowly, "< TIMESTAMP 50"], clock=clock) as (remote, peers):
        found = await remote.remove_content(KEY, deadline=Deadline(1100.0))
        assert not found.ok
        assert isinstance(found.failed[A], TimedOut)
    assert not any("REMOVE" in line for line in peers.met[0].heard)


async def test_a_peer_that_cannot_tell_the_time_is_not_asked_to_remove() -> None:
    async with scripted(["> GETTIMESTAMP", "< ERROR no clock", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        found = await remote.remove_content(KEY, deadline=Deadline(remote._clock.now() + 60))
        assert isinstance(found.failed[A], PeerError)
        await nothing(remote)


@pytest.mark.parametrize(
    ("answer", "gone", "failed"),
    [
        ("FAILURE", set(), {A}),
        ("ERROR append-only", set(), {A}),
        (f"FAILURE-PLUS {B} {C}", {B, C}, {A}),
        (f"FAILURE-PLUS {A}", {A}, set()),
        (f"FAILURE-PLUS {CLUSTER}", set(), {A}),
    ],
)
async def test_a_removal_that_failed_still_names_those_that_have_nothing_any_more(
    answer: str, gone: set[UUID], failed: set[UUID]
) -> None:
    async with scripted(["> REMOVE", f"< {answer}", "> CHECKPRESENT", "< SUCCESS"]) as (remote, _):
        found = await remote.remove_content(KEY)
        assert not found.ok
        assert found.uuids == gone
        assert set(found.failed) == failed
        await nothing(remote)


async def test_a_peer_that_hangs_up_on_one_removal_is_asked_for_the_others_again() -> None:
    keys = [key_of(content_of(number)) for number in range(5)]
    first: list[Step] = ["> REMOVE", "< SUCCESS", "> REMOVE", "< SUCCESS", "> REMOVE", "hang up"]
    second: list[Step] = [f"> REMOVE {keys[3]}", "< SUCCESS", f"> REMOVE {keys[4]}", "< FAILURE"]
    async with scripted(first, second) as (remote, _):
        found = await remote.remove_content_many(keys)
    assert [result.ok for result in found] == [True, True, False, True, False]
    assert isinstance(found[2].failed[A], ConnectionLost)


async def test_what_could_not_be_asked_is_failed_and_what_was_answered_is_kept() -> None:
    keys = [key_of(content_of(number)) for number in range(4)]
    async with scripted(["> REMOVE", "< SUCCESS", "> REMOVE", "hang up"]) as (remote, _):
        found = await remote.remove_content_many(keys)
        assert [result.ok for result in found] == [True, False, False, False]
        assert isinstance(found[1].failed[A], ConnectionLost)
        assert isinstance(found[3].failed[A], OutcomeUnknown), "it went out ahead of the answers"
    async with scripted() as (remote, _):
        with pytest.raises(ConnectFailed):
            await remote.remove_content_many(keys)


# -- waiting, in virtual time -------------------------------------------------------------------------


class TestInTime:
    """Every wait has an end, and the error says what was waited for. Hours pass in no time."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, object]]:
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}

    @pytest.mark.parametrize(
        ("script", "what", "waiting_for", "seconds"),
        [
            (["silence"], "check", "AUTH-SUCCESS", 20),
            (["> VERSION", f"< AUTH-SUCCESS {A}", "silence"], "check", "answer to VERSION", 20),
            ([*GREETING, "silence"], "check", "answer to CHECKPRESENT", 60),
            ([*GREETING, "> CHECKPRESENT", b"SUCC", "silence"], "check", "answer to CHECKPRESENT", 60),
            ([*GREETING, "silence"], "many", "answer to CHECKPRESENT", 60),
            ([*GREETING, "silence"], "remove", "answer to REMOVE", 60),
            ([*GREETING, "silence"], "lock", "answer to LOCKCONTENT", 60),
            ([*GREETING, "silence"], "get", "answer to GET", 60),
            ([*GREETING, "> GET", "< DATA 100", CONTENT[:30], "silence"], "get", "70 more bytes of DATA", 60),
            ([*GREETING, "> GET", "< DATA 100", CONTENT, "silence"], "get", "VALID or INVALID", 60),
            ([*GREETING, "silence"], "put", "answer to PUT", 60),
            ([*GREETING, "> PUT", "< PUT-FROM 0", "silence"], "put", "room for more bytes", 60),
            ([*GREETING, "> PUT", "< PUT-FROM 0", "deaf"], "put", "result of PUT", 60 + 1_000_000 / 2**24),
            ([*GREETING, "> PUT", "< ALREADY-HAVE", "silence"], "put", "answer to CHECKPRESENT", 60),
        ],
    )
    async def test_a_peer_that_says_nothing_is_given_up(
        self, script: list[Step], what: str, waiting_for: str, seconds: float
    ) -> None:
        large = content_of(1, 1_000_000)
        works: dict[str, Callable[[P2PRemote], object]] = {
            "check": lambda remote: remote.check_present(KEY),
            "many": lambda remote: remote.check_present_many([KEY, WORM]),
            "remove": lambda remote: remote.remove_content(KEY),
            "lock": lambda remote: remote.lock_content(KEY).__aenter__(),
            "get": lambda remote: read(remote, KEY),
            "put": lambda remote: store(remote, key_of(large), large, piece=50_000),
        }
        after: list[Step] = [*GREETING, "> CHECKPRESENT", "< SUCCESS"]
        async with scripted(script, after, greet=False) as (remote, _):
            begun = anyio.current_time()
            with pytest.raises(TimedOut) as caught:
                await works[what](remote)  # type: ignore[misc]
            assert caught.value.waiting_for == waiting_for
            assert caught.value.peer == "peer"
            assert anyio.current_time() - begun == pytest.approx(seconds, abs=0.01)
            await nothing(remote)

    async def test_content_that_comes_slowly_is_not_stuck(self) -> None:
        drops = [step for at in range(100) for step in (59.0, CONTENT[at : at + 1])]
        async with scripted(["> GET", "< DATA 100", *drops, 59.0, "< VALID", "> SUCCESS"]) as (remote, _):
            begun = anyio.current_time()
            assert await read(remote, KEY) == CONTENT
            assert anyio.current_time() - begun == 101 * 59

    async def test_content_that_is_taken_slowly_is_not_stuck(self) -> None:
        content = content_of(1, 3_000_000)
        sips = [step for _ in range(30) for step in (15.0, ">> 100000")]
        async with scripted(["> PUT", "< PUT-FROM 0", "> DATA 3000000", *sips, "> VALID", "< SUCCESS"]) as (remote, _):
            assert (await store(remote, key_of(content), content, piece=1_000_000)).ok
            assert anyio.current_time() > 25 * 15

    async def test_a_dial_that_hangs_is_given_up(self) -> None:
        async def dial():
            await anyio.sleep_forever()

        remote = P2PRemote(dial, name="peer", connect_deadline=7.0)
        with pytest.raises(TimedOut, match="peer: no connection within 7 s"):
            await remote.connect()

    async def test_a_task_that_waits_for_a_free_wire_is_told_so_in_the_end(self) -> None:
        script: list[Step] = ["> GET", "< DATA 100", CONTENT, "< VALID", "> SUCCESS"]
        async with scripted(script, connections=1) as (remote, _):
            async with remote.get(KEY) as download:
                with pytest.raises(TimedOut, match=r"no free connection \(1 in use\) within 600 s"):
                    await read(remote, KEY)
                async for _ in download:
                    pass


# -- as a value ---------------------------------------------------------------------------------------


def test_a_remote_pickles_as_what_it_was_made_of() -> None:
    remote = P2PRemote(DialUnix("/run/annex"), uuid=A, name="far", cost=175, deadline=9.0, connections=2, bypass=(B,))
    again = pickle.loads(pickle.dumps(remote))
    assert (again.uuid, again.name, again.cost) == (A, "far", 175)
    assert again.__reduce__()[1][:3] == remote.__reduce__()[1][:3]


def test_it_can_be_asked_for_many_at_once() -> None:
    remote = P2PRemote(DialUnix("/run/annex"), uuid=A)
    assert isinstance(remote, BatchPresence)
    assert isinstance(remote, BatchRemove)
    assert remote.name == "unix:/run/annex"
    assert "far" in repr(P2PRemote(DialUnix("/x"), name="far"))


async def test_nothing_is_taken_for_an_upload_outside_of_its_block() -> None:
    async with scripted(["> PUT", "< PUT-FROM 0"]) as (remote, _):
        async with remote.put(KEY) as upload:
            with pytest.raises(LocalProtocolError):
                await upload.write(b"before start")
            with pytest.raises(LocalProtocolError):
                await upload.finish()
            await upload.start(100)
            with pytest.raises(LocalProtocolError):
                await upload.start(100)
            with pytest.raises(IncompleteTransfer):
                await upload.finish()
        with pytest.raises(LocalProtocolError):
            await upload.finish()
