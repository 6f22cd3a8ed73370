"""GIT: read a repository's files or the facts about a commit, commit and tag.

It owns what of a repository may come back (how many files, how large, which kinds) and the words for what went wrong.
``git_fetch`` brings one commit without its history into a temporary repository; GitPython reads the objects from there.
Nothing is checked out: symbolic links and submodules are skipped, hooks, filters and attributes never take effect.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import threading
from collections.abc import Iterator

import git
import msgspec

from ..engine import errors, ports
from . import blocking, git_address, git_commit, git_fetch, host_key, retry, stored_files
from . import definition as definitions
from .git_inputs import TASK, WRITING, GitInputs, check

#: Folders count: a few small trees that name each other many times make a commit without end.
ENTRIES_MAX = 20_000
#: All files together: base64 makes them a third larger, and an output has to stay within 64 MiB.
OUTPUT_BYTES_MAX = 40 * 1024 * 1024
#: All files together when they go into the store.
STORED_BYTES_MAX = 512 * 1024 * 1024
_REGULAR = frozenset({0o100644, 0o100755})
_SHORT = 7
_NAMED_MAX = 20
#: How often a commit is made anew because somebody else pushed meanwhile.
_PUSHES_MAX = 5


class GitFile(msgspec.Struct):
    """One file: its path in the repository and its content as base64."""

    name: str
    content: str


class GitOutput(msgspec.Struct, kw_only=True):
    """The output of GIT; ``files`` with get and without ``files_path``, ``names`` with ls, ``pushed`` when writing."""

    files: list[GitFile] | msgspec.UnsetType = msgspec.UNSET
    names: list[str] | msgspec.UnsetType = msgspec.UNSET
    pushed: bool | msgspec.UnsetType = msgspec.UNSET
    author_name: str
    author_email: str
    commit_date_iso: str
    commit_date_unix: int
    commit_message: str
    commit_sha: str
    short_sha: str


class _Get:
    """One GIT task under way."""

    def __init__(self, settings: definitions.Settings, inputs: GitInputs, context: ports.TaskContext) -> None:
        self._settings = settings
        self._inputs = inputs
        self._context = context
        self._address = git_address.parsed(inputs.repository_url)

    async def attempt(self) -> GitOutput:
        """Fetch and read; raises ``TaskFailed`` or ``retry.Transient``."""
        if self._address.scheme == "file" and not self._context.allow_local_files:
            raise self._failure("file addresses are for developer mode")
        access = git_fetch.Access(
            address=self._address,
            username=self._inputs.username,
            password=self._inputs.password,
            ssh_key=self._inputs.ssh_key,
            ssh_host_key=None if self._inputs.ssh_hostkey is None else host_key.parsed(self._inputs.ssh_hostkey),
            cookie=self._inputs.httpCookie,
        )
        try:
            async with git_fetch.repository(access, self._settings) as repository:
                if self._inputs.command == "commit_and_push":
                    return await self._commit(repository)
                name = await self._fetch(repository)
                output = await self._read(repository, name)
                if self._inputs.command == "tag":
                    await self._tag(repository, output)
                return output
        except git_fetch.FetchFailed as failed:
            failure = self._failure(failed.words)
            if failed.passing:
                raise retry.Transient(failure) from None
            raise failure from None

    async def _fetch(self, repository: git_fetch.Repository) -> str:
        """Bring the commit and return the name under which it is found."""
        options = ("--depth=1", *_FILTERS.get(self._inputs.command, ()))
        for candidate in _candidates(self._inputs.ref):
            try:
                await repository.fetch(f"+{candidate}:{git_fetch.FETCHED}", options=options)
            except git_fetch.FetchFailed as failed:
                if not failed.absent:
                    raise
            else:
                return git_fetch.FETCHED
        ref = self._inputs.ref
        if ref is None:
            raise self._failure("the repository has no commits that its HEAD points to")
        if git_address.is_sha(ref) or git_address.is_short_sha(ref):
            # Only the whole history tells which commit is meant, or servers give single commits by branch only.
            await repository.fetch("+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*")
            return ref
        raise self._failure(f"there is no branch, tag or commit '{ref}'")

    async def _read(self, repository: git_fetch.Repository, name: str) -> GitOutput:
        stop = threading.Event()
        output, skipped = await blocking.call(self._read_objects, repository, name, stop, on_cancel=stop.set)
        for text in skipped[:_NAMED_MAX]:
            self._context.log("WARNING", text)
        if len(skipped) > _NAMED_MAX:
            self._context.log("WARNING", f"skipped {len(skipped) - _NAMED_MAX:,} more")
        return output

    def _read_objects(
        self, repository: git_fetch.Repository, name: str, stop: threading.Event
    ) -> tuple[GitOutput, list[str]]:
        with contextlib.closing(git.Repo(repository.path, expand_vars=False)) as repo:
            repo.git.update_environment(**repository.environment)
            try:
                sha = repo.git.rev_parse("--verify", "--end-of-options", f"{name}^{{commit}}")
            except git.GitCommandError:
                raise self._failure(f"there is no branch, tag or commit '{self._inputs.ref}'") from None
            output = _facts(repo, sha)
            if self._inputs.command in ("metadata", *WRITING):
                return output, []
            if self._inputs.command == "ls":
                output.names = self._listed(repo.commit(sha).tree)
                return output, []
            files, skipped = self._chosen(repo.commit(sha).tree)
            if self._inputs.files_path is None:
                output.files = [GitFile(str(one.path), base64.b64encode(_content(one, stop)).decode()) for one in files]
            else:
                self._store(files, stored_files.path(self._inputs.files_path).rstrip("/"), stop)
            return output, skipped

    def _listed(self, root: git.Tree) -> list[str]:
        """Return the paths of all that is no folder; raises ``TaskFailed`` over the limit."""
        names = []
        for number, item in enumerate(_walk(root), 1):
            if number > ENTRIES_MAX:
                raise self._failure(f"the commit has more than {ENTRIES_MAX:,} files and folders")
            if not isinstance(item, git.Tree):
                names.append(str(item.path).encode("utf-8", "replace").decode())
        return sorted(names)

    async def _commit(self, repository: git_fetch.Repository) -> GitOutput:
        """Commit onto the branch as it is now; when others are faster, onto what they made of it."""
        change = self._change(await self._contents())
        for _ in range(_PUSHES_MAX):
            parent = await self._branch(repository)
            try:
                sha = await blocking.call(git_commit.made, repository, parent, change)
            except git_commit.CannotCommit as problem:
                raise self._failure(str(problem)) from None
            if sha is not None:
                try:
                    await repository.push(f"{sha}:refs/heads/{self._inputs.ref}")
                except git_fetch.FetchFailed as failed:
                    if not failed.moved:
                        raise
                    continue
            output = await self._read(repository, sha or parent or "")
            output.pushed = sha is not None
            return output
        raise self._failure(f"somebody else pushed to '{self._inputs.ref}' at the same time, {_PUSHES_MAX} times")

    async def _branch(self, repository: git_fetch.Repository) -> str | None:
        """Bring the branch's commit and return its name here, None when there is nothing yet to build on."""
        candidates = [f"refs/heads/{self._inputs.ref}", *(["HEAD"] if self._inputs.new_branch else [])]
        for candidate in candidates:
            try:
                await repository.fetch(f"+{candidate}:{git_fetch.FETCHED}", options=("--depth=1",))
            except git_fetch.FetchFailed as failed:
                if not failed.absent:
                    raise
            else:
                return git_fetch.FETCHED
        if not self._inputs.new_branch:
            raise self._failure(f"there is no branch '{self._inputs.ref}'; 'new_branch' makes one")
        return None

    async def _tag(self, repository: git_fetch.Repository, output: GitOutput) -> None:
        name = self._inputs.tag or ""
        target = await blocking.call(git_commit.tagged, repository, output.commit_sha, name, self._change({}))
        await repository.push(f"{target}:refs/tags/{name}")
        output.pushed = True

    async def _contents(self) -> dict[str, git_commit.Content]:
        found, total = {}, 0
        for one in self._inputs.files or ():
            if one.src is not None:
                data = await stored_files.read(self._context, one.src)
            else:
                data = one.text.encode() if one.text is not None else base64.b64decode(one.content or "")
            total += len(data)
            if total > STORED_BYTES_MAX:
                raise self._failure(f"the files are larger than {STORED_BYTES_MAX // 1024**2} MiB together")
            found[one.name] = git_commit.Content(data, one.executable)
        return found

    def _change(self, files: dict[str, git_commit.Content]) -> git_commit.Change:
        inputs = self._inputs
        return git_commit.Change(
            files=files, removed=inputs.remove or (), message=inputs.message or "",
            name=inputs.author_name or "Headrace", email=inputs.author_email or "headrace@localhost",
        )  # fmt: skip

    def _chosen(self, root: git.Tree) -> tuple[list[git.Blob], list[str]]:
        """Return the files to hand over, and a line about what is not; raises ``TaskFailed`` over a limit."""
        files: list[git.Blob] = []
        skipped: list[str] = []
        total = 0
        into_store = self._inputs.files_path is not None
        limit = STORED_BYTES_MAX if into_store else OUTPUT_BYTES_MAX
        for number, item in enumerate(_walk(root), 1):
            if number > ENTRIES_MAX:
                raise self._failure(f"the commit has more than {ENTRIES_MAX:,} files and folders")
            if isinstance(item, git.Tree):
                continue
            if (reason := _unusable(item)) is not None:
                skipped.append(f"skipped {item.path!r}: {reason}")
                continue
            files.append(item)
            total += item.size
            if total > limit:
                more = "" if into_store else "; 'files_path' writes them to the store instead"
                raise self._failure(f"the files are larger than {limit // 1024**2} MiB together{more}")
        return files, skipped

    def _store(self, files: list[git.Blob], folder: str, stop: threading.Event) -> None:
        for one in files:
            path = f"{folder}/{one.path}" if folder else str(one.path)
            try:
                writer = self._context.files.write(path)
                try:
                    writer.write(_content(one, stop))
                    writer.commit()
                finally:
                    writer.abort()
            except errors.HeadraceError as error:
                raise self._failure(f"cannot write the file '{path}': {error.message}") from None
            except OSError as error:
                raise self._failure(f"cannot write the file '{path}': {error.strerror}") from None

    def _failure(self, words: str) -> errors.TaskFailed:
        text = f"{TASK} {self._inputs.command} {self._address.url}: {words}"
        cookie = self._inputs.httpCookie or ""
        for secret in (self._inputs.password, self._address.password, cookie, cookie.partition("=")[2]):
            if secret:
                text = text.replace(secret, "***")
        return errors.TaskFailed(text)


