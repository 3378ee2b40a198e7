"""Servers of ssh on loopback: a real OpenSSH, for one user, with its own keys; and ours, for the same user."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import annexpy

__all__ = ["our_sshd", "sshd"]


@contextmanager
def sshd(folder: Path, home: Path, path: str) -> Iterator[tuple[str, int]]:
    """Yields the host alias that ``home/.ssh/config`` knows, and the process; the server ends with the block."""
    folder.mkdir(parents=True)
    dot = home / ".ssh"
    dot.mkdir(mode=0o700, exist_ok=True)
    for key in (folder / "host", dot / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    public = (dot / "id_ed25519.pub").read_text()
    (folder / "authorized").write_text(f'environment="PATH={path}",environment="HOME={home}" {public}')
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile {folder}/pid\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "PermitUserEnvironment yes\n"
        "MaxSessions 100\nMaxStartups 200:30:400\n"
    )
    user = pwd.getpwuid(os.getuid()).pw_name
    (dot / "config").write_text(
        f"Host bench\n\tHostName 127.0.0.1\n\tPort {port}\n\tUser {user}\n"
        f"\tIdentityFile {dot}/id_ed25519\n\tIdentitiesOnly yes\n"
        f"\tUserKnownHostsFile {dot}/known_hosts\n\tStrictHostKeyChecking yes\n"
    )
    (dot / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    # OpenSSH looks for its configuration in the home of the password file, whatever HOME says.
    wrapper = home / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {dot}/config "$@"\n')
    wrapper.chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise RuntimeError("sshd did not start")
        yield "bench", server.pid
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def our_sshd(side: Path, ours: bool, *, env: Mapping[str, str], durability: str, theirs: int) -> Iterator[int]:
    """For our side ``annexpy serve --ssh`` with ``side/b.git``, of which ``side/w`` is told; theirs has *theirs*."""
    if not ours:
        yield theirs
        return
    dot, host_key = Path(env["HOME"]) / ".ssh", side / "host"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [annexpy(), "serve", "--ssh", f"127.0.0.1:{port}", "--authorized-keys", str(dot / "id_ed25519.pub")]
    argv += ["--host-key", str(host_key), "--quiet", "--durability", durability, "b.git"]
    null = subprocess.DEVNULL
    server = subprocess.Popen(argv, cwd=side, env=dict(env), stdin=null, stdout=null, stderr=null)
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise RuntimeError("annexpy serve --ssh does not listen")
        public = host_key.with_name(f"{host_key.name}.pub").read_text()
        with (dot / "known_hosts").open("a") as known:
            known.write(f"[127.0.0.1]:{port} {public}")
        url = f"ssh://bench@127.0.0.1:{port}/b.git"
        subprocess.run(["git", "config", "remote.b.url", url], cwd=side / "w", env=dict(env), check=True)
        yield server.pid
    finally:
        server.terminate()
        server.wait(30)
