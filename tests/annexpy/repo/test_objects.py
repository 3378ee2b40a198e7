"""Git objects: what we write git reads, and what git writes we read."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import RepositoryError
from annexpy.repo import pack as pack_module
from annexpy.repo import packfile as packfile_module
from annexpy.repo.files import DiskFiles
from annexpy.repo.objects import Objects
from annexpy.repo.pack import BLOB, TREE, ObjectWriter, remove_leftovers
from annexpy.repo.packs import ObjectFiles
from annexpy.repo.settings import Lockdown


def git(where: Path, *arguments: str, given: bytes | None = None) -> bytes:
    return subprocess.run(["git", *arguments], cwd=where, input=given, capture_output=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Twenty versions of a file that changes little, one large file, loose objects."""
    path = tmp_path / "r"
    git(tmp_path, "init", "-q", "r")
    dice = random.Random(1)
    lines = [dice.randbytes(20).hex() for _ in range(400)]
    for version in range(20):
        lines[dice.randrange(400)] = f"changed {version}"
        (path / "file").write_text("\n".join(lines))
        (path / f"only-{version}").write_bytes(b"x" * version)
        git(path, "add", ".")
        git(path, "commit", "-q", "-m", str(version))
    (path / "big").write_bytes(dice.randbytes(200_000) + bytes(200_000))
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "big")
    return path


def all_objects(where: Path) -> dict[bytes, tuple[int, bytes]]:
    kinds = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}
    raw = git(where, "cat-file", "--batch-all-objects", "--batch")
    found, at = {}, 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        sha, kind, size = raw[at:end].split()
        found[bytes.fromhex(sha.decode())] = kinds[kind], raw[end + 1 : end + 1 + int(size)]
        at = end + 2 + int(size)
    return found


def own(path: Path) -> ObjectFiles:
    return ObjectFiles(DiskFiles(path / ".git"))


def test_loose_objects_are_read(repository: Path) -> None:
    objects = own(repository)

    for sha, wanted in all_objects(repository).items():
        assert objects.get(sha) == wanted
    assert objects.get(bytes(20)) is None


@pytest.mark.parametrize("by_offset", ["true", "false"])
def test_packs_with_deltas_are_read(repository: Path, by_offset: str) -> None:
    git(
        repository,
        "-c",
        f"repack.useDeltaBaseOffset={by_offset}",
        "-c",
        "gc.writeCommitGraph=false",
        "gc",
        "-q",
        "--aggressive",
    )
    objects = own(repository)
    everything = all_objects(repository)

    for sha, wanted in everything.items():
        assert objects.get(sha) == wanted
    assert len(everything) > 80
    packs = list((repository / ".git/objects/pack").glob("*.pack"))
    deltas = git(repository, "verify-pack", "-v", str(packs[0])).count(b"chain length")
    assert deltas > 1


def test_several_packs_and_alternates_are_read(repository: Path, tmp_path: Path) -> None:
    git(repository, "gc", "-q")
    for version in range(3):
        (repository / "file").write_text(str(version))
        git(repository, "commit", "-q", "-am", "x")
        git(repository, "repack", "-q", "-d")
    git(tmp_path, "clone", "-q", "--shared", "r", "shared")
    (tmp_path / "shared/file").write_text("own")
    git(tmp_path / "shared", "commit", "-q", "-am", "own")
    assert len(list((repository / ".git/objects/pack").glob("*.pack"))) > 1
    objects = own(tmp_path / "shared")

    everything = all_objects(tmp_path / "shared")

    assert everything.keys() > all_objects(repository).keys()
    for sha, wanted in everything.items():
        assert objects.get(sha) == wanted


def test_a_pack_that_comes_or_goes_is_noticed(repository: Path) -> None:
    everything = all_objects(repository)
    objects = Objects(DiskFiles(repository / ".git"))
    shas = sorted(everything)
    assert objects.typed(shas[0]) == everything[shas[0]]

    git(repository, "repack", "-q", "-a", "-d")
    assert objects.typed(shas[1]) == everything[shas[1]]
    git(repository, "gc", "-q", "--aggressive", "--prune=now")

    for sha in shas:
        assert objects.typed(sha) == everything[sha]
    objects.close()


def test_an_index_without_its_pack_hides_nothing(repository: Path) -> None:
    git(repository, "gc", "-q")
    everything = all_objects(repository)
    index = next((repository / ".git/objects/pack").glob("*.idx"))
    index.with_name(f"pack-{'0' * 40}.idx").write_bytes(index.read_bytes())
    objects = own(repository)

    for sha, wanted in everything.items():
        assert objects.get(sha) == wanted


