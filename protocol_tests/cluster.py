"""A gateway and its nodes, made with plain git: configuration, and a few files in the git-annex branch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from protocol_tests import place, subject
from protocol_tests.branch import record
from protocol_tests.need import Need
from protocol_tests.place import Place, git
from protocol_tests.serving import serving
from protocol_tests.subject import Subject

__all__ = ["Cluster", "make"]

_NAME: Final = "cluster"
_SSH: Final = """#!/bin/sh
# What ssh does, without a network: the last word is the command.
for word; do last=$word; done
exec sh -c "$last"
"""


class Cluster:
    """The repositories of a cluster. Its methods change something for as long as they are entered."""

    def __init__(
        self, folder: Path, template: str, number: int, random: Random, *, init: str = "", http_server: str = ""
    ) -> None:
        """Make a gateway to *number* nodes in *folder*. *http_server* is the command that shows the gateway over HTTP.

        Raises:
            place.Unusable: It cannot be made.
        """
        self._folder, self._template, self._random, self._init = folder, template, random, init
        self._http_server, self._written = http_server, 0
        self.gateway = place.fresh(folder / "gateway.git", random, init)
        self.nodes = tuple(place.fresh(folder / f"node{one}.git", random, init) for one in range(number))
        self.uuid = _cluster_uuid(random)
        ssh = folder / "ssh"
        ssh.write_text(_SSH)
        ssh.chmod(0o755)
        self.environment: Mapping[str, str] = {"GIT_SSH_COMMAND": str(ssh), "GIT_ANNEX_USE_GIT_SSH": "1"}
        self._shell = shlex.join(word for word in shlex.split(template.partition("p2pstdio")[0]))
        for one, node in enumerate(self.nodes):
            self._connect(self.gateway, f"n{one}", node, str(node.path))
        _set(self.gateway, f"annex.cluster.{_NAME}", self.uuid)
        self._record()

    # -- what breaks --------------------------------------------------------------------------------------------------

    @contextmanager
    def away(self, node: int) -> Iterator[None]:
        """Nothing is where its repository was."""
        path = self.nodes[node].path
        aside = path.rename(path.with_suffix(".away"))
        try:
            yield
        finally:
            aside.rename(path)

    @contextmanager
    def readonly(self, node: int) -> Iterator[None]:
        """It is reached through a shell that lets nobody write."""
        script = self._script(f"readonly-{node}", f"GIT_ANNEX_SHELL_READONLY=1 exec {self._shell}")
        url = str(self.nodes[node].path)
        _set(self.gateway, f"remote.n{node}.annex-shell", str(script))
        _set(self.gateway, f"remote.n{node}.url", f"ssh://node{url}")
        try:
            yield
        finally:
            _set(self.gateway, f"remote.n{node}.url", url)

    @contextmanager
    def without_nodes(self) -> Iterator[None]:
        """The log still lists them, and the configuration knows none."""
        for node in range(len(self.nodes)):
            git(self.gateway.path, "config", "--unset", f"remote.n{node}.annex-cluster-node")
        try:
            yield
        finally:
            for node in range(len(self.nodes)):
                _set(self.gateway, f"remote.n{node}.annex-cluster-node", _NAME)

    # -- what is there besides ----------------------------------------------------------------------------------------

    @contextmanager
    def unwanting(self, node: int) -> Iterator[None]:
        """Its preferred content is ``nothing``."""
        self._record(preferred={node: "nothing"})
        try:
            yield
        finally:
            self._record(preferred={node: "anything"})

    @contextmanager
    def beyond(self) -> Iterator[tuple[Subject, str]]:
        """The cluster has one more node, which is behind another gateway; the node, and that gateway's UUID."""
        number = len(list(self._folder.glob("far-gateway*")))
        far = place.fresh(self._folder / f"far-gateway{number}.git", self._random, self._init)
        node = place.fresh(self._folder / f"far-node{number}.git", self._random, self._init)
        self._connect(far, "far0", node, str(node.path))
        _set(far, f"annex.cluster.{_NAME}", self.uuid)
        self._connect(self.gateway, "far", far, f"ssh://far{far.path}", clustered=False)
        _set(self.gateway, "remote.far.annex-shell", str(self._script("shell", f"exec {self._shell}")))
        _set(self.gateway, "remote.far.annex-cluster-gateway", self.uuid)
        self._record(beyond=(far, node))
        try:
            yield replace(subject.command(self._template, node), name="the node behind the other gateway"), far.uuid
        finally:
            git(self.gateway.path, "config", "--remove-section", "remote.far")
            self._record()

    @contextmanager
    def special(self) -> Iterator[str]:
        """The gateway shows a special remote, which is a folder; its UUID."""
        uuid = place.random_uuid(self._random)
        folder = self._folder / f"special-{uuid}"
        folder.mkdir()
        for name, value in {"uuid": uuid, "directory": str(folder), "proxy": "true", "verified": "verified"}.items():
            _set(self.gateway, f"remote.special.annex-{name}", value)
        self._record(special=uuid)
        try:
            yield uuid
        finally:
            git(self.gateway.path, "config", "--remove-section", "remote.special")
            self._record()

    @contextmanager
    def served(self) -> Iterator[str]:
        """The gateway is shown over HTTP; the URL above all that it shows."""
        with serving(self._http_server, self.gateway.path, self.environment) as url:
            yield url

    # -- plain git ----------------------------------------------------------------------------------------------------

    def _connect(self, gateway: Place, name: str, node: Place, url: str, *, clustered: bool = True) -> None:
        words = {"url": url, "fetch": f"+refs/heads/*:refs/remotes/{name}/*", "annex-uuid": node.uuid}
        for word, value in (words | ({"annex-cluster-node": _NAME} if clustered else {})).items():
            _set(gateway, f"remote.{name}.{word}", value)

    def _script(self, name: str, command: str) -> Path:
        script = self._folder / name
        script.write_text(f'#!/bin/sh\n{command} "$@"\n')
        script.chmod(0o755)
        return script

    def _record(
        self,
        *,
        preferred: Mapping[int, str] | None = None,
        beyond: tuple[Place, Place] | None = None,
        special: str = "",
    ) -> None:
        """What a cluster is made of, in the branch that all repositories share. What is written later counts."""
        self._written = max(self._written + 1, int(time.time()))
        now, known = f"{self._written}s", [self.gateway, *self.nodes]
        members = [node.uuid for node in self.nodes]
        shown = [f"{node.uuid}:n{one}" for one, node in enumerate(self.nodes)]
        shown += [f"{special}:special"] if special else []
        proxies = [f"{now} {self.gateway.uuid} {' '.join(shown)} {self.uuid}:{_NAME}\n"]
        if beyond:
            known += beyond
            members.append(beyond[1].uuid)
            proxies.append(f"{now} {beyond[0].uuid} {beyond[1].uuid}:far0 {self.uuid}:{_NAME}\n")
        files = {
            "cluster.log": f"{now} {self.uuid} {' '.join(members)}\n",
            "proxy.log": "".join(proxies),
            "uuid.log": "".join(f"{one.uuid} {one.path.stem} timestamp={now}\n" for one in known),
        }
        if preferred:
            files["preferred-content.log"] = "".join(
                f"{self.nodes[node].uuid} {wanted} timestamp={now}\n" for node, wanted in preferred.items()
            )
        if special:
            files["remote.log"] = f"{special} encryption=none name=special type=directory timestamp={now}\n"
        for one in (self.gateway, *(beyond or ())[:1]):
            record(one, files)


def make(folder: Path, template: str, number: int, random: Random, *, init: str = "", http_server: str = "") -> Subject:
    """A gateway to a cluster of *number* nodes in *folder*, each shown by the command *template*.

    Raises:
        place.Unusable: It cannot be made.
    """
    cluster = Cluster(folder, template, number, random, init=init, http_server=http_server)
    front = subject.command(template, cluster.gateway, cluster.environment)
    has = front.has - {Need.REPOSITORY, Need.PATH} | {Need.CLUSTER, Need.BROKEN_NODES}
    nodes = enumerate(cluster.nodes)
    return replace(
        front,
        name=f"{template}, {number} nodes",
        uuid=cluster.uuid,
        has=has | ({Need.HTTP_GATEWAY} if http_server else frozenset()),
        path=None,
        nodes=tuple(replace(subject.command(template, node), name=f"node {one}") for one, node in nodes),
        cluster=cluster,
    )


def _set(of: Place, name: str, value: str) -> None:
    git(of.path, "config", name, value)


def _cluster_uuid(random: Random) -> str:
    """Begins with ``ac``, and has an ``8`` where others have the version."""
    plain = place.random_uuid(random)
    return f"ac{plain[2:14]}8{plain[15:]}"
