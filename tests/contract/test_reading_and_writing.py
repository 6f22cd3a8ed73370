"""What an execution's fields are, how they are read, and how they are written."""

from __future__ import annotations

import datetime

import pytest

from tests.support.daemons import until

FIELDS = (
    "id", "name", "type", "status", "message", "status_message", "input_value", "output_value", "created_at",
    "started_at", "ended_at", "created_by", "parent_execution_id", "flow_id", "flow_name", "commit", "protect_inputs",
    "protect_outputs", "retention_time", "is_paused",
)  # fmt: skip


@pytest.mark.contract("2.get.one", "2.get.several")
def test_one_field_is_a_value_and_several_are_a_tuple(value):
    assert value("""
child = this.flow('child', name='n')
several = child.get('status', 'name', 'status')
return [child.get('name'), type(several).__name__, several, child.load('name', 'type')]
""") == ["n", "tuple", ["ENDED_SUCCESS", "n", "ENDED_SUCCESS"], ["n", "FLOW"]]


@pytest.mark.contract("2.get.cached", "2.set.cache")
def test_what_is_set_is_in_the_handle_until_it_is_saved(value):
    assert value("""
this.set(message='mine', name='renamed')
seen = [this.get('message'), this.load('message'), this.get('message')]
this.save()
return seen + [this.load('message', 'name'), this.get('status_message')]
""") == ["mine", "", "mine", ["mine", "renamed"], "mine"]


@pytest.mark.contract("2.get.cached")
def test_load_is_always_fresh(value):
    assert value("""
here, there = system.execution(this.id), system.execution(this.id)
before = here.get('name')
there.save(name='another name')
return [before == this.get('flow_name'), here.load('name')]
""") == [True, "another name"]


@pytest.mark.contract("2.save.through")
def test_saving_writes_what_is_given_and_what_was_set(workshop, run):
    ended = run("this.set(name='from set')\nthis.save(message='from save')\nthis.sleep(0.01)")
    assert (ended["name"], ended["message"]) == ("from set", "from save")


@pytest.mark.contract("2.save.through")
def test_another_handle_s_save_is_seen(value):
    assert value("""
child = this.flow('child', run=False)
system.execution(child.id).save(name='given later', message='hello')
return child.load('name', 'message')
""") == ["given later", "hello"]


@pytest.mark.contract("2.save.message")
def test_a_message_is_what_people_see_while_it_runs(workshop):
    execution = workshop.start("this.save(message='half way')\nthis.sleep(60)")
    found = workshop.until_status(execution, "WAITING")
    assert (found["message"], found["status"]) == ("half way", "WAITING")
    found = until(lambda: workshop.daemon.client.executions(q="half way")["items"], "it is found by its message")
    assert [each["id"] for each in found] == [execution]
    workshop.daemon.client.cancel(execution)
    workshop.ended(execution)


@pytest.mark.contract("2.save.message")
def test_the_last_message_stays_when_it_ends_without_another(run):
    assert run("this.save(message='first')\nthis.save(status_message='second')\nreturn 1")["message"] == "second"


@pytest.mark.contract("2.save.name")
def test_a_name_is_what_an_execution_is_called(workshop, run):
    ended = run("this.save(name='invoice 4711')")
    assert (ended["name"], ended["flow_name"].startswith("body ")) == ("invoice 4711", True)
    assert workshop.value("return system.execution('invoice 4711', by='name').id") == ended["id"]


@pytest.mark.contract("2.save.output")
def test_a_saved_output_replaces_the_whole(run):
    assert run("""
this.set_output('a', 1)
this.save(output_value={'b': 2})
this.set_output('c', 3)
""")["output_value"] == {"b": 2, "c": 3}


@pytest.mark.contract("2.save.output")
@pytest.mark.parametrize("output", [{}, {"a": None}, {"a": {"b": [1, {"c": "ä"}]}}])
def test_a_saved_output_comes_back_as_it_was(run, output):
    assert run("this.save(output_value=inputs['output'])", output=output)["output_value"] == output


