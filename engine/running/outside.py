"""What executions depend on that is not theirs: the rooms beyond the engine, and how the operator wants them run."""

from __future__ import annotations

import msgspec

from .. import ports
from . import placing


class Options(msgspec.Struct, frozen=True):
    """How executions are run here."""

    max_running: int = 32
    new_max: int = 8  # of them, see ``slots``
    quick_max: int = 16
    cancel_grace_s: float = 10.0
    allow_local_files: bool = False
    hibernate_after_s: float = 15.0
    workspace: str = "headrace"
    environment: str = ""
    placing: placing.Options = placing.EVERYTHING


class Outside(msgspec.Struct, frozen=True):
    """What lies beyond the engine, as far as executions need it."""

    flows: ports.Flows
    tasks: ports.Tasks
    authoring: ports.Authoring
    vaults: ports.Vaults
    environments: ports.Environments
