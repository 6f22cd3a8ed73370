"""From one catalogue to the next: which flows a commit offers, and which version of each runs. Pure.

Owns: the manifest (a catalogue with what sync needs to make the next one), flow ids that survive renames, and the last
good version of a broken flow. Refuses: two flows with one webhook. What a commit declares beside flows comes from
``declarations``. Called by ``candidate``; what it makes is written and served by ``manifests``.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ..engine import model
from . import check, declarations, lineage, requirements, tree
from .documents import Document
from .places import USUAL, Places


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was published with a commit, complete enough to run from and to build the next one on."""

    catalogue: model.Catalogue
    needs: tuple[str, ...] = ()  # commits that broken flows and declarations still come from
    venvs: tuple[str, ...] = ()  # environments that flows and scripts run in
    folder: str = ""  # the subfolder the snapshot was made of
    rules: str = ""  # of the checks
    files: dict[str, str] = {}  # path → blob of everything in the snapshot
    warnings: dict[str, str] = {}  # path → what people should know about that file


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit about to be catalogued. ``renames`` asks git for new path → old path, ``alike`` whether one content (by
    its sha) could be an edit of another; both only when that can matter."""

    sha: str
    source: str
    ref: str
    at: str
    folder: str
    plan: tree.Plan
    verdicts: Mapping[str, check.Verdict]
    renames: Callable[[], Mapping[str, str]]
    alike: Callable[[str, str], bool]
    documents: Mapping[str, Document] = msgspec.field(default_factory=dict)
    places: Places = USUAL
    venv: str = ""  # of scripts
    notes: Mapping[str, str] = msgspec.field(default_factory=dict)  # file → what is wrong with it
    moved: Mapping[str, str] = msgspec.field(default_factory=dict)  # new path → old path, as we moved them ourselves


def new_id() -> str:
    """Return a random flow id: 26 letters and digits, never reused."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def rules(places: Places) -> str:
    """Return what a manifest must have been made under so that it need not be made again."""
    return f"{check.RULES} {places.rules}".strip()


def files_to_check(
    previous: Manifest | None, plan: tree.Plan, places: Places, moved: Mapping[str, str]
) -> list[tree.Entry]:
    """Return the files without a good verdict: new, changed and moved ones, and all that had something wrong."""
    files = [entry for entry in plan.files if places.may_be_flow(entry.path)]
    if previous is None or previous.rules != rules(places):
        return files
    blobs = plan.blobs()
    if any(previous.files.get(shared) != blobs.get(shared) for shared in requirements.FILES):
        return files
    doubtful = {path_now(flow) for flow in previous.catalogue.flows.values() if flow.broken}
    doubtful |= previous.warnings.keys() | moved.keys() | set(moved.values())
    return [entry for entry in files if entry.path in doubtful or previous.files.get(entry.path) != entry.blob]


def documents_to_read(previous: Manifest | None, plan: tree.Plan, places: Places) -> list[tree.Entry]:
    """Return the declaring files that are not known well already, likewise."""
    if previous is None or previous.rules != rules(places):
        previous = Manifest(catalogue=model.Catalogue())
    return declarations.files_to_read(previous.catalogue, previous.files, previous.warnings, plan, places)


def path_now(flow: model.Flow) -> str:
    """Return where the newest version of ``flow`` lies, which may be a broken one."""
    return flow.broken.file if flow.broken else flow.path


def build(previous: Manifest | None, commit: Commit) -> Manifest:
    """Return the manifest of ``commit``. Known flows keep their ids, broken ones also their last good version."""
    before = {path_now(flow): flow for flow in previous.catalogue.flows.values()} if previous else {}
    flows = _flows(previous, before, commit)
    hooks = {flow.metadata.webhook.name: flow.name for flow in flows if flow.metadata.webhook}
    gathered = declarations.gather(
        previous.catalogue if previous else model.Catalogue(),
        declarations.Commit(
            sha=commit.sha, plan=commit.plan, places=commit.places, documents=commit.documents, webhooks=hooks
        ),
    )
    declared = {one.commit for named in gathered.declared.values() for one in named.values()}
    return Manifest(
        catalogue=model.Catalogue(
            source=commit.source,
            ref=commit.ref,
            commit=commit.sha,
            published_at=commit.at,
            flows={flow.name: flow for flow in flows},
            declared=gathered.declared,
            problems=gathered.problems,
            venv=commit.venv,
        ),
        venvs=tuple(sorted(({flow.venv for flow in flows} | {commit.venv}) - {""})),
        needs=tuple(sorted(({flow.commit for flow in flows} | declared) - {commit.sha})),
        folder=commit.folder,
        rules=rules(commit.places),
        files=commit.plan.blobs(),
        warnings=_warnings(flows, gathered, commit),
    )


def _flows(previous: Manifest | None, before: Mapping[str, model.Flow], commit: Commit) -> list[model.Flow]:
    """Return the flows of ``commit`` by name."""
    origins = lineage.origins(
        previous.files if previous else {},
        before.keys(),
        lineage.Arrivals(
            files=commit.plan.blobs(),
            left_out=commit.plan.left_out.keys(),
            may_be_flow=commit.places.may_be_flow,
            meant_as_flow={path for path, verdict in commit.verdicts.items() if verdict.meant_as_flow},
            moved=commit.moved,
            renames=commit.renames,
            alike=commit.alike,
        ),
    )
    moved_away = set(origins.values())
    flows = []
    for entry in commit.plan.files:
        if commit.places.may_be_flow(entry.path):
            # A path whose flow went elsewhere begins anew, whatever lies there now.
            old = None if entry.path in moved_away else before.get(entry.path)
            flow = _next(before.get(origins[entry.path]) if entry.path in origins else old, entry, commit)
            if flow is not None:
                flows.append(flow)
    for path, reason in commit.plan.left_out.items():
        if path in before and commit.places.may_be_flow(path):
            flows.append(_broken(before[path], path, commit, check.Verdict(reason=reason)))
    flows = _settle_webhooks(flows, {flow.id: flow for flow in before.values()}, commit)
    return sorted(flows, key=lambda flow: flow.name)


