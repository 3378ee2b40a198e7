"""HTTP: a cluster behind its gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from protocol_tests.checks.clusters import holders
from protocol_tests.http_talk import Http
from protocol_tests.keys import Content
from protocol_tests.need import Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import Trial, must

__all__ = ["names_who_has", "nobody", "node_that_refuses", "nodes_that_refuse"]

_NEEDS = (Need.HTTP_GATEWAY, Need.CLUSTER, Need.BROKEN_NODES)
_LOSS = "measured: dataloss-http-gw-n1-fault"


@contextmanager
def _served(trial: Trial, uuid: str) -> Iterator[Http]:
    """The gateway's server begins when what is broken is broken already."""
    with trial.nodes.served() as url:
        http = Http(trial, subject=replace(trial.subject, url=f"{url}/{uuid}"))
        try:
            yield http
        finally:
            http.close()


def _claims_nothing(trial: Trial, uuid: str, content: Content) -> None:
    """Neither putoffset nor put says that *content* is anywhere, which nobody stores."""
    with _served(trial, uuid) as http:
        answer = http.post("putoffset", {"key": content.key})
        said = answer.json() if answer.status == 200 else {}
        must(not said.get("alreadyhave"), f"no repository has it, and putoffset is answered by {said}")
        length = {"X-git-annex-data-length": str(len(content.body)), "Content-Type": "application/octet-stream"}
        answer = http.post("put", {"key": content.key}, body=content.body, headers=length)
        said = answer.json() if answer.status == 200 else {}
    must(not said.get("stored"), f"no repository stores it, and put is answered by {said}")
    must(not holders(trial, content.key), "a node has it")


@requirement(
    "H-050",
    "After a put through a gateway, plusuuids names just the nodes that have the content.",
    "P2P protocol over HTTP, put",
    since=2,
    once=True,
    needs=_NEEDS,
)
def names_who_has(trial: Trial) -> None:
    content = trial.contents.fresh()
    with _served(trial, trial.subject.uuid) as http:
        said = http.put(content)
    must(said.get("stored") is True, f"put is answered by {said}")
    have = holders(trial, content.key)
    must({*said["plusuuids"]} == have, f"{sorted(have)} have it, and put is answered by {said}")


@requirement(
    "H-051",
    "When a node behind a gateway refuses to store, nobody is told alreadyhave or stored: "
    "a client that moves would delete the only copy.",
    _LOSS,
    since=1,
    once=True,
    needs=_NEEDS,
)
def node_that_refuses(trial: Trial) -> None:
    with trial.nodes.readonly(0):
        _claims_nothing(trial, trial.subject.nodes[0].uuid, trial.contents.fresh())


@requirement(
    "H-052",
    "When every node of a cluster refuses to store, nobody is told alreadyhave or stored.",
    _LOSS,
    since=1,
    once=True,
    needs=_NEEDS,
)
def nodes_that_refuse(trial: Trial) -> None:
    with ExitStack() as broken:
        for number in range(len(trial.subject.nodes)):
            broken.enter_context(trial.nodes.readonly(number))
        _claims_nothing(trial, trial.subject.uuid, trial.contents.fresh())


@requirement(
    "H-053",
    "When a cluster has no usable node, nobody is told alreadyhave or stored.",
    _LOSS,
    since=1,
    once=True,
    needs=_NEEDS,
)
def nobody(trial: Trial) -> None:
    with trial.nodes.without_nodes():
        _claims_nothing(trial, trial.subject.uuid, trial.contents.fresh())
