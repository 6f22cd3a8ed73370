"""The daemon, put together: what is started in which order, and stopped in the opposite one.

``run`` is the whole life of a daemon. One task group is the tree of the process: a helper that dies unexpectedly takes
the daemon down, and the service manager starts it again; recovery is the same path as any start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import structlog

from .. import __version__
from ..engine import errors, events, ids, moments, ports
from ..engine.records import blobs, index, journal, places, sweeping
from ..engine.running import (
    carrying,
    contents,
    dispatcher,
    expectations,
    extract,
    kept,
    live,
    outside,
    pruning,
    schedules,
)
from ..engine.state import age, masks, sealed, secrets
from ..engine.workers import cluster, processes
from ..sync import source as sync_source
from ..sync import sources
from ..tasks import folders, registry, vault_client
from . import (
    api,
    authoring,
    bulk,
    caretaker,
    commit_statuses,
    config,
    entrance,
    execution_pages,
    exports,
    flow_history,
    flow_pages,
    health,
    history_pages,
    limits,
    logs,
    message_pages,
    messages,
    metrics,
    openapi,
    ownership,
    pages,
    pushes,
    reach,
    record_pages,
    records,
    reloading,
    retention,
    routes,
    runs,
    server,
    service,
    service_manager,
    stage,
    stream,
    surroundings,
    sync_pages,
    task_pages,
    timetable,
    unfinished,
    value_pages,
    verbosity,
    webhooks,
    workers,
)

try:
    import uvloop
except ImportError:  # an extra: without it everything is the same, and slower
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

log = structlog.get_logger()

#: After a start there is something to do; what only saves somebody a wait comes so much later.
_LEISURE_S = 1.0
#: What an execution leaves behind has no cycles and is freed without the garbage collector, so there is little to find:
#: to look for it after every 700 new objects, as by default, takes a twentieth of the time.
_YOUNG_MAX = 20_000
#: So many executions for each core are begun at the same time; see ``engine.running.slots``.
_NEW_PER_CORE = 4
_CORES = len(os.sched_getaffinity(0))


class SystemClock:
    """The machine's clock; see ``ports.Clock``."""

    def time(self) -> float:
        """Wall-clock seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never step back."""
        return time.monotonic()


class Publications:
    """Announces commits in the journal; see ``ports.Publications``."""

    def __init__(self, lines: journal.Journal) -> None:
        self._journal = lines

    async def publish(self, event: events.CommitPublished | events.CommitRejected) -> str:
        """Record it; on return it is durable."""
        at = self._journal.append(event)
        await self._journal.durable()
        return at


def run(
    settings: config.Configuration,
    manager: service_manager.ServiceManager,
    read: Callable[[], config.Configuration],
    *,
    accept_loss: bool = False,
) -> int:
    """Run the daemon until it is told to stop and return the process's exit code; ``manager`` hears how it is.

    ``read`` returns the settings as they would be at a start now. ``accept_loss``: begin even if the records hold less
    than once was on disk."""
    logs.configure(settings.log_format, settings.log_level)
    try:
        with ownership.locked(settings.state_directory), asyncio.Runner(loop_factory=new_event_loop) as runner:
            folders.of_daemon(settings.state_directory).clear()
            return runner.run(_live(settings, manager, read=read, accept_loss=accept_loss))
    except errors.HeadraceError as error:
        return _failed(error)
    except BaseExceptionGroup as group:  # a helper died; what is not an error of ours is a defect and shown whole
        ours, others = group.split(errors.HeadraceError)
        if ours is None or others is not None:
            raise
        return _failed(_first(ours))


def _failed(error: errors.HeadraceError) -> int:
    log.error("daemon.failed", reason=error.message, hint=error.hint or None)
    return error.exit_code


def _first(group: BaseExceptionGroup[errors.HeadraceError]) -> errors.HeadraceError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _live(settings: config.Configuration, manager: service_manager.ServiceManager, **given: Any) -> int:
    return await serve(settings, manager, stage.of_this_process(), **given)


class Parts(msgspec.Struct, frozen=True):
    """What a daemon consists of, between its journal and its front."""

    source: sync_source.Source
    synchroniser: sources.Sources
    tasks: registry.Registry
    work: dispatcher.Dispatcher
    hub: stream.Hub
    vaults: vault_client.Client
    figures: metrics.Metrics
    pruner: pruning.Pruner
    tellers: list[commit_statuses.Teller]
    schedules: schedules.Schedules
    pool: processes.Processes
    remote: cluster.Cluster | None

    async def aclose(self) -> None:
        """Let go of the connections that tasks keep."""
        await self.tasks.aclose()
        await self.vaults.aclose()


