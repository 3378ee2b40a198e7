from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput, InvalidKey, InvalidPath, RemoteProtocolError
from annexpy.keys.key import Key
from annexpy.p2p import http as h
from annexpy.p2p import http_answers as a
from annexpy.p2p.http_query import encoded
from annexpy.uuids import UUID

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
KEY = Key.parse(b"SHA256-s3--ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
U1, C1, U2 = UUID("87ab9089-b663-40ac-b7c2-52e054520871"), UUID("client"), UUID("acbd")
TOP = b"/git-annex/87ab9089-b663-40ac-b7c2-52e054520871"
NAMED = b"key=" + KEY.raw + b"&clientuuid=client"

EXACT = [
    (h.GetRequest(U1, KEY, C1), TOP + b"/v4/key/" + KEY.raw + b"?clientuuid=client"),
    (
        h.GetRequest(U1, KEY, C1, 0, (), 1000, "h 1%.dat"),
        TOP + b"/v0/key/" + KEY.raw + b"?clientuuid=client&associatedfile=h%201%25.dat&offset=1000",
    ),
    (h.GetRequest(U1, KEY, version=None), TOP + b"/key/" + KEY.raw),
    (h.CheckPresentRequest(U1, KEY, C1, 2), TOP + b"/v2/checkpresent?" + NAMED),
    (
        h.CheckPresentRequest(U1, KEY, C1, 4, (U2, UUID("x"))),
        TOP + b"/v4/checkpresent?" + NAMED + b"&bypass=acbd&bypass=x",
    ),
    (h.PutOffsetRequest(U1, KEY, C1), TOP + b"/v4/putoffset?" + NAMED),
    (h.PutRequest(U1, KEY, 3, C1), TOP + b"/v4/put?" + NAMED + b"&offset=0"),
    (
        h.PutRequest(U1, KEY, 3, C1, 4, (), 5, "a/b", data_present=True),
        TOP + b"/v4/put?" + NAMED + b"&associatedfile=a%2Fb&offset=5&data-present=true",
    ),
    (h.RemoveRequest(U1, KEY, C1), TOP + b"/v4/remove?" + NAMED),
    (h.RemoveBeforeRequest(U1, KEY, -1, C1, 3), TOP + b"/v3/remove-before?" + NAMED + b"&timestamp=-1"),
    (h.GetTimestampRequest(U1, C1), TOP + b"/v4/gettimestamp?clientuuid=client"),
    (h.PossessionRequest(U1, KEY, b"\xab" * 32, C1), TOP + b"/v4/possession?" + NAMED + b"&nonce=" + b"ab" * 32),
    (h.LockContentRequest(U1, KEY, C1), TOP + b"/v4/lockcontent?" + NAMED),
    (h.KeepLockedRequest(U1, "a-1", C1), TOP + b"/v4/keeplocked?lockid=a-1&clientuuid=client"),
]


def read(target: bytes, method: bytes = b"", length: bytes | None = b"3") -> h.Request:
    methods = [method] if method else [b"POST", b"GET"]
    for at, one in enumerate(methods):
        try:
            route = h.parse_route(one, target)
        except h.WrongMethod:
            if at == len(methods) - 1:
                raise
        else:
            return h.parse_request(route, length)
    raise AssertionError


@pytest.mark.parametrize(("request_", "target"), EXACT, ids=lambda v: v.decode()[48:70] if isinstance(v, bytes) else "")
def test_each_request_is_written_and_read_as_documented(request_: h.Request, target: bytes) -> None:
    assert h.format_request(request_) == target
    assert read(target, h.method_of(request_)) == request_
    # a slash at the end, and parameters nobody knows, change nothing
    path, _, query = target.partition(b"?")
    assert read(path + b"/?unknown=1&" + query, h.method_of(request_)) == request_


def test_every_request_is_in_the_list_above() -> None:
    assert {type(request) for request, _ in EXACT} == set(h.Request.__args__)


keys = st.one_of(
    st.binary(max_size=40).map(lambda name: b"WORM-s3-m1--" + name),
    st.just(b"[foo]--x]"),
    st.text(max_size=20).map(lambda name: b"URL--" + name.encode("utf-8", "surrogatepass")),
).filter(lambda raw: b"\0" not in raw and b"\n" not in raw and raw[-1:] != b"\r")


@given(keys, st.text(max_size=20), st.integers(0, 2**63 - 1))
def test_any_key_and_name_arrive_as_they_were(raw: bytes, name: str, offset: int) -> None:
    name = "".join(c for c in name.encode("utf-8", "ignore").decode() if c.isprintable()).lstrip("/")
    for request in (
        h.GetRequest(U1, Key.parse(raw), C1, offset=offset, associated_file=name),
        h.CheckPresentRequest(U1, Key.parse(raw), C1),
    ):
        target = h.format_request(request)
        assert target.isascii()
        assert b" " not in target
        assert read(target, h.method_of(request)) == request


@given(st.binary(max_size=60), st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"]))
def test_any_target_is_a_request_or_an_error_that_names_the_field(rest: bytes, method: bytes) -> None:
    for target in (rest, TOP + b"/" + rest, TOP + b"/v4/put?" + rest, TOP + b"/v4/checkpresent?key=" + rest):
        try:
            h.parse_request(h.parse_route(method, target), rest)
        except InvalidInput as error:
            assert error.field  # noqa: PT017  not raising is as good


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/git-annex/",
        TOP,
        b"/git-annex/../../etc/v4/checkpresent",
        b"/git-annex/..%2f/v4/checkpresent",
        TOP + b"/v5/checkpresent?" + NAMED,
        TOP + b"/v04/checkpresent?" + NAMED,
        TOP + b"/v-1/checkpresent?" + NAMED,
        TOP + b"/v4/checkPresent?" + NAMED,
        TOP + b"/v0/putoffset?" + NAMED,
        TOP + b"/v2/remove-before?" + NAMED,
        TOP + b"/v3/possession?" + NAMED,
        TOP + b"/v2/gettimestamp?" + NAMED,
        TOP + b"/checkpresent?" + NAMED,
        TOP + b"/v4/key",
        TOP + b"/v4/key/a/b",
        TOP + b"/" + KEY.raw,
    ],
)
def test_what_leads_nowhere_is_no_route_so_that_clients_fall_back(target: bytes) -> None:
    with pytest.raises(h.NoSuchRoute):
        h.parse_route(b"POST", target)


