"""Dataclasses that cost nothing until they are used.

``dataclasses`` writes and compiles up to seven methods for every class while it is imported, used or not: 0.4 ms
a class, a quarter of the start of a command. Here ``__init__`` is compiled when the first value is made, and
the other methods are closures. To a type checker, and to ``dataclasses.fields``, ``asdict`` and ``replace``,
these are dataclasses like any other.

What is offered is what annexpy uses: slots always, ``frozen`` and ``order`` by choice, ``field`` with ``default``,
``default_factory`` and ``repr``. Annotations have to be strings (``from __future__ import annotations``).
"""

from __future__ import annotations

from operator import attrgetter, ge, gt, le, lt
from sys import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import dataclass, field, replace
    from typing import Any

__all__ = ["dataclass", "field", "replace"]

_NONE: Any = object()
"""No default."""


class _Field:
    __slots__ = ("default", "factory", "name", "repr")

    def __init__(self, default: object, factory: Callable[[], object] | None, repr: bool) -> None:
        self.name, self.default, self.factory, self.repr = "", default, factory, repr


class _Described:
    """What only ``dataclasses`` looks for, made when it does."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute

    def __get__(self, value: object, owner: Any) -> object:
        if self._attribute == "__signature__":
            return _signature(owner)
        import dataclasses

        made = next(base for base in owner.__mro__ if "__values__" in base.__dict__)
        fields: list[tuple[str, Any, Any]] = []
        for one in made.__values__:
            default: Any = dataclasses.MISSING if one.default is _NONE else one.default
            factory: Any = dataclasses.MISSING if one.factory is None else one.factory
            told = dataclasses.field(default=default, default_factory=factory, repr=one.repr)
            fields.append((one.name, _annotation(made, one.name), told))
        frozen = "__setattr__" in made.__dict__
        twin = dataclasses.make_dataclass(made.__name__, fields, frozen=frozen, slots=True)
        for name in ("__dataclass_fields__", "__dataclass_params__"):
            setattr(made, name, getattr(twin, name))
        return getattr(made, self._attribute)


def _signature(made: Any) -> object:
    """What ``inspect.signature`` would find, had ``__init__`` been written."""
    from inspect import signature

    if "__values__" not in made.__dict__:
        raise AttributeError("__signature__")
    whole = signature(_written_init(made))
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def _annotation(made: type, name: str) -> object:
    return next(base.__annotations__[name] for base in made.__mro__[:-1] if name in base.__annotations__)


if not TYPE_CHECKING:

    def field(*, default: Any = _NONE, default_factory: Any = None, repr: bool = True) -> Any:
        """What an attribute is if nothing is given for it, and whether ``repr`` shows it."""
        return _Field(default, default_factory, repr)

    def dataclass(*, frozen: bool = False, slots: bool, order: bool = False) -> Any:
        """Make a class one of values; *slots* is True."""
        assert slots
        return lambda cls: _value_class(cls, frozen, order)

    def replace(value: Any, **changes: Any) -> Any:
        """*value* with *changes*."""
        return type(value)(**{name: getattr(value, name) for name in value.__match_args__} | changes)


def _value_class(cls: Any, frozen: bool, order: bool) -> Any:
    own = {name: text for name, text in cls.__annotations__.items() if not text.startswith("ClassVar")}
    fields = {one.name: one for base in cls.__mro__[:0:-1] for one in base.__dict__.get("__values__", ())}
    space = dict(cls.__dict__)
    for name in ("__dict__", "__weakref__"):
        space.pop(name, None)
    space["__slots__"] = tuple(name for name in own if name not in fields)
    for name in own:
        default = space.pop(name, _NONE)
        one = default if isinstance(default, _Field) else _Field(default, None, repr=True)
        one.name = name
        fields[name] = one
    space["__values__"] = tuple(fields.values())
    space["__match_args__"] = tuple(fields)
    for name in ("__dataclass_fields__", "__dataclass_params__", "__signature__"):
        space[name] = _Described(name)
    for name, method in _methods(tuple(fields.values()), frozen, order):
        space.setdefault(name, method)
    if space.get("__hash__") is None and frozen:  # a class that says how it compares loses it
        space["__hash__"] = _hashing(tuple(fields))
    made = type(cls)(cls.__name__, cls.__bases__, space)
    made.__qualname__ = cls.__qualname__
    if "__init__" not in cls.__dict__:

        def __init__(self: object, *args: object, **named: object) -> None:
            made.__init__ = _written_init(made)
            made.__init__(self, *args, **named)

        made.__init__ = __init__
    return made


def _written_init(made: Any) -> Any:
    """``__init__`` with one parameter an attribute, as if written by hand."""
    space: dict[str, object] = {"_none": _NONE}
    frozen = "__setattr__" in made.__dict__
    parameters, lines = ["self"], []
    for one in made.__values__:
        name, value, parameter = one.name, one.name, one.name
        if one.factory is not None:
            space[f"_make_{name}"] = one.factory
            parameter, value = f"{name}=_none", f"_make_{name}() if {name} is _none else {name}"
        elif one.default is not _NONE:
            space[f"_default_{name}"] = one.default
            parameter = f"{name}=_default_{name}"
        parameters.append(parameter)
        if frozen:
            space[f"_set_{name}"] = getattr(made, name).__set__
        lines.append(f"  _set_{name}(self, {value})" if frozen else f"  self.{name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append("  self.__post_init__()")
    code = f"def write({', '.join(space)}):\n def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or "  pass")
    written: dict[str, Any] = {}
    # The names of the module, because whoever reads the annotations looks there.
    exec(f"{code}\n return __init__", getattr(modules.get(made.__module__), "__dict__", {}), written)
    init = written["write"](**space)
    init.__qualname__ = f"{made.__qualname__}.__init__"
    init.__annotations__ = {one.name: _annotation(made, one.name) for one in made.__values__} | {"return": None}
    return init


def _all(names: tuple[str, ...]) -> Callable[[Any], Any]:
    """Everything that two values are compared by."""
    return attrgetter(*names) if names else lambda value: ()


def _hashing(names: tuple[str, ...]) -> Callable[[object], int]:
    values = _all(names)
    return lambda self: hash(values(self))


def _methods(fields: tuple[_Field, ...], frozen: bool, order: bool) -> Iterable[tuple[str, object]]:
    names = tuple(one.name for one in fields)
    shown = tuple(one.name for one in fields if one.repr)
    values = _all(names)

    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __eq__(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return bool(values(self) == values(other))

    yield "__repr__", __repr__
    yield "__eq__", __eq__
    if order:
        for name, compare in (("__lt__", lt), ("__le__", le), ("__gt__", gt), ("__ge__", ge)):
            yield name, _comparison(values, compare)
    if frozen:
        yield "__setattr__", _refuse
        yield "__delattr__", _refuse
        yield "__getstate__", lambda self: [getattr(self, name) for name in names]
        yield "__setstate__", _set_state


def _comparison(values: Callable[[Any], Any], compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def method(self: object, other: object) -> bool:
        return compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented

    return method


def _refuse(self: object, name: str, *value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _set_state(self: Any, state: list[object]) -> None:
    for name, value in zip(self.__match_args__, state, strict=True):
        object.__setattr__(self, name, value)
