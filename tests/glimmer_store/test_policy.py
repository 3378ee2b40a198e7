"""What may be archived, and from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from glimmer_store import policy
from glimmer_store.errors import SourceRefused


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset that is not in a temporary folder, beside a scratch folder that is one."""
    root, scratch = tmp_path / "dataset", tmp_path / "scratch"
    (root / "sub").mkdir(parents=True)
    scratch.mkdir()
    (root / "sub" / "out.nii").write_bytes(b"x")
    (scratch / "out.nii").write_bytes(b"x")
    monkeypatch.setattr(policy, "temporary_folders", lambda: (scratch,))
    return root


def test_a_file_of_the_dataset_may_be_archived(dataset: Path) -> None:
    assert policy.check_source(dataset / "sub" / "out.nii", dataset) == Path("sub/out.nii")


def test_a_path_is_taken_from_where_one_stands(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset / "sub")
    assert policy.check_source("out.nii", dataset) == Path("sub/out.nii")


def test_temporary_outputs_are_refused_by_the_folder_s_name(dataset: Path) -> None:
    with pytest.raises(SourceRefused, match="scratch, which does not outlive the job") as refusal:
        policy.check_source(dataset.parent / "scratch" / "out.nii", dataset)
    assert refusal.value.remedy


def test_a_link_into_a_temporary_folder_is_refused(dataset: Path) -> None:
    (dataset / "link.nii").symlink_to(dataset.parent / "scratch" / "out.nii")
    with pytest.raises(SourceRefused, match="does not outlive"):
        policy.check_source(dataset / "link.nii", dataset)


def test_outputs_outside_the_dataset_are_refused(dataset: Path) -> None:
    (dataset.parent / "elsewhere").write_bytes(b"x")
    for path in (dataset.parent / "elsewhere", dataset / ".." / "elsewhere"):
        with pytest.raises(SourceRefused, match="outside the dataset"):
            policy.check_source(path, dataset)


@pytest.mark.parametrize(
    ("path", "why"), [(".git/config", "git's own"), ("sub", "not a regular file"), ("gone", "does not exist")]
)
def test_other_things_are_refused_by_what_they_are(dataset: Path, path: str, why: str) -> None:
    (dataset / ".git").mkdir()
    (dataset / ".git" / "config").write_bytes(b"")
    with pytest.raises(SourceRefused, match=why):
        policy.check_source(dataset / path, dataset)


def test_the_usual_temporary_folders_are_known() -> None:
    assert Path("/tmp").resolve() in policy.temporary_folders()
    assert Path("/dev/shm").resolve() in policy.temporary_folders()


def test_irreplaceable_needs_three_and_generated_two() -> None:
    assert {c.value: n for c, n in policy.NUMCOPIES.items()} == {"irreplaceable": 3, "generated": 2}
