"""What executions wish for and what a cluster has: as a Ray task's options, or in words why they do not meet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .. import policy

#: The label of nodes that a flow's ``worker`` names.
LABEL = "worker"


class Node(msgspec.Struct, frozen=True):
    """A machine of the cluster as Ray last told of it."""

    id: str
    host: str
    alive: bool
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}


def ray_options(wants: policy.Placement, cpu: float) -> dict[str, Any]:
    """Return the options of a Ray task."""
    options: dict[str, Any] = {"name": "headrace", "num_cpus": cpu if wants.cpu is None else wants.cpu}
    if wants.gpu:
        options["num_gpus"] = wants.gpu
    if wants.memory:
        options["memory"] = wants.memory
    if wants.resources:
        options["resources"] = wants.resources
    if wants.worker:
        options["label_selector"] = {LABEL: wants.worker}
    return options


def missing(wants: policy.Placement, cpu: float, nodes: Sequence[Node]) -> str:
    """Return what no node of the cluster has, in words; empty if one has all of it."""
    needs = {"CPU": cpu if wants.cpu is None else wants.cpu, "GPU": wants.gpu, "memory": float(wants.memory)}
    needs |= wants.resources
    alive = [each for each in nodes if each.alive]
    labelled = [each for each in alive if not wants.worker or each.labels.get(LABEL) == wants.worker]
    if not labelled:
        return f"no node has the label worker={wants.worker}" if wants.worker else "the cluster has no nodes"
    if not any(all(each.resources.get(name, 0) >= amount for name, amount in needs.items()) for each in labelled):
        told = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount)
        return f"no node{f' with the label worker={wants.worker}' if wants.worker else ''} has {told}"
    return ""
