"""A git remote as the source: ask where the ref points, fetch only what is new, push what was built on it.

Owns: the refspec (one ref, never the whole remote), credentials on their way to git, and the words for everything
that can be wrong with a remote. Refuses: unpublishing (a deleted branch, an empty repository or a dead forge is
``SourceUnavailable``, and what was published stays in force), and taking anything away with a push. Used by
``candidate`` and ``branch``.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from pathlib import Path

import msgspec

from ..engine import errors
from . import forge, git
from .mirror import Mirror, MirrorDamaged
from .source import Source

#: A fetch that is not done by then is broken off and tried again later.
FETCH_TIMEOUT_S = 120.0
#: The first one brings the whole history, and nothing is published that would wait for news meanwhile.
FIRST_FETCH_TIMEOUT_S = 1800.0
_ASK_TIMEOUT_S = 30.0
#: We name the refs we want. A server too old to hear that lists all it has: 100,000 of them take a half of this.
_REFS_BYTES_MAX = 16 * 1024 * 1024

#: Words of git, ssh and forges for "not with these credentials".
_DENIED = re.compile(
    r"denied|not allowed|permission|forbidden|\b40[13]\b|authentication failed|could not read|read.only|not enabled"
    r"|dubious",
    re.IGNORECASE,
)
#: What people can do about it, by git's or ssh's words; the first that fits.
_HINTS = (
    (
        re.compile(r"host key .* has changed", re.IGNORECASE),
        "somebody may stand in between; if the server really has a new key, put that into source.known_hosts",
    ),
    (
        re.compile(r"host key is known", re.IGNORECASE),
        "put the server's key into source.known_hosts: `ssh-keyscan HOST`, compared with what the forge publishes",
    ),
    (
        re.compile(r"disk has room|bytes to say"),
        "look at what the repository holds, and at the disk",
    ),
    (
        re.compile(r"certificate|\bSSL\b|\bTLS\b", re.IGNORECASE),
        "have the server show a certificate for this name; an authority of your own belongs into the system's store, "
        "or into the file that SSL_CERT_FILE names",
    ),
    (
        re.compile(
            r"authentication failed|\b40[13]\b|permission denied|could not read (username|password)|load key",
            re.IGNORECASE,
        ),
        "give the daemon a key (source.ssh_key) or token (source.token_file) that may read this repository; "
        "a new one counts at the next look",
    ),
)
#: Whom a token of a GitHub App belongs to.
_APP_USER = "x-access-token"
#: For a push git's own guard against repositories of other users stays on.
_OWN_ONLY = {"GIT_CONFIG_GLOBAL": os.devnull}

# git asks "Username for 'https://host': " and "Password for 'https://user@host': ". Only the source's own host is
# answered: a redirect elsewhere must not get the token.
_ASKPASS = """#!/bin/sh
case "$1" in
  *"'https://$HEADRACE_GIT_HOST'"*|*"@$HEADRACE_GIT_HOST'"*) ;;
  *) exit 1 ;;
esac
case "$1" in
  Username*) printf '%s\\n' "$HEADRACE_GIT_USER" ;;
  *) exec cat -- "$HEADRACE_GIT_TOKEN_FILE" ;;