@pytest.mark.parametrize(
    ("target", "length", "field", "kind"),
    [
        (b"checkpresent?clientuuid=x", None, "key", InvalidInput),
        (b"possession?clientuuid=x&nonce=ab&key=" + KEY.raw, None, "nonce", InvalidInput),
        (b"checkpresent?key=" + KEY.raw, None, "clientuuid", InvalidInput),
        (b"checkpresent?key=a&key=b&clientuuid=x", None, "key", InvalidInput),
        (b"checkpresent?key=nokey&clientuuid=x", None, "key", InvalidKey),
        (b"checkpresent?key=WORM--%00&clientuuid=x", None, "key", InvalidKey),
        (b"checkpresent?key=WORM--a%0AREMOVE&clientuuid=x", None, "key", InvalidKey),
        (b"checkpresent?key=WORM--a%0d&clientuuid=x", None, "key", InvalidKey),
        (b"checkpresent?key=WORM--%zz&clientuuid=x", None, "key", InvalidInput),
        (b"checkpresent?key=[V09STS0tYQ]&clientuuid=x", None, "key", InvalidInput),  # no padding
        (b"checkpresent?key=[V09STS0t_//=]&clientuuid=x", None, "key", InvalidInput),  # the other alphabet
        (b"checkpresent?clientuuid=../../x&key=" + KEY.raw, None, "clientuuid", InvalidInput),
        (b"checkpresent?bypass=a%2fb&clientuuid=x&key=" + KEY.raw, None, "bypass", InvalidInput),
        (b"put?" + NAMED, None, "x-git-annex-data-length", InvalidInput),
        (b"put?" + NAMED, b"-1", "x-git-annex-data-length", InvalidInput),
        (b"put?" + NAMED, b"99999999999999999999", "x-git-annex-data-length", InvalidInput),
        (b"put?" + NAMED, b"0x3", "x-git-annex-data-length", InvalidInput),
        (b"put?offset=-1&" + NAMED, b"3", "offset", InvalidInput),
        (b"put?associatedfile=/etc/passwd&" + NAMED, b"3", "associatedfile", InvalidPath),
        (b"put?data-present=maybe&" + NAMED, b"3", "data-present", InvalidInput),
        (b"remove-before?" + NAMED, None, "timestamp", InvalidInput),
        (b"remove-before?timestamp=1.5&" + NAMED, None, "timestamp", InvalidInput),
        (b"keeplocked", None, "lockid", InvalidInput),
    ],
)
def test_a_bad_parameter_is_refused_by_name(
    target: bytes, length: bytes | None, field: str, kind: type[InvalidInput]
) -> None:
    with pytest.raises(kind) as caught:
        read(TOP + b"/v4/" + target, b"POST", length)
    assert caught.value.field == field


