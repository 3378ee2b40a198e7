"""``annexpy serve`` in every way at once, as a process of its own: what it says, how it reloads, how it ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from places import Place, content_of, key_of
from served import Served, curl, serve

from annexpy.errors import ContentLocked
from annexpy.repo.repository import Repository
from annexpy.server.limits import PER_CLIENT

CONTENT = content_of(1, 5000)
KEY = key_of(CONTENT)


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    (tmp_path / "keys").touch(mode=0o600)
    return [Place.make(tmp_path / name, [CONTENT]) for name in ("lab", "field")]


@contextmanager
def speaking(path: Path) -> Iterator[tuple[socket.socket, str]]:
    """P2P on a unix socket: who is there."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(os.path.relpath(path))
        hello = sock.recv(100).decode().split()
        assert hello[0] == "AUTH-SUCCESS"
        sock.sendall(b"VERSION 4\n")
        assert sock.recv(100) == b"VERSION 4\n"
        yield sock, hello[1]


def ask(sock: socket.socket, line: str) -> str:
    sock.sendall(f"{line}\n".encode())
    return sock.recv(1000).decode().rstrip("\n")


def base(server: Served) -> str:
    """Of HTTP, wherever it stands among the lines."""
    found = re.search(r"http://127\.0\.0\.1:\d+", server.until("http://"))
    assert found
    return found[0]


def test_http_ssh_and_unix_sockets_are_served_by_one_process(tmp_path: Path, places: list[Place]) -> None:
    pytest.importorskip("asyncssh")
    lab, field = places
    arguments = [
        *("--ssh", "127.0.0.1:0", "--authorized-keys", str(tmp_path / "keys"), "--http", "127.0.0.1:0", "--wideopen"),
        *("--unix", f"lab={tmp_path}/one", "--unix", f"field={tmp_path}/two", str(lab.path), str(field.path)),
    ]
    with serve(*arguments) as server:
        server.until(f"unix:{tmp_path}/two")
        assert server.url.startswith("ssh://")
        for place, name in ((lab, "one"), (field, "two")):
            with speaking(tmp_path / name) as (sock, uuid):
                assert uuid == place.uuid
                assert ask(sock, f"CHECKPRESENT {KEY}") == "SUCCESS"
            assert '"present":true' in curl(
                *("-X", "POST", f"{base(server)}/git-annex/{place.uuid}/v4/checkpresent?key={KEY}&clientuuid=c")
            )
        assert server.stop() == 0
    assert not (tmp_path / "one").exists()


