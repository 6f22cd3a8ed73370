"""`headrace try`: a script of this machine runs on the daemon, uncommitted, and its outcome is the command's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """#!/usr/bin/env -S headrace try
from lib import words

def handler(system, this, inputs):
    this.log('looks', inputs.get('name'))
    this.set_output('said', words.shout(this.flow('idle').get('status')))
    if inputs.get('fail'):
        raise ValueError('as asked')
"""


@pytest.fixture(scope="module")
def tried(workshop, tmp_path_factory):
    """Type `headrace try` in a folder with the script; returns exit status, stdout, stderr."""
    workshop.write("lib/words.py", "def shout(text):\n    return text + '!'\n")
    workshop.daemon.client.sync()
    folder = tmp_path_factory.mktemp("try")
    (folder / "look.py").write_text(SCRIPT)
    (folder / "look.py").chmod(0o755)
    environment = os.environ | {
        "STATE_DIRECTORY": str(workshop.daemon.state),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(*words, stdin=""):
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, input=stdin)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_script_runs_with_the_modules_and_flows_that_are_published(tried, workshop):
    status, out, err = tried("headrace", "try", "look.py", "name=Ada")
    assert (status, json.loads(out)) == (0, {"said": "ENDED_SUCCESS!"})
    assert "looks Ada" in err and "ENDED_SUCCESS  look.py" in err
    assert "look" not in [flow["name"] for flow in workshop.daemon.client.flows()]


def test_its_failure_is_that_of_the_command(tried):
    status, out, err = tried("headrace", "try", "look.py", "fail:=true", "--no-follow")
    assert (status, json.loads(out)) == (1, {"said": "ENDED_SUCCESS!"})
    assert "ValueError: as asked" in err and "line 8" in err and "looks" not in err


def test_it_is_a_command_of_its_own_by_its_first_line(tried):
    status, out, _ = tried("./look.py", "name=Ada")
    assert (status, json.loads(out)) == (0, {"said": "ENDED_SUCCESS!"})


def test_it_comes_on_stdin(tried):
    status, out, err = tried(
        "headrace", "try", "-", "--json", stdin="def handler(system, this):\n    return {'a': 1}\n"
    )
    ended = json.loads(out)
    assert (status, ended["name"], ended["type"], ended["output_value"]) == (0, "stdin", "SCRIPT", {"a": 1})
    assert "ENDED_SUCCESS  stdin" in err
    assert tried("headrace", "try", "-", "--input", "-")[0] == 2


def test_what_cannot_be_read_is_said(tried):
    status, _, err = tried("headrace", "try", "nowhere.py")
    assert status == 2 and "nowhere.py cannot be read" in err


def test_a_flow_runs_as_it_was_published_with_a_commit(tried, workshop):
    commit = workshop.daemon.client.flow("idle")["commit"]
    assert tried("headrace", "run", "idle", "--ref", commit)[0] == 0
    status, _, err = tried("headrace", "run", "idle", "--ref", "f" * 40)
    assert status == 1 and "is not kept any more" in err
