"""Flows with packages of their own, in a real daemon: side by side, warm, through kills and restarts, offline."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time

import pytest

from headrace.sync import environments
from tests.e2e.conftest import Workshop
from tests.support import wheels
from tests.support.daemons import Daemon, processes_matching, until
from tests.support.replays import COMMAND, elsewhere, export, headrace, outcome


def flow(dependencies: str, body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return f"# /// script\n# dependencies = [{dependencies}]\n# ///\ndef handler(system, this, inputs):\n{lines}\n"


#: What no other process on this machine does.
SLEEP = f"sleep 9761.{os.getpid()}"
MEET = """
import alpha, os, sys
system.setting(f'here {inputs["me"]}', value=True)
while not system.setting(f'here {inputs["other"]}').exists():
    this.sleep(0.05)
return [alpha.VERSION, sys.prefix, os.environ['VIRTUAL_ENV']]
"""
WAITS = """
import alpha
before = alpha.VERSION
this.log('waiting in', before)
this.sleep_until(inputs['until'])
return [before, alpha.VERSION]
"""


def shown_on_a_terminal(*words: str) -> str:
    """Type a command and return what a terminal shows meanwhile, up to the word ``environment``."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([*COMMAND, *words], stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal closes with the command
        while b"environment" not in seen:
            seen += os.read(leader, 65536)
    process.kill()
    process.wait()
    os.close(leader)
    return seen.decode()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    program = "#!python\nimport alpha\nprint('said by', alpha.VERSION)\n"
    wheels.wheel(folder, "alpha", "1.0", program=program)
    wheels.wheel(folder, "alpha", "2.0", program=program)
    return folder


def set_up(daemon: Daemon, shop, **more) -> Daemon:
    said = {"find_links": [str(shop)], "no_index": True, **more}
    daemon.environment["HEADRACE_RUN__ENVIRONMENTS"] = json.dumps(said)
    return daemon


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, shop):
    home = tmp_path_factory.mktemp("w")
    folder = home / "flows"
    folder.mkdir()
    (folder / "one.py").write_text(flow('"alpha<2"', MEET))
    (folder / "two.py").write_text(flow('"alpha>=2"', MEET))
    (folder / "both.py").write_text(
        "def handler(system, this):\n"
        "    two = [this.flow('one', me=1, other=2, wait=False), this.flow('two', me=2, other=1, wait=False)]\n"
        "    this.wait_for(two)\n"
        "    return [child.get('output_value') for child in two]\n"
    )
    (folder / "pid.py").write_text(flow('"alpha<2"', "import os, alpha\nreturn os.getpid()"))
    (folder / "script.py").write_text(
        flow(
            '"alpha<2"',
            "text = 'def handler(system, this):\\n    import alpha\\n    return alpha.VERSION\\n'\n"
            "return this.script(text).get('output_value')",
        )
    )
    (folder / "program.py").write_text(
        flow('"alpha>=2"', "import subprocess\nreturn subprocess.check_output(['program'], text=True).strip()")
    )
    (folder / "leaves.py").write_text(
        flow('"alpha<2"', f"import subprocess, alpha\nsubprocess.Popen('setsid {SLEEP} &', shell=True).wait()")
    )
    (folder / "bare.py").write_text("def handler(system, this):\n    import alpha\n")
    (folder / "waits.py").write_text(flow('"alpha<2"', WAITS))
    daemon = set_up(Daemon(home / "s", folder), shop)
    daemon.start()
    yield Workshop(daemon, folder)
    assert daemon.stop() == 0


def test_two_versions_of_a_package_run_at_the_same_time(workshop):
    ended = workshop.daemon.run("both")
    (one, prefix, said), (two, other, _) = ended["output_value"]
    assert (one, two) == ("1.0", "2.0")
    assert prefix == said != other
    assert str(workshop.daemon.state / "envs") in prefix
    bare = workshop.daemon.run("bare")
    assert bare["status"] == "ENDED_ERROR" and "No module named 'alpha'" in bare["message"]


def test_a_process_of_an_environment_stays_warm_and_leaves_nothing_behind(workshop):
    assert workshop.daemon.run("pid")["output_value"] == workshop.daemon.run("pid")["output_value"]
    assert workshop.daemon.run("leaves")["status"] == "ENDED_SUCCESS"
    assert processes_matching(SLEEP) == []


def test_scripts_and_programs_are_those_of_the_environment(workshop):
    assert workshop.daemon.run("script")["output_value"] == "1.0"
    assert workshop.daemon.run("program")["output_value"] == "said by 2.0"
    record = workshop.daemon.lines()
    created = [line for line in record if line["event"] == "execution.created" and line.get("type") == "SCRIPT"]
    assert created[-1]["venv"] == workshop.daemon.client.flow("one")["venv"]


