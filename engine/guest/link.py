"""The link between the daemon and a node that runs flows for it: messages over one TLS connection.

A message is one byte that says what it is, four bytes of length (big-endian), and its content. Both ends use this
module. What flow processes say and hear (``frames``) passes through unopened, as ``CHANNEL``.

    node                          daemon
    HELLO {token, node, …}   ->                    this node has room, which the token was made for
                             <-   OFFER {…}        an execution; or the end of the connection: the token is good no more
    WANT {folder}            ->                    once for each folder that is not here
                             <-   PARCEL …, PARCEL (empty: that was all)
    READY {pid, snapshot}    ->                    there is a flow process; from here both ways:
    CHANNEL, OUT, ERR        ->   CHANNEL
                             <-   KILL             with all it started
    EXITED {status}          ->                    it is dead and buried
                             <-   KEEP             it did well: keep it for the next execution of its kind
    KEPT                     ->
                             <-   LEAVE            that was all for this token
    PULSE                    <->                   nothing new; whoever hears nothing for too long lets go

After ``EXITED`` or ``KEPT`` comes another OFFER or LEAVE; after ``LEAVE`` the node may say HELLO again.
"""

from __future__ import annotations

import struct

HEAD = struct.Struct(">cI")
#: A frame of a flow process, and what stands around it.
CONTENT_BYTES_MAX = 66 * 1024 * 1024

HELLO, OFFER, WANT, PARCEL, READY = b"h", b"o", b"w", b"p", b"r"
CHANNEL, OUT, ERR, KILL, EXITED = b"c", b"1", b"2", b"k", b"x"
KEEP, KEPT, LEAVE, PULSE = b"e", b"t", b"l", b"."
_KINDS = frozenset((HELLO, OFFER, WANT, PARCEL, READY, CHANNEL, OUT, ERR, KILL, EXITED, KEEP, KEPT, LEAVE, PULSE))


class Broken(Exception):
    """What came is no message of this protocol."""


def message(kind: bytes, content: bytes = b"") -> bytes:
    """Return the bytes of a message."""
    return HEAD.pack(kind, len(content)) + content


def split(buffer: bytearray) -> list[tuple[bytes, bytes]]:
    """Take the complete messages off the front of ``buffer`` and return them; raises ``Broken``."""
    found: list[tuple[bytes, bytes]] = []
    start = 0
    while len(buffer) - start >= HEAD.size:
        kind, length = HEAD.unpack_from(buffer, start)
        if kind not in _KINDS or length > CONTENT_BYTES_MAX:
            raise Broken(f"a message {kind!r} of {length:,} bytes")
        end = start + HEAD.size + length
        if len(buffer) < end:
            break
        found.append((kind, bytes(memoryview(buffer)[start + HEAD.size : end])))
        start = end
    if start:
        del buffer[:start]
    return found
