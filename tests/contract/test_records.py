"""What every record can do, tried on types that are made alike."""

from __future__ import annotations

import datetime
import re

import pytest

#: Type → fields that make one, and one of them changed.
MADE = {
    "setting": ({"value": {"a": 1}}, {"value": [2]}),
    "file": ({"content": "first"}, {"content": "second"}),
    "connection": ({"connection_type": "REST", "value": {"url": "http://127.0.0.1:1"}}, {"connection_type": "GIT"}),
    "webhook": ({"flow_name": "child", "auth": "none", "methods": ["POST"]}, {"methods": ["PUT"]}),
    "schedule": ({"flow_name": "child", "cron": "30 2 * * *"}, {"cron": "0 3 * * mon"}),
    "vault_config": ({"url": "http://127.0.0.1:1", "is_enabled": False}, {"engine_path": "kv"}),
}
COMMON = ("id", "name", "description", "created_at", "modified_at", "created_by", "modified_by")
MAKE = "record = getattr(system, inputs['type'])(inputs['name'], **inputs['fields'])\n"
alike = pytest.mark.parametrize("kind", MADE)


def make(value, kind, name, body, **inputs):
    """Make a record of a type and go on with ``body``."""
    fields, changed = MADE[kind]
    return value(MAKE + body, type=kind, name=f"{kind} {name}", fields=fields, changed=changed, **inputs)


@pytest.mark.contract("3.fields.create", "3.select.name", "3.record.get")
@alike
def test_a_record_is_made_at_once_and_found_by_its_name(value, kind):
    (field,) = [key for key in MADE[kind][0] if key != "is_enabled"][:1]
    assert make(
        value,
        kind,
        "made",
        "found = getattr(system, inputs['type'])(inputs['name'])\n"
        "return [found.exists(), found.get('name'), found.get(inputs['field'], 'name')]",
        field=field,
    ) == [True, f"{kind} made", [MADE[kind][0][field], f"{kind} made"]]


@pytest.mark.contract("3.fields.update", "3.record.save")
@alike
def test_fields_in_the_call_change_a_record_that_is_there(value, kind):
    changed = MADE[kind][1]
    (field,) = changed
    id_before, id_after, seen = make(
        value,
        kind,
        "changed",
        "before = record.get('id')\ngetattr(system, inputs['type'])(inputs['name'], **inputs['changed'])\n"
        "again = getattr(system, inputs['type'])(inputs['name'])\n"
        "return [before, again.get('id'), again.get(inputs['field'])]",
        field=field,
    )
    assert id_before == id_after
    assert seen == changed[field]


@pytest.mark.contract("3.record.fields")
@alike
def test_every_record_says_who_made_and_changed_it_and_when(value, kind):
    first, second = make(
        value,
        kind,
        "told",
        f"first = dict(zip({COMMON}, record.get(*{COMMON})))\nthis.sleep(0.01)\n"
        "getattr(system, inputs['type'])(inputs['name']).save(description='for people', **inputs['changed'])\n"
        f"return [first, dict(zip({COMMON}, record.load(*{COMMON})))]",
    )
    assert (first["name"], first["description"]) == (f"{kind} told", "")
    assert re.fullmatch(r"[0-9a-z]{26}", first["id"])
    assert second["id"] == first["id"]
    assert second["description"] == "for people"
    assert second["created_at"] == first["created_at"] == first["modified_at"] < second["modified_at"]
    for moment in (first["created_at"], second["modified_at"]):
        assert datetime.datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")
    assert first["created_by"] == first["modified_by"] == second["modified_by"] != ""


@pytest.mark.contract("3.record.set-load-save")
@alike
def test_what_is_set_is_got_and_loaded_only_after_it_is_saved(value, kind):
    (field,) = MADE[kind][1]
    seen = make(
        value,
        kind,
        "set",
        "field = inputs['field']\nrecord = getattr(system, inputs['type'])(inputs['name'])\n"
        "same = record.set(**inputs['changed']) is record\n"
        "seen = [same, record.get(field), record.load(field), record.get(field)]\n"
        "record.save()\nreturn seen + [record.load(field), getattr(system, inputs['type'])(inputs['name']).get(field)]",
        field=field,
    )
    old = MADE[kind][0].get(field, "secret")
    new = MADE[kind][1][field]
    assert seen == [True, new, old, new, new, new]


@pytest.mark.contract("3.record.get")
def test_what_was_read_stays_in_the_handle_until_it_is_loaded(value):
    assert value("""
setting = system.setting('read twice', value=1)
setting.get('value')
system.setting('read twice', value=2)
return [setting.get('value'), setting.load('value'), setting.get('value'), setting.get('name', 'value')]
""") == [1, 2, 2, ["read twice", 2]]


