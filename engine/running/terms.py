"""The terms on which a new execution of a flow runs: what its metadata says, and what its sender decides. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .. import model, policy

#: Lanes of schedules whose flow has no limit of its own: one execution at a time.
SCHEDULE_LANE = "schedule "


def of_flow(flow: model.Flow, inputs: Callable[[], Any], asked: policy.Terms | None = None) -> dict[str, Any]:
    """Return the fields of ``execution.created`` that ``flow`` decides; ``inputs`` are decoded if they matter.

    ``asked``: what the sender decides, such as whose tick this is and what becomes of it if too many run."""
    said = flow.metadata
    return {
        "flow_id": flow.id,
        "flow_name": flow.name,
        "commit": flow.commit,
        "path": flow.path,
        "venv": flow.venv,
        "timeout_s": said.timeout_s,
        "reuse": said.reuse,
        "on_interrupt": said.on_interrupt,
        "strict_replay": said.strict_replay,
        "retention_time_s": said.retention_s,
        "terms": _terms(flow, inputs, asked or policy.NO_TERMS),
    }


def _terms(flow: model.Flow, inputs: Callable[[], Any], asked: policy.Terms) -> policy.Terms:
    said = flow.metadata.policies
    lane, when_full = "", ""
    overlap = "" if asked.when_full == "allow" else asked.when_full or ("skip" if asked.schedule else "")
    if said.concurrency is not None:
        lane = said.concurrency.lane(flow.id, inputs() if said.concurrency.key else None)
        usual = said.concurrency.when_full or ("skip" if asked.schedule and overlap else "queue")
        when_full = asked.when_full if asked.when_full in policy.WHEN_FULL else usual
    elif asked.schedule and overlap:
        lane, when_full = SCHEDULE_LANE + asked.schedule, overlap
    found = msgspec.structs.replace(
        asked,
        lane=lane,
        when_full=when_full,
        priority=said.priority,
        max_memory=said.max_memory,
        placement=said.placement,
        tags=said.tags,
    )
    return policy.NO_TERMS if found == policy.NO_TERMS else found
