"""A daemon inside of a test: the real one, in a thread of this process, on a state directory that goes with it.

Nothing is imitated but what a flow asks the world to do: tasks are played by ``stand_ins``. Flows run in processes of
their own, are recorded and replayed, children, settings, files, messages and locks are the engine's. Nobody else finds
it: its state is a new directory, and its port is any that is free. Called by ``plugin``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from ...engine import errors
from .. import app, config, service_manager, stage
from ..client import ENDED, JSON, Client
from . import stand_ins

#: How long a daemon may take to publish the flows it is given.
_START_S = 60.0
_STOP_S = 60.0
_LOOK_S = 0.1  # how often somebody looks whether there is something to answer
_LOG_SHOWN_MAX = 20


class FlowFailed(AssertionError):
    """A flow did not end as the test says it does."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Ended:
    """An execution that has ended. ``raw`` is all that the API tells of it, ``log`` the lines of its log."""

    raw: JSON
    log: tuple[str, ...]
    _client: Client

    def __repr__(self) -> str:
        return f"<{self.name} {self.status}: {self.message}>"

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.raw["id"])

    @property
    def name(self) -> str:
        """Its name: that of its flow or task, unless it was given one."""
        return str(self.raw["name"])

    @property
    def type(self) -> str:
        """FLOW, SCRIPT or TASK."""
        return str(self.raw["type"])

    @property
    def status(self) -> str:
        """ENDED_SUCCESS, ENDED_ERROR or ENDED_CANCELLED."""
        return str(self.raw["status"])

    @property
    def message(self) -> str:
        """What it said last, or why it failed."""
        return str(self.raw["message"])

    @property
    def inputs(self) -> JSON:
        """What it was given, as people see it: secrets are masked."""
        found: JSON = self.raw["input_value"]
        return found

    @property
    def output(self) -> Any:
        """What it returned or set, as people see it."""
        return self.raw["output_value"]

    @property
    def children(self) -> list[Ended]:
        """The flows and tasks it started, in that order."""
        found = self._client.all_executions(limit=1000, parent=self.id)
        return [_told(self._client, one) for one in found[::-1]]


