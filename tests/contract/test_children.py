"""Children: flows, tasks, connections, scripts, templates, clones and wrappers."""

from __future__ import annotations

import json

import pytest

MERGED = "return this.flow('child', {'a': 1, 'x': 1}, input_value={'b': 2}, c=3, x=9, name='n').get('output_value')"


@pytest.mark.contract("2.flow.child")
def test_a_flow_runs_another_one_and_gets_it_back_ended(value):
    seen = value("""
child = this.flow('child', n=1)
return [type(child) is type(this), isinstance(child, flow_api.Execution), child.get('status', 'flow_name', 'type')]
""")
    assert seen == [True, True, ["ENDED_SUCCESS", "child", "FLOW"]]


@pytest.mark.contract("2.flow.inputs")
def test_inputs_from_a_dict_input_value_and_keywords_become_one_dict(value):
    assert value(MERGED)["got"] == {"a": 1, "b": 2, "c": 3, "x": 9}


@pytest.mark.contract("2.flow.inputs")
def test_inputs_can_be_given_by_the_name_inputs(value):
    assert value("return this.flow('child', inputs={'a': 1}, k=2).get('output_value')")["got"] == {"a": 1, "k": 2}


@pytest.mark.contract("2.flow.inputs")
def test_the_dicts_that_were_given_stay_as_they_are(value):
    assert value("""
mine = {'a': 1, 'protect_inputs': ['a']}
this.flow('child', mine, b=2)
return mine
""") == {"a": 1, "protect_inputs": ["a"]}


@pytest.mark.contract("2.flow.name")
def test_name_is_what_the_child_is_called_and_no_input(workshop, run):
    ended = run(MERGED)
    (child,) = workshop.children(ended["id"])
    assert (child["name"], child["flow_name"]) == ("n", "child")
    assert "name" not in ended["output_value"]["got"]


@pytest.mark.contract("2.flow.name")
def test_names_of_our_own_parameters_can_be_inputs(value):
    """The first parameter is positional only, so a flow may take inputs of its name."""
    assert value("return this.flow('child', flow_name='f', flow='g', self='s').get('output_value')")["got"] == {
        "flow_name": "f",
        "flow": "g",
        "self": "s",
    }


@pytest.mark.contract("2.flow.run-false", "2.run.waits")
def test_a_child_can_be_created_now_and_run_later(value):
    assert value("""
child = this.flow('child', run=False)
before = child.get('status')
this.sleep(0.2)
return [before, child.get('status', 'started_at'), child.run().get('status')]
""") == ["NEW", ["NEW", None], "ENDED_SUCCESS"]


