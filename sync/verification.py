"""Whether a commit was signed by somebody who may: with keys that the operator named, never the repository.

Owns: the setting ``source.verify``, and asking git about signatures of commits (ssh and OpenPGP). Refuses: everything
but a good signature by a key that is good. A commit that is refused is not published; what was published stays in
force. Called by ``candidate`` before anything of a commit is looked at.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import msgspec

from ..engine import errors
from . import git

#: More commits at once than people sign in years.
_COMMITS_MAX = 10_000
_TIMEOUT_S = 300.0
#: What git says about a signature with ``%G?``.
_SAID = {
    "N": "is not signed, or by a key that nobody named",
    "B": "has a bad signature",
    "U": "is signed by a key that nobody named",
    "X": "has a signature that has expired",
    "Y": "is signed by a key that has expired",
    "R": "is signed by a key that was revoked",
    "E": "is signed by a key that nobody named",
}


class Verify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``source.verify``: whose signatures count, and on which commits.

    ``signers``: file of allowed signers, as ssh-keygen(1) describes it; ``revoked``: keys of them that are not good any
    more (a file of public keys, or a KRL). ``keyring``: file of OpenPGP public keys, as ``gpg --export`` writes it.
    ``scope``: the newest commit alone (``head``), or every one since what is published (``range``)."""

    signers: str = ""
    revoked: str = ""
    keyring: str = ""
    scope: Literal["head", "range"] = "head"

    def __post_init__(self) -> None:
        """Refuse files that are not there, and nobody at all."""
        for field in ("signers", "revoked", "keyring"):
            path = getattr(self, field)
            if path and not Path(path).is_file():
                raise ValueError(f"`{field}` {path!r} is not a file")
        if not (self.signers or self.keyring):
            raise ValueError("names nobody: give `signers` or `keyring`")


class Verifier:
    """Asks git in the mirror; ``home`` is a folder of ours for gpg's keys, made anew with each use."""

    def __init__(self, setting: Verify, mirror: git.Git, home: Path) -> None:
        self._setting = setting
        self._git = mirror
        self._home = home

    def refusal(self, commit: str, published: str) -> str:
        """Return why ``commit`` must not be published, empty if it may. ``published`` is what is in force, if any.

        Raises ``SourceUnavailable`` where that cannot be found out."""
        self._make_home()
        words = ["log", "--format=%H %G?", "--max-count", str(_COMMITS_MAX + 1)]
        if self._setting.scope == "head" or not published:
            words += ["--no-walk", git.checked_sha(commit)]
        else:
            words += [git.checked_sha(commit), f"^{git.checked_sha(published)}"]
        options = [f"gpg.ssh.allowedSignersFile={self._setting.signers or os.devnull}", "gpg.x509.program=false"]
        if self._setting.revoked:
            options.append(f"gpg.ssh.revocationFile={self._setting.revoked}")
        configured = [word for option in options for word in ("-c", option)]
        environment = {"GNUPGHOME": str(self._home)}
        try:
            told = self._git.run(*configured, *words, timeout_s=_TIMEOUT_S, environment=environment).decode()
        except git.GitFailed as failure:
            if failure.status is None or "signature" not in failure.message:
                raise  # it took too long, or the mirror is damaged
            return f"a commit has a signature that cannot be read: {failure.message[:200]}"
        found = [line.split(" ") for line in told.splitlines()]
        if len(found) > _COMMITS_MAX:
            return f"more than {_COMMITS_MAX:,} commits came at once, too many to verify"
        for sha, said in found:
            if said != "G":
                return f"commit {sha[:12]} {_SAID.get(said, 'has a signature that nobody understands')}"
        return "" if found else f"commit {commit[:12]} is not there"

    def _make_home(self) -> None:
        """Have exactly the keys of the keyring in gpg's folder, and trust whoever is in it."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700, parents=True)
        if not self._setting.keyring:
            return
        (self._home / "gpg.conf").write_text("no-auto-key-retrieve\nno-auto-key-locate\n")
        # 2: some of the keys could not be taken; those that could are enough
        self._gpg("--import", self._setting.keyring, good=(0, 2))
        listed = self._gpg("--with-colons", "--list-keys").decode("utf-8", "replace").splitlines()
        # With gpg's own `trust-model always` newer versions of git (2.47, say) call every signer unknown.
        trusted = [
            f"{following.split(':')[9]}:6:\n"  # 6: as if it were our own
            for line, following in itertools.pairwise(listed)
            if line.startswith("pub:") and following.startswith("fpr:")
        ]
        self._gpg("--import-ownertrust", given="".join(trusted).encode())

    def _gpg(self, *words: str, given: bytes = b"", good: tuple[int, ...] = (0,)) -> bytes:
        """Ask gpg in its folder, and return what it says; raises ``SourceUnavailable``."""
        command = ["gpg", "--batch", "--quiet", "--no-autostart", "--homedir", str(self._home), *words]
        try:
            done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise errors.SourceUnavailable(
                f"signatures cannot be verified: gpg: {error}", hint="install the package gpg"
            ) from None
        if done.returncode not in good:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise errors.SourceUnavailable(f"the keyring {self._setting.keyring} cannot be used: {said}")
        return done.stdout
