"""Records on their way to the branch: files below ``annex/annexpy/spool`` that nobody waits for.

Taking the journal lock for every record would make writers wait for each other and for git-annex. So every
process appends to a file of its own, and whoever holds the journal lock next absorbs the files of all
processes into one commit.

How a file lives: its writer makes ``NAME.open``, keeps it open and appends whole batches, with an OFD lock
on it only while it writes. An absorber, holding the journal lock, takes that same lock for a moment and
renames the file to ``NAME.ready``: now it is complete, and the writer, which finds its file gone, begins
another. After the commit the ready file is unlinked. A process that died leaves a file like any other; what
its last write left unfinished fails its checksum and was never acknowledged. A file that is absorbed twice
changes nothing (records.py says why).

Where locks do not work, every ``append`` writes a file of its own and renames it to ``.ready``.

Source: architecture D5.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final, TypeVar

from annexpy.clock import Clock
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, apply_mode, make_folders
from annexpy.repo.records import Queued, record_path
from annexpy.repo.settings import Lockdown
from annexpy.repo.spooled import Batch, Seen, as_batch, batches

__all__ = ["SPOOL", "Spool"]

T = TypeVar("T")

SPOOL: Final = STATE + b"/spool"

_NUMBERS: Final = count()

_OPEN: Final = b".open"
_READY: Final = b".ready"
_UNFINISHED: Final = b".tmp"
_LARGEST: Final = 16 << 20  # a file is sealed by its own writer from here on
_OLD: Final = 86_400.0  # an unfinished file of another host is given up after a day
_SEAL_TRIES: Final = 200  # × 1 ms: a writer holds its lock for one write and one sync


class Spool:
    """The spool of a repository, and this process's own file in it. Not for several threads at once.

    Args:
        files: The git directory.
        lockdown: Permissions.
        clock: For names and for the age of leftovers.
        locks: File locks work here.
    """

    def __init__(self, files: Files, lockdown: Lockdown, clock: Clock, *, locks: bool = True) -> None:
        self._files, self._lockdown, self._clock, self._locks = files, lockdown, clock, locks
        self._name = b""
        self._own: _Own | None = None
        self._seen: dict[bytes, Seen] = {}

    # -- writing ---------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes], base: bytes, *, sync: bool) -> None:
        """Add records. When it returns with *sync* they survive a power cut, else a kill.

        Raises OSError, and then they are not there.
        """
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        batch = as_batch(data, base)
        if not self._locks or not self._append(batch, sync):
            self._write_ready(batch, sync)

    def _append(self, batch: bytes, sync: bool) -> bool:
        """False when locks turn out not to work."""
        files = self._files
        while True:
            own = self._own
            if own is None or own.pid != os.getpid():
                self.close()
                own = self._own = self._begin()
            try:
                if not files.try_lock(own.fd, exclusive=True):
                    continue  # somebody is sealing it
            except OSError:
                self.sync()
                self._locks = False
                files.unlink(self._name + _OPEN)
                self.close()
                return False
            try:
                there = own.folder.status(own.name)
                if there is None or (there.st_ino, there.st_dev) != own.identity:
                    self.sync()
                    self._own = None  # it was sealed
                    continue
                size = there.st_size
                try:
                    files.write(own.fd, batch)
                    own.unsynced = True
                    if sync:
                        files.sync(own.fd)
                        own.unsynced = False
                except BaseException:
                    self._own = None  # whatever is left of this batch ends the file: the next one needs another
                    files.truncate(own.fd, size)
                    raise
            finally:
                files.unlock(own.fd)  # closing would not do it while a forked child has the descriptor
                if self._own is not own:
                    own.close()
            if sync and not own.named:
                self._sync_names()
                own.named = True
            if size + len(batch) >= _LARGEST:
                self.sync()
                self.close()
            return True

    @property
    def unsynced(self) -> bool:
        """Records that were appended would not survive a power cut yet."""
        own = self._own
        return own is not None and own.pid == os.getpid() and (own.unsynced or not own.named)

    def sync(self) -> None:
        """What was appended without *sync* survives a power cut when this returns."""
        own = self._own
        if own is None or not self.unsynced:
            return
        if own.unsynced:
            self._files.sync(own.fd)
            own.unsynced = False
        if not own.named:
            self._sync_names()
            own.named = True

    def _begin(self) -> _Own:
        """A file of our own, kept open: opening it for every record costs more than writing the record."""
        files = self._files
        self._new_name()
        name = self._name.removeprefix(SPOOL + b"/") + _OPEN
        try:
            folder = files.folder(SPOOL)
            fd = folder.open_write(name, exclusive=True, append=True)
        except FileNotFoundError:
            self._make_folder()
            folder = files.folder(SPOOL)
            fd = folder.open_write(name, exclusive=True, append=True)
        own = _Own(files, folder, name, fd)
        apply_mode(files, fd, self._lockdown)
        return own

    def close(self) -> None:
        """Let go of our own file. Its records stay; the next ``append`` begins another."""
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def _new_name(self) -> None:
        host = b"".join([b"%c" % c if chr(c).isalnum() else b"_" for c in os.fsencode(os.uname().nodename)])
        # they sort by age, and those of one process by number; made exclusively, so it is nobody else's
        now = max(0, int(self._clock.wall() * 1_000_000))
        self._name = SPOOL + b"/%015x-%b-%d-%06d" % (now, host[:64], os.getpid(), next(_NUMBERS))

    def _make_folder(self) -> None:
        made = make_folders(self._files, SPOOL, self._lockdown)
        for folder in made:
            self._files.sync_folder(os.path.dirname(folder))

    def _sync_names(self) -> None:
        try:
            self._files.sync_folder(SPOOL)
        except FileNotFoundError:
            pass  # absorbed, and the folder cleaned away: the records are in the branch

    def _write_ready(self, batch: bytes, sync: bool) -> None:
        files = self._files
        self._new_name()
        try:
            fd = files.open_write(self._name + _UNFINISHED, exclusive=True)
        except FileNotFoundError:
            self._make_folder()
            fd = files.open_write(self._name + _UNFINISHED, exclusive=True)
        try:
            apply_mode(files, fd, self._lockdown)
            files.write(fd, batch)
            if sync:
                files.sync(fd)
        except BaseException:
            files.unlink(self._name + _UNFINISHED)
            raise
        finally:
            files.close_fd(fd)
        files.rename(self._name + _UNFINISHED, self._name + _READY)
        if sync:
            files.sync_folder(SPOOL)

    # -- absorbing: only under the journal lock --------------------------------------------------

    def seal(self) -> list[bytes]:
        """Complete every file that can be; the names of all complete ones, oldest first.

        A file whose writer is in the middle of a long sync is left for the next time.
        """
        files, ready = self._files, []
        for name in sorted(files.names(SPOOL)):
            path = SPOOL + b"/" + name
            if name.endswith(_READY):
                ready.append(path)
            elif name.endswith(_OPEN):
                sealed = self._seal(path)
                if sealed is not None:
                    ready.append(sealed)
            elif name.endswith(_UNFINISHED):
                self._clear_away(path)
        return ready

    def _seal(self, path: bytes) -> bytes | None:
        files = self._files
        try:
            fd = files.open_write(path, create=False)
        except FileNotFoundError:
            return None
        try:
            for _ in range(_SEAL_TRIES):
                if files.try_lock(fd, exclusive=True):
                    break
                time.sleep(0.001)
            else:
                return None
            sealed = path.removesuffix(_OPEN) + _READY
            files.rename(path, sealed)
            files.unlink(path)  # still there when a power cut had left both names: then rename does nothing
            return sealed
        except FileNotFoundError:
            return None
        finally:
            files.close_fd(fd)

    def _clear_away(self, path: bytes) -> None:
        """Remove an unfinished file nobody can be writing any more. It was never acknowledged."""
        status = self._files.status(path)
        if status is not None and self._clock.wall() - status.st_mtime > _OLD:
            self._files.unlink(path)

    def load(self, path: bytes) -> Iterator[Batch]:
        """The batches of a complete file."""
        try:
            fd = self._files.open_read(path)
        except FileNotFoundError:
            return
        try:
            yield from batches(self._files, fd)
        finally:
            self._files.close_fd(fd)

    def empty(self) -> bool:
        """Nothing waits here, and nothing was left unfinished."""
        return not self._files.names(SPOOL)

    def discard(self, paths: Iterable[bytes]) -> None:
        """Remove files whose records are in the branch now."""
        for path in paths:
            self._files.unlink(path)

    # -- reading ---------------------------------------------------------------------------------

    def may_have(self) -> Callable[[bytes], bool]:
        """Tells whether there may be records about a path, of any process; as of now. It is never wrong to say yes.

        Look at the branch after this, not before.
        """
        seen = self._looked(lambda seen: seen)
        return lambda path: any(one.places(path) for one in seen)

    def records(self, path: bytes) -> list[Queued]:
        """The records about *path* that are not in the branch yet, in the order of their times, of all processes.

        Look at the branch after this, not before.
        """

        def found(seen: list[Seen]) -> list[Queued]:
            some = [(one, one.places(path)) for one in seen]
            return [record for one, places in some if places for record in one.records(self._files, places)]

        return sorted([record for record in self._looked(found) if record_path(record.line) == path])

    def paths(self) -> set[bytes]:
        """Every path that has records here."""
        return self._looked(
            lambda seen: {record_path(record.line) for one in seen for record in one.records(self._files)}
        )

    def _looked(self, answer: Callable[[list[Seen]], T]) -> T:
        """*answer* to what is in the files, once they are known up to their ends."""
        for _ in range(20):
            try:
                return answer(self._look())
            except FileNotFoundError:
                pass  # sealed or absorbed while we looked
        return answer(self._look())

    def _look(self) -> list[Seen]:
        files, seen = self._files, self._seen
        current: dict[bytes, Seen] = {}
        for name in files.names(SPOOL):
            stem, dot, kind = name.rpartition(b".")
            if dot + kind not in (_OPEN, _READY):
                continue
            path = SPOOL + b"/" + name
            status = files.status(path)
            if status is None:
                raise FileNotFoundError(path)
            known = seen.get(stem)
            if known is None or known.identity != (status.st_ino, status.st_dev):
                known = Seen(path, status)
            known.path = path
            if known.size < status.st_size:
                known.look(files)
            current[stem] = known
        self._seen = current
        return list(current.values())


class _Own:
    """The file of this process, open, and what it is known by."""

    __slots__ = ("_files", "fd", "folder", "identity", "name", "named", "pid", "unsynced")

    def __init__(self, files: Files, folder: Files, name: bytes, fd: int) -> None:
        self._files, self.folder, self.name, self.fd = files, folder, name, fd
        status = files.fstatus(fd)
        self.identity = (status.st_ino, status.st_dev)
        self.pid, self.named, self.unsynced = os.getpid(), False, False

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close_fd(fd)
            self.folder.close()
