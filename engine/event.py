"""What every event of the journal is, and what their values are made of; ``events`` has the kinds."""

from __future__ import annotations

import msgspec

EMPTY_OBJECT = msgspec.Raw(b"{}")
EMPTY_LIST = msgspec.Raw(b"[]")


class Blob(msgspec.Struct, frozen=True):
    """A value kept outside the journal: ``sha256`` of its JSON text (hex) names the file, ``bytes`` is its size."""

    sha256: str
    bytes: int


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed: exception class, last line, and for flows the traceback and where it was raised."""

    type: str
    message: str
    traceback: str = ""
    file: str = ""
    line: int = 0
    execution: str = ""  # the execution that failed, when this tells of another one


class Divergence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replay that is not like the record: what was to come as call ``call``, and what came instead.

    A side is a kind and a target, ``where`` the line of the flow (``file:line``); an empty kind is: nothing."""

    call: int
    recorded_kind: str = ""
    recorded_target: str = ""
    recorded_where: str = ""
    attempted_kind: str = ""
    attempted_target: str = ""
    attempted_where: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """One thing that happened. The journal adds ``seq``, ``batch``, ``at`` and the checksum around it."""
