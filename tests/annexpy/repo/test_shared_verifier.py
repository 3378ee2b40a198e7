"""Stores that take the same content side by side hash it once, and each knows about its own bytes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from annexpy.keys.key import Key
from annexpy.repo.shared_verifier import SharedVerifier, SharedVerifiers

CONTENT = bytes(range(256)) * 4
KEY = Key(b"SHA256", hashlib.sha256(CONTENT).hexdigest().encode(), len(CONTENT))


def verifiers(count: int, key: Key = KEY) -> list[SharedVerifier]:
    shared = SharedVerifiers(key)
    made = [shared.one() for _ in range(count)]
    assert None not in made
    return [one for one in made if one is not None]


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, len(CONTENT)), min_size=1, max_size=4))
def test_each_tells_the_truth_in_whatever_pieces_and_order_they_are_fed(random: Random, ends: list[int]) -> None:
    made = verifiers(len(ends))
    left = [number for number, end in enumerate(ends) if end]
    while left:
        number = random.choice(left)
        one, end = made[number], ends[number]
        size = random.randint(1, end - one.received)
        one.update(CONTENT[one.received : one.received + size])
        if one.received == end:
            left.remove(number)

    assert [one.received for one in made] == ends
    assert [one.matches() for one in made] == [end == len(CONTENT) for end in ends]


def test_what_is_wrong_is_wrong_for_all() -> None:
    for one in (made := verifiers(3)):
        one.update(b"x" + CONTENT[1:])
    assert not any(one.matches() for one in made)


def test_in_threads_every_byte_is_hashed_once() -> None:
    pieces = [bytes([number]) * 10_000 for number in range(200)]
    whole = b"".join(pieces)
    made = verifiers(4, Key(b"SHA256", hashlib.sha256(whole).hexdigest().encode(), len(whole)))

    def feed(one: SharedVerifier) -> bool:
        for piece in pieces:
            one.update(piece)
        return one.matches()

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(feed, made))
    assert made[0].shared.received == len(whole)


def test_what_cannot_be_verified_has_none() -> None:
    assert SharedVerifiers(Key(b"WORM", b"name", 3)).one() is None
