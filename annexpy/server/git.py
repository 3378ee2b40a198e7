"""git's smart HTTP beside the annexed contents, so that one URL serves ``git clone`` and ``git annex get``.

``git upload-pack`` and ``git receive-pack`` are run for a request each, as git's own http-backend does; they know
every version of the protocol, and hooks and configuration of the repository hold. Before they say which refs there
are, everything that is journalled is committed, so that a client gets all that is known and a push of the
git-annex branch starts from it; both sides compare and swap that ref. What was pushed is merged afterwards.

A push of somebody who speaks for some repositories only is judged, as over ssh (``judged_push``).

``NAME/config`` tells git-annex the UUID and, as ``annex.url``, where the contents are.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Final

import anyio
import anyio.abc

from annexpy.errors import AnnexError, InvalidInput, RepositoryError
from annexpy.p2p.http import NoSuchRoute, WrongMethod
from annexpy.repo.repository import Repository
from annexpy.server.auth import Role, Verdict, Visitor
from annexpy.server.gateway import Gateway
from annexpy.server.git_process import RunningGit, git_protocol, make_visible, take_in
from annexpy.server.judged_push import judged_push
from annexpy.system import new_uuid
from annexpy.transport.base import CHUNK
from annexpy.transport.http_exchange import Exchange
from annexpy.uuids import UUID

__all__ = ["GitMount"]

_SERVICES: Final = {b"git-upload-pack": Role.READ, b"git-receive-pack": Role.PUSH}
_RESTS: Final = (b"info/refs", *_SERVICES, b"config")
_AUTHORITY = re.compile(rb"[A-Za-z0-9.:\[\]_-]{1,255}\Z")
_NO_CACHE: Final = (b"Cache-Control", b"no-cache, max-age=0, must-revalidate")
_MAX_INFLATED: Final = 256 * 1024 * 1024
"""Bytes that a compressed request may become; git compresses what it has and wants, never packs."""
_DIED: Final = 128
"""How git ends when it makes nothing of what it reads. That it can use the repository, it has shown with the refs."""


class GitMount:
    """The repositories that git reaches, by the first parts of the path; ``.git`` behind them may be there or not.

    The last of several mounts: a path that git could ask for is refused here when nothing is there, so that a stranger
    cannot tell it from one that is there for others.
    """

    def __init__(self, places: Mapping[bytes, Repository | Gateway], *, url: str = "") -> None:
        """Serve these.

        Args:
            places: Name, percent-encoded → repository, or what makes it a gateway. Closing them is their owner's
                business.
            url: Where clients find this server (``https://example.org/annex``); else what they call it themselves.
        """
        self._places, self._url = dict(places), url.rstrip("/")
        self._nobody = new_uuid()

    def asks(self, exchange: Exchange) -> tuple[UUID, Role] | None:
        """Whose rules hold, and what has to be allowed."""
        found, method = self._split(exchange), exchange.head.method
        if found is None:  # what is not there is refused as what is somebody else's
            path, _, query = exchange.head.target.partition(b"?")
            uuid, rest = self._nobody, next((one for one in _RESTS if path.endswith(b"/" + one)), b"")
        else:
            _, place, rest, query = found
            uuid = place.uuid
        if rest == b"info/refs":
            service = query.removeprefix(b"service=")
            if service not in _SERVICES:
                raise NoSuchRoute("service", service, "git-upload-pack or git-receive-pack, by smart HTTP")
            wanted, role = b"GET", _SERVICES[service]
        elif rest in _SERVICES:
            wanted, role = b"POST", _SERVICES[rest]
        elif rest == b"config":
            wanted, role = b"GET HEAD", Role.READ
        else:
            return None
        if method not in wanted.split():
            raise WrongMethod(method, wanted)
        return uuid, role

    def _split(self, exchange: Exchange) -> tuple[bytes, Repository | Gateway, bytes, bytes] | None:
        path, _, query = exchange.head.target[1:].partition(b"?")
        for at in (found.start() for found in re.finditer(b"/", path)):
            for name in (path[:at], path[:at].removesuffix(b".git")):
                place = self._places.get(name)
                if place is not None:
                    return name, place, path[at + 1 :], query
        return None

    async def answer(self, exchange: Exchange, visitor: Visitor) -> bool:
        """Run git, or show the configuration."""
        found = self._split(exchange)
        if found is None:
            raise NoSuchRoute("path", exchange.head.target, "that of a repository")
        name, place, rest, query = found
        repository = place.repository if isinstance(place, Gateway) else place
        if rest == b"config":
            text = self._config(exchange, name, repository)
            exchange.answer(200, [(b"Content-Type", b"text/plain; charset=utf-8"), _NO_CACHE], text)
            return False
        if rest == b"info/refs":
            await make_visible(repository)
            await self._refs(exchange, repository, query.removeprefix(b"service="))
            return False
        if rest != b"git-receive-pack":
            await self._service(exchange, repository, [rest.decode().removeprefix("git-")])
            return False
        directory = os.fsdecode(repository.git_dir)
        append_only = visitor.verdict(place.uuid, Role.WRITE) is not Verdict.ALLOWED
        async with judged_push(directory, place, visitor.uuids, append_only=append_only) as (words, variables):
            await self._service(exchange, repository, [*words, "receive-pack"], variables)
        await take_in(repository)
        return True

    # -- what git-annex wants to know -------------------------------------------------------------------

    def _config(self, exchange: Exchange, name: bytes, repository: Repository) -> bytes:
        repository.config.refresh()
        url = repository.config.get("annex.url") or self._annex_url(exchange, name)
        lines = [
            "[core]",
            "\trepositoryformatversion = 0",
            "\tbare = true",
            "[annex]",
            f"\tuuid = {repository.uuid}",
            f"\tversion = {repository.version}",
            *([f"\turl = {url}"] if url else []),
        ]
        return ("\n".join(lines) + "\n").encode()

    def _annex_url(self, exchange: Exchange, name: bytes) -> str:
        """Where the contents are. To this git-annex adds ``git-annex/UUID/`` by itself."""
        if self._url:
            return f"annex+{self._url}/{name.decode()}/"
        authority = exchange.head.headers.get(b"host", b"")
        if not _AUTHORITY.match(authority):
            return ""
        scheme = "https" if exchange.secure else "http"
        return f"annex+{scheme}://{authority.decode()}/{name.decode()}/"

    # -- git ------------------------------------------------------------------------------------------------

    async def _refs(self, exchange: Exchange, repository: Repository, service: bytes) -> None:
        protocol = _protocol(exchange)
        argv = [
            "git",
            service.decode().removeprefix("git-"),
            "--stateless-rpc",
            "--advertise-refs",
            os.fsdecode(repository.git_dir),
        ]
        async with RunningGit(argv, protocol) as process:
            assert process.stdout is not None
            said = b"".join([piece async for piece in process.stdout])
            code = await process.wait()
        if code:
            raise RepositoryError(f"git {service.decode()} ended with exit status {code}")
        if "version=2" not in protocol.split(":"):
            line = b"# service=" + service + b"\n"
            said = b"%04x%b0000" % (len(line) + 4, line) + said
        exchange.answer(200, [(b"Content-Type", b"application/x-" + service + b"-advertisement"), _NO_CACHE], said)

    async def _service(
        self,
        exchange: Exchange,
        repository: Repository,
        words: list[str],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        argv, service = ["git", *words, "--stateless-rpc", os.fsdecode(repository.git_dir)], f"git-{words[-1]}"
        running = RunningGit(argv, _protocol(exchange), environment=variables)
        async with running as process, anyio.create_task_group() as group:
            failed: list[AnnexError] = []
            group.start_soon(_feed, exchange, process, failed)
            assert process.stdout is not None
            headers = [(b"Content-Type", b"application/x-%b-result" % service.encode()), _NO_CACHE]
            async for piece in process.stdout:
                if not exchange.status:
                    exchange.start(200, headers, None)
                await exchange.send(piece)
                await exchange.flush()
            code = await process.wait()
            group.cancel_scope.cancel()
        if failed:
            raise failed[0]
        if not exchange.status:
            if code == _DIED:
                raise InvalidInput("body", exchange.received, f"a request of {service}: it ended without an answer")
            if code:
                raise RepositoryError(f"git {service} ended with exit status {code}")
            exchange.start(200, headers, None)
        exchange.end()


def _protocol(exchange: Exchange) -> str:
    said = exchange.head.headers.get(b"git-protocol", b"")
    return git_protocol(said)


async def _feed(exchange: Exchange, process: anyio.abc.Process, failed: list[AnnexError]) -> None:
    """The body of the request to git's standard input."""
    assert process.stdin is not None
    try:
        async for piece in _inflated(exchange):
            await process.stdin.send(piece)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # git has heard enough; what it says tells why
    except AnnexError as error:
        failed.append(error)
        process.kill()


async def _inflated(exchange: Exchange) -> AsyncIterator[bytes]:
    coding = exchange.head.headers.get(b"content-encoding", b"identity").lower()
    if coding == b"identity":
        while piece := await exchange.receive():
            yield piece
        return
    if coding not in (b"gzip", b"x-gzip"):
        raise InvalidInput("content-encoding", coding, "gzip or none")
    inflater, total = zlib.decompressobj(31), 0
    while piece := await exchange.receive():
        while piece:
            try:
                inflated = inflater.decompress(piece, CHUNK)
            except zlib.error as error:
                raise InvalidInput("body", b"", f"gzip ({error})") from error
            piece = inflater.unconsumed_tail
            total += len(inflated)
            if total > _MAX_INFLATED:
                raise InvalidInput("body", total, f"at most {_MAX_INFLATED} bytes when inflated")
            if inflated:
                yield inflated
    if not inflater.eof:
        raise InvalidInput("body", total, "gzip to its end")
