"""PUT: content on its way to the server."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.keys import of, under_every_hash
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = [
    "again",
    "already_there",
    "at_zero",
    "at_zero_wrong",
    "before_plus",
    "begins_at_zero",
    "client_gives_up",
    "content_may_look_like_lines",
    "in_place_of_data",
    "in_place_of_validity",
    "invalid_and_wrong",
    "invalid_but_right",
    "invalid_without_hash",
    "large",
    "one_only",
    "other_keys_stay_away",
    "stored",
    "too_long",
    "too_short",
    "two_at_once",
    "unverifiable",
    "wrong_bytes",
    "wrong_under_any_hash",
]

_PUT = "P2P protocol, Storing content on the server"
_LINES = (Need.LINES,)


@requirement(
    "P-050", "PUT of content that is not there, nor any part of it, is answered by PUT-FROM 0.", _PUT, needs=_LINES
)
def begins_at_zero(trial: Trial) -> None:
    talk = trial.talk()
    offset = talk.offer(trial.contents.fresh().key)
    must(offset == 0, f"the server asks for byte {offset} of what it never saw")


@requirement(
    "P-051", "All bytes and VALID are answered by SUCCESS, and then the content is there.", _PUT, since=1, needs=_LINES
)
def stored(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    talk = trial.talk()
    talk.store(content)
    talk.must_have(content.key, "SUCCESS was said")
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "P-052",
    "PUT of content that is there is answered by ALREADY-HAVE, and nothing is to be sent.",
    _PUT,
    needs=_LINES,
)
def already_there(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"PUT  " + content.key)
    must(answer.split(b" ")[0] in (b"ALREADY-HAVE", b"ALREADY-HAVE-PLUS"), f"PUT is answered by {answer!r}")
    talk.must_have(content.key, "ALREADY-HAVE was said")


@requirement(
    "P-053",
    "Before version 2 no answer has -PLUS.",
    "P2P protocol, Protocol version",
    until=1,
    needs=_LINES,
)
def before_plus(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.expect(b"PUT-FROM 0", b"PUT  " + content.key)
    must(talk.deliver(content.body) == b"SUCCESS", "the end of a PUT is something else than SUCCESS")
    talk.expect(b"ALREADY-HAVE", b"PUT  " + content.key)
    talk.expect(b"SUCCESS", b"REMOVE " + content.key)


@requirement(
    "P-054",
    "Bytes that do not have the key's hash are answered by FAILURE and are not stored.",
    _PUT,
    since=1,
    needs=_LINES,
)
def wrong_bytes(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.damaged())
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"wrong bytes are answered by {answer!r}")
    talk.must_lack(content.key, "only wrong bytes were sent")


@requirement("P-055", "After refused bytes the same content can be stored.", _PUT, needs=_LINES)
def again(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    talk = trial.talk()
    talk.offer(content.key)
    talk.deliver(content.damaged())
    talk.store(content)
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "P-056",
    "The answer to INVALID tells what CHECKPRESENT tells, also when the bytes have the right hash.",
    "measured: direct-put-invalid",
    since=1,
    needs=_LINES,
)
def invalid_but_right(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.body, b"INVALID")
    said = answer.split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS")
    must(said or answer == b"FAILURE", f"INVALID is answered by {answer!r}")
    must(talk.present(content.key) == said, f"{answer!r} was said, and CHECKPRESENT says the contrary")


@requirement("P-057", "Wrong bytes with INVALID are not stored.", _PUT, since=1, needs=_LINES)
def invalid_and_wrong(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.damaged(), b"INVALID")
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"wrong bytes and INVALID are answered by {answer!r}")
    talk.must_lack(content.key, "its bytes were wrong")


@requirement(
    "P-058",
    "Content without a hash that its sender calls INVALID is not stored: nobody else could find out.",
    "P2P protocol, Storing content on the server; measured: direct-put-invalid",
    since=1,
)
def invalid_without_hash(trial: Trial) -> None:
    content = trial.contents.unverifiable()
    talk = trial.talk()
    if not _begins(talk, content.key):
        return
    answer = talk.deliver(content.body, b"INVALID")
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"INVALID is answered by {answer!r}")
    talk.must_lack(content.key, "the sender said INVALID")


@requirement(
    "P-059", "At version 0 the bytes of a PUT are all: they are answered at once.", _PUT, until=0, needs=_LINES
)
def at_zero(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.expect(b"PUT-FROM 0", b"PUT  " + content.key)
    talk.send(b"DATA %d\n" % len(content.body) + content.body)
    must(talk.hear() == b"SUCCESS", "the bytes are not answered by SUCCESS")
    talk.must_have(content.key, "SUCCESS was said")


@requirement(
    "P-060", "At version 0 too, wrong bytes are answered by FAILURE.", "measured: direct-put-v0", until=0, needs=_LINES
)
def at_zero_wrong(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    must(talk.deliver(content.damaged()) == b"FAILURE", "wrong bytes are not answered by FAILURE")
    talk.must_lack(content.key, "its bytes were wrong")


@requirement(
    "P-061", "Fewer bytes than the key has are not stored.", "measured: direct-put-short", since=1, needs=_LINES
)
def too_short(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.body[:900])
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"900 of 1000 bytes are answered by {answer!r}")
    talk.must_lack(content.key, "it was sent in part only")


@requirement("P-062", "More bytes than the key has are not stored.", "measured: direct-put-long", since=1, needs=_LINES)
def too_long(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    talk = trial.talk()
    talk.offer(content.key)
    try:
        answer = talk.deliver(content.body + b"more")
        must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"1004 bytes of 1000 are answered by {answer!r}")
    except Gone:  # who no longer knows what is a line may hang up
        pass
    trial.talk(client=1).must_lack(content.key, "too much was sent")


@requirement("P-063", "A megabyte can be stored.", _PUT, once=True, needs=_LINES)
def large(trial: Trial) -> None:
    content = trial.contents.fresh((1 << 20) + 13)
    talk = trial.talk()
    talk.store(content)
    talk.must_have(content.key, "SUCCESS was said")


@requirement("P-064", "Content may look like lines of the protocol.", "P2P protocol, Binary data", needs=_LINES)
def content_may_look_like_lines(trial: Trial) -> None:
    lines = b"VALID\nSUCCESS\nREMOVE x\r\nDATA 5\n\0ERROR\n" + trial.contents.name()
    content = of(lines * 3 + b"\nINVALID\n")
    talk = trial.talk()
    talk.store(content)
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement("P-065", "Storing one key does not make another one present.", _PUT, once=True, needs=_LINES)
def other_keys_stay_away(trial: Trial) -> None:
    one, other = trial.contents.fresh(), trial.contents.fresh()
    talk = trial.talk()
    talk.store(one)
    talk.must_lack(other.key, "another key was stored")
    must(talk.offer(other.key) == 0, "a PUT of it begins in the middle")


@requirement(
    "P-066",
    "The client's ERROR in place of DATA ends the PUT; nothing is stored and nothing is answered.",
    "measured: direct-put-nondata-reply",
)
def client_gives_up(trial: Trial) -> None:
    content = trial.contents.fresh()
    there = trial.contents.fresh()
    talk = trial.talk()
    talk.store(there)
    talk.offer(content.key)
    talk.say(b"ERROR cannot read it")
    must(talk.quiet(), "ERROR is answered")
    talk.must_live("ERROR in place of DATA")
    talk.must_have(there.key, "it was stored before")
    talk.must_lack(content.key, "nothing was sent")


@requirement(
    "P-067",
    "Any other message in place of DATA is answered by ERROR, and the session goes on.",
    "measured: direct-put-nondata-reply",
)
def in_place_of_data(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    for word in (b"CHECKPRESENT " + content.key, b"VALID"):
        talk.offer(content.key)
        answer = talk.ask(word)
        must(answer.startswith(b"ERROR"), f"{word[:12]!r} in place of DATA is answered by {answer!r}")
        talk.must_live("a message in place of DATA")
    talk.must_lack(content.key, "nothing was sent")


@requirement(
    "P-068",
    "A word that is neither VALID nor INVALID is answered by ERROR and then by the result, which is true.",
    "measured: direct-put-validity-unparsed",
    since=1,
)
def in_place_of_validity(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.body, b"PERHAPS")
    must(answer.startswith(b"ERROR"), f"PERHAPS is answered by {answer!r}")
    result = talk.hear()
    must(result in (b"SUCCESS", b"FAILURE"), f"after the ERROR {result!r} is said in place of the result")
    must(
        talk.present(content.key) == (result == b"SUCCESS"), f"{result!r} was said, and CHECKPRESENT says the contrary"
    )


@requirement(
    "P-069",
    "Content without a hash is refused before it is sent, or stored as it comes.",
    "measured: direct-put-nosize-worm-url",
    since=1,
)
def unverifiable(trial: Trial) -> None:
    content = trial.contents.unverifiable(name=b"-a%b")
    talk = trial.talk()
    if not _begins(talk, content.key):
        return
    must(talk.deliver(content.body) == b"SUCCESS", "what was asked for is refused")
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "P-070",
    "Of two that put the same content at once, at least one succeeds, and the content is right.",
    "measured: direct-put-concurrent-sameclient",
    since=1,
)
def two_at_once(trial: Trial) -> None:
    content = trial.contents.fresh(2000)
    first, second = trial.talk(), trial.talk(client=1)
    first.offer(content.key)
    second.say(b"PUT  " + content.key)
    second.quiet(0.5)  # both are under way now, unless the second has to wait for the first
    must(first.deliver(content.body).startswith(b"SUCCESS"), "the first of them fails")
    try:
        answer = second.hear()
        if answer.startswith(b"PUT-FROM "):
            second.deliver(content.body[int(answer.removeprefix(b"PUT-FROM ")) :])
        else:
            must(answer.startswith((b"ALREADY-HAVE", b"ERROR")), f"the second is answered by {answer!r}")
    except Gone:
        pass
    third = trial.talk(client=2)
    must(third.get(content.key).body == content.body, "the content is not right afterwards")


@requirement("P-071", "A PUT is answered once: nothing follows its result.", _PUT, needs=_LINES)
def one_only(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    must(talk.quiet(), "something follows the result")
    talk.must_live("a PUT")
    talk.must_have(content.key, "it was stored a moment ago")


@requirement(
    "P-072",
    "Whatever hash the key names, wrong bytes are refused; right ones that were asked for are stored.",
    _PUT,
    since=1,
    once=True,
)
def wrong_under_any_hash(trial: Trial) -> None:
    talk = trial.talk()
    for content in under_every_hash(trial.contents.body(500)):
        name = content.key.partition(b"-")[0].decode()
        if not _begins(talk, content.key):
            continue
        answer = talk.deliver(content.damaged())
        must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"wrong bytes of a {name} key: {answer!r}")
        talk.must_lack(content.key, f"only wrong bytes of the {name} key were sent")
        talk.store(content)
        must(talk.get(content.key).body == content.body, f"under the {name} key are other bytes")


def _begins(talk: Talk, key: bytes) -> bool:
    answer = talk.ask(b"PUT  " + key)
    must(answer.startswith((b"PUT-FROM 0", b"ERROR")), f"PUT is answered by {answer!r}")
    return answer.startswith(b"PUT-FROM")
