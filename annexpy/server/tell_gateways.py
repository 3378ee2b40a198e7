"""Gateways of the same cluster tell each other where contents are: ``python -m annexpy.server.tell_gateways GATEWAY``.

git-annex leaves that to whoever syncs next, so a gateway does not know what was stored through another one. Here a
process beside the server exchanges the git-annex branch with the other gateways whenever something was recorded;
nobody waits for it. One process at a time does it for a repository, and goes on until there is nothing new.
``annexpy.tell-gateways = false`` turns it off.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Final

import anyio

from annexpy.actions.sync import sync
from annexpy.errors import AnnexError
from annexpy.policy.routes import Topology
from annexpy.repo.repository import Repository
from annexpy.repo.topology import topology

__all__ = ["Teller", "gateways"]

log = logging.getLogger(__name__)

_TOLD: Final = b"annex/annexpy.told"
_SECONDS: Final = 60.0
_ROUNDS: Final = 20


def gateways(known: Topology) -> list[str]:
    """The git remotes that are other gateways of the clusters of this one."""
    clusters = frozenset(known.names.values())
    return sorted(near.name for near in known.neighbours if near.gateway_of & clusters)


class Teller:
    """Starts the process beside the server, when it is not at work already."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, known: Topology) -> None:
        """Something was recorded and committed."""
        if not gateways(known) or not self._repository.config.get_bool("annexpy.tell-gateways", True):
            return
        if self._process is not None and self._process.poll() is None:
            return  # it looks again before it leaves
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, self._repository.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # it outlives a session of annexpy-shell
            )
        except OSError as error:
            log.warning("%s: cannot tell other gateways: %s", self._repository.path, error)

    def forget(self) -> None:
        """Leave the process to itself."""
        if self._process is not None:
            self._process.poll()
            self._process.returncode = self._process.returncode or 0  # nobody is going to wait for it
            self._process = None


async def _tell(path: str) -> None:
    with Repository.open(path) as repository:
        files = repository.files
        fd = files.open_write(_TOLD)
        try:
            if not files.try_lock(fd, exclusive=True):
                return
            for _ in range(_ROUNDS):
                tip = (repository.branch.tip or "").encode()
                if not tip or files.pread(fd, 64, 0) == tip:
                    return
                results = await sync(repository, gateways(topology(repository)), own=True, seconds=_SECONDS)
                for result in results:
                    if result.error is not None:
                        log.warning("%s: %s", result.remote, result.error)
                told = (repository.branch.tip or "").encode()
                files.truncate(fd, 0)
                files.write(fd, told)
                if not all(result.ok for result in results):
                    return  # they hear of it with the next record
        finally:
            files.close_fd(fd)


if __name__ == "__main__":
    try:
        anyio.run(_tell, sys.argv[1])
    except AnnexError as failed:
        sys.exit(str(failed))