#: What need not come for a command; a server that cannot leave it out sends it all the same.
_FILTERS = {"metadata": ("--filter=tree:0",), "ls": ("--filter=blob:none",)}


class _Stopped(Exception):
    """The task was cancelled while a thread was reading."""


def _candidates(ref: str | None) -> tuple[str, ...]:
    """Return what the remote may call ``ref``, in order."""
    if ref is None or ref == "HEAD":
        return ("HEAD",)
    if ref.startswith("refs/") or git_address.is_sha(ref):
        return (ref,)
    return (f"refs/heads/{ref}", f"refs/tags/{ref}")


def _walk(root: git.Tree) -> Iterator[git.Tree | git.Blob | git.Submodule]:
    """Yield everything below ``root``, folders too."""
    folders = [root]
    while folders:
        for item in folders.pop():
            if isinstance(item, git.Tree):
                folders.append(item)
            yield item


def _unusable(item: git.Blob | git.Submodule) -> str | None:
    """Return why an entry is no file that can be recorded and written elsewhere, or None."""
    if item.mode not in _REGULAR:
        return "it is a symbolic link or a submodule"
    path = str(item.path)
    if not path.isprintable() or "\\" in path or {"", ".", "..", ".git"} & set(path.split("/")):
        return "its name cannot be used elsewhere"
    return None


