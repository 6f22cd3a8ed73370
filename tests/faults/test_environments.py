"""Environments under power cuts: one that is said to be built is there, whole, when the power is back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.sync import environments, requirements
from tests.faults import powered
from tests.faults.conftest import Suite
from tests.support import wheels

pytestmark = pytest.mark.timeout(3600)
MODULES = 60
RECIPE = requirements.Recipe(("alpha",))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[powered.Disk]:
    try:
        disk = powered.Disk(tmp_path)
        disk.cut()
        disk.again()
    except (OSError, RuntimeError) as reason:
        pytest.skip(f"the power of a loop file system cannot be cut: {reason}")
    yield disk
    disk.close()


@pytest.fixture
def packages(tmp_path: Path) -> environments.Packages:
    for number in range(MODULES):
        wheels.wheel(tmp_path / "wheels", f"part{number}", "1.0")
    wheels.wheel(tmp_path / "wheels", "alpha", "1.0", [f"part{number}" for number in range(MODULES)])
    return environments.Packages(find_links=(str(tmp_path / "wheels"),), no_index=True)


def whole(python: Path) -> bool:
    """Whether every module of it says what it should."""
    names = [f"part{number}" for number in range(MODULES)]
    code = f"import importlib; print([importlib.import_module(name).VERSION for name in {names!r}].count('1.0'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(MODULES)


def test_what_was_built_is_whole_after_a_power_cut(
    disk: powered.Disk, packages: environments.Packages, suite: Suite
) -> None:
    for number in suite.times(10):
        with suite.attempt(number):
            there = environments.Environments(disk.path / f"envs{number}", packages, time)
            there.open()
            there.build({RECIPE: ("a",)})
            assert there.has(RECIPE.id), there.reason(RECIPE.id)
            disk.cut()
            disk.again()
            assert whole(there.python(RECIPE.id))
            subprocess.run(["rm", "-r", disk.path / f"envs{number}"], check=True)


def test_the_cut_would_be_noticed(
    disk: powered.Disk, packages: environments.Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a build that syncs nothing."""
    monkeypatch.setattr(environments.snapshot, "sync_file_system", lambda _: True)
    monkeypatch.setattr(environments.snapshot, "sync_path", lambda _: None)
    there = environments.Environments(disk.path / "envs", packages, time)
    there.open()
    there.build({RECIPE: ("a",)})
    disk.cut()
    disk.again()
    assert not (there.has(RECIPE.id) and whole(there.python(RECIPE.id)))
