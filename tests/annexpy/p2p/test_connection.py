from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import LocalProtocolError, RemoteProtocolError
from annexpy.keys.key import Key
from annexpy.p2p.connection import (
    CLOSED,
    MAX_UNANSWERED,
    NEED_DATA,
    PAUSED,
    Closed,
    Connection,
    ConnectionEvent,
    Data,
    Role,
    State,
    Unexpected,
)
from annexpy.p2p.messages import (
    ALREADY_HAVE,
    DATA_PRESENT,
    FAILURE,
    GET_TIMESTAMP,
    INVALID,
    MAX_LINE,
    SUCCESS,
    UNLOCK_CONTENT,
    VALID,
    AlreadyHavePlus,
    Auth,
    AuthSuccess,
    Bypass,
    CheckPresent,
    Connect,
    ConnectDone,
    DataHeader,
    Error,
    FailurePlus,
    Get,
    LockContent,
    Message,
    Put,
    PutFrom,
    Remove,
    SuccessPlus,
    Timestamp,
    Version,
)
from annexpy.uuids import UUID

KEY = Key.parse(b"SHA256-s3--ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
OTHER = Key.parse(b"WORM-s5-m1--two words")
ME, YOU = UUID("solo"), UUID("client")


def client(version: int = 4, state: State = State.IDLE) -> Connection:
    return Connection(Role.CLIENT, state=state, version=version)


def server(version: int = 4, state: State = State.IDLE) -> Connection:
    return Connection(Role.SERVER, state=state, version=version)


def events(connection: Connection) -> list[ConnectionEvent]:
    found = []
    while (event := connection.next_event()) not in (NEED_DATA, PAUSED):
        found.append(event)
        if isinstance(event, Closed):
            break
    return found


class Pair:
    """Two connections and the wire between them; what is said arrives at once."""

    def __init__(self, version: int = 4) -> None:
        self.client, self.server = client(version), server(version)

    def say(self, *messages: Message | bytes) -> list[ConnectionEvent]:
        return self._carry(self.client, self.server, messages)

    def answer(self, *messages: Message | bytes) -> list[ConnectionEvent]:
        return self._carry(self.server, self.client, messages)

    @staticmethod
    def _carry(sender: Connection, receiver: Connection, messages: Iterable[Message | bytes]) -> list[ConnectionEvent]:
        for message in messages:
            receiver.receive_data(sender.send_data(message) if isinstance(message, bytes) else sender.send(message))
        return events(receiver)

    @property
    def states(self) -> tuple[State, State]:
        return self.client.state, self.server.state


# -- whole sessions, both sides ---------------------------------------------------------------------


def test_a_session_over_stdio_begins_with_the_greeting_and_the_version_need_not_wait() -> None:
    ours, theirs = client(0, State.GREETING), server(0, State.GREETING)

    theirs.receive_data(ours.send(Version(9)))
    ours.receive_data(theirs.send(AuthSuccess(ME)))
    assert events(theirs) == [Version(9)]
    ours.receive_data(theirs.send(Version(4)))

    assert events(ours) == [AuthSuccess(ME), Version(4)]
    assert (ours.version, theirs.version, ours.outstanding) == (4, 4, 0)


def test_a_session_over_a_socket_begins_with_auth_and_a_wrong_token_may_be_mended() -> None:
    theirs = server(0, State.AUTH)
    theirs.receive_data(b"CHECKPRESENT WORM--a\nAUTH u wrong\n")
    assert events(theirs) == [Unexpected(CheckPresent(Key.parse(b"WORM--a")), Error("unexpected command"))]
    theirs.send(Error("unexpected command"))
    assert events(theirs) == [Auth(UUID("u"), "wrong")]
    theirs.receive_data(b"AUTH u right\n")
    assert theirs.send(Error("no")) == b"ERROR no\n"
    assert events(theirs) == [Auth(UUID("u"), "right")]
    theirs.send(AuthSuccess(ME))
    assert theirs.state is State.IDLE


@pytest.mark.parametrize("version", range(5))
def test_a_put_goes_through(version: int) -> None:
    pair = Pair(version)
    assert pair.say(Put(KEY, b"f")) == [Put(KEY, b"f")]
    assert pair.answer(PutFrom(1)) == [PutFrom(1)]
    assert pair.say(DataHeader(2), b"b", b"c") == [DataHeader(2), Data(b"b", False), Data(b"c", True)]
    if version:
        assert pair.say(VALID) == [VALID]
    assert pair.answer(SUCCESS) == [SUCCESS]
    assert pair.states == (State.IDLE, State.IDLE)


@pytest.mark.parametrize("version", range(5))
def test_a_get_goes_through(version: int) -> None:
    pair = Pair(version)
    assert pair.say(Get(KEY, 1)) == [Get(KEY, 1)]
    assert pair.answer(DataHeader(2), b"bc") == [DataHeader(2), Data(b"bc", True)]
    if version:
        assert pair.answer(INVALID) == [INVALID]
    assert pair.say(FAILURE, CheckPresent(KEY)) == [FAILURE, CheckPresent(KEY)]
    assert pair.answer(SUCCESS) == [SUCCESS]
    assert pair.client.outstanding == 0


def test_no_data_is_one_empty_last_chunk() -> None:
    pair = Pair()
    pair.say(Get(KEY))
    assert pair.answer(DataHeader(0), INVALID) == [DataHeader(0), Data(b"", True), INVALID]
    assert pair.states == (State.GET_DONE, State.GET_DONE)


def test_a_lock_is_held_until_unlockcontent() -> None:
    pair = Pair()
    pair.say(LockContent(KEY))
    pair.answer(SUCCESS)
    assert pair.states == (State.LOCKED, State.LOCKED)
    with pytest.raises(LocalProtocolError, match="CHECKPRESENT is not legal for the client in state LOCKED"):
        pair.client.send(CheckPresent(KEY))
    assert pair.say(UNLOCK_CONTENT, GET_TIMESTAMP) == [UNLOCK_CONTENT, GET_TIMESTAMP]
    assert pair.answer(Timestamp(3)) == [Timestamp(3)]


def test_data_present_is_known_from_version_4_on() -> None:
    pair = Pair(3)
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    with pytest.raises(LocalProtocolError, match="at version 3"):
        pair.client.send(DATA_PRESENT)
    pair.server.receive_data(b"DATA-PRESENT\n")
    assert events(pair.server) == [Unexpected(DATA_PRESENT, Error("expected DATA"))]

    pair = Pair(4)
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    assert pair.say(DATA_PRESENT) == [DATA_PRESENT]
    assert pair.answer(SuccessPlus((ME,))) == [SuccessPlus((ME,))]


def test_a_git_service_is_relayed_both_ways_until_it_is_done() -> None:
    pair = Pair()
    pair.say(Connect(b"git-upload-pack"))
    assert pair.say(DataHeader(2), b"ab") == [DataHeader(2), Data(b"ab", True)]
    assert pair.answer(DataHeader(1), b"x") == [DataHeader(1), Data(b"x", True)]
    assert pair.say(DataHeader(1), b"c") == [DataHeader(1), Data(b"c", True)]
    assert pair.answer(ConnectDone(0)) == [ConnectDone(0), CLOSED]


# -- pipelining ---------------------------------------------------------------------------------------


def test_presence_checks_may_be_sent_before_the_first_is_answered() -> None:
    pair = Pair()
    requests = [CheckPresent(KEY), CheckPresent(OTHER), Remove(KEY), GET_TIMESTAMP, Get(OTHER)]
    assert pair.say(*requests) == requests
    assert pair.client.outstanding == 5
    with pytest.raises(LocalProtocolError, match="in state GET"):
        pair.client.send(CheckPresent(KEY))

    assert pair.answer(SUCCESS, FAILURE, FailurePlus((YOU,)), Timestamp(7)) == [
        SUCCESS, FAILURE, FailurePlus((YOU,)), Timestamp(7),
    ]  # fmt: skip
    assert pair.states == (State.GET, State.GET)
    assert pair.client.outstanding == 1


@pytest.mark.parametrize("version", [0, 4])
def test_the_next_put_rides_behind_the_end_of_the_one_before(version: int) -> None:
    pair = Pair(version)
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    ending: list[Message | bytes] = [DataHeader(3), b"abc"] if version == 0 else [DataHeader(3), b"abc", VALID]

    assert pair.say(*ending, Put(OTHER))[-1] == Put(OTHER)
    assert pair.answer(SUCCESS, PutFrom(0)) == [SUCCESS, PutFrom(0)]
    assert pair.states == (State.PUT_FROM, State.PUT_FROM)


def test_at_most_32_kib_of_requests_are_unanswered() -> None:
    pair = Pair()
    long = CheckPresent(Key.parse(b"WORM--" + b"x" * 1000))
    size = len(long.line()) + 1
    sent = 0
    while pair.client.room >= size:
        pair.say(long)
        sent += 1
    assert sent * size <= MAX_UNANSWERED < (sent + 1) * size
    with pytest.raises(LocalProtocolError, match="unanswered"):
        pair.client.send(long)

    pair.answer(SUCCESS)
    pair.say(long)
    pair.answer(*[FAILURE] * sent)
    assert (pair.client.room, pair.client.outstanding) == (MAX_UNANSWERED, 0)


def test_one_request_may_be_as_long_as_a_line_may_be() -> None:
    key = Key.parse(b"WORM--" + b"x" * (MAX_LINE - len("CHECKPRESENT WORM--")))
    assert len(client().send(CheckPresent(key))) == MAX_LINE + 1


def test_room_comes_back_with_every_kind_of_end() -> None:
    pair = Pair()
    pair.say(LockContent(KEY))
    pair.answer(SUCCESS)
    pair.say(UNLOCK_CONTENT)
    pair.say(Get(KEY))
    pair.answer(DataHeader(0), VALID)
    pair.say(SUCCESS)
    pair.say(Put(KEY))
    pair.answer(ALREADY_HAVE)
    pair.say(Put(KEY))
    pair.answer(Error("full"))
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    pair.say(Error("changed my mind"))
    pair.say(Bypass((YOU,)))
    assert (pair.client.room, pair.client.outstanding, pair.states) == (MAX_UNANSWERED, 0, (State.IDLE, State.IDLE))


# -- what a server makes of a bad client --------------------------------------------------------------


def objections(connection: Connection, sent: bytes) -> list[str]:
    """The ERRORs that *sent* earns; anything else is answered FAILURE."""
    connection.receive_data(sent)
    found = []
    while (event := connection.next_event()) is not NEED_DATA:
        match event:
            case Unexpected(_, answer):
                found.append(answer.text)
                connection.send(answer)
            case Closed():
                break
            case CheckPresent():
                connection.send(FAILURE)
    return found


def test_unknown_and_unexpected_lines_get_an_error_and_the_session_goes_on() -> None:
    connection = server()
    sent = b"FOO\nSUCCESS\n\nVERSION -1\nDATA 3\nCHECKPRESENT " + KEY.raw + b"\nTIMESTAMP 3\n"
    assert objections(connection, sent) == [
        "unknown command", "unexpected command", "unknown command", "unknown command",
        "unexpected command", "unexpected command",
    ]  # fmt: skip
    assert connection.state is State.IDLE


def test_pipelined_nonsense_is_answered_in_its_turn() -> None:
    connection = server()
    connection.receive_data(b"CHECKPRESENT " + KEY.raw + b"\nFOO\nCHECKPRESENT " + KEY.raw + b"\n")
    assert events(connection) == [CheckPresent(KEY), Unexpected(_unknown(b"FOO"), Error("unknown command"))]
    with pytest.raises(LocalProtocolError):
        connection.send(Timestamp(1))
    connection.send(SUCCESS)
    connection.send(Error("unknown command"))
    assert events(connection) == [CheckPresent(KEY)]


def _unknown(raw: bytes) -> Message:
    from annexpy.p2p.lines import parse

    return parse(raw)


def test_a_lock_is_over_after_anything_but_unlockcontent() -> None:
    connection = server()
    connection.receive_data(b"LOCKCONTENT " + KEY.raw + b"\nERROR x\nUNLOCKCONTENT\n")
    assert connection.next_event() == LockContent(KEY)
    assert connection.next_event() is PAUSED
    connection.send(SUCCESS)
    assert objections(connection, b"") == ["expected UNLOCKCONTENT", "unexpected command"]


def test_after_a_bad_validity_word_the_server_owes_two_lines() -> None:
    pair = Pair()
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    pair.say(DataHeader(1), b"x")
    pair.server.receive_data(b"ERROR boo\n")
    assert events(pair.server) == [Unexpected(Error("boo"), Error("expected VALID or INVALID"))]
    with pytest.raises(LocalProtocolError):
        pair.server.send(SUCCESS)
    pair.server.send(Error("expected VALID or INVALID"))
    pair.server.send(SUCCESS)
    assert pair.server.state is State.IDLE


def test_an_error_in_place_of_data_ends_the_put_in_silence() -> None:
    connection = server()
    connection.receive_data(b"PUT  " + KEY.raw + b"\nERROR changed my mind\nGETTIMESTAMP\n")
    connection.next_event()
    connection.send(PutFrom(0))
    assert events(connection) == [Error("changed my mind"), GET_TIMESTAMP]


def test_an_error_at_the_top_level_ends_the_session_but_not_what_is_owed() -> None:
    connection = server()
    connection.receive_data(b"CHECKPRESENT " + KEY.raw + b"\n" + b"ERROR\nGETTIMESTAMP\n")
    assert events(connection) == [CheckPresent(KEY), Error(""), CLOSED]
    assert connection.send(SUCCESS) == b"SUCCESS\n"
    assert connection.next_event() == CLOSED


def test_the_error_that_a_stock_client_says_about_a_refused_put_does_not_end_the_session() -> None:
    pair = Pair()
    pair.say(Put(KEY))
    pair.answer(Error("this repository is read-only; write access denied"))
    assert pair.say(Error("expected PUT_FROM or ALREADY_HAVE")) == [Error("expected PUT_FROM or ALREADY_HAVE")]
    assert pair.say(CheckPresent(KEY)) == [CheckPresent(KEY)]

    pair = Pair()
    pair.say(Put(KEY))
    pair.answer(Error("no"))
    assert pair.say(CheckPresent(KEY), Put(OTHER)) == [CheckPresent(KEY), Put(OTHER)]


def test_a_put_that_is_refused_in_the_middle_ends_the_session() -> None:
    pair = Pair()
    pair.say(Put(KEY))
    pair.answer(PutFrom(0))
    pair.say(DataHeader(9))
    assert pair.answer(Error("too long")) == [Error("too long"), CLOSED]
    assert pair.server.next_event() == NEED_DATA or pair.server.state is State.CLOSED


def test_a_server_below_version_2_never_says_plus() -> None:
    connection = server(1)
    connection.receive_data(b"PUT  " + KEY.raw + b"\n")
    connection.next_event()
    with pytest.raises(LocalProtocolError):
        connection.send(AlreadyHavePlus((ME,)))
    assert connection.send(ALREADY_HAVE)


# -- what a client makes of a bad server --------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"SUCCESS\n",
        b"TIMESTAMP 3\n",
        b"FOO\n",
        b"PUT-FROM -1\n",
        b"ALREADY-HAVE-PLUS ../x\n",
        b"VALID\n",
        b"VERSION 4\n",
    ],
)
def test_a_client_raises_when_the_answer_makes_no_sense(said: bytes) -> None:
    connection = client()
    connection.send(Put(KEY))
    connection.receive_data(said)
    with pytest.raises(RemoteProtocolError, match="while waiting for the answer to PUT"):
        connection.next_event()
    assert connection.next_event() == CLOSED


