"""The sync loop: keeps the catalogue at what the source holds, at its own pace.

Owns: when a pass is made (a latest-wins flag set by pushes, watchers and people; a poll timer with jitter; a back-off
after failures), the announcement of a commit and the swap of the catalogue, and the status that people see. Refuses:
unpublishing for want of news: whatever goes wrong is told, and what was published goes on running. The daemon starts
it with the last ``commit.published`` of the journal; executions never wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from ..engine import errors, events, model, moments, ports
from . import candidate, catalogue, environments, manifests, plan, requirements, versions, watch, write_back
from .source import Source

log = structlog.get_logger()

T = TypeVar("T")

_BACKOFF_FIRST_S = 5.0
_BACKOFF_MAX_S = 300.0
#: With a watcher at work, polling only covers what a watcher can miss.
_WATCHED_POLL_S = 60.0
_REFUSAL_HINT = "what was published before stays in force; mend it with another commit"


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one source stands. ``state``: starting, syncing, ok, or degraded (then ``error`` says why)."""

    source: str
    prefix: str = ""  # what the names of its flows begin with
    ref: str = ""
    commit: str = ""
    published_at: str = ""
    state: str = "starting"
    doing: str = ""  # what takes long now
    last_attempt_at: str = ""
    last_success_at: str = ""
    error: str = ""
    hint: str = ""
    rejected: str = ""  # the commit that is in the source and was refused
    flows: int = 0
    broken: tuple[model.Broken, ...] = ()
    problems: tuple[model.Broken, ...] = ()  # files that declare something and cannot be used
    warnings: dict[str, str] = {}


