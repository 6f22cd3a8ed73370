import json

import msgspec
import pytest

from headrace.engine import errors, model
from headrace.engine.state import kinds


def raw(value):
    return msgspec.Raw(json.dumps(value).encode())


def checked(type_, **fields):
    found = kinds.checked(type_, "a name", {key: raw(value) for key, value in fields.items()})
    return {key: json.loads(bytes(value)) for key, value in found.items()}


def completed(type_, **fields):
    whole = kinds.completed(type_, "a name", {key: raw(value) for key, value in fields.items()})
    return {key: json.loads(bytes(value)) for key, value in whole.items()}


def test_only_the_fields_given_come_back_so_that_others_can_be_kept():
    assert checked("connection", value={"url": "x"}) == {"value": {"url": "x"}}


def test_a_field_may_be_given_by_its_other_name():
    assert checked("connection", connector_type="REST") == {"connection_type": "REST"}
    assert checked("webhook", flow="a", key="k") == {"flow_name": "a", "secret": "k"}


def test_a_field_given_twice_is_refused():
    with pytest.raises(errors.InvalidRequest, match="'connector_type' gives 'connection_type' a second time"):
        checked("connection", connection_type="A", connector_type="B")


def test_a_setting_holds_any_value_even_null():
    assert checked("setting", value=None) == {"value": None}
    assert checked("setting", value=[1, {"a": None}]) == {"value": [1, {"a": None}]}


def test_null_puts_a_field_back_to_its_default():
    assert checked("vault_config", namespace=None, engine_path=None) == {"namespace": "", "engine_path": "secret"}
    with pytest.raises(errors.InvalidRequest, match="'url' is null; it must be an address"):
        checked("vault_config", url=None)


@pytest.mark.parametrize(
    ("type_", "field", "value", "told"),
    [
        ("setting", "valeu", 1, "has no field 'valeu'"),
        ("setting", "description", 1, "'description' is a number; it must be a text"),
        ("file", "content", "x", "has no field 'content'"),
        ("connection", "value", [1], "'value' is a list; it must be an object"),
        ("connection", "vault_secrets", {"password": "hunter2"}, "has no reference at 'password'"),
        ("connection", "vault_secrets", {"password": "cfg:path.key)"}, "has no reference at 'password'"),
        ("connection", "vault_secrets", {"password": 7}, "has no reference at 'password'"),
        ("webhook", "flow_name", " ", "'flow_name' is an empty text; it must be the name of a flow"),
        ("webhook", "auth", "hunter2", "'auth' is another text; it must be one of none, key, github"),
        ("webhook", "methods", [], "'methods' is an empty list"),
        ("webhook", "methods", ["BREW"], "'methods' names another method"),
        ("webhook", "is_enabled", "yes", "'is_enabled' is a text; it must be true or false"),
        ("schedule", "cron", "every day", "'cron' has not five fields"),
        ("schedule", "timezone", "Europe/ Vienna", "'timezone' is no time zone that is known here"),
        ("schedule", "input_value", "x", "'input_value' is a text"),
        ("schedule", "catchup", True, "'catchup' is something else; it must be one of none, latest"),
        ("schedule", "catchup", {"policy": "all", "max": 0}, "says something about max that"),
        ("schedule", "overlap", "perhaps", "'overlap' is another text; it must be one of skip, queue, replace, allow"),
        ("schedule", "expect", {"start_within": "soon"}, "says something about start_within that"),
        ("vault_config", "url", "vault:8200", "'url' is no such address"),
        ("vault_config", "url", "http://[x", "'url' is no such address"),
        ("vault_config", "token", {"a": 1}, "'token' is an object"),
        ("cupboard", "value", 1, "no records of type 'cupboard'"),
    ],
)
def test_what_a_field_cannot_hold_is_refused_with_what_it_can_and_never_repeated(type_, field, value, told):
    with pytest.raises(errors.InvalidRequest) as caught:
        checked(type_, **{field: value})
    assert told in caught.value.message
    assert caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("field", ["id", "name", "created_at", "modified_by", "size"])
def test_what_the_daemon_keeps_is_not_written(field):
    with pytest.raises(errors.InvalidRequest, match=f"'{field}' is kept by the daemon"):
        checked("file", **{field: "x"})


@pytest.mark.parametrize("reference", ["cfg:path.key", "vault.secret(my cfg:a/b.c.key)"])
def test_a_connection_names_secrets_in_a_vault_in_both_spellings(reference):
    assert checked("connection", vault_secrets={"password": reference}) == {"vault_secrets": {"password": reference}}


def test_methods_are_written_in_capitals():
    assert checked("webhook", methods=["get", "Post"]) == {"methods": ["GET", "POST"]}


@pytest.mark.parametrize("cron", ["30 2 * * mon-fri", "*/5 0-6,12 1 jan *", "@daily", "0 0 L * 5#2"])
def test_a_schedule_takes_cron_expressions(cron):
    assert checked("schedule", cron=cron) == {"cron": cron}


def test_a_record_is_completed_with_defaults():
    assert completed("setting") == {"value": None, "description": ""}
    assert completed("webhook", flow_name="f", secret="s") == {
        "flow_name": "f", "auth": "key", "secret": "s", "methods": ["POST"], "is_enabled": True, "description": "",
    }  # fmt: skip
    assert completed("schedule", flow_name="f", cron="@daily")["timezone"] == "UTC"
    assert completed("vault_config", url="http://v")["engine_path"] == "secret"


@pytest.mark.parametrize(("type_", "missing"), [("webhook", "flow_name"), ("schedule", "flow_name, cron")])
def test_a_record_without_what_it_is_about_is_refused(type_, missing):
    with pytest.raises(errors.InvalidRequest, match=f"needs {missing}"):
        completed(type_)


def test_a_webhook_that_asks_for_a_key_needs_one():
    with pytest.raises(errors.InvalidRequest, match="needs a secret"):
        completed("webhook", flow_name="f")
    assert completed("webhook", flow_name="f", auth="none")["secret"] == ""
    sealed = model.Sealed("abc", raw("[protected]"))
    assert kinds.completed("webhook", "w", {"flow_name": raw("f"), "secret": sealed})["secret"] is sealed


def test_every_default_is_a_value_its_field_takes():
    for type_, kind in kinds.KINDS.items():
        for key, field in kind.fields.items():
            if not field.required:
                assert kinds.checked(type_, "x", {key: field.default}) == {key: field.default}


def test_a_type_that_is_not_known_here_has_no_defaults():
    assert kinds.with_defaults("later", {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("name", ["a", "sub/dir/my setting", "ÄÖ", "..", "/x", "x" * 1024])
def test_names_may_hold_what_can_be_printed(name):
    assert kinds.name_of("setting", name) == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0", "\ud800", "x" * 1025, "\u202e"])
def test_names_nobody_could_type_are_refused(name):
    with pytest.raises(errors.InvalidRequest, match="cannot be the name of a setting"):
        kinds.name_of("setting", name)


@pytest.mark.parametrize(("given", "name"), [("a/b.txt", "a/b.txt"), ("./a//b/", "a/b"), (".hidden", ".hidden")])
def test_a_file_has_one_name_however_it_is_spelled(given, name):
    assert kinds.name_of("file", given) == name


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../b", ".", "", "./"])
def test_a_file_name_does_not_leave_the_store(name):
    with pytest.raises(errors.InvalidRequest):
        kinds.checked("file", name, {})