def same_ids(manifest: Manifest, known: Manifest | None, previous: Manifest | None) -> Manifest:
    """Return ``manifest`` with the ids that its new flows were given when this very commit was catalogued before.

    It was run without being published, or we died before it was announced."""
    if known is None:
        return manifest
    old = {flow.id for flow in previous.catalogue.flows.values()} if previous else set()
    given = {flow.path: flow.id for flow in known.catalogue.flows.values() if flow.id not in old}
    flows = {
        name: msgspec.structs.replace(flow, id=given[flow.path]) if flow.id not in old and flow.path in given else flow
        for name, flow in manifest.catalogue.flows.items()
    }
    return msgspec.structs.replace(manifest, catalogue=msgspec.structs.replace(manifest.catalogue, flows=flows))


def is_same(one: Manifest, other: Manifest) -> bool:
    """Return whether two manifests of one commit say the same."""
    return msgspec.structs.replace(one.catalogue, published_at=other.catalogue.published_at) == other.catalogue


def broken(manifest: Manifest) -> list[model.Broken]:
    """Return what is wrong, by file."""
    found = [flow.broken for flow in manifest.catalogue.flows.values() if flow.broken]
    return sorted(found, key=lambda one: one.file)


def _next(old: model.Flow | None, entry: tree.Entry, commit: Commit) -> model.Flow | None:
    """Return the flow at ``entry``, or None for a file that is none and was none."""
    verdict = commit.verdicts.get(entry.path)
    if verdict is None:  # not looked at, because it is as it was
        return msgspec.structs.replace(old, commit=commit.sha) if old else None
    if verdict.handler and not verdict.reason:
        return model.Flow(
            id=old.id if old else new_id(),
            name=check.flow_name(entry.path),
            path=entry.path,
            commit=commit.sha,
            blob=entry.blob,
            metadata=verdict.metadata,
            venv=verdict.venv,
        )
    if not verdict.reason:
        verdict = msgspec.structs.replace(
            verdict, reason="there is no `handler` any more: define it, or delete the file or move it out of the way"
        )
        return _broken(old, entry.path, commit, verdict) if old else None
    if old is None and not verdict.meant_as_flow:
        return None
    return _broken(old, entry.path, commit, verdict, blob=entry.blob)


def _broken(old: model.Flow | None, path: str, commit: Commit, verdict: check.Verdict, *, blob: str = "") -> model.Flow:
    """Return the last good version of a flow, marked; or, where none was ever seen, a flow that cannot run."""
    mark = model.Broken(reason=verdict.reason, file=path, line=verdict.line, commit=commit.sha, key=verdict.key)
    if old is not None and old.broken is not None:
        same = msgspec.structs.replace(old.broken, commit=commit.sha) == mark
        mark = old.broken if same else mark  # the commit that broke it tells more than the latest one
    name = check.flow_name(path)
    if old is not None and old.runnable:
        return msgspec.structs.replace(old, name=name, broken=mark)
    return model.Flow(
        id=old.id if old else new_id(), name=name, path=path, commit=commit.sha, blob=blob, broken=mark, runnable=False
    )


def _settle_webhooks(flows: Iterable[model.Flow], before: Mapping[str, model.Flow], commit: Commit) -> list[model.Flow]:
    """Give each webhook to one flow: to the one that had it, else to the first by name. The others are broken."""

    def claim(flow: model.Flow) -> tuple[bool, str]:
        old = before.get(flow.id)
        had = old is not None and old.metadata.webhook is not None and flow.metadata.webhook is not None
        return (not (had and old.metadata.webhook.name == flow.metadata.webhook.name), flow.name)  # type: ignore[union-attr]

    owners: dict[str, str] = {}
    settled = []
    for flow in sorted(flows, key=claim):
        hook = flow.metadata.webhook
        owner = owners.setdefault(hook.name, flow.name) if hook else flow.name
        if hook is None or owner == flow.name:
            settled.append(flow)
            continue
        verdict = check.Verdict(reason=f"the webhook {hook.name!r} belongs to the flow {owner!r}", key="webhook")
        settled.append(_broken(before.get(flow.id), path_now(flow), commit, verdict, blob=flow.blob))
    return settled


def _warnings(flows: Iterable[model.Flow], gathered: declarations.Declarations, commit: Commit) -> dict[str, str]:
    """Return what people should know about files that are no flows: left out, or helpers that cannot be imported."""
    listed = {path_now(flow) for flow in flows} | {problem.file for problem in gathered.problems}
    warnings = {path: reason for path, reason in commit.plan.left_out.items() if path not in listed}
    for path, verdict in commit.verdicts.items():
        if verdict.reason and path not in listed:
            warnings[path] = f"line {verdict.line}: {verdict.reason}"
    return dict(sorted((warnings | gathered.warnings | dict(commit.notes)).items()))
