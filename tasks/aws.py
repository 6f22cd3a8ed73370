"""AWS: call any operation of any service, or wait until one says that something is so."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Annotated, Any

import msgspec

from ..engine import ports, values
from . import aws_calls as calls
from . import definition as definitions
from . import host
from .definition import invalid, missing
from .host import about

TASK = "AWS"
#: Operations that change nothing begin so.
READING = ("batch_get_", "describe_", "get_", "head_", "list_", "lookup_", "query", "scan", "search_", "select_")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class AwsInputs(calls.AwsAccess, kw_only=True):
    """The inputs of AWS."""

    client: Annotated[str, about("The service, as boto3 calls it, such as ec2.")]
    service: Annotated[str | None, about("The operation, as boto3 calls it, such as describe_instances.")] = None
    waiter: Annotated[str | None, about("Instead of service: what to wait for, such as instance_running.")] = None
    parameters: Annotated[dict[str, Any] | None, about('What the operation takes; bytes are {"base64": …}.')] = None
    paginate: Annotated[bool, about("Ask for all pages and return them as one. Default: false.")] = False

    @property
    def repeatable(self) -> bool:
        """Whether it changes nothing."""
        return self.waiter is not None or (self.service or "").startswith(READING)


class AwsOutput(msgspec.Struct, kw_only=True):
    """The output of AWS."""

    result: Any = None  #: the answer


def _check(inputs: AwsInputs) -> None:
    calls.check(TASK, inputs)
    if inputs.service is None and inputs.waiter is None:
        raise missing(TASK, "service", "the operation (or 'waiter')")
    if inputs.service is not None and inputs.waiter is not None:
        raise invalid(TASK, "waiter", "there is an operation already in 'service'; give one of them")
    if inputs.waiter is not None and inputs.paginate:
        raise invalid(TASK, "paginate", "a waiter has no pages")
    for name in ("client", "service", "waiter"):
        if not _NAME.fullmatch(getattr(inputs, name) or "x"):
            raise invalid(TASK, name, "expected a name such as boto3 has it")
    try:
        calls.octets(inputs.parameters)
    except ValueError:
        raise invalid(TASK, "parameters", 'expected base64 in {"base64": …}') from None


def _operation(inputs: AwsInputs, client: Any) -> Any:
    name = inputs.service or ""
    if name not in client.meta.method_to_api_mapping:
        raise host.Failed(f"{inputs.client} has no operation {name}")
    parameters = calls.octets(inputs.parameters or {})
    if not inputs.paginate:
        return calls.plain(getattr(client, name)(**parameters))
    if not client.can_paginate(name):
        raise host.Failed(f"{name} has no pages: call it without paginate")
    total = 0
    pages = client.get_paginator(name).paginate(**parameters)
    whole: dict[str, Any] = {}
    for page in pages:
        total += len(values.encode(calls.plain(page), "a page"))
        if total > values.VALUE_BYTES_MAX:
            raise host.Failed(f"the pages are larger than {values.VALUE_BYTES_MAX >> 20} MiB: ask for less")
        for key, value in page.items():
            if isinstance(value, list):
                whole.setdefault(key, []).extend(value)
            else:
                whole[key] = value
    return calls.plain(whole)


async def _waited(inputs: AwsInputs, caller: calls.Caller) -> None:
    """Ask as often as the service's description says, and sleep in between where a cancellation comes through."""
    name = inputs.waiter or ""
    parameters = calls.octets(inputs.parameters or {})
    asked = parameters.pop("WaiterConfig", {})
    if name not in caller.client.waiter_names:
        raise host.Failed(f"{inputs.client} has no waiter {name}")
    waiter = await caller.call(lambda: caller.client.get_waiter(name))
    delay, attempts = asked.get("Delay", waiter.config.delay), asked.get("MaxAttempts", waiter.config.max_attempts)
    once = functools.partial(waiter.wait, **parameters, WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(delay)
        try:
            await caller.call(once)
            return
        except host.Failed as failed:
            if "Max attempts exceeded" not in failed.words:
                raise
    raise host.Failed(f"it is not so after {attempts} attempts, {delay} s apart")


async def _attempt(clients: calls.Clients, inputs: AwsInputs) -> AwsOutput:
    caller = await calls.caller(TASK, clients, inputs.client, inputs)
    if inputs.waiter is not None:
        await _waited(inputs, caller)
        return AwsOutput()
    return AwsOutput(result=await caller.call(lambda: _operation(inputs, caller.client)))


async def _run(
    settings: definitions.Settings, clients: calls.Clients, inputs: AwsInputs, context: ports.TaskContext
) -> AwsOutput:
    attempt = functools.partial(_attempt, clients, inputs)
    shown = f"{inputs.client} {inputs.service or inputs.waiter}"
    output: AwsOutput = await calls.performed(shown, attempt, inputs, context, settings, repeatable=inputs.repeatable)
    return output


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[AwsInputs]:
    """Return the task type AWS."""
    clients = calls.Clients(settings.egress)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Call any service of AWS",
        description="One operation with its parameters, or one waiter.",
        inputs=AwsInputs,
        output=AwsOutput,
        run=functools.partial(_run, settings, clients),
        idempotent=lambda inputs: inputs.repeatable,
        check=_check,
        secret_inputs=frozenset({"aws_secret_access_key", "aws_session_token"}),
        close=clients.aclose,
    )
