from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from annexpy.clock import Deadline
from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentLocked,
    NoSpace,
    PeerError,
    RemoteProtocolError,
    TimedOut,
)
from annexpy.keys.key import Key
from annexpy.p2p.extensions import RANGES
from annexpy.remote.base import Removed, Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.server.serve import Deadlines, LockQuota, ServerMode, serve
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

ME = UUID("87ab9089-b663-40ac-b7c2-52e054520871")
N1, N2, CLUSTER = UUID("n1"), UUID("n2"), UUID("ac111111-2222-8333-8444-555555555555")


def key_of(content: bytes) -> Key:
    return Key.parse(b"SHA256E-s%d--%s.bin" % (len(content), hashlib.sha256(content).hexdigest().encode()))


ABC = b"abc" * 20
K = key_of(ABC)
ABSENT = key_of(b"absent")
WORM = Key.parse(b"WORM-s3-m1--x y")
PRESENT = b"CHECKPRESENT " + K.raw + b"\n"
MISSING = b"CHECKPRESENT " + ABSENT.raw + b"\n"


class FakeClock:
    def __init__(self, now: float = 1386.5) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.time


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(clock: FakeClock) -> MemoryRemote:
    return MemoryRemote(ME, clock=clock, objects={K: ABC})


# -- beginning ------------------------------------------------------------------------------------------


async def test_a_server_over_stdio_greets_and_then_agrees_on_a_version(serving, memory) -> None:
    async with serving(memory, hello=b"") as peer:
        assert await peer.say(b"VERSION 9\n") == b"VERSION 4\n"
        assert await peer.say(b"VERSION 2\n") == b"VERSION 2\n"
        assert await peer.say(b"VERSION -1\n") == b"ERROR unknown command\n"
        assert await peer.leave() == b"<EOF>"
    assert peer.ended is None


async def test_a_server_on_a_socket_waits_for_auth(serving, memory) -> None:
    async def judge(uuid: UUID, token: str) -> ServerMode | None:
        return ServerMode.READ_ONLY if (uuid, token) == ("client", "secret") else None

    async with serving(memory, hello=b"", authenticated=False, authenticate=judge) as peer:
        assert await peer.say(b"VERSION 4\n") == b"ERROR unexpected command\n"
        assert await peer.say(b"AUTH client wrong\n") == b"AUTH-FAILURE\n"
        assert await peer.say(b"AUTH client SECRET\n") == b"AUTH-SUCCESS " + ME.encode() + b"\n"
        assert await peer.say(b"VERSION 4\n") == b"VERSION 4\n"
        assert b"read-only" in await peer.say(b"REMOVE " + K.raw + b"\n")


async def test_a_stranger_has_few_tries(serving, memory) -> None:
    async with serving(memory, hello=b"", authenticated=False) as peer:
        for _ in range(4):
            assert await peer.say(b"AUTH client x\n") == b"AUTH-FAILURE\n"
        assert await peer.say(b"FOO\n") == b"ERROR unknown command\n<EOF>"
    assert isinstance(peer.ended, RemoteProtocolError)


# -- presence -------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order_in_one_write(serving, memory) -> None:
    async with serving(memory) as peer:
        said = await peer.say(PRESENT + MISSING + b"FOO\n" + PRESENT + b"GETTIMESTAMP\n" + MISSING + b"CHECKPR")
        assert said == b"SUCCESS\nFAILURE\nERROR unknown command\nSUCCESS\nTIMESTAMP %d\nFAILURE\n" % _uptime(said)
        assert len(peer.writes) == 1
        assert await peer.say(b"ESENT " + K.raw + b"\n") == b"SUCCESS\n"


def _uptime(said: bytes) -> int:
    return int(said.partition(b"TIMESTAMP ")[2].split(b"\n")[0])


class Counting(MemoryRemote):
    batches: list[int]

    async def check_present_many(self, keys) -> list[bool]:
        self.batches.append(len(keys))
        if ABSENT in keys:
            raise PeerError("node", "that key is no good")
        return [key in self.objects for key in keys]

    async def check_present(self, key: Key) -> bool:
        if key == ABSENT:
            raise PeerError("node", "that key is no good")
        return key in self.objects


async def test_a_burst_of_checks_is_one_question_to_the_remote(serving) -> None:
    remote = Counting(ME, objects={K: ABC})
    remote.batches = []
    async with serving(remote) as peer:
        assert (
            await peer.say(PRESENT * 50 + b"FOO\n" + PRESENT * 3)
            == b"SUCCESS\n" * 50 + b"ERROR unknown command\n" + b"SUCCESS\n" * 3
        )
        assert remote.batches == [50, 3]


async def test_a_key_that_cannot_be_checked_fails_alone(serving) -> None:
    remote = Counting(ME, objects={K: ABC})
    remote.batches = []
    async with serving(remote) as peer:
        assert await peer.say(PRESENT + MISSING + PRESENT) == b"SUCCESS\nERROR node: that key is no good\nSUCCESS\n"


