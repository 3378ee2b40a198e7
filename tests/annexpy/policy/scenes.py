"""Repositories, files and settings that git-annex and we look at together."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.metadata import set_metadata
from annexpy.logs.paths import Log, key_log
from annexpy.logs.preferred import GROUP_PREFERRED_CONTENT, PREFERRED_CONTENT, REQUIRED_CONTENT
from annexpy.logs.repos import DESCRIPTIONS, GROUPS, MAXSIZES, TRUST
from annexpy.logs.settings import NUMCOPIES
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, WEB

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return found


@dataclass(frozen=True, slots=True)
class Network:
    """What is recorded about all repositories, and the files there are."""

    here: UUID
    groups: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    trust: Mapping[UUID, TrustLevel] = field(default_factory=dict)
    groupwanted: Mapping[str, str] = field(default_factory=dict)
    numcopies: int | None = None
    attributes: tuple[str, ...] = ()
    files: tuple[KeyFacts, ...] = ()

    def numcopies_of(self, name: str) -> int | None:
        for line in reversed(self.attributes):
            pattern, setting = line.split()
            if name.endswith(pattern.removeprefix("*")):
                return int(setting.removeprefix("annex.numcopies="))
        return None

    @property
    def sizes(self) -> dict[UUID, int]:
        """As the location logs have it: each key once, however many files have it."""
        sizes: dict[UUID, int] = {}
        for key, holders in {facts.key: facts.holders for facts in self.files}.items():
            for uuid in holders:
                sizes[uuid] = sizes.get(uuid, 0) + (key.size or 0)
        return sizes

    def repositories(self, **others: Any) -> Repositories:
        known = {
            "groups": self.groups,
            "trust": self.trust,
            "groupwanted": self.groupwanted,
            "numcopies": self.numcopies,
            "sizes": self.sizes,
        }
        return Repositories(**(known | others))


def recorded_network(scene: dict[str, Any]) -> Network:
    """The scene of preferred_content.json."""
    empty = Network(
        UUID(scene["here"]),
        {UUID(uuid): frozenset(groups) for uuid, groups in scene["groups"].items()},
        {UUID(uuid): TrustLevel(level) for uuid, level in scene["trust"].items()},
        scene["groupwanted"],
        scene["numcopies_log"],
        tuple(scene["gitattributes"]),
    )
    files = tuple(
        KeyFacts(
            Key.parse(file["key"]),
            file["file"].encode(),
            frozenset(map(UUID, file["locations"])),
            empty.numcopies_of(file["file"]),
            {name.lower(): frozenset(values) for name, values in file["metadata"].items()},
            tuple(file["urls"]),
        )
        for file in scene["files"]
    )
    return Network(empty.here, empty.groups, empty.trust, empty.groupwanted, empty.numcopies, empty.attributes, files)


class Scene:
    """*network* as a repository on disk. Settings can be changed between questions."""

    def __init__(self, git_annex: str, path: Path, network: Network, known: tuple[UUID, ...] = ()) -> None:
        self.git_annex, self.path, self.network = git_annex, path, network
        self._time = 0
        self.repository = Repository.init(path, uuid=network.here, description="here")
        for uuid in {*known, *network.groups, *network.trust}:
            self.set(Log.UUID, DESCRIPTIONS.set, uuid, f"repository {uuid}")
        for uuid, groups in network.groups.items():
            self.set(Log.GROUP, GROUPS.set, uuid, groups)
        for uuid, level in network.trust.items():
            self.set(Log.TRUST, TRUST.set, uuid, level)
        for group, text in network.groupwanted.items():
            self.set(Log.GROUP_PREFERRED_CONTENT, GROUP_PREFERRED_CONTENT.set, group, text)
        if network.numcopies is not None:
            self.set(Log.NUMCOPIES, NUMCOPIES.set, network.numcopies)
        for facts in network.files:
            self._add(facts)
        (path / ".gitattributes").write_text("".join(f"{line}\n" for line in network.attributes))
        self.commit()
        self._git("add", "-A")

    def _add(self, facts: KeyFacts) -> None:
        branch, key = self.repository.branch, facts.key
        for uuid in facts.holders:
            branch.set_present(key, uuid, True)
        for name, values in facts.metadata.items():
            changes = {name: dict.fromkeys(values, True)}
            branch.change(key_log(key, Log.METADATA), self._at(set_metadata, changes))
        for url in facts.urls:
            branch.set_presence(key_log(key, Log.URL), url.encode(), b"1")
        if facts.file is not None:
            at = os.path.join(os.fsencode(self.path), facts.file)
            os.makedirs(os.path.dirname(at), exist_ok=True)
            up = b"../" * facts.file.count(b"/")
            os.symlink(up + b".git/annex/objects/aa/bb/" + key_file(key) + b"/" + key_file(key), at)

    def _at(self, change: Callable[..., bytes], *values: object) -> Callable[[bytes], bytes]:
        self._time += 1
        clock = VectorClock(self._time * SECOND)
        return lambda content: change(content, *values, clock)

    def set(self, log: Log, change: Callable[..., bytes], *values: object) -> None:
        self.repository.branch.change(log.value, self._at(change, *values))

    def prefer(self, wanted: Mapping[UUID, str], required: Mapping[UUID, str] | None = None) -> None:
        for uuid, text in wanted.items():
            self.set(Log.PREFERRED_CONTENT, PREFERRED_CONTENT.set, uuid, text)
        for uuid, text in (required or {}).items():
            self.set(Log.REQUIRED_CONTENT, REQUIRED_CONTENT.set, uuid, text)
        self.commit()

    def limit(self, maxsizes: Mapping[UUID, int]) -> None:
        for uuid, size in maxsizes.items():
            self.set(Log.MAXSIZE, MAXSIZES.set, uuid, size)
        self.commit()

    def commit(self) -> None:
        self.repository.branch.commit_now()

    def _git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.path, check=True, capture_output=True)

    def annex(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.git_annex, *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
            check=False,
        )

    def find(self, *words: str) -> set[bytes]:
        """The files that match."""
        found = self.annex("find", "--anything", "--print0", *words)
        assert found.returncode == 0, (words, found.stderr)
        return {name.encode("utf-8", "surrogateescape") for name in found.stdout.split("\0") if name}

    def close(self) -> None:
        self.repository.close()


__all__ = ["WEB", "Network", "Scene", "recorded_network", "vectors"]
