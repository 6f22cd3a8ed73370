"""Running git, safely: the only place that knows GitPython.

Owns: the environment git sees (nothing of the daemon's but a short list), its hardening options, time limits, and the
allowlists through which every URL, ref and sha passes before it reaches a command line. Refuses: other protocols,
credentials in URLs, anything that could be read as an option. Called by ``mirror``, ``remote``, ``branch`` and
``working_tree``, always from a worker thread: everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import git

from ..engine import errors

#: A command that talks to nobody and is not done by then hangs.
LOCAL_TIMEOUT_S = 120.0

#: What a command prints is kept in memory: a listing of 20,000 files takes a tenth of it.
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
_COMPLAINT_BYTES_MAX = 64 * 1024
#: Indexing some ten million objects takes less; one object that says it is larger than that ends its git, not us.
_MEMORY_BYTES_MAX = 2 * 1024**3

#: What of the daemon's own environment git may see: where programs are, how to get out, which ssh agent.
_PASSED_ON = frozenset(
    {"PATH", "TMPDIR", "SSH_AUTH_SOCK"}
    | {"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
)

#: Whom the daemon trusts, git trusts: libcurl alone would not look at what everything else here looks at.
_TRUST = {"SSL_CERT_FILE": "GIT_SSL_CAINFO", "SSL_CERT_DIR": "GIT_SSL_CAPATH"}

#: No hooks, no helpers, no recursion, no background gc. A mirror can always be made again, so it is not fsynced;
#: what must survive a power cut is the snapshot. Old, harmless sins of repositories in the wild are let through.
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.fsync=none",
    "core.bigFileThreshold=32m",  # what no snapshot takes passes through git in pieces, never through its memory
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=no",
    "fetch.writeCommitGraph=false",
    "transfer.fsckObjects=true",
    "fetch.fsck.zeroPaddedFilemode=ignore",
    "fetch.fsck.missingSpaceBeforeDate=ignore",
    "fetch.fsck.badTimezone=ignore",
    "transfer.bundleURI=false",
    "http.followRedirects=initial",
    "http.lowSpeedLimit=1",  # nothing at all for so long: somebody who packs for us says so every few seconds
    "http.lowSpeedTime=120",
    "protocol.version=2",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.addEmbeddedRepo=false",
    "commit.gpgSign=false",
)

#: A git must not go on writing into the mirror after we were killed and started again. The kernel kills it when we
#: die; if we died before that was arranged, its parent is no longer us.
_END_WITH_US = ("setpriv", "--pdeathsig", "KILL")
#: Then come our process id, the largest file in blocks of 512 bytes and memory in KiB; the rest is passed on, as "$@".
#: A limit that is refused is one that is lower already.
_LIMITED = (
    *("sh", "-c"),
    'test "$PPID" = "$1" && { ulimit -c 0; ulimit -f "$2"; ulimit -d "$3"; shift 3; } 2>/dev/null && exec "$@"',
    "sh",
)
_FILE_TOO_LARGE = re.compile(rf"died of signal {int(signal.SIGXFSZ)}\b|File too large")

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_URL_PATH = r"[A-Za-z0-9_~./+%@:,=-]*"
_HTTPS = re.compile(rf"https://{_HOST}(?::\d{{1,5}})?/{_URL_PATH}")
_SSH = re.compile(rf"ssh://(?:{_USER}@)?{_HOST}(?::\d{{1,5}})?/{_URL_PATH}")
_SCP_LIKE = re.compile(rf"(?!.*::)(?:{_USER}@)?{_HOST}:(?!-|//){_URL_PATH}")
_REF = re.compile(r"[\w][\w./+@=#-]{0,199}")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Of all that git and the ssh below it print, the lines that say what is wrong.
_TELLING = re.compile(
    r"(?!fatal: Could not read from remote)(fatal:|error:|ERROR:|ssh: |kex_exchange|Connection )"
    r"|.*(host key .*strict checking|Permission denied|Load key |WARNING: UNPROTECTED)",
    re.IGNORECASE,
)


class GitFailed(errors.HeadraceError):
    """A git command did not succeed; ``message`` is its last words, ``status`` is None if it took too long.

    ``output`` is what it had printed, ``remote`` what the other side had to say to people."""

    def __init__(self, message: str, *, status: int | None, output: bytes = b"", remote: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.output = output
        self.remote = remote


class TooMuch(GitFailed):
    """A git command printed more than we are ready to keep."""


class Stopping(errors.HeadraceError):
    """A git command was broken off, or not begun, because we stop: it says nothing about any repository."""


def redacted(text: str) -> str:
    """Return ``text`` without user names and passwords in URLs, for messages and logs."""
    return _CREDENTIALS.sub("", text)


def checked_url(url: str) -> str:
    """Return ``url`` as git may get it: https, ssh, scp-like, or an absolute path for file; raises else."""
    hint = "use https://host/path, ssh://user@host/path, user@host:path or file:///path"
    if url.startswith("file:///") and not _CONTROL.search(path := urllib.parse.unquote(url.removeprefix("file://"))):
        return path
    if url.startswith("https://") and "@" in url.removeprefix("https://").partition("/")[0]:
        raise errors.ConfigurationInvalid(
            f"the source's URL {redacted(url)!r} holds credentials",
            hint="leave them out; put the token into a file and name that file in the configuration",
        )
    if not any(form.fullmatch(url) for form in (_HTTPS, _SSH, _SCP_LIKE)):
        raise errors.ConfigurationInvalid(f"the source's URL {redacted(url)!r} is not allowed", hint=hint)
    try:
        git.Git.check_unsafe_protocols(url)
    except git.UnsafeProtocolError as error:
        raise errors.ConfigurationInvalid(f"the source's URL {url!r} is not allowed", hint=hint) from error
    return url


def checked_ref(ref: str) -> str:
    """Return ``ref``, a branch or tag name with or without ``refs/…/``, if it is harmless; raises else."""
    parts = ref.split("/")
    unfit = any(not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in parts)
    if unfit or ".." in ref or "@{" in ref or not _REF.fullmatch(ref):
        raise errors.ConfigurationInvalid(
            f"{ref!r} is not allowed as a ref", hint="name a branch or a tag: letters, digits and ._/+@=#-"
        )
    return ref


def checked_sha(sha: str) -> str:
    """Return ``sha`` if it is a whole object id in lower case; raises else."""
    if not _SHA.fullmatch(sha):
        raise errors.InvalidRequest(f"{sha!r} is not a commit", hint="give all 40 hexadecimal digits")
    return sha


def is_sha(text: str) -> bool:
    """Return whether ``text`` is a whole object id."""
    return _SHA.fullmatch(text) is not None


def ssh_command(key: str, known_hosts: str) -> str:
    """Return the ssh that git shall use: no user configuration, never a question, host keys must be known."""
    words = ["ssh", "-F", "none", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oConnectTimeout=20"]
    words.append("-oServerAliveInterval=20")  # three without an answer end it
    if known_hosts:  # then no other file has a say; ssh reads several names there, so one with a space is quoted
        quoted = known_hosts.replace("%", "%%")
        words += [f'-oUserKnownHostsFile="{quoted}"', "-oGlobalKnownHostsFile=/dev/null"]
    if key:
        words += ["-oIdentitiesOnly=yes", "-i", key.replace("%", "%%")]
    return shlex.join(words)


class Git:
    """git in one bare repository. Commands may run in several threads; ``interrupt`` ends them all."""

    def __init__(self, directory: Path, home: Path, environment: Mapping[str, str] | None = None) -> None:
        """``home`` is an empty directory of ours; ``environment`` is added to the minimal one."""
        self.directory = directory
        self._environment = {
            "LANGUAGE": "C",
            "LC_ALL": "C",
            "HOME": str(home),
            "GIT_DIR": str(directory),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_SSH_COMMAND": ssh_command("", ""),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
        }
        self._environment |= {name: os.environ[ours] for ours, name in _TRUST.items() if os.environ.get(ours)}
        self._environment |= dict(environment or {})
        self._wrapper = git.Git(str(directory))
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._interrupted = False

    def run(
        self,
        *words: str,
        timeout_s: float = LOCAL_TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
        accept: Container[int] = (0,),
        stdin: BinaryIO | None = None,
        bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> bytes:
        """Run ``git words…``, fed from the file ``stdin`` if there is one, and return its output.

        Raises ``GitFailed`` on another exit status or after the time, ``TooMuch`` for more than ``bytes_max``."""
        with self._process(words, stdin, environment) as process:
            try:
                output, complaint = _heard(process, time.monotonic() + timeout_s, bytes_max)
            except subprocess.TimeoutExpired:
                raise GitFailed(f"git {words[0]} was not done after {timeout_s:g} s", status=None) from None
            except OverflowError:
                raise TooMuch(f"git {words[0]} had more than {bytes_max:,} bytes to say", status=None) from None
        if process.returncode not in accept:
            self._check_interrupted(words)
            status = process.returncode
            said = _last_words(next(word for word in words if "=" not in word and word != "-c"), complaint, status)
            raise GitFailed(said, status=status, output=output, remote=_remote_words(complaint))
        return output

    @contextlib.contextmanager
    def stream(self, *words: str, stdin: BinaryIO) -> Iterator[BinaryIO]:
        """Run ``git words…`` fed from the file ``stdin`` and give its output to be read while it comes."""
        with self._process(words, stdin, None) as process:
            assert process.stdout is not None
            try:
                yield cast(BinaryIO, process.stdout)
            except errors.HeadraceError:
                self._check_interrupted(words)
                raise

    def interrupt(self) -> None:
        """End what runs and start nothing more; those who wait get ``Stopping``. From any thread."""
        with self._lock:
            self._interrupted = True
            for process in self._running:
                _kill_group(process)

    def _room(self) -> int:
        """Return how large a file git may make: half of what the disk has left, so that the journal keeps the rest."""
        existing = next(folder for folder in (self.directory, *self.directory.parents) if folder.is_dir())
        return shutil.disk_usage(existing).free // 2

    def _check_interrupted(self, words: tuple[str, ...]) -> None:
        if self._interrupted:
            raise Stopping(f"git {words[0]} was broken off: stopping")

    @contextlib.contextmanager
    def _process(
        self, words: tuple[str, ...], stdin: BinaryIO | None, extra: Mapping[str, str] | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        environment = self._environment | dict(extra or {})
        # GitPython hands on the whole of our environment, so `env` takes away what git has no business to see.
        unwanted = [f"-u{name}" for name in os.environ if name and name not in _PASSED_ON and name not in environment]
        guard = _END_WITH_US if shutil.which("setpriv") else ()
        limits = (str(os.getpid()), str(self._room() // 512), str(_MEMORY_BYTES_MAX // 1024))
        options = [word for option in _OPTIONS for word in ("-c", option)]
        with self._lock:
            self._check_interrupted(words)
            handle = self._wrapper.execute(
                ["env", *unwanted, *guard, *_LIMITED, *limits, "git", *options, *words],
                istream=stdin,
                env=environment,
                as_process=True,
                start_new_session=True,
            )
            process = cast("subprocess.Popen[bytes]", handle.proc)
            self._running.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._running.discard(process)
            _end(process)


def _heard(process: subprocess.Popen[bytes], deadline: float, bytes_max: int) -> tuple[bytes, bytes]:
    """Return all that ``process`` prints until it ends, and the end of its complaints.

    Raises ``TimeoutExpired`` at ``deadline`` (monotonic), ``OverflowError`` for too much."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as pipes:
        pipes.register(process.stdout, selectors.EVENT_READ, output)
        pipes.register(process.stderr, selectors.EVENT_READ, complaint)
        while pipes.get_map():
            ready = pipes.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in ready:
                chunk = os.read(key.fd, 64 * 1024)
                key.data.extend(chunk)
                if not chunk:
                    pipes.unregister(key.fileobj)
            del complaint[:-_COMPLAINT_BYTES_MAX]
            if len(output) > bytes_max:
                raise OverflowError
    process.wait(max(0.0, deadline - time.monotonic()))
    return bytes(output), bytes(complaint)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill ``process`` with what it spawned: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of ``process`` behind: no child, no open pipe."""
    if process.poll() is None:
        _kill_group(process)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _last_words(command: str, complaint: bytes, status: int) -> str:
    """Return what git said as one line of a reasonable length, the important part first."""
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.match(line)] or lines[-3:]
    if status == -signal.SIGXFSZ or any(_FILE_TOO_LARGE.search(line) for line in lines):
        telling = ["more came than the disk has room for", *telling]
    said = redacted("; ".join(telling))[:500] or f"exit status {status}"
    return _CONTROL.sub("?", f"git {command}: {said}")


def _remote_words(complaint: bytes) -> str:
    """Return what a hook or a forge on the other side printed, as one line of a reasonable length."""
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines()]
    said = " ".join(
        filter(None, (line.removeprefix("remote:").strip() for line in lines if line.startswith("remote:")))
    )
    return _CONTROL.sub("?", redacted(said))[:300]
