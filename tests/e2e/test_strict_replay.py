"""A flow that asks for it stands still after a crash as soon as a call is given something else than is recorded."""

import pytest

from tests.support.daemons import until

STRICT = "# /// script\n# [tool.headrace]\n# strict_replay = true\n# ///\n"
#: Each looks at a file to see whether it runs again, and gives one call something else then.
HEAD = "import os\ndef handler(system, this, inputs):\n    again = os.path.exists(inputs['sign'])\n"
CALLS = {
    "child": "this.flow('leaf', n=2 if again else 1)",
    "logged": "this.log('n', n=2 if again else 1)",
    "output": "this.set_output('n', 2 if again else 1)",
    "waiting child": "this.flow('naps', s=2 if again else 1)",
}
HIDDEN = (
    "this.flow('leaf', n=2 if again else 1, token='hunter' + ('3' if again else '2') * 9, "
    "init={'protect_inputs': ['token']})"
)
SAME = "this.flow('leaf', n=1); this.log('n', n=1); this.set_output('token', this.uuid())"


@pytest.fixture
def daemon(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "leaf.py").write_text("def handler(system, this, inputs):\n    pass\n")
    (flows / "naps.py").write_text("def handler(system, this, inputs):\n    this.sleep(6)\n")
    for name, call in {**CALLS, "hidden": HIDDEN, "same": SAME}.items():
        (flows / f"{name}.py").write_text(f"{STRICT}{HEAD}    {call}\n    this.sleep(6)\n    return again\n")
    (flows / "lenient.py").write_text(f"{HEAD}    {CALLS['child']}\n    this.sleep(6)\n    return again\n")
    return make_daemon(flows)


def test_what_calls_are_given_counts_where_a_flow_asks_for_it(daemon, tmp_path):
    daemon.start()
    sign = tmp_path / "sign"
    begun = {name: daemon.client.run(name, {"sign": str(sign)})["id"] for name in (*CALLS, "hidden", "same", "lenient")}
    for execution in begun.values():
        until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", "it waits")
    sign.touch()
    daemon.kill()
    daemon.start()
    for name in ("same", "lenient"):
        assert daemon.client.wait(begun[name], 30)["status"] == "ENDED_SUCCESS", name
    for name in (*CALLS, "hidden"):
        paused = until(
            lambda one=begun[name]: (found := daemon.client.execution(one))["status"] == "PAUSED" and found, name
        )
        divergence = paused["divergence"]
        assert divergence["call"] == 1
        assert divergence["recorded_kind"] == divergence["attempted_kind"]
        line = "" if name == "logged" else f"{name}.py:8"
        assert (divergence.get("recorded_where", ""), divergence.get("attempted_where", "")) == (line, line)
        recorded, attempted = divergence["recorded_target"], divergence["attempted_target"]
        assert ("1" in recorded, "2" in attempted) == (True, True)
        assert paused["reason"].startswith("replay diverged at call 1: recorded is ")
    children = [line for line in daemon.lines() if line.get("parent") == begun["waiting child"]]
    assert len(children) == 1, "nothing was begun anew"
    for line in daemon.lines():
        assert "hunter" not in str(line), "what is masked stays so on both sides"
    sign.unlink()
    daemon.client.resume(begun["child"])
    assert daemon.client.wait(begun["child"], 30)["output_value"] is False
