"""``annexpy matchexpression``: does an expression match?"""

from __future__ import annotations

import os

import click

from annexpy.cli.options import Options, as_command

__all__ = ["command"]

_CANNOT_SAY = 42


@as_command("matchexpression")
@click.argument("expression", metavar="EXPR")
@click.option("--key", "key_text", metavar="KEY", help="The key to match against.")
@click.option("--file", "file", metavar="FILE", help="The file to match against, from the top of the repository.")
@click.option("--size", "size_text", metavar="SIZE", help="The size to match against, where the key does not tell it.")
def command(options: Options, expression: str, key_text: str | None, file: str | None, size_text: str | None) -> int:
    """Check if the preferred content expression EXPR matches.

    The exit code is 0 if it does, 1 if it does not, and 42 if it is no expression or asks for what was not given.
    """
    from annexpy.actions.wanted import Wanted
    from annexpy.cli.around import merge_fetched
    from annexpy.errors import InvalidExpression, InvalidInput
    from annexpy.keys.key import Key
    from annexpy.logs.sizes import parse_size
    from annexpy.policy.expression import parse
    from annexpy.policy.matchexpression import Lacking
    from annexpy.repo.repository import Repository

    key = None if key_text is None else Key.parse(key_text)
    size = None if size_text is None else parse_size(size_text)
    if size_text is not None and size is None:
        raise InvalidInput("--size", size_text, "a size, like 10mb")
    try:
        parsed = parse(expression)
    except InvalidExpression as error:
        click.echo(f"annexpy: matchexpression: {error}", err=True)
        return _CANNOT_SAY
    with Repository.open(options.place) as repository:
        merge_fetched(repository)
        path = None if file is None else os.fsencode(file)
        match = Wanted(repository).matches(parsed, key=key, file=path, size=size)
    if isinstance(match, Lacking):
        click.echo(f"annexpy: matchexpression: cannot match this expression without --{match.value}", err=True)
        return _CANNOT_SAY
    return 0 if match else 1
