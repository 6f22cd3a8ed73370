"""Changes that are guarded against an older view: ``If-Match`` and ``If-None-Match`` with ETags (RFC 9110). Pure.

Called by whoever changes what people read before: ``authoring`` and ``records``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from ..engine import errors, values


class PreconditionFailed(errors.Conflict):
    """It is not any more as its sender saw it."""

    http_status: ClassVar[int] = 412


def tag_of(shown: Mapping[str, Any]) -> str:
    """Return the ETag of something as it is shown: another one as soon as anything of it, or its time, is another."""
    return f'"{hashlib.sha256(values.encode(shown)).hexdigest()[:32]}"'


def check(headers: Mapping[str, str], tag: str, what: str) -> None:
    """Raise ``PreconditionFailed`` if ``what`` is not as the sender says; ``tag`` is empty if it is not there."""
    wanted, unwanted = headers.get("If-Match"), headers.get("If-None-Match")
    if wanted is not None and not _names(wanted, tag):
        raise PreconditionFailed(
            f"{what} was changed meanwhile" if tag else f"there is no {what}",
            hint="read it again, and send the ETag it has now",
        )
    if unwanted is not None and _names(unwanted, tag):
        raise PreconditionFailed(f"there is a {what} already")


def _names(header: str, tag: str) -> bool:
    """Whether a list of ETags names this one; ``*`` means any, so that it exists."""
    tags = {given.strip().removeprefix("W/") for given in header.split(",")}
    return bool(tag) and bool(tags & {"*", tag, tag.strip('"')})
