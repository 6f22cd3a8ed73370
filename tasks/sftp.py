"""SFTP: files on another machine, over SSH.

Copies go one way: from the store of flows, or into it. A file appears whole or not at all, on either side.
"""

from __future__ import annotations

import functools

from ..engine import ports
from . import definition as definitions
from . import host, remote_files, sftp_files, ssh_connection

TASK = "SFTP"


class SftpInputs(host.LoginInputs):
    """The inputs of SFTP."""

    key: ssh_connection.Key = None
    hostkey: ssh_connection.HostKey = None
    command: remote_files.Command = "copy"
    src: remote_files.Src = None
    dst: remote_files.Dst = None
    path: remote_files.Path = None
    new_path: remote_files.NewPath = None


def _check(inputs: SftpInputs) -> None:
    ssh_connection.check(TASK, inputs)
    remote_files.check(TASK, inputs)


async def _run(
    settings: definitions.Settings, inputs: SftpInputs, context: ports.TaskContext
) -> remote_files.FilesOutput:
    async def attempt() -> remote_files.FilesOutput:
        async with (
            ssh_connection.opened(TASK, inputs, settings.egress) as connection,
            sftp_files.place(connection, TASK) as place,
        ):
            return await remote_files.performed(place, inputs, context)

    shown = f"{ssh_connection.shown(TASK, inputs)} {inputs.command}"
    repeatable = remote_files.is_repeatable(inputs)
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=repeatable, secret=("key",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SftpInputs]:
    """Return the task type SFTP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy, list and change files over SSH",
        description="Copies one file between the files that flows keep and another machine, or lists and changes "
        "files there.",
        inputs=SftpInputs,
        output=remote_files.FilesOutput,
        run=functools.partial(_run, settings),
        idempotent=remote_files.is_repeatable,
        check=_check,
        input_aliases=host.ALIASES,
    )
