"""A small correct server of the P2P protocol in memory: what the broken ones are variations of.

``Store`` is the repository, ``Session`` one connection. A *lie* changes what is said, whatever was done: it is asked
with the client's line and the true answer. Everything else that can go wrong is a subclass of one of the two.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

UUID = "87ab9089-b663-40ac-b7c2-52e054520871"
TOKEN = "f0e1d2c3b4a5f0e1d2c3b4a5"
KEY = re.compile(rb"[A-Z][A-Z0-9_]*(-s\d+)?(-m\d+)?--[^\0\n]*")
LONGEST = 32767

HASHES: dict[bytes, Callable[[bytes], str]] = {
    name.upper().encode(): lambda body, name=name: hashlib.new(name, body).hexdigest()
    for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", *(f"sha3_{n}" for n in (224, 256, 384, 512)))
} | {
    f"{name.upper()}{bits}".encode(): lambda body, name=name, bits=bits: getattr(hashlib, name)(
        body, digest_size=bits // 8
    ).hexdigest()
    for name, lengths in (("blake2b", (160, 224, 256, 384, 512)), ("blake2s", (160, 224, 256)))
    for bits in lengths
}
"""What a backend computes of a content."""

Lie = Callable[[bytes, bytes], "bytes | None"]
"""The client's line and the true answer → what is said instead; None hangs up, b"" says nothing."""


class HangUp(Exception):
    pass


class Store:
    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.contents: dict[bytes, bytes] = {}
        self.partials: dict[bytes, bytes] = {}
        self.locks: Counter[bytes] = Counter()
        self.kept: dict[bytes, float] = {}

    def names(self) -> list[str]:
        """Who did the last thing, besides the repository itself."""
        return []

    def has(self, key: bytes) -> bool:
        return key in self.contents

    def lock(self, key: bytes) -> bool:
        with self.mutex:
            if not self.has(key):
                return False
            self.locks[key] += 1
            return True

    def unlock(self, key: bytes) -> None:
        with self.mutex:
            self.locks[key] -= 1

    def abandon(self, key: bytes) -> None:
        """Its locker vanished."""
        self.unlock(key)
        self.kept[key] = time.monotonic() + 600

    def locked(self, key: bytes) -> bool:
        return self.locks[key] > 0 or self.kept.get(key, 0) > time.monotonic()

    def remove(self, key: bytes) -> bool:
        with self.mutex:
            if self.has(key) and self.locked(key):
                return False
            self.contents.pop(key, None)
            return True

    def fits(self, key: bytes, body: bytes) -> bool | None:
        """None: nobody can tell."""
        size = re.search(rb"-s(\d+)", key.partition(b"--")[0])
        if size and int(size[1]) != len(body):
            return False
        digest = HASHES.get(key.partition(b"-")[0].removesuffix(b"E"))
        if digest is None:
            return None
        return digest(body).encode() == key.partition(b"--")[2].partition(b".")[0]

    def finish(self, key: bytes, body: bytes, valid: bool) -> bool:
        with self.mutex:
            fits = self.fits(key, body)
            good = fits if fits is not None else valid
            if good:
                self.contents[key] = body
            if good or len(body) != 0:
                self.partials.pop(key, None)
            return bool(good)


