"""git as a child of a server, and what a repository does before git shows it and after something was pushed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Mapping
from typing import Final

import anyio
import anyio.abc

from annexpy.errors import AnnexError, ConnectFailed
from annexpy.repo.repository import Repository

__all__ = ["RunningGit", "git_protocol", "make_visible", "take_in"]

log = logging.getLogger(__name__)

_PROTOCOL: Final = re.compile(rb"[a-z0-9=.:-]{1,64}\Z")
_NOT_FOR_GIT: Final = ("GIT_ANNEX_P2PHTTP_", "GIT_DIR", "GIT_WORK_TREE", "GIT_PROTOCOL")
"""Secrets, and what would send git to another repository."""


def git_protocol(said: bytes) -> str:
    """What a client asked for as GIT_PROTOCOL, if that can be passed on; else "", which is version 0."""
    return said.decode() if _PROTOCOL.match(said) else ""


class RunningGit:
    """git as a child, killed when it is still there at the end of the context."""

    def __init__(
        self, argv: list[str], protocol: str, *, heard: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run *argv* when the context is entered.

        Args:
            argv: The command, ``git`` first.
            protocol: For GIT_PROTOCOL.
            heard: Its stderr is a pipe too; else nobody hears it.
            environment: More variables.
        """
        self._argv, self._protocol, self._heard = argv, protocol, heard
        self._more = environment or {}
        self._process: anyio.abc.Process | None = None

    async def __aenter__(self) -> anyio.abc.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_GIT)}
        environment.update(self._more)
        if self._protocol:
            environment["GIT_PROTOCOL"] = self._protocol
        try:
            self._process = await anyio.open_process(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if self._heard else subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise ConnectFailed("git", error.strerror or str(error)) from error
        return self._process

    async def __aexit__(self, *error: object) -> None:
        process = self._process
        assert process is not None
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def make_visible(repository: Repository) -> None:
    """What is journalled goes into the branch, where git sees it."""
    if repository.writable:
        try:
            await repository.branch.commit()
        except AnnexError as error:
            log.warning("%s: %s", repository.path, error)


async def take_in(repository: Repository) -> None:
    """What was pushed beside the git-annex branch goes into it, as git-annex does when it next looks."""
    try:
        if repository.config.get_bool("annex.merge-annex-branches", True) and repository.branch.unmerged():
            await repository.branch.merge()
    except AnnexError as error:
        log.warning("%s: %s", repository.path, error)
