"""The TOML file of ``annexpy serve --config``."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from annexpy.cli.serve_config import read_config
from annexpy.cli.serve_options import P2POptions
from annexpy.server.auth import APPEND_ONLY, EVERYTHING, READ_ONLY, Verdict
from annexpy.server.limits import ServerMode
from annexpy.uuids import UUID

U = UUID("11111111-1111-4111-8111-111111111111")


def read(folder: Path, text: str):
    path = folder / "serve.toml"
    path.write_text(text)
    return read_config(str(path))


def test_everything_can_be_said_in_it(tmp_path: Path) -> None:
    asked = read(
        tmp_path,
        f"""
        directories = ["lab.git", "/srv/annex"]
        may = "append-only"
        uuids = ["{U}"]
        [http]
        listen = ["127.0.0.1:9417", "unix:s"]
        unauth-readonly = true
        url = "https://example.org/"
        certfile = "cert.pem"
        [[user]]
        name = "alice"
        password = "secret"
        may = "append-only"
        [[user]]
        name = "robot"
        token = "t"
        repositories = ["{U}"]
        uuids = []
        may = "read-only"
        [unix]
        listen = ["lab=run/lab.sock", "/tmp/x=y"]
        [p2p]
        enabled = true
        [ssh]
        listen = [":2222"]
        authorized-keys = "keys"
        host-key = "/etc/host"
        """,
    )
    http, ssh = asked.http, asked.ssh
    assert asked.directories == (str(tmp_path / "lab.git"), "/srv/annex")
    assert http.places == ("127.0.0.1:9417", "unix:s")
    assert (http.unauth_readonly, http.wideopen) == (True, False)
    assert (http.url, http.certfile) == ("https://example.org/", str(tmp_path / "cert.pem"))
    assert (ssh.places, ssh.authorized_keys, ssh.host_key) == ((":2222",), str(tmp_path / "keys"), "/etc/host")
    alice, robot = http.users
    assert (alice.name, alice.token, alice.grants) == ("alice", False, {None: APPEND_ONLY})
    assert (robot.token, robot.grants) == (True, {U: READ_ONLY})
    assert (alice.uuids, robot.uuids) == (None, frozenset())
    mine = frozenset((U,))
    assert asked.p2p == P2POptions((f"lab={tmp_path}/run/lab.sock", "/tmp/x=y"), networks=True, uuids=mine)
    assert (asked.mode, http.uuids) == (ServerMode.APPEND_ONLY, mine)
    visitor = http.access().visitor(b"Bearer t", secure=True)
    assert visitor.verdict(U, READ_ONLY) is Verdict.ALLOWED
    assert visitor.verdict(U, EVERYTHING) is Verdict.FORBIDDEN


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing to listen on"),
        ("x = 1", "x = 1"),
        ("[http]\nlisten = ['x']\nunauth_readonly = true", "unauth_readonly"),
        ("[http]\nlisten = 'x'", "http.listen"),
        ("[http]\nlisten = [1]", "http.listen"),
        ("[http]\nwideopen = 'yes'", "http.wideopen"),
        ("[ssh]\nlisten = ['x']\nport = 1", "ssh.port"),
        ("[[user]]\nname = 'a'\npassword = 'p'\nmay = 'read'", "may"),
        ("[[user]]\nname = 'a'", "secret"),
        ("[[user]]\nname = 'a'\npassword = 'p'\nrole = 'x'", "user.role"),
        ("[[user]]\nname = 'a'\npassword = 'p'\nmay = ['read', 'Write']", "Write"),
        ("may = 'everything'", "may"),
        ("uuids = ['a b']\n[p2p]\nenabled = true", "a b"),
        ("[p2p]\nenabled = 1", "p2p.enabled"),
        ("[unix]\nlisten = ['s']\nmode = '0666'", "unix.mode"),
        ("[user]\nname = 'a'", "user"),
        ("[http", "serve.toml"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        read(tmp_path, text)
    assert why in caught.value.message


def test_without_the_file_there_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="No such file"):
        read_config(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "raw", [b"a = \xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 100_000], ids=["no text", "a huge number", "too deep"]
)
def test_what_is_no_toml_is_said_to_be_none(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "serve.toml"
    path.write_bytes(raw)

    with pytest.raises(click.ClickException, match=r"serve\.toml"):
        read_config(str(path))
