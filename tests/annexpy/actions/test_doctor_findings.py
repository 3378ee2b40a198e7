"""Doctor finds what is wrong in several repositories at once, without touching anything, and its commands mend it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from annexpy.actions.doctor import Finding, Problem, examine_repositories
from annexpy.actions.put import put
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio

ELSEWHERE = UUID("aaaaaaaa-1111-4111-8111-111111111111")
CLUSTER = new_cluster_uuid("12345678-1234-4234-9234-123456789012")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def key_of(content: bytes) -> Key:
    return name_content([content])


def look(*paths: Path) -> list[Finding]:
    repositories = [Repository.open(path) for path in paths]
    try:
        return list(examine_repositories(repositories))
    finally:
        for repository in repositories:
            repository.close()


def found(findings: list[Finding], problem: Problem) -> list[Finding]:
    return [finding for finding in findings if finding.problem is problem]


async def hold(path: Path, *contents: bytes) -> None:
    with Repository.open(path) as repository:
        local = Local(repository)
        for content in contents:
            await put(local, key_of(content), content)
        await repository.branch.commit()


def log(path: Path, key: Key, uuid: UUID, present: bool = True) -> None:
    with Repository.open(path) as repository:
        repository.branch.set_present(key, uuid, present)
        repository.branch.commit_now()


def lose(path: Path, key: Key) -> None:
    with Repository.open(path) as repository:
        relative = repository.content.path(key)
        assert relative is not None
        file = Path(os.fsdecode(repository.git_dir)) / os.fsdecode(relative)
    file.parent.chmod(0o755)
    file.unlink()


def damage(path: Path, key: Key) -> None:
    with Repository.open(path) as repository:
        relative = repository.content.path(key)
        assert relative is not None
        file = Path(os.fsdecode(repository.git_dir)) / os.fsdecode(relative)
    file.chmod(0o644)
    file.write_bytes(b"x")
    file.chmod(0o444)


def change(path: Path, log: bytes, content: Callable[[bytes], bytes]) -> None:
    with Repository.open(path) as repository:
        repository.branch.change(log, content)
        repository.branch.commit_now()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "one", tmp_path / "two"
    for path in paths:
        Repository.init(path, bare=True, description=path.name).close()
    uuids = [uuid_of(path) for path in paths]
    for path, other, uuid in ((paths[0], paths[1], uuids[1]), (paths[1], paths[0], uuids[0])):
        subprocess.run(["git", "-C", path, "remote", "add", other.name, str(other)], check=True)
        subprocess.run(["git", "-C", path, "config", f"remote.{other.name}.annex-uuid", uuid], check=True)
    return paths


def uuid_of(path: Path) -> UUID:
    with Repository.open(path) as repository:
        return repository.uuid


async def test_a_healthy_pair_gives_no_findings(pair: tuple[Path, Path]) -> None:
    one, two = pair
    await hold(one, b"a", b"b")
    await hold(two, b"a", b"b")
    for content in (b"a", b"b"):
        log(one, key_of(content), uuid_of(two))

    assert look(one, two) == []


async def test_each_trouble_is_found_where_it_is(pair: tuple[Path, Path]) -> None:
    one, two = pair
    await hold(one, b"unrecorded", b"stale", b"sole", b"behind", b"short")
    damage(one, key_of(b"short"))
    await hold(two, b"unrecorded", b"stale", b"behind")
    log(one, key_of(b"unrecorded"), uuid_of(one), False)
    lose(one, key_of(b"stale"))
    log(one, key_of(b"behind"), uuid_of(two))
    lose(two, key_of(b"behind"))
    log(two, key_of(b"behind"), uuid_of(two), False)
    log(one, key_of(b"lost"), ELSEWHERE, False)
    log(one, key_of(b"far"), ELSEWHERE)
    log(one, key_of(b"far"), CLUSTER)
    change(one, b"trust.log", lambda _: f"{uuid_of(two)} ? timestamp=1s\n".encode())

    findings = look(one, two)

    def of(content: bytes) -> list[tuple[Problem, str]]:
        return [(one.problem, Path(one.path).name) for one in findings if one.key == key_of(content)]

    assert of(b"unrecorded") == [(Problem.UNRECORDED, "one")]
    assert of(b"stale") == [(Problem.STALE, "one"), (Problem.SOLE, "one")]
    assert of(b"behind") == [(Problem.STALE, "one"), (Problem.SOLE, "one")]
    assert of(b"sole") == [(Problem.SOLE, "one")]
    assert of(b"lost") == [(Problem.LOST, "one")]
    assert of(b"short") == [(Problem.DAMAGED, "one"), (Problem.SOLE, "one")]
    assert of(b"far") == [(Problem.SOLE, "one")]
    (behind, _) = [one for one in findings if one.key == key_of(b"behind")]
    assert behind.command == f"git -C {one} annex sync --no-content two"
    (sole,) = [one for one in findings if one.key == key_of(b"sole")]
    assert sole.command == f"git -C {one} annex copy --key {key_of(b'sole')} --to two"
    (far,) = [one for one in findings if one.key == key_of(b"far")]
    assert far.command == f"git -C {one} annex get --key {key_of(b'far')}"


async def test_copies_that_do_not_count_leave_a_sole_copy(pair: tuple[Path, Path]) -> None:
    one, two = pair
    await hold(one, b"a")
    await hold(two, b"a")
    log(one, key_of(b"a"), uuid_of(two))
    change(one, b"trust.log", lambda _: f"{uuid_of(two)} 0 timestamp=1s\n".encode())

    assert [finding.problem for finding in look(one, two)] == [Problem.SOLE]


async def test_lines_that_nobody_can_read_are_found_in_every_log(pair: tuple[Path, Path]) -> None:
    one, _ = pair
    await hold(one, b"a")
    change(one, location_log(key_of(b"a")), lambda content: content + b"rubbish\n1s 2 x\n")
    change(one, b"numcopies.log", lambda _: b"1s many\n1s 2\n")
    change(one, b"trust.log", lambda _: b"u xx timestamp=1s\n")
    change(one, b"remote.log", lambda _: f"{ELSEWHERE} name=s3 timestamp=1s type=S3\n".encode())

    findings = found(look(one), Problem.MALFORMED)

    logs = [finding.detail.partition(":")[0] for finding in findings]
    assert sorted(logs) == sorted(
        [os.fsdecode(location_log(key_of(b"a")))] * 2 + ["numcopies.log", "trust.log", "remote.log"]
    )
    (undated,) = [finding for finding in findings if finding.detail.startswith("remote.log")]
    assert "no timestamp" in undated.detail
    assert undated.command == f"git -C {one} annex configremote s3 autoenable=false"


async def test_looking_changes_nothing(pair: tuple[Path, Path]) -> None:
    one, two = pair
    await hold(one, b"a", b"b")
    lose(one, key_of(b"b"))
    log(two, key_of(b"c"), ELSEWHERE)

    def everything() -> dict[str, tuple[int, int, int]]:
        files = (file for path in pair for file in path.rglob("*"))
        return {str(f): (f.lstat().st_mtime_ns, f.lstat().st_mode, f.lstat().st_size) for f in files}

    before = everything()
    assert look(one, two)

    assert everything() == before


@pytest.mark.interop
async def test_the_commands_mend_what_was_found(pair: tuple[Path, Path], git_annex: str) -> None:
    one, two = pair
    await hold(one, b"unrecorded", b"stale", b"sole", b"fine", b"short")
    await hold(two, b"unrecorded", b"stale", b"fine", b"short")
    for content in (b"unrecorded", b"stale", b"fine", b"short"):
        log(one, key_of(content), uuid_of(two))
    log(one, key_of(b"unrecorded"), uuid_of(one), False)
    lose(one, key_of(b"stale"))
    log(one, key_of(b"lost"), ELSEWHERE, False)
    change(one, location_log(key_of(b"fine")), lambda content: content + b"rubbish\n")
    change(one, b"trust.log", lambda _: f"rubbish rubbish\n{ELSEWHERE} ? timestamp=1s\n".encode())
    change(one, b"numcopies.log", lambda content: content + b"1s many\n")
    change(one, b"uuid.log", lambda content: content + f"{ELSEWHERE} far away\n".encode())
    damage(one, key_of(b"short"))
    change(one, b"remote.log", lambda _: f"{ELSEWHERE} name=s3 timestamp=1s type=directory\n".encode())
    findings = look(one, two)
    assert {finding.problem for finding in findings} == set(Problem)

    for finding in findings:
        if finding.problem is not Problem.SOLE:
            subprocess.run(finding.command, shell=True, capture_output=True)  # fsck fails when it found something
    for finding in found(look(one, two), Problem.SOLE):
        subprocess.run(finding.command, shell=True, capture_output=True, check=True)

    assert look(one, two) == []


@pytest.mark.interop
@pytest.mark.parametrize("remotes", ["two", "one", ""])
async def test_the_commands_mend_what_others_know(pair: tuple[Path, Path], git_annex: str, remotes: str) -> None:
    one, two = pair
    for path, other in (pair, (two, one)):
        if other.name != remotes:
            subprocess.run(["git", "-C", path, "remote", "remove", other.name], check=True)
    await hold(one, b"gone", b"never said")
    await hold(two, b"gone", b"never said")
    for content in (b"gone", b"never said"):
        log(one, key_of(content), uuid_of(two))
        lose(two, key_of(content))
    log(two, key_of(b"gone"), uuid_of(two), False)
    change(two, location_log(key_of(b"never said")), lambda _: b"")

    stale = found(look(one, two), Problem.STALE)
    assert {finding.key for finding in stale} == {key_of(b"gone"), key_of(b"never said")}
    for finding in stale:
        subprocess.run(finding.command, shell=True, capture_output=True, check=True)

    assert found(look(one, two), Problem.STALE) == []


@pytest.mark.interop
async def test_what_only_a_dead_repository_has_is_fetched_from_there(pair: tuple[Path, Path], git_annex: str) -> None:
    one, two = pair
    await hold(two, b"a")
    log(one, key_of(b"a"), uuid_of(two))
    change(one, b"trust.log", lambda _: f"{uuid_of(two)} X timestamp=1s\n".encode())

    (lost,) = found(look(one), Problem.LOST)
    assert "dead" in lost.detail
    subprocess.run(lost.command, shell=True, capture_output=True, check=True)

    (sole,) = look(one)
    assert sole.problem is Problem.SOLE
    assert sole.command.endswith("--to REMOTE")  # a copy in a dead one is none
    subprocess.run(["git", "-C", two, "remote", "remove", "one"], check=True)
    lose(one, key_of(b"a"))
    log(one, key_of(b"a"), uuid_of(one), False)
    subprocess.run(["git", "-C", one, "remote", "remove", "two"], check=True)
    (lost,) = found(look(one), Problem.LOST)
    subprocess.run(lost.command, shell=True, capture_output=True, check=True)
    assert look(one) == []
