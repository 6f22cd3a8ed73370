"""The exceptions a flow may meet and catch, importable as ``flow_api.exceptions``.

All of them derive from ``Exception`` but the life-cycle signals, which derive from ``BaseException`` so that an
``except Exception:`` in a flow does not swallow a cancel by accident.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CloudomationException",
    "ContinueAsNew",
    "DeadlockError",
    "DependencyFailedError",
    "DependencyTimeoutError",
    "EngineException",
    "ExecutionCancel",
    "ExtraInputError",
    "HistoryFull",
    "InternalError",
    "InvalidInputError",
    "LifecycleSignal",
    "LockTimeoutError",
    "MessageResponseTimeoutError",
    "MissingInputError",
    "OutcomeUnknownError",
    "PermissionDenied",
    "ReplayDivergedError",
    "ResourceNotFoundError",
    "SchemaValidationError",
    "TimeoutExceededError",
]


class EngineException(Exception):
    """The root of everything the engine raises into a flow."""

    def __repr__(self) -> str:
        """The class's name first, then what failed."""
        return f"{type(self).__name__}({str(self)!r})"


#: The name flows written for the commercial engine use.
CloudomationException = EngineException


class InternalError(EngineException):
    """The engine failed; the flow is not to blame."""


class PermissionDenied(EngineException):
    """The flow asked for something it may not do."""


class ResourceNotFoundError(EngineException):
    """A record that was asked for does not exist."""


class DependencyFailedError(EngineException):
    """An execution that was waited for did not succeed; ``execution`` is that execution."""

    execution: Any

    def __init__(self, message: str = "", execution: Any = None) -> None:
        super().__init__(message)
        self.execution = execution


class MissingInputError(EngineException):
    """A task needs an input that was not given."""


class InvalidInputError(EngineException):
    """An input has the wrong type or value."""


class ExtraInputError(EngineException):
    """A task was given an input it does not know."""


class SchemaValidationError(EngineException):
    """The inputs of a flow are not as its ``input_schema`` declares; nothing has run."""


class TimeoutExceededError(EngineException):
    """Something took longer than it was allowed to."""


class LockTimeoutError(TimeoutExceededError):
    """A lock was not free in time."""


class DeadlockError(LockTimeoutError):
    """Waiting for this lock would never end: its holder waits for one that this execution holds."""


class DependencyTimeoutError(TimeoutExceededError):
    """An execution that was waited for did not end in time."""


class MessageResponseTimeoutError(TimeoutExceededError):
    """Nobody answered a message in time."""


class ReplayDivergedError(EngineException):
    """A replay made another call than the one recorded."""


class OutcomeUnknownError(EngineException):
    """A task was cut off midway and may not be repeated: whether it took effect is not known."""


class HistoryFull(EngineException):
    """This execution has made as many calls as can be replayed in good time; ``this.continue_as_new(…)`` goes on."""


class LifecycleSignal(BaseException):
    """Something that ends a handler, and that ``except Exception:`` does not catch."""


class ContinueAsNew(LifecycleSignal):
    """The handler leaves to begin anew: what ``this.continue_as_new(…)`` raises."""


class ExecutionCancel(LifecycleSignal):
    """Somebody cancelled this execution. Clean up and leave; the next call raises it again."""


class EndOfRecord(LifecycleSignal):
    """Offline only: the handler came to a call that was never recorded, so nobody can answer it."""


class EffectRefused(LifecycleSignal):
    """Offline only: the handler was about to have an effect of its own, and a replay touches nothing."""


for _name in (*__all__, "EndOfRecord", "EffectRefused"):
    globals()[_name].__module__ = "flow_api"  # what tracebacks show is what flows import


def from_wire(type_name: str, message: str) -> BaseException:
    """Return the exception that the daemon named, an ``InternalError`` for a name that is not one of these."""
    kind = globals().get(type_name)
    if isinstance(kind, type) and issubclass(kind, (EngineException, LifecycleSignal)):
        return kind(message)
    return InternalError(f"{type_name}: {message}")