@pytest.mark.parametrize("version", [0, 1])
def test_plus_below_version_2_is_a_protocol_error(version: int) -> None:
    connection = client(version)
    connection.send(Remove(KEY))
    connection.receive_data(b"SUCCESS-PLUS a\n")
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


def test_a_version_above_the_one_asked_for_is_a_protocol_error() -> None:
    connection = client(0)
    connection.send(Version(2))
    connection.receive_data(b"VERSION 3\n")
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


def test_an_old_server_that_does_not_know_version_leaves_us_at_0() -> None:
    connection = client(0)
    connection.send(Version(4))
    connection.receive_data(b"ERROR unknown command\n")
    assert connection.next_event() == Error("unknown command")
    assert (connection.version, connection.state) == (0, State.IDLE)
    with pytest.raises(LocalProtocolError, match="at version 0"):
        connection.send(GET_TIMESTAMP)


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        (b"", "the answer to GET"),
        (b"DAT", "the answer to GET"),
        (b"DATA 3\na", "2 more bytes of DATA"),
        (b"DATA 3\nabc", "VALID or INVALID"),
        (b"DATA 3\nabcVALID\n", ""),
    ],
)
def test_the_end_of_the_stream_says_what_is_missing(said: bytes, missing: str) -> None:
    connection = client()
    connection.send(Get(KEY))
    if said:
        connection.receive_data(said)
    connection.receive_data(b"")
    assert events(connection)[-1] == Closed(missing)


