"""Where lines and contents begin and end."""

from __future__ import annotations

import time
from typing import Final

from protocol_tests.channel import Gone
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import LONGEST

__all__ = [
    "byte_by_byte",
    "carriage_return",
    "cut_in_a_line",
    "leaves_when_the_client_leaves",
    "line_feed_only",
    "long_session",
    "longer_than_the_longest",
    "longest_line",
    "many_in_one_packet",
    "raw_bytes_in_keys",
    "tab",
    "too_long_a_line",
    "validity_in_the_same_packet",
]

_LINES = (Need.LINES,)
_LONG: Final = 30.0  # seconds; a slow server is asked less
_LINE = "P2P protocol, line-based serialization"


@requirement("P-160", "A request may arrive byte by byte.", _LINE, once=True, needs=_LINES)
def byte_by_byte(trial: Trial) -> None:
    content = trial.contents.fresh(30)
    talk = trial.talk()
    for byte in b"PUT  " + content.key + b"\n":
        talk.send(bytes([byte]))
    must(talk.hear() == b"PUT-FROM 0", "a PUT in single bytes is not understood")
    for byte in b"DATA 30\n" + content.body + (b"VALID\n" if trial.version else b""):
        talk.send(bytes([byte]))
    must(talk.hear().startswith(b"SUCCESS"), "content in single bytes is not stored")
    talk.must_have(content.key, "it was stored")


@requirement(
    "P-161", "Requests that arrive in one packet are all answered, in their order.", _LINE, once=True, needs=_LINES
)
def many_in_one_packet(trial: Trial) -> None:
    there, absent = trial.contents.fresh(), trial.contents.fresh()
    talk = trial.talk()
    talk.store(there)
    talk.say(*(b"CHECKPRESENT " + key for key in (there.key, absent.key, absent.key, there.key)))
    answers = [talk.hear() for _ in range(4)]
    must(answers == [b"SUCCESS", b"FAILURE", b"FAILURE", b"SUCCESS"], f"four requests are answered by {answers!r}")


