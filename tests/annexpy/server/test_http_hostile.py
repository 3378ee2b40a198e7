"""Whatever arrives, an HTTP server answers or hangs up, in time, and serves the next client as before."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import anyio
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.memory import MemoryRemote
from annexpy.server.auth import EVERYTHING, Access, Grants, User, everywhere
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.memory import memory_pair
from annexpy.uuids import UUID

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
HERE = UUID("87ab9089-b663-40ac-b7c2-52e054520871")
CONTENT = b"content"
KEY = Key.parse(b"SHA256-s7--" + sha256(CONTENT).hexdigest().encode())


class Clock:
    """That of the event loop, with what a reboot adds."""

    def __init__(self, since: float = 0) -> None:
        self._since = since

    def now(self) -> float:
        return self._since + anyio.current_time()

    def booted(self) -> float:
        return self._since

    def wall(self) -> float:
        return 1_700_000_000.0


async def exchange(
    said: list[bytes],
    remote: MemoryRemote,
    *,
    anonymous: Grants = everywhere(EVERYTHING),  # noqa: B008  a constant
    users: tuple[User, ...] = (),
    plain: bool = True,
    clock: Clock | None = None,
) -> list[bytes]:
    """What a server says to each of *said*, each on a connection of its own, before it hangs up or falls silent."""

    async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        return remote if uuid == remote.uuid else None

    access = Access(anonymous=anonymous, users=users, allow_plain_http=plain)
    heard = []
    async with Routes(ShownRepositories((Shown(find),)), access=access, clock=clock or Clock()) as routes:
        for request in said:
            ours, theirs = memory_pair(capacity=1 << 20)
            async with anyio.create_task_group() as group:
                group.start_soon(routes.connections.serve, theirs)
                await ours.send(request)
                answer = b""
                while piece := await ours.receive():
                    answer += piece
                heard.append(answer)
                await ours.aclose()
        assert routes.connections.open == 0
    return heard


def talk(said: list[bytes], remote: MemoryRemote, **options) -> list[bytes]:  # type: ignore[no-untyped-def]
    async def work() -> list[bytes]:
        return await exchange(said, remote, **options)

    return trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


def request(method: bytes, verb: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
    query = b"?key=" + KEY.raw + b"&clientuuid=x"
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    top = b"/git-annex/" + HERE.encode() + b"/v4/"
    return method + b" " + top + verb + query + b" HTTP/1.1\r\nHost: x\r\n" + headers + length + b"\r\n" + body


GOOD = [
    request(b"POST", b"checkpresent"),
    request(b"POST", b"put", b"X-git-annex-data-length: 7\r\n", CONTENT),
    request(b"POST", b"put", b"X-git-annex-data-length: 7\r\nTransfer-Encoding: chunked\r\n")
    + b"4\r\ncont\r\n3\r\nent\r\n0\r\n\r\n",
    request(b"GET", b"key/" + KEY.raw, b"Range: bytes=1-3\r\n"),
    request(b"POST", b"lockcontent"),
    request(b"POST", b"keeplocked?lockid=1&x=", b"", b'{"unlock":true}'),
    request(b"GET", b"gettimestamp", b"Authorization: Basic eDp5\r\n"),
    b"GET /metrics HTTP/1.0\r\n\r\n",
]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Good requests one after the other, of which bytes are changed, cut out, doubled or put in."""
    whole = bytearray(b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(whole) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                whole[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del whole[at : at + draw(st.integers(1, 30))]
            case 2:
                whole[at:at] = whole[at : at + draw(st.integers(1, 60))]
            case 3:
                whole[at:at] = draw(st.binary(max_size=10))
            case _:
                whole[at:at] = draw(
                    st.sampled_from([b"\r\n", b"\r\n\r\n", b"%00", b"%0a", b"9999999999", b"-1", b"\0"])
                )
    return bytes(whole)


@settings(max_examples=150)
@given(st.one_of(spoiled(), st.binary(max_size=300)))
def test_anything_is_answered_or_hung_up_on_and_nothing_wrong_is_stored(said: bytes) -> None:
    remote = MemoryRemote(HERE)

    answers = talk([said, GOOD[0]], remote)

    for answer in answers[:1]:
        for line in re.findall(rb"(?m)^HTTP/1\.1 (.*?)\r$", answer):
            assert line[:3] != b"500", answer
    assert re.search(rb'\{"present":(true|false)\}\Z', answers[1])
    assert set(remote.objects.values()) <= {CONTENT}
    assert set(remote.objects) <= {KEY}