def test_more_data_than_announced_cannot_be_sent() -> None:
    connection = server()
    connection.receive_data(b"GET 0  " + KEY.raw + b"\n")
    connection.next_event()
    connection.send(DataHeader(2))
    with pytest.raises(LocalProtocolError):
        connection.send_data(b"abc")
    connection.send_data(b"ab")
    with pytest.raises(LocalProtocolError):
        connection.send_data(b"c")


# -- any way to cut the stream ------------------------------------------------------------------------


def answered(connection: Connection) -> Callable[[], list[ConnectionEvent]]:
    """A server that answers everything, and tells what it heard with the DATA chunks joined."""
    heard: list[ConnectionEvent] = []

    def step() -> list[ConnectionEvent]:
        while not (heard and isinstance(heard[-1], Closed)) and (event := connection.next_event()) is not NEED_DATA:
            match event:
                case Data(chunk, last) if heard and isinstance(heard[-1], Data):
                    heard[-1] = Data(heard[-1].chunk + chunk, last)
                    if last and connection.state is State.PUT_RESULT:
                        connection.send(SUCCESS)
                    continue
                case Data(_, True) if connection.state is State.PUT_RESULT:
                    connection.send(SUCCESS)
                case Version(number):
                    connection.send(Version(min(number, 4)))
                case CheckPresent() | Remove() | LockContent():
                    connection.send(SUCCESS)
                case Put():
                    connection.send(PutFrom(0))
                case Get():
                    connection.send(DataHeader(1))
                    connection.send_data(b"x")
                    if connection.version:
                        connection.send(VALID)
                case Unexpected(_, answer):
                    connection.send(answer)
                    if connection.state is State.PUT_RESULT:
                        connection.send(FAILURE)
            if event in (VALID, INVALID, DATA_PRESENT):
                connection.send(FAILURE)
            if event == GET_TIMESTAMP:
                connection.send(Timestamp(1))
            heard.append(event)
        return heard

    return step


