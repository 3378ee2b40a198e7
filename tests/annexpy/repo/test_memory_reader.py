"""What the system has in memory of a file, read without waiting."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from annexpy.repo.memory_reader import MemoryReader, lies_in_memory

CONTENT = os.urandom(300_000)
SHM = Path("/dev/shm")


def on_disk(folder: Path) -> int:
    (folder / "content").write_bytes(CONTENT)
    return os.open(folder / "content", os.O_RDWR)


def test_what_is_read_is_what_is_there_or_nothing(tmp_path: Path) -> None:
    fd = on_disk(tmp_path)
    reader = MemoryReader(fd)
    os.fsync(fd)
    for _ in range(2):  # what was written just now is in memory, and then it is not
        for offset, size in ((0, 1), (7, 65_536), (262_144, 37_856), (0, 300_000), (262_144, 37_857), (300_000, 1)):
            piece = reader.read(size, offset)
            assert piece is None or (piece == CONTENT[offset : offset + size] and offset + size <= len(CONTENT))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.mark.skipif(not SHM.is_dir(), reason="no file system in memory")
def test_a_file_without_a_disk_is_read_at_once_up_to_its_end() -> None:
    assert lies_in_memory(SHM.stat().st_dev)
    path = SHM / f"annexpy-test-{os.getpid()}"
    try:
        path.write_bytes(CONTENT)
        fd = os.open(path, os.O_RDONLY)
        reader = MemoryReader(fd)
        for _ in range(2):
            assert reader.read(200_000, 100_000) == CONTENT[100_000:]
            assert reader.read(200_000, 100_001) is None
            assert reader.read(1, len(CONTENT)) is None
        os.close(fd)
    finally:
        path.unlink()


def test_other_file_systems_are_not_taken_to_be_in_memory() -> None:
    assert not lies_in_memory(os.stat("/proc").st_dev)
    assert not lies_in_memory(os.makedev(4095, 1_000_000))


def test_an_error_is_no_reason_to_wait(tmp_path: Path) -> None:
    os.close(on_disk(tmp_path))
    fd = os.open(tmp_path / "content", os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        MemoryReader(fd).read(10, 0)
    assert caught.value.errno == errno.EBADF
    os.close(fd)
