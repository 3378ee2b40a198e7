from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import ConnectFailed, ConnectionLost, LocalProtocolError, RemoteProtocolError, TimedOut
from annexpy.transport.base import SendsFiles, Transport
from annexpy.transport.http_body import BodyReader, chunk
from annexpy.transport.http_client import HTTPConnection
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import (
    MAX_HEAD,
    BadHTTP,
    RequestReader,
    ResponseReader,
    format_request_head,
    format_response_head,
    read_response_head,
)
from annexpy.transport.http_server import HTTPConnections
from annexpy.transport.memory import MemoryTransport, memory_pair
from annexpy.transport.sockets import DialTCP, listen_tcp
from annexpy.transport.tls import start_tls

HEAD = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"

# -- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_over", [b"", b"\r\n"])
def test_a_head_is_read_when_it_is_whole_and_what_follows_is_kept(left_over: bytes) -> None:
    whole = left_over + HEAD
    for cut in range(len(whole)):
        assert RequestReader().read(whole[:cut]) is None
    found = RequestReader().read(whole + b"abcGET")
    assert found is not None
    head, rest = found
    assert (head.method, head.target, head.length, rest) == (b"POST", b"/a?b", 3, b"abcGET")
    assert head.headers == {b"host": b"x", b"content-length": b"3"}
    assert head.keep_alive
    assert not head.expects


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"GET / HTTP/1.1", 400),  # no Host
        (b"GET  / HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/2.0\r\nHost: x", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
        (b"GET / HTTP/1.1\r\nHost : x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \0", 400),
        (b"GET / HTTP/1.1\r\nHost: x\n\nGET / HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),  # TLS where none is spoken
    ],
)
def test_a_head_that_can_be_misunderstood_is_refused(lines: bytes, status: int) -> None:
    with pytest.raises(BadHTTP) as caught:
        RequestReader().read(lines + b"\r\n\r\n")
    assert caught.value.status == status


def test_a_head_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(BadHTTP):
        RequestReader().read(b"GET / HTTP/1.1\r\nA: " + b"a" * MAX_HEAD)


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://x/a?b", b"/a?b"), (b"HTTPS://[::1]:9417/a", b"/a"), (b"http://x", b"/"), (b"/http://x/", b"/http://x/")],
)
def test_a_target_begins_with_its_path(target: bytes, path: bytes) -> None:
    reader = RequestReader()
    for _ in range(2):
        found = reader.read(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert found is not None
        assert found[0].target == path


@pytest.mark.parametrize(
    "line",
    [
        b"GET /b HTTP/1.1",
        b"GET  /b HTTP/1.1",
        b"G(T /b HTTP/1.1",
        b"GET /b HTTP/1.0",
        b"GET /\x80 HTTP/1.1",
        b"GET /b",
        b"",
    ],
)
def test_headers_that_come_again_change_nothing(line: bytes) -> None:
    block = b"\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    reader = RequestReader()
    assert reader.read(b"POST /a HTTP/1.1" + block) is not None
    try:
        alone = RequestReader().read(line + block)
    except BadHTTP as error:
        with pytest.raises(BadHTTP) as caught:
            reader.read(line + block)
        assert caught.value.status == error.status  # noqa: PT017
    else:
        assert reader.read(line + block) == alone


def test_kinds_of_requests_that_take_turns_are_each_read_as_if_alone() -> None:
    reader = RequestReader()
    blocks = [b"\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % number for number in range(7)]
    for number in [*range(7), *range(3), *range(7)]:
        line = b"POST /%d HTTP/1.1" % number
        assert reader.read(line + blocks[number] + b"rest") == RequestReader().read(line + blocks[number] + b"rest")


def test_kinds_of_responses_that_take_turns_are_each_read_as_if_alone() -> None:
    reader = ResponseReader()
    heads = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number for number in range(7)]
    heads += [b"\r\n" + heads[3], b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n"]
    for method in (b"GET", b"HEAD", b"GET"):
        for head in [*heads, *heads[:3], *heads]:
            for cut in (0, 1, len(head) - 1):
                assert reader.read(head[:cut], method) is None
            assert reader.read(head + b"rest", method) == read_response_head(head + b"rest", method)


@pytest.mark.parametrize(
    ("lines", "method", "length", "keep_alive", "to_the_end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"GET", 5, True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"HEAD", 0, True, False),
        (b"HTTP/1.1 204 No", b"GET", 0, True, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"GET", None, True, False),
        (b"HTTP/1.1 200 OK", b"GET", None, False, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", b"GET", 5, False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close", b"GET", 5, False, False),
        (b"HTTP/1.1 100 Continue", b"POST", 0, True, False),
    ],
)
def test_the_head_of_a_response_says_where_its_body_ends(
    lines: bytes, method: bytes, length: int | None, keep_alive: bool, to_the_end: bool
) -> None:
    found = read_response_head(lines + b"\r\n\r\nrest", method)
    assert found is not None
    head, rest = found
    assert (head.length, head.keep_alive, head.to_the_end, rest) == (length, keep_alive, to_the_end, b"rest")


@pytest.mark.parametrize(
    ("name", "value"), [(b"A B", b"x"), (b"A", b"x\r\nB: y"), (b"A", b"x\ny"), (b"", b"x"), (b"A", b"\0")]
)
def test_what_would_be_two_headers_is_not_sent(name: bytes, value: bytes) -> None:
    for write in (
        lambda: format_request_head(b"GET", b"/", [(name, value)]),
        lambda: format_response_head(200, [(name, value)]),
    ):
        with pytest.raises(LocalProtocolError):
            write()
    with pytest.raises(LocalProtocolError):
        format_request_head(b"GET", b"/ x", [])


# -- bodies ---------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(pieces: list[bytes], trailer: bytes, cuts: list[int]) -> None:
    wire = b"".join(map(chunk, pieces)) + b"0\r\n" + trailer + b"\r\n" + b"next request"
    reader, body, rest = BodyReader(None), b"", b""
    for size in [*cuts, len(wire)]:
        part, wire = wire[:size], wire[size:]
        if reader.done:
            rest += part
            continue
        got, after = reader.take(part)
        body += got
        rest += after
    assert reader.done
    assert body == b"".join(pieces)
    assert rest == b"next request"


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=30))
def test_any_bytes_are_chunks_or_refused(wire: bytes, cuts: list[int]) -> None:
    reader = BodyReader(None)
    try:
        for size in [*cuts, len(wire)]:
            part, wire = wire[:size], wire[size:]
            if part and not reader.done:
                reader.take(part)
    except BadHTTP:
        pass