def _options(settings: config.Configuration, *, local_files: bool) -> outside.Options:
    """How executions are run here, as it is configured."""
    return outside.Options(
        max_running=settings.run_max_running,
        new_max=_NEW_PER_CORE * _CORES,
        quick_max=processes.TURNS_MAX * _CORES,
        cancel_grace_s=settings.run_cancel_grace_s,
        hibernate_after_s=settings.run_hibernate_after_s,
        allow_local_files=local_files,
        workspace=settings.identity_workspace,
        environment=settings.identity_environment,
        placing=surroundings.placing(settings),
    )


def _assemble(
    settings: config.Configuration,
    lines: journal.Journal,
    archive: index.Index,
    found: unfinished.Unfinished,
    pool: processes.Processes,
    remote: cluster.Cluster | None,
    cast: Callable[[ports.Tasks], ports.Tasks],
    figures: metrics.Metrics,
) -> Parts:
    """Put the rooms together; nothing is started yet."""
    source, *others = surroundings.sources(settings)
    tasks = registry.installed(surroundings.of_tasks(settings))
    vaults = vault_client.Client()
    known = masks.Masks()
    synchroniser = sources.Sources(
        [source, *others],
        settings.state_directory,
        publications=Publications(lines),
        commits_in_use=lambda: work.commits_in_use(),
        clock=SystemClock(),
        has_cluster=remote is not None,
        packages=settings.run_environments,
    )
    flows, folder = synchroniser.flows, settings.state_directory
    stores = contents.Contents(blobs.Blobs(folder / "blobs"), sealed.Sealed(folder / "sealed", known), known)
    ledger = live.Ledger(lines, stores, archive, surroundings.tracing(settings))
    work = dispatcher.Dispatcher(
        ledger,
        archive,
        found.kept,
        outside.Outside(flows, cast(tasks), synchroniser.authoring, vaults, synchroniser),
        pool,
        remote,
        clock=SystemClock(),
        new_id=ids.new_id,
        options=_options(settings, local_files=all(one.developer for one in (source, *others))),
    )
    encrypted = age.Keys(settings.secrets_age_identity, os.environ, lambda name: _encrypted(source, flows, name))
    work.keeper.use(secrets.Secrets(os.environ, known, work.keeper.vault_access, vaults, encrypted))
    lines.subscribe(figures.durable)
    pruner = pruning.Pruner(
        folder / "records",
        lines,
        ledger,
        archive,
        found.kept,
        carrying.Carrier(lines, ledger, archive, found.kept, found.published),
        sweeping.Sweeper(folder / "records", stores.files()),
        flows,
        SystemClock(),
        settings.records_keep_s,
    )
    ticking = _schedules(lines, ledger, found.kept, work, flows)
    synchroniser.flows.watchers += [work.lanes.reconsider, ticking.nudge]
    tellers = surroundings.tellers(settings)
    for teller in tellers:
        teller.start(found.published)
        lines.subscribe(teller.take)
    return Parts(
        source, synchroniser, tasks, work, stream.Hub(lines), vaults, figures, pruner, tellers, ticking, pool, remote
    )


def _schedules(
    lines: journal.Journal, ledger: live.Ledger, state: kept.Kept, work: dispatcher.Dispatcher, flows: ports.Flows
) -> schedules.Schedules:
    """The schedules, with what tells them of changes."""
    clock = SystemClock()
    expected = expectations.Expectations(ledger, state.ticks, flows, work.load, work.sequels.tell_late, clock)
    ticking = schedules.Schedules(lines, state.ticks, flows, work.keeper, work.submit, expected, clock)
    work.keeper.watchers.append(ticking.nudge)
    return ticking


def _encrypted(source: sync_source.Source, flows: ports.Flows, name: str) -> bytes:
    """Return an encrypted file of the folder ``secrets`` as it is published now."""
    commit = flows.current().commit
    if not commit:
        raise errors.NotFound("no commit is published yet")
    try:
        return (flows.snapshot(commit) / source.folder / "secrets" / name).read_bytes()
    except OSError as error:
        raise errors.NotFound(f"there is no secrets/{name} in the repository: {error.strerror}") from None


