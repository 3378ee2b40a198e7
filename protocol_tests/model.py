"""The perfect repository: what a server must know after each request."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol_tests.keys import Content

__all__ = ["Model"]


@dataclass
class Model:
    """What is in a repository, by what its clients were told.

    Attributes:
        contents: The keys that play.
        there: Which of them are stored.
        begun: How many bytes of the others may have been received, at most.
        lockers: Which clients have locked them.
    """

    contents: tuple[Content, ...]
    there: set[bytes] = field(default_factory=set)
    begun: dict[bytes, int] = field(default_factory=dict)
    lockers: dict[bytes, set[int]] = field(default_factory=dict)

    def has(self, content: Content) -> bool:
        """It is stored."""
        return content.key in self.there

    def stored(self, content: Content) -> None:
        """A PUT was a success."""
        self.there.add(content.key)
        self.begun.pop(content.key, None)

    def received(self, content: Content, length: int) -> None:
        """A client vanished after *length* bytes at most."""
        self.begun[content.key] = max(length, self.begun.get(content.key, 0))

    def locked(self, content: Content) -> bool:
        """Somebody relies on it."""
        return bool(self.lockers.get(content.key))

    def lock(self, content: Content, client: int) -> None:
        """*client* relies on it."""
        self.lockers.setdefault(content.key, set()).add(client)

    def unlock(self, content: Content, client: int) -> None:
        """*client* does so no longer."""
        self.lockers.get(content.key, set()).discard(client)

    def removed(self, content: Content) -> None:
        """It is gone, and so is what was begun of it."""
        self.there.discard(content.key)
