"""How ``annexpy-shell`` ends when it may not go on. A module of its own, because it is needed before all others."""

from __future__ import annotations

__all__ = ["Refusal"]


class Refusal(Exception):
    """Said on stderr, and the end, with exit *code*; *bare* without the name of git-annex-shell before it."""

    def __init__(self, text: str, code: int = 1, *, bare: bool = False) -> None:
        self.code = code
        self.bare = bare
        super().__init__(text)

    @property
    def said(self) -> str:
        """For stderr."""
        return str(self) if self.bare else f"git-annex-shell: {self}\n\n"
