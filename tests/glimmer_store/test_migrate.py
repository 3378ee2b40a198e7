"""An existing graph gets its storage fields from where its contents are, and nothing else of it changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import anyio
import ds000114
import pytest
from click.testing import CliRunner

from glimmer_store.bids import read_node
from glimmer_store.cli.app import glimmer_store, main
from glimmer_store.errors import SidecarError
from glimmer_store.graph import GlimmerGraph
from glimmer_store.migrate import Migration, plan_migration
from glimmer_store.record import FIELDS
from glimmer_store.validate import validate

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
OURS = (*FIELDS, "datalad-annex-key")
SCAN, BRAIN, *MAPS = ds000114.outputs()


@pytest.fixture
async def study(tmp_path: Path) -> Path:
    return await ds000114.make_study(tmp_path, migrated=False)


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root / "rokb").rglob("*") if path.is_file()}


def lost(root: Path, vault: int, path: str) -> None:
    """Delete the content of an output from a vault, behind everybody's back."""
    ds000114.copy_in(root, vault, path).unlink()


def by_id(migration: Migration, part: str) -> int:
    (number,) = (n for n, entry in enumerate(migration.nodes) if part in entry.node)
    return number


async def test_nothing_is_written_before_it_is_applied(study: Path) -> None:
    before = files(study)

    migration = await plan_migration(study)

    assert files(study) == before
    assert len(migration.changing) == 5


async def test_every_byte_outside_our_fields_stays(study: Path) -> None:
    ds000114.write_graph(study / "rokb", newline="\r\n")
    before = files(study)

    (await plan_migration(study, verify=True)).apply()

    changed = {path for path, raw in files(study).items() if raw != before[path]}
    assert len(changed) == 5
    for path in changed:
        node = read_node(path)
        added = [name for name in OURS if f"\n{name}:".encode() not in before[path]]
        assert node.without_fields(added).raw == before[path]
    assert (await plan_migration(study, refresh=True)).changing == ()


async def test_the_graph_is_in_order_afterwards(study: Path) -> None:
    (await plan_migration(study, verify=True)).apply()

    assert [f.rule for f in validate(study).findings] == ["hint"]


async def test_keys_are_found_in_the_node_the_file_and_the_log(study: Path) -> None:
    (study / MAPS[0]).unlink()
    (study / MAPS[1]).unlink()
    (study / MAPS[1]).symlink_to(f".git/annex/objects/x/y/z/{ds000114.key_of(ds000114.MAPS[1])}")

    migration = await plan_migration(study)

    sources = {entry.node: entry.source for entry in migration.nodes}
    assert sources == {
        "dataset-sub-01-ses-test-T1w": "datalad-annex-key",
        "derivative-sub-01-T1w-brain": BRAIN,
        "derivative-sub-01-fast-pve-0": "output-hash",
        "derivative-sub-01-fast-pve-1": MAPS[1],
        "derivative-sub-01-fast-pve-2": MAPS[2],
    }


async def test_only_copies_that_were_seen_count(study: Path) -> None:
    lost(study, 2, BRAIN)
    (study.parent / "vault3.git").rename(study.parent / "away")

    migration = await plan_migration(study)

    entry = migration.nodes[by_id(migration, "brain")]
    assert entry.record is not None
    assert [place.remote for place in entry.record.stored_at] == ["vault1"]
    assert entry.record.verified is False
    assert entry.notes[0] == "vault2: does not have it, though the location log says so"
    assert entry.notes[1].startswith("vault3: not counted, it cannot be asked")
    assert list(migration.unreachable) == ["vault3"]


async def test_a_copy_that_is_not_its_keys_is_no_copy(study: Path) -> None:
    content = ds000114.copy_in(study, 2, BRAIN)
    content.write_bytes(bytes([ds000114.BRAIN[0] ^ 1]) + ds000114.BRAIN[1:])

    migration = await plan_migration(study, verify=True)

    entry = migration.nodes[by_id(migration, "brain")]
    assert entry.record is not None
    assert [place.remote for place in entry.record.stored_at] == ["vault1", "vault3"]
    assert entry.notes[0].startswith("vault2: not counted, its copy is bad")


async def test_a_record_is_not_lowered_because_a_vault_is_away(study: Path) -> None:
    (await plan_migration(study, verify=True)).apply()
    (study.parent / "vault3.git").rename(study.parent / "away")

    migration = await plan_migration(study, refresh=True)

    assert migration.changing == ()
    assert {entry.skipped for entry in migration.nodes} == {"recorded copies cannot be asked for"}


async def test_a_refresh_without_reading_keeps_what_was_verified_only_while_nothing_moved(study: Path) -> None:
    (await plan_migration(study, verify=True)).apply()
    lost(study, 2, BRAIN)

    migration = await plan_migration(study, refresh=True)

    (entry,) = migration.changing
    assert {name: after for name, (_, after) in entry.changes.items() if name != "stored-at"} == {
        "copies": 2,
        "verified": False,
    }