@pytest.mark.parametrize(
    "wire",
    [b"x\r\n", b"-1\r\n", b"3\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\n\n", b"1" * 17 + b"\r\n", b"3;" + b"x" * 300],
)
def test_bad_chunks_are_refused(wire: bytes) -> None:
    with pytest.raises(BadHTTP):
        BodyReader(None).take(wire)


def test_a_body_of_known_length_is_handed_over_without_a_copy() -> None:
    reader, data = BodyReader(10), b"x" * 10
    assert reader.take(data)[0] is data
    assert reader.done


# -- a server and a client ------------------------------------------------------------------------

Handler = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    body = b""
    while piece := await exchange.receive():
        body += piece
    exchange.answer(200, [(b"X-Target", exchange.head.target)], body)


@asynccontextmanager
async def serving(
    handle: Handler, *, split: int | None = None
) -> AsyncIterator[tuple[MemoryTransport, HTTPConnections]]:
    ours, theirs = memory_pair(split=split)
    server = HTTPConnections(handle)
    async with anyio.create_task_group() as group:
        group.start_soon(server.watch)
        group.start_soon(server.serve, theirs)
        yield ours, server
        await ours.aclose()
        group.cancel_scope.cancel()


async def everything(wire: Transport) -> bytes:
    said = b""
    with anyio.fail_after(5):
        while data := await wire.receive():
            said += data
    return said


@pytest.mark.anyio
@pytest.mark.parametrize("split", [None, 1, 7])
async def test_one_connection_serves_many_requests(split: int | None) -> None:
    async with serving(echo, split=split) as (wire, server):
        client = HTTPConnection(wire, b"x")
        for number in range(5):
            body = b"y" * number * 100
            if number % 2:
                client.ask(b"POST", b"/%d" % number, length=len(body))
                await client.send(body)
            else:
                client.ask(b"POST", b"/%d" % number, chunked=True)
                await client.send(body)
            client.end()
            response = await client.response()
            assert response.status == 200
            assert response.headers[b"x-target"] == b"/%d" % number
            assert await response.body() == body
            assert client.usable
        assert server.open == 1


@pytest.mark.anyio
async def test_requests_sent_ahead_are_answered_in_order_and_in_one_write() -> None:
    writes = []
    async with serving(echo) as (wire, _):
        client = HTTPConnection(wire, b"x")
        for number in range(50):
            client.ask(b"POST", b"/%d" % number, body=b"%d" % number)
        receive = wire.receive

        async def counted(most: int = 0) -> bytes:
            writes.append(1)
            return await receive()

        wire.receive = counted  # type: ignore[method-assign]
        for number in range(50):
            assert await (await client.response()).body() == b"%d" % number
    assert len(writes) == 1


