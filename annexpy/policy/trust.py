"""How far a repository is trusted to keep what it has.

Source: fact sheet repository-format, sections 3 (trust.log) and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from annexpy.logs.repos import TrustLevel
from annexpy.uuids import UUID

__all__ = ["TrustLevel", "trust_levels"]


_BY_WORD: Final = {level.value: level for level in TrustLevel}


def trust_levels(
    log: Mapping[UUID, TrustLevel], config: Iterable[tuple[UUID, str]] = (), trees: Iterable[UUID] = ()
) -> dict[UUID, TrustLevel]:
    """Trust levels of all repositories that somebody said something about.

    Args:
        log: trust.log.
        config: (UUID, value) of ``remote.NAME.annex-trustlevel``, which wins over the log. A word that
            is no level says nothing.
        trees: Special remotes that hold a tree (``exporttree``, ``importtree``): others may overwrite its files, so
            nobody can make them more than untrusted, as with git-annex.
    """
    levels = dict(log)
    for uuid, word in config:
        if word in _BY_WORD:
            levels[uuid] = _BY_WORD[word]
    for uuid in trees:
        if levels.get(uuid) is not TrustLevel.DEAD:
            levels[uuid] = TrustLevel.UNTRUSTED
    return levels
