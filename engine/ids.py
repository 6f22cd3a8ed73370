"""Identifiers: 26 characters of ``[0-9a-z]``, unique everywhere, in the order of their making.

The first ten characters are the milliseconds since the epoch, the others are random: the layout of a ULID (Crockford's
base 32), in lower case. Ordered ids keep the index's pages together; 80 random bits make them unguessable.
"""

from __future__ import annotations

import functools
import os
import time

_ALPHABET = b"0123456789abcdefghjkmnpqrstvwxyz"
#: A letter for each byte there is; none is likelier than another.
_LETTERS = _ALPHABET * 8
_RANDOM_LETTERS = 16


def new_id() -> str:
    """Return a fresh id."""
    return _moment(int(time.time() * 1000)) + random_letters(_RANDOM_LETTERS)


def random_letters(count: int) -> str:
    """Return letters that nobody can guess, of five bits each."""
    return os.urandom(count).translate(_LETTERS).decode("ascii")


@functools.lru_cache(maxsize=16)  # many are made in the same millisecond
def _moment(epoch_ms: int) -> str:
    return bytes(_ALPHABET[epoch_ms >> shift & 31] for shift in range(45, -1, -5)).decode("ascii")