@pytest.mark.anyio
async def test_a_large_answer_streams_and_head_gives_its_length_only() -> None:
    async def large(exchange: Exchange) -> None:
        exchange.start(200, [], 3_000_000)
        if exchange.head.method != b"HEAD":
            for _ in range(3):
                await exchange.send(b"z" * 1_000_000)
        exchange.end()

    async with serving(large) as (wire, _):
        client = HTTPConnection(wire, b"x")
        client.ask(b"HEAD", b"/")
        response = await client.response()
        assert (response.headers[b"content-length"], await response.body()) == (b"3000000", b"")
        client.ask(b"GET", b"/")
        assert len(await (await client.response()).body(4_000_000)) == 3_000_000
        client.ask(b"GET", b"/")
        with pytest.raises(RemoteProtocolError, match="more than"):
            await (await client.response()).body(100)


@pytest.mark.anyio
async def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    async def broken(exchange: Exchange) -> None:
        exchange.start(200, [], 10)
        await exchange.send(b"12345")

    async with serving(broken) as (wire, _):
        client = HTTPConnection(wire, b"x")
        client.ask(b"GET", b"/")
        response = await client.response()
        assert await response.receive() == b"12345"
        with pytest.raises(ConnectionLost):
            await response.receive()
        assert not client.usable


@pytest.mark.anyio
async def test_a_client_that_waits_for_continue_gets_it_when_its_body_is_wanted() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    async def refuse(exchange: Exchange) -> None:
        exchange.answer(403)

    async with serving(echo) as (wire, _):
        await wire.send(head)
        assert await wire.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"abc")
        assert (await wire.receive()).endswith(b"\r\n\r\nabc")
    async with serving(refuse) as (wire, _):
        await wire.send(head)
        said = await everything(wire)
        assert said.startswith(b"HTTP/1.1 403 ")
        assert b"Connection: close" in said


@pytest.mark.anyio
async def test_a_body_that_nobody_read_does_not_become_the_next_request() -> None:
    async def early(exchange: Exchange) -> None:
        exchange.answer(200, [], exchange.head.target)

    async with serving(early) as (wire, _):
        client = HTTPConnection(wire, b"x")
        client.ask(b"POST", b"/1", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
        client.ask(b"POST", b"/2", length=3_000_000)
        await client.send(b"x" * 3_000_000)
        client.ask(b"GET", b"/3")
        for number in (b"/1", b"/2", b"/3"):
            assert await (await client.response()).body() == number


@pytest.mark.anyio
@pytest.mark.parametrize("said", [b"FOO\r\n\r\n", HEAD.replace(b"3", b"-3"), b"\xff" * 40_000])
async def test_what_is_no_http_is_answered_and_hung_up_on(said: bytes) -> None:
    async with serving(echo) as (wire, server):
        await wire.send(said)
        answer = await everything(wire)
        assert answer[:10] == b"HTTP/1.1 4"
        assert server.open == 0


@pytest.mark.anyio
async def test_http_1_0_gets_no_chunks() -> None:
    async def unknown(exchange: Exchange) -> None:
        exchange.start(200, [], None)
        await exchange.send(b"abc")
        exchange.end()

    async with serving(unknown) as (wire, _):
        await wire.send(b"GET / HTTP/1.0\r\n\r\n")
        said = await everything(wire)
        assert said.endswith(b"\r\n\r\nabc")
        assert b"chunked" not in said


# -- deadlines --------------------------------------------------------------------------------------


@pytest.fixture(params=["trio"])
def jumping(request: pytest.FixtureRequest) -> object:
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


def _run(work: Callable[[], Awaitable[None]], jumping: object) -> None:
    name, options = jumping  # type: ignore[misc]
    anyio.run(work, backend=name, backend_options=options)


def test_slow_heads_silence_and_slow_bodies_are_hung_up_on(jumping: object) -> None:
    async def work() -> None:
        for said, every, least, most in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 100, 2.0, 15, 17),  # one byte every two seconds
            (b"", 1.0, 15, 17),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0.0, 600, 602),  # and then nothing
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 2000, 0.5, 60, 130),
        ):
            async with serving(echo) as (wire, _):
                begun = anyio.current_time()
                async with anyio.create_task_group() as group:
                    group.start_soon(_drip, wire, said, every)
                    while await wire.receive():
                        pass
                    group.cancel_scope.cancel()
                assert least <= anyio.current_time() - begun <= most

    _run(work, jumping)


async def _drip(wire: Transport, said: bytes, every: float) -> None:
    try:
        if not every:
            await wire.send(said)
            return
        head, _, body = said.partition(b"\r\n\r\n")
        if body:
            await wire.send(head + b"\r\n\r\n")
        for byte in body or head:
            await wire.send(bytes((byte,)))
            await anyio.sleep(every)
    except ConnectionLost:
        pass


def test_a_client_that_is_queued_for_an_hour_is_not_hung_up_on(jumping: object) -> None:
    async def slow(exchange: Exchange) -> None:
        await anyio.sleep(3600)
        exchange.answer(200, [], b"at last")

    async def work() -> None:
        async with serving(slow) as (wire, _):
            client = HTTPConnection(wire, b"x", deadline=inf)
            client.ask(b"GET", b"/")
            assert await (await client.response()).body() == b"at last"

    _run(work, jumping)


