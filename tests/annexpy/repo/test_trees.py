"""Trees: parsed, formatted and edited as git does it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annexpy.errors import RepositoryError
from annexpy.repo.files import DiskFiles
from annexpy.repo.objects import Objects
from annexpy.repo.pack import BLOB, ObjectWriter
from annexpy.repo.settings import Lockdown
from annexpy.repo.treeedit import TreeEdit
from annexpy.repo.trees import EMPTY_TREE, FILE, FOLDER, TreeCache, format_tree, parse_tree


def git(where: str | Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout


@contextmanager
def repository() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        git(path, "init", "-q", "--bare")
        yield path


# names that sort differently as files and as folders, and one level, and none
NAMES = st.sampled_from(["a", "a-", "a.b", "a0", "ab", "b", "zz"])
PATHS = st.one_of(
    st.sampled_from(["uuid.log", "x.log"]),
    st.tuples(NAMES, NAMES).map(lambda n: f"{n[0]}/{n[1]}.log"),
    st.tuples(NAMES, NAMES, NAMES).map(lambda n: f"{n[0]}/{n[1]}/{n[2]}.log"),
)
EDITS = st.dictionaries(PATHS, st.binary(max_size=8), max_size=25)


def edit(path: str, tree: bytes, contents: dict[str, bytes]) -> bytes:
    files = DiskFiles(path)
    objects, writer = Objects(files), ObjectWriter(files, Lockdown(), sync=False)
    change = TreeEdit(objects, writer, tree)
    paths = sorted((name.encode() for name in contents), key=lambda name: name + b"\t")
    change.apply(paths, lambda at, old: contents[paths[at].decode()])
    new = change.finish()
    writer.finish()
    writer.done()
    objects.close()
    files.close()
    return new


@settings(max_examples=15, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=3))
def test_edited_trees_hold_what_was_written_and_git_finds_them_sound(rounds: list[dict[str, bytes]]) -> None:
    with repository() as path:
        tree, expected = EMPTY_TREE, {}
        for contents in rounds:
            tree = edit(path, tree, contents)
            expected |= {name: content for name, content in contents.items() if content or name in expected}
        if not expected:
            assert tree == EMPTY_TREE
            return
        names = git(path, "ls-tree", "-r", "-z", "--name-only", tree.hex()).split("\0")[:-1]
        assert set(names) == set(expected)
        git(path, "fsck", "--strict")
        objects = Objects(DiskFiles(path))
        cache = TreeCache(objects)
        for name, content in expected.items():
            assert cache.read(tree, name.encode()) == content
        assert cache.find(tree, b"nothing/here") is None
        assert cache.find(tree, b"uuid.log/below") is None
        objects.close()


def test_leaving_everything_as_it_is_gives_the_old_tree() -> None:
    with repository() as path:
        contents = {"a/b/c.log": b"1", "x.log": b"2"}
        tree = edit(path, EMPTY_TREE, contents)
        before = sorted(Path(path, "objects").rglob("*"))

        assert edit(path, tree, contents) == tree
        assert sorted(Path(path, "objects").rglob("*")) == before


def test_something_stored_already_is_put_in_without_being_read() -> None:
    with repository() as path:
        part = edit(path, EMPTY_TREE, {"d/e.log": b"1"})
        files = DiskFiles(path)
        objects, writer = Objects(files), ObjectWriter(files, Lockdown(), sync=False)
        change = TreeEdit(objects, writer, EMPTY_TREE)
        blob = writer.add(BLOB, b"blob")
        change.apply([b"new", b"z.log"], lambda at, old: [(FOLDER, part), (FILE, blob)][at])
        tree = change.finish()
        writer.finish()

        assert git(path, "ls-tree", "-r", "--name-only", tree.hex()).split() == ["new/d/e.log", "z.log"]
        objects.close()


def test_a_file_where_a_directory_should_be_is_refused() -> None:
    with repository() as path:
        tree = edit(path, EMPTY_TREE, {"a": b"1", "b/c": b"2"})

        with pytest.raises(RepositoryError, match="b'a' is a file"):
            edit(path, tree, {"a/x.log": b"1"})
        with pytest.raises(RepositoryError, match="b'b' is a directory"):
            edit(path, tree, {"b": b"1"})


@given(
    st.dictionaries(st.binary(min_size=1, max_size=5).filter(lambda n: b"\0" not in n and b"/" not in n), st.booleans())
)
def test_trees_are_parsed_as_they_were_formatted(names: dict[bytes, bool]) -> None:
    entries = {name: (FOLDER if folder else FILE, bytes(range(20))) for name, folder in names.items()}

    raw = format_tree(entries)

    assert parse_tree(raw) == entries
    order = [name + (b"/" if mode == FOLDER else b"") for name, (mode, _) in parse_tree(raw).items()]
    assert order == sorted(order)


def test_the_cache_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with repository() as path:
        tree = edit(path, EMPTY_TREE, {f"{n:03x}/0/k.log": b"%d" % n for n in range(60)})
        monkeypatch.setattr("annexpy.repo.trees._KEPT", 20)
        objects = Objects(DiskFiles(path))
        cache = TreeCache(objects)
        for n in range(60):
            assert cache.read(tree, f"{n:03x}/0/k.log".encode()) == b"%d" % n
            assert len(cache._raw) <= 21
        objects.close()


@pytest.mark.parametrize("raw", [b"1" * 1_000_000, b"1 1" * 300_000, b"100644 a\0" + b"x" * 20 + b"1 " * 300_000])
def test_what_is_no_tree_is_refused_after_one_look_at_it(raw: bytes) -> None:
    with pytest.raises(RepositoryError, match="not a tree"):
        parse_tree(raw)
