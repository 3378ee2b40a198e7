"""A tiny correct HTTP server passes, and each planted fault makes its requirement fail."""

from __future__ import annotations

import base64
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny import Store
from tiny_http import Handler, Server

from protocol_tests import REQUIREMENTS, Need, Patience, Plan, Role, Status, Subject, http, run, try_one

OURS = [one for one in REQUIREMENTS if Need.HTTP in one.needs]
PASSWORD = "s3cret:of-lab"
BASIC = ("Basic", base64.b64encode(f"lab:{PASSWORD}".encode()).decode())
BEARER = ("Bearer", "f0e1d2c3b4a5f0e1")


@dataclass(frozen=True)
class Fault:
    requirement: str
    what: str
    handler: type[Handler] = Handler
    store: type[Store] = Store
    mode: str = "write"
    login: tuple[str, str] | tuple[()] = ()
    tls: Callable[[ssl.SSLContext], object] | None = None
    scheme: str = "https"


FAULTS: list[Fault] = []
REMOVED: dict[bytes, bytes] = {}


def does(
    requirement: str, what: str, *, mode: str = "write", login: tuple[str, str] | tuple[()] = (), **changed: object
) -> None:
    of_store = {name: value for name, value in changed.items() if name in vars(Store) and name not in vars(Handler)}
    of_handler = {name: value for name, value in changed.items() if name not in of_store}
    FAULTS.append(
        Fault(
            requirement,
            what,
            type("BrokenHandler", (Handler,), of_handler),
            type("BrokenStore", (Store,), of_store),
            mode,
            login,
        )
    )


def says(requirement: str, what: str, verb: str, change: Callable[[dict], dict]) -> None:
    does(requirement, what, change=lambda self, asked, said: change(said) if asked == verb else said)


def without(name: str) -> Callable[[dict], dict]:
    return lambda said: {key: value for key, value in said.items() if key != name}


def any_method(self: Handler) -> None:
    if "/remove?" in self.path:
        self.do_POST()
    else:
        Handler.do_GET(self)


def every_length(self: Handler, body: bytes) -> None:
    if self.headers.get("X-git-annex-data-length") is None:
        self.say(stored=self.store.finish(self.key, body, True))
    else:
        Handler.put(self, body)


def in_place(said: dict) -> Callable[[Handler, bytes], None]:
    return lambda self, body: self.say(**said)


def _keep(self: Handler) -> None:
    self.__class__.do_GET = lambda self: self.send(REMOVED[self.key]) if self.route() else None  # type: ignore[method-assign]
    REMOVED.setdefault(self.key, self.store.contents.get(self.key, b""))


slots = {"left": 100}


def uses_a_slot(self: Handler, body: bytes) -> None:
    if not self.store.has(self.key):
        slots["left"] -= 1
    if slots["left"] <= 0:
        self.say(locked=False)
    else:
        Handler.lockcontent(self, body)


def no_such_place(self: Handler) -> bool:
    self.path = self.path.replace("/../99999999-9999-4999-8999-999999999999", "")
    return Handler.route(self)


says("H-001", "a word", "gettimestamp", lambda said: {"timestamp": "17"})
says("H-002", "always there", "checkpresent", lambda said: {"present": True})
says("H-002", "a word", "checkpresent", lambda said: {"present": str(said["present"])})
says("H-003", "no plusuuids", "put", without("plusuuids"))
says("H-003", "no plusuuids after removals", "remove", without("plusuuids"))
does("H-004", "400", unknown_version=400)
does("H-005", "answers for others", route=no_such_place)
does(
    "H-006",
    "anything is a key",
    reply=lambda self, status, *more, **heads: Handler.reply(self, 404 if status == 400 else status, *more, **heads),
)
does("H-007", "any method", do_GET=any_method)
does("H-008", "any length", put=every_length)
does("H-009", "brackets belong to the key", word=lambda self, name: self.words.get(name, b""))
does("H-010", "versions only", do_GET=lambda self: Handler.do_GET(self) if "/v" in self.path else self.reply(404))
does("H-011", "goes back", gettimestamp=lambda self, body: self.say(timestamp=1000 - int(self.clock() * 10)))


def counts_requests(self: Handler, body: bytes) -> None:
    self.server.count = getattr(self.server, "count", 0) + 1  # type: ignore[attr-defined]
    if self.server.count > 150:  # type: ignore[attr-defined]
        self.reply(500)
    else:
        Handler.checkpresent(self, body)