def test_a_reader_that_does_not_read_is_hung_up_on(jumping: object) -> None:
    async def endless(exchange: Exchange) -> None:
        exchange.start(200, [], None)
        while True:
            await exchange.send(b"x" * 100_000)

    async def work() -> None:
        async with serving(endless) as (wire, server):
            await wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await anyio.sleep(60)
            assert server.open == 1
            await anyio.sleep(20)
            assert server.open == 0

    _run(work, jumping)


def test_a_server_that_is_silent_is_timed_out(jumping: object) -> None:
    async def work() -> None:
        ours, _theirs = memory_pair()
        client = HTTPConnection(ours, b"x", deadline=30)
        client.ask(b"GET", b"/")
        with pytest.raises(TimedOut):
            await client.response()
        assert not client.usable

    _run(work, jumping)


@pytest.mark.anyio
async def test_a_server_that_leaves_finishes_what_it_has_begun() -> None:
    go = anyio.Event()

    async def held(exchange: Exchange) -> None:
        await go.wait()
        exchange.answer(200, [], b"done")

    async with serving(held) as (wire, server):
        idle, theirs = memory_pair()
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, theirs)
            await wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await anyio.wait_all_tasks_blocked()
            assert server.busy == 1
            assert not await server.leave(0)
            assert await idle.receive() == b""
            go.set()
            said = await everything(wire)
            assert said.endswith(b"done")
            assert b"Connection: close" in said
            assert await server.leave(5)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        ["openssl", *words.split(), "-addext", names, "-keyout", str(path), "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(str(path) + ".crt").read_bytes())
    return path


def _contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=str(certificate))


@pytest.mark.anyio
async def test_tls_carries_what_the_transport_below_carries(certificate: Path) -> None:
    for_server, for_client = _contexts(certificate)
    below_client, below_server = memory_pair(split=1000)
    ends = {}

    async def accept() -> None:
        ends["server"] = await start_tls(below_server, for_server, server_side=True)

    async with anyio.create_task_group() as group:
        group.start_soon(accept)
        client = await start_tls(below_client, for_client, hostname="localhost")
    server = ends["server"]
    data = bytes(range(256)) * 4000

    async with anyio.create_task_group() as group:
        group.start_soon(client.send, data)
        got = b""
        while len(got) < len(data):
            got += await server.receive()
    assert got == data
    server.send_soon(b"last words")
    await server.aclose()
    assert await client.receive() == b"last words"
    assert await client.receive() == b""
    assert client.at_eof
    await client.aclose()


@pytest.mark.anyio
async def test_a_server_that_is_somebody_else_is_refused(certificate: Path) -> None:
    for_server, for_client = _contexts(certificate)
    below_client, below_server = memory_pair()

    async def accept() -> None:
        with pytest.raises((ConnectFailed, ConnectionLost)):
            await start_tls(below_server, for_server, server_side=True)

    async with anyio.create_task_group() as group:
        group.start_soon(accept)
        with pytest.raises(ConnectFailed, match="elsewhere"):
            await start_tls(below_client, for_client, hostname="elsewhere")


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_file_is_sent_as_fast_as_its_reader_reads_and_no_further_than_it_goes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "file").write_bytes(data)

    async with await listen_tcp() as listener:
        reader = await DialTCP(*listener.address)()  # type: ignore[misc]
        writer = await listener.accept()
        assert isinstance(writer, SendsFiles)
        got = b""

        async def send() -> None:
            with (tmp_path / "file").open("rb") as file:
                writer.send_soon(b"first")
                assert await writer.send_file(file.fileno(), 1000, len(data)) == len(data) - 1000
                await writer.send(b"last")
            await writer.aclose()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            while piece := await reader.receive(100_000):
                got += piece
        assert got == b"first" + data[1000:] + b"last"
        await reader.aclose()


@pytest.mark.anyio
async def test_a_reader_that_leaves_ends_the_sending_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 30_000_000)
    async with await listen_tcp() as listener:
        reader = await DialTCP(*listener.address)()  # type: ignore[misc]
        writer = await listener.accept()
        assert isinstance(writer, SendsFiles)
        descriptors = len(os.listdir("/proc/self/fd"))

        with (tmp_path / "file").open("rb") as file:

            async def send() -> None:
                with pytest.raises(ConnectionLost):
                    await writer.send_file(file.fileno(), 0, 30_000_000)

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await reader.receive()
                await reader.aclose()
        with pytest.raises(ConnectionLost):
            await writer.send(b"more")
        await writer.aclose()
        assert len(os.listdir("/proc/self/fd")) <= descriptors
