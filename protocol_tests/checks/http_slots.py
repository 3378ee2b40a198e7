"""HTTP: what locks use up. A server may be good for no more locks when this was tried."""

from __future__ import annotations

from protocol_tests.checks.http_locks import Held, locked
from protocol_tests.http_talk import Http
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial

__all__ = ["not_used_up"]

_NEEDS = (Need.HTTP,)


@requirement(
    "H-044",
    "Locks that were not given use up nothing: after a hundred of them one can still lock.",
    "measured: http-lock2",
    once=True,
    needs=_NEEDS,
)
def not_used_up(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    for _ in range(110):
        http.post("lockcontent", {"key": trial.contents.fresh().key}, noted=False)
    trial.transcript.note("H", "comment", "lockcontent of 110 keys that are not there")
    Held(trial, locked(http, content)).unlock()
