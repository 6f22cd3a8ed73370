"""What the settings mean for the daemon's surroundings: where flows come from, what tasks may do, who stands in front,
who lets people in, how patient it is with connections, where traces go; and who follows them when they change. Called
by ``app``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from ..engine import errors, ports, traces
from ..engine.guest import cgroups
from ..engine.running import dispatcher, pruning
from ..engine.running import placing as running_placing
from ..engine.workers import cluster as workers_cluster
from ..sync import forge
from ..sync import source as sync_source
from ..tasks import definition, egress, folders, local
from . import (
    commit_statuses,
    config,
    connections,
    entrance,
    front,
    metrics,
    oidc,
    pushes,
    reloading,
    span_exporter,
    verbosity,
)
from . import tracing as said_of_traces

log = structlog.get_logger()

_WAITING = "spans that have ended and are not sent"


def sources(settings: config.Configuration) -> list[sync_source.Source]:
    """Return where flows come from, the source without a prefix first."""
    return [_source(each) for each in settings.each_source()]


def _source(settings: config.Configuration) -> sync_source.Source:
    return sync_source.parse(
        settings.source_url,
        prefix=settings.source_prefix,
        ref="" if settings.source_ref == "HEAD" else settings.source_ref,
        path=settings.source_path,
        poll_s=settings.source_poll_s or float(10 * 365 * 86400),
        policy=settings.source_policy,
        ssh_key=settings.source_ssh_key,
        known_hosts=settings.source_known_hosts,
        token_file=settings.source_token_file,
        user=settings.source_user,
        github_app=settings.source_github_app,
        write_back=settings.source_write_back,
        preview=settings.source_preview,
        verify=settings.source_verify,
        folders=settings.source_folders,
    )


def of_tasks(settings: config.Configuration) -> definition.Settings:
    """Return what the operator decides for all task types."""
    return definition.Settings(
        egress=egress.Egress(deny_private=settings.tasks_public_only),
        local=settings.tasks_local or local.Local(),
        folders=folders.of_daemon(settings.state_directory),
    )


def cgroup() -> cgroups.Subtree:
    """Take the part of the tree of cgroups that the service manager gave this service, if it did."""
    found = cgroups.claim()
    if found.path:
        log.info("cgroup.taken", path=found.path, controllers=found.controllers)
    else:
        log.info("cgroup.not_granted", reason=found.reason)
    return found


@contextlib.asynccontextmanager
async def cluster(settings: config.Configuration, clock: ports.Clock) -> AsyncIterator[workers_cluster.Cluster | None]:
    """Give the cluster that flows run on, if there is to be one."""
    if settings.run_executor is None:
        yield None
        return
    found = workers_cluster.Cluster(settings.run_executor.options(), clock)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def placing(settings: config.Configuration) -> running_placing.Options:
    """Return which executions run there."""
    said = settings.run_executor
    if said is None:
        return running_placing.Options()
    return running_placing.Options(every_flow=said.flows == "all", max_running=said.max_running)


def believed(settings: config.Configuration) -> list[pushes.Believed]:
    """Return the sources whose forges' events are believed, with their secrets."""
    found = []
    for each in settings.each_source():
        file = each.source_push.secret_file if each.source_push else settings.push_secret
        if file:
            secret = Path(file).read_text().strip()
            found.append(pushes.Believed(each.source_prefix, secret, each.source_ref))
    return found


def tellers(settings: config.Configuration) -> list[commit_statuses.Teller]:
    """Return what tells forges of their commits."""
    found = []
    each = settings.each_source()
    prefixes = [one.source_prefix for one in each]
    for one in each:
        if (said := one.source_statuses) is not None:
            source = _source(one)
            found.append(commit_statuses.Teller(said, source, prefixes, _forge_token(said, source)))
    return found


def _forge_token(said: commit_statuses.Statuses, source: sync_source.Source) -> Callable[[], str]:
    file = said.token_file or source.token_file
    if not file and source.github_app is not None:
        return forge.AppTokens(source.github_app, source.url).token
    if not file:
        raise errors.ConfigurationInvalid(
            "source.statuses has no token", hint="name a `token_file`, or let a GitHub App in with source.github_app"
        )
    return lambda: Path(file).read_text().strip()


def stands(settings: config.Configuration, clock: ports.Clock) -> entrance.Options:
    """Return where the daemon stands, and who else lets people in."""
    behind_proxy = settings.listen_behind_proxy
    return entrance.Options(
        private=settings.is_private,
        secure=bool(settings.tls) or behind_proxy,
        front=front.Front(settings.access_proxy, behind_proxy=behind_proxy, address=settings.listen_address),
        provider=_provider(settings, clock),
    )


def _provider(settings: config.Configuration, clock: ports.Clock) -> oidc.Provider | None:
    if settings.access_oidc is None:
        return None
    return oidc.Provider(settings.access_oidc, client_secret(settings), clock)


def client_secret(settings: config.Configuration) -> str:
    """Return the secret that this daemon has at the OpenID provider; empty if it has none."""
    said = settings.access_oidc
    file = (said.client_secret_file if said else "") or settings.oidc_client_secret
    return Path(file).read_text().strip() if said and file else ""


def followers(
    work: dispatcher.Dispatcher, pruner: pruning.Pruner, loudness: verbosity.Verbosity, pushed: pushes.Pushes
) -> list[reloading.Taker]:
    """Return what has these follow the settings."""

    def run(now: config.Configuration) -> Callable[[], None]:
        return lambda: work.adjust(
            max_running=now.run_max_running,
            cancel_grace_s=now.run_cancel_grace_s,
            hibernate_after_s=now.run_hibernate_after_s,
        )

    def keep(now: config.Configuration) -> Callable[[], None]:
        return lambda: setattr(pruner, "keep_s", now.records_keep_s)

    def tell(now: config.Configuration) -> Callable[[], None]:
        return lambda: loudness.configure(now.log_format, now.log_level)

    def believe(now: config.Configuration) -> Callable[[], None]:
        secrets = believed(now)
        return lambda: setattr(pushed, "believed", secrets)

    return [run, keep, tell, believe]


def introduces(provider: oidc.Provider | None) -> reloading.Taker:
    """Return what has the provider know this daemon by the secret as it is now."""

    def take(now: config.Configuration) -> Callable[[], None]:
        secret = client_secret(now)
        return lambda: setattr(provider, "secret", secret) if provider is not None else None

    return take


def patience(settings: config.Configuration) -> connections.Patience:
    """Behind a proxy everybody comes from one address: counting by address is the proxy's business there."""
    return connections.Patience(per_address=0 if settings.is_private or settings.listen_behind_proxy else 100)


def tracing(settings: config.Configuration) -> traces.Tracing:
    """Return which executions begin a trace, and where people see it."""
    return said_of_traces.decided(settings.traces_export, settings.traces_link, os.environ)


def span_exporter_of(settings: config.Configuration, figures: metrics.Metrics) -> span_exporter.SpanExporter | None:
    """Return what sends spans, if they are wanted."""
    if settings.traces_export is None or said_of_traces.is_off(os.environ):
        figures.gauge("headrace_spans_waiting", _WAITING, lambda: 0)
        return None
    made = span_exporter.SpanExporter(
        settings.traces_export, settings.state_directory, settings.identity_environment, figures.spans
    )
    figures.gauge("headrace_spans_waiting", _WAITING, lambda: made.waiting)
    return made
