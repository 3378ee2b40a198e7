"""The table of hostile input (fact sheet reliability, section 1.3), row by row, against a server that runs."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from annexpy.repo.repository import Repository

pytestmark = pytest.mark.slow

ABSENT = b"SHA256E-s1--" + b"0" * 64 + b".txt"
BODY = b"hello"
DIGEST = hashlib.sha256(BODY).hexdigest().encode()
KEY = b"SHA256E-s5--" + DIGEST + b".txt"
SECONDS = 60.0
REFUSED, ABSENCE = rb"ERROR .*", rb"FAILURE"


@dataclass(frozen=True)
class Server:
    """Where it is, what it shows, and the folder around that."""

    unix: Path
    port: int
    uuid: str
    folder: Path


def listened_on(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with Repository.init(folder / "lab" / "it.git", bare=True) as made:
        uuid = str(made.uuid)
        made.config.set("annexpy.verifiable", "true")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = ["serve", "--unix", str(folder / "s"), "--http", f"127.0.0.1:{port}", "--wideopen", "."]
    with subprocess.Popen(
        [sys.executable, "-m", "annexpy.cli.app", *words],
        cwd=folder / "lab" / "it.git",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            end = time.monotonic() + SECONDS
            while not ((folder / "s").exists() and listened_on(port)):
                assert running.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            yield Server(folder / "s", port, uuid, folder)
        finally:
            running.terminate()
            running.wait(SECONDS)


class Session:
    """Lines and bytes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(server.unix))
        self.stream = self.socket.makefile("rb")
        assert self.hear() == b"AUTH-SUCCESS " + server.uuid.encode()

    def hear(self) -> bytes | None:
        line = self.stream.readline()
        return line.removesuffix(b"\n") if line else None

    def ask(self, line: bytes) -> bytes | None:
        self.socket.sendall(line + b"\n")
        return self.hear()

    def lives(self) -> bool:
        return self.ask(b"CHECKPRESENT " + ABSENT) == b"FAILURE"

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def session(server: Server) -> Iterator[Session]:
    made = Session(server)
    assert made.ask(b"VERSION 4") == b"VERSION 4"
    yield made
    made.close()


def worm(name: bytes) -> bytes:
    return b"WORM-s5-m1--" + name


LINES = [
    ("a path as backend", b"PUT  ../../x-s5--foo", REFUSED),
    ("a file as backend", b"PUT  /etc/passwd-s5--foo", REFUSED),
    ("NUL in a key", b"PUT  " + worm(b"a\0b"), REFUSED),
    ("NUL in a key that is looked for", b"CHECKPRESENT " + worm(b"a\0b"), REFUSED + rb"|" + ABSENCE),
    ("ESC in a key", b"PUT  " + worm(b"a\x1b[31mb"), REFUSED),
    ("TAB in a key", b"PUT  " + worm(b"a\tb"), REFUSED),
    ("CR in a key", b"PUT  " + worm(b"a\rb"), REFUSED),
    ("DEL in a key", b"PUT  " + worm(b"a\x7fb"), REFUSED),
    ("CR at the end", b"CHECKPRESENT " + ABSENT + b"\r", ABSENCE),
    ("content that nobody can verify", b"PUT  " + worm(b"x"), REFUSED),
    ("an empty name", b"PUT  WORM-s5-m1--", REFUSED),
    ("a short digest", b"PUT  SHA256-s5--abcd", REFUSED),
    ("a digest in upper case", b"PUT  SHA256-s5--" + DIGEST.upper(), REFUSED),
    ("a digest that is no hex", b"PUT  SHA256-s5--" + b"z" * 64, REFUSED),
    ("a negative size", b"PUT  WORM-s-5-m1--x", REFUSED),
    ("a size twice", b"PUT  WORM-s5-s5--x", REFUSED),
    ("an unknown field", b"PUT  WORM-q5--x", REFUSED),
    ("no backend", b"PUT  --x", REFUSED),
    ("no name", b"PUT  WORM-s5", REFUSED),
    ("a size beyond everything", b"PUT  WORM-s99999999999999999999999999-m1--x", REFUSED + rb"|" + ABSENCE),
    ("a long extension", b"PUT  SHA256E-s5--" + DIGEST + b"." + b"x" * 300, REFUSED),
    ("a name longer than a file's", b"PUT  " + worm(b"%" * 200), REFUSED),
    ("an unknown backend", b"PUT  FOO-s5--x", REFUSED),
    ("a backend in lower case", b"PUT  sha256-s5--" + DIGEST, REFUSED),
    ("a program as backend", b"PUT  XFOO-s5--x", REFUSED),
    ("version -1", b"VERSION -1", REFUSED),
    ("version 99", b"VERSION 99", rb"VERSION 4"),
    ("GET from -5", b"GET -5  " + KEY, REFUSED),
    ("a removal before 0", b"REMOVE-BEFORE 0 " + ABSENT, rb"SUCCESS"),  # of what is not there, as git-annex says
    ("a line of 32767", b"CHECKPRESENT " + worm(b"x" * (32767 - 25)), REFUSED + rb"|" + ABSENCE),
]


