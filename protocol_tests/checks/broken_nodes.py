"""A cluster of which a part does not work."""

from __future__ import annotations

from protocol_tests.channel import Gone
from protocol_tests.checks.clusters import holders, named
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = [
    "get_beside_one_away",
    "no_node",
    "put_beside_one_away",
    "put_beside_readonly",
    "remove_beside_one_away",
    "remove_from_nobody",
]

_NEEDS = (Need.LINES, Need.CLUSTER, Need.BROKEN_NODES)
_ERRORS = "P2P protocol, Errors"


@requirement(
    "C-030",
    "A cluster without a usable node never says ALREADY-HAVE: a client that moves would delete the only copy.",
    "P2P protocol, Storing content on the server; measured: cluster-nonodes",
    needs=_NEEDS,
)
def no_node(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.without_nodes():
        try:
            talk = trial.talk()
            answer = talk.ask(b"PUT  " + content.key)
        except Gone:
            return
        must(not answer.startswith(b"ALREADY-HAVE"), f"PUT is answered by {answer!r}, and no node has it")


@requirement(
    "C-031",
    "A cluster without a usable node does not say that something was removed.",
    "measured: cluster-nonodes",
    once=True,
    needs=_NEEDS,
)
def remove_from_nobody(trial: Trial) -> None:
    content = trial.contents.fresh()
    trial.talk().store(content)
    had = holders(trial, content.key)
    with trial.nodes.without_nodes():
        try:
            answer = trial.talk().ask(b"REMOVE " + content.key)
        except Gone:
            return
        must(not answer.startswith(b"SUCCESS"), f"REMOVE is answered by {answer!r}, and {len(had)} nodes have it")


@requirement(
    "C-032",
    "When one node is away, a PUT is stored by the others, which are named.",
    f"{_ERRORS}; measured: cluster-put-node-down",
    since=2,
    once=True,
    needs=_NEEDS,
)
def put_beside_one_away(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.away(0), trial.without(0):
        try:
            told = named(trial.talk().put(content), b"SUCCESS-PLUS")
        except Gone as gone:
            raise Gone("one node that is away ended the session of a PUT") from gone
        have = holders(trial, content.key)
        must(told == have and bool(have), f"it names {sorted(told)}, and {sorted(have)} have it")


@requirement(
    "C-033",
    "When one node is away, a removal is answered, and names just those that removed the content.",
    f"{_ERRORS}; measured: cluster-remove-hangup-n1",
    since=2,
    once=True,
    needs=_NEEDS,
)
def remove_beside_one_away(trial: Trial) -> None:
    content = trial.contents.fresh()
    trial.talk().store(content)
    had = holders(trial, content.key)
    with trial.nodes.away(0), trial.without(0):
        had -= {trial.subject.nodes[0].uuid}
        try:
            answer = trial.talk(client=1).ask(b"REMOVE " + content.key)
        except Gone as gone:
            left = holders(trial, content.key)
            raise Gone(
                f"one node that is away ended the session of a REMOVE; {len(had - left)} others had removed it already"
            ) from gone
        told = named(answer, b"FAILURE-PLUS", b"FAILURE")
        lost = had - holders(trial, content.key)
        must(told == lost, f"{sorted(lost)} lost it, and {sorted(told)} are named")


@requirement(
    "C-034",
    "When one node refuses to store, a PUT is stored by the others, which are named.",
    f"{_ERRORS}; measured: cluster-put-first-node-readonly",
    since=2,
    once=True,
    needs=_NEEDS,
)
def put_beside_readonly(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.readonly(0):
        try:
            told = named(trial.talk().put(content), b"SUCCESS-PLUS")
        except Gone as gone:
            raise Gone("one node that refuses ended the session of a PUT") from gone
        have = holders(trial, content.key)
        must(told == have and bool(have), f"it names {sorted(told)}, and {sorted(have)} have it")


@requirement(
    "C-035",
    "When one node is away, content that others have can be got, again and again.",
    f"{_ERRORS}; measured: cluster-get-stale",
    once=True,
    needs=_NEEDS,
)
def get_beside_one_away(trial: Trial) -> None:
    content = trial.contents.fresh()
    trial.talk().store(content)
    with trial.nodes.away(0), trial.without(0):
        if not holders(trial, content.key):
            return
        talk = trial.talk(client=1)
        for _ in range(20):
            try:
                got = talk.get(content.key)
            except Gone as gone:
                raise Gone("one node that is away ended the session of a GET") from gone
            must(got.body == content.body, f"GET sends {len(got.body)} bytes, {got.validity!r} {got.refusal!r}")
