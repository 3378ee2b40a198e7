"""CHECKPRESENT: is it there."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.keys import Content
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = [
    "absent",
    "absent_after_removal",
    "half_is_not_there",
    "name_counts",
    "outlives_its_session",
    "present",
    "seen_by_others",
]

_CHECK = "P2P protocol, Checking if content is present"


@requirement(
    "P-020",
    "CHECKPRESENT of content that nobody stored is answered by FAILURE.",
    _CHECK,
    needs=(Need.LINES,),
    roles=ANY_ROLE,
)
def absent(trial: Trial) -> None:
    talk = trial.talk()
    talk.must_lack(trial.contents.fresh().key, "nobody stored it")
    talk.must_lack(trial.contents.unverifiable().key, "nobody stored it")


@requirement("P-021", "CHECKPRESENT of stored content is answered by SUCCESS.", _CHECK, needs=(Need.LINES,))
def present(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.must_have(content.key, "it was stored a moment ago")


@requirement("P-022", "After a removal CHECKPRESENT is answered by FAILURE.", _CHECK, needs=(Need.LINES,))
def absent_after_removal(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    removed = talk.ask(b"REMOVE " + content.key)
    if removed.split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"):
        talk.must_lack(content.key, "its removal was a success")


@requirement(
    "P-023", "Other sessions see what is there, and what is no longer there.", _CHECK, once=True, needs=(Need.LINES,)
)
def seen_by_others(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk, other = trial.talk(), trial.talk(client=1)
    other.must_lack(content.key, "nobody stored it yet")
    talk.store(content)
    other.must_have(content.key, "another session stored it")
    if talk.ask(b"REMOVE " + content.key).startswith(b"SUCCESS"):
        other.must_lack(content.key, "another session removed it")


@requirement("P-024", "Content that was only half sent is not there.", _CHECK, since=1)
def half_is_not_there(trial: Trial) -> None:
    content = trial.contents.fresh(4000)
    talk = trial.talk()
    offset = talk.offer(content.key)
    talk.send(b"DATA %d\n" % (len(content.body) - offset))
    talk.send(content.body[offset:2000])
    try:
        trial.talk(client=1).must_lack(content.key, "only half of it was sent")
        talk.close()
        trial.talk(client=2).must_lack(content.key, "only half of it was sent")
    except Gone as gone:
        raise Gone(f"asking for what another session sends: {gone}") from gone


@requirement(
    "P-025",
    "Keys are compared whole: another extension, or a later blank, makes another key.",
    "measured: direct-put-nosize-worm-url",
    once=True,
)
def name_counts(trial: Trial) -> None:
    content = trial.contents.fresh(extension=".bin")
    worm = trial.contents.unverifiable(name=b" a")
    talk = trial.talk()
    talk.store(content)
    for key in (content.key.replace(b".bin", b".dat"), content.key.removesuffix(b".bin")):
        talk.must_lack(key, "another extension makes another key")
    if talk.ask(b"PUT  " + worm.key).startswith(b"PUT-FROM"):
        talk.deliver(worm.body)
        talk.must_lack(Content(worm.key + b" b", b"").key, "what follows the blank belongs to the key")


@requirement(
    "P-027", "What was stored stays when the session that stored it has ended, and so does its removal.", _CHECK
)
def outlives_its_session(trial: Trial) -> None:
    content, removed = trial.contents.fresh(), trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.store(removed)
    answer = talk.ask(b"REMOVE " + removed.key)
    trial.vanish(talk)
    other = trial.talk(client=1)
    other.must_have(content.key, "it was stored by a session that has ended")
    must(other.get(content.key).body == content.body, "it was stored by a session that has ended, and is not sent")
    if answer.startswith(b"SUCCESS"):
        other.must_lack(removed.key, "it was removed by a session that has ended")
