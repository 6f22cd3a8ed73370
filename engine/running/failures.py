"""Why a call is refused, beside the errors of the project: what the handler meets instead of a result."""

from __future__ import annotations

from .. import errors, events, model
from ..workers import protocol


class Cancelled(Exception):
    """The execution was asked to end while its handler sat in a call."""


class Interrupted(Exception):
    """The process is being killed: there is nobody to answer any more."""


class Hibernated(Exception):
    """The execution gives its process back while it waits: this handler is not answered, a later one will be."""


class Diverged(Exception):
    """The handler did not do in its replay what is recorded."""

    def __init__(self, divergence: events.Divergence) -> None:
        super().__init__(told(divergence))
        self.divergence = divergence


class DependencyFailed(Exception):
    """An execution that was waited for did not succeed."""

    def __init__(self, state: model.Execution) -> None:
        super().__init__(f"{state.type.lower()} {state.name!r} ended {state.status}: {state.message}".rstrip(": "))
        self.state = state


class Refused(Exception):
    """The handler meets the exception called ``kind``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def flow_side(error: errors.HeadraceError) -> str:
    """Return the name of the exception a flow meets for an error of ours."""
    match error:
        case errors.InputRefused():
            return error.kind
        case errors.InputsUnfit():
            return "SchemaValidationError"
        case errors.NotFound():
            return "ResourceNotFoundError"
        case errors.NotAllowed():
            return "PermissionDenied"
        case errors.InvalidRequest() | errors.TooLarge() | errors.Conflict():
            return "InvalidInputError"
    return "InternalError"


def left(ended: protocol.Ended) -> tuple[str, str, str]:
    """Return how a handler left as the side of a divergence: kind, target, where."""
    if (failure := ended.failure) is not None:
        return "raise", failure.message, f"{failure.file}:{failure.line}" if failure.file else ""
    return "return", ended.message, ""


def told(divergence: events.Divergence) -> str:
    """Return a divergence in words, both sides."""
    recorded = _side(divergence.recorded_kind, divergence.recorded_target, divergence.recorded_where)
    attempted = _side(divergence.attempted_kind, divergence.attempted_target, divergence.attempted_where)
    return f"replay diverged at call {divergence.call}: recorded is {recorded}, the handler now did {attempted}"


def _side(kind: str, target: str, where: str) -> str:
    if not kind:
        return "nothing more"
    return f"{kind}{f' {target!r}' if target else ''}{f' ({where})' if where else ''}"
