"""What of the daemon's own machine task types may use: nothing, unless the operator says so."""

from __future__ import annotations

import shutil

import msgspec

from ..engine import errors


class Local(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``tasks.local``.

    ``programs``: what tasks may start, by name or absolute path; ``*`` is every program. COMMAND starts any of them,
    ANSIBLE needs ansible-playbook, TERRAFORM tofu or terraform. ``sockets``: absolute paths of sockets that DOCKER may
    connect to; who may use such an engine may do anything on this machine."""

    programs: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what names no program."""
        for one in self.programs:
            if not one or ("/" in one and not one.startswith("/")) or any(character < " " for character in one):
                raise ValueError(f"{one!r} is not the name or the absolute path of a program")
        for one in self.sockets:
            if not one.startswith("/") or any(character < " " for character in one):
                raise ValueError(f"{one!r} is not the absolute path of a socket")

    def program(self, task: str, *names: str) -> str:
        """Return the path of the first of ``names`` that is allowed and there; raises ``TaskFailed``."""
        allowed = [one for one in names if "*" in self.programs or one in self.programs]
        if not allowed:
            wanted = " or ".join(f"'{one}'" for one in names)
            raise errors.TaskFailed(
                f"{task}: this daemon does not let it start {wanted}: the setting tasks.local says what it may"
            )
        for one in allowed:
            if (path := shutil.which(one)) is not None:
                return path
        raise errors.TaskFailed(f"{task}: {' or '.join(allowed)} is not installed where the daemon runs")

    def socket(self, task: str, path: str) -> None:
        """Raise ``TaskFailed`` unless tasks may connect to the socket."""
        if path not in self.sockets:
            raise errors.TaskFailed(
                f"{task}: this daemon does not let it connect to '{path}': the setting tasks.local says where it may"
            )
