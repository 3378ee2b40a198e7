"""The version of the protocol that both sides speak."""

from __future__ import annotations

from protocol_tests.need import ANY_ROLE, NEWEST, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, fail, must

__all__ = [
    "agrees_to_what_it_knows",
    "can_be_changed",
    "down_to_zero",
    "newer_than_known",
    "no_number",
    "not_negative",
    "without_version",
]

_VERSION = "P2P protocol, Protocol version"


@requirement(
    "P-010",
    "VERSION is answered by VERSION with the same number, where the server knows that version.",
    _VERSION,
    needs=(Need.LINES,),
    roles=ANY_ROLE,
)
def agrees_to_what_it_knows(trial: Trial) -> None:
    talk = trial.talk(0)
    talk.expect(b"VERSION %d" % trial.version, b"VERSION %d" % trial.version)
    talk.must_live("VERSION")


@requirement(
    "P-011",
    "A version higher than the server knows is answered by the highest that it knows.",
    _VERSION,
    once=True,
    needs=(Need.LINES,),
    roles=ANY_ROLE,
)
def newer_than_known(trial: Trial) -> None:
    for asked in (NEWEST + 1, 99, 4294967296):
        talk = trial.talk(0)
        answer = talk.ask(b"VERSION %d" % asked)
        known = answer.removeprefix(b"VERSION ")
        must(answer.startswith(b"VERSION ") and known.isdigit(), f"VERSION {asked} is answered by {answer!r}")
        must(trial.version <= int(known) <= NEWEST, f"VERSION {asked} is agreed to as {answer!r}")
        talk.must_live("VERSION")


@requirement(
    "P-012",
    "Without VERSION the session is one of version 0: no VALID follows the bytes of a GET or of a PUT.",
    _VERSION,
    until=0,
    needs=(Need.LINES,),
)
def without_version(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk(0)
    talk.store(content)
    got = talk.get(content.key)
    must(got.body == content.body, "the bytes that come back are others")
    talk.must_have(content.key, "it was stored and read at version 0")


@requirement(
    "P-013",
    "VERSION may be said again, and changes the version of the session.",
    "measured: direct-auth-version",
    once=True,
    roles=ANY_ROLE,
)
def can_be_changed(trial: Trial) -> None:
    talk = trial.talk(0)
    for version in (*range(trial.version + 1), *reversed(range(trial.version + 1))):
        talk.expect(b"VERSION %d" % version, b"VERSION %d" % version)


@requirement(
    "P-014",
    "A negative version is never agreed to.",
    "P2P protocol, Protocol version; measured: direct-auth-version",
    once=True,
    roles=ANY_ROLE,
)
def not_negative(trial: Trial) -> None:
    talk = trial.talk(0)
    answer = talk.ask(b"VERSION -1")
    must(not answer.startswith(b"VERSION -"), f"VERSION -1 is answered by {answer!r}")
    talk.must_live("VERSION -1")


@requirement(
    "P-015",
    "VERSION with something that is no number is answered by ERROR, and the session goes on.",
    "measured: direct-auth-version",
    once=True,
    roles=ANY_ROLE,
)
def no_number(trial: Trial) -> None:
    talk = trial.talk()
    for word in (b"VERSION abc", b"VERSION 1.5", b"VERSION", b"VERSION "):
        answer = talk.ask(word)
        must(answer.startswith(b"ERROR"), f"{word!r} is answered by {answer!r}")
    talk.must_live("a malformed VERSION")


@requirement(
    "P-016",
    "After VERSION 0 a session that spoke a higher version no longer sends VALID.",
    "measured: direct-auth-version",
    since=1,
)
def down_to_zero(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.expect(b"VERSION 0", b"VERSION 0")
    talk.version = 0
    got = talk.get(content.key)
    if got.body != content.body:
        fail("the bytes that come back are others")
    talk.must_have(content.key, "and VALID has no place at version 0")
