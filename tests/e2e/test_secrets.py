"""Secrets on their way through a real daemon: looked up for tasks and webhooks alone, and readable nowhere."""

import base64
import json
import sqlite3
import subprocess
import urllib.parse

import pytest

from tests.contract.loopback import Loopback
from tests.support.vault_server import ROOT, VaultServer

pyrage = pytest.importorskip("pyrage")

SENDS = """
def handler(system, this, inputs):
    post = {'method': 'post', 'json': {'told': inputs['told']}, 'headers': inputs.get('headers')}
    sent = this.task('REST', post, url=inputs['url'])
    answer = sent.get('output_value')['json']
    print('it says', answer['body'])
    this.log(again=answer['body'], encoded=inputs.get('encoded', ''))
    this.save(message=answer['body'][:200])
    return {'body': json.loads(answer['body']), 'authorization': answer['headers'].get('authorization')}
"""
HOOK = """
# /// script
# [tool.headrace]
# webhook = {name = "relay", auth = "key", secret = "secret.env(HOOK_KEY)"}
# ///
def handler(system, this, inputs):
    sent = this.task('REST', url=inputs['json']['url'], method='post', json={'text': inputs['json']['text']})
    again = this.flow('sends', url=inputs['json']['url'], told=inputs['json']['text'])
    return [json.loads(one)['text' if n == 0 else 'told'] for n, one in enumerate(
        [sent.get('output_value')['json']['body'], json.dumps(again.get('output_value')['body'])])]
"""
ENV, AGE, VAULT = "env-canary-of-the-tests", "age-canary-ümläut-of-the-tests", "vault-canary/with+signs=of-the-tests"


@pytest.fixture(scope="module")
def world():
    with Loopback() as loopback, VaultServer() as vault:
        vault.put("team/app", {"token": VAULT, "ports": [5432, 5433], "n": 7})
        yield loopback, vault


@pytest.fixture
def daemon(world, tmp_path, make_daemon):
    flows = tmp_path / "flows"
    (flows / "secrets").mkdir(parents=True)
    (flows / "vault_configs").mkdir()
    (flows / "connections").mkdir()
    (flows / "sends.py").write_text("import json\n" + SENDS)
    (flows / "relay.py").write_text(HOOK.lstrip().replace("def handler", "import json\ndef handler"))
    identity = pyrage.x25519.Identity.generate()
    (flows / "secrets" / "app.age").write_bytes(
        pyrage.encrypt(f"token: {AGE}\nother: 1\n".encode(), [identity.to_public()])
    )
    (tmp_path / "identity").write_text(f"{identity}\n")
    (flows / "vault_configs" / "main.yaml").write_text(f"url: {world[1].url}\ntoken: secret.env(VAULT_TOKEN)\n")
    (flows / "connections" / "whole.yaml").write_text(
        "connection_type: REST\nvault_secrets: main:team/app\n"
        "value: {method: post, json: {told: vault.secret(token)}}\n"
    )
    daemon = make_daemon(flows)
    daemon.environment |= {"CANARY": ENV, "VAULT_TOKEN": ROOT, "HOOK_KEY": "the key of the hook"}
    daemon.environment["HEADRACE_SECRETS__AGE_IDENTITY"] = str(tmp_path / "identity")
    return daemon.start()


def everything_people_see(daemon):
    """The records, what the API shows of every execution, and the daemon's own log."""
    head = {"Authorization": f"Bearer {daemon.token()}"}
    shown = [
        daemon.raw("GET", f"/api/v1/executions/{execution['id']}{tail}", headers=head)[1]
        for execution in daemon.client.executions(limit=200)["items"]
        for tail in ("", "/log", "/events")
    ]
    files = [*(daemon.state / "records").glob("*.jsonl"), *(daemon.state / "blobs").rglob("*"), daemon.log]
    told = [json.dumps(shown).encode(), *(path.read_bytes() for path in files if path.is_file())]
    with sqlite3.connect(daemon.state / "index.db") as index:
        told.append(repr(index.execute("SELECT * FROM executions").fetchall()).encode())
    return b"\n".join(told)


