"""``system``: the way to records of every type."""

import inspect

import pytest

from headrace.engine.guest import flow_api

TYPES = {
    "flow": "Flow",
    "setting": "Setting",
    "file": "File",
    "message": "Message",
    "connection": "Connection",
    "connector": "Connection",
    "webhook": "Webhook",
    "schedule": "Schedule",
    "vault_config": "VaultConfig",
    "lock": "Lock",
    "user": "User",
}


def stored(name):
    return "connection" if name == "connector" else name


@pytest.mark.parametrize("name", [*TYPES, "execution"])
def test_every_type_has_one_and_many(system, daemon, name):
    kind = stored(name)
    daemon.answers(f"{kind}.list", [{"id": "r1", "name": "a"}, {"id": "r2", "name": "b"}])
    one = getattr(system, name)("r1")
    assert type(one).__name__ == TYPES.get(name, "Execution")
    assert daemon.calls == []
    many = getattr(system, f"{name}s")()
    assert [(type(record), record.id) for record in many] == [(type(one), "r1"), (type(one), "r2")]
    assert daemon.call == (f"{kind}.list", "", {})


@pytest.mark.parametrize("name", sorted(TYPES.keys() - {"file", "message"}))
def test_fields_in_the_call_write_at_once(system, daemon, name):
    kind = stored(name)
    daemon.answers(f"{kind}.save", {"id": "r1", "name": "a"})
    getattr(system, name)("a", description="d")
    made = getattr(system, name)(None, None, None, description="d")
    named = getattr(system, name)(select=None, name="a", description="d")
    assert daemon.calls == [
        (f"{kind}.save", "a", {"by": "name", "fields": {"description": "d"}}),
        (f"{kind}.save", "", {"by": "name", "fields": {"description": "d"}}),
        (f"{kind}.save", "a", {"by": "name", "fields": {"name": "a", "description": "d"}}),
    ]
    assert made.id == "r1" and named.name == "a"


def test_a_new_record_goes_on_as_the_one_it_became(system, daemon):
    daemon.answers("flow.save", {"id": "f1", "name": "new flow 2030-01-01"})
    flow = system.flow(script="def handler(system, this): pass")
    flow.save(description="d")
    assert daemon.calls[1] == ("flow.save", "f1", {"by": "id", "fields": {"description": "d"}})
    assert repr(flow) == "Flow('new flow 2030-01-01')"


def test_what_is_in_init_counts_only_where_there_is_nothing_yet(system, daemon):
    daemon.answers("setting.exists", False, True)
    system.setting("a", init={"value": []}, description="d")
    system.setting("a", init={"value": []}, description="e")
    system.setting("a", init={"value": []})
    assert [call[2].get("fields") for call in daemon.calls if call[0] == "setting.save"] == [
        {"value": [], "description": "d"},
        {"description": "e"},
    ]


def test_a_filter_may_be_called_by_both_its_names(system, daemon):
    picked = {"field": "name", "op": "like", "value": "a%"}
    daemon.answers("setting.list", []).answers("file.list", [])
    system.settings(picked)
    system.settings(filter_=picked)
    system.settings(filter=picked, filter_=picked)
    system.files(dir="notes", glob="*.txt", filter_=picked)
    assert [call[2] for call in daemon.calls] == [
        {"filter": picked},
        {"filter": picked},
        {"filter": {"and": [picked, picked]}},
        {"dir": "notes", "glob": "*.txt", "filter": picked},
    ]


def test_a_list_is_what_there_was_at_that_moment(system, daemon):
    daemon.answers("setting.list", [{"id": "r1", "name": "a"}]).answers("setting.get", {"name": "b"})
    (setting,) = system.settings()
    assert repr(setting) == "Setting('a')"
    assert setting.get("name") == "b"


def test_records_without_ids_are_found_by_their_name(system, daemon):
    daemon.answers("lock.list", [{"id": None, "name": "printer"}])
    (lock,) = system.locks()
    lock.delete()
    assert daemon.calls[1] == ("lock.delete", "printer", {"by": "name"})


def test_own_user_and_workspace_are_known_without_asking(system, daemon):
    assert system.get_own_user().get("name") == "ada"
    assert system.get_own_client().get("name") == system.get_own_workspace().get("name") == "works"
    assert system.get_env_name() == "test"
    assert daemon.calls == []
    daemon.answers("user.get", {"id": "u1"})
    assert system.get_own_user().get("id") == "u1"
    with pytest.raises(flow_api.InvalidInputError, match="only its name"):
        system.get_own_client().get("plan")


def test_executions_are_found_by_id_by_name_or_are_the_running_one(system, this, daemon):
    assert system.execution() is this
    assert system.execution("e1").id == "e1"
    assert daemon.calls == []
    daemon.answers("execution.get", {"id": "e2"})
    assert system.execution("nightly", by="name").id == "e2"
    assert daemon.call == ("execution.get", "nightly", {"by": "name", "fields": ["id"]})
    system.execution("e1", message="half way")
    assert daemon.calls[1] == ("save", "", {"execution": "e1", "fields": {"message": "half way"}})


def test_system_reads_the_running_execution(system, daemon):
    assert system.get("input_value") == {"k": 1}
    assert daemon.calls == []


@pytest.mark.parametrize(
    "use",
    [
        lambda system: system.setting(7),
        lambda system: system.setting(""),
        lambda system: system.setting("a", by="colour"),
        lambda system: system.execution("a", by="colour"),
        lambda system: system.settings("name"),
    ],
)
def test_what_makes_no_sense_is_refused_here(system, daemon, use):
    with pytest.raises(flow_api.InvalidInputError):
        use(system)
    assert daemon.calls == []


def test_everything_public_has_hints_and_says_what_it_does():
    for name in ("Execution", "System", "Record", "Setting", "File", "Message", "VaultConfig"):
        owner = getattr(flow_api, name)
        for method in (m for m in vars(owner) if not m.startswith("_") and callable(getattr(owner, m))):
            function = getattr(owner, method)
            if inspect.isclass(function):
                continue
            assert function.__doc__, f"{name}.{method} says nothing"
            hints = function.__annotations__
            assert "return" in hints, f"{name}.{method} does not say what it returns"


def test_every_exception_starts_its_repr_with_its_name():
    for name in flow_api.exceptions.__all__:
        kind = getattr(flow_api, name)
        assert repr(kind("what failed")) == f"{kind.__name__}('what failed')"
        assert kind is getattr(flow_api.exceptions, name)
