"""Which repository wants which key: preferred content, with the facts that it asks for.

The settings are read once: make a new ``Wanted`` when they changed (``changed`` tells). Of each key only what the
expressions need is read, mostly its location log. Sizes follow the branch (``repo/held.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import tee
from typing import Final

from annexpy.actions.facts import Facts
from annexpy.errors import RequiredContent
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.metadata import current_metadata
from annexpy.logs.paths import Log, key_log
from annexpy.logs.preferred import GROUP_PREFERRED_CONTENT, PREFERRED_CONTENT, REQUIRED_CONTENT
from annexpy.logs.remotes import SPECIAL_REMOTES
from annexpy.logs.repos import GROUPS, MAXSIZES
from annexpy.logs.urls import equivalent_keys, urls
from annexpy.policy.expression import Expression
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.matchexpression import Lacking, match_expression
from annexpy.policy.numcopies import Copies
from annexpy.policy.placement import Candidate, Choice, Unwanted, Wants, choose
from annexpy.policy.wanted import Needs, Policy, needs_of
from annexpy.repo.held import HeldSizes
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["Wanted"]

_SETTINGS: Final = (
    *(Log.PREFERRED_CONTENT, Log.REQUIRED_CONTENT, Log.GROUP_PREFERRED_CONTENT, Log.GROUP),
    *(Log.TRUST, Log.NUMCOPIES, Log.MAXSIZE, Log.REMOTE),
)
_UNUSED: Final = b"annex/unused"


class Wanted:
    """What the repositories that *repository* knows of want.

    Args:
        repository: Open, or ``Facts`` of one.
        held: Sizes to go by, where somebody keeps them already.
        rebalance: As ``--rebalance``: contents may be moved to keep a balance.
    """

    def __init__(
        self, repository: Repository | Facts, *, held: HeldSizes | None = None, rebalance: bool = False
    ) -> None:
        self._facts = repository if isinstance(repository, Facts) else Facts(repository)
        self._repository = self._facts.repository
        self._branch = self._repository.branch
        self._levels = self._repository.tuning.branch_levels
        self._held = HeldSizes(self._repository) if held is None else held
        self._rebalance = rebalance
        self._read = self._settings()

    # -- settings --------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """The settings are no longer those that this one goes by."""
        return self._settings() != self._read

    def _settings(self) -> tuple[bytes, ...]:
        return tuple([self._branch.read(log.value) for log in _SETTINGS])

    @cached_property
    def repositories(self) -> Repositories:
        """What is known of all repositories, but for their sizes where no expression asks for them."""
        preferred, required, groupwanted, groups, _, _, maxsizes, remotes = self._read
        said = Repositories(
            groups=GROUPS.parse(groups),
            trust=self._facts.trust,
            preferred=PREFERRED_CONTENT.parse(preferred),
            required=REQUIRED_CONTENT.parse(required),
            groupwanted=GROUP_PREFERRED_CONTENT.parse(groupwanted),
            numcopies=self._facts.logged_copies[0],
            maxsizes=MAXSIZES.parse(maxsizes),
            preferred_dirs={
                uuid: config["preferreddir"]
                for uuid, config in SPECIAL_REMOTES.parse(remotes).items()
                if "preferreddir" in config
            },
            rebalance=self._rebalance,
        )
        if Needs.SIZES in Policy(said).needs({*said.preferred, *said.required}):
            return replace(said, sizes=self._held.sizes())
        return said

    @property
    def by_size(self) -> bool:
        """How much a repository holds makes a difference."""
        return bool(self.repositories.maxsizes) or Needs.SIZES in self._needs

    @cached_property
    def policy(self) -> Policy:
        """The expressions, bound to who has them."""
        return Policy(self.repositories)

    @cached_property
    def _needs(self) -> Needs:
        return self.policy.needs({*self.repositories.preferred, *self.repositories.required})

    @cached_property
    def _unused(self) -> frozenset[bytes]:
        listed = (self._repository.files.read(_UNUSED) or b"").splitlines()
        return frozenset([words[1] for line in listed if len(words := line.split(b" ")) > 1])

    # -- answers ---------------------------------------------------------------------------------

    def facts(
        self,
        key: Key,
        file: bytes | None = None,
        log: LocationLog | None = None,
        *,
        holders: Collection[UUID] | None = None,
    ) -> KeyFacts:
        """What the expressions need to know of *key*.

        Args:
            key: Which.
            file: The path that it is looked at for, from the top of the work tree.
            log: Its location log, where it was read already.
            holders: Who has it, where that is known; nothing is read for that then.
        """
        if holders is None:
            holders = (self._branch.locations(key) if log is None else log).present
        return self._gathered(key, file, frozenset(holders), self._needs)

    def _gathered(self, key: Key, file: bytes | None, holders: frozenset[UUID], needs: Needs) -> KeyFacts:
        if not needs:
            return KeyFacts(key, file, holders)
        if Needs.SIZES in needs:
            self._held.sizes()  # the policy has the same mapping
        return KeyFacts(
            key,
            file,
            holders,
            numcopies=self._numcopies(file) if Needs.NUMCOPIES in needs else None,
            metadata=self._metadata(key) if Needs.METADATA in needs else {},
            urls=self._urls(key) if Needs.URLS in needs else (),
            unused=Needs.UNUSED in needs and file is None and key.raw in self._unused,
            equivalent=self._equivalent(key) if Needs.EQUIVALENT in needs else (),
        )

    def wants(
        self,
        uuid: UUID,
        key: Key,
        file: bytes | None = None,
        *,
        default: bool = True,
        holders: Collection[UUID] | None = None,
    ) -> bool:
        """Would *uuid* want to get *key*, or to keep it?

        Args:
            uuid: Whom it is about.
            key: What.
            file: The path that it is looked at for.
            default: See ``Policy.wants``.
            holders: Who has it, for whoever has read its location log already.
        """
        return self.policy.wants(uuid, self.facts(key, file, holders=holders), default=default)

    def wants_many(
        self, uuid: UUID, keys: Iterable[tuple[Key, bytes | None]], *, default: bool = True
    ) -> Iterator[tuple[Key, bytes | None, bool]]:
        """As ``wants`` for each key with its file, in their order; location logs are read many at a time."""
        asked, again = tee(keys)
        logs = self._branch.locations_many(key for key, _ in again)
        for (key, file), (_, log) in zip(asked, logs, strict=True):
            yield key, file, self.policy.wants(uuid, self.facts(key, file, log), default=default)

    def matches(
        self, expression: Expression, *, key: Key | None = None, file: bytes | None = None, size: int | None = None
    ) -> bool | Lacking:
        """Whether *expression* matches, as ``git annex matchexpression`` says in this repository.

        Args:
            expression: Which.
            key: What it is asked of.
            file: The path that it is asked for.
            size: Bytes, where the key does not tell.

        Returns:
            What was not told, where it depends on that.
        """
        needs = needs_of(expression.root)
        here, repositories = self._repository.uuid, self.repositories
        if Needs.SIZES in needs:
            repositories = replace(repositories, sizes=self._held.sizes())
        if key is None:
            return match_expression(
                expression, KeyFacts(Key(b"WORM", b"", size), file), repositories, here, without_key=True
            )
        facts = self._gathered(key, file, frozenset(self._branch.locations(key).present), needs)
        if key.size is None and size is not None:
            facts = replace(facts, key=Key(key.backend, key.name, size, mtime=key.mtime))
        return match_expression(expression, facts, repositories, here)

    def wanting(self, key: Key, associated_file: str = "") -> Wants:
        """For ``policy.placement``: does a repository want *key*, if those have it?

        Args:
            key: Its facts are looked up now.
            associated_file: As it came over the wire; none where empty.
        """
        facts = self.facts(key, associated_file.encode("utf-8", "surrogateescape") or None)
        return lambda uuid, holders: self.policy.wants(uuid, facts, holders=holders)

    def free(self, uuid: UUID) -> int | None:
        """Bytes that *uuid* can still take before it is larger than its maxsize; None where it has none."""
        maxsize = self.repositories.maxsizes.get(uuid)
        return None if maxsize is None else maxsize - self._held.sizes().get(uuid, 0)

    def choose(
        self,
        nodes: Sequence[UUID],
        key: Key,
        associated_file: str = "",
        *,
        holders: frozenset[UUID],
        unwanted: Unwanted = Unwanted.ALL,
        refused: frozenset[UUID] = frozenset(),
    ) -> Choice:
        """Which of *nodes* get *key*: ``policy.placement.choose``, with what is known here."""
        return choose(
            [Candidate(uuid, self.free(uuid)) for uuid in nodes],
            self.wanting(key, associated_file),
            holders=holders,
            unwanted=unwanted,
            size=key.size,
            refused=refused,
        )

    def keeping(self, copies: Callable[[Key], Copies], uuids: Collection[UUID]) -> Callable[[Key], Copies]:
        """*copies*, for a drop from *uuids*, that raises where one of these must keep the key.

        A key is required when it is for any of its files.

        Raises:
            RequiredContent: When what is returned is called with such a key.
        """
        required = {uuid for uuid in uuids if self.repositories.required.get(uuid)}
        if not required:
            return copies

        def check(key: Key) -> Copies:
            files: list[bytes | None] = [*self._facts.all_files(key)]
            for file in files or [None]:
                facts = self.facts(key, file)
                places = [uuid for uuid in required if self.policy.requires(uuid, facts)]
                if places:
                    raise RequiredContent(key, map(self._facts.name, sorted(places)), file)
            return copies(key)

        return check

    # -- of one key ------------------------------------------------------------------------------

    def _numcopies(self, file: bytes | None) -> int | None:
        return None if file is None else self._facts.attribute_copies(file)

    def _metadata(self, key: Key) -> dict[str, frozenset[str]]:
        content = self._branch.read(key_log(key, Log.METADATA, levels=self._levels))
        return {field.lower(): values for field, values in current_metadata(content).items()}

    def _urls(self, key: Key) -> tuple[str, ...]:
        content = self._branch.read(key_log(key, Log.URL, levels=self._levels))
        return tuple([recorded.url for recorded in urls(content)])

    def _equivalent(self, key: Key) -> tuple[Key, ...]:
        if key.backend != b"VURL":
            return ()
        return tuple(equivalent_keys(self._branch.read(key_log(key, Log.EQUIVALENT_KEY, levels=self._levels))))
