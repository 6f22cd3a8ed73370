"""Several sources seen as one catalogue: the flows of a source with a prefix are called ``prefix/name``.

Owns: which flow a name means. Beside a pinned commit, names are looked up in the catalogue of that commit first, with
or without the source's own prefix, so that a repository's flows call each other alike whether it has a prefix or not;
then among all that is published now. Where two sources claim one name, webhook or record, the one that is configured
first has it, and the other is told so. Lives on the event loop; called by the engine and the daemon through
``ports.Flows``, and put together by ``sources``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..engine import errors, model, policy
from .manifests import Published

#: Declared records that name a flow of their own source.
_NAMING = ("schedule", "webhook")


def prefixed(prefix: str, name: str) -> str:
    """Return what a flow of a source is called among all sources."""
    return f"{prefix}/{name}" if prefix else name


def unprefixed(prefix: str, name: str) -> str | None:
    """Return what a flow is called in its own source, None if it is not of that source."""
    if not prefix:
        return name
    return name.removeprefix(f"{prefix}/") if name.startswith(f"{prefix}/") else None


class Union:
    """What all sources have published; see ``ports.Flows``."""

    def __init__(self, parts: Mapping[str, Published], *, has_cluster: bool) -> None:
        """``parts`` is prefix → what that source publishes, in the order in which they come first. ``has_cluster``:
        flows may run elsewhere than on this machine."""
        self._parts = parts
        self._has_cluster = has_cluster
        self._current = model.Catalogue()
        self.warnings: dict[str, str] = {}  # path → what the file asks for and does not get
        self.watchers: list[Callable[[], None]] = []  # told when another catalogue is published
        for part in parts.values():
            part.watchers.append(self._renew)

    def current(self) -> model.Catalogue:
        """Return what is published now."""
        return self._current

    def find(self, name: str, commit: str = "") -> model.Flow:
        """Return the flow as published with ``commit`` (else as published now); raises ``NotFound``."""
        for prefix, part in self._parts.items() if commit else ():
            then = part.of(commit)
            if then is None:
                continue
            for called in filter(None, dict.fromkeys((unprefixed(prefix, name), name))):
                try:
                    return _named(prefix, then.find(called))
                except errors.NotFound:
                    pass  # newer than that commit, or of another source
        return self._current.find(name)

    def snapshot(self, commit: str) -> Path:
        """Return the folder with the files of a published commit; raises ``NotFound`` if it is not kept any more."""
        *others, last = self._parts.values()
        for part in others:
            if part.has(commit):
                return part.snapshot(commit)
        return last.snapshot(commit)

    def kept(self, source: str = "") -> list[model.Kept]:
        """Return the published commits of a source that may still be run, the newest first. Blocking."""
        return self._parts[source].kept() if source in self._parts else []

    def _renew(self) -> None:
        self._current = merged({prefix: part.current() for prefix, part in self._parts.items()})
        found = [*missing(self._current), *([] if self._has_cluster else misplaced(self._current))]
        self.warnings = joined((one.path, f"{one.key}: {one.reason}") for one in found)
        for told in self.watchers:
            told()


def merged(parts: Mapping[str, model.Catalogue]) -> model.Catalogue:
    """Return the catalogue of all sources together; that of one without a prefix is itself."""
    there = {prefix: part for prefix, part in parts.items() if part.commit}
    if list(parts) == [""] or not there:
        return next(iter(parts.values()))
    flows: dict[str, model.Flow] = {}
    hooks: dict[str, str] = {}
    declared: dict[str, dict[str, model.Declared]] = {}
    problems: list[model.Broken] = []
    for prefix, part in there.items():
        for flow in (_named(prefix, one) for one in part.flows.values()):
            if flow.name in flows:
                said = f"the source with the prefix {flows[flow.name].source!r} has a flow of the name {flow.name!r}"
                problems.append(model.Broken(reason=said, file=path_of(flow), line=0, commit=part.commit))
            else:
                flows[flow.name] = _with_webhook(flow, hooks)
        for kind, named in part.declared.items():
            mine = declared.setdefault(kind, {})
            for name, one in named.items():
                if name in mine:
                    said = f"another source declares {name!r} too, and comes first"
                    file = prefixed(prefix, one.path)
                    problems.append(model.Broken(reason=said, file=file, line=0, commit=part.commit))
                else:
                    named_so = _of_own_flow(prefix, one, part) if kind in _NAMING else one
                    mine[name] = msgspec.structs.replace(named_so, source=prefix)
        problems += [msgspec.structs.replace(problem, file=prefixed(prefix, problem.file)) for problem in part.problems]
    first = next(iter(there.values()))
    return model.Catalogue(
        source=first.source,
        ref=first.ref,
        commit=first.commit,
        published_at=max(part.published_at for part in there.values()),
        flows=dict(sorted(flows.items())),
        declared=declared,
        problems=tuple(problems),
        venv=first.venv,
        commits={prefix: part.commit for prefix, part in there.items()},
    )


class Unmet(msgspec.Struct, frozen=True):
    """What the file at ``path`` asks for with ``key`` and does not get."""

    path: str
    key: str
    reason: str


def missing(known: model.Catalogue) -> Iterator[Unmet]:
    """Return the flows that others are to run and that are not there: told, sent for, or declared to be run."""
    named = [
        (flow, path_of(flow), key, target)
        for flow in known.flows.values()
        for key in ("on_failure", "on_success")
        if (target := getattr(flow.metadata.policies, key))
    ]
    for flow, path, key, target in named:
        if prefixed(flow.source, target) not in known.flows:
            yield from _missed(known, path, key, target)
    for records in known.declared.values():
        for one in records.values():
            if "flow_name" in one.fields:
                path, target = prefixed(one.source, one.path), msgspec.json.decode(one.fields["flow_name"])
                yield from _missed(known, path, "flow_name", target)


def _missed(known: model.Catalogue, path: str, key: str, target: str) -> Iterator[Unmet]:
    try:
        known.find(target)
    except errors.NotFound as error:
        yield Unmet(path, key, error.message)


def misplaced(known: model.Catalogue) -> Iterator[Unmet]:
    """Return the flows that want a place on a cluster; for where there is none."""
    for flow in known.flows.values():
        wants = flow.metadata.policies.placement
        if wants != policy.ANYWHERE and wants.worker != policy.LOCAL:
            key = "worker" if wants.worker else "resources"
            yield Unmet(path_of(flow), key, "there is no cluster here, so it runs on this machine")


def joined(warnings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return path → text of warnings, all of one path in one text."""
    texts: dict[str, list[str]] = {}
    for path, text in warnings:
        texts.setdefault(path, []).append(text)
    return {path: "; ".join(found) for path, found in texts.items()}