LINES = [
    b"VERSION 4\n", b"VERSION 0\n", b"CHECKPRESENT " + KEY.raw + b"\r\n", b"REMOVE WORM--\xc3\xa9\xff\n", b"FOO\n",
    b"\n",    b"PUT  " + KEY.raw + b"\n", b"DATA 3\nab\n", b"DATA 0\n", b"VALID\n", b"INVALID\n", b"DATA-PRESENT\n",
    b"GET 0  " + KEY.raw + b"\n", b"SUCCESS\n", b"FAILURE\n", b"LOCKCONTENT " + KEY.raw + b"\n", b"UNLOCKCONTENT\n",
    b"GETTIMESTAMP\n", b"BYPASS a b\n", b"DATA 7\nREMOVE\n", b"x" * 40000 + b"\n", b"ERROR x\n",
]  # fmt: skip


def hear(pieces: Iterable[bytes]) -> list[ConnectionEvent | str]:
    connection = server(0)
    step = answered(connection)
    heard: list[ConnectionEvent | str] = []
    try:
        for piece in pieces:
            if piece:
                connection.receive_data(piece)
                heard = list(step())
        connection.receive_data(b"")
        heard = list(step())
    except RemoteProtocolError as error:
        heard = [*step(), str(error)]
    return heard


@given(st.lists(st.sampled_from(LINES), max_size=12).map(b"".join), st.data())
def test_any_cut_of_the_stream_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    whole = hear([stream])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert hear(pieces) == whole
    if len(stream) < 600:
        assert hear(stream[i : i + 1] for i in range(len(stream))) == whole