def test_what_we_do_not_know_dulwich_reads(repository: Path) -> None:
    git(repository, "-c", "pack.indexVersion=1", "gc", "-q")
    everything = all_objects(repository)
    with pytest.raises(RepositoryError, match="no index of version 2"):
        own(repository).get(next(iter(everything)))

    objects = Objects(DiskFiles(repository / ".git"))

    for sha, wanted in everything.items():
        assert objects.typed(sha) == wanted
    objects.close()


def test_git_and_dulwich_give_the_same_answers(repository: Path) -> None:
    git(repository, "gc", "-q")
    everything = all_objects(repository)
    wanted = [everything[sha][1] for sha in sorted(everything)]
    files = DiskFiles(repository / ".git")

    by_us, by_dulwich = Objects(files), Objects(files, dulwich=True)
    reader = by_us.reader()
    assert reader is not None
    with reader:
        assert list(by_us.get_many(sorted(everything), reader)) == wanted
    assert list(by_us.get_many(sorted(everything))) == wanted
    assert list(by_dulwich.get_many(sorted(everything))) == wanted
    for objects in (by_us, by_dulwich):
        with pytest.raises(RepositoryError, match="0000000000 is not in"):
            objects.get(bytes(20))
        objects.close()


def test_many_objects_in_any_number_do_not_jam_the_pipe(repository: Path) -> None:
    everything = all_objects(repository)
    big = max(everything, key=lambda sha: len(everything[sha][1]))
    objects = Objects(DiskFiles(repository / ".git"))
    reader = objects.reader()
    assert reader is not None

    with reader:
        sizes = {len(content) for content in objects.get_many([big] * 3000, reader)}

    assert sizes == {400_000}


def test_a_missing_object_is_named_by_the_reader(repository: Path) -> None:
    objects = Objects(DiskFiles(repository / ".git"))
    reader = objects.reader()
    assert reader is not None

    with reader, pytest.raises(RepositoryError, match="0000 missing"):
        list(objects.get_many([bytes(20)], reader))


def test_a_reader_that_is_left_in_the_middle_ends(repository: Path) -> None:
    shas = list(all_objects(repository)) * 50
    reader = Objects(DiskFiles(repository / ".git")).reader()
    assert reader is not None

    next(reader.get_many(shas))
    reader.close()

    assert reader._process.returncode is not None


def test_one_git_process_serves_all_while_it_is_kept(repository: Path) -> None:
    everything = all_objects(repository)
    shas, wanted = list(everything), [content for _, content in everything.values()]
    objects = Objects(DiskFiles(repository / ".git"))

    with objects.keeping():
        with objects.lent() as first:
            assert first is not None
            assert list(objects.get_many(shas, first)) == wanted
            with objects.lent() as other:  # it is taken, as by another thread
                assert other not in (None, first)
        with objects.lent() as again, objects.keeping():
            assert again is first
            next(again.get_many(shas))  # left in the middle: whoever is next would get wrong answers
        with objects.lent() as fresh:
            assert fresh not in (None, first)
            assert list(objects.get_many(shas, fresh)) == wanted
    assert [r._process.returncode is None for r in (first, fresh) if r is not None] == [False, False]
    with objects.lent() as last:
        assert last not in (None, fresh)
    objects.close()