async def serve(
    settings: config.Configuration,
    manager: service_manager.ServiceManager,
    on: stage.Stage,
    *,
    read: Callable[[], config.Configuration] | None = None,
    accept_loss: bool = False,
) -> int:
    """Start everything, wait until it is time to stop, stop everything."""
    began = time.monotonic()
    manager.begin()
    figures = metrics.Metrics()
    async with (
        _records(settings, figures, accept_loss=accept_loss) as (lines, archive, found, care),
        surroundings.cluster(settings, SystemClock()) as remote,
        asyncio.TaskGroup() as group,
    ):
        care.start(group)
        watch_disk = group.create_task(_raise_when_done(lines.failed), name="journal")
        clock, folder, subtree = SystemClock(), settings.state_directory, surroundings.cgroup()
        pool = processes.Processes(clock, idle_max=settings.run_max_running, cores=_CORES, subtree=subtree)
        await pool.start()
        watch_pool = group.create_task(_raise_when_done(pool.failed), name="fork server")
        parts = _assemble(settings, lines, archive, found, pool, remote, on.cast, figures)
        source, synchroniser, work = parts.source, parts.synchroniser, parts.work
        await synchroniser.start(found.published)
        count = len(found.executions)
        lines.append(events.DaemonStarted(version=__version__, pid=os.getpid(), unfinished=count))
        work.start(group, list(found.executions.values()), found.loose, found.unreadable)
        found.executions.clear()  # they are the dispatcher's now
        ticking, *chores = _begin(group, parts, ticks=on.ticks)
        subjects = reach.Subjects(synchroniser.flows, work, work.asking)
        stands = surroundings.stands(settings, clock)
        door = entrance.Entrance(folder, subjects, clock, stands, parts.figures, lines.settled)
        turn = reloading.Reloading(settings, read or (lambda: settings), manager)
        keeping = [
            group.create_task(door.run(), name="entrance"),
            group.create_task(turn.run(on.reload), name="reload"),
        ]
        table = [*_front(turn, parts, archive, subjects, care), *door.table()]
        http = server.Server(openapi.described(table), door.desk, surroundings.patience(settings))
        url = await http.start(settings.listen_address, folder / "daemon.sock", settings.tls, manager.sockets)
        took_s = round(time.monotonic() - began, 3)
        log.info("daemon.ready", url=url, source=source.name, version=__version__, unfinished=count, duration_s=took_s)
        on.greet(url, door.announce(url), settings)
        turn.takers += [http.renewed, surroundings.introduces(stands.provider)]
        turn.status = f"listens on {url}"
        manager.ready(turn.status, lines.pulse)

        await on.stop.wait()

        log.info("daemon.stopping", running=work.unfinished)
        manager.stopping("lets what runs come to its end")
        parts.hub.close()
        ticking.cancel()
        await work.stop(turn.settings.run_stop_grace_s, refuse=not http.hand_over())
        await http.stop()
        keeping.pop(0).cancel()
        await door.close()
        for chore in (*keeping, *chores):
            chore.cancel()
        await parts.aclose()
        watch_pool.cancel()
        await pool.stop()
        lines.append(events.DaemonStopped(reason="asked to stop"))
        care.rest()
        watch_disk.cancel()
        manager.close()
    log.info("daemon.stopped")
    return 0


def _begin(group: asyncio.TaskGroup, parts: Parts, *, ticks: bool) -> list[asyncio.Task[None]]:
    """Begin what goes on by itself, the schedules first."""
    return [
        group.create_task(parts.schedules.run() if ticks else stage.rest(), name="schedules"),
        group.create_task(parts.synchroniser.run(), name="sync"),
        group.create_task(parts.pruner.run(), name="retention"),
        group.create_task(_load_types(parts.tasks), name="task types"),
        *(group.create_task(teller.run(), name="commit statuses") for teller in parts.tellers),
    ]


async def _load_types(tasks: registry.Registry) -> None:
    """Look for task types of other distributions when the first requests are over, so that no flow has to wait."""
    await asyncio.sleep(_LEISURE_S)
    await asyncio.to_thread(tasks.load_foreign)


