"""Identifiers: 26 characters of ``[0-9a-z]``, unique everywhere, in the order of their making.

The first ten characters are the milliseconds since the epoch, the others are random: the layout of a ULID (Crockford's
base 32), in lower case. Ordered ids keep the index's pages together; 80 random bits make them unguessable.
"""

from __future__ import annotations

import collections
import functools
import os
import time

_ALPHABET = b"0123456789abcdefghjkmnpqrstvwxyz"
#: A letter for each byte there is; none is likelier than another.
_LETTERS = _ALPHABET * 8
_RANDOM_LETTERS = 16
#: Drawn at once: asking the kernel lets go of the interpreter, and getting that back takes longer than the answer.
_DRAWN = 256
_drawn: collections.deque[str] = collections.deque()
os.register_at_fork(after_in_child=_drawn.clear)  # or both would go on with the same


def new_id() -> str:
    """Return a fresh id."""
    return _moment(int(time.time() * 1000)) + random_letters()


def random_letters() -> str:
    """Return 16 letters that nobody can guess, of five bits each."""
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            letters = os.urandom(_DRAWN * _RANDOM_LETTERS).translate(_LETTERS).decode("ascii")
            _drawn.extend(letters[at : at + _RANDOM_LETTERS] for at in range(0, len(letters), _RANDOM_LETTERS))


@functools.lru_cache(maxsize=16)  # many are made in the same millisecond
def _moment(epoch_ms: int) -> str:
    return bytes(_ALPHABET[epoch_ms >> shift & 31] for shift in range(45, -1, -5)).decode("ascii")
