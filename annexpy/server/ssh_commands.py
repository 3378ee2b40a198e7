"""What the ssh server does for each command that a client has asked for: the commands of ``annexpy-shell``, and git."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import anyio
from anyio import to_thread

from annexpy.clock import Clock
from annexpy.errors import NotARepository
from annexpy.p2p.connection import Connection, Role
from annexpy.server.authorized import Rights
from annexpy.server.direct import find_uuid, in_annex
from annexpy.server.gateway import Gateway
from annexpy.server.git_process import make_visible, take_in
from annexpy.server.limits import Deadlines, Quota, ServerMode
from annexpy.server.places import Places
from annexpy.server.refusal import Refusal
from annexpy.server.serve import serve
from annexpy.server.shell import Asked
from annexpy.server.ssh_git import push, relay
from annexpy.server.ssh_session import SSHSession
from annexpy.uuids import UUID, parse_uuid

__all__ = ["Commands"]

_CONFIG: Final = b"annex.uuid=%s\ncore.gcrypt-id=\n"


class Commands:
    """The commands, over the repositories of *places*."""

    def __init__(self, places: Places, idle: float, locks: Quota, *, allow_unverifiable: bool, clock: Clock) -> None:
        """What they need.

        Args:
            places: Entered.
            idle: Seconds between two requests of a client, and for a whole fetch or push.
            locks: How many content locks a client may hold or leave behind.
            allow_unverifiable: False refuses PUT of keys whose content cannot be verified.
            clock: For removals that rely on time.
        """
        self._places, self._idle, self._locks = places, idle, locks
        self._deadlines = Deadlines(first=idle, idle=idle)
        self._allow_unverifiable, self._clock = allow_unverifiable, clock

    async def answer(self, session: SSHSession, asked: Asked) -> int:
        """Do what is *asked*; the exit code.

        Raises:
            Refusal: It may not be, or it cannot be done here.
            AnnexError: As the repository says, or the conversation.
            TimeoutError: A fetch or push took longer than *idle*.
        """
        rights = session.rights
        directory = self._places.find(asked.path, root=rights.root, directory=rights.directory)
        if asked.git:
            with anyio.fail_after(self._idle):
                return await self._git(session, asked, directory)
        async with AsyncExitStack() as stack:
            try:
                gateway = await stack.enter_async_context(self._places.using(directory))
            except NotARepository:
                if not await to_thread.run_sync(partial(_made_annex, directory, asked, rights)):
                    if asked.name == "configlist":
                        await session.send(_CONFIG % b"")
                        return 0
                    raise Refusal("Not a git-annex or gcrypt repository.") from None
                gateway = await stack.enter_async_context(self._places.using(directory))
            return await self._ask(session, gateway, asked)

    async def _ask(self, session: SSHSession, gateway: Gateway, asked: Asked) -> int:
        own = gateway.uuid
        expected = parse_uuid(asked.options.get("--uuid") or own)
        if not gateway.knows(expected):
            raise Refusal(f"expected repository UUID {expected} but found UUID {own}")
        if asked.name == "p2pstdio":
            return await self._p2p(session, gateway, expected, asked.client())
        if expected != own:
            raise Refusal(f"Cannot proxy {asked.name} command.")
        if asked.name == "configlist":
            await session.send(_CONFIG % own.encode())
            return 0
        return await to_thread.run_sync(in_annex, gateway.repository.path, asked.parameters)

    async def _p2p(self, session: SSHSession, gateway: Gateway, uuid: UUID, client: str) -> int:
        session.protocol = Connection(Role.SERVER)
        ended = await serve(
            session,
            gateway.shown(uuid),
            mode=session.rights.mode,
            connection=session.protocol,
            client=client,
            who=session.rights.who,
            deadlines=self._deadlines,
            locks=self._locks,
            bypass=gateway.bypassing(uuid),
            allow_unverifiable=self._allow_unverifiable,
            clock=self._clock,
            on_idle=gateway.commit,
        )
        if ended is not None:
            raise ended
        return 0

    async def _git(self, session: SSHSession, asked: Asked, directory: str) -> int:
        async with AsyncExitStack() as stack:
            try:
                gateway = await stack.enter_async_context(self._places.using(directory))
            except NotARepository:  # git without git-annex
                gateway = None
            if gateway is not None:
                await make_visible(gateway.repository)
            if asked.name != "git-receive-pack":
                return await relay(session, [asked.name.removeprefix("git-"), directory])
            code = await push(session, directory, gateway)
            if gateway is not None:
                await take_in(gateway.repository)
            return code


def _made_annex(directory: str, asked: Asked, rights: Rights) -> bool:
    """Has a git repository become an annex? As git-annex-shell does it: one with a git-annex branch, or on request."""
    wanted, read_only = bool(asked.options.get("autoinit")), rights.mode is ServerMode.READ_ONLY
    return bool(find_uuid(directory, wanted=wanted, read_only=read_only))
