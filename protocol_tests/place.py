"""Fresh repositories, made with plain git and without any implementation's help.

``annex.uuid`` and ``annex.version`` in the configuration are all that an annex needs to begin with; what else an
implementation wants, its ``--init`` command adds.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from random import Random

__all__ = ["Place", "Unusable", "fill", "fresh", "git", "random_uuid"]


class Unusable(Exception):
    """What is needed to begin cannot be had; the message says what."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bare repository on this machine."""

    path: Path
    uuid: str


def random_uuid(random: Random) -> str:
    """A UUID as git-annex makes them."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def git(path: Path, *words: str, given: str = "") -> str:
    """A git command in *path*, with nothing of the user's configuration; what it prints.

    Raises:
        Unusable: It fails, or there is no git.
    """
    identity = {f"GIT_{who}_{what}": "protocol-tests" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=path,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **identity, "GIT_CONFIG_NOSYSTEM": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"git: {error}") from error
    if done.returncode:
        raise Unusable(f"git {shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout


def fresh(path: Path, random: Random, init: str = "") -> Place:
    """A bare repository at *path*, with a UUID of its own.

    Args:
        path: Where nothing is yet.
        random: Decides the UUID.
        init: A command that is run in it and makes it ready, with ``{path}`` and ``{uuid}``.

    Raises:
        Unusable: It cannot be made.
    """
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    place = Place(path, random_uuid(random))
    with (path / "config").open("a") as config:
        config.write(f"[annex]\n\tuuid = {place.uuid}\n\tversion = 10\n")
    if init:
        argv = fill(init, path=str(path), uuid=place.uuid, client="")
        try:
            subprocess.run(argv, cwd=path, check=True, timeout=120, capture_output=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            raise Unusable(f"--init: {error} {said.decode('utf-8', 'replace').strip()}") from error
        made = git(path, "config", "annex.uuid").strip()
        place = Place(path, made)
    return place


def fill(template: str, **words: str) -> list[str]:
    """The words of a command line, with ``{path}``, ``{client}`` and ``{uuid}`` replaced.

    Raises:
        Unusable: A quote does not close.
    """
    try:
        parts = shlex.split(template)
    except ValueError as error:
        raise Unusable(f"{template!r}: {error}") from error
    for name, word in words.items():
        parts = [part.replace("{" + name + "}", word) for part in parts]
    return parts
