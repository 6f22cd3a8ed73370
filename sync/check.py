"""Check flow files: which are flows, and what is wrong with those that are not good.

Owns: the child processes that compile (never the daemon itself), their restart when a file takes one down, the
verdict per file, and the rule which paths can be flows at all. Refuses: nothing; a bad file is a verdict, not an
error. Called by ``candidate`` from a worker thread with the files that changed.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ..engine import errors, model
from . import compile_flows, metadata

#: Verdicts found under other rules (an older version of this module or another Python) are found again.
RULES = f"1/{sys.version_info[0]}.{sys.version_info[1]}"

_CHILD_TIMEOUT_S = 120.0
#: Fewer files than this are not worth a second process (50 ms to start, 0.2 ms a file).
_FILES_PER_CHILD_MIN = 400
_CHILDREN_MAX = 4
#: Each costs a few processes and up to 20 s; a commit full of them must not keep sync busy for hours.
_FATAL_FILES_MAX = 20

_NEVER_FOLDERS = frozenset({"tests"})
_NEVER_FILES = frozenset({"__init__.py", "conftest.py"})


class Findings(msgspec.Struct, frozen=True):
    """What the child says about one file."""

    path: str
    looks_like_flow: bool = False
    handler: bool = False
    handler_line: int = 0
    block: str = ""
    block_line: int = 0
    problem: str = ""
    line: int = 0


_NOTHING_SAID = model.Metadata()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is: a flow (``handler``), a helper module, or broken (``reason``) and perhaps meant as a flow."""

    handler: bool = False
    meant_as_flow: bool = False
    metadata: model.Metadata = _NOTHING_SAID
    warnings: tuple[str, ...] = ()
    reason: str = ""
    line: int = 0
    key: str = ""


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
    paths = sorted(files)
    children = max(1, min(_CHILDREN_MAX, os.cpu_count() or 1, len(paths) // _FILES_PER_CHILD_MIN))
    shares = [{path: files[path] for path in paths[start::children]} for start in range(children)]
    with concurrent.futures.ThreadPoolExecutor(children, "check") as pool:
        return {found.path: _verdict(found) for share in pool.map(_examine, shares) for found in share}


def _examine(files: Mapping[str, bytes]) -> list[Findings]:
    """Have all files compiled. A file without an answer ended its child: it is tried once more alone."""
    done: dict[str, Findings] = {}
    fatal = 0
    while rest := [path for path in files if path not in done]:
        if fatal >= _FATAL_FILES_MAX:
            done |= {path: _fatal(path, files[path], "is one of too many that end the check") for path in rest}
            break
        answers, _ = _run_child({path: files[path] for path in rest})
        done |= answers
        guilty = next((path for path in rest if path not in done), None)
        if guilty is not None:
            alone, ending = _run_child({guilty: files[guilty]})
            fatal += not alone
            done |= alone or {guilty: _fatal(guilty, files[guilty], ending)}
    return list(done.values())


def _run_child(files: Mapping[str, bytes]) -> tuple[dict[str, Findings], str]:
    """Return the answers of one child about ``files``, perhaps not all, and how it ended."""
    words = [sys.executable, "-I", "-S", str(Path(compile_flows.__file__))]
    question = b"".join(b"%s\n%s" % (json.dumps([path, len(text)]).encode(), text) for path, text in files.items())
    try:
        child = subprocess.run(
            words, input=question, capture_output=True, timeout=_CHILD_TIMEOUT_S, env={}, cwd="/", check=False
        )
        output, ending = child.stdout, _ending(child.returncode)
    except subprocess.TimeoutExpired as error:
        output, ending = error.stdout or b"", "takes too long"
    answers = {found.path: found for found in _decoded(output) if found.path in files}
    if not answers and ending == "":
        raise errors.HeadraceError(f"the process that checks flows says nothing: {child.stderr[-300:]!r}")
    return answers, ending


def _decoded(output: bytes) -> Iterator[Findings]:
    for line in output.split(b"\n")[:-1]:  # the last one is empty, or torn
        yield msgspec.json.decode(line, type=Findings)


def _ending(status: int) -> str:
    if status == -signal.SIGALRM:
        return "takes too long"
    if status < 0:
        return f"takes the interpreter down ({signal.Signals(-status).name})"
    return f"ends the interpreter with status {status}" if status else ""


def _fatal(path: str, content: bytes, ending: str) -> Findings:
    looks = compile_flows.LOOKS_LIKE_FLOW.search(content) is not None
    return Findings(path, looks_like_flow=looks, problem=f"cannot be compiled: it {ending}", line=1)


def _verdict(found: Findings) -> Verdict:
    meant = found.looks_like_flow or found.handler
    if found.problem:
        return Verdict(found.handler, meant, reason=found.problem, line=found.line)
    if not found.handler:
        return Verdict()
    if not found.block:
        return Verdict(handler=True, meant_as_flow=True)
    try:
        block = metadata.parse(found.block, first_line=found.block_line, flow_name=flow_name(found.path))
    except metadata.MetadataInvalid as error:
        return Verdict(True, True, reason=error.message, line=error.line, key=error.key)
    return Verdict(True, True, block.metadata, block.warnings)
