"""GET: content on its way to the client."""

from __future__ import annotations

from protocol_tests.keys import of
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Got, Talk

__all__ = [
    "absent",
    "absent_at_zero",
    "after_failure",
    "anything_but_a_verdict",
    "associated_file_is_a_hint",
    "at_once_after_the_verdict",
    "bad_offset",
    "beyond_the_end",
    "empty",
    "from_an_offset",
    "large",
    "negative_offset",
    "no_answer_to_the_verdict",
    "valid_follows",
    "whole",
]

_GET = "P2P protocol, Getting content from the server"
_LINES = (Need.LINES,)


def _same(got: Got, body: bytes, what: str) -> None:
    must(not got.refusal, f"{what}: refused with {got.refusal!r}")
    must(len(got.body) == len(body), f"{what}: {len(got.body)} bytes came, of {len(body)}")
    must(got.body == body, f"{what}: the bytes are others")
    must(got.validity in (b"", b"VALID"), f"{what}: {got.validity!r}")


@requirement(
    "P-030", "GET from 0 sends DATA with the whole length, and then just the stored bytes.", _GET, needs=_LINES
)
def whole(trial: Trial) -> None:
    content = trial.contents.fresh(5000)
    talk = trial.talk()
    talk.store(content)
    _same(talk.get(content.key), content.body, "GET 0")
    _same(talk.get(content.key), content.body, "GET 0 once more")


@requirement("P-031", "GET from an offset sends the bytes from there on.", _GET, needs=_LINES)
def from_an_offset(trial: Trial) -> None:
    content = trial.contents.fresh(5000)
    talk = trial.talk()
    talk.store(content)
    for offset in (1, 2500, 4999):
        _same(talk.get(content.key, offset), content.body[offset:], f"GET {offset}")


@requirement("P-032", "GET from the end, or from beyond it, sends DATA 0.", "measured: direct-put-new", needs=_LINES)
def beyond_the_end(trial: Trial) -> None:
    content = trial.contents.fresh(300)
    talk = trial.talk()
    talk.store(content)
    for offset in (300, 301, 100000):
        _same(talk.get(content.key, offset), b"", f"GET {offset} of 300 bytes")
    talk.must_live("GET from beyond the end")


@requirement(
    "P-033",
    "GET of absent content sends no bytes, and says INVALID or ERROR: it never looks like empty content.",
    "P2P protocol, Getting content from the server; measured: direct-get-absent-v1",
    since=1,
    needs=_LINES,
)
def absent(trial: Trial) -> None:
    talk = trial.talk()
    got = talk.get(trial.contents.fresh().key, done=b"FAILURE")
    must(
        bool(got.refusal) or got == Got(b"", b"INVALID"),
        f"GET of absent content: {len(got.body)} bytes, {got.validity!r}",
    )
    talk.must_live("GET of absent content")


@requirement(
    "P-034",
    "GET of absent content at version 0 sends DATA 0 or ERROR.",
    "measured: direct-get-absent-v0",
    until=0,
    needs=_LINES,
)
def absent_at_zero(trial: Trial) -> None:
    talk = trial.talk()
    got = talk.get(trial.contents.fresh().key, done=b"")
    must(not got.body, f"GET of absent content: {len(got.body)} bytes")
    if not got.refusal:
        talk.say(b"FAILURE")
    talk.must_live("GET of absent content")


@requirement("P-035", "The bytes of a GET are followed by VALID.", _GET, since=1, needs=_LINES)
def valid_follows(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    got = talk.get(content.key)
    must(got.validity == b"VALID", f"stored content is sent as {got.validity!r}")


@requirement("P-036", "The client's SUCCESS at the end of a GET is not answered.", _GET, needs=_LINES)
def no_answer_to_the_verdict(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.get(content.key)
    must(talk.quiet(), "something is said after the client's SUCCESS")
    talk.must_live("a GET")
    talk.must_have(content.key, "it was sent a moment ago")


@requirement(
    "P-037", "After the client's FAILURE the content is still there, and the session goes on.", _GET, needs=_LINES
)
def after_failure(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.get(content.key, done=b"FAILURE")
    talk.must_have(content.key, "the client could not use it, that is all")
    _same(talk.get(content.key), content.body, "GET after FAILURE")


@requirement(
    "P-038",
    "Whatever the client says in place of SUCCESS or FAILURE is answered by ERROR, and the session goes on.",
    "measured: client-disconnect-after-get",
)
def anything_but_a_verdict(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.get(content.key, done=b"")
    answer = talk.ask(b"CHECKPRESENT " + content.key)
    must(answer.startswith(b"ERROR"), f"CHECKPRESENT in place of the verdict is answered by {answer!r}")
    talk.must_live("a request in place of the verdict")


@requirement("P-039", "A megabyte comes back as it was stored.", _GET, once=True, needs=_LINES)
def large(trial: Trial) -> None:
    content = trial.contents.fresh(1 << 20)
    talk = trial.talk()
    talk.store(content)
    _same(talk.get(content.key), content.body, "GET 0")
    _same(talk.get(content.key, 1000003), content.body[1000003:], "GET 1000003")


@requirement("P-040", "Content of no bytes can be stored and read.", "measured: direct-put-empty-key", needs=_LINES)
def empty(trial: Trial) -> None:
    content = of(b"", "." + trial.contents.name().decode()[:4])
    talk = trial.talk()
    if not talk.present(content.key):
        talk.store(content)
    talk.must_have(content.key, "it was stored")
    _same(talk.get(content.key), b"", "GET 0")


@requirement(
    "P-041",
    "The associated file is a hint: whatever it is, the content of the key is sent.",
    "P2P protocol, Getting content from the server; measured: direct-get-absent-v4",
    once=True,
    needs=_LINES,
)
def associated_file_is_a_hint(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    for name in (b"", b"a.txt", b"some%file", b"d/e%%f", b"../x", "é.bin".encode(), b"\xff\xfe"):
        _same(talk.get(content.key, name=name), content.body, f"GET for {name!r}")


@requirement(
    "P-042",
    "GET from a negative offset is refused before any byte is promised, and the session goes on.",
    "P2P protocol, Errors; measured: direct-get-absent-v4",
    once=True,
)
def negative_offset(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"GET -5  " + content.key)
    must(answer.startswith(b"ERROR"), f"GET -5 is answered by {answer!r}")
    talk.must_live("GET from a negative offset")


@requirement(
    "P-043",
    "GET with an offset that is no number is answered by ERROR.",
    "P2P protocol, Errors",
    once=True,
    needs=_LINES,
)
def bad_offset(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    for offset in (b"abc", b"1.5"):
        answer = talk.ask(b"GET %s  %s" % (offset, content.key))
        must(answer.startswith(b"ERROR"), f"GET {offset!r} is answered by {answer!r}")


@requirement("P-044", "The next request may ride in the packet that ends a GET.", _GET, needs=_LINES)
def at_once_after_the_verdict(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk: Talk = trial.talk()
    talk.store(content)
    talk.get(content.key, done=b"")
    talk.expect(b"SUCCESS", b"SUCCESS", b"CHECKPRESENT " + content.key)
