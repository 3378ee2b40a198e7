"""What each repository of the recorded scene wants, against what git-annex said."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from annexpy.keys.key import Key
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.trust import TrustLevel
from annexpy.policy.wanted import Policy
from annexpy.uuids import UUID

pytestmark = pytest.mark.vectors

VECTORS = Path(__file__).parents[2] / "vectors"
CONTENT: dict[str, Any] = json.loads((VECTORS / "preferred_content.json").read_text())
BALANCED: dict[str, Any] = json.loads((VECTORS / "balanced.json").read_text())
SCENE = CONTENT["scene"]


def _uuids(names: dict[str, Any]) -> dict[UUID, Any]:
    return {UUID(name): value for name, value in names.items()}


def _groups(scene: dict[str, Any]) -> dict[UUID, frozenset[str]]:
    return {uuid: frozenset(groups) for uuid, groups in _uuids(scene["groups"]).items()}


def _trust(scene: dict[str, Any]) -> dict[UUID, TrustLevel]:
    return {uuid: TrustLevel(level) for uuid, level in _uuids(scene["trust"]).items()}


@cache
def _numcopies(name: str) -> int | None:
    """The attribute of the scene; its patterns are ``*.ext`` only."""
    for line in SCENE["gitattributes"]:
        pattern, setting = line.split()
        assert pattern.startswith("*.")
        if name.endswith(pattern[1:]):
            return int(setting.removeprefix("annex.numcopies="))
    return None


FILES = {
    file["file"]: KeyFacts(
        Key.parse(file["key"]),
        file["file"].encode(),
        frozenset(map(UUID, file["locations"])),
        _numcopies(file["file"]),
        {name.lower(): frozenset(values) for name, values in file["metadata"].items()},
        tuple(file["urls"]),
    )
    for file in SCENE["files"]
}


@cache
def _policy(target: str, expression: str, maxsize: tuple[tuple[str, int], ...]) -> tuple[UUID, Policy]:
    uuid = UUID(SCENE["uuids"][target])
    repositories = Repositories(
        groups=_groups(SCENE),
        trust=_trust(SCENE),
        preferred={uuid: expression},
        groupwanted=SCENE["groupwanted"],
        numcopies=SCENE["numcopies_log"],
        sizes=_uuids(SCENE["reposize"]),
        maxsizes=_uuids(dict(maxsize)),
    )
    return uuid, Policy(repositories)


@pytest.mark.parametrize(
    "case", CONTENT["cases"], ids=lambda case: f"{case['target']}: {case['expr']} of {case['file']}"
)
def test_a_repository_wants_what_it_wants_for_git_annex(case: dict[str, Any]) -> None:
    uuid, policy = _policy(case["target"], case["expr"], tuple(sorted(case["maxsize"].items())))
    facts = FILES[case["file"]]

    assert policy.wants(uuid, facts, default=False) == case["want_get"]
    assert policy.wants_drop(uuid, facts, default=False) == case["want_drop"]


@pytest.mark.parametrize("case", BALANCED["cases"], ids=lambda case: f"{case['expr']} {case['key'][-4:]}")
def test_keys_are_shared_out_as_by_git_annex(case: dict[str, Any]) -> None:
    uuid = UUID(case["target"])
    repositories = Repositories(
        groups=_groups(BALANCED),
        trust=_trust(BALANCED),
        preferred={uuid: case["expr"]},
        numcopies=case["numcopies"],
    )
    facts = KeyFacts(Key.parse(case["key"]), b"file", frozenset(map(UUID, case["locations"])))
    policy = Policy(repositories)

    assert policy.wants(uuid, facts) == case["want_get"]
    assert policy.wants_drop(uuid, facts) == case["want_drop"]