class Synchroniser:
    """Keeps ``flows`` up to date with one source. All methods belong to the event loop."""

    def __init__(
        self,
        source: Source,
        state: Path,
        *,
        publications: ports.Publications,
        commits_in_use: ports.CommitsInUse,
        clock: ports.Clock,
        installed: environments.Environments | None = None,
    ) -> None:
        self.flows = manifests.Published(state / "snapshots")
        self._source = source
        self._state = state
        self._publications = publications
        self._commits_in_use = commits_in_use
        self._clock = clock
        self._workshop = candidate.Workshop(source, state, clock, installed)
        self._environments = installed
        self._write_back = write_back.WriteBack(source, self._workshop, self)
        self._manifest: catalogue.Manifest | None = None
        self._rejected = ""  # the commit that was refused last and is still in the source
        self._refusal = ""
        self._cleaned_at = clock.monotonic()
        self._failures = 0
        self._status = SourceStatus(source=source.name, prefix=source.prefix, ref=source.ref)
        self._wanted = asyncio.Event()
        self._asked = 0
        self._answered = 0
        self._seen_through = 0
        self._after = self._status  # the latest pass that ended
        self._pass_done = asyncio.Condition()

    async def start(self, last: events.CommitPublished | None) -> None:
        """Put what was published last back in place, without asking the source. Call it before ``run``."""
        await self._in_thread("open", self._workshop.open)
        if last is None or last.source != self._source.name:
            return
        found = await self._in_thread("restore", functools.partial(self._workshop.restore, last))
        if found is None:
            log.error("sync.lost", commit=last.commit, hint="it comes back with the next successful sync")
        elif found.digest:
            log.warning("sync.restored", commit=last.commit)
            await self._publish(found)
        elif found.manifest is not None:
            self._put_in_place(found.manifest)

    async def run(self) -> None:
        """Sync now and then for ever, until cancelled."""
        watched = self._source.watched
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._passes(watched=watched is not None), name="sync.passes")
                if watched is not None:
                    watching = watch.watch(watched, self.nudge, ignored=self._state)
                    group.create_task(watching, name="sync.watch")
        finally:
            await self._write_back.close()

    @property
    def source(self) -> Source:
        """Where its flows come from."""
        return self._source

    def sources(self, commit: str) -> list[tuple[str, bytes]]:
        """Return the Python files of a commit by path, also of one whose snapshot is gone (blocking); see there."""
        return self._workshop.sources(commit)

    @property
    def authoring(self) -> ports.Authoring:
        """What changes flows in the source."""
        return self._write_back

    @property
    def versions(self) -> versions.Versions:
        """What was before, of every flow. Everything of it blocks."""
        return self._workshop.versions

    async def install(self, venv: str, commit: str) -> None:
        """Have an environment built again that somebody removed, if flows of that commit run in it."""
        if self._environments is not None:
            recipe = await self._in_thread("recipe", functools.partial(self._workshop.recipe, venv, commit))
            if recipe is not None:
                await self._built({recipe: ("an execution",)})

    @property
    def manifest(self) -> catalogue.Manifest | None:
        """What is published, with what sync knows beside the catalogue."""
        return self._manifest

    @property
    def asked(self) -> int:
        """How often a pass was asked for."""
        return self._asked

    @property
    def seen_through(self) -> int:
        """The asking that the last pass answered which could look at the source."""
        return self._seen_through

    def nudge(self, reason: str) -> None:
        """Ask for a pass soon. Many nudges make one pass; a nudge during a pass makes another one."""
        log.debug("sync.nudged", reason=reason)
        self._asked += 1
        self._wanted.set()

    async def sync_now(self, timeout: float) -> SourceStatus:
        """Ask for a pass and return the status after it, or the one so far when ``timeout`` seconds have gone by."""
        if self._environments is not None:
            self._environments.hurry()
        self.nudge("request")
        mine = self._asked
        await self.wait(lambda: self._answered >= mine, timeout)
        return self._after if self._answered >= mine else self.status()

    async def plan(self) -> plan.Plan:
        """Return what the next pass would do; raises ``SourceUnavailable``."""
        async with self._write_back.turn:
            return await self._in_thread("plan", functools.partial(self._workshop.plan, self._manifest))

    async def preview(self, ref: str) -> str:
        """Return the commit of another branch or tag, ready to run from; raises what ``Workshop.preview`` says."""
        settled = False
        while True:
            async with self._write_back.turn:
                look = functools.partial(self._workshop.preview, ref, self._manifest, settled=settled)
                found = await self._in_thread("preview", look)
            if not found.builds:
                return found.commit
            await self._built(found.builds)
            settled = True

    async def wait(self, condition: Callable[[], bool], timeout: float) -> None:
        """Return after the pass that makes ``condition`` true, or when ``timeout`` seconds have gone by."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._pass_done:
                await self._pass_done.wait_for(condition)

    def status(self) -> SourceStatus:
        """Return where the source stands."""
        doing = self._environments.progress if self._environments is not None else ""
        if not doing and self._manifest is None and self._status.state == "syncing":
            doing = f"fetching all of it for the first time, {self._workshop.fetched_bytes / 1e6:,.1f} MB so far"
        return msgspec.structs.replace(self._status, doing=doing) if doing else self._status

    async def _passes(self, *, watched: bool) -> None:
        while True:
            self._wanted.clear()
            asked = self._asked
            await self._pass()
            async with self._pass_done:
                self._answered, self._after = asked, self._status
                self._seen_through = self._seen_through if self._failures else asked
                self._pass_done.notify_all()
            try:
                async with asyncio.timeout(self._pause_s(watched=watched)):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    def _pause_s(self, *, watched: bool) -> float:
        """Return how long to wait for a nudge: the poll interval give or take, or the back-off after failures."""
        if self._failures:
            most = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
            return random.uniform(_BACKOFF_FIRST_S, most)  # noqa: S311 - spreads load, keeps no secret
        poll_s = max(self._source.poll_s, _WATCHED_POLL_S) if watched else self._source.poll_s
        return poll_s * random.uniform(0.9, 1.1)  # noqa: S311

    async def _pass(self) -> None:
        """Make one pass and tell how it went. Whatever fails in it, the next one starts afresh."""
        began = self._clock.monotonic()
        self._tell(state="syncing", last_attempt_at=moments.timestamp(self._clock.time()))
        error: Exception | None = None
        result = "unchanged"
        try:
            result = await self._sync()
        except errors.JournalFailed:
            raise  # the daemon has to go
        except Exception as caught:  # noqa: BLE001 - one bad commit or a full disk must not end sync, let alone runs
            error, result = caught, "failed"
        self._failures = self._failures + 1 if error else 0
        if error is None:
            self._tell(
                state="degraded" if self._rejected else "ok",
                last_success_at=moments.timestamp(self._clock.time()),
                rejected=self._rejected,
                error=self._refusal,
                hint=_REFUSAL_HINT if self._rejected else "",
            )
        else:
            self._tell(state="degraded", error=str(error), hint=getattr(error, "hint", ""))
        log.info(
            "sync.finished",
            result=result,
            commit=self._status.commit,
            flows=self._status.flows,
            broken=len(self._status.broken),
            problems=len(self._status.problems),
            error=self._status.error,
            duration_s=round(self._clock.monotonic() - began, 4),
            exc_info=error if error is not None and not isinstance(error, errors.HeadraceError) else None,
        )

    async def _sync(self) -> str:
        """Bring the catalogue to what the source holds and say what that meant."""
        found, changes = await self._prepared()
        if found is not None and found.rejected:
            await self._reject(found)
            return "rejected"
        if found is not None:
            self._rejected = self._refusal = ""
        if found is None or found.manifest is None:
            self._write_back.settle(changes if found is not None else 0)
            if self._clock.monotonic() - self._cleaned_at > candidate.GRACE_S:
                await self._clean()
            return "unchanged"
        await self._publish(found)
        self._write_back.settle(changes)
        await self._clean()
        return "published"

    async def _prepared(self) -> tuple[candidate.Candidate | None, int]:
        """Return what the source holds, ready, and how many of our own changes it holds. Nobody who writes a flow
        waits while environments are built."""
        settled = False
        while True:
            async with self._write_back.turn:
                changes, moved = self._write_back.pending()
                prepare = functools.partial(self._workshop.prepare, self._manifest, self._rejected, moved)
                found = await self._in_thread("prepare", functools.partial(prepare, settled=settled))
            if found is not None and found.rewritten:
                log.warning("sync.history_rewritten", commit=found.commit, ref=found.ref)
            if found is None or not found.builds:
                return found, changes
            await self._built(found.builds)
            settled = True

    async def _built(self, builds: Mapping[requirements.Recipe, Sequence[str]]) -> None:
        assert self._environments is not None
        await self._in_thread("build", functools.partial(self._environments.build, builds))

    async def _publish(self, found: candidate.Candidate) -> None:
        """Announce a commit whose snapshot and manifest are durable, then let everybody see it."""
        assert found.manifest is not None
        flows = found.manifest.catalogue.flows.values()
        await self._publications.publish(
            events.CommitPublished(
                source=self._source.name,
                commit=found.commit,
                ref=found.ref,
                previous=self._manifest.catalogue.commit if self._manifest else "",
                flows=len(flows),
                broken=sum(flow.broken is not None for flow in flows),
                manifest_sha256=found.digest,
            )
        )
        self._put_in_place(found.manifest)

    async def _reject(self, found: candidate.Candidate) -> None:
        if found.commit == self._rejected and self._refusal.endswith(found.rejected):
            return  # it was tried again
        await self._publications.publish(
            events.CommitRejected(source=self._source.name, commit=found.commit, ref=found.ref, reason=found.rejected)
        )
        self._rejected = found.commit
        self._refusal = f"commit {found.commit[:12]} was refused: {found.rejected}"

    async def _clean(self) -> None:
        """Remove what nothing needs any more. Failing here costs disk, nothing else."""
        self._cleaned_at = self._clock.monotonic()
        if self._manifest is None:
            return
        in_use = await self._commits_in_use()
        try:
            async with self._write_back.turn:
                await self._in_thread("clean", functools.partial(self._workshop.clean, self._manifest, in_use))
        except (errors.HeadraceError, OSError) as error:
            log.warning("sync.cleaning_failed", error=str(error))

    def _put_in_place(self, manifest: catalogue.Manifest) -> None:
        self._manifest = manifest
        self.flows.swap(manifest.catalogue)
        self._tell(
            ref=manifest.catalogue.ref,
            commit=manifest.catalogue.commit,
            published_at=manifest.catalogue.published_at,
            flows=len(manifest.catalogue.flows),
            broken=tuple(catalogue.broken(manifest)),
            problems=manifest.catalogue.problems,
            warnings=manifest.warnings,
        )

    def _tell(self, **changes: object) -> None:
        self._status = msgspec.structs.replace(self._status, **changes)

    async def _in_thread(self, name: str, work: Callable[[], T]) -> T:
        """Do blocking work in a thread. When cancelled, have git break off and leave only after the thread did."""
        running = asyncio.create_task(asyncio.to_thread(work), name=f"sync.{name}")
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._workshop.interrupt()
            await asyncio.wait([running])
            running.exception()  # looked at, so that nobody complains: breaking off is what was wanted
            raise
