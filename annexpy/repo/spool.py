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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final, TypeVar

from annexpy.clock import Clock
from annexpy.repo.files import Files
from annexpy.repo.format import apply_mode, make_folders
from annexpy.repo.on_disk import ON_DISK, sync_above
from annexpy.repo.records import Queued, presence_of, record_path
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool_file import OPEN, READY, SPOOL, SpoolFile
from annexpy.repo.spooled import Batch, Seen, as_batch, batches

__all__ = ["SPOOL", "Spool"]

T = TypeVar("T")

_NUMBERS: Final = count()

_UNFINISHED: Final = b".tmp"
_LARGEST: Final = 16 << 20  # a file is sealed by its own writer from here on
_OLD: Final = 86_400.0  # an unfinished file of another host is given up after a day
_SEAL_TRIES: Final = 200  # × 1 ms: a writer holds its lock for one write and one sync


class Spool:
    """The spool of a repository, and this process's own file in it.

    Not for several threads at once, except that one may ``append`` while another one is in ``sync``.

    Args:
        files: The git directory.
        lockdown: Permissions.
        clock: For names and for the age of leftovers.
        locks: File locks work here.
    """

    def __init__(self, files: Files, lockdown: Lockdown, clock: Clock, *, locks: bool = True) -> None:
        self._files, self._lockdown, self._clock, self._locks = files, lockdown, clock, locks
        self._name = b""
        self._placed = False
        self._begin_anew()
        self._seen: dict[bytes, Seen] = {}

    # -- writing ---------------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        """What another process, of which we are a fork, has written is for that one to sync."""
        self._pid = os.getpid()
        self._own: SpoolFile | None = None
        self._unsynced: list[SpoolFile] = []
        self._mutex, self._syncing = threading.Lock(), threading.Lock()

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            if self._own is not None:
                self._own.close()
            self._begin_anew()

    def append(self, lines: Sequence[bytes], base: bytes, *, sync: bool) -> None:
        """Add records. When it returns with *sync* they survive a power cut, else a kill.

        Raises OSError. Then they are not there, or the next ``sync`` writes them again.
        """
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        batch = as_batch(data, base)
        self._check_fork()
        if not self._locks or not self._append(batch):
            self._write_ready(batch, sync)
        if sync:
            self.sync()

    def _append(self, batch: bytes) -> bool:
        """False when locks turn out not to work."""
        files = self._files
        while True:
            own = self._own
            if own is None or own.doubtful:
                self.close()
                own = self._own = self._begin()
            try:
                if not files.try_lock(own.fd, exclusive=True):
                    self.close()  # somebody is sealing it
                    continue
            except OSError:
                self._locks = False
                self.close()
                own.end(files)
                return False
            try:
                there = own.folder.status(own.name)
                if there is None or (there.st_ino, there.st_dev) != own.identity:
                    self._own = None  # it was sealed
                    continue
                size = there.st_size
                try:
                    files.write(own.fd, batch)
                except BaseException:
                    self._own = None  # whatever is left of this batch ends the file: the next one needs another
                    files.truncate(own.fd, size)
                    raise
                self._to_be_synced(own, size + len(batch))
                if own.written >= _LARGEST:
                    self._own = None
            finally:
                files.unlock(own.fd)  # closing would not do it while a forked child has the descriptor
                if self._own is not own:
                    self._leave(own)
            return True

    def _to_be_synced(self, file: SpoolFile, written: int) -> None:
        with self._mutex:
            file.written = written
            if file not in self._unsynced:
                self._unsynced.append(file)

    def _leave(self, own: SpoolFile) -> None:
        with self._mutex:
            own.left = True
            if not own.busy:  # else whoever syncs it closes it
                own.close()

    @property
    def unsynced(self) -> bool:
        """Records that were appended would not survive a power cut yet."""
        return self._pid == os.getpid() and bool(self._unsynced)

    def sync(self) -> None:
        """What was appended before survives a power cut when this returns.

        Raises OSError. A kernel that failed to write says so once and forgets it, so whatever stands in that file is
        written again, to another one, by the next ``sync``.
        """
        self._check_fork()
        with self._syncing:
            for own in tuple(self._unsynced):
                with self._mutex:
                    own.busy, written = True, own.written  # what is added from now on waits for the next time
                try:
                    self._sync_one(own)
                except OSError:
                    own.doubtful = True
                    raise
                finally:
                    with self._mutex:
                        own.busy = False
                        if own.left:
                            own.close()
                own.named = True
                with self._mutex:
                    if own.written == written and own in self._unsynced:  # absorbed, a new file may have put it out
                        self._unsynced.remove(own)

    def _sync_one(self, own: SpoolFile) -> None:
        files = self._files
        if own.doubtful:
            content = own.read(files)
            if content is not None:
                self._write_ready(content, True)
        elif own.fd >= 0:
            files.sync(own.fd)
        else:
            own.sync_closed(files)
        if not own.named:
            self._sync_names()

    def _begin(self) -> SpoolFile:
        """A file of our own, kept open: opening it for every record costs more than writing the record."""
        files = self._files
        with self._mutex:  # what was absorbed is in the branch
            self._unsynced = [own for own in self._unsynced if own.busy or own.fd >= 0 or own.exists(files)]
        self._new_name()
        name = self._name.removeprefix(SPOOL + b"/") + OPEN
        try:
            folder = files.folder(SPOOL)
            fd = folder.open_write(name, exclusive=True, append=True)
        except FileNotFoundError:
            self._make_folder()
            folder = files.folder(SPOOL)
            fd = folder.open_write(name, exclusive=True, append=True)
        try:
            own = SpoolFile(files, folder, self._name, fd)
            apply_mode(files, fd, self._lockdown)
        except BaseException:
            files.close_fd(fd)
            raise
        return own

    def close(self) -> None:
        """Let go of our own file. Its records stay; the next ``append`` begins another."""
        self._check_fork()
        own, self._own = self._own, None
        if own is not None:
            self._leave(own)

    def _new_name(self) -> None:
        # they sort by age, and those of one process by number; made exclusively, so it is nobody else's
        now = max(0, int(self._clock.wall() * 1_000_000))
        self._name = SPOOL + b"/%015x-%b-%d-%06d" % (now, self._host(), os.getpid(), next(_NUMBERS))

    @staticmethod
    def _host() -> bytes:
        return b"".join([b"%c" % c if chr(c).isalnum() else b"_" for c in os.fsencode(os.uname().nodename)])[:64]

    def _make_folder(self) -> None:
        make_folders(self._files, SPOOL, self._lockdown)
        sync_above(self._files, SPOOL)
        self._placed = True

    def _sync_names(self) -> None:
        try:
            self._files.sync_folder(SPOOL)
            if not self._placed and self._files.status(ON_DISK) is None:
                sync_above(self._files, SPOOL)  # whoever made it may not have come to sync it
            self._placed = True
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
        files.rename(self._name + _UNFINISHED, self._name + READY)
        if sync:
            self._sync_names()
        else:
            self._to_be_synced(SpoolFile(files, files, self._name), len(batch))

    # -- absorbing: only under the journal lock --------------------------------------------------

    def seal(self) -> list[bytes]:
        """Complete every file that can be; the names of all complete ones, oldest first.

        A file whose writer is in the middle of a long sync is left for the next time.
        """
        files, ready = self._files, []
        for name in sorted(files.names(SPOOL)):
            path = SPOOL + b"/" + name
            if name.endswith(READY):
                ready.append(path)
            elif name.endswith(OPEN):
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
            try:
                for _ in range(_SEAL_TRIES):
                    if files.try_lock(fd, exclusive=True):
                        break
                    time.sleep(0.001)
                else:
                    return None
                locked = True
            except OSError:  # locks worked where it was written, and do not here
                if not self._is_left(path):
                    return None
                locked = False
            sealed = path.removesuffix(OPEN) + READY
            try:
                files.rename(path, sealed)
                files.unlink(path)  # still there when a power cut had left both names: then rename does nothing
            finally:
                if locked:
                    files.unlock(fd)  # closing would not do it while a forked child has the descriptor
            return sealed
        except FileNotFoundError:
            return None
        finally:
            files.close_fd(fd)

    def _is_left(self, path: bytes) -> bool:
        """Its writer is no more: it ran on this host, or nothing was written for a day."""
        _, _, rest = path.removesuffix(OPEN).rpartition(b"/")[2].partition(b"-")
        host, pid, _ = rest.rsplit(b"-", 2)
        if host == self._host():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                return False
        status = self._files.status(path)
        return status is not None and self._clock.wall() - status.st_mtime > _OLD

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

    def may_have(self) -> Callable[[bytes], bool] | None:
        """Tells, as of now, whether there may be records about a path. It is never wrong to say yes. None: no records.

        Look at the branch after this, not before.
        """
        seen = self._looked(lambda seen: seen)
        return (lambda path: any(one.places(path) for one in seen)) if seen else None

    def records(self, path: bytes) -> list[Queued]:
        """The records about *path* that are not in the branch yet, in the order of their times, of all processes.

        Look at the branch after this, not before.
        """

        def found(seen: list[Seen]) -> list[Queued]:
            some = [(one, one.places(path)) for one in seen]
            return [record for one, places in some if places for record in one.records(self._files, places)]

        return sorted([record for record in self._looked(found) if record_path(record.line) == path])

    def later(self, wall: float) -> dict[tuple[bytes, bytes], tuple[int, bytes]]:
        """The presence records that are later than *wall*: (path, info) → (second, status) of the last one.

        Of a file whose last record is not, nothing is looked at but that one.
        """
        found: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}

        def ahead(seen: list[Seen]) -> None:
            for one in seen:
                if one.last(self._files) > wall:
                    for line, _ in one.records(self._files):
                        place, time, status = presence_of(line)
                        if place and time > wall and found.get(place, (0, b""))[0] <= time:
                            found[place] = int(time), status

        self._looked(ahead)
        return found

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
            if dot + kind not in (OPEN, READY):
                continue
            path = SPOOL + b"/" + name
            status = files.status(path)
            if status is None:
                raise FileNotFoundError(path)
            known = seen.get(stem)
            if known is None or known.identity != (status.st_ino, status.st_dev):
                known = Seen(path, (status.st_ino, status.st_dev))
            known.path = path
            if known.size < status.st_size:
                known = known.looked(files)
            current[stem] = known
        self._seen = current
        return list(current.values())
