"""What a changed flow would do otherwise is found, at the right call and line; where nothing changed nothing is."""

import json
import os
import random
import textwrap
import xml.etree.ElementTree as ET

import pytest

from tests.support.replays import checked, headrace, outcome

#: Larger with HEADRACE_REPLAYS=5000.
GENERATED = int(os.environ.get("HEADRACE_REPLAYS", "30"))

ORIGINAL = """
def handler(system, this, inputs):
    colours = {'red', 'green', 'blue', 'grey'}
    this.log('begins')
    rate = system.setting('rate').get('value') if system.setting('rate').exists() else 3
    for colour in colours:
        system.setting(colour, value=rate)
    order = this.uuid()
    if rate > 2:
        this.flow('pays', order=order, wait=False)
    else:
        this.flow('waits for payment', order=order)
    this.step('count', len, 'abc')
    this.set_output('order', order)
    return this.success('ordered')
"""
#: name → (what is replaced, by what, call, line of the new flow, kinds of both sides)
MUTANTS = {
    "a call added": ("    order = ", "    this.now()\n    order = ", 7, 8, "uuid", "now"),
    "a call removed": ("    order = this.uuid()\n", "    order = 'x'\n", 7, 10, "uuid", "flow"),
    "calls in another order": (
        "    this.step('count', len, 'abc')\n    this.set_output('order', order)\n",
        "    this.set_output('order', order)\n    this.step('count', len, 'abc')\n",
        *(9, 13, "step", "set_output"),
    ),
    "another kind of call": ("this.uuid()", "str(this.random())", 7, 8, "uuid", "random"),
    "another branch": ("if rate > 2", "if rate > 3", 8, 12, "flow", "flow"),
    "another target": ("'pays'", "'is paid'", 8, 10, "flow", "flow"),
    "a step called otherwise": ("'count'", "'counted'", 9, 13, "step", "step"),
    "a log line more": ("    order = ", "    this.log('x')\n    order = ", 7, 0, "uuid", "log"),
    "a log line less": ("    this.log('begins')\n", "", 1, 4, "log", "setting.exists"),
    "another order of a set": ("'blue', 'grey'}", "'blue', 'grey'} and ['blue', 'red', 'green', 'grey']", *[None] * 4),
    "a loop that ends earlier": ("in colours:", "in list(colours)[:3]:", 6, 8, "setting.save", "uuid"),
    "a loop that goes on": ("in colours:", "in [*colours, 'pink']:", 7, 7, "uuid", "setting.save"),
    "a read that is not there": (
        "system.setting('rate').get('value') if system.setting('rate').exists() else 3", "3",
        *(2, 7, "setting.exists", "setting.save"),
    ),
    "a call at the end": ("    return", "    this.now()\n    return", 11, 15, "return", "now"),
    "an end in the middle": ("    this.step(", "    return\n    this.step(", 9, 0, "step", "return"),
    "an exception": ("    this.step(", "    1 / 0\n    this.step(", 9, 13, "step", "raise"),
    "another message": ("'ordered'", "'done'", 11, 0, "return", "return"),
    "another outcome": ("this.success(", "this.error(", 11, 0, "return", "return"),
    "an exception at the end": ("    return this", "    raise KeyError\n    return this", 11, 15, "return", "raise"),
}  # fmt: skip
HELPERS = dict.fromkeys(("pays", "is paid", "waits for payment"), "def handler(system, this):\n    return 1\n")
#: What changes nothing that is recorded, or only what calls are given.
HARMLESS = {
    "another place": ("\ndef handler", "\n# a remark\n\n\ndef handler", 0),
    "other names": ("colours", "colors", 0),
    "another argument": ("'begins'", "'starts'", 1),
    "other inputs of a child": ("order=order, wait=False", "order=order[:-1], wait=False", 0),
    "another output": ("'order', order)", "'order', order + '!')", 1),
    "another value that is saved": ("value=rate", "value=rate + 1", 0),
}


@pytest.fixture(scope="module")
def recorded(workshop):
    for name, text in {"orders": ORIGINAL, **HELPERS}.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon, workshop.daemon.run("orders")["id"]


def changed(folder, old, new):
    text = textwrap.dedent(ORIGINAL).replace(old, new)
    assert text != textwrap.dedent(ORIGINAL)
    (folder / "orders.py").write_text(text)
    return folder


