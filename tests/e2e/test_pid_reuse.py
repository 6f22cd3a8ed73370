"""Numbers of processes come round again: whoever has the number of a dead flow by then is not taken for it.

In a namespace of its own, with a few hundred numbers in all, flows with children are run and cancelled while bystanders
come and go on the numbers that are free. A bystander that anybody but the test kills was taken for somebody else.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, until

NUMBERS = 600
ROUNDS = int(os.environ.get("HEADRACE_PID_ROUNDS", "60"))
ROOT = Path(__file__).parents[2]
FLOW = """
# /// script
# [tool.headrace]
# reuse = false
# ///
import subprocess
def handler(system, this, inputs):
    children = [subprocess.Popen(['sleep', '1000']) for _ in range(3)]
    this.set_output('begun', [child.pid for child in children])
    if inputs.get('stay'):
        this.sleep(600)
    return this.success()
"""


def inside(home):
    """What runs in the namespace; prints what it saw."""
    Path("/proc/sys/kernel/pid_max").write_text(str(NUMBERS))
    (home / "flows").mkdir()
    (home / "flows" / "spawns.py").write_text(FLOW)
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment |= {"HEADRACE_RUN__CANCEL_GRACE": "0.2s", "HEADRACE_RUN__MAX_RUNNING": "4"}
    daemon.start()
    chance, bystanders, ours, reused, wrong = random.Random(1), [], set(), 0, 0
    for _ in range(ROUNDS):
        staying = daemon.client.run("spawns", {"stay": True})["id"]
        ended = daemon.run("spawns")
        begun = until(lambda id_=staying: daemon.client.execution(id_)["output_value"].get("begun"), "it stays")
        ours |= set(begun) | set(ended["output_value"]["begun"])
        daemon.client.cancel(staying)
        daemon.client.wait(staying, 30)
        for _ in range(6):  # on numbers that flows and their children had, sooner or later
            bystanders.append(subprocess.Popen(["sleep", "1000"]))
            reused += bystanders[-1].pid in ours
        chance.shuffle(bystanders)
        wrong += sum(one.poll() is not None for one in bystanders)
        while len(bystanders) > 60:
            one = bystanders.pop()
            one.kill()
            one.wait()
    assert daemon.stop() == 0
    wrong += sum(one.poll() is not None for one in bystanders)
    for one in bystanders:
        one.kill()
    print(json.dumps({"wrong": wrong, "reused": reused}))


def test_nobody_is_killed_for_having_the_number_of_somebody_dead(tmp_path):
    wrapped = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    kernel = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if kernel < (6, 14) or subprocess.run([*wrapped, "true"], capture_output=True).returncode:
        pytest.skip("needs root, and a kernel on which a namespace has a limit of its own (6.14)")
    command = [*wrapped, sys.executable, "-c", f"import sys, pathlib; sys.path.insert(0, {str(ROOT)!r}); "
               f"from tests.e2e import test_pid_reuse as t; t.inside(pathlib.Path({str(tmp_path)!r}))"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"{ROUNDS} rounds: {told}")
    assert told["wrong"] == 0
    assert told["reused"] > 10, "no number came round again: the test has shown nothing"