@pytest.mark.contract("2.set-output.keys")
def test_single_keys_are_set_and_the_others_kept(run):
    assert run("""
this.set_output('a', 1)
this.set_output(b=2, c={'d': None})
this.set_output('a', [3])
this.set_output('with blanks', None)
""")["output_value"] == {"a": [3], "b": 2, "c": {"d": None}, "with blanks": None}


@pytest.mark.contract("2.set-output.keys")
def test_keys_called_like_parameters_can_be_set(run):
    assert run("this.set_output(key='k', value='v', self='s')")["output_value"] == {
        "key": "k",
        "value": "v",
        "self": "s",
    }


@pytest.mark.contract("2.set-output.keys")
def test_a_child_that_has_not_ended_can_be_given_output(value):
    assert value("""
child = this.flow('child', run=False)
child.set_output('before', 1)
return child.run().get('output_value')
""") == {"before": 1, "got": {}}


@pytest.mark.contract("2.append-output.lists")
def test_appending_makes_and_extends_lists(run):
    assert run("""
for n in range(3):
    this.append_output('squares', n ** 2)
this.set_output('one', 'text')
this.append_output('one', {'a': 1})
this.set_output('listed', [1])
this.append_output('listed', [2])
""")["output_value"] == {"squares": [0, 1, 4], "one": ["text", {"a": 1}], "listed": [1, [2]]}


@pytest.mark.contract("2.input-value.dict", "2.input-value.system")
def test_without_inputs_there_is_an_empty_dict_everywhere(value):
    assert value("return [inputs, this.get('input_value'), system.get('input_value')]") == [{}, {}, {}]


@pytest.mark.contract("2.input-value.dict")
def test_a_child_without_inputs_has_an_empty_dict_too(value):
    body = "return [this.flow('child').get('input_value'), this.flow('child', run=False).get('input_value')]"
    assert value(body) == [{}, {}]


@pytest.mark.contract("2.input-value.system")
def test_system_and_this_give_the_same_inputs(value):
    assert (
        value("return [inputs, this.get('input_value'), system.get('input_value')]", a={"b": 1})
        == [{"a": {"b": 1}}] * 3
    )


@pytest.mark.contract("2.handle.current")
def test_a_handle_made_before_the_end_tells_the_end(value):
    assert value("""
child = this.flow('child', sleep=0.3, n=1, wait=False)
other = system.execution(child.id)
early = [child.get('ended_at'), other.get('message'), other.get('status').startswith('ENDED')]
while child.get('ended_at') is None:
    this.sleep(0.05)
return [early, child.get('status', 'message'), other.get('message'), other.get('output_value')['got']['n']]
""") == [[None, "", False], ["ENDED_SUCCESS", "child done"], "child done", 1]


@pytest.mark.contract("2.handle.in-place")
def test_a_list_changed_in_place_is_saved_through_the_same_handle(value):
    assert value("""
setting = system.setting('in place', value=['a'])
setting.get('value').append('b')
setting.save()
nested = system.setting('in place, nested', value={'a': {'b': []}})
nested.get('value')['a']['b'].append(1)
nested.save()
return [system.setting('in place').get('value'), system.setting('in place, nested').get('value')]
""") == [["a", "b"], {"a": {"b": [1]}}]


@pytest.mark.contract("2.handle.in-place")
def test_an_output_changed_in_place_is_saved_too(run):
    assert run("""
this.set_output('list', [1])
this.get('output_value')['list'].append(2)
this.save()
""")["output_value"] == {"list": [1, 2]}


@pytest.mark.contract("2.output.logging")
def test_flows_find_what_was_logged_in_the_output(workshop, value):
    child, own, fresh = value("""
child = this.script('''
def handler(system, this, inputs):
    this.log('text', {'a': 1}, label=2)
    this.log([1, None])
    this.set_output('x', 1)
''')
this.log('mine')
return [child.get('output_value'), this.get('output_value'), system.execution(child.id).load('output_value')]
""")
    assert child["x"] == 1
    assert child == fresh
    assert own["logging"] == ["mine"]
    flat = str(child["logging"])
    assert "text" in flat and "{'a': 1}" in flat and "'label': 2" in flat and "[1, None]" in flat


