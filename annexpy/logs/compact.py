"""Every log of the branch, written anew as git-annex would: the registry of the modules beside this one.

Source: fact sheet repository-format, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from annexpy.logs import preferred, remotes, repos, settings
from annexpy.logs.line import log_lines
from annexpy.logs.metadata import compact_metadata
from annexpy.logs.paths import Log
from annexpy.logs.presence import compact_presence
from annexpy.logs.transitions import compact_transitions

__all__ = ["COMPACT", "malformed_lines"]

COMPACT: Final[Mapping[Log, Callable[[bytes], bytes]]] = {
    Log.UUID: repos.DESCRIPTIONS.compact,
    Log.REMOTE: remotes.SPECIAL_REMOTES.compact,
    Log.TRUST: repos.TRUST.compact,
    Log.GROUP: repos.GROUPS.compact,
    Log.PREFERRED_CONTENT: preferred.PREFERRED_CONTENT.compact,
    Log.REQUIRED_CONTENT: preferred.REQUIRED_CONTENT.compact,
    Log.GROUP_PREFERRED_CONTENT: preferred.GROUP_PREFERRED_CONTENT.compact,
    Log.SCHEDULE: repos.SCHEDULES.compact,
    Log.ACTIVITY: repos.ACTIVITIES.compact,
    Log.DIFFERENCE: repos.DIFFERENCES.compact,
    Log.MULTICAST: repos.MULTICAST.compact,
    Log.CONFIG: settings.CONFIG.compact,
    Log.MAXSIZE: repos.MAXSIZES.compact,
    Log.PROXY: repos.PROXIES.compact,
    Log.CLUSTER: repos.CLUSTERS.compact,
    Log.EXPORT: remotes.EXPORTS.compact,
    Log.NUMCOPIES: settings.NUMCOPIES.compact,
    Log.MINCOPIES: settings.MINCOPIES.compact,
    Log.TRANSITIONS: compact_transitions,
    Log.LOCATION: compact_presence,
    Log.URL: compact_presence,
    Log.EQUIVALENT_KEY: compact_presence,
    Log.CHUNK: remotes.CHUNKS.compact,
    Log.REMOTE_STATE: remotes.REMOTE_STATES.compact,
    Log.CONTENT_IDENTIFIER: remotes.CONTENT_IDENTIFIERS.compact,
    Log.METADATA: compact_metadata,
    Log.REMOTE_METADATA: compact_metadata,
}
"""How a log is written with only the lines that count. None raises, whatever the content."""


def malformed_lines(log: Log, content: bytes) -> list[bytes]:
    """The lines that are no lines of that log: readers pass over them, and the next rewrite drops them."""
    return [line for line in log_lines(content) if not COMPACT[log](line)]
