"""HTTP: what a client may do that may only read, or only add."""

from __future__ import annotations

from protocol_tests.http_talk import LENGTH, Http
from protocol_tests.keys import Content
from protocol_tests.need import Need, Role
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["adds", "no_overwriting", "no_put", "no_removal", "no_removal_in_time", "reads"]

_NEEDS = (Need.HTTP,)
_READONLY = "measured: http-auth-unauth-readonly"
_APPENDONLY = "measured: http-auth-unauth-appendonly"
_RESTRICTED = (Role.READONLY, Role.APPENDONLY)
_REFUSED = (401, 403)


def _stored(trial: Trial) -> Content:
    content = trial.contents.fresh(3000)
    writer = Http(trial, "W", trial.writing())
    writer.store(content)
    writer.close()
    return content


@requirement(
    "H-060",
    "Who may only read cannot put: 401 or 403, and nothing is stored.",
    _READONLY,
    needs=_NEEDS,
    roles=(Role.READONLY,),
)
def no_put(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    headers = {LENGTH: str(len(content.body)), "Content-Type": "application/octet-stream"}
    answer = http.post("put", {"key": content.key}, body=content.body, headers=headers)
    must(answer.status in _REFUSED, f"put is answered by {answer.status}")
    http.close()  # the body may not have been read
    must(not http.present(content.key), "it was stored")


@requirement(
    "H-061",
    "Who may only read or add cannot remove: 401 or 403, and nothing is removed.",
    f"{_READONLY}; {_APPENDONLY}",
    needs=_NEEDS,
    roles=_RESTRICTED,
)
def no_removal(trial: Trial) -> None:
    content = _stored(trial)
    http = Http(trial)
    answer = http.post("remove", {"key": content.key})
    must(answer.status in _REFUSED, f"remove is answered by {answer.status}")
    must(http.present(content.key), "it was removed")


@requirement(
    "H-062",
    "A deadline gives nobody the right to remove.",
    f"{_READONLY}; {_APPENDONLY}",
    since=3,
    needs=_NEEDS,
    roles=_RESTRICTED,
)
def no_removal_in_time(trial: Trial) -> None:
    content = _stored(trial)
    http = Http(trial)
    moment = http.post("gettimestamp").json()["timestamp"] + 300
    answer = http.post("remove-before", {"key": content.key, "timestamp": str(moment)})
    must(answer.status in _REFUSED, f"remove-before is answered by {answer.status}")
    must(http.present(content.key), "it was removed")


@requirement(
    "H-063",
    "Who may only read or add can look and get.",
    f"{_READONLY}; {_APPENDONLY}",
    needs=_NEEDS,
    roles=_RESTRICTED,
)
def reads(trial: Trial) -> None:
    content = _stored(trial)
    http = Http(trial)
    must(http.present(content.key), "it is not there")
    must(http.get(content.key).body == content.body, "other bytes come")


@requirement("H-064", "Who may only add can put.", _APPENDONLY, needs=_NEEDS, roles=(Role.APPENDONLY,))
def adds(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    must(http.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "H-065",
    "A put by who may only add changes nothing of what is there.",
    _APPENDONLY,
    needs=_NEEDS,
    roles=(Role.APPENDONLY,),
)
def no_overwriting(trial: Trial) -> None:
    content = _stored(trial)
    http = Http(trial)
    headers = {LENGTH: str(len(content.body)), "Content-Type": "application/octet-stream"}
    http.post("put", {"key": content.key}, body=content.damaged(), headers=headers)
    http.close()
    must(http.get(content.key).body == content.body, "its bytes were replaced")
