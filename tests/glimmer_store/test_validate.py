"""A graph is held against Glimmer's rules as Glimmer's own validator would, and against ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ds000114
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_store.errors import ConfigError
from glimmer_store.finding import Level
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.schema import GLIMMER, frontmatter_patch
from glimmer_store.sidecar import Sidecar
from glimmer_store.validate import Validation, validate

RECORD = {
    "stored-at": [{"remote": f"vault{n}", "uuid": f"{n}" * 8 + "-1111-4111-8111-111111111111"} for n in (1, 2, 3)],
    "copies": 3,
    "numcopies-required": 3,
    "verified": True,
    "storage-class": "irreplaceable",
}
DATASET = "datasets/dataset-sub-01-ses-test-T1w.md"
BET = "methods/method-fsl-bet.md"
BRAIN = "derivatives/derivative-sub-01-T1w-brain.md"
FINDING = "findings/finding-sub-01-brain-volume.md"
INDEX = "_glimmer-index.json"


def sub(file: str, pattern: str, text: str) -> Callable[[Path], None]:
    """Replace *pattern* in a file of the graph; it must be there."""

    def change(graph: Path) -> None:
        before = (graph / file).read_text()
        after = re.sub(pattern, text, before, count=1, flags=re.MULTILINE | re.DOTALL)
        assert after != before
        (graph / file).write_text(after)

    return change


def write(file: str, text: str) -> Callable[[Path], None]:
    def change(graph: Path) -> None:
        (graph / file).parent.mkdir(exist_ok=True)
        (graph / file).write_text(text)

    return change


NODE = "---\nid: {id}\ntype: {type}\nname: n\ncreated: x\nmodified: x\n{more}---\n"
PROFILE = "profile: neuroimaging\naugments: "
JSON_NODE = '{"id": "x", "type": "dataset", "name": "x", "created": "", "modified": "", "subject-id": "1"}'
PUBLICATION = NODE.format(id="p", type="publication", more="pub-status: draft\n")

REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # what is done to the graph → (how, rule, field)
    "no index": (lambda graph: (graph / INDEX).unlink(), "index", ""),
    "an index that is no JSON": (write(INDEX, "{"), "index", ""),
    "an index without nodes": (sub(INDEX, '"nodes"', '"knots"'), "index", "nodes"),
    "an index with an entry twice": (sub(INDEX, '"id": "method-fsl-fast"', '"id": "method-fsl-bet"'), "index", "nodes"),
    "an index entry without id": (sub(INDEX, '"id": "method-fsl-fast",', ""), "index", "nodes"),
    "an index entry without file": (lambda graph: (graph / BET).unlink(), "index-only", ""),
    "a file without index entry": (
        write("x.md", NODE.format(id="x", type="dataset", more="subject-id: a\n")),
        "not-in-index",
        "id",
    ),
    "a readme": (write("README.md", "About\n"), "unreadable", ""),
    "front matter without end": (sub(BET, "^---\n\n.*", ""), "unreadable", ""),
    "a closing line with blanks": (sub(BET, "^---\n\n", "--- \n\n"), "unreadable", ""),
    "front matter that ends within a field": (sub(BET, "^name: .*?$", "name: bet---"), "required", "tool"),
    "front matter that is a list": (write(BET, "---\n- a\n---\n"), "unreadable", ""),
    "a field twice": (sub(BET, "^tool:", "tool: x\ntool:"), "unreadable", ""),
    "a field twice further in": (sub(BET, "^  frac: 0.5", "  frac: 0.5\n  frac: 1"), "unreadable", ""),
    "YAML that does not parse": (sub(BET, "^tool: ", "tool: ["), "unreadable", ""),
    "bytes that are no text": (lambda graph: (graph / BET).write_bytes(b"---\nid: \xff\n---\n"), "unreadable", ""),
    "JSON that does not parse": (write("x.json", "{"), "unreadable", ""),
    "a JSON file without id": (write("x.json", "{}"), "id", "id"),
    "no id": (sub(BET, "^id: .*?\n", ""), "id", "id"),
    "an id that is a number": (sub(BET, "^id: .*?$", "id: 7"), "id", "id"),
    "an id with blanks": (sub(BET, "^id: .*?$", "id: fsl bet"), "id", "id"),
    "an id twice": (
        write("x.md", NODE.format(id="method-fsl-bet", type="dataset", more="subject-id: a\n")),
        "id",
        "id",
    ),
    "no type": (sub(BET, "^type: .*?\n", ""), "type", "type"),
    "an unknown type": (sub(BET, "^type: .*?$", "type: qc-artifact"), "type", "type"),
    "a type that is part of the schema": (sub(BET, "^type: .*?$", "type: _common"), "type", "type"),
    "no creation date": (sub(BET, "^created: .*?\n", ""), "required", "created"),
    "a method without tool": (sub(BET, "^tool: .*?\n", ""), "required", "tool"),
    "a dataset without subject": (sub(DATASET, "^subject-id: .*?\n", ""), "required", "subject-id"),
    "a derivative without kind": (sub(BRAIN, "^output-kind: .*?\n", ""), "required", "output-kind"),
    "a derivative without mode": (sub(BRAIN, "^provenance-mode: .*?\n", ""), "required", "provenance-mode"),
    "a finding without evidence": (sub(FINDING, "^based-on:.*?confidence", "confidence"), "required", "based-on"),
    "a finding with no piece of evidence": (
        sub(FINDING, "^based-on:.*?confidence", "based-on: []\nconfidence"),
        "evidence",
        "based-on",
    ),
    "an agent without trace": (sub(FINDING, "^reasoning-trace:.*?edges", "edges"), "agent", "reasoning-trace"),
    "an edge to nowhere": (sub(BRAIN, "target: method-fsl-bet", "target: method-fsl"), "edge", "edges"),
    "an edge of another type of node": (sub(BRAIN, "type: derives-from", "type: validates-against"), "edge", "edges"),
    "an edge without type": (sub(BRAIN, "^- type: derives-from\n ", "-"), "edge", "edges"),
    "an edge without target": (sub(BRAIN, "^  target: method-fsl-bet\n", ""), "edge", "edges"),
    "an edge that is text": (sub(BRAIN, "^edges:\n", "edges:\n- method-fsl-bet\n"), "edge", "edges"),
    "edges that are a number": (sub(BET, "^edges:.*?provenance", "edges: 1\nprovenance"), "edge", "edges"),
    "an edge whose type is a list": (sub(BRAIN, "type: derives-from", "type: [derives-from]"), "edge", "edges"),
    "a profile of the graph that asks for more": (
        write("_glimmer-profiles/neuroimaging.yaml", PROFILE + "{method: {required: {maker: string}}}\n"),
        "required",
        "maker",
    ),
}

ACCEPTED: dict[str, Callable[[Path], None]] = {
    "as it is": lambda graph: None,
    "Windows line ends": lambda graph: [  # type: ignore[func-returns-value, misc]
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n")) for file in graph.rglob("*.md")
    ],
    "a foreign field": sub(BET, "^tool:", "x-lab: {a: [1, 2]}\ntool:"),
    "our fields": lambda graph: write_record(graph),
    "a contributor outside the graph": sub(BRAIN, "^edges:\n", "edges:\n- {type: contributed-by, target: a@b.org}\n"),
    "an unknown domain": sub(DATASET, "^subject-id: .*?\n", "domain: astronomy\n"),
    "a default domain that nobody knows": sub(INDEX, '"neuroimaging"', '"astronomy"'),
    "a profile that is malformed": write("_glimmer-profiles/x.yaml", "profile: x\n"),
    "a profile that does not parse": write("_glimmer-profiles/x.yaml", "profile: [\n"),
    "a profile hidden by another": write("_glimmer-profiles/neuroimaging.yaml", PROFILE + "{}\n"),
    "a JSON node": lambda graph: (
        write("x.json", JSON_NODE)(graph),
        sub(INDEX, r'"nodes": \[', '"nodes": [{"id": "x"},')(graph),
    )[0],
    "a publication that cites nothing": lambda graph: (
        write("p.md", PUBLICATION)(graph),
        sub(INDEX, r'"nodes": \[', '"nodes": [{"id": "p"},')(graph),
    )[0],
}


def write_record(graph: Path) -> None:
    (graph / BRAIN).write_bytes(Sidecar.read(graph / BRAIN).with_fields(RECORD).raw)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return ds000114.write_graph(tmp_path / "rokb")


def glimmers(result: Validation, level: Level) -> list[str]:
    """The rules of Glimmer's that a graph breaks."""
    return [f.rule for f in result.findings if f.level is level and not f.rule.startswith("storage-")]