def test_a_fork_server_that_dies_takes_only_its_own_with_it_and_they_go_on(workshop):
    daemon = workshop.daemon
    other = daemon.client.run("two", {"me": 12, "other": 11})["id"]
    mine = daemon.client.run("one", {"me": 11, "other": 12, "x": 1})["id"]
    one = daemon.client.flow("one")["venv"]
    [server] = until(
        lambda: [pid for pid in processes_matching(f"envs/{one}/venv/bin/python") if os.getpgid(pid) == pid][:1],
        "its fork server",
    )
    os.kill(server, signal.SIGKILL)
    assert daemon.client.wait(mine, 60)["output_value"][0] == "1.0"
    assert daemon.client.wait(other, 60)["output_value"][0] == "2.0"


def test_an_environment_that_somebody_removed_is_built_again_by_the_execution_that_needs_it(workshop):
    shutil.rmtree(workshop.daemon.state / "envs" / workshop.daemon.client.flow("program")["venv"])
    assert workshop.daemon.run("program")["output_value"] == "said by 2.0"


def test_a_replay_is_in_the_same_environment_and_says_when_that_is_not_here(workshop, tmp_path):
    daemon = workshop.daemon
    execution = daemon.client.run("pid", {})["id"]
    daemon.client.wait(execution, 60)
    daemon.run("two", me="a", other="a")
    again = outcome("--state", daemon.state, "latest")
    assert (again["verdict"], again["environment"]["here"]) == ("same", True)

    file = export(daemon, daemon.client.executions(flow="two")["items"][0]["id"], tmp_path / "export.jsonl")
    status, out, err = headrace("replay", "--state", tmp_path / "nothing", file)
    assert status == 1 and "which is not in the state directory here" in err
    assert "No module named 'alpha'" in out


def test_it_goes_on_in_its_environment_after_a_kill_whatever_was_pushed_meanwhile(workshop):
    daemon = workshop.daemon
    until_ = time.time() + 6
    execution = daemon.client.run("waits", {"until": until_})["id"]
    until(lambda: any("waiting in" in json.dumps(line) for line in daemon.record(execution)), "it waits")
    (workshop.folder / "waits.py").write_text(flow('"alpha>=2"', WAITS))
    (workshop.folder / "pid.py").write_text(flow('"alpha>=1"', "return 1"))
    assert daemon.client.sync()["broken"] == []
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(execution, 60)["output_value"] == ["1.0", "1.0"]
    assert daemon.run("waits", until=0)["output_value"] == ["2.0", "2.0"]


def test_a_daemon_that_is_killed_in_the_middle_of_a_build_builds_again(make_daemon, tmp_path, shop):
    """And the resolver dies with it."""
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "one.py").write_text(flow('"alpha<2"', "import alpha\nreturn alpha.VERSION"))
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\ncase $1 in venv) exec {environments._find_uv()} "$@";; esac\nexec {SLEEP}\n')
    uv.chmod(0o755)
    daemon = set_up(make_daemon(folder), shop, uv=str(uv)).start(wait=False)
    until(lambda: processes_matching(SLEEP), "the build began", 60)
    doing = daemon.client.sync_state()["doing"]
    assert doing.startswith("building the environment") and "alpha<2" in doing
    assert doing in headrace("flows", "--state", daemon.state)[2]
    assert "building the environment" in shown_on_a_terminal("sync", "--state", str(daemon.state))
    daemon.kill()
    until(lambda: processes_matching(SLEEP) == [], "the resolver died with the daemon")
    assert any(".tmp-" in path.name for path in (daemon.state / "envs").iterdir())
    set_up(daemon, shop).start()
    assert daemon.run("one")["output_value"] == "1.0"
    [left] = (daemon.state / "envs").iterdir()
    assert left.name == daemon.client.flow("one")["venv"]


def test_check_says_offline_what_can_be_said(tmp_path):
    (tmp_path / "old.py").write_text(
        flow('"alpha<2"', "return 1").replace("# ///\ndef", '# requires-python = "<3"\n# ///\ndef')
    )
    (tmp_path / "option.py").write_text(flow('"--index-url=https://x"', "return 1"))
    (tmp_path / "held.py").write_text(flow('"alpha>=2"', "return 1"))
    (tmp_path / "good.py").write_text(flow('"anything>=7"', "return 1"))
    (tmp_path / "requirements.lock").write_text("alpha==1.0\n")
    done = elsewhere(tmp_path, *COMMAND, "check", tmp_path)
    assert done.returncode == 1
    assert "old.py:3: requires-python is '<3', and flows run on Python" in done.stdout
    assert "option.py:2: dependencies cannot be used: '--index-url=https://x' is no requirement" in done.stdout
    assert "held.py:2: 'alpha>=2' is wanted, and requirements.lock has 1.0: change one of them" in done.stdout
    assert "good.py" not in done.stdout