async def test_a_lost_node_is_an_error_for_every_check_and_not_the_end(serving) -> None:
    class Lost(MemoryRemote):
        async def check_present(self, key: Key) -> bool:
            raise ConnectionLost("node", "the answer to CHECKPRESENT")

    async with serving(Lost(ME)) as peer:
        said = await peer.say(PRESENT * 2)
        assert said.count(b"ERROR node hung up") == 2
        assert await peer.say(b"VERSION 3\n") == b"VERSION 3\n"


async def test_an_endless_line_ends_the_session_after_what_came_before_is_answered(serving, memory) -> None:
    async with serving(memory) as peer:
        assert await peer.say(PRESENT * 2 + b"x" * 40000) == b"SUCCESS\nSUCCESS\n<EOF>"
    assert isinstance(peer.ended, RemoteProtocolError)


# -- get --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
async def test_content_comes_from_the_offset(serving, memory, version: int) -> None:
    async with serving(memory, hello=b"VERSION %d\n" % version) as peer:
        valid = b"VALID\n" if version else b""
        assert await peer.say(b"GET 57  " + K.raw + b"\n") == b"DATA 3\nabc" + valid
        assert len(peer.writes) == 1
        assert await peer.say(b"SUCCESS\n" + PRESENT) == b"SUCCESS\n"
        for offset in (60, 61, 1000):
            assert await peer.say(b"GET %d f %s\n" % (offset, K.raw)) == b"DATA 0\n" + valid
            assert await peer.say(b"FAILURE\n") == b""
        invalid = b"INVALID\n" if version else b""
        assert await peer.say(b"GET 0  " + ABSENT.raw + b"\n") == b"DATA 0\n" + invalid
        assert await peer.say(b"ERROR x\n" + PRESENT) == b"SUCCESS\n"
        assert await peer.say(b"GET -5  " + K.raw + b"\n") == b"ERROR unknown command\n"


async def test_a_part_goes_to_who_agreed_on_parts_and_the_session_goes_on(serving, memory) -> None:
    async with serving(memory, hello=b"VERSION %d\n" % RANGES) as peer:
        for start, end in ((2, 5), (0, 0), (4, 3), (57, 10**9), (10**6, 10**7)):
            part = ABC[start:end]
            said = await peer.say(b"GET-RANGE %d %d  %b\n" % (start, end, K.raw))
            assert said == b"DATA %d\n%bVALID\n" % (len(part), part)
            assert await peer.say(b"SUCCESS\n" + PRESENT) == b"SUCCESS\n"
        assert await peer.say(b"GET-RANGE 0 5  %b\n" % ABSENT.raw) == b"DATA 0\nINVALID\n"
        assert await peer.say(b"FAILURE\nGET-RANGE 0 -5  %b\n" % K.raw) == b"ERROR unknown command\n"


async def test_a_cluster_sends_parts_too(serving, memory) -> None:
    async with serving(Cluster([memory], uuid=CLUSTER), hello=b"") as peer:
        assert await peer.say(b"VERSION %d\n" % RANGES) == b"VERSION %d\n" % RANGES
        assert await peer.say(b"GET-RANGE 2 5  %b\n" % K.raw) == b"DATA 3\n%bVALID\n" % ABC[2:5]


@pytest.mark.parametrize("version", [4, RANGES + 1, 10**12])
async def test_who_has_not_agreed_on_parts_has_not_heard_of_them(serving, memory, version: int) -> None:
    async with serving(memory, hello=b"") as peer:
        assert await peer.say(b"VERSION %d\n" % version) == b"VERSION 4\n"
        assert await peer.say(b"GET-RANGE 0 5  %b\n%b" % (K.raw, PRESENT)) == b"ERROR unknown command\nSUCCESS\n"


async def test_what_is_not_a_verdict_on_a_get_is_consumed_and_objected_to(serving, memory) -> None:
    async with serving(memory) as peer:
        await peer.say(b"GET 0  " + K.raw + b"\n")
        assert await peer.say(PRESENT) == b"ERROR expected SUCCESS or SUCCESS-PLUS or FAILURE or FAILURE-PLUS\n"
        assert await peer.say(PRESENT) == b"SUCCESS\n"


async def test_large_content_is_passed_on_without_being_joined(serving) -> None:
    content = bytes(range(256)) * 4096
    key = key_of(content)
    async with serving(MemoryRemote(ME, objects={key: content})) as peer:
        said = await peer.say(b"GET 1  " + key.raw + b"\n")
        assert said == b"DATA %d\n" % (len(content) - 1) + content[1:] + b"VALID\n"
        assert max(map(len, peer.writes)) == 256 * 1024


class Broken(MemoryRemote):
    """Downloads that go wrong: too short, changed, or lost on the way."""

    how = "short"

    @asynccontextmanager
    async def get(self, key, *, offset=0, end=None, associated_file="") -> AsyncIterator:
        how = self.how

        class Download:
            length, source, valid = 10, ME, how != "changed"

            async def __aiter__(self):
                yield b"01234"
                if how == "lost":
                    raise ConnectionLost("node", "5 more bytes")
                if how == "changed":
                    yield b"56789"
                if how == "long":
                    yield b"56789abc"

        yield Download()


