"""Protocols that remember what they have said of a class."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from annexpy.abilities import Ability


@runtime_checkable
class Sings(Protocol, metaclass=Ability):
    @property
    def voice(self) -> str: ...

    def sing(self) -> str: ...


class Bird:
    looks = 0

    @property
    def voice(self) -> str:
        type(self).looks += 1
        return "high"

    def sing(self) -> str:
        return "tweet"


class Fish:
    voice = "none"


def test_who_has_every_name_has_the_ability() -> None:
    assert isinstance(Bird(), Sings)
    assert not isinstance(Fish(), Sings)
    assert not isinstance(None, Sings)


def test_a_class_is_looked_at_once() -> None:
    assert all(isinstance(Bird(), Sings) for _ in range(3))
    looks = Bird.looks

    assert all(isinstance(Bird(), Sings) for _ in range(3))
    assert Bird.looks == looks


def test_a_subclass_may_have_more_than_its_parent() -> None:
    assert not isinstance(Fish(), Sings)

    class Singing(Fish):
        def sing(self) -> str:
            return "blub"

    assert isinstance(Singing(), Sings)
    assert not isinstance(Fish(), Sings)
