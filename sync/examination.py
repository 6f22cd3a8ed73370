"""Examining files of other people in processes that may die of it: what ``check`` and ``documents`` have in common.

Owns: the child processes, several when there is much to do, their time limit, and the search for the file that took
one down: the first without an answer is tried once more alone, the others go on. Refuses: trusting a file not to
break its reader. A child gets a sequence of ``<size in decimal>\\n<that many bytes>`` on standard input and answers
one JSON object a line, flushed, in order; it sees no environment. Called from worker threads: it blocks.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from ..engine import errors

_CHILD_TIMEOUT_S = 120.0
#: Fewer files than this are not worth a second process (50 ms to start, 0.2 ms a file).
_FILES_PER_CHILD_MIN = 400
_CHILDREN_MAX = 4
#: Each costs a few processes and up to 20 s; a commit full of them must not keep sync busy for hours.
FATAL_FILES_MAX = 20


A = TypeVar("A")


class Examination(msgspec.Struct, Generic[A], frozen=True, kw_only=True):
    """One kind of question to files. ``give_up`` makes the answer about one that ended its child, of how it did."""

    words: tuple[str, ...]  # what isolated Python gets: a script with its arguments
    answer: type[A]
    give_up: Callable[[str], A]
    fatal_files_max: int = FATAL_FILES_MAX

    def of(self, files: Mapping[str, bytes]) -> dict[str, A]:
        """Return the answer about each file (path → content)."""
        if not files:
            return {}
        paths = sorted(files)
        children = max(1, min(_CHILDREN_MAX, os.cpu_count() or 1, len(paths) // _FILES_PER_CHILD_MIN))
        shares = [{path: files[path] for path in paths[start::children]} for start in range(children)]
        with concurrent.futures.ThreadPoolExecutor(children, "examine") as pool:
            return {path: found for share in pool.map(self._examine, shares) for path, found in share.items()}

    def _examine(self, files: Mapping[str, bytes]) -> dict[str, A]:
        """Have all files examined. A file without an answer ended its child: it is tried once more alone."""
        done: dict[str, A] = {}
        fatal = 0
        while rest := [path for path in files if path not in done]:
            if fatal >= self.fatal_files_max:
                done |= dict.fromkeys(rest, self.give_up("is one of too many that end the check"))
                break
            answers, _ = self._run_child([files[path] for path in rest])
            done |= zip(rest, answers, strict=False)
            if len(answers) < len(rest):
                guilty = rest[len(answers)]
                alone, ending = self._run_child([files[guilty]])
                fatal += not alone
                done[guilty] = alone[0] if alone else self.give_up(ending)
        return done

    def _run_child(self, files: list[bytes]) -> tuple[list[A], str]:
        """Return the answers of one child about ``files``, perhaps not to the last, and how it ended."""
        words = [sys.executable, "-I", "-S", *self.words]
        question = b"".join(b"%d\n%s" % (len(text), text) for text in files)
        try:
            child = subprocess.run(
                words, input=question, capture_output=True, timeout=_CHILD_TIMEOUT_S, env={}, cwd="/", check=False
            )
            output, ending = child.stdout, _ending(child.returncode)
        except subprocess.TimeoutExpired as error:
            output, ending = error.stdout or b"", "takes too long"
        whole = output.split(b"\n")[:-1]  # the last one is empty, or torn
        answers = [msgspec.json.decode(line, type=self.answer) for line in whole]
        if not answers and ending == "":
            raise errors.HeadraceError(f"the process that examines files says nothing: {child.stderr[-300:]!r}")
        return answers, ending


def _ending(status: int) -> str:
    if status in (-signal.SIGALRM, -signal.SIGXCPU):
        return "takes too long"
    if status < 0:
        return f"takes the interpreter down ({signal.Signals(-status).name})"
    return f"ends the interpreter with status {status}" if status else ""
