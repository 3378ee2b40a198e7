"""What ``drop`` and ``move`` share: who else may have copies, and how many must stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import click

from annexpy.actions.facts import Facts
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.policy.trust import TrustLevel
from annexpy.uuids import UUID

__all__ = ["Rules", "copies_options", "rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments of a drop that come from the repository, or from the command line where there is none."""

    copies: Copies | Callable[[Key], Copies]
    trust: Mapping[UUID, TrustLevel] | None
    recorded: Callable[[Key], Mapping[UUID, str]] | None
    nodes: Mapping[UUID, Collection[UUID]] | None


def rules(facts: Facts | None, numcopies: int | None, mincopies: int | None) -> Rules:
    """From the repository's knowledge; without a repository numcopies and mincopies are 1 unless given."""
    if facts is None:
        given = Copies(
            numcopies or 1, mincopies or 1, "-N" if numcopies else "default", "--mincopies" if mincopies else "default"
        )
        return Rules(given, None, None, None)
    return Rules(facts.copies, facts.trust, facts.recorded, facts.clusters)


def copies_options(function: Callable[..., object]) -> Callable[..., object]:
    """``--other``, ``-N``, ``--mincopies``, ``--force`` and ``--batch``."""
    for option in (
        click.option("--batch", is_flag=True, help="Read keys from standard input, one a line."),
        click.option("--force", is_flag=True, help="Remove without any proof. This can lose the last copy."),
        click.option("--mincopies", type=click.IntRange(1), metavar="N", help="Copies that must be locked."),
        click.option("-N", "--numcopies", type=click.IntRange(1), metavar="N", help="Copies that must stay."),
        click.option(
            "--other",
            "others",
            multiple=True,
            metavar="REMOTE",
            help="Where other copies may be (every git remote, and here).",
        ),
    ):
        function = option(function)
    return function