def test_the_example_of_glimmer_is_accepted(graph: Path) -> None:
    result = validate(graph)

    assert result.nodes == 9
    assert glimmers(result, Level.ERROR) == []
    assert glimmers(result, Level.WARNING) == ["hint"]  # its dataset names no method of acquisition


@pytest.mark.parametrize("what", REFUSED)
def test_what_glimmer_refuses_is_refused_by_name(graph: Path, what: str) -> None:
    change, rule, field = REFUSED[what]
    change(graph)

    found = [f for f in validate_any(graph).findings if f.level is Level.ERROR]

    assert (rule, field) in [(f.rule, f.field) for f in found], [str(f) for f in found]
    assert all(f.remedy and f.message for f in found)


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_glimmer_accepts_is_accepted(graph: Path, what: str) -> None:
    ACCEPTED[what](graph)

    assert glimmers(validate(graph), Level.ERROR) == []


def validate_any(graph: Path) -> Validation:
    """As ``validate``; a folder without index is given to it as the graph of a dataset."""
    (graph.parent / "glimmer-store.toml").write_text('graph = "rokb"\n')
    return validate(graph.parent)


@pytest.mark.optional
@pytest.mark.skipif("GLIMMER_REPO" not in os.environ, reason="GLIMMER_REPO names no clone of hebbianloop/glimmer")
class TestAgainstGlimmer:
    """The same questions, put to Glimmer's own validator in a process of its own."""

    def run(self, graph: Path, repo: str | None = None) -> subprocess.CompletedProcess[str]:
        script = Path(repo or os.environ["GLIMMER_REPO"]) / "glimmer" / "tools" / "validate.py"
        return subprocess.run(
            [sys.executable, str(script), str(graph)], capture_output=True, text=True, check=False, timeout=60
        )

    @pytest.mark.parametrize("what", [*REFUSED, *ACCEPTED])
    def test_glimmer_says_the_same(self, graph: Path, what: str) -> None:
        (REFUSED[what][0] if what in REFUSED else ACCEPTED[what])(graph)
        ours = validate_any(graph)

        theirs = self.run(graph)

        assert (theirs.returncode == 1) == (what in REFUSED), theirs.stdout + theirs.stderr
        if what in ACCEPTED:
            assert theirs.stdout.count("\n  ! ") == len(glimmers(ours, Level.WARNING)), theirs.stdout

    def test_our_table_is_glimmers_schema(self) -> None:
        folder = Path(os.environ["GLIMMER_REPO"]) / "glimmer" / "schema"
        schema = yaml.safe_load((folder / "frontmatter.yaml").read_text())
        profile = yaml.safe_load((folder / "profiles" / "neuroimaging.yaml").read_text())

        assert schema["schema-version"] == GLIMMER.version
        assert tuple(schema["_common"]["required"]) == GLIMMER.common
        assert set(schema["_universal-edges"]) == GLIMMER.universal
        assert schema["default-domain"] == GLIMMER.default_domain
        types = {n: entry for n, entry in schema.items() if isinstance(entry, dict) and not n.startswith("_")}
        assert set(types) == set(GLIMMER.types)
        for name, entry in types.items():
            assert tuple(entry.get("required") or ()) == GLIMMER.types[name].required
            assert set(entry.get("edges-allowed") or ()) == GLIMMER.types[name].edges
        augmented = {name: tuple(entry.get("required") or ()) for name, entry in profile["augments"].items()}
        assert augmented == GLIMMER.profiles["neuroimaging"]

    def test_the_proposed_patch_applies_and_only_adds_optional_fields(self, graph: Path, tmp_path: Path) -> None:
        repo = tmp_path / "glimmer"
        subprocess.run(["git", "clone", "-q", os.environ["GLIMMER_REPO"], str(repo)], check=True)
        before = yaml.safe_load((repo / "glimmer/schema/frontmatter.yaml").read_text())
        patch = subprocess.run(
            ["git", "apply", "--unidiff-zero", "-"], cwd=repo, input=frontmatter_patch(), text=True, check=False
        )

        after = yaml.safe_load((repo / "glimmer/schema/frontmatter.yaml").read_text())

        assert patch.returncode == 0
        for name in ("dataset", "derivative"):
            optional = after[name]["optional"]
            assert {field: optional.pop(field) for field in RECORD}["copies"] == "int"
        assert after == before
        assert self.run(graph, str(repo)).returncode == 2


