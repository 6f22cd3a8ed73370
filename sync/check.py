"""Check flow files: which are flows, and what is wrong with those that are not good.

Owns: the verdict per file, from what a child process says that compiles it (never the daemon itself), and the rule
which paths can be flows at all. Refuses: nothing; a bad file is a verdict, not an error. Called by ``candidate`` from
a worker thread with the files that changed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..engine import model
from . import compile_flows, examination, metadata

#: Verdicts found under other rules (an older version of this module or another Python) are found again.
RULES = f"4/{sys.version_info[0]}.{sys.version_info[1]}"

_FATAL_FILES_MAX = examination.FATAL_FILES_MAX
_LOOKS_LIKE_FLOW = re.compile(rb"^(?:async[ \t]+)?def[ \t]+handler\b", re.MULTILINE)
#: As a module, so that it is not compiled each time; its folder comes last, so that none of ours hides one of Python's.
_START = "import sys; sys.path.append(sys.argv[1]); import compile_flows; compile_flows.main()"
_NEVER_FOLDERS = frozenset({"tests"})
_NEVER_FILES = frozenset({"__init__.py", "conftest.py"})


class Findings(msgspec.Struct, frozen=True):
    """What the child says about one file."""

    handler: bool = False
    block: str = ""
    block_line: int = 0
    problem: str = ""
    line: int = 0


_NOTHING_SAID = model.Metadata()


class Verdict(msgspec.Struct, frozen=True):
    """What a file is: a flow (``handler``), a helper module, or broken (``reason``) and perhaps meant as a flow."""

    handler: bool = False
    meant_as_flow: bool = False
    metadata: model.Metadata = _NOTHING_SAID
    reason: str = ""
    line: int = 0
    key: str = ""
    venv: str = ""


def may_be_flow(path: str) -> bool:
    """Return whether the file at ``path`` can be a flow, by its name and place alone."""
    *folders, name = path.split("/")
    if not name.endswith(".py") or name == ".py" or name in _NEVER_FILES:
        return False
    return not any(folder.startswith((".", "_")) or folder in _NEVER_FOLDERS for folder in folders)


def flow_name(path: str) -> str:
    """Return what a flow at ``path`` is called."""
    return path.removesuffix(".py")


def check(files: Mapping[str, bytes]) -> dict[str, Verdict]:
    """Return the verdict on each file (path → content)."""
    asked = examination.Examination(
        words=("-c", _START, str(Path(compile_flows.__file__).parent)),
        answer=Findings,
        give_up=lambda ending: Findings(problem=f"cannot be compiled: it {ending}", line=1),
        fatal_files_max=_FATAL_FILES_MAX,
    )
    return {path: _verdict(path, files[path], found) for path, found in asked.of(files).items()}


def _verdict(path: str, content: bytes, found: Findings) -> Verdict:
    if found.problem:
        meant = found.handler or _LOOKS_LIKE_FLOW.search(content) is not None
        return Verdict(found.handler, meant, reason=found.problem, line=found.line)
    if not found.handler:
        return Verdict()
    if not found.block:
        return Verdict(handler=True, meant_as_flow=True)
    try:
        said = metadata.parse(found.block, first_line=found.block_line, flow_name=flow_name(path))
    except metadata.MetadataInvalid as error:
        return Verdict(True, True, reason=error.message, line=error.line, key=error.key)
    return Verdict(True, True, said)
