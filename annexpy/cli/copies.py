"""The options of commands that give copies up: where other copies are, and how many must stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from annexpy.cli.places import REMOTE

__all__ = ["Wanted", "copies_options"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says about copies.

    Attributes:
        others: Remotes that --other names.
        numcopies, mincopies: None where the repository decides.
        force: Remove without any proof.
    """

    others: tuple[str, ...] = ()
    numcopies: int | None = None
    mincopies: int | None = None
    force: bool = False


def copies_options(function: Callable[..., object]) -> Callable[..., object]:
    """Add --other, -N, --mincopies and --force, handed over as ``wanted``."""

    @wraps(function)
    def command(
        *args: Any,  # whatever else click hands over
        others: tuple[str, ...],
        numcopies: int | None,
        mincopies: int | None,
        force: bool,
        **kwargs: Any,
    ) -> object:
        return function(*args, wanted=Wanted(others, numcopies, mincopies, force), **kwargs)

    decorated: Callable[..., object] = command
    for option in (
        click.option("--force", is_flag=True, help="Remove without any proof. What is lost then is lost."),
        click.option("--mincopies", type=click.IntRange(1), metavar="N", help="Copies that must be locked meanwhile."),
        click.option("-N", "--numcopies", type=click.IntRange(1), metavar="N", help="Copies that must stay."),
        click.option("--other", "others", multiple=True, type=REMOTE, metavar="REMOTE", help="Where another copy is."),
    ):
        decorated = option(decorated)
    return decorated
