"""HTTP: routes, and the form of the answers."""

from __future__ import annotations

import time
from typing import Final

from protocol_tests.http_talk import LENGTH, Http
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = [
    "bad_parameters",
    "clock_goes_on",
    "long_connection",
    "methods",
    "missing_length",
    "not_here",
    "plain_key",
    "plus_is_there",
    "presence",
    "strange_keys",
    "timestamp",
    "unknown_version",
]

_HTTP = "P2P protocol over HTTP"
_NEEDS = (Need.HTTP,)
_LONG: Final = 30.0  # seconds; a slow server is asked less


@requirement(
    "H-001",
    "gettimestamp is answered by a JSON object with timestamp, a whole number.",
    f"{_HTTP}, gettimestamp",
    since=3,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def timestamp(trial: Trial) -> None:
    said = Http(trial).post("gettimestamp").json()
    must(type(said.get("timestamp")) is int, f"it is {said}")


@requirement("H-002", "checkpresent is answered by present, true or false.", f"{_HTTP}, checkpresent", needs=_NEEDS)
def presence(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    must(not http.present(content.key), "it is there, and nobody stored it")
    http.store(content)
    must(http.present(content.key), "it is not there, and it was stored")


@requirement(
    "H-003",
    "From version 2 on the answers to put and remove have plusuuids, a list; before, they do not need it.",
    f"{_HTTP}, put; measured: httpclient-vs-put-plus",
    since=2,
    needs=_NEEDS,
)
def plus_is_there(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    answers = [http.put(content), http.post("remove", {"key": content.key}).json()]
    must(all(isinstance(said.get("plusuuids"), list) for said in answers), f"without it, clients fail: {answers}")


@requirement(
    "H-004",
    "A version that the server does not know is answered by 404: clients try a lower one on nothing else.",
    f"{_HTTP}, versions; measured: httpclient-vs-404-v4",
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def unknown_version(trial: Trial) -> None:
    answer = Http(trial).ask("POST", "v99/checkpresent", {"key": trial.contents.fresh().key})
    must(answer.status == 404, f"version 99 is answered by {answer.status}")


@requirement(
    "H-005",
    "A repository that is not there is not answered for.",
    f"{_HTTP}; measured: http-directory",
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def not_here(trial: Trial) -> None:
    stranger = "../99999999-9999-4999-8999-999999999999"
    answer = Http(trial).ask("POST", f"{stranger}/v{trial.version}/checkpresent", {"key": trial.contents.fresh().key})
    must(answer.status in (400, 401, 403, 404), f"another UUID is answered by {answer.status}")


@requirement(
    "H-006",
    "A request without its key, or with something that is no key, is answered by 400.",
    "measured: http-checkpresent",
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def bad_parameters(trial: Trial) -> None:
    http = Http(trial)
    for params in ({}, {"key": b"nonsense"}, {"key": b""}):
        answer = http.post("checkpresent", params)
        must(answer.status == 400, f"checkpresent with {params} is answered by {answer.status}")


@requirement(
    "H-007", "What changes something is not done by GET.", f"{_HTTP}; measured: http-remove", once=True, needs=_NEEDS
)
def methods(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    answer = http.ask("GET", f"v{trial.version}/remove", {"key": content.key})
    must(400 <= answer.status < 500, f"GET of remove is answered by {answer.status}")
    must(http.present(content.key), "GET removed it")


@requirement(
    "H-008",
    "A put that does not say its length is refused, and stores nothing.",
    "measured: http-put",
    since=1,
    until=3,
    needs=_NEEDS,
)
def missing_length(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    answer = http.post("put", {"key": content.key}, body=content.body)
    must(answer.status >= 400, f"a put without {LENGTH} is answered by {answer.status}")
    http.close()
    must(not http.present(content.key), "it was stored")


@requirement(
    "H-009",
    "Keys are percent-encoded, or base64url in brackets: both name the same key.",
    f"{_HTTP}; measured: http-checkpresent",
    once=True,
    needs=_NEEDS,
)
def strange_keys(trial: Trial) -> None:
    import base64
    from urllib.parse import quote

    content = trial.contents.fresh(extension=".a b")
    http = Http(trial)
    http.store(content)
    must(http.present(content.key), "a key with a blank is not found")
    boxed = quote(b"[" + base64.urlsafe_b64encode(content.key) + b"]", safe="")
    answer = http.ask("POST", f"v{trial.version}/checkpresent?key={boxed}&clientuuid=x", client=None)
    must(answer.json().get("present") is True, "the same key in base64 is not found")


@requirement(
    "H-010",
    "/git-annex/UUID/key/KEY sends the content to whoever knows no versions.",
    "measured: http-get",
    once=True,
    needs=_NEEDS,
)
def plain_key(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    answer = http.ask("GET", f"key/{content.key.decode()}", client=None)
    must(
        answer.status == 200 and answer.body == content.body,
        f"it is answered by {answer.status}, {len(answer.body)} bytes",
    )


@requirement(
    "H-011",
    "The timestamp over HTTP counts seconds, and never goes back.",
    f"{_HTTP}, gettimestamp",
    since=3,
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def clock_goes_on(trial: Trial) -> None:
    http = Http(trial)

    def ask() -> int:
        return int(http.post("gettimestamp").json()["timestamp"])

    before, said = time.monotonic(), [ask()]
    while time.monotonic() < before + 1.2:
        time.sleep(0.1)
        said.append(ask())
    passed = time.monotonic() - before
    must(said == sorted(said), f"it goes back: {said}")
    must(said[0] < said[-1] <= said[0] + passed + 1, f"{said[0]} became {said[-1]} within {passed:.1f} s")


@requirement(
    "H-012",
    "Hundreds of requests over one connection are all answered.",
    _HTTP,
    once=True,
    needs=_NEEDS,
)
def long_connection(trial: Trial) -> None:
    end = time.monotonic() + _LONG
    content, absent = trial.contents.fresh(), trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    for _ in range(100):
        must(http.present(content.key, noted=False), "it is not there any more, and nobody removed it")
        must(not http.present(absent.key, noted=False), "it is there, and nobody stored it")
        if time.monotonic() > end:
            break
    trial.transcript.note("H", "comment", "checkpresent of both keys, again and again")
    must(http.get(content.key).body == content.body, "other bytes come back")