@pytest.mark.contract("3.record.exists", "3.record.delete", "3.record.missing")
@alike
def test_a_deleted_record_is_gone(value, kind):
    assert make(
        value,
        kind,
        "deleted",
        """
seen = [record.exists()]
record.delete()
seen.append(record.exists())
told = []
for read in (record.load, record.get, getattr(system, inputs['type'])(inputs['name']).get):
    try:
        read('name', 'id')
    except flow_api.ResourceNotFoundError as error:
        told.append(inputs['name'] in str(error))
try:
    record.delete()
except flow_api.ResourceNotFoundError as error:
    told.append('again')
return seen + told
""",
    ) == [True, False, True, True, True, "again"]


@pytest.mark.contract("3.record.clone")
@alike
def test_a_clone_is_a_record_of_its_own(value, kind):
    (field,) = MADE[kind][1]
    names, ids, before, after, original = make(
        value,
        kind,
        "cloned",
        """
field = inputs['field']
clone = record.clone(name=inputs['name'] + ' again')
before = [clone.load(field), record.load(field)]
clone.save(**inputs['changed'])
return [[clone.get('name'), record.get('name')], [clone.get('id'), record.get('id')], before,
        getattr(system, inputs['type'])(inputs['name'] + ' again').load(field), record.load(field)]
""",
        field=field,
    )
    assert names == [f"{kind} cloned again", f"{kind} cloned"]
    assert ids[0] != ids[1]
    assert before[0] == before[1] == original
    assert after == MADE[kind][1][field]


@pytest.mark.contract("3.record.clone")
def test_a_clone_takes_fields_over_those_of_the_original(value):
    assert value("""
system.setting('to clone', value=1, description='d')
clone = system.setting('to clone').clone(name='clone of it', value=2)
return clone.get('value', 'description')
""") == [2, "d"]


@pytest.mark.contract("3.select.by")
@alike
def test_a_record_is_found_by_its_id_too(value, kind):
    assert make(
        value,
        kind,
        "by id",
        """
id = record.get('id')
by_id = getattr(system, inputs['type'])(id, by='id')
by_name = getattr(system, inputs['type'])(inputs['name'], by='name')
return [by_id.get('name'), by_name.get('id') == id, getattr(system, inputs['type'])(id, by='name').exists(),
        getattr(system, inputs['type'])(inputs['name'], by='id').exists()]
""",
    ) == [f"{kind} by id", True, False, False]


@pytest.mark.contract("3.select.by")
def test_an_execution_is_found_by_its_name_if_asked(value):
    assert value("""
this.flow('child', name='called so', n=1)
newest = this.flow('child', name='called so', n=2)
return [system.execution('called so', by='name').id == newest.id, system.execution(newest.id, by='id').get('name')]
""") == [True, "called so"]


@pytest.mark.contract("3.select.by")
def test_another_way_of_finding_is_refused(refused):
    assert "'id' or 'name'" in refused("system.setting('x', by='colour')", "InvalidInputError")


@pytest.mark.contract("3.select.id")
def test_executions_and_messages_are_found_by_their_id(value):
    assert value("""
child = this.flow('child', n=1)
message = system.message(subject='Hello', message='text')
return [system.execution(child.id).get('output_value')['got'], system.message(message.id).get('subject'),
        system.execution('no such id').exists(), system.message('no such id').exists()]
""") == [{"n": 1}, "Hello", False, False]


@pytest.mark.contract("3.select.none")
def test_without_a_select_a_new_record_is_made(value):
    assert value("""
made = system.setting(None, name='made without select', value=1)
other = system.setting(name='made by name', value=2)
asked = system.message(subject='a new one', message='text')
return [made.get('name', 'value'), other.get('value'), system.setting('made by name').exists(),
        system.message(asked.id).get('subject'), system.execution().id == this.id]
""") == [["made without select", 1], 2, True, "a new one", True]


@pytest.mark.contract("3.fields.init")
def test_init_counts_only_for_a_record_that_is_made(value):
    assert value("""
first = system.setting('counters', init={'value': {'n': 0}, 'description': 'd'})
system.setting('counters', value={'n': 1})
again = system.setting('counters', init={'value': {'n': 0}})
both = system.setting('counters, both', {'value': 1, 'description': 'from init'}, value=2)
return [first.get('value'), again.get('value'), both.get('value', 'description')]
""") == [{"n": 0}, {"n": 1}, [2, "from init"]]


@pytest.mark.contract("3.record.unknown-field")
@alike
def test_a_field_there_is_not_is_refused_by_its_name(value, kind):
    assert make(
        value,
        kind,
        "odd",
        """
told = []
for call in (lambda: record.save(no_such_field=1), lambda: record.load('no_such_field'), lambda: record.save(id='x')):
    try:
        call()
    except flow_api.InvalidInputError as error:
        told.append(str(error))
return ['no_such_field' in told[0], 'no_such_field' in told[1], "'id'" in told[2]]
""",
    ) == [True, True, True]


