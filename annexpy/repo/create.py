"""Make a git-annex repository, byte for byte as ``git init`` and ``git annex init`` would.

git-annex opens the result without changing its configuration, hooks or branch (test_init_beside_git_annex compares
them before and after).

Source: fact sheet repository-format, section 3, and the files the real one makes.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, NotARepository, UnsupportedRepository
from annexpy.logs.line import whole_seconds
from annexpy.logs.paths import Log
from annexpy.logs.repos import DESCRIPTIONS, DIFFERENCES
from annexpy.repo.branch import Branch
from annexpy.repo.config import GitConfig
from annexpy.repo.discovery import Place, find_exactly
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.format import NEWEST_VERSION, Tuning, apply_mode, make_folders
from annexpy.repo.identity import can_be_guessed, login_name
from annexpy.repo.settings import Lockdown
from annexpy.system import new_uuid
from annexpy.uuids import UUID, parse_uuid

__all__ = ["create", "default_description", "describe"]

_HOOK: Final = "#!/bin/sh\n# automatically configured by git-annex\n{}\n"
_IF_IT_CAN: Final = "if git annex {0} --help >/dev/null 2>&1; then git annex {0}; fi"
_BARE_HOOKS: Final = {"pre-push": _IF_IT_CAN.format("pre-push")}
_HOOKS: Final = _BARE_HOOKS | {
    "pre-commit": "git annex pre-commit .",
    "post-receive": _IF_IT_CAN.format("post-receive"),
    "post-checkout": "git annex smudge --update",
    "post-merge": "git annex smudge --update",
}
_FILTERS: Final = {
    "filter.annex.smudge": "git-annex smudge -- %f",
    "filter.annex.clean": "git-annex smudge --clean -- %f",
    "filter.annex.process": "git-annex filter-process",
}
_ATTRIBUTES: Final = b"\n* filter=annex\n"


def create(path: str, *, bare: bool, uuid: UUID | None, private: bool) -> None:
    """Everything but the description, on disk when it returns. What is there is kept.

    Raises:
        InvalidInput: Another UUID than *uuid* is there.
        NotARepository: *path* is taken by something else than an empty directory or a git repository.
    """
    place, there = find_exactly(path), os.path.dirname(os.path.abspath(os.fsencode(path)))
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    if place is None:
        place = _git_init(path, bare)
    files = DiskFiles(place.git_dir)
    try:
        _annex_init(files, place, uuid, private)
        _sync(files, there)
    finally:
        files.close()


def _git_init(path: str, bare: bool) -> Place:
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotARepository(path, "not a directory") from None
    except OSError as error:
        raise NotARepository(path, f"cannot be made: {error.strerror}") from error
    if bare and os.listdir(path):
        raise NotARepository(path, "not empty, and not a git repository: refusing to make a bare one of it")
    top = os.path.abspath(os.fsencode(path))
    git_dir = top if bare else top + b"/.git"
    os.makedirs(git_dir, exist_ok=True)
    files = DiskFiles(git_dir)
    try:
        for folder in (b"objects/info", b"objects/pack", b"refs/heads", b"refs/tags", b"info", b"hooks"):
            files.make_folders(folder)
        config = GitConfig(files)
        branch = config.get("init.defaultbranch") or "master"
        settings: dict[str, str | None] = {
            "core.repositoryformatversion": "0",
            "core.filemode": "true",
            "core.bare": "true" if bare else "false",
        }
        if not bare:
            settings["core.logallrefupdates"] = "true"
        config.change(settings)
        # HEAD last: with it this is a git repository
        files.replace(b"HEAD", b"ref: refs/heads/%b\n" % branch.encode("utf-8", "surrogateescape"))
    finally:
        files.close()
    return Place(git_dir, git_dir, None if bare else top)


def _annex_init(files: Files, place: Place, uuid: UUID | None, private: bool) -> None:
    config = GitConfig(files, git_dir=place.worktree_git_dir)
    lockdown = Lockdown.of(config.get("core.sharedrepository"))
    bare = place.work_tree(config) is None
    there, version = config.get("annex.uuid"), config.get("annex.version")
    if there and uuid is not None and there != uuid:
        raise InvalidInput("uuid", uuid, f"the repository has another one already: {there}")
    if version and version not in ("8", "9", "10"):
        raise UnsupportedRepository(f"{os.fsdecode(place.git_dir)}: annex.version is {version}")
    settings: dict[str, str | None] = {}
    if not can_be_guessed(config):
        # git could not commit here; git annex init helps it in the same way
        settings |= {"user.name": login_name(), "user.email": login_name()}
    if not there:
        settings["annex.uuid"] = parse_uuid(uuid) if uuid is not None else new_uuid()
    if not version:
        settings["annex.version"] = str(NEWEST_VERSION)
    if private:
        settings["annex.private"] = "true"
    if not bare:
        _add_attributes(files, lockdown)
        settings |= {name: value for name, value in _FILTERS.items() if config.get(name) is None}
    for name, command in (_BARE_HOOKS if bare else _HOOKS).items():
        _add_hook(files, name, command, lockdown)
    make_folders(files, b"annex/objects", lockdown)
    _add_sentinal(files, lockdown)
    if settings:  # in one step: one of uuid and version without the other would be an error
        config.change(settings)


def _sync(files: Files, there: bytes) -> None:
    """What makes it a repository, which git leaves to the system, and the folders from *there* to it."""
    for name in (b"HEAD", b"config"):
        status = files.status(name)
        if status is None or not stat.S_ISREG(status.st_mode):
            continue  # a link leads to what somebody else keeps
        fd = files.open_read(name)
        try:
            files.sync(fd)
        finally:
            files.close_fd(fd)
    for folder in (b"objects", b"refs", b"annex", b""):
        files.sync_folder(folder)
    path = files.path
    while path.startswith(there) and path != there:
        path = os.path.dirname(path)
        try:
            above = DiskFiles(path)
        except PermissionError:
            return  # a folder that we may not read is none that we have made
        try:
            above.sync_folder(b"")
        finally:
            above.close()


def _add_hook(files: Files, name: str, command: str, lockdown: Lockdown) -> None:
    path = b"hooks/" + name.encode()
    if files.status(path) is None:
        make_folders(files, b"hooks", lockdown)
        files.replace(path, _HOOK.format(command).encode(), sync=False)
        files.chmod(path, 0o755)


def _add_attributes(files: Files, lockdown: Lockdown) -> None:
    before = files.read(b"info/attributes") or b""
    if b"* filter=annex" not in before.splitlines():
        make_folders(files, b"info", lockdown)
        files.replace(b"info/attributes", before + _ATTRIBUTES, sync=False)


def _add_sentinal(files: Files, lockdown: Lockdown) -> None:
    """The file by which git-annex sees whether inode numbers are stable here."""
    if files.status(b"annex/sentinal") is not None:
        return
    fd = files.open_write(b"annex/sentinal")
    try:
        apply_mode(files, fd, lockdown)
        status = files.fstatus(fd)
    finally:
        files.close_fd(fd)
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    cache = b"%d %d %d %d" % (status.st_ino, status.st_size, seconds, rest)
    files.replace(b"annex/sentinal.cache", cache, sync=False)


def default_description(path: str) -> str:
    """``user@host:path``, as git-annex describes a repository nobody described."""
    home = os.environ.get("HOME", "")
    shown = "~" + path[len(home) :] if home and (path == home or path.startswith(home + "/")) else path
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or login_name()
    return f"{user}@{os.uname().nodename}:{shown}"


def describe(
    branch: Branch, uuid: UUID, description: str | None, default: str, *, private: bool, tuning: Tuning, clock: Clock
) -> None:
    """Enter *description* into ``uuid.log``, or *default* when there is none, and commit."""
    known = DESCRIPTIONS.parse(branch.read(Log.UUID.value)).get(uuid)
    wanted = description if description is not None else known or default
    now = whole_seconds(clock.wall())
    if wanted != known:
        branch.change(Log.UUID.value, lambda content: DESCRIPTIONS.set(content, uuid, wanted, now), private=private)
    chosen = tuning.differences
    if chosen and DIFFERENCES.parse(branch.read(Log.DIFFERENCE.value)).get(uuid) != chosen:
        branch.change(
            Log.DIFFERENCE.value, lambda content: DIFFERENCES.set(content, uuid, chosen, now), private=private
        )
    branch.commit_now(always=True)
