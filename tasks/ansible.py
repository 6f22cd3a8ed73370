"""ANSIBLE: run a playbook with the ``ansible-playbook`` of the daemon's machine, if the operator allows that program.

Ansible is called, never imported. Playbook, inventory, variables and key lie in a private folder while it runs; what it
counted for each host is told by a callback of ours into a file there.
"""

from __future__ import annotations

import functools
import pathlib
import re
from typing import Annotated, Any

import msgspec

from ..engine import ports
from . import blocking, host, process, ssh_connection, stored_files, workplace
from . import definition as definitions

TASK = "ANSIBLE"
PROGRAM = "ansible-playbook"
#: What it may say.
REPORT_BYTES_MAX = 16 * 1024 * 1024
#: How much of the report a failure keeps, from its end.
_FAILURE_CHARACTERS = 1024 * 1024
#: Ansible's own statuses (docs: ansible-playbook, exit codes of the strategy).
_MEANINGS = {1: "it failed", 2: "hosts failed", 4: "hosts are unreachable", 5: "the playbook cannot be used"}
_HOST = re.compile(r"[A-Za-z0-9._:%\[\]-]{1,253}")
_CALLBACK = """
import json, os
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, 'aggregate', 'headrace'

    def v2_playbook_on_stats(self, stats):
        with open(os.environ['HEADRACE_STATS'], 'w') as told:
            json.dump({host: stats.summarize(host) for host in stats.processed}, told)
"""


class AnsibleInputs(definitions.Inputs, kw_only=True):
    """The inputs of ANSIBLE."""

    playbook: Annotated[str, host.about("The playbook as YAML text, or headrace:<path>.")]
    inventory: Annotated[
        str | list[str] | dict[str, Any],
        host.about("The inventory: a list of hosts, an object as in a YAML inventory, text, or headrace:<path>. "
        "Default: this machine."),
    ] = "localhost ansible_connection=local\n"  # fmt: skip
    extra_vars: Annotated[dict[str, Any] | None, host.about("Variables that win over all others.")] = None
    copy_files: workplace.CopyFiles = None
    limit: Annotated[str | None, host.about("Only these hosts of the inventory.")] = None
    tags: Annotated[list[str] | None, host.about("Only tasks with these tags.")] = None
    check_mode: Annotated[bool, host.about("Change nothing, tell what would change. Default: false.")] = False
    username: Annotated[str | None, host.about("The user to log in as.")] = None
    key: ssh_connection.Key = None
    known_hosts: Annotated[
        str | None, host.about("The hosts' keys, lines of known_hosts. Default: what ~/.ssh/known_hosts says.")
    ] = None


class AnsibleOutput(msgspec.Struct, kw_only=True):
    """The output of ANSIBLE."""

    retcode: int
    report: str
    stats: dict[str, dict[str, int]]


def _check(inputs: AnsibleInputs) -> None:
    for name in ("limit", "username"):
        value = getattr(inputs, name)
        if value is not None and (not value.isprintable() or value.startswith("-")):
            raise definitions.invalid(TASK, name, "expected a text without control characters that is no option")
    for one in inputs.tags or ():
        if not re.fullmatch(r"\w[\w.-]*", one):
            raise definitions.invalid(TASK, "tags", "expected names of tags")
    if isinstance(inputs.inventory, list) and not all(_HOST.fullmatch(one) for one in inputs.inventory):
        raise definitions.invalid(TASK, "inventory", "expected names or addresses of hosts")
    if inputs.key is not None and "PRIVATE KEY-----" not in inputs.key:
        raise definitions.invalid(TASK, "key", "expected a private key, '-----BEGIN … PRIVATE KEY-----'")
    workplace.check(TASK, inputs.copy_files, None)


