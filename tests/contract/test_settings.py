"""Settings: any value by name, appended to without loss, declared in the repository, overlaid at run time."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.support.daemons import until


@pytest.mark.contract("3.setting.json")
@pytest.mark.parametrize("content", [None, False, 0, "", [], {}, {"a": [1, {"b": "ä"}]}, [None], "text", 1.5])
def test_a_value_is_any_json_value(value, content):
    assert value(
        "system.setting('any', value=inputs['content'])\nreturn {'is': system.setting('any').get('value')}",
        content=content,
    ) == {"is": content}


@pytest.mark.contract("3.setting.list-append")
def test_an_item_is_appended_to_a_list_which_is_made_if_needed(value):
    assert value("""
system.setting('visitors').list_append('Ada')
system.setting('visitors').list_append({'name': 'Grace'})
setting = system.setting('visitors')
setting.get('value')
setting.list_append(None)
return setting.get('value')
""") == ["Ada", {"name": "Grace"}, None]


@pytest.mark.contract("3.setting.list-append")
def test_appending_to_what_is_no_list_is_refused(refused):
    refused("system.setting('a text', value='text').list_append(1)", "InvalidInputError")


@pytest.mark.contract("3.setting.list-append")
def test_nothing_that_many_append_at_once_is_lost(value):
    appended = value("""
system.setting('crowd', value=[])
text = '''
def handler(system, this, inputs):
    for n in range(10):
        system.setting('crowd').list_append([inputs['who'], n])
'''
crowd = [this.script(text, who=who, wait=False) for who in range(6)]
this.wait_for(crowd)
return system.setting('crowd').load('value')
""")
    assert sorted(appended) == [[who, n] for who in range(6) for n in range(10)]
    for who in range(6):
        assert [n for each, n in appended if each == who] == list(range(10))


@pytest.mark.contract("3.setting.json")
def test_people_read_and_write_settings_too(workshop, value):
    value("system.setting('shared', value={'from': 'a flow'})")
    assert workshop.api("GET", "/settings/shared")["value"] == {"from": "a flow"}
    workshop.api("PUT", "/settings/shared", {"value": ["from", "people"]})
    assert value("return system.setting('shared').get('value', 'modified_by')")[0] == ["from", "people"]
    workshop.http("DELETE", "/api/v1/settings/shared")
    assert value("return system.setting('shared').exists()") is False


# -- declared ---------------------------------------------------------------------------------------------------------

READ = "setting = system.setting(inputs['name'])\nreturn [setting.get('value'), setting.get('created_by')]"


@pytest.mark.contract("3.declared.settings")
def test_a_setting_is_declared_in_yaml(workshop, value):
    workshop.write("settings/region/vienna.yaml", "# a comment\nhosts: [a, b]\nlimit: 3\non: true\n")
    workshop.daemon.client.sync()
    assert value(READ, name="region/vienna") == [{"hosts": ["a", "b"], "limit": 3, "on": True}, "repository"]


@pytest.mark.contract("3.declared.overlay", "3.declared.repository-wins")
def test_what_a_flow_saves_counts_until_the_repository_changes_it(workshop, value):
    def declare(text, other):
        workshop.write("settings/overlaid.yaml", text)
        workshop.write("settings/another.yaml", other)
        workshop.daemon.client.sync()

    declare("1", "a")
    assert value(READ, name="overlaid")[0] == 1
    value("system.setting('overlaid').save(value=2)")
    assert value(READ, name="overlaid")[0] == 2
    declare("1   # only a comment came", "b")
    assert value(READ, name="overlaid")[0] == 2
    assert value(READ, name="another")[0] == "b"
    declare("3", "b")
    assert until(lambda: value(READ, name="overlaid")[0] == 3, "the repository counts again")
    superseded = [line for line in workshop.daemon.lines() if line["event"] == "record.superseded"]
    assert [(line["type"], line["name"]) for line in superseded if line["name"] == "overlaid"] == [
        ("setting", "overlaid")
    ]
    told = [json.loads(line) for line in workshop.daemon.log.read_text().splitlines() if "superseded" in line]
    assert any(line.get("name") == "overlaid" for line in told), told


@pytest.mark.contract("3.declared.overlay")
def test_a_declared_setting_can_be_deleted_at_run_time(workshop, value):
    workshop.write("settings/to delete.yaml", "here")
    workshop.daemon.client.sync()
    body = "setting = system.setting('to delete')\nsetting.delete()\nreturn setting.exists()"
    assert value(body) is False
    assert value("return 'to delete' in [setting.get('name') for setting in system.settings()]") is False
    workshop.write("settings/to delete.yaml", "here again")
    workshop.daemon.client.sync()
    assert until(lambda: value("return system.setting('to delete').exists()"), "the repository counts again")


@pytest.mark.contract("3.declared.settings")
def test_a_declaration_that_cannot_be_read_leaves_the_last_one_in_force(workshop, value):
    workshop.write("settings/breaks.yaml", "good: 1")
    workshop.daemon.client.sync()
    workshop.write("settings/breaks.yaml", "good: [unclosed")
    workshop.daemon.client.sync()
    assert value(READ, name="breaks")[0] == {"good": 1}
    workshop.write("settings/breaks.yaml", "good: 2")
    workshop.daemon.client.sync()
    assert value(READ, name="breaks")[0] == {"good": 2}


# -- against a model --------------------------------------------------------------------------------------------------

#: Interprets operations on handles of settings and tells what it saw of each.
INTERPRETER = """
handles, seen = {}, []
for op, handle, value in inputs['operations']:
    name = handle[0]
    setting = handles.get(handle)
    if setting is None or op == 'open':
        setting = handles[handle] = system.setting(f"{inputs['prefix']} {name}")
    try:
        if op == 'open':
            seen.append(None)
        elif op == 'get':
            seen.append(setting.get('value'))
        elif op == 'load':
            seen.append(setting.load('value'))
        elif op == 'set':
            setting.set(value=value)
            seen.append(None)
        elif op == 'save':
            setting.save()
            seen.append(None)
        elif op == 'write':
            setting.save(value=value)
            seen.append(None)
        elif op == 'append':
            setting.list_append(value)
            seen.append(None)
        elif op == 'delete':
            setting.delete()
            seen.append(None)
        elif op == 'exists':
            seen.append(setting.exists())
        elif op == 'list':
            prefix = inputs['prefix'] + ' '
            listed = system.settings({'field': 'name', 'op': 'like', 'value': prefix + '%'})
            seen.append([one.get('name')[len(prefix):] for one in listed])
    except flow_api.EngineException as error:
        seen.append('! ' + type(error).__name__)
