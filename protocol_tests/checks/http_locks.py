"""HTTP: locks, which one request takes and another holds."""

from __future__ import annotations

from protocol_tests.http_talk import Http
from protocol_tests.keys import Content
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = [
    "Held",
    "absent",
    "held",
    "held_against_a_deadline",
    "lasts",
    "locked",
    "present",
    "removed",
    "two",
    "unlocked",
]

_HTTP = "P2P protocol over HTTP"
_NEEDS = (Need.HTTP,)


def locked(http: Http, content: Content) -> str:
    """lockcontent, which must be a success; its lockid."""
    said = http.post("lockcontent", {"key": content.key}).json()
    must(said.get("locked") is True, f"lockcontent is answered by {said}")
    must(isinstance(said.get("lockid"), str), f"it has no lockid: {said}")
    return str(said["lockid"])


def _must_refuse(http: Http, content: Content, why: str, verb: str = "remove", **words: str) -> None:
    answer = http.post(verb, {"key": content.key, **words})
    must(answer.status != 200 or answer.json().get("removed") is False, f"{why}, {verb}: {answer.body!r}")
    must(http.present(content.key), f"it was removed {why}")


class Held:
    """keeplocked, with its body open: the lock stands until ``unlock`` is said."""

    def __init__(self, trial: Trial, lockid: str) -> None:
        self._http = Http(trial, "L")
        connection = self._http.connection
        with self._http.deadline():
            connection.putrequest(
                "POST", f"{self._http._base}/v{trial.version}/keeplocked?lockid={lockid}&clientuuid=x"
            )
            for name, value in (
                ("Transfer-Encoding", "chunked"),
                ("Content-Type", "application/json"),
                ("Connection", "Keep-Alive"),
                ("Keep-Alive", "timeout=1200"),
                *self._http.credentials().items(),
            ):
                connection.putheader(name, value)
            connection.endheaders()
            self._chunk(b'{"unlock":false}\n')

    def _chunk(self, data: bytes) -> None:
        self._http.connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def unlock(self) -> None:
        """Say so, and hear the end of the answer."""
        with self._http.deadline():
            self._chunk(b'{"unlock":true}\n')
            self._http.connection.send(b"0\r\n\r\n")
            self._http.connection.getresponse().read()

    def close(self) -> None:
        """Leave without a word."""
        self._http.close()


@requirement(
    "H-040", "lockcontent of absent content is answered by locked:false.", f"{_HTTP}, lockcontent", needs=_NEEDS
)
def absent(trial: Trial) -> None:
    said = Http(trial).post("lockcontent", {"key": trial.contents.fresh().key}).json()
    must(said.get("locked") is False, f"it is answered by {said}")


@requirement(
    "H-041",
    "lockcontent of content that is there is answered by locked:true and a lockid.",
    f"{_HTTP}, lockcontent",
    needs=_NEEDS,
)
def present(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    Held(trial, locked(http, content)).unlock()


@requirement("H-042", "While keeplocked goes on, the content is not removed.", f"{_HTTP}, keeplocked", needs=_NEEDS)
def held(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    kept = Held(trial, locked(http, content))
    _must_refuse(http, content, "while it was locked")
    kept.unlock()


@requirement("H-043", "After unlock the content can be removed.", f"{_HTTP}, keeplocked", needs=_NEEDS)
def unlocked(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    Held(trial, locked(http, content)).unlock()
    said = http.post("remove", {"key": content.key}).json()
    must(said.get("removed") is True, f"remove is answered by {said}")


@requirement(
    "H-045",
    "A lock lasts as long as its keeplocked goes on, and does not run out before.",
    f"{_HTTP}, keeplocked",
    once=True,
    needs=_NEEDS,
)
def lasts(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    kept = Held(trial, locked(http, content))
    for moment in trial.moments():
        _must_refuse(http, content, f"after it had been locked for {moment:.1f} s")
    kept.unlock()


@requirement(
    "H-046",
    "A key can be locked twice, under two lockids, and stays locked when one of them is unlocked.",
    f"{_HTTP}, keeplocked; measured: direct-lock-two",
    once=True,
    needs=_NEEDS,
)
def two(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    first, second = locked(http, content), locked(http, content)
    must(first != second, f"two locks have one lockid: {first}")
    one, other = Held(trial, first), Held(trial, second)
    one.unlock()
    _must_refuse(http, content, "while a second client had it locked")
    other.unlock()


@requirement(
    "H-047",
    "remove-before does not remove locked content either.",
    f"{_HTTP}, remove-before",
    since=3,
    needs=_NEEDS,
)
def held_against_a_deadline(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    kept = Held(trial, locked(http, content))
    until = http.post("gettimestamp").json()["timestamp"] + 300
    _must_refuse(http, content, "while it was locked", "remove-before", timestamp=str(until))
    kept.unlock()


@requirement(
    "H-048",
    "lockcontent of content that was removed is answered by locked:false.",
    f"{_HTTP}, lockcontent",
    needs=_NEEDS,
)
def removed(trial: Trial) -> None:
    content = trial.contents.fresh()
    http = Http(trial)
    http.store(content)
    http.post("remove", {"key": content.key})
    said = http.post("lockcontent", {"key": content.key}).json()
    must(said.get("locked") is False, f"it is answered by {said}")
