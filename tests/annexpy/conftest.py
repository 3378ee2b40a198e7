"""A real OpenSSH server on loopback, for whoever tests something over ssh."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


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
