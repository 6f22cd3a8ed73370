"""docs/secrets.md: its examples work against a vault and an encrypted file, and its numbers are those of the code."""

import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from headrace.engine import ports
from headrace.engine.state import masks, secrets, spellings
from headrace.engine.state.age import CREDENTIAL, Keys
from headrace.tasks import vault_client
from tests.support.vault_server import VaultServer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "secrets.md").read_text()
PROSE = " ".join(DOCUMENT.split())
YAML = {
    name: yaml.safe_load(text)
    for name, text in re.findall(r"^```yaml\n# ([\w/.]+)[^\n]*\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
}
FLOW = re.search(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[1]
REFERENCES = re.findall(r"^\| `((?:vault|secret)\..*?)` \|", DOCUMENT, re.MULTILINE)


@pytest.fixture
def vault():
    with VaultServer() as server:
        config = YAML["vault_configs/prod.yaml"]
        server.mounts.add(config["engine_path"])
        server.role(config["role_id"], "the-secret-id")
        server.put("team/api", {"token": "tok-of-api"}, mount=config["engine_path"])
        server.put("team/billing", {"password": "of-billing"}, mount=config["engine_path"])
        server.put("path", {"key": "of-path"}, mount=config["engine_path"])
        yield server


@pytest.fixture
async def looked_up(vault, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / CREDENTIAL).write_text(str(identity))
    (tmp_path / "vault-secret-id").write_text("the-secret-id\n")
    (tmp_path / "NAME").write_text("of-credential\n")
    encrypted = pyrage.encrypt(json.dumps({**YAML["mail.yaml"], "key": "of-age"}).encode(), [identity.to_public()])

    async def config(name):
        return msgspec.convert({**YAML["vault_configs/prod.yaml"], "url": vault.url}, ports.VaultAccess)

    client = vault_client.Client()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "NAME": "of-environment"}
    yield secrets.Secrets(environ, masks.Masks(), config, client, Keys("", environ, lambda file: encrypted))
    await client.aclose()


async def test_the_flow_s_task_gets_its_secrets(looked_up):
    asked = []

    class This:
        def task(self, type_, **inputs):
            asked.append(inputs)

    scope = {}
    exec(FLOW, scope)
    scope["handler"](None, This())
    given = json.loads(await looked_up.resolved(json.dumps(asked[0]).encode()))
    assert given["headers"]["Authorization"] == "Bearer tok-of-api"
    assert given["json"]["mail_password"] == YAML["mail.yaml"]["password"]


async def test_every_reference_of_the_table_is_one(looked_up, tmp_path):
    (tmp_path / "file").write_text("of-file\n")
    found = {}
    for reference in REFERENCES:
        found[reference] = await looked_up.value(
            reference.replace("CONFIG", "prod").replace("(/path)", f"({tmp_path}/file)")
        )
    assert len(found) == 8
    assert found["vault.secret(CONFIG:path.key)"] == "of-path"
    assert found["vault.secret(CONFIG:path)"] == {"key": "of-path"}
    assert found["secret.env(NAME)"] == "of-environment"
    assert found["secret.credential(NAME)"] == "of-credential"
    assert found["secret.file(/path)"] == "of-file"
    assert found["secret.age(NAME:key)"] == "of-age"
    assert found["secret.age(NAME)"]["host"] == "mail.example"
    assert json.loads(found["secret.file(secrets/NAME.age)"])["key"] == "of-age"


async def test_the_connection_names_its_password(looked_up):
    (reference,) = YAML["connections/billing.yaml"]["vault_secrets"].values()
    assert await looked_up.value(reference) == "of-billing"


def test_numbers_are_those_of_the_code():
    assert f"with {spellings.LINE_CHARACTERS_MIN} characters or more" in PROSE
    assert f"less than {masks.SUBSTRING_CHARACTERS_MIN} characters" in PROSE
    assert f"{masks.SECRETS_MAX:,} of them" in PROSE
    assert f"at most {secrets._BYTES_MAX:,} bytes" in PROSE
    assert masks.MARKER in PROSE and f"`{CREDENTIAL}`" in PROSE
