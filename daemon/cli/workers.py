"""The verb ``workers``: the machines that flow processes run on."""

from __future__ import annotations

from typing import Any

import click

from ..client import Client
from . import options, render

_KNOWN = {"CPU": "cpu", "GPU": "gpu"}


@click.command()
@options.reaches_daemon
@options.as_json
def workers(client: Client, *, as_json: bool) -> None:
    """The machines that flow processes run on, and what runs where."""
    found = client.workers()
    if as_json:
        render.json_object(found)
        return
    if (cluster := found["cluster"]) is not None:
        state = cluster["reason"] or "reached"
        render.say(f"Ray cluster {cluster['address']}: {state}, {cluster['waiting']} executions wait for a place")
    rows = [
        (
            (each["host"], "bold"),
            each["id"][:12],
            "alive" if each["alive"] else "gone",
            _amounts(each["resources"]),
            ", ".join(f"{name}={value}" for name, value in each["labels"].items() if not name.startswith("ray.io/")),
            str(len(each["running"])),
            ", ".join(f"{one['flow_name']} {one['execution_id']}" for one in each["running"]),
        )
        for each in found["items"]
    ]
    render.table(["HOST", "ID", "IS", "HAS", "LABELS", "RUNS", "EXECUTIONS"], rows, cut=["EXECUTIONS", "HAS"])


def _amounts(resources: dict[str, Any]) -> str:
    """Return resources in words."""
    told = []
    for name, amount in sorted(resources.items()):
        if name == "memory":
            told.append(f"{amount / 2**30:.3g} GiB")
        else:
            told.append(f"{amount:g} {_KNOWN.get(name, name)}")
    return ", ".join(told)
