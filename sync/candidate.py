"""The next commit made ready for publication: everything of a sync pass that blocks.

Owns: the order of one pass (fetch, check, snapshot, manifest, pin), the restoring of what was published after a
restart, the removal of what nothing needs any more, and the hand-over of edits to what writes them. Every step of a
pass may be repeated after a crash at any point: until the event is recorded, the new commit is only some files beside.
Refuses: a commit whose tree or files break a rule, by returning it as rejected. Called by ``loop`` and ``write_back``
in a worker thread, one call at a time.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import structlog

from ..engine import errors, events, model, moments, ports
from . import (
    catalogue,
    check,
    documents,
    edits,
    environments,
    git,
    manifests,
    plan,
    requirements,
    snapshot,
    tree,
    verification,
)
from .branch import Branch
from .folder import Folder
from .mirror import MirrorDamaged
from .remote import Fetched, Remote
from .source import Source
from .versions import Versions
from .working_tree import WorkingTree

log = structlog.get_logger()

#: What was current this recently stays, whether or not anything runs on it: requests are under way.
GRACE_S = 3600.0
#: Of the lines of two contents, so many in common make one of them an edit of the other.
_ALIKE = 0.5


#: What the files of a commit are, and what they say of packages for all.
Judged = tuple[Mapping[str, check.Verdict], requirements.Shared]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A commit that is durable and complete and only needs to be announced (``manifest``), or that will not be
    published (``rejected`` says why), or whose flows need environments first (``builds``: each with what it is for),
    or, with none of them, the one that is published already."""

    commit: str
    ref: str
    rewritten: bool = False
    manifest: catalogue.Manifest | None = None
    digest: str = ""
    rejected: str = ""
    builds: Mapping[requirements.Recipe, tuple[str, ...]] = msgspec.field(default_factory=dict)


