"""docs/reliability.md names every promise and every suite, and holds no figure that no run gave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import outcomes, table

ROOT = Path(__file__).resolve().parents[2]
#: As a suite of tests/faults, by its own conftest.
SUITES = """
import pytest

def test_tries(suite):
    for number in range(5):
        with suite.attempt(number):
            assert number not in (2, 4)

@pytest.mark.parametrize("one", "ab")
def test_counts(record_property, one):
    record_property("tries", 30)
    record_property("seed", 7)

def test_counts_nothing(): pass

def test_breaks(): assert False

@pytest.fixture
def broken():
    yield
    assert False

def test_breaks_at_its_end(broken): pass

def test_is_skipped(): pytest.skip("not here")
"""


def outcome(name: str, tries: int, failures: int = 0, date: str = "2026-01-01T00:00:00+00:00") -> outcomes.Outcome:
    return outcomes.Outcome(name, tries, failures, date, 1.0)


def test_every_test_that_is_named_exists():
    for test in table.tests():
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), test


def test_every_suite_and_every_test_that_durability_names_has_a_row():
    suites = {f"tests/faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    promised = set(re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "durability.md").read_text()))
    assert len(suites) > 10 and len(promised) > 10
    files = {test.partition("::")[0] for test in table.tests()}
    assert suites <= files
    assert promised <= files | set(table.tests())


def test_make_faults_runs_all_that_has_a_row_and_records_it():
    recipe = re.search(r"^faults:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert " tests/faults\n" in recipe
    assert "tests.faults.table --tests" in recipe
    said = subprocess.run([sys.executable, "-m", "tests.faults.table", "--tests"], stdout=subprocess.PIPE, cwd=ROOT)
    named = set(said.stdout.decode().split())
    assert named | {f"tests/faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")} == {
        test.partition("::")[0] for test in table.tests()
    }
    assert recipe.count("$(FAULTS)") == len(re.findall(r"(?<!\\)\n", recipe)), "each line records its outcomes"


def test_the_page_is_what_is_declared_with_the_figures_it_has():
    page = table.PAGE.read_text()
    assert page == table.page(table.written(page)), "run  python -m tests.faults.table"


def test_figures_are_those_of_the_newest_outcome_of_each_part():
    found = [
        outcome("tests/a.py::test_x[one]", 100, date="2026-01-02T00:00:00+00:00"),
        outcome("tests/a.py::test_x[one]", 7, 7),
        outcome("tests/a.py::test_x[two]", 1_000, 1, date="2026-01-03T00:00:00+00:00"),
        outcome("tests/a.py::test_xy", 5),
        outcome("tests/a.pyx", 5),
    ]
    tests = ["tests/a.py", "tests/a.py::test_x", "tests/b.py"]
    assert table.figures(tests, found) == {
        "tests/a.py": ("1,105", "1", "2026-01-01"),
        "tests/a.py::test_x": ("1,100", "1", "2026-01-02"),
    }


def test_figures_survive_on_the_page_and_where_there_are_none_it_says_so():
    test, other = table.tests()[:2]
    page = table.page({test: ("1,100", "0", "2026-01-02")})
    assert table.written(page) == {test: ("1,100", "0", "2026-01-02")}
    assert f"`{other}` | in the suite only | | |" in page


@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["alone", "xdist"])
def test_each_suite_leaves_what_it_came_to(tmp_path, workers):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p tests.faults.outcomes -p no:cacheprovider\n")
    (tmp_path / "conftest.py").write_text("from tests.faults.conftest import *\n")
    (tmp_path / "test_suites.py").write_text(SUITES)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SEED": "3",
        "SCALE": "2",
    }
    subprocess.run([sys.executable, "-m", "pytest", "-q", *workers], cwd=tmp_path, env=environment, capture_output=True)
    (file,) = (tmp_path / outcomes.FOLDER).iterdir()
    with file.open("ab") as end:
        end.write(b'{"name": "cut o')
    found = {one.name.removeprefix("test_suites.py::test_"): one for one in outcomes.read(tmp_path / outcomes.FOLDER)}
    assert {name: (one.tries, one.failures, one.seed, one.scale) for name, one in found.items()} == {
        "tries": (5, 2, 3, 2.0),
        "counts[a]": (30, 0, 7, None),
        "counts[b]": (30, 0, 7, None),
        "counts_nothing": (1, 0, None, None),
        "breaks": (1, 1, None, None),
        "breaks_at_its_end": (1, 1, None, None),
    }
