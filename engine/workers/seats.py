"""Seats on a cluster: workers that serve one execution after the other, and who waits for one.

Ray is asked for seats, not for executions. A seat is one of its tasks, with the wishes that the executions have which
wait for it; the worker that comes serves the first of them, and then the next, without another task of Ray, as long as
somebody waits and its stint is not over. So what Ray takes to schedule a task is paid once for many short executions,
and whoever else uses the cluster gets his turn all the same. As many seats are asked for as executions wait; those that
turn out to be too many are called off.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from .. import policy, ports

log = structlog.get_logger()

#: A worker serves for so long, then Ray may give its room to somebody else.
STINT_S = 1.0
#: A worker that nobody waits for stays so long, in case somebody comes.
LINGER_S = 0.02
#: A seat that Ray could not give is asked for again after so long, longer each time.
_AGAIN_S, _AGAIN_MAX_S = 0.5, 30.0


class Place(Protocol):
    """What an execution wants."""

    @property
    def wants(self) -> policy.Placement:
        """Where it may run, and what it needs."""

    def sit(self, worker: Worker) -> None:
        """A worker serves it now."""


class Worker(Protocol):
    """Somebody who came for a seat."""

    @property
    def seat(self) -> Seat | None:
        """The one it has."""

    def leave(self) -> None:
        """Its seat is over."""


class Seat:
    """One task of Ray."""

    __slots__ = ("identity", "line", "token", "until")

    def __init__(self, line: Line) -> None:
        self.identity = secrets.token_hex(8)
        self.token = secrets.token_hex(32)  # whoever comes for it must have this, once
        self.line = line
        self.until = 0.0  # monotonic; the end of its stint


class Line:
    """Those who wish for the same, and the seats that were asked for because of them."""

    def __init__(self, wants: policy.Placement) -> None:
        self.wants = wants
        self.waiting: dict[Place, None] = {}  # in their order
        self.asked: dict[str, Seat] = {}  # that nobody has come for
        self.idle: dict[Worker, asyncio.TimerHandle] = {}
        self.refusal = ""  # why there was no seat the last time
        self.tries = 0
        self.again: asyncio.TimerHandle | None = None
        self.spare = 0  # seats too many, when that was last counted


class Seats:
    """All lines. ``ask`` has Ray run a task for a seat and tells whether it could; ``call_off`` ends that."""

    def __init__(self, clock: ports.Clock, ask: Callable[[Seat], bool], call_off: Callable[[Seat], None]) -> None:
        self._clock = clock
        self._ask = ask
        self._call_off = call_off
        self._lines: dict[bytes, Line] = {}
        self._tokens: dict[str, Seat] = {}

    @property
    def waiting(self) -> int:
        """How many executions nobody serves."""
        return sum(len(line.waiting) for line in self._lines.values())

    # -- executions -------------------------------------------------------------------------------------------------

    def wait(self, place: Place) -> None:
        """Serve an execution when there is a worker for it."""
        key = _key(place.wants)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(place.wants)
        if line.idle:
            worker, timer = line.idle.popitem()
            timer.cancel()
            place.sit(worker)
        else:
            line.waiting[place] = None
            self._ask_for(line)

    def drop(self, place: Place) -> None:
        """It does not wait any more; harmless if it did not."""
        if (line := self._lines.get(_key(place.wants))) is not None:
            line.waiting.pop(place, None)

    def refusal(self, place: Place) -> str:
        """Return why there was no seat the last time, for who waits as it does; empty if there was."""
        line = self._lines.get(_key(place.wants))
        return line.refusal if line is not None else ""

    # -- seats ------------------------------------------------------------------------------------------------------

    def _ask_for(self, line: Line) -> None:
        while len(line.asked) < len(line.waiting) and line.again is None:
            seat = Seat(line)
            if not self._ask(seat):
                return  # ``ask_anew`` follows when somebody can be asked
            line.asked[seat.identity] = seat
            self._tokens[seat.token] = seat

    def ask_anew(self) -> None:
        """Whoever was asked knows nothing of it any more: ask once more, for all who wait."""
        self._tokens.clear()
        for line in self._lines.values():
            line.asked.clear()
            self._stop_waiting(line)
            self._ask_for(line)

    def ended(self, identity: str, why: str) -> None:
        """Ray says that the task of a seat is over. If nobody came for it, it is asked for again in a while."""
        for line in self._lines.values():
            if (seat := line.asked.pop(identity, None)) is not None:
                del self._tokens[seat.token]
                self.refused(line, why)

    def refused(self, line: Line, why: str) -> None:
        """There was no seat, or the worker that came for it cannot serve."""
        line.refusal = why
        if line.again is None:  # else it is known already
            line.tries += 1
            log.warning("cluster.not_placed", reason=why, tries=line.tries, waiting=len(line.waiting))
            after_s = min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(line.tries - 1, 10))
            line.again = asyncio.get_running_loop().call_later(after_s, self._ask_again, line)

    def _ask_again(self, line: Line) -> None:
        line.again = None
        self._ask_for(line)

    def _stop_waiting(self, line: Line) -> None:
        if line.again is not None:
            line.again.cancel()
            line.again = None

    def look(self) -> None:
        """Call off what was too many at the last look and still is; to be called every few seconds."""
        for key, line in list(self._lines.items()):
            spare = len(line.asked) - len(line.waiting)
            for identity in list(line.asked)[len(line.asked) - max(0, min(spare, line.spare)) :]:
                seat = line.asked.pop(identity)
                del self._tokens[seat.token]
                self._call_off(seat)
            line.spare = len(line.asked) - len(line.waiting)
            if not (line.asked or line.waiting or line.idle or line.again):
                del self._lines[key]

    def stop(self) -> None:
        """Ask for nothing more."""
        for line in self._lines.values():
            self._stop_waiting(line)

    # -- workers ----------------------------------------------------------------------------------------------------

    def claim(self, token: str) -> Seat | None:
        """Return the seat that a token is for; it is good once."""
        seat = self._tokens.pop(token, None)
        if seat is not None:
            del seat.line.asked[seat.identity]
            seat.until = self._clock.monotonic() + STINT_S
        return seat

    def free(self, worker: Worker) -> None:
        """A worker has nothing to serve now: it gets the next, stays a moment, or leaves."""
        assert worker.seat is not None
        line, is_over = worker.seat.line, self._clock.monotonic() >= worker.seat.until
        line.tries, line.refusal = 0, ""
        if is_over:
            worker.leave()
        elif line.waiting:
            place = next(iter(line.waiting))
            del line.waiting[place]
            place.sit(worker)
        else:
            line.idle[worker] = asyncio.get_running_loop().call_later(LINGER_S, self._dismiss, worker, line)

    def _dismiss(self, worker: Worker, line: Line) -> None:
        del line.idle[worker]
        worker.leave()

    def gone(self, worker: Worker) -> None:
        """A worker is lost."""
        if worker.seat is not None and (timer := worker.seat.line.idle.pop(worker, None)) is not None:
            timer.cancel()


def _key(wants: policy.Placement) -> bytes:
    return msgspec.json.encode(wants)
