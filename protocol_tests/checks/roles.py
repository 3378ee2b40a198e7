"""What a client may do that may only read, or only add."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.keys import Content
from protocol_tests.need import Need, Role
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = [
    "adds",
    "append_does_not_overwrite",
    "append_does_not_remove",
    "append_does_not_remove_in_time",
    "full_rights",
    "no_put",
    "no_removal",
    "no_removal_in_time",
    "reads",
    "session_goes_on",
]

_ERRORS = "P2P protocol, Errors"
_READONLY = f"{_ERRORS}; measured: direct-mode-readonly"
_APPENDONLY = f"{_ERRORS}; measured: direct-mode-appendonly"
_NEEDS = (Need.LINES,)


def _stored(trial: Trial) -> Content:
    content = trial.contents.fresh()
    writer = trial.writer()
    writer.store(content)
    writer.close()
    return content


def _denied(talk: Talk, line: bytes) -> None:
    try:
        answer = talk.ask(line)
    except Gone as gone:
        raise Gone(f"{line[:20]!r} ended the session instead of being denied") from gone
    must(answer.startswith(b"ERROR"), f"{line[:20]!r} is answered by {answer!r}")
    talk.must_live("a denied request")


@requirement(
    "R-001",
    "Who may only read cannot PUT: ERROR, and nothing is stored.",
    _READONLY,
    needs=_NEEDS,
    roles=(Role.READONLY,),
)
def no_put(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    _denied(talk, b"PUT  " + content.key)
    talk.must_lack(content.key, "its PUT was denied")


@requirement(
    "R-002",
    "Who may only read cannot REMOVE: ERROR, and the content stays.",
    _READONLY,
    needs=_NEEDS,
    roles=(Role.READONLY,),
)
def no_removal(trial: Trial) -> None:
    content = _stored(trial)
    talk = trial.talk()
    _denied(talk, b"REMOVE " + content.key)
    talk.must_have(content.key, "its removal was denied")


@requirement(
    "R-003", "Who may only read cannot REMOVE-BEFORE either.", _READONLY, since=3, needs=_NEEDS, roles=(Role.READONLY,)
)
def no_removal_in_time(trial: Trial) -> None:
    content = _stored(trial)
    talk = trial.talk()
    _denied(talk, b"REMOVE-BEFORE %d %s" % (talk.timestamp() + 300, content.key))
    talk.must_have(content.key, "its removal was denied")


@requirement(
    "R-004",
    "Who may only read or add can read, look and lock.",
    _READONLY,
    needs=_NEEDS,
    roles=(Role.READONLY, Role.APPENDONLY),
)
def reads(trial: Trial) -> None:
    content = _stored(trial)
    talk = trial.talk()
    talk.must_have(content.key, "it was stored")
    must(talk.get(content.key).body == content.body, "GET does not send it")
    talk.expect(b"SUCCESS", b"LOCKCONTENT " + content.key)
    talk.say(b"UNLOCKCONTENT")
    talk.must_live("UNLOCKCONTENT")


@requirement(
    "R-005",
    "Denials of absent content are denials too, and many of them leave the session as it was.",
    _READONLY,
    needs=_NEEDS,
    roles=(Role.READONLY,),
)
def session_goes_on(trial: Trial) -> None:
    talk = trial.talk()
    for _ in range(5):
        _denied(talk, b"REMOVE " + trial.contents.fresh().key)
        _denied(talk, b"PUT  " + trial.contents.fresh().key)


@requirement("R-006", "Who may only add can PUT.", _APPENDONLY, needs=_NEEDS, roles=(Role.APPENDONLY,))
def adds(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.must_have(content.key, "it was stored")
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "R-007",
    "Who may only add cannot REMOVE, not even what it has put.",
    _APPENDONLY,
    needs=_NEEDS,
    roles=(Role.APPENDONLY,),
)
def append_does_not_remove(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    _denied(talk, b"REMOVE " + content.key)
    talk.must_have(content.key, "its removal was denied")


@requirement(
    "R-008",
    "Who may only add cannot REMOVE-BEFORE either.",
    _APPENDONLY,
    since=3,
    needs=_NEEDS,
    roles=(Role.APPENDONLY,),
)
def append_does_not_remove_in_time(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    _denied(talk, b"REMOVE-BEFORE %d %s" % (talk.timestamp() + 300, content.key))
    talk.must_have(content.key, "its removal was denied")


@requirement(
    "R-009",
    "Who may only add cannot change what is there by putting it again.",
    _APPENDONLY,
    needs=_NEEDS,
    roles=(Role.APPENDONLY,),
)
def append_does_not_overwrite(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"PUT  " + content.key)
    if answer.startswith(b"PUT-FROM"):
        talk.deliver(content.damaged())
    must(talk.get(content.key).body == content.body, "its bytes were replaced")


@requirement("R-010", "Who may write is denied nothing of it.", _ERRORS, needs=_NEEDS)
def full_rights(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"REMOVE " + content.key)
    must(not answer.startswith(b"ERROR"), f"REMOVE is answered by {answer!r}")
