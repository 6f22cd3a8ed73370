import json
import sys

import msgspec
import pytest

from headrace.engine import errors
from headrace.engine.state import protection

#: Later Pythons bear more before they give up, and what they bear is looked through like anything else.
before_3_12 = pytest.mark.skipif(sys.version_info >= (3, 12), reason="not too deep for this Python")


def raw(value):
    return msgspec.Raw(json.dumps(value).encode())


def shown(type_, name="x", **fields):
    seen, changed = protection.shown(type_, name, {key: raw(value) for key, value in fields.items()})
    return {key: json.loads(bytes(value)) for key, value in seen.items()}, set(changed)


def test_the_credentials_of_a_connection_are_protected_wherever_they_lie():
    value = {
        "hostname": "h", "password": "p", "httpCookie": "c", "ssh-key": "k", "aws_secret_access_key": "a", "pin": 1234,
        "hostkey": "ssh-ed25519 AAAA", "ssh_hostkey": "x", "aws_access_key_id": "AKIA",
        "headers": {"Authorization": "b"}, "servers": [{"api_key": "z", "port": 22}],
        "key": {"type": "service", "private": ["x", True, None]},
    }  # fmt: skip
    seen, changed = shown("connection", value=value, connection_type="SSH")
    hidden = "[protected]"
    assert changed == {"value"}
    assert seen["connection_type"] == "SSH"
    assert seen["value"] == {
        "hostname": "h", "password": hidden, "httpCookie": hidden, "ssh-key": hidden, "aws_secret_access_key": hidden,
        "pin": hidden, "hostkey": "ssh-ed25519 AAAA", "ssh_hostkey": "x", "aws_access_key_id": "AKIA",
        "headers": {"Authorization": hidden}, "servers": [{"api_key": hidden, "port": 22}],
        "key": {"type": hidden, "private": [hidden, True, None]},
    }  # fmt: skip


@pytest.mark.parametrize("reference", ["secret.env(X)", "secret.file(/a b)", "vault.secret(cfg:path.key)", ""])
def test_references_and_nothing_stay_readable(reference):
    assert shown("connection", value={"password": reference}) == ({"value": {"password": reference}}, set())
    assert shown("webhook", secret=reference) == ({"secret": reference}, set())


def test_a_reference_with_something_around_it_is_a_secret():
    assert shown("webhook", secret="Bearer secret.env(X)")[0] == {"secret": "[protected]"}


def test_what_lets_into_a_vault_is_protected():
    seen, changed = shown("vault_config", token="t", secret_id="s", role_id="r", url="http://v")
    assert seen == {"token": "[protected]", "secret_id": "[protected]", "role_id": "r", "url": "http://v"}
    assert changed == {"token", "secret_id"}


def test_the_key_of_a_webhook_that_a_setting_publishes_is_protected():
    value = {"flow_name": "f", "key": "k", "token": "t"}
    assert shown("setting", "client.webhook.a", value=value)[0]["value"] == {**value, "key": "[protected]"}
    assert shown("setting", "client.webhook.a", value="key") == ({"value": "key"}, set())


def test_other_settings_are_shown_as_they_are():
    assert shown("setting", "plain", value={"password": "p"}) == ({"value": {"password": "p"}}, set())
    assert shown("later", value={"password": "p"}) == ({"value": {"password": "p"}}, set())


@pytest.mark.parametrize("depth", [pytest.param(900, marks=before_3_12), 5000])
def test_a_value_nested_too_deeply_is_refused(depth):
    deep = msgspec.Raw(b'{"a":' * depth + b"1" + b"}" * depth)
    with pytest.raises(errors.InvalidRequest, match="nested too deeply"):
        protection.shown("connection", "x", {"value": deep})


def restored(given, true):
    seen = protection.shown("connection", "x", {"value": raw(true)})[0]["value"]
    return json.loads(bytes(protection.restored(raw(given), seen, raw(true))))


def test_what_an_editor_left_as_they_saw_it_is_what_it_was():
    true = {"hostname": "old", "password": "p", "pin": 1234, "servers": [{"token": "t"}]}
    given = {"hostname": "new", "password": "[protected]", "pin": "[protected]", "servers": [{"token": "[protected]"}]}
    assert restored(given, true) == {**true, "hostname": "new"}


def test_a_credential_that_was_edited_is_the_new_one():
    assert restored({"password": "new"}, {"password": "old"}) == {"password": "new"}


@pytest.mark.parametrize("given", [{"token": "[protected]"}, {"password": ["[protected]"]}, ["[protected]"]])
def test_a_marker_where_nothing_was_is_refused(given):
    with pytest.raises(errors.InvalidRequest, match="none is kept at this place"):
        restored(given, {"password": "old"})


def test_a_list_that_changed_its_length_does_not_lend_secrets_to_others():
    true = {"servers": [{"token": "a"}, {"token": "b"}]}
    with pytest.raises(errors.InvalidRequest):
        restored({"servers": [{"token": "[protected]"}]}, true)


def test_nothing_edited_is_nothing_changed():
    true = {"password": "p", "n": 1.50}
    seen = protection.shown("connection", "x", {"value": raw(true)})[0]["value"]
    assert bytes(protection.restored(seen, seen, raw(true))) == bytes(raw(true))