class Session:
    greets = UUID
    mode = "write"
    max_version = 4
    clock = staticmethod(time.monotonic)

    def __init__(self, sock: socket.socket, store: Store, lie: Lie | None = None, token: str = "") -> None:
        self.sock, self.store, self.lie, self.token = sock, store, lie, token
        self.buffer, self.asked, self.version = b"", b"", 0

    # -- the wire -----------------------------------------------------------------------------------

    def more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise HangUp
        self.buffer += data

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            if len(self.buffer) > LONGEST:
                raise HangUp
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        if len(line) > LONGEST:
            raise HangUp
        self.asked = line.removesuffix(b"\r")
        return self.asked

    def body(self, length: int) -> bytes:
        while len(self.buffer) < length:
            self.more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def say(self, answer: bytes) -> None:
        said: bytes | None = answer + b"\n"
        if self.lie:
            said = self.lie(self.asked, answer)
            said = said + b"\n" if said and not said.endswith(b"\r\n") else said
        if said is None:
            raise HangUp
        self.sock.sendall(said)

    def error(self, text: str = "unknown command") -> None:
        self.say(f"ERROR {text}".encode())

    # -- the session --------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self.greet()
            while True:
                self.request(self.line())
        except (HangUp, OSError):
            pass
        finally:
            self.sock.close()

    def greet(self) -> None:
        while self.token:
            match self.line().split(b" "):
                case [b"AUTH", _, token] if self.right(token):
                    break
                case [b"AUTH", *_]:
                    self.say(b"AUTH-FAILURE")
                case _:
                    self.error("unexpected command")
        self.say(b"AUTH-SUCCESS " + self.greets.encode())

    def right(self, token: bytes) -> bool:
        return token.decode() == self.token

    def words(self, line: bytes) -> tuple[str, bytes]:
        verb, _, rest = line.replace(b"\t", b" ", 1).partition(b" ")
        return verb.decode("ascii", "replace").replace("-", "_"), rest

    def request(self, line: bytes) -> None:
        verb, rest = self.words(line)
        handler = getattr(self, f"do_{verb}", None)
        if verb == "ERROR":
            raise HangUp
        if handler is None or not verb.isupper():
            self.error()
        else:
            handler(rest)

    def key(self, rest: bytes) -> bytes | None:
        if KEY.fullmatch(rest):
            return rest
        self.error()
        return None

    def denied(self, *modes: str) -> bool:
        if self.mode in modes:
            self.error("this repository is read-only; write access denied")
            return True
        return False

    def do_VERSION(self, rest: bytes) -> None:
        if not rest.isdigit():
            return self.error()
        self.version = min(int(rest), self.max_version)
        return self.say(b"VERSION %d" % self.version)

    def do_BYPASS(self, rest: bytes) -> None:
        pass

    def do_CHECKPRESENT(self, rest: bytes) -> None:
        if (key := self.key(rest)) is not None:
            self.say(b"SUCCESS" if self.store.has(key) else b"FAILURE")

    def do_REMOVE(self, rest: bytes) -> None:
        if (key := self.key(rest)) is not None and not self.denied("readonly", "appendonly"):
            self.say(b"SUCCESS" if self.store.remove(key) else b"FAILURE")

    def now(self) -> int:
        return int(self.clock())

    def do_GETTIMESTAMP(self, rest: bytes) -> None:
        self.say(b"TIMESTAMP %d" % self.now())

    def in_time(self, moment: int) -> bool:
        return self.clock() < moment

    def do_REMOVE_BEFORE(self, rest: bytes) -> None:
        moment, _, rest = rest.partition(b" ")
        if not moment.isdigit():
            return self.error()
        key = self.key(rest)
        if key is None or self.denied("readonly", "appendonly"):
            return None
        if self.store.has(key) and not self.in_time(int(moment)):
            return self.say(b"FAILURE")
        return self.say(b"SUCCESS" if self.store.remove(key) else b"FAILURE")

    def do_LOCKCONTENT(self, rest: bytes) -> None:
        if (key := self.key(rest)) is None:
            return None
        if not self.store.lock(key):
            return self.say(b"FAILURE")
        self.say(b"SUCCESS")
        try:
            line = self.line()
        except (HangUp, OSError):
            self.store.abandon(key)
            raise
        self.store.unlock(key)
        if line != b"UNLOCKCONTENT":
            self.error("expected UNLOCKCONTENT")
        return None

    def do_GET(self, rest: bytes) -> None:
        offset, _, rest = rest.partition(b" ")
        _, blank, rest = rest.partition(b" ")
        if not offset.isdigit() or not blank:
            return self.error()
        if (key := self.key(rest)) is None:
            return None
        content = self.store.contents.get(key)
        return self.send_content(b"" if content is None else content[int(offset) :], content is not None)

    def send_content(self, body: bytes, valid: bool) -> None:
        self.say(b"DATA %d" % len(body))
        self.sock.sendall(body)
        if self.version:
            self.say(b"VALID" if valid else b"INVALID")
        verdict = self.line()
        if verdict.startswith(b"ERROR"):
            raise HangUp
        if verdict not in (b"SUCCESS", b"FAILURE"):
            self.error("expected SUCCESS or FAILURE")

    def do_PUT(self, rest: bytes) -> None:
        name, blank, rest = rest.partition(b" ")
        if not blank or name.startswith(b"/"):
            return self.error()
        if (key := self.key(rest)) is None or self.denied("readonly"):
            return None
        if self.store.has(key):
            return self.say(b"ALREADY-HAVE")
        partial = self.store.partials.get(key, b"")
        self.say(b"PUT-FROM %d" % len(partial))
        line = self.line()
        if line.startswith(b"ERROR"):
            return None
        if line == b"DATA-PRESENT" and self.version >= 4:
            return self.say(b"SUCCESS" if self.store.has(key) else b"FAILURE")
        length = line.removeprefix(b"DATA ")
        if not line.startswith(b"DATA ") or not length.isdigit():
            return self.error("expected DATA")
        return self.receive(key, partial, int(length))

    def receive(self, key: bytes, partial: bytes, length: int) -> None:
        body = None
        try:
            body = self.body(length)
            valid = self.line() if self.version else b"VALID"
        except (HangUp, OSError):
            self.store.partials[key] = partial + (self.buffer[:length] if body is None else body)
            raise
        if valid not in (b"VALID", b"INVALID"):
            self.error("expected VALID or INVALID")
        if not length and valid == b"INVALID":
            self.say(b"FAILURE")
        else:
            self.say(b"SUCCESS" if self.store.finish(key, partial + body, valid == b"VALID") else b"FAILURE")
        self.after_put()

    def after_put(self) -> None:
        pass


def start(store: Store, session: type[Session] = Session, lie: Lie | None = None, token: str = "") -> socket.socket:
    """A new session in a thread of its own; the client's end."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=session(theirs, store, lie, token).run, daemon=True).start()
    return ours