def test_an_old_git_writes_every_object_by_itself(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = all_objects(repository)
    git_binary = shutil.which("git")
    (tmp_path / "bin").mkdir()
    old = tmp_path / "bin/git"
    old.write_text(f'#!/bin/sh\ncase "$*" in *--batch-command*) exit 129;; esac\nexec {git_binary} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    objects = Objects(DiskFiles(repository / ".git"))
    with objects.lent() as reader:
        assert reader is not None
        assert list(reader.get_many(everything)) == [content for _, content in everything.values()]
    objects.close()


def test_a_git_that_does_not_work_is_done_without(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = all_objects(repository)
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin/git"
    broken.write_text("#!/bin/sh\necho no >&2; exit 128\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setattr("annexpy.repo.objects.BULK", 1)
    objects = Objects(DiskFiles(repository / ".git"))

    assert list(objects.get_many(list(everything))) == [content for _, content in everything.values()]
    objects.close()
    monkeypatch.setenv("PATH", f"{tmp_path}/nothing")
    assert objects.reader() is None


@pytest.mark.parametrize("suffix", ["pack", "idx"])
def test_corruption_is_an_error_of_ours(repository: Path, suffix: str) -> None:
    git(repository, "gc", "-q", "--aggressive")
    everything = all_objects(repository)
    path = next((repository / ".git/objects/pack").glob(f"*.{suffix}"))
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    dice = random.Random(2)
    for _ in range(30):
        broken = bytearray(raw)
        for _ in range(20):
            broken[dice.randrange(12, len(raw))] ^= 1 << dice.randrange(8)
        path.write_bytes(broken)
        objects = own(repository)
        for sha in everything:
            try:
                objects.get(sha)
            except RepositoryError:
                pass


def test_a_loose_object_that_is_corrupt_or_a_bomb_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = git(repository, "rev-parse", "HEAD:big").strip().decode()
    path = repository / f".git/objects/{sha[:2]}/{sha[2:]}"
    monkeypatch.setattr("annexpy.repo.packs.LARGEST", 1000)
    with pytest.raises(RepositoryError, match="corrupt or too large"):
        own(repository).get(bytes.fromhex(sha))
    monkeypatch.undo()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RepositoryError, match="corrupt"):
        own(repository).get(bytes.fromhex(sha))


# -- writing --------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    return tmp_path / "bare.git"


def blobs(count: int) -> Iterator[bytes]:
    dice = random.Random(3)
    for number in range(count):
        yield b"%d\n" % number + dice.randbytes(dice.choice((0, 20, 130, 131, 5000, 70_000)) if number % 7 == 0 else 40)


def write(bare: Path, count: int, *, sync: bool = True) -> tuple[ObjectWriter, dict[bytes, bytes]]:
    writer = ObjectWriter(DiskFiles(bare), Lockdown(), sync=sync)
    return writer, {writer.add(BLOB, data): data for data in blobs(count)}


def names(bare: Path) -> set[str]:
    return {str(path.relative_to(bare)) for path in (bare / "objects").rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [1, 20, 3000])
def test_what_is_written_git_reads(bare: Path, count: int) -> None:
    writer, written = write(bare, count)
    tree = writer.add(TREE, b"".join(b"100644 %s\0%b" % (sha.hex().encode(), sha) for sha in sorted(written)))
    writer.finish()
    writer.done()

    everything = all_objects(bare)
    assert {sha: content for sha, (kind, content) in everything.items() if kind == BLOB} == written
    assert everything[tree][0] == TREE
    assert all(hashlib.sha1(b"blob %d\0%b" % (len(data), data)).digest() == sha for sha, data in written.items())
    git(bare, "fsck", "--strict", "--full")
    assert len(list((bare / "objects/pack").iterdir())) == 2
    for path in (bare / "objects").rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o777 == 0o444


def test_the_index_is_the_one_git_would_make(bare: Path) -> None:
    writer, _ = write(bare, 500)
    writer.finish()
    pack = next((bare / "objects/pack").glob("*.pack"))

    git(bare, "index-pack", "-o", "again.idx", str(pack))

    assert (bare / "again.idx").read_bytes() == pack.with_suffix(".idx").read_bytes()


def test_until_the_ref_is_there_gc_leaves_the_pack(bare: Path) -> None:
    writer, written = write(bare, 100)
    writer.finish()

    git(bare, "gc", "-q", "--prune=now")
    assert set(written) <= set(all_objects(bare))
    writer.done()
    git(bare, "gc", "-q", "--prune=now")
    assert not all_objects(bare)


@pytest.mark.parametrize("finished", [True, False])
def test_abandoned_packs_leave_nothing(bare: Path, finished: bool) -> None:
    writer, _ = write(bare, 100)
    if finished:
        writer.finish()

    writer.abandon()

    assert not names(bare)
    assert not os.listdir(bare / "annex/annexpy/tmp")


def test_an_object_added_twice_is_written_once(bare: Path) -> None:
    writer = ObjectWriter(DiskFiles(bare), Lockdown())
    shas = {writer.add(BLOB, b"%d" % (number % 50)) for number in range(200)}
    writer.finish()

    assert len(shas) == 50
    listed = git(bare, "verify-pack", "-v", str(next((bare / "objects/pack").glob("*.pack")))).splitlines()
    assert sum(b" blob " in line for line in listed) == 50


def test_the_same_pack_again_is_no_error_and_stays(bare: Path) -> None:
    for _ in range(2):
        writer, written = write(bare, 50)
        writer.finish()
        writer.done()
    assert set(all_objects(bare)) == set(written)
    writer, _ = write(bare, 50)
    writer.finish()
    writer.abandon()
    assert set(all_objects(bare)) == set(written)


@pytest.mark.parametrize("gone", [".pack", ".idx"])
def test_half_of_the_same_pack_is_no_pack(bare: Path, gone: str) -> None:
    writer, written = write(bare, 50)
    writer.finish()
    writer.done()
    next((bare / "objects/pack").glob(f"*{gone}")).unlink()

    writer, _ = write(bare, 50)
    writer.finish()
    writer.done()

    assert set(all_objects(bare)) == set(written)
    git(bare, "fsck", "--full")


def test_a_pack_larger_than_the_buffer_has_the_right_checksum(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packfile_module, "_BUFFER", 1000)
    writer, written = write(bare, 300)
    writer.finish()

    assert set(all_objects(bare)) == set(written)
    git(bare, "fsck", "--full")


def test_offsets_of_eight_bytes_are_written_and_read(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packfile_module, "_LARGE", (5000).to_bytes(8, "big"))  # instead of two GiB
    writer, written = write(bare, 300)
    writer.finish()

    objects = ObjectFiles(DiskFiles(bare))
    assert {sha: content for sha, (_, content) in all_objects(bare).items()} == written
    assert all(objects.get(sha) == (BLOB, content) for sha, content in written.items())


def test_keep_files_of_a_crash_are_removed_and_those_of_others_kept(bare: Path) -> None:
    writer, _ = write(bare, 50)
    writer.finish()
    (bare / "objects/pack/pack-other.keep").write_text("fetch-pack 4711 on host\n")

    remove_leftovers(DiskFiles(bare))

    assert [path.name for path in (bare / "objects/pack").glob("*.keep")] == ["pack-other.keep"]


def test_leftovers_of_another_process_with_our_pid_do_not_disturb(bare: Path) -> None:
    (bare / "annex/annexpy/tmp").mkdir(parents=True)
    for stem in ("pack", "idx"):
        path = bare / f"annex/annexpy/tmp/{stem}-{os.getpid()}"
        path.write_text("old")
        path.chmod(0o444)

    writer, written = write(bare, 50)
    writer.finish()
    writer.done()

    assert set(all_objects(bare)) == set(written)


def commit(bare: Path, number: int, *, size: int = 20) -> bytes:
    writer = ObjectWriter(DiskFiles(bare), Lockdown(), sync=False)
    sha = writer.add(BLOB, random.Random(number).randbytes(size))
    writer.add(BLOB, b"the same")
    writer.finish()
    writer.done()
    return sha


def packs(bare: Path) -> list[Path]:
    return sorted((bare / "objects/pack").glob("*.pack"))


def test_many_small_packs_become_one(bare: Path) -> None:
    written = set()
    for number in range(100):
        written.add(commit(bare, number))
        assert len(packs(bare)) <= pack_module._MOST

    assert written < set(all_objects(bare))
    assert len(all_objects(bare)) == 101
    git(bare, "fsck", "--full")
    assert sorted(path.suffix for path in (bare / "objects/pack").iterdir()) == [".idx"] * len(packs(bare)) + [
        ".pack"
    ] * len(packs(bare))


def test_large_packs_stay_as_they_are(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_SMALL", 1000)
    commit(bare, 0, size=2000)
    large = packs(bare)
    for number in range(1, 40):
        commit(bare, number)

    assert set(large) < set(packs(bare))
    assert len(all_objects(bare)) == 41


def test_packs_that_gc_took_or_somebody_keeps_are_left_to_them(bare: Path) -> None:
    written = [commit(bare, number) for number in range(10)]
    for sha in written[:5]:
        git(bare, "tag", sha.hex(), sha.hex())
    kept = packs(bare)[0]
    kept.with_suffix(".keep").write_text("mine")
    others = [path for path in packs(bare) if path != kept][:4]
    for path in others:
        git(bare, "unpack-objects", "-q", given=path.read_bytes())
        path.with_suffix(".idx").unlink()
        path.unlink()
    for number in range(10, 40):
        written.append(commit(bare, number))

    assert kept.exists()
    assert len(packs(bare)) <= pack_module._MOST + 1
    assert set(written[10:]) < set(all_objects(bare))
    git(bare, "fsck", "--full")


def test_a_pack_with_deltas_is_not_taken_over(bare: Path, repository: Path) -> None:
    git(repository, "gc", "-q", "--aggressive")
    pack = next((repository / ".git/objects/pack").glob("*.pack"))
    for suffix in (".pack", ".idx"):
        (bare / "objects/pack" / pack.name).with_suffix(suffix).write_bytes(pack.with_suffix(suffix).read_bytes())
    (bare / "annex/annexpy").mkdir(parents=True)
    lines = [pack.stem, *(f"pack-{n:040x}" for n in range(20)), "garbage"]
    (bare / "annex/annexpy/packs").write_text("\n".join(lines))

    commit(bare, 1)

    assert (bare / "objects/pack" / pack.name).exists()
    assert len(packs(bare)) == 2
    git(bare, "fsck", "--full")