@pytest.mark.parametrize("how", ["short", "lost", "long"])
async def test_a_promise_of_bytes_that_cannot_be_kept_ends_the_session(serving, how: str) -> None:
    remote = Broken(ME)
    remote.how = how
    async with serving(remote) as peer:
        assert await peer.say(b"GET 0  " + K.raw + b"\n") == b"DATA 10\n01234<EOF>"
    assert isinstance(peer.ended, AnnexError)


async def test_changed_content_is_invalid_and_at_version_0_the_end(serving) -> None:
    remote = Broken(ME)
    remote.how = "changed"
    async with serving(remote) as peer:
        assert await peer.say(b"GET 0  " + K.raw + b"\n") == b"DATA 10\n0123456789INVALID\n"
    async with serving(remote, hello=b"VERSION 0\n") as peer:
        assert await peer.say(b"GET 0  " + K.raw + b"\n") == b"DATA 10\n0123456789<EOF>"


# -- put --------------------------------------------------------------------------------------------------

NEW = b"new content"
KN = key_of(NEW)
PUT = b"PUT  " + KN.raw + b"\n"


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("split", [None, 1, 7])
async def test_a_put_stores(serving, version: int, split: int | None) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory, hello=b"VERSION %d\n" % version, split=split) as peer:
        valid = b"VALID\n" if version else b""
        assert await peer.say(PUT) == b"PUT-FROM 0\n"
        assert await peer.say(b"DATA 11\n" + NEW + valid) == b"SUCCESS\n"
        assert memory.objects[KN] == NEW
        assert await peer.say(PUT) == b"ALREADY-HAVE\n"


async def test_the_next_put_rides_along_and_both_answers_are_one_write(serving) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        await peer.say(PUT)
        peer.writes.clear()
        other = key_of(b"other")
        assert await peer.say(b"DATA 11\n" + NEW + b"VALID\nPUT  " + other.raw + b"\n") == b"SUCCESS\nPUT-FROM 0\n"
        assert len(peer.writes) == 1
        assert await peer.say(b"DATA 5\notherVALID\n") == b"SUCCESS\n"


async def test_a_client_that_vanishes_leaves_a_partial_to_resume_from(serving) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        await peer.say(PUT)
        await peer.say(b"DATA 11\nnew ")
        assert await peer.leave() == b"FAILURE\n<EOF>"
    assert isinstance(peer.ended, ConnectionLost)
    async with serving(memory) as peer:
        assert await peer.say(PUT) == b"PUT-FROM 4\n"
        assert await peer.say(b"DATA 0\nINVALID\n") == b"FAILURE\n"  # how to ask for the offset
        assert await peer.say(PUT) == b"PUT-FROM 4\n"
        await peer.say(b"DATA 7\ncontent")
        assert await peer.leave() == b"<EOF>"  # no word on validity: nothing is stored, all is kept
        assert KN not in memory.objects
    async with serving(memory) as peer:
        assert await peer.say(PUT) == b"PUT-FROM 11\n"
        assert await peer.say(b"DATA 0\nVALID\n") == b"SUCCESS\n"


@pytest.mark.parametrize("word", [b"VALID", b"INVALID"])
async def test_short_or_wrong_content_fails_and_is_thrown_away(serving, word: bytes) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        for body in (b"new ", b"new_content"):
            assert await peer.say(PUT) == b"PUT-FROM 0\n"
            assert await peer.say(b"DATA %d\n%s%s\n" % (len(body), body, word)) == b"FAILURE\n"
        assert await peer.say(PUT) == b"PUT-FROM 0\n"
    assert not memory.objects


async def test_invalid_content_is_stored_when_it_proves_right_and_only_then(serving) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        await peer.say(PUT)
        assert await peer.say(b"DATA 11\n" + NEW + b"INVALID\n") == b"SUCCESS\n"
        await peer.say(b"PUT  " + WORM.raw + b"\n")
        assert await peer.say(b"DATA 3\nabcINVALID\n") == b"FAILURE\n"
        await peer.say(b"PUT  " + WORM.raw + b"\n")
        assert await peer.say(b"DATA 3\nabcVALID\n") == b"SUCCESS\n"


@pytest.mark.parametrize("word", [b"FOO", b"ERROR boo", b"CHECKPRESENT WORM--a"])
async def test_another_word_than_valid_is_objected_to_and_then_answered(serving, word: bytes) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        await peer.say(PUT)
        said = await peer.say(b"DATA 11\n" + NEW + word + b"\n")
        assert said == b"ERROR expected VALID or INVALID\nSUCCESS\n"
        await peer.say(b"PUT  " + WORM.raw + b"\n")
        assert await peer.say(b"DATA 3\nabc" + word + b"\n") == b"ERROR expected VALID or INVALID\nFAILURE\n"


async def test_data_longer_than_the_key_is_refused_before_it_is_read(serving) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as peer:
        await peer.say(PUT)
        said = await peer.say(b"DATA 12\n")
        assert said.startswith(b"ERROR ")
        assert said.endswith(b"<EOF>")
    assert not memory.objects


