"""Recorded executions run again offline do what they did, however they ended and whatever they called. Nothing else."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from tests.support.daemons import until
from tests.support.replays import COMMAND, elsewhere, export, headrace, outcome
from tests.support.world import World

FLOWS = {
    "returns": "def handler(system, this):\n    this.log('in', n=1)\n    return [1, {'a': None}, 'é']\n",
    "marks": "def handler(system, this):\n    this.set_output('a', 1)\n    return this.success('all done')\n",
    "marks an error": "def handler(system, this):\n    return this.error('the disk is full')\n",
    "fails": "def handler(system, this):\n    this.log('in')\n    raise ValueError('no luck')\n",
    "exits": "import sys\n\ndef handler(system, this):\n    this.uuid()\n    sys.exit(3)\n",
    "child": "def handler(system, this, inputs):\n    this.log('a')\n    return {'twice': 2 * inputs['n']}\n",
    "parent": """
        def handler(system, this):
            children = [this.flow('child', n=n, wait=False) for n in range(3)]
            this.wait_for(children)
            try:
                this.flow('fails')
            except Exception as error:
                this.log(error.execution.get('message'), error.execution.get('output_value'))
            return [child.get('output_value') for child in children]
        """,
    "chance": """
        import random
        def handler(system, this):
            picked = [random.random(), this.random(), this.uuid(), this.now().isoformat()]
            for name in {'ada', 'grace', 'edsger', 'barbara'}:
                this.log(name)
            for n in range(random.randint(1, 9)):
                this.step(f'step {n}', lambda: 7)
            return picked
        """,
    "generations": """
        def handler(system, this, inputs):
            n = inputs.get('n', 0)
            this.log('round', n)
            if n < 3:
                this.continue_as_new(n=n + 1)
            return n
        """,
    "large": """
        def handler(system, this):
            system.setting('large', value='x' * 300_000)
            return len(system.setting('large').get('value')) * 'y'
        """,
    "polls": """
        def handler(system, this):
            found = [system.setting('nothing').exists() for _ in range(14)]
            return this.success(f'{sum(found)} of {len(found)}')
        """,
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon(workshop):
    for name, text in FLOWS.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon


@pytest.fixture
def write(workshop):
    def write(name, text):
        workshop.flow(name, text)
        return name

    return write


def replayed(daemon, execution, *options):
    return outcome("--state", daemon.state, execution, *options)


# -- however it ended --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [name for name in FLOWS if name != "child"])
def test_what_has_ended_by_itself_ends_the_same(daemon, flow):
    ended = daemon.run(flow)
    again = replayed(daemon, ended["id"])
    assert (again["verdict"], again["status"], again["notes"]) == ("same", 0, []), again
    assert again["text"].startswith(ended["status"])


@pytest.mark.parametrize(
    "body",
    [
        "this.sleep(600)",
        "\n        while True: this.sleep(0.01)",
        "\n        while True:\n            time.sleep(0.01)\n            this.log('still here')",
        "\n        while True:\n            time.sleep(0.01)\n            this.log('here')\n            this.now()",
        "this.flow('idle', run=False)\n        this.message('?', request='?')",
    ],
)
@pytest.mark.parametrize("cleanup", ["pass", "this.log('bye')", "this.log('bye')\n        this.uuid()", "return 1"])
def test_what_was_cancelled_is_cancelled_at_the_same_place(daemon, write, body, cleanup):
    text = "import time\n\ndef handler(system, this):\n    this.save(message='on')\n    try:\n        "
    execution = daemon.client.run(write("cancelled", f"{text}{body}\n    finally:\n        {cleanup}\n"))["id"]
    until(lambda: daemon.client.execution(execution)["message"] == "on", "it has begun")
    time.sleep(0.1)
    daemon.client.cancel(execution)
    assert daemon.client.wait(execution, 30)["status"] == "ENDED_CANCELLED"
    again = replayed(daemon, execution, "--timeout", "30s")
    assert (again["verdict"], again["text"]) == ("same", "ENDED_CANCELLED"), again


def test_what_was_killed_goes_as_far_as_its_record(daemon, write):
    name = write(
        "spins", "# /// script\n# [tool.headrace]\n# timeout = '1s'\n# ///\ndef handler(system, this):\n"
        "    this.uuid()\n    while not system.setting('stop').exists(): pass\n    this.uuid()\n"
    )  # fmt: skip
    ended = daemon.run(name)
    assert ended["reason"] == "timeout"
    again = replayed(daemon, ended["id"])
    assert (again["verdict"], again["status"]) == ("further", 0), again
    assert "the record ends there (timeout)" in again["text"]


def test_what_has_not_ended_goes_as_far_as_its_record(daemon, write):
    name = write("naps", "def handler(system, this):\n    this.uuid()\n    this.sleep(600)\n")
    execution = daemon.client.run(name)["id"]
    until(lambda: "call.started" in [line["event"] for line in daemon.record(execution)], "it sleeps")
    again = replayed(daemon, execution)
    daemon.client.cancel(execution)
    assert (again["verdict"], again["status"], again["calls"]) == ("further", 0, 2)
    assert "call 2, sleep (naps.py:3), had no answer yet" in again["text"]


BUSY = """
def handler(system, this, inputs):
    world = inputs['world']
    this.log('begins', number=0)
    order = this.uuid()
    system.setting('list').list_append(order)
    system.file('report.txt', content=order)
    child = this.flow('child', n=1, wait=False)
    for n in range(3):
        this.append_output('numbers', n)
        got = this.task('REST', url=f'{world}/get?n={n}').get('output_value')['json']
        this.log('got', got['n'])
    this.sleep(0.3)
    this.wait_for(child)
    with this.lock('door'):
        count = system.setting('count').get('value') if system.setting('count').exists() else 0
        system.setting('count', value=count + 1)
    try:
        this.flow('fails')
    except Exception as error:
        this.log(type(error).__name__)
    this.set_output(order=order, stepped=this.step('step', dict, a=1), chance=this.random())
    return this.success('all done')
