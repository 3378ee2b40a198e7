"""Hypothesis profiles, the anyio backends, temporary repositories, the real git-annex, and a real OpenSSH server."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("few", settings.get_profile("ci"), max_examples=20)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A test run must not depend on who runs it: own HOME, own git identity, no system configuration.
os.environ.update(
    GIT_CONFIG_NOSYSTEM="1",
    GIT_AUTHOR_NAME="Test",
    GIT_AUTHOR_EMAIL="test@example.org",
    GIT_COMMITTER_NAME="Test",
    GIT_COMMITTER_EMAIL="test@example.org",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="run the long forms of the campaigns")
    parser.addoption("--keys", type=int, default=100_000, help="keys of the campaign of a job (default: %(default)s)")
    parser.addoption("--no-skips", action="store_true", help="a skip is a failure, except of tests marked optional")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--campaign"):
        long = [item for item in items if item.get_closest_marker("campaign")]
        if long:
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if not item.get_closest_marker("campaign")]
    if hasattr(config, "workerinput"):
        # Workers share out what is left at the end: let that be the quick ones.
        items.sort(key=lambda item: next((at for at, name in enumerate(FIRST) if item.get_closest_marker(name)), 9))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("--campaign"):  # minutes are no sign of a hang, and to dump a running thread can crash it
        faulthandler.cancel_dump_traceback_later()


# -- several workers (pytest -n): tests marked alone run while every other worker stands still ---------------------

FIRST = ("alone", "slow", "interop")
_LOCKS = pytest.StashKey[tuple[Path, int, int]]()


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs this in the background or under nohup has signals ignored, and every process here would inherit that.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    run = getattr(config, "workerinput", {}).get("testrunuid")
    if run is not None:
        path = Path(tempfile.gettempdir(), f"annexpy-tests-{run}")
        door, room = (os.open(path.with_suffix(end), os.O_RDWR | os.O_CREAT, 0o600) for end in (".door", ".room"))
        config.stash[_LOCKS] = path, door, room


def pytest_unconfigure(config: pytest.Config) -> None:
    if _LOCKS in config.stash:
        path, door, room = config.stash[_LOCKS]
        for fd, end in ((door, ".door"), (room, ".room")):
            os.close(fd)
            path.with_suffix(end).unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Everybody comes through the door into the room; who has to be alone there keeps the door shut."""
    if _LOCKS not in item.config.stash:
        return (yield)
    _, door, room = item.config.stash[_LOCKS]
    alone, more = (one is not None and one.get_closest_marker("alone") is not None for one in (item, nextitem))
    fcntl.flock(door, fcntl.LOCK_EX)
    fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    if not alone:
        fcntl.flock(door, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        if not (alone and more):
            fcntl.flock(room, fcntl.LOCK_UN)
            fcntl.flock(door, fcntl.LOCK_UN)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Workers have to agree on the names of tests, so none has a content in it that may be made by chance."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 32 else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = item.config.getoption("--no-skips") and not item.get_closest_marker("optional")
    if report.skipped and required and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may be missing here: {report.longrepr}"
    # What was logged of names that are no text could not be sent by a worker, which would end the whole run.
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"module skipped, but nothing may be missing here: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[init]\n\tdefaultBranch = main\n[user]\n\tname = Test\n\temail = test@example.org\n"
    )
    os.environ["HOME"] = str(home)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def git_annex() -> str:
    """Path of the real git-annex; its absence is a failure, not a skip (the test extra brings it)."""
    found = shutil.which("git-annex", path=str(Path(sys.executable).parent)) or shutil.which("git-annex")
    assert found, "git-annex is not installed: pip install 'annexpy[test]'"
    version = subprocess.run([found, "version", "--raw"], capture_output=True, text=True, check=True).stdout
    assert version >= "10.2026", version
    return found


@dataclass(frozen=True)
class SSHD:
    """Where the server is, and what a client needs to get in.

    ``HOME/.ssh/config`` knows it as ``host``. The system's ssh looks for its files in the home of
    the password database, so it needs ``-F config``. Any command may be run; git-annex-shell and
    ours are in PATH. A connection has at most three channels.
    """

    host: str
    port: int
    user: str
    identity: str
    config: str
    folder: Path


@pytest.fixture(scope="session")
def sshd(own_home: None, tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Iterator[SSHD]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, "sshd is not installed: apt install openssh-server"
    folder = tmp_path_factory.mktemp("sshd")
    dot = Path(os.environ["HOME"], ".ssh")
    dot.mkdir(mode=0o700, exist_ok=True)
    identity = dot / "id_ed25519"
    for key in (folder / "host", identity, folder / "stranger"):
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = pwd.getpwuid(os.getuid()).pw_name
    path = f"{Path(git_annex).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = f'environment="PATH={path}",environment="HOME={os.environ["HOME"]}"'
    (folder / "authorized").write_text(f"{environment} {(dot / 'id_ed25519.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nPermitUserEnvironment yes\nMaxSessions 3\nMaxStartups 200:30:400\n"
    )
    config = dot / "config"
    with config.open("a") as file:
        file.write(
            f"Host annex-test\n\tHostName 127.0.0.1\n\tPort {port}\n\tUser {user}\n\tIdentityFile {identity}\n"
            f"\tIdentitiesOnly yes\n\tUserKnownHostsFile {dot}/known_hosts\n\tStrictHostKeyChecking yes\n"
        )
    with (dot / "known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        else:
            raise AssertionError(f"sshd did not start: {(folder / 'log').read_text()}")
        yield SSHD("annex-test", port, user, str(identity), str(config), folder)
    finally:
        server.terminate()
        server.wait(10)
