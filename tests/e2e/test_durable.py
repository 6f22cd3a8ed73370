"""Pull the plug at any moment: executions go on where they were, and nothing they did happens twice."""

import datetime
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.support.daemons import processes_matching, until
from tests.support.world import World

#: Many kinds of calls in a row, every effect of which can be counted afterwards. It asks for the stricter replay.
BUSY = """
# /// script
# [tool.headrace]
# strict_replay = true
# ///
def handler(system, this, inputs):
    world = inputs['world']
    this.log('begins', number=0)
    order = this.uuid()
    begun = this.now().isoformat()
    system.setting('list').list_append(order)
    system.file('report.txt', content=order)
    child = this.flow('child', n=1, wait=False)
    this.set_output('numbers', [])
    for n in range(3):
        this.append_output('numbers', n)
        got = this.task('REST', url=f'{world}/get?n={n}&of={this.id}').get('output_value')['json']
        this.log('got', got['n'])
    print('half way')
    this.save(message='half way')
    this.sleep(0.05)
    this.wait_for(child)
    with this.lock('door'):
        count = system.setting('count').get('value') if system.setting('count').exists() else 0
        system.setting('count', value=count + 1)
    doubled = this.flow('child', n=2).get('output_value')['twice']
    fails = this.flow('fails', wait=system.return_when.ALL_ENDED)
    try:
        this.flow('fails')
    except Exception as error:
        this.log(type(error).__name__)
    question = system.message(subject=order, message='fine?')
    this.set_output(order=order, begun=begun, doubled=doubled, failed=fails.get('status'),
                    stepped=this.step('step', dict, a=1), chance=this.random(), asked=question.id)
    return this.success('all done')
"""
CHILD = "def handler(system, this, inputs):\n    this.sleep(0.02)\n    return {'twice': 2 * inputs['n']}\n"
FAILS = "def handler(system, this):\n    raise ValueError('on purpose')\n"
ASKS = """
def handler(system, this):
    answer = this.message('deploy?', request='which version?')
    return answer.get('response')
"""


@pytest.fixture
def world():
    with World() as world:
        yield world


