"""A Bloom filter: most texts that were never added are known not to have been, from a few bytes of memory.

Burton H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970. Never stored: the hashes are those
of this process.
"""

from __future__ import annotations

#: Of texts that were not added it takes 0.3 % for added when 100,000 were, 44 % when a million were; 256 KiB.
_PLACE_BITS = 21
_PLACES = 3
_MASK = (1 << _PLACE_BITS) - 1


class Bloom:
    """Wrong, now and then, about a text that was not added; never about one that was. Used in one thread at a time."""

    def __init__(self) -> None:
        self._bits = bytearray((1 << _PLACE_BITS) // 8)

    def add(self, text: str) -> None:
        """Have ``text`` among them from now on."""
        for place in _places(text):
            self._bits[place >> 3] |= 1 << (place & 7)

    def update(self, other: Bloom) -> None:
        """Add all that were added to ``other``."""
        both = int.from_bytes(self._bits, "little") | int.from_bytes(other._bits, "little")
        self._bits[:] = both.to_bytes(len(self._bits), "little")

    def may_have(self, text: str) -> bool:
        """Return False if ``text`` was surely not added."""
        bits = self._bits
        return all(bits[place >> 3] & (1 << (place & 7)) for place in _places(text))


def _places(text: str) -> list[int]:
    digest = hash(text)  # 64 bits of SipHash
    return [(digest >> shift) & _MASK for shift in range(0, _PLACES * _PLACE_BITS, _PLACE_BITS)]
