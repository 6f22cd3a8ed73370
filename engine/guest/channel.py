"""A flow's calls: each gets the next number, becomes a frame, and comes back as a result or an exception.

Numbers count every call in program order, those that wait for nothing included, because a replay finds recorded results
by them. Calls come from the handler's own thread only: with several threads the order, and so the numbers, would be
chance.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

from . import exceptions, frames, purity

#: What stands between a flow and its call. Blocks (``with``) go through a module of Python's own.
_BETWEEN = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.path.abspath(contextlib.__file__))


class Channel:
    """The way from one handler to the daemon. One call is under way at a time."""

    def __init__(self, connection: frames.BlockingFrames) -> None:
        self._connection = connection
        self._root = ""
        self.watch = purity.Watch(connection)
        self.begin("")

    def stand_on(self, snapshot: str) -> None:
        """Name files of the flow's repository from here."""
        self._root = snapshot + os.sep

    def begin(self, execution: str, replayed: int = 0) -> None:
        """Start counting anew, for the next execution in this process; calls up to ``replayed`` are recorded."""
        self._replayed = replayed
        self._owner = threading.get_ident()
        self._call = 0
        self._execution = execution
        self._cancelled = False
        self.met_cancel = False  # the handler was told

    def call(self, kind: str, target: str = "", **args: Any) -> Any:
        """Ask the daemon and wait for the answer; raises what the daemon says happened."""
        number = self._next()
        where = self._where()
        self._send({"op": "call", "call": number, "kind": kind, "target": target, "args": args, "where": where})
        answer = self._receive()
        if "failure" not in answer:
            return answer.get("result")
        failure = answer["failure"]
        error = exceptions.from_wire(failure["type"], failure.get("message", ""))
        if isinstance(error, exceptions.DependencyFailedError):
            error.execution = failure.get("execution")
        self.met_cancel = self.met_cancel or isinstance(error, exceptions.ExecutionCancel)
        raise error

    def log(self, level: str, args: list[Any], labels: dict[str, Any]) -> None:
        """Record a log line; nobody waits for it.

        A handler that only logs has to learn of a cancel too; here it does so once, so that it can tell of its cleaning
        up."""
        while (frame := self._connection.poll()) is not None:
            self._take_notice(frame)
        if self._cancelled and not self.met_cancel:
            self.met_cancel = True
            raise exceptions.ExecutionCancel("the execution was cancelled")
        number = self._log_number()
        self._send({"op": "log", "call": number, "level": level, "args": args, "kwargs": labels})

    def note(self, level: str, text: str, labels: dict[str, Any]) -> None:
        """Record a line of Python's ``logging``, from any thread.

        It has no number, like what is printed: libraries log when they please, and a replay must not stumble over that.
        """
        frame = {"op": "log", "call": 0, "stream": "logging", "level": level, "args": [text], "kwargs": labels}
        self._connection.send(frame)

    def settle(self) -> None:
        """Return when the daemon has taken up everything sent so far. No call: it changes nothing and has no number."""
        if threading.get_ident() == self._owner:
            self._connection.send({"op": "settle"})
            self._receive()

    def _receive(self) -> dict[str, Any]:
        """Return the next answer."""
        while self._take_notice(frame := self._connection.receive()):
            pass
        return frame

    def _take_notice(self, frame: dict[str, Any]) -> bool:
        """Return whether ``frame`` is no answer, but tells that an execution is cancelled; perhaps an earlier one."""
        if "cancel" not in frame:
            return False
        self._cancelled = self._cancelled or frame["cancel"] == self._execution
        return True

    def _where(self) -> str:
        """Return the line of the flow that makes this call, as ``file:line``."""
        frame = sys._getframe(2)
        while frame.f_code.co_filename.startswith(_BETWEEN) and frame.f_back is not None:
            frame = frame.f_back
        name = frame.f_code.co_filename
        return f"{name.removeprefix(self._root)}:{frame.f_lineno}"

    @property
    def replays(self) -> bool:
        """Whether the next call is answered from the record."""
        return self._call < self._replayed

    @contextlib.contextmanager
    def stepping(self, name: str) -> Iterator[None]:
        """Let a step have its effects. Calls are refused meanwhile: a replay that has the step's result does not run
        it, so it would never come to them, and all later numbers would be others.

        For the same reason Python's ``random`` goes on from a state of its own behind each step, run or not."""
        self._refuse_here(f"the step {name!r}")
        try:
            with self.watch.stepping(name):
                yield
        finally:
            random.seed(f"{self._execution}/{self._call}")

    def _log_number(self) -> int:
        """What a step logs has no number, for the reason that its calls are refused."""
        if not self.watch.step:
            return self._next()
        self._refuse_other_threads()
        return 0

    def _next(self) -> int:
        self._refuse_here("this call")
        self._call += 1
        return self._call

    def _refuse_here(self, what: str) -> None:
        self._refuse_other_threads()
        if self.watch.step:
            raise exceptions.InternalError(
                f"{what} cannot be made inside of the step {self.watch.step!r}: when the handler is run again, the "
                "step is not. Make it before or after the step; this.log, print and logging can be used inside"
            )

    def _refuse_other_threads(self) -> None:
        if threading.get_ident() != self._owner:
            raise exceptions.InternalError(
                "system and this can be used only in the handler's own thread: calls are numbered in program order. "
                "Start child executions with wait=False to do things at the same time"
            )

    def _send(self, frame: dict[str, Any]) -> None:
        """Send a call's frame; a value that cannot be sent is the flow's mistake, and uses up the call's number."""
        try:
            self._connection.send(frame)
        except frames.FrameTooLarge as error:
            raise exceptions.InvalidInputError(f"the values of this call are too large: {error}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise exceptions.InvalidInputError(f"the values of this call cannot be written as JSON: {error}") from None
