"""What no client should say."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.need import ANY_ROLE, NEWEST, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = [
    "absolute_associated_file",
    "client_error_ends",
    "empty_line",
    "endless_data",
    "garbage",
    "leading_blank",
    "lower_case",
    "malformed_keys",
    "missing_associated_file",
    "missing_parameters",
    "negative_data",
    "nothing_outside",
    "null_in_a_key",
    "out_of_place",
    "unknown",
]

_ERRORS = "P2P protocol, Errors"


def _refused(talk: Talk, line: bytes) -> None:
    try:
        answer = talk.ask(line)
    except Gone as gone:
        raise Gone(f"{line[:60]!r} ended the session instead of being answered") from gone
    must(answer.startswith(b"ERROR"), f"{line[:60]!r} is answered by {answer!r}")
    talk.must_live(repr(line[:60]))


@requirement(
    "P-180",
    "A command that nobody knows is answered by ERROR, and the session goes on.",
    _ERRORS,
    once=True,
    roles=ANY_ROLE,
)
def unknown(trial: Trial) -> None:
    talk = trial.talk()
    for line in (b"FROBNICATE", b"CHECKPRESENTX a", b"GETALL"):
        _refused(talk, line)


@requirement("P-181", "Commands are upper case.", "measured: direct-auth-version", once=True, roles=ANY_ROLE)
def lower_case(trial: Trial) -> None:
    key = trial.contents.fresh().key
    talk = trial.talk()
    for verb in (b"checkpresent ", b"Remove ", b"lockcontent "):
        _refused(talk, verb + key)


@requirement(
    "P-182", "A blank before the command makes it unknown.", "measured: direct-auth-version", once=True, roles=ANY_ROLE
)
def leading_blank(trial: Trial) -> None:
    _refused(trial.talk(), b" CHECKPRESENT " + trial.contents.fresh().key)


@requirement(
    "P-183", "An empty line is answered by ERROR, and the session goes on.", _ERRORS, once=True, roles=ANY_ROLE
)
def empty_line(trial: Trial) -> None:
    _refused(trial.talk(), b"")


@requirement(
    "P-184",
    "A command without its parameters is answered by ERROR, and the session goes on.",
    _ERRORS,
    once=True,
    roles=ANY_ROLE,
)
def missing_parameters(trial: Trial) -> None:
    talk = trial.talk()
    for line in (b"CHECKPRESENT", b"LOCKCONTENT", b"GET", b"GET 0", b"PUT", b"PUT  "):
        _refused(talk, line)


@requirement(
    "P-185",
    "A message that has no place here is answered by ERROR, and the session goes on.",
    _ERRORS,
    once=True,
    roles=ANY_ROLE,
)
def out_of_place(trial: Trial) -> None:
    talk = trial.talk()
    for line in (b"SUCCESS", b"FAILURE", b"VALID", b"UNLOCKCONTENT", b"PUT-FROM 0", b"ALREADY-HAVE", b"AUTH-FAILURE"):
        _refused(talk, line)


@requirement("P-186", "What is no key is answered by ERROR, never by SUCCESS.", _ERRORS, once=True, roles=ANY_ROLE)
def malformed_keys(trial: Trial) -> None:
    talk = trial.talk()
    for key in (b"nonsense", b"SHA256", b"--name", b"SHA256-s--x", b"SHA256-s-5--x", b"SHA256-q5--x"):
        for verb in (b"CHECKPRESENT ", b"LOCKCONTENT ", b"REMOVE ") if trial.role == "write" else (b"CHECKPRESENT ",):
            _refused(talk, verb + key)


@requirement(
    "P-187",
    "A line of arbitrary bytes is answered by ERROR, and the session goes on.",
    _ERRORS,
    once=True,
    roles=ANY_ROLE,
)
def garbage(trial: Trial) -> None:
    talk = trial.talk()
    for line in (b"\xff\xfe\x80", b"\x01\x02", "ÄÖ ÜÜ".encode(), b"\xc3", b"GET \xff a b"):
        _refused(talk, line)


@requirement(
    "P-188", "ERROR from the client ends the connection.", _ERRORS, once=True, needs=(Need.LINES,), roles=ANY_ROLE
)
def client_error_ends(trial: Trial) -> None:
    talk = trial.talk()
    talk.say(b"ERROR something is wrong here")
    must(talk.ended(), "the connection goes on")


@requirement(
    "P-189", "A key with a NUL is refused or absent, also for PUT, and the session goes on.", _ERRORS, once=True
)
def null_in_a_key(trial: Trial) -> None:
    talk = trial.talk()
    key = b"WORM-s3-m1--a\0" + trial.contents.name()
    for line in (b"CHECKPRESENT " + key, b"PUT  " + key):
        try:
            answer = talk.ask(line)
            if answer.startswith(b"PUT-FROM"):
                answer = talk.deliver(b"abc")
        except Gone as gone:
            raise Gone(f"{line[:12]!r} with a NUL in the key ended the session") from gone
        must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"{line[:12]!r} with a NUL: {answer!r}")
        talk.must_live("a key with a NUL")


@requirement("P-190", "DATA of a negative length stores nothing.", _ERRORS, once=True)
def negative_data(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    try:
        answer = talk.ask(b"DATA -5")
        must(answer.startswith((b"ERROR", b"FAILURE")), f"DATA -5 is answered by {answer!r}")
    except Gone:
        pass
    trial.talk(client=1).must_lack(content.key, "nothing was sent")


@requirement(
    "P-191",
    "DATA of an absurd length is not believed: it is refused, or the session ends with the client.",
    "measured: direct-put-long",
    once=True,
)
def endless_data(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    try:
        talk.send(b"DATA 99999999999999999999\n" + content.body)
        if not talk.quiet():
            answer = talk.hear()
            must(answer.startswith((b"ERROR", b"FAILURE")), f"DATA of 10^20 bytes is answered by {answer!r}")
    except Gone:
        pass
    trial.vanish(talk)
    trial.talk(client=1).must_lack(content.key, "its DATA was absurd")


@requirement(
    "P-192", "An absolute path as associated file is refused.", "measured: direct-put-nondata-reply", once=True
)
def absolute_associated_file(trial: Trial) -> None:
    _refused(trial.talk(), b"PUT /etc/passwd " + trial.contents.fresh().key)


@requirement(
    "P-193",
    "The associated file has a place of its own, also when it is empty: one blank in place of two is an error.",
    "measured: direct-put-nondata-reply",
    once=True,
)
def missing_associated_file(trial: Trial) -> None:
    key = trial.contents.fresh().key
    talk = trial.talk()
    _refused(talk, b"PUT " + key)
    _refused(talk, b"GET 0 " + key)


@requirement(
    "P-194",
    "Keys and associated files that look like paths create nothing outside the repository.",
    "measured: direct-put-nosize-worm-url",
    since=NEWEST - 3,
    once=True,
    needs=(Need.LINES, Need.REPOSITORY, Need.PATH),
)
def nothing_outside(trial: Trial) -> None:
    path = trial.subject.path
    assert path is not None, "the requirement needs PATH"
    before = sorted(path.parent.iterdir())
    for key in (b"WORM-s3-m1--../../../x", b"WORM-s3-m1--/tmp/x", b"../../../x-s3--y", b"WORM-s3-m1--.."):
        talk = trial.talk()
        try:
            if talk.ask(b"PUT ../../x " + key).startswith(b"PUT-FROM"):
                talk.deliver(b"abc")
        except Gone:
            continue
    must(sorted(path.parent.iterdir()) == before, "something has appeared beside the repository")
