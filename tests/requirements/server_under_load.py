"""A server in a process of its own, what it holds by /proc, and clients that are idle, slow or large."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from places import CLIENT, OURS, Place, key_of

from annexpy.keys.key import Key

__all__ = ["FEW", "Served", "SlowClients", "eventually", "locks_below", "serve_http", "serve_unix"]

FEW = 256
"""Descriptors that a server may open by the soft limit it is started with: many systems say 1,024."""


def locks_below(folder: Path) -> list[str]:
    """Locks on files below *folder* that any process holds."""
    inodes = {}
    for below, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(below, name)
            with suppress(FileNotFoundError):
                inodes[os.stat(path).st_ino] = path
    held = []
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "->" not in words and (path := inodes.get(int(words[5].rpartition(":")[2]), "")):
            held.append(f"{words[1]} {words[3]} by {words[4]}: {path}")
    return held


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], place: Place) -> None:
        self.process, self.place = process, place
        self.socket = ""
        self.port = 0

    def descriptors(self) -> int:
        """How many are open, without the packs of git, which are kept open and become more with every commit."""
        count = 0
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            with suppress(FileNotFoundError):
                count += "/objects/pack/" not in os.readlink(f"/proc/{self.process.pid}/fd/{fd}")
        return count

    def back_to(self, descriptors: int) -> None:
        """Wait until no more than so many are open."""
        try:
            eventually(lambda: self.descriptors() <= descriptors)
        except AssertionError:
            folder = Path(f"/proc/{self.process.pid}/fd")
            opened = "\n".join(f"{fd.name}: {os.readlink(fd)}" for fd in folder.iterdir())
            raise AssertionError(f"not back to {descriptors} descriptors:\n{opened}") from None

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def kibibytes(self, field: str = "VmRSS") -> int:
        """``VmRSS`` (resident now) or ``VmHWM`` (the most so far)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise AssertionError(f"no {field}")

    def warm_up(self) -> None:
        """A put and a get: folders are kept open from here on."""
        content = b"first"
        self.put(key_of(content), iter([content]))
        assert self.get(key_of(content)) == len(content)

    # -- connections --------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """A connection; over P2P the greeting is done."""
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), 30)
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(30)
        connected.connect(self.socket)
        greeting = connected.recv(100)
        assert greeting.startswith(b"AUTH-SUCCESS"), greeting
        connected.sendall(b"VERSION 4\n")
        assert connected.recv(100) == b"VERSION 4\n"
        return connected

    def path(self, verb: str, key: Key, **more: object) -> str:
        asked = "&".join(f"{name}={value}" for name, value in more.items())
        what = f"key/{key}?" if verb == "key" else f"{verb}?key={key}&"
        return f"/git-annex/{self.place.uuid}/v4/{what}clientuuid={CLIENT}" + (f"&{asked}" if asked else "")

    def presence_request(self, key: Key) -> bytes:
        if self.port:
            return f"POST {self.path('checkpresent', key)} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
        return f"CHECKPRESENT {key}\n".encode()

    def is_present(self, connected: socket.socket, key: Key) -> bool:
        """One request, one answer."""
        connected.sendall(self.presence_request(key))
        return self.hear_presence(connected)

    def hear_presence(self, connected: socket.socket) -> bool:
        answer = b""
        while not answer.endswith(b"}" if self.port else b"\n"):
            more = connected.recv(4096)
            assert more, answer
            answer += more
        present = b'"present":true' in answer if self.port else answer == b"SUCCESS\n"
        absent = b'"present":false' in answer if self.port else answer == b"FAILURE\n"
        assert present or absent, answer
        return present

    def get_request(self, key: Key) -> bytes:
        if self.port:
            return f"GET {self.path('key', key)} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        return f"GET 0 f {key}\n".encode()

    def begin_put(self, connected: socket.socket, key: Key) -> None:
        """All that stands before the body."""
        if self.port:
            line = f"POST {self.path('put', key)} HTTP/1.1\r\nHost: a\r\nX-git-annex-data-length: {key.size}\r\n"
            connected.sendall(f"{line}Content-Length: {key.size}\r\n\r\n".encode())
            return
        connected.sendall(f"PUT f {key}\n".encode())
        assert connected.recv(100) == b"PUT-FROM 0\n"
        connected.sendall(f"DATA {key.size}\n".encode())

    # -- whole transfers ----------------------------------------------------------------------------------------------

    def get(self, key: Key, check: Callable[[bytes], object] = lambda chunk: None) -> int:
        """Read the content to its end; how long it is."""
        with self.connect() as connected:
            connected.settimeout(120)
            length = 0
            if self.port:
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.sock = connected
                connection.request("GET", self.path("key", key))
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                while chunk := answer.read(1 << 18):
                    length += len(chunk)
                    check(chunk)
                return length
            connected.sendall(self.get_request(key))
            with connected.makefile("rb") as lines:
                word, size = lines.readline().split()
                assert word == b"DATA"
                while length < int(size):
                    chunk = lines.read(min(1 << 18, int(size) - length))
                    assert chunk
                    length += len(chunk)
                    check(chunk)
                assert lines.readline() == b"VALID\n"
            connected.sendall(b"SUCCESS\n")
            return length

    def put(self, key: Key, chunks: Iterator[bytes]) -> None:
        with self.connect() as connected:
            connected.settimeout(120)
            self.begin_put(connected, key)
            for chunk in chunks:
                connected.sendall(chunk)
            if not self.port:
                connected.sendall(b"VALID\n")
            answer = connected.recv(4096)
            if self.port and b"stored" not in answer:
                answer += connected.recv(4096)
            assert b'"stored":true' in answer or answer.startswith(b"SUCCESS"), answer


