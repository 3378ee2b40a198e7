"""What a power cut may choose."""

from __future__ import annotations

__all__ = ["Choices"]


class Choices:
    """Every sequence of choices there is, one after the other; of many possible lengths three are tried."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.at = 0

    def __call__(self, below: int) -> int:
        tried = list(range(below)) if below <= 5 else [0, below // 2, below - 1]
        if self.at == len(self.taken):
            self.taken.append((0, len(tried)))
        which = min(self.taken[self.at][0], len(tried) - 1)  # a date that was written may have a digit less this time
        self.at += 1
        return tried[which]

    def next(self) -> bool:
        """Go to the next sequence; False after the last."""
        self.at = 0
        while self.taken:
            which, count = self.taken.pop()
            if which + 1 < count:
                self.taken.append((which + 1, count))
                return True
        return False
