"""CONNECT and NOTIFYCHANGE: git itself, and news of it."""

from __future__ import annotations

from protocol_tests.channel import Gone, Silent
from protocol_tests.need import Need
from protocol_tests.place import git
from protocol_tests.requirement import requirement
from protocol_tests.trial import NotTried, Trial, must

__all__ = [
    "notify_answers_or_waits",
    "refused_or_relayed",
    "refused_service_leaves_the_session",
    "tells_what_changed",
    "unknown_service",
]

_CONNECT = "P2P protocol, Connection to services"


@requirement(
    "P-150",
    "CONNECT to git-upload-pack is refused, or relays the service in DATA until CONNECTDONE.",
    _CONNECT,
    since=1,
    once=True,
)
def refused_or_relayed(trial: Trial) -> None:
    talk = trial.talk()
    try:
        answer = talk.ask(b"CONNECT git-upload-pack")
    except Gone:
        return
    if answer.startswith(b"ERROR"):
        return
    talk.send(b"DATA 4\n0000")  # git's way of wanting nothing
    while answer.startswith(b"DATA "):
        talk.read(int(answer.removeprefix(b"DATA ")))
        answer = talk.hear()
    must(answer.startswith(b"CONNECTDONE ") and answer[12:].isdigit(), f"a service ends with {answer!r}")


@requirement(
    "P-151",
    "A CONNECT that is refused is answered by ERROR, and the session goes on.",
    "P2P protocol, Errors",
    since=1,
    once=True,
)
def refused_service_leaves_the_session(trial: Trial) -> None:
    talk = trial.talk()
    try:
        answer = talk.ask(b"CONNECT git-receive-pack")
    except Gone as gone:
        raise Gone("CONNECT ended the session instead of being answered") from gone
    if answer.startswith(b"ERROR"):
        talk.must_live("a refused CONNECT")


@requirement("P-152", "A service that nobody knows is not served.", _CONNECT, since=1, once=True)
def unknown_service(trial: Trial) -> None:
    talk = trial.talk()
    try:
        answer = talk.ask(b"CONNECT cat")
    except Gone:
        return
    must(answer.startswith(b"ERROR"), f"CONNECT cat is answered by {answer!r}")


@requirement(
    "P-153",
    "NOTIFYCHANGE is refused by ERROR, or waits, or is answered by CHANGED; it does not end the session.",
    "P2P protocol, Change notification; P2P protocol, Errors",
    since=1,
    once=True,
)
def notify_answers_or_waits(trial: Trial) -> None:
    talk = trial.talk()
    talk.say(b"NOTIFYCHANGE")
    try:
        if talk.quiet(0.3) and not talk.at_end:
            return
        answer = talk.hear()
    except Silent:
        return
    except Gone as gone:
        raise Gone("NOTIFYCHANGE ended the session instead of being answered") from gone
    must(answer.startswith((b"ERROR", b"CHANGED")), f"NOTIFYCHANGE is answered by {answer!r}")
    talk.must_live("NOTIFYCHANGE")


@requirement(
    "P-154",
    "A NOTIFYCHANGE that waits is answered by CHANGED as soon as a branch changes, with its name or its new commit.",
    "P2P protocol, Change notification",
    since=1,
    once=True,
    needs=(Need.LINES, Need.REPOSITORY, Need.PATH),
)
def tells_what_changed(trial: Trial) -> None:
    path = trial.subject.path
    assert path is not None, "the requirement needs PATH"
    talk = trial.talk()
    talk.say(b"NOTIFYCHANGE")
    if not talk.quiet(0.5) or talk.at_end:  # refused, which is for another requirement to judge
        raise NotTried("it refuses NOTIFYCHANGE")
    name = f"refs/heads/{trial.contents.name().decode()}"
    commit = git(path, "commit-tree", git(path, "mktree").strip(), "-m", name).strip()
    git(path, "update-ref", name, commit)
    trial.transcript.note("", "comment", f"the harness makes {name}")
    try:
        answer = talk.hear()
    except Gone as gone:
        raise NotTried("it refuses NOTIFYCHANGE") from gone
    if answer.startswith(b"ERROR"):  # of a server that takes its time
        raise NotTried("it refuses NOTIFYCHANGE")
    must(answer.startswith(b"CHANGED "), f"a change is told by {answer!r}")
    told = {name.encode(), commit.encode()} & set(answer.split(b" "))
    must(bool(told), f"{name} is now {commit}, and the answer is {answer!r}")
    talk.must_live("CHANGED")
