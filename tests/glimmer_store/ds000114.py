"""A small graph in the layout of Glimmer's example on ds000114: its node types, its fields, contents made up here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import yaml

import annexpy as annex
from glimmer_store.archive import Archive
from glimmer_store.migrate import plan_migration
from glimmer_store.provision import provision

WHEN = "2026-01-02T03:04:05+00:00"
SUBJECT = "sub-01"
SCAN = b"a T1w scan, made up " * 40
BRAIN = b"a brain without a skull " * 40
MAPS = tuple(f"tissue {n} ".encode() * 50 for n in range(3))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key_of(content: bytes, extension: str = ".nii.gz") -> str:
    return f"SHA256E-s{len(content)}--{sha256(content)}{extension}"


def outputs() -> dict[str, bytes]:
    """Path in the dataset → content."""
    folder = f"derivatives/fsl/{SUBJECT}"
    return {
        f"{SUBJECT}/anat/{SUBJECT}_T1w.nii.gz": SCAN,
        f"{folder}/{SUBJECT}_T1w_brain.nii.gz": BRAIN,
        **{f"{folder}/{SUBJECT}_pve_{n}.nii.gz": content for n, content in enumerate(MAPS)},
    }


def nodes() -> dict[str, dict[str, object]]:
    """Node file → front matter: standard, dataset, two methods, four derivatives and a finding."""
    scan, brain, *maps = outputs()
    maps_ids = [f"derivative-{SUBJECT}-fast-pve-{n}" for n in range(len(maps))]
    brain_id = f"derivative-{SUBJECT}-T1w-brain"
    dataset = f"dataset-{SUBJECT}-ses-test-T1w"

    def node(kind: str, id_: str, fields: Mapping[str, object], *edges: tuple[str, str]) -> dict[str, object]:
        common = {"id": id_, "type": kind, "name": id_.replace("-", " "), "created": WHEN, "modified": WHEN}
        made = {**common, **fields, "edges": [{"type": type_, "target": target} for type_, target in edges]}
        return {**made, "provenance-hash": "sha256:" + sha256(f"About {id_}.\n".encode())[:16]}

    def derivative(id_: str, path: str, method: str, source: str) -> dict[str, object]:
        fields = {"output-kind": "volume", "provenance-mode": "deterministic", "output-path": path,
                  "output-format": "nifti", "output-hash": "sha256:" + sha256(outputs()[path])}  # fmt: skip
        return node("derivative", id_, fields, ("produced-by", method), ("derives-from", source))

    standard = {"standard-class": "spec", "version": "1.11.1"}
    acquired = {"subject-id": SUBJECT, "session": "ses-test", "modality": "anat-T1w",
                "datalad-relative-path": scan, "datalad-commit-sha": "0" * 40,
                "datalad-annex-key": key_of(SCAN)}  # fmt: skip
    bet = {"tool": "fsl.BET", "version": "fsl-6.0.5", "nipype-node-type": "Node", "parameters": {"frac": 0.5}}
    fast = {"tool": "fsl.FAST", "version": "fsl-6.0.5", "nipype-node-type": "Node", "parameters": {"classes": 3}}
    volume = {"interpretation": "The brain has a volume.", "based-on": [brain_id, *maps_ids], "confidence": "high",
              "produced-by-agent": "a script", "reasoning-trace": {"nodes-accessed": [brain_id]}}  # fmt: skip
    found = [
        node("standard", "standard-bids-1.11.1", standard),
        node("dataset", dataset, acquired, ("conforms-to", "standard-bids-1.11.1")),
        node("method", "method-fsl-bet", bet, ("applies-to", dataset)),
        node("method", "method-fsl-fast", fast),
        derivative(brain_id, brain, "method-fsl-bet", dataset),
        *(derivative(i, path, "method-fsl-fast", brain_id) for i, path in zip(maps_ids, maps, strict=True)),
        node("finding", f"finding-{SUBJECT}-brain-volume", volume, *(("based-on", i) for i in (brain_id, *maps_ids))),
    ]
    return {f"{fields['type']}s/{fields['id']}.md": fields for fields in found}


def write_graph(folder: Path, *, newline: str = "\n") -> Path:
    """Write the graph into *folder*; the folder."""
    entries = []
    for path, fields in nodes().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
        text = f"---\n# by hand\n{front}---\n\nAbout {fields['id']}.\n"
        file.write_bytes(text.replace("\n", newline).encode())
        entries.append({"id": fields["id"], "type": fields["type"], "path": path})
    index = {"schema": "glimmer/v0.3.1", "dataset-name": "ds000114-like", "default-domain": "neuroimaging",
             "node-count": len(entries), "nodes": entries}  # fmt: skip
    (folder / "_glimmer-index.json").write_text(json.dumps(index, indent=2))
    return folder


def write_outputs(dataset: Path) -> None:
    """Write the files that the nodes describe."""
    for path, content in outputs().items():
        (dataset / path).parent.mkdir(parents=True, exist_ok=True)
        (dataset / path).write_bytes(content)


async def make_study(folder: Path, *, migrated: bool = True) -> Path:
    """A dataset with three vaults, the graph, and every output in all three; with storage fields if *migrated*."""
    root = folder / "study"
    provision(root, [str(folder / f"vault{n}.git") for n in (1, 2, 3)])
    write_graph(root / "rokb")
    write_outputs(root)
    async with Archive.open(root) as archive:
        for path in outputs():
            key = await annex.key_of(root / path)
            for _, remote in archive.remotes:
                await annex.put(annex.Recording(remote, archive.repository.branch), key, root / path)
        await archive.repository.branch.commit()
    if migrated:
        (await plan_migration(root, verify=True)).apply()
    return root


def copy_in(root: Path, vault: int, path: str) -> Path:
    """Where a vault has the content of an output, made writable."""
    key = key_of(outputs()[path])
    (content,) = (root.parent / f"vault{vault}.git" / "annex" / "objects").rglob(f"*/{key}/{key}")
    content.parent.chmod(0o755)
    content.chmod(0o644)
    return content
