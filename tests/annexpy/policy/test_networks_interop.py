"""Generated networks settle where ``git annex sim`` says, and then nothing moves any more.

In its simulation no repository has a content itself, so that ``present`` is wrong where a repository looks at its
own wishes; it is right where one looks at those of another. And files have other paths there: a glob must begin
with a star, and ``lackingcopies``, which looks at the attributes of the path, is a fatal error. And a copy
that is untrusted is enough for it to drop another. So only actions towards others are compared, nobody is
untrusted, and of expressions there is what works.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from scenes import Network, Scene

from annexpy.keys.key import Key
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.groups import STANDARD_GROUPS
from annexpy.policy.placement import Candidate, Unwanted, choose
from annexpy.policy.trust import TrustLevel
from annexpy.policy.wanted import Policy
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

NAMES = "abcdef"
HERE = UUID("f0000000-0000-4000-8000-00000000000f")
FOLDERS = ["", "docs/", "archive/", "x/archive/", "public/"]
ROUNDS = 8


@dataclass
class Generated:
    """A network, and the truth about it."""

    network: Network
    uuids: dict[str, UUID]
    wanted: dict[UUID, str]
    maxsizes: dict[UUID, int]
    start: dict[bytes, str]
    holders: dict[bytes, set[UUID]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[UUID, int]:
        sizes = dict.fromkeys(self.uuids.values(), 0)
        for facts in self.network.files:
            assert facts.file is not None
            for uuid in self.holders[facts.file].intersection(sizes):
                sizes[uuid] += facts.key.size or 0
        return sizes


def generate(seed: int) -> Generated:
    r = random.Random(seed)
    names = NAMES[: r.randint(3, 6)]
    uuids = {name: UUID(f"{r.randrange(16**8):08x}-0000-4000-8000-{r.randrange(16**12):012x}") for name in names}
    groups: dict[UUID, frozenset[str]] = {}
    wanted: dict[UUID, str] = {}
    maxsizes: dict[UUID, int] = {}
    balanced = r.choice(["balanced", "fullybalanced", "sizebalanced", "fullysizebalanced"])
    groupwanted = {
        "shared": f"{balanced}=shared:{r.choice(['1', '1', '2', '3'])}",
        "redundant": f"not copies=redundant:{r.randint(1, 3)}",
        "big": r.choice(["largerthan=3kb", "largerthan=3kb or present", "standard or largerthan=5kb"]),
    }
    for uuid in uuids.values():
        match r.randrange(8):
            case 0 | 1 | 2:
                groups[uuid], wanted[uuid] = frozenset({r.choice(list(STANDARD_GROUPS))}), "standard"
            case 3 | 4 | 5:
                group = r.choice(["shared", "shared", "redundant", "big"])
                groups[uuid], wanted[uuid] = frozenset({group}), "groupwanted"
                if "size" in balanced or r.random() < 0.4:
                    maxsizes[uuid] = r.randint(5, 40) * 1000
            case 6:
                groups[uuid], wanted[uuid] = frozenset({"client"}), "standard and (smallerthan=4kb or exclude=*docs/*)"
            case _:
                groups[uuid] = frozenset()
                wanted[uuid] = r.choice(
                    [
                        "anything",
                        "nothing",
                        "present",
                        "include=*docs/*",
                        "exclude=*archive/* and largerthan=2kb",
                        "approxlackingcopies=1",
                    ]
                )
    trust = {uuid: TrustLevel.TRUSTED for uuid in uuids.values() if r.random() < 0.2}
    files = tuple(
        KeyFacts(
            Key.parse(f"SHA256-s{r.randint(1, 9) * 1000}--{r.randrange(16**64):064x}"),
            f"{r.choice(FOLDERS)}f{n}.{r.choice(['txt', 'mp3'])}".encode(),
        )
        for n in range(r.randint(2, 6))
    )
    network = Network(HERE, groups, trust, groupwanted, r.randint(1, 3), files=files)
    start = {facts.file: r.choice(names) for facts in files if facts.file is not None}
    made = Generated(network, uuids, wanted, maxsizes, start)
    made.holders = {file: {uuids[name]} for file, name in start.items()}
    return made


def setup(generated: Generated) -> list[str]:
    """The network, in the words of ``git annex sim``. With the same seed the files get the same keys."""
    names, network = list(generated.uuids), generated.network
    return [
        "seed 1",
        f"numcopies {network.numcopies}",
        *(f"use {name} {uuid}" for name, uuid in generated.uuids.items()),
        *(f"trustlevel {name} {network.trust.get(uuid, 'semitrusted')}" for name, uuid in generated.uuids.items()),
        *(f"connect {a} <-> {b}" for n, a in enumerate(names) for b in names[n + 1 :]),
        *(f"add {f.file.decode()} {f.key.size}b {generated.start[f.file]}" for f in network.files if f.file),
    ]


class Simulation:
    """What our rules make of a network, and the same as a file for ``git annex sim``."""

    def __init__(self, generated: Generated) -> None:
        self.g = generated
        self.sizes: dict[UUID, int] = {}
        self.repositories: Repositories = generated.network.repositories(
            preferred=generated.wanted, maxsizes=generated.maxsizes, sizes=self.sizes
        )
        self.policy = Policy(self.repositories)
        self.script = setup(generated)
        for name in generated.uuids:
            self.tell(name)

    def tell(self, name: str) -> None:
        """Everybody learns what *name* knows."""
        self.script += [f"action {other} gitpull {name}" for other in self.g.uuids if other != name]

    def facts(self, facts: KeyFacts) -> KeyFacts:
        assert facts.file is not None
        self.sizes.clear()
        self.sizes.update(self.g.sizes)
        return replace(facts, holders=frozenset(self.g.holders[facts.file]))

    def round(self) -> bool:
        """Everybody sends what others want, then has them drop what they may; True when something moved."""
        before = {file: set(holders) for file, holders in self.g.holders.items()}
        pairs = [(name, other) for name in self.g.uuids for other in self.g.uuids if other != name]
        for name, other in pairs:
            self.send(name, other)
        for name, other in pairs:
            self.drop(name, other)
        return before != self.g.holders

    def send(self, name: str, other: str) -> None:
        uuid, to = self.g.uuids[name], self.g.uuids[other]
        moved = False
        for facts in self.in_order():
            assert facts.file is not None
            holders = self.g.holders[facts.file]
            if uuid in holders and to not in holders and self.policy.wants(to, self.facts(facts)):
                holders.add(to)
                moved = True
        if moved:
            self.script.append(f"action {name} sendwanted {other}")
            self.tell(name)

    def drop(self, name: str, other: str) -> None:
        uuid = self.g.uuids[other]
        moved = False
        for facts in self.in_order():
            assert facts.file is not None
            holders = self.g.holders[facts.file]
            others = self.repositories.trustworthy(self.repositories.copies(holders - {uuid}))
            needed = self.g.network.numcopies or 1
            if uuid in holders and len(others) >= needed and self.policy.wants_drop(uuid, self.facts(facts)):
                holders.remove(uuid)
                moved = True
        if moved:
            self.script.append(f"action {name} dropunwantedfrom {other}")
            self.tell(name)

    def in_order(self) -> list[KeyFacts]:
        return sorted(self.g.network.files, key=lambda facts: facts.file or b"")

    def expect(self) -> None:
        for name, uuid in self.g.uuids.items():
            for file, holders in self.g.holders.items():
                self.script.append(f"{'present' if uuid in holders else 'notpresent'} {name} {file.decode()}")

    def still(self) -> None:
        """Nothing that they could do moves anything."""
        for name in self.g.uuids:
            for other in self.g.uuids:
                if other != name:
                    self.script += [f"action {name} sendwanted {other}", f"action {name} dropunwantedfrom {other}"]


def check_network(git_annex: str, path: Path, seed: int) -> None:
    generated = generate(seed)
    scene = Scene(git_annex, path, replace(generated.network, files=()), tuple(generated.uuids.values()))
    scene.prefer(generated.wanted)
    scene.limit(generated.maxsizes)
    generated.network = replace(generated.network, files=keys_of_simulation(scene, generated))
    simulation = Simulation(generated)
    for _ in range(ROUNDS):
        if not simulation.round():
            break
        simulation.expect()
    else:
        raise AssertionError(f"network {seed} does not settle")
    simulation.still()
    simulation.expect()
    (path / "network.sim").write_text("".join(f"{line}\n" for line in simulation.script))
    ran = scene.annex("sim", "run", "network.sim")
    scene.close()
    assert ran.returncode == 0, (seed, ran.stdout, ran.stderr, generated)


def keys_of_simulation(scene: Scene, generated: Generated) -> tuple[KeyFacts, ...]:
    """The files with the keys that the simulation gives them."""
    (scene.path / "setup.sim").write_text("".join(f"{line}\n" for line in setup(generated)))
    for words in (("start", "setup.sim"), ("visit", "a", "git annex find --anything --format='${key} ${file}\\n'")):
        ran = scene.annex("sim", *words)
        assert ran.returncode == 0, ran.stderr
    found = dict(reversed(line.split(" ", 1)) for line in ran.stdout.splitlines() if "--" in line)
    assert scene.annex("sim", "end").returncode == 0
    files = generated.network.files
    return tuple(replace(f, key=Key.parse(found[f.file.decode()])) for f in files if f.file is not None)


@pytest.mark.parametrize("seed", range(10))
def test_a_network_settles_as_git_annex_says(git_annex: str, own_home: None, tmp_path: Path, seed: int) -> None:
    check_network(git_annex, tmp_path, seed)


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("unwanted", [Unwanted.ALL, Unwanted.REFUSE])
def test_a_choice_of_nodes_leaves_nothing_to_move(seed: int, unwanted: Unwanted) -> None:
    """The nodes that a cluster sends a key to keep it, and no other asks for it afterwards."""
    generated = generate(seed)
    simulation = Simulation(generated)
    sender = UUID("d0000000-0000-4000-8000-00000000000d")
    for facts in generated.network.files:
        assert facts.file is not None
        generated.holders[facts.file] = set()
        before = simulation.facts(facts)

        choice = choose(
            [Candidate(uuid) for uuid in generated.uuids.values()],
            lambda uuid, holders, before=before: simulation.policy.wants(uuid, before, holders=holders),
            holders=frozenset({sender}),
            unwanted=unwanted,
            size=facts.key.size,
        )

        generated.holders[facts.file] = {sender, *choice.nodes}
        after = simulation.facts(facts)
        if choice.wanted:
            for uuid in generated.uuids.values():
                if uuid in choice.nodes:
                    assert not simulation.policy.wants_drop(uuid, after)
                else:
                    assert not simulation.policy.wants(uuid, after)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_two_hundred_networks_settle_as_git_annex_says(
    git_annex: str, own_home: None, tmp_path: Path, seed: int
) -> None:
    check_network(git_annex, tmp_path, seed)