@pytest.mark.contract("2.output.logging")
def test_people_do_not_find_it_there(run):
    assert run("this.log('text')\nthis.set_output('x', 1)")["output_value"] == {"x": 1}


@pytest.mark.contract("2.output.logging")
def test_an_output_of_one_s_own_called_logging_wins(run, value):
    assert run("this.log('text')\nthis.set_output('logging', 'mine')")["output_value"] == {"logging": "mine"}


@pytest.mark.contract("2.fields.all")
def test_every_field_can_be_read_of_this_and_of_a_child(value):
    body = """
child = this.flow('child', fail='x', wait='ALL_ENDED')
new = this.flow('child', run=False)
return [dict(zip(FIELDS, execution.get(*FIELDS))) for execution in (this, child, new)]
""".replace("FIELDS", repr(FIELDS))
    this, child, new = value(body)
    assert (this["status"], child["status"], new["status"]) == ("RUNNING", "ENDED_ERROR", "NEW")
    assert child["status_message"] == child["message"] == "ValueError: x"
    assert (new["started_at"], new["ended_at"], new["output_value"], new["is_paused"]) == (None, None, {}, False)
    assert child["parent_execution_id"] == new["parent_execution_id"] == this["id"]
    assert this["parent_execution_id"] is None
    assert (new["protect_inputs"], new["protect_outputs"], new["retention_time"]) == ([], [], None)


@pytest.mark.contract("2.fields.all")
def test_a_field_there_is_not_is_refused_by_name(refused):
    assert "no_such_field" in refused("this.get('no_such_field')", "InvalidInputError")


@pytest.mark.contract("2.fields.all")
def test_fields_that_are_not_for_flows_cannot_be_written(refused):
    assert "status" in refused("this.save(status='ENDED_SUCCESS')", "InvalidInputError")


@pytest.mark.contract("2.fields.type")
def test_a_flow_is_a_flow_and_a_task_a_task(value, loopback):
    body = "return [this.get('type'), this.task('REST', url=inputs['url']).get('type')]"
    assert value(body, url=f"{loopback.url}/echo") == ["FLOW", "TASK"]


@pytest.mark.contract("2.fields.times")
def test_times_are_texts_that_strptime_reads(value):
    times = value("""
import datetime
child = this.flow('child')
times = child.get('created_at', 'started_at', 'ended_at') + this.get('created_at', 'started_at')
for time in times:
    datetime.datetime.strptime(time, '%Y-%m-%dT%H:%M:%S.%f%z')
return times
""")
    moments = [datetime.datetime.fromisoformat(time) for time in times]
    assert moments[0] <= moments[1] <= moments[2]
    assert all(moment.utcoffset() is not None and len(time) == 32 for moment, time in zip(moments, times, strict=True))


@pytest.mark.contract("2.fields.family")
def test_an_execution_knows_where_it_comes_from(workshop, run):
    ended = run("""
child = this.flow('child')
grandchild = this.script("def handler(system, this):\\n    return this.flow('child').get('created_by', 'commit')")
return [child.get('created_by', 'parent_execution_id', 'flow_id', 'flow_name', 'commit'),
        this.get('created_by', 'parent_execution_id', 'flow_name', 'commit'), grandchild.get('output_value')]
""")
    child, this, grandchild = ended["output_value"]
    flow = workshop.daemon.client.flow("child")
    assert child == [this[0], ended["id"], flow["id"], "child", ended["commit"]]
    assert this == ["admin", None, ended["flow_name"], ended["commit"]]
    assert grandchild == ["admin", ended["commit"]]


