"""A gateway and its nodes, made with plain git: configuration, and two files in the git-annex branch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from protocol_tests import place, subject
from protocol_tests.need import Need
from protocol_tests.place import Place, git
from protocol_tests.subject import Subject

__all__ = ["Cluster", "make"]

_NAME: Final = "cluster"
_SSH: Final = """#!/bin/sh
# What ssh does, without a network: the last word is the command.
for word; do last=$word; done
exec sh -c "$last"
"""


class Cluster:
    """The repositories of a cluster. Its methods break something for as long as they are entered."""

    def __init__(self, gateway: Place, nodes: tuple[Place, ...], shell: str) -> None:
        """*shell* is the node's shell as ssh would run it."""
        self._gateway, self._nodes, self._shell = gateway, nodes, shell

    @contextmanager
    def away(self, node: int) -> Iterator[None]:
        """Nothing is where its repository was."""
        path = self._nodes[node].path
        aside = path.rename(path.with_suffix(".away"))
        try:
            yield
        finally:
            aside.rename(path)

    @contextmanager
    def readonly(self, node: int) -> Iterator[None]:
        """It is reached through a shell that lets nobody write."""
        script = self._gateway.path.parent / f"readonly-{node}"
        script.write_text(f'#!/bin/sh\nGIT_ANNEX_SHELL_READONLY=1 exec {self._shell} "$@"\n')
        script.chmod(0o755)
        url = str(self._nodes[node].path)
        self._set(f"remote.n{node}.annex-shell", str(script))
        self._set(f"remote.n{node}.url", f"ssh://node{url}")
        try:
            yield
        finally:
            self._set(f"remote.n{node}.url", url)

    @contextmanager
    def without_nodes(self) -> Iterator[None]:
        """The log still lists them, and the configuration knows none."""
        for node in range(len(self._nodes)):
            git(self._gateway.path, "config", "--unset", f"remote.n{node}.annex-cluster-node")
        try:
            yield
        finally:
            for node in range(len(self._nodes)):
                self._set(f"remote.n{node}.annex-cluster-node", _NAME)

    def _set(self, name: str, value: str) -> None:
        git(self._gateway.path, "config", name, value)


def make(folder: Path, template: str, number: int, random: Random, init: str = "") -> Subject:
    """A gateway to a cluster of *number* nodes in *folder*, each shown by the command *template*.

    Raises:
        place.Unusable: It cannot be made.
    """
    gateway = place.fresh(folder / "gateway.git", random, init)
    nodes = tuple(place.fresh(folder / f"node{one}.git", random, init) for one in range(number))
    uuid = _cluster_uuid(random)
    for one, node in enumerate(nodes):
        git(gateway.path, "config", f"remote.n{one}.url", str(node.path))
        git(gateway.path, "config", f"remote.n{one}.fetch", f"+refs/heads/*:refs/remotes/n{one}/*")
        git(gateway.path, "config", f"remote.n{one}.annex-uuid", node.uuid)
        git(gateway.path, "config", f"remote.n{one}.annex-cluster-node", _NAME)
    git(gateway.path, "config", f"annex.cluster.{_NAME}", uuid)
    _record(gateway, nodes, uuid)
    ssh = folder / "ssh"
    ssh.write_text(_SSH)
    ssh.chmod(0o755)
    environment = {"GIT_SSH_COMMAND": str(ssh), "GIT_ANNEX_USE_GIT_SSH": "1"}
    front = subject.command(template, gateway, environment)
    has = front.has - {Need.REPOSITORY, Need.PATH} | {Need.CLUSTER, Need.BROKEN_NODES}
    shell = shlex.join(word for word in shlex.split(template.partition("p2pstdio")[0]))
    return replace(
        front,
        name=f"{template}, {number} nodes",
        uuid=uuid,
        has=has,
        path=None,
        nodes=tuple(replace(subject.command(template, node), name=f"node {one}") for one, node in enumerate(nodes)),
        cluster=Cluster(gateway, nodes, shell),
    )


def _cluster_uuid(random: Random) -> str:
    """Begins with ``ac``, and has an ``8`` where others have the version."""
    plain = place.random_uuid(random)
    return f"ac{plain[2:14]}8{plain[15:]}"


def _record(gateway: Place, nodes: tuple[Place, ...], cluster: str) -> None:
    """What a cluster is made of, in the branch that all repositories share."""
    now = int(time.time())
    proxied = " ".join(f"{node.uuid}:n{one}" for one, node in enumerate(nodes))
    files = {
        "cluster.log": f"{now}s {cluster} {' '.join(node.uuid for node in nodes)}\n",
        "proxy.log": f"{now}s {gateway.uuid} {proxied} {cluster}:{_NAME}\n",
        "uuid.log": "".join(f"{one.uuid} {one.path.stem} timestamp={now}s\n" for one in (gateway, *nodes)),
    }
    tree = "".join(
        f"100644 blob {git(gateway.path, 'hash-object', '-w', '--stdin', given=text).strip()}\t{name}\n"
        for name, text in sorted(files.items())
    )
    tree_id = git(gateway.path, "mktree", given=tree).strip()
    commit = git(gateway.path, "commit-tree", tree_id, "-m", "a cluster").strip()
    git(gateway.path, "update-ref", "refs/heads/git-annex", commit)
