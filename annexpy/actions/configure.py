"""Configure: what ``git annex numcopies``, ``mincopies``, ``group``, ``wanted``, ``required``, ``maxsize`` and
``initremote`` write.

Into the repository's own git-annex branch, so that git-annex and everybody who syncs with it agrees.
What is recorded is read with ``Facts`` and ``Wanted``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from annexpy.errors import InvalidInput
from annexpy.logs.line import whole_seconds
from annexpy.logs.paths import Log
from annexpy.logs.preferred import PREFERRED_CONTENT, REQUIRED_CONTENT
from annexpy.logs.remotes import SPECIAL_REMOTES
from annexpy.logs.repos import DESCRIPTIONS, GROUPS, MAXSIZES
from annexpy.logs.settings import MINCOPIES, NUMCOPIES
from annexpy.policy.expression import parse as parse_expression
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["configure"]

_NOTHING: Final[Mapping[UUID, Any]] = MappingProxyType({})  # of every type


def configure(
    repository: Repository,
    *,
    numcopies: int | None = None,
    mincopies: int | None = None,
    descriptions: Mapping[UUID, str] = _NOTHING,
    groups: Mapping[UUID, Collection[str]] = _NOTHING,
    wanted: Mapping[UUID, str] = _NOTHING,
    required: Mapping[UUID, str] = _NOTHING,
    maxsizes: Mapping[UUID, int] = _NOTHING,
    special_remotes: Mapping[UUID, Mapping[str, str]] = _NOTHING,
) -> None:
    """Queue settings in the branch of *repository*; what is that way already is not written again.

    They are on disk after ``repository.branch.sync``, and for others to fetch after ``commit``.

    Args:
        repository: Whose branch.
        numcopies, mincopies: Of all repositories together; None leaves them.
        descriptions: What each repository is called.
        groups: All groups that each is in; an empty collection takes it out of every group.
        wanted, required: Preferred and required content expressions; empty for none.
        maxsizes: Bytes that each is to hold at most.
        special_remotes: ``name``, ``type``, ``encryption`` and what else the type of each has.

    Raises:
        InvalidInput: A number out of range, or a group with a blank in it. Nothing is queued then.
        InvalidExpression: Not an expression. Nothing is queued then.
    """
    for expression in filter(None, (*wanted.values(), *required.values())):
        parse_expression(expression)
    for uuid, names in groups.items():
        if any(name.split() != [name] for name in names):
            raise InvalidInput(f"groups of {uuid}", " ".join(names), "words without blanks")
    for name, number in (("numcopies", numcopies), ("mincopies", mincopies)):
        if number is not None and not 1 <= number < 2**63:
            raise InvalidInput(name, number, "from 1 to 2^63-1")
    for uuid, size in maxsizes.items():
        if not 0 <= size < 2**63:
            raise InvalidInput(f"maxsize of {uuid}", size, "from 0 to 2^63-1 bytes")
    now, branch = whole_seconds(repository.clock.wall()), repository.branch
    for path, log, copies in ((Log.NUMCOPIES, NUMCOPIES, numcopies), (Log.MINCOPIES, MINCOPIES, mincopies)):
        if copies is not None and log.parse(branch.read(path.value)) != copies:
            branch.change(path.value, partial(log.set, number=copies, now=now))
    # Any: each log takes its own kind of value
    settings: tuple[tuple[Log, Any, Mapping[UUID, Any]], ...] = (
        (Log.UUID, DESCRIPTIONS, descriptions),
        (Log.GROUP, GROUPS, {uuid: frozenset(names) for uuid, names in groups.items()}),
        (Log.PREFERRED_CONTENT, PREFERRED_CONTENT, wanted),
        (Log.REQUIRED_CONTENT, REQUIRED_CONTENT, required),
        (Log.MAXSIZE, MAXSIZES, maxsizes),
        (Log.REMOTE, SPECIAL_REMOTES, special_remotes),
    )
    for path, by_uuid, values in settings:
        known = by_uuid.parse(branch.read(path.value)) if values else {}
        for uuid, value in values.items():
            # nothing said and an empty value are the same, but for a size
            if known.get(uuid, value if value in ("", frozenset()) else None) != value:
                branch.change(path.value, partial(by_uuid.set, field=uuid, value=value, now=now))
