"""Signed commits: made with real ssh-keygen and gpg; what is not surely signed by somebody who may is not published."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec
import pytest

from headrace.engine import errors
from headrace.sync import git as sync_git
from headrace.sync import verification
from headrace.sync.source import Source
from tests.support.repositories import FLOW, WorkingRepository, git

pytestmark = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("ssh-keygen")), reason="gpg and ssh-keygen (openssh-client) make the keys"
)
SSH = ("ada", "eve", "old", "early", "revoked", "other-namespace")
GPG = {"ada": "never", "expired": "seconds=1", "revoked": "never", "eve": "never"}


class Keys:
    """Keys of several people, and the files in which an operator names some of them."""

    def __init__(self, home):
        self.home = home
        self.gpg_home = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))  # an agent's socket has a short path
        for name in SSH:
            self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(home / name))
        options = {
            "ada": "",
            "old": 'valid-before="20200101" ',
            "early": 'valid-after="20990101" ',
            "revoked": "",
            "other-namespace": 'namespaces="file" ',
        }
        lines = [f"{name}@example.org {said}{self.public(name)}" for name, said in options.items()]
        (home / "signers").write_text("\n".join(lines) + "\n")
        (home / "revocations").write_text(self.public("revoked") + "\n")
        for name, expires in GPG.items():
            self.gpg(
                "--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", expires
            )
        certificate = next((self.gpg_home / "openpgp-revocs.d").glob(f"{self.fingerprint('revoked')}.rev"))
        (home / "revocation").write_text(certificate.read_text().replace(":-----BEGIN", "-----BEGIN"))
        self.exported = home / "keyring"

    def export(self):
        """Write the operator's keyring: everybody but eve; the revoked key with its revocation."""
        self.gpg("--import", str(self.home / "revocation"))
        ours = [self.fingerprint(name) for name in GPG if name != "eve"]
        self.exported.write_bytes(self.gpg("--export", *ours))

    def public(self, name):
        return " ".join((self.home / f"{name}.pub").read_text().split()[:2])

    def fingerprint(self, name):
        listed = self.gpg("--with-colons", "--list-keys", f"{name}@example.org").decode()
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def gpg(self, *words):
        return self._run(
            "gpg", "--batch", "--quiet", "--homedir", str(self.gpg_home), "--pinentry-mode", "loopback", *words
        )

    def _run(self, *command):
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def signing(self, who):
        """The options with which git signs as ``ssh:ada`` or ``gpg:ada``; none for nobody."""
        kind, _, name = who.partition(":")
        if kind == "ssh":
            return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.home / name}", "-c", "commit.gpgsign=true")
        if kind == "gpg":
            program = self.home / "gpg.sh"
            program.write_text(
                f'#!/bin/sh\nexec gpg --homedir {self.gpg_home} --batch --faked-system-time 1700000000! "$@"\n'
                if name == "expired"
                else f'#!/bin/sh\nexec gpg --homedir {self.gpg_home} --batch "$@"\n'
            )
            program.chmod(0o700)
            key = self.fingerprint(name)
            return ("-c", f"gpg.program={program}", "-c", f"user.signingkey={key}", "-c", "commit.gpgsign=true")
        return ()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    keys = Keys(tmp_path_factory.mktemp("keys"))
    yield keys
    subprocess.run(["gpgconf", "--homedir", str(keys.gpg_home), "--kill", "all"], check=False)
    shutil.rmtree(keys.gpg_home, ignore_errors=True)


@pytest.fixture
def repository(tmp_path):
    return WorkingRepository(tmp_path / "repository")


def commit(repository, keys, who="", path="a.py", text=None):
    repository.write(path, text or FLOW + f"# {who} {os.urandom(4).hex()}\n")
    git(repository.directory, "add", "--all")
    git(repository.directory, *keys.signing(who), "commit", "--quiet", "-m", f"by {who or 'nobody'}")
    return repository.head()


