"""Exports hold the outputs, what describes them and where their copies are, and others can read them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import anyio
import bagit
import ds000114
import pytest

import annexpy as annex
from annexpy.logs.paths import Log, key_log
from annexpy.uuids import WEB
from glimmer_store.cli.app import main
from glimmer_store.config import CONFIG_NAME
from glimmer_store.errors import ConfigError, GraphError
from glimmer_store.export.bag import read_bag
from glimmer_store.export.importing import BagRefused, import_bag
from glimmer_store.export.payload import Limits, OverLimit
from glimmer_store.export.write import Format, export
from glimmer_store.finding import Level
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.validate import validate

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
SCAN, BRAIN, *MAPS = ds000114.outputs()
BRAIN_NODE = "derivative-sub-01-T1w-brain"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that no test changes."""
    return anyio.run(ds000114.make_study, tmp_path_factory.mktemp("export"))


@pytest.fixture
async def own(tmp_path: Path) -> Path:
    """A dataset that a test may break."""
    return await ds000114.make_study(tmp_path)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_bag_is_valid_for_us_and_for_its_own_library(study: Path, tmp_path: Path) -> None:
    done = await export(study, tmp_path / "bag", Format.BAGIT)

    bagit.Bag(str(tmp_path / "bag")).validate()
    ours = read_bag(tmp_path / "bag")
    assert (ours.valid, ours.warnings, ours.version) == (True, [], (1, 0))
    assert len(done.items) == 5
    for path, content in ds000114.outputs().items():
        assert (tmp_path / "bag" / "data" / path).read_bytes() == content
    assert left(tmp_path) == ["bag"]


async def test_a_bag_says_which_node_and_where_the_copies_are(study: Path, tmp_path: Path) -> None:
    await export(study, tmp_path / "bag", Format.BAGIT, [BRAIN_NODE])

    (entry,) = json.loads((tmp_path / "bag" / "glimmer" / "nodes.json").read_text())
    assert (entry["path"], entry["id"]) == (f"data/{BRAIN}", BRAIN_NODE)
    assert entry["key"] == ds000114.key_of(ds000114.BRAIN)
    assert [place["remote"] for place in entry["stored-at"]] == ["vault1", "vault2", "vault3"]
    assert (entry["copies"], entry["verified"], entry["storage-class"]) == (3, True, "generated")
    node = f"rokb/derivatives/{BRAIN_NODE}.md"
    assert (tmp_path / "bag" / entry["node"]).read_bytes() == (study / node).read_bytes()


async def test_a_bad_copy_is_not_exported_while_there_is_a_good_one(own: Path, tmp_path: Path) -> None:
    for vault in (1, 2):
        ds000114.copy_in(own, vault, BRAIN).write_bytes(b"x" * len(ds000114.BRAIN))

    await export(own, tmp_path / "bag", Format.BAGIT, [BRAIN_NODE])

    assert (tmp_path / "bag" / "data" / BRAIN).read_bytes() == ds000114.BRAIN
    assert read_bag(tmp_path / "bag").valid  # nothing of the bad copies lies around


async def test_without_a_good_copy_nothing_is_left_behind(own: Path, tmp_path: Path) -> None:
    for vault in (1, 2, 3):
        ds000114.copy_in(own, vault, BRAIN).write_bytes(b"x" * len(ds000114.BRAIN))
    before = left(tmp_path)

    with pytest.raises(annex.ContentError):
        await export(own, tmp_path / "bag", Format.BAGIT)

    assert left(tmp_path) == before


@pytest.mark.parametrize("limits", [Limits(max_bytes=100), Limits(reserve=1 << 62)])
async def test_an_export_that_would_be_too_large_is_refused_before_it_begins(
    study: Path, tmp_path: Path, limits: Limits
) -> None:
    with pytest.raises(OverLimit):
        await export(study, tmp_path / "bag", Format.BAGIT, limits=limits)
    assert left(tmp_path) == []


