"""SCRAM inside of libraries: how often a server may have our password hashed.

A client hashes its password as often as the server says (RFC 5802, section 3), before it can know which server that is.
A hostile one says a number that takes hours, in a thread that nobody can stop; or a small one, after which what it gets
tells the password to who guesses. Libraries that leave this open are given these bounds.
"""

from __future__ import annotations

#: Fewer are not to be used (RFC 7677, section 4).
ITERATIONS_MIN = 4096
#: About a second; products use some ten thousand.
ITERATIONS_MAX = 1_000_000


def check(iterations: int) -> None:
    """Raise ``ValueError`` for a number that nobody should do."""
    if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
        fine = f"{ITERATIONS_MIN:,} to {ITERATIONS_MAX:,}"
        raise ValueError(f"it wants the password hashed {iterations:,} times, where {fine} are fine")
