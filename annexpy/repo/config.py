"""The git configuration of a repository: read from every place git reads it, written as git writes it.

Read in git's order, later values win: system, user (XDG, then ``~/.gitconfig``), repository,
``config.worktree`` when ``extensions.worktreeConfig`` is set, then the environment
(``GIT_CONFIG_PARAMETERS``, ``GIT_CONFIG_COUNT``), each with its ``include`` and ``includeIf``.
``set``, ``add`` and ``unset`` change the repository's own file only, under ``config.lock``, and leave
every other byte of it alone.

No git process and no dulwich: its configuration parser alone costs 24 ms of import, this one 3.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from annexpy.errors import InvalidInput, LockHeld, UnsupportedRepository
from annexpy.logs.sizes import parse_size
from annexpy.repo.files import Files
from annexpy.repo.gitconfig import Entry, boolean, parse_config, setting_name, with_value, without
from annexpy.repo.gitremote import RemoteConfig

__all__ = ["GitConfig", "RemoteConfig"]

_Edit: TypeAlias = Callable[[bytes], bytes]

_LOCK_SECONDS: Final = 5.0
_INCLUDE_DEPTH: Final = 10  # as git


class GitConfig:
    """The configuration as git would see it in this repository.

    Values are text (undecodable bytes as surrogates). A setting without ``=`` reads as ``""`` and counts
    as true. The files are read once; ``refresh`` looks whether the repository's own changed since.
    """

    def __init__(
        self,
        files: Files,
        *,
        git_dir: bytes | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Read it.

        Args:
            files: The directory that holds ``config`` (of the main repository for a linked worktree).
            git_dir: The worktree's own git directory, for ``config.worktree`` and ``includeIf gitdir:``.
            environ: Instead of the environment; an empty one gives the repository's own settings only.
        """
        self._files = files
        self._git_dir = git_dir if git_dir is not None else files.path
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._values: dict[str, list[str | None]] = {}
        self._stamp: tuple[int, ...] = ()
        self._urls: list[str] | None = None
        self.reload()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value that counts (the last one), or *default*."""
        values = self._values.get(name) or self._values.get(setting_name(name))
        return default if not values else values[-1] or ""

    def get_all(self, name: str) -> list[str]:
        """Every value, in the order in which git reads them."""
        return [value or "" for value in self._values.get(setting_name(name), ())]

    def get_bool(self, name: str, default: bool = False) -> bool:
        """A boolean.

        Raises:
            InvalidInput: The value is no boolean.
        """
        values = self._values.get(name) or self._values.get(setting_name(name))
        if not values:
            return default
        return True if values[-1] is None else boolean(name, values[-1])

    def get_int(self, name: str, default: int | None = None) -> int | None:
        """A whole number, with git's ``k``, ``m``, ``g`` (1024).

        Raises:
            InvalidInput: The value is no number.
        """
        value = self.get(name)
        if value is None:
            return default
        match = re.fullmatch(r"\s*([+-]?\d+)([kmg]?)\s*", value, re.IGNORECASE)
        if match is None:
            raise InvalidInput(name, value, "a whole number, k, m or g may follow")
        return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]

    def get_size(self, name: str, default: int | None = None) -> int | None:
        """A size in bytes, as git-annex writes sizes (``1 megabyte``).

        Raises:
            InvalidInput: The value is no size.
        """
        value = self.get(name)
        if value is None:
            return default
        size = parse_size(value)
        if size is None:
            raise InvalidInput(name, value, "a size, like 500 MB or 1.5 GiB")
        return size

    def items(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """(name, value that counts) of every setting whose canonical name starts with *prefix*."""
        for name, values in self._values.items():
            if name.startswith(prefix):
                yield name, values[-1] or ""

    def remotes(self) -> dict[str, RemoteConfig]:
        """Name → remote, in the order of the files. Special remotes too: they have a UUID and no url."""
        found: dict[str, dict[str, str]] = {}
        for full, values in self._values.items():
            if full.startswith("remote.") and full.count(".") >= 2:
                name, _, field = full[7:].rpartition(".")
                last = values[-1]
                found.setdefault(name, {})[field] = "true" if last is None else last
        remotes = {}
        for name, fields in found.items():
            if "url" in fields or "annex-uuid" in fields:
                url, push = fields.get("url"), fields.get("pushurl")
                remotes[name] = RemoteConfig(
                    name,
                    None if url is None else self._rewritten(url, "insteadof"),
                    push if push is not None else self._push_url(url),
                    fields,
                )
        return remotes

    def _rewritten(self, url: str, rule: str) -> str:
        longest, base = "", ""
        for name, values in self._values.items():
            if name.startswith("url.") and name.endswith("." + rule):
                for prefix in values:
                    if prefix and url.startswith(prefix) and len(prefix) > len(longest):
                        longest, base = prefix, name[4 : -len(rule) - 1]
        return base + url[len(longest) :] if longest else url

    def _push_url(self, url: str | None) -> str | None:
        if url is None:
            return None
        pushed = self._rewritten(url, "pushinsteadof")
        return None if pushed == url else pushed

    def refresh(self) -> bool:
        """Read again when the repository's own file is another one than before; True when it was."""
        if self._stamp_now() == self._stamp:
            return False
        self.reload()
        return True

    def reload(self) -> None:
        """Read everything again."""
        for _ in range(2):
            self._values = {}
            self._wants_urls = False
            self._stamp = self._stamp_now()
            for path in self._outer_files():
                self._read_outer(path, 0)
            own = self._files.read(b"config")
            if own is not None:
                self._take(own, os.path.dirname(self._files.path + b"/config"), 0)
            if self._flag("extensions.worktreeconfig"):
                self._read_outer(self._git_dir + b"/config.worktree", 0)
            self._read_environment()
            if not self._wants_urls or self._urls is not None:
                break
            # includeIf "hasconfig:remote.*.url:…" needs the urls of the whole configuration: second pass
            self._urls = [
                v for n, values in self._values.items() if re.match(r"remote\..*\.url\Z", n) for v in values if v
            ]
        self._urls = None

    def _stamp_now(self) -> tuple[int, ...]:
        status = self._files.status(b"config")
        return () if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)

    def _flag(self, name: str) -> bool:
        values = self._values.get(name)
        return bool(values and (values[-1] is None or values[-1].lower() in ("true", "yes", "on", "1")))

    def _outer_files(self) -> Iterator[bytes]:
        env = self._environ
        if not env:
            return
        if env.get("GIT_CONFIG_NOSYSTEM", "").lower() not in ("1", "true", "yes", "on"):
            yield os.fsencode(env.get("GIT_CONFIG_SYSTEM", "/etc/gitconfig"))
        if "GIT_CONFIG_GLOBAL" in env:
            yield os.fsencode(env["GIT_CONFIG_GLOBAL"])
            return
        home = env.get("HOME")
        xdg = env.get("XDG_CONFIG_HOME") or (home and home + "/.config")
        if xdg:
            yield os.fsencode(xdg + "/git/config")
        if home:
            yield os.fsencode(home + "/.gitconfig")

    def _read_outer(self, path: bytes, depth: int) -> None:
        # Not through Files: these lie outside the repository, and users keep them behind symbolic links.
        try:
            with open(path, "rb", buffering=0) as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
            return
        self._take(text, os.path.dirname(path), depth)

    def _take(self, text: bytes, folder: bytes, depth: int) -> None:
        for entry in parse_config(text):
            if not isinstance(entry, Entry):
                continue
            self._values.setdefault(entry.name, []).append(entry.value)
            including = entry.section in ("include", "includeif") and entry.name.endswith(".path")
            if including and entry.value and depth < _INCLUDE_DEPTH and self._applies(entry, folder):
                self._read_outer(os.path.join(folder, os.fsencode(self._home(entry.value))), depth + 1)

    def _home(self, path: str) -> str:
        if path.startswith("~/") and "HOME" in self._environ:
            return self._environ["HOME"] + path[1:]
        return os.path.expanduser(path) if path.startswith("~") else path

    def _applies(self, entry: Entry, folder: bytes) -> bool:
        kind, _, pattern = (entry.subsection or "").partition(":")
        match kind:
            case "":
                return entry.section == "include"
            case "gitdir" | "gitdir/i":
                flags = re.IGNORECASE if kind == "gitdir/i" else 0
                pattern = self._home(pattern)
                if pattern.startswith("./"):
                    pattern = os.fsdecode(folder) + pattern[1:]
                elif not pattern.startswith("/"):
                    pattern = "**/" + pattern
                places = {os.fsdecode(self._git_dir), os.fsdecode(os.path.realpath(self._git_dir))}
                return any(_glob(pattern, flags).match(place) for place in places)
            case "onbranch":
                head = self._files.read(b"HEAD") or b""
                branch = head.removeprefix(b"ref: refs/heads/").strip().decode("utf-8", "surrogateescape")
                return head.startswith(b"ref: refs/heads/") and bool(_glob(pattern).match(branch))
            case "hasconfig" if pattern.startswith("remote.*.url:"):
                self._wants_urls = True
                wanted = _glob(pattern.partition(":")[2])
                return any(wanted.match(url) for url in self._urls or ())
            case _:
                return False

    def _read_environment(self) -> None:
        parameters = self._environ.get("GIT_CONFIG_PARAMETERS")
        if parameters:
            import shlex  # git -c NAME=VALUE arrives quoted for a shell

            for token in shlex.split(parameters):
                name, equals, value = token.partition("=")
                self._values.setdefault(setting_name(name), []).append(value if equals else None)
        for number in range(int(self._environ.get("GIT_CONFIG_COUNT") or 0)):
            key = self._environ.get(f"GIT_CONFIG_KEY_{number}")
            if key is not None:
                self._values.setdefault(setting_name(key), []).append(self._environ.get(f"GIT_CONFIG_VALUE_{number}"))

    # -- writing ---------------------------------------------------------------------------------

    def set(self, name: str, value: str) -> None:
        """Make *value* the one value of *name* in the repository's own file. As ``add`` otherwise."""
        self.change({name: value})

    def unset(self, name: str) -> None:
        """Remove every value of *name* from the repository's own file. As ``add`` otherwise."""
        self.change({name: None})

    def add(self, name: str, value: str) -> None:
        """Give *name* one more value in the repository's own file.

        Raises:
            InvalidInput: *name* is no name of a setting, or *value* holds a NUL.
            LockHeld: Somebody else kept ``config.lock`` for 5 seconds.
        """
        self._edit(lambda text: with_value(text, name, value, replace=False))

    def change(self, settings: Mapping[str, str | None]) -> None:
        """``set`` and (for None) ``unset`` of several settings in one step."""

        def edit(text: bytes) -> bytes:
            for name, value in settings.items():
                text = without(text, name) if value is None else with_value(text, name, value, replace=True)
            return text

        self._edit(edit)

    def _edit(self, edit: _Edit) -> None:
        files = self._files
        status = files.status(b"config")
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise UnsupportedRepository("config is not a regular file: refusing to replace it")
        fd = self._take_lock()
        try:
            before = files.read(b"config") or b""
            after = edit(before)
            if after != before:
                files.write(fd, after)
                if status is not None:
                    files.fchmod(fd, status.st_mode & 0o7777)
                files.sync(fd)
        except BaseException:
            files.close_fd(fd)
            files.unlink(b"config.lock")
            raise
        files.close_fd(fd)
        if after != before:
            files.rename(b"config.lock", b"config")
            files.sync_folder(b"")
        else:
            files.unlink(b"config.lock")
        self.reload()

    def _take_lock(self) -> int:
        waited, pause = 0.0, 0.005
        while True:
            try:
                return self._files.open_write(b"config.lock", exclusive=True, mode=0o666)
            except FileExistsError:
                if waited >= _LOCK_SECONDS:
                    lock = os.fsdecode(self._files.path + b"/config.lock")
                    raise LockHeld(lock, "another git process, or one that died", waited) from None
            time.sleep(pause)
            waited += pause
            pause = min(pause * 2, 0.1)


def _glob(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Wildmatch of git with path names: ``*`` stays inside a component, ``**/`` and ``/**`` cross them."""
    if pattern.endswith("/"):
        pattern += "**"
    parts = []
    for part in re.findall(r"\*\*/|/\*\*|\*+|\?|\[!?[^]]+\]|.", pattern, re.DOTALL):
        match part:
            case "**/":
                parts.append("(?:.*/)?")
            case "/**":
                parts.append("/.*")
            case "?":
                parts.append("[^/]")
            case _ if part[0] == "*":
                parts.append("[^/]*")
            case _ if part[0] == "[" and len(part) > 1:
                parts.append(part.replace("[!", "[^", 1))
            case _:
                parts.append(re.escape(part))
    return re.compile("".join(parts) + r"\Z", flags | re.DOTALL)
