"""Secrets are planted wherever one can be given, and never come out again: not with --debug, in JSON or in errors."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

IN_URL, IN_CONFIG, IN_NETRC, OF_SERVER = (f"canary-{name}-5t1ffHgr" for name in ("url", "config", "netrc", "server"))
WRONG, TOKEN, CLOUD = "canary-wrong-x9Kq2", "canary0token0d41d8cd98f00b204", "canary-cloud-7Yh3w"
KEY = Key.parse(b"SHA256E-s5--2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.txt")
PEER = "import sys; sys.stdin.readline(); print('AUTH-FAILURE', flush=True); sys.stdin.read()"


def in_any_form(secret: str) -> Iterator[bytes]:
    """As it is, and as Basic would say it, of every user here."""
    yield secret.encode()
    for user in ("ann", "lab", ""):
        yield base64.b64encode(f"{user}:{secret}".encode()).rstrip(b"=")[len(user) + 6 : -2]


def annexpy(*words: str, cwd: Path, environment: Mapping[str, str], exits: int | None) -> bytes:
    argv = [sys.executable, "-m", "annexpy.cli.app", *words]
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, timeout=120, check=False)
    assert exits is None or done.returncode == exits, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """All that can be in an environment, and a network whose only peer believes nobody."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/git-annex-p2p-fake"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "{PEER}"\n')
    program.chmod(0o755)
    (tmp_path / ".netrc").write_text(f"machine localhost login ann password {IN_NETRC}\n")
    (tmp_path / ".netrc").chmod(0o600)
    return os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ANNEX_P2P_AUTHTOKEN": TOKEN,
        "AWS_SECRET_ACCESS_KEY": CLOUD,
        **{f"GIT_ANNEX_P2PHTTP_PASSWORD_u{n}": secret for n, secret in enumerate((IN_URL, IN_CONFIG, OF_SERVER))},
        "GIT_ANNEX_P2PHTTP_PASSWORD_ann": IN_NETRC,
    }


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_secret_comes_out_again(tmp_path: Path, surroundings: dict[str, str], port: int) -> None:
    with Repository.init(tmp_path / "lab.git", bare=True) as lab:
        uuid = lab.uuid
    Repository.init(tmp_path / "here").close()
    (tmp_path / "data.txt").write_text("hello")
    said, at = [], f"127.0.0.1:{port}/git-annex/{uuid}"
    serving = [
        sys.executable,
        "-m",
        "annexpy.cli.app",
        "--debug",
        "serve",
        "--http",
        f"127.0.0.1:{port}",
        "--authenv-http",
    ]
    with (
        (tmp_path / "server.log").open("wb") as log,
        subprocess.Popen([*serving, "lab.git"], cwd=tmp_path, env=surroundings, stdout=log, stderr=log) as server,
    ):
        try:
            for _ in range(1200):
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)

            def run(*words: str, exits: int | None = 0) -> bytes:
                said.append(annexpy(*words, cwd=tmp_path / "here", environment=surroundings, exits=exits))
                return said[-1]

            url = f"annex+http://u0:{IN_URL}@{at}"
            assert b"ok" in run("--debug", "put", url, "../data.txt")
            assert b"true" in run("--debug", "--json", "check", url, str(KEY))
            for name, address in (("config", f"u1:{IN_CONFIG}@{at}"), ("netrc", at.replace("127.0.0.1", "localhost"))):
                subprocess.run(
                    ["git", "config", f"remote.{name}.url", f"annex+http://{address}"],
                    cwd=tmp_path / "here",
                    check=True,
                )
            assert b"ok" in run("get", "config", str(KEY), "-o", "again.txt")
            run("--debug", "check", "config", str(KEY))
            run("--debug", "check", "netrc", str(KEY))
            wrong = f"annex+http://u0:{WRONG}@"
            assert run("--debug", "check", wrong + at, str(KEY), exits=None)
            assert run("--debug", "check", f"{wrong}127.0.0.1:1/git-annex/{uuid}", str(KEY), exits=None)
            assert run("--debug", "check", wrong + "127.0.0.1:x/", str(KEY), exits=None)
            assert b"AUTH" in run("--debug", "check", "p2p-annex::fake:somewhere", str(KEY), exits=None)
            run("--debug", "--json", "info", exits=None)
            run("--debug", "doctor", ".", exits=None)
        finally:
            server.terminate()
            server.wait(30)
    said.append((tmp_path / "server.log").read_bytes())
    assert len(said[-1]) > 200  # --debug says something
    everything = b"\n".join(said)

    for secret in (IN_URL, IN_CONFIG, IN_NETRC, OF_SERVER, WRONG, TOKEN, CLOUD):
        for form in in_any_form(secret):
            at_byte = everything.find(form)
            assert at_byte < 0, (secret, everything[max(0, at_byte - 200) : at_byte + 60])
    for file in (tmp_path / "lab.git").rglob("*"):
        if file.is_file():
            assert b"canary" not in file.read_bytes(), file