@pytest.mark.parametrize(("line", "answer"), [row[1:] for row in LINES], ids=[row[0] for row in LINES])
def test_it_is_refused_in_words_and_the_session_lives(session: Session, line: bytes, answer: bytes) -> None:
    said = session.ask(line)

    assert said is not None, "it hung up"
    assert re.fullmatch(answer, said), said
    assert session.lives()


@pytest.mark.parametrize("line", [b"x" * 32768, b"CHECKPRESENT " + b"x" * 100_000])
def test_a_longer_line_ends_that_session_and_no_other(server: Server, session: Session, line: bytes) -> None:
    other = Session(server)
    try:
        said = other.ask(line)
    except (BrokenPipeError, ConnectionResetError):
        said = None
    other.close()

    assert said is None or said.startswith(b"ERROR")
    assert session.lives()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"DATA -5\n", REFUSED),
        (b"DATA 99999999999999999999\n", REFUSED + rb"|FAILURE"),
        (b"DATA 6\nhello!VALID\n", REFUSED + rb"|FAILURE"),
        (b"DATA 4\nhellVALID\n", rb"FAILURE"),
        (b"DATA 5\nHELLOVALID\n", rb"FAILURE"),
        (b"DATA 5\nHELLOINVALID\n", rb"FAILURE"),
        (b"DATA 0\nINVALID\n", rb"FAILURE"),
    ],
)
def test_wrong_data_is_no_content(server: Server, said: bytes, answer: bytes) -> None:
    session = Session(server)
    assert session.ask(b"VERSION 4") == b"VERSION 4"
    assert re.fullmatch(rb"PUT-FROM 0", session.ask(b"PUT  " + KEY) or b"")
    session.socket.sendall(said)
    heard = session.hear()
    session.close()

    assert heard is None or re.fullmatch(answer, heard), heard
    again = Session(server)
    assert again.ask(b"CHECKPRESENT " + KEY) == b"FAILURE"
    again.close()


def test_invalid_without_a_hash_leaves_nothing(session: Session) -> None:
    key = worm(b"changing")
    if (session.ask(b"PUT  " + key) or b"").startswith(b"PUT-FROM"):
        session.socket.sendall(b"DATA 5\nhelloINVALID\n")
        assert session.hear() == b"FAILURE"
    assert session.ask(b"CHECKPRESENT " + key) == b"FAILURE"