async def test_what_is_not_data_after_put_from(serving, memory) -> None:
    async with serving(memory) as peer:
        for word, answer in [
            (b"GETTIMESTAMP\n", b"ERROR expected DATA\n"),
            (b"FOO\n", b"ERROR expected DATA\n"),
            (b"DATA -5\n", b"ERROR expected DATA\n"),
            (b"ERROR changed my mind\n", b""),
        ]:
            assert await peer.say(PUT) == b"PUT-FROM 0\n"
            assert await peer.say(word) == answer
        assert await peer.say(PRESENT) == b"SUCCESS\n"


async def test_data_present_is_looked_up_from_version_4(serving, memory) -> None:
    async with serving(memory) as peer:
        await peer.say(PUT)
        assert await peer.say(b"DATA-PRESENT\n") == b"FAILURE\n"
        await peer.say(PUT)
        memory.objects[KN] = NEW
        assert await peer.say(b"DATA-PRESENT\n") == b"SUCCESS\n"
        del memory.objects[KN]
        await peer.say(b"VERSION 3\n" + PUT)
        assert await peer.say(b"DATA-PRESENT\n") == b"ERROR expected DATA\n"


@pytest.mark.parametrize(
    "key",
    [
        b"../../x-s3--foo",
        b"WORM-s3-m1--a\x1bb",
        b"WORM-s3-m1--",
        b"SHA256--short",
        b"WORM-s%d--x" % 2**70,
        b"WORM-s3--" + b"x" * 300,
    ],
)
async def test_keys_that_should_not_be_stored_are_refused_and_the_session_lives(serving, memory, key: bytes) -> None:
    async with serving(memory) as peer:
        said = await peer.say(b"PUT  " + key + b"\n")
        assert said.startswith(b"ERROR key")
        # what a stock client says to that, and its next request
        assert await peer.say(b"ERROR expected PUT_FROM or ALREADY_HAVE\n" + PRESENT) == b"SUCCESS\n"


async def test_a_second_put_of_the_same_key_is_told_that_one_is_under_way(serving) -> None:
    memory = MemoryRemote(ME)
    async with serving(memory) as one, serving(memory) as two:
        await one.say(PUT)
        assert b"in progress" in await two.say(PUT)
        assert await two.say(MISSING) == b"FAILURE\n"


class Failing(MemoryRemote):
    """A put that fails at a stage."""

    stage = "write"

    @asynccontextmanager
    async def put(self, key, *, associated_file=""):
        stage = self.stage
        self.seen = associated_file
        if stage == "enter":
            raise NoSpace(key, "here", 10, 5)

        class Upload:
            already, offset = None, 0

            async def start(self, length):
                if stage == "start":
                    raise NoSpace(key, "here", 10, 5)

            async def write(self, data):
                if stage == "write":
                    raise NoSpace(key, "here", 10, 5)

            async def finish(self, valid=True):
                if stage == "finish":
                    raise NoSpace(key, "here", 10, 5)
                return Stored(uuids=frozenset((ME,)))

        yield Upload()
        if stage == "leave":
            raise NoSpace(key, "here", 10, 5)


@pytest.mark.parametrize("stage", ["enter", "start", "write", "finish", "leave"])
async def test_a_put_that_fails_at_any_stage_is_answered_and_the_session_lives(serving, stage: str) -> None:
    remote = Failing(ME)
    remote.stage = stage
    async with serving(remote) as peer:
        said = await peer.say(PUT)
        if stage != "enter":
            assert said == b"PUT-FROM 0\n"
            said = await peer.say(b"DATA 11\n" + NEW + b"VALID\n")
        assert said == b"SUCCESS\n" if stage == "leave" else b"not enough free disk space" in said
        assert await peer.say(MISSING) == b"FAILURE\n"


async def test_a_large_body_that_cannot_be_stored_is_not_read_to_its_end(serving) -> None:
    async with serving(Failing(ME)) as peer:
        await peer.say(b"PUT  URL--x\n")
        said = await peer.say(b"DATA 100000000000\nsome")
        assert b"not enough free disk space" in said
        assert said.endswith(b"<EOF>")


async def test_the_associated_file_is_unescaped(serving) -> None:
    remote = Failing(ME)
    async with serving(remote) as peer:
        await peer.say(b"PUT d/e%f%%.bin " + KN.raw + b"\n")
    assert remote.seen == "d/e_f%.bin"


# -- several repositories behind one remote -----------------------------------------------------------------


class Several(MemoryRemote):
    """Answers for two nodes, as a cluster does."""

    stored = Stored(uuids=frozenset((N1,)), already=frozenset((N2, CLUSTER)))
    removed = Removed(ok=True, uuids=frozenset((N1, N2)))
    already: frozenset[UUID] | None = None

    @asynccontextmanager
    async def put(self, key, *, associated_file=""):
        several = self

        class Upload:
            already, offset = several.already, 0

            async def start(self, length): ...

            async def write(self, data): ...

            async def finish(self, valid=True):
                return several.stored

        yield Upload()

    async def remove_content(self, key, *, deadline=None):
        return self.removed