def _content(blob: git.Blob, stop: threading.Event) -> bytes:
    if stop.is_set():
        raise _Stopped
    return bytes(blob.data_stream.read())


def _facts(repo: git.Repo, sha: str) -> GitOutput:
    """Return what git says of the commit, in UTF-8 whatever it was written in: GitPython overlooks the encoding."""
    layout = "--format=%an%x00%ae%x00%cI%x00%ct%x00%B"
    said = repo.git.log("-1", "--encoding=UTF-8", layout, sha, strip_newline_in_stdout=False)
    # What git could not convert comes as halves of surrogate pairs, which JSON cannot hold.
    facts = said.removesuffix("\n").encode("utf-8", "replace").decode().split("\0", 4)
    return GitOutput(
        author_name=facts[0],
        author_email=facts[1],
        commit_date_iso=facts[2],
        commit_date_unix=int(facts[3]),
        commit_message=facts[4],
        commit_sha=sha,
        short_sha=sha[:_SHORT],
    )


async def _run(settings: definitions.Settings, inputs: GitInputs, context: ports.TaskContext) -> GitOutput:
    backoff = retry.chosen(inputs.retry_backoff, repeatable=inputs.command not in WRITING)
    return await retry.attempts(_Get(settings, inputs, context).attempt, backoff, context, settings.pacing)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[GitInputs]:
    """Return the task type GIT."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Read files or a commit of a git repository, commit and tag",
        description="Fetches one commit over https, ssh or, in developer mode, from a file address, or pushes one. "
        "Symbolic links and submodules are skipped.",
        inputs=GitInputs,
        output=GitOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.command not in WRITING,
        check=check,
        input_aliases={"url": "repository_url"},
    )