@pytest.mark.parametrize("name", MUTANTS)
def test_a_change_of_what_a_flow_does_is_found_at_its_call_and_line(recorded, tmp_path, name):
    daemon, execution = recorded
    old, new, call, line, before, now = MUTANTS[name]
    again = outcome("--state", daemon.state, execution, "--against", changed(tmp_path, old, new))
    found = again["divergence"] or {}
    assert (again["verdict"], again["status"]) == ("diverged", 1), again
    if call is None:  # which colour comes first is up to the hash seed, which is fixed
        assert found["recorded_kind"] == found["attempted_kind"] == "setting.save"
        assert found["recorded_target"] != found["attempted_target"]
        return
    assert (found["call"], found["recorded_kind"], found["attempted_kind"]) == (call, before, now)
    assert found.get("attempted_where", "") == (f"orders.py:{line}" if line else "")
    assert f"at call {call}" in headrace("--state", daemon.state, "replay", execution, "--against", tmp_path)[1]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_change_of_arguments_is_noted_and_counts_only_if_asked_for(recorded, tmp_path, name):
    daemon, execution = recorded
    old, new, notes = HARMLESS[name]
    words = ("--state", daemon.state, execution, "--against", changed(tmp_path, old, new))
    again = outcome(*words)
    assert (again["verdict"], len(again["notes"])) == ("same", notes), again
    assert outcome(*words, "--strict")["verdict"] == ("diverged" if notes else "same")


def test_the_inputs_of_children_that_were_waited_for_are_compared(workshop, tmp_path):
    name = workshop.flow("gives", "def handler(system, this):\n    this.flow('pays', order=1)\n")
    workshop.write("pays.py", HELPERS["pays"])
    workshop.daemon.client.sync()
    ended = workshop.daemon.run(name)
    (tmp_path / "gives.py").write_text("def handler(system, this):\n    this.flow('pays', order=2)\n")
    (note,) = outcome("--state", workshop.daemon.state, ended["id"], "--against", tmp_path)["notes"]
    assert (note["recorded"], note["attempted"], note["where"]) == ('{"order":1}', '{"order":2}', "gives.py:2")


def test_a_handler_that_swallows_everything_is_not_believed(workshop, tmp_path):
    text = "def handler(system, this):\n    this.uuid()\n    this.now()\n    return this.success('fine')\n"
    ended = workshop.daemon.run(workshop.flow("swallows", text))
    (tmp_path / "swallows.py").write_text(
        "def handler(system, this):\n    while True:\n        try:\n            this.random()\n"
        "        except BaseException:\n            continue\n"
    )
    again = outcome("--state", workshop.daemon.state, ended["id"], "--against", tmp_path)
    assert (again["verdict"], again["divergence"]["call"], again["divergence"]["attempted_where"]) == (
        *("diverged", 1, "swallows.py:4"),
    )


def test_a_new_effect_of_its_own_is_a_difference_and_an_old_one_is_not_known(workshop, tmp_path):
    touch = "    open('/dev/shm/never', 'a').close()\n"
    plain = "def handler(system, this):\n    this.uuid()\n"
    pure, impure = (
        workshop.flow("pure", plain),
        workshop.flow("impure", plain + touch.replace("never", "headrace-test")),
    )
    workshop.daemon.run(pure)
    workshop.daemon.run(impure)
    os.unlink("/dev/shm/headrace-test")
    (tmp_path / "pure.py").write_text(plain + touch)
    (tmp_path / "impure.py").write_text(plain + touch.replace("never", "headrace-test"))
    results = {
        flow: checked(tmp_path, "--state", workshop.daemon.state, "--flow", flow)["flows"][0]["executions"][0]
        for flow in (pure, impure)
    }
    assert [results[pure]["result"], results[impure]["result"]] == ["differs", "skipped"]
    assert "open /dev/shm/never at pure.py:3" in results[pure]["text"]
    assert not os.path.exists("/dev/shm/never") and not os.path.exists("/dev/shm/headrace-test")


# -- many of them ------------------------------------------------------------------------------------------------------


def test_check_says_for_each_flow_how_many_differ_and_where(recorded, tmp_path):
    daemon, execution = recorded
    for name in ("pays", "waits for payment"):
        (tmp_path / f"{name}.py").write_text(HELPERS[name])
    changed(tmp_path, "'count'", "'counted'")
    words = (tmp_path, "--state", daemon.state, "--since", "1d")
    status, out, _ = headrace("check", "--records", *words, "--flow", "orders")
    assert status == 1
    assert "orders: 0 the same, 1 differ\n" in out
    assert f"  {execution}  replay diverged at call 9" in out
    assert "recorded  step 'count'  (orders.py:13)" in out
    assert "now       step 'counted'  (orders.py:13)" in out
    found = checked(*words, "--flow", "pays")
    assert (found["status"], found["same"] >= 1, found["differs"]) == (0, True, 0)
    suites = ET.fromstring(headrace("check", "--records", *words, "--flow", "orders", "--format", "junit")[1])
    assert [(suite.get("name"), suite.get("failures")) for suite in suites] == [("orders", "1")]
    (tmp_path / "orders.py").unlink()
    gone = checked(*words, "--flow", "orders")
    assert (gone["status"], "there is no orders.py" in gone["flows"][0]["executions"][0]["text"]) == (1, True)
    assert headrace("check", "--records", *words, "--flow", "nobody")[0] == 0


