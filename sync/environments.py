"""Environments: the packages of a list installed in a folder of their own, whole or not there.

Owns: ``envs/<id>/`` of the state directory with its virtual environment, built by ``uv`` in a folder beside and renamed
when it is durable; what could not be built and when it is tried again; the setting ``run.environments``. Refuses:
running what is being installed: only wheels are unpacked unless the operator says otherwise. After ``build`` an
environment survives a power cut; if we die before, only a ``.tmp-`` folder is left, which ``open`` removes. Used by
``candidate`` and ``loop`` from worker threads; ``progress`` may be read from any.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from ..engine import model, ports
from . import check, git, snapshot
from .requirements import Recipe, Shared, Unusable

log = structlog.get_logger()

#: How reasons begin that may not hold any more when it is tried again.
CANNOT = "its environment cannot be built: "
#: The kernel kills the resolver when we die; if we died before that was arranged, its parent is no longer us.
_END_WITH_US = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("sh", "-c", 'test "$PPID" = "$1" && shift && exec "$@"', "sh"),
)
#: What was wanted this recently stays: a commit that refers to it is being made ready, perhaps of another source.
GRACE_S = 3600.0
_AT_ONCE = 2
#: So many files are compiled before other processes would have started.
_FILES_ALONE_MAX = 200
_AGAIN_FIRST_S = 60.0
_AGAIN_MAX_S = 3600.0
_SAID_CHARACTERS_MAX = 800
#: Of the daemon's environment, what the resolver gets.
_PASSED_ON = frozenset(
    {"PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
)


class Packages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``run.environments``: where packages come from.

    ``find_links``: folders of wheels, or https pages that link to some; ``no_index``: nothing else, and with folders
    alone no network at all. ``index_url`` instead of PyPI; ``extra_index_urls`` are asked before it, and the first that
    knows a package decides. ``netrc``: file with their user names and passwords. ``build_from_source``: packages
    without a wheel may be built, which runs code of theirs during a sync. ``timeout_s``: for each environment. ``uv``:
    the program, if not the one that was installed with us."""

    find_links: tuple[str, ...] = ()
    no_index: bool = False
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    netrc: str = ""
    build_from_source: bool = False
    timeout_s: float = 600.0
    uv: str = ""

    def __post_init__(self) -> None:
        """Refuse folders and files that are not there, and addresses with passwords."""
        addresses = [url for url in (self.index_url, *self.extra_index_urls) if url]
        for url in [*addresses, *(link for link in self.find_links if "://" in link)]:
            parts = urllib.parse.urlsplit(url)
            if "@" in parts.netloc:
                raise ValueError("holds credentials in a URL: write them into the file that `netrc` names")
            if parts.scheme not in ("https", "http"):
                raise ValueError(f"{url!r} is not an https URL")
        for link in self.find_links:
            if "://" not in link and not (Path(link).is_absolute() and Path(link).is_dir()):
                raise ValueError(f"`find_links` {link!r} is not an absolute path of a folder")
        for field, path in (("netrc", self.netrc), ("uv", self.uv)):
            if path and not Path(path).is_file():
                raise ValueError(f"`{field}` {path!r} is not a file")
        if self.no_index and addresses:
            raise ValueError("says `no_index` and names an index")
        if not 1 <= self.timeout_s <= 86400:
            raise ValueError("`timeout_s` must be from 1 to 86400 seconds")


class _Failure(msgspec.Struct):
    reason: str
    times: int
    again_at: float  # monotonic


class _NotBuilt(Exception):
    """Why, in words."""