async def test_what_is_there_is_not_written_over(study: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("full", "link"):
        with pytest.raises(ConfigError, match="is there already"):
            await export(study, tmp_path / name, Format.BAGIT)
    (tmp_path / "empty").mkdir()
    await export(study, tmp_path / "empty", Format.BAGIT, [BRAIN_NODE])
    assert (tmp_path / "empty" / "bagit.txt").is_file()


async def test_a_node_that_does_not_exist_or_has_no_key_is_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no dataset or derivative node nobody"):
        await export(own, tmp_path / "bag", Format.BAGIT, ["nobody"])
    node = own / "rokb" / "derivatives" / f"{BRAIN_NODE}.md"
    node.write_text(node.read_text().replace(f"output-path: {BRAIN}", "output-path: ../../etc/passwd"))
    with pytest.raises(GraphError, match="leads out of its folder"):
        await export(own, tmp_path / "bag", Format.BAGIT, [BRAIN_NODE])
    node.write_text(re.sub("(?m)^datalad-annex-key: .*\n", "", node.read_text()))
    with pytest.raises(GraphError, match="names no key"):
        await export(own, tmp_path / "bag", Format.BAGIT, [BRAIN_NODE])


async def test_a_holey_bag_names_the_url_of_what_the_web_has(own: Path, tmp_path: Path) -> None:
    with annex.Repository.open(own) as repository:
        key = annex.Key.parse(ds000114.key_of(ds000114.BRAIN))
        line = b"1700000000s 1 https://example.org/a b?c=%20d\n"
        repository.branch.change(key_log(key, Log.URL), lambda _: line)
        repository.branch.set_present(key, WEB, True)
        await repository.branch.commit()

    done = await export(own, tmp_path / "bag", Format.BAGIT, holey=True)

    assert [item.path for item in done.absent] == [BRAIN]
    row = f"https://example.org/a%20b?c=%20d {len(ds000114.BRAIN)} data/{BRAIN}\n"
    assert (tmp_path / "bag" / "fetch.txt").read_text() == row
    assert not (tmp_path / "bag" / "data" / BRAIN).exists()
    assert read_bag(tmp_path / "bag").missing == [f"data/{BRAIN}"]
    (tmp_path / "bag" / "data" / BRAIN).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "bag" / "data" / BRAIN).write_bytes(ds000114.BRAIN)
    bagit.Bag(str(tmp_path / "bag")).validate()
    with pytest.raises(ConfigError, match="only bags can be holey"):
        await export(own, tmp_path / "crate", Format.RO_CRATE, holey=True)


