"""BYPASS: what keeps clusters from asking in circles."""

from __future__ import annotations

from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["changes_nothing_here", "not_answered"]

_BYPASS = "P2P protocol, Cluster cycle prevention"


@requirement("P-140", "BYPASS is not answered, with UUIDs or without.", _BYPASS, since=2, needs=(Need.LINES,))
def not_answered(trial: Trial) -> None:
    content = trial.contents.fresh()
    trial.talk().store(content)
    uuids = b" 11111111-2222-4333-8444-555555555555 66666666-2222-4333-8444-555555555555"
    for words in (uuids, uuids[:37], b""):
        talk = trial.talk()
        talk.say(b"BYPASS" + words)
        must(talk.quiet(), "BYPASS is answered")
        talk.must_live("BYPASS")
        talk.must_have(content.key, "it was stored before")


@requirement("P-141", "After a BYPASS of others a repository does all it did before.", _BYPASS, since=2)
def changes_nothing_here(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.say(b"BYPASS 11111111-2222-4333-8444-555555555555")
    talk.store(content)
    must(talk.get(content.key).body == content.body, "other bytes were stored")
