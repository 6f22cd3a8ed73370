"""The negative controls: each of these defects makes the fast suites fail. One that does not means they are blind.

A mutant is one change of the text of engine/records, in a copy of the tree; the real suites then run on the copy.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Suite

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """``before`` stands exactly once in ``module`` and becomes ``after``; ``tests`` have to notice."""

    module: str
    before: str
    after: str
    tests: str


MUTANTS = {
    "fdatasync is left out": Mutant("tail", "            os.fdatasync(self._fd)\n", "            pass\n", "faults"),
    "a failed fdatasync is tried again": Mutant(
        "tail",
        "            os.fdatasync(self._fd)\n        except OSError as error:\n            raise",
        "            os.fdatasync(self._fd)\n        except OSError as error:\n"
        "            return os.fdatasync(self._fd)\n            raise",
        "faults",
    ),
    "acknowledged before it is synced": Mutant(
        "journal",
        "        self._tail.write(data)\n        self._back(self._landed, position, lengths)\n",
        "        self._back(self._landed, position, lengths)\n        self._tail.write(data)\n",
        "faults",
    ),
    "short writes are taken for whole ones": Mutant(
        "tail", "    while rest:\n        rest = rest[os.write(fd, rest) :]", "    os.write(fd, rest)", "faults"
    ),
    "half a batch is not cut off": Mutant(
        "tail", "            os.ftruncate(self._fd, self._offset)", "            pass", "faults"
    ),
    "a new segment's name is not synced": Mutant(
        "tail",
        "            temporary.rename(path)\n            durable.names(self._directory)",
        "            temporary.rename(path)",
        "faults",
    ),
    "who waits behind a refused request is forgotten": Mutant(
        "journal",
        "self._pending[0].number - 1 if self._pending else self._appended",
        "flown[-1].number if (flown := self._flying) else 0",
        "faults or journal",
    ),
    "checksums are not looked at": Mutant(
        "segments", '        if line[-_TAIL_BYTES:] != b\',"crc":"%08x"}\\n\' % crc:', "        if False:", "recovery"
    ),
    "every damage counts as torn": Mutant(
        "recovery", "        damaged = not size or (", "        damaged = False and (", "recovery"
    ),
    "numbers may have gaps": Mutant(
        "segments",
        "        seq = self.seq + 1\n        if",
        "        seq = int(line[7 : line.index(b',', 7)]) if line.startswith(b'{\"seq\":') else 0\n        if",
        "recovery",
    ),
    "the end is not rewritten": Mutant(
        "recovery", "        _rewrite(files[-1][1], found)\n", "        pass\n", "recovery or faults"
    ),
    "a batch does not begin a new number": Mutant(
        "journal",
        "position.seq, position.crc, position.seq + 1",
        "position.seq, position.crc, 1",
        "recovery or journal",
    ),
    "HEAD is not compared": Mutant(
        "recovery",
        "        head.check(directory, found.instance, found.position, mark)\n    directory.mkdir",
        "        pass\n    directory.mkdir",
        "head or model",
    ),
    "HEAD has one slot": Mutant("head", "mark.count % 2 * SLOT_BYTES", "0", "head"),
    "HEAD is not synced": Mutant("head", "    os.fdatasync(fd)\n", "", "head"),
    "HEAD promises what is not durable": Mutant("head", 'position.seq, f"', 'position.seq + 1, f"', "head"),
    "the history before the mark is not compared": Mutant(
        "head", "_crc_before(path, mark.offset) != mark.crc", "False", "head"
    ),
    "the scrub believes what it reads": Mutant(
        "seals", "if sha256.hexdigest() != sealed.sha256:", "if False:", "scrub or recovery"
    ),
    "salvage takes lines nobody can vouch for": Mutant(
        "salvage", "if match is None or not segments.follows(line, crc):", "if match is None:", "salvage"
    ),
    "salvage forgets to mark where it ends": Mutant("salvage", "    end.write(instance, position)\n", "", "salvage"),
    "an index of another history is kept": Mutant(
        "tables", "        if end and not (", "        if False and not (", "index"
    ),
    "a start waits for the index": Mutant("filing", "        if not patient and ", "        if False and ", "index"),
    "a key that comes is not among those there are": Mutant("index", "self._keys.add(event.key)", "pass", "index"),
    "what a bad index said of keys is kept": Mutant(
        "index", "if self._keys_of == generation and not", "if self._keys_of >= 0 and not", "index"
    ),
    "scarce room refuses nobody": Mutant("journal", "self._stalled or self.scarce", "self._stalled", "space"),
    "the ballast is never given up": Mutant(
        "space", "            self._ballast.unlink()\n            log", "            log", "space"
    ),
}


RECORDS_NEED = (("engine", "daemon", "sync", "tasks"), ("tests/engine/records", "tests/golden", "tests/support"))


def copied(folder: Path, mutant: Mutant, need: tuple[tuple[str, ...], tuple[str, ...]] = RECORDS_NEED) -> None:
    """Copy what the suites need (rooms, and folders of tests), with the change made."""
    for part in ("__init__.py", "__main__.py", "py.typed"):
        shutil.copy(ROOT / part, folder / "headrace" / part)
    rooms, tests = need
    for source, target in (
        *((ROOT / r, folder / "headrace" / r) for r in rooms),
        *((ROOT / t, folder / t) for t in tests),
    ):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    module = mutant.module if "/" in mutant.module else f"engine/records/{mutant.module}"
    path = folder / "headrace" / f"{module}.py"
    text = path.read_text()
    assert text.count(mutant.before) == 1, f"{mutant.module} has changed: write this mutant anew"
    path.write_text(text.replace(mutant.before, mutant.after))


def notice(folder: Path, suite: Suite, name: str, mutant: Mutant, tests: list[str], timeout_s: int) -> str:
    """Run ``tests`` on the copy in ``folder``, each for so long at most. Some have to fail; return what was said."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["-q", "-x", f"--timeout={timeout_s}", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    said = ""  # of a run that takes too long; the attempt failed then
    with suite.attempt(name):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words, *tests],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        said = done.stdout
        assert done.returncode == 1, f"{mutant.module}: {said[-3000:]}"
    return said


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suites_notice(tmp_path: Path, suite: Suite, name: str) -> None:
    mutant = MUTANTS[name]
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, mutant)
    files = [f"tests/engine/records/test_{word}.py" for word in mutant.tests.split(" or ")]
    said = notice(tmp_path, suite, name, mutant, files, 30)
    assert str(tmp_path) in said or "FAILED" in said


def test_without_a_mutant_they_pass(tmp_path: Path, suite: Suite) -> None:
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, Mutant("head", "SLOT_BYTES = 4096", "SLOT_BYTES = 4096", ""))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    with suite.attempt():
        said = subprocess.run(
            [sys.executable, "-c", "import headrace.engine; print(headrace.engine.__file__)"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.startswith(str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/engine/records"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