async def test_a_content_that_is_not_what_the_node_says_is_left_alone(study: Path) -> None:
    (study / BRAIN).write_bytes(b"another brain")

    entry = (await plan_migration(study)).nodes[by_id(await plan_migration(study), "brain")]

    assert entry.record is None
    assert "output-hash says" in entry.skipped


async def test_a_bids_sidecar_gets_the_fields_in_its_block(study: Path) -> None:
    sidecar = study / SCAN.replace(".nii.gz", ".json")
    text = '{\n  "EchoTime": 3e-3,\n  "_x-glimmer": {"id": "t1w", "type": "dataset"},\n  "Z": 1\n}\n'
    sidecar.write_text(text)

    (await plan_migration(study)).apply()

    node = read_node(sidecar)
    assert node.fields["copies"] == 3
    assert node.fields["datalad-annex-key"] == ds000114.key_of(ds000114.SCAN)
    assert node.without_fields(OURS).raw.decode() == text


async def test_a_file_that_changed_since_is_not_written_over(study: Path) -> None:
    migration = await plan_migration(study)
    path = study / migration.changing[1].file
    path.write_bytes(path.read_bytes() + b"more\n")

    with pytest.raises(SidecarError, match="has changed meanwhile"):
        migration.apply()


async def test_a_path_that_leads_out_of_the_dataset_is_not_followed(study: Path) -> None:
    (study.parent / "secret").write_bytes(b"secret")
    node = study / "rokb" / "derivatives" / "derivative-sub-01-T1w-brain.md"
    raw = node.read_text().replace(f"output-path: {BRAIN}", "output-path: ../secret").replace("output-hash", "x")
    node.write_text(raw)

    migration = await plan_migration(study)

    assert migration.nodes[by_id(migration, "brain")].key is None


# -- as a command --


def run(words: Sequence[str], code: int) -> str:
    result = CliRunner().invoke(glimmer_store, list(words), standalone_mode=False)
    assert result.exception is None, result.exception
    assert result.return_value == code, result.output
    return str(result.output)


async def test_the_plan_is_shown_and_then_carried_out(study: Path) -> None:
    from anyio import to_thread

    def go() -> None:
        shown = run(["migrate", "-C", str(study)], 0)
        assert "5 of 5 nodes would be changed; --yes does it" in shown
        assert "copies: 3" in shown
        rows = [json.loads(row) for row in run(["migrate", "-C", str(study), "--json", "--yes"], 0).splitlines()]
        assert all(row["changed"] and row["copies"] == 3 for row in rows)
        assert "0 of 5" in run(["migrate", "-C", str(study)], 0)
        (study.parent / "vault1.git").rename(study.parent / "away")
        run(["migrate", "-C", str(study), "--refresh"], 4)

    await to_thread.run_sync(go)


def test_validate_ends_with_what_it_found(
    tmp_path: Path, anyio_backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = ds000114.write_graph(tmp_path / "rokb")

    assert main(["validate", str(tmp_path)]) == 0
    assert "0 errors" in capsys.readouterr().out
    assert main(["validate", "--strict", str(graph)]) == 1
    (graph / "methods" / "method-fsl-bet.md").unlink()
    capsys.readouterr()
    assert main(["validate", "--json", str(graph)]) == 1
    assert "index-only" in [found["rule"] for found in json.loads(capsys.readouterr().out)["findings"]]
    assert main(["validate", str(tmp_path / "rokb" / "methods")]) == 2


def test_schema_shows_the_fields_in_three_forms(anyio_backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "stored-at: [list-of-locations]" in capsys.readouterr().out
    assert main(["schema", "--format", "json-schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["properties"]) == set(FIELDS)
    assert main(["schema", "--format", "patch"]) == 0
    assert capsys.readouterr().out.startswith("--- a/glimmer/schema/frontmatter.yaml\n")


@pytest.mark.interop
async def test_git_annex_names_the_same_copies(study: Path, git_annex: str) -> None:
    (await plan_migration(study)).apply()

    for path, content in ds000114.outputs().items():
        key = ds000114.key_of(content)
        said = await anyio.run_process([git_annex, "whereis", "--json", f"--key={key}"], cwd=study)
        theirs = {place["uuid"] for place in json.loads(said.stdout)["whereis"]}
        (node,) = (n for f in (study / "rokb").rglob("*.md") if key in str((n := read_node(f)).fields))
        assert {place["uuid"] for place in node.fields["stored-at"]} == theirs, path


async def test_an_output_that_is_a_folder_is_left_to_those_who_know_what_is_in_it(study: Path) -> None:
    (study / "out").mkdir()
    (study / "out" / "a.txt").write_text("a")
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "out", fields={"output-kind": "other"})

    migration = await plan_migration(study, refresh=True)

    entry = migration.nodes[by_id(migration, node.id)]
    assert "is a folder" in entry.skipped
    assert not entry.changes