def test_check_takes_files_instead_of_a_daemon(recorded, tmp_path):
    daemon, execution = recorded
    changed(tmp_path, "'begins'", "'starts'")
    (tmp_path / "records").mkdir()
    file = tmp_path / "records" / "one.jsonl"
    assert headrace("--state", daemon.state, "records", "export", execution, "-o", file)[0] == 0
    for source in (file, tmp_path / "records"):
        found = checked(tmp_path, "--from", source)
        assert (found["same"], found["flows"][0]["executions"][0]["notes"]) == (1, 1)
    assert checked(tmp_path, "--from", file, "--strict")["differs"] == 1
    nothing = {"flows": [], "same": 0, "differs": 0, "skipped": 0, "status": 0}
    assert checked(tmp_path, "--from", file, "--since", "2999-01-01") == nothing


class Author:
    """Writes flows that nobody would write, of which every one does something else."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def flow(self):
        lines = ["def handler(system, this, inputs):", "    x = 1", *self.block(1, 4), "    return {'x': x}"]
        return "import random\n\n\n" + "\n".join(lines) + "\n"

    def block(self, depth, most):
        lines = []
        for _ in range(self.chance.randint(1, most)):
            lines += ["    " * depth + line for line in self.statement(depth)]
        return lines

    def statement(self, depth):
        n = self.chance.randint(0, 5)
        plain = [
            [f"x += int(this.random() * {n + 1})"],
            ["this.log('x is', x)"],
            ["print(x)"],
            [f"this.set_output('k{n}', x)"],
            [f"this.append_output('list', {n})"],
            [f"x += this.step('step {n}', random.randint, 0, 9)"],
            [f"system.setting('s{n}', value=x)"],
            [f"x += 1 if system.setting('s{n}').exists() else 0"],
            ["x += len({this.uuid()[:1], 'a', 'b'})"],
            ["x += random.randint(0, 3)"],
            [f"x += this.flow('leaf', n={n}).get('output_value')['n']"],
            ["children = [this.flow('leaf', n=n, wait=False) for n in range(2)]", "this.wait_for(children)"],
            ["for name in {'one', 'two', str(x)}:", "    this.log(name)"],
            ["this.sleep(0.001)"],
            ["with this.lock('shared'):", "    this.save(message=str(x))"],
        ]
        if depth > 2 or self.chance.random() < 0.7:
            return self.chance.choice(plain)
        inner = [line[4 * depth :] for line in self.block(depth + 1, 2)]
        return self.chance.choice(
            [
                [f"if x % {n + 2}:", *inner, "else:", *(line[4 * depth :] for line in self.block(depth + 1, 2))],
                [f"for _ in range({n % 3}):", *inner],
                ["try:", *inner, "    this.flow('fails')", "except Exception as error:", "    this.log(str(error))"],
                ["try:", *inner, f"    1 / (x % {n + 1})", "except ZeroDivisionError:", "    x += 1"],
            ]
        )


@pytest.mark.timeout(60 + GENERATED)
def test_generated_flows_are_replayed_without_a_false_alarm(workshop, tmp_path, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    print(f"seed {seed}, {GENERATED} flows")
    record_property("seed", seed)
    record_property("tries", GENERATED)
    author = Author(seed)
    workshop.write(
        "leaf.py", "def handler(system, this, inputs):\n    this.log('leaf')\n    return {'n': inputs['n']}\n"
    )
    workshop.write("fails.py", "def handler(system, this):\n    raise ValueError('no luck')\n")
    for number in range(GENERATED):
        workshop.write(f"generated {number}.py", author.flow())
    daemon = workshop.daemon
    daemon.client.sync()
    executions = [daemon.client.run(f"generated {number}")["id"] for number in range(GENERATED)]
    for execution in executions:
        daemon.client.wait(execution, 60)
    file = tmp_path / "all.jsonl"
    with file.open("wb") as all_:
        for execution in executions:
            all_.writelines(daemon.client.export(execution))
    before = len(daemon.lines())
    found = checked(workshop.folder, "--from", file, "--limit", GENERATED, "--strict")
    odd = [one for flow in found["flows"] for one in flow["executions"] if one["result"] != "same" or one["notes"]]
    assert odd == []
    assert found["same"] == GENERATED
    assert len(daemon.lines()) == before, "nothing of it reached the daemon"
    assert json.dumps(found)
