"""PS: run PowerShell on another machine, over SSH or by WinRM, and return what it said.

Over SSH it goes the way of SSH (``ssh``), with another command that starts it; by WinRM through pypsrp (``ps_winrm``).
Nothing is repeated once the script may have begun. It was never tried with the real product, of which there is no
package: what is tested is what arrives at the machine, and what happens around it.
"""

from __future__ import annotations

import functools
import shlex
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, ps_script, ps_winrm, ssh, ssh_connection
from .definition import invalid, missing
from .host import about

TASK = "PS"
#: How much of the report a failure keeps, from its end.
_FAILURE_CHARACTERS = 1024 * 1024


class PsInputs(host.HostInputs, kw_only=True):
    """The inputs of PS."""

    task = TASK

    port: Annotated[host.Port | None, about("Default: 22 for ssh, 5986 for winrm, 5985 without use_tls.")] = None
    transport: Annotated[Literal["ssh", "winrm"], about("How the script gets there. Default: ssh.")] = "ssh"
    script: Annotated[str, about("What to run. An error ends it, as $ErrorActionPreference = 'Stop' says.")]
    key: Annotated[str | None, about("For ssh: the private key as text, without a passphrase: OpenSSH or PEM.")] = None
    hostkey: Annotated[
        str | None, about("For ssh: the server's host key, as in SSH. Default: what ~/.ssh/known_hosts says.")
    ] = None
    interpreter: Annotated[
        str, about("For ssh: the PowerShell; on Linux and macOS it is pwsh. Default: powershell.")
    ] = "powershell"
    authentication_method: Annotated[
        Literal["negotiate", "ntlm", "kerberos", "basic"],
        about("For winrm: how we log in; basic needs TLS. Default: negotiate."),
    ] = "negotiate"
    use_tls: Annotated[
        bool | None,
        about("For winrm: whether TLS is spoken and the certificate checked; without it the messages are encrypted "
        "by the way we log in. Default: true."),
    ] = None  # fmt: skip
    script_timeout: Annotated[
        float, msgspec.Meta(gt=0, description="Seconds the script may take; then it is stopped. Default: 60.")
    ] = 60.0

    @property
    def encrypted(self) -> bool:
        """Whether WinRM goes through TLS."""
        return self.use_tls is not False

    @property
    def where(self) -> int:
        """The port in force."""
        if self.transport == "ssh":
            return self.port or ssh_connection.PORT
        return self.port or (ps_winrm.TLS_PORT if self.encrypted else ps_winrm.PORT)


class PsOutput(msgspec.Struct, kw_only=True):
    """The output of PS."""

    retcode: int | None = None  #: with ssh
    report: str
    json: Any = None  #: the report, parsed, when it is JSON


def _check(inputs: PsInputs) -> None:
    if inputs.transport == "ssh":
        ssh_connection.check(TASK, inputs)
        for name in ("use_tls", "cacert", "client_cert", "client_key"):
            if getattr(inputs, name) is not None:
                raise invalid(TASK, name, "it is for 'winrm'")
        try:
            words = shlex.split(inputs.interpreter, posix=False)
        except ValueError:
            raise invalid(TASK, "interpreter", "its quotes do not match") from None
        if not words:
            raise invalid(TASK, "interpreter", "expected a command")
        return
    host.check(TASK, inputs)
    if inputs.username is None:
        raise missing(TASK, "username", "the user to log in as")
    if inputs.password is None:
        raise missing(TASK, "password", "the user's password")
    for name in ("key", "hostkey"):
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, "it is for 'ssh'")
    if inputs.client_cert is not None:
        raise invalid(TASK, "client_cert", "log in with a password")
    if inputs.authentication_method == "basic" and not inputs.encrypted:
        raise invalid(TASK, "use_tls", "basic authentication would send the password as it is")


async def _over_ssh(settings: definitions.Settings, inputs: PsInputs, context: ports.TaskContext) -> PsOutput:
    asked = ssh.SshInputs(
        hostname=inputs.hostname,
        port=inputs.port,
        username=inputs.username,
        password=inputs.password,
        key=inputs.key,
        hostkey=inputs.hostkey,
        script=inputs.script,
        connect_timeout=inputs.connect_timeout,
        connect_tries=1,
        script_timeout=inputs.script_timeout,
        remove_cr=True,
    )
    command = functools.partial(ps_script.command, inputs.interpreter, context.traceparent)
    try:
        said = await ssh.Run(settings, asked, context, command).attempt()
    except host.Failed as failed:
        output = failed.output
        if isinstance(output, ssh.SshOutput):
            output = PsOutput(retcode=output.retcode, report=output.report)
        raise host.Failed(failed.words, passing=failed.passing, output=output) from None
    return PsOutput(retcode=said.retcode, report=said.report, json=_parsed(said.report))


async def _by_winrm(settings: definitions.Settings, inputs: PsInputs) -> PsOutput:
    try:
        report = await ps_winrm.performed(inputs, settings.egress, ssh.REPORT_BYTES_MAX)
    except host.Failed as failed:
        shown = PsOutput(report=str(failed.output or "")[-_FAILURE_CHARACTERS:])
        raise host.Failed(failed.words, passing=failed.passing, output=shown) from None
    return PsOutput(report=report, json=_parsed(report))


def _parsed(report: str) -> Any:
    try:
        return msgspec.json.decode(report.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


async def _run(settings: definitions.Settings, inputs: PsInputs, context: ports.TaskContext) -> PsOutput:
    for secret in (inputs.password, inputs.key):
        if secret:
            context.hide(secret)
    attempt = functools.partial(_by_winrm, settings, inputs)
    if inputs.transport == "ssh":
        attempt = functools.partial(_over_ssh, settings, inputs, context)
    shown = f"{TASK} {inputs.username}@{inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False, secret=("key",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[PsInputs]:
    """Return the task type PS."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Run PowerShell on another machine",
        description="Runs a script over SSH or by WinRM and fails when it ends with an error. It ends with the task.",
        inputs=PsInputs,
        output=PsOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda _: False,
        check=_check,
        aliases=("POWERSHELL",),
        input_aliases=host.ALIASES,
    )
