"""HTTP: names and passwords, and tokens. They are tried on what the subject itself may do."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from protocol_tests.http_talk import LENGTH, Answer, Http
from protocol_tests.keys import Content
from protocol_tests.need import Need, Role
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["any_case", "challenged", "never_repeated", "wrong"]

_NEEDS = (Need.HTTP, Need.CREDENTIALS)
_MEASURED = "measured: http-auth-authenv"
_STORES = (Role.WRITE, Role.APPENDONLY)


def _put(http: Http, content: Content) -> Answer:
    headers = {LENGTH: str(len(content.body)), "Content-Type": "application/octet-stream"}
    answer = http.post("put", {"key": content.key}, body=content.body, headers=headers)
    http.close()  # the body may not have been read
    return answer


def _given(trial: Trial) -> tuple[str, bytes]:
    """The scheme, and what is secret."""
    scheme, _, given = trial.subject.authorization.partition(" ")
    return scheme, base64.b64decode(given) if scheme == "Basic" else given.encode()


def _others(trial: Trial) -> Iterator[tuple[str, str]]:
    """What is almost right, and how it differs."""
    scheme, secret = _given(trial)
    almost = {"its last byte is missing": secret[:-1], "it has a byte more": secret + b"x"}
    almost["another byte at its end"] = secret[:-1] + bytes([secret[-1] ^ 1])
    if scheme == "Basic":
        name, _, password = secret.partition(b":")
        almost |= {"no password": name + b":", "no colon": name, "another name": b"x" + name + b":" + password}
        almost["the name as password"] = name + b":" + name
    for what, other in almost.items():
        yield what, f"{scheme} {base64.b64encode(other).decode() if scheme == 'Basic' else other.decode('latin-1')}"
    yield "no credentials after the scheme", scheme
    yield "no base64", f"{scheme} ===="
    yield "another scheme", f"Digest {secret.decode('latin-1')}"


@requirement(
    "H-070",
    "Credentials that are not quite right open nothing: a put is refused, and stores nothing.",
    _MEASURED,
    once=True,
    needs=_NEEDS,
    roles=_STORES,
)
def wrong(trial: Trial) -> None:
    content, http = trial.contents.fresh(), Http(trial)
    for what, authorization in _others(trial):
        http.authorization = authorization
        answer = _put(http, content)
        must(answer.status in (400, 401, 403), f"{what}, and put is answered by {answer.status}")
    http.authorization = trial.subject.authorization
    must(not http.present(content.key), "it was stored")
    http.store(content)


@requirement(
    "H-071",
    "A put without the credentials that it needs is answered by 401 with WWW-Authenticate.",
    _MEASURED,
    once=True,
    needs=_NEEDS,
    roles=_STORES,
)
def challenged(trial: Trial) -> None:
    http = Http(trial)
    http.authorization = ""
    answer = _put(http, trial.contents.fresh())
    must(answer.status == 401, f"put is answered by {answer.status}")
    must(bool(answer.headers.get("www-authenticate")), "it does not say how to authenticate")


@requirement(
    "H-072",
    "The name of the scheme may be written in upper and lower case.",
    _MEASURED,
    once=True,
    needs=_NEEDS,
    roles=_STORES,
)
def any_case(trial: Trial) -> None:
    http = Http(trial)
    scheme, _, given = trial.subject.authorization.partition(" ")
    for written in (scheme.lower(), scheme.upper()):
        http.authorization = f"{written} {given}"
        http.store(trial.contents.fresh())


@requirement(
    "H-073",
    "No answer repeats what is secret, be it right or almost right.",
    _MEASURED,
    once=True,
    needs=_NEEDS,
    roles=_STORES,
)
def never_repeated(trial: Trial) -> None:
    _, secret = _given(trial)
    http, words = Http(trial), {secret[:-1], secret.rpartition(b":")[2][:-1]}
    for authorization in (trial.subject.authorization, *(other for _, other in _others(trial))):
        http.authorization = authorization
        answer = _put(http, trial.contents.fresh())
        shown = answer.body + repr(answer.headers).encode()
        must(not any(word in shown for word in words if len(word) >= 5), f"an answer {answer.status} repeats it")