def spelled(secret):
    plain = secret.encode()
    yield from (plain, json.dumps(secret)[1:-1].encode(), urllib.parse.quote(secret, safe="").encode())
    for offset in range(3):
        yield base64.b64encode(b"x" * offset + plain)[4:-4]


@pytest.mark.parametrize(
    ("reference", "secret"),
    [("secret.env(CANARY)", ENV), ("secret.age(app:token)", AGE), ("vault.secret(main:team/app.token)", VAULT)],
)
def test_a_secret_reaches_the_service_and_stands_nowhere_else(daemon, world, reference, secret):
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    ended = daemon.run(
        "sends",
        url=f"{world[0].url}/echo?{urllib.parse.quote('q')}",
        told=["it is " + reference, reference],
        headers={"Authorization": f"Bearer {reference}" if secret.isascii() else "none"},
        encoded=encoded,
    )
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    sent = json.loads(world[0].seen[-1][2])
    assert sent == {"told": ["it is " + secret, secret]}
    seen = everything_people_see(daemon)
    assert reference.encode() in seen, "the record says which secret it was"
    assert b"[masked]" in seen
    given = encoded.encode()  # by the caller, before anybody had looked the secret up
    assert not [form for form in spelled(secret) if form in seen.replace(given, b"")]


def test_a_whole_reference_keeps_its_type_and_a_connection_may_name_one_secret(daemon, world):
    daemon.run("sends", url=f"{world[0].url}/echo", told="vault.secret(main:team/app.ports)")
    assert json.loads(world[0].seen[-1][2]) == {"told": [5432, 5433]}
    text = f"def handler(system, this):\n    this.connect('whole', url='{world[0].url}/echo')\n"
    head = {"Authorization": f"Bearer {daemon.token()}"}
    status, made, _ = daemon.raw("POST", "/api/v1/executions?wait=20", {"script": text}, head)
    assert (status, made["status"]) == (200, "ENDED_SUCCESS"), made
    assert json.loads(world[0].seen[-1][2]) == {"told": VAULT}
    assert VAULT.encode() not in everything_people_see(daemon)


def test_a_reference_that_came_with_a_webhook_is_not_looked_up(daemon, world):
    body = {"url": f"{world[0].url}/echo", "text": "see secret.env(CANARY) and vault.secret(main:team/app.token)"}
    headers = {"x-api-key": "the key of the hook", "Content-Type": "application/json"}
    status, ended, _ = daemon.raw("POST", "/webhook/relay", body, headers)
    assert (status, ended["output_value"]) == (200, [body["text"], body["text"]])
    assert json.loads(world[0].seen[-1][2]) == {"told": body["text"]}


def test_what_a_flow_read_from_a_vault_stays_masked_after_a_restart(daemon, world):
    keep = (
        "def handler(system, this):\n"
        "    found = this.task('VAULT', host=inputs_url, token='secret.env(VAULT_TOKEN)', secret_path='team/app')\n"
        "    token = found.get('output_value')['result']['data']['data']['token']\n"
        "    system.setting('kept', value={'token': token})\n    this.log(token)\n    return token\n"
    ).replace("inputs_url", repr(world[1].url))
    (daemon.source / "keeps.py").write_text(keep)
    daemon.client.sync()
    assert daemon.run("keeps")["output_value"] == "[masked]"
    daemon.kill()
    daemon.start()
    (daemon.source / "tells.py").write_text(
        "def handler(system, this):\n    token = system.setting('kept').get('value')['token']\n"
        f"    this.log(token)\n    return token == {VAULT!r}\n"
    )
    daemon.client.sync()
    assert daemon.run("tells")["output_value"] is True
    text = daemon.log.read_bytes() + b"".join(path.read_bytes() for path in (daemon.state / "records").glob("*.jsonl"))
    assert VAULT.encode() not in text


def test_the_sealed_values_are_for_the_service_s_user_alone(daemon, world):
    daemon.run("sends", url=f"{world[0].url}/echo", told="secret.env(CANARY)")
    sealed = daemon.state / "sealed"
    assert sealed.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in sealed.iterdir()} == {0o600}
    assert subprocess.run(["grep", "-rlF", ENV, str(sealed)], capture_output=True, check=False).stdout
