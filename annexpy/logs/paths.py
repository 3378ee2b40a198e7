"""Which path of the git-annex branch is which log, and the name it has in the journal.

Every log merges by ``line.union_merge``; what differs is how its lines are read (``Format``). A per-key log
is only one when it lies in the hash directory of its key: git-annex does not see it elsewhere (measured).

Source: fact sheet repository-format, sections 1, 3 and 4; vectors escaping.json.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, hash_dir_lower, key_file

__all__ = ["FORMATS", "Format", "Log", "branch_path", "identify", "journal_file", "key_log", "log_key"]


class Format(Enum):
    """How the lines of a log are read."""

    PRESENCE = "presence"  # CLOCK STATUS INFO: logs/presence.py
    UUID_BASED = "uuid-based"  # UUID VALUE timestamp=CLOCK: logs/uuidbased.py
    MAP = "map"  # CLOCK FIELD VALUE: logs/uuidbased.py
    SINGLE = "single value"  # CLOCK VALUE: logs/settings.py
    METADATA = "metadata"  # CLOCK FIELD +VALUE -VALUE …: logs/metadata.py
    TRANSITIONS = "transitions"  # NAME CLOCK: logs/transitions.py


class Log(Enum):
    """A log of the branch. The value is its path, or what follows the key in the path of a per-key log."""

    UUID = b"uuid.log"
    REMOTE = b"remote.log"
    TRUST = b"trust.log"
    GROUP = b"group.log"
    PREFERRED_CONTENT = b"preferred-content.log"
    REQUIRED_CONTENT = b"required-content.log"
    GROUP_PREFERRED_CONTENT = b"group-preferred-content.log"
    SCHEDULE = b"schedule.log"
    ACTIVITY = b"activity.log"
    DIFFERENCE = b"difference.log"
    MULTICAST = b"multicast.log"
    CONFIG = b"config.log"
    MAXSIZE = b"maxsize.log"
    PROXY = b"proxy.log"
    CLUSTER = b"cluster.log"
    EXPORT = b"export.log"
    NUMCOPIES = b"numcopies.log"
    MINCOPIES = b"mincopies.log"
    TRANSITIONS = b"transitions.log"
    LOCATION = b".log"
    URL = b".log.web"
    EQUIVALENT_KEY = b".log.ek"
    CHUNK = b".log.cnk"
    REMOTE_STATE = b".log.rmt"
    CONTENT_IDENTIFIER = b".log.cid"
    METADATA = b".log.met"
    REMOTE_METADATA = b".log.rmet"

    @property
    def per_key(self) -> bool:
        """True for a log of which every key has its own."""
        return self.value.startswith(b".")


FORMATS: Final = {
    Log.UUID: Format.UUID_BASED,
    Log.REMOTE: Format.UUID_BASED,
    Log.TRUST: Format.UUID_BASED,
    Log.GROUP: Format.UUID_BASED,
    Log.PREFERRED_CONTENT: Format.UUID_BASED,
    Log.REQUIRED_CONTENT: Format.UUID_BASED,
    Log.GROUP_PREFERRED_CONTENT: Format.MAP,
    Log.SCHEDULE: Format.UUID_BASED,
    Log.ACTIVITY: Format.UUID_BASED,
    Log.DIFFERENCE: Format.UUID_BASED,
    Log.MULTICAST: Format.UUID_BASED,
    Log.CONFIG: Format.MAP,
    Log.MAXSIZE: Format.MAP,
    Log.PROXY: Format.MAP,
    Log.CLUSTER: Format.MAP,
    Log.EXPORT: Format.MAP,
    Log.NUMCOPIES: Format.SINGLE,
    Log.MINCOPIES: Format.SINGLE,
    Log.TRANSITIONS: Format.TRANSITIONS,
    Log.LOCATION: Format.PRESENCE,
    Log.URL: Format.PRESENCE,
    Log.EQUIVALENT_KEY: Format.PRESENCE,
    Log.CHUNK: Format.MAP,
    Log.REMOTE_STATE: Format.MAP,
    Log.CONTENT_IDENTIFIER: Format.MAP,
    Log.METADATA: Format.METADATA,
    Log.REMOTE_METADATA: Format.METADATA,
}
"""How each log is read."""

_TOP: Final = {log.value: log for log in Log if not log.per_key}
_PER_KEY: Final = {log.value: log for log in Log if log.per_key}


def key_log(key: Key, log: Log = Log.LOCATION, *, levels: int = 2) -> bytes:
    """The branch path of a log of *key*. *levels* is 1 where ``annex.tune.branchhash1`` is set."""
    return hash_dir_lower(key, levels) + key_file(key) + log.value


def log_key(path: bytes, log: Log = Log.LOCATION, *, levels: int = 2) -> Key | None:
    """The key whose *log* stands at *path*, or None when *path* is no such log.

    None too where git-annex would not look: not exactly *levels* directories, or not those of the key.
    """
    depth = 4 * levels
    if not path.endswith(log.value) or path.count(b"/") != levels:
        return None
    try:
        key = file_key(path[depth : -len(log.value)])
    except InvalidKey:
        return None
    # also refuses names that are escaped in another way than git-annex does
    return key if key_log(key, log, levels=levels) == path else None


def identify(path: bytes, *, levels: int = 2) -> tuple[Log, Key | None] | None:
    """What stands at *path*: the log and, for a per-key one, the key. None for anything else."""
    top = _TOP.get(path)
    if top is not None:
        return top, None
    suffix = b".log" if path.endswith(b".log") else path[path.rfind(b".log.") :]
    log = _PER_KEY.get(suffix)
    key = None if log is None else log_key(path, log, levels=levels)
    return None if log is None or key is None else (log, key)


def journal_file(path: bytes) -> bytes:
    """The name of *path* in ``annex/journal``."""
    return path.replace(b"_", b"__").replace(b"/", b"_")


def branch_path(name: bytes) -> bytes:
    """The branch path of a file of ``annex/journal``; the inverse of ``journal_file``."""
    return b"_".join([part.replace(b"_", b"/") for part in name.split(b"__")])
