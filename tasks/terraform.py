"""TERRAFORM: plan and apply a configuration with the ``tofu`` or ``terraform`` of the daemon's machine, if allowed.

The program is called in a private folder that is gone afterwards. A state that is not kept by a backend of the
configuration goes in from the store before and back after, however the run ended: what was made must not be forgotten.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import re
from typing import Annotated, Any, Literal

import msgspec

from ..engine import errors, ports
from . import blocking, host, process, stored_files, workplace
from . import definition as definitions

TASK = "TERRAFORM"
PROGRAMS = ("tofu", "terraform")
#: What each call of the program may say.
REPORT_BYTES_MAX = 16 * 1024 * 1024
#: How much of the report a failure keeps, from its end.
_FAILURE_CHARACTERS = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STATE, _PLAN = "terraform.tfstate", ".headrace.plan"
_QUIET = ("-input=false", "-no-color")
#: Of ``plan -detailed-exitcode``: it went well, and something would change.
_CHANGES = 2


class TerraformInputs(definitions.Inputs, kw_only=True):
    """The inputs of TERRAFORM."""

    command: Annotated[
        Literal["plan", "apply", "destroy", "output", "validate"],
        host.about("plan: tell what would change; apply: change it; destroy: remove all of it; output: read the "
        "outputs; validate: check the configuration. Default: plan."),
    ] = "plan"  # fmt: skip
    configuration: Annotated[
        str | dict[str, Any] | None,
        host.about("The configuration: text, an object in its JSON syntax, or headrace:<path>; or copy_files."),
    ] = None
    copy_files: workplace.CopyFiles = None
    variables: Annotated[dict[str, Any] | None, host.about("Values of the configuration's variables.")] = None
    state: Annotated[
        str | None, host.about("headrace:<path> that keeps the state, for a configuration without a backend.")
    ] = None
    targets: Annotated[list[str] | None, host.about("Only these resources, and what they need.")] = None
    env: Annotated[
        dict[str, str] | None, host.about("More variables of the environment, such as providers read. All secret.")
    ] = None


class TerraformOutput(msgspec.Struct, kw_only=True):
    """The output of TERRAFORM; ``changes`` with plan, ``outputs`` with apply and output."""

    retcode: int
    report: str
    changes: dict[str, list[str]] | msgspec.UnsetType = msgspec.UNSET
    outputs: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def _check(inputs: TerraformInputs) -> None:
    if inputs.configuration is None and not inputs.copy_files:
        raise definitions.missing(TASK, "configuration", "the configuration, unless copy_files brings it")
    if inputs.state is not None and not stored_files.is_named(inputs.state):
        raise definitions.invalid(TASK, "state", "expected headrace:<path>")
    if not all(_NAME.fullmatch(one) for one in inputs.variables or ()):
        raise definitions.invalid(TASK, "variables", "expected names of variables")
    if inputs.targets and inputs.command in ("output", "validate"):
        raise definitions.invalid(TASK, "targets", f"the command {inputs.command} does not use it")
    if not all(one and one.isprintable() for one in inputs.targets or ()):
        raise definitions.invalid(TASK, "targets", "expected addresses of resources")
    for name, value in (inputs.env or {}).items():
        if not _ENVIRONMENT_NAME.fullmatch(name) or "\0" in value:
            raise definitions.invalid(TASK, "env", "expected names of variables and texts")
    workplace.check(TASK, inputs.copy_files, None)


class _Work:
    """One TERRAFORM task under way."""

    def __init__(self, program: str, inputs: TerraformInputs, context: ports.TaskContext, folder: pathlib.Path) -> None:
        self._program, self._inputs, self._context, self._folder = program, inputs, context, folder
        self._report = ""

    async def perform(self) -> TerraformOutput:
        """Do what is asked; raises ``host.Failed`` and ``TaskFailed``."""
        inputs = self._inputs
        await workplace.bring_in(self._context, self._folder, inputs.copy_files or ())
        await self._prepare()
        await self._call("init", *_QUIET)
        targets = [f"-target={one}" for one in inputs.targets or ()]
        match inputs.command:
            case "plan":
                asked = ("plan", *_QUIET, "-detailed-exitcode", f"-out={_PLAN}", *targets)
                ended = await self._call(*asked, fine=(0, _CHANGES))
                return TerraformOutput(retcode=ended.status, report=self._report, changes=await self._changes())
            case "apply" | "destroy":
                try:
                    await self._call(inputs.command, *_QUIET, "-auto-approve", *targets)
                finally:
                    await self._keep_state()
            case "validate":
                await self._call("validate", "-no-color")
        output = TerraformOutput(retcode=0, report=self._report)
        if inputs.command in ("apply", "output"):
            output.outputs = await self._outputs()
        return output

    async def _prepare(self) -> None:
        """Write what the program reads: secrets stand in files, or in the environment where providers want them."""
        inputs, given = self._inputs, self._inputs.configuration
        files = {"headrace.auto.tfvars.json": msgspec.json.encode(inputs.variables or {})}
        if isinstance(given, dict):
            files["headrace.tf.json"] = msgspec.json.encode(given)
        elif given is not None:
            named = stored_files.is_named(given)
            files["headrace.tf"] = await stored_files.read(self._context, given) if named else given.encode()
        if inputs.state is not None:
            with contextlib.suppress(errors.NotFound):  # the first run makes it
                files[_STATE] = await blocking.call(self._context.files.read, stored_files.path(inputs.state))
        await blocking.call(_write, self._folder, files)

    async def _keep_state(self) -> None:
        """Put the state into the store, also of a run that failed or was cancelled."""
        there = self._folder / _STATE
        if self._inputs.state is not None and there.exists():
            await blocking.call(stored_files.put, self._context, self._inputs.state, there.read_bytes())

    async def _call(self, *arguments: str, fine: tuple[int, ...] = (0,), told: bool = True) -> process.Ended:
        env = process.environment(self._folder, {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"})
        ended = await process.run(
            [self._program, *arguments], folder=self._folder, mark=self._context.execution_id,
            env={**env, **(self._inputs.env or {})}, output_bytes_max=REPORT_BYTES_MAX,
        )  # fmt: skip
        if told or ended.status not in fine:
            self._report += (ended.stdout + ended.stderr).decode(errors="replace")
        if ended.status not in fine:
            output = TerraformOutput(retcode=ended.status, report=self._report[-_FAILURE_CHARACTERS:])
            raise host.Failed(f"{arguments[0]} failed: {_reason(ended.stderr.decode(errors='replace'))}", output=output)
        return ended

    async def _changes(self) -> dict[str, list[str]]:
        """Return the addresses of the resources that would change, by what would be done to them."""
        shown = msgspec.json.decode((await self._call("show", "-json", _PLAN, told=False)).stdout)
        found: dict[str, list[str]] = {}
        for one in shown.get("resource_changes", ()):
            actions = one["change"]["actions"]
            if actions not in (["no-op"], ["read"]):
                found.setdefault("replace" if len(actions) > 1 else actions[0], []).append(one["address"])
        return found

    async def _outputs(self) -> dict[str, Any]:
        told = msgspec.json.decode((await self._call("output", "-json", "-no-color", told=False)).stdout)
        for one in told.values():
            if one["sensitive"]:
                self._context.hide(one["value"])
        return {name: one["value"] for name, one in told.items()}


def _write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def _reason(said: str) -> str:
    """Return the error it names first, or what it said last; the frame around it says nothing."""
    lines = [line.strip("╷│╵ ") for line in said.splitlines()]
    named = [line for line in lines if line.startswith("Error:")]
    return host.quoted((named or [line for line in lines if line][-1:] or ["without a word"])[0])


async def _run(settings: definitions.Settings, inputs: TerraformInputs, context: ports.TaskContext) -> TerraformOutput:
    async def attempt() -> TerraformOutput:
        program = settings.local.program(TASK, *PROGRAMS)
        async with settings.folders.opened("terraform") as folder:
            return await _Work(program, inputs, context, folder).perform()

    shown = f"{TASK} {inputs.command}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False, secret=("env",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[TerraformInputs]:
    """Return the task type TERRAFORM."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Plan and apply infrastructure with OpenTofu or Terraform",
        description="Runs tofu or terraform of the daemon's machine, if the operator allows it.",
        inputs=TerraformInputs,
        output=TerraformOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.command not in ("apply", "destroy"),
        check=_check,
        aliases=("OPENTOFU", "TOFU"),
        secret_inputs=frozenset({"env"}),
    )