return seen
"""
GONE, UNFIT = "! ResourceNotFoundError", "! InvalidInputError"


class Model:
    """What the contract says about settings and their handles, in a few dicts."""

    def __init__(self):
        self.stored = {}
        self.handles = {}

    def run(self, op, handle, value):
        if handle not in self.handles or op == "open":
            self.handles[handle] = {"name": handle[0], "known": None, "pending": None}
        it = self.handles[handle]
        return getattr(self, op)(it, value)

    def open(self, it, value):
        return None

    def get(self, it, value):
        if it["pending"] is not None:
            return it["pending"][0]
        if it["known"] is None:
            return self._read(it)
        return it["known"][0]

    def load(self, it, value):
        return self._read(it)

    def _read(self, it):
        if it["name"] not in self.stored:
            return GONE
        it["known"] = [self.stored[it["name"]]]
        return it["known"][0]

    def set(self, it, value):
        it["pending"] = [value]

    def save(self, it, value):
        if it["pending"] is not None:
            self.stored[it["name"]] = it["pending"][0]
            it["known"] = it["pending"]
        else:
            self.stored.setdefault(it["name"], None)
            it["known"] = None
        it["pending"] = None

    def write(self, it, value):
        it["pending"] = [value]
        self.save(it, value)

    def append(self, it, value):
        before = self.stored.get(it["name"])
        if not isinstance(before, list | None):
            return UNFIT
        self.stored[it["name"]] = [*(before or []), value]
        it["known"] = None
        return None

    def delete(self, it, value):
        if it["name"] not in self.stored:
            return GONE
        del self.stored[it["name"]]
        it["known"] = it["pending"] = None
        return None

    def exists(self, it, value):
        return it["name"] in self.stored

    def list(self, it, value):
        return sorted(self.stored)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "get", "load", "set", "save", "write", "append", "delete", "exists", "list"]),
        st.sampled_from(["a, one way", "a, another way", "b"]),  # two handles of one setting, and one of another
        st.sampled_from([None, 1, "text", [1], {"k": [2]}]),
    ),
    min_size=10,
    max_size=60,
)
_examples = iter(range(10**6))


@pytest.mark.contract("3.record.set-load-save", "3.record.save", "3.record.delete", "3.record.exists")
@hypothesis.settings(max_examples=120, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(operations=OPERATIONS)
def test_any_sequence_of_operations_is_as_the_model_says(workshop, operations):
    prefix = f"model {next(_examples):06}"
    model = Model()
    expected = [model.run(*operation) for operation in operations]
    assert workshop.value(INTERPRETER, operations=operations, prefix=prefix) == expected
