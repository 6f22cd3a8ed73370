"""Identifiers: 26 characters of ``[0-9a-z]``, unique everywhere, in the order of their making.

The first ten characters are the milliseconds since the epoch, the others are random: the layout of a ULID (Crockford's
base 32), in lower case. Ordered ids keep the index's pages together; 80 random bits make them unguessable.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id() -> str:
    """Return a fresh id."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    pairs = []
    for _ in range(13):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    return "".join(reversed(pairs))