# -- our own rules --


def record(graph: Path, **changes: object) -> Validation:
    """Validate with a storage record on the dataset node; names have ``_`` for ``-``."""
    fields = {**RECORD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    node = Sidecar.read(graph / DATASET).with_fields({n: v for n, v in fields.items() if v is not None})
    (graph / DATASET).write_bytes(node.raw)
    return validate(graph)


def ours(result: Validation) -> list[tuple[str, str, str]]:
    return [
        (f.level.value, f.rule.removeprefix("storage-"), f.field)
        for f in result.findings
        if f.rule.startswith("storage-") and f.rule != "storage-missing"
    ]


def test_a_full_record_is_in_order(graph: Path) -> None:
    assert ours(record(graph)) == []


def test_nodes_without_storage_fields_are_named(graph: Path) -> None:
    missing = [f for f in validate(graph).findings if f.rule == "storage-missing"]
    assert len(missing) == 5
    assert {f.level for f in missing} == {Level.WARNING}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"copies": 2}, ("error", "field", "copies")),
        ({"copies": "3"}, ("error", "field", "copies")),
        ({"copies": True}, ("error", "field", "copies")),
        ({"verified": "yes"}, ("error", "field", "verified")),
        ({"verified": False}, ("warning", "unverified", "verified")),
        ({"numcopies_required": 0}, ("error", "field", "numcopies-required")),
        ({"numcopies_required": 4}, ("under-replicated", "copies", "copies")),
        ({"storage_class": "precious"}, ("error", "field", "storage-class")),
        ({"storage_class": None}, ("error", "field", "storage-class")),
        ({"stored_at": "vault1"}, ("error", "field", "stored-at")),
        ({"stored_at": [{"remote": "a", "uuid": ""}]}, ("error", "field", "stored-at")),
        ({"stored_at": [{"remote": "a", "uuid": "u"}] * 3}, ("error", "field", "stored-at")),
        ({"stored_at": [], "copies": 0}, ("error", "field", "verified")),
        ({"datalad_annex_key": "none"}, ("error", "key", "datalad-annex-key")),
        ({"output_hash": "sha256:" + "0" * 64}, ("error", "hash", "output-hash")),
    ],
)
def test_a_record_that_breaks_a_rule_is_named(
    graph: Path, changes: dict[str, object], expected: tuple[str, str, str]
) -> None:
    assert expected in ours(record(graph, **changes))