class Rehearsal:
    """One daemon on the flows below ``flows``. ``start`` before anything else; ``stop`` leaves nothing behind."""

    def __init__(self, flows: Path) -> None:
        self.flows = flows
        self.tasks = stand_ins.StandIns()
        # Not below pytest's own directories: the path of a unix socket may have 107 characters.
        self._state = Path(tempfile.mkdtemp(prefix="headrace-test-"))
        self._thread = threading.Thread(target=self._live, name="headrace", daemon=True)
        self._greeted = threading.Event()
        self._died: BaseException | None = None
        self._tell: Callable[[], None] = lambda: None

    @property
    def client(self) -> Client:
        """A client of it, for everything that has no shorter form here."""
        return Client.find(state=str(self._state), environ={})

    def start(self) -> None:
        """Start it; on return the flows are published, or marked broken."""
        if not structlog.is_configured():  # what the daemon logs is no output of a test
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self._thread.start()
        if not self._greeted.wait(_START_S) or self._died is not None:
            raise RuntimeError(f"no daemon on {self.flows}: {self._died or 'it did not start'}") from self._died
        gc.unfreeze()  # a daemon freezes what it read at its start; here that would keep every test's garbage
        state = self.client.sync(_START_S)
        if not state["commit"]:
            raise RuntimeError(f"the flows in {self.flows} cannot be published: {state['error']}")

    def stop(self) -> None:
        """Stop it, with everything it runs, and remove its state."""
        self._tell()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        shutil.rmtree(self._state, ignore_errors=True)

    def _live(self) -> None:
        given = {
            "source.url": str(self.flows),
            "source.write_back": False,  # a test must not write into the folder it tests
            "state.directory": str(self._state),
            "listen.address": "127.0.0.1:0",
            "run.stop_grace": "0s",
            "run.cancel_grace": "1s",
            "identity.environment": "test",
        }

        async def main() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._tell = lambda: _call_in(loop, stop.set)
            on = stage.Stage(stop, lambda *_: self._greeted.set(), self.tasks.over, ticks=False)
            await app.serve(config.load(given, {}, {}), service_manager.ServiceManager({}), on)

        try:
            asyncio.run(main())
        except (errors.HeadraceError, OSError, BaseExceptionGroup) as error:
            self._died = error
        finally:
            self._greeted.set()

    # -- what tests do ----------------------------------------------------------------------------------------------

    def start_flow(self, flow: str, inputs: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        """Have a flow run, and return its execution's id at once. Keywords become inputs."""
        return str(self.client.run(flow, {**(inputs or {}), **more})["id"])

    def run_flow(
        self,
        flow: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        answers: Sequence[Mapping[str, Any]] = (),
        fails: bool = False,
        timeout_s: float = 30.0,
        **more: Any,
    ) -> Ended:
        """Run a flow to its end. ``answers`` are given to what it and its children ask, in that order.

        Raises ``FlowFailed`` if it does not succeed (with ``fails``: if it does not fail), is not at its end within
        ``timeout_s``, or asked for a task that nobody plays, even where it catches what comes of that."""
        __tracebackhide__ = True
        id_ = self.start_flow(flow, inputs, **more)
        ended = self.wait(id_, answers=answers, timeout_s=timeout_s)
        if unplayed := [text for task, text in self.tasks.unplayed.items() if self._is_below(task, id_)]:
            raise FlowFailed("\n".join([*unplayed, *_tail(ended)]))
        if ended.status != ("ENDED_ERROR" if fails else "ENDED_SUCCESS"):
            raise FlowFailed(_account(ended))
        return ended

    def wait(self, execution: str, /, *, answers: Sequence[Mapping[str, Any]] = (), timeout_s: float = 30.0) -> Ended:
        """Return the execution when it has ended, however that is; raises ``FlowFailed`` after ``timeout_s``."""
        __tracebackhide__ = True
        until, left = time.monotonic() + timeout_s, list(answers)
        while True:
            found = self.client.execution(execution, wait_s=_LOOK_S if left else min(5.0, timeout_s))
            if found["status"] in ENDED:
                return _told(self.client, found)
            asked = self.client.messages(pending=True)
            if left and asked:
                self.client.answer(asked[-1]["id"], dict(left.pop(0)))
            elif time.monotonic() > until:
                raise FlowFailed(_stuck(found, asked, timeout_s))

    def _is_below(self, execution: str, top: str) -> bool:
        """Whether it was started by ``top``, or by what that started: what a flow is followed by is not its own."""
        while execution and execution != top:
            execution = self.client.execution(execution)["parent_execution_id"] or ""
        return bool(execution)

    def setting(self, name: str, /) -> Any:
        """Return the value of a setting, as flows would read it now."""
        return self.client.kept_one("settings", name)["value"]

    def set_setting(self, name: str, value: Any, /) -> None:
        """Give a setting a value, over what the repository declares."""
        self.client.keep("settings", name, {"value": value})

    def file(self, path: str, /) -> bytes:
        """Return the content of a file that flows keep."""
        return self.client.file(path)

    def save_file(self, path: str, content: bytes, /) -> None:
        """Give a file that flows keep its content."""
        self.client.save_file(path, content)


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed: it has stopped by itself
        loop.call_soon_threadsafe(call)


def _told(client: Client, execution: JSON) -> Ended:
    lines = tuple(str(line["text"]).rstrip("\n") for line in client.log(execution["id"]))
    return Ended(execution, lines, client)


def _account(ended: Ended) -> str:
    """Say how an execution ended that should not have ended so."""
    error = ended.raw["error"] or {}
    trace = (error.get("traceback") or "").rstrip("\n")
    return "\n".join([f"{ended.name} {ended.status}: {ended.message}", *([trace] if trace else []), *_tail(ended)])


def _tail(ended: Ended) -> list[str]:
    return ["its log:", *(f"  {line}" for line in ended.log[-_LOG_SHOWN_MAX:])] if ended.log else []


def _stuck(execution: JSON, asked: list[JSON], timeout_s: float) -> str:
    waits = [f"call {one['call']}, {one['kind']} {one['target']}".rstrip() for one in execution["waiting_for"]]
    said = [f"{execution['name']} is still {execution['status']} after {timeout_s:g} s"]
    said += [f"it waits for: {', '.join(waits)}"] if waits else []
    said += [f"nobody answers {one['subject']!r}: give answers=[…]" for one in asked]
    return "\n".join(said)
