"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["dataset_option", "entries_json_option", "manifest_option"]

F = TypeVar("F", bound=Callable[..., Any])  # Any: a click command


def dataset_option(function: F) -> F:
    """``-C DATASET``."""
    folder = click.Path(exists=True, file_okay=False)
    return click.option("-C", "dataset", default=".", type=folder, help="The dataset (default: here).")(function)


def manifest_option(function: F) -> F:
    """``--manifest FILE``."""
    file = click.Path(exists=True, dir_okay=False)
    return click.option("--manifest", type=file, help="Default: the dataset's.")(function)


def entries_json_option(function: F) -> F:
    """``--json``, of a command that shows entries."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per entry.")(function)
