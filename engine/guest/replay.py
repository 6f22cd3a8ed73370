"""A flow process of its own that runs one recorded execution again, offline, under a debugger if wanted.

It differs from those of a daemon in what must not happen. Effects of the handler's own are refused (unless they are
allowed), before they happen and each of them; a step is never run, because one that is recorded has its result and one
that is not is the end of the record. Loading native code is let pass: a library has to be imported to be replayed.
"""

from __future__ import annotations

import bdb
import contextlib
import pdb
import signal
import socket
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from . import channel, exceptions, frames, run

_PACKAGE = __package__ or ""


class ReplayChannel(channel.Channel):
    """The way to whoever holds the record."""

    def log(self, level: str, args: list[Any], labels: dict[str, Any]) -> None:
        """Tell a line, and go on when it has been taken up: a cancel is met at the same line each time then."""
        super().log(level, args, labels)
        self.settle()

    @contextlib.contextmanager
    def stepping(self, name: str) -> Iterator[None]:
        """Enter a step whose result is recorded; raises at one that has none."""
        if not self.replays:
            self.call("step", name, result=None)
        with super().stepping(name):
            yield


class _Debugger(pdb.Pdb):
    """A debugger that steps over this engine's code, and tells whether it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False

    def stop_here(self, frame: types.FrameType) -> bool:
        """Return whether to stop: not in what a call of ``this`` or ``system`` does."""
        return not self._is_ours(frame) and super().stop_here(frame)

    def _is_ours(self, frame: types.FrameType | None) -> bool:
        while frame is not None and frame is not self.botframe:
            if frame.f_globals.get("__package__") == _PACKAGE:
                return True
            frame = frame.f_back
        return False

    def set_quit(self) -> None:
        """Leave the flow as well."""
        self.left = True
        super().set_quit()


class ReplayProcess(run.FlowProcess):
    """Runs the execution."""

    def __init__(self, connection: frames.BlockingFrames, *, debugger: bool, effects: bool) -> None:
        way = ReplayChannel(connection)
        if not effects:
            way.watch.refuse = _refuse
        super().__init__(connection, way, capture=not debugger)
        self._debugger = debugger

    def _call(self, handler: Any, arguments: tuple[Any, ...]) -> Any:
        if not self._debugger:
            return handler(*arguments)
        debugger = _Debugger()
        try:
            returned = debugger.runcall(handler, *arguments)
            if debugger.left:  # bdb swallows its own exception
                raise bdb.BdbQuit
            return returned
        except (bdb.BdbQuit, exceptions.ContinueAsNew, exceptions.ExecutionCancel):
            raise
        except BaseException as error:
            print(*traceback.format_exception_only(error), sep="", end="", file=sys.stderr, flush=True)
            if error.__traceback__ is not None:
                debugger.reset()
                debugger.interaction(None, self._own(error.__traceback__))
            raise

    def _own(self, trace: Any) -> Any:
        """Leave out what stands before the handler, and after the flow's own last line."""
        while trace.tb_next is not None and trace.tb_frame.f_code.co_filename in (bdb.__file__, __file__):
            trace = trace.tb_next
        return trace


def _refuse(notice: dict[str, Any]) -> None:
    if notice["event"] != "import":
        what = f"{notice['event']} {notice['detail']}".strip()
        raise exceptions.EffectRefused(f"{what}: a replay touches nothing (--allow-effects lets it)")


def main(descriptor: int, options: Sequence[str]) -> NoReturn:
    """Run what comes over the inherited socket ``descriptor``. ``options``: ``debugger``, ``effects``."""
    connection = frames.BlockingFrames(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptor))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = ReplayProcess(connection, debugger="debugger" in options, effects="effects" in options)
    process.prepare()
    with contextlib.suppress(frames.ChannelClosed):
        process.serve()
    sys.exit(0)
