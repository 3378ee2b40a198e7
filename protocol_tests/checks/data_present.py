"""DATA-PRESENT: the content got there by another way."""

from __future__ import annotations

from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["claim", "found", "too_early"]

_PUT = "P2P protocol, Storing content on the server"


@requirement(
    "P-090", "DATA-PRESENT for content that is not there is answered by FAILURE.", _PUT, since=4, needs=(Need.LINES,)
)
def claim(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    talk.expect(b"FAILURE", b"DATA-PRESENT")
    talk.must_lack(content.key, "it was only claimed")


@requirement("P-091", "DATA-PRESENT for content that has got there meanwhile is answered by SUCCESS.", _PUT, since=4)
def found(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    other = trial.talk(client=1)
    answer = other.ask(b"PUT  " + content.key)
    if not answer.startswith(b"PUT-FROM"):  # one at a time
        return
    other.deliver(content.body)
    answer = talk.ask(b"DATA-PRESENT")
    must(answer.startswith(b"SUCCESS"), f"content that is there is answered by {answer!r}")


@requirement(
    "P-092",
    "Before version 4 DATA-PRESENT is answered by ERROR, and the session goes on.",
    "measured: direct-put-data-present",
    until=3,
)
def too_early(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.ask(b"DATA-PRESENT")
    must(answer.startswith(b"ERROR"), f"DATA-PRESENT is answered by {answer!r}")
    talk.must_live("DATA-PRESENT")
