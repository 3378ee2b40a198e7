"""What a repository knows is what git-annex knows: where keys are, and how many copies must stay."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annexpy.actions.facts import Facts
from annexpy.actions.whereis import Location, Whereis, whereis, whereis_all, whereis_many
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, WEB, new_cluster_uuid

KEY = Key.parse(b"WORM-s1-m1--a")
A, B, C, D = (UUID(f"{letter * 8}-1111-4111-8111-111111111111") for letter in "abcd")
CLUSTER = new_cluster_uuid("12345678-1234-4234-9234-123456789012")


class Annex:
    """One repository, driven by the real git-annex."""

    def __init__(self, program: str, path: Path) -> None:
        self.program, self.path = program, path

    def __call__(self, *words: str, check: bool = True) -> str:
        run = subprocess.run([self.program, *words], cwd=self.path, capture_output=True, text=True, check=check)
        return run.stdout

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.path, capture_output=True, text=True, check=True).stdout

    def json(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json", check=False).splitlines()]


@pytest.fixture(scope="module")
def annexes(git_annex: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Annex]:
    """Copies of a pair of repositories: here, with two files of which each has a copy in there."""
    base = tmp_path_factory.mktemp("annexes")
    here, there = Annex(git_annex, base / "here"), Annex(git_annex, base / "there")
    for annex in (here, there):
        annex.path.mkdir()
        annex.git("init", "-q")
        annex("init", annex.path.name)
    (here.path / "sub").mkdir()
    for name, content in (("f", "1"), ("g", "1"), ("sub/h", "1"), ("x.dat", "2")):
        (here.path / name).write_text(content)
    here("add", ".")
    here.git("commit", "-qm", "files")
    here.git("remote", "add", "there", "../there")
    here("copy", "--to", "there", "--all")

    def copy(name: str) -> Annex:
        place = tmp_path_factory.mktemp(name)
        for repository in ("here", "there"):
            shutil.copytree(base / repository, place / repository, symlinks=True)
        return Annex(git_annex, place / "here")

    return copy


def as_git_annex_shows_it(found: Whereis) -> dict[str, Any]:
    def shown(locations: tuple[Location, ...]) -> list[dict[str, Any]]:
        return [
            {"description": one.description, "here": one.here, "urls": list(one.urls), "uuid": one.uuid}
            for one in locations
        ]

    return {
        "key": str(found.key),
        "success": found.ok,
        "whereis": shown(found.locations),
        "untrusted": shown(found.untrusted),
        "note": found.note,
    }


def compared(annex: Annex) -> int:
    """Compare all keys; how many there were."""
    theirs = {
        answer["key"]: {field: answer[field] for field in ("key", "success", "whereis", "untrusted", "note")}
        for answer in annex.json("whereis", "--all")
    }
    with Repository.open(annex.path) as repository:
        keys = [found.key for found in whereis_all(repository)]
        one_by_one = {str(key): as_git_annex_shows_it(whereis(repository, key)) for key in keys}
        many = {str(found.key): as_git_annex_shows_it(found) for found in whereis_many(repository, keys)}
        every = {str(found.key): as_git_annex_shows_it(found) for found in whereis_all(repository)}
    assert one_by_one == many == every
    for key, answer in theirs.items():
        assert every[key] == answer
    assert every.keys() == theirs.keys()
    return len(theirs)


@pytest.mark.interop
def test_whereis_is_that_of_git_annex_in_every_state(annexes: Callable[[str], Annex]) -> None:
    here = annexes("whereis")
    there = here.git("config", "remote.there.annex-uuid").strip()

    assert compared(here) == 2
    here("drop", "f", "g", "sub/h")
    compared(here)
    here("describe", "there", "a shelf")
    compared(here)
    here("untrust", "there")
    compared(here)
    here.git("config", "remote.there.annex-trustlevel", "trusted")
    compared(here)
    here.git("config", "--unset", "remote.there.annex-trustlevel")
    here("dead", "there")
    compared(here)
    here("semitrust", "there")
    here("addurl", "--relaxed", "--file=u", "http://127.0.0.1:1/a%20b")
    here("addurl", "--relaxed", "--file=u", "http://127.0.0.1:1/other")
    assert compared(here) == 3
    here("initcluster", "mycl")
    here.git("config", "remote.there.annex-cluster-node", "mycl")
    here.git("config", "remote.there.annex-proxy", "true")
    here("updatecluster")
    compared(here)
    here("setpresentkey", "WORM-s1-m1--lonely", there, "1")
    here("setpresentkey", "WORM-s1-m1--gone", there, "0")
    here("setpresentkey", "WORM-s1-m1--elsewhere", A, "1")
    assert compared(here) == 6


def test_whereis_of_what_nobody_knows(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        found = whereis(repository, KEY)

        assert found == Whereis(KEY)
        assert (found.ok, found.copies) == (False, 0)
        assert list(whereis_all(repository)) == []


def test_clusters_are_shown_and_are_no_copies(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True, description="me") as repository:
        branch = repository.branch
        branch.change(b"cluster.log", lambda content: content + f"1s {CLUSTER} {A} {B}\n".encode())
        branch.change(b"trust.log", lambda content: content + f"{B} X timestamp=1s\n{C} 0 timestamp=1s\n".encode())
        for uuid in (B, C, repository.uuid):
            branch.set_present(KEY, uuid, True)

        dead_node = whereis(repository, KEY)
        branch.set_present(KEY, A, True)
        living_node = whereis(repository, KEY)

        assert [one.uuid for one in dead_node.locations] == [repository.uuid]
        assert [one.uuid for one in dead_node.untrusted] == [C]
        assert living_node.copies == 2
        assert living_node.locations[0] == Location(CLUSTER, "")
        assert {str(one) for one in living_node.locations} >= {f"{repository.uuid} -- me [here]"}


def test_keys_that_are_given_up_are_not_among_all(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        repository.branch.set_presence(b"%b" % _log(KEY), A.encode(), b"X")

        assert list(whereis_all(repository)) == []


def _log(key: Key) -> bytes:
    from annexpy.keys.layout import location_log

    return location_log(key)


def test_names_of_places_are_never_empty(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True, description="me") as repository:
        facts = Facts(repository)

        assert facts.name(repository.uuid) == "me [here]"
        assert facts.name(A) == A
        assert facts.name(WEB) == "web"


# -- numcopies --


def needed(here: Annex, file: str, *words: str) -> int:
    """How many copies git-annex says are necessary to drop *file*."""
    note = here.json("drop", file, *words)[0].get("note", "")
    match = re.search(r"the (\d+) necessary copy|out of (\d+) necessary copies", note)
    assert match, note
    return int(match[1] or match[2])


def locks_needed(here: Annex, file: str, *words: str) -> int:
    """How many locked copies git-annex says are necessary, when one copy is enough for numcopies."""
    answer = here.json("drop", file, *words)[0]
    match = re.search(r"lock down (\d+) cop", answer.get("note", ""))
    if match is None:
        assert answer["success"], answer
        here("get", file)
        return 1
    return int(match[1])


def key_of(here: Annex, file: str) -> Key:
    return Key.parse(here("lookupkey", file).strip())


@pytest.mark.interop
def test_numcopies_come_from_where_git_annex_takes_them(annexes: Callable[[str], Annex]) -> None:
    here = annexes("numcopies")
    attributes = here.path / ".gitattributes"
    (here.path / "sub/.gitattributes").write_text("h annex.numcopies=6\n")
    here("drop", "--force", "--from", "there", "--all")
    here("get", "--all", check=False)

    def check(file: str, expected: int, numcopies: int | None = None) -> None:
        words = () if numcopies is None else (f"-N{numcopies}",)
        with Repository.open(here.path) as repository:
            ours = Facts(repository, numcopies=numcopies).copies(key_of(here, file))
        assert (ours.num, needed(here, file, *words)) == (expected, expected), ours

    check("x.dat", 1)
    here.git("config", "annex.numcopies", "4")
    check("x.dat", 4)
    here("numcopies", "2")
    check("x.dat", 2)
    attributes.write_text("*.dat annex.numcopies=5\nx.dat annex.mincopies=1\n")
    check("x.dat", 5)
    check("x.dat", 3, numcopies=3)
    check("x.dat", 1, numcopies=0)
    for value, expected in (("x", 2), ("0", 1), ("-1", 1), ("", 2), ("3abc", 3), ("(7)", 7)):
        attributes.write_text(f"*.dat annex.numcopies={value}\n")
        check("x.dat", expected)
    # f, g and sub/h have one key: the largest number counts, whichever file is named
    attributes.write_text("g annex.numcopies=3\n")
    check("f", 6)
    here.git("rm", "-q", "--cached", "sub/h")
    check("f", 3)
    here("numcopies", "4")
    check("g", 4)
    here("unlock", "g")
    attributes.write_text("g annex.numcopies=8\n")
    check("f", 8)
    (here.path / ".git/info/attributes").write_text("* annex.numcopies=9\n")
    check("f", 9)


@pytest.mark.interop
def test_mincopies_come_from_where_git_annex_takes_them(annexes: Callable[[str], Annex]) -> None:
    here = annexes("mincopies")
    attributes = here.path / ".gitattributes"

    def check(expected: int, mincopies: int | None = None) -> None:
        words = () if mincopies is None else (f"--mincopies={mincopies}",)
        with Repository.open(here.path) as repository:
            ours = Facts(repository, mincopies=mincopies).copies(key_of(here, "x.dat"))
        assert (ours.min, locks_needed(here, "x.dat", *words)) == (expected, expected), ours

    check(1)
    here.git("config", "annex.mincopies", "7")
    check(1)
    here("mincopies", "4")
    check(4)
    for value, expected in (("5", 5), ("x", 4), ("0", 1), ("2", 2)):
        attributes.write_text(f"*.dat annex.mincopies={value}\n")
        check(expected)
    check(3, mincopies=3)
    check(1, mincopies=0)


def test_a_bare_repository_has_no_attributes(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        repository.branch.change(b"numcopies.log", lambda content: b"1s 3\n")

        assert Facts(repository).copies(KEY) == Copies(3, 1, "numcopies.log", "default")
        assert Facts(repository).files(KEY) == []
        assert Facts(repository, numcopies=2, mincopies=2).copies(KEY).num_from == "command line"


def test_trust_and_clusters_are_read_from_branch_and_configuration(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r") as repository:
        os.truncate(tmp_path / "r/.git/config", os.path.getsize(tmp_path / "r/.git/config"))
        with (tmp_path / "r/.git/config").open("a") as config:
            config.write(f'[remote "b"]\n\turl = /b\n\tannex-uuid = {B}\n\tannex-trustlevel = trusted\n')
    with Repository.open(tmp_path / "r") as repository:
        repository.branch.change(b"trust.log", lambda _: f"{A} X timestamp=1s\n{B} 0 timestamp=1s\n".encode())
        repository.branch.change(b"cluster.log", lambda _: f"1s {CLUSTER} {A}\n1s {A} {B}\n".encode())
        facts = Facts(repository)

        assert dict(facts.trust) == {A: TrustLevel.DEAD, B: TrustLevel.TRUSTED}
        assert facts.trust_of(C) is TrustLevel.SEMITRUSTED
        assert facts.clusters == {CLUSTER: frozenset({A})}
        assert facts.recorded(KEY) == {}
        repository.branch.set_present(KEY, B, True)
        assert facts.recorded(KEY) == {B: "b"}


def test_a_special_remote_that_holds_a_tree_is_never_trusted(tmp_path: Path) -> None:
    kinds = {A: "exporttree=yes", B: "importtree=yes", C: "exporttree=yes versioning=yes", D: "exporttree=no"}
    lines = [f"{uuid} encryption=none name=n type=S3 {kind} timestamp=1s\n" for uuid, kind in kinds.items()]
    with Repository.init(tmp_path / "here", bare=True) as repository:
        branch = repository.branch
        branch.change(b"remote.log", lambda _: "".join(lines).encode())
        branch.change(b"trust.log", lambda _: "".join(f"{uuid} 1 timestamp=1s\n" for uuid in kinds).encode())
        for uuid in kinds:
            repository.config.set(f"remote.r{uuid[0]}.annex-uuid", uuid)
            repository.config.set(f"remote.r{uuid[0]}.annex-trustlevel", "trusted")
        trust = Facts(repository).trust
    assert trust == {
        A: TrustLevel.UNTRUSTED,
        B: TrustLevel.UNTRUSTED,
        C: TrustLevel.TRUSTED,
        D: TrustLevel.TRUSTED,
    }


def test_that_is_so_for_git_annex(annexes: Callable[[str], Annex]) -> None:
    annex = annexes("tree")
    (annex.path.parent / "tree").mkdir()
    annex("initremote", "tree", "type=directory", "directory=../tree", "exporttree=yes", "encryption=none")
    annex("trust", "--force", "tree")
    uuid = UUID(annex.git("config", "remote.tree.annex-uuid").strip())
    assert annex.json("info", "tree")[0]["trust"] == "untrusted"
    with Repository.open(annex.path) as repository:
        assert Facts(repository).trust[uuid] is TrustLevel.UNTRUSTED
