"""What was deleted behind the server's back: a disk has failed, somebody has tidied up."""

from __future__ import annotations

from protocol_tests.keys import Content
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Got, Talk

__all__ = ["absent_to_get", "absent_to_lock", "absent_to_look_for", "absent_to_put"]

_NEEDS = (Need.LINES, Need.REPOSITORY, Need.PATH)
_CHECK = "P2P protocol, Checking if content is present"
_PUT = "P2P protocol, Storing content on the server"
_LOCK = "P2P protocol, Locking content"


def _deleted(trial: Trial) -> tuple[Talk, Content]:
    """What was stored, and then lost without a word to the server; and the session that had stored it."""
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    trial.lose(content.key)
    return talk, content


@requirement(
    "P-026",
    "CHECKPRESENT looks for the content itself: what was deleted behind the server's back is absent.",
    _CHECK,
    once=True,
    needs=_NEEDS,
)
def absent_to_look_for(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    talk.must_have(content.key, "it was stored")
    trial.lose(content.key)
    talk.must_lack(content.key, "its file was deleted, whatever a log says")
    trial.talk(client=1).must_lack(content.key, "its file was deleted, whatever a log says")


@requirement(
    "P-045",
    "GET of content whose file was deleted behind the server's back is that of absent content.",
    "P2P protocol, Getting content from the server; measured: direct-get-absent-v1",
    since=1,
    once=True,
    needs=_NEEDS,
)
def absent_to_get(trial: Trial) -> None:
    talk, content = _deleted(trial)
    got = talk.get(content.key, done=b"FAILURE")
    must(
        bool(got.refusal) or got == Got(b"", b"INVALID"),
        f"GET of what is gone: {len(got.body)} bytes, {got.validity!r}",
    )
    talk.must_live("GET of what is gone")


@requirement(
    "P-073",
    "PUT of content whose file was deleted behind the server's back is not answered by ALREADY-HAVE.",
    _PUT,
    once=True,
    needs=_NEEDS,
)
def absent_to_put(trial: Trial) -> None:
    talk, content = _deleted(trial)
    talk.store(content)
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "P-116",
    "LOCKCONTENT of content whose file was deleted behind the server's back is answered by FAILURE.",
    _LOCK,
    once=True,
    needs=_NEEDS,
)
def absent_to_lock(trial: Trial) -> None:
    talk, content = _deleted(trial)
    answer = talk.ask(b"LOCKCONTENT " + content.key)
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"LOCKCONTENT of what is gone: {answer!r}")
    talk.must_live("LOCKCONTENT of what is gone")
