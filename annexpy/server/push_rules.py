"""What a push may do to the git-annex branch when it comes from somebody who speaks for some repositories only.

Every line of the branch is about something: a repository, or a setting of all. The lines about somebody's own
repositories are theirs. About others a push may bring nothing that anybody would read differently afterwards: lines
that are known already, and older ones than those, which is what a union merge brings along. A client also notes what it
stored here or removed; such lines about *hosts* may be new, as long as they say what is known here anyway.

Pure: what is known and what is new are given; ``pre_receive`` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from annexpy.logs.line import CLOCK, SECOND, VectorClock, clock_from_parts, merge_lines, union_merge, whole_seconds
from annexpy.logs.metadata import current_metadata
from annexpy.logs.paths import FORMATS, Format, Log, identify
from annexpy.logs.presence import MISSING, parse_presence
from annexpy.patterns import regex
from annexpy.uuids import BITTORRENT, UUID, WEB

__all__ = ["LOCKED", "PushRules", "is_annex_branch", "ref_objection", "tree_objection"]

LOCKED: Final = frozenset(
    (
        Log.NUMCOPIES,
        Log.MINCOPIES,
        Log.CONFIG,
        Log.GROUP_PREFERRED_CONTENT,
        Log.TRUST,
        Log.PROXY,
        Log.CLUSTER,
        Log.DIFFERENCE,
        Log.TRANSITIONS,
    )
)
"""Settings of all, and what decides how much a copy counts."""

_AHEAD: Final = 60
"""Seconds that the clock of a client may be ahead."""
_NOBODY: Final[frozenset[bytes]] = frozenset()
_WEB: Final = frozenset((WEB.encode(), BITTORRENT.encode()))
"""Places whose presence is as public as the log of URLs."""
_CONTROL: Final = regex(rb"[\x00-\x1f\x7f]")
_PRESENCE: Final = regex(rb"%b ([01X]) (.*)" % CLOCK)
_UUID_BASED: Final = regex(rb"([A-Za-z0-9._-]+) (?:.* )?timestamp=%b" % CLOCK)
_MAP: Final = regex(rb"%b ([^ ]+)(?: .*)?" % CLOCK)
_METADATA: Final = regex(rb"%b (.+)" % CLOCK)
_OWNED: Final = frozenset(
    (
        Log.LOCATION,
        Log.MAXSIZE,
        Log.EXPORT,
        Log.CHUNK,
        Log.REMOTE_STATE,
        Log.CONTENT_IDENTIFIER,
        Log.REMOTE_METADATA,
        *(log for log, form in FORMATS.items() if form is Format.UUID_BASED),
    )
)
_SHARED: Final = frozenset((Log.URL, Log.EQUIVALENT_KEY, Log.METADATA))
"""About keys, and of everybody."""


@dataclass(frozen=True, slots=True)
class PushRules:
    """Whose lines a push may change.

    Attributes:
        uuids: Of the repositories for which who pushes may speak; None: for everybody.
        hosts: Of those that are served here: new lines about them have to say what is known.
        locked: Logs that may not change at all.
        levels: Of directories in the branch, as for ``key_log``.
    """

    uuids: frozenset[UUID] | None
    hosts: frozenset[UUID] = frozenset()
    locked: frozenset[Log] = LOCKED
    levels: int = 2


def is_annex_branch(ref: bytes) -> bool:
    """Does git-annex take *ref* for a git-annex branch, and merge it?"""
    return ref.endswith(b"/git-annex")


def ref_objection(ref: bytes) -> str:
    """Why a ref may not be pushed whatever it is, "" if it may: replacements would forge what git reads."""
    if ref.startswith((b"refs/heads/", b"refs/tags/", b"refs/synced/")):
        return ""
    return "only branches and tags may be pushed"


def tree_objection(path: bytes, known: bytes, new: bytes, rules: PushRules, *, now: float, replaces: bool) -> str:
    """Why a file of the git-annex branch may not change like this; "" if it may.

    Args:
        path: In the branch.
        known: What the git-annex branch has there; b"" when nothing.
        new: What was pushed.
        rules: Of who pushes.
        now: Seconds since 1970.
        replaces: It is to be the git-annex branch; else it is only going to be merged into that.
    """
    if rules.uuids is None:
        return ""
    before, after = set(merge_lines(known)), set(merge_lines(new))
    found = identify(path, levels=rules.levels)
    if found is None:
        return "no log of git-annex"
    log = found[0]
    added, removed = after - before, before - after
    if (log in rules.locked or (log not in _OWNED and log not in _SHARED)) and (added or (removed and replaces)):
        return "it holds for all repositories"
    mine = frozenset(uuid.encode() for uuid in rules.uuids)
    newest = _newest(log, before)
    for line in added:
        if reason := _line_objection(log, line, newest, known, rules, mine, now):
            return f"{line[:200]!r}: {reason}"
    if replaces and (reason := _removal_objection(log, removed, newest, known, new, mine)):
        return reason
    return _order_objection(known, new if replaces else union_merge(known, new), mine) if log is Log.LOCATION else ""


class _Claim(NamedTuple):
    """What a line is about: whom, and which field, since when."""

    owners: frozenset[bytes]
    field: bytes
    clock: VectorClock
    status: bytes = b""


def _line_objection(
    log: Log,
    line: bytes,
    newest: dict[tuple[frozenset[bytes], bytes], VectorClock],
    known: bytes,
    rules: PushRules,
    mine: frozenset[bytes],
    now: float,
) -> str:
    claim = None if _CONTROL.search(line) else _claim(log, line)
    if claim is None or (log in _OWNED and not claim.owners):
        return "no line of this log"
    if claim.owners <= mine:  # also when it is about nobody
        return ""
    last = newest.get((claim.owners, claim.field))
    if last is not None and claim.clock < last:
        return ""
    if log is Log.LOCATION and claim.owners <= _WEB:
        return ""
    others = b" ".join(sorted(claim.owners - mine)).decode("ascii", "backslashreplace")
    if log not in (Log.LOCATION, Log.ACTIVITY) or not claim.owners <= {uuid.encode() for uuid in rules.hosts}:
        return f"not about a repository of yours, but about {others}"
    if claim.clock > whole_seconds(now) + _AHEAD * SECOND:
        return f"about {others}, from the future"
    if log is Log.LOCATION:
        _, status = parse_presence(known).get(next(iter(claim.owners)), (None, MISSING))
        if claim.status != status:
            return f"{others} itself knows better"
    return ""


def _removal_objection(
    log: Log,
    removed: set[bytes],
    newest: dict[tuple[frozenset[bytes], bytes], VectorClock],
    known: bytes,
    new: bytes,
    mine: frozenset[bytes],
) -> str:
    if log is Log.METADATA:
        same = not removed or current_metadata(new) == current_metadata(union_merge(known, new))
        return "" if same else "metadata may be added and changed, but not forgotten"
    remaining = _newest(log, set(merge_lines(new)))
    for line in removed:
        claim = _claim(log, line)
        if claim is None or (claim.owners and claim.owners <= mine):
            continue
        at = claim.owners, claim.field
        left = remaining.get(at)
        if left is None or left < newest[at]:
            return f"{line[:200]!r}: a line that is not yours is missing"
    return ""


def _order_objection(known: bytes, after: bytes, mine: frozenset[bytes]) -> str:
    """Of two lines of the same time the first one counts, so their order says something too."""
    says = parse_presence(after)
    for uuid, (clock, status) in parse_presence(known).items():
        if uuid not in mine and uuid in says and says[uuid][0] == clock and says[uuid][1] != status:
            return f"about {uuid.decode('ascii', 'backslashreplace')}, otherwise than before"
    return ""


def _newest(log: Log, lines: set[bytes]) -> dict[tuple[frozenset[bytes], bytes], VectorClock]:
    found: dict[tuple[frozenset[bytes], bytes], VectorClock] = {}
    for line in lines:
        claim = _claim(log, line)
        if claim is not None:
            at = claim.owners, claim.field
            if (old := found.get(at)) is None or old < claim.clock:
                found[at] = claim.clock
    return found


def _claim(log: Log, line: bytes) -> _Claim | None:
    """What *line* is about; None when it is no line of *log*."""
    match FORMATS[log]:
        case Format.PRESENCE:
            said = _PRESENCE.fullmatch(line)
            if said is None:
                return None
            clock = clock_from_parts(said[1], said[2] or b"")
            owners = frozenset((said[4],)) if log is Log.LOCATION else _NOBODY
            return _Claim(owners, said[4], clock, said[3])
        case Format.UUID_BASED:
            said = _UUID_BASED.fullmatch(line)
            if said is None:
                return None
            return _Claim(frozenset((said[1],)), b"", clock_from_parts(said[2], said[3] or b""))
        case Format.MAP:
            said = _MAP.fullmatch(line)
            if said is None:
                return None
            # "UUID" of most; FROM:TO of export.log; UUID:SIZE of chunks.
            owners = frozenset(said[3].split(b":") if log is Log.EXPORT else said[3].split(b":")[:1])
            return _Claim(owners, said[3], clock_from_parts(said[1], said[2] or b""))
        case Format.METADATA:
            said = _METADATA.fullmatch(line)
            if said is None:
                return None
            fields = sorted(word for word in said[3].split(b" ") if word[:1] not in (b"+", b"-"))
            owners = _NOBODY
            if log is Log.REMOTE_METADATA:
                owners = frozenset(field.partition(b":")[0] for field in fields)
            return _Claim(owners, b" ".join(fields), clock_from_parts(said[1], said[2] or b""))
        case _:
            return None
