"""Secrets: read from a vault when they are needed, used as they are, shown to nobody."""

from __future__ import annotations

import pytest

from tests.support.vault_server import ROOT

CONFIG = "system.vault_config(inputs['name'], url=inputs['url'], token=inputs['token'])\n"


@pytest.mark.contract("3.vault_config.write", "3.vault_config.read")
def test_a_secret_is_written_to_the_vault_and_read_back(workshop, run, vault):
    ended = run(
        CONFIG
        + """
written = {'password': '-'.join(('vault', 'password', 'of', 'the', 'tests')), 'n': 7, 'deep': {'a': [1]}}
config = system.vault_config(inputs['name'])
config.write_secret('folder/shop', written)
read = config.read_secret('folder/shop')
this.log(read)
return [read == written, read['password'] == '-'.join(('vault', 'password', 'of', 'the', 'tests'))]
""",
        name="the vault",
        url=vault.url,
        token=ROOT,
    )
    assert ended["output_value"] == [True, True]
    assert vault.data("folder/shop")["n"] == 7
    assert "vault-password-of-the-tests" not in workshop.seen_by_people(ended["id"])


@pytest.mark.contract("3.vault_config.read", "4.raised.ResourceNotFoundError")
def test_a_secret_that_is_not_there_is_told(refused, vault):
    body = CONFIG + "return system.vault_config(inputs['name']).read_secret('no/such/secret')"
    message = refused(body, "ResourceNotFoundError", name="the vault", url=vault.url, token=ROOT)
    assert "no/such/secret" in message


@pytest.mark.contract("3.type.vault_config", "3.vault_config.read")
def test_the_token_of_a_vault_is_shown_to_nobody(workshop, value, vault):
    value(CONFIG, name="guarded vault", url=vault.url, token=ROOT)
    shown = workshop.api("GET", "/vault_configs/guarded%20vault")
    assert shown["url"] == vault.url
    assert ROOT not in str([shown, workshop.api("GET", "/vault_configs")])
    records = b"".join(segment.read_bytes() for segment in (workshop.daemon.state / "records").glob("*.jsonl"))
    assert b"guarded vault" in records


@pytest.mark.contract("3.connection.vault-secrets")
@pytest.mark.parametrize("reference", ["used vault:shop.password", "vault.secret(used vault:shop.password)"])
def test_a_connection_s_secrets_come_from_the_vault_when_it_is_used(workshop, run, vault, loopback, reference):
    vault.put("shop", {"password": "a password only the vault knows"})
    ended = run(
        CONFIG
        + """
system.connection('guarded shop', connection_type='REST', value={'url': inputs['shop'], 'username': 'ada'},
                  vault_secrets={'password': inputs['reference']})
task = this.connect('guarded shop')
return [task.get('output_value')['json']['headers']['authorization'][:6], task.id]
""",
        name="used vault",
        url=vault.url,
        token=ROOT,
        shop=f"{loopback.url}/echo",
        reference=reference,
    )
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    sent, task = ended["output_value"]
    assert sent == "Basic "
    assert workshop.execution(task)["status"] == "ENDED_SUCCESS"
    for each in (ended["id"], task):
        assert "a password only the vault knows" not in workshop.seen_by_people(each)
        assert "YWRhOmEgcGFzc3dvcmQgb25seSB0aGUgdmF1bHQga25vd3M" not in workshop.seen_by_people(each)


@pytest.mark.contract("3.connection.vault-secrets")
def test_a_secret_that_changed_in_the_vault_is_used_the_next_time(value, vault, loopback):
    body = (
        CONFIG
        + """
system.connection('rotating shop', connection_type='REST', value={'url': inputs['shop'], 'method': 'post'},
                  vault_secrets={'text': 'rotating vault:rotating.text'})
import hashlib
body = this.connect('rotating shop').get('output_value')['json']['body']
return hashlib.sha256(body.encode()).hexdigest()
"""
    )
    seen = []
    for text in ("the first text of all", "the second text of all"):
        vault.put("rotating", {"text": text})
        seen.append(value(body, name="rotating vault", url=vault.url, token=ROOT, shop=f"{loopback.url}/echo"))
    assert seen[0] != seen[1]


@pytest.mark.contract("3.connection.vault-secrets")
def test_a_connection_whose_secret_is_not_there_is_told_before_anything_is_sent(run, vault, loopback):
    sent = len(loopback.seen)
    ended = run(
        CONFIG
        + """
system.connection('broken shop', connection_type='REST', value={'url': inputs['shop']},
                  vault_secrets={'password': 'a vault:nothing.here'})
this.connect('broken shop')
""",
        name="a vault",
        url=vault.url,
        token=ROOT,
        shop=f"{loopback.url}/echo",
    )
    assert ended["status"] == "ENDED_ERROR"
    assert "nothing" in ended["message"]
    assert len(loopback.seen) == sent


@pytest.mark.contract("3.connection.protected")
def test_a_password_in_a_connection_is_used_and_shown_to_nobody(workshop, run, loopback):
    ended = run(
        """
password = '-'.join(('a', 'password', 'in', 'a', 'connection'))
system.connection('plain shop', connection_type='REST',
                  value={'url': inputs['url'], 'username': 'ada', 'password': password})
assert system.connection('plain shop').get('value')['password'] == password
task = this.connect('plain shop')
import base64
sent = base64.b64decode(task.get('output_value')['json']['headers']['authorization'][6:]).decode()
return [sent == 'ada:' + password, task.id]
""",
        url=f"{loopback.url}/echo",
    )
    assert ended["status"] == "ENDED_SUCCESS", ended["error"]
    mine, task = ended["output_value"]
    assert mine is True
    shown = workshop.api("GET", "/connections/plain%20shop")
    assert (shown["value"]["username"], shown["value"]["password"]) == ("ada", "[protected]")
    for each in (ended["id"], task):
        assert "a-password-in-a-connection" not in workshop.seen_by_people(each)
    changed = workshop.api("PUT", "/connections/plain%20shop", {"value": shown["value"] | {"username": "grace"}})
    assert changed["value"]["password"] == "[protected]"
    body = "return system.connection('plain shop').get('value')['password'] == '-'.join(inputs['words'])"
    assert workshop.value(body, words=["a", "password", "in", "a", "connection"]) is True


@pytest.mark.contract("3.declared.connections", "3.connection.protected")
def test_a_connection_is_declared_with_references_to_secrets(workshop, run, loopback):
    workshop.write(
        "connections/declared shop.yaml",
        f"connection_type: REST\nvalue:\n  url: {loopback.url}/echo\n  username: ada\n"
        "  password: secret.env(CONTRACT_SECRET)\n",
    )
    workshop.daemon.client.sync()
    ended = run("""
import base64
connection = system.connection('declared shop')
task = this.connect('declared shop')
sent = base64.b64decode(task.get('output_value')['json']['headers']['authorization'][6:]).decode()
return [len(sent), connection.get('created_by', 'connection_type'), task.id]
""")
    assert ended["status"] == "ENDED_SUCCESS", ended["error"]
    length, connection, task = ended["output_value"]
    assert length == len("ada:the secret shared with all senders")
    assert connection == ["repository", "REST"]
    for each in (ended["id"], task):
        assert "the secret shared with all senders" not in workshop.seen_by_people(each)
