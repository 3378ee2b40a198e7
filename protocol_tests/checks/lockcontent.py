"""LOCKCONTENT: a copy that somebody relies on."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.keys import Content
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = [
    "absent",
    "anything_but_unlock",
    "can_be_read",
    "holds",
    "holds_against_a_deadline",
    "lasts",
    "no_other_key",
    "outlives_its_process",
    "outlives_the_connection",
    "outlives_the_others",
    "present",
    "refused_in_words",
    "removable_after_unlock",
    "removed",
    "two_lockers",
    "unlock_is_not_answered",
]

_LOCK = "P2P protocol, Locking content"


def _locked(trial: Trial, client: int = 0) -> tuple[Talk, Content]:
    content = trial.contents.fresh()
    talk = trial.talk(client=client)
    talk.store(content)
    talk.expect(b"SUCCESS", b"LOCKCONTENT " + content.key)
    return talk, content


def _must_refuse(trial: Trial, key: bytes, why: str, request: bytes = b"REMOVE ") -> None:
    """Another client cannot remove *key*, in whatever way it is told."""
    other = trial.talk(client=3)
    try:
        answer = other.ask(request + key)
    except Gone:
        answer = b""
    must(not answer.startswith(b"SUCCESS"), f"it was removed {why}")
    trial.talk(client=4).must_have(key, f"it was not to be removed {why}")


@requirement("P-100", "LOCKCONTENT of content that is there is answered by SUCCESS.", _LOCK)
def present(trial: Trial) -> None:
    _locked(trial)


@requirement(
    "P-101", "LOCKCONTENT of absent content is answered by FAILURE.", _LOCK, needs=(Need.LINES,), roles=ANY_ROLE
)
def absent(trial: Trial) -> None:
    talk = trial.talk()
    answer = talk.ask(b"LOCKCONTENT " + trial.contents.fresh().key)
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"LOCKCONTENT of absent content: {answer!r}")
    talk.must_live("LOCKCONTENT of absent content")


@requirement("P-102", "UNLOCKCONTENT is not answered.", _LOCK)
def unlock_is_not_answered(trial: Trial) -> None:
    talk, content = _locked(trial)
    talk.say(b"UNLOCKCONTENT")
    must(talk.quiet(), "UNLOCKCONTENT is answered")
    talk.must_live("UNLOCKCONTENT")
    talk.must_have(content.key, "it was only locked")


@requirement("P-103", "Content that one client has locked cannot be removed by another.", _LOCK)
def holds(trial: Trial) -> None:
    _, content = _locked(trial)
    _must_refuse(trial, content.key, "while somebody had it locked")


@requirement(
    "P-104",
    "The removal of locked content is answered, by FAILURE or ERROR, and its session goes on.",
    "P2P protocol, Removing content; measured: direct-lock-two",
)
def refused_in_words(trial: Trial) -> None:
    _, content = _locked(trial)
    other = trial.talk(client=1)
    try:
        answer = other.ask(b"REMOVE " + content.key)
    except Gone as gone:
        raise Gone("the removal of locked content ended the session instead of being answered") from gone
    must(answer == b"FAILURE" or answer.startswith((b"ERROR", b"FAILURE-PLUS")), f"REMOVE is answered by {answer!r}")
    other.must_live("the removal of locked content")


@requirement("P-105", "After UNLOCKCONTENT the content can be removed.", _LOCK)
def removable_after_unlock(trial: Trial) -> None:
    talk, content = _locked(trial)
    talk.say(b"UNLOCKCONTENT")
    talk.must_live("UNLOCKCONTENT")
    trial.talk(client=1).expect(b"SUCCESS", b"REMOVE " + content.key)


@requirement(
    "P-106", "Content that two have locked stays locked when one of them unlocks it.", "measured: direct-lock-two"
)
def two_lockers(trial: Trial) -> None:
    first, content = _locked(trial)
    second = trial.talk(client=1)
    second.expect(b"SUCCESS", b"LOCKCONTENT " + content.key)
    first.say(b"UNLOCKCONTENT")
    first.must_live("UNLOCKCONTENT")
    _must_refuse(trial, content.key, "while a second client had it locked")
    second.say(b"UNLOCKCONTENT")
    second.must_live("UNLOCKCONTENT")


@requirement(
    "P-107",
    "Anything but UNLOCKCONTENT from the one who has locked is answered by ERROR, and the session goes on.",
    "measured: direct-lock-misuse",
)
def anything_but_unlock(trial: Trial) -> None:
    talk, content = _locked(trial)
    answer = talk.ask(b"CHECKPRESENT " + content.key)
    must(answer.startswith(b"ERROR"), f"CHECKPRESENT in place of UNLOCKCONTENT is answered by {answer!r}")
    talk.must_live("a request in place of UNLOCKCONTENT")


@requirement("P-108", "Locked content can be read and looked for.", _LOCK, once=True)
def can_be_read(trial: Trial) -> None:
    _, content = _locked(trial)
    other = trial.talk(client=1)
    other.must_have(content.key, "it is locked")
    must(other.get(content.key).body == content.body, "locked content is not sent")


@requirement("P-109", "A lock is on one key only.", _LOCK, once=True)
def no_other_key(trial: Trial) -> None:
    _locked(trial)
    free = trial.contents.fresh()
    other = trial.talk(client=1)
    other.store(free)
    other.expect(b"SUCCESS", b"REMOVE " + free.key)


@requirement("P-110", "REMOVE-BEFORE does not remove locked content either.", _LOCK, since=3)
def holds_against_a_deadline(trial: Trial) -> None:
    _, content = _locked(trial)
    until = trial.talk(client=1).timestamp() + 300
    _must_refuse(trial, content.key, "before a deadline, while it was locked", b"REMOVE-BEFORE %d " % until)


@requirement(
    "P-111",
    "Content stays locked when the connection of its locker is lost: whoever locked it may rely on it.",
    "P2P protocol, Locking content; measured: direct-lock-misuse",
    once=True,
)
def outlives_the_connection(trial: Trial) -> None:
    talk, content = _locked(trial)
    trial.vanish(talk)
    _must_refuse(trial, content.key, "after its locker lost the connection")
    for moment in trial.moments():
        _must_refuse(trial, content.key, f"{moment:.1f} s after its locker lost the connection")


@requirement(
    "P-112",
    "Content stays locked when the process that holds the lock is killed.",
    "measured: direct-lock-break-sigkill",
    needs=(Need.LINES, Need.REPOSITORY, Need.PROCESS),
)
def outlives_its_process(trial: Trial) -> None:
    talk, content = _locked(trial)
    trial.process(talk).kill()
    _must_refuse(trial, content.key, "after the process that held its lock was killed")


@requirement(
    "P-113",
    "Somebody else's LOCKCONTENT and UNLOCKCONTENT do not end the lock of a process that was killed.",
    "P2P protocol, Locking content",
    needs=(Need.LINES, Need.REPOSITORY, Need.PROCESS),
    once=True,
)
def outlives_the_others(trial: Trial) -> None:
    talk, content = _locked(trial)
    trial.process(talk).kill()
    other = trial.talk(client=1)
    if other.ask(b"LOCKCONTENT " + content.key) == b"SUCCESS":
        other.say(b"UNLOCKCONTENT")
    other.must_live("UNLOCKCONTENT")
    _must_refuse(trial, content.key, "after somebody else had locked and unlocked it")


@requirement(
    "P-114", "A lock lasts as long as the connection of its locker, and does not run out before.", _LOCK, once=True
)
def lasts(trial: Trial) -> None:
    talk, content = _locked(trial)
    for moment in trial.moments():
        _must_refuse(trial, content.key, f"after it had been locked for {moment:.1f} s")
    talk.say(b"UNLOCKCONTENT")
    talk.must_live("UNLOCKCONTENT")


@requirement("P-115", "LOCKCONTENT of content that was removed is answered by FAILURE.", _LOCK, needs=(Need.LINES,))
def removed(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.ask(b"REMOVE " + content.key)
    answer = talk.ask(b"LOCKCONTENT " + content.key)
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"LOCKCONTENT of what was removed: {answer!r}")
    talk.must_live("LOCKCONTENT of what was removed")
