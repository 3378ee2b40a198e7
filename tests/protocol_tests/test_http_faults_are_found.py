"""A tiny correct HTTP server passes, and each planted fault makes its requirement fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tiny import Store
from tiny_http import Handler, Server

from protocol_tests import REQUIREMENTS, Need, Patience, Plan, Status, http, run, try_one

OURS = [one for one in REQUIREMENTS if Need.HTTP in one.needs]


@dataclass(frozen=True)
class Fault:
    requirement: str
    what: str
    handler: type[Handler] = Handler
    store: type[Store] = Store


FAULTS: list[Fault] = []


def does(requirement: str, what: str, **changed: object) -> None:
    of_store = {name: value for name, value in changed.items() if name in vars(Store) and name not in vars(Handler)}
    of_handler = {name: value for name, value in changed.items() if name not in of_store}
    FAULTS.append(
        Fault(requirement, what, type("BrokenHandler", (Handler,), of_handler), type("BrokenStore", (Store,), of_store))
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
does("H-031", "never in time", remove_before=in_place({"removed": False}))
does("H-032", "always in time", remove_before=lambda self, body: Handler.remove(self, body))
does("H-040", "locks what is not there", lock=lambda self, key: True)
says("H-041", "no lockid", "lockcontent", without("lockid"))
does("H-042", "locks in words", locked=lambda self, key: False)
does("H-043", "never unlocks", unlock=lambda self, key: None)
does("H-044", "uses slots up", lockcontent=uses_a_slot)


@pytest.fixture
def served(request: pytest.FixtureRequest):
    fault: Fault = request.param
    server = Server(fault.handler, fault.store())
    yield fault, http(server.url)
    server.stop()


@pytest.mark.parametrize("served", [Fault("", "")], indirect=True, ids=["right"])
def test_the_right_server_passes_every_requirement(served) -> None:
    results = run(served[1], Plan(patience=Patience(3.0), seed=3), OURS)

    assert not [f"{r.requirement.id}: {r.reason}" for r in results if r.status is not Status.PASS]


@pytest.mark.parametrize("served", FAULTS, indirect=True, ids=lambda fault: f"{fault.requirement} {fault.what}")
def test_a_planted_fault_is_found_by_the_requirement_that_it_breaks(served) -> None:
    fault, subject = served
    (one,) = (found for found in OURS if found.id == fault.requirement)

    result = try_one(subject, Plan(patience=Patience(1.5), seed=3), one)

    assert result.status is Status.FAIL, f"{fault.what} was not noticed"
    assert result.transcript


def test_every_requirement_of_http_has_been_seen_failing() -> None:
    assert {fault.requirement for fault in FAULTS} == {one.id for one in OURS}