def bit_by_bit(self: Handler, body: bytes) -> None:
    self.send_response(200)
    self.end_headers()
    while True:
        time.sleep(0.2)
        self.wfile.write(b" ")
        self.wfile.flush()


def without_end(self: Handler, content: bytes) -> None:
    self.send_response(200)
    self.end_headers()
    while True:
        self.wfile.write(bytes(1 << 16))


def cut_short(self: Handler, content: bytes) -> None:
    self.send_response(200)
    self.send_header("Content-Length", str(len(content)))
    self.send_header("X-git-annex-data-length", str(len(content)))
    self.end_headers()
    self.wfile.write(content[:1000])
    self.wfile.flush()
    self.close_connection = True


does("H-001", "drips without end", gettimestamp=bit_by_bit)
does("H-012", "150 are enough", checkpresent=counts_requests)
does("H-020", "hangs up in the middle", send=cut_short)
does("H-020", "sends without end", send=without_end)
does("H-020", "loses a byte", send=lambda self, content: Handler.send(self, content[:-1]))
does("H-020", "no length", send=lambda self, content: self.reply(200, content))
does(
    "H-021",
    "offsets do not count",
    do_GET=lambda self: (setattr(self, "path", self.path.replace("offset=", "x=")), Handler.do_GET(self)),
)
does(
    "H-022",
    "makes something up",
    reply=lambda self, status, body=b"", *more, **heads: (
        Handler.reply(self, 200, b"absent") if status == 404 else Handler.reply(self, status, body, *more, **heads)
    ),
)
does("H-023", "does not look", fits=lambda self, key, body: True)
says("H-023", "does not say so", "put", lambda said: said | {"stored": True})
does(
    "H-024",
    "almost is enough",
    put=lambda self, body: self.say(stored=self.store.finish(self.key, body, True)),
    fits=lambda self, key, body: True,
)
does(
    "H-025",
    "once only",
    put=lambda self, body: self.say(stored=False) if self.store.has(self.key) else Handler.put(self, body),
)
does(
    "H-026",
    "no chunks",
    body=lambda self: b"" if self.headers.get("Transfer-Encoding") and Handler.body(self) else Handler.body(self),
)
says("H-027", "always there", "putoffset", lambda said: {"alreadyhave": True, "plusuuids": []})
says("H-028", "never there", "putoffset", lambda said: {"offset": 0})
says("H-028", "no plusuuids", "putoffset", without("plusuuids"))
says("H-029", "counts too much", "putoffset", lambda said: {"offset": 2000} if said.get("offset") else said)
does("H-030", "removes nothing", remove=in_place({"removed": True}))
does(
    "H-030",
    "absent is an error",
    remove=lambda self, body: self.say(removed=self.store.has(self.key) and self.store.remove(self.key)),
)
does("H-030", "sends what it has removed", remove=lambda self, body: (_keep(self), Handler.remove(self, body)))
does("H-031", "never in time", remove_before=in_place({"removed": False}))
does("H-032", "always in time", remove_before=lambda self, body: Handler.remove(self, body))
does(
    "H-033",
    "cuts off what is too much",
    finish=lambda self, key, body, valid: Store.finish(self, key, body[:1000], valid),
)
does(
    "H-034",
    "beyond the end is the beginning",
    send=lambda self, content: Handler.send(self, content or self.store.contents[self.key]),
)
does(
    "H-035",
    "the present second counts",
    remove_before=lambda self, body: self.say(
        removed=int(self.clock()) <= int(self.word("timestamp")) and self.store.remove(self.key)
    ),
)
does(
    "H-036",
    "nothing is not a content",
    finish=lambda self, key, body, valid: bool(body) and Store.finish(self, key, body, valid),
)
does("H-040", "locks what is not there", lock=lambda self, key: True)
says("H-041", "no lockid", "lockcontent", without("lockid"))
does("H-042", "locks in words", locked=lambda self, key: False)
does("H-043", "never unlocks", unlock=lambda self, key: None)
does("H-044", "uses slots up", lockcontent=uses_a_slot)


def runs_out(self: Store, key: bytes) -> bool:
    self.kept[key] = time.monotonic() + 0.4
    return self.has(key)


