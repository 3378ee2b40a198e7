"""A small correct gateway to three tiny nodes, in memory; and what breaks them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tiny
from tiny import HangUp, Session, Store
from tiny_http import Handler, Server

from protocol_tests import Subject

CLUSTER = "acb06ce6-0741-87a8-bce4-2c8218072e8c"
NODES = tuple(f"{digit * 8}-aaaa-4bbb-8ccc-dddddddddddd" for digit in "789")
FAR, SPECIAL = (f"{digit * 8}-aaaa-4bbb-8ccc-dddddddddddd" for digit in "56")
NAMES = (*NODES, FAR)
FAR_GATEWAY = "44444444-aaaa-4bbb-8ccc-dddddddddddd"


class Nodes(Store):
    """Several stores as one; ``done`` names those that did the last thing."""

    def __init__(self) -> None:
        super().__init__()
        self.stores = tuple(Store() for _ in NAMES)
        self.special = Store()
        self.usable = set(range(len(NODES)))
        self.readonly: set[int] = set()
        self.unwanting: set[int] = set()
        self.done: list[int] = []

    def each(self) -> list[int]:
        return sorted(self.usable)

    def writable(self) -> list[int]:
        return [one for one in self.each() if one not in self.readonly]

    def taking(self) -> list[int]:
        return [one for one in self.writable() if one not in self.unwanting]

    def names(self) -> list[str]:
        return [NAMES[one] for one in self.done]

    def has(self, key: bytes) -> bool:
        return any(self.stores[one].has(key) for one in self.each())

    def everywhere(self, key: bytes) -> bool:
        return bool(self.taking()) and all(self.stores[one].has(key) for one in self.taking())

    def content(self, key: bytes) -> bytes | None:
        return next((self.stores[one].contents[key] for one in self.each() if self.stores[one].has(key)), None)

    def finish(self, key: bytes, body: bytes, valid: bool) -> bool:
        self.done = [one for one in self.taking() if self.stores[one].finish(key, body, valid)]
        return bool(self.done)

    def remove(self, key: bytes) -> bool:
        self.done = [one for one in self.writable() if self.stores[one].remove(key)]
        return len(self.done) >= len(NODES)


class One(Store):
    """One of the nodes, as the gateway shows it over HTTP."""

    def __init__(self, nodes: Nodes, number: int) -> None:
        super().__init__()
        self.nodes, self.number = nodes, number
        self.contents = nodes.stores[number].contents

    def finish(self, key: bytes, body: bytes, valid: bool) -> bool:
        return self.number not in self.nodes.readonly and super().finish(key, body, valid)


class Gateway(Session):
    store: Nodes

    def __init__(self, sock, store: Nodes, lie=None, token: str = "") -> None:  # type: ignore[no-untyped-def]
        super().__init__(sock, store, lie, token)
        self.greets = CLUSTER

    def plus(self, verb: bytes) -> bytes:
        names = [name.encode() for name in self.store.names()]
        if self.version < 2 or (verb == b"FAILURE" and not names):
            return verb
        return b" ".join([verb + b"-PLUS", *names])

    def told(self, good: bool) -> None:
        self.say(self.plus(b"SUCCESS" if good else b"FAILURE"))

    def do_BYPASS(self, rest: bytes) -> None:
        if FAR_GATEWAY.encode() in rest.split():
            self.store.usable.discard(len(NODES))

    def do_REMOVE(self, rest: bytes) -> None:
        if (key := self.key(rest)) is not None:
            self.told(self.store.remove(key))

    def do_REMOVE_BEFORE(self, rest: bytes) -> None:
        moment, _, key = rest.partition(b" ")
        if not self.in_time(int(moment)):
            return self.say(b"FAILURE")
        return self.told(self.store.remove(key))

    def do_LOCKCONTENT(self, rest: bytes) -> None:
        self.say(b"FAILURE")

    def do_GET(self, rest: bytes) -> None:
        offset, _, rest = rest.partition(b" ")
        content = self.store.content(rest.partition(b" ")[2])
        self.send_content((content or b"")[int(offset) :], content is not None)

    def do_PUT(self, rest: bytes) -> None:
        key = rest.partition(b" ")[2]
        if not self.store.writable():
            return self.error("no node can be used")
        if self.store.everywhere(key):
            self.store.done = self.store.taking()
            return self.say(self.plus(b"ALREADY-HAVE"))
        self.say(b"PUT-FROM 0")
        line = self.line()
        if line == b"DATA-PRESENT":
            self.store.done = [one for one in self.store.each() if self.store.stores[one].has(key)]
            return self.told(bool(self.store.done))
        return self.receive(key, b"", int(line.removeprefix(b"DATA ")))

    def receive(self, key: bytes, partial: bytes, length: int) -> None:
        body = self.body(length)
        valid = self.line() if self.version else b"VALID"
        self.told(self.store.finish(key, body, valid == b"VALID"))


class Broken:
    """Makes nodes fail, and has what else may stand behind a gateway."""

    def __init__(self, nodes: Nodes, handler: type[Handler], far: Subject) -> None:
        self.nodes, self.handler, self.far = nodes, handler, far

    @contextmanager
    def unwanting(self, node: int) -> Iterator[None]:
        self.nodes.unwanting.add(node)
        yield
        self.nodes.unwanting.discard(node)

    @contextmanager
    def beyond(self) -> Iterator[tuple[Subject, str]]:
        self.nodes.usable.add(len(NODES))
        yield self.far, FAR_GATEWAY
        self.nodes.usable.discard(len(NODES))

    @contextmanager
    def special(self) -> Iterator[str]:
        yield SPECIAL

    @contextmanager
    def served(self) -> Iterator[str]:
        nodes = {name: One(self.nodes, number) for number, name in enumerate(NODES)}
        server = Server(self.handler, self.nodes, {CLUSTER: self.nodes, **nodes})
        yield server.url.rpartition("/")[0]
        server.stop()

    @contextmanager
    def away(self, node: int) -> Iterator[None]:
        self.nodes.usable.discard(node)
        yield
        self.nodes.usable.add(node)

    @contextmanager
    def readonly(self, node: int) -> Iterator[None]:
        self.nodes.readonly.add(node)
        yield
        self.nodes.readonly.discard(node)

    @contextmanager
    def without_nodes(self) -> Iterator[None]:
        usable, self.nodes.usable = self.nodes.usable, set()
        yield
        self.nodes.usable = usable


class Node(Session):
    """One node, by itself or through the gateway."""


def node_session(number: int) -> type[Session]:
    return type("OneNode", (Node,), {"greets": NAMES[number]})


__all__ = ["CLUSTER", "NAMES", "NODES", "SPECIAL", "Broken", "Gateway", "HangUp", "Nodes", "node_session", "tiny"]
