"""What a gateway has behind it besides nodes that take everything: other gateways, special remotes, wishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protocol_tests.channel import Gone
from protocol_tests.checks.clusters import holders, named
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import NotTried, Trial, must
from protocol_tests.wire import Talk, Violation

__all__ = [
    "again_through_two",
    "again_where_wanted",
    "bypassed",
    "special_absent",
    "special_before",
    "special_comes_back",
    "special_for_the_old",
    "through_two",
    "where_wanted",
]

_STORING = "P2P protocol, Storing content on the server"
_NEEDS = (Need.LINES, Need.CLUSTER, Need.BROKEN_NODES)


@requirement(
    "C-040",
    "What a node does not want is not sent to it, and it is not named.",
    "measured: cluster-put-preferred",
    since=2,
    once=True,
    needs=_NEEDS,
)
def where_wanted(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.unwanting(0):
        told = named(trial.talk().put(content), b"SUCCESS-PLUS")
        have = holders(trial, content.key)
        must(told == have, f"it names {sorted(told)}, and {sorted(have)} have it")
        must(have == {node.uuid for node in trial.subject.nodes[1:]}, f"the others want it, and {sorted(have)} have it")


@requirement(
    "C-041",
    "A PUT of what all nodes have that want it is answered by ALREADY-HAVE, and goes to no node that does not want it.",
    f"{_STORING}; measured: cluster-put-preferred",
    once=True,
    needs=_NEEDS,
)
def again_where_wanted(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.unwanting(0):
        talk = trial.talk()
        talk.store(content)
        answer = talk.ask(b"PUT  " + content.key)
        must(answer.startswith(b"ALREADY-HAVE"), f"who wants it has it, and PUT is answered by {answer!r}")


@requirement(
    "C-042",
    "A PUT goes to the nodes behind another gateway too, which are named.",
    f"{_STORING}; measured: multigw-put",
    since=2,
    once=True,
    needs=_NEEDS,
)
def through_two(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.beyond() as (far, _):
        told = named(trial.talk().put(content), b"SUCCESS-PLUS")
        must(far.uuid in told, f"the far node is not named in {sorted(told)}")
        trial.talk(subject=far, client=2).must_have(content.key, "it is named")


@requirement(
    "C-043",
    "A PUT of what every node has is answered by ALREADY-HAVE, also when one of them is behind another gateway.",
    f"{_STORING}; measured: multigw-put",
    once=True,
    needs=_NEEDS,
)
def again_through_two(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.beyond():
        talk = trial.talk()
        talk.store(content)
        answer = talk.ask(b"PUT  " + content.key)
        must(answer.startswith(b"ALREADY-HAVE"), f"every node has it, and PUT is answered by {answer!r}")
        talk.must_have(content.key, "every node has it")


@requirement(
    "C-044",
    "A gateway that BYPASS names is not asked: nothing is sent to what is behind it, which is not named.",
    "P2P protocol, Cluster cycle prevention; measured: multigw-put",
    since=2,
    once=True,
    needs=_NEEDS,
)
def bypassed(trial: Trial) -> None:
    content = trial.contents.fresh()
    with trial.nodes.beyond() as (far, gateway):
        talk = trial.talk()
        talk.say(f"BYPASS {gateway}".encode())
        told = named(talk.put(content), b"SUCCESS-PLUS")
        have = holders(trial, content.key)
        must(told == have and bool(have), f"it names {sorted(told)}, and {sorted(have)} have it")
        trial.talk(subject=far, client=2).must_lack(content.key, "its gateway was to be bypassed")


# -- special remotes --------------------------------------------------------------------------------------------------


@contextmanager
def _special(trial: Trial) -> Iterator[Talk]:
    """A session with a special remote, through the gateway that shows it."""
    with trial.nodes.special() as uuid:
        talk = trial.connect(uuid=uuid)
        try:
            said = trial.greet(talk).decode()
        except (Gone, Violation) as unknown:
            raise NotTried(f"it shows no special remotes: {unknown}") from unknown
        must(said == uuid, f"asked for {uuid}, it is {said}")
        talk.agree(trial.version)
        answer = talk.ask(b"CHECKPRESENT " + trial.contents.fresh().key)
        if answer.startswith(b"ERROR"):
            raise NotTried(f"it shows no special remotes: {answer.decode('utf-8', 'replace')}")
        try:
            yield talk
        finally:
            talk.close()


_SPECIAL = "measured: proxy-special"
_SHOWN = (*_NEEDS, Need.ANY_UUID)


@requirement(
    "C-050",
    "A special remote behind a gateway stores, sends, and removes.",
    _SPECIAL,
    since=1,
    once=True,
    needs=_SHOWN,
)
def special_comes_back(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    with _special(trial) as talk:
        talk.must_lack(content.key, "nobody stored it")
        talk.store(content)
        talk.must_have(content.key, "it was stored")
        must(talk.get(content.key, 1000).body == content.body[1000:], "other bytes come back")
        talk.expect(b"SUCCESS", b"REMOVE " + content.key)
        talk.must_lack(content.key, "it was removed")


@requirement(
    "C-051",
    "GET of what a special remote does not have promises no bytes, and the session goes on.",
    _SPECIAL,
    since=1,
    once=True,
    needs=_SHOWN,
)
def special_absent(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    with _special(trial) as talk:
        got = talk.get(content.key)
        must(not got.body and got.validity != b"VALID", f"{len(got.body)} bytes of nothing, {got.validity!r}")
        talk.must_live("GET of what is not there")


@requirement(
    "C-052",
    "GETTIMESTAMP and REMOVE-BEFORE are answered for a special remote too, or refused with ERROR; the session goes on.",
    _SPECIAL,
    since=3,
    once=True,
    needs=_SHOWN,
)
def special_before(trial: Trial) -> None:
    content = trial.contents.fresh()
    with _special(trial) as talk:
        talk.store(content)
        answer = talk.ask(b"GETTIMESTAMP")
        must(answer.startswith((b"TIMESTAMP ", b"ERROR")), f"GETTIMESTAMP is answered by {answer!r}")
        now = int(answer.split(b" ")[1]) if answer.startswith(b"TIMESTAMP ") else 10**9
        answer = talk.ask(b"REMOVE-BEFORE %d %s" % (now + 300, content.key))
        must(answer.startswith((b"SUCCESS", b"FAILURE", b"ERROR")), f"REMOVE-BEFORE is answered by {answer!r}")
        if answer.startswith(b"SUCCESS"):
            talk.must_lack(content.key, "its removal was told")
        else:
            talk.must_have(content.key, "its removal was refused")


@requirement(
    "C-053",
    "At the end of a PUT a special remote answers once: SUCCESS, and the next answer is to the next request.",
    f"{_SPECIAL}; measured: client-disconnect-after-get",
    since=0,
    until=1,
    needs=_SHOWN,
)
def special_for_the_old(trial: Trial) -> None:
    with _special(trial) as talk:
        for _ in range(2):
            content = trial.contents.fresh()
            talk.store(content)
            talk.must_have(content.key, "it was stored")
            talk.must_lack(trial.contents.fresh().key, "nobody stored it")
