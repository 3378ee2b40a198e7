"""Every refusal says what to do about it; where that is a command it is run as it stands, from elsewhere, and helps."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import annexpy as annex
import glimmer_store.jobs.spec
import glimmer_store.jobs.throttle
import glimmer_store.manifest.errors  # noqa: F401 - all the errors there are
from glimmer_store.cli.app import main
from glimmer_store.errors import StoreError
from glimmer_store.export import importing, payload  # noqa: F401 - the same
from glimmer_store.provision import provision
from glimmer_store.remedies import remedy_of

pytestmark = pytest.mark.usefixtures("elsewhere")
ROUNDS = 3
"""What a remedy commits may have to be pushed by the next one."""
COMMANDS = {"glimmer-store", "annexpy", "git", "chmod", "pip"}


@dataclass
class Lab:
    """A dataset with three bares and one irreplaceable output; after each refusal and its remedy it is whole again."""

    root: Path
    study: Path

    def vault(self, number: int) -> Path:
        return self.root / f"vault{number}.git"

    def write(self, name: str, content: bytes = b"measured\n") -> Path:
        path = self.study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@dataclass
class Refused:
    """What is run, how it ends, and what happens, or is typed, before the remedy is run."""

    words: list[object]
    code: int
    says: str
    mend: Callable[[], object] = lambda: None
    typed: str = ""
    after: int = 0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("lab")
    made = Lab(root, root / "study")
    provision(made.study, [str(made.vault(n)) for n in (1, 2, 3)])
    made.write("scan.nii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIMMER_STORE_HOME", str(root / "home"))
        assert main(["archive", "-C", str(made.study), "--type", "dataset", str(made.study / "scan.nii")]) == 0
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", programs["PATH"])


def lose(lab: Lab, number: int) -> None:
    for found in [path for path in (lab.vault(number) / "annex" / "objects").rglob("*") if path.is_file()]:
        found.parent.chmod(0o755)
        found.unlink()


# -- the refusals -----------------------------------------------------------------------------------------------------


def not_set_up(lab: Lab) -> Refused:
    new = lab.root / "new study"
    (new / "x").parent.mkdir()
    (new / "x").write_bytes(b"x")
    places = " ".join(str(lab.root / f"other{n}.git") for n in (1, 2, 3))
    return Refused(["archive", "-C", new, new / "x"], 2, "not set up", typed=f"{places}\ny\n")


def too_few_are_set_up(lab: Lab) -> Refused:
    small = lab.root / "small"
    provision(small, [str(lab.root / "only.git")])
    (small / "x").write_bytes(b"x")
    places = " ".join(str(lab.root / f"more{n}.git") for n in (1, 2))
    return Refused(["archive", "-C", small, "--type", "dataset", small / "x"], 3, "1 of 3", typed=f"{places}\ny\n")


def a_bare_is_away(lab: Lab) -> Refused:
    lab.vault(2).rename(lab.root / "away")
    path = lab.write("out/first.nii", b"first\n")
    words = ["archive", "-C", lab.study, "--type", "dataset", path]
    return Refused(words, 3, "vault2: ", lambda: (lab.root / "away").rename(lab.vault(2)))


def a_bare_is_away_from_an_emit(lab: Lab) -> Refused:
    lab.vault(1).rename(lab.root / "away")
    words = ["emit", "-C", lab.study, lab.study / "rokb/datasets/dataset-scan.md"]
    return Refused(words, 3, "vault1: ", lambda: (lab.root / "away").rename(lab.vault(1)))


def outside(lab: Lab) -> Refused:
    path = lab.root / "outside.nii"
    path.write_bytes(b"outside")
    return Refused(["archive", "-C", lab.study, path], 1, "lies outside the dataset")


def nothing_there(lab: Lab) -> Refused:
    return Refused(["archive", "-C", lab.study, lab.study / "nothing.nii"], 1, "does not exist")


def the_dataset_itself(lab: Lab) -> Refused:
    return Refused(["archive", "-C", lab.study, lab.study], 1, "is the dataset itself")


def an_edge_to_nobody(lab: Lab) -> Refused:
    path = lab.write("edge.nii")
    return Refused(["archive", "-C", lab.study, "--produced-by", "nobody", path], 1, "no such node", path.unlink)


def another_content(lab: Lab) -> Refused:
    path = lab.write("step.nii")
    assert main(["archive", "-C", str(lab.study), str(path)]) == 0
    path.write_bytes(b"another")
    return Refused(["archive", "-C", lab.study, path], 1, "the file is", after=1)


def a_broken_node(lab: Lab) -> Refused:
    path = lab.write("rokb/datasets/broken.md", b"no front matter")
    return Refused(["emit", "-C", lab.study, path], 1, "front matter", path.unlink)


def a_broken_index(lab: Lab) -> Refused:
    lab.write("rokb/_glimmer-index.json", b"{")
    return Refused(["explain", "-C", lab.study, "nobody"], 1, "_glimmer-index.json", after=1)


def a_broken_configuration(lab: Lab) -> Refused:
    path = lab.study / "glimmer-store.toml"
    good = path.read_bytes()
    path.write_bytes(b"[[")
    return Refused(["status", "-C", lab.study], 2, "glimmer-store.toml", lambda: path.write_bytes(good))


def a_key_for_everybody(lab: Lab) -> Refused:
    path = lab.write("keyed.nii", b"keyed")
    assert main(["archive", "-C", str(lab.study), str(path)]) == 0
    (key,) = [found for found in Path(os.environ["GLIMMER_STORE_HOME"]).iterdir() if found.stat().st_mode & 0o077 == 0]
    key.chmod(0o644)
    return Refused(["verify", "-C", lab.study, "derivative-keyed"], 2, "others may read the signing key")


def copies_are_lost(words: Callable[[Lab], list[object]]) -> Callable[[Lab], Refused]:
    def make(lab: Lab) -> Refused:
        lose(lab, 2)
        return Refused(words(lab), 3, "scan")

    return make


def an_export_of_nobody(lab: Lab) -> Refused:
    return Refused(["export", "-C", lab.study, lab.root / "bag", "nobody"], 1, "no dataset or derivative node", after=1)


def an_export_without_a_key(lab: Lab) -> Refused:
    lab.write("plain.nii", b"plain")
    node = (
        "---\nid: dataset-plain\ntype: dataset\nname: plain\ncreated: 2026-01-01T00:00:00Z\n"
        "modified: 2026-01-01T00:00:00Z\ndatalad-relative-path: plain.nii\n---\n"
    )
    lab.write("rokb/datasets/dataset-plain.md", node.encode())
    return Refused(["export", "-C", lab.study, lab.root / "bag", "dataset-plain"], 1, "names no key")


def an_export_that_is_there(lab: Lab) -> Refused:
    (lab.root / "taken").mkdir(exist_ok=True)
    (lab.root / "taken" / "file").write_bytes(b"")
    return Refused(["export", "-C", lab.study, lab.root / "taken"], 2, "is there already")


def a_missing_hook(lab: Lab) -> Refused:
    assert main(["hook", "install", "-C", str(lab.study)]) == 0
    (lab.study / ".git/hooks/pre-push").unlink()
    return Refused(["hook", "status", "-C", lab.study], 1, "not installed")


def settings_that_differ(lab: Lab) -> Refused:
    (lab.study / ".gitattributes").unlink(missing_ok=True)
    return Refused(["policy", "-C", lab.study], 1, "how many copies")


def a_teardown_of_what_is_new(lab: Lab) -> Refused:
    lab.write("work/new.nii", b"new")
    return Refused(["gate", "teardown", lab.study / "work"], 1, "no copy of it is known")


REFUSALS: dict[str, Callable[[Lab], Refused]] = {
    made.__name__: made
    for made in (
        *(not_set_up, too_few_are_set_up, a_bare_is_away, a_bare_is_away_from_an_emit, outside, nothing_there),
        *(the_dataset_itself, an_edge_to_nobody, another_content, a_broken_node, a_broken_index),
        *(a_broken_configuration, a_key_for_everybody, an_export_of_nobody, an_export_without_a_key),
        *(an_export_that_is_there, a_missing_hook, settings_that_differ, a_teardown_of_what_is_new),
    )
}
REFUSALS |= {
    "a_lost_copy_in_" + name: copies_are_lost(words)
    for name, words in {
        "status": lambda lab: ["status", "-C", lab.study],
        "report": lambda lab: ["report", "-C", lab.study],
        "explain": lambda lab: ["explain", "-C", lab.study, "dataset-scan"],
        "verify": lambda lab: ["verify", "-C", lab.study, "dataset-scan"],
        "teardown": lambda lab: ["gate", "teardown", lab.study],
        "ci": lambda lab: ["gate", "ci", lab.study, "--live"],
    }.items()
}


@pytest.mark.parametrize("name", REFUSALS)
def test_its_remedy_helps(
    lab: Lab, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = REFUSALS[name](lab)

    code, said = ended(refused.words, capsys)
    assert code == refused.code, said
    assert refused.says in said
    refused.mend()
    for _ in range(ROUNDS):
        remedies = [line.split("remedy: ", 1)[1] for line in said.splitlines() if "  remedy: " in line]
        assert remedies, said
        commands = [remedy for remedy in dict.fromkeys(remedies) if shlex.split(remedy)[0] in COMMANDS]
        for command in commands:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(refused.typed.encode())))
            run(command)
        code, said = ended(refused.words, capsys)
        if not commands or code == refused.after:
            return
    pytest.fail(said)


def ended(words: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, "".join(capsys.readouterr())


def run(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "glimmer-store" and "&&" not in words:
        assert main(words[1:]) == 0, command
        return
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


def kinds(of: type[annex.AnnexError]) -> Iterator[type[annex.AnnexError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


def test_there_is_a_remedy_for_every_error_there_is() -> None:
    for kind in set(kinds(annex.AnnexError)):
        error = kind.__new__(kind)
        for name in ("holder", "path", "field"):
            setattr(error, name, name)
        if isinstance(error, StoreError):
            StoreError.__init__(error, "something")
        assert len(remedy_of(error)) > 10, kind


@pytest.mark.interop
def test_an_annexed_output_whose_content_is_elsewhere_is_fetched_first(
    lab: Lab, git_annex: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(git_annex).parent}{os.pathsep}{os.environ['PATH']}")
    path = lab.write("annexed.nii", b"annexed by git-annex")
    subprocess.run([git_annex, "add", "-q", str(path)], cwd=lab.study, check=True)
    for words in (["copy", "-q", "--to", "vault1"], ["drop", "-q", "--force"]):
        subprocess.run([git_annex, *words, "annexed.nii"], cwd=lab.study, check=True)

    assert main(["archive", "-C", str(lab.study), str(path)]) == 1
    said = capsys.readouterr().err
    assert "its content is not here" in said
    run(said.split("remedy: ")[1])

    assert main(["archive", "-C", str(lab.study), str(path)]) == 0


def test_what_the_system_refuses_is_said_in_two_lines(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write("scan.nii")
    assert main(["archive", "-C", str(lab.study), str(lab.study / "scan.nii")]) == 0
    capsys.readouterr()
    page = lab.root / "nowhere" / "report.html"
    assert main(["report", "-C", str(lab.study), "--html", str(page)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"glimmer-store: {page}: No such file or directory"
    assert said[1].startswith("  remedy: ")


def test_a_dataset_that_cannot_be_written_to_is_looked_at_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: object, name: bytes, *, exclusive: bool) -> int:
        raise OSError(30, "Read-only file system", name)

    monkeypatch.setattr(annex.Repository, "writable", False)
    monkeypatch.setattr("annexpy.repo.files.Files.lock_file", refused)
    assert main(["status", "-C", str(lab.study)]) == 0
    assert main(["report", "-C", str(lab.study)]) == 0
