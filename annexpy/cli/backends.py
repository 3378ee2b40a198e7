"""--backend as a kind of option: checked before anything is done, completed from what annexpy can compute."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from annexpy.errors import Refused

__all__ = ["BACKEND"]

if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:  # older ones are no generics
    _Text = click.ParamType


class _Backend(_Text):
    name = "backend"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from annexpy.keys.backend import Hasher

        if value != "WORM":
            try:
                Hasher(os.fsencode(value))
            except Refused as error:
                self.fail(f"{error}. {', '.join(_computable())} are.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _computable() if name.startswith(incomplete.upper())]


def _computable() -> list[str]:
    """Backends whose keys can be made here."""
    from annexpy.keys.backend import BACKENDS
    from annexpy.keys.hashes import COMPUTABLE

    hashes = [one.name.decode() for one in BACKENDS.values() if one.hash in COMPUTABLE and one.name != b"GITBUNDLE"]
    return [*sorted(hashes), "WORM"]


BACKEND = _Backend()
"""For ``click.option``."""
