"""Routes: every node of a cluster is reached, once, whatever gateways know of each other."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.logs.repos import Proxied
from annexpy.policy.routes import (
    HOP_COST,
    Neighbour,
    Topology,
    cluster_log,
    cluster_routes,
    nearest_routes,
    proxied_route,
    proxied_routes,
    proxy_log,
)
from annexpy.uuids import UUID

CLUSTER = UUID("ac000000-0000-8000-8000-000000000000")


def uuid(name: str) -> UUID:
    return UUID(f"{name}-uuid")


class Net:
    """Gateways and nodes, each of which knows what the others have recorded.

    *links*: gateway → the gateways it is connected to. *nodes*: gateway → its nodes.
    """

    def __init__(self, links: dict[str, set[str]], nodes: dict[str, set[str]]) -> None:
        self.links, self.nodes = links, nodes
        self.proxies: dict[UUID, frozenset[Proxied]] = {}
        self.members: frozenset[UUID] = frozenset()
        while True:
            before = self.proxies, self.members
            for gateway in links:
                self.members = cluster_log(self.seen_by(gateway), CLUSTER)
                self.proxies = self.proxies | {uuid(gateway): proxy_log(self.seen_by(gateway))}
            if (self.proxies, self.members) == before:
                break

    def seen_by(self, gateway: str) -> Topology:
        near = [Neighbour(name, uuid(name), 100, node_of=frozenset({"c"})) for name in sorted(self.nodes[gateway])]
        near += [Neighbour(name, uuid(name), gateway_of=frozenset({CLUSTER})) for name in sorted(self.links[gateway])]
        return Topology(uuid(gateway), tuple(near), self.proxies, {CLUSTER: self.members}, {"c": CLUSTER})

    def reached(self, gateway: str, bypass: frozenset[UUID] = frozenset(), depth: int = 0) -> Counter[UUID]:
        """How often each node is asked when *gateway* is."""
        assert depth < 10
        routes = cluster_routes(self.seen_by(gateway), CLUSTER, bypass)
        assert routes is not None
        found = Counter(route.uuid for route in routes.nodes)
        for relay in routes.relays:
            behind = self.reached(relay.route.via.name, frozenset(relay.bypass), depth + 1)
            assert set(behind) == relay.nodes, "what is behind a gateway is known"
            found += behind
        return found

    def together(self, gateway: str) -> set[str]:
        """The gateways that can be reached from one."""
        found, waiting = {gateway}, [gateway]
        while waiting:
            for other in self.links[waiting.pop()]:
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found


@st.composite
def nets(draw: st.DrawFn) -> Net:
    gateways = "ABCD"[: draw(st.integers(1, 4))]
    links: dict[str, set[str]] = {gateway: set() for gateway in gateways}
    for one in gateways:
        for other in gateways:
            if one < other and draw(st.booleans()):
                links[one].add(other)
                links[other].add(one)
    nodes = {gateway: draw(st.sets(st.sampled_from("123456"), max_size=3)) for gateway in gateways}
    return Net(links, nodes)


@given(nets())
def test_every_node_is_asked_once_through_any_mesh(net: Net) -> None:
    for gateway in net.links:
        expected = {uuid(node) for other in net.together(gateway) for node in net.nodes[other]}
        assert net.reached(gateway) == Counter(expected)


@given(nets())
def test_records_come_to_rest(net: Net) -> None:
    for gateway in net.links:
        seen = net.seen_by(gateway)
        assert cluster_log(seen, CLUSTER) == net.members
        assert proxy_log(seen) == net.proxies[uuid(gateway)]
        names = Counter(one.name for one in proxy_log(seen))
        assert max(names.values()) == 1


def test_a_full_mesh_of_three_asks_each_node_once() -> None:
    everybody = set("ABC")
    net = Net({one: everybody - {one} for one in everybody}, {"A": {"1"}, "B": {"2", "1"}, "C": {"3"}})

    assert all(net.reached(gateway) == Counter(map(uuid, "123")) for gateway in everybody)


def test_a_node_needs_the_configuration_and_the_log() -> None:
    near = (
        Neighbour("listed", uuid("listed")),
        Neighbour("configured", uuid("configured"), node_of=frozenset({"c"})),
        Neighbour("both", uuid("both"), node_of=frozenset({"other", "c"})),
    )
    members = frozenset({uuid("listed"), uuid("both"), uuid("unknown")})

    routes = cluster_routes(Topology(uuid("A"), near, {}, {CLUSTER: members}, {"c": CLUSTER}), CLUSTER)

    assert routes is not None
    assert [route.name for route in routes.nodes] == ["both"]
    assert cluster_routes(Topology(uuid("A"), near, {}, {CLUSTER: members}, {}), CLUSTER) is None


def proxies(**listed: list[str]) -> dict[UUID, frozenset[Proxied]]:
    """Gateway → names of what it proxies for; the UUID goes by what follows the last dash."""
    return {
        uuid(gateway): frozenset(Proxied(uuid(name.rpartition("-")[2]), name) for name in names)
        for gateway, names in listed.items()
    }


def test_names_lead_through_proxies_behind_proxies_and_never_back() -> None:
    topology = Topology(
        uuid("me"),
        (Neighbour("a", uuid("A"), 100), Neighbour("x", uuid("X"))),
        proxies(A=["B", "x", "me"], B=["c", "A", "me"], X=["d"]),
        {},
        {},
    )

    routes = proxied_routes(topology)

    assert set(routes) == {"a-B", "a-x", "a-B-c", "x-d"}
    assert (routes["a-B-c"].via.name, routes["a-B-c"].uuid, routes["a-B-c"].hops) == ("a", uuid("c"), 2)
    assert routes["a-B-c"].cost == 100 + 2 * HOP_COST


def test_the_shorter_way_is_taken() -> None:
    topology = Topology(
        uuid("me"),
        (Neighbour("a", uuid("A")), Neighbour("b", uuid("B")), Neighbour("d", uuid("d"))),
        proxies(A=["B-c", "c", "d"], B=["c"]),
        {},
        {},
    )

    assert [(route.name, route.hops) for route in nearest_routes(topology)] == [("a-c", 1)]


@pytest.mark.parametrize(
    ("configured", "logged", "allowed"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_what_is_proxied_for_is_both_configured_and_recorded(configured: bool, logged: bool, allowed: bool) -> None:
    """proxy.log alone is not enough: whoever can push to the branch could write to it."""
    near = (Neighbour("n", uuid("n"), proxied=configured),)
    listed = proxies(me=["n"]) if logged else {}

    route = proxied_route(Topology(uuid("me"), near, listed, {}, {}), uuid("n"))

    assert (route is not None) is allowed


def test_what_a_proxied_repository_proxies_for_can_be_had_too() -> None:
    near = (Neighbour("b", uuid("B"), proxied=True), Neighbour("n", uuid("N")))
    topology = Topology(uuid("me"), near, proxies(me=["B"], B=["c"], c=["d", "me"], N=["e"]), {}, {})

    found = {name: proxied_route(topology, uuid(name)) for name in ("c", "d", "e", "me", "N")}

    assert {name: route and (route.via.name, route.hops) for name, route in found.items()} == {
        "c": ("b", 1),
        "d": ("b", 2),
        "e": None,
        "me": None,
        "N": None,
    }


def test_the_node_behind_another_gateway_of_the_cluster_can_be_asked_for() -> None:
    net = Net({"A": {"B"}, "B": {"A"}}, {"A": {"1"}, "B": {"2"}})

    route = proxied_route(net.seen_by("A"), uuid("2"))

    assert route is not None
    assert (route.name, route.via.name, route.hops) == ("B-2", "B", 1)
    assert proxied_route(net.seen_by("A"), uuid("3")) is None
