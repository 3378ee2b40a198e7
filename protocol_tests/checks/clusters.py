"""A cluster behind its gateway: many repositories that answer as one, and say which of them did what."""

from __future__ import annotations

from protocol_tests.keys import Content
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must
from protocol_tests.wire import Talk

__all__ = [
    "already_everywhere",
    "asks_in_time",
    "cluster_is_no_copy",
    "cut_put",
    "data_present",
    "different_offsets",
    "get",
    "holders",
    "named",
    "no_lock",
    "one_node",
    "one_node_locks",
    "plain_for_the_old",
    "present",
    "put",
    "removal_in_part",
    "remove",
    "too_late",
    "wrong_bytes",
]

_STORING = "P2P protocol, Storing content on the server"
_REMOVING = "P2P protocol, Removing content"
_NEEDS = (Need.LINES, Need.CLUSTER)


def holders(trial: Trial, key: bytes) -> set[str]:
    """The nodes that have *key*, by their own word. Nodes that are away have nothing."""
    found = set()
    for number, node in enumerate(trial.subject.nodes):
        if number in trial.away:
            continue
        talk = trial.talk(subject=node, client=5)
        if talk.present(key):
            found.add(node.uuid)
        talk.close()
    return found


def named(answer: bytes, *verbs: bytes) -> set[str]:
    """The UUIDs of a -PLUS answer that is one of *verbs*."""
    verb, *uuids = answer.split(b" ")
    must(verb in verbs, f"the answer is {answer!r}")
    return {uuid.decode() for uuid in uuids}


def _put(talk: Talk, content: Content) -> bytes:
    return talk.put(content)


def _locked_at(trial: Trial, number: int, key: bytes) -> Talk:
    node = trial.talk(subject=trial.subject.nodes[number], client=1)
    node.expect(b"SUCCESS", b"LOCKCONTENT " + key)
    return node


