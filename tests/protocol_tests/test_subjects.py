"""Our servers keep the protocol, on every transport; git-annex differs just where it is known to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from protocol_tests import place

if TYPE_CHECKING:
    from tests.conftest import SSHD

ROOT = Path(__file__).parents[2]
START = "from annexpy.server.shell import main; import sys; sys.exit(main())"
OURS = f"{sys.executable} -c '{START}' p2pstdio {{path}} {{client}}"
THEIRS = "git-annex-shell p2pstdio {path} {client}"
OUR_HTTP = f"{sys.executable} -m annexpy.cli.app serve --http 127.0.0.1:{{port}} --wideopen ."
THEIR_HTTP = "git annex p2phttp -J2 --wideopen --bind 127.0.0.1 --port {port}"
UUID = " --uuid {uuid}"
KEPT = ("--examples", "2")
QUICK = ("--versions", "4", "--only", "P-00,P-01,P-05,P-08,P-10,P-112,P-113,P-168,P-194,R-010")

pytestmark = [pytest.mark.slow, pytest.mark.interop]


def harness(*words: str | Path, exits: int = 0) -> list[dict]:
    """What a run reports; its exit code must be *exits*."""
    report = Path(os.environ["HOME"]) / f"report-{time.monotonic_ns()}.json"
    argv = [sys.executable, "-m", "protocol_tests", *map(str, words), *KEPT, "--json", str(report), "--seed", "11"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == exits, done.stdout[-5000:] + done.stderr[-3000:]
    return json.loads(report.read_text())["requirements"]


def passed(found: Sequence[dict], least: int) -> None:
    assert not [one["id"] for one in found if one["status"] == "fail"]
    assert sum(one["status"] == "pass" for one in found) >= least


@contextmanager
def running(argv: Sequence[str | Path], cwd: Path, ready: Path | int) -> Iterator[None]:
    """A server, until *ready*: a socket that exists, or a port that is listened on."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(list(map(str, argv)), cwd=cwd, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                if isinstance(ready, Path) and ready.exists():
                    break
                if isinstance(ready, int) and listened_on(ready):
                    break
                assert server.poll() is None
                time.sleep(0.05)
            yield
        finally:
            server.terminate()
            server.wait(30)


