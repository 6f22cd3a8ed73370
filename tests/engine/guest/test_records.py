"""Records: what a handle asks, remembers and writes."""

import pytest

from headrace.engine.guest import flow_api
from tests.engine.guest.conftest import Failure


@pytest.fixture
def colours(system, daemon):
    daemon.answers("setting.get", {"value": ["red"]}).answers("setting.save", {"id": "s1", "name": "colours"})
    return system.setting("colours")


def asked(*fields, select="colours", by="name", kind="setting.get"):
    return (kind, select, {"by": by, "fields": list(fields)})


def saved(fields, select="colours", by="name", kind="setting.save"):
    return (kind, select, {"by": by, "fields": fields})


def test_a_handle_asks_nothing_until_it_is_read(colours, daemon):
    assert repr(colours) == "Setting('colours')" and colours.name == "colours"
    assert daemon.calls == []


def test_a_field_is_read_once(colours, daemon):
    assert colours.get("value") is colours.get("value")
    assert daemon.call == asked("value")


def test_several_fields_come_in_the_order_asked_in_one_call(system, daemon):
    daemon.answers("setting.get", {"id": "s1", "value": 1, "name": "colours"})
    assert system.setting("colours").get("value", "name", "id") == (1, "colours", "s1")
    assert daemon.call == asked("value", "name", "id")


def test_set_load_and_save_tell_the_story_of_the_contract(system, daemon):
    daemon.answers("setting.get", {"v": 1}, {"v": 2}).answers("setting.save", {"id": "s1", "name": "x"})
    x = system.setting("x")
    x.set(v=2)
    assert x.get("v") == 2
    assert x.load("v") == 1
    assert x.get("v") == 2
    x.save()
    assert x.get("v") == 2
    assert x.load("v") == 2
    assert [call[0] for call in daemon.calls] == ["setting.get", "setting.save", "setting.get"]
    assert daemon.calls[1] == saved({"v": 2}, "x")


def test_a_list_changed_in_place_is_saved(colours, daemon):
    colours.get("value").append("green")
    colours.save()
    colours.get("value").append("blue")  # it is still the same list
    colours.save()
    colours.save()
    assert [call for call in daemon.calls if call[0] == "setting.save"] == [
        saved({"value": ["red", "green"]}),
        saved({"value": ["red", "green", "blue"]}),
        saved({}),
    ]


def test_a_list_that_came_from_load_and_one_inside_another_are_saved_too(system, daemon):
    daemon.answers("setting.get", {"value": {"list": [1]}})
    setting = system.setting("colours")
    setting.load("value")["list"].append(2)
    setting.save(description="grown")
    assert daemon.calls[1] == saved({"value": {"list": [1, 2]}, "description": "grown"})


def test_loading_anew_does_not_lose_a_change_in_place(system, daemon):
    daemon.answers("setting.get", {"value": [1]}, {"value": [1, 7]})
    setting = system.setting("colours")
    mine = setting.get("value")
    mine.append(2)
    assert setting.load("value") == [1, 7]
    assert setting.get("value") == [1, 2]
    setting.save()
    assert daemon.calls[-1] == saved({"value": [1, 2]})


def test_a_value_that_was_only_looked_at_is_not_written(colours, daemon):
    colours.get("value")
    colours.save(description="d")
    assert daemon.calls[1] == saved({"description": "d"})


def test_after_a_save_other_fields_are_read_anew(system, daemon):
    daemon.answers("setting.get", {"modified_at": "a"}, {"modified_at": "b"})
    setting = system.setting("colours")
    assert setting.get("modified_at") == "a"
    assert setting.save(value=1).get("modified_at", "value") == ("b", 1)


def test_a_change_that_is_not_json_is_told_when_it_is_saved(colours, daemon):
    colours.get("value").append(object())
    with pytest.raises(flow_api.InvalidInputError, match="JSON"):
        colours.save()


def test_a_renamed_record_is_found_by_its_new_name(system, daemon):
    daemon.answers("setting.save", {"id": "s1", "name": "new"})
    setting = system.setting("old").save(name="new")
    setting.delete()
    assert daemon.calls[1] == ("setting.delete", "new", {"by": "name"})
    assert repr(setting) == "Setting('new')"


def test_existing_deleting_and_cloning_name_the_record(system, daemon):
    daemon.answers("setting.exists", True).answers("setting.clone", {"id": "s2", "name": "copy"})
    setting = system.setting("s1", by="id")
    assert setting.exists() is True
    copy = setting.clone(name="copy", value=3)
    assert copy.id == "s2" and repr(copy) == "Setting('copy')"
    assert setting.delete() is None
    assert daemon.calls == [
        ("setting.exists", "s1", {"by": "id"}),
        ("setting.clone", "s1", {"by": "id", "fields": {"name": "copy", "value": 3}}),
        ("setting.delete", "s1", {"by": "id"}),
    ]


def test_a_record_that_is_gone_says_so_when_it_is_read(colours, daemon):
    daemon.answers("setting.get", Failure("ResourceNotFoundError", "there is no setting 'colours'"))
    with pytest.raises(flow_api.ResourceNotFoundError):
        colours.get("value")


def test_a_setting_is_a_list_and_a_lock(colours, daemon):
    assert colours.list_append({"a": 1}) is colours
    assert colours.acquire(timeout=3) is colours
    assert colours.release() is colours
    with colours as held:
        assert held is colours
    assert daemon.calls == [
        ("setting.append", "colours", {"item": {"a": 1}}),
        ("setting.acquire", "colours", {"timeout": 3}),
        ("setting.release", "colours", {}),
        ("setting.acquire", "colours", {"timeout": None}),
        ("setting.release", "colours", {}),
    ]


def test_what_was_appended_shows_in_the_same_handle(system, daemon):
    daemon.answers("setting.get", {"value": [1]}, {"value": [1, 2]})
    setting = system.setting("colours")
    assert setting.get("value") == [1]
    assert setting.list_append(2).get("value") == [1, 2]


def test_locking_a_setting_known_by_its_id_asks_for_its_name(system, daemon):
    daemon.answers("setting.get", {"name": "colours"})
    system.setting("s1", by="id").acquire()
    assert [call[:2] for call in daemon.calls] == [("setting.get", "s1"), ("setting.acquire", "colours")]


def test_a_connections_type_has_two_names(system, daemon):
    daemon.answers("connection.get", {"connection_type": "REST"})
    connection = system.connector("c")
    assert connection.get("connector_type", "connection_type") == ("REST", "REST")
    connection.save(connector_type="GIT")
    assert daemon.calls[1] == saved({"connection_type": "GIT"}, "c", kind="connection.save")
    assert connection.get("connector_type") == "GIT"


def test_a_vault_is_read_and_written_through_its_configuration(system, daemon):
    daemon.answers("vault.read", {"key": "s"})
    vault = system.vault_config("v")
    assert vault.write_secret("a/b", {"key": "s"}) is vault
    assert vault.read_secret("a/b") == {"key": "s"}
    assert daemon.calls == [
        ("vault.write", "v", {"path": "a/b", "data": {"key": "s"}}),
        ("vault.read", "v", {"path": "a/b"}),
    ]
    with pytest.raises(flow_api.InvalidInputError, match="a secret is a dict"):
        vault.write_secret("a", "s")