def test_a_record_is_held_against_the_settings_of_the_dataset(graph: Path) -> None:
    places = [dict(place) for place in RECORD["stored-at"]]  # type: ignore[union-attr, call-overload]
    places[0]["remote"] = "renamed"
    rows = [f'[[durable]]\nname = "{p["remote"]}"\nuuid = "{p["uuid"]}"\nurl = "/x"\n' for p in places[:2]]
    text = "[classes.irreplaceable]\nnumcopies = 4\n" + "".join(rows)
    (graph.parent / "glimmer-store.toml").write_text(text)

    assert ours(record(graph)) == [
        ("warning", "policy", "numcopies-required"),
        ("warning", "place", "stored-at"),
        ("error", "place", "stored-at"),
        ("under-replicated", "copies", "copies"),
    ]


def test_the_block_of_a_bids_sidecar_is_held_against_the_storage_rules(graph: Path) -> None:
    (graph.parent / "glimmer-store.toml").write_text("")
    scan = graph.parent / "sub-01_bold.json"
    scan.write_text(
        json.dumps({"RepetitionTime": 2, "_x-glimmer": {"id": "b", "type": "dataset", **RECORD, "copies": 1}})
    )

    found = [f for f in validate(graph).findings if f.file == scan]

    assert ("copies", "says 1, stored-at names 3") in [(f.field, f.message) for f in found]


def test_a_folder_without_graph_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a graph"):
        validate(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(
    st.sampled_from(["id", "type", "edges", "domain", "based-on", "produced-by-agent", *RECORD, "datalad-annex-key"]),
    values
    | st.sampled_from(
        ["dataset", "finding", "publication", "x", [{"type": "cites", "target": "x"}], RECORD["stored-at"]]
    ),
)


@given(fields, fields)
@settings(max_examples=25)
def test_whatever_a_node_and_an_index_say_there_is_a_verdict(node: dict[str, object], entry: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder)
        (graph / "x.md").write_text("---\n" + yaml.safe_dump(node) + "---\n")
        (graph / INDEX).write_text(json.dumps({"nodes": [{"id": "x"}, entry], **entry}, default=str, allow_nan=True))
        (graph / "_glimmer-profiles").mkdir()
        (graph / "_glimmer-profiles" / "p.yaml").write_text(yaml.safe_dump({"profile": "p", "augments": entry}))

        found = validate(graph).findings

    assert all(finding.message and finding.remedy for finding in found)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_graph_that_we_write_is_accepted(tmp_path: Path, anyio_backend: str) -> None:
    study = tmp_path / "study"
    provision(study, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (study / "scan.nii").write_bytes(ds000114.SCAN)
    (study / "brain.nii").write_bytes(ds000114.BRAIN)
    async with GlimmerGraph.open(study) as graph:
        scan = await graph.dataset(study / "scan.nii")
        await graph.derivative(study / "brain.nii", derives_from=[scan.id])

    result = validate(study)

    assert [f.rule for f in result.findings] == ["hint"]  # no method of acquisition is named
    assert result.nodes == 2
    if "GLIMMER_REPO" in os.environ:
        theirs = TestAgainstGlimmer().run(study / "rokb")
        assert theirs.returncode == 2, theirs.stdout
