"""How ``annexpy-shell`` ends when it may not go on. A module of its own, because it is needed before all others."""

from __future__ import annotations

__all__ = ["Refusal"]


class Refusal(Exception):
    """Said on stderr, and the end, with exit *code*."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)
