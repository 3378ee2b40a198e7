"""A tiny correct cluster passes, and each planted fault makes its requirement fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import tiny
from tiny import Session, Store
from tiny_cluster import CLUSTER, NAMES, NODES, SPECIAL, Broken, Gateway, HangUp, Nodes, node_session
from tiny_http import Handler

from protocol_tests import REQUIREMENTS, Need, Patience, Plan, Status, Subject, run, try_one
from protocol_tests.channel import Channel, over_socket
from protocol_tests.subject import Visit

HAS = frozenset((Need.LINES, Need.CLUSTER, Need.BROKEN_NODES, Need.ANY_UUID, Need.MACHINES, Need.HTTP_GATEWAY))
OURS = [one for one in REQUIREMENTS if Need.CLUSTER in one.needs]


@dataclass(frozen=True)
class Fault:
    requirement: str
    what: str
    gateway: type[Gateway] = Gateway
    nodes: type[Nodes] = Nodes
    node: type[Session] | None = None
    lie: tiny.Lie | None = None
    special: type[Session] = Session
    handler: type[Handler] = Handler


FAULTS: list[Fault] = []


def does(requirement: str, what: str, *, node: type[Session] | None = None, **changed: object) -> None:
    of_nodes = {name: value for name, value in changed.items() if name in vars(Store) | vars(Nodes)}
    of_gateway = {name: value for name, value in changed.items() if name not in of_nodes}
    gateway = type("BrokenGateway", (Gateway,), of_gateway)
    nodes = type("BrokenNodes", (Nodes,), of_nodes)
    FAULTS.append(Fault(requirement, what, gateway, nodes, node))


def special(requirement: str, what: str, **changed: object) -> None:
    FAULTS.append(Fault(requirement, what, special=type("BrokenSpecial", (Session,), changed)))


def over_http(requirement: str, what: str, **changed: object) -> None:
    FAULTS.append(Fault(requirement, what, handler=type("BrokenHandler", (Handler,), changed)))


def says(requirement: str, what: str, asked: bytes, truth: bytes, instead: bytes | None) -> None:
    def lie(line: bytes, answer: bytes) -> bytes | None:
        fits = re.fullmatch(asked, line, re.DOTALL) and re.fullmatch(truth, answer, re.DOTALL)
        return instead if fits else answer + b"\n"

    FAULTS.append(Fault(requirement, what, lie=lie))


EVERYBODY = b" ".join(name.encode() for name in NODES)


def names_everybody(self: Gateway, verb: bytes) -> bytes:
    return verb if self.version < 2 else verb + b"-PLUS " + EVERYBODY


def only(change: Callable[[Nodes], object]) -> Callable[[Nodes, bytes, bytes, bool], bool]:
    def finish(self: Nodes, key: bytes, body: bytes, valid: bool) -> bool:
        good = Nodes.finish(self, key, body, valid)
        change(self)
        return good

    return finish


def to_one(self: Nodes, key: bytes, body: bytes, valid: bool) -> bool:
    self.done = [0, 1]
    return self.stores[0].finish(key, body, valid)


def from_one(self: Nodes, key: bytes) -> bool:
    self.done = [0, 1, 2]
    return self.stores[0].remove(key)


def without_looking(self: Nodes, key: bytes) -> bool:
    for store in self.stores:
        store.contents.pop(key, None)
    self.done = [0, 1, 2]
    return True


def keeps_everything(self: Nodes, key: bytes, body: bytes, valid: bool) -> bool:
    self.stores[1].contents[key] = body
    return Nodes.finish(self, key, body, valid)


def dies_beside(trouble: Callable[[Nodes], bool], method: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Gateway, *words: bytes) -> None:
        if trouble(self.store):
            raise HangUp
        method(self, *words)

    return wrong


def away(nodes: Nodes) -> bool:
    return 0 < len(nodes.usable) < len(NODES)


def forgets_its_client(self: Gateway, key: bytes, partial: bytes, length: int) -> None:
    try:
        Gateway.receive(self, key, partial, length)
    except (HangUp, OSError):
        self.store.stores[2].contents[key] = self.buffer
        raise


def one_offset_for_all(self: Nodes, key: bytes, body: bytes, valid: bool) -> bool:
    for store in self.stores:
        partial = store.partials.get(key, b"")
        store.contents[key] = partial + body[min(map(len, (partial, b"700"))) :]
    self.done = [0, 1, 2]
    return True


def late_removal(self: Gateway, rest: bytes) -> None:
    self.store.remove(rest.partition(b" ")[2])
    self.say(b"FAILURE")


says("C-001", "names nobody", b"VALID", b"SUCCESS-PLUS.*", b"SUCCESS-PLUS")
does("C-001", "names one that has nothing", finish=to_one)
says("C-002", "-PLUS for the old", b"DATA .*|VALID", b"SUCCESS", b"SUCCESS-PLUS")
says("C-003", "never there", b"CHECKPRESENT .*", b"SUCCESS", b"FAILURE")
does("C-004", "offsets do not count", do_GET=lambda self, rest: Gateway.do_GET(self, b"0 " + rest.partition(b" ")[2]))
does("C-005", "removes from one", remove=from_one)
says("C-006", "locks nobody and says so", b"LOCKCONTENT .*", b"FAILURE", b"SUCCESS")
says("C-007", "names a stranger", b"PUT .*", b"ALREADY-HAVE-PLUS.*", b"ALREADY-HAVE-PLUS " + CLUSTER.encode())
says("C-007", "a bare claim", b"PUT .*", b"ALREADY-HAVE-PLUS.*", b"ALREADY-HAVE")
says("C-008", "counts itself", b"REMOVE .*", b"SUCCESS-PLUS.*", b"SUCCESS-PLUS " + CLUSTER.encode())
does("C-009", "names all", plus=names_everybody)
does("C-009", "does not look at locks", remove=without_looking)
does("C-010", "keeps what was wrong", finish=keeps_everything)
does("C-011", "answers late and removes", do_REMOVE_BEFORE=late_removal)
does("C-012", "never in time", in_time=lambda self, moment: False)
does("C-013", "one is all", node=Gateway)
does(
    "C-014",
    "the lock of a node is nothing",
    node=type("Unlocked", (Session,), {"do_LOCKCONTENT": lambda self, rest: self.say(b"SUCCESS")}),
)
does("C-015", "keeps halves", receive=forgets_its_client)
does("C-016", "one offset for all", finish=one_offset_for_all)
does("C-017", "names all that it knows", plus=names_everybody)
does(
    "C-030",
    "nobody is everybody",
    writable=lambda self: self.each(),
    everywhere=lambda self, key: all(self.stores[one].has(key) for one in self.each()),
    do_PUT=lambda self, rest: self.say(b"ALREADY-HAVE") if not self.store.usable else Gateway.do_PUT(self, rest),
)
does("C-031", "nobody has it any more", remove=lambda self, key: not self.usable or Nodes.remove(self, key))
does("C-032", "dies with its node", do_PUT=dies_beside(away, Gateway.do_PUT))
does("C-033", "dies with its node", do_REMOVE=dies_beside(away, Gateway.do_REMOVE))
does("C-033", "names who is away", plus=names_everybody)
does("C-034", "dies with a refusal", do_PUT=dies_beside(lambda nodes: bool(nodes.readonly), Gateway.do_PUT))
does("C-035", "dies with its node", do_GET=dies_beside(away, Gateway.do_GET))


def one_content_each(self: Nodes, key: bytes, body: bytes, valid: bool) -> bool:
    return (to_one if self.stores[0].contents else Nodes.finish)(self, key, body, valid)


def cannot_hear(self: Gateway, rest: bytes) -> None:
    if len(self.store.usable) > len(NODES) and self.store.everywhere(rest.partition(b" ")[2]):
        self.error("protocol error")
    else:
        Gateway.do_PUT(self, rest)


def hangs_up(self: Session, rest: bytes) -> None:
    raise HangUp


def promises(self: Session, body: bytes, valid: bool) -> None:
    if not valid:
        self.say(b"DATA 3000")
        raise HangUp
    Session.send_content(self, body, valid)


def believes_an_error(where: str) -> Callable[[Handler, bytes], None]:
    def putoffset(self: Handler, body: bytes) -> None:
        nodes = self.server.shown[CLUSTER]
        refused = {"node": self.store is not nodes and nodes.readonly, "all": len(nodes.readonly) == 3}
        if (refused | {"nobody": not nodes.usable})[where]:
            self.say(alreadyhave=True)
        else:
            Handler.putoffset(self, body)

    return putoffset


does("C-040", "sends it to everybody", taking=lambda self: self.writable())
does("C-040", "names everybody", plus=names_everybody)
does(
    "C-041",
    "offers it to who does not want it",
    everywhere=lambda self, key: all(self.stores[one].has(key) for one in self.writable()),
)
does("C-042", "does not see beyond", taking=lambda self: [one for one in self.writable() if one < len(NODES)])
does("C-043", "cannot hear that the other has it", do_PUT=cannot_hear)
does("C-044", "bypasses nobody", do_BYPASS=Session.do_BYPASS)
special(
    "C-050", "offsets do not count", do_GET=lambda self, rest: Session.do_GET(self, b"0 " + rest.partition(b" ")[2])
)
special("C-051", "promises what it has not", send_content=promises)
special("C-052", "knows no time", do_GETTIMESTAMP=hangs_up)
special("C-052", "knows no deadline", do_REMOVE_BEFORE=hangs_up)
special(
    "C-052",
    "removes and denies it",
    do_REMOVE_BEFORE=lambda self, rest: (self.store.remove(rest.partition(b" ")[2]), self.say(b"FAILURE")),
)
special("C-053", "says it twice", after_put=lambda self: self.sock.sendall(b"SUCCESS\n"))
over_http("H-050", "names everybody", change=lambda self, verb, said: said | {"plusuuids": [*NODES, CLUSTER]})
over_http("H-051", "an ERROR is as good as content", putoffset=believes_an_error("node"))
over_http("H-052", "ERROR of all is as good as content", putoffset=believes_an_error("all"))
over_http("H-053", "nobody is everybody", putoffset=believes_an_error("nobody"))
over_http(
    "H-053", "stores it nowhere", change=lambda self, verb, said: said | {"stored": True} if verb == "put" else said
)
does("M-008", "a second content goes to one node", finish=one_content_each)


def subject(fault: Fault) -> Subject:
    nodes = fault.nodes()

    def front(visit: Visit) -> Channel:
        if visit.uuid == SPECIAL:
            return over_socket(tiny.start(nodes.special, type("Special", (fault.special,), {"greets": SPECIAL})))
        if visit.uuid in NODES:
            return one(NODES.index(visit.uuid), fault.node)
        return over_socket(tiny.start(nodes, fault.gateway, fault.lie))

    def one(number: int, broken: type[Session] | None = None) -> Channel:
        if broken and issubclass(broken, Gateway):
            greets = type(
                "Pretends",
                (broken,),
                {"greet": lambda self: (setattr(self, "greets", NODES[number]), Gateway.greet(self))},
            )
            return over_socket(tiny.start(nodes, greets))
        session = type("Pretends", (broken,), {"greets": NODES[number]}) if broken else node_session(number)
        return over_socket(tiny.start(nodes.stores[number], session))

    def alone(number: int) -> Subject:
        has = frozenset((Need.LINES, Need.REPOSITORY))
        return Subject(f"node {number}", lambda visit: one(number), NAMES[number], has)

    cluster = Broken(nodes, fault.handler, alone(len(NODES)))
    return Subject("tiny cluster", front, CLUSTER, HAS, nodes=tuple(map(alone, range(3))), cluster=cluster)


def plan() -> Plan:
    return Plan(patience=Patience(1.5), seed=7, examples=5, hold=0.8)


def test_the_right_cluster_passes_every_requirement() -> None:
    results = run(subject(Fault("", "")), plan(), OURS)

    assert not [f"{r.requirement.id}: {r.reason}" for r in results if r.status is not Status.PASS]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.requirement} {fault.what}")
def test_a_planted_fault_is_found_by_the_requirement_that_it_breaks(fault: Fault) -> None:
    (one,) = (found for found in OURS if found.id == fault.requirement)

    result = try_one(replace(subject(fault)), plan(), one)

    assert result.status is Status.FAIL, f"{fault.what} was not noticed"


def test_every_requirement_of_clusters_has_been_seen_failing() -> None:
    assert {fault.requirement for fault in FAULTS} == {one.id for one in OURS}
