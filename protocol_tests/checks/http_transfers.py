"""HTTP: content there and back, and its removal."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.http_talk import LENGTH, Answer, Http
from protocol_tests.keys import of
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Violation

__all__ = [
    "absent",
    "already",
    "beyond_the_end",
    "chunked",
    "comes_back",
    "empty",
    "from_an_offset",
    "gone",
    "in_time",
    "offset_of_nothing",
    "offset_of_what_is_there",
    "resumed",
    "right_now",
    "too_late",
    "too_long",
    "too_short",
    "wrong_bytes",
]

_HTTP = "P2P protocol over HTTP"
_NEEDS = (Need.HTTP,)


def _nothing(answer: Answer) -> bool:
    empty = answer.status == 200 and not answer.body and answer.headers.get(LENGTH.lower()) == "0"
    return answer.status == 404 or empty


@requirement(
    "H-020",
    "A put of the right bytes is stored, and a get sends them, with their number in X-git-annex-data-length.",
    f"{_HTTP}, GET key",
    needs=_NEEDS,
)
def comes_back(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    http = Http(trial)
    http.store(content)
    answer = http.get(content.key)
    must(answer.status == 200 and answer.body == content.body, f"{answer.status}, {len(answer.body)} of 3000 bytes")
    must(answer.headers.get(LENGTH.lower()) == "3000", f"{LENGTH} is {answer.headers.get(LENGTH.lower())}")


@requirement(
    "H-021", "A get from an offset sends the rest, and its length.", f"{_HTTP}, GET key", since=1, needs=_NEEDS
)
def from_an_offset(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    http = Http(trial)
    http.store(content)
    for offset in (1, 1000, 2999):
        answer = http.get(content.key, offset)
        must(answer.body == content.body[offset:], f"from {offset} on, {len(answer.body)} bytes come")
        must(answer.headers.get(LENGTH.lower()) == str(3000 - offset), f"{LENGTH} is another")


@requirement(
    "H-022", "A get of absent content sends no bytes: 404, or an empty 200.", "measured: http-get", needs=_NEEDS
)
def absent(trial: Trial) -> None:
    answer = Http(trial).get(trial.contents.fresh().key)
    must(_nothing(answer), f"it is answered by {answer.status}, {len(answer.body)} bytes")


@requirement(
    "H-023", "A put of wrong bytes is answered by stored:false, and nothing is stored.", f"{_HTTP}, put", needs=_NEEDS
)
def wrong_bytes(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    said = http.put(content, content.damaged())
    must(said.get("stored") is False, f"it is answered by {said}")
    must(not http.present(content.key), "it was stored")


@requirement("H-024", "A put of fewer bytes than the key has is not stored.", "measured: http-put", needs=_NEEDS)
def too_short(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    http = Http(trial)
    said = http.put(content, content.body[:900])
    must(said.get("stored") is False, f"900 of 1000 bytes are answered by {said}")
    must(not http.present(content.key), "it was stored")


@requirement("H-025", "A put of what is there is answered by stored:true.", "measured: http-put", needs=_NEEDS)
def already(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    http.store(content)


@requirement(
    "H-026", "A put may be sent in chunks.", f"{_HTTP}, put; measured: httpclient-copy-to-repo", once=True, needs=_NEEDS
)
def chunked(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    http = Http(trial)
    pieces = [content.body[:1000], content.body[1000:]]
    said = http.post("put", {"key": content.key}, body=iter(pieces), headers={LENGTH: "3000"}).json()
    must(said.get("stored") is True, f"it is answered by {said}")
    must(http.get(content.key).body == content.body, "other bytes were stored")


@requirement("H-027", "putoffset of what is not there is an offset of 0.", f"{_HTTP}, putoffset", since=1, needs=_NEEDS)
def offset_of_nothing(trial: Trial) -> None:
    said = Http(trial).post("putoffset", {"key": trial.contents.fresh().key}).json()
    must(said.get("offset") == 0 and "alreadyhave" not in said, f"it is answered by {said}")


@requirement("H-028", "putoffset of what is there is alreadyhave:true.", f"{_HTTP}, putoffset", since=1, needs=_NEEDS)
def offset_of_what_is_there(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    said = http.post("putoffset", {"key": content.key}).json()
    must(said.get("alreadyhave") is True, f"it is answered by {said}")
    must(trial.version < 2 or isinstance(said.get("plusuuids"), list), f"without plusuuids clients fail: {said}")


@requirement(
    "H-029",
    "After a put that broke off, putoffset says how much is there, and the rest completes it.",
    "measured: http-putoffset",
    since=1,
    needs=_NEEDS,
)
def resumed(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    http = Http(trial)
    http.put(content, content.body[:1200], length=3000)
    http.close()
    offset = http.post("putoffset", {"key": content.key}).json().get("offset")
    if type(offset) is not int or not 0 <= offset <= 1200:
        raise Violation(f"1200 bytes were sent, and the offset is {offset}")
    said = http.put(content, content.body[offset:], offset=offset)
    must(said.get("stored") is True, f"the rest is answered by {said}")
    must(http.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "H-030",
    "remove is answered by removed:true, also of what is not there, and then it is gone.",
    f"{_HTTP}, remove",
    needs=_NEEDS,
)
def gone(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    for _ in range(2):
        said = http.post("remove", {"key": content.key}).json()
        must(said.get("removed") is True, f"it is answered by {said}")
        must(not http.present(content.key), "it is still there")
        must(_nothing(http.get(content.key)), "it is still sent")


@requirement("H-031", "remove-before a moment to come removes.", f"{_HTTP}, remove-before", since=3, needs=_NEEDS)
def in_time(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    moment = http.post("gettimestamp").json()["timestamp"] + 300
    said = http.post("remove-before", {"key": content.key, "timestamp": str(moment)}).json()
    must(said.get("removed") is True, f"it is answered by {said}")
    must(not http.present(content.key), "it is still there")


@requirement(
    "H-032", "remove-before a moment that has passed removes nothing.", f"{_HTTP}, remove-before", since=3, needs=_NEEDS
)
def too_late(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    moment = max(0, http.post("gettimestamp").json()["timestamp"] - 10)
    said = http.post("remove-before", {"key": content.key, "timestamp": str(moment)}).json()
    must(said.get("removed") is False, f"it is answered by {said}")
    must(http.present(content.key), "it was removed")


@requirement(
    "H-033",
    "A put of more bytes than the key has is refused, and nothing is stored.",
    "measured: http-put",
    needs=_NEEDS,
)
def too_long(trial: Trial) -> None:
    content = trial.contents.fresh(1000)
    http = Http(trial)
    headers = {LENGTH: "1004", "Content-Type": "application/octet-stream"}
    try:
        answer = http.post("put", {"key": content.key}, body=content.body + b"more", headers=headers)
        refused = 400 <= answer.status < 500 or answer.json().get("stored") is False
        must(refused, f"1004 bytes of 1000 are answered by {answer.status}, {answer.body!r}")
    except Gone:  # who refuses before all of it has come may hang up
        http.close()
    must(not http.present(content.key), "it was stored")


@requirement(
    "H-034",
    "A get from the end, or from beyond it, sends no bytes, and says so.",
    "measured: http-get",
    since=1,
    needs=_NEEDS,
)
def beyond_the_end(trial: Trial) -> None:
    content = trial.contents.fresh(300)
    http = Http(trial)
    http.store(content)
    for offset in (300, 301, 100000):
        answer = http.get(content.key, offset)
        must(not answer.body, f"from {offset} of 300 bytes on, {len(answer.body)} come")
        if answer.status == 200:
            must(answer.headers.get(LENGTH.lower()) == "0", f"{LENGTH} is {answer.headers.get(LENGTH.lower())}")
    must(http.get(content.key).body == content.body, "other bytes come back")


@requirement(
    "H-035",
    "remove-before the present second removes nothing: it is not before it.",
    "measured: direct-remove-before",
    since=3,
    needs=_NEEDS,
)
def right_now(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    moment = http.post("gettimestamp").json()["timestamp"]
    said = http.post("remove-before", {"key": content.key, "timestamp": str(moment)}).json()
    must(said.get("removed") is False, f"it is answered by {said}")
    must(http.present(content.key), "it was removed")


@requirement("H-036", "Content of no bytes can be put and got.", "measured: http-put", once=True, needs=_NEEDS)
def empty(trial: Trial) -> None:
    content = of(b"", "." + trial.contents.name().decode()[:4])
    http = Http(trial)
    http.store(content)
    must(http.present(content.key), "it was stored")
    answer = http.get(content.key)
    must(answer.status == 200 and not answer.body, f"it is answered by {answer.status}, {len(answer.body)} bytes")
