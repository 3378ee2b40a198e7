"""A client, a server, and what carries between them: the same steps, whoever is which.

The disks are the truth. Places go by their letters: ``w`` is the client, ``g`` and ``h`` are gateways, digits nodes.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git
from places import ROOT
from served import Served, serve

from annexpy.cli.app import main
from annexpy.keys.key import Key
from annexpy.uuids import UUID, is_cluster

__all__ = ["CONTENTS", "TARGETS", "Carried", "Verdict", "agreed", "judged", "walk"]

CONTENTS = {
    name: content_of(number, size) for number, (name, size) in enumerate({"a": 10, "b": 3_000, "c": 700_000}.items())
}
TARGETS = {"plain": "g", "node": "1", "cluster": "123", "two gateways": "123"}
"""What is behind the server, and who then has what is stored in it. ``cluster of one`` is for faults."""
_NETWORK = ROOT / "tests/annexpy/server/git_annex_p2p_test.py"
_SECONDS = 30


class Carried(Gateways):
    """A client ``w`` and a target behind ``g``, with a *carrier* between them.

    ``shell``
        What sshd would start: annexpy-shell, or git-annex-shell.
    ``ssh``
        OpenSSH, to ``annexpy serve --ssh``.
    ``http``
        ``annexpy serve --http``, git included; or ``git annex p2phttp``, with git as for ``shell``.
    ``p2p``
        A p2p-annex address: ``annexpy serve --p2p TARGET``, or ``git annex remotedaemon``; git included.

    Attributes:
        remote: How the client calls the target.
        target: Who has what is stored in it.
        is_cluster: What is in the target can only be locked in its nodes, if the client can reach those: there is
            nothing behind a p2p-annex address but what it leads to.
        server: What runs, if it is ours and listens on a port.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, carrier: str, target: str, *, stock: bool = False
    ) -> None:
        super().__init__(folder, monkeypatch, stock=stock)
        self.carrier, self.target = carrier, TARGETS.get(target, "1")
        self.server: Served | None = None
        self._stack = ExitStack()
        self.monkeypatch = monkeypatch
        self.remote = self._build(target)
        self.is_cluster = self._shown == "safe"

    def _build(self, target: str) -> str:
        match target:
            case "plain":
                self.gateway("g")
                shown = ""
            case "node":
                self.gateway("g", nodes="1", proxied=True)
                shown = "1"
            case "cluster" | "cluster of one":
                self.gateway("g", nodes=self.target, cluster="safe")
                shown = "safe"
            case _:
                self.gateway("g", nodes="12", cluster="safe")
                self.gateway("h", nodes="3", extends="g", cluster="safe")
                shown = "safe"
        self._shown = shown
        return f"g-{shown}" if shown and self.carrier != "p2p" else "g"

    def begin(self) -> dict[str, Key]:
        """Start the server and make the client; the keys of its files."""
        match self.carrier:
            case "ssh":
                self._serve_ssh()
            case "http" if self.stock:
                self._url = self._stack.enter_context(_p2phttp(self.path("g")))
            case "http":
                gateways = [str(place.path) for name, place in self.places.items() if name in "gh"]
                self.server = self._stack.enter_context(serve("--http", "127.0.0.1:0", "--wideopen", *gateways))
                self._url = self.server.url
            case "p2p":
                self._serve_p2p()
        keys = self.client("w", CONTENTS, remotes="g")
        if self.carrier == "http":
            git(self.path("w"), "annex", "info", "-q", "--fast")  # has it look at its remotes
        return keys

    def stop(self) -> None:
        """End the server, which commits what it recorded."""
        if self.server is not None and self.server.process.poll() is None:
            assert self.server.stop() == 0
            assert "Traceback" not in (said := "".join(self.server.lines)), said
        self._stack.close()

    def connect(self, here: str, there: str) -> None:
        path = self.path(here)
        if here != "w" or self.carrier == "shell":
            super().connect(here, there)
            return
        git(path, "config", "annex.security.allowed-ip-addresses", "all")
        match self.carrier:
            case "ssh":
                assert self.server is not None
                git(path, "remote", "add", there, f"{self.server.url.replace('//', '//anybody@')}/{there}")
            case "http" if self.stock:
                super().connect(here, there)
                git(path, "config", f"remote.{there}.annexUrl", f"annex+{self._url}/git-annex/")
            case "http":
                git(path, "remote", "add", there, f"{self._url}/{there}")
            case _:
                said = git(self.path(there), "annex", "p2p", "--gen-addresses")
                address = next(line for line in said.splitlines() if line.startswith("p2p-annex::"))
                subprocess.run(
                    ["git", "annex", "p2p", "--link", "--name", there],
                    cwd=path, input=address + "\n", text=True, check=True, capture_output=True, timeout=_SECONDS,
                )  # fmt: skip

    def fetch(self, path: Path, remote: str) -> None:
        # Between git-annex and itself the end of what git says can be lost over p2p-annex, and git waits for ever.
        if self.carrier == "p2p" and self.stock:
            git(path, "fetch", "-q", str(self.path(remote)), f"+refs/heads/*:refs/remotes/{remote}/*")
        else:
            super().fetch(path, remote)

    def _serve_ssh(self) -> None:
        folder = self.folder / "keys"
        folder.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True)
        (folder / "id.pub").rename(folder / "authorized_keys")
        gateways = [str(place.path) for name, place in self.places.items() if name in "gh"]
        self.server = self._stack.enter_context(
            serve("--ssh", "127.0.0.1:0", "--authorized-keys", str(folder / "authorized_keys"), *gateways)
        )
        self.openssh.write_text(
            f"#!/bin/sh\nexec ssh -F none -i {shlex.quote(str(folder / 'id'))} -o IdentitiesOnly=yes -o BatchMode=yes"
            f' -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR "$@"\n'
        )
        self.openssh.chmod(0o755)

    def _serve_p2p(self) -> None:
        programs = self.folder / "bin"
        programs.mkdir()
        network = programs / "git-annex-p2p-test"
        network.write_text(f'#!/bin/sh\nexec {sys.executable} -S {_NETWORK} "$@"\n')
        network.chmod(0o755)
        real = shutil.which("git-annex")
        assert real
        (programs / "git-remote-p2p-annex").symlink_to(real)
        meeting = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="p"))  # paths of sockets are short
        self.monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        self.monkeypatch.setenv("P2P_TEST_NET", meeting)
        git(self.path("g"), "annex", "p2p", "--enable", "test")
        ours = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from annexpy.cli.app import main; sys.exit(main())"
        argv = (
            ["git", "annex", "remotedaemon", "--foreground"]
            if self.stock
            else [sys.executable, "-c", ours, "--quiet", "serve", "--p2p", self._shown or "."]
        )
        self._stack.enter_context(_running(argv, self.path("g"), Path(meeting, "at-g").exists))


