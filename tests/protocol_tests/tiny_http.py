"""A small correct HTTP server in memory, over the store of ``tiny``."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from urllib.parse import unquote_to_bytes, urlsplit

from tiny import UUID, Store

LENGTH = "X-git-annex-data-length"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, handler: type[Handler], store: Store, shown: dict[str, Store] | None = None, tls: SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.shown, self.locks, self.scheme = shown or {UUID: store}, {}, "https" if tls else "http"
        if tls:  # the handshake is for the thread of the connection
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/git-annex/{UUID}"

    def handle_error(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server
    unknown_version = 404
    mode = "write"
    credentials: tuple[str, str] | tuple[()] = ()
    clock = staticmethod(time.monotonic)

    @property
    def store(self) -> Store:
        return self.server.shown[self.asked_for]

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def change(self, verb: str, said: dict) -> dict:
        """What a lie would put in place of what is said."""
        return said

    def say(self, **said: object) -> None:
        if self.version > 1 and said.keys() & {"stored", "removed", "alreadyhave"}:
            said["plusuuids"] = self.store.names()
        self.reply(200, json.dumps(self.change(self.verb, said)).encode(), "application/json")

    def word(self, name: str) -> bytes:
        raw = self.words.get(name, b"")
        return base64.urlsafe_b64decode(raw[1:-1]) if raw[:1] == b"[" and raw[-1:] == b"]" else raw

    def route(self) -> bool:
        """Read the address; False when it was answered already."""
        url = urlsplit(self.path)
        self.words = {
            name: unquote_to_bytes(value.replace("+", "%2B"))
            for name, value in (part.split("=", 1) for part in url.query.split("&") if "=" in part)
        }
        match = re.fullmatch(r"/git-annex/([0-9a-f-]{36})/(?:v(\d+)/)?([a-z-]+)(?:/(.*))?", url.path)
        self.version, self.verb = int(match[2] or 4) if match else 0, match[3] if match else ""
        self.asked_for = match[1] if match else ""
        if self.asked_for not in self.server.shown or match is None:
            self.reply(404)
        elif self.version > 4:
            self.reply(self.unknown_version)
        else:
            self.key = unquote_to_bytes(match[4]) if match[4] else self.word("key")
            return self.let_in()
        return False

    # -- who may do what ----------------------------------------------------------------------------

    def known(self) -> bool:
        """Whether the right credentials were given, or none are asked for."""
        if not self.credentials:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        return (scheme.lower(), given) == (self.credentials[0].lower(), self.credentials[1])

    def denied(self) -> bool:
        changes = {"put": "readonly", "remove": "readonly appendonly", "remove-before": "readonly appendonly"}
        return self.mode in changes.get(self.verb, "").split()

    def let_in(self) -> bool:
        """Whether the request may be done; answered already when not."""
        refused = 401 if not self.known() else 403 if self.denied() else 0
        if refused:
            self.close_connection = True
            self.refuse(refused)
        return not refused

    def refuse(self, status: int) -> None:
        self.reply(status, **({"WWW_Authenticate": "Basic"} if status == 401 else {}), Connection="close")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            return b"".join(iter(self.chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def chunk(self) -> bytes:
        size = int(self.rfile.readline() or b"0", 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def do_GET(self) -> None:
        if not self.route():
            return None
        if self.verb != "key":
            return self.reply(405)
        content = self.store.contents.get(self.key)
        if content is None:
            return self.reply(404)
        return self.send(content[int(self.word("offset") or 0) :])

    def send(self, content: bytes) -> None:
        self.reply(200, content, "application/octet-stream", X_git_annex_data_length=str(len(content)))

    def do_POST(self) -> None:
        if not self.route():
            return None
        if self.verb == "keeplocked":
            return self.keeplocked()
        body = self.body()
        if self.verb != "gettimestamp" and b"--" not in self.key:
            return self.reply(400)
        return getattr(self, self.verb.replace("-", "_"))(body)

    def gettimestamp(self, body: bytes) -> None:
        self.say(timestamp=int(self.clock()))

    def checkpresent(self, body: bytes) -> None:
        self.say(present=self.store.has(self.key))

    def remove(self, body: bytes) -> None:
        self.say(removed=self.store.remove(self.key))

    def remove_before(self, body: bytes) -> None:
        self.say(removed=self.clock() < int(self.word("timestamp")) and self.store.remove(self.key))

    def putoffset(self, body: bytes) -> None:
        if self.store.has(self.key):
            return self.say(alreadyhave=True)
        return self.say(offset=len(self.store.partials.get(self.key, b"")))

    def put(self, body: bytes) -> None:
        length = self.headers.get(LENGTH)
        if length is None:
            return self.reply(400)
        if self.store.has(self.key):
            return self.say(stored=True)
        offset = int(self.word("offset") or 0)
        whole = self.store.partials.get(self.key, b"")[:offset] + body
        if len(body) < int(length):
            self.store.partials[self.key] = whole
            return self.say(stored=False)
        return self.say(stored=self.store.finish(self.key, whole, True))

    def lockcontent(self, body: bytes) -> None:
        if not self.store.lock(self.key):
            return self.say(locked=False)
        lockid = str(uuid.uuid4())
        self.server.locks[lockid] = self.key
        return self.say(locked=True, lockid=lockid)

    def keeplocked(self) -> None:
        while chunk := self.chunk():
            if b"true" in chunk:
                self.unlock(self.server.locks.pop(self.word("lockid").decode()))
        self.say(locked=False)

    def unlock(self, key: bytes) -> None:
        self.store.unlock(key)
