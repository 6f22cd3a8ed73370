"""XMLRPC: call a method of a server that speaks XML-RPC, as old inventories, trackers and build systems do.

What answers is read by the standard library, after anything that declares a document type was refused: that is where
XML hides entities that grow without end or name files.
"""

from __future__ import annotations

import base64
import datetime
import functools
import xmlrpc.client as library
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import host, web_service
from .host import about

TASK = "XMLRPC"
#: Values inside of values.
_DEPTH_MAX = 100


class XmlrpcInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of XMLRPC."""

    url: Annotated[str, about("The address of the server, such as https://host/RPC2.")]
    method: Annotated[str, about("The method to call.")]
    params: Annotated[list[Any] | None, about("Its arguments, in their order.")] = None
    username: Annotated[str | None, about("The user for basic authentication.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    headers: Annotated[dict[str, str] | None, about("Headers of the request.")] = None


class XmlrpcOutput(msgspec.Struct, kw_only=True):
    """The output of XMLRPC."""

    result: Any


def _check(inputs: XmlrpcInputs) -> None:
    web_service.check(TASK, inputs, inputs.url)
    if not inputs.method or not inputs.method.isascii() or not inputs.method.isprintable() or " " in inputs.method:
        raise definitions.invalid(TASK, "method", "expected the name of a method")
    try:
        _request(inputs)
    except OverflowError:
        raise definitions.invalid(TASK, "params", "whole numbers have 32 bits there") from None
    except (TypeError, RecursionError):
        raise definitions.invalid(TASK, "params", "there is something that XML-RPC cannot say") from None


def _request(inputs: XmlrpcInputs) -> str:
    return library.dumps(tuple(inputs.params or ()), inputs.method, allow_none=True)


def _answer(text: str) -> Any:
    """Return the result; raises ``host.Failed`` for a fault and for what is no answer."""
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise host.Failed("the answer declares a document type: it is not read")
    try:
        (result,), _ = library.loads(text, use_builtin_types=True)
        return _spoken(result, 0)
    except library.Fault as fault:
        raise host.Failed(
            f"the server answered with fault {fault.faultCode}: {host.quoted(str(fault.faultString))}"
        ) from None
    except (library.Error, *host.GARBAGE, SyntaxError) as error:
        raise host.Failed(f"the answer is not XML-RPC: {host.quoted(str(error))}") from None
    except library.expat.ExpatError as error:  # type: ignore[attr-defined]
        raise host.Failed(f"the answer is not XML: {host.quoted(str(error))}") from None


def _spoken(value: Any, depth: int) -> Any:
    """Return the value as JSON can say it: times in ISO 8601, bytes in base64."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"its values are nested more than {_DEPTH_MAX} deep")
    match value:
        case datetime.datetime():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {key: _spoken(one, depth + 1) for key, one in value.items()}
        case list() | tuple():
            return [_spoken(one, depth + 1) for one in value]
    return value


async def _run(service: web_service.Service, inputs: XmlrpcInputs, context: ports.TaskContext) -> XmlrpcOutput:
    output = await service.call(
        inputs,
        context,
        inputs.url,
        method="post",
        text=_request(inputs),
        headers={"Content-Type": "text/xml", **(inputs.headers or {})},
        username=inputs.username,
        password=inputs.password,
        expected_status_code=[200],
    )
    try:
        return XmlrpcOutput(result=_answer(str(output.text or "")))
    except host.Failed as failed:
        raise errors.TaskFailed(
            f"{TASK} {inputs.method}: {failed.words}", output=values.encode({}, "nothing")
        ) from None


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[XmlrpcInputs]:
    """Return the task type XMLRPC."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Call a method by XML-RPC",
        description="Calls one method; a fault of the server is a failure.",
        inputs=XmlrpcInputs,
        output=XmlrpcOutput,
        run=functools.partial(_run, service),
        idempotent=lambda _: False,
        check=_check,
        close=service.connections.aclose,
    )
