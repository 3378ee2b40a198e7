"""A state machine over a cluster: its gateway and each node are asked, beside a perfect model of who has what."""

from __future__ import annotations

from functools import cached_property

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from protocol_tests.checks.clusters import named
from protocol_tests.keys import Content
from protocol_tests.machine import step
from protocol_tests.search import Search
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = ["cluster_machine"]

WHICH = st.integers(0, 1)
NODE = st.integers(0, 8)


def cluster_machine(search: Search) -> type[RuleBasedStateMachine]:
    """One client of the gateway, and one of each node, which locks there."""

    class Cluster(RuleBasedStateMachine):
        search: Search

        def __init__(self) -> None:
            super().__init__()
            self.trial: Trial = search.trial.another()
            self.contents = tuple(self.trial.contents.fresh(size) for size in (16, 3000))
            self.holders: dict[bytes, set[str]] = {content.key: set() for content in self.contents}
            self.lockers: dict[int, Content] = {}
            self.nodes: dict[int, Talk] = {}

        def teardown(self) -> None:
            self.trial.close()

        @cached_property
        def talk(self) -> Talk:
            return self.trial.talk()

        def node(self, number: int) -> tuple[int, str, Talk]:
            """One of those that there are: its number, UUID, and a session with it alone."""
            number %= len(self.trial.subject.nodes)
            subject = self.trial.subject.nodes[number]
            if number not in self.nodes:
                self.nodes[number] = self.trial.talk(subject=subject, client=1)
            return number, subject.uuid, self.nodes[number]

        def locked_at(self, key: bytes) -> set[str]:
            subjects = self.trial.subject.nodes
            return {subjects[number].uuid for number, content in self.lockers.items() if content.key == key}

        @rule(which=WHICH)
        @step
        def puts(self, which: int) -> None:
            content, have = self.contents[which], self.holders[self.contents[which].key]
            answer = self.talk.ask(b"PUT  " + content.key)
            if answer.startswith(b"ALREADY-HAVE"):
                told = named(answer, b"ALREADY-HAVE-PLUS")
                must(bool(told) and told <= have, f"{sorted(told)} are said to have it, and {sorted(have)} do")
            else:
                must(answer == b"PUT-FROM 0", f"PUT of what nobody was sent is answered by {answer!r}")
                have |= named(self.talk.deliver(content.body), b"SUCCESS-PLUS")

        @rule(which=WHICH)
        @step
        def removes(self, which: int) -> None:
            key = self.contents[which].key
            answer = self.talk.ask(b"REMOVE " + key)
            told = named(answer, b"SUCCESS-PLUS", b"SUCCESS", b"FAILURE-PLUS", b"FAILURE")
            kept = self.locked_at(key)
            must(not told & kept, f"{sorted(told & kept)} have it locked, and are said to have removed it")
            must(answer.startswith(b"SUCCESS") == (not kept), f"{len(kept)} nodes have it locked: {answer!r}")
            self.holders[key] = self.holders[key] - told if kept else set()

        @rule(which=WHICH)
        @step
        def looks(self, which: int) -> None:
            key = self.contents[which].key
            must(self.talk.present(key) == bool(self.holders[key]), f"{sorted(self.holders[key])} have it")

        @rule(which=WHICH, offset=st.integers(0, 3001))
        @step
        def gets(self, which: int, offset: int) -> None:
            content = self.contents[which]
            got = self.talk.get(content.key, offset)
            there = bool(self.holders[content.key])
            must(got.body == (content.body[offset:] if there else b""), f"GET {offset} sends other bytes")
            must(there or got.validity != b"VALID", "what is not there is VALID")

        @rule(which=WHICH, number=NODE)
        @step
        def looks_at_a_node(self, which: int, number: int) -> None:
            number, uuid, talk = self.node(number)
            key = self.contents[which].key
            if number not in self.lockers:
                must(
                    talk.present(key) == (uuid in self.holders[key]), f"node {number} has it, or not: it says so itself"
                )

        @rule(which=WHICH, number=NODE)
        @step
        def locks_at_a_node(self, which: int, number: int) -> None:
            number, uuid, talk = self.node(number)
            content = self.contents[which]
            if number in self.lockers:
                return
            answer = talk.ask(b"LOCKCONTENT " + content.key)
            must((answer == b"SUCCESS") == (uuid in self.holders[content.key]), f"node {number} says {answer!r}")
            if answer == b"SUCCESS":
                self.lockers[number] = content

        @rule(number=NODE)
        @step
        def unlocks(self, number: int) -> None:
            number, _, talk = self.node(number)
            if self.lockers.pop(number, None):
                talk.say(b"UNLOCKCONTENT")
                talk.must_live("UNLOCKCONTENT")

    Cluster.search = search
    return Cluster
