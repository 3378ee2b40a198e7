"""From the options of the command line to a subject."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random

from protocol_tests import cluster, place, subject
from protocol_tests.need import Need
from protocol_tests.subject import Subject

__all__ = ["reach"]


def reach(options: argparse.Namespace, folder: Path, seed: int) -> Subject:
    """What *options* name; repositories are made in *folder*.

    Raises:
        place.Unusable: They do not fit together, or a repository cannot be made.
    """
    found = _subject(options, folder, Random(seed))
    if options.writer:
        found = replace(found, writer=_writer(options.writer, found))
    return replace(found, has=found.has | _machines())


def _subject(options: argparse.Namespace, folder: Path, random: Random) -> Subject:
    if options.http:
        return subject.http(options.http, uuid=options.uuid, token=options.token, ca=options.ca)
    if options.ssh:
        host, _, path = options.ssh.partition(":")
        return subject.ssh(host, path, program=options.ssh_program, shell=options.ssh_shell, uuid=options.uuid)
    if options.unix:
        found = subject.unix(options.unix, uuid=options.uuid, token=options.token)
        nodes = tuple(subject.unix(path) for path in options.nodes.split(",") if path)
        return replace(found, nodes=nodes, has=found.has - {Need.REPOSITORY} | {Need.CLUSTER}) if nodes else found
    if options.nodes:
        words = {"init": options.init, "http_server": options.http_server}
        return cluster.make(folder / "cluster", options.command, int(options.nodes), random, **words)
    return subject.command(options.command, place.fresh(folder / "repository" / "it.git", random, options.init))


def _writer(address: str, of: Subject) -> Subject:
    if of.url:
        return subject.http(address, uuid=of.uuid, ca=of.ca)
    if address.startswith("unix:"):
        return subject.unix(address.removeprefix("unix:"), uuid=of.uuid)
    if of.path is None:
        return subject.command(address, place.Place(Path(), of.uuid))
    return subject.command(address, place.Place(of.path, of.uuid))


def _machines() -> frozenset[Need]:
    try:
        import hypothesis
    except ImportError:
        return frozenset()
    return frozenset((Need.MACHINES,)) if hypothesis else frozenset()
