"""Who may do what on a server of tenants: every route of the HTTP API × everybody who can ask.

What should come of each is said here once more, by itself; a route without a line here fails.
"""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import asyncssh
import pytest

from glimmer_store.api_mount import BASE
from glimmer_store.job_api import JOB_ROUTES
from glimmer_store.tenant import Access
from glimmer_store.tenant_api import ROUTES
from glimmer_store.tenants import Tenants

WRONG = "canary-of-a-secret-that-was-never-given"

# -- who ------------------------------------------------------------------------------------------

OF_ALICE = {"reader": Access.READ_ONLY, "adder": Access.APPEND_ONLY, "writer": Access.WRITE}
PEOPLE = ["nobody", "wrong", "bob", *OF_ALICE, "operator"]
LEVEL = {"reader": 1, "adder": 2, "writer": 3, "operator": 4}

# -- what it takes: 1 read, 2 append, 3 write, 4 operator, 0 anybody ------------------------------

API = {
    "GET /openapi.json": 0,
    "POST /invitations/accept": 0,
    "GET /tenants": 4,
    "POST /tenants": 4,
    "GET /tenants/NAME": 1,
    "DELETE /tenants/NAME": 4,
    "POST /tenants/NAME/suspend": 4,
    "POST /tenants/NAME/resume": 4,
    "POST /tenants/NAME/quota": 4,
    "POST /tenants/NAME/hashes": 4,
    "POST /tenants/NAME/invitations": 2,
    "GET /tenants/NAME/credentials": 1,
    "POST /tenants/NAME/credentials/ID/rotate": 1,
    "DELETE /tenants/NAME/credentials/ID": 1,
    "GET /tenants/NAME/audit": 1,
}
HARMS = {"DELETE /tenants/NAME", "POST /tenants/NAME/suspend", "POST /tenants/NAME/credentials/ID/rotate"}
HARMS |= {"DELETE /tenants/NAME/credentials/ID"}
"""Not tried by who may: what comes after would fail."""


