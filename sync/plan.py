"""What publishing a commit would change, told beforehand. Pure.

Called by ``candidate`` for ``headrace sync --dry-run``; nothing of it is published, exported or kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from ..engine import model
from . import catalogue, check


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one flow, or of one thing that the repository declares: ``kind`` is flow, setting, schedule, …

    ``before`` is what a renamed flow was called."""

    kind: str
    name: str
    change: Literal["added", "changed", "renamed", "removed", "broken", "mended"]
    before: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the next sync of a source would do: ``result`` is publish, reject (``reason`` says why) or unchanged."""

    source: str
    prefix: str = ""
    ref: str
    commit: str
    published: str  # the commit that is in force now; empty for none
    result: Literal["publish", "reject", "unchanged"]
    reason: str = ""
    rewritten: bool = False  # the history does not contain what was there before
    changes: tuple[Change, ...] = ()
    broken: tuple[model.Broken, ...] = ()
    problems: tuple[model.Broken, ...] = ()
    warnings: dict[str, str] = {}


def changes(before: model.Catalogue, after: model.Catalogue) -> tuple[Change, ...]:
    """Return what is different, by kind and name."""
    found = [*_of_flows(before, after), *_of_declared(before.declared, after.declared)]
    return tuple(sorted(found, key=lambda one: (one.kind != "flow", one.kind, one.name)))


def _of_flows(before: model.Catalogue, after: model.Catalogue) -> Iterator[Change]:
    was = {flow.id: flow for flow in before.flows.values()}
    for flow in after.flows.values():
        old = was.pop(flow.id, None)
        if old is None:
            yield Change(kind="flow", name=flow.name, change="broken" if flow.broken else "added")
            continue
        if _called(old) != _called(flow):
            yield Change(kind="flow", name=_called(flow), change="renamed", before=_called(old))
        if flow.broken and not old.broken:
            yield Change(kind="flow", name=flow.name, change="broken")
        elif old.broken and not flow.broken:
            yield Change(kind="flow", name=flow.name, change="mended")
        elif (old.blob, old.metadata, old.venv) != (flow.blob, flow.metadata, flow.venv):
            yield Change(kind="flow", name=flow.name, change="changed")
    for flow in was.values():
        yield Change(kind="flow", name=flow.name, change="removed")


def _called(flow: model.Flow) -> str:
    return check.flow_name(catalogue.path_now(flow))


def _of_declared(
    before: Mapping[str, Mapping[str, model.Declared]], after: Mapping[str, Mapping[str, model.Declared]]
) -> Iterator[Change]:
    for kind in before.keys() | after.keys():
        old, new = before.get(kind, {}), after.get(kind, {})
        for name in old.keys() | new.keys():
            if name not in new:
                yield Change(kind=kind, name=name, change="removed")
            elif name not in old:
                yield Change(kind=kind, name=name, change="added")
            elif old[name].digest != new[name].digest:
                yield Change(kind=kind, name=name, change="changed")