async def test_an_ro_crate_is_flat_and_every_reference_leads_somewhere(study: Path, tmp_path: Path) -> None:
    (study / "dataset_description.json").write_text('{"Name": "A study", "License": "CC0"}')

    await export(study, tmp_path / "crate", Format.RO_CRATE)

    text = (tmp_path / "crate" / "ro-crate-metadata.json").read_text()
    made = json.loads(text)
    assert made["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in made["@graph"]}
    assert len(entities) == len(made["@graph"])
    head, root = entities["ro-crate-metadata.json"], entities["./"]
    assert head["@type"] == "CreativeWork"
    assert head["about"] == {"@id": "./"}
    assert head["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= set(root)
    assert (root["name"], root["license"]) == ("A study", "CC0")
    for entity in made["@graph"]:
        assert entity["@type"]
        for value in entity.values():
            for nested in value if isinstance(value, list) else [value]:
                if isinstance(nested, dict):
                    assert set(nested) == {"@id"}
                    assert nested["@id"] in entities or nested["@id"].startswith("https://w3id.org/ro/crate/")
    data = [entities[part["@id"]] for part in root["hasPart"]]
    assert all((tmp_path / "crate" / entity["@id"]).is_file() for entity in data)
    brain = entities[f"data/{BRAIN}"]
    assert (brain["sha256"], brain["contentSize"]) == (ds000114.sha256(ds000114.BRAIN), str(len(ds000114.BRAIN)))
    said = [entities[part["@id"]] for part in brain["additionalProperty"]]
    assert [p["name"] for p in said if p["propertyID"] == "stored-at"] == ["vault1", "vault2", "vault3"]
    assert str(study.parent) not in text  # durable repositories are named; how to reach them is nobody's business


async def test_a_data_package_describes_what_is_there(study: Path, tmp_path: Path) -> None:
    await export(study, tmp_path / "package", Format.FRICTIONLESS)

    made = json.loads((tmp_path / "package" / "datapackage.json").read_text())
    assert made["$schema"] == "https://datapackage.org/profiles/2.0/datapackage.json"
    assert len({resource["name"] for resource in made["resources"]}) == len(made["resources"]) == 5
    for resource in made["resources"]:
        content = (tmp_path / "package" / resource["path"]).read_bytes()
        assert re.fullmatch(r"[-a-z0-9._/]+", resource["name"])
        assert resource["bytes"] == len(content)
        assert resource["hash"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert resource["x-glimmer"]["copies"] == 3


# -- and back --


async def imported(dataset: Path, bag: Path, to: str | None = None) -> list[tuple[str, int]]:
    async with GlimmerGraph.open(dataset) as graph:
        return [(node.id, node.copies) async for node in import_bag(graph, bag, to=to)]


def empty(folder: Path) -> Path:
    provision(folder / "new", [str(folder / f"safe{n}.git") for n in (1, 2, 3)])
    return folder / "new"


async def test_what_was_exported_can_be_imported_with_its_nodes(study: Path, tmp_path: Path) -> None:
    await export(study, tmp_path / "bag", Format.BAGIT)
    new = empty(tmp_path)

    nodes = await imported(new, tmp_path / "bag")

    assert sorted(nodes) == sorted((fields["id"], 3) for fields in ds000114.nodes().values()
                                   if fields["type"] in ("dataset", "derivative"))  # fmt: skip
    for path, content in ds000114.outputs().items():
        assert (new / path).read_bytes() == content
    node = (new / "rokb" / "derivatives" / f"{BRAIN_NODE}.md").read_text()
    assert "# by hand" in node
    assert "remote: safe1" in node
    assert "remote: vault1" not in node
    again = await imported(new, tmp_path / "bag")
    assert again == nodes
    storage = [f for f in validate(new).findings if f.level is Level.ERROR and f.rule.startswith("storage-")]
    assert storage == []


async def test_a_bag_of_others_becomes_new_nodes(tmp_path: Path) -> None:
    bag = Path(__file__).parent.parent / "fixtures/bagit-conformance-suite/v0.97/valid/basic-bag"
    new = empty(tmp_path)

    nodes = await imported(new, bag)

    assert nodes == [("dataset-basic-bag-bare-filename", 3), ("dataset-basic-bag-text-file-txt", 3)]
    assert (new / "basic-bag" / "text-file.txt").read_bytes() == (bag / "data" / "text-file.txt").read_bytes()


async def test_the_whole_suite_is_imported_or_refused_and_what_came_in_is_exported_again(tmp_path: Path) -> None:
    suite = Path(__file__).parent.parent / "fixtures/bagit-conformance-suite"
    new = tmp_path / "new"
    provision(new, [str(tmp_path / "safe.git")])
    (new / CONFIG_NAME).write_text(re.sub("numcopies = .", "numcopies = 1", (new / CONFIG_NAME).read_text()))
    payload: dict[str, bytes] = {}
    came: list[str] = []
    before = left(new)
    async with GlimmerGraph.open(new) as graph:
        for folder in sorted(suite.glob("*/*/*"), key=lambda path: path.parent.name in ("valid", "warning")):
            to = f"in/{folder.parent.parent.name}/{folder.name}"
            if folder.parent.name not in ("valid", "warning"):
                with pytest.raises(BagRefused):
                    assert not [node async for node in import_bag(graph, folder, to=to)]
                assert left(new) == before, folder
                continue
            nodes = [node async for node in import_bag(graph, folder, to=to)]
            assert {node.copies for node in nodes} <= {1}
            came.extend(node.id for node in nodes)
            files = [path for path in (folder / "data").rglob("*") if path.is_file()]
            payload |= {f"data/{to}/{path.relative_to(folder / 'data')}": path.read_bytes() for path in files}

    bag = tmp_path / "bag"
    await export(new, bag, Format.BAGIT, came)

    bagit.Bag(str(bag)).validate()
    ours = read_bag(bag)
    assert ours.valid, ours.errors
    assert any("%" in path for path in ours.payload)
    found = {path: (bag / path).read_bytes() for path in ours.payload}
    assert {path: payload[path] for path in found} == found
    # What no manifest lists (files of the system) and a twin by case or normalization does not come in.
    alone = {Path(path).parts[3] for path in payload.keys() - found.keys()}
    assert alone <= {"special-system-files", "duplicate-file-with-different-case"}


async def test_names_with_per_cent_signs_are_read_back_by_everybody(tmp_path: Path) -> None:
    new, names = empty(tmp_path), ["50%.txt", "a%25b.txt", "%7Ex", "100%/x%"]
    for name in names:
        file = new / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    async with GlimmerGraph.open(new) as graph:
        await graph.derivative(new / "out", id="derivative-out")
    await export(new, tmp_path / "bag", Format.BAGIT)

    bagit.Bag(str(tmp_path / "bag")).validate()
    ours = read_bag(tmp_path / "bag")

    assert (ours.errors, ours.version, sorted(ours.payload)) == ([], (0, 97), sorted(f"data/out/{n}" for n in names))
    again = tmp_path / "again"
    provision(again, [str(tmp_path / f"other{n}.git") for n in (1, 2, 3)])
    await imported(again, tmp_path / "bag")
    assert {name: (again / "out" / name).read_text() for name in names} == {name: name for name in names}


async def test_a_file_that_is_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    bag = Path(__file__).parent.parent / "fixtures/bagit-conformance-suite/v0.97/valid/basic-bag"
    new = empty(tmp_path)
    (new / "here").mkdir()
    (new / "here" / "text-file.txt").write_bytes(b"mine")
    (new / "out").symlink_to(tmp_path)
    (new / "file").touch()

    with pytest.raises(BagRefused, match="something else is there"):
        await imported(new, bag, "here")
    for to in ("out", "out/deep/er", "file"):
        with pytest.raises(BagRefused, match="is no folder of the dataset"):
            await imported(new, bag, to)

    assert (new / "here" / "text-file.txt").read_bytes() == b"mine"
    assert not (tmp_path / "text-file.txt").exists()
    assert not (tmp_path / "deep").exists()


async def test_nodes_that_would_lie_elsewhere_are_refused(study: Path, tmp_path: Path) -> None:
    await export(study, tmp_path / "bag", Format.BAGIT, [BRAIN_NODE])
    table = tmp_path / "bag" / "glimmer" / "nodes.json"
    table.write_text(table.read_text().replace("glimmer/nodes/rokb/", "glimmer/nodes/../"))
    tags = tmp_path / "bag" / "tagmanifest-sha256.txt"
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    tags.write_text(re.sub(r"\w+(?=  glimmer/nodes.json)", digest, tags.read_text()))
    assert read_bag(tmp_path / "bag").valid

    with pytest.raises(BagRefused, match="is no node file"):
        await imported(empty(tmp_path), tmp_path / "bag")


def test_the_commands_export_and_import(
    study: Path, tmp_path: Path, anyio_backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = str(tmp_path / "bag")
    assert main(["export", "-C", str(study), bag, BRAIN_NODE]) == 0
    assert "exported 1 files" in capsys.readouterr().out
    assert main(["export", "-C", str(study), bag]) == 2
    assert main(["export", "-C", str(study), "--max-bytes", "1", str(tmp_path / "b")]) == 1
    assert main(["export", "-C", str(study), "--json", "--format", "frictionless", str(tmp_path / "c")]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert {row["path"] for row in rows} == {f"data/{path}" for path in ds000114.outputs()}
    new = empty(tmp_path)
    assert main(["import", bag, "-C", str(new)]) == 0
    assert f"imported {BRAIN}: 3 copies proven" in capsys.readouterr().out
    (Path(bag) / "data" / "more").touch()
    assert main(["import", bag, "-C", str(new)]) == 1


async def test_an_output_that_is_a_folder_is_exported_file_by_file(tmp_path: Path) -> None:
    new = empty(tmp_path)
    for name in ("a.txt", "sub/b.txt"):
        (new / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (new / "out" / name).write_text(name)
    async with GlimmerGraph.open(new) as graph:
        node = await graph.derivative(new / "out")

    await export(new, tmp_path / "bag", Format.BAGIT, [node.id])

    assert sorted(read_bag(tmp_path / "bag").payload) == ["data/out/a.txt", "data/out/sub/b.txt"]
    assert (tmp_path / "bag" / "data" / "out" / "sub" / "b.txt").read_text() == "sub/b.txt"
    bagit.Bag(str(tmp_path / "bag")).validate()
    third = tmp_path / "third"
    third.mkdir()
    assert await imported(empty(third), tmp_path / "bag") == [(node.id, 3)]
