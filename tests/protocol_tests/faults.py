"""Planted faults: for each requirement of the line protocol, a server that breaks it.

A fault is the tiny server with one thing changed: a lie about what was done (``says``), or one method (``session``,
``store``) that does something else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tiny
from tiny import HangUp, Lie, Session, Store


@dataclass(frozen=True)
class Fault:
    """``requirement`` must fail on the server that ``lie``, ``session`` and ``store`` make."""

    requirement: str
    what: str
    lie: Lie | None = None
    session: type[Session] = Session
    store: type[Store] = Store
    token: str = ""
    mode: str = "write"


FAULTS: list[Fault] = []


def says(requirement: str, what: str, asked: bytes, truth: bytes, instead: bytes | None, **more: Any) -> None:
    """Where *asked* is answered by *truth* (regular expressions), *instead* is said; None hangs up."""

    def lie(line: bytes, answer: bytes) -> bytes | None:
        fits = re.fullmatch(asked, line, re.DOTALL) and re.fullmatch(truth, answer, re.DOTALL)
        return instead if fits else answer + b"\n"

    FAULTS.append(Fault(requirement, what, lie, **more))


def does(requirement: str, what: str, **changed: Any) -> None:
    """A session or store with some *changed* methods; ``token`` and ``mode`` go to the fault."""
    rest = {name: changed.pop(name) for name in ("token", "mode") if name in changed}
    of_store = {name: value for name, value in changed.items() if name in vars(Store)}
    of_session = {name: value for name, value in changed.items() if name not in of_store}
    session = type("Broken", (Session,), of_session) if of_session else Session
    store = type("BrokenStore", (Store,), of_store) if of_store else Store
    FAULTS.append(Fault(requirement, what, None, session, store, **rest))


ANY = b".*"
FOUND, NOT, REFUSED = b"SUCCESS", b"FAILURE", b"ERROR .*"


def after(name: str, then: Callable[[Session], object]) -> Callable[..., None]:
    """The method *name*, and *then* something more."""
    right = getattr(Session, name)

    def wrong(self: Session, *args: Any) -> None:
        right(self, *args)
        then(self)

    return wrong


# -- auth, version ---------------------------------------------------------------------------------------------------

says(
    "P-001", "another repository's UUID", ANY, b"AUTH-SUCCESS .*", b"AUTH-SUCCESS 00000000-0000-4000-8000-000000000000"
)
says("P-001", "no UUID", ANY, b"AUTH-SUCCESS .*", b"AUTH-SUCCESS ")
says("P-001", "no greeting", ANY, b"AUTH-SUCCESS .*", None)
does("P-002", "talks unasked", greet=after("greet", lambda self: self.sock.sendall(b"VERSION 4\n")))
does("P-004", "any token will do", token=tiny.TOKEN, right=lambda self, token: True)
does(
    "P-004",
    "the beginning of a token will do",
    token=tiny.TOKEN,
    right=lambda self, token: tiny.TOKEN.startswith(token.decode()),
)
does("P-005", "serves strangers", token=tiny.TOKEN, greet=lambda self: self.request(self.line()))
says("P-010", "always version 1", b"VERSION \\d", ANY, b"VERSION 1")
says("P-011", "agrees to everything", b"VERSION 99", ANY, b"VERSION 99")
says("P-011", "refuses what it does not know", b"VERSION \\d\\d+", ANY, b"ERROR unknown command")
does("P-012", "thinks in version 1 from the beginning", greet=after("greet", lambda self: setattr(self, "version", 1)))
says("P-013", "the version is for ever", b"VERSION 0", ANY, b"ERROR unexpected command")
says("P-014", "negative versions", b"VERSION -1", ANY, b"VERSION -1")
says("P-015", "any word is a version", b"VERSION abc", ANY, b"VERSION 0")
says("P-015", "a bad version ends it", b"VERSION 1.5", ANY, None)
does(
    "P-016",
    "never goes down",
    do_VERSION=lambda self, rest: (
        setattr(self, "version", max(self.version, int(rest))),
        self.say(b"VERSION " + rest),
    ),
)

# -- checkpresent, get -----------------------------------------------------------------------------------------------

says("P-020", "everything is there", b"CHECKPRESENT .*", NOT, FOUND)
says("P-021", "nothing is there", b"CHECKPRESENT .*", FOUND, NOT)
says("P-021", "ERROR for what is there", b"CHECKPRESENT .*", FOUND, b"ERROR")
does("P-022", "removes in words only", remove=lambda self, key: True)
does("P-023", "each session for itself", greet=after("greet", lambda self: setattr(self, "store", Store())))


def _removes_for_itself(self: Session, rest: bytes) -> None:
    apart = Store()
    apart.contents |= self.store.contents
    self.store = apart
    Session.do_REMOVE(self, rest)


does("P-023", "keeps its removals for itself", do_REMOVE=_removes_for_itself)


def _seen_at_once(self: Session, key: bytes, partial: bytes, length: int) -> None:
    self.store.contents[key] = partial
    Session.receive(self, key, partial, length)


does("P-024", "there as soon as it begins", receive=_seen_at_once)
does(
    "P-025",
    "extensions do not count",
    has=lambda self, key: any(one.split(b".")[0] == key.split(b".")[0] for one in self.contents),
)


def _tidies_up(self: Session) -> None:
    try:
        Session.run(self)
    finally:
        self.store.contents.clear()


does("P-027", "nothing outlives its session", run=_tidies_up)
says("P-030", "one byte less", b"GET 0 .*", b"DATA 5000", b"DATA 4999")


def _sends(change: Callable[[bytes], bytes]) -> Callable[[Session, bytes, bool], None]:
    return lambda self, body, valid: Session.send_content(self, change(body), valid)


does("P-030", "another byte", send_content=_sends(lambda body: b"x" + body[1:]))


def _ignores_offset(self: Session, rest: bytes) -> None:
    Session.do_GET(self, b"0 " + rest.partition(b" ")[2])


def _fence_post(self: Session, rest: bytes) -> None:
    offset, _, rest = rest.partition(b" ")
    Session.do_GET(self, b"%d %s" % (max(0, int(offset) - 1), rest))


does("P-031", "offsets do not count", do_GET=_ignores_offset)
does("P-031", "one byte too early", do_GET=_fence_post)
does(
    "P-032",
    "beyond the end is the beginning",
    do_GET=lambda self, rest: (_ignores_offset if int(rest.split(b" ")[0]) > 299 else Session.do_GET)(self, rest),
)
says("P-033", "absent is as good as empty", b"GET .*", b"INVALID", b"VALID")
does(
    "P-034",
    "makes something up",
    send_content=lambda self, body, valid: Session.send_content(self, body if valid else b"absent", valid),
)
says("P-035", "INVALID for what is right", b"GET .*", b"VALID", b"INVALID")
does("P-036", "thanks for the verdict", do_GET=after("do_GET", lambda self: self.sock.sendall(b"SUCCESS\n")))


def _thanks_late(self: Session, rest: bytes) -> None:
    Session.do_GET(self, rest)
    self.more()  # the next request has come
    self.sock.sendall(b"FAILURE\n")


does("P-036", "thanks for the verdict later", do_GET=_thanks_late)


def _forgets_on_failure(self: Session, body: bytes, valid: bool) -> None:
    Session.send_content(self, body, valid)
    if self.asked == b"FAILURE":
        self.store.contents.clear()


does("P-037", "forgets what the client could not use", send_content=_forgets_on_failure)
says("P-038", "any verdict will do", b"CHECKPRESENT .*", b"ERROR expected SUCCESS.*", FOUND)
does("P-039", "at most 64 KiB", send_content=_sends(lambda body: body[:65536]))
does(
    "P-040",
    "nothing is not a content",
    finish=lambda self, key, body, valid: bool(body) and Store.finish(self, key, body, valid),
)
does(
    "P-041",
    "sends by name",
    do_GET=lambda self, rest: Session.do_GET(self, rest if rest.startswith(b"0  ") else b"0  " + b"WORM--x"),
)
does("P-042", "counts from the end", do_GET=lambda self, rest: Session.do_GET(self, rest.removeprefix(b"-")))
does(
    "P-043",
    "any word is an offset",
    do_GET=lambda self, rest: Session.do_GET(self, re.sub(rb"^\D\S*|^\d\.\d", b"0", rest)),
)
does(
    "P-044",
    "forgets what came too early",
    send_content=after("send_content", lambda self: setattr(self, "buffer", b"")),
)

# -- put, resume, data-present ---------------------------------------------------------------------------------------

says("P-050", "begins in the middle", b"PUT .*", b"PUT-FROM 0", b"PUT-FROM 7")
does(
    "P-051",
    "stores something else",
    finish=lambda self, key, body, valid: (
        Store.finish(self, key, body, valid) and bool(self.contents.update({key: body[:-1] + b"?"}) or True)
    ),
)
does("P-051", "says SUCCESS and stores nothing", finish=lambda self, key, body, valid: True)
says("P-052", "takes it again", b"PUT .*", b"ALREADY-HAVE", b"PUT-FROM 0")
says("P-053", "-PLUS for the old", b"PUT .*", b"ALREADY-HAVE", b"ALREADY-HAVE-PLUS")
says("P-053", "-PLUS at the end of a PUT", b"DATA .*|VALID", FOUND, b"SUCCESS-PLUS")
does("P-054", "does not look at the hash", fits=lambda self, key, body: None)
says("P-054", "does not say it", b"VALID", NOT, FOUND)


def _keeps_what_was_wrong(self: Store, key: bytes, body: bytes, valid: bool) -> bool:
    good = Store.finish(self, key, body, valid)
    if not good:
        self.partials[key] = body
    return good


does("P-055", "goes on after what was wrong", finish=_keeps_what_was_wrong)
says("P-056", "SUCCESS is told as FAILURE", b"INVALID", FOUND, NOT)
says("P-057", "INVALID is SUCCESS", b"INVALID", NOT, FOUND)
does("P-058", "INVALID is no matter", finish=lambda self, key, body, valid: Store.finish(self, key, body, True))
does(
    "P-059",
    "waits for VALID at version 0",
    receive=lambda self, key, partial, length: (
        setattr(self, "version", 1),
        Session.receive(self, key, partial, length),
    ),
)
does("P-060", "trusts version 0", fits=lambda self, key, body: None)
does("P-061", "what came is what there is", fits=lambda self, key, body: True)
does(
    "P-062",
    "cuts off what is too much",
    finish=lambda self, key, body, valid: Store.finish(self, key, body[:1000], valid),
)
does(
    "P-063",
    "no more than a megabyte",
    finish=lambda self, key, body, valid: len(body) <= 1 << 20 and Store.finish(self, key, body, valid),
)
does("P-064", "reads lines in contents", body=lambda self, length: Session.body(self, length).replace(b"\r\n", b"\n"))


def _next_comes_with_it(self: Store, key: bytes) -> bool:
    return bool(self.contents)


does("P-065", "one is all", has=_next_comes_with_it)


def _answers_error(self: Session, rest: bytes) -> None:
    Session.do_PUT(self, rest)
    if self.asked.startswith(b"ERROR"):
        self.say(b"FAILURE")


does("P-066", "answers the client's ERROR", do_PUT=_answers_error)
says("P-067", "anything in place of DATA ends it", ANY, b"ERROR expected DATA", None)
says("P-068", "any word is VALID", b"PERHAPS", REFUSED, b"")
says("P-068", "one line in place of two", b"PERHAPS", b"SUCCESS|FAILURE", b"")
does(
    "P-069",
    "changes what nobody can verify",
    finish=lambda self, key, body, valid: (
        Store.finish(self, key, body, valid)
        and (not key.startswith(b"WORM") or bool(self.contents.update({key: b"?"}) or True))
    ),
)


def _last_one_wins(self: Store, key: bytes, body: bytes, valid: bool) -> bool:
    if self.has(key):
        self.contents[key] = b"?" + body
        return True
    return Store.finish(self, key, body, valid)


does("P-070", "two at once are both kept", finish=_last_one_wins)
does("P-071", "says it twice", after_put=lambda self: self.sock.sendall(b"SUCCESS\n"))
does("P-071", "says it twice, later", after_put=lambda self: (self.more(), self.sock.sendall(b"FAILURE\n")))
does(
    "P-072",
    "knows SHA-2 only",
    fits=lambda self, key, body: Store.fits(self, key, body) if key.startswith((b"SHA2", b"SHA3", b"SHA5")) else None,
)
does(
    "P-072",
    "refuses what it has asked for",
    fits=lambda self, key, body: key.startswith((b"SHA2", b"WORM")) and Store.fits(self, key, body),
)


def _keeps_halves(self: Session, key: bytes, partial: bytes, length: int) -> None:
    try:
        Session.receive(self, key, partial, length)
    except HangUp:
        self.store.contents[key] = self.store.partials.get(key, b"")
        raise


def _counts_too_much(self: Session, key: bytes, partial: bytes, length: int) -> None:
    try:
        Session.receive(self, key, partial, length)
    except HangUp:
        self.store.partials[key] = (partial + self.buffer).ljust(length, b"\0")
        raise


does("P-080", "half is enough", receive=_keeps_halves)
does("P-081", "a sparse partial", receive=_counts_too_much)
does(
    "P-081",
    "loses what it has asked to go on from",
    receive=lambda self, key, partial, length: Session.receive(self, key, b"", length),
)
does("P-082", "keeps a wrong end", finish=_keeps_what_was_wrong)


def _asking_discards(self: Session, key: bytes, partial: bytes, length: int) -> None:
    Session.receive(self, key, partial, length)
    self.store.partials.pop(key, None)


does("P-083", "asking for the offset discards", receive=_asking_discards)
does("P-084", "almost is enough", fits=lambda self, key, body: True)


def _looks_at_the_end_only(self: Session, key: bytes, partial: bytes, length: int) -> None:
    if partial:
        self.store.contents[key] = partial + self.body(length)
        self.line()
        self.say(b"SUCCESS")
    else:
        Session.receive(self, key, partial, length)


does("P-085", "believes what it had", receive=_looks_at_the_end_only)
says("P-090", "believes that it is there", b"DATA-PRESENT", NOT, FOUND)
says("P-091", "does not look", b"DATA-PRESENT", FOUND, NOT)
does(
    "P-092",
    "from the first version on",
    do_PUT=lambda self, rest: (setattr(self, "version", 4), Session.do_PUT(self, rest)),
)

# -- locks, removal --------------------------------------------------------------------------------------------------

says("P-100", "locks nothing", b"LOCKCONTENT .*", FOUND, NOT)
does("P-101", "locks what is not there", lock=lambda self, key: True)
says("P-101", "says that it locks what is not there", b"LOCKCONTENT .*", NOT, FOUND)


def _answers_unlock(self: Session, rest: bytes) -> None:
    Session.do_LOCKCONTENT(self, rest)
    if self.asked == b"UNLOCKCONTENT":
        self.say(b"SUCCESS")


does("P-102", "answers UNLOCKCONTENT", do_LOCKCONTENT=_answers_unlock)


def _answers_unlock_late(self: Session, rest: bytes) -> None:
    Session.do_LOCKCONTENT(self, rest)
    if self.asked == b"UNLOCKCONTENT":
        self.more()  # the next request has come
        self.say(b"SUCCESS")


does("P-102", "answers UNLOCKCONTENT later", do_LOCKCONTENT=_answers_unlock_late)
does("P-103", "locks in words only", locked=lambda self, key: False)
says("P-103", "says that it was removed", b"REMOVE .*", NOT, FOUND)
says("P-104", "hangs up on locked content", b"REMOVE .*", NOT, None)
does("P-105", "never unlocks", unlock=lambda self, key: None)
does("P-106", "one unlocks for all", unlock=lambda self, key: self.locks.update({key: -self.locks[key]}))
says("P-107", "lets it pass", b"CHECKPRESENT .*", b"ERROR expected UNLOCK.*", FOUND)
says("P-107", "hangs up on it", b"CHECKPRESENT .*", b"ERROR expected UNLOCK.*", None)
does("P-108", "what is locked is not there", has=lambda self, key: key in self.contents and not self.locks[key])
does("P-109", "one lock locks all", locked=lambda self, key: any(self.locks.values()))


def _deadline_beats_lock(self: Session, rest: bytes) -> None:
    self.store.contents.pop(rest.partition(b" ")[2], None)
    self.say(b"SUCCESS")


does("P-110", "a deadline beats a lock", do_REMOVE_BEFORE=_deadline_beats_lock)
does("P-111", "a lost connection unlocks", abandon=lambda self, key: self.unlock(key))
does(
    "P-111",
    "a lost connection unlocks soon",
    abandon=lambda self, key: (self.unlock(key), self.kept.update({key: time.monotonic() + 0.4})),
)


def _runs_out(self: Store, key: bytes) -> bool:
    self.kept[key] = time.monotonic() + 0.4
    return self.has(key)


does("P-114", "runs out", lock=_runs_out, unlock=lambda self, key: self.kept.pop(key, None))


def _lets_lock_what_was_there(self: Store, key: bytes) -> bool:
    there = self.has(key)
    self.locks[b"was " + key] += there
    return Store.remove(self, key)


does(
    "P-115",
    "locks what was there",
    remove=_lets_lock_what_was_there,
    lock=lambda self, key: Store.lock(self, key) or bool(self.locks[b"was " + key]),
)
says("P-120", "removes nothing", b"REMOVE .*", FOUND, NOT)
does("P-120", "says so and keeps it", remove=lambda self, key: True)
does("P-121", "absent is an error", remove=lambda self, key: self.has(key) and Store.remove(self, key))


def _remembers(self: Store, key: bytes) -> bool:
    self.partials[key] = self.contents.get(key, b"")
    return Store.remove(self, key)


does("P-122", "keeps the bytes as a partial", remove=_remembers)
does("P-123", "removes all", remove=lambda self, key: bool(self.contents.clear() or True))
says("P-124", "ends it", b"REMOVE", REFUSED, None)
says("P-130", "fractions of seconds", b"GETTIMESTAMP", ANY, b"TIMESTAMP 1.5")
does("P-131", "the clock stands", now=lambda self: 1000)
does("P-131", "counts milliseconds", now=lambda self: int(self.clock() * 1000))
does("P-131", "goes back at times", now=lambda self: int(self.clock()) - 5 * (int(self.clock() * 10) % 10 == 5))
does("P-132", "each session has a clock", now=lambda self: int(self.clock()) + id(self) % 977)
says("P-133", "never in time", b"REMOVE-BEFORE .*", FOUND, NOT)
does("P-134", "always in time", in_time=lambda self, moment: True)
does("P-135", "the present second counts", in_time=lambda self, moment: int(self.clock()) <= moment)
does(
    "P-136",
    "too late for nothing",
    do_REMOVE_BEFORE=lambda self, rest: (
        Session.do_REMOVE_BEFORE(self, rest) if self.in_time(int(rest.split(b" ")[0])) else self.say(b"FAILURE")
    ),
)
does("P-137", "any word is a moment", do_REMOVE_BEFORE=lambda self, rest: self.do_REMOVE(rest.partition(b" ")[2]))
says("P-138", "ends it", b"REMOVE-BEFORE \\d+", REFUSED, None)
does(
    "P-139",
    "each session begins at 0",
    greet=after("greet", lambda self: setattr(self, "begun", time.monotonic())),
    now=lambda self: int(time.monotonic() - self.begun),
)

# -- bypass, services, framing ---------------------------------------------------------------------------------------

does("P-140", "answers BYPASS", do_BYPASS=lambda self, rest: self.say(b"SUCCESS"))
does("P-140", "BYPASS needs a UUID", do_BYPASS=lambda self, rest: None if rest else self.error())
does(
    "P-141",
    "is bypassed itself",
    do_BYPASS=lambda self, rest: setattr(self, "store", type("Nothing", (Store,), {"finish": lambda *_: False})()),
)
says("P-150", "a service without an end", b"CONNECT git-upload-pack", ANY, b"DATA 0\nSUCCESS")
says("P-151", "hangs up", b"CONNECT .*", ANY, None)
says("P-152", "any service", b"CONNECT cat", ANY, b"DATA 4\ncats")
says("P-153", "NOTIFYCHANGE ends it", b"NOTIFYCHANGE", ANY, None)
says("P-153", "says nothing of use", b"NOTIFYCHANGE", ANY, FOUND)


def _packet_is_a_line(self: Session) -> bytes:
    data = self.sock.recv(65536)
    if not data:
        raise HangUp
    self.asked = data.partition(b"\n")[0]
    return self.asked


does("P-160", "a packet is a line", line=_packet_is_a_line)
does(
    "P-161",
    "one request a packet",
    request=lambda self, line: (Session.request(self, line), setattr(self, "buffer", b"")),
)
does("P-162", "forgets what rides along", after_put=lambda self: setattr(self, "buffer", b""))


def _keeps_cr(self: Session) -> bytes:
    while b"\n" not in self.buffer:
        self.more()
    self.asked, _, self.buffer = self.buffer.partition(b"\n")
    return self.asked.replace(b"\r", b"\0")


does("P-163", "CR belongs to the key", line=_keeps_cr)
says("P-164", "CRLF", b"CHECKPRESENT .*", NOT, b"FAILURE\r\n")
does(
    "P-165",
    "a tab is a letter",
    words=lambda self, line: (
        line.partition(b" ")[0].decode("ascii", "replace").replace("-", "_"),
        line.partition(b" ")[2],
    ),
)


def _line_of(limit: int) -> Callable[[Session], bytes]:
    def line(self: Session) -> bytes:
        while b"\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\n")
        if len(head) > limit:
            raise HangUp
        self.asked = head.removesuffix(b"\r")
        return self.asked

    return line


does("P-166", "lines of 4 KiB", line=_line_of(4096))
does("P-167", "lines without end", line=_line_of(1 << 30))
does("P-171", "lines of 64 KiB", line=_line_of(65536))


def _last_words(self: Session) -> None:
    try:
        while True:
            self.more() if b"\n" not in self.buffer else self.request(self.line())
    except (HangUp, OSError):
        if self.buffer.startswith(b"REMOVE "):
            self.store.remove(self.buffer.removeprefix(b"REMOVE "))


def _run_to_the_last_byte(self: Session) -> None:
    self.greet()
    _last_words(self)
    self.sock.close()


does("P-169", "what was said last counts too", run=_run_to_the_last_byte)
does("P-170", "a key ends at a blank", key=lambda self, rest: Session.key(self, rest.split(b" ")[0]))
does("P-170", "keys are text", key=lambda self, rest: Session.key(self, rest.decode("ascii", "ignore").encode()))


def _hundred_requests(self: Session, line: bytes) -> None:
    self.locked_out = getattr(self, "locked_out", 0) + 1
    if self.locked_out > 100:
        raise HangUp
    Session.request(self, line)


does("P-172", "a hundred are enough", request=_hundred_requests)

# -- bad input -------------------------------------------------------------------------------------------------------

says("P-180", "unknown commands end it", b"FROBNICATE", ANY, None)
says("P-180", "unknown commands are fine", b"FROBNICATE", ANY, FOUND)
does(
    "P-181",
    "any case",
    request=lambda self, line: Session.request(self, line.partition(b" ")[0].upper() + b" " + line.partition(b" ")[2]),
)
does("P-182", "blanks before it do not count", request=lambda self, line: Session.request(self, line.lstrip()))
does("P-183", "an empty line is nothing", request=lambda self, line: Session.request(self, line) if line else None)
says("P-184", "parameters may be left out", b"CHECKPRESENT", ANY, NOT)
says("P-184", "or it ends", b"GET 0", ANY, None)
says("P-185", "anything goes", b"PUT-FROM 0", ANY, FOUND)
says("P-185", "or it ends", b"VALID", ANY, None)
does("P-186", "anything is a key", key=lambda self, rest: rest)
says("P-187", "garbage ends it", b"\xff.*", ANY, None)


def _goes_on(self: Session, line: bytes) -> None:
    if not line.startswith(b"ERROR"):
        Session.request(self, line)


does("P-188", "ERROR is no matter", request=_goes_on)
says("P-189", "a NUL ends it", b".*\0.*", ANY, None)


def _negative(self: Session, rest: bytes) -> None:
    key = rest.split(b" ")[1]
    if not self.store.has(key):
        self.say(b"PUT-FROM 0")
        self.line()
        self.store.contents[key] = b""
        self.say(b"SUCCESS")


does("P-190", "less than nothing is a content", do_PUT=_negative)


def _absurd(self: Session, key: bytes, partial: bytes, length: int) -> None:
    if length > 1 << 40:
        self.store.contents[key] = b""
    Session.receive(self, key, partial, length)


does("P-191", "believes the length", receive=_absurd)
does("P-192", "absolute names are fine", do_PUT=lambda self, rest: Session.do_PUT(self, rest.lstrip(b"/")))
does(
    "P-193",
    "one blank is enough",
    do_PUT=lambda self, rest: Session.do_PUT(self, rest if b" " in rest else b" " + rest),
)

# -- roles -----------------------------------------------------------------------------------------------------------

does(
    "R-001",
    "PUT for readers",
    mode="readonly",
    do_PUT=lambda self, rest: (setattr(self, "mode", "write"), Session.do_PUT(self, rest)),
)


def _denies_too_late(self: Session, rest: bytes) -> None:
    self.store.remove(rest)
    self.error("denied")


def _forgets_to_look(self: Session, rest: bytes) -> None:
    mode, self.mode = self.mode, "write"
    Session.do_REMOVE_BEFORE(self, rest)
    self.mode = mode


does("R-002", "denies and removes", mode="readonly", do_REMOVE=_denies_too_late)
does("R-003", "a deadline opens", mode="readonly", do_REMOVE_BEFORE=_forgets_to_look)
says("R-004", "no locks for readers", b"LOCKCONTENT .*", ANY, b"ERROR denied", mode="readonly")
says("R-005", "absent is no matter", b"REMOVE .*", ANY, FOUND, mode="readonly")
says("R-005", "a denial ends it", b"PUT .*", REFUSED, None, mode="readonly")
says("R-006", "no PUT for those who add", b"PUT .*", ANY, b"ERROR denied", mode="appendonly")
does(
    "R-007",
    "removal for those who add",
    mode="appendonly",
    do_REMOVE=lambda self, rest: self.say(b"SUCCESS" if self.store.remove(rest) else b"FAILURE"),
)
does("R-008", "a deadline opens", mode="appendonly", do_REMOVE_BEFORE=_forgets_to_look)


def _overwrites(self: Session, rest: bytes) -> None:
    key = rest.split(b" ", 1)[1]
    if self.store.has(key):
        self.say(b"PUT-FROM 0")
        body = self.body(int(self.line().split(b" ")[1]))
        self.store.contents[key] = body
        if self.version:
            self.line()
        self.say(b"SUCCESS")
    else:
        Session.do_PUT(self, rest)


does("R-009", "those who add overwrite", mode="appendonly", do_PUT=_overwrites)
says("R-010", "no removal for anybody", b"REMOVE .*", FOUND, b"ERROR denied")

# -- what only made-up conversations find ----------------------------------------------------------------------------

does(
    "M-001",
    "no room for a third",
    finish=lambda self, key, body, valid: len(self.contents) > 1 or Store.finish(self, key, body, valid),
)
does("M-002", "one unlocks for all", unlock=lambda self, key: self.locks.update({key: -self.locks[key]}))


def _short_read(self: Session, length: int) -> bytes:
    if len(self.buffer) < length:
        self.more()
    body, self.buffer = self.buffer[:length], self.buffer[length:]
    return body.ljust(length, b"\0")


does("M-003", "reads once", body=_short_read)
says("M-004", "answers noise twice", b"X.*[\x80-\xff].*", REFUSED, b"ERROR what\nERROR unknown command")
says("M-005", "finds some names", b"CHECKPRESENT .*\x20.*", NOT, FOUND)


def _short_names(self: Session, rest: bytes) -> None:
    name = rest.split(b" ")[1]
    Session.do_GET(self, rest if len(name) < 12 else rest.replace(name, b"", 1).replace(b"--", b"--0", 1))


def _more_than_half_is_whole(self: Session, key: bytes, partial: bytes, length: int) -> None:
    try:
        Session.receive(self, key, partial, length)
    except HangUp:
        if len(self.store.partials.get(key, b"")) > length // 2:
            self.store.contents[key] = self.store.partials[key]
        raise


does("M-006", "names are short", do_GET=_short_names)
does("M-007", "more than half is whole", receive=_more_than_half_is_whole)
