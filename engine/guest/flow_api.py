"""What a flow may use: ``system`` and ``this``, importable in every flow as ``flow_api``.

The objects hold no truth of their own: every read and write is a call to the daemon, which records it. A handle keeps
what it read of an execution only where that cannot change any more, so a handle made before a child ended still gives
the current value afterwards.
"""

from __future__ import annotations

from . import exceptions as exceptions
from .children import Children, ReturnWhen
from .exceptions import *  # noqa: F403 - the contract: flow_api.DependencyFailedError and its like
from .executions import Execution, Wrapped
from .files import File
from .handles import Handle
from .messages import Message
from .records import (
    Connection,
    Flow,
    Lock,
    Record,
    Schedule,
    Setting,
    User,
    VaultConfig,
    Webhook,
    Workspace,
)
from .running import Locked, Running
from .system import System

__all__ = [
    "Children",
    "Connection",
    "Execution",
    "File",
    "Flow",
    "Handle",
    "Lock",
    "Locked",
    "Message",
    "Record",
    "ReturnWhen",
    "Running",
    "Schedule",
    "Setting",
    "System",
    "User",
    "VaultConfig",
    "Webhook",
    "Workspace",
    "Wrapped",
    "exceptions",
    *exceptions.__all__,
]
