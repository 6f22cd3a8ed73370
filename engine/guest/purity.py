"""Watches what a handler does to the world by itself, and tells the daemon of the first such effect before it happens.

After a crash a handler is run again from its recorded calls. That is right only if between its calls it has no effects
of its own; whether it had, the record has to say. So one audit hook per process watches every thread from the moment
the flow's module is executed until its handler has returned. An effect waits until the daemon has its notice on disk:
a crash after the effect finds the notice, a crash before the notice is durable finds no effect.

* Only the first effect of an execution costs that round trip; a flag lets later ones pass.
* Any thread may have it. Whoever reads the channel meanwhile hands the acknowledgement over (``frames.confirm``); other
  threads that come to an effect of theirs wait for the same one.
* A process that the flow forks is watched no more: the fork was an effect, and the channel is its parent's. So is what
  a program does that the flow starts.
* ``this.step`` is the sanctioned way: while one runs, nothing counts, in no thread.
* Native code stays in the process. What loaded some tells so at the start of every later execution here, because
  using it raises no event.

The hook can never be taken away, and Python calls it for everything: what is no effect must cost one look into a
dictionary.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from . import effects, frames

#: How many callers up a probe of a library is looked for: ``subprocess`` has three of its own.
_PROBE_DEPTH_MAX = 8


class Watch:
    """The watch over one flow process."""

    def __init__(self, connection: frames.BlockingFrames) -> None:
        self._connection = connection
        self._telling = threading.RLock()  # again in the same thread: a signal's handler may have an effect too
        self._before_child: Callable[[], None] = _nothing
        self._sources: tuple[str, str] = ("", "")
        self._owner = 0
        self._watching = False
        self._told = False
        self._lasting: dict[str, Any] | None = None  # the notice of native code that an execution here loaded
        self.refuse: Callable[[dict[str, Any]], None] = _let  # raises for what may not happen at all, offline
        self.step = ""  # the name of the step that runs
        self._hook = self._made()
        self.happened = False  # an effect in this execution, in a step or not

    def install(self, before_child: Callable[[], None]) -> None:
        """Watch this process from now on, and call ``before_child`` before it starts another one."""
        self._before_child = before_child
        sys.addaudithook(self._hook)

    def begin(self, snapshot: str, script: str) -> None:
        """A handler begins. Its author's code lies below ``snapshot`` or is called ``script``."""
        self._sources = (snapshot + os.sep, script)
        self._owner = threading.get_ident()
        self._told = False
        self.step = ""
        self.happened = self._lasting is not None  # what native code does raises no event
        if self._lasting is not None:
            self._tell(self._lasting)
        self._watching = True

    def end(self) -> None:
        """The handler has returned."""
        self._watching = False

    def forget(self) -> None:
        """In a process that the flow forked by itself."""
        self._watching = False
        self._before_child = _nothing

    @contextlib.contextmanager
    def stepping(self, name: str) -> Iterator[None]:
        """Let effects pass while a step runs."""
        self.step = name or "a step"
        try:
            yield
        finally:
            self.step = ""

    # -- the hook ---------------------------------------------------------------------------------------------------

    def _made(self) -> Callable[[str, effects.Arguments], None]:
        judges, consider = effects.JUDGES, self._consider

        def hook(event: str, arguments: effects.Arguments) -> None:
            if event in judges:
                consider(event, arguments)

        return hook

    def _consider(self, event: str, arguments: effects.Arguments) -> None:
        """Something that can be an effect is about to happen; raises ``ChannelClosed`` if nobody can be told."""
        told = self._told and self.refuse is _let and event not in effects.LASTING_EVENTS
        if self._watching and not told:
            self._judge(event, arguments)
        if event in effects.CHILD_EVENTS:
            self._before_child()

    def _judge(self, event: str, arguments: effects.Arguments) -> None:
        try:
            detail = effects.JUDGES[event](arguments)
        except (TypeError, ValueError, IndexError, AttributeError):
            detail = ""  # raised by code that makes up events, or another Python's: an effect all the same
        if detail is None or _is_probe(sys._getframe(2)):
            return
        self.happened = True
        if self.step:
            return
        notice = self._notice(event, detail)
        if event in effects.LASTING_EVENTS:
            self._lasting = self._lasting or notice
        self._tell(notice)
        self.refuse(notice)

    def _tell(self, notice: dict[str, Any]) -> None:
        """Return when the daemon has the notice of an effect, this one or an earlier one, on disk."""
        with self._telling:
            if not self._told:
                self._connection.confirm(notice)
                self._told = True

    # -- where ------------------------------------------------------------------------------------------------------

    def _notice(self, event: str, detail: str) -> dict[str, Any]:
        file, line = self._place(sys._getframe(2))
        detail = detail.removeprefix(self._sources[0])[: effects.DETAIL_CHARACTERS_MAX]
        return {"op": "effect", "event": event, "detail": detail, "file": file, "line": line}

    def _place(self, frame: types.FrameType | None) -> tuple[str, int]:
        """Return where the author's code is: in this thread, or, if none of it is in this one, in the handler's."""
        return self._own(frame) or self._own(sys._current_frames().get(self._owner)) or ("", 0)

    def _own(self, frame: types.FrameType | None) -> tuple[str, int] | None:
        folder, script = self._sources
        while frame is not None:
            name = frame.f_code.co_filename
            if name == script or name.startswith(folder):
                return name.removeprefix(folder), frame.f_lineno
            frame = frame.f_back
        return None


def _is_probe(frame: types.FrameType | None) -> bool:
    """Whether a library only tries out what this machine can do."""
    for _ in range(_PROBE_DEPTH_MAX):
        if frame is None:
            return False
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in effects.PROBES:
            return True
        frame = frame.f_back
    return False


def _nothing() -> None:
    """Nobody wants to know."""


def _let(_: dict[str, Any]) -> None:
    """It may happen."""