def refusal(repository, setting, sha, published=""):
    home = repository.directory.parent / "git-home"
    home.mkdir(exist_ok=True)
    asked = sync_git.Git(repository.directory / ".git", home)
    return verification.Verifier(setting, asked, repository.directory.parent / "gnupg").refusal(sha, published)


def signers(keys, **more):
    return verification.Verify(signers=str(keys.home / "signers"), revoked=str(keys.home / "revocations"), **more)


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("ssh:ada", ""),
        ("", "is not signed"),
        ("ssh:eve", "nobody named"),
        ("ssh:old", "nobody"),
        ("ssh:early", "nobody"),
        ("ssh:revoked", ""),
        ("ssh:other-namespace", "bad signature"),
        ("gpg:ada", "nobody named"),
    ],
)
def test_who_signed_with_ssh_decides(repository, keys, who, words):
    said = refusal(repository, signers(keys), commit(repository, keys, who))
    if who == "ssh:revoked":
        assert said  # whatever git calls it
    else:
        assert (words in said) if words else said == "", said


def test_who_signed_with_openpgp_decides(repository, keys):
    shas = {who: commit(repository, keys, f"gpg:{who}") for who in ("ada", "revoked", "eve")}
    keys.export()
    setting = verification.Verify(keyring=str(keys.exported))
    assert refusal(repository, setting, shas["ada"]) == ""
    asking = {**os.environ, "GNUPGHOME": str(repository.directory.parent / "gnupg")}  # as that left it
    command = ["git", "log", "--no-walk", "--format=%GT", shas["ada"]]
    assert subprocess.check_output(command, cwd=repository.directory, env=asking) == b"ultimate\n"  # to newer gits, too
    assert "revoked" in refusal(repository, setting, shas["revoked"])
    assert "nobody named" in refusal(repository, setting, shas["eve"])
    assert "nobody named" in refusal(repository, setting, commit(repository, keys, "ssh:ada"))
    assert "is not signed" in refusal(repository, setting, commit(repository, keys))
    both = verification.Verify(keyring=str(keys.exported), signers=str(keys.home / "signers"))
    for who in ("ssh:ada", "gpg:ada"):
        assert refusal(repository, both, commit(repository, keys, who)) == ""


def forged(repository, sha, change):
    """A commit that carries the signature of another one."""
    raw = git(repository.directory, "cat-file", "commit", sha) + "\n"
    return git(repository.directory, "hash-object", "-t", "commit", "-w", "--stdin", stdin=change(raw).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace("by ssh:ada", "by somebody"),
        lambda raw: raw.replace("Ada <ada@", "Eve <eve@"),
        lambda raw: raw.replace("BEGIN SSH SIGNATURE", "BEGIN SIGNED MESSAGE"),
        lambda raw: raw.replace("BEGIN SSH SIGNATURE", "BEGIN PGP SIGNATURE").replace("END SSH", "END PGP"),
        lambda raw: raw[: raw.index("gpgsig ")] + "gpgsig nothing\n" + raw[raw.index("\n\n") + 1 :],
    ],
)
def test_a_signature_that_belongs_to_something_else_does_not_count(repository, keys, change):
    sha = commit(repository, keys, "ssh:ada")
    assert refusal(repository, signers(keys), forged(repository, sha, change))


def test_a_signature_for_another_tree_does_not_count(repository, keys):
    sha = commit(repository, keys, "ssh:ada")
    trees = [git(repository.directory, "rev-parse", f"{one}^{{tree}}") for one in (sha, commit(repository, keys))]
    assert refusal(repository, signers(keys), forged(repository, sha, lambda raw: raw.replace(*trees)))


def test_keys_that_the_repository_names_itself_do_not_count(repository, keys):
    mine = f"eve@example.org {keys.public('eve')}\n"
    for path in ("allowed_signers", ".git-allowed-signers", ".ssh/allowed_signers", "signers", ".gitconfig"):
        repository.write(path, mine)
    git(repository.directory, "config", "gpg.ssh.allowedSignersFile", str(repository.directory / "signers"))
    sha = commit(repository, keys, "ssh:eve")
    assert "nobody named" in refusal(repository, signers(keys), sha)


