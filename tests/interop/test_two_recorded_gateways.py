"""What was said to a gateway of git-annex with another gateway behind it is said to ours: the same answers."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gateways import Gateways

pytestmark = [pytest.mark.interop, pytest.mark.transcripts]

RECORDINGS = sorted((Path(__file__).parents[1] / "transcripts").glob("multigw-*.jsonl"))


@dataclass
class Recorded:
    """What the client said in each session with the first gateway, and what it heard.

    Attributes:
        client: Who it said it is.
        places: UUID → letter: ``g`` and its nodes, ``h`` and those behind it, and the cluster.
        beyond: How many nodes are behind ``h``.
    """

    client: str = ""
    talks: list[tuple[bytes, list[str]]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    beyond: int = 0


def recorded(path: Path) -> Recorded:
    found, talking = Recorded(), False
    named, behind, bypassed = list[str](), list[str](), list[str]()
    for row in map(json.loads, path.read_text().splitlines()):
        text = row.get("text", "")
        match row["dir"]:
            case "exec":
                *_, found.client, _, cluster = row["comment"].split()
                found.places[cluster] = "safe"
                found.talks.append((b"", []))
                talking = True
            case "C>S" if talking:
                said, heard = found.talks[-1]
                found.talks[-1] = (said + (b64decode(row["b64"]) if "b64" in row else text.encode()), heard)
                bypassed += text.split()[1:] if text.startswith("BYPASS ") else []
            case "S>C" if talking:
                found.talks[-1][1].extend(text.splitlines())
                named += text.split()[1:] if "-PLUS " in text else []
            case "S>C":
                behind += text.split()[1:] if "-PLUS " in text else []
            case "cmd":
                found.places[text.replace("'", "").split()[3]] = "g"
            case "exit":
                talking = False
    found.places |= dict.fromkeys(bypassed, "h")
    nodes = [uuid for uuid in dict.fromkeys(named) if uuid not in found.places]
    nodes.sort(key=lambda uuid: uuid in behind)
    found.places |= {uuid: str(number) for number, uuid in enumerate(nodes, 1)}
    found.beyond = len({*behind} & {*nodes})
    return found


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_puts_and_removals_reach_the_nodes_behind_the_other_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Two differences (docs/deviations.md): a cluster is never named as a place, and a second put ends no session."""
    world = Gateways(tmp_path, monkeypatch)
    found = recorded(path)
    nodes = "".join(sorted(filter(str.isdigit, found.places.values())))
    near, far = nodes[: len(nodes) - found.beyond], nodes[len(nodes) - found.beyond :]
    world.gateway("g", nodes=near, cluster="safe")
    world.gateway("h", nodes=far, extends="g", cluster="safe")
    ours = {uuid: str(world.uuid(name)) for uuid, name in found.places.items()}
    back = {uuid: place for place, uuid in ours.items()}

    def translated(text: str, names: dict[str, str]) -> str:
        return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda found: names.get(found[0], found[0]), text)

    assert found.talks
    for said, heard in found.talks:
        given = translated(said.decode("latin-1"), ours).encode("latin-1")
        command = [str(tmp_path / "annexpy-shell"), "p2pstdio", str(world.path("g")), found.client]
        done = subprocess.run(
            [*command, "--uuid", str(world.uuid("safe"))], input=given, capture_output=True, timeout=120, check=False
        )
        answers = translated(done.stdout.decode(), back).splitlines()
        expected = []
        for line in heard:
            if line == "ERROR protocol error":  # to a put of what all nodes have; it ended there
                expected += [next(one for one in expected if "-PLUS" in one).replace("SUCCESS", "ALREADY-HAVE")]
                expected += ["TIMESTAMP"]
            else:
                expected.append(
                    " ".join(word for word in line.split() if "PLUS" not in line or found.places.get(word) != "safe")
                )
        assert [sorted(re.sub(r"(TIMESTAMP) \d+", r"\1", line).split()) for line in answers] == [
            sorted(line.split()) for line in expected
        ]