@pytest.mark.parametrize("version", [1, 2])
async def test_others_are_named_from_version_2_on(serving, version: int) -> None:
    remote = Several(CLUSTER)
    plus = version == 2
    async with serving(remote, hello=b"VERSION %d\n" % version) as peer:
        await peer.say(PUT)
        said = await peer.say(b"DATA 11\n" + NEW + b"VALID\n")
        assert said == (b"SUCCESS-PLUS n1 n2\n" if plus else b"SUCCESS\n")
        remote.already = frozenset((N2, N1))
        assert await peer.say(PUT) == (b"ALREADY-HAVE-PLUS n1 n2\n" if plus else b"ALREADY-HAVE\n")
        assert await peer.say(b"REMOVE " + K.raw + b"\n") == (b"SUCCESS-PLUS n1 n2\n" if plus else b"SUCCESS\n")
        remote.removed = Removed(ok=False, uuids=frozenset((N2,)), failed={N1: ContentLocked(K)})
        assert await peer.say(b"REMOVE " + K.raw + b"\n") == (b"FAILURE-PLUS n2\n" if plus else b"FAILURE\n")


async def test_a_claim_that_names_nobody_is_never_passed_on(serving) -> None:
    remote = Several(CLUSTER)
    remote.already = frozenset()
    async with serving(remote) as peer:
        assert (await peer.say(PUT)).startswith(b"ERROR ")


async def test_nobody_stored_it_is_a_failure(serving) -> None:
    remote = Several(CLUSTER)
    remote.stored = Stored(failed={N1: ContentLocked(K)})
    async with serving(remote) as peer:
        await peer.say(PUT)
        assert await peer.say(b"DATA 11\n" + NEW + b"VALID\n") == b"FAILURE\n"


async def test_why_nobody_removed_it_is_said_unless_it_is_locked_or_late(serving) -> None:
    remote = Several(CLUSTER)
    async with serving(remote) as peer:
        for error, said in [
            (ContentLocked(K), b"FAILURE\n"),
            (TimedOut("n1", "removal before its deadline", 0), b"FAILURE\n"),
            (PeerError("n1", "disk on fire"), b"ERROR n1: disk on fire\n"),
        ]:
            remote.removed = Removed(ok=False, failed={N1: error})
            assert await peer.say(b"REMOVE " + K.raw + b"\n") == said


@pytest.mark.parametrize("error", [TimedOut("n1", "x", 1), ConnectionLost("n1", "x")])
async def test_a_removal_of_which_nobody_knows_the_outcome_ends_the_session(serving, error) -> None:
    remote = Several(CLUSTER)
    async with serving(remote) as peer:
        remote.removed = Removed(ok=False, failed={N1: error, N2: ContentLocked(K)})
        assert await peer.say(b"REMOVE " + K.raw + b"\n") == b"<EOF>"


async def test_bypass_changes_what_is_shown(serving, memory) -> None:
    seen: list[tuple[UUID, ...]] = []

    def bypass(uuids: tuple[UUID, ...]) -> MemoryRemote:
        seen.append(uuids)
        return MemoryRemote(ME)

    async with serving(memory, bypass=bypass) as peer:
        assert await peer.say(b"BYPASS a b\n" + PRESENT) == b"FAILURE\n"
    assert seen == [(UUID("a"), UUID("b"))]


# -- remove -------------------------------------------------------------------------------------------------


async def test_removal_before_a_timestamp_is_strict(serving, memory, clock) -> None:
    async with serving(memory, clock=clock) as peer:
        assert await peer.say(b"GETTIMESTAMP\n") == b"TIMESTAMP 1386\n"
        for timestamp in (0, -1, 1386):
            assert await peer.say(b"REMOVE-BEFORE %d %s\n" % (timestamp, K.raw)) == b"FAILURE\n"
        clock.time = 1387.0
        assert await peer.say(b"REMOVE-BEFORE 1387 " + K.raw + b"\n") == b"FAILURE\n"
        assert await peer.say(b"REMOVE-BEFORE 1388 " + K.raw + b"\n") == b"SUCCESS\n"
        assert await peer.say(b"REMOVE-BEFORE 0 " + K.raw + b"\n") == b"SUCCESS\n"  # absent is removed


async def test_a_removal_too_far_ahead_is_refused(serving, memory, clock) -> None:
    async with serving(memory, clock=clock) as peer:
        assert (await peer.say(b"REMOVE-BEFORE 2287 " + K.raw + b"\n")).startswith(b"ERROR timestamp")
        assert await peer.say(b"REMOVE-BEFORE 2286 " + K.raw + b"\n") == b"SUCCESS\n"


async def test_the_deadline_reaches_the_remote(serving, clock) -> None:
    class Asked(MemoryRemote):
        async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
            self.deadline = deadline
            return Removed(ok=True)

    remote = Asked(ME)
    async with serving(remote, clock=clock) as peer:
        await peer.say(b"REMOVE-BEFORE 1400 " + K.raw + b"\n")
        assert remote.deadline == Deadline(1400.0)
        await peer.say(b"REMOVE " + K.raw + b"\n")
        assert remote.deadline is None


