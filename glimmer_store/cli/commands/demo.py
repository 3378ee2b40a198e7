"""``glimmer-store demo [FILES]``: the main job, on real files, in a new folder."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.status import Report

__all__ = ["command"]

_LARGE = 64 << 20


@click.command("demo")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@click.option("--dir", "folder", type=click.Path(), help="Where (default: a new folder below the current one).")
def command(files: tuple[str, ...], folder: str | None) -> int:
    """Make a dataset and three bare repositories, and show that nothing gets lost.

    FILES are copied into the dataset; without them a small study is generated: tables, a few small
    images, and one of 64 MiB.
    """
    import anyio

    base = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="glimmer-demo-", dir="."))
    base.mkdir(parents=True, exist_ok=True)
    if any(base.iterdir()):
        raise click.UsageError(f"{base} is not empty")
    began = time.monotonic()
    ok = anyio.run(_Demo(base.resolve(), [Path(name) for name in files]).run)
    _say("")
    _say(f"{'Everything held' if ok else 'SOMETHING DID NOT HOLD'}, in {time.monotonic() - began:.1f} s.")
    _say(f"It is all in {base}: look around, or delete it.")
    return 0 if ok else 1


def _say(text: str = "") -> None:
    click.echo(text)


def _heading(number: int, text: str) -> None:
    _say()
    _say(click.style(f"{number}. {text}", bold=True))


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    return f"{count / (1 << 20):.0f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


class _Demo:
    """One run. Every step checks what it shows; ``failed`` collects what did not hold."""

    def __init__(self, base: Path, given: Sequence[Path]) -> None:
        self.base, self.given = base, given
        self.dataset = base / "study"
        self.vaults = [base / f"vault{n}.git" for n in (1, 2, 3)]
        self.failed: list[str] = []

    def hold(self, claim: bool, text: str) -> None:
        """Show a claim with its verdict."""
        _say(f"   {click.style('ok', fg='green') if claim else click.style('NOT SO', fg='red', bold=True)}  {text}")
        if not claim:
            self.failed.append(text)

    async def run(self) -> bool:
        from glimmer_store.graph import GlimmerGraph
        from glimmer_store.provision import provision

        _heading(1, "A dataset and three durable bare repositories")
        provision(self.dataset, [str(path) for path in self.vaults])
        files = list(self._files())
        total = _size(sum(file.stat().st_size for file in files))
        _say(f"   {self.dataset.name}/ with {len(files)} files, {total}")
        _say(f"   {', '.join(path.name for path in self.vaults)}")
        async with GlimmerGraph.open(self.dataset) as graph:
            await self._archive(graph, files)
            await self._show(graph, 3, "Where everything is")
            await self._drop(graph)
        gone = self.vaults[1].with_suffix(".gone")
        self.vaults[1].rename(gone)
        try:
            async with GlimmerGraph.open(self.dataset) as graph:
                await self._go_on(graph)
        finally:
            gone.rename(self.vaults[1])
        async with GlimmerGraph.open(self.dataset) as graph:
            keys = await self._complete(graph)
        await self._exchange()
        self._ask_git_annex(keys)
        return not self.failed

    async def _archive(self, graph: GlimmerGraph, files: Sequence[Path]) -> None:
        from glimmer_store.errors import SourceRefused

        _heading(2, "Archive: creating the node is storing the output")
        for file in files:
            raw = "derivatives" not in file.relative_to(self.dataset).parts
            start = time.monotonic()
            node = await (graph.dataset(file) if raw else graph.derivative(file))
            rate = f"{_size(file.stat().st_size)} in {time.monotonic() - start:.2f} s"
            self.hold(
                node.copies >= node.numcopies_required,
                f"{node.output}  {node.copies} copies proven, {node.numcopies_required} needed  ({rate})",
            )
        outside = self.base / "scratch.nii.gz"
        outside.write_bytes(b"a result that nobody would find again")
        try:
            await graph.derivative(outside)
            self.hold(False, "an output outside the dataset is refused")
        except SourceRefused as refusal:
            self.hold(True, f"refused: {refusal}")
            _say(f"       remedy: {refusal.remedy}")

    async def _show(self, graph: GlimmerGraph, number: int = 0, title: str = "") -> Report:
        from glimmer_store.report import look
        from glimmer_store.report_text import table

        if title:
            _heading(number, title)
        report = await look(graph)
        _say(_indent(table(report)))
        return report

    async def _drop(self, graph: GlimmerGraph) -> None:
        import annexpy as annex

        _heading(4, "A drop is refused, and one is allowed, for the right reason")
        nodes = {node.numcopies_required: node for node in graph.nodes()}
        remotes = [remote for _, remote in graph.archive.remotes]
        for needed in sorted(nodes, reverse=True):
            node = nodes[needed]
            assert node.key is not None
            kind = node.record.storage_class.value if node.record else "?"
            _say(f"   drop {node.output} from {self.vaults[0].name} ({kind}: {needed} copies must remain)")
            target = annex.Recording(remotes[0], graph.archive.repository.branch)
            try:
                await annex.drop(node.key, from_=target, others=remotes[1:], copies=annex.Copies(needed, min=1))
                self.hold(needed <= 2, "dropped: the other copies were locked while it happened")
            except annex.NotEnoughCopies as refusal:
                self.hold(needed > 2, f"refused: {refusal.have} verified, {refusal.need} needed")
                for place, how in refusal.counted.items():
                    _say(f"       counted      {place}: {how}")
                for place, why in refusal.missing.items():
                    _say(f"       not counted  {place}: {why}")
        await graph.archive.repository.branch.commit()

    async def _go_on(self, graph: GlimmerGraph) -> None:
        """While a vault is away."""
        import annexpy as annex

        _heading(5, f"Break one: {self.vaults[1].name} goes away")
        node = max(graph.nodes(), key=lambda n: (n.numcopies_required, (n.key.size or 0) if n.key else 0))
        assert node.key is not None
        cluster = annex.Cluster([remote for _, remote in graph.archive.remotes])
        back = self.base / "back"
        await annex.get(cluster, node.key, back)
        same = back.read_bytes() == (self.dataset / str(node.output)).read_bytes()
        self.hold(same, f"get still works: {node.output} came back whole ({_size(back.stat().st_size)})")
        back.unlink()
        late = self.dataset / "derivatives" / "written-while-broken.txt"
        late.parent.mkdir(exist_ok=True)
        late.write_text("an output made while one vault was away\n")
        node = await graph.derivative(late)
        self.hold(node.copies == 2, f"put still works: {late.name} has {node.copies} proven copies, 2 needed")
        await self._show(graph)

    async def _complete(self, graph: GlimmerGraph) -> list[str]:
        """The keys of all outputs."""
        _heading(6, "It comes back: the same command completes what is missing")
        for node in list(graph.nodes()):
            assert node.output is not None
            assert node.record is not None
            emit = graph.dataset if node.type == "dataset" else graph.derivative
            await emit(self.dataset / node.output, id=node.id, storage_class=node.record.storage_class)
        status = await self._show(graph)
        self.hold(
            all(len(entry.live) == 3 and not entry.drift for entry in status.objects),
            "every output has all three copies, as its node says",
        )
        return [str(entry.node.key) for entry in status.objects]

    async def _exchange(self) -> None:
        import annexpy as annex

        with annex.Repository.open(self.dataset) as repository:
            synced = await annex.sync_branch(repository)
        self.hold(all(entry.ok for entry in synced), "the git-annex branch is exchanged with every vault")

    def _files(self) -> Iterator[Path]:
        if self.given:
            for source in self.given:
                target = self.dataset / source.name
                shutil.copyfile(source, target)
                yield target
            summary = self.dataset / "derivatives" / "sizes.tsv"
            summary.parent.mkdir()
            summary.write_text("".join(f"{source.name}\t{source.stat().st_size}\n" for source in self.given))
            yield summary
            return
        noise = random.Random(114)
        for name, text in {
            "participants.tsv": "participant_id\tage\tsex\nsub-01\t31\tF\nsub-02\t28\tM\n",
            "dataset_description.json": '{"Name": "A small study", "BIDSVersion": "1.11.1"}\n',
        }.items():
            (self.dataset / name).write_text(text)
            yield self.dataset / name
        for name, size in {
            "sub-01/anat/sub-01_T1w.nii.gz": 96 << 10,
            "sub-01/func/sub-01_task-rest_bold.nii.gz": _LARGE,
            "derivatives/bet/sub-01_T1w_brain.nii.gz": 40 << 10,
        }.items():
            path = self.dataset / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(noise.randbytes(size))
            yield path

    def _ask_git_annex(self, keys: Sequence[str]) -> None:
        program = shutil.which("git-annex", path=str(Path(sys.executable).parent)) or shutil.which("git-annex")
        if program is None:
            _heading(7, "git-annex is not installed here, so it is not asked for its opinion")
            return
        _heading(7, "The real git-annex looks at what we wrote")
        _say(f"   $ git-annex whereis --key {keys[0]}")
        shown = self._run(program, "whereis", "--key", keys[0], cwd=self.dataset)
        _say(_indent(shown.stdout.rstrip()))
        self.hold(shown.returncode == 0 and "3 copies" in shown.stdout, "git-annex knows the same three copies")
        for vault in self.vaults:
            checked = self._run(program, "fsck", "--all", "--quiet", cwd=vault)
            self.hold(
                checked.returncode == 0 and not checked.stderr,
                f"git-annex fsck --all in {vault.name}: clean{checked.stderr and ': ' + checked.stderr.strip()}",
            )

    @staticmethod
    def _run(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def _indent(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())
