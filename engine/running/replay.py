"""One recorded execution run again, offline: its handler in a process of its own, answered from the record alone.

Nobody is asked and nothing is touched. A call that is not the recorded one raises ``flow_api.ReplayDivergedError`` in
the handler, and so does every call after it; what was found first is the outcome, whatever the handler makes of that.
Where the record ends the replay ends: at the handler's own end the two ends are compared.

Called by the command line. The same history, the same comparison of calls and the same answers as after a crash
(``history``, ``recall``); only who is behind them differs.
"""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .. import errors, events, model, values
from ..guest import frames
from ..lifecycle import Status
from ..workers import protocol, replay_process
from . import failures, history, likeness, recall, views
from .exported import CANCELLED, Exported

#: After its end was decided, a handler that swallows what it meets may go on for so long.
_DEAF_MAX = 200
#: How long its process may take to leave by itself.
_LEAVE_S = 5.0


class Verdict(enum.Enum):
    """What came of a replay."""

    SAME = "same"
    DIVERGED = "diverged"
    FURTHER = "further"  # the handler came to where the record ends, and would go on
    REFUSED = "refused"  # it was about to have an effect of its own
    LEFT = "left"  # somebody left the debugger
    LATE = "late"  # it took too long


class Note(msgspec.Struct, frozen=True):
    """A call that was given something else than recorded. It counts only in a strict replay."""

    call: int
    kind: str
    target: str
    where: str
    recorded: str
    attempted: str


class Outcome(msgspec.Struct):
    """What came of it. ``text`` says it in words; ``divergence`` has both sides where they part."""

    verdict: Verdict
    text: str = ""
    divergence: events.Divergence | None = None
    effect: protocol.Effect | None = None
    notes: list[Note] = msgspec.field(default_factory=list)
    calls: int = 0  # how far it came
    masked: int = 0  # answers that hold something masked: what the handler made of the true value is not known


class Options(msgspec.Struct, frozen=True):
    """How to replay. ``limit_s``: how long it may take, in seconds."""

    debugger: bool = False
    effects: bool = False
    strict: bool = False
    quiet: bool = False
    limit_s: float | None = None


class Listener(Protocol):
    """Who gets what the handler says."""

    def logged(self, said: protocol.Log) -> None:
        """It logged, by ``this.log`` or Python's logging."""

    def printed(self, said: protocol.Output) -> None:
        """It printed."""


async def replay(record: Exported, flows: Path, listener: Listener, options: Options, *, python: str = "") -> Outcome:
    """Run the handler that lies below ``flows``, an absolute path, and return what came of it.

    ``python``: the interpreter of its environment, empty for our own.
    Raises ``InvalidRequest`` for a record that lacks what an answer needs."""
    process = await replay_process.ReplayProcess.start(
        python=python, debugger=options.debugger, effects=options.effects, quiet=options.quiet
    )
    run = _Replay(record, process, listener, options)
    try:
        async with asyncio.timeout(options.limit_s):
            return await run.converse(await _start(record, flows))
    except TimeoutError:
        return run.late()
    finally:
        await process.close(_LEAVE_S if run.ended else 0)


async def _start(record: Exported, flows: Path) -> bytes:
    script = record.state.script
    return protocol.start(
        protocol.Start(
            execution=msgspec.Raw(await views.start(record, record.state)),
            path=record.state.path,
            snapshot=str(flows),
            script=msgspec.UNSET if script is None else await record.shown(script),
            webhook=record.state.webhook,
            replayed=record.history.last,
            system={
                "user": record.state.created_by,
                "workspace": record.header.workspace,
                "environment": record.header.environment,
            },
        )
    )


