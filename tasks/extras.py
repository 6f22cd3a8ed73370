"""Libraries that only some task types need: imported when one runs, and asked for by name when they are missing.

Each such type names the extra of the distribution ``headrace`` that brings its library. The module itself imports the
library for the type checker alone, so that a daemon without it starts, lists the type and documents it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ..engine import errors


def require(module: str, *, extra: str, task: str) -> ModuleType:
    """Return the imported ``module``; raises ``TaskFailed`` that says how to install it.

    The first import reads files for up to some tenths of a second: call it off the event loop."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as absent:
        name = (absent.name or module).partition(".")[0]
        if name != module.partition(".")[0]:
            raise _unusable(module, extra, task, f"it lacks {name}") from None
        raise errors.TaskFailed(
            f"{task} needs the library {name}, which is not installed where the daemon runs: "
            f"pip install 'headrace[{extra}]', then start the daemon again",
            kind="LibraryMissing",
        ) from None
    except ImportError as broken:
        raise _unusable(module, extra, task, str(broken)) from None


def _unusable(module: str, extra: str, task: str, why: str) -> errors.TaskFailed:
    return errors.TaskFailed(
        f"{task} cannot use the library {module.partition('.')[0]} ({why}): "
        f"pip install --force-reinstall 'headrace[{extra}]'",
        kind="LibraryMissing",
    )
