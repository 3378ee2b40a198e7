"""``annexpy doctor``: what is wrong with existing annexes, and the command that mends it."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("doctor")
@click.argument("repositories", metavar="REPOSITORY...", nargs=-1, required=True, type=click.Path(readable=False))
@click.option("--only", multiple=True, metavar="PROBLEM", help='One kind of problem, such as "sole copy"; repeatable.')
def command(options: Options, repositories: tuple[str, ...], only: tuple[str, ...]) -> int:
    """Look at each REPOSITORY, change nothing, and say what is wrong and which git-annex command mends it.

    Copies that nobody recorded, claims that are not true, objects of the wrong size, keys with one copy or none, lines
    of the git-annex branch that nobody reads. Contents are not read: `annexpy fsck` does that. The exit code is 1
    when something was found.
    """
    from contextlib import ExitStack

    from annexpy.actions.doctor import Problem, examine_repositories
    from annexpy.repo.repository import Repository

    for word in only:
        if word not in set(Problem):
            raise click.BadParameter(f"{word!r} is none of {', '.join(Problem)}", param_hint="--only")
    report = Report(options, "doctor")
    with ExitStack() as stack:
        opened = [stack.enter_context(Repository.open(path)) for path in repositories]
        for finding in examine_repositories(opened):
            if not only or finding.problem in only:
                report.found(finding)
    report.found_in_all(repositories)
    return report.exit_code