esac
"""


class Fetched(msgspec.Struct, frozen=True):
    """What the source holds now. ``rewritten``: its history no longer contains what it pointed at before."""

    commit: str
    ref: str
    rewritten: bool = False


class Tip(msgspec.Struct, frozen=True):
    """A branch (``refs/heads/…``), its newest commit, and the ref of the mirror that remembers it."""

    ref: str
    commit: str
    local: str


class _Asked(msgspec.Struct, frozen=True):
    """Where a ref points, what it is called there, and below ``refs/remotes/`` in the mirror."""

    answer: Fetched
    name: str
    local: str


def _no_branch(why: str) -> errors.NotAllowed:
    return errors.NotAllowed(f"the source {why}, so nothing can be written to it", hint="let source.ref name a branch")


class Remote:
    """The remote of one source, seen through its mirror."""

    def __init__(self, source: Source, state: Path) -> None:
        self._source = source
        self._address = git.checked_url(source.url)
        self._app = forge.AppTokens(source.github_app, source.url) if source.github_app else None
        self.mirror = Mirror(state, source.folder, self._environment(state))
        self._state = state
        self._known = ""  # the commit that certainly is in the mirror, to ask no git about it at each poll
        self._rewritten = False  # since ``fetch`` told last

    def fetch(self) -> Fetched:
        """Bring the ref up to date in the mirror and return where it points.

        Raises ``SourceUnavailable`` when the source cannot be reached, is empty or lacks the ref, and
        ``MirrorDamaged`` when the fault is ours.
        """
        self._ready()
        if git.is_sha(self._source.ref):
            asked = _Asked(Fetched(self._source.ref, self._source.ref), self._source.ref, "origin/by-commit")
        else:
            asked = self._resolve(self._source.ref)
        return msgspec.structs.replace(self._bring(asked), rewritten=self._rewritten)

    def told(self) -> None:
        """Forget that the history was rewritten: whoever had to know it does."""
        self._rewritten = False

    def other(self, ref: str) -> Fetched:
        """Return where another branch or tag points, with its commit in the mirror; raises like ``fetch``."""
        self._ready()
        asked = self._resolve(git.checked_ref(ref))
        local = f"refs/remotes/preview/{asked.local}"
        if self.mirror.value(f"{local}^{{commit}}") != asked.answer.commit:
            self._fetch(f"+{asked.name}:{local}", FETCH_TIMEOUT_S)
        return msgspec.structs.replace(asked.answer, commit=self.mirror.value(f"{local}^{{commit}}"))

    def tip(self) -> Tip:
        """Return the branch that can be written to, with its newest commit in the mirror; raises like ``fetch``.

        Raises ``NotAllowed`` when the source is no branch."""
        self._ready()
        if git.is_sha(self._source.ref):
            raise _no_branch(f"is fixed at the commit {self._source.ref[:12]}")
        asked = self._resolve(self._source.ref)
        name = asked.name
        if name == "HEAD":  # the default branch, unless the remote does not say which that is
            name = f"refs/heads/{asked.answer.ref}" if asked.answer.ref != "HEAD" else ""
        if not name.startswith("refs/heads/"):
            raise _no_branch(f"is fixed at the tag {asked.answer.ref!r}" if name else "has no default branch")
        return Tip(git.checked_ref(name), self._bring(asked).commit, f"refs/remotes/{asked.local}")

    def push(self, commit: str, tip: Tip) -> bool:
        """Make ``commit``, a child of the tip, the new tip; False if the branch has moved meanwhile.

        On return it is there; a crash before leaves the branch as it was, or with the commit. Raises ``NotAllowed``
        when the remote does not take it from us, ``SourceUnavailable`` when that cannot be found out."""
        self._check_owner()
        # The lease asks for more than a push without it: the branch is what we built on, not something older either.
        lease = f"--force-with-lease={tip.ref}:{tip.commit}"
        words = ("push", "--porcelain", "--quiet", "--no-verify", lease, "--", self._address)
        try:
            self.mirror.git.run(
                *words, f"{git.checked_sha(commit)}:{tip.ref}", timeout_s=FETCH_TIMEOUT_S, environment=_OWN_ONLY
            )
        except git.GitFailed as failure:
            there = self._ask([tip.ref])[0].get(tip.ref, "")
            if there != commit:
                if there != tip.commit:
                    return False
                raise self._refused(failure) from failure
        self.mirror.git.run("update-ref", tip.local, commit)
        self._known = commit
        return True

    def forget(self) -> None:
        """Ask the mirror again what it has: it was changed or is in doubt."""
        self._known = ""
        self.mirror.distrust()

    def _bring(self, asked: _Asked) -> Fetched:
        """Have in the mirror what the remote has."""
        answer = asked.answer
        if answer.commit == self._known:
            return answer
        local = f"refs/remotes/{asked.local}"
        before = self._known or self.mirror.value(f"{local}^{{commit}}")
        if before != answer.commit or not self.mirror.has(before):
            self._fetch(f"+{asked.name}:{local}", FETCH_TIMEOUT_S if before else FIRST_FETCH_TIMEOUT_S)
            # The ref may have moved between question and fetch: what came counts.
            commit, contained = self.mirror.since(before, local)
            answer = msgspec.structs.replace(answer, commit=commit)
            self._rewritten = self._rewritten or not contained
        self._known = answer.commit
        return answer

    def _check_owner(self) -> None:
        """Refuse to push into a local repository of somebody else: its hooks would run as us."""
        if not self._source.is_local:
            return
        try:
            owner = Path(self._address).stat().st_uid
        except OSError:
            return  # git will say what is wrong with it
        if owner not in (0, os.geteuid()):
            raise errors.NotAllowed(
                f"{self._source.name} belongs to another user, whose hooks would run with the daemon's rights",
                hint="give the daemon an ssh or https URL of it, or change the repository's owner",
            )

    def _refused(self, failure: git.GitFailed) -> errors.HeadraceError:
        """Return why a push did not come through although nobody was faster."""
        said = [line for line in failure.output.decode("utf-8", "replace").splitlines() if line.startswith("!")]
        reason = said[0].rpartition("\t")[2] if said else failure.message
        reason = f"{reason}: {failure.remote}" if failure.remote else reason
        if said or _DENIED.search(reason):
            return errors.NotAllowed(
                f"{self._source.name} does not take the change: {reason}",
                hint="let the daemon's key or token push to this branch, or set source.write_back = false",
            )
        return errors.SourceUnavailable(
            f"{self._source.name} could not be pushed to: {reason}",
            hint="nothing was changed; check the network and try again",
        )

    def _resolve(self, wanted: str) -> _Asked:
        """Ask where the ref (or, without one, the default branch) points."""
        short = wanted.removeprefix("refs/heads/").removeprefix("refs/tags/")
        names = [name for name in (f"refs/heads/{short}", f"refs/tags/{short}") if wanted in (short, name)]
        if not wanted:
            names = ["HEAD"]
        found, default = self._ask(names)
        name = next((name for name in names if name in found), "")
        if name == "HEAD":
            return _Asked(Fetched(found[name], default or name), name, "origin/HEAD")
        if name:
            kind = "origin" if name.startswith("refs/heads/") else "origin-tags"
            return _Asked(Fetched(found.get(f"{name}^{{}}", found[name]), short), name, f"{kind}/{short}")
        what = f"has no branch or tag {wanted!r}" if wanted else "has no commit on its default branch"
        raise errors.SourceUnavailable(
            f"{self._source.name} {what}; what was published stays in force",
            hint="push it again, or change the setting source.ref" if wanted else "push a first commit",
        )

    def _ask(self, names: list[str]) -> tuple[dict[str, str], str]:
        """Return name → sha of those refs that the remote has, and the name of its default branch."""
        patterns = [*names, *(f"{name}^{{}}" for name in names if name.startswith("refs/tags/"))]
        try:
            answer = self.mirror.git.run(
                *("ls-remote", "--symref", "--", self._address, *patterns),
                timeout_s=_ASK_TIMEOUT_S,
                bytes_max=_REFS_BYTES_MAX,
            )
        except git.GitFailed as error:
            raise errors.SourceUnavailable(
                f"{self._source.name} cannot be reached: {error.message}",
                hint=f"what was published goes on running; {_advice(error.message)}",
            ) from error
        found, default = {}, ""
        for line in answer.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if git.is_sha(value):
                found[name] = value
            elif name == "HEAD":
                default = _branch_name(value.removeprefix("ref: "))
        return found, default

    def _fetch(self, refspec: str, timeout_s: float) -> None:
        try:
            self.mirror.git.run(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", self._address, refspec,
                timeout_s=timeout_s,
            )  # fmt: skip
        except git.GitFailed as error:
            if error.status is not None and self.mirror.is_damaged():
                raise MirrorDamaged(error.message) from error
            raise errors.SourceUnavailable(
                f"{self._source.name} cannot be fetched: {error.message}",
                hint=f"what was published goes on running; {_advice(error.message)}",
            ) from error

    def _environment(self, state: Path) -> dict[str, str]:
        """Return what git must know to reach this source and no other; secrets only as names of files."""
        source = self._source
        scheme = source.url.partition("://")[0] if "://" in source.url else "ssh"
        environment = {
            "GIT_ALLOW_PROTOCOL": scheme,
            "GIT_SSH_COMMAND": git.ssh_command(source.ssh_key, source.known_hosts),
        }
        if scheme == "file":
            # git refuses repositories of other users unless told otherwise, and listens to no option about that.
            environment["GIT_CONFIG_GLOBAL"] = str(state / "git-config")
        if source.token_file or self._app is not None:
            environment |= {
                "GIT_ASKPASS": str(state / "git-askpass"),
                "HEADRACE_GIT_HOST": urllib.parse.urlsplit(source.url).netloc,
                "HEADRACE_GIT_USER": source.user if self._app is None else _APP_USER,
                "HEADRACE_GIT_TOKEN_FILE": source.token_file or str(state / "git-token"),
            }
        return environment

    def _ready(self) -> None:
        """Have what git needs, the mirror above all."""
        self._write_files()
        if self.mirror.ensure():
            self._known = ""

    def _write_files(self) -> None:
        """Put the files in place that the environment names. Harmless to repeat."""
        if self._source.is_local:
            quoted = self._address.replace("\\", "\\\\").replace('"', '\\"')
            (self._state / "git-config").write_text(f'[safe]\n\tdirectory = "{quoted}"\n')
        if self._source.token_file or self._app is not None:
            _write_beside(self._state / "git-askpass", _ASKPASS, 0o700)
        if self._app is not None:
            _write_beside(self._state / "git-token", self._app.token(), 0o600)


def _branch_name(ref: str) -> str:
    """Return the short name of a branch, or nothing if it is one that we would not say to git, to people or records."""
    try:
        return git.checked_ref(ref).removeprefix("refs/heads/")
    except errors.ConfigurationInvalid:
        return ""


def _advice(message: str) -> str:
    return next(
        (hint for words, hint in _HINTS if words.search(message)), "check the network, the URL and the repository there"
    )


def _write_beside(path: Path, text: str, mode: int) -> None:
    """Have ``text`` at ``path``, for us alone: all of it or what was there; half of one would stay for ever."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text and path.stat().st_mode & 0o777 == mode:
            return
    beside = path.with_name(f"{path.name}.tmp")
    beside.unlink(missing_ok=True)
    beside.touch(mode)
    beside.write_text(text)
    beside.chmod(mode)
    beside.rename(path)
