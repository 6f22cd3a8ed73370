"""A git remote as the source: ask where the ref points, fetch only what is new.

Owns: the refspec (one ref, never the whole remote), credentials on their way to git, and the words for everything
that can be wrong with a remote. Refuses: unpublishing. A deleted branch, an empty repository or a dead forge is
``SourceUnavailable``, and what was published stays in force. Used by ``candidate``.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from pathlib import Path

from ..engine import errors
from . import git
from .mirror import Mirror, MirrorDamaged
from .source import Source

#: A fetch that is not done by then is broken off and tried again later.
FETCH_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 30.0

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


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """What the source holds now. ``rewritten``: its history no longer contains what it pointed at before."""

    commit: str
    ref: str
    rewritten: bool = False


class Remote:
    """The remote of one source, seen through its mirror."""

    def __init__(self, source: Source, state: Path) -> None:
        self._source = source
        self._address = git.checked_url(source.url)
        self.mirror = Mirror(state, source.folder, self._environment(state))
        self._state = state
        self._known = ""  # the commit that certainly is in the mirror, to ask no git about it at each poll

    def fetch(self) -> Fetched:
        """Bring the ref up to date in the mirror and return where it points.

        Raises ``SourceUnavailable`` when the source cannot be reached, is empty or lacks the ref, and
        ``MirrorDamaged`` when the fault is ours.
        """
        self._write_files()
        self.mirror.ensure()
        if git.is_sha(self._source.ref):
            answer, remote_ref, local = (
                Fetched(self._source.ref, self._source.ref),
                self._source.ref,
                "origin/by-commit",
            )
        else:
            answer, remote_ref, local = self._resolve()
        if answer.commit == self._known:
            return answer
        local = f"refs/remotes/{local}"
        before = self.mirror.value(local)
        if before != answer.commit or not self.mirror.has(before):
            self._fetch(f"+{remote_ref}:{local}")
            # The ref may have moved between question and fetch: what came counts.
            answer = dataclasses.replace(answer, commit=self.mirror.value(f"{local}^{{commit}}"))
        rewritten = bool(before) and not self.mirror.is_ancestor(before, answer.commit)
        self._known = answer.commit
        return dataclasses.replace(answer, rewritten=rewritten)

    def forget(self) -> None:
        """Ask the mirror again what it has: it was changed or is in doubt."""
        self._known = ""
        self.mirror.distrust()

    def _resolve(self) -> tuple[Fetched, str, str]:
        """Ask where the ref (or the default branch) points; return that, its name there and its name in the mirror."""
        wanted = self._source.ref
        short = wanted.removeprefix("refs/heads/").removeprefix("refs/tags/")
        names = [name for name in (f"refs/heads/{short}", f"refs/tags/{short}") if wanted in (short, name)]
        if not wanted:
            names = ["HEAD"]
        found, default = self._ask(names)
        name = next((name for name in names if name in found), "")
        if name == "HEAD":
            return Fetched(found[name], default or name), name, "origin/HEAD"
        if name:
            kind = "origin" if name.startswith("refs/heads/") else "origin-tags"
            return Fetched(found.get(f"{name}^{{}}", found[name]), short), name, f"{kind}/{short}"
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
                "ls-remote", "--symref", "--", self._address, *patterns, timeout_s=_ASK_TIMEOUT_S
            )
        except git.GitFailed as error:
            raise errors.SourceUnavailable(
                f"{self._source.name} cannot be reached: {error.message}",
                hint="what was published goes on running; check the network, the URL and the credentials",
            ) from error
        found, default = {}, ""
        for line in answer.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if git.is_sha(value):
                found[name] = value
            elif name == "HEAD":
                default = value.removeprefix("ref: ").removeprefix("refs/heads/")
        return found, default

    def _fetch(self, refspec: str) -> None:
        try:
            self.mirror.git.run(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", self._address, refspec,
                timeout_s=FETCH_TIMEOUT_S,
            )  # fmt: skip
        except git.GitFailed as error:
            if error.status is not None and self.mirror.is_damaged():
                raise MirrorDamaged(error.message) from error
            raise errors.SourceUnavailable(
                f"{self._source.name} cannot be fetched: {error.message}",
                hint="what was published goes on running; check the network and the repository (`git fsck`)",
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
        if source.token_file:
            environment |= {
                "GIT_ASKPASS": str(state / "git-askpass"),
                "HEADRACE_GIT_HOST": urllib.parse.urlsplit(source.url).netloc,
                "HEADRACE_GIT_USER": source.user,
                "HEADRACE_GIT_TOKEN_FILE": source.token_file,
            }
        return environment

    def _write_files(self) -> None:
        """Put the files in place that the environment names. Harmless to repeat."""
        if self._source.is_local:
            quoted = self._address.replace("\\", "\\\\").replace('"', '\\"')
            (self._state / "git-config").write_text(f'[safe]\n\tdirectory = "{quoted}"\n')
        if self._source.token_file and not (self._state / "git-askpass").exists():
            askpass = self._state / "git-askpass"
            askpass.write_text(_ASKPASS)
            askpass.chmod(0o700)