def test_a_removal_more_than_a_quarter_of_an_hour_ahead_is_refused(session: Session) -> None:
    other = b"sixteen minutes ahead"
    key = b"SHA256-s%d--%s" % (len(other), hashlib.sha256(other).hexdigest().encode())
    assert session.ask(b"PUT  " + key) == b"PUT-FROM 0"
    session.socket.sendall(b"DATA %d\n%sVALID\n" % (len(other), other))
    assert session.hear() == b"SUCCESS"
    now = int((session.ask(b"GETTIMESTAMP") or b"").removeprefix(b"TIMESTAMP "))

    for moment in (0, now, now + 16 * 60, 2**63, 10**30):
        assert re.fullmatch(REFUSED + rb"|FAILURE", session.ask(b"REMOVE-BEFORE %d %s" % (moment, key)) or b""), moment
        assert session.ask(b"CHECKPRESENT " + key) == b"SUCCESS"


def test_nothing_of_all_that_stands_outside(server: Server, session: Session) -> None:
    for name in (b"/", b"../../x", b"/etc/passwd", b"a/../../../x"):
        if (session.ask(b"PUT ../x " + worm(name)) or b"").startswith(b"PUT-FROM"):
            session.socket.sendall(b"DATA 5\nhelloVALID\n")
            assert session.hear() in (b"SUCCESS", b"FAILURE")
    assert sorted(os.listdir(server.folder)) == ["lab", "s"]
    assert os.listdir(server.folder / "lab") == ["it.git"]


# -- HTTP -------------------------------------------------------------------------------------------------------------


def asked(server: Server, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.request(method, f"/git-annex/{path}", headers=headers or {})
    answer = connection.getresponse()
    said = answer.status, answer.read()
    connection.close()
    return said


@pytest.mark.parametrize(
    "words",
    [
        "checkpresent?key=WORM-s5-m1--a%0AREMOVE%20x&clientuuid=c",
        "checkpresent?key=WORM-s5-m1--a%00b&clientuuid=c",
        "remove-before?key=WORM-s5-m1--a%0Ab&clientuuid=c&timestamp=1",
        "put?key=../../x-s5--foo&clientuuid=c",
        "put?key=WORM-s5-m1--a%1Bb&clientuuid=c",
        "put?key=SHA256-s5--abcd&clientuuid=c",
        "checkpresent?clientuuid=c",
        f"remove-before?key={ABSENT.decode()}&clientuuid=c&timestamp=abc",
    ],
)
def test_over_http_it_is_answered_by_400(server: Server, words: str) -> None:
    headers = {"X-git-annex-data-length": "5"}
    assert asked(server, "POST", f"{server.uuid}/v4/{words}", headers)[0] == 400


@pytest.mark.parametrize("length", ["-5", "99999999999999999999999999", "abc", "1e3", ""])
def test_a_wrong_length_over_http_is_answered_by_400(server: Server, length: str) -> None:
    path = f"{server.uuid}/v4/put?key={KEY.decode()}&clientuuid=c"
    assert asked(server, "POST", path, {"X-git-annex-data-length": length})[0] == 400


def test_whether_a_repository_is_there_cannot_be_told_from_an_unknown_version(server: Server) -> None:
    words = f"checkpresent?key={ABSENT.decode()}&clientuuid=c"
    stranger = "99999999-9999-4999-8999-999999999999"

    answers = {asked(server, "POST", path + words) for path in (f"{stranger}/v4/", f"{server.uuid}/v99/")}

    assert len(answers) == 1
    assert next(iter(answers))[0] == 404


def test_a_head_of_two_hundred_thousand_bytes_is_not_read_to_its_end(server: Server) -> None:
    try:
        status = asked(server, "POST", f"{server.uuid}/v4/gettimestamp?clientuuid=c", {"X": "x" * 200_000})[0]
    except (ConnectionError, http.client.HTTPException):
        return
    assert 400 <= status < 500


def test_a_client_that_is_a_path_is_no_client(server: Server) -> None:
    words = f"{server.uuid}/v4/checkpresent?key={ABSENT.decode()}&clientuuid=../../evil"
    assert asked(server, "POST", words)[0] == 400