class Workshop:
    """Makes candidates from one source in one state directory. Without somewhere to install packages, whether they
    could be is left open."""

    def __init__(
        self, source: Source, state: Path, clock: ports.Clock, installed: environments.Environments | None = None
    ) -> None:
        self._source = source
        self._clock = clock
        self._origin = WorkingTree(source, state) if source.developer else Remote(source, state)
        self._mirror = self._origin.mirror
        self._desk = (
            Branch(self._origin) if isinstance(self._origin, Remote) else Folder(Path(source.url), source.folder)
        )
        self._state = state
        self._verifier = (
            verification.Verifier(source.verify, self._mirror.git, state / "gnupg") if source.verify else None
        )
        self._moved: Mapping[str, str] = {}
        self.versions = Versions(self._mirror, source.prefix)
        self._seen = 0  # of what became of environments, so much is in the catalogue
        self._environments = installed
        self.snapshots = state / "snapshots"
        if installed is not None:
            installed.users.append(lambda: manifests.venvs(self.snapshots))

    def open(self) -> None:
        """Make the folders and remove what a crash left half done."""
        self._state.mkdir(parents=True, exist_ok=True)
        self.snapshots.mkdir(exist_ok=True)
        snapshot.sweep(self.snapshots)
        self._desk.sweep()

    def prepare(
        self,
        published: catalogue.Manifest | None,
        rejected: str = "",
        moved: Mapping[str, str] | None = None,
        *,
        settled: bool = False,
    ) -> Candidate | None:
        """Look at the source and make its commit ready; None if that is still the one that was ``rejected``.

        ``moved`` is new path → old path of flows that were renamed through us since ``published``. ``settled``: the
        ``builds`` it asked for before were tried, and what failed is to stay so. Raises
        ``SourceUnavailable`` when there is nothing to be had now. A damaged mirror is replaced once."""
        self._moved = moved or {}
        try:
            return self._prepare(published, rejected, settled=settled)
        except git.Stopping:
            raise
        except errors.HeadraceError as failure:
            self._origin.forget()
            damaged = isinstance(failure, MirrorDamaged)
            if not damaged and not (isinstance(failure, git.GitFailed) and self._mirror.is_damaged()):
                raise
            self._mirror.rebuild(failure.message)
        return self._prepare(published, rejected, settled=settled)

    def plan(self, published: catalogue.Manifest | None) -> plan.Plan:
        """Look at the source and return what ``prepare`` would make of it. Leaves nothing but objects in the mirror."""
        self._moved = {}
        fetched = self._origin.fetch()
        before = published.catalogue if published else model.Catalogue()
        told = plan.Plan(
            source=self._source.name,
            prefix=self._source.prefix,
            ref=fetched.ref,
            commit=fetched.commit,
            published=before.commit,
            result="publish",
            rewritten=fetched.rewritten,
        )
        if self._is_published(fetched.commit, published):
            return msgspec.structs.replace(told, result="unchanged")
        if refusal := self._refusal(fetched, published):
            return msgspec.structs.replace(told, result="reject", reason=refusal)
        try:
            files = tree.plan(self._mirror.entries(fetched.commit))
        except tree.TreeRefused as refused:
            return msgspec.structs.replace(told, result="reject", reason=refused.message)
        manifest = self._catalogued(fetched, files, published, self._judged(files, published))
        broken, problems = catalogue.broken(manifest), manifest.catalogue.problems
        reason = _told([*broken, *problems]) if self._source.policy == "strict" and (broken or problems) else ""
        return msgspec.structs.replace(
            told,
            result="reject" if reason else "publish",
            reason=reason,
            changes=plan.changes(before, manifest.catalogue),
            broken=tuple(broken),
            problems=problems,
            warnings=manifest.warnings,
        )

    def preview(self, ref: str, published: catalogue.Manifest | None, *, settled: bool = False) -> Candidate:
        """Make the commit that an allowed branch or tag points at ready to run from, or say what it ``builds`` on.

        Only its executions see it. It goes when nothing runs on it and an hour has gone by. A commit's name is not
        taken for a ref: forges give out by name what anybody proposed to them. Raises ``NotAllowed``,
        ``SourceUnavailable``, and ``Conflict`` if it would be refused."""
        allowed = self._source.preview.refs if self._source.preview else ()
        if not any(fnmatch.fnmatchcase(ref, pattern) for pattern in allowed):
            raise errors.NotAllowed(
                f"flows are not run from {ref[:200]!r}: it is neither a commit that is kept nor among the refs that "
                "source.preview allows",
                hint="name a commit that was published, or have source.preview allow the branch",
            )
        self._moved = {}
        fetched = self._origin.other(ref)
        if refusal := self._refusal(fetched, published):
            raise errors.Conflict(f"{ref!r} would be refused: {refusal}", hint="mend it with another commit")
        known = manifests.read(self.snapshots, fetched.commit)
        if self._is_published(fetched.commit, known):
            self._touch(fetched.commit)
            return Candidate(commit=fetched.commit, ref=fetched.ref)
        made = self._make(fetched, published, settled=settled)
        if made.rejected:
            raise errors.Conflict(f"{ref!r} would be refused: {made.rejected}", hint="mend it with another commit")
        return made

    def restore(self, last: events.CommitPublished) -> Candidate | None:
        """Return what was published last. ``digest`` is set if its manifest had to be made again.

        None: it is lost, and only the source can bring it back. Where only files are lost for good the catalogue
        comes back all the same, and the next pass takes the commit for one that is not published. git is asked only
        for what is not here: a start waits for this."""
        manifest = manifests.read(self.snapshots, last.commit, last.manifest_sha256)
        try:
            if manifest is None or manifest.folder != self._source.folder:
                # One that was written and never announced (we died in between) still knows the flows' ids.
                known = manifests.read(self.snapshots, last.commit) or manifests.read(self.snapshots, last.previous)
                self._mirror.ensure()
                return self._make(Fetched(last.commit, last.ref), known, again=True)
            for commit in self._lost(manifest):
                self._mirror.ensure()
                snapshot.remove(snapshot.folder_of(self.snapshots, commit))
                self._export(commit, tree.plan(self._mirror.entries(commit)), None)
        except (MirrorDamaged, tree.TreeRefused, git.GitFailed) as error:
            log.warning("sync.restore_failed", commit=last.commit, error=error.message)
        return Candidate(commit=last.commit, ref=last.ref, manifest=manifest) if manifest else None

    def sources(self, commit: str) -> list[tuple[str, bytes]]:
        """Return the Python files of a commit that was published once, by path; none if they are nowhere any more.

        The mirror has them for as long as the branch does, or longer. May be called from any thread."""
        top = snapshot.folder_of(self.snapshots, git.checked_sha(commit))
        with contextlib.suppress(FileNotFoundError):
            if top.is_dir():
                return [(path.relative_to(top).as_posix(), path.read_bytes()) for path in sorted(top.rglob("*.py"))]
        try:
            files = [entry for entry in tree.plan(self._mirror.entries(commit)).files if entry.path.endswith(".py")]
            contents = self._mirror.blobs([entry.blob for entry in files])
            return list(zip((entry.path for entry in files), contents, strict=True))
        except (MirrorDamaged, tree.TreeRefused, git.GitFailed) as error:
            log.warning("sync.sources_lost", commit=commit, error=error.message)
            return []

    def apply(self, edit: edits.Edit, note: edits.Note) -> str:
        """Have ``edit`` in the source and return its commit, if it is one. Raises what ``ports.Authoring`` says."""
        try:
            return self._desk.apply(edit, note)
        except edits.Stale as stale:
            raise errors.Conflict(stale.message, hint=stale.hint, diff=self._since(edit.path, stale)) from stale
        except git.Stopping as stopping:
            raise errors.NotAccepting(f"the change was broken off: {stopping.message}") from stopping
        except (git.GitFailed, MirrorDamaged) as failure:
            self._origin.forget()  # the next pass finds out what is wrong and mends it
            raise errors.SourceUnavailable(
                f"the change could not be written: {failure.message}", hint="try again in a moment"
            ) from failure

    def clean(self, current: catalogue.Manifest, in_use: Iterable[str]) -> None:
        """Remove snapshots, manifests and pins that nothing needs: not current, not used, not fresh."""
        kept = {current.catalogue.commit, *current.needs}
        for commit in in_use:
            kept |= {commit, *manifests.needs(self.snapshots, commit)}
        oldest = self._clock.time() - GRACE_S
        for path in self.snapshots.glob("*.json"):
            if path.stem not in kept and path.stat().st_mtime > oldest:
                kept |= {path.stem, *manifests.needs(self.snapshots, path.stem)}
        for path in self.snapshots.iterdir():
            if path.is_dir() and path.name not in kept and git.is_sha(path.name):
                snapshot.remove(path)
            elif path.suffix == ".json" and path.stem not in kept:
                path.unlink(missing_ok=True)
        if self._environments is not None:
            self._environments.clean()
        try:
            self._mirror.unpin([pin for pin in self._mirror.pins() if pin not in kept])
            self._mirror.tidy()
        except git.GitFailed:
            self._origin.forget()  # what a killed git left is swept before the next pass
            raise

    @property
    def fetched_bytes(self) -> int:
        """How much of the source is on this disk, as far as that can be said while it comes."""
        with contextlib.suppress(OSError):  # it is only being made, or swapped
            return sum(file.stat().st_size for file in os.scandir(self._mirror.directory / "objects" / "pack"))
        return 0

    def interrupt(self) -> None:
        """Break off what runs; from any thread, for an orderly stop."""
        if self._environments is not None:
            self._environments.interrupt()
        self._mirror.git.interrupt()

    def _since(self, path: str, stale: edits.Stale) -> str:
        """Return what somebody else did to the file; nothing where the mirror does not know what it was."""
        known = {"": b"", stale.found: stale.content} if stale.content is not None else {"": b""}
        try:
            before, after = (
                known[sha] if sha in known else b"".join(self._mirror.blobs([sha])) for sha in (stale.base, stale.found)
            )
        except (MirrorDamaged, git.GitFailed):
            return ""
        return edits.difference(path, before, after)

    def recipe(self, venv: str, commit: str) -> requirements.Recipe | None:
        """Return what an environment was made of that flows of a kept commit run in; None if they run in no such."""
        manifest = manifests.read(self.snapshots, commit)
        known = manifest.catalogue if manifest is not None else model.Catalogue()
        lists = [flow.metadata.dependencies for flow in known.flows.values() if flow.venv == venv]
        if not lists and known.venv != venv:
            return None
        folder = snapshot.folder_of(self.snapshots, commit)
        files = {name: (folder / name).read_bytes() for name in requirements.FILES if (folder / name).is_file()}
        with contextlib.suppress(requirements.Unusable):
            return requirements.shared(files).recipe(lists[0] if lists else None)
        return None

    def _prepare(self, published: catalogue.Manifest | None, rejected: str, *, settled: bool) -> Candidate | None:
        fetched = self._origin.fetch()
        if fetched.commit == rejected and not (settled or (self._environments and self._environments.is_due)):
            return None
        known = self._is_published(fetched.commit, published)
        if known and not settled and not self._may_be_mended(published):
            return Candidate(commit=fetched.commit, ref=fetched.ref)
        self._origin.told()
        if refusal := self._refusal(fetched, published):
            return Candidate(commit=fetched.commit, ref=fetched.ref, rewritten=fetched.rewritten, rejected=refusal)
        return self._make(fetched, published, known=known, settled=settled)

    def _refusal(self, fetched: Fetched, published: catalogue.Manifest | None) -> str:
        """Return why the signatures of a commit do not satisfy; nothing if they do, or none are asked for."""
        if self._verifier is None:
            return ""
        return self._verifier.refusal(fetched.commit, published.catalogue.commit if published else "")

    def _may_be_mended(self, published: catalogue.Manifest | None) -> bool:
        """Whether a flow that lacks its environment might get it now."""
        if self._environments is None or published is None:
            return False
        return self._environments.may_be_mended(published.catalogue, self._seen)

    def _is_published(self, commit: str, published: catalogue.Manifest | None) -> bool:
        return (
            published is not None
            and published.catalogue.commit == commit
            and (published.folder, published.rules) == (self._source.folder, catalogue.rules(self._source.places))
            and snapshot.folder_of(self.snapshots, commit).is_dir()
        )

    def _make(
        self,
        fetched: Fetched,
        previous: catalogue.Manifest | None,
        *,
        again: bool = False,
        known: bool = False,
        settled: bool = False,
    ) -> Candidate:
        """Check, export, catalogue and pin a commit that is in the mirror. ``known``: it is what is published."""
        about = Candidate(commit=fetched.commit, ref=fetched.ref, rewritten=fetched.rewritten)
        try:
            plan = tree.plan(self._mirror.entries(fetched.commit))
        except tree.TreeRefused as refusal:
            return msgspec.structs.replace(about, rejected=refusal.message)
        judged = self._judged(plan, previous)
        builds = {} if self._environments is None or again else self._environments.missing(*judged, retry=not settled)
        if builds:
            return msgspec.structs.replace(about, builds=builds)
        manifest = catalogue.same_ids(
            self._catalogued(fetched, plan, previous, judged), manifests.read(self.snapshots, fetched.commit), previous
        )
        if known and previous is not None and catalogue.is_same(manifest, previous):
            return about
        broken = [*catalogue.broken(manifest), *manifest.catalogue.problems]
        if self._source.policy == "strict" and not again and broken:
            return msgspec.structs.replace(about, rejected=_told(broken))
        if previous is not None:
            # Its grace begins when it is superseded, not when it was published.
            self._touch(previous.catalogue.commit)
        self._export(fetched.commit, plan, previous)
        digest = manifests.write(self.snapshots, manifest)
        self._mirror.pin(fetched.commit)
        return msgspec.structs.replace(about, manifest=manifest, digest=digest)

    def _catalogued(
        self,
        fetched: Fetched,
        plan: tree.Plan,
        previous: catalogue.Manifest | None,
        judged: Judged,
    ) -> catalogue.Manifest:
        verdicts, shared = judged
        installed = self._environments
        reason = installed.reason if installed is not None else lambda _: ""
        self._seen = installed.changes if installed is not None else 0
        default = reason(shared.default_id)

        def renames() -> Mapping[str, str]:
            old = previous.catalogue.commit if previous else ""
            return self._mirror.renames(old, fetched.commit) if old else {}

        places = self._source.places
        return catalogue.build(
            previous,
            catalogue.Commit(
                sha=fetched.commit,
                source=self._source.name,
                ref=fetched.ref,
                at=moments.timestamp(self._clock.time()),
                folder=self._source.folder,
                plan=plan,
                verdicts=environments.applied(verdicts, shared, reason),
                renames=renames,
                alike=self._alike,
                documents=self._documents(catalogue.documents_to_read(previous, plan, places)),
                places=places,
                moved=self._moved,
                venv=shared.default_id,
                notes=shared.problems | ({requirements.DEFAULT: default} if default else {}),
            ),
        )

    def _alike(self, old: str, new: str) -> bool:
        """Whether one content could be an edit of another: half of the lines are the same, in whatever order."""
        before, after = (content.splitlines() for content in self._mirror.blobs([old, new]))
        return difflib.SequenceMatcher(None, before, after, autojunk=False).quick_ratio() >= _ALIKE

    def _verdicts(self, files: list[tree.Entry]) -> dict[str, check.Verdict]:
        contents = self._mirror.blobs([entry.blob for entry in files])
        return check.check({entry.path: content for entry, content in zip(files, contents, strict=True)})

    def _judged(self, plan: tree.Plan, previous: catalogue.Manifest | None) -> Judged:
        places = self._source.places
        verdicts = self._verdicts(catalogue.files_to_check(previous, plan, places, self._moved))
        files = [entry for entry in plan.files if entry.path in requirements.FILES]
        contents = self._mirror.blobs([entry.blob for entry in files])
        said = {entry.path: content for entry, content in zip(files, contents, strict=True)}
        return verdicts, requirements.shared(said)

    def _documents(self, files: list[tree.Entry]) -> dict[str, documents.Document]:
        fit = [entry for entry in files if entry.size <= documents.DOCUMENT_BYTES_MAX]
        contents = self._mirror.blobs([entry.blob for entry in fit])
        read = documents.read({entry.path: content for entry, content in zip(fit, contents, strict=True)})
        return {entry.path: documents.too_large(entry) for entry in files} | read

    def _export(self, commit: str, plan: tree.Plan, previous: catalogue.Manifest | None) -> None:
        """Make the snapshot, unless it is there: a whole one is recognised by its name and its folder setting."""
        folder = snapshot.folder_of(self.snapshots, commit)
        known = manifests.read(self.snapshots, commit) if folder.is_dir() else None
        if known is not None and known.folder == self._source.folder and snapshot.is_intact(folder, plan.blobs()):
            return
        earlier = None
        if previous is not None and previous.catalogue.commit != commit:
            earlier = snapshot.Earlier(snapshot.folder_of(self.snapshots, previous.catalogue.commit), previous.files)
        snapshot.write(self.snapshots, commit, plan, self._mirror.blobs, earlier)

    def _touch(self, commit: str) -> None:
        now = self._clock.time()
        with contextlib.suppress(FileNotFoundError):
            os.utime(manifests.path_of(self.snapshots, commit), (now, now))

    def _lost(self, manifest: catalogue.Manifest) -> list[str]:
        """Return the commits that flows run on and whose snapshots are gone or, for the newest, not as written."""
        commit = manifest.catalogue.commit
        lost = [needed for needed in manifest.needs if not snapshot.folder_of(self.snapshots, needed).is_dir()]
        if not snapshot.is_intact(snapshot.folder_of(self.snapshots, commit), manifest.files):
            lost.append(commit)
        return lost


def _told(broken: list[model.Broken]) -> str:
    """Return the first few broken files as one sentence."""
    told = [f"{one.file}:{one.line}: {one.reason}" for one in broken[:3]]
    more = f" (and {len(broken) - 3} more)" if len(broken) > 3 else ""
    return "; ".join(told) + more
