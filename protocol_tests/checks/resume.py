"""PUT that goes on where another one broke off."""

from __future__ import annotations

from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["asking_keeps_the_partial", "bad_begin", "bad_end", "client_vanishes", "goes_on", "short_of_the_end"]

_PUT = "P2P protocol, Storing content on the server"


def _broken_off(trial: Trial, sent: int, size: int = 4000, *, wrong: bool = False) -> tuple[bytes, bytes]:
    """A content of which *sent* bytes arrived before the client vanished; *wrong* ones."""
    content = trial.contents.fresh(size)
    talk = trial.talk()
    talk.offer(content.key)
    talk.send(b"DATA %d\n" % size)
    talk.send(bytes(sent) if wrong else content.body[:sent])
    trial.vanish(talk)
    return content.key, content.body


@requirement("P-080", "A client that vanishes in the middle of its DATA leaves nothing that looks stored.", _PUT)
def client_vanishes(trial: Trial) -> None:
    key, _ = _broken_off(trial, 1500)
    talk = trial.talk(client=1)
    talk.must_lack(key, "only 1500 of 4000 bytes were sent")
    got = talk.get(key, done=b"FAILURE")
    must(not got.body or got.validity == b"INVALID", "GET sends what is not whole")


@requirement(
    "P-081",
    "PUT-FROM never asks for more than was received, and the bytes from there complete the content.",
    "measured: direct-put-partial-then-putoffset",
)
def goes_on(trial: Trial) -> None:
    key, body = _broken_off(trial, 1500)
    talk = trial.talk(client=1)
    offset = talk.offer(key, again=True)
    must(offset <= 1500, f"1500 bytes were sent, and the server asks from {offset} on")
    answer = talk.deliver(body[offset:])
    must(answer.startswith(b"SUCCESS"), f"the rest is answered by {answer!r}")
    must(talk.get(key).body == body, "other bytes were stored")


@requirement(
    "P-082",
    "A wrong end of content that was begun is refused, and the content can be stored afterwards.",
    "measured: direct-put-partial-corrupt",
)
def bad_end(trial: Trial) -> None:
    key, body = _broken_off(trial, 1500)
    talk = trial.talk(client=1)
    offset = talk.offer(key, again=True)
    answer = talk.deliver(bytes(len(body) - offset))
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"a wrong end is answered by {answer!r}")
    talk.must_lack(key, "its end was wrong")
    offset = talk.offer(key, again=True)
    must(talk.deliver(body[offset:]).startswith(b"SUCCESS"), "it cannot be stored any more")
    must(talk.get(key).body == body, "other bytes were stored")


@requirement(
    "P-083",
    "DATA 0 and INVALID after PUT-FROM ask for the offset only: FAILURE, and what was received is kept.",
    "measured: direct-put-partial-then-putoffset",
    since=1,
)
def asking_keeps_the_partial(trial: Trial) -> None:
    key, body = _broken_off(trial, 1500)
    talk = trial.talk(client=1)
    offset = talk.offer(key, again=True)
    answer = talk.deliver(b"", b"INVALID")
    must(answer == b"FAILURE", f"DATA 0 and INVALID are answered by {answer!r}")
    again = talk.offer(key)
    must(again == offset, f"the offset was {offset}, and is {again} after it was asked for")
    must(talk.deliver(body[again:]).startswith(b"SUCCESS"), "it cannot be completed any more")


@requirement(
    "P-084", "Too few bytes after PUT-FROM, with VALID, are not stored.", "measured: direct-put-short", since=1
)
def short_of_the_end(trial: Trial) -> None:
    key, body = _broken_off(trial, 1500)
    talk = trial.talk(client=1)
    offset = talk.offer(key, again=True)
    answer = talk.deliver(body[offset:-1])
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"all but one byte is answered by {answer!r}")
    talk.must_lack(key, "its last byte is missing")


@requirement(
    "P-085",
    "The right end of content that was begun with wrong bytes is refused, and the content can be stored afterwards.",
    "measured: direct-put-partial-corrupt",
    since=1,
)
def bad_begin(trial: Trial) -> None:
    key, body = _broken_off(trial, 1500, wrong=True)
    talk = trial.talk(client=1)
    offset = talk.offer(key, again=True)
    if offset:
        answer = talk.deliver(body[offset:])
        must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"{offset} wrong bytes are kept: {answer!r}")
        talk.must_lack(key, "its first bytes were wrong")
        offset = talk.offer(key, again=True)
    must(talk.deliver(body[offset:]).startswith(b"SUCCESS"), "it cannot be stored any more")
    must(talk.get(key).body == body, "other bytes were stored")
