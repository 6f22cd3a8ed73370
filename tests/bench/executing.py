"""Executions as callers see them: latency with one caller, throughput with many, CPU, and parents with children."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import statistics
from collections.abc import Iterator

from tests.support.daemons import Daemon

from . import http_load, machine, stage
from .results import Row
from .stage import Plan

_CALLERS = 32
_CHILDREN = 100

#: What no answer can do without: the request, two batches of the journal one after the other, the flow process.
_WARM_LIMIT = (machine.POST, machine.FDATASYNC, machine.FDATASYNC, machine.ROUND_TRIP)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Warm or fresh processes: their flows, how many requests a round, what is to be reached and cannot be beaten."""

    name: str
    flow: str
    hook: str
    requests: int
    p50_ms: float
    latency_limit: tuple[str, ...]
    requests_many: int
    per_s: float
    per_s_limit: str
    cpu_ms: float | None


_KINDS = (
    Kind("warm", "warm", "hook", 500, 1.0, _WARM_LIMIT, 6_000, 3_000, machine.POSTS, 0.4),
    Kind(
        "fresh process", "fresh", "freshhook", 200, 5.0, (*_WARM_LIMIT, machine.FORK), 1_500, 500, machine.FORKS, None
    ),
)


def latency(plan: Plan) -> Iterator[Row]:
    """One caller: from the request to the answer with the ended execution."""
    with stage.daemon(plan, "latency") as daemon:
        for kind in _KINDS:
            name = f"API call → done, {kind.name}"
            yield _latency_row(name, daemon, stage.run_request(daemon, kind.flow), kind, plan)
        for kind in _KINDS:
            name = f"webhook (signed, with delivery id) → done, {kind.name}"
            yield _latency_row(name, daemon, _delivery(kind.hook), kind, plan)


def _latency_row(name: str, daemon: Daemon, text: bytes, kind: Kind, plan: Plan) -> Row:
    port, requests = stage.port(daemon), plan.count(kind.requests)
    http_load.generate(port, text, requests=30)
    loads = [http_load.generate(port, text, requests=requests, first=(n + 1) * 1_000_000) for n in range(plan.rounds)]
    return Row(
        name,
        "ms p50",
        [load.percentile_ms(50) for load in loads],
        requests * len(loads),
        reach=kind.p50_ms,
        limit=sum(plan.limits[part] for part in kind.latency_limit),
        limit_name=" + ".join(kind.latency_limit),
        also={f"p{p}": statistics.median(load.percentile_ms(p) for load in loads) for p in (95, 99)},
    )


def accepting(plan: Plan) -> Iterator[Row]:
    """A signed delivery until it is durable and acknowledged: alone, and as many at once as there are callers."""
    with stage.daemon(plan, "accepting") as daemon:
        port = stage.port(daemon)
        http_load.generate(port, _delivery("hook", "?async=1"), requests=30, expected="id", good=202)
        for callers, tries, unit in ((1, 1000, "ms p50"), (_CALLERS, 4000, "/s")):
            requests = plan.count(tries)
            loads = [
                http_load.generate(
                    port,
                    _delivery(stage.ROUND_HOOKS[n], "?async=1"),
                    requests=requests,
                    callers=callers,
                    first=callers * 10_000_000 + (n + 1) * 1_000_000,
                    expected="id",
                    good=202,
                )
                for n in range(plan.rounds)
            ]
            yield Row(
                f"webhook (signed, with delivery id) → durable 202, {callers} callers",
                unit,
                [load.percentile_ms(50) if callers == 1 else load.per_s for load in loads],
                requests * len(loads),
                more_is_better=callers > 1,
                also={f"p{p} ms": statistics.median(load.percentile_ms(p) for load in loads) for p in (50, 99, 99.9)},
            )


def _delivery(hook: str, query: str = "") -> bytes:
    body = b'{"ref":"refs/heads/main","repository":{"full_name":"ops/flows"}}'
    signature = hmac.new(stage.WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": http_load.NUMBER.decode(),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return http_load.request("POST", f"/api/v1/webhook/{hook}{query}", body, headers)


def throughput(plan: Plan) -> Iterator[Row]:
    """Many callers, and what each execution costs in CPU."""
    with stage.daemon(plan, "throughput") as daemon:
        for kind in _KINDS:
            yield from _throughput_rows(daemon, kind, plan)


def _throughput_rows(daemon: Daemon, kind: Kind, plan: Plan) -> Iterator[Row]:
    port, text = stage.port(daemon), stage.run_request(daemon, kind.flow)
    requests = plan.count(kind.requests_many)
    http_load.generate(port, text, requests=plan.count(1_000), callers=_CALLERS)
    loads, costs = [], []
    for _ in range(plan.rounds):
        before = stage.cpu_s(daemon.pid)
        loads.append(http_load.generate(port, text, requests=requests, callers=_CALLERS))
        after = stage.cpu_s(daemon.pid)
        costs.append({who: 1000 * (after[who] - before[who]) / requests for who in after})
    yield Row(
        f"executions through HTTP, {_CALLERS} callers, {kind.name}",
        "/s",
        [load.per_s for load in loads],
        requests * plan.rounds,
        reach=kind.per_s,
        limit=plan.limits[kind.per_s_limit],
        limit_name=kind.per_s_limit,
        more_is_better=True,
        also={f"p{p} ms": statistics.median(load.percentile_ms(p) for load in loads) for p in (50, 95, 99)},
    )
    yield Row(
        f"CPU of an execution, {_CALLERS} callers, {kind.name}",
        "ms",
        [sum(cost.values()) for cost in costs],
        requests * plan.rounds,
        reach=kind.cpu_ms,
        also={
            "daemon": statistics.median(cost["daemon"] for cost in costs),
            "fork server and flows": statistics.median(cost["others"] for cost in costs),
        },
    )


def parents(plan: Plan) -> Iterator[Row]:
    """One execution with many children, all waited for."""
    with stage.daemon(plan, "parents") as daemon:
        for flow, how, reach in (("parallel", "together", 80.0), ("sequential", "one after the other", None)):
            tries = plan.count(10)
            text = stage.run_request(daemon, flow, b'{"children":%d}' % _CHILDREN)
            http_load.generate(stage.port(daemon), text, requests=2)
            loads = [http_load.generate(stage.port(daemon), text, requests=tries) for _ in range(plan.rounds)]
            yield Row(
                f"a parent with {_CHILDREN} children, {how}",
                "ms p50",
                [load.percentile_ms(50) for load in loads],
                tries * len(loads),
                reach=reach,
                also={"ms each child": statistics.median(load.percentile_ms(50) for load in loads) / _CHILDREN},
            )