class _Replay:
    """The replay under way."""

    def __init__(
        self, record: Exported, process: replay_process.ReplayProcess, listener: Listener, options: Options
    ) -> None:
        self.ended = False
        self._record = record
        self._history = record.history
        self._process = process
        self._listener = listener
        self._options = options
        self._outcome = Outcome(Verdict.SAME, masked=int(isinstance(record.state.inputs, model.Sealed)))
        self._decided = False
        self._deaf = 0
        self._cancelled = False

    async def converse(self, start: bytes) -> Outcome:
        """Answer the handler until it has ended, or will not be told that this is the end."""
        self._process.send(frames.pack(start))
        while self._deaf < _DEAF_MAX:
            try:
                said = protocol.decode(await self._process.receive())
            except (EOFError, errors.InvalidRequest) as error:
                self._decide(Verdict.DIVERGED, f"its process did not live to the end: {error}")
                break
            match said:
                case protocol.Output():
                    self._listener.printed(said)
                case protocol.Effect():
                    self._notice(said)
                case protocol.Settle():
                    self._tell_cancel()
                    self._process.send(protocol.settled())
                case protocol.Log():
                    await self._take_log(said)
                case protocol.Call():
                    self._process.send(await self._answer(said))
                    self._outcome.calls = max(self._outcome.calls, said.call)
                case protocol.Ended():
                    self.ended = True
                    await self._compare_ends(said)
                    break
        return self._outcome

    def late(self) -> Outcome:
        """It took too long."""
        self._decide(Verdict.LATE, f"not at its end after {self._options.limit_s:g} s")
        return self._outcome

    # -- what it says -----------------------------------------------------------------------------------------------

    async def _answer(self, call: protocol.Call) -> bytes:
        """Return the frame that answers a call."""
        if self._decided:
            self._deaf += 1
            return self._refusal(call)
        entry = self._history.find(call.call)
        cancelled = self._record.state.cancel_requested
        if entry is None and cancelled:  # a call that was refused so has no line of its own
            return protocol.refusal(call.call, "ExecutionCancel", "the execution was cancelled")
        if entry is None and call.call > self._history.last and not self._record.own_end:
            self._go_further(f"{_said(call)} was never reached: {self._why_cut_off()}")
            return self._refusal(call)
        if entry is None or not entry.is_like(call.kind[:100], call.target[:1024]):
            self._diverge(self._between(call.call, entry, call.kind, call.target, call.where))
            return self._refusal(call)
        if not entry.ended:
            self._go_further(f"{_said(call)} had no answer yet: {self._why_cut_off()}")
            return self._refusal(call)
        self._note(call.call, call.kind, call.target, call.where, await likeness.of_call(self._record.given, call))
        return self._refusal(call) if self._decided else await self._recalled(call, entry)

    async def _recalled(self, call: protocol.Call, entry: history.Entry) -> bytes:
        self._tell_cancel_after(call.call)
        if isinstance(entry.result, model.Sealed):
            self._outcome.masked += 1
        try:
            if entry.failure is not None:
                return await recall.refusal(call.call, entry.failure, self._record, self._record.load)
            return protocol.answer(call.call, await recall.result(entry, self._record, self._record.load))
        except errors.NotFound as error:
            raise errors.InvalidRequest(f"call {call.call} cannot be answered: it told of {error.message}") from error

    def _refusal(self, call: protocol.Call) -> bytes:
        if self._outcome.verdict is Verdict.DIVERGED:
            return protocol.refusal(call.call, "ReplayDivergedError", self._outcome.text)
        return protocol.refusal(call.call, "EndOfRecord", self._outcome.text)

    async def _take_log(self, said: protocol.Log) -> None:
        self._listener.logged(said)
        if not said.call:
            return
        if self._decided:
            self._deaf += 1
            return
        entry = self._history.find(said.call)
        if entry is not None and entry.kind == history.LOG:
            self._note(said.call, history.LOG, "", "", await likeness.of_log(self._record.given, said))
        elif said.call > self._history.last and not self._record.own_end:
            pass  # nobody answers a line: the next call tells that this is further than the record
        elif not self._record.state.cancel_requested:
            args = values.decode(said.args)
            target = args[0] if args and isinstance(args[0], str) else ""
            self._diverge(self._between(said.call, entry, history.LOG, target))
        self._outcome.calls = max(self._outcome.calls, said.call)

    def _notice(self, said: protocol.Effect) -> None:
        if said.event != "import" and not self._options.effects:
            place = f"{said.file}:{said.line}" if said.file else "a place that is not in a flow"
            what = f"{said.event} {said.detail}".strip()
            self._outcome.effect = said
            self._decide(Verdict.REFUSED, f"{what} at {place}: a replay touches nothing (--allow-effects lets it)")
        self._process.send(protocol.noticed())

    # -- cancelling -------------------------------------------------------------------------------------------------

    def _tell_cancel_after(self, call: int) -> None:
        self._outcome.calls = max(self._outcome.calls, call)
        self._tell_cancel()

    def _tell_cancel(self) -> None:
        """Let a handler that only logs meet its cancel: where the record has nothing more of it, or a gap."""
        asked = self._record.state.cancel_requested and not self._cancelled
        if asked and self._history.find(self._outcome.calls + 1) is None:
            self._cancelled = True
            self._process.send(protocol.cancelled(self._record.state.id))

    # -- how it ended -----------------------------------------------------------------------------------------------

    async def _compare_ends(self, ended: protocol.Ended) -> None:
        if ended.failure is not None and ended.failure.type == "BdbQuit":
            self._decided = False
            self._outcome.divergence = None
            self._decide(Verdict.LEFT, "left the debugger before the end")
            return
        if self._decided:
            return
        missing = self._history.next_after(self._outcome.calls)
        attempted = failures.left(ended)
        if missing is not None:
            self._diverge(history.divergence(missing.number, missing, *attempted))
            return
        if not self._record.own_end or self._record.end is None:
            self._go_further(f"the handler came to its end; {self._why_cut_off()}")
            return
        recorded = _recorded_end(self._record.end)
        differs = await self._ends_differ(ended, self._record.end)
        if differs is not None:
            kind, target, where = attempted
            self._diverge(
                events.Divergence(
                    call=self._history.last + 1,
                    recorded_kind=recorded[0],
                    recorded_target=differs[0] or recorded[1],
                    recorded_where=recorded[2],
                    attempted_kind="cancelled" if ended.outcome == "cancelled" else kind,
                    attempted_target=differs[1] or target,
                    attempted_where=where,
                )
            )
            return
        self._decide(Verdict.SAME, f"{self._record.end.status}{f': {recorded[1]}' if recorded[1] else ''}")

    async def _ends_differ(self, ended: protocol.Ended, end: events.ExecutionEnded) -> tuple[str, str] | None:
        """Return both sides of two ends that differ, None for equal ones."""
        status = _status(ended)
        if status != end.status:
            return "", ""
        if status is Status.ENDED_CANCELLED:
            return None
        failure = end.failure
        if (failure is None) != (ended.failure is None):
            return "", ""
        if failure is not None and ended.failure is not None:
            message = values.shortened(ended.failure.message, values.TEXT_CHARACTERS_MAX)
            same = failure.type == ended.failure.type and likeness.like(failure.message, message)
            return None if same else (failure.message, message)
        message = values.shortened(ended.message, values.TEXT_CHARACTERS_MAX)
        if ended.message and not likeness.like(end.message, message):
            return end.message, message
        return await self._outputs_differ(ended, end)

    async def _outputs_differ(self, ended: protocol.Ended, end: events.ExecutionEnded) -> tuple[str, str] | None:
        """Compare what was returned, which is the output of an execution that set none."""
        set_before = any(
            event.output is not msgspec.UNSET or event.output_blob or event.output_keys or event.output_key_blobs
            for event in self._record.lines
            if isinstance(event, events.ExecutionSaved)
        )
        if set_before:
            return None
        recorded: Any = None
        if end.output is not msgspec.UNSET or end.output_blob is not None:
            recorded = values.decode(await self._record.shown(model.value(end.output, end.output_blob)))
        attempted = None if ended.returned is msgspec.UNSET else values.decode(ended.returned)
        if likeness.like(recorded, attempted):
            return None
        return likeness.shown(recorded), likeness.shown(attempted)

    def _why_cut_off(self) -> str:
        """Say why the record ends where it does."""
        end = self._record.end
        if end is None:
            return "the execution had not ended when it was exported"
        return f"the record ends there ({end.reason or end.message or 'cut off'})"

    # -- the verdict ------------------------------------------------------------------------------------------------

    def _note(self, call: int, kind: str, target: str, where: str, found: likeness.Difference) -> None:
        if found is None:
            return
        recorded, attempted = map(likeness.shown, found)
        self._outcome.notes.append(Note(call, kind, target, where, recorded, attempted))
        if self._options.strict:
            entry = self._history.find(call)
            self._diverge(history.divergence(call, entry, kind, target, where, given=(recorded, attempted)))

    def _between(
        self, number: int, entry: history.Entry | None, kind: str, target: str, where: str = ""
    ) -> events.Divergence:
        """Return the divergence at a call; behind the last one stands how the execution ended."""
        found = history.divergence(number, entry, kind, target, where)
        if entry is not None or self._record.end is None or number <= self._history.last:
            return found
        ended = _recorded_end(self._record.end)
        return msgspec.structs.replace(found, recorded_kind=ended[0], recorded_target=ended[1], recorded_where=ended[2])

    def _diverge(self, found: events.Divergence) -> None:
        if not self._decided:
            self._outcome.divergence = found
        self._decide(Verdict.DIVERGED, failures.told(found))

    def _go_further(self, text: str) -> None:
        self._decide(Verdict.FURTHER, text)

    def _decide(self, verdict: Verdict, text: str) -> None:
        """What is found first is the outcome."""
        if not self._decided:
            self._decided = True
            self._outcome.verdict, self._outcome.text = verdict, text


def _status(ended: protocol.Ended) -> Status:
    """Return how an execution ends whose handler ended so."""
    if ended.met_cancel or ended.outcome == "cancelled":
        return Status.ENDED_CANCELLED
    return Status.ENDED_ERROR if ended.failure is not None or ended.outcome == "error" else Status.ENDED_SUCCESS


def _recorded_end(end: events.ExecutionEnded) -> tuple[str, str, str]:
    """Return a recorded end as the side of a divergence."""
    if end.status == Status.ENDED_CANCELLED:
        return CANCELLED, "", ""
    if end.failure is not None:
        place = f"{end.failure.file}:{end.failure.line}" if end.failure.file else ""
        return "raise", end.failure.message, place
    return "return", end.message, ""


def _said(call: protocol.Call) -> str:
    target = f" {call.target!r}" if call.target else ""
    return f"call {call.call}, {call.kind}{target} ({call.where}),"