class Hosted:
    """A running server that logs everything it can, the tenants ``alice`` and ``bob``, and people of theirs."""

    def __init__(self, folder: Path) -> None:
        self.tenants, self.log = Tenants(folder / "server"), folder / "log"
        self.answers: list[tuple[str, str]] = []  # who asked, what was said
        self.tenants.create("alice", repositories=["one"])
        self.tenants.create("bob", repositories=["one", "two"])
        self.keys: dict[str, asyncssh.SSHKey] = {}
        self.secrets = {"wrong": WRONG, "operator": self.tenants.operator().secret}
        for name, access in {**OF_ALICE, "bob": Access.WRITE}.items():
            key = self.keys[name] = asyncssh.generate_private_key("ssh-ed25519")
            token = self.tenants.invite("bob" if name == "bob" else "alice", access=access)
            granted = self.tenants.accept(token, label=name, ssh_key=key.export_public_key().decode().strip())
            self.secrets[name] = granted.secret
        self.invitation = self.tenants.invite("alice")
        self.held = self.tenants.get("alice").repositories[0]
        code = (
            "import logging, sys; logging.basicConfig(level=logging.DEBUG); "
            "from glimmer_store.cli.app import main; sys.exit(main(sys.argv[1:]))"
        )
        words = ["serve", str(folder / "server"), "--plain-http", "--http", "127.0.0.1:0", "--ssh", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=log)
        self.http, self.ssh = self._url("http"), self._url("ssh")

    def _url(self, scheme: str) -> str:
        while (found := re.search(rf"{scheme}://127\.0\.0\.1:\d+(?=\s)", self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        return found[0]

    def ask(self, who: str, method: str, path: str, body: bytes | None = None) -> int:
        headers = {"X-git-annex-data-length": "0"}
        if who != "nobody":
            headers["Authorization"] = f"Bearer {self.secrets[who]}"
        try:
            with urlopen(Request(self.http + path, body, headers, method=method), timeout=120) as answer:
                self.answers.append((who, answer.read().decode("latin-1")))
                return int(answer.status)
        except HTTPError as error:
            self.answers.append((who, str(error.headers) + error.read().decode("latin-1")))
            return error.code

    def lay(self, content: bytes) -> str:
        """Store *content* in alice's repository, by the way of who may; its key."""
        key = f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}"
        path = f"/git-annex/{self.held.uuid}/v4/put?key={key}&clientuuid={uuid4()}"
        headers = {"Authorization": f"Bearer {self.secrets['writer']}", "X-git-annex-data-length": str(len(content))}
        with urlopen(Request(self.http + path, content, headers, method="POST"), timeout=120) as answer:
            assert b'"stored":true' in answer.read().replace(b" ", b"")
        return key

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0
        assert "Traceback" not in self.log.read_text()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    running = Hosted(tmp_path_factory.mktemp("isolation"))
    yield running
    running.stop()


def expected(who: str, level: int) -> set[int]:
    """What may be said: 200s and 400 (the request is none that can be done) where it is allowed."""
    if level == 0 or LEVEL.get(who, 0) >= level:
        return {200, 201, 400}
    # a tenant's people, and those of another, learn nothing of what is not theirs; who is theirs may not, and knows
    return {401} if who in ("nobody", "wrong") else {403, 404} if who in OF_ALICE else {404}


def shape(pattern: str) -> str:
    """``GET /tenants/NAME`` of a route."""
    return pattern.replace("([^/]+)", "NAME").replace(r"(\d{1,18})", "ID")


def test_every_route_has_a_line_here() -> None:
    routes = {
        f"{one.method} {shape(one.path.pattern.removeprefix(BASE).removesuffix('Z').removesuffix(chr(92)))}"
        for one in ROUTES
    }
    assert routes == set(API)


@pytest.mark.parametrize("who", PEOPLE)
def test_the_http_api_says_to_everybody_what_is_theirs_and_nothing_else(hosted: Hosted, who: str) -> None:
    wrong = []
    for line, level in API.items():
        allowed = expected(who, level)
        if line in HARMS and 200 in allowed:
            continue
        method, path = line.split()
        path = BASE + path.replace("NAME", "alice").replace("ID", "1")
        said = hosted.ask(who, method, path, b"{}" if method == "POST" else None)
        if said not in allowed:
            wrong.append((line, said, allowed))
        if "NAME" in line and who in ("nobody", "wrong", "bob"):  # as if there were no such tenant
            nowhere = hosted.ask(who, method, path.replace("alice", "nobody"), b"{}" if method == "POST" else None)
            if nowhere != said or hosted.answers[-1][1].split("\n")[-2:] != hosted.answers[-2][1].split("\n")[-2:]:
                wrong.append((line, said, nowhere))
    assert not wrong


@pytest.mark.parametrize("who", ["nobody", "wrong", "bob"])
def test_jobs_of_a_tenant_are_nobody_elses(hosted: Hosted, who: str) -> None:
    for route in JOB_ROUTES:
        path = route.path.pattern.removesuffix(r"\Z")
        path = path.replace("([^/]+)", "alice").replace("([a-z]{2}-[0-9]{8}-[0-9a-f]{6})", "bf-20261121-0a1b2c")
        said = hosted.ask(who, route.method, path, b"{}" if route.method == "POST" else None)
        assert said == (404 if who == "bob" else 401), route


# -- contents over HTTP: 1 read, 2 append, 3 write --------------------------------------------------------------------

CONTENTS = {
    "GET key/KEY": 1,
    "GET v4/key/KEY?clientuuid=CLIENT": 1,
    "POST v4/checkpresent?key=KEY&clientuuid=CLIENT": 1,
    "POST v4/lockcontent?key=KEY&clientuuid=CLIENT": 1,
    "POST v4/gettimestamp?clientuuid=CLIENT": 1,
    "POST v4/possession?key=KEY&clientuuid=CLIENT&nonce=NONCE": 1,
    "POST v4/putoffset?key=KEY&clientuuid=CLIENT": 2,
    "POST v4/put?key=KEY&clientuuid=CLIENT": 2,
    "POST v4/remove?key=OTHER&clientuuid=CLIENT": 3,
    "POST v4/remove-before?key=OTHER&clientuuid=CLIENT&timestamp=1": 3,
}


@pytest.mark.parametrize("who", PEOPLE)
def test_the_contents_of_a_tenant_are_for_its_people_each_as_far_as_they_may(hosted: Hosted, who: str) -> None:
    """The operator of the server is nobody here; to another tenant it is as if there were no such repository."""
    key = hosted.lay(b"what only alice's people may read")
    words = {"KEY": key, "OTHER": "SHA256E-s1--" + "0" * 64, "CLIENT": str(uuid4()), "NONCE": "5a" * 32}
    wrong = []
    for line, level in CONTENTS.items():
        method, path = line.split()
        for word, value in words.items():
            path = path.replace(word, value)
        may = who in OF_ALICE and LEVEL[who] >= level
        allowed = {200} if may else {401} if who in ("nobody", "wrong") else {403} if who in OF_ALICE else {404}
        said = hosted.ask(who, method, f"/git-annex/{hosted.held.uuid}/{path}", b"" if method == "POST" else None)
        if said not in allowed:
            wrong.append((line, said, allowed))
        if who not in OF_ALICE and "only alice" in hosted.answers[-1][1]:
            wrong.append((line, hosted.answers[-1]))
        if who in ("nobody", "wrong", "bob"):
            nowhere = f"/git-annex/{uuid4()}/{path}"
            if hosted.ask(who, method, nowhere, b"" if method == "POST" else None) != said:
                wrong.append((line, "it can be told from one that is not there"))
    assert not wrong


# -- git over HTTP: 1 read, 2 push -------------------------------------------------------------------------------------

GIT = {
    "GET info/refs?service=git-upload-pack": 1,
    "GET info/refs?service=git-receive-pack": 2,
    "GET config": 1,
}
OTHERS = [
    *("POST git-upload-pack", "POST git-receive-pack", "GET info/refs", "POST info/refs?service=git-upload-pack"),
    *("GET git-upload-pack", "POST config", "GET HEAD", "GET objects/info/packs", "GET git-annex", "GET "),
]


@pytest.mark.parametrize("who", PEOPLE)
def test_git_shows_the_repositories_of_a_tenant_to_its_people_and_to_others_not_even_that_they_are_there(
    hosted: Hosted, who: str
) -> None:
    wrong = []
    for line, level in GIT.items():
        method, path = line.split()
        may = who in OF_ALICE and LEVEL[who] >= level
        allowed = {200} if may else {401} if who in ("nobody", "wrong") else {403} if who in OF_ALICE else {404}
        if (said := hosted.ask(who, method, f"/alice/one/{path}")) not in allowed:
            wrong.append((line, said, allowed))
    for line in (*GIT, *OTHERS) if who not in OF_ALICE else ():
        method, _, path = line.partition(" ")
        body = b"" if method == "POST" else None
        for name in ("alice/one", "alice/one.git"):
            said = hosted.ask(who, method, f"/{name}/{path}", body)
            nowhere = hosted.ask(who, method, f"/nobody/one/{path}", body)
            if said != nowhere:
                wrong.append((line, name, said, nowhere))
    assert not wrong


def test_no_secret_stands_in_the_log_or_in_what_somebody_else_was_told(hosted: Hosted) -> None:
    log = hosted.log.read_text()
    for owner, secret in hosted.secrets.items():
        assert secret not in log, owner
        told = [who for who, said in hosted.answers if secret in said and who not in (owner, "operator")]
        assert not told, owner
