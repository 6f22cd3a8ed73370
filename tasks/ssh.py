"""SSH: run a script on another machine and return what it said.

The script goes to the machine over the encrypted channel, never in an argument, and ends with the task: see
``ssh_script``. Nothing is repeated once the script may have begun.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, retry, sftp_files, ssh_connection, ssh_script

if TYPE_CHECKING:
    import asyncssh

TASK = "SSH"
#: What a script may write; more ends it.
REPORT_BYTES_MAX = 32 * 1024 * 1024
#: What its variables may hold together.
VARIABLES_BYTES_MAX = 1024 * 1024
#: How much of the report a failure keeps, from its end.
_FAILURE_CHARACTERS = 1024 * 1024
#: How long a machine may take to say that the script was killed.
_KILLED_S = 5.0
#: How long output may lag behind the exit status: what the script left running in the background holds it open.
_LAG_S = 1.0
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class Copied(msgspec.Struct, forbid_unknown_fields=True):
    """A file to copy before or after the script."""

    src: str
    dst: str


class SshInputs(host.LoginInputs, kw_only=True):
    """The inputs of SSH."""

    script: Annotated[
        str, host.about("What to run. A line #OUTPUT_VAR(NAME) of a shell script adds the variable to 'var'.")
    ]
    key: ssh_connection.Key = None
    hostkey: ssh_connection.HostKey = None
    interpreter: Annotated[
        str, host.about("The command that runs the script, a file. Default: /usr/bin/env bash -e.")
    ] = "/usr/bin/env bash -e"
    connect_tries: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="How often it is tried to connect. Default: 3.")
    ] = 3
    connect_timeout: Annotated[float, msgspec.Meta(gt=0, description="Seconds to connect and log in. Default: 60.")] = (
        60.0
    )
    script_timeout: Annotated[
        float, msgspec.Meta(gt=0, description="Seconds the script may take; then it is killed. Default: 60.")
    ] = 60.0
    use_shell: Annotated[
        bool,
        host.about("Send the script line by line to the login shell, for machines without sh and temporary files, "
        "such as network devices. Default: false."),
    ] = False  # fmt: skip
    temp_path: Annotated[
        str | None, host.about("The folder on the machine for the script. Default: $TMPDIR or /tmp.")
    ] = None
    remove_cr: Annotated[bool, host.about("Take carriage returns out of the report. Default: false.")] = False
    remove_ansi_escapes: Annotated[
        bool, host.about("Take colours and other escape sequences out of the report. Default: false.")
    ] = False
    output_vars: Annotated[
        list[str] | None, host.about("Names of shell variables to return, as #OUTPUT_VAR lines do.")
    ] = None
    copy_files: Annotated[
        list[Copied] | None,
        host.about("Files to copy before the script: [{src: headrace:<path>, dst: path on the machine}]."),
    ] = None
    output_files: Annotated[
        list[Copied] | None,
        host.about("Files to copy after a script that succeeded: [{src: path on the machine, dst: headrace:<path>}]."),
    ] = None
    encoding: Annotated[str, host.about("The character set of script and report. Default: utf-8.")] = "utf-8"


class SshOutput(msgspec.Struct, kw_only=True):
    """The output of SSH."""

    retcode: int | None
    report: str
    var: dict[str, str | None]


def _check(inputs: SshInputs) -> None:
    ssh_connection.check(TASK, inputs)
    try:
        codecs.lookup(inputs.encoding)
        inputs.script.encode(inputs.encoding)
    except LookupError:
        raise definitions.invalid(TASK, "encoding", "expected the name of a character set, such as utf-8") from None
    except UnicodeError:
        raise definitions.invalid(TASK, "script", "it has characters that 'encoding' does not have") from None
    try:
        shell = ssh_script.is_shell(inputs.interpreter)
    except ValueError:
        raise definitions.invalid(TASK, "interpreter", "its quotes do not match") from None
    if not inputs.interpreter.strip():
        raise definitions.invalid(TASK, "interpreter", "expected a command")
    for name in inputs.output_vars or ():
        if not ssh_script.NAME.fullmatch(name):
            raise definitions.invalid(TASK, "output_vars", "expected names of shell variables")
    names = ssh_script.variables(inputs.script, inputs.output_vars or [])
    if names and (inputs.use_shell or not shell):
        raise definitions.invalid(
            TASK, "output_vars", "output variables are for scripts that a shell runs from a file, not with 'use_shell'"
        )
    for which, side in (("copy_files", "src"), ("output_files", "dst")):
        for one in getattr(inputs, which) or ():
            if not sftp_files.is_named(getattr(one, side)):
                raise definitions.invalid(TASK, which, f"expected headrace:<path> as '{side}'")


class _Channel:
    """What asyncssh calls while the script runs (an ``SSHClientSession``): collects what comes, up to the bounds."""

    def __init__(self) -> None:
        self.report = bytearray()
        self.aside = bytearray()
        self.status: int | None = None
        self.signal = ""
        self.too_much = False
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()
        self._channel: Any = None

    def connection_made(self, channel: Any) -> None:
        self._channel = channel

    def session_started(self) -> None:
        """The command was accepted."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        kept = self.report if datatype is None else self.aside
        kept += data
        if len(kept) > (REPORT_BYTES_MAX if datatype is None else VARIABLES_BYTES_MAX):
            self.too_much = True
            self._channel.pause_reading()
            self.ended.set()

    def eof_received(self) -> bool:
        return True  # our side stays open: its end is the sign to kill the script

    def exit_status_received(self, status: int) -> None:
        self.status = status
        self.ended.set()

    def exit_signal_received(self, signal: str, *_: Any) -> None:
        self.signal = signal
        self.ended.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()
        self.closed.set()

    def pause_writing(self) -> None:
        """A script waits in memory for the machine to read it."""

    def resume_writing(self) -> None:
        """It does."""


