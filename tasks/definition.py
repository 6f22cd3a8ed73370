"""What a task type is: one declaration per module, which the registry finds and serves.

A module of a type has a struct of inputs (a subclass of ``Inputs``, each field with its description, unit and default),
a struct of the output, a coroutine ``run(inputs, context)``, and a function ``definition(settings)`` that puts them
into one ``TaskDefinition``. It refuses inputs before anything is sent by raising what ``missing`` and ``invalid``
return, and reports a failure as ``errors.TaskFailed``. Nothing else is needed: not a base class, not a registration,
but the one line in ``builtin`` or, for a type of another distribution, an entry point of the group
``headrace.tasks`` that names such a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from ..engine import errors, ports
from .egress import Egress
from .folders import Folders
from .local import Local
from .retry import Backoff, Pacing


class Inputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every task type accepts. ``null`` counts as not given."""

    timeout: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None,
        msgspec.Meta(description="Seconds the whole task may take. Without it there is no limit."),
    ] = None
    retry_backoff: Annotated[
        Backoff | bool | None,
        msgspec.Meta(
            description="How a passing failure is retried: {initial, maximum, multiplier, deadline}, in seconds; "
            "true is the default back-off, false never tries again. Without it only what may be repeated is retried."
        ),
    ] = None
    retry_interrupted: Annotated[
        bool,
        msgspec.Meta(
            description="Repeat the task when the daemon died in the middle of it, also if nobody knows whether it "
            "took effect. Default: false; what may be repeated without harm is."
        ),
    ] = False
    protect_inputs: Annotated[
        list[str] | None,
        msgspec.Meta(description="Names of inputs that no record shows, besides those called like a credential."),
    ] = None
    protect_outputs: Annotated[
        list[str] | None,
        msgspec.Meta(description="Names of outputs that no record shows; the flow gets them all the same."),
    ] = None


I = TypeVar("I", bound=Inputs)  # noqa: E741 - the inputs of one type


def _accept(_: Any) -> None:
    """Every combination of well-typed inputs is fine."""


async def _nothing_to_close() -> None:
    """The type keeps nothing open."""


class TaskDefinition(msgspec.Struct, Generic[I], frozen=True, kw_only=True):
    """One task type. ``check`` sees well-typed inputs and raises for what does not go together."""

    name: str
    summary: str
    inputs: type[I]
    output: type[msgspec.Struct]
    run: Callable[[I, ports.TaskContext], Awaitable[msgspec.Struct]]
    #: Whether a run cut off midway may simply be repeated.
    idempotent: Callable[[I], bool]
    check: Callable[[I], None] = _accept
    aliases: tuple[str, ...] = ()
    description: str = ""
    #: Inputs that no record shows; those called like a password or a token are hidden without being named here.
    secret_inputs: frozenset[str] = frozenset()
    #: Other names of inputs, as flows in the wild write them.
    input_aliases: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: Lets go of what the type keeps open between runs.
    close: Callable[[], Awaitable[None]] = _nothing_to_close


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decides for all task types."""

    egress: Egress = msgspec.field(default_factory=Egress)
    pacing: Pacing = msgspec.field(default_factory=Pacing)
    local: Local = msgspec.field(default_factory=Local)
    folders: Folders = msgspec.field(default_factory=Folders)


Factory = Callable[[Settings], TaskDefinition[Any]]


def missing(task: str, name: str, expected: str) -> errors.InputRefused:
    """Return the refusal of a call without the input ``name``."""
    return errors.InputRefused("MissingInputError", f"{task} needs the input '{name}': {expected}")


def invalid(task: str, name: str, expected: str) -> errors.InputRefused:
    """Return the refusal of an input's value. Say what is expected, never the value: it may be a secret."""
    return errors.InputRefused("InvalidInputError", f"{task} cannot use the input '{name}': {expected}")
