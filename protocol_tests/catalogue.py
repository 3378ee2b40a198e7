"""All requirements, in the order of their themes."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from protocol_tests.requirement import Requirement

__all__ = ["REQUIREMENTS", "THEMES"]

THEMES: Final = (
    "auth",
    "version",
    "checkpresent",
    "get",
    "put",
    "resume",
    "data_present",
    "lockcontent",
    "remove",
    "remove_before",
    "on_disk",
    "bypass",
    "services",
    "framing",
    "bad_input",
    "roles",
    "clusters",
    "broken_nodes",
    "gateways",
    "http_answers",
    "http_transfers",
    "http_locks",
    "http_slots",
    "http_gateways",
    "http_roles",
    "http_credentials",
    "http_tls",
    "made_up",
)
"""The modules of ``protocol_tests.checks``."""


def _all() -> tuple[Requirement, ...]:
    found = []
    for theme in THEMES:
        module = import_module(f"protocol_tests.checks.{theme}")
        here = [value for value in vars(module).values() if isinstance(value, Requirement)]
        found += sorted((one for one in here if one.check.__module__ == module.__name__), key=lambda one: one.id)
    return tuple(found)


REQUIREMENTS: Final = _all()
"""The list."""
