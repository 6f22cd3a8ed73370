"""Who somebody is and what that lets them do: scopes, the roles that stand for some of them, the flows they are
limited to. Pure.

A scope is what a route asks for; ``admin`` includes the others because its role lists them, not by any rule of order.
Somebody limited to flows sees and moves executions of those flows, and what they started. Called by ``access``, which
decides, and by handlers that show only what their sender may see.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

import msgspec

from ..engine import errors

PUBLIC = "public"
SCOPES = ("read", "run", "edit", "admin")
ROLES = {
    "viewer": ("read",),
    "operator": ("read", "run"),
    "editor": ("read", "run", "edit"),
    "admin": SCOPES,
}


class Principal(msgspec.Struct, frozen=True):
    """Somebody who was recognised.

    ``flows``: patterns of the flows they are limited to, empty for all. ``keys`` name what may be taken from them while
    they are connected (a token's id, a session): whoever holds a connection by one of these loses it then.
    ``expires_s`` is when that happens by itself, in seconds since the epoch."""

    name: str
    scopes: frozenset[str]
    flows: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    expires_s: float | None = None

    def may_touch(self, flow: str) -> bool:
        """Whether the flow of that name is one of theirs. ``*`` in a pattern matches slashes, too."""
        return not self.flows or any(fnmatch.fnmatchcase(flow, pattern) for pattern in self.flows)

    @property
    def limited(self) -> bool:
        """Whether only some flows are theirs."""
        return bool(self.flows)


ADMIN = Principal("admin", frozenset(SCOPES))
#: In a map of groups to roles: everybody who was recognised.
EVERYBODY = "*"


def check_roles(roles: Mapping[str, str], *, wanted: bool) -> None:
    """Raise ``ValueError`` for a map of groups to roles that cannot be used, or is empty where one is ``wanted``."""
    if wanted and not roles:
        raise ValueError(
            '`roles` is empty, so nobody would get in: write {operators = "operator"}, or {"*" = "viewer"}'
        )
    for group, role in roles.items():
        try:
            scopes_of([role])
        except errors.InvalidRequest as error:
            raise ValueError(f"in `roles`, {group!r}: {error.message}; {error.hint}") from None


def of_groups(name: str, groups: Iterable[str], roles: Mapping[str, str]) -> Principal:
    """Return somebody with what their groups give them together; raises ``NotAllowed`` if that is nothing."""
    given = [roles[group] for group in (*groups, EVERYBODY) if group in roles]
    if not given:
        raise errors.NotAllowed(
            f"{name!r} was recognised, and none of their groups has a role here",
            hint="an administrator maps groups to roles in the daemon's configuration",
        )
    return Principal(name, frozenset(scopes_of(given)))


def scopes_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes that scopes and roles stand for, in their order; raises ``InvalidRequest``."""
    wanted: set[str] = set()
    for name in names:
        if name in SCOPES and name != "admin":
            wanted.add(name)
        elif name in ROLES:
            wanted |= set(ROLES[name])
        else:
            raise errors.InvalidRequest(
                f"{name!r} is neither a scope nor a role",
                hint=f"scopes are {', '.join(SCOPES)}; roles are {', '.join(ROLES)}",
            )
    if not wanted:
        raise errors.InvalidRequest("give at least one scope or role", hint="--role viewer lets somebody look")
    return tuple(scope for scope in SCOPES if scope in wanted)