def listened_on(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def annexpy(*words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "annexpy.cli.app", *words]


@pytest.fixture
def repository(tmp_path: Path) -> place.Place:
    return place.fresh(tmp_path / "lab" / "it.git", Random(5))


# -- ours -------------------------------------------------------------------------------------------------------------


def test_our_shell_keeps_the_protocol() -> None:
    passed(harness("--command", OURS + UUID, *QUICK), 35)


@pytest.mark.parametrize(("role", "least"), [("readonly", 5), ("appendonly", 5)])
def test_our_shell_denies_what_a_role_may_not(role: str, least: int) -> None:
    passed(harness("--command", OURS + UUID, "--role", role, "--versions", "4", "--only", "R-,P-101"), least)


def test_our_unix_socket_keeps_the_protocol(repository: place.Place, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running(annexpy("serve", "--unix", path, "."), repository.path, path):
        passed(harness("--unix", path, "--uuid", repository.uuid, "--versions", "0-4"), 110)


def test_our_shell_over_ssh_keeps_the_protocol(repository: place.Place, sshd: SSHD) -> None:
    shell = Path(sys.executable).with_name("annexpy-shell")
    if not shell.exists():
        shell = repository.path.parent / "annexpy-shell"
        start = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from annexpy.server.shell import main; sys.exit(main())"
        )
        shell.write_text(f"#!{sys.executable}\n{start}\n")
        shell.chmod(0o755)
    words = (
        "--ssh",
        f"{sshd.host}:{repository.path}",
        "--ssh-shell",
        shell,
        "--ssh-program",
        f"ssh -T -F {sshd.config}",
    )
    passed(harness(*words, "--versions", "4", "--only", "P-00,P-02,P-03,P-08"), 20)


def test_our_http_server_keeps_the_protocol(repository: place.Place) -> None:
    port = free_port()
    with running(annexpy("serve", "--http", f"127.0.0.1:{port}", "--wideopen", "."), repository.path, port):
        passed(harness("--http", f"http://127.0.0.1:{port}/git-annex/{repository.uuid}", "--only", "H"), 28)


def test_our_https_server_knows_who_may_do_what(repository: place.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_ANNEX_P2PHTTP_PASSWORD_lab", "s3cret:of-lab")
    certificate, key = repository.path.parent / "it.pem", repository.path.parent / "it.key"
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=it -keyout {key}"
    names = "subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *words.split(), "-addext", names, "-out", certificate], check=True, capture_output=True)
    port = free_port()
    place_there = f"127.0.0.1:{port}/git-annex/{repository.uuid}"
    known = f"https://lab:s3cret%3Aof-lab@{place_there}"
    who = ("--authenv", "--unauth-readonly", "--certfile", certificate, "--privatekeyfile", key)
    quick = ("--versions", "4", "--ca", certificate)
    with running(annexpy("serve", "--http", f"127.0.0.1:{port}", *who, "."), repository.path, port):
        passed(harness("--http", known, *quick, "--only", "H-020,H-030,H-042,H-07,H-08"), 10)
        reader = ("--http", f"https://{place_there}", "--role", "readonly", "--writer", known)
        passed(harness(*reader, *quick, "--only", "H-06,H-08"), 7)


def test_our_gateway_keeps_the_protocol() -> None:
    shown = ("--nodes", "3", "--http-server", OUR_HTTP)
    passed(harness("--command", OURS + UUID, *shown, "--versions", "4", "--only", "C,H-051"), 27)


# -- git-annex --------------------------------------------------------------------------------------------------------


def ids(kind: str, *prefixes: str) -> set[str]:
    from protocol_tests.known import load

    return {one for one in load(kind).differences if one.startswith(prefixes)}


def test_git_annex_differs_where_it_is_known_to(git_annex: str) -> None:
    known = sorted(ids("git-annex", "P"))

    found = harness(
        "--command",
        THEIRS + UUID,
        "--known",
        "git-annex",
        "--versions",
        "1,4",
        "--only",
        f"P-02,P-05,{','.join(known)}",
    )

    assert {one["id"] for one in found if one["status"] == "fail"} == set(known)
    assert all(one["transcript"] and one["known"] for one in found if one["status"] == "fail")


def test_a_difference_that_is_not_known_or_has_gone_is_noticed(git_annex: str, tmp_path: Path) -> None:
    other = tmp_path / "known.toml"
    other.write_text('name = "other"\n[differences]\nP-020 = "it finds everything"\n')
    for only in ("P-014", "P-020"):  # new, and vanished
        harness("--command", THEIRS + UUID, "--known", other, "--versions", "4", "--only", only, exits=1)


def test_clusters_of_git_annex_differ_where_they_are_known_to(git_annex: str) -> None:
    found = harness(
        "--command", THEIRS + UUID, "--nodes", "3", "--known", "git-annex", "--versions", "4", "--only", "C-00,C-03"
    )

    assert {one["id"] for one in found if one["status"] == "fail"} == ids("git-annex", "C-00", "C-03")


def test_gateways_of_git_annex_differ_where_they_are_known_to(git_annex: str) -> None:
    shown = ("--nodes", "2", "--http-server", THEIR_HTTP, "--known", "git-annex")
    only = ("C-040", "C-041", "C-043", "C-051", "H-051")

    found = harness("--command", THEIRS + UUID, *shown, "--versions", "4", "--only", ",".join(only))

    assert {one["id"] for one in found if one["status"] == "fail"} == {*only[1:]}


def test_http_of_git_annex_differs_where_it_is_known_to(git_annex: str, repository: place.Place) -> None:
    port = free_port()
    server = ["git", "annex", "p2phttp", "-J2", "--wideopen", "--bind", "127.0.0.1", "--port", str(port)]
    with running(server, repository.path, port):
        found = harness(
            "--http", f"http://127.0.0.1:{port}/git-annex/{repository.uuid}", "--known", "git-annex", "--versions", "4"
        )

    assert {one["id"] for one in found if one["status"] == "fail"} == ids("git-annex", "H-00", "H-04")


# -- all of it --------------------------------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.parametrize("nodes", ["", "3"], ids=["repository", "cluster"])
@pytest.mark.parametrize(
    ("command", "server", "known"),
    [(OURS, OUR_HTTP, ""), (THEIRS, THEIR_HTTP, "git-annex")],
    ids=["ours", "git-annex"],
)
def test_every_requirement_in_every_version(command: str, server: str, known: str, nodes: str) -> None:
    assert shutil.which("git-annex-shell")
    harness(
        *("--command", command + UUID, "--examples", "10"),
        *(("--nodes", nodes, "--http-server", server) if nodes else ()),
        *(("--known", known) if known else ()),
    )