@contextlib.asynccontextmanager
async def _records(
    settings: config.Configuration, figures: metrics.Metrics, *, accept_loss: bool
) -> AsyncIterator[tuple[journal.Journal, index.Index, unfinished.Unfinished, caretaker.Caretaker]]:
    """Open the journal and what is derived from it; close them when everything else is over."""
    found, known = unfinished.Unfinished(), places.Places()
    exporter = surroundings.span_exporter_of(settings, figures)

    def visit(recorded: events.Recorded) -> None:
        known.visit(recorded)
        found.visit(recorded)
        if exporter is not None:
            exporter.visit(recorded)

    state, directory = settings.state_directory, settings.state_directory / "records"
    gc.disable()  # what is folded stays; looking through it again and again costs a fifth of the time
    try:
        recovered = await asyncio.to_thread(caretaker.recover, state, visit, accept_loss=accept_loss)
    finally:
        gc.enable()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, *gc.get_threshold()[1:])
    found.unreadable = frozenset(recovered.unknown_executions)
    archive = await index.Index.open(state / "index.db", directory, recovered, known)
    lines = await journal.Journal.open(directory, SystemClock(), recovered=recovered)
    lines.subscribe(archive.absorb)
    care = caretaker.Caretaker(state, lines, recovered.instance, SystemClock())
    await care.begin()
    if exporter is not None:
        exporter.begin(recovered.instance, recovered.position.seq)
        lines.subscribe(exporter.take)
    try:
        yield lines, archive, found, care
    finally:
        await lines.close()
        if exporter is not None:
            await asyncio.to_thread(exporter.close)
        await care.close()
        await archive.close()


async def _raise_when_done(
    failure: asyncio.Future[errors.HeadraceError] | asyncio.Future[errors.JournalFailed],
) -> None:
    raise await failure


def _front(
    turn: reloading.Reloading,
    parts: Parts,
    archive: index.Index,
    subjects: reach.Subjects,
    care: caretaker.Caretaker,
) -> list[routes.Route]:
    """Every route but the entrance's."""
    settings, work, synchroniser, flows = turn.settings, parts.work, parts.synchroniser, parts.synchroniser.flows
    rate = limits.Rate(SystemClock(), webhooks.DELIVERIES_PER_S, webhooks.DELIVERIES_AT_ONCE)
    hooks = webhooks.Webhooks(work, work.keeper, allow_anonymous=settings.is_private, rate=rate, figures=parts.figures)
    interface = api.Api(work, archive, flows, parts.tasks, synchroniser, parts.hub, subjects)
    folder, upkeep = settings.state_directory, work.maintaining

    def notices() -> list[str]:
        return [*filter(None, [str(upkeep.state)]), *turn.notices, *care.notices()]

    vitals = health.Health(folder, work, archive, flows, synchroniser, parts.figures, notices)
    vitals.watch()
    loudness = verbosity.Verbosity(settings.log_format, settings.log_level, SystemClock())
    pushed = pushes.Pushes(synchroniser, surroundings.believed(settings))
    turn.takers += surroundings.followers(work, parts.pruner, loudness, pushed)
    since = moments.timestamp(time.time())
    again = runs.Runs(work, synchroniser, subjects)
    extracts = extract.Extracts(
        archive,
        folder / "records",
        blobs.Blobs(folder / "blobs"),
        lambda commit: synchroniser.sources(commit),
        settings.identity_workspace,
        settings.identity_environment,
    )
    writing = authoring.Authoring(flows, synchroniser)
    past = flow_history.FlowHistory(flows, synchroniser, writing)
    return [
        *vitals.table(),
        *service.Service(turn, loudness, upkeep, vitals, notices, work, parts.pool.subtree, since).table(),
        *interface.table(),
        *again.table(),
        *bulk.Bulk(work, archive, flows, subjects, again).table(),
        *timetable.Timetable(parts.schedules).table(),
        *exports.Exports(extracts).table(),
        *records.Records(work.keeper, work.locking).table(),
        *retention.Retention(parts.pruner).table(),
        *messages.Messages(work.asking, subjects).table(),
        *writing.table(),
        *past.table(),
        *history_pages.HistoryPages(flows, past, synchroniser.authoring).table(),
        *hooks.table(),
        *pushed.table(),
        *sync_pages.SyncPages(synchroniser).table(),
        *pages.Pages(work, archive, flows, synchroniser, subjects, folder).table(),
        *flow_pages.FlowPages(work, archive, flows, synchroniser, subjects).table(),
        *execution_pages.ExecutionPages(work, archive, flows, parts.hub, subjects).table(),
        *value_pages.ValuePages(work).table(),
        *message_pages.MessagePages(work.asking, subjects).table(),
        *record_pages.RecordPages(work.keeper, work.locking, flows, parts.schedules).table(),
        *task_pages.TaskPages(parts.tasks, work.keeper).table(),
        *workers.Workers(work, parts.remote).table(),
    ]
