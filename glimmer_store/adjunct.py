"""Adjuncts: stores of contents without history, which take further copies after the durable ones.

What goes wrong with them is told and stops nothing. Their copies are proven like all others, and count only where the
configuration says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import annexpy as annex
from glimmer_store.config import Adjunct, Durable

__all__ = ["connect_adjunct", "connect_adjuncts", "store_copies"]


def connect_adjunct(adjunct: Adjunct, repository: annex.Repository) -> annex.Remote:
    """The adjunct as a remote; nothing is opened yet.

    Raises:
        Refused: A setting that is not offered.
        InvalidInput: A setting is none, or there are no credentials.
    """
    if adjunct.kind == "s3":
        return annex.connect_s3(adjunct.settings, adjunct.uuid, adjunct.name, repository)
    address = f"directory:{adjunct.settings['directory']}"
    return annex.connect(address, uuid=adjunct.uuid, name=adjunct.name, repository=repository)


def connect_adjuncts(
    adjuncts: Sequence[Adjunct], repository: annex.Repository
) -> tuple[dict[Durable, annex.Remote], dict[Durable, annex.Remote], dict[str, str]]:
    """Those that count, the others, and why some of them cannot be used."""
    counting: dict[Durable, annex.Remote] = {}
    others: dict[Durable, annex.Remote] = {}
    unusable: dict[str, str] = {}
    for adjunct in adjuncts:
        try:
            remote = connect_adjunct(adjunct, repository)
        except annex.AnnexError as error:
            unusable[adjunct.name] = str(error)
        else:
            (counting if adjunct.counts else others)[adjunct.place] = remote
    return counting, others, unusable


async def store_copies(
    adjuncts: Mapping[Durable, annex.Remote],
    branch: annex.Branch,
    items: Sequence[tuple[annex.Key, str | bytes]],
    failed: dict[str, str],
) -> dict[Durable, list[annex.Key]]:
    """Store *items* in every adjunct, one adjunct after the other; what each of them has then, unproven.

    Nothing is raised for an adjunct: *failed* gets why it has not all of them.
    """
    having: dict[Durable, list[annex.Key]] = {}
    for place, remote in adjuncts.items():
        recording = annex.Recording(remote, branch)
        for key, source in items:
            try:
                stored = await annex.put(recording, key, source)
            except annex.AnnexError as error:
                failed.setdefault(place.name, str(error))
                break
            if stored.ok:
                having.setdefault(place, []).append(key)
    return having
