"""What the storage classes ask for is what git and git-annex go by."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest

import annexpy as annex
from glimmer_store.class_policy import apply, examine, rules, with_block
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision

PATHS = (
    "a",
    "sub-01/a b.nii",
    'q"uote',
    "back\\slash",
    "star*",
    "[set]",
    "what?",
    "!bang",
    "#hash",
    "täg",
    "new\nline",
    "x/y/z",
)


def numcopies(root: Path, *names: str) -> dict[str, str]:
    done = subprocess.run(
        ["git", "check-attr", "-z", "annex.numcopies", "--", *names], cwd=root, capture_output=True, check=True
    )
    words = done.stdout.decode().split("\0")[:-1]
    return dict(zip(words[::3], words[2::3], strict=True))


def test_git_reads_for_every_name_what_was_meant(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    outputs = {PurePosixPath(name): 2 for name in PATHS}
    others = [PurePosixPath(name) for name in ("b", "sub-01/other.nii", "starry", "s", "whatx", "x/y/other")]
    made = rules(outputs, others, 3)
    (tmp_path / ".gitattributes").write_bytes(with_block(b"*.txt annex.largefiles=nothing\n", made, 3))

    told = numcopies(tmp_path, *PATHS, *map(str, others))

    assert {name: told[name] for name in PATHS} == dict.fromkeys(PATHS, "2")
    assert {str(name): told[str(name)] for name in others} == {str(name): "3" for name in others}


def test_a_folder_of_which_everything_is_generated_gets_one_rule() -> None:
    outputs = {PurePosixPath(f"derivatives/bet/sub-{n:02}.nii"): 2 for n in range(50)} | {PurePosixPath("raw.tsv"): 3}

    assert rules(outputs, [PurePosixPath("README")], 3) == [(PurePosixPath("derivatives"), True, 2)]
    kept = [PurePosixPath("derivatives/bet/hand-drawn-mask.nii")]
    assert len(rules(outputs, kept, 3)) == 50


def test_the_rest_of_the_file_stays_and_a_second_time_changes_nothing() -> None:
    before = b"*.json annex.largefiles=nothing\n* annex.numcopies=1"
    once = with_block(before, [(PurePosixPath("d"), True, 2)], 3)

    assert once.startswith(before + b"\n")
    assert with_block(once, [(PurePosixPath("d"), True, 2)], 3) == once
    assert with_block(once, [], 4).count(b"annex.numcopies") == 2


@pytest.mark.interop
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_git_annex_agrees_with_what_was_applied(tmp_path: Path, git_annex: str, anyio_backend: str) -> None:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (root / "derivatives").mkdir()
    async with GlimmerGraph.open(root) as graph:
        for name, emit in (("raw.nii", graph.dataset), ("derivatives/mean.nii", graph.derivative)):
            (root / name).write_bytes(name.encode() * 100)
            await emit(root / name)
        assert {matter.subject for matter in examine(graph).drift} == {".gitattributes", "numcopies", "mincopies"}
        await apply(graph)
        assert examine(graph).drift == ()
        before = (root / ".gitattributes").read_bytes()
        await apply(graph)
        assert (root / ".gitattributes").read_bytes() == before

    def ask(*words: str) -> str:
        done = subprocess.run([git_annex, *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert (ask("numcopies"), ask("mincopies")) == ("3", "1")
    assert numcopies(root, "raw.nii", "derivatives/mean.nii") == {"raw.nii": "3", "derivatives/mean.nii": "2"}
    committed = subprocess.run(["git", "show", "HEAD:.gitattributes"], cwd=root, capture_output=True, check=True)
    assert committed.stdout == before
    # git-annex itself counts by these rules: one copy too many is asked for the one, none for the other
    for name in ("raw.nii", "derivatives/mean.nii"):
        subprocess.run([git_annex, "add", "-q", name], cwd=root, check=True)
        key = annex.annexed_key(root / name)
        vault = annex.Repository.open(tmp_path / "vault1.git")
        subprocess.run(
            [git_annex, "setpresentkey", str(key), vault.uuid, "0"], cwd=root, check=True, capture_output=True
        )
        vault.close()
    assert ask("find", "--lackingcopies=1", "--in=vault2") == ""  # here, vault2 and vault3
    subprocess.run([git_annex, "drop", "--force", "-q", "."], cwd=root, check=True, capture_output=True)
    assert ask("find", "--lackingcopies=1", "--in=vault2") == "raw.nii"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_rule_of_somebody_else_that_asks_for_less_is_drift(tmp_path: Path, anyio_backend: str) -> None:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (root / "sub").mkdir()
    async with GlimmerGraph.open(root) as graph:
        (root / "sub" / "raw.nii").write_bytes(b"raw")
        await graph.dataset(root / "sub" / "raw.nii")
        await apply(graph)
        (root / "sub" / ".gitattributes").write_bytes(b"*.nii annex.numcopies=1\n")

    async with GlimmerGraph.open(root) as graph:
        (matter,) = examine(graph).drift

    assert matter.subject == "sub/raw.nii"
    assert "asks for 1 copies, its class for 3" in matter.text
