"""How many copies the files of a dataset ask for that nobody has checked out: by the history of a bare repository.

Which node needs which key is not looked up there: the most that any file of any branch asks for holds for every key. So
a job may keep more copies than it had to, and never fewer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final

import annexpy as annex
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.gates import git

__all__ = ["Floor", "floor_of"]

Floor = tuple[int, str]
"""How many copies, and who asks for them; 0: nobody does."""
_ASKS: Final = (  # who, in which files, what git looks for there, and the number in it
    ("a node", ("*.md", "*.json"), "numcopies-required", rb"numcopies-required[\"']?\s*:\s*[\"']?(\d{1,9})"),
    (".gitattributes", ("*.gitattributes",), "annex.*copies=", rb"annex\.(?:num|min)copies=(\d{1,9})"),
)
_NONE_FOUND: Final = 1
"""What git grep ends with, then."""


def floor_of(repository: annex.Repository) -> Floor:
    """The most copies that the files in any branch of a bare *repository* ask for.

    Raises:
        GraphError: git cannot read it.
        ConfigError: How the dataset is set up is malformed, so nobody knows.
    """
    root = repository.git_dir.decode("utf-8", "surrogateescape")
    listed = git(Path(root), "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads").decode()
    heads = {line.split(" ", 1)[0] for line in listed.splitlines() if not line.endswith(" refs/heads/git-annex")}
    return _floor(root, tuple(sorted(heads)))


@lru_cache(maxsize=8)
def _floor(root: str, commits: tuple[str, ...]) -> Floor:
    most: Floor = (0, "")
    if not commits:
        return most
    for who, files, word, number in _ASKS:
        said = git(Path(root), "grep", "-h", "-I", "-e", word, *commits, "--", *files, fine=(0, _NONE_FOUND))
        most = max(most, *((int(found), who) for found in re.findall(number, said)), (0, ""))
    for blob in {_config(root, commit) for commit in commits} - {""}:
        text = git(Path(root), "cat-file", "blob", blob).decode("utf-8", "replace")
        classes = Config.parse(text, f"{root}: {CONFIG_NAME}").numcopies
        most = max(most, *((copies, f"storage class {of.value}") for of, copies in classes.items()))
    return most


def _config(root: str, commit: str) -> str:
    """The blob of the dataset's configuration; empty where it has none."""
    entry = git(Path(root), "ls-tree", commit, "--", CONFIG_NAME).decode().split()
    return entry[2] if len(entry) > 2 and entry[1] == "blob" else ""
