"""PROMETHEUS: ask Prometheus, and what has its API, for the value of an expression, now or over a time."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import web_service
from .definition import invalid, missing
from .host import about

TASK = "PROMETHEUS"


class PrometheusInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of PROMETHEUS."""

    url: Annotated[str, about("The address of the server, such as http://prometheus.example:9090.")]
    query: Annotated[str, about("The expression, in PromQL.")]
    time: Annotated[str | float | None, about("The moment: seconds since 1970, or ISO 8601. Default: now.")] = None
    start: Annotated[str | float | None, about("Values from this moment on, with end and step.")] = None
    end: Annotated[str | float | None, about("The last moment.")] = None
    step: Annotated[str | float | None, about("How far the values are apart: seconds, or such as 5m.")] = None
    username: Annotated[str | None, about("The user for basic authentication.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    token: Annotated[str | None, about("A bearer token, instead of a user.")] = None


class PrometheusOutput(msgspec.Struct, kw_only=True):
    """The output of PROMETHEUS."""

    type: str  #: vector, matrix, scalar or string
    result: Any  #: as Prometheus gives it
    value: float | None = None  #: of the only series, or of the scalar
    warnings: list[str] = msgspec.field(default_factory=list)


def _check(inputs: PrometheusInputs) -> None:
    web_service.check(TASK, inputs, inputs.url)
    if not inputs.query.strip():
        raise invalid(TASK, "query", "expected an expression, got an empty text")
    if inputs.token is not None and inputs.username is not None:
        raise invalid(TASK, "token", "there is a 'username' already; give one of them")
    over = [name for name in ("start", "end", "step") if getattr(inputs, name) is not None]
    if over and len(over) < 3:
        absent = next(name for name in ("start", "end", "step") if name not in over)
        raise missing(TASK, absent, "start, end and step belong together")
    if over and inputs.time is not None:
        raise invalid(TASK, "time", "'start' asks for values over a time; give one of them")


def _value(kind: str, result: Any) -> float | None:
    try:
        if kind == "scalar":
            return float(result[1])
        return float(result[0]["value"][1]) if kind == "vector" and len(result) == 1 else None
    except (LookupError, TypeError, ValueError):
        return None


async def _run(service: web_service.Service, inputs: PrometheusInputs, context: ports.TaskContext) -> PrometheusOutput:
    ranged = inputs.start is not None
    path = "query_range" if ranged else "query"
    asked = {"query": inputs.query, "time": inputs.time, "start": inputs.start, "end": inputs.end, "step": inputs.step}
    output = await service.call(
        inputs,
        context,
        f"{inputs.url.rstrip('/')}/api/v1/{path}",
        params={name: value for name, value in asked.items() if value is not None},
        headers={"Authorization": f"Bearer {inputs.token}"} if inputs.token is not None else None,
        username=inputs.username,
        password=inputs.password,
        expected_status_code=[200, 400, 422],
    )
    answer = output.json
    if not isinstance(answer, dict) or "status" not in answer:
        raise web_service.unexpected("Prometheus", output)
    if answer["status"] != "success":
        words = f"{answer.get('errorType')}: {answer.get('error')}"
        raise errors.TaskFailed(words, output=values.encode(answer, "the answer"))
    data = answer.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("resultType"), str):
        raise web_service.unexpected("Prometheus", output)
    return PrometheusOutput(
        type=data["resultType"],
        result=data.get("result"),
        value=_value(data["resultType"], data.get("result")),
        warnings=[str(one) for one in answer.get("warnings") or ()],
    )


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[PrometheusInputs]:
    """Return the task type PROMETHEUS."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Ask Prometheus for values",
        description="The value of an expression at a moment, or over a time.",
        inputs=PrometheusInputs,
        output=PrometheusOutput,
        run=functools.partial(_run, service),
        idempotent=lambda _: True,
        check=_check,
        close=service.connections.aclose,
    )
