"""What an operator may say about a flow: when it runs, how many at a time, and what follows its end. Pure data.

Owns: the form of schedules, of limits and of retries as flows' metadata and stored records say them, and the small
decisions that need nothing else (how long to wait before a retry, which lane inputs belong to). Whoever acts on them is
in ``running``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

#: What becomes of an execution that finds its lane full.
WHEN_FULL = ("queue", "skip", "replace", "reject")
#: The same for the ticks of a schedule; ``allow``: they may run beside each other.
OVERLAP = ("skip", "queue", "replace", "allow")
#: What becomes of ticks that nobody was there for; ``last`` is another word for ``latest``.
CATCHUP = ("none", "latest", "last", "all")
#: Missed ticks older than this are not made up for, unless the schedule says another window.
CATCHUP_WINDOW_S = 86400.0
#: So many missed ticks ``all`` makes up for, unless the schedule says another number.
CATCHUP_MAX = 100
CATCHUP_TICKS_MAX = 10_000
PRIORITY_MAX = 100
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|s|min|m|h|d|w)\s*)+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")


class Invalid(ValueError):
    """What is wrong with something an operator said, and with which key inside it; the words follow its name."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key


def duration_s(value: object) -> float:
    """Return the seconds that ``2h``, ``90s``, ``1h 30m`` or a plain number of seconds stands for; or ``Invalid``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(value))
    else:
        raise Invalid(f'is {_shown(value)}; write a duration such as "90s", "30 m" or "2h", or a number of seconds')
    if not 0 < seconds < float("inf"):
        raise Invalid(f"is {_shown(value)}; it must be longer than nothing and finite")
    return seconds


def _shown(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}…"


def _table(value: object, *known: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"is {_shown(value)}; write a table with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise Invalid(f"is not known; there are {', '.join(known)}", str(key))
    return value


def _within(value: object, key: str) -> float:
    try:
        return duration_s(value)
    except Invalid as invalid:
        raise Invalid(invalid.message, key) from None


class Catchup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of ticks that were missed: ``none`` of them run, the ``latest``, or ``all`` (the newest ``max``).

    Ticks older than ``window_s`` never run. All that do not are recorded."""

    policy: str = "latest"
    max: int = CATCHUP_MAX
    window_s: float = CATCHUP_WINDOW_S

    @classmethod
    def read(cls, value: object) -> Catchup:
        """Return what ``"latest"`` or ``{policy = "all", max = 10, window = "1d"}`` says; raises ``Invalid``."""
        if isinstance(value, str):
            value = {"policy": value}
        given = _table(value, "policy", "max", "window")
        policy, most = given.get("policy", "latest"), given.get("max", CATCHUP_MAX)
        if policy not in CATCHUP:
            raise Invalid(f"is {_shown(policy)}; write one of {', '.join(CATCHUP)}", "policy" if len(given) > 1 else "")
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= CATCHUP_TICKS_MAX:
            raise Invalid(f"is {_shown(most)}; write a whole number from 1 to {CATCHUP_TICKS_MAX:,}", "max")
        window_s = _within(given["window"], "window") if "window" in given else CATCHUP_WINDOW_S
        return cls(policy="latest" if policy == "last" else policy, max=most, window_s=window_s)

    def chosen(self, missed: Sequence[float], now: float) -> list[float]:
        """Return those of the ``missed`` ticks, in order, that run now."""
        recent = [tick for tick in missed if now - tick <= self.window_s]
        most = {"none": 0, "all": self.max}.get(self.policy, 1)
        return recent[-most:] if most else []


def expect(value: object) -> dict[str, float]:
    """Return the fields of a schedule that ``{start_within = "5m", finish_within = "2h"}`` means; or ``Invalid``."""
    given = _table(value, "start_within", "finish_within")
    return {f"{key}_s": _within(within, key) for key, within in given.items()}


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a flow runs by itself. ``key`` tells it from all others, whatever its name becomes."""

    key: str = ""
    name: str = ""
    flow: str = ""  # id or name
    cron: str = ""
    timezone: str = "UTC"
    inputs: msgspec.Raw = msgspec.Raw(b"{}")
    catchup: Catchup = Catchup()
    overlap: str = ""  # one of OVERLAP: what if the execution of an earlier tick has not ended; empty is ``skip``
    start_within_s: float | None = None  # of the tick; else somebody is told
    finish_within_s: float | None = None
    is_enabled: bool = True


class Concurrency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """At most ``limit`` executions of a flow at a time; with a ``key``, of those whose inputs have the same there."""

    limit: int = 1
    key: str = ""  # such as ``inputs.customer``
    when_full: str = ""  # one of WHEN_FULL; empty is ``queue``

    def lane(self, flow_id: str, inputs: Any) -> str:
        """Return which executions count together with one that has these inputs.

        What the key finds may be a secret, so only its digest is in the record."""
        if not self.key:
            return flow_id
        found: Any = inputs
        for part in self.key.split(".")[1:]:
            found = found.get(part) if isinstance(found, dict) else None
        text = msgspec.json.encode(found, order="sorted")
        return f"{flow_id}:{hashlib.sha256(text).hexdigest()[:20]}"


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flow that failed is run again, ``attempts`` times in all, after a while that grows.

    ``on``: only after these failures, told by the name of the exception or the reason of the end (``timeout``)."""

    attempts: int = 3
    delay_s: float = 10.0
    factor: float = 2.0
    max_s: float = 3600.0
    jitter: float = 0.0  # by which part of itself a while may be longer or shorter
    on: tuple[str, ...] = ()

    def covers(self, failure: str, reason: str) -> bool:
        """Return whether an end with this exception and this reason is tried again."""
        return not self.on or failure.rpartition(".")[2] in self.on or failure in self.on or reason in self.on

    def delay_before_s(self, retry: int, chance: float) -> float:
        """Return how long to wait before the ``retry``-th one (from 1); ``chance`` is random, from 0 to 1."""
        try:
            grown = self.delay_s * self.factor ** (retry - 1)
        except OverflowError:
            grown = self.max_s
        return max(0.0, min(grown, self.max_s) * (1.0 + self.jitter * (2.0 * chance - 1.0)))


class Policies(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a flow's metadata says of this kind."""

    schedules: tuple[Schedule, ...] = ()
    concurrency: Concurrency | None = None
    retry: Retry | None = None
    on_failure: str = ""  # names of flows that are told of the end
    on_success: str = ""
    priority: int = 0  # higher ones are let in first
    max_memory: int = 0  # bytes that its process may use; 0: whatever the machine gives
    tags: tuple[str, ...] = ()


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of it all was decided about an execution when it was made; it counts whatever the flow says later."""

    schedule: str = ""  # the key of the schedule whose tick it is of
    due: str = ""  # that tick (RFC 3339)
    lane: str = ""  # only so many of one lane run at a time
    when_full: str = ""  # what if they do
    priority: int = 0
    max_memory: int = 0  # bytes
    tags: tuple[str, ...] = ()
    retry: int = 0  # so many attempts were before it
    retry_of: str = ""  # the first of them
    rerun_of: str = ""  # the execution that somebody had repeated
    rerun_trace: str = ""  # that one in its trace (W3C Trace Context)
    follows: str = ""  # the execution of whose end this one is told
    not_before: float | None = None  # seconds since the epoch


#: Nothing was decided: events leave it out.
NO_TERMS = Terms()
