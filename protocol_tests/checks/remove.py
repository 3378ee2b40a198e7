"""REMOVE: content that goes away."""

from __future__ import annotations

from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["absent", "comes_back", "gone", "others_stay", "without_key"]

_REMOVE = "P2P protocol, Removing content"
_LINES = (Need.LINES,)


@requirement(
    "P-120", "REMOVE of content that is there is answered by SUCCESS, and then it is gone.", _REMOVE, needs=_LINES
)
def gone(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"REMOVE " + content.key)
    must(answer.split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"), f"REMOVE is answered by {answer!r}")
    talk.must_lack(content.key, "its removal was a success")
    got = talk.get(content.key, done=b"FAILURE")
    must(not got.body, "GET still sends it")


@requirement("P-121", "REMOVE of absent content is answered by SUCCESS.", _REMOVE, needs=_LINES)
def absent(trial: Trial) -> None:
    talk = trial.talk()
    answer = talk.ask(b"REMOVE " + trial.contents.fresh().key)
    must(answer.split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"), f"REMOVE of absent content: {answer!r}")


@requirement("P-122", "Removed content can be stored again, from its first byte.", _REMOVE, needs=_LINES)
def comes_back(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.ask(b"REMOVE " + content.key)
    must(talk.offer(content.key) == 0, "the PUT begins in the middle")
    must(talk.deliver(content.body).startswith(b"SUCCESS"), "it cannot be stored again")
    talk.must_have(content.key, "it was stored again")


@requirement("P-123", "REMOVE leaves all other content where it is.", _REMOVE, once=True, needs=_LINES)
def others_stay(trial: Trial) -> None:
    one, other = trial.contents.fresh(), trial.contents.fresh()
    talk = trial.talk()
    talk.store(one)
    talk.store(other)
    talk.ask(b"REMOVE " + one.key)
    talk.must_have(other.key, "another key was removed")
    must(talk.get(other.key).body == other.body, "its bytes are others now")


@requirement("P-124", "REMOVE without a key is answered by ERROR.", "P2P protocol, Errors", once=True)
def without_key(trial: Trial) -> None:
    talk = trial.talk()
    answer = talk.ask(b"REMOVE")
    must(answer.startswith(b"ERROR"), f"REMOVE without a key is answered by {answer!r}")
    talk.must_live("REMOVE without a key")