def test_a_wrong_method_says_which_are_right() -> None:
    with pytest.raises(h.WrongMethod) as caught:
        h.parse_route(b"GET", TOP + b"/v4/remove?" + NAMED)
    assert caught.value.allowed == b"POST"
    for verb in (b"checkpresent", b"gettimestamp"):
        assert h.parse_route(b"GET", TOP + b"/v4/" + verb).verb == verb
    assert h.parse_route(b"HEAD", TOP + b"/key/" + KEY.raw).verb == b"key"


def test_a_plus_is_a_space_in_a_query_and_itself_in_a_path() -> None:
    asked = read(TOP + b"/v4/checkpresent?clientuuid=x&key=WORM--a+b%2B")
    assert isinstance(asked, h.CheckPresentRequest)
    assert asked.key.raw == b"WORM--a b+"
    asked = read(TOP + b"/key/WORM--a+b")
    assert isinstance(asked, h.GetRequest)
    assert asked.key.raw == b"WORM--a+b"


def test_data_present_is_of_version_4_and_needs_no_length() -> None:
    asked = read(TOP + b"/v4/put?data-present=true&" + NAMED, b"POST", None)
    assert isinstance(asked, h.PutRequest)
    assert asked.data_present
    asked = read(TOP + b"/v3/put?data-present=true&" + NAMED)
    assert isinstance(asked, h.PutRequest)
    assert not asked.data_present


def test_values_that_are_no_text_travel_in_brackets_as_the_reference_sends_them() -> None:
    assert h.format_request(h.GetRequest(U1, Key.parse(b"WORM--\xff"), version=None)).endswith(
        b"%5BV09STS0t_w%3D%3D%5D"
    )
    assert encoded(b"[foo]") == b"%5BW2Zvb10%3D%5D"
    assert encoded(b"\xff\xfe bin") == b"%5B__4gYmlu%5D"


# -- answers --------------------------------------------------------------------------------------

ASKED = {type(request): request for request, _ in EXACT}
ANSWERS: list[tuple[type, a.Answer, int, bytes]] = [
    (h.CheckPresentRequest, a.PresentAnswer(True), 0, b'{"present":true}'),
    (h.CheckPresentRequest, a.PresentAnswer(False), 4, b'{"present":false}'),
    (h.PutOffsetRequest, a.OffsetAnswer(5), 1, b'{"offset":5}'),
    (h.PutOffsetRequest, a.AlreadyHaveAnswer(), 1, b'{"alreadyhave":true}'),
    (h.PutOffsetRequest, a.AlreadyHaveAnswer((U2,)), 2, b'{"alreadyhave":true,"plusuuids":["acbd"]}'),
    (h.PutRequest, a.StoredAnswer(True), 0, b'{"stored":true}'),
    (h.PutRequest, a.StoredAnswer(False), 4, b'{"plusuuids":[],"stored":false}'),
    (h.PutRequest, a.StoredAnswer(True, (U2, U1)), 2, b'{"plusuuids":["acbd","%b"],"stored":true}' % U1.encode()),
    (h.RemoveRequest, a.RemovedAnswer(True), 1, b'{"removed":true}'),
    (h.RemoveBeforeRequest, a.RemovedAnswer(False, (U2,)), 3, b'{"plusuuids":["acbd"],"removed":false}'),
    (h.GetTimestampRequest, a.TimestampAnswer(1386), 3, b'{"timestamp":1386}'),
    (h.LockContentRequest, a.LockAnswer("a-1"), 0, b'{"locked":true,"lockid":"a-1"}'),
    (h.LockContentRequest, a.LockAnswer(), 4, b'{"locked":false}'),
    (h.KeepLockedRequest, a.LockAnswer(), 4, b'{"locked":false}'),
]