class Run:
    """One script under way. ``command`` says for its size what starts it, on machines without sh: it says all there."""

    def __init__(
        self,
        settings: definitions.Settings,
        inputs: SshInputs,
        context: ports.TaskContext,
        command: Callable[[int], str] | None = None,
    ) -> None:
        self._settings, self._inputs, self._context, self._command = settings, inputs, context, command
        #: Whether standard error is part of the report, and tells no variables.
        self._all_reported = inputs.use_shell or command is not None
        self._names = [] if command else ssh_script.variables(inputs.script, inputs.output_vars or [])

    async def attempt(self) -> SshOutput:
        """Connect, copy, run, copy; raises ``host.Failed``, passing only before the script may have begun."""
        async with contextlib.AsyncExitStack() as stack:
            connection = await self._connected(stack)
            try:
                for one in self._inputs.copy_files or ():
                    await sftp_files.copied(connection, one.src, one.dst, self._context)
                output = await self._executed(connection)
                for one in self._inputs.output_files or ():
                    await sftp_files.copied(connection, one.src, one.dst, self._context)
            except host.Failed as failed:
                raise host.Failed(failed.words, output=failed.output) from None
            return output

    async def _connected(self, stack: contextlib.AsyncExitStack) -> asyncssh.SSHClientConnection:
        pacing, backoff = self._settings.pacing, retry.Backoff()
        for failures in range(1, self._inputs.connect_tries + 1):
            try:
                return await stack.enter_async_context(_opened(self._inputs, self._settings))
            except host.Failed as failed:
                if not failed.passing or failures == self._inputs.connect_tries:
                    raise
                pause = backoff.ceiling(failures) * pacing.random()
                self._context.log("WARNING", f"cannot connect, next try in {pause:.1f} s: {failed.words}")
            await pacing.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _executed(self, connection: asyncssh.SSHClientConnection) -> SshOutput:
        inputs = self._inputs
        text = inputs.script if inputs.use_shell else ssh_script.with_output(inputs.script, self._names)
        data = text.encode(inputs.encoding)
        command = None
        if self._command is not None:
            command = self._command(len(data))
        elif not inputs.use_shell:
            command = ssh_script.command(inputs.interpreter, inputs.temp_path, len(data), self._context.traceparent)
        session = _Channel()
        factory: Any = lambda: session  # noqa: E731 - it has every method of an SSHClientSession
        channel, _ = await connection.create_session(factory, command, encoding=None)
        try:
            channel.write(data)
            if inputs.use_shell:
                channel.write(b"\n")
                channel.write_eof()
            try:
                async with asyncio.timeout(inputs.script_timeout):
                    await session.ended.wait()
            except TimeoutError:
                raise self._failed(session, f"the script did not end within {inputs.script_timeout:g} s") from None
            return await self._finished(session)
        finally:
            await asyncio.shield(asyncio.create_task(_ended(channel, session), name="an SSH script is being ended"))

    async def _finished(self, session: _Channel) -> SshOutput:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if session.too_much else _LAG_S):
                await session.closed.wait()
        if session.too_much:
            limits = f"{REPORT_BYTES_MAX >> 20} MiB, and {VARIABLES_BYTES_MAX >> 20} MiB of variables"
            raise self._failed(session, f"the script wrote more than {limits}: it was killed; let it write to a file")
        if session.aside[:1] == ssh_script.NOT_PLACED and not self._all_reported:
            raise self._failed(session, f"cannot put the script there: {host.quoted(self._report(session))}")
        if session.signal:
            raise self._failed(session, f"the script was killed by signal {session.signal}")
        if session.status is None and not self._inputs.use_shell:
            raise self._failed(session, "the connection broke before the script ended; it is killed then")
        if session.status:
            last = self._report(session).rstrip().rpartition("\n")[2]
            said = f": {host.quoted(last)}" if last else ", without a word"
            raise self._failed(session, f"the script ended with {session.status}{said}")
        return self._output(session)

    def _failed(self, session: _Channel, words: str) -> host.Failed:
        output = self._output(session)
        output.report = output.report[-_FAILURE_CHARACTERS:]
        return host.Failed(words, output=output)

    def _output(self, session: _Channel) -> SshOutput:
        if self._all_reported:
            return SshOutput(retcode=session.status, report=self._report(session), var={})
        var = ssh_script.told(bytes(session.aside[:VARIABLES_BYTES_MAX]), self._names, self._inputs.encoding)
        return SshOutput(retcode=session.status, report=self._report(session), var=var)

    def _report(self, session: _Channel) -> str:
        data = bytes(session.report[:REPORT_BYTES_MAX])
        if self._all_reported:
            data += bytes(session.aside[:VARIABLES_BYTES_MAX])
        text = data.decode(self._inputs.encoding, "replace")
        if self._inputs.remove_ansi_escapes:
            text = _ESCAPES.sub("", text)
        return text.replace("\r", "") if self._inputs.remove_cr else text


def _opened(
    inputs: SshInputs, settings: definitions.Settings
) -> contextlib.AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    return ssh_connection.opened(TASK, inputs, settings.egress)


async def _ended(channel: Any, session: _Channel) -> None:
    """End the channel, and with it a script that still runs; wait for the machine to say so, for some seconds."""
    if not session.closed.is_set():
        running = session.status is None and not session.signal
        with contextlib.suppress(OSError):
            channel.write_eof()
        if running and not session.too_much:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILLED_S):
                    await session.ended.wait()
        channel.abort()


async def _run(settings: definitions.Settings, inputs: SshInputs, context: ports.TaskContext) -> SshOutput:
    attempt = Run(settings, inputs, context).attempt
    shown = ssh_connection.shown(TASK, inputs)
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False, secret=("key",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SshInputs]:
    """Return the task type SSH."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Run a script on another machine",
        description="Runs a script over SSH and fails when it ends with another status than 0. The script, and what it "
        "started, ends with the task.",
        inputs=SshInputs,
        output=SshOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda _: False,
        check=_check,
        input_aliases=host.ALIASES,
    )
