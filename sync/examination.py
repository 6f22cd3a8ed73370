"""Examining files of other people in processes that may die of it: what ``check`` and ``documents`` have in common.

Owns: the child processes, several when there is much to do, their time limit, and the search for the file that took
one down: the first without an answer is tried once more alone, the others go on. Refuses: trusting a file not to
break its reader. A child gets a sequence of ``<[path, size] in JSON>\\n<that many bytes>`` on standard input and
answers one JSON object a line, flushed, in order; it sees no environment. Called from worker threads: it blocks.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from ..engine import errors

_CHILD_TIMEOUT_S = 120.0
#: Fewer files than this are not worth a second process (50 ms to start, 0.2 ms a file).
_FILES_PER_CHILD_MIN = 400
_CHILDREN_MAX = 4
#: Each costs a few processes and up to 20 s; a commit full of them must not keep sync busy for hours.
FATAL_FILES_MAX = 20


class Answer(Protocol):
    """What a child says about one file."""

    @property
    def path(self) -> str:
        """Which file."""


A = TypeVar("A", bound=Answer)


class Examination(msgspec.Struct, Generic[A], frozen=True, kw_only=True):
    """One kind of question to files. ``give_up`` makes the answer about a file that ended its child."""

    words: tuple[str, ...]  # what isolated Python gets: a script with its arguments
    answer: type[A]
    give_up: Callable[[str, bytes, str], A]
    fatal_files_max: int = FATAL_FILES_MAX

    def of(self, files: Mapping[str, bytes]) -> dict[str, A]:
        """Return the answer about each file (path → content)."""
        if not files:
            return {}
        paths = sorted(files)
        children = max(1, min(_CHILDREN_MAX, os.cpu_count() or 1, len(paths) // _FILES_PER_CHILD_MIN))
        shares = [{path: files[path] for path in paths[start::children]} for start in range(children)]
        with concurrent.futures.ThreadPoolExecutor(children, "examine") as pool:
            return {found.path: found for share in pool.map(self._examine, shares) for found in share}

    def _examine(self, files: Mapping[str, bytes]) -> list[A]:
        """Have all files examined. A file without an answer ended its child: it is tried once more alone."""
        done: dict[str, A] = {}
        fatal = 0
        while rest := [path for path in files if path not in done]:
            if fatal >= self.fatal_files_max:
                many = "is one of too many that end the check"
                done |= {path: self.give_up(path, files[path], many) for path in rest}
                break
            answers, _ = self._run_child({path: files[path] for path in rest})
            done |= answers
            guilty = next((path for path in rest if path not in done), None)
            if guilty is not None:
                alone, ending = self._run_child({guilty: files[guilty]})
                fatal += not alone
                done |= alone or {guilty: self.give_up(guilty, files[guilty], ending)}
        return list(done.values())

    def _run_child(self, files: Mapping[str, bytes]) -> tuple[dict[str, A], str]:
        """Return the answers of one child about ``files``, perhaps not all, and how it ended."""
        words = [sys.executable, "-I", "-S", *self.words]
        question = b"".join(b"%s\n%s" % (json.dumps([path, len(text)]).encode(), text) for path, text in files.items())
        try:
            child = subprocess.run(
                words, input=question, capture_output=True, timeout=_CHILD_TIMEOUT_S, env={}, cwd="/", check=False
            )
            output, ending = child.stdout, _ending(child.returncode)
        except subprocess.TimeoutExpired as error:
            output, ending = error.stdout or b"", "takes too long"
        answers = {found.path: found for found in self._decoded(output) if found.path in files}
        if not answers and ending == "":
            raise errors.HeadraceError(f"the process that examines files says nothing: {child.stderr[-300:]!r}")
        return answers, ending

    def _decoded(self, output: bytes) -> Iterator[A]:
        for line in output.split(b"\n")[:-1]:  # the last one is empty, or torn
            yield msgspec.json.decode(line, type=self.answer)


def _ending(status: int) -> str:
    if status == -signal.SIGALRM:
        return "takes too long"
    if status < 0:
        return f"takes the interpreter down ({signal.Signals(-status).name})"
    return f"ends the interpreter with status {status}" if status else ""
