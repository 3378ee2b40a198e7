"""A git-annex repository on this machine: find it, make one, and what it says about itself.

``Repository.open`` reads the git configuration and nothing else; the branch and the contents come when they
are asked for. dulwich is not imported until a log is read.

Source: fact sheet repository-format, sections 2 and 3; gitrepository-layout(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, NotARepository, UnsupportedRepository
from annexpy.repo.config import GitConfig
from annexpy.repo.discovery import Place, find_repository
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.format import VERSIONS, Tuning
from annexpy.repo.refs import Refs
from annexpy.repo.settings import ContentSettings, Durability, Lockdown
from annexpy.system import CLOCK
from annexpy.uuids import UUID, parse_uuid

if TYPE_CHECKING:
    from annexpy.repo.branch import Branch
    from annexpy.repo.content import ContentStore

__all__ = ["Repository"]

_EXTENSIONS: Final = frozenset({"noop", "preciousobjects", "partialclone", "worktreeconfig", "relativeworktrees"})


class Repository:
    """An initialised git-annex repository.

    Pickles as its path, and a forked child may go on using it. Use as a context manager, or ``close`` it.

    Attributes:
        path: The top of the work tree, or the bare repository.
        git_dir: The directory that holds ``annex``, ``objects``, ``refs`` and ``config``. For a linked worktree
            that of the main repository.
        worktree_git_dir: The directory that holds ``HEAD`` and ``index``: another one in a linked worktree.
        work_tree: The top of the work tree; None when bare.
        files: The door to ``git_dir``.
        config: The git configuration.
        clock: What time it is for this repository.
        uuid: ``annex.uuid``.
        version: ``annex.version``, 8 to 10.
        tuning: ``annex.tune.*``.
    """

    def __init__(self, place: Place, *, clock: Clock = CLOCK, files: Files | None = None) -> None:
        """Open what ``find_repository`` found; most callers want ``Repository.open``.

        Raises:
            NotARepository: git, but not git-annex.
            UnsupportedRepository: A version, object format or tuning annexpy does not write.
        """
        self.git_dir = place.git_dir
        self.worktree_git_dir = place.worktree_git_dir
        self.clock = clock
        self.files: Files = DiskFiles(place.git_dir) if files is None else files
        self._branches: dict[None, Branch] = {}  # one at most, and so the contents: ``setdefault`` is atomic
        self._contents: dict[None, ContentStore] = {}
        try:
            self.config = GitConfig(self.files, git_dir=place.worktree_git_dir)
            self.work_tree = place.work_tree(self.config)
            self.path = os.fsdecode(place.git_dir if self.work_tree is None else self.work_tree)
            self._check_git()
            self.version, self.uuid = self._check_annex()
            self.tuning = Tuning.of(self.config)
        except BaseException:
            self.files.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str] = ".", *, clock: Clock = CLOCK) -> Self:
        """The repository at *path*: bare, a work tree, a directory below one, or a ``.git``.

        Raises:
            NotARepository: No git repository there, or one without git-annex.
            UnsupportedRepository: One that annexpy does not handle.
        """
        return cls(find_repository(os.fspath(path)), clock=clock)

    @classmethod
    def init(
        cls,
        path: str | os.PathLike[str],
        *,
        bare: bool = False,
        uuid: UUID | None = None,
        description: str | None = None,
        private: bool = False,
        clock: Clock = CLOCK,
    ) -> Self:
        """Make a repository at *path* that git-annex accepts as it stands, or make a git repository an annex.

        What is there already is kept: run again, it only puts in place what an interrupted call left out.

        Args:
            path: Made when it is not there. A git repository at exactly this place is used.
            bare: Kind of a new repository; an existing one stays what it is.
            uuid: Instead of a fresh one.
            description: Shown by ``whereis``; default ``user@host:path``.
            private: ``annex.private``: other repositories never hear of this one.
            clock: What time it is for this repository.

        Raises:
            InvalidInput: It has another UUID already.
            UnsupportedRepository: It is one that annexpy does not handle.
        """
        from annexpy.repo.create import create

        create(os.fspath(path), bare=bare, uuid=uuid, private=private)
        repository = cls.open(path, clock=clock)
        try:
            repository._describe(description)
        except BaseException:
            repository.close()
            raise
        return repository

    def _describe(self, description: str | None) -> None:
        from annexpy.repo.create import default_description, describe

        describe(
            self.branch,
            self.uuid,
            description,
            default_description(self.path),
            private=self.is_private,
            tuning=self.tuning,
            clock=self.clock,
        )

    # -- checks ----------------------------------------------------------------------------------

    def _check_git(self) -> None:
        config = self.config
        for name, value in config.items("extensions."):
            extension = name.removeprefix("extensions.")
            if extension == "objectformat" and value.lower() != "sha1":
                raise UnsupportedRepository(f"{self.path}: object format {value}: git-annex needs sha1")
            if extension == "refstorage" and value.lower() != "files":
                raise UnsupportedRepository(f"{self.path}: refs are stored as {value}; annexpy handles files only")
            if extension == "compatobjectformat" or (
                extension not in _EXTENSIONS
                and extension not in ("objectformat", "refstorage")
                and (config.get_int("core.repositoryformatversion", 0) or 0) > 0
            ):
                raise UnsupportedRepository(f"{self.path}: unknown repository extension {extension}")
        if (config.get_int("core.repositoryformatversion", 0) or 0) > 1:
            raise UnsupportedRepository(f"{self.path}: git repository format is newer than 1")

    def _check_annex(self) -> tuple[int, UUID]:
        uuid, version = self.config.get("annex.uuid"), self.config.get("annex.version")
        if uuid and version:
            try:
                number = int(version)
            except ValueError:
                raise InvalidInput("annex.version", version, "a number") from None
            if number not in VERSIONS:
                known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
                hint = "; run git annex upgrade" if number < VERSIONS[0] else ""
                raise UnsupportedRepository(f"{self.path}: annex.version is {number}; annexpy knows {known}{hint}")
            return number, parse_uuid(uuid)
        if uuid or version:
            there, missing = ("annex.uuid", "annex.version") if uuid else ("annex.version", "annex.uuid")
            raise NotARepository(self.path, f"{there} is set but {missing} is not: the configuration is damaged")
        if Refs(self.files, Lockdown()).named(b"git-annex"):
            raise NotARepository(
                self.path, "a clone of a git-annex repository, not initialised yet: run git annex init"
            )
        raise NotARepository(self.path, "a git repository without git-annex: run git annex init")

    # -- parts -----------------------------------------------------------------------------------

    @property
    def bare(self) -> bool:
        """No work tree."""
        return self.work_tree is None

    @property
    def is_private(self) -> bool:
        """``annex.private``: lines of this repository never go into the branch."""
        return self.config.get_bool("annex.private")

    @property
    def writable(self) -> bool:
        """False on a read-only file system, and where we lack the permission."""
        annex = self.git_dir + b"/annex"
        return os.access(annex if os.path.isdir(annex) else self.git_dir, os.W_OK | os.X_OK)

    @property
    def branch(self) -> Branch:
        """The git-annex branch, the same one for all threads: records that wait in another one would be lost."""
        for branch in self._branches.values():
            return branch
        from annexpy.repo.branch import Branch

        made = Branch(self.files, self.config, clock=self.clock, uuid=self.uuid, writable=self.writable)
        return self._branches.setdefault(None, made)

    @property
    def content(self) -> ContentStore:
        """The contents, stored with full durability."""
        for store in self._contents.values():
            return store
        return self._contents.setdefault(None, self.content_store())

    def content_store(self, *, durability: Durability = "full") -> ContentStore:
        """A content store of one's own, for another durability."""
        from annexpy.repo.content import ContentStore

        settings = ContentSettings.of(self.config, bare=self.bare, durability=durability)
        return ContentStore(self.files, clock=self.clock, settings=settings)

    def close(self) -> None:
        """Give back file handles. Nothing is committed; records that are only queued are lost."""
        for branch in self._branches.values():
            branch.close()
        self.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Repository.open({self.path!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (type(self), self.path, None if self.clock is CLOCK else self.clock)


def _reopen(kind: type[Repository], path: str, clock: Clock | None) -> Repository:
    return kind.open(path, clock=CLOCK if clock is None else clock)