@pytest.fixture
def daemon(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in {"busy": BUSY, "child": CHILD, "fails": FAILS, "asks": ASKS}.items():
        (flows / f"{name}.py").write_text(text)
    daemon = make_daemon(flows)
    daemon.environment["HEADRACE_RUN__STOP_GRACE"] = "0.2s"
    return daemon


def flow(daemon, name, text):
    path = daemon.source / f"{name}.py"
    path.write_text(text)
    until(lambda: any(flow["name"] == name for flow in daemon.client.flows()), f"{name} is published")


def numbers(record):
    """The call numbers of everything a handler did, as the record tells them."""
    found = []
    for line in record:
        if line["event"] == "calls.repeated":
            found += range(line["call"], line["call"] + line.get("count", 1))
        elif line.get("call") and (
            line["event"] in ("call.started", "execution.saved", "log.written")
            or (line["event"] == "call.ended" and "kind" in line)
        ):
            found.append(line["call"])
    return found


def check(daemon, world, execution):
    """What an undisturbed run of ``busy`` leaves behind."""
    ended = daemon.client.wait(execution, 60)
    assert (ended["status"], ended["message"]) == ("ENDED_SUCCESS", "all done"), ended
    output = ended["output_value"]
    assert (output["numbers"], output["doubled"], output["failed"]) == ([0, 1, 2], 4, "ENDED_ERROR")
    assert output["stepped"] == {"a": 1}
    record = daemon.record(execution)
    assert sorted(numbers(record)) == sorted(set(numbers(record))), "no call is recorded twice"
    assert sum(line["event"] == "execution.ended" for line in record) == 1
    made = [line for line in daemon.lines() if line["event"] == "execution.created" and line.get("parent") == execution]
    assert [line.get("flow_name") or line["task"] for line in made] == ["child", *["REST"] * 3, "child", *["fails"] * 2]
    asked = [line for line in daemon.lines() if line["event"] == "message.created" and line["execution"] == execution]
    assert [line["message"] for line in asked] == [output["asked"]]
    assert daemon.client.kept_one("settings", "list")["value"].count(output["order"]) == 1
    logged = [line for line in daemon.client.log(execution) if line["args"]]
    assert [line["args"][0] for line in logged if line["args"][0] in ("begins", "got")] == ["begins", *["got"] * 3]
    return ended


def test_killed_at_any_moment_it_goes_on_where_it_was(daemon, world, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", "7"))
    kills = int(os.environ.get("HEADRACE_KILLS", "4"))
    record_property("seed", seed)
    record_property("tries", kills)
    chance = random.Random(seed)
    daemon.start()
    began = time.monotonic()
    check(daemon, world, daemon.client.run("busy", {"world": world.url})["id"])
    whole_s = time.monotonic() - began
    executions, resumed = [], 0
    for _ in range(kills):
        executions.append(daemon.client.run("busy", {"world": world.url})["id"])
        time.sleep(chance.uniform(0, whole_s))
        daemon.kill()
        daemon.start()
        resumed += check(daemon, world, executions[-1])["attempt"] > 1
    assert daemon.client.kept_one("settings", "count")["value"] == kills + 1
    assert resumed, "a kill hit one while it ran"
    assert processes_matching("engine/guest/__main__.py")


def test_a_flow_process_that_is_killed_is_replaced(daemon, world):
    daemon.start()
    flow(daemon, "waits", "def handler(system, this):\n    this.log('in')\n    this.sleep(4)\n    return this.id\n")
    execution = daemon.client.run("waits")["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it waits")
    its_own, waiting = children_of_fork_server(daemon)
    for pid in (waiting, its_own):  # the next one is replaced, too
        os.kill(pid, signal.SIGKILL)
    ended = daemon.client.wait(execution, 20)
    assert (ended["status"], ended["output_value"], ended["attempt"]) == ("ENDED_SUCCESS", execution, 2)
    assert [line["args"] for line in daemon.client.log(execution) if line["args"]] == [["in"]]


def children_of_fork_server(daemon):
    started = Path(f"/proc/{daemon.pid}/task").glob("*/children")  # by whichever thread of the daemon
    (server,) = {pid for of_thread in started for pid in of_thread.read_text().split()} & {
        str(pid) for pid in processes_matching("engine/guest/__main__.py")
    }
    return [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


def test_a_long_wait_gives_the_process_back_and_goes_on_after_it(daemon):
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "1s"
    daemon.start()
    execution = daemon.client.run("asks")["id"]
    until(lambda: len(children_of_fork_server(daemon)) == 2, "it has a process, and the next one waits for somebody")
    its_own, waiting = children_of_fork_server(daemon)
    until(lambda: daemon.record(execution)[-1]["event"] == "execution.hibernated", "it hibernates")
    until(lambda: children_of_fork_server(daemon) == [waiting], f"its process {its_own} is gone")
    assert daemon.client.execution(execution)["status"] == "WAITING"
    daemon.kill()
    daemon.start()
    (message,) = daemon.client.messages(pending=True)
    assert not children_of_fork_server(daemon), "nobody was called back for nothing"
    daemon.client.answer(message["id"], {"string": "1.2"})
    assert daemon.client.wait(execution, 20)["output_value"]["string"] == "1.2"
    assert len(daemon.client.messages(pending=False)) == 1, "it was asked once"


def test_a_sleep_goes_on_through_a_crash_and_ends_when_it_was_to(daemon):
    daemon.start()
    flow(daemon, "sleeps", "def handler(system, this):\n    this.sleep(4)\n")
    execution = daemon.client.run("sleeps")["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    (until_s,) = [line["until"] for line in daemon.record(execution) if line["event"] == "call.started"]
    daemon.kill()
    daemon.start()
    began_s = time.time()  # it may be over already, on a slow machine
    ended = daemon.client.wait(execution, 30)
    assert ended["status"] == "ENDED_SUCCESS"
    ended_s = datetime.datetime.fromisoformat(ended["ended_at"]).timestamp()
    assert until_s <= ended_s < max(until_s, began_s) + 10, "neither early, nor as late as one that began anew"


def test_parents_that_wait_never_starve_their_children(daemon):
    daemon.environment["HEADRACE_RUN__MAX_RUNNING"] = "1"
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    flow(
        daemon,
        "deep",
        "def handler(system, this, inputs):\n    n = inputs['n']\n"
        "    return {'depth': this.flow('deep', n=n - 1).get('output_value')['depth'] + 1 if n else 0}\n",
    )
    assert daemon.run("deep", n=50)["output_value"] == {"depth": 50}


def test_a_cancel_reaches_the_handler_of_an_execution_that_has_no_process(daemon):
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    flow(
        daemon,
        "cleans",
        "def handler(system, this):\n    try:\n        this.sleep(600)\n    finally:\n        this.log('cleaned up')\n",
    )
    execution = daemon.client.run("cleans")["id"]
    until(lambda: daemon.record(execution)[-1]["event"] == "execution.hibernated", "it hibernates")
    daemon.client.cancel(execution)
    assert daemon.client.wait(execution, 20)["status"] == "ENDED_CANCELLED"
    assert ["cleaned up"] in [line["args"] for line in daemon.client.log(execution)]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the disk slow")
def test_a_pause_and_a_resume_of_one_that_has_no_process(daemon):
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    flow(daemon, "naps", "def handler(system, this):\n    this.sleep(4)\n    return 'up'\n")
    execution = daemon.client.run("naps")["id"]
    until(lambda: daemon.record(execution)[-1]["event"] == "execution.hibernated", "it hibernates")
    with daemon.writing("delay_enter=500ms"):
        daemon.client.pause(execution)
        daemon.kill()  # at once: who asks how it is would wait for the disk
    daemon.start()
    until(lambda: daemon.client.execution(execution)["status"] == "PAUSED", "it stands still")
    time.sleep(4)
    assert daemon.client.execution(execution)["status"] == "PAUSED"
    daemon.client.resume(execution)
    assert daemon.client.wait(execution, 20)["output_value"] == "up"


def test_the_time_limit_counts_while_nobody_is_there(daemon):
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    flow(
        daemon,
        "limited",
        "# /// script\n# [tool.headrace]\n# timeout = '2s'\n# ///\ndef handler(system, this):\n    this.sleep(600)\n",
    )
    execution = daemon.client.run("limited")["id"]
    until(lambda: daemon.record(execution)[-1]["event"] == "execution.hibernated", "it hibernates")
    daemon.kill()
    daemon.start()
    ended = daemon.client.wait(execution, 20)
    assert (ended["status"], ended["reason"], ended["message"]) == ("ENDED_ERROR", "timeout", "timed out after 2 s")


CUT = """
def handler(system, this, inputs):
    return {inputs['method']: this.task('REST', method=inputs['method'], url=inputs['url'],
            retry_interrupted=inputs.get('again', False), retry_backoff=False).get('output_value')['status_code']}
"""


@pytest.mark.parametrize(
    ("method", "again", "outcome"),
    [
        ("get", False, ("ENDED_SUCCESS", {"get": 200})),
        ("post", False, ("ENDED_ERROR", {})),
        ("post", True, ("ENDED_SUCCESS", {"post": 200})),
    ],
)
def test_a_task_that_was_cut_off_is_repeated_only_if_that_does_no_harm(daemon, world, method, again, outcome):
    daemon.start()
    flow(daemon, "cut", CUT)
    inputs = {"method": method, "url": f"{world.url}/slow?s=1.5", "again": again}
    execution = daemon.client.run("cut", inputs)["id"]
    until(lambda: world.count("/slow") == 1, "the request is under way")
    daemon.kill()
    daemon.start()
    ended = daemon.client.wait(execution, 30)
    assert (ended["status"], ended["output_value"]) == outcome
    assert world.count("/slow") == (1 if outcome[0] == "ENDED_ERROR" else 2)
    if outcome[0] == "ENDED_ERROR":
        assert ended["error"]["type"] == "OutcomeUnknownError"
        assert "whether it took effect is not known" in ended["message"]


FICKLE = """
import os
def handler(system, this, inputs):
    this.log('one')
    if os.path.exists(inputs['sign']):
        this.set_output('changed', True)
    else:
        system.setting('fickle', value=1)
    this.sleep(inputs.get('s', 600))
    return 'end'
"""


def test_a_replay_that_is_not_like_the_record_stands_still_and_says_both_sides(daemon, tmp_path):
    daemon.start()
    flow(daemon, "fickle", FICKLE)
    sign = tmp_path / "sign"
    execution = daemon.client.run("fickle", {"sign": str(sign), "s": 3})["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    sign.write_text("")
    daemon.kill()
    daemon.start()
    paused = until(
        lambda: (found := daemon.client.execution(execution))["status"] == "PAUSED" and found, "it stands still"
    )
    assert paused["divergence"] == {
        "call": 2,
        "recorded_kind": "setting.save",
        "recorded_target": "fickle",
        "recorded_where": "fickle.py:8",
        "attempted_kind": "set_output",
        "attempted_where": "fickle.py:6",
    }
    assert (
        "recorded is setting.save 'fickle' (fickle.py:8), the handler now did set_output (fickle.py:6)"
        in (paused["reason"])
    )
    assert daemon.client.kept_one("settings", "fickle")["value"] == 1
    daemon.client.resume(execution)  # tries again, and meets the same
    until(lambda: sum(line["event"] == "execution.paused" for line in daemon.record(execution)) == 2, "once more")
    sign.unlink()
    daemon.client.resume(execution)
    assert daemon.client.wait(execution, 20)["output_value"] == "end"


def test_one_that_stands_still_can_begin_anew_or_be_cancelled(daemon, tmp_path):
    daemon.start()
    flow(daemon, "fickle", FICKLE)
    sign = tmp_path / "sign"
    first, second = (daemon.client.run("fickle", {"sign": str(sign), "s": 3})["id"] for _ in range(2))
    for execution in (first, second):
        until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", "it sleeps")
    sign.write_text("")
    daemon.kill()
    daemon.start()
    for execution in (first, second):
        until(lambda one=execution: daemon.client.execution(one)["status"] == "PAUSED", "it stands still")
    daemon.client.resume(first, restart=True)
    ended = daemon.client.wait(first, 20)
    assert (ended["status"], ended["output_value"], ended["generation"]) == ("ENDED_SUCCESS", {"changed": True}, 2)
    daemon.client.cancel(second)
    assert daemon.client.wait(second, 20)["status"] == "ENDED_CANCELLED"


def test_a_poisonous_execution_is_parked_and_holds_up_nobody(daemon):
    daemon.start()
    flow(daemon, "poison", "import os\ndef handler(system, this):\n    this.log('once')\n    os._exit(3)\n")
    execution = daemon.client.run("poison")["id"]
    assert daemon.run("child", n=3)["output_value"] == {"twice": 6}
    parked = until(
        lambda: (found := daemon.client.execution(execution))["status"] == "PAUSED" and found, "it is parked", 60
    )
    assert parked["reason"].startswith("parked: its process was lost 5 times in a row before it got any further")
    assert "exited by itself with status 3" in parked["reason"]
    assert sum(line["event"] == "execution.started" for line in daemon.record(execution)) == 6
    assert [line["args"] for line in daemon.client.log(execution) if line["args"]] == [["once"]]
    daemon.client.cancel(execution)
    assert daemon.client.wait(execution, 20)["status"] == "ENDED_CANCELLED"


@pytest.mark.parametrize(
    ("on_interrupt", "outcome"),
    [("resume", ("ENDED_SUCCESS", "", 1)), ("restart", ("ENDED_SUCCESS", "", 2)), ("fail", ("ENDED_ERROR", "", 1))],
)
def test_a_flow_says_what_an_interruption_means_to_it(daemon, on_interrupt, outcome):
    daemon.start()
    flow(
        daemon,
        "says",
        f"# /// script\n# [tool.headrace]\n# on_interrupt = '{on_interrupt}'\n# ///\n"
        "def handler(system, this):\n    this.log('begins')\n"
        "    while not system.setting('stop').exists(): pass\n",
    )
    execution = daemon.client.run("says")["id"]
    until(lambda: any(line["event"] == "log.written" for line in daemon.record(execution)), "it runs")
    daemon.kill()
    daemon.start()
    daemon.client.keep("settings", "stop", {"value": 1})
    ended = daemon.client.wait(execution, 20)
    assert (ended["status"], ended["generation"]) == (outcome[0], outcome[2])
    assert (ended["reason"] == "interrupted") == (on_interrupt == "fail")
    begun = [line["args"] for line in daemon.client.log(execution) if line["args"] == ["begins"]]
    assert len(begun) == outcome[2]


def test_a_loop_that_begins_anew_keeps_its_history_short(daemon):
    daemon.start()
    flow(
        daemon,
        "generations",
        "def handler(system, this, inputs):\n    n = inputs.get('n', 0)\n    this.log(n)\n"
        "    with this.lock('loop'):\n        if n < 20:\n            this.continue_as_new(n=n + 1)\n    return n\n",
    )
    ended = daemon.run("generations")
    assert (ended["status"], ended["output_value"], ended["generation"]) == ("ENDED_SUCCESS", 20, 21)
    assert ended["input_value"] == {"n": 20}
    assert daemon.client.locks() == []


def test_a_loop_that_only_polls_fills_no_disk_and_starves_nobody(daemon):
    daemon.environment["HEADRACE_RUN__MAX_RUNNING"] = "1"
    daemon.start()
    flow(
        daemon,
        "polls",
        "def handler(system, this):\n    child = this.flow('child', n=4, wait=False)\n"
        "    while child.get('status') != 'ENDED_SUCCESS': pass\n    return child.get('output_value')['twice']\n",
    )
    ended = daemon.run("polls", wait_s=30)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", 8)
    record = daemon.record(ended["id"])
    assert len(record) < 12
    assert [line["count"] for line in record if line["event"] == "calls.repeated" and "count" in line]


def test_what_was_polled_is_replayed_in_the_same_number(daemon):
    daemon.start()
    flow(
        daemon,
        "polls",
        "def handler(system, this):\n    n = 0\n    while not system.setting('go').exists():\n        n += 1\n"
        "    this.set_output('n', n)\n    this.sleep(2)\n    return None\n",
    )
    execution = daemon.client.run("polls")["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "RUNNING", "it polls")
    time.sleep(0.3)
    daemon.client.keep("settings", "go", {"value": 1})
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    n = daemon.client.execution(execution)["output_value"]["n"]
    daemon.kill()
    daemon.start()
    ended = daemon.client.wait(execution, 30)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {"n": n})
    assert n > 10
    assert json.dumps(ended)


def test_a_step_that_is_recorded_is_not_done_again(daemon, tmp_path):
    daemon.start()
    flow(
        daemon,
        "steps",
        "import os\ndef handler(system, this, inputs):\n    def act():\n"
        "        with open(inputs['file'], 'a') as file: file.write('done ')\n        return len('done')\n"
        "    n = this.step('act', act)\n    this.sleep(2)\n    return {'n': n}\n",
    )
    file = tmp_path / "file"
    execution = daemon.client.run("steps", {"file": str(file)})["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(execution, 20)["output_value"] == {"n": 4}
    assert file.read_text() == "done "


TOUCHES = """
import os
def handler(system, this, inputs):
    with open(inputs['file'], 'a') as file:
        file.write('touched ')
    this.log('touched')
    this.sleep(2)
    return 'end'
"""


@pytest.mark.parametrize(("on_interrupt", "touched"), [("", 1), ("resume", 2)])
def test_a_flow_that_touched_the_world_by_itself_is_not_silently_run_again(daemon, tmp_path, on_interrupt, touched):
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    head = f"# /// script\n# [tool.headrace]\n# on_interrupt = '{on_interrupt}'\n# ///\n" if on_interrupt else ""
    flow(daemon, "touches", head + TOUCHES)
    file = tmp_path / "file"
    execution = daemon.client.run("touches", {"file": str(file)})["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    time.sleep(0.2)
    assert daemon.record(execution)[-1]["event"] == "call.started", "it keeps its process"
    daemon.kill()
    daemon.start()
    ended = daemon.client.wait(execution, 20)
    assert file.read_text().split() == ["touched"] * touched
    if on_interrupt:
        assert ended["output_value"] == "end"
    else:
        assert (ended["status"], ended["reason"]) == ("ENDED_ERROR", "interrupted")
        line = 8 if head else 4
        assert f"it touched the world by itself: open {file} at touches.py:{line}" in ended["message"]
        assert "Put that into this.step(…)" in ended["message"]


def test_who_waits_for_a_lock_gets_it_after_a_crash_in_the_order_of_coming(daemon):
    daemon.start()
    flow(
        daemon,
        "queues",
        "def handler(system, this, inputs):\n    with this.lock('one door'):\n"
        "        system.setting('order').list_append(inputs['n'])\n        this.sleep(inputs['s'])\n",
    )
    executions = []
    for n in range(4):
        executions.append(daemon.client.run("queues", {"n": n, "s": 0 if n else 3})["id"])
        until(lambda: daemon.client.execution(executions[-1])["status"] == "WAITING", "it stands in line")
    daemon.kill()
    daemon.start()
    assert [daemon.client.wait(execution, 30)["status"] for execution in executions] == ["ENDED_SUCCESS"] * 4
    assert daemon.client.kept_one("settings", "order")["value"] == [0, 1, 2, 3]
    assert daemon.client.locks() == []


def test_a_child_that_was_only_created_can_be_run_after_a_crash(daemon, world):
    daemon.start()
    flow(
        daemon,
        "later",
        "def handler(system, this, inputs):\n    child = this.flow('child', n=5, run=False)\n"
        "    task = this.task('REST', url=inputs['url'], run=False)\n    this.sleep(2)\n"
        "    code = task.run().get('output_value')['status_code']\n"
        "    return [child.run().get('output_value')['twice'], code]\n",
    )
    execution = daemon.client.run("later", {"url": f"{world.url}/late"})["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(execution, 20)["output_value"] == [10, 200]
    assert world.count("/late") == 1


def test_waiting_for_several_with_a_deadline_goes_on_through_a_crash(daemon):
    daemon.start()
    flow(
        daemon,
        "several",
        "import flow_api\ndef handler(system, this):\n"
        "    quick = this.flow('child', n=1, wait=False)\n"
        "    slow = this.script('def handler(system, this):\\n    this.sleep(600)', wait=False)\n"
        "    ended = this.wait_for(quick, slow, return_when=system.return_when.FIRST_ENDED)\n"
        "    try:\n        this.wait_for(slow, timeout=3)\n"
        "    except flow_api.DependencyTimeoutError as error:\n        slow.cancel()\n"
        "        return [ended[0].get('output_value')['twice'], str(error)]\n",
    )
    execution = daemon.client.run("several")["id"]
    until(lambda: "until" in daemon.record(execution)[-1], "it waits for the slow one")
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(execution, 20)["output_value"] == [2, "not ended within 3 s"]


def test_a_secret_a_handler_read_is_there_again_and_stands_nowhere(daemon, tmp_path):
    daemon.environment["HUSH"] = "a very secret word"
    daemon.start()
    flow(
        daemon,
        "reads",
        "def handler(system, this, inputs):\n"
        "    text = this.message('say it', body={'type': 'object', 'properties': {'p': {'element': 'password', "
        "'type': 'string'}}}).get('response')['p']\n    this.sleep(2)\n    return {'length': len(text)}\n",
    )
    execution = daemon.client.run("reads")["id"]
    (message,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    daemon.client.answer(message["id"], {"p": "a very secret word"})
    until(lambda: "until" in daemon.record(execution)[-1], "it sleeps")
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(execution, 20)["output_value"] == {"length": 18}
    assert b"very secret word" not in b"".join(path.read_bytes() for path in (daemon.state / "records").iterdir())


def test_what_is_printed_before_a_replayed_call_is_not_recorded_twice(daemon):
    daemon.start()
    flow(
        daemon,
        "prints",
        "import logging\ndef handler(system, this):\n    print('before')\n    logging.warning('careful')\n"
        "    this.sleep(1.5)\n    print('after')\n",
    )
    execution = daemon.client.run("prints")["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    daemon.kill()
    daemon.start()
    daemon.client.wait(execution, 20)
    texts = [line["text"] for line in daemon.client.log(execution)]
    assert texts == ["before", "careful", "after"]


def test_a_history_that_is_full_is_told_before_it_cannot_be_replayed(daemon):
    daemon.start()
    flow(
        daemon,
        "fills",
        "import flow_api\ndef handler(system, this, inputs):\n    if 'wrote' in inputs:\n        return inputs\n"
        "    for n in range(20):\n        try:\n            system.setting('big', value='x' * 30_000_000)\n"
        "        except flow_api.HistoryFull as error:\n            this.continue_as_new(wrote=n, told=str(error))\n",
    )
    ended = daemon.run("fills")
    assert ended["output_value"]["wrote"] == 4
    assert "the limit is 100,000 calls and 104,857,600 bytes" in ended["output_value"]["told"]
    warned = [line for line in daemon.record(ended["id"]) if line.get("stream") == "headrace"]
    assert [line["level"] for line in warned] == ["WARNING"] and "continue_as_new" in warned[0]["text"]


def test_a_cancel_that_was_acknowledged_reaches_the_handler_after_a_crash(daemon):
    daemon.start()
    flow(
        daemon,
        "cleans",
        "import flow_api\ndef handler(system, this):\n    this.log('in')\n    try:\n"
        "        while True: this.sleep(0.01)\n    finally:\n        this.log('cleaned up')\n",
    )
    executions = [daemon.client.run("cleans")["id"] for _ in range(3)]
    for execution in executions:
        until(lambda one=execution: any(line["args"] == ["in"] for line in daemon.client.log(one)), "it runs")
        daemon.client.cancel(execution)
    daemon.kill()
    daemon.start()
    for execution in executions:
        assert daemon.client.wait(execution, 30)["status"] == "ENDED_CANCELLED"
        logged = [line["args"] for line in daemon.client.log(execution) if line["args"]]
        assert logged == [["in"], ["cleaned up"]]


def test_one_that_touched_the_world_and_stood_still_is_not_silently_run_again(daemon, tmp_path):
    daemon.start()
    flow(daemon, "touches", TOUCHES)
    execution = daemon.client.run("touches", {"file": str(tmp_path / "file")})["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    assert daemon.client.pause(execution)["status"] == "PAUSED"
    daemon.kill()
    daemon.start()
    ended = daemon.client.wait(execution, 20)
    assert (ended["status"], ended["reason"]) == ("ENDED_ERROR", "interrupted")


def test_what_cannot_be_read_back_now_is_tried_again_and_nobody_is_stranded(daemon):
    daemon.start()
    flow(
        daemon,
        "reads",
        "def handler(system, this):\n    system.setting('large', value='x' * 200_000)\n"
        "    text = system.setting('large').get('value')\n    this.sleep(3)\n    return len(text)\n",
    )
    execution = daemon.client.run("reads")["id"]
    until(lambda: daemon.client.execution(execution)["status"] == "WAITING", "it sleeps")
    daemon.kill()
    blobs, aside = daemon.state / "blobs", daemon.state / "aside"
    blobs.rename(aside)
    daemon.start()
    until(
        lambda: any(line["event"] == "execution.interrupted" for line in daemon.record(execution)), "it cannot be read"
    )
    assert daemon.run("child", n=1)["output_value"] == {"twice": 2}
    if blobs.exists():
        blobs.rmdir()
    aside.rename(blobs)
    ended = daemon.client.wait(execution, 60)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", 200_000)