async def test_pipelined_removals_go_to_a_remote_that_takes_many_at_once(serving) -> None:
    class Many(MemoryRemote):
        async def remove_content_many(self, keys, *, deadline=None) -> list[Removed]:
            self.asked = list(keys)
            return [Removed(ok=True, uuids=frozenset((ME,))), Removed(ok=False, failed={ME: ContentLocked(K)})]

    remote = Many(ME)
    async with serving(remote) as peer:
        said = await peer.say(b"REMOVE " + K.raw + b"\nREMOVE " + KN.raw + b"\nFOO\n")
        assert said == b"SUCCESS\nFAILURE\nERROR unknown command\n"
        assert remote.asked == [K, KN]


async def test_a_removal_that_spoils_a_batch_fails_alone(serving) -> None:
    class Many(MemoryRemote):
        async def remove_content_many(self, keys, *, deadline=None) -> list[Removed]:
            raise ContentLocked(KN)

        async def remove_content(self, key, *, deadline=None) -> Removed:
            if key == KN:
                raise ContentLocked(key)
            return await super().remove_content(key, deadline=deadline)

    async with serving(Many(ME, objects={K: ABC, KN: ABC})) as peer:
        said = await peer.say(b"REMOVE " + K.raw + b"\nREMOVE " + KN.raw + b"\nREMOVE " + K.raw + b"\n")
        assert said == b"SUCCESS\nFAILURE\nSUCCESS\n"


async def test_pipelined_removals_go_together_where_they_have_the_same_deadline(serving, clock) -> None:
    class Many(MemoryRemote):
        async def remove_content_many(self, keys, *, deadline=None) -> list[Removed]:
            asked.append((list(keys), deadline))
            return [Removed(ok=True, uuids=frozenset((ME,))) for _ in keys]

        async def remove_content(self, key, *, deadline=None) -> Removed:
            return (await self.remove_content_many([key], deadline=deadline))[0]

    asked: list[object] = []
    lines = [b"REMOVE-BEFORE 1400 ", b"REMOVE-BEFORE 1400 ", b"REMOVE-BEFORE 1401 ", b"REMOVE ", b"REMOVE "]
    async with serving(Many(ME), clock=clock) as peer:
        said = await peer.say(b"".join(line + K.raw + b"\n" for line in lines))
        assert said == 5 * b"SUCCESS\n"
        assert asked == [([K, K], Deadline(1400.0)), ([K], Deadline(1401.0)), ([K, K], None)]


# -- modes ----------------------------------------------------------------------------------------------------

READ_ONLY = b"ERROR this repository is read-only; write access denied\n"
APPEND_ONLY = b"ERROR this repository is append-only; removal denied\n"


async def test_modes_refuse_in_the_words_of_git_annex(serving, memory) -> None:
    removals = [b"REMOVE " + K.raw + b"\n", b"REMOVE-BEFORE 99999999 " + K.raw + b"\n"]
    async with serving(memory, mode=ServerMode.READ_ONLY) as peer:
        for refused in [PUT, b"PUT  " + K.raw + b"\n", *removals, b"CONNECT git-receive-pack\n"]:
            assert await peer.say(refused) == READ_ONLY
        assert await peer.say(b"LOCKCONTENT " + K.raw + b"\n") == b"SUCCESS\n"
        assert await peer.say(b"UNLOCKCONTENT\n" + PRESENT) == b"SUCCESS\n"
    async with serving(memory, mode=ServerMode.APPEND_ONLY) as peer:
        for refused in removals:
            assert await peer.say(refused) == APPEND_ONLY
        assert await peer.say(b"CONNECT git-receive-pack\n") == READ_ONLY
        assert await peer.say(PUT) == b"PUT-FROM 0\n"
    assert memory.objects == {K: ABC}


# -- locks ----------------------------------------------------------------------------------------------------

LOCK = b"LOCKCONTENT " + K.raw + b"\n"
REMOVE = b"REMOVE " + K.raw + b"\n"


async def test_locked_content_is_not_removed_and_the_session_lives(serving, memory) -> None:
    async with serving(memory) as locker, serving(memory) as other:
        assert await locker.say(b"LOCKCONTENT " + ABSENT.raw + b"\n") == b"FAILURE\n"
        assert await locker.say(LOCK) == b"SUCCESS\n"
        assert await other.say(REMOVE + PRESENT) == b"FAILURE\nSUCCESS\n"
        assert await locker.say(b"UNLOCKCONTENT\n") == b""
        assert await other.say(REMOVE) == b"SUCCESS\n"


@pytest.mark.parametrize("word", [b"UNLOCKCONTENT " + K.raw, PRESENT[:-1], b"ERROR x", b"FOO"])
async def test_anything_else_releases_the_lock_too(serving, memory, word: bytes) -> None:
    async with serving(memory) as locker, serving(memory) as other:
        await locker.say(LOCK)
        assert await locker.say(word + b"\n") == b"ERROR expected UNLOCKCONTENT\n"
        assert await other.say(REMOVE) == b"SUCCESS\n"
        assert await locker.say(MISSING) == b"FAILURE\n"


