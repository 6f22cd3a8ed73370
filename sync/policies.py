"""The policies in a flow's metadata and in declared schedules: what they may say, in their one form. Pure.

Owns: the checks of schedules, limits, retries and the like, and how the schedules of one flow are told apart. Refuses:
cron expressions and zones that nobody knows, and anything that cannot be meant, each with its key. Used by ``metadata``
(TOML) and ``declarations`` (YAML).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from ..engine import cron, policy
from . import shapes

#: A flow has not more of them; more are better data of one flow that runs often.
SCHEDULES_MAX = 100
_TAGS_MAX = 20
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG])(?:i?B)?", re.IGNORECASE)
_UNIT_BYTES = {"K": 1024, "M": 1024**2, "G": 1024**3}
#: With less than this Python itself cannot start a handler.
MEMORY_BYTES_MIN = 32 * 1024 * 1024
_KEY_PATH = re.compile(r"inputs(?:\.[^.\s]+)+")
#: Of a resource; more than any machine has.
_AMOUNT_MAX = 1_000_000
_TAG = re.compile(r"[\w.:/-]{1,50}")

T = TypeVar("T")


def _read(read: Callable[[object], T]) -> Callable[[object], T]:
    """Return ``read`` with its complaints in the words of this room."""

    def check(value: object) -> T:
        try:
            return read(value)
        except policy.Invalid as invalid:
            raise shapes.Wrong(invalid.message, invalid.key) from None

    return check


duration_s = _read(policy.duration_s)
catchup = _read(policy.Catchup.read)
expect = _read(policy.expect)


def cron_text(value: object) -> str:
    """Return ``value`` if it is a cron expression."""
    text = shapes.full_text(value)
    try:
        cron.Cron(text)
    except cron.Invalid as invalid:
        raise shapes.Wrong(f"is {shapes.shown(value)}, which {invalid}") from None
    return text.strip()


def zone(value: object) -> str:
    """Return ``value`` if it is a time zone."""
    try:
        cron.zone_called(shapes.full_text(value))
    except cron.Invalid as invalid:
        raise shapes.Wrong(f"is {shapes.shown(value)}, which {invalid}") from None
    return str(value)


_schedule_fields = shapes.fields(
    cron=cron_text,
    timezone=zone,
    name=shapes.full_text,
    inputs=shapes.table,
    catchup=catchup,
    overlap=shapes.one_of(*policy.OVERLAP),
    expect=expect,
    enabled=shapes.flag,
)


def _schedule(value: object) -> dict[str, Any]:
    given: dict[str, Any] = {"cron": cron_text(value)} if isinstance(value, str) else _schedule_fields(value)
    if "cron" not in given:
        raise shapes.Wrong('has no cron; write {cron = "30 2 * * *"}')
    if "inputs" in given:
        given["inputs"] = msgspec.Raw(msgspec.json.encode(given["inputs"]))
    return given


def _schedules(value: object) -> list[dict[str, Any]]:
    """Read one schedule or a list of them; each is a cron expression or a table."""
    listed = value if isinstance(value, list) else [value]
    if len(listed) > SCHEDULES_MAX:
        raise shapes.Wrong(f"has {len(listed)} schedules, and a flow may have {SCHEDULES_MAX}")
    return [_schedule(one) for one in listed]


def _input_path(value: object) -> str:
    if not _KEY_PATH.fullmatch(shapes.text(value)):
        raise shapes.Wrong(f'is {shapes.shown(value)}; write it like "inputs.customer"')
    return str(value)


def _tenths(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise shapes.Wrong(f"is {shapes.shown(value)}; write a number from 0 to 1")
    return float(value)


def _priority(value: object) -> int:
    most = policy.PRIORITY_MAX
    if not isinstance(value, int) or isinstance(value, bool) or not -most <= value <= most:
        raise shapes.Wrong(f"is {shapes.shown(value)}; write a whole number from -{most} to {most}")
    return value


def _memory_bytes(value: object) -> int:
    found = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None and (not isinstance(value, int) or isinstance(value, bool)):
        raise shapes.Wrong(f'is {shapes.shown(value)}; write it like "512M" or "2G"')
    size = int(float(found[1]) * _UNIT_BYTES[found[2].upper()]) if found else int(value)  # type: ignore[call-overload]
    if not MEMORY_BYTES_MIN <= size < 1 << 60:
        raise shapes.Wrong(f'is {shapes.shown(value)}; a flow needs "32M" at least')
    return size


def _tags(value: object) -> tuple[str, ...]:
    found = shapes.texts(value)
    if len(found) > _TAGS_MAX or not all(_TAG.fullmatch(tag) for tag in found):
        raise shapes.Wrong(f"is {shapes.shown(value)}; write up to {_TAGS_MAX} short words without blanks")
    return tuple(dict.fromkeys(found))


def _worker(value: object) -> str:
    if not _TAG.fullmatch(shapes.text(value)):
        raise shapes.Wrong(f"is {shapes.shown(value)}; write one short word without blanks, a label of nodes")
    return str(value)


def _amount(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _AMOUNT_MAX:
        raise shapes.Wrong(f"is {shapes.shown(value)}; write how much of it, a number from 0")
    return float(value)


def _resources(value: object) -> dict[str, Any]:
    """Read ``{cpu = 2, gpu = 1, memory = "4G", NAME = 1}``, where each name is a resource of the cluster."""
    read: dict[str, Any] = {}
    for key, amount in shapes.table(value).items():
        if not _TAG.fullmatch(key) or (key.upper() in ("CPU", "GPU", "MEMORY") and key != key.lower()):
            raise shapes.Wrong("is no name of a resource; there are cpu, gpu, memory, and those of the cluster", key)
        try:
            read[key] = _memory_bytes(amount) if key == "memory" else _amount(amount)
        except shapes.Wrong as wrong:
            raise shapes.Wrong(wrong.message, key) from None
    return read


def _placement(values: Mapping[str, Any]) -> policy.Placement:
    needs = dict(values.get("resources", {}))
    own = {key: needs.pop(key) for key in ("cpu", "gpu", "memory") if key in needs}
    return policy.Placement(worker=values.get("worker", ""), resources=needs, **own)


_retry_fields = shapes.fields(
    attempts=shapes.count,
    delay=duration_s,
    backoff=duration_s,
    factor=shapes.factor,
    max=duration_s,
    jitter=_tenths,
    on=shapes.texts,
)


def _retry(value: object) -> policy.Retry:
    given = _retry_fields(value)
    if "delay" in given and "backoff" in given:
        raise shapes.Wrong("is the same as delay; give one of them", "backoff")
    names = {"delay": "delay_s", "backoff": "delay_s", "max": "max_s"}
    fields: dict[str, Any] = {names.get(key, key): found for key, found in given.items()}
    return policy.Retry(**fields | {"on": tuple(given.get("on", ()))})


_concurrency_fields = shapes.fields(limit=shapes.count, key=_input_path, when_full=shapes.one_of(*policy.WHEN_FULL))


def _concurrency(value: object) -> policy.Concurrency:
    return policy.Concurrency(**_concurrency_fields(value))


#: The keys of a flow's metadata that are policies.
KEYS: Mapping[str, Callable[[object], Any]] = {
    "schedule": _schedules,
    "timezone": zone,
    "catchup": catchup,
    "expect": expect,
    "concurrency": _concurrency,
    "retry": _retry,
    "on_failure": shapes.full_text,
    "on_success": shapes.full_text,
    "priority": _priority,
    "max_memory": _memory_bytes,
    "tags": _tags,
    "worker": _worker,
    "resources": _resources,
}


def gathered(values: Mapping[str, Any], flow_name: str) -> policy.Policies:
    """Return the policies that checked metadata holds. ``timezone``, ``catchup`` and ``expect`` are for all schedules
    that say nothing else; a schedule is known by its name, else by when it is due."""
    usual = {key: values[key] for key in ("timezone", "catchup", "expect") if key in values}
    listed: list[dict[str, Any]] = values.get("schedule", [])
    schedules: dict[str, policy.Schedule] = {}
    for number, one in enumerate(listed, 1):
        said = usual | one
        zone_ = said.get("timezone", "UTC")
        key = said.get("name") or hashlib.sha256(f"{said['cron']}\0{zone_}".encode()).hexdigest()[:12]
        if key in schedules:
            raise shapes.Wrong("has two schedules that are the same; give them names", "schedule")
        schedules[key] = policy.Schedule(
            key=key,
            name=said.get("name") or (flow_name if len(listed) == 1 else f"{flow_name} #{number}"),
            cron=said["cron"],
            timezone=zone_,
            inputs=said.get("inputs", msgspec.Raw(b"{}")),
            catchup=said.get("catchup", policy.Catchup()),
            overlap=said.get("overlap", ""),
            is_enabled=said.get("enabled", True),
            **said.get("expect", {}),
        )
    chosen = ("concurrency", "retry", "on_failure", "on_success", "priority", "max_memory", "tags")
    said = {key: values[key] for key in chosen if key in values}
    return policy.Policies(schedules=tuple(schedules.values()), placement=_placement(values), **said)
