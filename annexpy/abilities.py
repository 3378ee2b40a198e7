"""What an object can do besides the least that is asked of it: protocols to look for with ``isinstance``.

Before Python 3.12, ``isinstance`` with a protocol looks at every attribute of the object, each time: 5 to 10 µs, some
twenty times for one content. Here the answer is remembered for each class, so all objects of a class must agree.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Ability"]

_known: dict[tuple[type, type], bool] = {}


class Ability(type(Protocol)):  # type: ignore[misc]
    """The class of a runtime protocol whose ``isinstance`` remembers what it has said of a class."""

    def __instancecheck__(cls, instance: object) -> bool:
        known = _known.get((cls, type(instance)))
        if known is None:
            known = _known[cls, type(instance)] = super().__instancecheck__(instance)
        return known