@pytest.mark.contract("3.record.save")
@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 2000])
def test_a_name_nobody_could_type_is_refused(refused, name):
    refused("system.setting(inputs['name']).save(value=1)", "InvalidInputError", name=name)


@pytest.mark.contract("3.record.save")
def test_a_record_can_be_renamed(value):
    assert value("""
setting = system.setting('old name', value=1)
id = setting.get('id')
setting.save(name='new name')
return [setting.load('name', 'value'), system.setting('old name').exists(), system.setting('new name').get('id') == id]
""") == [["new name", 1], False, True]


# -- each type --------------------------------------------------------------------------------------------------------


@pytest.mark.contract("3.list.iterates", "3.type.setting", "3.type.file", "3.type.connection", "3.type.webhook")
@pytest.mark.contract("3.type.schedule", "3.type.vault_config")
@alike
def test_a_listing_holds_every_record_of_its_type_once_in_order_of_name(value, kind):
    names = make(
        value,
        kind,
        "listed",
        "listing = getattr(system, inputs['type'] + 's')()\nfound = list(listing)\n"
        "assert all(type(one) is type(record) for one in found)\nreturn [one.get('name') for one in found]",
    )
    assert names == sorted(set(names))
    assert f"{kind} listed" in names


@pytest.mark.contract("3.type.flow")
def test_flows_are_listed_and_found(value):
    assert value("""
names = [flow.get('name') for flow in system.flows()]
return ['child' in names, names == sorted(names), system.flow('child').exists(), system.flow('no such').exists()]
""") == [True, True, True, False]


@pytest.mark.contract("3.type.execution")
def test_executions_are_listed_the_newest_first(value):
    assert value("""
child = this.flow('child')
listed = [execution.id for execution in system.executions()]
return [listed[:2] == [child.id, this.id], system.execution(child.id).get('flow_name'),
        isinstance(list(system.executions())[0], flow_api.Execution)]
""") == [True, "child", True]


@pytest.mark.contract("3.type.execution")
def test_an_execution_that_has_ended_can_be_deleted(workshop, value):
    child = value("""
child = this.flow('child')
running = this.flow('child', sleep=0.5, wait=False)
try:
    running.delete()
except flow_api.InvalidInputError as error:
    told = str(error)
child.delete()
assert not child.exists() and running.exists() and 'ended' in told
assert child.id not in [execution.id for execution in system.executions()]
return child.id
""")
    assert workshop.http("GET", f"/api/v1/executions/{child}")[0] == 404


@pytest.mark.contract("3.type.message")
def test_messages_are_listed_the_newest_first_and_can_be_deleted(value):
    assert value("""
first = system.message(subject='first', message='text')
second = system.message(subject='second', message='text')
listed = [message.id for message in system.messages()]
second.delete()
return [listed[:2] == [second.id, first.id], second.exists(), first.exists(),
        second.id in [message.id for message in system.messages()]]
""") == [True, False, True, False]


@pytest.mark.contract("3.type.connector")
def test_a_connector_is_a_connection(value):
    assert value("""
system.connector('under the old name', connector_type='REST', value={'url': 'http://127.0.0.1:1'})
return [system.connection('under the old name').get('connection_type'),
        'under the old name' in [one.get('name') for one in system.connectors()],
        [one.get('name') for one in system.connectors()] == [one.get('name') for one in system.connections()]]
""") == ["REST", True, True]


@pytest.mark.contract("3.type.lock")
def test_locks_that_are_held_are_records(value):
    assert value("""
before = system.lock('a lock of this test').exists()
with this.lock('a lock of this test'):
    during = system.lock('a lock of this test').exists()
    names = [lock.get('name') for lock in system.locks()]
return [before, during, 'a lock of this test' in names, system.lock('a lock of this test').exists()]
""") == [False, True, True, False]


@pytest.mark.contract("3.type.user", "3.own.user")
def test_the_user_who_started_it_is_a_record(value):
    assert value("""
own = system.get_own_user()
return [own.get('name'), own.get('name') == this.get('created_by'), system.user(own.get('name')).exists(),
        own.get('name') in [user.get('name') for user in system.users()]]
""") == ["admin", True, True, True]


# -- about the installation -------------------------------------------------------------------------------------------


@pytest.mark.contract("3.own.client")
def test_the_installation_has_a_name(value):
    assert value("return [system.get_own_client().get('name'), system.get_own_workspace().get('name')]") == [
        "headrace",
        "headrace",
    ]


@pytest.mark.contract("3.own.environment")
def test_the_environment_has_a_name(value):
    name = value("return system.get_env_name()")
    assert isinstance(name, str)


@pytest.mark.contract("3.own.user")
def test_a_child_s_user_is_who_started_its_parent(value):
    body = "text = 'def handler(system, this):\\n    return system.get_own_user().get(\"name\")'\n"
    assert value(f"{body}return this.script(text).load('output_value')") == "admin"