class _Play:
    """One ANSIBLE task under way."""

    def __init__(self, program: str, inputs: AnsibleInputs, context: ports.TaskContext, folder: pathlib.Path) -> None:
        self._program, self._inputs, self._context, self._folder = program, inputs, context, folder

    async def perform(self) -> AnsibleOutput:
        """Run the playbook; raises ``host.Failed`` and ``TaskFailed``."""
        await workplace.bring_in(self._context, self._folder, self._inputs.copy_files or ())
        arguments = await self._prepared()
        own = self._folder / ".headrace"
        env = process.environment(
            self._folder,
            {
                "ANSIBLE_CALLBACK_PLUGINS": str(own),
                "ANSIBLE_CALLBACKS_ENABLED": "headrace",
                "ANSIBLE_LOCAL_TEMP": str(own / "tmp"),
                "ANSIBLE_RETRY_FILES_ENABLED": "false",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOST_KEY_CHECKING": "true",
                "HEADRACE_STATS": str(own / "stats"),
            },
        )
        ended = await process.run(
            [self._program, *arguments], folder=self._folder, mark=self._context.execution_id, env=env,
            output_bytes_max=REPORT_BYTES_MAX,
        )  # fmt: skip
        report = (ended.stdout + ended.stderr).decode(errors="replace")
        output = AnsibleOutput(retcode=ended.status, report=report, stats=_stats(own / "stats"))
        if ended.status:
            output.report = report[-_FAILURE_CHARACTERS:]
            raise host.Failed(
                f"{_MEANINGS.get(ended.status, f'it ended with {ended.status}')}: {_reason(report)}", output=output
            )
        return output

    async def _prepared(self) -> list[str]:
        """Write what Ansible reads and return its arguments: secrets stand in files, never in one of those."""
        inputs = self._inputs
        inventory, suffix = inputs.inventory, ""
        if isinstance(inventory, dict):
            inventory, suffix = msgspec.json.encode(inventory).decode(), ".yaml"
        elif isinstance(inventory, list):
            inventory = "\n".join(inventory) + "\n"
        files = {
            "playbook.yaml": await self._text(inputs.playbook),
            f"inventory{suffix}": await self._text(inventory),
            "vars.json": msgspec.json.encode(inputs.extra_vars or {}).decode(),
            "headrace.py": _CALLBACK,
        }
        arguments = ["-i", f".headrace/inventory{suffix}", "-e", "@.headrace/vars.json"]
        if inputs.key is not None:
            files["key"] = "\n".join(inputs.key.strip().splitlines()) + "\n"
            arguments += ["--private-key", ".headrace/key"]
        known = self._folder / ".headrace" / "known_hosts"
        if inputs.known_hosts is not None:
            files["known_hosts"] = inputs.known_hosts
        else:
            known = pathlib.Path.home() / ".ssh" / "known_hosts"
        arguments += ["--ssh-common-args", f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"]
        for option, value in (("--limit", inputs.limit), ("--user", inputs.username)):
            if value is not None:
                arguments += [option, value]
        arguments += ["--tags", ",".join(inputs.tags)] if inputs.tags else []
        arguments += ["--check"] if inputs.check_mode else []
        await blocking.call(_write, self._folder / ".headrace", files)
        return [*arguments, ".headrace/playbook.yaml"]

    async def _text(self, given: str) -> str:
        if stored_files.is_named(given):
            return (await stored_files.read(self._context, given)).decode("utf-8", "replace")
        return given


def _write(folder: pathlib.Path, files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)


def _stats(path: pathlib.Path) -> dict[str, dict[str, int]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, int]])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return {}  # it did not come so far


def _reason(report: str) -> str:
    """Return the line that says most about a failure."""
    said = [line for line in report.splitlines() if line.startswith(("fatal:", "failed:", "ERROR!"))]
    return host.quoted(said[0] if said else report.strip().rpartition("\n")[2]) or "without a word"


async def _run(settings: definitions.Settings, inputs: AnsibleInputs, context: ports.TaskContext) -> AnsibleOutput:
    async def attempt() -> AnsibleOutput:
        program = settings.local.program(TASK, PROGRAM)
        async with settings.folders.opened("ansible") as folder:
            return await _Play(program, inputs, context, folder).perform()

    return await host.performed(TASK, attempt, inputs, context, settings, repeatable=False, secret=("key",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[AnsibleInputs]:
    """Return the task type ANSIBLE."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Run an Ansible playbook",
        description="Runs a playbook with the ansible-playbook of the daemon's machine, if the operator allows it.",
        inputs=AnsibleInputs,
        output=AnsibleOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.check_mode,
        check=_check,
    )