@contextmanager
def _running(argv: Sequence[str], folder: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """A server and all that it starts."""
    process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, start_new_session=True)
    try:
        end = time.monotonic() + _SECONDS
        while not ready():
            assert process.poll() is None
            assert time.monotonic() < end, f"{argv} does not begin"
            time.sleep(0.02)  # another process: this is the only sign of it
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_SECONDS)


@contextmanager
def _p2phttp(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def listens() -> bool:
        with socket.socket() as wire:
            return wire.connect_ex(("127.0.0.1", port)) == 0

    argv = ["git", "annex", "p2phttp", "-J2", "--wideopen", "--bind", "127.0.0.1", "--port", str(port)]
    with _running(argv, folder, listens):
        yield f"http://127.0.0.1:{port}"


# -- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One command of the client, and who holds ``a``, ``b`` and ``c`` then; ``T`` stands for the target."""

    verb: str
    way: str
    files: str
    then: str
    fails: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.verb, self.way, self.files)))


_BEGIN = Step("copy", "to", "ab", "Tw,Tw,w")
_LOCKABLE = (Step("drop", "", "ab", "T,T,w"),)
_UNLOCKABLE = (
    Step("drop", "", "ab", "Tw,Tw,w", fails=True),
    Step("drop", "from", "ab", "w,w,w"),
    Step("move", "to", "ab", "T,T,w"),
)
_REST = (
    Step("drop", "", "c", "T,T,w", fails=True),
    Step("get", "from", "a", "Tw,T,w"),
    Step("move", "to", "c", "Tw,T,T"),
    Step("drop", "from", "b", "Tw,T,T", fails=True),
    Step("drop", "from", "a", "w,T,T"),
    Step("move", "from", "c", "w,T,w"),
    Step("fsck", "from", "b", "w,T,w"),
    Step("check", "from", "b", "w,T,w"),
    Step("lock", "from", "b", "w,T,w"),
    Step("sync", "", "", "w,T,w"),
)