@requirement(
    "C-001",
    "SUCCESS-PLUS at the end of a PUT names the nodes that have the content now, and no others.",
    _STORING,
    since=2,
    needs=_NEEDS,
)
def put(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    told = named(_put(trial.talk(), content), b"SUCCESS-PLUS")
    have = holders(trial, content.key)
    must(bool(told), "it names nobody")
    must(told == have, f"it names {sorted(told)}, and {sorted(have)} have it")


@requirement(
    "C-002",
    "Clients below version 2 are told nothing that they do not know: SUCCESS alone.",
    "measured: cluster-oldclients",
    until=1,
    needs=_NEEDS,
)
def plain_for_the_old(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    must(_put(talk, content) == b"SUCCESS", "a PUT does not end with SUCCESS")
    must(bool(holders(trial, content.key)), "no node has it")
    talk.expect(b"SUCCESS", b"REMOVE " + content.key)
    must(not holders(trial, content.key), "a node still has it")


@requirement(
    "C-003",
    "What was put into a cluster is present in it, and what was not is not.",
    "measured: cluster-basic",
    needs=_NEEDS,
)
def present(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.must_lack(content.key, "nobody stored it")
    talk.store(content)
    talk.must_have(content.key, "it was stored a moment ago")
    trial.talk(client=1).must_have(content.key, "another session stored it")


@requirement(
    "C-004", "GET sends the content of one of the nodes, from any offset.", "measured: cluster-basic", needs=_NEEDS
)
def get(trial: Trial) -> None:
    content = trial.contents.fresh(3000)
    talk = trial.talk()
    talk.store(content)
    for offset in (0, 1, 2999):
        must(talk.get(content.key, offset).body == content.body[offset:], f"GET {offset} sends other bytes")


@requirement(
    "C-005", "SUCCESS-PLUS after REMOVE means that no node has the content any more.", _REMOVING, since=2, needs=_NEEDS
)
def remove(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    had = holders(trial, content.key)
    told = named(talk.ask(b"REMOVE " + content.key), b"SUCCESS-PLUS", b"SUCCESS")
    must(had <= told, f"{sorted(had)} had it, and {sorted(told)} are named")
    must(not holders(trial, content.key), "a node still has it")


@requirement(
    "C-006",
    "A cluster as a whole cannot be locked: LOCKCONTENT is answered by FAILURE.",
    "measured: cluster-basic",
    needs=_NEEDS,
)
def no_lock(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"LOCKCONTENT " + content.key)
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"LOCKCONTENT is answered by {answer!r}")


@requirement("C-007", "ALREADY-HAVE-PLUS names only nodes that have the content.", _STORING, since=2, needs=_NEEDS)
def already_everywhere(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    told = named(talk.ask(b"PUT  " + content.key), b"ALREADY-HAVE-PLUS")
    have = holders(trial, content.key)
    must(bool(told), "it names nobody")
    must(told <= have, f"it names {sorted(told)}, and {sorted(have)} have it")


@requirement(
    "C-008",
    "The cluster itself is never named as a place: it is no copy.",
    "measured: multigw-put",
    since=2,
    needs=_NEEDS,
)
def cluster_is_no_copy(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    answers = [_put(talk, content), talk.ask(b"PUT  " + content.key), talk.ask(b"REMOVE " + content.key)]
    must(not any(trial.subject.uuid.encode() in answer for answer in answers), f"it is named in {answers!r}")


@requirement(
    "C-009",
    "FAILURE-PLUS names just the nodes that lost the content, when another has it locked.",
    "measured: cluster-remove-locked-n1",
    since=2,
    needs=_NEEDS,
)
def removal_in_part(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    had = holders(trial, content.key)
    keeper = trial.subject.nodes[0].uuid
    must(keeper in had, "a cluster without preferred content leaves a node out")
    _locked_at(trial, 0, content.key)
    told = named(talk.ask(b"REMOVE " + content.key), b"FAILURE-PLUS", b"FAILURE")
    have = holders(trial, content.key)
    must(keeper in have, "the locked copy is gone")
    must(told == had - have, f"{sorted(had - have)} lost it, and {sorted(told)} are named")


@requirement(
    "C-010",
    "Bytes that do not have the key's hash are stored by no node.",
    "measured: cluster-put-badhash",
    needs=_NEEDS,
)
def wrong_bytes(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.offer(content.key)
    answer = talk.deliver(content.damaged())
    must(answer == b"FAILURE" or answer.startswith(b"ERROR"), f"wrong bytes are answered by {answer!r}")
    must(not holders(trial, content.key), "a node has them")


@requirement(
    "C-011", "REMOVE-BEFORE a moment that has passed removes nothing from any node.", _REMOVING, since=3, needs=_NEEDS
)
def too_late(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    had = holders(trial, content.key)
    moment = max(0, talk.timestamp() - 10)
    answer = talk.ask(b"REMOVE-BEFORE %d %s" % (moment, content.key))
    must(not answer.startswith(b"SUCCESS"), f"REMOVE-BEFORE the past is answered by {answer!r}")
    must(holders(trial, content.key) == had, "a node removed it all the same")


@requirement("C-012", "REMOVE-BEFORE a moment to come removes from every node.", _REMOVING, since=3, needs=_NEEDS)
def asks_in_time(trial: Trial) -> None:
    content = trial.contents.fresh()
    talk = trial.talk()
    talk.store(content)
    answer = talk.ask(b"REMOVE-BEFORE %d %s" % (talk.timestamp() + 300, content.key))
    must(answer.startswith(b"SUCCESS"), f"REMOVE-BEFORE is answered by {answer!r}")
    must(not holders(trial, content.key), "a node still has it")


@requirement(
    "C-013",
    "A node is reached through the gateway by its own UUID, and what is put there goes nowhere else.",
    "measured: proxy-node-v2",
    needs=(*_NEEDS, Need.ANY_UUID),
)
def one_node(trial: Trial) -> None:
    node = trial.subject.nodes[-1]
    content = trial.contents.fresh()
    talk = trial.connect(uuid=node.uuid)
    said = trial.greet(talk).decode()
    must(said == node.uuid, f"asked for {node.uuid}, it is {said}")
    talk.agree(trial.version)
    talk.store(content)
    must(holders(trial, content.key) == {node.uuid}, "it went elsewhere")
    must(talk.get(content.key).body == content.body, "other bytes were stored")


@requirement(
    "C-014",
    "The lock of a node, taken through the gateway, holds at the node.",
    "measured: proxy-node-v2",
    needs=(*_NEEDS, Need.ANY_UUID),
)
def one_node_locks(trial: Trial) -> None:
    node = trial.subject.nodes[-1]
    content = trial.contents.fresh()
    trial.talk(subject=node).store(content)
    talk = trial.connect(uuid=node.uuid)
    trial.greet(talk)
    talk.agree(trial.version)
    talk.expect(b"SUCCESS", b"LOCKCONTENT " + content.key)
    other = trial.talk(subject=node, client=2)
    other.say(b"REMOVE " + content.key)
    other.close()
    must(node.uuid in holders(trial, content.key), "the locked copy is gone")
    talk.say(b"UNLOCKCONTENT")
    talk.must_live("UNLOCKCONTENT")


@requirement(
    "C-015",
    "A client that vanishes in the middle of its DATA leaves nothing in any node.",
    "measured: cluster-put-disconnect",
    once=True,
    needs=_NEEDS,
)
def cut_put(trial: Trial) -> None:
    content = trial.contents.fresh(4000)
    talk = trial.talk()
    talk.offer(content.key)
    talk.send(b"DATA 4000\n" + content.body[:1500])
    trial.vanish(talk)
    must(not holders(trial, content.key), "a node has what was never sent")


@requirement(
    "C-016",
    "Nodes that have received different parts of a content all get it whole.",
    "measured: cluster-put-partials2",
    once=True,
    needs=_NEEDS,
)
def different_offsets(trial: Trial) -> None:
    content = trial.contents.fresh(4000)
    for number, sent in zip((0, 1), (1500, 700), strict=True):
        node = trial.talk(subject=trial.subject.nodes[number % len(trial.subject.nodes)])
        offset = node.offer(content.key)
        node.send(b"DATA %d\n" % (4000 - offset) + content.body[offset:sent])
        trial.vanish(node)
    answer = _put(trial.talk(client=1), content)
    must(answer.startswith(b"SUCCESS"), f"the PUT ends with {answer!r}")
    for one in trial.subject.nodes:
        got = trial.talk(subject=one, client=2).get(content.key)
        must(got.body in (b"", content.body), f"{one.name} has other bytes")


@requirement(
    "C-017",
    "SUCCESS-PLUS after DATA-PRESENT names only nodes that have the content.",
    "measured: cluster-data-present",
    since=4,
    needs=_NEEDS,
)
def data_present(trial: Trial) -> None:
    content = trial.contents.fresh()
    trial.talk(subject=trial.subject.nodes[0], client=1).store(content)
    talk = trial.talk()
    if talk.ask(b"PUT  " + content.key).startswith(b"ALREADY-HAVE"):  # one node is enough for it
        return
    told = named(talk.ask(b"DATA-PRESENT"), b"SUCCESS-PLUS", b"FAILURE")
    have = holders(trial, content.key)
    must(told <= have, f"it names {sorted(told)}, and {sorted(have)} have it")