def test_the_same_stands_in_a_file_and_reloads(tmp_path: Path, places: list[Place]) -> None:
    lab, field = places
    config = tmp_path / "serve.toml"

    def write(http: str) -> None:
        config.write_text(
            'directories = ["lab", "field"]\nmay = "append-only"\n'
            f'[http]\nlisten = ["127.0.0.1:0"]\n{http}\n[unix]\nlisten = ["field=s"]\n'
        )

    write("wideopen = true")
    with serve("--config", str(config)) as server:
        server.until("unix:")
        presence = f"{base(server)}/git-annex/{lab.uuid}/v4/checkpresent?key={KEY}&clientuuid=c"
        removal = f"{base(server)}/git-annex/{lab.uuid}/v4/remove?key={KEY}&clientuuid=c"
        status = ("-o", "/dev/null", "-w", "%{http_code}", "-X", "POST")
        assert curl(*status, presence) == "200"
        assert curl(*status, removal) == "403"  # nobody may do more than what stands above all
        with speaking(tmp_path / "s") as (sock, uuid):
            assert uuid == field.uuid
            assert ask(sock, f"REMOVE {KEY}").startswith("ERROR this repository is append-only")

            write('authenv-http = true\n[[user]]\nname = "ann"\npassword = "new"\nmay = "read-only"')
            server.process.send_signal(signal.SIGHUP)
            server.until("reloaded")
            assert curl(*status, presence) == "401"
            assert curl(*status, "-u", "ann:new", presence) == "200"
            write("nonsense = true")
            server.process.send_signal(signal.SIGHUP)
            server.until("kept the old one")
            assert curl(*status, "-u", "ann:new", presence) == "200"
            assert ask(sock, f"CHECKPRESENT {KEY}") == "SUCCESS"  # whoever was there has noticed nothing
            config.write_text('directories = ["lab"]\n[http]\nlisten = ["127.0.0.1:0"]')
            server.process.send_signal(signal.SIGHUP)
            server.until("stay as they were")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--unix", "s", "--http", "127.0.0.1:0", "lab", "field"), "NAME=SOCKET"),
        (("--unix", "nobody=s", "--http", "127.0.0.1:0", "lab"), "NAME=SOCKET"),
        (("--stdio", "--unix", "s", "lab"), "nothing else"),
        (("--unix", "s", "lab", "field"), "one REMOTE"),
        (("--unix", "s", "--wideopen", "lab"), "--http"),
        (("--read-only", "--append-only", "--unix", "s", "lab"), "--append-only"),
        (("lab",), "--unix"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    cli, tmp_path: Path, places: list[Place], words, why: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("serve", *words)
    assert ran.code == 2
    assert why in ran.err


@pytest.mark.parametrize("more", [(), ("--http", "127.0.0.1:0", "--wideopen")], ids=["alone", "beside-http"])
def test_ctrl_c_lets_a_put_end_takes_nobody_new_and_lets_the_idle_go(
    tmp_path: Path, places: list[Place], more: tuple[str, ...]
) -> None:
    content = content_of(2, 100_000)
    path, key = tmp_path / "s", key_of(content)
    with serve(*more, "--unix", str(path), str(places[0].path)) as server:
        if more:
            server.until("unix:")
        with speaking(path) as (idle, _), speaking(path) as (busy, _):
            assert ask(busy, f"PUT f {key}") == "PUT-FROM 0"
            busy.sendall(b"DATA %d\n" % len(content) + content[:50_000])
            server.process.send_signal(signal.SIGINT)
            assert idle.recv(1) == b""
            with socket.socket(socket.AF_UNIX) as late:
                late.settimeout(30)
                late.connect(str(path))
                assert late.recv(1) == b""
            busy.sendall(content[50_000:] + b"VALID\n")
            assert busy.recv(100) == b"SUCCESS\n"
            assert busy.recv(1) == b""
            assert server.process.wait(30) == 0
    assert places[0].holds(key, content)
    assert places[0].uuid in places[0].whereis([key])[key]


@pytest.mark.parametrize("more", [(), ("--http", "127.0.0.1:0", "--wideopen")], ids=["alone", "beside-http"])
def test_ctrl_c_leaves_locks_of_clients_until_their_retention_is_over(
    tmp_path: Path, places: list[Place], more: tuple[str, ...]
) -> None:
    path = tmp_path / "s"
    with serve(*more, "--unix", str(path), str(places[0].path)) as server:
        if more:
            server.until("unix:")
        with speaking(path) as (sock, _):
            assert ask(sock, f"LOCKCONTENT {KEY}") == "SUCCESS"
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(2)  # somebody relies on it, and may be done in a moment
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(30) == 0
    with Repository.open(places[0].path) as repository, pytest.raises(ContentLocked, match="expires in"):
        repository.content.remove(KEY)


def test_the_end_over_http_answers_what_is_under_way_and_takes_nothing_new(places: list[Place]) -> None:
    content = content_of(3, 100_000)
    key, uuid = key_of(content), places[0].uuid
    with serve("--http", "127.0.0.1:0", "--wideopen", str(places[0].path)) as server:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        address = (host, int(port))
        line = f"POST /git-annex/{uuid}/v4/put?key={key}&clientuuid=c HTTP/1.1\r\nHost: a\r\n"
        size = f"Content-Length: {len(content)}\r\nX-git-annex-data-length: {len(content)}\r\n\r\n"
        with socket.create_connection(address, 30) as busy, socket.create_connection(address, 30) as idle:
            busy.sendall((line + size).encode() + content[:50_000])
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in idle.recv(1000)
            server.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            with socket.create_connection(address, 30) as late:
                late.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                with suppress(ConnectionResetError):
                    assert late.recv(1) == b""
            busy.sendall(content[50_000:])
            said = b""
            while more := busy.recv(1000):
                said += more
            assert b'"stored":true' in said
            assert server.process.wait(30) == 0
    assert places[0].holds(key, content)


def test_locks_of_a_client_count_together_whichever_way_it_comes(tmp_path: Path, places: list[Place]) -> None:
    pytest.importorskip("asyncssh")
    identity = tmp_path / "alice"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(identity)], check=True)
    (tmp_path / "keys").write_text(f'environment="ANNEXPY_NAME=alice" {identity.with_suffix(".pub").read_text()}')
    (tmp_path / "serve.toml").write_text(
        'directories = ["lab"]\n[http]\nlisten = ["127.0.0.1:0"]\nauthenv-http = true\n'
        '[ssh]\nlisten = ["127.0.0.1:0"]\nauthorized-keys = "keys"\nhost-key = "host"\n'
        '[[user]]\nname = "alice"\npassword = "a"\n'
    )
    with serve("--config", str(tmp_path / "serve.toml")) as server:
        host, _, port = base(server).removeprefix("http://").rpartition(":")
        over_http = http.client.HTTPConnection(host, int(port), timeout=60)
        path = f"/git-annex/{places[0].uuid}/v4/lockcontent?key={KEY}&clientuuid=client"
        authorization = "Basic " + b64encode(b"alice:a").decode()
        for number in range(PER_CLIENT + 1):
            over_http.request("POST", path, headers={"Authorization": authorization})
            assert (b'"locked":true' in over_http.getresponse().read()) == (number < PER_CLIENT)
        over_http.close()

        where = server.url.removeprefix("ssh://").rpartition(":")
        known = tmp_path / "known"
        known.write_text(f"[{where[0]}]:{where[2]} {(tmp_path / 'host.pub').read_text()}")

        def over_ssh(client: str) -> str:
            options = f"-F none -i {identity} -o IdentitiesOnly=yes -o UserKnownHostsFile={known} -o BatchMode=yes"
            command = f"git-annex-shell p2pstdio /lab {client} --uuid {places[0].uuid}"
            said = f"VERSION 1\nLOCKCONTENT {KEY}\nUNLOCKCONTENT\n".encode()
            argv = ["ssh", *options.split(), "-p", where[2], f"anybody@{where[0]}", command]
            done = subprocess.run(argv, input=said, capture_output=True, check=False, timeout=60)
            return done.stdout.decode().splitlines()[2]

        assert over_ssh("client") == "ERROR too many content locks are held for this client"
        assert over_ssh("other") == "SUCCESS"
