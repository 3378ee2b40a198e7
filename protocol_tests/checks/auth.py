"""How a session begins."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.subject import CLIENTS
from protocol_tests.trial import Trial, must

__all__ = ["no_request_before_auth", "says_who_it_is", "speaks_when_asked", "unknown_repository", "wrong_token"]

_AUTH = "P2P protocol, Authentication"


@requirement(
    "P-001",
    "A session begins with AUTH-SUCCESS and the UUID of the repository that was asked for.",
    _AUTH,
    once=True,
    needs=(Need.LINES,),
    roles=ANY_ROLE,
)
def says_who_it_is(trial: Trial) -> None:
    talk = trial.connect()
    said = trial.greet(talk).decode("ascii", "backslashreplace")
    must(bool(said), "AUTH-SUCCESS names no UUID")
    must(said in (trial.subject.uuid or said), f"it is {said}, and not {trial.subject.uuid} that was asked for")


@requirement(
    "P-002",
    "After AUTH-SUCCESS the server says nothing until the client asks something.",
    _AUTH,
    once=True,
    needs=(Need.LINES,),
    roles=ANY_ROLE,
)
def speaks_when_asked(trial: Trial) -> None:
    talk = trial.connect()
    trial.greet(talk)
    must(talk.quiet(), "it says something unasked")
    talk.must_live("saying nothing")


@requirement(
    "P-003",
    "A repository that is not the one behind the server is not shown under the UUID that was asked for.",
    "measured: gw-not-proxied",
    once=True,
    needs=(Need.LINES, Need.REPOSITORY, Need.ANY_UUID),
    roles=ANY_ROLE,
)
def unknown_repository(trial: Trial) -> None:
    stranger = "99999999-9999-4999-8999-999999999999"
    talk = trial.connect(uuid=stranger)
    try:
        answer = talk.hear()
    except Gone:
        return
    must(not answer.startswith(b"AUTH-SUCCESS"), f"asked for {stranger}, it answers {answer!r}")


@requirement(
    "P-004",
    "A wrong token is answered by AUTH-FAILURE or the end of the connection, and opens nothing.",
    _AUTH,
    once=True,
    needs=(Need.LINES, Need.TOKEN),
    roles=ANY_ROLE,
)
def wrong_token(trial: Trial) -> None:
    content = trial.contents.fresh()
    for token in ("0" * len(trial.subject.token), trial.subject.token[:-1], ""):
        talk = trial.connect()
        try:
            answer = talk.ask(f"AUTH {CLIENTS[0]} {token}".encode())
            must(answer == b"AUTH-FAILURE" or answer.startswith(b"ERROR"), f"a wrong token is answered by {answer!r}")
            refused = talk.ask(b"CHECKPRESENT " + content.key)
            must(refused.startswith(b"ERROR"), f"a request after AUTH-FAILURE is answered by {refused!r}")
        except Gone:
            continue


@requirement(
    "P-005",
    "Before AUTH no request is served.",
    "P2P protocol, Authentication; measured: p2pgen-real-client",
    once=True,
    needs=(Need.LINES, Need.TOKEN),
    roles=ANY_ROLE,
)
def no_request_before_auth(trial: Trial) -> None:
    content = trial.contents.fresh()
    for request in (b"VERSION 1", b"CHECKPRESENT " + content.key, b"GET 0  " + content.key, b"REMOVE " + content.key):
        talk = trial.connect()
        try:
            answer = talk.ask(request)
        except Gone:
            continue
        must(answer.startswith(b"ERROR") or answer == b"AUTH-FAILURE", f"{request!r} is answered by {answer!r}")
