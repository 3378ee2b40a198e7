"""GETTIMESTAMP and REMOVE-BEFORE: content that goes away in time or not at all."""

from __future__ import annotations

import time

from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = [
    "absent",
    "clock_goes_on",
    "clock_is_one",
    "in_time",
    "later_sessions",
    "malformed",
    "number",
    "right_now",
    "too_late",
    "without_key",
]

_REMOVE = "P2P protocol, Removing content"
_LINES = (Need.LINES,)


@requirement(
    "P-130", "GETTIMESTAMP is answered by TIMESTAMP and whole seconds.", _REMOVE, since=3, needs=_LINES, roles=ANY_ROLE
)
def number(trial: Trial) -> None:
    talk = trial.talk()
    talk.timestamp()
    talk.must_live("GETTIMESTAMP")


@requirement(
    "P-131",
    "The timestamp counts seconds, and never goes back.",
    _REMOVE,
    since=3,
    once=True,
    needs=_LINES,
    roles=ANY_ROLE,
)
def clock_goes_on(trial: Trial) -> None:
    talk = trial.talk()
    before, first = time.monotonic(), talk.timestamp()
    said = [first]
    while time.monotonic() < before + 1.2:
        time.sleep(0.1)
        said.append(talk.timestamp())
    last, passed = said[-1], time.monotonic() - before
    must(said == sorted(said), f"it goes back: {said}")
    must(first < last <= first + passed + 1, f"{first} became {last} within {passed:.1f} s")


@requirement("P-132", "All sessions have the same clock.", _REMOVE, since=3, once=True, needs=_LINES, roles=ANY_ROLE)
def clock_is_one(trial: Trial) -> None:
    one, other = trial.talk(), trial.talk(client=1)
    before, between, after = one.timestamp(), other.timestamp(), one.timestamp()
    must(before <= between <= after, f"two sessions say {before}, {between}, {after} one after the other")


@requirement("P-133", "REMOVE-BEFORE a moment that has not come yet removes.", _REMOVE, since=3, needs=_LINES)
def in_time(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"REMOVE-BEFORE %d %s" % (talk.timestamp() + 300, content.key))
    must(answer.split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"), f"REMOVE-BEFORE is answered by {answer!r}")
    talk.must_lack(content.key, "it was removed in time")


@requirement("P-134", "REMOVE-BEFORE a moment that has passed removes nothing.", _REMOVE, since=3, needs=_LINES)
def too_late(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    for late in (talk.timestamp() - 10, 0):
        answer = talk.ask(b"REMOVE-BEFORE %d %s" % (max(0, late), content.key))
        must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"REMOVE-BEFORE the past is answered by {answer!r}")
        talk.must_have(content.key, "the moment has passed")


@requirement(
    "P-135",
    "REMOVE-BEFORE the present second removes nothing: it is not before it.",
    "measured: direct-remove-before",
    since=3,
    needs=_LINES,
)
def right_now(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"REMOVE-BEFORE %d %s" % (talk.timestamp(), content.key))
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"REMOVE-BEFORE now is answered by {answer!r}")
    talk.must_have(content.key, "the moment was not before now")


@requirement(
    "P-136",
    "REMOVE-BEFORE of absent content is answered by SUCCESS, whatever the moment.",
    "measured: direct-remove-before",
    since=3,
)
def absent(trial: Trial) -> None:
    talk = trial.talk()
    for moment in (0, talk.timestamp() + 300):
        talk.expect(b"SUCCESS", b"REMOVE-BEFORE %d %s" % (moment, trial.contents.fresh().key))


@requirement(
    "P-137",
    "REMOVE-BEFORE with a malformed moment is answered by ERROR and removes nothing.",
    "P2P protocol, Errors",
    since=3,
    once=True,
)
def malformed(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    for moment in (b"abc", b"1.5", b""):
        answer = talk.ask(b"REMOVE-BEFORE %s %s" % (moment, content.key))
        must(answer.startswith(b"ERROR"), f"REMOVE-BEFORE {moment!r} is answered by {answer!r}")
    talk.must_have(content.key, "no moment was said")


@requirement("P-138", "REMOVE-BEFORE without a key is answered by ERROR.", "P2P protocol, Errors", since=3, once=True)
def without_key(trial: Trial) -> None:
    talk = trial.talk()
    answer = talk.ask(b"REMOVE-BEFORE 99999999")
    must(answer.startswith(b"ERROR"), f"REMOVE-BEFORE without a key is answered by {answer!r}")
    talk.must_live("REMOVE-BEFORE without a key")


@requirement(
    "P-139",
    "A session that begins later goes on with the same clock, not with one of its own.",
    _REMOVE,
    since=3,
    once=True,
    needs=_LINES,
    roles=ANY_ROLE,
)
def later_sessions(trial: Trial) -> None:
    talk = trial.talk()
    before, first, after = time.monotonic(), talk.timestamp(), time.monotonic()
    trial.vanish(talk)
    time.sleep(1.1)
    other = trial.talk(client=1)
    began = time.monotonic() - after
    second = other.timestamp()
    passed = time.monotonic() - before
    must(
        first + int(began) <= second <= first + passed + 1,
        f"one session says {first}, and another {second} after {passed:.1f} s",
    )