def path_of(flow: model.Flow) -> str:
    """Return the path of a flow's newest file among all sources."""
    return prefixed(flow.source, flow.broken.file if flow.broken else flow.path)


def _named(prefix: str, flow: model.Flow) -> model.Flow:
    return msgspec.structs.replace(flow, name=prefixed(prefix, flow.name), source=prefix) if prefix else flow


def _with_webhook(flow: model.Flow, hooks: dict[str, str]) -> model.Flow:
    """Return the flow, without its webhook if another source's flow has that name."""
    hook = flow.metadata.webhook
    if hook is None or hooks.setdefault(hook.name, flow.name) == flow.name:
        return flow
    said = f"the webhook {hook.name!r} belongs to the flow {hooks[hook.name]!r} of another source"
    mark = model.Broken(reason=said, file=flow.path, line=0, commit=flow.commit, key="webhook")
    without = msgspec.structs.replace(flow.metadata, webhook=None)
    return msgspec.structs.replace(flow, metadata=without, broken=flow.broken or mark)


def _of_own_flow(prefix: str, one: model.Declared, part: model.Catalogue) -> model.Declared:
    """Return a schedule or webhook with the name that the flow it means has among all sources."""
    name: Any = msgspec.json.decode(one.fields["flow_name"]) if prefix and "flow_name" in one.fields else None
    if not isinstance(name, str) or name not in part.flows:
        return one
    full = msgspec.Raw(msgspec.json.encode(prefixed(prefix, name)))
    return msgspec.structs.replace(one, fields={**one.fields, "flow_name": full})


def owner(prefixes: Iterable[str], name: str) -> str:
    """Return the prefix of the source that a flow of this name belongs to: the longest that fits."""
    return max((prefix for prefix in prefixes if unprefixed(prefix, name) is not None), key=len, default="")
