"""The errors of this project, named for what happened.

Each class says which HTTP status it becomes and whether trying again can help; ``hint`` tells an operator what to do.
A flow's failure is data, not one of these: see ``events.Failure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class HeadraceError(Exception):
    """The root: something was refused or went wrong, and the message says what."""

    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(HeadraceError):
    """What was asked for does not exist."""

    http_status = 404
    exit_code = 3


class InvalidRequest(HeadraceError):
    """The request cannot be understood or breaks a rule that its sender can mend."""

    http_status = 400
    exit_code = 2


class AnswerRefused(HeadraceError):
    """An answer does not fit the form; the words name every wrong field, and the form stays open. ``wrong``: by key."""

    http_status = 422
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", wrong: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wrong = wrong or {}


class InputsUnfit(HeadraceError):
    """The inputs of a run do not fit what its flow declares; ``wrong`` says of each key why, empty for the whole."""

    http_status = 422
    exit_code = 2

    def __init__(self, wrong: Mapping[str, str]) -> None:
        told = [f"{key!r} {why}" if key else why for key, why in wrong.items()]
        more = [f"and {len(told) - 20} more"] if len(told) > 20 else []
        super().__init__("the inputs do not fit: " + "; ".join(told[:20] + more), hint="nothing has run")
        self.wrong = wrong


class Unauthenticated(HeadraceError):
    """No credentials, or wrong ones."""

    http_status = 401
    exit_code = 4


class NotAllowed(HeadraceError):
    """The credentials are good but do not allow this."""

    http_status = 403
    exit_code = 4


class Conflict(HeadraceError):
    """The request contradicts the present state: already ended, already answered, same key with another body.

    ``diff`` is what somebody else changed meanwhile, as a unified diff, where that can be said."""

    http_status = 409

    def __init__(self, message: str, *, hint: str = "", diff: str = "") -> None:
        super().__init__(message, hint=hint)
        self.diff = diff


class TooLarge(HeadraceError):
    """A value or a body is over its limit; the message names both."""

    http_status = 413


class NotAccepting(HeadraceError):
    """The daemon cannot take new work now (stopping, or the disk is full); trying again later can help."""

    http_status = 503
    retryable = True


class ConfigurationInvalid(HeadraceError):
    """Settings that cannot be used; the message lists every problem found."""

    exit_code = 2


class StateInUse(HeadraceError):
    """Another daemon holds this state directory."""

    exit_code = 73


class JournalCorrupt(HeadraceError):
    """Records that were durable once cannot be trusted; nothing is skipped or cut by itself."""

    exit_code = 74


class HistoryLost(HeadraceError):
    """The records are sound, and less than once was on disk, or another journal's: an older copy, the wrong volume."""

    exit_code = 65


class JournalFailed(HeadraceError):
    """The disk did not keep its promise (a failed fsync or truncate): the writer is poisoned, the daemon must go."""

    http_status = 503
    exit_code = 74


class SourceUnavailable(HeadraceError):
    """The flows' source cannot be read now; what was published stays in force."""

    http_status = 502
    retryable = True


class InputRefused(HeadraceError):
    """A task's inputs are wrong; ``kind`` is the flow-side exception: Missing-, Invalid- or ExtraInputError."""

    http_status = 422

    def __init__(self, kind: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class TaskFailed(HeadraceError):
    """A task ran and did not succeed. ``output`` is what it has to show all the same, as a JSON object's text."""

    def __init__(self, message: str, *, output: bytes = b"{}", kind: str = "TaskFailed") -> None:
        super().__init__(message)
        self.output = output
        self.kind = kind