def test_the_newest_commit_alone_or_everything_since_what_is_published(repository, keys):
    first = commit(repository, keys, "ssh:ada")
    hidden = commit(repository, keys)
    last = commit(repository, keys, "ssh:ada")
    head, whole = signers(keys), signers(keys, scope="range")
    assert refusal(repository, head, last, first) == ""
    assert f"commit {hidden[:12]} is not signed" in refusal(repository, whole, last, first)
    assert refusal(repository, whole, last, hidden) == ""
    assert refusal(repository, whole, last) == ""  # nothing is published yet: there is no beginning


def test_a_signed_merge_does_not_hide_what_is_not(repository, keys):
    first = commit(repository, keys, "ssh:ada")
    git(repository.directory, "checkout", "--quiet", "-b", "side")
    hidden = commit(repository, keys, path="b.py")
    git(repository.directory, "checkout", "--quiet", "main")
    commit(repository, keys, "ssh:ada", path="c.py")
    git(repository.directory, *keys.signing("ssh:ada"), "merge", "--quiet", "--no-ff", "-m", "merge", "side")
    assert refusal(repository, signers(keys), repository.head(), first) == ""
    assert hidden[:12] in refusal(repository, signers(keys, scope="range"), repository.head(), first)


def test_a_rewritten_history_is_looked_through_to_where_it_parted(repository, keys):
    published = commit(repository, keys, "ssh:ada")
    git(repository.directory, "checkout", "--quiet", "--orphan", "anew")
    unsigned = commit(repository, keys)
    last = commit(repository, keys, "ssh:ada")
    assert unsigned[:12] in refusal(repository, signers(keys, scope="range"), last, published)


def test_too_many_commits_are_refused_and_not_waited_for(repository, keys, monkeypatch):
    monkeypatch.setattr(verification, "_COMMITS_MAX", 2)
    first = commit(repository, keys, "ssh:ada")
    for _ in range(3):
        last = commit(repository, keys, "ssh:ada")
    assert "too many" in refusal(repository, signers(keys, scope="range"), last, first)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({}, "names nobody"),
        ({"signers": "/nowhere"}, "not a file"),
        ({"keyring": "/nowhere"}, "not a file"),
        ({"scope": "head"}, "names nobody"),
        ({"signers": os.devnull, "scope": "all"}, "scope|not a file"),
        ({"allowed": "x"}, "unknown field"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(setting, words):
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(setting, verification.Verify)


def test_a_keyring_that_is_none_is_said(repository, keys, tmp_path):
    (tmp_path / "keyring").write_text("no keys")
    setting = verification.Verify(keyring=str(tmp_path / "keyring"))
    assert "nobody named" in refusal(repository, setting, commit(repository, keys, "gpg:ada"))


def test_what_is_not_signed_is_not_asked_of_a_directory_or_where_we_write(keys, tmp_path):
    for more in ({"write_back": True}, {"write_back": False, "developer": True}):
        with pytest.raises(errors.ConfigurationInvalid, match="verify"):
            Source(url=f"file://{tmp_path}", verify=signers(keys), **more)


async def test_what_is_refused_leaves_in_force_what_was_published(tmp_path, keys, daemon):
    upstream = WorkingRepository(tmp_path / "upstream")
    good = commit(upstream, keys, "ssh:ada")
    setting = {"verify": signers(keys, scope="range"), "write_back": False}
    sync = await daemon.started(f"file://{upstream.directory}", **setting)
    assert (await daemon.synced(sync)).commit == good
    bad = commit(upstream, keys, "ssh:eve")
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.rejected) == ("degraded", good, bad)
    assert f"commit {bad[:12]} is" in status.error
    commit(upstream, keys, "ssh:ada")
    assert (await daemon.synced(sync)).commit == good  # somebody else's commit is still among those that came
    git(upstream.directory, "reset", "--quiet", "--hard", good)
    better = commit(upstream, keys, "ssh:ada")
    assert (await daemon.synced(sync)).commit == better