async def test_a_lock_outlives_the_client_that_vanished(serving, memory, clock) -> None:
    async with serving(memory) as locker:
        await locker.say(LOCK)
        await locker.leave()
    assert isinstance(locker.ended, ConnectionLost)
    async with serving(memory) as other:
        assert await other.say(REMOVE) == b"FAILURE\n"
        clock.time += 600
        assert await other.say(REMOVE) == b"SUCCESS\n"


async def test_a_lock_outlives_the_server_that_is_ended(memory, clock) -> None:
    ours, theirs = memory_pair(capacity=1 << 20)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, theirs, memory)
        await ours.send(b"VERSION 4\n" + LOCK)
        said = b""
        while not said.endswith(b"SUCCESS\n"):
            said += await ours.receive()
        group.cancel_scope.cancel()
    assert not (await memory.remove_content(K)).ok
    clock.time += 601
    assert (await memory.remove_content(K)).ok


async def test_a_user_can_only_hold_so_many_locks_whatever_its_clients_call_themselves(serving, memory, clock) -> None:
    quota = LockQuota(crowd=2, clock=clock)
    async with (
        serving(memory, locks=quota, client="a", who="ann") as one,
        serving(memory, locks=quota, client="b", who="ann") as two,
        serving(memory, locks=quota, client="c", who="ann") as three,
        serving(memory, locks=quota, client="c", who="bob") as other,
    ):
        assert [await peer.say(LOCK) for peer in (one, two, other)] == [b"SUCCESS\n"] * 3
        assert (await three.say(LOCK)).startswith(b"ERROR too many")
        await one.say(b"UNLOCKCONTENT\n")
        assert await three.say(LOCK) == b"SUCCESS\n"


async def test_a_client_can_only_hold_and_leave_behind_so_many_locks(serving, memory, clock) -> None:
    quota = LockQuota(2, clock=clock)
    async with serving(memory, locks=quota, client="c") as vanishing:
        await vanishing.say(LOCK)
    async with serving(memory, locks=quota, client="c") as one, serving(memory, locks=quota, client="c") as two:
        assert await one.say(LOCK) == b"SUCCESS\n"
        assert await two.say(LOCK) == b"ERROR too many content locks are held for this client\n"
        async with serving(memory, locks=quota, client="d") as other:
            assert await other.say(LOCK) == b"SUCCESS\n"
            await other.say(b"UNLOCKCONTENT\n")
        await one.say(b"UNLOCKCONTENT\n")
        assert await two.say(LOCK) == b"SUCCESS\n"
        await two.say(b"UNLOCKCONTENT\n")
        for _ in range(5):  # a lock that fails is not counted
            await two.say(b"LOCKCONTENT " + ABSENT.raw + b"\n")
        assert await two.say(LOCK) == b"SUCCESS\n"
        clock.time += 600
        assert await one.say(LOCK) == b"SUCCESS\n"


# -- services -----------------------------------------------------------------------------------------------------


async def test_git_services_are_refused_where_there_are_none(serving, memory) -> None:
    async with serving(memory) as peer:
        assert await peer.say(b"CONNECT git-upload-pack\n") == b"ERROR unexpected command\n"
        assert await peer.say(b"NOTIFYCHANGE\n") == b"ERROR unexpected command\n"
        assert await peer.say(PRESENT) == b"SUCCESS\n"


async def test_git_services_are_relayed_where_there_are_some(serving, memory) -> None:
    class Echo:
        async def connect(self, service, receive, send) -> int:
            assert service == b"git-upload-pack"
            while data := await receive():
                await send(data.upper())
                if data == b"bye":
                    return 3
            return 0

        async def changed(self) -> tuple[bytes, ...]:
            return (b"41efcc", b"93cd")

    async with serving(memory, services=Echo()) as peer:
        assert await peer.say(b"NOTIFYCHANGE\n") == b"CHANGED 41efcc 93cd\n"
        assert await peer.say(b"CONNECT git-upload-pack\nDATA 5\nhelloDATA 0\nDATA 3\nbye") == (
            b"DATA 5\nHELLODATA 3\nBYECONNECTDONE 3\n<EOF>"
        )


# -- patience -----------------------------------------------------------------------------------------------------


# -- patience, on a clock that jumps --------------------------------------------------------------------------------


def seconds_until_the_end(
    *said: bytes | float, reads: bool = True, remote: MemoryRemote | None = None, **options
) -> float:
    """How long the server stays when a client says this (a number: and waits so long), and then nothing more."""

    async def main() -> float:
        ours, theirs = memory_pair(capacity=1 << 16)

        async def listen() -> None:
            while reads and await ours.receive():
                pass

        async def speak() -> None:
            for part in said:
                if isinstance(part, bytes):
                    try:
                        await ours.send(part)
                    except ConnectionLost:
                        return
                else:
                    await anyio.sleep(part)

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            group.start_soon(speak)
            ended = await serve(theirs, remote or MemoryRemote(ME, objects={K: ABC}), **options)
            assert isinstance(ended, TimedOut), ended
            group.cancel_scope.cancel()
        return anyio.current_time()

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_client_that_says_nothing_is_left_after_15_seconds() -> None:
    assert seconds_until_the_end() == 15


