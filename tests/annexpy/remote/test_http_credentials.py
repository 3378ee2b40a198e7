"""Where credentials come from, what becomes of them, and how the contents of a git repository are found."""

from __future__ import annotations

import base64
import ssl
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from http_peers import Asked, answer, json, routes_for, scripted
from remote_contract import CONTENT, KEY, A, B, read

from annexpy.errors import AccessDenied, AuthFailed, ConnectFailed, InvalidInput, PeerError, Refused, UnknownUUID
from annexpy.policy.routes import Neighbour, Route
from annexpy.remote.address import resolve
from annexpy.remote.connect import connect, connect_route
from annexpy.remote.http import HTTPRemote
from annexpy.remote.http_line import ServerFailed
from annexpy.remote.http_url import parse_annex_url, parse_http_url
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.repository import Repository
from annexpy.transport.http_dial import DialHTTP, Proxy, proxy_for
from annexpy.transport.sockets import listen_tcp

PRESENT = json('{"present":true}')
WHO = answer(401, b"", ("WWW-Authenticate", 'Basic realm="git-annex"'))


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A git credential helper that gives *password*, and the file in which it notes what it was told."""

    def make(password: str) -> Path:
        said = tmp_path / "said"
        script = tmp_path / "helper"
        script.write_text(
            f'#!/bin/sh\n{{ echo "== $1"; cat; }} >> {said}\n'
            f'[ "$1" = get ] && echo username=ann && echo "password=$(cat {tmp_path}/password)"\nexit 0\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "password").write_text(password)
        (tmp_path / "gitconfig").write_text(f'[credential]\n\thelper = "{script}"\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("GIT_ASKPASS", raising=False)
        monkeypatch.delenv("SSH_ASKPASS", raising=False)
        return said

    return make


def expecting(*passwords: str) -> Callable[[Asked], bytes]:
    good = {basic("ann", password) for password in passwords}
    return lambda asked: PRESENT if asked.head.headers.get(b"authorization") in good else WHO


pytestmark = pytest.mark.anyio


async def test_git_is_asked_once_and_told_that_it_was_right(helper: Callable[[str], Path], tmp_path: Path) -> None:
    said = helper("secret")
    async with scripted(expecting("secret")) as (remote, asked):
        for _ in range(3):
            assert await remote.check_present(KEY)
        assert len(asked) == 4
    words = [line for line in said.read_text().splitlines() if line.startswith("==")]
    assert words == ["== get", "== store"]
    assert "host=far:9417" in said.read_text()


async def test_a_wrong_password_is_rejected_once(helper: Callable[[str], Path]) -> None:
    said = helper("wrong")
    async with scripted(expecting("secret")) as (remote, _):
        for _ in range(3):
            with pytest.raises(AuthFailed):
                await remote.check_present(KEY)
    words = [line for line in said.read_text().splitlines() if line.startswith("==")]
    assert words == ["== get", "== erase"]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_no_other_answer_costs_a_stored_password(helper: Callable[[str], Path], status: int) -> None:
    said = helper("secret")
    good = expecting("secret")
    bad = False
    async with scripted(lambda asked: answer(status) if bad else good(asked)) as (remote, _):
        assert await remote.check_present(KEY)
        bad = True
        with pytest.raises((AccessDenied, UnknownUUID, ServerFailed)):
            await remote.check_present(KEY)
    assert "== erase" not in said.read_text()


async def test_a_password_that_git_has_renewed_is_used_in_the_middle_of_a_job(
    helper: Callable[[str], Path], tmp_path: Path
) -> None:
    said = helper("old")
    good = {"old"}
    async with scripted(lambda asked: expecting(*good)(asked)) as (remote, _):
        assert await remote.check_present(KEY)
        (tmp_path / "password").write_text("new")
        good.clear()
        good.add("new")
        assert await remote.check_present_many([KEY] * 5) == [True] * 5
    words = [line for line in said.read_text().splitlines() if line.startswith("==")]
    assert words == ["== get", "== store", "== erase", "== get", "== store"]


async def test_the_netrc_file_is_read(helper: Callable[[str], Path], tmp_path: Path) -> None:
    said = helper("unused")
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine far login ann password secret\n")
    netrc.chmod(0o600)
    async with scripted(expecting("secret")) as (remote, _):
        assert await remote.check_present(KEY)
    assert not said.exists()


async def test_a_callback_that_gives_no_header_is_refused() -> None:
    async with scripted(lambda asked: PRESENT, authorize=lambda again: "Bearer a\r\nX: y") as (remote, asked):
        with pytest.raises(InvalidInput):
            await remote.check_present(KEY)
        assert not asked


# -- where the contents are -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "uuid"),
    [
        ("annex+http://h", "http://h:9417/git-annex/", None),
        ("annex+http://h/git-annex/", "http://h:9417/git-annex/", None),
        (f"annex+https://h:443/git-annex/{A}", "https://h/git-annex/", A),
        (f"annex+http://[::1]:80/git-annex/{A}/", "http://[::1]/git-annex/", A),
        ("annex+http://h:8/lab/", "http://h:8/lab/git-annex/", None),
        ("annex+http://h:8/\udcff/", "http://h:8/%FF/git-annex/", None),
        (f"ANNEX+HTTP://u:p@h:8/a%20b/git-annex/{A}", "http://h:8/a%20b/git-annex/", A),
    ],
)
def test_urls_of_contents_are_read_as_git_annex_reads_them(url: str, shown: str, uuid: str | None) -> None:
    place = parse_annex_url(url)
    assert (str(place), place.uuid) == (shown, uuid)


@pytest.mark.parametrize(
    "url",
    [
        "annex+http://",
        "annex+ftp://h/",
        "http://h/",
        "annex+http://h/git-annex/..",
        "annex+http://h:x/",
        "annex+http://h/?q",
    ],
)
def test_what_is_no_url_of_contents_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        parse_annex_url(url)


def test_no_error_shows_a_password() -> None:
    for url in ("annex+http://ann:secret@h:x/", "annex+http://ann:secret@h/?q", "http://ann:secret@h:x/"):
        with pytest.raises(InvalidInput) as caught:
            (parse_annex_url if url.startswith("annex") else parse_http_url)(url)
        assert "secret" not in str(caught.value)


def config(text: str) -> Callable[[Asked], bytes]:
    return lambda asked: answer(200, text.encode()) if asked.verb == "config" else PRESENT


async def test_a_git_repository_says_where_its_contents_are() -> None:
    script = config(f"[annex]\n\tuuid = {A}\n\turl = annex+http://far/x/\n")
    async with scripted(script, uuid=None, url="http://far:9417/x.git") as (remote, asked):
        with pytest.raises(UnknownUUID):
            _ = remote.uuid
        assert await remote.connect() == A
        assert [one.head.target.split(b"?")[0] for one in asked] == [
            b"/x.git/config",
            f"/x/git-annex/{A}/v4/checkpresent".encode(),
        ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (config(f"[annex]\n\tuuid = {B}\n\turl = annex+http://far/\n"), UnknownUUID),
        (config(f"[annex]\n\tuuid = {A}\n"), ConnectFailed),
        (config("[core]\n"), UnknownUUID),
        (config("<html>"), ConnectFailed),
        (lambda asked: answer(404), ConnectFailed),
        (lambda asked: answer(301, b"", ("Location", "https://far/")), PeerError),
    ],
)
async def test_a_git_repository_that_does_not_say_it_is_told_apart(
    script: Callable[[Asked], bytes], error: type[Exception]
) -> None:
    async with scripted(script, uuid=A, url="http://far/x.git") as (remote, _):
        with pytest.raises(error):
            await remote.connect()


def test_a_url_that_somebody_set_wins_over_what_the_server_says(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "here") as repository:
        repository.config.set("remote.lab.url", "https://git.example/lab.git")
        assert resolve("lab", repository).http == "https://git.example/lab.git"
        repository.config.set("remote.lab.annexUrl", "annex+https://mine:444/")
        repository.config.set("remote.lab.annex-uuid", A)
        found = resolve("lab", repository)
        assert (found.http, found.uuid) == ("annex+https://mine:444/", A)
        remote = connect("lab", repository=repository)
        assert isinstance(remote, HTTPRemote)
        assert remote.uuid == A
        # annexUrl is for contents alone; git still goes to the url
        assert repository.config.get("remote.lab.url") == "https://git.example/lab.git"


async def test_a_url_without_a_uuid_says_what_is_missing() -> None:
    remote = connect("annex+http://127.0.0.1:1/")
    with pytest.raises(UnknownUUID, match="Put its UUID"):
        await remote.connect()


def test_a_remote_pickles_as_its_address() -> None:
    import pickle

    remote = HTTPRemote(f"annex+http://u:secret@far/git-annex/{A}", name="far")
    again = pickle.loads(pickle.dumps(remote))
    assert (again.uuid, again.name, repr(again)) == (A, "far", repr(remote))


# -- ways -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "tls", "expected"),
    [
        ({}, True, None),
        ({"HTTPS_PROXY": "http://p:3128"}, True, Proxy("p", 3128)),
        ({"https_proxy": "p:3128"}, True, Proxy("p", 3128)),
        ({"HTTPS_PROXY": "http://p:3128"}, False, None),
        ({"HTTP_PROXY": "http://p:3128"}, False, None),
        ({"http_proxy": "http://a:b@p"}, False, Proxy("p", 1080, "Basic YTpi")),
        ({"ALL_PROXY": "http://p:1"}, False, Proxy("p", 1)),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, False, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "x, .example.org"}, True, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "example.org:80"}, True, Proxy("p", 1)),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "ample.org"}, True, Proxy("p", 1)),
    ],
)
def test_the_environment_names_a_proxy_as_for_git(environ: dict[str, str], tls: bool, expected: Proxy | None) -> None:
    assert proxy_for("h.example.org", 443, tls=tls, environ=environ) == expected


def test_a_proxy_of_another_kind_is_refused() -> None:
    with pytest.raises(Refused):
        proxy_for("h", 443, tls=True, environ={"HTTPS_PROXY": "socks5://p:1"})


async def test_a_proxy_is_asked_for_the_whole_url_and_for_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def proxy(transport) -> None:
        heads.append(await transport.receive())
        if heads[-1].startswith(b"CONNECT"):
            await transport.send(answer(407 if b"good.example" not in heads[-1] else 403))
        else:
            await transport.send(PRESENT)

    async with await listen_tcp() as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, proxy)
        assert isinstance(listener.address, tuple)
        for name in ("http_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://me:pw@127.0.0.1:{listener.address[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        remote = HTTPRemote(f"annex+http://far.example/git-annex/{A}")
        assert await remote.check_present(KEY)
        await remote.aclose()
        for host, error in (("bad.example", AuthFailed), ("good.example", ConnectFailed)):
            with pytest.raises(error):
                await DialHTTP(host, 443, tls=True, proxy=proxy_for(host, 443, tls=True))()
        tasks.cancel_scope.cancel()
    assert heads[0].startswith(f"POST http://far.example:9417/git-annex/{A}/v4/checkpresent?".encode())
    assert heads[1].startswith(b"CONNECT bad.example:443 HTTP/1.1\r\n")
    assert all(b"Proxy-Authorization: Basic bWU6cHc=\r\n" in head for head in heads)


async def test_a_server_is_trusted_for_its_certificate_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            "openssl",
            *words.split(),
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            str(key),
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "GIT_SSL_NO_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    memory = MemoryRemote(A, objects={KEY: CONTENT})
    routes = routes_for(memory)
    async with await listen_tcp() as listener, routes, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(routes.serve, listener, tls=context))
        port = listener.address[1]
        for host, cafile, verify, works in (
            ("localhost", str(certificate), "", True),
            ("127.0.0.1", str(certificate), "", False),
            ("localhost", "", "", False),
            ("127.0.0.1", "", "1", True),
        ):
            monkeypatch.setenv("GIT_SSL_NO_VERIFY", verify)
            if cafile:
                monkeypatch.setenv("GIT_SSL_CAINFO", cafile)
            else:
                monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
            remote = HTTPRemote(f"annex+https://{host}:{port}/git-annex/{A}")
            if works:
                assert await read(remote, KEY) == CONTENT
            else:
                with pytest.raises(ConnectFailed, match=r"certificate|verify"):
                    await remote.check_present(KEY)
            await remote.aclose()
        tasks.cancel_scope.cancel()


async def test_what_lies_behind_a_gateway_is_asked_for_at_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    routes = routes_for(MemoryRemote(B, objects={KEY: CONTENT}))  # B is behind A, whom nobody asks
    async with await listen_tcp() as listener, routes, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(routes.serve, listener))
        with Repository.init(tmp_path / "here") as repository:
            repository.config.set("remote.gw.url", "https://git.example/gw.git")
            repository.config.set("remote.gw.annexUrl", f"annex+http://127.0.0.1:{listener.address[1]}/")
            repository.config.set("remote.gw.annex-uuid", A)
            route = Route("gw-node", Neighbour("gw", A, 200), B, 1)
            remote = connect_route(route, repository)
            assert remote.uuid == B
            assert await read(remote, KEY) == CONTENT
            await remote.aclose()
        tasks.cancel_scope.cancel()


async def test_the_repository_at_the_url_has_to_be_the_gateway() -> None:
    script = config(f"[annex]\n\tuuid = {A}\n\turl = annex+http://far/x/\n")
    async with scripted(script, uuid=B, gateway=A, url="http://far:9417/x.git") as (remote, asked):
        assert await remote.connect() == B
        assert f"/x/git-annex/{B}/".encode() in asked[-1].head.target
    async with scripted(script, uuid=A, gateway=B, url="http://far:9417/x.git") as (remote, _):
        with pytest.raises(UnknownUUID):
            await remote.connect()