class Environments:
    """The environments below one folder."""

    def __init__(self, folder: Path, packages: Packages, clock: ports.Clock) -> None:
        self.progress = ""
        self.changes = 0  # how often something was built, or could not be
        self.users: list[Callable[[], set[str]]] = []  # each tells what it refers to
        self._folder = folder
        self._packages = packages
        self._clock = clock
        self._failures: dict[str, _Failure] = {}
        self._turn = threading.Lock()  # building and removing, one at a time
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._interrupted = False

    def open(self) -> None:
        """Make the folder and remove what a crash left half built or half removed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        snapshot.sweep(self._folder)

    def python(self, venv: str) -> Path:
        """Return where the interpreter of an environment lies, or would."""
        return python_of(self._folder, venv)

    def has(self, venv: str) -> bool:
        """Whether an environment is there, its interpreter too."""
        return self.python(venv).exists()

    # -- what flows need ---------------------------------------------------------------------------------------------

    def missing(
        self, verdicts: Mapping[str, check.Verdict], shared: Shared, *, retry: bool
    ) -> dict[Recipe, tuple[str, ...]]:
        """Return what is to be built, each with the paths it is for. Without ``retry`` what failed is left alone."""
        found: dict[Recipe, list[str]] = {}
        lists = [(path, one.metadata.dependencies) for path, one in verdicts.items() if one.handler and not one.reason]
        for path, dependencies in [*lists, ("scripts", None)]:
            with contextlib.suppress(Unusable):
                recipe = shared.recipe(dependencies)
                if recipe is None or self._claim(recipe.id):
                    continue
                if retry or recipe.id not in self._failures:
                    found.setdefault(recipe, []).append(path)
        return {recipe: tuple(paths) for recipe, paths in found.items()}

    def _claim(self, venv: str) -> bool:
        """Whether an environment is there; if so, it stays until what needs it has had the time to say so."""
        now = self._clock.time()
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._folder / venv, (now, now))
        return self.has(venv)

    def may_be_mended(self, known: model.Catalogue, seen: int) -> bool:
        """Whether a flow that lacks its environment might get it now: ``changes`` came since, or it is time to try."""
        if not any(flow.broken and flow.broken.reason.startswith(CANNOT) for flow in known.flows.values()):
            return False
        return self.changes != seen or not self._failures or self.is_due

    @property
    def is_due(self) -> bool:
        """Whether it is time to try something again that failed."""
        now = self._clock.monotonic()
        return any(failure.again_at <= now for failure in self._failures.values())

    def may_try(self, venv: str) -> bool:
        """Whether one that is not there may be built now: it did not fail a moment ago."""
        failure = self._failures.get(venv)
        return failure is None or failure.again_at <= self._clock.monotonic()

    def hurry(self) -> None:
        """Somebody asks: try again what failed with the next pass. From any thread."""
        for failure in list(self._failures.values()):
            failure.again_at = 0.0

    # -- building ---------------------------------------------------------------------------------------------------

    def build(self, wanted: Mapping[Recipe, Sequence[str]]) -> None:
        """Build what is not there. What cannot be built is remembered with the reason.

        Raises ``git.Stopping`` after ``interrupt``."""
        with self._turn, self._downloads() as cache:
            left = {recipe: paths for recipe, paths in wanted.items() if not self.has(recipe.id)}
            try:
                with concurrent.futures.ThreadPoolExecutor(_AT_ONCE, "environment") as pool:
                    for one in [pool.submit(self._build, recipe, len(paths), cache) for recipe, paths in left.items()]:
                        one.result()
            finally:
                self.changes += 1
                self.progress = ""

    def reason(self, venv: str) -> str:
        """Return why an environment could not be built; empty if it is there, or nobody tried."""
        failure = None if self.has(venv) else self._failures.get(venv)
        return failure.reason if failure else ""

    def clean(self) -> None:
        """Remove the environments that nothing refers to any more, and nothing is about to. Not while some are built:
        whoever cleans up must not wait for that, and comes again."""
        oldest = self._clock.time() - GRACE_S
        if not self._turn.acquire(blocking=False):
            return
        try:
            needed = set().union(*(told() for told in self.users))
            for path in self._folder.iterdir():
                if path.name not in needed and ".tmp-" not in path.name and path.stat().st_mtime < oldest:
                    snapshot.remove(path)
                    log.info("environment.removed", environment=path.name)
            for venv in self._failures.keys() - needed:
                if self._failures[venv].again_at <= self._clock.monotonic() - _AGAIN_MAX_S:
                    del self._failures[venv]
        finally:
            self._turn.release()

    def interrupt(self) -> None:
        """End what runs and start nothing more. From any thread."""
        with self._lock:
            self._interrupted = True
            for process in self._running:
                _kill_group(process)

    @contextlib.contextmanager
    def _downloads(self) -> Iterator[Path]:
        """Give a folder for downloads, for this once: what a power cut tears in a lasting one would be installed."""
        cache = self._folder / f"downloads.tmp-{secrets.token_hex(4)}"
        cache.mkdir(mode=0o700)
        try:
            yield cache
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    def _build(self, recipe: Recipe, flows: int, cache: Path) -> None:
        began = self._clock.monotonic()
        about = {"environment": recipe.id, "requirements": list(recipe.requirements), "for": flows}
        log.info("environment.building", **about)
        self.progress = f"building the environment {recipe.id[:8]} ({_listed(recipe.requirements)})"
        beside = self._folder / f"{recipe.id}.tmp-{secrets.token_hex(4)}"
        try:
            self._make(recipe, beside, cache)
        except (_NotBuilt, OSError) as error:
            times = self._failures[recipe.id].times + 1 if recipe.id in self._failures else 1
            again_s = min(_AGAIN_MAX_S, _AGAIN_FIRST_S * 2 ** min(times - 1, 10))
            self._failures[recipe.id] = _Failure(CANNOT + str(error), times, self._clock.monotonic() + again_s)
            log.error("environment.failed", **about, reason=str(error), again_s=again_s)
        else:
            self._failures.pop(recipe.id, None)
            log.info("environment.built", **about, duration_s=round(self._clock.monotonic() - began, 3))
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _make(self, recipe: Recipe, beside: Path, cache: Path) -> None:
        """Build beside and rename; on return it is there for good."""
        until = time.monotonic() + self._packages.timeout_s
        uv = self._packages.uv or _find_uv()
        beside.mkdir(mode=0o700)
        wanted, lock, venv = beside / "requirements.txt", beside / "requirements.lock", beside / "venv"
        wanted.write_text("".join(f"{line}\n" for line in recipe.requirements))
        lock.write_text(recipe.lock)
        # Relocatable: its programs are found where it lies after the renaming.
        self._run(
            [uv, "venv", "--quiet", "--clear", "--relocatable", "--python", sys.executable, str(venv)], cache, until
        )
        into = ["--quiet", "--python", str(venv / "bin" / "python"), "--link-mode", "copy"]
        files = ["--requirements", str(wanted), "--constraints", str(lock)]
        self._run([uv, "pip", "install", *into, *_sources(self._packages), *files], cache, until)
        self._compile(beside, self._folder / recipe.id, cache, until)
        final = self._folder / recipe.id
        snapshot.sync_file_system(self._folder)
        snapshot.remove(final)  # one whose interpreter is gone
        beside.rename(final)
        snapshot.sync_path(self._folder)

    def _compile(self, beside: Path, final: Path, cache: Path, until: float) -> None:
        """Compile everything for where it will lie: flow processes write no byte code, so it would be done each time.

        By our own interpreter, which runs nothing of what was installed (``.pth`` files of the other would be)."""
        words = [sys.executable, "-I", "-S", "-m", "compileall", "-q"]
        places = ["-s", str(beside), "-p", str(final)]
        if sum(1 for _ in beside.rglob("*.py")) > _FILES_ALONE_MAX:
            words += ["-j", str(_AT_ONCE)]
        self._run([*words, *places, str(beside / "venv" / "lib")], cache, until, accept=(0, 1))  # 1: files for Python 2

    def _run(self, words: Sequence[str], cache: Path, until: float, *, accept: Sequence[int] = (0,)) -> None:
        """Run a program to its end; raises ``_NotBuilt`` with what it said. One that somebody killed is run again."""
        status, said = self._once(words, cache, until)
        if status == -signal.SIGKILL:
            status, said = self._once(words, cache, until)
        if status < 0:
            raise _NotBuilt(f"{Path(words[0]).name} was killed by {signal.Signals(-status).name}")
        if status not in accept:
            raise _NotBuilt(_told(said, self._packages))

    def _once(self, words: Sequence[str], cache: Path, until: float) -> tuple[int, str]:
        given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        given |= {"HOME": str(cache), "TMPDIR": str(cache), "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        given |= {"UV_CACHE_DIR": str(cache / "uv"), "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
        given |= {"NETRC": self._packages.netrc} if self._packages.netrc else {}
        guard = [*_END_WITH_US, str(os.getpid())] if shutil.which("setpriv") else []
        with self._lock:
            if self._interrupted:
                raise git.Stopping("the building of an environment was broken off: stopping")
            # A group of its own and our session: other sessions are those of flows, and end with them.
            process = subprocess.Popen(
                [*guard, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=given,
                cwd="/",
                process_group=0,
            )
            self._running.add(process)
        try:
            _, said = process.communicate(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise _NotBuilt(f"it was not done after {self._packages.timeout_s:g} s") from None
        finally:
            with self._lock:
                self._running.discard(process)
            if process.poll() is None:  # else its number may be somebody else's
                _kill_group(process)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
        if self._interrupted:
            raise git.Stopping("the building of an environment was broken off: stopping")
        return process.returncode, said.decode("utf-8", "replace")


def applied(
    verdicts: Mapping[str, check.Verdict], shared: Shared, reason: Callable[[str], str]
) -> dict[str, check.Verdict]:
    """Return verdicts that name the environments of good flows, and that are bad where there can be none.

    ``reason`` says of an environment why it is not there. Pure."""
    return {path: _applied(verdict, shared, reason) for path, verdict in verdicts.items()}


def _applied(verdict: check.Verdict, shared: Shared, reason: Callable[[str], str]) -> check.Verdict:
    if not verdict.handler or verdict.reason:
        return verdict
    try:
        recipe = shared.recipe(verdict.metadata.dependencies)
    except Unusable as error:
        return msgspec.structs.replace(verdict, reason=error.message, key="dependencies")
    if recipe is None:
        return verdict
    said = reason(recipe.id)
    return msgspec.structs.replace(verdict, venv=recipe.id, reason=said, key="dependencies" if said else "")


def python_of(folder: Path, venv: str) -> Path:
    """Return where the interpreter of an environment lies below ``folder``, or would."""
    return folder / venv / "venv" / "bin" / "python"


def _find_uv() -> str:
    """Return the ``uv`` that was installed with us, else one on PATH."""
    ours = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(ours) if ours.is_file() else shutil.which("uv")
    if found is None:
        raise _NotBuilt("there is no uv beside this Python nor on PATH; install it: pip install 'headrace[packages]'")
    return found


def _sources(packages: Packages) -> list[str]:
    """Return where packages may come from, as options of uv."""
    words = ["--no-index"] if packages.no_index else []
    words += ["--offline"] if packages.no_index and not any("://" in link for link in packages.find_links) else []
    words += ["--default-index", packages.index_url] if packages.index_url else []
    for url in packages.extra_index_urls:
        words += ["--index", url]
    for link in packages.find_links:
        words += ["--find-links", link]
    return words if packages.build_from_source else [*words, "--only-binary", ":all:"]


def _told(said: str, packages: Packages) -> str:
    """Return what the resolver said as one line of a reasonable length, and what to do about it."""
    text = re.sub(r"\s+", " ", git.redacted(said)).replace("error: ", "", 1).replace(" cause: ", ": ").strip()
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) > _SAID_CHARACTERS_MAX:
        text = text[:_SAID_CHARACTERS_MAX] + "…"
    ways = ["change the list"]
    if packages.no_index:
        ways.append("lay the wheel into a folder of run.environments.find_links")
    elif not packages.build_from_source:
        ways.append("let packages without a wheel be built (run.environments.build_from_source)")
    return f"{text.rstrip('.')}; {' or '.join(ways)}; `headrace sync` tries again"


def _listed(requirements: Sequence[str]) -> str:
    more = f", and {len(requirements) - 3} more" if len(requirements) > 3 else ""
    return ", ".join(requirements[:3]) + more


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that nobody waited for yet, with what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