"""


def test_what_hibernated_and_was_cut_off_is_replayed_from_its_whole_record(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    for name in ("child", "fails"):
        (flows / f"{name}.py").write_text(FLOWS[name])
    (flows / "busy.py").write_text(BUSY)
    daemon = make_daemon(flows)
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.05s"
    daemon.start()
    with World() as world:
        executions = [daemon.client.run("busy", {"world": world.url})["id"] for _ in range(6)]
        for pause_s in (0.15, 0.1, 0.3):
            time.sleep(pause_s)
            daemon.kill()
            daemon.start()
        ended = [daemon.client.wait(execution, 60) for execution in executions]
    assert {one["status"] for one in ended} == {"ENDED_SUCCESS"}
    told = [line["event"] for execution in executions for line in daemon.record(execution)]
    assert told.count("execution.started") > told.count("execution.hibernated") + len(executions) > len(executions)
    for execution in executions:
        again = replayed(daemon, execution)
        assert (again["verdict"], again["notes"]) == ("same", []), again
    daemon.kill()
    by_files = [replayed(daemon, execution)["verdict"] for execution in executions]
    assert by_files == ["same"] * 6, "the state directory alone is enough"
    assert replayed(daemon, "latest")["execution"] == executions[-1]


# -- where nothing is --------------------------------------------------------------------------------------------------


def test_an_exported_file_is_all_it_takes(daemon, workshop, write, tmp_path):
    workshop.write("inside/tool.py", "def twice(n):\n    return 2 * n\n")
    name = write(
        "imports",
        "from inside import tool\n\ndef handler(system, this):\n    print('printed')\n    this.log('logged', n=1)\n"
        "    return this.success(f\"{tool.twice(3)} {this.flow('returns').get('status')}\")\n",
    )
    file = export(daemon, daemon.run(name)["id"], tmp_path / "it.jsonl")
    done = elsewhere(tmp_path, *COMMAND, "replay", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "printed",
        "INFO      logged n=1",
        "same: ENDED_SUCCESS: 6 ENDED_SUCCESS (calls: 2)",
    ]
    assert list((tmp_path / "home").iterdir()) == []


def test_what_ran_on_files_that_were_cleaned_away_is_exported_all_the_same(daemon, workshop, write, tmp_path):
    workshop.write("inside/word.py", "WORD = 'before'\n")
    text = "from inside.word import WORD\n\ndef handler(system, this):\n    this.log(WORD)\n    return WORD\n"
    ended = daemon.run(write("worded", text))
    workshop.write("inside/word.py", "WORD = 'after'\n")
    daemon.client.sync()
    commit = ended["commit"]
    assert commit != daemon.run("worded")["commit"]
    top = daemon.state / "snapshots" / commit
    top.rename(tmp_path / "cleaned away")
    file = export(daemon, ended["id"], tmp_path / "it.jsonl")
    assert outcome(file)["verdict"] == "same"


def test_the_verb_exports_what_the_route_does(daemon, tmp_path):
    one, other = daemon.run("parent")["id"], daemon.run("large")["id"]
    file = tmp_path / "both.jsonl"
    assert headrace("--state", daemon.state, "records", "export", one, other, "-o", file)[0] == 0
    assert file.read_bytes() == b"".join([*daemon.client.export(one), *daemon.client.export(other)])
    status, _, err = headrace("replay", file)
    assert (status, one in err and other in err) == (2, True)
    status, _, err = headrace("--state", daemon.state, "records", "export", "nope", "-o", tmp_path / "none")
    assert (status, (tmp_path / "none").exists()) == (3, False)


def test_a_task_has_no_handler_to_replay(daemon, write):
    with World() as world:
        ended = daemon.run(write("asks", f"def handler(system, this):\n    this.task('REST', url='{world.url}')\n"))
    (task,) = daemon.client.executions(parent=ended["id"])["items"]
    status, _, err = headrace("--state", daemon.state, "replay", task["id"])
    assert (status, "only flows have a handler" in err) == (2, True)


def test_what_was_masked_stays_masked_and_is_replayed_so(daemon, write, tmp_path):
    write("gives", "def handler(system, this):\n    return {'password': ' '.join(['correct', 'horse', 'battery'])}\n")
    name = write(
        "keeps",
        "def handler(system, this):\n"
        "    made = this.flow('gives', protect_outputs=['password']).get('output_value')['password']\n"
        "    this.log(made)\n    return this.success(made.upper() if made.startswith('c') else 'masked')\n",
    )
    ended = daemon.run(name)
    assert ended["message"] == "CORRECT HORSE BATTERY"
    file = export(daemon, ended["id"], tmp_path / "it.jsonl")
    assert b"correct horse" not in file.read_bytes()
    again = outcome(file)
    assert (again["verdict"], again["divergence"]["attempted_target"]) == ("diverged", "masked")


# -- nothing is touched ------------------------------------------------------------------------------------------------


EFFECTS = [
    ("open({path!r}, 'w').write('x')", "open"),
    ("os.mkdir({path!r})", "os.mkdir"),
    ("subprocess.run(['touch', {path!r}])", "subprocess.Popen"),
    ("os.system('touch ' + {path!r})", "os.system"),
    ("socket.create_connection(('127.0.0.1', {port}))", "socket"),
    ("threading.Thread(target=lambda: open({path!r}, 'w').write('x')).start() or time.sleep(0.2)", "open"),
]


@pytest.mark.parametrize(("code", "event"), EFFECTS)
def test_effects_of_a_handlers_own_are_refused_each_of_them(daemon, write, tmp_path, code, event):
    path = tmp_path / "touched"
    with World() as world:
        code = code.format(path=str(path), port=int(world.url.rpartition(":")[2]))
        name = write(
            "touches",
            f"import os, socket, subprocess, threading, time\n\ndef handler(system, this):\n    for _ in range(2):\n"
            f"        try:\n            {code}\n        except Exception:\n            pass\n    return 'done'\n",
        )
        ended = daemon.run(name)
        if path.exists():
            path.rmdir() if path.is_dir() else path.unlink()
        again = replayed(daemon, ended["id"])
        assert (again["verdict"], again["status"]) == ("refused", 1), again
        assert event in again["text"] and "touches.py:6" in again["text"] and "--allow-effects" in again["text"]
        assert not path.exists()
        allowed = replayed(daemon, ended["id"], "--allow-effects")
        assert allowed["verdict"] == "same", allowed
        assert path.exists() == ("path" in code or "touched" in code)


def test_a_step_is_never_run(daemon, write, tmp_path):
    path = tmp_path / "stepped"
    body = "import pathlib\n\ndef handler(system, this):\n    this.uuid()\n"
    body += f"    this.step('make', pathlib.Path({str(path)!r}).touch)\n"
    ended = daemon.run(write("steps", body))
    path.unlink()
    assert replayed(daemon, ended["id"])["verdict"] == "same"
    changed = tmp_path / "changed"
    changed.mkdir()
    more = f"    this.step('more', pathlib.Path({str(path)!r}).touch)\n"
    (changed / "steps.py").write_text(body + more)
    again = replayed(daemon, ended["id"], "--against", changed)
    assert (again["verdict"], again["divergence"]["call"]) == ("diverged", 3)
    assert again["divergence"]["attempted_where"] == "steps.py:6"
    (changed / "steps.py").write_text(body.replace("    this.uuid()\n", more))
    again = replayed(daemon, ended["id"], "--against", changed, "--allow-effects")
    assert (again["verdict"], again["divergence"]["call"]) == ("diverged", 1)
    assert not path.exists()


def cut_off_works() -> bool:
    words = ["unshare", "-n", "strace", "-f", "-o", "/dev/null", "true"]
    if not (shutil.which("unshare") and shutil.which("strace")):
        return False
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not cut_off_works(), reason="unshare -n or strace is not there, or not permitted")
def test_a_replay_opens_no_connection_and_writes_nothing_but_its_own_folder(daemon, tmp_path):
    executions = [daemon.run(flow)["id"] for flow in ("parent", "chance", "large")]
    file = tmp_path / "them.jsonl"
    file.write_bytes(b"".join(line for execution in executions for line in daemon.client.export(execution)))
    trace = tmp_path / "trace"
    calls = (
        "trace=socket,connect,sendto,sendmsg,bind,open,openat,creat,mkdir,mkdirat,unlink,rename,renameat2,link,symlink"
    )
    command = [*COMMAND, "check", daemon.source, "--records", "--from", file]
    done = elsewhere(tmp_path, "unshare", "-n", "strace", "-f", "-e", calls, "-o", trace, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = trace.read_text().splitlines()
    assert [line for line in lines if re.search(r"\b(connect|bind|socket)\(", line)] == []
    # send() on a pair of sockets is the same system call, without an address: that is how a flow process is spoken to
    assert [line for line in lines if "sendto(" in line and ", NULL, 0" not in line] == []
    assert [line for line in lines if "sendmsg(" in line and "msg_name=NULL" not in line] == []
    changing = r"O_(WRONLY|RDWR|CREAT)|\b(creat|mkdir|mkdirat|unlink|rename|renameat2|link|symlink)\("
    changed = [line for line in lines if re.search(changing, line) and " = -1 " not in line]
    paths = {path for line in changed for path in re.findall(r'"([^"]*)"', line)}
    own = re.escape(str(tmp_path / "temporary"))
    assert [path for path in paths if not re.match(rf"{own}|/dev/(null|tty)$|/proc/self/", path)] == []
    assert any("headrace-replay-" not in path for path in paths)
    assert list((tmp_path / "temporary").iterdir()) == []


# -- in the debugger ---------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own, typed at."""

    def __init__(self, *words):
        self.pid, self.leader = pty.fork()
        if self.pid == 0:
            os.execvpe(words[0], [str(word) for word in words], {**os.environ, "TERM": "dumb"})
        self.seen = ""

    def until(self, text):
        """Read until ``text`` appears and return everything before it."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.leader], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.leader, 65536).decode()
                except OSError:
                    assert text in self.seen, self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, line):
        os.write(self.leader, line.encode() + b"\n")

    def ended(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_pdb_stops_at_the_first_line_and_steps_over_the_engine(daemon):
    terminal = Terminal(*COMMAND, "--state", daemon.state, "replay", "--pdb", daemon.run("returns")["id"])
    assert "returns.py(2)handler()" in terminal.until("(Pdb) ")
    terminal.type("s")
    said = terminal.until("(Pdb) ")
    assert "logged" not in said
    assert "INFO      in n=1" in said
    assert "returns.py(3)handler()" in said
    terminal.type("p this.id, 6 * 7")
    assert ", 42)" in terminal.until("(Pdb) ")
    terminal.type("c")
    terminal.until("same: ENDED_SUCCESS")
    assert terminal.ended() == 0


def test_pdb_stops_where_an_exception_left_the_handler(daemon):
    terminal = Terminal(*COMMAND, "--state", daemon.state, "replay", "--pdb", daemon.run("fails")["id"])
    terminal.until("(Pdb) ")
    terminal.type("c")
    said = terminal.until("(Pdb) ")
    assert "ValueError: no luck" in said
    assert "fails.py(3)handler()" in said
    terminal.type("q")
    terminal.until("same: ENDED_ERROR")
    assert terminal.ended() == 0


def test_pdb_shows_where_the_flow_parts_from_its_record(daemon, tmp_path):
    execution = daemon.run("returns")["id"]
    (tmp_path / "returns.py").write_text("def handler(system, this):\n    secret = 7\n    return this.uuid()\n")
    terminal = Terminal(*COMMAND, "--state", daemon.state, "replay", "--pdb", "--against", tmp_path, execution)
    terminal.until("(Pdb) ")
    terminal.type("c")
    said = terminal.until("(Pdb) ")
    assert "ReplayDivergedError" in said
    assert "returns.py:3" in said
    terminal.type("u 99")
    terminal.until("(Pdb) ")
    terminal.type("p inspect_me if 'inspect_me' in dir() else system and 'here'")
    terminal.until("'here'")
    terminal.type("q")
    terminal.until("diverged")
    assert terminal.ended() == 1


def test_leaving_the_debugger_is_no_verdict(daemon):
    terminal = Terminal(*COMMAND, "--state", daemon.state, "replay", "--pdb", daemon.run("returns")["id"])
    terminal.until("(Pdb) ")
    os.kill(terminal.pid, signal.SIGINT)  # for the flow that is debugged, not for whoever waits for it
    terminal.type("q")
    terminal.until("left the debugger")
    assert terminal.ended() == 130


def test_a_replay_that_never_ends_is_given_up_when_wanted(daemon, write, tmp_path):
    ended = daemon.run(write("quick", "def handler(system, this):\n    return 1\n"))
    (tmp_path / "quick.py").write_text("def handler(system, this):\n    while True: pass\n")
    again = replayed(daemon, ended["id"], "--against", tmp_path, "--timeout", "0.5s")
    assert (again["verdict"], again["status"]) == ("late", 124)


def test_the_outcome_as_json_names_both_sides(daemon, tmp_path):
    (tmp_path / "marks.py").write_text("def handler(system, this):\n    this.uuid()\n")
    again = replayed(daemon, daemon.run("marks")["id"], "--against", tmp_path)
    assert json.dumps(again["divergence"]) == json.dumps(
        {
            "call": 1,
            "recorded_kind": "set_output",
            "recorded_where": "marks.py:2",
            "attempted_kind": "uuid",
            "attempted_where": "marks.py:2",
        }
    )
