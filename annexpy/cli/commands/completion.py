"""``annexpy completion``: the script that makes a shell complete annexpy's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import write_line

__all__ = ["command"]

_SHELLS = ("bash", "fish", "zsh")


@as_command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(options: Options, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
        bash: eval "$(annexpy completion bash)"        in ~/.bashrc
        zsh:  eval "$(annexpy completion zsh)"         in ~/.zshrc
        fish: annexpy completion fish > ~/.config/fish/completions/annexpy.fish
    """  # noqa: D301  (click looks for the character itself)
    from annexpy.cli.group import annexpy

    made = get_completion_class(shell)
    assert made is not None
    write_line(made(annexpy, {}, "annexpy", "_ANNEXPY_COMPLETE").source())
