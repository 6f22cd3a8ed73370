"""What a release is made with: locked, few, and the same bytes again. `make test-deb` tries the package itself."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

from headrace.daemon import config
from headrace.daemon.cli import main, man_page, manual

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "release"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME_DEPENDENCIES_MAX = 12


def wheel(into, umask, **environment):
    """Build the wheel of HEAD, without the pages' scripts, which take the network."""
    environment = {**os.environ, "HEADRACE_NO_UI": "1", **environment}
    command = [sys.executable, str(RELEASE / "wheel.py"), str(into)]
    subprocess.run(command, env=environment, umask=umask, check=True, capture_output=True, timeout=100)
    (built,) = into.glob("*.whl")
    return built


def locked(name):
    """What a lock holds: name → version."""
    return dict(re.findall(r"(?m)^([a-z0-9.-]+)==([^ ;]+)", (RELEASE / f"{name}.txt").read_text()))


def wanted(*extras):
    """What the extras ask for, and theirs."""
    for text in (text for extra in extras for text in PROJECT["optional-dependencies"][extra]):
        requirement = Requirement(text)
        yield from wanted(*requirement.extras) if requirement.name == "headrace" else [requirement]


def test_a_wheel_of_the_same_commit_is_the_same_wherever_it_is_built(tmp_path):
    one = wheel(tmp_path / "here", 0o022)
    (tmp_path / "elsewhere").mkdir()
    other = wheel(
        tmp_path / "elsewhere" / "deeper",
        0o077,
        TZ="Pacific/Apia",
        TMPDIR=str(tmp_path / "elsewhere"),
        PYTHONHASHSEED="7",
    )
    assert one.read_bytes() == other.read_bytes()


def test_the_daemon_needs_few_packages():
    assert len(PROJECT["dependencies"]) <= RUNTIME_DEPENDENCIES_MAX, "make it an extra, or do without another one"


def test_the_lock_holds_all_that_the_package_asks_for():
    held = locked("requirements")
    for requirement in [*map(Requirement, PROJECT["dependencies"]), *wanted("all")]:
        version = held.get(requirement.name.lower())
        assert version, f"{requirement} is not locked: make lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: make lock"


@pytest.mark.parametrize("name", ["requirements", "build", "checks"])
def test_everything_that_is_locked_has_its_hashes_and_names_no_host(name):
    text = (RELEASE / f"{name}.txt").read_text()
    blocks = re.findall(r"(?m)^[a-z0-9].*\n(?: +--hash=sha256:[0-9a-f]{64}.*\n)+", text)
    assert len(blocks) == len(locked(name)) > 0
    assert "".join(blocks) == text, "nothing but names, versions and hashes"
    source = RELEASE / f"{name}.in"
    for line in source.read_text().splitlines() if source.exists() else []:
        if not line.startswith("#"):
            assert Requirement(line).specifier.contains(locked(name)[Requirement(line).name]), f"{line}: make lock"


def test_the_settings_that_a_package_brings_can_be_used_when_they_count():
    text = (RELEASE / "debian" / "headrace.toml").read_text()
    assert tomllib.loads(text) == {}, "as it is, it says nothing"
    counting = re.sub(r"(?m)^#(?! |$)", "", text)
    settings = config.load({}, {}, {"headrace.toml": counting})
    assert settings.source_url and settings.run_max_running


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_what_dpkg_runs_is_a_script_of_sh(script):
    path = RELEASE / "debian" / script
    assert path.read_text().startswith("#!/bin/sh\n")
    assert "\nset -e\n" in path.read_text()
    subprocess.run(["sh", "-n", str(path)], check=True)


def test_the_manual_page_has_every_verb_and_option():
    page = man_page.page().replace(r"\-", "-")
    for words, command in manual.verbs(main.headrace):
        assert f"\n.SS headrace {words}" in page
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in manual.OWN and not option.hidden:
                assert max(option.opts, key=len) in page
    assert all(f"\n.TP\n\\fB{status}\\fR\n" in page for status in manual.EXIT_STATUSES)
    assert not re.search(r"(?m)^'", page), "a line of text that roff would take for a request"


def test_what_the_image_runs_and_sets_is_there():
    lines = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    (health,) = (line.partition(" CMD ")[2] for line in lines if line.startswith("HEALTHCHECK"))
    (entry,) = (line.partition(" ")[2] for line in lines if line.startswith("ENTRYPOINT"))
    assert entry == '["headrace"]'
    words = health.strip("[]").replace('"', "").replace(",", "").split()
    assert words[0] == "headrace" and words[1] in main.headrace.list_commands(click.Context(main.headrace))
    (settings,) = (
        dict(pair.split("=", 1) for pair in shlex.split(line)[1:]) for line in lines if line.startswith("ENV")
    )
    loaded = config.load(
        {}, {**settings, "HEADRACE_SOURCE__URL": "/flows", "HEADRACE_LISTEN__BEHIND_PROXY": "true"}, {}
    )
    assert str(loaded.state_directory) == "/var/lib/headrace"
    assert [line for line in lines if line.startswith("USER")] == ["USER headrace"]
