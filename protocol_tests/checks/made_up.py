"""Conversations that hypothesis makes up."""

from __future__ import annotations

import time
from typing import Any

from protocol_tests.keys import escape
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, fail, must

__all__ = ["any_bytes", "any_client", "any_clients", "any_cluster", "any_cut", "any_key", "any_name", "any_split"]

_NEEDS = (Need.LINES, Need.REPOSITORY, Need.MACHINES)


@requirement(
    "M-001",
    "Whatever one client asks, in whatever order, is answered as by a perfect repository.",
    "the requirements above, together",
    needs=_NEEDS,
)
def any_client(trial: Trial) -> None:
    from protocol_tests.machine import session_machine
    from protocol_tests.search import try_machine

    try_machine(trial, session_machine)


@requirement(
    "M-002",
    "Whatever several clients ask of one repository, it answers each as a perfect one; no lock is broken.",
    "the requirements above, together",
    once=True,
    needs=_NEEDS,
)
def any_clients(trial: Trial) -> None:
    from protocol_tests.machine import clients_machine
    from protocol_tests.search import try_machine

    try_machine(trial, clients_machine)


@requirement(
    "M-003",
    "However the bytes of a conversation are cut into packets, the answers are the same.",
    "P2P protocol, line-based serialization",
    once=True,
    needs=_NEEDS,
)
def any_split(trial: Trial) -> None:
    from protocol_tests.search import try_with
    from protocol_tests.strategies import splits

    def one(inner: Trial, cuts: list[int]) -> None:
        content = inner.contents.fresh(120)
        talk = inner.talk()
        validity = b"VALID\n" if inner.version else b""
        talk.expect(b"PUT-FROM 0", b"PUT  " + content.key)
        said = b"DATA 120\n%s%sCHECKPRESENT %s\nGET 20  %s\n" % (content.body, validity, content.key, content.key)
        for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
            talk.send(said[start:end])
            time.sleep(0.002)  # or else they arrive together
        must(talk.hear().split(b" ")[0] in (b"SUCCESS", b"SUCCESS-PLUS"), "the PUT fails")
        must(talk.hear() == b"SUCCESS", "CHECKPRESENT fails")
        must(talk.take().body == content.body[20:], "GET sends other bytes")

    try_with(trial, splits(300), one)


@requirement(
    "M-004",
    "Whatever line of bytes a client sends, it is answered by one line, or ends that session and no other.",
    "P2P protocol, Errors",
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def any_bytes(trial: Trial) -> None:
    from hypothesis import strategies as st

    from protocol_tests.channel import Gone
    from protocol_tests.search import try_with
    from protocol_tests.strategies import messages

    def one(inner: Trial, lines: list[bytes]) -> None:
        talk = inner.talk()
        for line in lines:
            talk.say(b"X" + line)
            try:
                answer = talk.hear()
            except Gone:
                talk = inner.talk()
                continue
            must(answer.startswith(b"ERROR"), f"{line!r} is answered by {answer!r}")
        talk.must_live("nonsense")

    try_with(trial, st.lists(messages(), min_size=1, max_size=10), one)


@requirement(
    "M-005",
    "A key that nobody stored is absent, or no key at all, whatever bytes are in it.",
    "P2P protocol, Checking if content is present",
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def any_key(trial: Trial) -> None:
    from hypothesis import strategies as st

    from protocol_tests.search import try_with
    from protocol_tests.strategies import keys

    def one(inner: Trial, drawn: list[bytes]) -> None:
        talk = inner.talk()
        for key in drawn:
            answer = talk.ask(b"CHECKPRESENT " + key)
            if answer != b"FAILURE" and not answer.startswith(b"ERROR"):
                fail(f"CHECKPRESENT {key!r} is answered by {answer!r}")

    try_with(trial, st.lists(keys(), min_size=1, max_size=10), one)


@requirement(
    "M-006",
    "Whatever the associated file, as clients escape it, the key behind it is understood.",
    "P2P protocol, Storing content on the server",
    once=True,
    needs=_NEEDS,
)
def any_name(trial: Trial) -> None:
    from hypothesis import strategies as st

    from protocol_tests.search import try_with
    from protocol_tests.strategies import associated_files

    def one(inner: Trial, names: list[bytes]) -> None:
        content = inner.contents.fresh(10)
        talk = inner.talk()
        talk.store(content)
        for name in names:
            must(talk.get(content.key, name=escape(name)).body == content.body, f"GET for {name!r} sends other bytes")

    try_with(trial, st.lists(associated_files(), min_size=1, max_size=8), one)


@requirement(
    "M-007",
    "Wherever in a PUT a client vanishes, the content is whole or absent, and a second PUT makes it whole.",
    "P2P protocol, Storing content on the server",
    once=True,
    needs=_NEEDS,
)
def any_cut(trial: Trial) -> None:
    from protocol_tests.search import try_with
    from protocol_tests.strategies import faults

    size = 3000

    def one(inner: Trial, cut: Any) -> None:
        content = inner.contents.fresh(size)
        talk = inner.talk()
        talk.offer(content.key)
        said = (b"DATA %d\n" % size + content.body + b"VALID\n")[: cut.after]
        for start in range(0, len(said), cut.piece if cut.piece > 50 else 50):
            talk.send(said[start : start + max(50, cut.piece)])
        inner.vanish(talk)
        other = inner.talk(client=1)
        if not other.present(content.key):
            other.put(content, again=True)
        must(other.get(content.key).body == content.body, f"after {cut.after} bytes and a second PUT it is not whole")

    try_with(trial, faults(size + 15), one)


@requirement(
    "M-008",
    "Whatever is asked of a cluster and of its nodes, each is told the truth: nobody names a copy that is not there.",
    "the requirements above, together",
    since=2,
    once=True,
    needs=(Need.LINES, Need.CLUSTER, Need.MACHINES),
)
def any_cluster(trial: Trial) -> None:
    from protocol_tests.machine_cluster import cluster_machine
    from protocol_tests.search import try_machine

    try_machine(trial, cluster_machine)
