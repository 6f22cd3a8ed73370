"""Builds the wheel of a commit, with the pages' scripts inside: the same commit gives the same bytes, anywhere.

What could differ is taken away: files come from the commit, not from the working tree, and have fixed modes; the time
of all of them is the commit's; what builds is locked in ``build.txt``, the scripts' packages in ``package-lock.json``;
no setting of the machine gets in. Run by `make wheel` and, as ``--twice``, by `make release`; imported by ``deb``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What a build gets of the environment: where programs are, how registries are reached, whether without scripts.
_KEPT = ("PATH", "HOME", "TMPDIR", "HEADRACE_NO_UI", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
_KEPT_STARTS = ("SSL_CERT_", "NODE_", "npm_config_", "NPM_CONFIG_")


def build(repository: Path, into: Path, commit: str = "HEAD", others: Mapping[str, str] | None = None) -> Path:
    """Build the wheel of ``commit`` and return where it lies in ``into``; ``others`` is added to the environment.

    Raises ``SystemExit`` with what went wrong."""
    into.mkdir(parents=True, exist_ok=True)
    with exported(repository, commit) as tree, tempfile.TemporaryDirectory() as fresh:
        done = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", fresh],
            cwd=tree,
            env={**_environment(), "SOURCE_DATE_EPOCH": str(commit_time(repository, commit)), **(others or {})},
            stdout=sys.stderr,
            umask=0o022,
        )
        built = list(Path(fresh).glob("*.whl"))
        if done.returncode or len(built) != 1:
            raise SystemExit(f"the wheel cannot be built: what setup.py said stands above (exit {done.returncode})")
        missing = _missing(built[0])
        if missing:
            raise SystemExit(f"the wheel is not whole: {missing} is not in it")
        return Path(shutil.move(built[0], into / built[0].name))


@contextlib.contextmanager
def exported(repository: Path, commit: str) -> Iterator[Path]:
    """Yield a folder with the files of a commit, their modes 0644 or 0755; it is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        command = ["git", "-C", str(repository), "-c", "tar.umask=0022", "archive", "--format=tar", commit]
        packed = subprocess.run(command, capture_output=True)
        if packed.returncode:
            raise SystemExit(f"{commit} of {repository} cannot be read: {packed.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True, umask=0o022)
        yield Path(folder)


def commit_time(repository: Path, commit: str = "HEAD") -> int:
    """Return when a commit was made, in seconds since the epoch."""
    command = ["git", "-C", str(repository), "show", "-s", "--format=%ct", commit]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def difference(one: Path, other: Path) -> str:
    """Return in what two wheels differ; empty if they are the same bytes."""
    if one.read_bytes() == other.read_bytes():
        return ""
    with zipfile.ZipFile(one) as left, zipfile.ZipFile(other) as right:
        members = [{item.filename: item for item in wheel.infolist()} for wheel in (left, right)]
        if members[0].keys() != members[1].keys():
            return f"files: {', '.join(sorted(members[0].keys() ^ members[1].keys()))}"
        for name in members[0]:
            if left.read(name) != right.read(name):
                return f"what {name} holds"
            if members[0][name].external_attr != members[1][name].external_attr:
                return f"the mode of {name}"
            if members[0][name].date_time != members[1][name].date_time:
                return f"the time of {name}"
    return "order or compression"


def _missing(wheel: Path) -> str:
    wanted = {"headrace/py.typed", "headrace/daemon/web/style.css"}
    wanted |= set() if os.environ.get("HEADRACE_NO_UI") else {"headrace/daemon/web/dist/manifest.json"}
    with zipfile.ZipFile(wheel) as opened:
        return ", ".join(sorted(wanted - set(opened.namelist())))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_STARTS)}


def main() -> None:
    """Build, or with ``--twice`` build in two ways and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("into", type=Path, help="the folder for the wheel")
    parser.add_argument("--commit", default="HEAD", help="what to build (HEAD)")
    parser.add_argument("--twice", action="store_true", help="build again elsewhere and compare the bytes")
    given = parser.parse_args()
    wheel = build(ROOT, given.into, given.commit)
    if given.twice:
        odd = {"TZ": "Pacific/Apia", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
        with tempfile.TemporaryDirectory() as folder:
            found = difference(wheel, build(ROOT, Path(folder) / "elsewhere", given.commit, odd))
        if found:
            raise SystemExit(f"{wheel.name} is not reproducible: two builds differ in {found}")
    print(wheel)


if __name__ == "__main__":
    main()
