"""The near-miss, told again: days of computing end in a temporary folder, and nobody notices until it is empty.

    python near_miss.py [DIR]

Makes a small BIDS dataset with three bare repositories in DIR (default: ./near-miss), and runs one pipeline
twice: first with its output in scratch space, where no node can be created, then in the dataset, where creating
the node *is* storing the output. Ends with 0 if all of that happened.
"""

import gzip
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import anyio

from glimmer_store import GlimmerGraph, Sidecar, SourceRefused
from glimmer_store.provision import provision

SUBJECT = "sub-01"
SIDE = 24
WHEN = "2026-01-02T03:04:05+00:00"


def nifti(voxels: bytes) -> bytes:
    """A volume in the form of NIfTI-1: a head of 348 bytes, 4 bytes without extensions, voxels of one byte."""
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, SIDE, SIDE, SIDE, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 2, 8)  # unsigned char
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return gzip.compress(bytes(head) + bytes(4) + voxels, mtime=0)


def acquire(dataset: Path) -> Path:
    """What comes from the scanner: a bright ball in noise."""
    noise = random.Random(114)
    half = SIDE / 2
    voxels = bytes(
        200 if (x - half) ** 2 + (y - half) ** 2 + (z - half) ** 2 < (half / 2) ** 2 else noise.randrange(90)
        for x in range(SIDE)
        for y in range(SIDE)
        for z in range(SIDE)
    )
    scan = dataset / SUBJECT / "anat" / f"{SUBJECT}_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(nifti(voxels))
    (dataset / "dataset_description.json").write_text('{"Name": "near miss", "BIDSVersion": "1.11.1"}\n')
    return scan


def pipeline(scan: Path, folder: Path) -> Path:
    """Skull stripping, as simple as it gets; writes wherever it is told."""
    voxels = gzip.decompress(scan.read_bytes())[352:]
    brain = folder / f"{SUBJECT}_T1w_brain.nii.gz"
    brain.parent.mkdir(parents=True, exist_ok=True)
    brain.write_bytes(nifti(bytes(voxel if voxel >= 100 else 0 for voxel in voxels)))
    return brain


def write_method(dataset: Path) -> None:
    """The node of the method, by hand: methods have no output to be stored."""
    fields: dict[str, object] = {"id": "method-threshold", "type": "method", "name": "Threshold", "created": WHEN}
    fields |= {"modified": WHEN, "tool": "near_miss.pipeline", "version": "1", "parameters": {"threshold": 100}}
    file = dataset / "rokb" / "methods" / "method-threshold.md"
    file.parent.mkdir(parents=True)
    file.write_bytes(Sidecar.create(fields, "Voxels below the threshold are set to zero.\n").raw)


async def run(base: Path) -> bool:
    dataset, scratch = base / "study", base / "scratch"
    scratch.mkdir(parents=True)
    os.environ["TMPDIR"] = str(scratch)  # as batch systems set it
    provision(dataset, [str(base / f"vault{number}.git") for number in (1, 2, 3)])
    scan = acquire(dataset)
    write_method(dataset)

    async with GlimmerGraph.open(dataset) as graph:
        acquisition = await graph.dataset(scan, id=f"acquisition-{SUBJECT}-T1w", fields={"subject-id": SUBJECT})
        print(f"acquired  {acquisition.output}: {acquisition.copies} proven copies")

        brain = pipeline(scan, scratch)
        print(f"computed  {brain.relative_to(base)}")
        try:
            await graph.derivative(brain, produced_by="method-threshold", derives_from=[acquisition.id])
        except SourceRefused as refusal:
            print(f"refused   {refusal}\n          remedy: {refusal.remedy}")
        else:
            return False

        brain = pipeline(scan, dataset / "derivatives" / "threshold" / SUBJECT)
        print(f"computed  {brain.relative_to(base)}")
        node = await graph.derivative(
            brain,
            produced_by="method-threshold",
            derives_from=[acquisition.id],
            storage_class="irreplaceable",
            fields={"output-kind": "volume"},
        )
        print(f"stored    {node.file}: {node.copies} proven copies, {node.numcopies_required} needed\n")

    def store(*words: str) -> str:
        command = [sys.executable, "-m", "glimmer_store.cli.app", *words, "-C", str(dataset)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    print(store("status"))
    objects = {entry["id"]: entry for entry in json.loads(store("status", "--json"))["objects"]}
    shown = objects[node.id]
    return len(objects) == 2 and (shown["copies"], shown["verified"], shown["drift"]) == (3, True, [])


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "near-miss").resolve()
    sys.exit(0 if anyio.run(run, where) else 1)
