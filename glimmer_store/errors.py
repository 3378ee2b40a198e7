"""What glimmer_store refuses or fails to do, on top of ``annexpy``'s error tree.

::

    AnnexError
    └── StoreError        ConfigError · SidecarError · GraphError · SourceRefused · HashMismatch · Shortfall ·
                          ContentCold · TooManyRequests · TenantError

Every refusal carries a ``remedy``: what to do about it, as a line for a shell or as a sentence. For the errors of
``annexpy`` see ``remedies.remedy_of``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import ClassVar

from annexpy import AnnexError

__all__ = [
    "ConfigError",
    "ContentCold",
    "GraphError",
    "HashMismatch",
    "Shortfall",
    "SidecarError",
    "SourceRefused",
    "StoreError",
    "TenantError",
    "TooManyRequests",
    "shell_line",
]


AGAIN = "see that each place named can be used, then run the same command again: it completes what is missing"


def shell_line(*words: object) -> str:
    """*words* as a line that a shell takes apart into them again."""
    return shlex.join(str(word) for word in words)


class StoreError(AnnexError):
    """Archiving was refused or did not get far enough.

    Attributes:
        usual: What to do where nothing better is known.
        remedy: What to do: a line for a shell, or a sentence.
    """

    usual: ClassVar[str] = "correct what is named, then run the same command again"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.remedy = remedy or self.usual
        super().__init__(message)


class ConfigError(StoreError):
    """The dataset is not set up for glimmer_store, or its configuration is malformed."""


class SidecarError(StoreError):
    """A Glimmer node file cannot be read, or cannot be edited without touching foreign bytes."""

    usual = "mend the file (git log -p -- FILE shows what it was), then run the same command again"


class GraphError(StoreError):
    """The node would not fit the graph: a malformed id, or an edge to a node that does not exist."""


class SourceRefused(StoreError):
    """The output lies where it would not outlive the job: a temporary folder, or outside the dataset."""


class TenantError(StoreError):
    """What is asked of a server's tenants cannot be: none of that name, a name that is taken, an old invitation."""

    usual = "correct what is named, then ask again"


class HashMismatch(StoreError):
    """The content is not what the node says it is (``output-hash``)."""


class Shortfall(StoreError):
    """Fewer copies were proven than the storage class needs. What was stored stays and is recorded.

    Attributes:
        key: The key, as text.
        copies, needed: Proven copies, and how many the class asks for.
        failed: Durable remote → why it has no proven copy.
    """

    def __init__(self, key: str, copies: int, needed: int, failed: Mapping[str, str], *, remedy: str = AGAIN) -> None:
        self.key, self.copies, self.needed, self.failed = key, copies, needed, dict(failed)
        reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
        super().__init__(
            f"{key}: {copies} of {needed} copies proven" + (f" ({reasons})" if reasons else ""), remedy=remedy
        )


class ContentCold(StoreError):
    """The content is there, in a cold tier, and cannot be read before it is brought up.

    Attributes:
        key: The key, as text.
        remote: Which remote has it.
        state: ``cold``, ``warming`` or ``expired``.
    """

    def __init__(self, key: str, remote: str, state: str) -> None:
        self.key, self.remote, self.state = key, remote, state
        super().__init__(
            f"{remote}: {key} is {state}",
            remedy="a backfill job with [warm] settings brings it up; see docs/jobs-launch.md",
        )


class TooManyRequests(StoreError):
    """A remote takes no more requests for now; nothing was asked for, and nothing has to be paid."""

    retryable = True
    usual = "wait, then run the same command again"

    def __init__(self, remote: str, limit: int | None = None) -> None:
        self.remote, self.limit = remote, limit
        super().__init__(f"{remote}: too many requests{'' if limit is None else f', {limit} at once'}")