@contextmanager
def _started(place: Place, *words: str, loud: int | None = subprocess.DEVNULL) -> Iterator[Served]:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    argv = [sys.executable, "-m", "annexpy.cli.app", "serve", *words]
    environment = os.environ | dict(OURS)
    process = subprocess.Popen(argv, cwd=place.path, stderr=loud, env=environment, preexec_fn=few)
    try:
        yield Served(process, place)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()


@contextmanager
def serve_unix(place: Place, path: Path) -> Iterator[Served]:
    """``annexpy serve --unix``; P2P."""

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as tried:
            return tried.connect_ex(str(path)) == 0

    with _started(place, "--unix", str(path), "--quiet") as served:
        served.socket = str(path)
        eventually(listens, process=served.process)
        yield served


@contextmanager
def serve_http(place: Place, _: Path | None = None) -> Iterator[Served]:
    """``annexpy serve --http``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def listens() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    with _started(place, "--http", f"127.0.0.1:{port}", "--wideopen", "--quiet", ".") as served:
        served.port = port
        eventually(listens, process=served.process)
        yield served


def eventually(
    so: Callable[[], object], seconds: float = 30.0, *, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until *so*."""
    until = time.monotonic() + seconds
    while not so():
        assert process is None or process.poll() is None, "the server has ended"
        assert time.monotonic() < until, f"not so within {seconds} s"
        time.sleep(0.02)


class SlowClients:
    """Clients that send and take a few bytes a second: a third each ask, put and get.

    One that the server hangs up on, because its patience has an end, comes again.
    """

    def __init__(self, served: Served, count: int, *, there: Key, new: Callable[[int], Key]) -> None:
        self._served, self._there, self._new = served, there, new
        self._asking = served.presence_request(there)
        self._clients = [self._begin(number) for number in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None
        self.moved = 0

    def _begin(self, number: int) -> tuple[int, socket.socket, int]:
        connected = self._served.connect()
        if number % 3 == 1:
            self._served.begin_put(connected, self._new(number))
        elif number % 3 == 2:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connected.sendall(self._served.get_request(self._there))
        connected.setblocking(False)
        return number, connected, 0

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.4):
                for at, (number, connected, sent) in enumerate(self._clients):
                    try:
                        moved = self._move(number, connected, sent)
                    except OSError:
                        connected.close()
                        self._clients[at] = self._begin(number)
                    else:
                        self._clients[at] = (number, connected, sent + moved)
                        self.moved += moved
        except BaseException as error:
            self.failure = error

    def _move(self, number: int, connected: socket.socket, sent: int) -> int:
        with suppress(BlockingIOError):
            if number % 3 == 2:
                if not connected.recv(2):
                    raise ConnectionResetError
                return 2
            if number % 3 == 1:
                return connected.send(b"xy")
            at = sent % len(self._asking)
            with suppress(BlockingIOError):
                connected.recv(4096)
            return connected.send(self._asking[at : at + 2])
        return 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for _, connected, _ in self._clients:
            connected.close()
