"""Repositories shown to others: over any transport, over HTTP, and as ``annexpy-shell``.

Nothing is imported until a name is used: the shell runs once per connection, and this package comes first.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from annexpy.server.asgi import ASGI
    from annexpy.server.auth import Access, Role, Secret, User, Visitor
    from annexpy.server.authorized import AuthorizedKeys
    from annexpy.server.gateway import Gateway
    from annexpy.server.git import GitMount
    from annexpy.server.http import Routes, serve_http
    from annexpy.server.limits import Authenticate, Deadlines, LockQuota, ServerMode, Services
    from annexpy.server.places import Places
    from annexpy.server.process import ORDERS, one_of, prepare_process, run_server
    from annexpy.server.serve import serve as serve_remote
    from annexpy.server.shown import Mount, Shown, ShownRepositories
    from annexpy.server.ssh import SSHServer, host_key
    from annexpy.transport.http_exchange import Exchange
    from annexpy.transport.sockets import Listener, listen_tcp

__all__ = [
    "ASGI",
    "ORDERS",
    "Access",
    "Authenticate",
    "AuthorizedKeys",
    "Deadlines",
    "Exchange",
    "Gateway",
    "GitMount",
    "Listener",
    "LockQuota",
    "Mount",
    "Places",
    "Role",
    "Routes",
    "SSHServer",
    "Secret",
    "ServerMode",
    "Services",
    "Shown",
    "ShownRepositories",
    "User",
    "Visitor",
    "host_key",
    "listen_tcp",
    "one_of",
    "prepare_process",
    "run_server",
    "serve_http",
    "serve_remote",
]

_PLACES = {
    "ASGI": "annexpy.server.asgi",
    "Access": "annexpy.server.auth",
    "Authenticate": "annexpy.server.limits",
    "AuthorizedKeys": "annexpy.server.authorized",
    "Deadlines": "annexpy.server.limits",
    "Exchange": "annexpy.transport.http_exchange",
    "Gateway": "annexpy.server.gateway",
    "GitMount": "annexpy.server.git",
    "Listener": "annexpy.transport.sockets",
    "LockQuota": "annexpy.server.limits",
    "Mount": "annexpy.server.shown",
    "ORDERS": "annexpy.server.process",
    "Places": "annexpy.server.places",
    "Role": "annexpy.server.auth",
    "Routes": "annexpy.server.http",
    "SSHServer": "annexpy.server.ssh",
    "Secret": "annexpy.server.auth",
    "ServerMode": "annexpy.server.limits",
    "Services": "annexpy.server.limits",
    "Shown": "annexpy.server.shown",
    "ShownRepositories": "annexpy.server.shown",
    "User": "annexpy.server.auth",
    "Visitor": "annexpy.server.auth",
    "host_key": "annexpy.server.ssh",
    "listen_tcp": "annexpy.transport.sockets",
    "one_of": "annexpy.server.process",
    "prepare_process": "annexpy.server.process",
    "run_server": "annexpy.server.process",
    "serve_http": "annexpy.server.http",
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