does("H-045", "runs out", lock=runs_out, unlock=lambda self, key: self.kept.pop(key, None))
does("H-046", "one unlocks for all", unlock=lambda self, key: self.store.locks.update({key: -self.store.locks[key]}))
does(
    "H-047",
    "a deadline beats a lock",
    remove_before=lambda self, body: self.say(removed=bool(self.store.contents.pop(self.key, True))),
)
does(
    "H-048",
    "locks what was there",
    remove=lambda self, key: bool(self.locks.update([b"was " + key])) or Store.remove(self, key),
    lock=lambda self, key: Store.lock(self, key) or bool(self.locks[b"was " + key]),
)

# -- roles ------------------------------------------------------------------------------------------------------------


def forgets(verb: str) -> Callable[[Handler], bool]:
    return lambda self: self.verb != verb and Handler.denied(self)


def too_late(verb: str) -> Callable[[Handler, int], None]:
    """Refuses when it has done it."""

    def refuse(self: Handler, status: int) -> None:
        if self.verb == verb:
            body = self.body()
            self.store.finish(self.key, body, True) if body else self.store.remove(self.key)
        Handler.refuse(self, status)

    return refuse


def overwrites(self: Handler, body: bytes) -> None:
    if self.store.has(self.key):
        self.store.contents[self.key] = body
    Handler.put(self, body)


does("H-060", "anybody may put", mode="readonly", denied=forgets("put"))
does("H-060", "refuses and stores", mode="readonly", refuse=too_late("put"))
does("H-060", "404 is no refusal", mode="readonly", refuse=lambda self, status: self.reply(404, Connection="close"))
does("H-061", "anybody may remove", mode="readonly", denied=forgets("remove"))
does("H-061", "who adds may remove", mode="appendonly", denied=forgets("remove"))
does("H-061", "refuses and removes", mode="appendonly", refuse=too_late("remove"))
does("H-062", "a deadline opens", mode="readonly", denied=forgets("remove-before"))
does("H-062", "a deadline opens for who adds", mode="appendonly", denied=forgets("remove-before"))
does("H-063", "nobody may look", mode="readonly", denied=lambda self: self.verb == "checkpresent")
does("H-063", "nobody may get", mode="appendonly", denied=lambda self: self.verb == "key")
does("H-064", "who adds may not", mode="appendonly", denied=lambda self: self.verb == "put")
does("H-065", "who adds overwrites", mode="appendonly", put=overwrites)

# -- credentials ------------------------------------------------------------------------------------------------------


def given(self: Handler) -> tuple[str, str]:
    scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
    return scheme, rest


def any_password(self: Handler) -> bool:
    scheme, rest = given(self)
    try:
        return scheme.lower() == "basic" and base64.b64decode(rest).startswith(b"lab:")
    except ValueError:
        return False


does("H-070", "any password will do", login=BASIC, known=any_password)
does("H-070", "any credentials will do", login=BEARER, known=lambda self: bool(given(self)[0]))
does(
    "H-070",
    "the beginning of a token will do",
    login=BEARER,
    known=lambda self: bool(given(self)[1]) and BEARER[1].startswith(given(self)[1]),
)
does("H-070", "more than a token will do", login=BEARER, known=lambda self: given(self)[1].startswith(BEARER[1]))
does("H-070", "any scheme will do", login=BEARER, known=lambda self: given(self)[1] == BEARER[1])
does(
    "H-070",
    "a name will do",
    login=BASIC,
    known=lambda self: Handler.known(self) or given(self)[1] == base64.b64encode(b"lab").decode(),
)
does("H-071", "403 says nothing", login=BASIC, refuse=lambda self, status: self.reply(403, Connection="close"))
does("H-071", "no WWW-Authenticate", login=BEARER, refuse=lambda self, status: self.reply(status, Connection="close"))
does("H-072", "Basic and nothing else", login=BASIC, known=lambda self: given(self) == BASIC)
does("H-072", "Bearer and nothing else", login=BEARER, known=lambda self: given(self) == BEARER)
does(
    "H-073",
    "repeats what was wrong",
    login=BEARER,
    refuse=lambda self, status: self.reply(
        status, given(self)[1].encode(), WWW_Authenticate="Bearer", Connection="close"
    ),
)
does(
    "H-073",
    "shows whom it let in",
    login=BASIC,
    reply=lambda self, status, *more, **heads: Handler.reply(self, status, *more, **heads, X_User=f"lab:{PASSWORD}"),
)

# -- TLS --------------------------------------------------------------------------------------------------------------


def over_tls(requirement: str, what: str, change: Callable[[ssl.SSLContext], object], scheme: str = "https") -> None:
    FAULTS.append(Fault(requirement, what, tls=change, scheme=scheme))


