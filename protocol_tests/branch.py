"""Writing the git-annex branch with plain git."""

from __future__ import annotations

from collections.abc import Mapping

from protocol_tests.place import Place, Unusable, git

__all__ = ["BRANCH", "record"]

BRANCH = "refs/heads/git-annex"
"""Where all repositories of an annex keep what they know."""


def record(place: Place, files: Mapping[str, str]) -> None:
    """Put *files* at the root of the branch of *place*, on top of what is there.

    Raises:
        Unusable: git refuses.
    """
    try:
        parent = git(place.path, "rev-parse", "--verify", "--quiet", BRANCH).strip()
    except Unusable:
        parent = ""
    entries = dict[str, str]()
    for line in git(place.path, "ls-tree", parent).splitlines() if parent else ():
        entries[line.partition("\t")[2]] = line
    for name, text in files.items():
        entries[name] = f"100644 blob {git(place.path, 'hash-object', '-w', '--stdin', given=text).strip()}\t{name}"
    tree = git(place.path, "mktree", given="".join(f"{entry}\n" for entry in entries.values())).strip()
    parents = ("-p", parent) if parent else ()
    git(place.path, "update-ref", BRANCH, git(place.path, "commit-tree", tree, *parents, "-m", "a cluster").strip())
