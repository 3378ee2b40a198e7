"""A thousand keys land where git-annex puts them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scenes import Network, Scene

from annexpy.actions.wanted import Wanted
from annexpy.keys.key import Key
from annexpy.policy.facts import KeyFacts
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

HERE = UUID("f0000000-0000-4000-8000-00000000000f")
NODES = [UUID(f"{n}1111111-0000-4000-8000-{n:012x}") for n in (7, 2, 12, 9, 4)]


def files(number: int, held: float) -> tuple[KeyFacts, ...]:
    """Of random sizes; some are held by one or two nodes."""
    r = random.Random(number)
    return tuple(
        KeyFacts(
            Key.parse(f"{r.choice(['SHA256E', 'MD5'])}-s{r.randint(1, 2000)}--{r.randrange(16**32):032x}.dat"),
            b"f%d" % n,
            frozenset(r.sample(NODES, r.randint(1, 2)) if r.random() < held else ()),
        )
        for n in range(number)
    )


def check(git_annex: str, path: Path, expressions: list[str], number: int, *, held: float = 0.3, full: bool) -> None:
    """Every key, for every node and every expression; with *full*, some nodes have no room for some keys."""
    network = Network(HERE, {uuid: frozenset({"nodes"}) for uuid in NODES}, numcopies=2, files=files(number, held))
    scene = Scene(git_annex, path, network)
    if full:
        factors = [0.9, 1.0, 1.0005, 1.2, 3.0]
        scene.limit({u: int(network.sizes.get(u, 0) * f) for u, f in zip(NODES, factors, strict=True)})
    placed = set()
    for text in expressions:
        scene.prefer(dict.fromkeys(NODES, text))
        wanted = Wanted(scene.repository)
        keys = [(facts.key, facts.file) for facts in network.files]
        for uuid in NODES:
            ours = {file for _, file, wants in wanted.wants_many(uuid, keys) if wants}
            assert ours == scene.find(f"--want-get-by={uuid}"), (text, uuid)
            placed |= ours
    assert len(placed) > number // 2
    scene.close()


@pytest.mark.parametrize("full", [False, True])
def test_keys_land_where_git_annex_puts_them(git_annex: str, own_home: None, tmp_path: Path, full: bool) -> None:
    expressions = ["balanced=nodes:2"] if not full else ["fullysizebalanced=nodes:2", "fullybalanced=nodes"]
    check(git_annex, tmp_path, expressions, 200 if full else 1000, full=full)


ALL = [
    f"{kind}=nodes{number}"
    for kind in ("balanced", "fullybalanced", "sizebalanced", "fullysizebalanced")
    for number in ("", ":2", ":3", ":lackingcopies")
]


@pytest.mark.campaign
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("held", [0.0, 0.4])
def test_a_thousand_keys_land_where_git_annex_puts_them(
    git_annex: str, own_home: None, tmp_path: Path, full: bool, held: float
) -> None:
    check(git_annex, tmp_path, ALL if not full or held else ALL[:8], 1000, held=max(held, 0.1 * full), full=full)
