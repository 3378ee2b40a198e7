"""How copies are proven: read where they are by our own servers, read back from everybody else, never by name."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.config import Config
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.verify import verify

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what differs between loops is tested below this


@pytest.fixture
def study(tmp_path: Path, git_annex: str) -> Path:
    """vault1 is a folder here, vault2 behind a server of ours, vault3 behind git-annex."""
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    config = Config.load(root)
    client = "cccccccc-0000-4000-8000-000000000003"
    ours = f"exec:{sys.executable} -m annexpy.server.shell p2pstdio {tmp_path / 'vault2.git'} {client}"
    stock = f"exec:git-annex-shell p2pstdio {tmp_path / 'vault3.git'} {client}"
    urls = {"vault2": ours, "vault3": stock}
    durable = tuple(replace(place, url=urls.get(place.name, place.url)) for place in config.durable)
    replace(config, durable=durable).save(root)
    (root / "out.bin").write_bytes(CONTENT)
    return root


def newest(study: Path, key: annex.Key) -> dict[str, Attestation]:
    return {one.remote: one for one in Attestations(study).newest(key).values()}


async def test_our_own_server_proves_without_a_transfer_and_git_annex_is_read(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "out.bin")
    assert node.record is not None
    assert (node.copies, node.record.verified) == (3, True)
    assert node.key is not None
    methods = {name: one.method for name, one in newest(study, node.key).items()}
    assert methods == {"vault1": "reread", "vault2": "peer", "vault3": "reread"}


@pytest.mark.parametrize("harm", ["flip", "lose"])
async def test_a_copy_behind_our_server_that_went_bad_is_found_and_repaired(study: Path, harm: str) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "out.bin")
        assert node.key is not None
        (place,) = (p for p in (study.parent / "vault2.git/annex/objects").rglob(str(node.key)) if p.is_file())
        place.parent.chmod(0o755)
        place.chmod(0o644)
        if harm == "flip":
            with place.open("r+b") as file:
                file.seek(300_000)
                file.write(bytes([CONTENT[300_000] ^ 1]))
        else:
            place.unlink()
        (found,) = [one async for one in verify(graph, [node])]
        assert found.found == {"vault1": "good", "vault2": "bad" if harm == "flip" else "missing", "vault3": "good"}
        assert found.node.copies == 2
        (mended,) = [one async for one in verify(graph, [found.node], repair=True)]
        assert mended.found == {"vault1": "good", "vault2": "repaired", "vault3": "good"}
    assert newest(study, node.key)["vault2"].verdict is Verdict.GOOD


async def test_without_a_copy_to_compare_with_everybody_is_read(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "out.bin")
        assert node.key is not None
        local = annex.Local(annex.Repository.open(study))
        if await local.check_present(node.key):
            await local.remove_content(node.key)
        (found,) = [one async for one in verify(graph, [node])]
        assert set(found.found.values()) == {"good"}
    assert {one.method for one in newest(study, node.key).values()} == {"reread"}


async def test_a_source_that_changed_after_it_was_stored_proves_nothing_wrong(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        output = await graph.archive.look(study / "out.bin")
        node = await graph.derivative(study / "out.bin")
        (study / "out.bin").write_bytes(b"something else")
        places = {place: [output.key] for place, _ in graph.archive.remotes}
        proofs = await graph.archive.prove(places, None, {output.key: os.fspath(study / "out.bin")})
    assert node.key == output.key
    assert {(one.method, one.verdict) for one in proofs} == {("reread", Verdict.GOOD)}
