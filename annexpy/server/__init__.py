"""Repositories shown to others: over any transport, and as ``annexpy-shell``.

Nothing is imported until a name is used: the shell runs once per connection, and this package comes first.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from annexpy.server.limits import Authenticate, Deadlines, LockQuota, ServerMode, Services
    from annexpy.server.serve import serve as serve_remote

__all__ = [
    "Authenticate",
    "Deadlines",
    "LockQuota",
    "ServerMode",
    "Services",
    "serve_remote",
]

_PLACES = {
    "Authenticate": "annexpy.server.limits",
    "Deadlines": "annexpy.server.limits",
    "LockQuota": "annexpy.server.limits",
    "ServerMode": "annexpy.server.limits",
    "Services": "annexpy.server.limits",
    "serve_remote": "annexpy.server.serve:serve",
}
"""Name → module, or module:name where the two differ (the module ``serve`` has taken that name)."""


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'annexpy.server' has no attribute {name!r}")
    from importlib import import_module

    module, _, other = place.partition(":")
    value: object = getattr(import_module(module), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