def test_an_idle_client_is_left_after_ten_minutes() -> None:
    assert 600 <= seconds_until_the_end(b"VERSION 4\n") <= 606
    assert 610 <= seconds_until_the_end(b"VERSION 4\n", 10.0, PRESENT) <= 616


def test_a_body_of_less_than_1_kib_a_second_is_not_waited_for() -> None:
    put = b"VERSION 4\nPUT  WORM-s1000000--x\nDATA 1000000\n"
    assert 60 <= seconds_until_the_end(put) <= 66
    slow = [part for _ in range(100) for part in (b"x" * 1000, 2.0)]
    assert seconds_until_the_end(put, *slow) <= 66
    quick = [part for _ in range(100) for part in (b"x" * 3000, 2.0)]
    assert 200 < seconds_until_the_end(put, *quick) <= 266


def test_a_client_that_does_not_read_is_left_after_a_minute() -> None:
    content = bytes(1_000_000)
    remote = MemoryRemote(ME, objects={key_of(content): content})
    get = b"GET 0  " + key_of(content).raw + b"\n"
    assert 60 <= seconds_until_the_end(b"VERSION 4\n" + get, reads=False, remote=remote) <= 66


def test_a_client_that_falls_silent_with_a_lock_leaves_the_retention_behind() -> None:
    remote = MemoryRemote(ME, objects={K: ABC})
    seconds_until_the_end(LOCK, remote=remote, deadlines=Deadlines(idle=30))
    assert remote._retained_until


def test_when_the_lock_behind_is_lost_the_client_is_told_by_hanging_up() -> None:
    class Fickle(MemoryRemote):
        @asynccontextmanager
        async def lock_content(self, key):
            async with super().lock_content(key) as lock:

                class Lock:
                    uuid, expires = lock.uuid, lock.expires

                    async def held(self) -> bool:
                        return anyio.current_time() < 100

                yield Lock()

    async def main() -> tuple[AnnexError | None, float]:
        ours, theirs = memory_pair()
        await ours.send(LOCK)
        ended = await serve(theirs, Fickle(ME, objects={K: ABC}))
        return ended, anyio.current_time()

    ended, when = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert isinstance(ended, ConnectionLost)
    assert 100 <= when <= 102


def test_idleness_after_a_change_is_reported_once() -> None:
    calls: list[float] = []

    async def on_idle() -> None:
        calls.append(anyio.current_time())
        raise PeerError("branch", "somebody else holds the lock")  # logged, nothing more

    put = b"VERSION 4\n" + PUT + b"DATA 11\n" + NEW + b"VALID\n"
    seconds_until_the_end(put, 100.0, PRESENT, 100.0, b"REMOVE " + KN.raw + b"\n", on_idle=on_idle)
    assert len(calls) == 2
    assert 1 <= calls[0] <= 3
    assert 201 <= calls[1] <= 203


# -- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_anywhere_a_session_leaves_nothing_open(memory, steps: int) -> None:
    ours, theirs = memory_pair(split=9)
    script = b"VERSION 4\n" + LOCK + b"UNLOCKCONTENT\n" + PUT + b"DATA 11\n" + NEW + b"VALID\nGET 0  " + K.raw + b"\n"
    async with anyio.create_task_group() as group:
        group.start_soon(serve, theirs, memory)
        await ours.send(script)
        for _ in range(steps * 5):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert theirs.at_eof
    assert not memory._locks
    assert not memory._receiving


# -- anybody may connect ----------------------------------------------------------------------------------------------

LINES = [
    b"VERSION 4\n", b"VERSION 0\n", PRESENT, MISSING, LOCK, b"UNLOCKCONTENT\n", PUT, b"DATA 11\n" + NEW, b"DATA 3\nabc",
    b"VALID\n", b"INVALID\n", b"DATA 0\n", b"DATA-PRESENT\n", b"GET 1  " + K.raw + b"\n", b"SUCCESS\n", b"FAILURE\n",
    REMOVE, b"REMOVE-BEFORE 5 " + K.raw + b"\n", b"GETTIMESTAMP\n", b"BYPASS a\n", b"CONNECT git-upload-pack\n",
    b"ERROR x\n", b"FOO\n", b"DATA 999999\n", b"PUT  WORM--x\n", b"PUT  ../x-s3--y\n", b"x" * 33000,
]  # fmt: skip


@given(
    st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=20)), max_size=14),
    st.sampled_from([1, 13, 100_000]),
    st.booleans(),
)
def test_a_session_survives_any_bytes_and_leaves_nothing_behind(pieces: list[bytes], split: int, reads: bool) -> None:
    memory = MemoryRemote(ME, objects={K: ABC})

    async def main() -> None:
        ours, theirs = memory_pair(split=split, capacity=1 << 20)
        await ours.send(b"".join(pieces))
        if reads:
            ours._out.ended = True
        ended = await serve(theirs, memory)
        assert ended is None or isinstance(ended, AnnexError)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not memory._locks
    assert not memory._receiving
    assert memory.objects.get(KN, NEW) == NEW
