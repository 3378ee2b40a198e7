"""A git remote as it is configured.

Source: git-config(1) ``remote.*``; the settings of git-annex are those of its manual page, "CONFIGURATION".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from annexpy.errors import InvalidInput
from annexpy.repo.gitconfig import boolean

__all__ = ["RemoteConfig"]


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """One git remote, as configured. Values that were not set are None.

    Attributes:
        name: As in ``remote.NAME.url``.
        url: Where to fetch from, after ``url.<base>.insteadOf``; None for special remotes.
        pushurl: Where to push to, when that differs.
        fields: Every ``remote.NAME.*`` setting, last value each, field names in lower case.
    """

    name: str
    url: str | None
    pushurl: str | None
    fields: Mapping[str, str]

    @property
    def has_contents(self) -> bool:
        """Contents there may be reached by annexpy: it has a url, or is a special remote of an offered type."""
        return self.url is not None or not self.fields.keys().isdisjoint(("annex-directory", "annex-s3"))

    def get(self, field: str) -> str | None:
        """The value of ``remote.NAME.FIELD``."""
        return self.fields.get(field)

    def is_set(self, field: str) -> bool:
        """The boolean ``remote.NAME.FIELD``, False when not set."""
        value = self.fields.get(field)
        return value is not None and boolean(f"remote.{self.name}.{field}", value)

    @property
    def uuid(self) -> str | None:
        """``annex-uuid``, or None when git-annex has not met the remote yet."""
        return self.fields.get("annex-uuid") or None

    @property
    def cost(self) -> int | None:
        """``annex-cost`` in whole numbers; git-annex allows fractions, which are cut off."""
        value = self.fields.get("annex-cost")
        try:
            return None if value is None else int(float(value))
        except ValueError:
            raise InvalidInput(f"remote.{self.name}.annex-cost", value, "a number") from None

    @property
    def ignore(self) -> bool:
        return self.is_set("annex-ignore")

    @property
    def readonly(self) -> bool:
        return self.is_set("annex-readonly")

    @property
    def private(self) -> bool:
        return self.is_set("annex-private")

    @property
    def trustlevel(self) -> str | None:
        """``annex-trustlevel``: trusted, untrusted, semitrusted, dead. Overrides trust.log."""
        return self.fields.get("annex-trustlevel")

    @property
    def shell(self) -> str | None:
        """``annex-shell``: what to run instead of ``git-annex-shell``."""
        return self.fields.get("annex-shell")

    @property
    def ssh_options(self) -> str | None:
        return self.fields.get("annex-ssh-options")

    @property
    def annex_url(self) -> str | None:
        """``annexUrl``: where the contents are, when git's own url does not lead there."""
        return self.fields.get("annexurl") or None

    @property
    def cluster_node(self) -> tuple[str, ...]:
        """Names of the clusters this remote is a node of (``annex-cluster-node``)."""
        return tuple(self.fields.get("annex-cluster-node", "").split())

    @property
    def proxy(self) -> bool:
        return self.is_set("annex-proxy")