@pytest.mark.contract("2.fields.retention")
def test_how_long_a_record_is_kept_can_be_said(value):
    assert value("""
child = this.flow('child', init={'retention_time': 3600})
keyword = this.flow('child', retention_time=60)
this.save(retention_time=120)
return [child.get('retention_time'), keyword.get('retention_time'), this.load('retention_time')]
""") == [3600, 60, 120]


# -- what nobody shall see --------------------------------------------------------------------------------------------

HUSH = "an-input-nobody-shall-see"


@pytest.mark.contract("2.protect.inputs")
@pytest.mark.parametrize(
    "how",
    ["init={'protect_inputs': ['pin']}", "protect_inputs=['pin']", "**{'init': {'protect_inputs': 'pin'}}"],
)
def test_a_protected_input_is_true_for_the_flow_and_redacted_for_people(workshop, run, how):
    ended = run(f"""
import hashlib
pin = '-'.join(('an', 'input', 'nobody', 'shall', 'see'))
child = this.script('''
def handler(system, this, inputs):
    return [len(inputs['pin']), inputs['open']]
''', pin=pin, open='open', {how})
return [child.get('input_value')['pin'] == pin, child.get('protect_inputs'), child.id]
""")
    mine, protected, child = ended["output_value"]
    assert (mine, protected) == (True, ["pin"])
    seen = workshop.execution(child)
    assert seen["output_value"] == [len(HUSH), "open"]
    assert seen["input_value"]["open"] == "open"
    assert seen["input_value"]["pin"] in ("[protected]", "[masked]")
    assert HUSH not in workshop.seen_by_people(child)
    assert HUSH not in workshop.seen_by_people(ended["id"])


@pytest.mark.contract("2.protect.outputs")
def test_a_protected_output_is_true_for_the_parent_and_redacted_for_people(workshop, run):
    ended = run("""
child = this.script('''
def handler(system, this, inputs):
    this.set_output('token', '-'.join(('an', 'output', 'nobody', 'shall', 'see')))
    this.set_output('open', 1)
''', init={'protect_outputs': ['token']})
return [child.get('output_value')['token'] == '-'.join(('an', 'output', 'nobody', 'shall', 'see')), child.id]
""")
    mine, child = ended["output_value"]
    assert mine is True
    seen = workshop.execution(child)["output_value"]
    assert (seen["open"], seen["token"] in ("[protected]", "[masked]")) == (1, True)
    assert "an-output-nobody-shall-see" not in workshop.seen_by_people(child)
    assert "an-output-nobody-shall-see" not in workshop.seen_by_people(ended["id"])


@pytest.mark.contract("2.protect.outputs")
def test_a_protected_output_that_comes_as_return_value_is_redacted_too(workshop, run):
    ended = run("""
text = 'def handler(system, this):\\n    return {"token": "-".join(("returned", "and", "hushed")), "open": 1}'
child = this.script(text, init={'protect_outputs': ['token']})
return [child.get('output_value')['token'] == '-'.join(('returned', 'and', 'hushed')), child.id]
""")
    mine, child = ended["output_value"]
    assert mine is True
    assert workshop.execution(child)["output_value"]["open"] == 1
    assert "returned-and-hushed" not in workshop.seen_by_people(child)


@pytest.mark.contract("2.status.path")
def test_people_and_flows_see_each_status_on_the_way(workshop):
    events = [line["event"] for line in workshop.record(workshop.run("""
child = this.flow('child', run=False)
child.run()
""")["id"])]  # fmt: skip
    assert events[:2] == ["execution.created", "execution.started"]
    assert events[-1] == "execution.ended"
    execution = workshop.start("this.sleep(0.5)\nfor _ in range(20_000_000):\n    pass\nraise KeyError('x')")
    assert workshop.until_status(execution, "WAITING", "RUNNING")
    workshop.until_status(execution, "WAITING")
    workshop.until_status(execution, "RUNNING")
    assert workshop.ended(execution)["status"] == "ENDED_ERROR"