def every_version(context: ssl.SSLContext) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")


def as_ever(context: ssl.SSLContext) -> None:
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


over_tls("H-080", "a certificate of another", lambda context: context.load_cert_chain(certificates().other))
over_tls("H-081", "every version", every_version)
over_tls("H-082", "no TLS at all", as_ever, "http")


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: one of 127.0.0.1 and one of another host, each with its key."""

    right: Path
    other: Path


FOLDER: list[Path] = []


def certificates() -> Certificates:
    return Certificates(FOLDER[0] / "right.pem", FOLDER[0] / "other.pem")


@pytest.fixture(scope="module", autouse=True)
def _made_certificates(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDER[:] = [tmp_path_factory.mktemp("certificates")]
    for name, host in (("right", "IP:127.0.0.1"), ("other", "DNS:elsewhere.example")):
        made = FOLDER[0] / f"{name}.pem"
        words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tiny -keyout {made}.key"
        subprocess.run(
            ["openssl", *words.split(), "-addext", f"subjectAltName={host}", "-out", made],
            check=True,
            capture_output=True,
        )
        made.write_bytes(made.read_bytes() + Path(f"{made}.key").read_bytes())


@contextmanager
def serving(fault: Fault) -> Iterator[Subject]:
    """The server of *fault*, and beside it the right one with the same contents, which may write."""
    context = None
    if fault.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates().right)
        fault.tls(context)
    store = fault.store()
    handler = type("InMode", (fault.handler,), {"mode": fault.mode, "credentials": fault.login})
    with ExitStack() as running:
        server = Server(handler, store, tls=context if fault.scheme == "https" else None)
        writer = Server(Handler, store)
        running.callback(server.stop)
        running.callback(writer.stop)
        url, token = server.url, fault.login[1] if fault.login and fault.login[0] == "Bearer" else ""
        if fault.login == BASIC:
            url = url.replace("://", f"://lab:{PASSWORD}@")
        subject = http(url, token=token, ca=certificates().right if fault.tls else None)
        if fault.scheme == "http" and fault.tls:
            subject = replace(subject, has=subject.has | {Need.TLS})
        yield replace(subject, writer=http(writer.url))


def plan(fault: Fault, seconds: float) -> Plan:
    return Plan(patience=Patience(seconds), seed=3, role=Role(fault.mode), hold=0.8)


RIGHT = [
    Fault("", "write"),
    *(Fault("", mode, mode=mode) for mode in ("readonly", "appendonly")),
    *(Fault("", login[0], login=login) for login in (BASIC, BEARER)),
    Fault("", "who adds has a password", mode="appendonly", login=BASIC),
    Fault("", "TLS", tls=as_ever),
]


@pytest.mark.parametrize("fault", RIGHT, ids=lambda fault: fault.what)
def test_the_right_server_passes_every_requirement(fault: Fault) -> None:
    fit = [one for one in OURS if fault.mode != "write" or Role.WRITE in one.roles]
    if fault is not RIGHT[0]:  # which has seen the others
        fit = [one for one in fit if one.id >= "H-060" or Role(fault.mode) is not Role.WRITE]

    with serving(fault) as subject:
        results = run(subject, plan(fault, 3.0), fit)

    assert not [f"{r.requirement.id}: {r.reason}" for r in results if r.status is Status.FAIL]
    assert sum(r.status is Status.PASS for r in results) >= 3


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.requirement} {fault.what}")
def test_a_planted_fault_is_found_by_the_requirement_that_it_breaks(fault: Fault) -> None:
    (one,) = (found for found in OURS if found.id == fault.requirement)

    with serving(fault) as subject:
        result = try_one(subject, plan(fault, 1.5), one)

    assert result.status is Status.FAIL, f"{fault.what} was not noticed: {result.reason}"


def test_no_transcript_shows_what_is_secret() -> None:
    with serving(Fault("", "", login=BASIC)) as subject:
        results = run(subject, plan(Fault("", ""), 3.0), [one for one in OURS if Need.CREDENTIALS in one.needs])

    assert len(results) == 4
    shown = repr([result.transcript for result in results])
    assert "checkpresent" in shown
    assert PASSWORD not in shown
    assert BASIC[1] not in shown
    assert PASSWORD not in subject.name


def test_every_requirement_of_http_has_been_seen_failing() -> None:
    assert {fault.requirement for fault in FAULTS} == {one.id for one in OURS}
