"""All sources of a daemon, each kept up to date by a loop of its own, and asked as one.

Owns: which source a name, a commit or a change belongs to, and the status of all together. One source that cannot be
reached, or is wrong, holds up none of the others. The source without a prefix keeps its files in the state directory
itself, as if it were the only one, the others in ``sources/<prefix>``. Called by the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from ..engine import errors, events, ports
from . import catalogue, environments, git, loop, plan, union, versions
from .source import Source

log = structlog.get_logger()

_STATES = ("ok", "syncing", "starting", "degraded")  # what is worse comes later


class SyncStatus(loop.SourceStatus, frozen=True, kw_only=True):
    """Where sync stands: the only source, or all of them, the worst first of all; ``sources`` has each by itself."""

    sources: tuple[loop.SourceStatus, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """Where a flow lies, or lay: in the history that ends with the commit ``tip``, at ``path``."""

    versions: versions.Versions
    path: str
    tip: str


class Sources:
    """Keeps everything that is published up to date. All methods belong to the event loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        state: Path,
        *,
        publications: ports.Publications,
        commits_in_use: ports.CommitsInUse,
        clock: ports.Clock,
        has_cluster: bool,
        packages: environments.Packages | None = None,
    ) -> None:
        self._environments = environments.Environments(state / "envs", packages or environments.Packages(), clock)
        self._loops = {
            source.prefix: loop.Synchroniser(
                source,
                state / "sources" / source.prefix if source.prefix else state,
                publications=publications,
                commits_in_use=commits_in_use,
                clock=clock,
                installed=self._environments,
            )
            for source in checked(sources)
        }
        parts = {prefix: one.flows for prefix, one in self._loops.items()}
        self.flows = union.Union(parts, has_cluster=has_cluster)
        self.authoring = Authoring(self._loops)

    async def start(self, published: Mapping[str, events.CommitPublished]) -> None:
        """Put what was published last back in place; ``published`` is name of a source → its last commit."""
        await asyncio.to_thread(self._environments.open)
        for one in self._loops.values():
            await one.start(published.get(one.source.name))

    async def run(self) -> None:
        """Sync now and then for ever, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for prefix, one in self._loops.items():
                group.create_task(one.run(), name=f"sync {prefix}".strip())

    def nudge(self, reason: str, prefix: str | None = None) -> None:
        """Have the source of that prefix, or each, looked at soon."""
        for one in self._chosen(prefix):
            one.nudge(reason)

    async def sync_now(self, timeout: float) -> SyncStatus:
        """Look at each source and return the status after it, or the one so far when ``timeout`` seconds are over."""
        return self._together(await asyncio.gather(*(one.sync_now(timeout) for one in self._loops.values())))

    async def plan(self) -> list[plan.Plan]:
        """Return what the next sync of each source would do; raises ``SourceUnavailable``."""
        return await asyncio.gather(*(one.plan() for one in self._loops.values()))

    async def commit(self, flow: str, ref: str) -> str:
        """Return the commit to run a flow from: ``ref`` itself if it is one, else where that branch or tag points.

        Raises what ``Workshop.preview`` says."""
        if not ref or git.is_sha(ref):
            return ref
        return await self._loops[self._prefix(flow)].preview(ref)

    async def python(self, venv: str, commit: str) -> str:
        """Return the interpreter of an environment; see ``ports.Environments``."""
        if not venv:
            return ""
        if not self._environments.has(venv):
            log.warning("environment.lost", environment=venv, commit=commit)
            for one in self._loops.values() if self._environments.may_try(venv) else ():
                await one.install(venv, commit)
        if not self._environments.has(venv):
            said = self._environments.reason(venv)
            raise errors.NotAccepting(
                f"the environment {venv} of packages is not here{said and f': {said}'}",
                hint="run the flow as published now",
            )
        return str(self._environments.python(venv))

    def status(self) -> SyncStatus:
        """Return where sync stands."""
        return self._together(self.statuses())

    def statuses(self) -> list[loop.SourceStatus]:
        """Return where each source stands."""
        return [one.status() for one in self._loops.values()]

    def sources(self, commit: str) -> list[tuple[str, bytes]]:
        """Return the Python files of a commit by path, also of one whose snapshot is gone (blocking); maybe none."""
        return next((found for one in self._loops.values() if (found := one.sources(commit))), [])

    def versions(self, prefix: str) -> versions.Versions:
        """Return the history of the source with that prefix. Everything of it blocks."""
        return self._loops[prefix].versions

    def place(self, name: str) -> Place:
        """Return where a flow lies, or a former one must have lain; raises ``NotFound`` before anything is there."""
        try:
            flow = self.flows.current().find(name)
            prefix, path = flow.source, catalogue.path_now(flow)
        except errors.NotFound:
            prefix = self._prefix(name)
            path = f"{union.unprefixed(prefix, name)}.py"
        one = self._loops[prefix]
        tip = one.flows.current().commit
        if not tip:
            raise errors.NotFound("nothing is published yet")
        return Place(one.versions, path, tip)

    def _together(self, each: Sequence[loop.SourceStatus]) -> SyncStatus:
        """Return one status for all: what is worst, and whose it is."""
        fields = msgspec.structs.asdict(each[0])
        if len(each) == 1:
            warnings = union.joined([*self.flows.warnings.items(), *each[0].warnings.items()])
            return SyncStatus(**(fields | {"warnings": warnings}))
        worst = max(each, key=lambda one: _STATES.index(one.state))
        of = f"{worst.source}: " if worst.error else ""
        current = self.flows.current()
        told = [(union.prefixed(one.prefix, path), text) for one in each for path, text in one.warnings.items()]
        broken = [(union.path_of(flow), flow.broken) for flow in current.flows.values() if flow.broken]
        fields |= {
            "state": worst.state,
            "error": f"{of}{worst.error}",
            "hint": worst.hint,
            "rejected": worst.rejected,
            "doing": next((f"{one.source}: {one.doing}" for one in each if one.doing), ""),
            "last_success_at": min(one.last_success_at for one in each),
            "flows": len(current.flows),
            "broken": tuple(msgspec.structs.replace(mark, file=path) for path, mark in broken),
            "problems": current.problems,
            "warnings": union.joined([*self.flows.warnings.items(), *told]),
        }
        return SyncStatus(**fields, sources=tuple(each))

    def _prefix(self, name: str) -> str:
        try:
            return self.flows.current().find(name).source
        except errors.NotFound:
            return union.owner(self._loops, name)

    def _chosen(self, prefix: str | None) -> list[loop.Synchroniser]:
        return [one for its, one in self._loops.items() if prefix in (None, its)]


class Authoring:
    """Changes flows in the source that they come from; see ``ports.Authoring``."""

    def __init__(self, loops: Mapping[str, loop.Synchroniser]) -> None:
        self._loops = loops

    async def save_flow(self, name: str, script: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """See ``ports.Authoring``."""
        there, own = self._owner(name)
        return await there.save_flow(own, script, author=author, message=message, on_behalf_of=on_behalf_of)

    async def delete_flow(self, name: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """See ``ports.Authoring``."""
        there, own = self._owner(name)
        return await there.delete_flow(own, author=author, message=message, on_behalf_of=on_behalf_of)

    async def rename_flow(
        self, name: str, new_name: str, *, author: str, message: str = "", on_behalf_of: str = ""
    ) -> str:
        """See ``ports.Authoring``."""
        (there, own), (other, new) = self._owner(name), self._owner(new_name)
        if there is not other:
            raise errors.InvalidRequest(
                f"{name!r} and {new_name!r} are in different sources",
                hint="save it under the new name, and delete the old one",
            )
        return await there.rename_flow(own, new, author=author, message=message, on_behalf_of=on_behalf_of)

    async def published(self, timeout_s: float) -> bool:
        """See ``ports.Authoring``."""
        return all(await asyncio.gather(*(one.authoring.published(timeout_s) for one in self._loops.values())))

    def _owner(self, name: str) -> tuple[ports.Authoring, str]:
        prefix = union.owner(self._loops, name)
        if prefix not in self._loops:
            raise errors.InvalidRequest(f"no source has flows called {name!r}")
        return self._loops[prefix].authoring, union.unprefixed(prefix, name) or name


def checked(sources: Sequence[Source]) -> Sequence[Source]:
    """Return the sources if they go together, the one without a prefix first; raises ``ConfigurationInvalid``."""
    prefixes = [source.prefix for source in sources]
    if prefixes.count("") != 1:
        raise errors.ConfigurationInvalid(
            "of several sources exactly one has no prefix", hint='give each of the others a line prefix = "…"'
        )
    for number, source in enumerate(sources):
        for other in sources[:number]:
            if source.prefix == other.prefix:
                raise errors.ConfigurationInvalid(f"two sources have the prefix {source.prefix!r}")
            if source.url == other.url and source.folder != other.folder:
                # Executions are pinned to a commit, and that would stand for two different trees.
                raise errors.ConfigurationInvalid(
                    f"two sources are the repository {other.name} with different paths",
                    hint="name it once, without a path or with one that holds both",
                )
    return sorted(sources, key=lambda source: bool(source.prefix))