@requirement(
    "P-162", "DATA, the bytes and VALID may arrive in one packet, with the next request.", _LINE, since=1, needs=_LINES
)
def validity_in_the_same_packet(trial: Trial) -> None:
    content = trial.contents.fresh(100)
    talk = trial.talk()
    talk.offer(content.key)
    talk.send(b"DATA 100\n" + content.body + b"VALID\nCHECKPRESENT " + content.key + b"\n")
    must(talk.hear().split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"), "the PUT fails")
    must(talk.hear() == b"SUCCESS", "the request behind it is not answered as it should be")


@requirement(
    "P-163",
    "A carriage return before the line feed does not count.",
    "measured: client-vs-crlf",
    once=True,
    roles=ANY_ROLE,
)
def carriage_return(trial: Trial) -> None:
    talk = trial.talk()
    talk.send(b"CHECKPRESENT " + trial.contents.fresh().key + b"\r\n")
    must(talk.hear() == b"FAILURE", "CRLF is not taken for the end of a line")


@requirement("P-164", "The server ends its lines with a line feed alone.", _LINE, once=True, needs=_LINES)
def line_feed_only(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    answers = [talk.ask(b"CHECKPRESENT " + content.key), talk.ask(b"PUT  " + content.key)]
    must(not any(b"\r" in answer for answer in answers), f"{answers!r}")


@requirement("P-165", "Words may be separated by a tab.", "measured: direct-put-nosize-worm-url", once=True)
def tab(trial: Trial) -> None:
    talk = trial.talk()
    talk.expect(b"FAILURE", b"CHECKPRESENT\t" + trial.contents.fresh().key)


@requirement(
    "P-166", "A line of 32767 characters is read.", "measured: direct-hugeline-32767", once=True, roles=ANY_ROLE
)
def longest_line(trial: Trial) -> None:
    talk = trial.talk()
    begin = b"CHECKPRESENT WORM-s1-m1--"
    answer = talk.ask(begin + b"x" * (LONGEST - len(begin)))
    must(
        answer == b"FAILURE" or answer.startswith(b"ERROR"), f"a line of {LONGEST} characters is answered by {answer!r}"
    )
    talk.must_live(f"a line of {LONGEST} characters")


@requirement(
    "P-167",
    "A longer line is not waited for without end: it is answered by ERROR or ends the session.",
    "measured: direct-hugeline-100000",
    once=True,
    roles=ANY_ROLE,
)
def too_long_a_line(trial: Trial) -> None:
    talk = trial.talk()
    try:
        talk.send(b"CHECKPRESENT WORM-s1-m1--" + b"x" * 200000)
        answer = talk.hear()
    except Gone:
        return
    must(answer.startswith(b"ERROR"), f"a line of 200000 characters without an end is answered by {answer!r}")


@requirement(
    "P-168",
    "When the client leaves, the server leaves too, with exit code 0.",
    "measured: direct-auth-version",
    once=True,
    needs=(Need.LINES, Need.PROCESS),
    roles=ANY_ROLE,
)
def leaves_when_the_client_leaves(trial: Trial) -> None:
    talk = trial.talk()
    process = trial.process(talk)
    process.stop_sending()
    must(talk.ended(), "it goes on when its client has left")
    code = process.exit_code(trial.patience.seconds)
    must(code == 0, f"its exit code is {code}")


@requirement("P-169", "A client that vanishes in the middle of a line has asked nothing.", _LINE, once=True)
def cut_in_a_line(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.send(b"REMOVE " + content.key)  # no end of line
    trial.vanish(talk)
    trial.talk(client=1).must_have(content.key, "the line that asked for its removal never ended")


@requirement(
    "P-170",
    "Keys are bytes: blanks, bytes that are no UTF-8 and %% come back under the same key only.",
    "measured: direct-put-nosize-worm-url",
    since=1,
)
def raw_bytes_in_keys(trial: Trial) -> None:
    for name in (b" a b", b"-\xff\xfe", "-é".encode(), b"-%20&s;"):
        content = trial.contents.unverifiable(name=name)
        talk = trial.talk()
        if not talk.ask(b"PUT  " + content.key).startswith(b"PUT-FROM"):
            talk.must_live("a PUT that was refused")
            continue
        must(talk.deliver(content.body) == b"SUCCESS", f"a name with {name!r} cannot be stored")
        must(talk.get(content.key).body == content.body, f"under a name with {name!r} are other bytes")
        for other in (content.key.removesuffix(name), content.key[:-1]):
            talk.must_lack(other, f"only a name with {name!r} was stored")


@requirement(
    "P-171",
    "A line of more than 32768 characters is refused, also when it ends: by ERROR or the end of the session.",
    "measured: direct-hugeline-32769",
    once=True,
    roles=ANY_ROLE,
)
def longer_than_the_longest(trial: Trial) -> None:
    talk = trial.talk()
    begin = b"CHECKPRESENT WORM-s1-m1--"
    try:
        answer = talk.ask(begin + b"x" * (LONGEST + 2 - len(begin)))
    except Gone:
        return
    must(answer.startswith(b"ERROR"), f"a line of {LONGEST + 2} characters is answered by {answer!r}")


@requirement(
    "P-172",
    "A session has no last request: hundreds are answered, one after the other.",
    "P2P protocol, Protocol version",
    once=True,
    needs=_LINES,
)
def long_session(trial: Trial) -> None:
    end = time.monotonic() + _LONG
    talk, absent = trial.talk(), trial.contents.fresh().key
    for number in range(40):
        content = trial.contents.fresh(50)
        talk.store(content)
        must(talk.get(content.key).body == content.body, f"content number {number} comes back as another")
        for _ in range(10):
            talk.must_lack(absent, "nobody stored it")
        talk.must_have(content.key, "it was stored")
        talk.ask(b"REMOVE " + content.key)
        if time.monotonic() > end:
            return