def walk(world: Carried, keys: dict[str, Key], client: str) -> None:
    """Every step of *client*, ``git-annex`` or ``annexpy``; after each the disks and the client say so."""
    for step in (_BEGIN, *(_UNLOCKABLE if world.is_cluster and world.carrier == "p2p" else _LOCKABLE), *_REST):
        if client == "annexpy":
            _ours(world, keys, step)
        elif step.verb not in ("check", "lock"):
            _stock(world, step)
        where = step.then.replace("T", world.target).split(",")
        where = ["".join(sorted(one)) for one in where]
        assert [world.holders(keys[name], CONTENTS[name]) for name in CONTENTS] == where, f"after {step}"
        assert [world.believed("w", keys[name]) for name in CONTENTS] == where, f"the client's log after {step}"


def agreed(world: Carried, keys: dict[str, Key]) -> None:
    """At the client and the gateway, once they have synced, the real git-annex says what the disks say."""
    truth = {key: world.holders(key, CONTENTS[name]) for name, key in keys.items()}
    for place in "wg":
        said = world.places[place].whereis(keys.values())
        told = {key: world.letters(uuid for uuid in said[key] if not is_cluster(UUID(uuid))) for key in truth}
        assert told == truth, place


def _stock(world: Carried, step: Step) -> None:
    path = world.path("w")
    if step.verb == "sync":
        git(path, "annex", "sync", "-q", "--no-content", "g")
        return
    way = [f"--{step.way}", world.remote] if step.way else []
    said = git(path, "annex", step.verb, *way, *step.files, fails=step.fails)
    assert step.fails or "failed" not in said


def _ours(world: Carried, keys: dict[str, Key], step: Step) -> None:
    words = ["-C", str(world.path("w")), step.verb]
    match step.verb, step.way:
        case "sync", _:
            words.append("g")
        case "copy" | "move", "to":
            words += [".", world.remote]
        case "move", "from":
            words += [world.remote, "."]
        case "drop", "":
            words.append(".")
        case _:
            words.append(world.remote)
    world.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))  # what lock waits for the end of
    code = main([*words, *(str(keys[name]) for name in step.files)])
    assert (code != 0) == (step.fails or (step.verb == "lock" and world.is_cluster)), step


# -- testremote -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Of ``git annex testremote``: how many checks there were, and the names of those that failed, with repeats."""

    checks: int
    failed: tuple[str, ...]


def judged(world: Carried, *words: str) -> Verdict:
    done = subprocess.run(
        ["git", "annex", "testremote", *words, world.remote],
        cwd=world.path("w"), capture_output=True, text=True, check=False, timeout=1800, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = done.stdout + done.stderr
    failed = tuple(re.findall(r"^ +(\S.*?): +FAIL", said, re.MULTILINE))
    if passed := re.search(r"All (\d+) tests passed", said):
        assert done.returncode == 0
        assert not failed
        return Verdict(int(passed[1]), ())
    summary = re.search(r"(\d+) out of (\d+) tests failed", said)
    assert summary, said[-3000:]
    assert int(summary[1]) == len(failed)
    return Verdict(int(summary[2]), failed)