def test_chunks_may_be_handed_in_before_anybody_asks() -> None:
    connection = server()
    for byte in b"PUT  " + KEY.raw + b"\nDATA 3\nabcVALID\nGETTIMESTAMP\n":
        connection.receive_data(bytes([byte]))
    assert connection.unread
    assert connection.next_event() == Put(KEY)
    connection.send(PutFrom(0))
    assert events(connection) == [
        DataHeader(3), Data(b"a", False), Data(b"b", False), Data(b"c", True), VALID, GET_TIMESTAMP,
    ]  # fmt: skip
    assert not connection.unread


def test_bodies_are_not_copied() -> None:
    connection = server()
    connection.receive_data(b"PUT  " + KEY.raw + b"\n")
    connection.next_event()
    connection.send(PutFrom(0))
    body = [bytes(1000) for _ in range(3)]
    connection.receive_data(b"DATA 3000\n")
    for chunk in body:
        connection.receive_data(chunk)
    connection.next_event()
    assert [event.chunk is chunk for event, chunk in zip(events(connection), body, strict=True)] == [True] * 3


# -- long lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 4096, 32767, 40000])
@pytest.mark.parametrize("letter", [b"x", "\u00e9".encode(), "\u65e5".encode(), b"\xe9", b"\xf0\x9f"])
def test_a_line_may_have_32767_characters_and_not_one_more(letter: bytes, cut: int) -> None:
    head = b"CHECKPRESENT WORM--"
    letters = len(letter.decode("utf-8", "surrogateescape"))
    fits = head + letter * ((MAX_LINE - len(head)) // letters)
    fits += b"y" * (MAX_LINE - len(fits.decode("utf-8", "surrogateescape")))

    def feed(line: bytes) -> ConnectionEvent:
        connection = server()
        for i in range(0, len(line), cut):
            connection.receive_data(line[i : i + cut])
            event = connection.next_event()
            if event is not NEED_DATA:
                return event
        return NEED_DATA

    assert feed(fits + b"\n") == CheckPresent(Key.parse(fits[13:]))
    with pytest.raises(RemoteProtocolError, match="32767"):
        feed(fits + b"y\n")
    with pytest.raises(RemoteProtocolError):
        feed(fits + b"y")
    with pytest.raises(RemoteProtocolError):
        feed(fits + b"\r\n")  # the carriage return counts, as it does for git-annex


def test_an_endless_line_is_refused_before_it_is_kept() -> None:
    connection = server()
    connection.receive_data(bytes(50_000_000))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()
    assert connection.next_event() == CLOSED


# -- the wire is no place for exceptions --------------------------------------------------------------


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(LINES)), max_size=8))
def test_a_server_survives_any_bytes(pieces: list[bytes]) -> None:
    hear(pieces)


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(LINES)), max_size=8), st.integers(0, 4))
def test_a_client_knows_no_error_but_a_protocol_error(pieces: list[bytes], version: int) -> None:
    for request in (CheckPresent(KEY), Put(KEY), Get(KEY), LockContent(KEY)):
        connection = client(version)
        connection.send(request)
        try:
            for piece in pieces:
                if piece:
                    connection.receive_data(piece)
                events(connection)
        except RemoteProtocolError:
            assert connection.next_event() == CLOSED


@pytest.mark.parametrize("verb", [b"PUT", b"GET 0"])
def test_a_request_with_white_space_in_its_file_is_shown_to_a_client_as_it_came(verb: bytes) -> None:
    """It could not be sent like that; found by fuzzing."""
    connection = client()
    connection.receive_data(b"%b a\rb %b\n" % (verb, KEY.raw))

    with pytest.raises(RemoteProtocolError, match=r"a.rb"):
        connection.next_event()
    with pytest.raises(LocalProtocolError, match="not escaped"):
        client().send(Put(KEY, b"a\rb") if verb == b"PUT" else Get(KEY, 0, b"a\rb"))
