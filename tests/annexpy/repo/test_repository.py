"""Opening and making repositories."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from annexpy.errors import AccessDenied, InvalidInput, InvalidUUID, NotARepository, UnsupportedRepository
from annexpy.keys.key import Key
from annexpy.repo.branch import Branch
from annexpy.repo.config import GitConfig
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEY = Key.parse("SHA256E-s1--aa")


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout


def settings(path: Path, **values: str | None) -> None:
    files = DiskFiles(path)
    GitConfig(files).change({name.replace("_", "."): value for name, value in values.items()})
    files.close()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "bare.git", bare=True, description="d").close()
    return tmp_path / "bare.git"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "work", description="d").close()
    (tmp_path / "work/sub/deep").mkdir(parents=True)
    return tmp_path / "work"


def test_a_bare_repository_is_opened(bare: Path) -> None:
    with Repository.open(bare) as repository:
        assert repository.bare
        assert repository.work_tree is None
        assert repository.path == str(bare)
        assert repository.git_dir == os.fsencode(bare)
        assert repository.version == 10
        assert repository.writable
        assert not repository.is_private


@pytest.mark.parametrize("where", [".", "sub/deep", ".git"])
def test_a_work_tree_is_found_from_anywhere_in_it(work: Path, where: str) -> None:
    with Repository.open(work / where) as repository:
        assert repository.path == str(work)
        assert repository.work_tree == os.fsencode(work)
        assert repository.git_dir == os.fsencode(work / ".git")
        assert not repository.bare


def test_a_linked_worktree_uses_the_annex_of_its_main_repository(work: Path, tmp_path: Path) -> None:
    git(work, "commit", "-q", "--allow-empty", "-m", "x")
    git(work, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")

    with Repository.open(work / ".git/worktrees/linked") as linked:
        assert linked.path == str(tmp_path / "linked")
    with Repository.open(work) as main, Repository.open(tmp_path / "linked") as linked:
        linked.branch.set_present(KEY, linked.uuid, True)
        linked.branch.commit_now()

        assert linked.path == str(tmp_path / "linked")
        assert linked.git_dir == main.git_dir
        assert linked.worktree_git_dir == os.fsencode(work / ".git/worktrees/linked")
        assert main.branch.locations(KEY).present == [main.uuid]


def test_a_submodule_has_its_own_annex(work: Path, tmp_path: Path) -> None:
    git(work, "commit", "-q", "--allow-empty", "-m", "x")
    git(tmp_path, "init", "-q", "super")
    git(tmp_path / "super", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(work), "part")

    with Repository.init(tmp_path / "super/part") as part:
        assert part.git_dir == os.fsencode(tmp_path / "super/.git/modules/part")
        assert part.path == str(tmp_path / "super/part")
    with Repository.open(tmp_path / "super/.git/modules/part") as part:
        assert part.path == str(tmp_path / "super/part")


def test_a_git_file_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")

    with pytest.raises(NotARepository, match=r"\.git leads to /nowhere"):
        Repository.open(tmp_path)


def test_the_git_at_the_end_of_a_name_may_be_left_out_as_in_git(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "lab.git", bare=True) as bare:
        uuid = bare.uuid

    with Repository.open(tmp_path / "lab") as found:
        assert found.uuid == uuid
    with Repository.init(tmp_path / "lab") as another:
        assert another.uuid != uuid
    with Repository.open(tmp_path / "lab") as found:
        assert found.uuid != uuid


def test_what_is_not_there_or_not_git_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARepository, match="no such directory"):
        Repository.open(tmp_path / "missing")
    with pytest.raises(NotARepository, match="not in a git repository"):
        Repository.open("/")


def test_git_without_annex_says_what_to_do(tmp_path: Path, bare: Path) -> None:
    git(tmp_path, "init", "-q", "plain")
    with pytest.raises(NotARepository, match="a git repository without git-annex: run git annex init"):
        Repository.open(tmp_path / "plain")

    git(tmp_path, "clone", "-q", str(bare), "clone")
    with pytest.raises(NotARepository, match="clone of a git-annex repository, not initialised"):
        Repository.open(tmp_path / "clone")


@pytest.mark.parametrize(("gone", "there"), [("annex_uuid", "annex.version"), ("annex_version", "annex.uuid")])
def test_half_an_initialisation_is_damage(bare: Path, gone: str, there: str) -> None:
    settings(bare, **{gone: None})

    with pytest.raises(NotARepository, match=f"{there} is set but"):
        Repository.open(bare)


@pytest.mark.parametrize("version", ["8", "9", "10"])
def test_versions_git_annex_supports_are_opened(bare: Path, version: str) -> None:
    settings(bare, annex_version=version)

    assert Repository.open(bare).version == int(version)


@pytest.mark.parametrize(("version", "hint"), [("7", "run git annex upgrade"), ("11", "annexpy knows 8 to 10")])
def test_other_versions_are_refused(bare: Path, version: str, hint: str) -> None:
    settings(bare, annex_version=version)

    with pytest.raises(UnsupportedRepository, match=hint):
        Repository.open(bare)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("objectFormat", "sha256", "needs sha1"),
        ("refStorage", "reftable", "refs are stored as reftable"),
        ("somethingNew", "1", "unknown repository extension somethingnew"),
    ],
)
def test_git_formats_we_cannot_write_are_refused(bare: Path, name: str, value: str, reason: str) -> None:
    settings(bare, core_repositoryformatversion="1", **{f"extensions_{name}": value})

    with pytest.raises(UnsupportedRepository, match=reason):
        Repository.open(bare)


def test_a_damaged_uuid_or_version_is_named(bare: Path) -> None:
    settings(bare, annex_uuid="../../x")
    with pytest.raises(InvalidUUID):
        Repository.open(bare)
    settings(bare, annex_uuid="x", annex_version="ten")
    with pytest.raises(InvalidInput, match=r"annex\.version"):
        Repository.open(bare)


def test_tuning_is_read_and_recorded(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "r.git")
    settings(
        tmp_path / "r.git", annex_tune_objecthash1="true", annex_tune_branchhash1="true", annex_tune_objecthashlower="1"
    )

    with Repository.init(tmp_path / "r.git") as repository:
        assert (repository.tuning.object_levels, repository.tuning.branch_levels) == (1, 1)
        assert repository.tuning.object_hash_lower
        differences = repository.branch.read(b"difference.log")
        assert b"fromList [ObjectHashLower,OneLevelObjectHash,OneLevelBranchHash]" in differences
        repository.branch.set_present(KEY, repository.uuid, True)
        repository.branch.commit_now()
        assert any(path.count(b"/") == 1 for path, _ in repository.branch.scan())


def test_it_pickles_as_its_path(work: Path) -> None:
    with Repository.open(work) as repository:
        again = pickle.loads(pickle.dumps(repository))

        assert (again.path, again.uuid) == (repository.path, repository.uuid)
        again.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_leaves_the_records_of_its_parent_alone(bare: Path) -> None:
    with Repository.open(bare) as repository:
        repository.branch.set_present(KEY, UUID("parent"), True)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                repository.branch.set_present(KEY, UUID("child"), True)
                repository.branch.commit_now()
                status = 0 if repository.branch.locations(KEY).present == ["child"] else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

        assert repository.branch.locations(KEY).present == ["child", "parent"]
        repository.branch.commit_now()
        assert repository.branch.locations(KEY).present == ["child", "parent"]
        assert git(bare, "rev-list", "--count", "git-annex").strip() == "4"


def test_opening_reads_no_library_it_does_not_need(bare: Path) -> None:
    script = (
        "import sys; from annexpy.repo.repository import Repository; r = Repository.open(sys.argv[1]);"
        "heavy = {'dulwich', 'anyio', 'asyncio', 'subprocess', 'random', 'logging', 'shutil'} & set(sys.modules);"
        "r.branch.read(b'uuid.log');"
        "more = {'dulwich', 'anyio', 'asyncio', 'subprocess', 'random', 'shutil'} & set(sys.modules);"
        "sys.exit(f'{heavy} {more}' if heavy or more else 0)"
    )
    root = str(Path(__file__).parents[3])

    done = subprocess.run(
        [sys.executable, "-c", script, bare],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_threads_that_come_first_together_get_the_same_branch_and_contents(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    for kind in (Branch, ContentStore):
        made = kind.__init__

        def make(self: object, *args: object, made: Callable[..., None] = made, **named: object) -> None:
            both.wait(10)  # neither is ready before the other has begun
            made(self, *args, **named)

        monkeypatch.setattr(kind, "__init__", make)

    with Repository.open(bare) as repository, ThreadPoolExecutor(2) as threads:
        for part in ("branch", "content"):
            first, second = threads.map(lambda name: getattr(repository, name), [part, part])
            assert first is second is getattr(repository, part)


def test_init_refuses_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")

    with pytest.raises(NotARepository, match="not a directory"):
        Repository.init(tmp_path / "file")
    with pytest.raises(NotARepository, match="not empty"):
        Repository.init(tmp_path / "full", bare=True)
    assert os.listdir(tmp_path / "full") == ["x"]


def test_init_refuses_another_uuid(bare: Path) -> None:
    with pytest.raises(InvalidInput, match="has another one already"):
        Repository.init(bare, uuid=UUID("22222222-2222-4222-8222-222222222222"))


@pytest.mark.parametrize(("shared", "folder", "file"), [("group", 0o2775, 0o664), ("0640", 0o2750, 0o640)])
def test_a_shared_repository_gets_shared_files(tmp_path: Path, shared: str, folder: int, file: int) -> None:
    git(tmp_path, "init", "-q", "--bare", f"--shared={shared}", "r.git")

    with Repository.init(tmp_path / "r.git") as repository:
        repository.branch.set_present(KEY, repository.uuid, True)
        repository.branch.sync_now()
        spool = tmp_path / "r.git/annex/annexpy/spool"
        assert stat.S_IMODE(spool.stat().st_mode) == folder
        assert {stat.S_IMODE(path.stat().st_mode) for path in spool.iterdir()} == {file}
        repository.branch.commit_now()

    ref = tmp_path / "r.git/refs/heads/git-annex"
    assert stat.S_IMODE(ref.stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "r.git/annex/journal.lck").stat().st_mode) == file
    objects = [path for path in (tmp_path / "r.git/objects").rglob("*") if path.is_file()]
    assert objects
    assert {stat.S_IMODE(path.stat().st_mode) & 0o222 for path in objects} == {0}


def without_permission(bare: Path) -> int:
    """In a child that may not write to *bare*: what works all the same, and how the rest fails."""
    if os.getuid() == 0:
        os.setuid(65534)
    else:
        for folder in (bare, *(path for path in bare.rglob("*") if path.is_dir())):
            folder.chmod(0o555)
    with Repository.open(bare) as repository:
        branch = repository.branch
        assert not repository.writable
        assert branch.locations(KEY).present == [repository.uuid]
        branch.set_present(KEY, UUID("x"), True)
        for write in (branch.sync_now, branch.commit_now, branch.merge_now):
            with pytest.raises(AccessDenied, match="cannot"):
                write()
        assert branch.locations(KEY).present == sorted([repository.uuid, "x"])
    return 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_read_only_repository_is_read_and_writing_says_why_not(bare: Path) -> None:
    with Repository.open(bare) as repository:
        repository.branch.set_present(KEY, repository.uuid, True)
        repository.branch.merge_now()
    for folder in (bare, *bare.parents[:-2]):
        if os.stat(folder).st_uid == os.getuid():
            folder.chmod(0o755)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = without_permission(bare)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    assert os.waitpid(child, 0)[1] == 0
