"""SSH host keys as people paste them, for every task type that speaks SSH.

Accepted are ``type key``, ``type key comment``, the bare base64, and a line of ``known_hosts`` with its host. A host
key is public: it may stand in messages.
"""

from __future__ import annotations

import base64
import binascii


def parsed(text: str) -> str:
    """Return ``type key``; raises ``ValueError`` for a text that holds no host key."""
    words = text.split()
    for word in words[:3]:
        kind = _kind(word)
        if kind is not None:
            named = words[words.index(word) - 1] if words.index(word) else kind
            if named not in (kind, *_SIGNATURES.get(kind, ())):
                raise ValueError(f"the key is of type {kind}, not {named}")
            return f"{kind} {word}"
    raise ValueError("expected 'type key', such as one line of ssh-keyscan without the host")


#: An RSA key is one kind of key whatever hash its signatures use.
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-256", "rsa-sha2-512")}


def _kind(word: str) -> str | None:
    """Return the type a key's base64 begins with (RFC 4253, 6.6), or None if this is no key."""
    try:
        blob = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return None
    length = int.from_bytes(blob[:4], "big")
    if len(blob) <= 4 + length or not 0 < length <= 64:
        return None
    name = blob[4 : 4 + length]
    return name.decode() if name.isascii() and name.decode().isprintable() else None
