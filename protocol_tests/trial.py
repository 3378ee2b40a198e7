"""What a check is given: connections to the subject, fresh contents, and the transcript of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from protocol_tests.channel import Gone, Patience, Process
from protocol_tests.keys import Contents
from protocol_tests.need import Need, Role
from protocol_tests.subject import CLIENTS, Breakable, Subject, Visit
from protocol_tests.transcript import Transcript
from protocol_tests.wire import Talk, Violation

__all__ = ["NotTried", "Trial", "fail", "must"]


class NotTried(Exception):
    """The check finds that it cannot be made here; the message says why."""


def fail(why: str) -> None:
    """The requirement is not met.

    Raises:
        Violation: Always.
    """
    raise Violation(why)


def must(met: bool, why: str) -> None:
    """The requirement is met, or not because of *why*.

    Raises:
        Violation: *met* is False.
    """
    if not met:
        raise Violation(why)


class Trial:
    """One check of one requirement, at one version.

    Attributes:
        version: To agree on.
        role: That the subject has.
        contents: Fresh ones.
        seed: For whatever else is drawn.
        examples: How many of them a state machine may try.
        hold: For how many seconds a lock is held where it is to be seen that it lasts.
        transcript: Of all connections.
        away: Nodes that cannot be asked now.
    """

    def __init__(
        self,
        subject: Subject,
        version: int,
        contents: Contents,
        patience: Patience,
        *,
        role: Role = Role.WRITE,
        seed: int = 0,
        examples: int = 10,
        hold: float = 11.0,
        transcript: Transcript | None = None,
    ) -> None:
        """Nothing is connected yet."""
        self.subject, self.version, self.role = subject, version, role
        self.contents, self.patience = contents, patience
        self.seed, self.examples, self.hold = seed, examples, hold
        self.transcript = Transcript() if transcript is None else transcript
        self.away: set[int] = set()
        self._talks: list[Talk] = []
        self._closers: list[Callable[[], object]] = []

    # -- connections ------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Breakable:
        """The nodes of the cluster, which can be broken: the requirement needs BROKEN_NODES."""
        assert self.subject.cluster is not None
        return self.subject.cluster

    def connect(
        self, subject: Subject | None = None, *, client: int = 0, uuid: str | None = None, role: Role | None = None
    ) -> Talk:
        """A connection on which nothing was said."""
        subject = subject or self.subject
        visit = Visit(CLIENTS[client], subject.uuid if uuid is None else uuid, role or self.role, self.patience)
        conn = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[len(self._talks)] if len(self._talks) < 26 else f"Z{len(self._talks)}"
        self.transcript.note(conn, "exec", f"{subject.name} ({visit.role})")
        try:
            channel = subject.channel(visit)
        except OSError as error:
            raise Violation(f"no connection: {error}") from error
        talk = Talk(channel, self.transcript, self.patience, conn)
        self._talks.append(talk)
        return talk

    def greet(self, talk: Talk, subject: Subject | None = None, client: int = 0) -> bytes:
        """Authenticate where that is asked for, and hear AUTH-SUCCESS; the UUID in it."""
        subject = subject or self.subject
        if subject.token:
            talk.say(f"AUTH {CLIENTS[client]} {subject.token}".encode())
        try:
            answer = talk.hear()
        except Gone as gone:
            raise Gone(f"the server left without a greeting; {talk.channel.fate(1.0)}".rstrip("; ")) from gone
        must(answer.startswith(b"AUTH-SUCCESS"), f"the server greets with {answer[:80]!r}")
        return answer.removeprefix(b"AUTH-SUCCESS").strip()

    def talk(
        self,
        version: int | None = None,
        subject: Subject | None = None,
        *,
        client: int = 0,
        role: Role | None = None,
    ) -> Talk:
        """A session that is ready for requests."""
        talk = self.connect(subject, client=client, role=role)
        self.greet(talk, subject, client)
        talk.agree(self.version if version is None else version)
        return talk

    def writer(self) -> Talk:
        """A session with the same contents that may write.

        Raises:
            NotTried: The subject has none.
        """
        if self.role is Role.WRITE:
            return self.talk()
        if self.subject.writer is not None:
            return self.talk(subject=self.subject.writer, role=Role.WRITE)
        if self.subject.path is not None:
            return self.talk(role=Role.WRITE)
        raise NotTried("it needs a way to write (--writer)")

    def writing(self) -> Subject:
        """Over HTTP: the subject by which one may write.

        Raises:
            NotTried: There is none.
        """
        if self.role is Role.WRITE:
            return self.subject
        if self.subject.writer is not None and self.subject.writer.url:
            return self.subject.writer
        raise NotTried("it needs a way to write (--writer URL)")

    def moments(self) -> Iterator[float]:
        """Four moments while a lock is held, the last of them ``hold`` seconds from now; waits for each."""
        begin = time.monotonic()
        for quarter in range(1, 5):
            wanted = self.hold * quarter / 4
            time.sleep(max(0.0, begin + wanted - time.monotonic()))
            yield wanted

    def lose(self, key: bytes) -> None:
        """Take the file of *key* away, behind the server's back.

        Raises:
            NotTried: No file has that name.
        """
        assert self.subject.path is not None, "the requirement needs PATH"
        files = [one for one in self.subject.path.rglob(key.decode()) if one.is_file()]
        if not files:
            raise NotTried("contents are not in files that are called as their keys")
        for file in files:
            file.parent.chmod(0o755)
            file.unlink()
        self.transcript.note("", "comment", f"the harness deletes the file of {key.decode()}")

    @contextmanager
    def without(self, node: int) -> Iterator[None]:
        """The node *node* is not to be asked."""
        self.away.add(node)
        try:
            yield
        finally:
            self.away.discard(node)

    def vanish(self, talk: Talk) -> None:
        """Hang up, and give the server a moment to notice. A process has noticed when it has ended."""
        talk.close()
        if Need.PROCESS not in self.subject.has:
            time.sleep(0.1)

    def process(self, talk: Talk) -> Process:
        """The server process behind *talk*."""
        assert isinstance(talk.channel, Process), "the requirement needs PROCESS"
        return talk.channel

    def another(self) -> Trial:
        """One like this, with a transcript of its own."""
        return Trial(
            self.subject,
            self.version,
            self.contents,
            self.patience,
            role=self.role,
            seed=self.seed,
            examples=self.examples,
            hold=self.hold,
        )

    def close(self) -> None:
        """Leave all that is still open."""
        for close in (*(talk.leave for talk in self._talks), *self._closers):
            close()

    def when_closed(self, close: Callable[[], object]) -> None:
        """Call *close* at the end."""
        self._closers.append(close)