@pytest.mark.contract("2.flow.run-false")
def test_a_child_that_was_never_run_ends_with_its_parent(workshop, value):
    child = value("return this.flow('child', run=False).id")
    assert workshop.ended(child)["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("2.flow.wait-true")
def test_a_flow_blocks_until_its_child_has_ended(value):
    assert value("""
import time
began = time.monotonic()
child = this.flow('child', sleep=0.3)
return [time.monotonic() - began >= 0.3, child.get('status')]
""") == [True, "ENDED_SUCCESS"]


@pytest.mark.contract("2.flow.wait-true", "4.raised.DependencyFailedError", "2.failed.output-dict")
def test_a_child_that_fails_raises_with_its_execution(value):
    assert value("""
try:
    this.flow('child', fail='no luck', name='the unlucky')
except flow_api.DependencyFailedError as error:
    failed = error.execution
    return [isinstance(failed, flow_api.Execution), failed.get('name', 'status', 'message', 'output_value')]
""") == [True, ["the unlucky", "ENDED_ERROR", "ValueError: no luck", {"got": {"fail": "no luck"}}]]


@pytest.mark.contract("2.flow.wait-true")
def test_a_child_that_is_cancelled_raises_too(value):
    assert (
        value("""
child = this.flow('child', sleep=60, wait=False)
child.cancel()
try:
    child.wait()
except flow_api.DependencyFailedError as error:
    return error.execution.get('status')
""")
        == "ENDED_CANCELLED"
    )


@pytest.mark.contract("2.flow.wait-false")
def test_a_flow_can_go_on_while_its_child_runs(value):
    early, late = value("""
child = this.flow('child', sleep=0.5, wait=False)
early = child.get('status')
return [early, child.wait().get('status')]
""")
    assert early in ("QUEUED", "RUNNING", "WAITING")
    assert late == "ENDED_SUCCESS"


@pytest.mark.contract("2.flow.wait-all-ended")
@pytest.mark.parametrize("how", ["system.return_when.ALL_ENDED", "'ALL_ENDED'", "flow_api.ReturnWhen.ALL_ENDED"])
def test_waiting_for_the_end_of_either_kind_never_raises(value, how):
    assert value(f"""
return [this.flow('child', fail=fail, wait={how}).get('status') for fail in ('x', None)]
""") == ["ENDED_ERROR", "ENDED_SUCCESS"]


@pytest.mark.contract("2.flow.never-inputs")
def test_what_says_how_to_run_is_never_an_input(value):
    assert (
        value("""
splatted = {'a': 1, 'init': {'orphan': False}, 'protect_inputs': ['a'], 'protect_outputs': ['x']}
said = [this.flow('child', splatted), this.flow('child', **splatted), this.flow('child', input_value=splatted)]
said.append(this.flow('child', a=1, init={'protect_inputs': ['a'], 'protect_outputs': ['x']}))
return [[child.get('output_value')['got'], child.get('protect_inputs', 'protect_outputs')] for child in said]
""")
        == [[{"a": 1}, [["a"], ["x"]]]] * 4
    )


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.contract("2.task.runs")
def test_a_task_runs_as_a_child_with_a_name_and_inputs(workshop, run, loopback):
    body = """
task = this.task('REST', {'url': inputs['url']}, name='ask it', method='post', json={'a': [1]})
return task.get('type', 'name', 'status', 'output_value')
"""
    ended = run(body, url=f"{loopback.url}/echo")
    kind, name, status, output = ended["output_value"]
    assert (kind, name, status) == ("TASK", "ask it", "ENDED_SUCCESS")
    assert (output["status_code"], output["json"]["method"]) == (200, "POST")
    assert json.loads(output["json"]["body"]) == {"a": [1]}
    (child,) = workshop.children(ended["id"])
    assert (child["type"], child["task"], child["parent_execution_id"]) == ("TASK", "REST", ended["id"])


@pytest.mark.contract("2.task.runs")
def test_a_task_can_be_created_started_and_waited_for_apart(value, loopback):
    assert value(
        """
task = this.task('REST', url=inputs['url'], run=False)
before = task.get('status')
task.run_async()
return [before, task.wait().get('status'), task.get('output_value')['status_code']]
""",
        url=f"{loopback.url}/slow/0.2",
    ) == ["NEW", "ENDED_SUCCESS", 200]


@pytest.mark.contract("2.task.case")
@pytest.mark.parametrize("type_", ["REST", "rest", "Rest"])
def test_the_case_of_a_task_type_does_not_matter(value, loopback, type_):
    body = "return this.task(inputs['type_'], url=inputs['url']).get('output_value')['status_code']"
    assert value(body, type_=type_, url=f"{loopback.url}/echo") == 200


@pytest.mark.contract("2.task.underscore")
def test_an_underscore_escapes_what_python_reserves(value, loopback):
    assert value(
        """
child = this.flow('child', class_='first', from_='here', plain_=1)
task = this.task('REST', url=inputs['url'], method_='post')
return [child.get('output_value')['got'], task.get('output_value')['json']['method']]
""",
        url=f"{loopback.url}/echo",
    ) == [{"class": "first", "from": "here", "plain_": 1}, "POST"]


@pytest.mark.contract("2.task.failed-output")
def test_the_output_of_a_failed_task_can_be_read(value, loopback):
    assert value(
        """
try:
    this.task('REST', url=inputs['url'])
except flow_api.DependencyFailedError as error:
    return error.execution.get('output_value')['status_code']
""",
        url=f"{loopback.url}/status/404",
    ) == 404  # fmt: skip


# -- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.contract("2.connect.stored", "2.connect.overrides")
def test_a_stored_connection_gives_inputs_and_the_call_wins(value, loopback):
    assert value(
        """
system.connection('shop', connection_type='REST', value={'url': inputs['url'], 'method': 'post', 'params': {'a': 1}})
plain = this.connect('shop')
other = this.connect('shop', {'method': 'put'}, params={'b': 2}, name='second')
return [
    [c.get('type', 'name'), c.get('output_value')['json']['method'], c.get('output_value')['json']['path']]
    for c in (plain, other)
]
""",
        url=f"{loopback.url}/echo",
    )[1] == [["TASK", "second"], "PUT", "/echo?b=2"]


@pytest.mark.contract("2.connect.stored")
def test_a_connection_can_be_run_without_waiting(value, loopback):
    assert value(
        """
system.connection('slow shop', connection_type='REST', value={'url': inputs['url']})
child = this.connect('slow shop', wait=False)
return [child.get('status').startswith('ENDED'), child.wait().get('output_value')['status_code']]
""",
        url=f"{loopback.url}/slow/0.4",
    ) == [False, 200]


@pytest.mark.contract("2.connect.stored")
def test_a_connection_that_is_not_there_is_told(refused):
    assert "no such shop" in refused("this.connect('no such shop')", "ResourceNotFoundError")


@pytest.mark.contract("2.connect.ad-hoc", "2.connect.alias")
@pytest.mark.parametrize("name", ["connection_type", "connector_type"])
def test_a_connection_can_be_made_up_on_the_spot(value, loopback, name):
    body = f"return this.connect({name}='rest', url=inputs['url']).get('type', 'output_value')"
    kind, output = value(body, url=f"{loopback.url}/echo")
    assert (kind, output["status_code"]) == ("TASK", 200)


@pytest.mark.contract("2.connect.alias")
def test_connector_type_is_the_connection_s_type(value):
    assert value("""
system.connector('old', connector_type='REST', value={'url': 'http://127.0.0.1:1'})
return [system.connection('old').get('connection_type'), system.connection('old').get('connector_type')]
""") == ["REST", "REST"]


# -- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.contract("2.script.runs", "2.fields.type")
def test_the_text_of_a_flow_can_be_run(value):
    assert value("""
text = '''
import flow_api
def handler(system, this, inputs):
    this.log('in the script')
    return {'twice': inputs['n'] * 2}
'''
child = this.script(text, {'n': 21}, name='the doubler')
return child.get('type', 'name', 'status', 'output_value')
""") == ["SCRIPT", "the doubler", "ENDED_SUCCESS", {"twice": 42, "logging": ["in the script"]}]


@pytest.mark.contract("2.script.runs")
def test_a_script_that_fails_shows_its_own_lines(value):
    status, message = value("""
child = this.script('def handler(system, this):\\n    raise ValueError("from line two")\\n', wait='ALL_ENDED')
return child.get('status', 'message')
""")
    assert (status, message) == ("ENDED_ERROR", "ValueError: from line two")


@pytest.mark.contract("2.script.runs")
def test_a_script_that_is_not_python_fails_and_says_why(value):
    status, message = value("return this.script('def handler(:', wait='ALL_ENDED').get('status', 'message')")
    assert status == "ENDED_ERROR"
    assert "SyntaxError" in message


# -- running a child again --------------------------------------------------------------------------------------------


@pytest.mark.contract("2.run.waits")
def test_running_a_child_raises_if_it_fails(refused):
    assert "no luck" in refused("this.flow('child', fail='no luck', run=False).run()", "DependencyFailedError")


@pytest.mark.contract("2.run.ended", "2.run.self")
def test_running_a_child_that_has_ended_does_nothing(workshop, run):
    ended = run("""
child = this.flow('child', n=1)
failed = this.flow('child', fail='x', wait='ALL_ENDED')
same = [child.run() is child, child.run_async() is child, failed.run() is failed]
return same + [child.get('status'), failed.get('status')]
""")
    assert ended["output_value"] == [True, True, True, "ENDED_SUCCESS", "ENDED_ERROR"]
    assert len(workshop.children(ended["id"])) == 2


@pytest.mark.contract("2.run-async.starts", "2.run.self")
def test_run_async_starts_a_child_and_goes_on(value):
    assert value("""
child = this.flow('child', sleep=0.3, run=False)
same = child.run_async() is child
return [same, child.get('status') in ('QUEUED', 'RUNNING', 'WAITING'), child.wait().get('status')]
""") == [True, True, "ENDED_SUCCESS"]


@pytest.mark.contract("2.run.resumes", "2.pause.stops")
def test_run_resumes_a_paused_child_and_waits(value):
    assert value("""
import time
child = this.flow('child', sleep=0.1, wait=False)
child.pause()
while child.get('status') != 'PAUSED':
    this.sleep(0.02)
paused = child.get('is_paused')
return [paused, child.run().get('status', 'is_paused')]
""") == [True, ["ENDED_SUCCESS", False]]


@pytest.mark.contract("2.run-async.resumes")
def test_run_async_resumes_a_paused_child_and_goes_on(value):
    assert value("""
child = this.flow('child', sleep=0.5, wait=False)
child.pause()
while child.get('status') != 'PAUSED':
    this.sleep(0.02)
same = child.run_async() is child
early = child.get('status')
return [same, early in ('RUNNING', 'WAITING'), child.wait().get('status')]
""") == [True, True, "ENDED_SUCCESS"]


# -- clones and templates ---------------------------------------------------------------------------------------------


@pytest.mark.contract("2.clone.overlays")
def test_a_clone_runs_with_its_inputs_over_those_of_the_original(value):
    assert value("""
child = this.flow('child', a=1, b={'x': 1})
clone = child.clone(b=2, c=3, name='again')
return [clone.id != child.id, clone.get('name'), clone.get('output_value')['got'], child.get('output_value')['got']]
""") == [True, "again", {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": {"x": 1}}]


@pytest.mark.contract("2.clone.overlays")
def test_tasks_and_scripts_are_cloned_too(value, loopback):
    assert value(
        """
task = this.task('REST', url=inputs['url']).clone(method='post')
script = this.script('def handler(system, this, inputs):\\n    return inputs', a=1).clone(b=2)
return [task.get('type'), task.get('output_value')['json']['method'], script.get('type', 'output_value')]
""",
        url=f"{loopback.url}/echo",
    ) == ["TASK", "POST", ["SCRIPT", {"a": 1, "b": 2}]]


@pytest.mark.contract("2.clone.overlays")
def test_this_itself_can_be_cloned(value):
    assert value("""
if inputs.get('second'):
    return inputs
return this.clone(second=True).get('output_value')
""", first=1) == {"first": 1, "second": True}  # fmt: skip


@pytest.mark.contract("2.clone.merges-init")
def test_the_init_of_a_clone_is_merged(value):
    assert value("""
child = this.flow('child', a=1, init={'protect_inputs': ['a'], 'retention_time': 60})
clone = child.clone(b=2, init={'protect_outputs': ['got']})
return clone.get('protect_inputs', 'protect_outputs', 'retention_time')
""") == [["a"], ["got"], 60]


@pytest.mark.contract("2.clone.defaults")
def test_a_clone_runs_and_is_waited_for_however_the_original_was_made(value):
    assert (
        value("""
new = this.flow('child', a=1, run=False)
started = this.flow('child', a=1, wait=False)
template = this.flow('child', a=1, run=False, wait=False, save=False)
return [original.clone().get('status') for original in (new, started, template)]
""")
        == ["ENDED_SUCCESS"] * 3
    )


@pytest.mark.contract("2.template.is-not-stored")
def test_a_template_is_neither_stored_nor_run(workshop, run):
    ended = run("template = this.flow('child', n=1, save=False)\nreturn template.get('input_value')")
    assert ended["output_value"] == {"n": 1}
    assert workshop.children(ended["id"]) == []


@pytest.mark.contract("2.template.clones")
def test_a_template_can_be_cloned_again_and_again(workshop, run):
    ended = run("""
template = this.flow('child', greeting='hello', save=False)
return [template.clone(who=who).get('output_value')['got'] for who in ('Ada', 'Grace')]
""")
    assert ended["output_value"] == [{"greeting": "hello", "who": "Ada"}, {"greeting": "hello", "who": "Grace"}]
    assert len(workshop.children(ended["id"])) == 2


# -- wrappers ---------------------------------------------------------------------------------------------------------


@pytest.mark.contract("2.using.wraps")
def test_a_child_runs_through_a_wrapper(workshop, value):
    workshop.flow(
        "twice told",
        "def handler(system, this, inputs):\n"
        "    child = system.execution(inputs['child_id'])\n"
        "    this.set_output('before', child.get('status'))\n"
        "    child.run()\n"
        "    this.set_output('after', child.get('status'))\n"
        "    this.set_output('asked', [inputs['who'], inputs['child']['name'], child.get('output_value')['got']])\n",
    )
    assert value("""
wrapper = this.using('twice told', who='me').flow('child', n=1, name='wrapped')
return wrapper.get('flow_name', 'output_value')
""") == ["twice told", {"before": "NEW", "after": "ENDED_SUCCESS", "asked": ["me", "wrapped", {"n": 1}]}]


@pytest.mark.contract("2.using.wraps")
def test_a_wrapper_that_fails_raises_as_a_child_does(workshop, value):
    workshop.flow(
        "passes on",
        "def handler(system, this, inputs):\n    system.execution(inputs['child_id']).run()\n",
    )
    assert (
        value("""
try:
    this.using('passes on').flow('child', fail='no luck')
except flow_api.DependencyFailedError as error:
    return error.execution.get('flow_name')
""")
        == "passes on"
    )