@pytest.mark.parametrize(("kind", "answer", "version", "body"), ANSWERS)
def test_each_answer_is_written_and_read_as_documented(kind: type, answer: a.Answer, version: int, body: bytes) -> None:
    assert a.format_answer(answer, version) == body
    assert a.parse_answer(ASKED[kind], body) == answer
    padded = json.dumps({"more": [1], **json.loads(body)}, indent=1).encode()
    assert a.parse_answer(ASKED[kind], padded) == answer


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (h.CheckPresentRequest, b"", "JSON"),
        (h.CheckPresentRequest, b"[]", "object"),
        (h.CheckPresentRequest, b'{"present":1}', "present"),
        (h.PutOffsetRequest, b'{"offset":-1}', "offset"),
        (h.PutOffsetRequest, b'{"offset":true}', "offset"),
        (h.PutOffsetRequest, b'{"alreadyhave":false}', "alreadyhave"),
        (h.PutRequest, b'{"stored":"yes","plusuuids":[]}', "stored"),
        (h.PutRequest, b'{"stored":true,"plusuuids":["../x"]}', "plusuuids"),
        (h.PutRequest, b'{"stored":true,"plusuuids":[1]}', "plusuuids"),
        (h.RemoveRequest, b'{"removed":true,"plusuuids":{}}', "plusuuids"),
        (h.GetTimestampRequest, b'{"timestamp":1.5}', "timestamp"),
        (h.LockContentRequest, b'{"locked":true}', "lockid"),
        (h.LockContentRequest, b"[" * 100_000, "JSON"),
    ],
)
def test_a_bad_answer_is_an_error_of_the_peer_that_names_the_field(kind: type, body: bytes, field: str) -> None:
    with pytest.raises(RemoteProtocolError, match=field):
        a.parse_answer(ASKED[kind], body)


# -- the body of keeplocked -----------------------------------------------------------------------


@given(st.integers(0, 5), st.lists(st.integers(1, 9)))
def test_an_unlock_is_seen_however_its_body_is_cut(waiting: int, cuts: list[int]) -> None:
    whole = a.format_unlock(False) * waiting + a.format_unlock(True).rstrip()
    body, seen = a.KeepLockedBody(), False
    for size in [*cuts, len(whole)]:
        piece, whole = whole[:size], whole[size:]
        seen = body.unlocks(piece)
        assert seen == (not whole)
        if seen:
            break


@pytest.mark.parametrize("data", [b"x", b"[]", b'{"unlock":1}', b'{"lock":true}', b"\xff", b'{"' + b"x" * 5000])
def test_anything_else_in_the_body_of_keeplocked_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        a.KeepLockedBody().unlocks(data)


# -- what the reference said ----------------------------------------------------------------------


def _said() -> list[tuple[bytes, bytes, bytes | None, bytes]]:
    """Requests of recorded conversations, each with the JSON that answered it: method, target, length, answer."""
    said = []
    for path in sorted(TRANSCRIPTS.glob("http*.jsonl")):
        asked = None
        for line in path.read_text().splitlines():
            row = json.loads(line) if line.strip() else {}
            raw = base64.b64decode(row["b64"]) if "b64" in row else row.get("text", "").encode()
            head = re.match(rb"(GET|POST|HEAD) (\S+) HTTP/1.1\r\n(.*?)\r\n\r\n", raw, re.DOTALL)
            if row.get("dir") == "C>S" and head:
                length = re.search(rb"(?i)x-git-annex-data-length: *(\S+)", head[3])
                asked = head[1], head[2], length[1] if length else None
            elif row.get("dir") == "S>C" and asked and b"200 OK" in raw and b"json" in raw:
                found = re.search(rb"\r\n\r\n[0-9A-F]+\r\n(\{.*?\})\r\n0\r\n", raw, re.DOTALL)
                if found:
                    said.append((*asked, found[1]))
                    asked = None
    return said


@pytest.mark.transcripts
def test_what_the_reference_said_is_read_and_written_to_the_byte() -> None:
    said = _said()
    for method, target, length, body in said:
        if b"client" in target and b"=../" in target:
            continue  # refused on purpose
        try:
            request = h.parse_request(h.parse_route(method, target), length)
        except InvalidInput:
            continue
        assert request.version is not None
        answer = a.parse_answer(request, body)
        assert a.format_answer(answer, request.version) == body
    assert len(said) > 20 or not list(TRANSCRIPTS.glob("http*.jsonl"))


def test_a_huge_number_in_the_body_of_keeplocked_is_refused() -> None:
    with pytest.raises(InvalidInput):
        a.KeepLockedBody().unlocks(b'{"unlock":' + b"9" * 5000 + b"}")
