"""What only the running execution does: say things, wait, ask people, mark its outcome, keep others out."""

from __future__ import annotations

import datetime
import json as json_text
import types
from collections.abc import Callable
from typing import Any, NoReturn, Self

from . import exceptions, files, handles, messages

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SIMPLE = (str, int, bool, types.NoneType)


class Outcome:
    """What a handler marked as its outcome; the last mark counts."""

    __slots__ = ("marked", "message")

    def __init__(self) -> None:
        self.marked: str | None = None
        self.message: str | None = None

    def mark(self, outcome: str, message: object) -> None:
        """Remember ``outcome`` (success or error) and what to tell people."""
        self.marked = outcome
        self.message = None if message is None else str(message)


class Running(handles.Handle):
    """The calls of ``this`` that concern itself."""

    __slots__ = ("_outcome",)

    _outcome: Outcome | None  # of ``this`` only

    def log(self, *args: Any, level: str = "INFO", **labels: Any) -> Self:
        """Record values in order, and keywords as labels: anything JSON can hold, else its ``str()``.

        ``level`` is ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL``. What is printed, and Python's
        ``logging``, is recorded too.

        Example:
            this.log('copied', 3, 'files', took_s=1.5)
            this.log('the disk is nearly full', level='WARNING')
        """
        name = str(level).upper()
        if name not in _LEVELS:
            raise exceptions.InvalidInputError(f"level is {level!r}; it may be one of {', '.join(_LEVELS)}")
        self._channel.log(name, [_loggable(value) for value in args], {k: _loggable(v) for k, v in labels.items()})
        return self

    logln = log

    def sleep(self, seconds: float) -> Self:
        """Wait for so many seconds.

        Example:
            this.sleep(0.1)
        """
        self._ask("sleep", seconds=handles.ask_number("sleep", seconds))
        return self

    def sleep_until(self, moment: float | datetime.datetime) -> Self:
        """Wait until a moment: seconds since the epoch, or a datetime (local time if it has no zone).

        Example:
            import datetime
            this.sleep_until(this.now() + datetime.timedelta(seconds=0.1))
        """
        if isinstance(moment, datetime.datetime):
            moment = moment.timestamp()
        if isinstance(moment, bool) or not isinstance(moment, (int, float)):
            raise exceptions.InvalidInputError(f"sleep_until takes a datetime or seconds since 1970, not {moment!r}")
        self._ask("sleep", until=float(moment))
        return self

    def message(
        self,
        subject: str,
        message: str | None = None,
        *,
        request: str | None = None,
        body: dict[str, Any] | None = None,
        message_type: str = "INFO",
        wait: bool = True,
        timeout: float | None = None,
    ) -> messages.Message:
        """Ask a person, wait for the answer, and return the message.

        ``message`` is text (Markdown) with an OK button, ``request`` a question whose answer is
        ``response['string']``, ``body`` a form: a JSON Schema object whose properties have an ``element``.
        ``message_type`` is ``INFO``, ``SUCCESS``, ``WARNING``, ``ERROR`` or ``POPUP``. ``wait=False`` does not wait.

        Raises ``MessageResponseTimeoutError`` if nobody answers within ``timeout`` seconds.

        Example:
            question = this.message('Deploy', request='Which version?', wait=False)
            this.log(question.get('subject'))
        """
        shown = {"message": message, "request": request, "body": body}
        return messages.create(self._channel, subject, message_type, shown, wait, timeout)

    def success(self, message: object = None) -> None:
        """Mark the outcome as a success; ``message`` is what people see.

        A mark ends nothing: it counts when the handler returns, and the last one wins. An exception that leaves the
        handler wins over it.

        Example:
            return this.success('all done')
        """
        self._marks().mark("success", message)

    def error(self, message: object = None) -> None:
        """Mark the outcome as an error; ``message`` is what people see. As ``success``.

        Example:
            if inputs.get('percent_free', 50) < 5:
                return this.error('the disk is full')
        """
        self._marks().mark("error", message)

    def step(self, name: str, action: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do something outside of this process: call ``action``, record its result and return it.

        This is the way to have an effect and stay repeatable. When the handler is run again, a step that is recorded
        gives back its recorded result and ``action`` is not called: never again. A step that was cut
        off midway, or raised, is not recorded and runs again: at least once. The result must be something JSON can
        hold, and comes back as JSON does: a tuple as a list.

        Raises ``InternalError`` for a call of ``this`` or ``system`` inside of a step, another step included; only
        ``this.log`` works there.

        Example:
            import platform
            host = this.step('host name', platform.node)
        """
        with self._channel.stepping(name):
            # The record has the result when this is replayed: what is sent then is not looked at.
            result = None if self._channel.replays else action(*args, **kwargs)
        return self._ask("step", name, result=result)

    def now(self) -> datetime.datetime:
        """Return the time, in UTC; recorded, hence the same when the handler is run again.

        Example:
            this.log(this.now().isoformat())
        """
        return datetime.datetime.fromtimestamp(self._ask("now"), datetime.UTC)

    def uuid(self) -> str:
        """Return a fresh UUID; recorded, hence the same when the handler is run again.

        Example:
            this.set_output('order', this.uuid())
        """
        return str(self._ask("uuid"))

    def random(self) -> float:
        """Return a random number from 0 to 1, without 1; recorded, hence the same when the handler is run again.

        Example:
            this.sleep(this.random() / 10)
        """
        return float(self._ask("random"))

    def continue_as_new(self, inputs: dict[str, Any] | None = None, /, **more_inputs: Any) -> NoReturn:
        """Leave the handler and run it from its beginning, with these inputs, as the same execution.

        For loops that never end: everything a handler does is kept so that it can be replayed after a crash, and a
        history can become too long for that (``HistoryFull``). Without inputs those it has now are used again. Its
        ``finally`` blocks are run; its output and its locks are gone, its children go on.

        Example:
            rounds = this.get('input_value').get('rounds', 0)
            if rounds < 3:
                this.continue_as_new(rounds=rounds + 1)
        """
        given = {**(inputs or {}), **more_inputs}
        self._ask("continue_as_new", inputs=given if inputs is not None or given else self.get("input_value"))
        raise exceptions.ContinueAsNew("the execution begins anew")

    def lock(self, name: str, timeout: float | None = None) -> Locked:
        """Do something while no other execution does: ``with this.lock(name):``.

        The lock is taken when the block begins and released when the block or the execution ends, however it ends.

        Raises ``LockTimeoutError`` if it is not free within ``timeout`` seconds (default: wait for ever),
        ``DeadlockError`` if waiting would never end.

        Example:
            with this.lock('the printer', timeout=60):
                this.log('printing')
        """
        return Locked(self, name, handles.ask_number("timeout", timeout, optional=True))

    def webhook_html_response(self, html: str) -> None:
        """Show a page to the caller of the webhook that started this execution, and mark it as a success.

        Example:
            return this.webhook_html_response('<h1>Thank you</h1>')
        """
        self.webhook_response(headers={"content-type": "text/html; charset=utf-8"}, body=html)
        self.success()

    def webhook_response(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: str | bytes | None = None,
        json: Any = None,
    ) -> None:
        """Answer the caller of the webhook that started this execution, once it has ended.

        ``json`` is any JSON value, sent as such.

        Example:
            this.webhook_response(202, json={'accepted': True})
        """
        kept = dict(headers or {})
        if json is not None and body is not None:
            raise exceptions.InvalidInputError("give either body= or json=")
        if json is not None:
            body, default = _written(json), "application/json"
        else:
            body = "" if body is None else body
            default = "text/plain; charset=utf-8" if isinstance(body, str) else "application/octet-stream"
        if not isinstance(body, (str, bytes)):
            raise exceptions.InvalidInputError(f"the body of a response is text or bytes, not {type(body).__name__}")
        if body and not any(name.lower() == "content-type" for name in kept):
            kept["content-type"] = default
        binary = isinstance(body, bytes)
        text = files.to_base64(body) if isinstance(body, bytes) else body
        self._ask("webhook_response", status=status, headers=kept, body=text, binary=binary)

    def _marks(self) -> Outcome:
        if self._outcome is None:
            raise exceptions.PermissionDenied("only the running execution itself can mark its outcome")
        return self._outcome

    def _ask(self, kind: str, target: str = "", /, **args: Any) -> Any:
        """Ask the daemon and wait for the answer."""
        raise NotImplementedError


class Locked:
    """What ``this.lock(…)`` gives: a block during which the lock is held."""

    __slots__ = ("_execution", "_name", "_timeout")

    def __init__(self, execution: Running, name: str, timeout: float | None) -> None:
        self._execution = execution
        self._name = name
        self._timeout = timeout

    def __enter__(self) -> Locked:
        self._execution._ask("lock", self._name, timeout=self._timeout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._execution._ask("unlock", self._name)


def _loggable(value: Any) -> Any:
    """The value itself if JSON can hold it; else with ``str()`` of the parts it cannot, or of the whole."""
    if type(value) in _SIMPLE:
        return value
    try:
        json_text.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return _told(value)
    return value


def _told(value: Any) -> Any:
    try:
        return json_text.loads(json_text.dumps(value, allow_nan=False, default=str))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _written(value: Any) -> str:
    try:
        return json_text.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise exceptions.InvalidInputError(f"the answer cannot be written as JSON: {error}") from None
