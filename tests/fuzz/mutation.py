"""Makes inputs: a seed, changed in a few places. The same random numbers make the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["Mutator"]

NUMBERS = (b"0", b"-1", b"1", b"32767", b"32768", b"4294967296", b"9223372036854775807", b"9223372036854775808")
NUMBERS += (b"9" * 40, b"9" * 5000, b"1e309", b"1.5", b"nan", b"00", b"0x10", "\u0663".encode())
ODD = (
    b"\0",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"%",
    b"%0A",
    b"%2F",
    b"&",
    b"=",
    b'"',
    b"'",
    b"\\",
    b"--",
    b"/../",
    b"\xff",
)
ODD += (
    b"\xed\xa0\x80",
    "\u2028".encode(),
    b"\x1b[2J",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"*",
    b"?",
    b"<",
    b"!",
    b":",
    b"#",
)
LONGEST = 40_000


class Mutator:
    """Inputs made of *seeds*; *words* are what the format is made of."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> None:
        self.seeds = list(seeds)
        self.words = [*words, *ODD, *NUMBERS]
        self.random = random.random

    def __call__(self) -> bytes:
        random, seeds = self.random, self.seeds
        data = seeds[int(random() * len(seeds))]
        while True:
            data = self._changed(data)
            if random() < 0.45:
                return data

    def _changed(self, data: bytes) -> bytes:
        random, words = self.random, self.words
        size = len(data)
        at = int(random() * (size + 1))
        what = random()
        if what < 0.22:  # one byte is another
            return data[:at] + bytes((int(random() * 256),)) + data[at + 1 :]
        if what < 0.47:  # a word comes in
            return data[:at] + words[int(random() * len(words))] + data[at:]
        end = min(size, at + 1 + int(random() * (8 if random() < 0.7 else size + 1)))
        if what < 0.62:  # something is gone
            return data[:at] + data[end:]
        if what < 0.77:  # a word stands instead of something
            return data[:at] + words[int(random() * len(words))] + data[end:]
        if what < 0.85:  # something comes twice
            return data[:end] + data[at:] if size < LONGEST else data[:end]
        if what < 0.93:  # the end is that of another seed
            other = self.seeds[int(random() * len(self.seeds))]
            return data[:at] + other[int(random() * (len(other) + 1)) :]
        if what < 0.98:  # cut off
            return data[:at]
        if random() < 0.97:  # something comes in often
            return data[:at] + data[at:end][:20] * int(random() * 40) + data[end:]
        return data[:at] + (data[at:end][:8] or b"(") * int(random() * 4000) + data[end:]
