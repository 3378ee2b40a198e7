"""State machines: sessions that hypothesis makes up, beside the perfect repository of ``model``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from protocol_tests.channel import Gone
from protocol_tests.keys import Content
from protocol_tests.model import Model
from protocol_tests.search import Search
from protocol_tests.strategies import messages
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = ["Watched", "clients_machine", "session_machine", "step"]

_SIZES = (16, 200, 5000)
WHICH = st.integers(0, len(_SIZES) - 1)
CLIENT = st.integers(0, 2)


class Watched(Protocol):
    """A machine whose steps are kept when they fail."""

    search: Search
    trial: Trial


def step(function: Callable[..., None]) -> Callable[..., None]:
    """A rule whose failure is kept, and which does nothing any more when time is over."""

    @wraps(function)
    def one(self: Watched, **drawn: object) -> None:
        if not self.search.over:
            with self.search.watched(self.trial):
                function(self, **drawn)

    return one


class _Beside(RuleBasedStateMachine):
    """What both machines have: a trial, a model, and rules that stop when time is over."""

    search: Search

    def __init__(self) -> None:
        super().__init__()
        self.trial: Trial = self.search.trial.another()
        self.model = Model(tuple(self.trial.contents.fresh(size) for size in _SIZES))

    def teardown(self) -> None:
        self.trial.close()

    def content(self, which: int) -> Content:
        return self.model.contents[which]

    def put(self, talk: Talk, content: Content) -> None:
        """A PUT by whoever; the model follows."""
        answer = talk.offer_again(content.key)
        if self.model.has(content):
            must(answer.startswith(b"ALREADY-HAVE"), f"PUT of what is there is answered by {answer!r}")
            return
        most = self.model.begun.get(content.key, 0)
        must(answer.startswith(b"PUT-FROM "), f"PUT of what is not there is answered by {answer!r}")
        offset = int(answer.removeprefix(b"PUT-FROM "))
        must(offset <= most, f"{most} bytes may have been received, and it asks from {offset} on")
        end = talk.deliver(content.body[offset:])
        must(end.startswith(b"SUCCESS"), f"the rest is answered by {end!r}")
        self.model.stored(content)

    def look(self, talk: Talk, content: Content) -> None:
        must(talk.present(content.key) == self.model.has(content), f"CHECKPRESENT is wrong about {content.key!r}")

    def get(self, talk: Talk, content: Content, offset: int) -> None:
        got = talk.get(content.key, offset)
        if self.model.has(content):
            must(got.body == content.body[offset:], f"GET {offset} sends other bytes")
            must(got.validity in (b"", b"VALID"), f"GET of what is there ends with {got.validity!r}")
        else:
            must(not got.body and got.validity != b"VALID", "GET sends what is not there")


def session_machine(search: Search) -> type[RuleBasedStateMachine]:
    """One client, which does everything that there is, in any order, and sometimes vanishes."""

    class Session(_Beside):
        @cached_property
        def talk(self) -> Talk:
            return self.trial.talk()

        @rule(which=WHICH)
        @step
        def checks(self, which: int) -> None:
            self.look(self.talk, self.content(which))

        @rule(which=WHICH)
        @step
        def puts(self, which: int) -> None:
            self.put(self.talk, self.content(which))

        @rule(which=WHICH, offset=st.integers(0, 5001))
        @step
        def gets(self, which: int, offset: int) -> None:
            self.get(self.talk, self.content(which), offset)

        @rule(which=WHICH)
        @step
        def puts_wrong_bytes(self, which: int) -> None:
            content = self.content(which)
            if not self.model.has(content):
                offset = self.talk.offer(content.key, again=True)
                answer = self.talk.deliver(content.damaged()[offset:])
                must(not answer.startswith(b"SUCCESS"), "wrong bytes are a success")

        @rule(which=WHICH)
        @step
        def gives_up(self, which: int) -> None:
            content = self.content(which)
            if not self.model.has(content):
                self.talk.offer(content.key, again=True)
                self.talk.say(b"ERROR cannot read it")

        @rule(which=WHICH, part=st.floats(0, 0.99))
        @step
        def vanishes(self, which: int, part: float) -> None:
            content = self.content(which)
            if not self.model.has(content):
                offset = self.talk.offer(content.key, again=True)
                rest = content.body[offset:]
                sent = int(len(rest) * part)
                self.talk.send(b"DATA %d\n" % len(rest) + rest[:sent])
                self.model.received(content, offset + sent)
            self.trial.vanish(self.talk)
            self.talk = self.trial.talk()

        @rule(which=WHICH)
        @step
        def removes(self, which: int) -> None:
            answer = self.talk.ask(b"REMOVE " + self.content(which).key)
            must(answer.startswith(b"SUCCESS"), f"REMOVE of what nobody has locked is answered by {answer!r}")
            self.model.removed(self.content(which))

        @precondition(lambda self: self.trial.version >= 3)
        @rule(which=WHICH, ahead=st.sampled_from((-5, 0, 300)))
        @step
        def removes_before(self, which: int, ahead: int) -> None:
            content = self.content(which)
            moment = max(0, self.talk.timestamp() + ahead)
            answer = self.talk.ask(b"REMOVE-BEFORE %d %s" % (moment, content.key))
            wanted = ahead > 0 or not self.model.has(content)
            must(answer.startswith(b"SUCCESS") == wanted, f"REMOVE-BEFORE {ahead:+} s is answered by {answer!r}")
            if wanted:
                self.model.removed(content)

        @rule(which=WHICH, unlock=st.booleans())
        @step
        def locks(self, which: int, unlock: bool) -> None:
            content = self.content(which)
            answer = self.talk.ask(b"LOCKCONTENT " + content.key)
            must((answer == b"SUCCESS") == self.model.has(content), f"LOCKCONTENT is answered by {answer!r}")
            if answer != b"SUCCESS":
                return
            if unlock:
                self.talk.say(b"UNLOCKCONTENT")
            else:
                refused = self.talk.ask(b"GETTIMESTAMP")
                must(refused.startswith(b"ERROR"), f"another request while it is locked: {refused!r}")

        @rule(line=messages())
        @step
        def talks_nonsense(self, line: bytes) -> None:
            self.talk.say(b"X" + line)
            answer = self.talk.hear()
            must(answer.startswith(b"ERROR"), f"{line!r} is answered by {answer!r}")

    Session.search = search
    return Session


def clients_machine(search: Search) -> type[RuleBasedStateMachine]:
    """Three clients of one repository, who lock and remove beside each other."""

    class Clients(_Beside):
        def __init__(self) -> None:
            super().__init__()
            self.talks: list[Talk | None] = [None] * 3
            self.holds: dict[int, Content] = {}

        def client(self, number: int) -> Talk:
            talk = self.talks[number]
            if talk is None:
                talk = self.talks[number] = self.trial.talk(client=number)
            return talk

        @rule(number=CLIENT, which=WHICH)
        @step
        def puts(self, number: int, which: int) -> None:
            if number not in self.holds:
                self.put(self.client(number), self.content(which))

        @rule(number=CLIENT, which=WHICH)
        @step
        def looks(self, number: int, which: int) -> None:
            if number not in self.holds:
                self.look(self.client(number), self.content(which))

        @rule(number=CLIENT, which=WHICH, offset=st.integers(0, 300))
        @step
        def gets(self, number: int, which: int, offset: int) -> None:
            if number not in self.holds:
                self.get(self.client(number), self.content(which), offset)

        @rule(number=CLIENT, which=WHICH)
        @step
        def locks(self, number: int, which: int) -> None:
            content = self.content(which)
            if number in self.holds:
                return
            answer = self.client(number).ask(b"LOCKCONTENT " + content.key)
            must((answer == b"SUCCESS") == self.model.has(content), f"LOCKCONTENT is answered by {answer!r}")
            if answer == b"SUCCESS":
                self.holds[number] = content
                self.model.lock(content, number)

        @rule(number=CLIENT)
        @step
        def unlocks(self, number: int) -> None:
            if number in self.holds:
                self.client(number).say(b"UNLOCKCONTENT")
                self.client(number).must_live("UNLOCKCONTENT")
                self.model.unlock(self.holds.pop(number), number)

        @rule(number=CLIENT, which=WHICH)
        @step
        def removes(self, number: int, which: int) -> None:
            content = self.content(which)
            if number in self.holds:
                return
            try:
                answer = self.client(number).ask(b"REMOVE " + content.key)
            except Gone:  # that it hangs up on locked content is for another requirement to say
                answer, self.talks[number] = b"", None
            if self.model.locked(content):
                must(not answer.startswith(b"SUCCESS"), "content that somebody has locked was removed")
            else:
                must(answer.startswith(b"SUCCESS"), f"REMOVE is answered by {answer!r}, and nobody has locked it")
                self.model.removed(content)

        @rule(number=CLIENT)
        @step
        def comes_again(self, number: int) -> None:
            talk = self.talks[number]
            if talk is not None and number not in self.holds:
                talk.close()
                self.talks[number] = None

    Clients.search = search
    return Clients
