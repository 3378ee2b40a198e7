"""A cluster that is made of git remotes, as ``connect`` gives it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from annexpy.errors import UnknownUUID
from annexpy.remote.base import Connects
from annexpy.remote.cluster import Cluster
from annexpy.uuids import UUID

__all__ = ["NamedCluster"]


class NamedCluster(Cluster):
    """A ``Cluster`` that can be reached for on purpose."""

    async def connect(self) -> UUID:
        """Make sure that it is known who the nodes are. Without known nodes that are away the cluster gets by.

        Raises:
            ConnectFailed, TimedOut …: A node is away, and nobody knows its UUID.
        """
        for node in self.nodes:
            if isinstance(node, Connects):
                try:
                    _ = node.uuid
                except UnknownUUID:
                    await node.connect()
        return self.uuid

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self.connect()
        except BaseException as error:
            await super().__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
