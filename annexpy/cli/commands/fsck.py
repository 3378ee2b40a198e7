"""``annexpy fsck``: read contents again and compare them with their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import click

from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report
from annexpy.keys.key import Key

__all__ = ["command"]


@as_command("fsck")
@click.argument("remote", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
@click.option("-N", "--numcopies", type=click.IntRange(1), metavar="N", help="Copies that there should be.")
def command(options: Options, remote: str, keys: tuple[str, ...], batch: bool, numcopies: int | None) -> int:
    """Read the whole content of each KEY at REMOTE and compare it with the key. `.` is the repository you work in.

    Without KEYs: every key that REMOTE has according to the location log. A location line that does not fit what is
    there is set right, and bad content of a repository on this machine is moved to its `annex/bad`.
    """
    report = Report(options, "fsck")

    async def work() -> int:
        from annexpy.actions.facts import Facts
        from annexpy.actions.fsck import fsck
        from annexpy.actions.whereis import whereis_all
        from annexpy.cli.progress import progress
        from annexpy.cli.work import Work, at_work
        from annexpy.remote.local_place import LocalPlace
        from annexpy.repo.repository import Repository

        async def wanted(at: Work, repository: Repository | None, uuid: str) -> AsyncIterator[list[Key]]:
            if keys or batch:
                async for some in key_batches(keys, batch, report):
                    yield some
                return
            some = []
            for found in whereis_all(repository if repository is not None else at.here):
                if any(place.uuid == uuid for place in (*found.locations, *found.untrusted)):
                    some.append(found.key)
                    if len(some) == 1000:
                        yield some
                        some = []
            if some:
                yield some

        async with at_work(options) as at:
            place = await at.remote(remote)
            facts = at.facts(numcopies) if at.repository is not None else None
            # Outside of any repository, one on this machine speaks for itself.
            its_own = at.other(remote) if at.repository is None else None
            own = its_own.local.repository if isinstance(its_own, LocalPlace) else None
            if facts is None and isinstance(own, Repository):
                facts = Facts(own, numcopies=numcopies)
            with progress(options, "fsck") as told:
                async for some in wanted(at, own if isinstance(own, Repository) else None, place.uuid):
                    await fsck(place, some, facts=facts, jobs=options.jobs, progress=told).tell(report.checked)
        return report.exit_code

    return in_event_loop(work)
