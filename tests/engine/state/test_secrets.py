import asyncio
import json

import pytest

from headrace.engine import errors, ports
from headrace.engine.state.age import Keys
from headrace.engine.state.masks import Masks
from headrace.engine.state.secrets import Secrets, resolve

# -- for what needs this host alone ----------------------------------------------------------------------------------


def test_each_kind_of_reference_is_looked_up_where_it_says(tmp_path):
    (tmp_path / "token").write_text("from a file\n")
    environ = {"TOKEN": "from the environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert resolve("secret.env(TOKEN)", environ) == "from the environment"
    assert resolve("secret.credential(token)", environ) == "from a file"
    assert resolve(f"secret.file({tmp_path}/token)", environ) == "from a file"


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("hunter2", errors.InvalidRequest),
        ("secret.env()", errors.InvalidRequest),
        ("secret.age(NAME)", errors.InvalidRequest),
        ("vault.secret(a:b.c)", errors.InvalidRequest),
        ("secret.env(NOT_THERE)", errors.NotFound),
        ("secret.credential(../passwd)", errors.InvalidRequest),
        ("secret.file(/not/there)", errors.NotFound),
    ],
)
def test_what_cannot_be_looked_up_is_said_without_showing_it(tmp_path, reference, error):
    with pytest.raises(error) as caught:
        resolve(reference, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "hunter2" not in caught.value.message


def test_a_file_that_is_too_large_is_not_cut(tmp_path):
    (tmp_path / "big").write_text("x" * 70_000)
    with pytest.raises(errors.InvalidRequest, match="larger than 65,536 bytes"):
        resolve(f"secret.file({tmp_path}/big)", {})


# -- for inputs of tasks ---------------------------------------------------------------------------------------------


class Vaults:
    """The one fake of ``ports.Vaults``: secrets by path, and what was read."""

    def __init__(self):
        self.secrets = {
            "app/db": {"password": "hunter-two", "port": 5432, "more": {"list": [1.50, "deep-secret"]}, "none": None},
            "app/v1.2/db": {"password": "of v1.2"},
            "dotted.path": {"key": "of dotted.path"},
        }
        self.reads = []

    async def read(self, access, path):
        self.reads.append((access, path))
        if path == "forbidden":
            raise errors.NotAllowed("not allowed")
        if path == "sealed":
            raise errors.SourceUnavailable("the vault is sealed", hint="unseal it")
        if path not in self.secrets:
            raise errors.NotFound(f"there is no secret {path}")
        return self.secrets[path]

    async def write(self, access, path, data):
        self.secrets[path] = data


@pytest.fixture
def vaults():
    return Vaults()


@pytest.fixture
def masks():
    return Masks()


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "api-key").write_text("key-of-service\n")
    return {"TOKEN": 'tok"en\n\\', "VAULT_TOKEN": "hvs.from-environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}


@pytest.fixture
def secrets(environ, masks, vaults, tmp_path):
    configs = {
        "prod": ports.VaultAccess(url="https://vault", token="secret.env(VAULT_TOKEN)"),
        "role": ports.VaultAccess(url="https://vault", role_id="role", secret_id="given-secret-id"),
        "broken": ports.VaultAccess(url="https://vault", token="secret.env(NOT_THERE)"),
        "circle": ports.VaultAccess(url="https://vault", token="vault.secret(circle:a.b)"),
    }

    async def config(name):
        if name not in configs:
            raise errors.NotFound(f"there is no vault configuration {name!r}")
        return configs[name]

    def find(name):
        raise errors.NotFound(f"there is no file secrets/{name}")

    return Secrets(environ, masks, config, vaults, Keys("", environ, find))


@pytest.fixture
def resolved(secrets):
    async def run(value):
        return json.loads(await secrets.resolved(json.dumps(value).encode()))

    return run


async def test_a_string_that_is_a_reference_becomes_what_the_secret_is(resolved):
    given = {
        "a": "secret.env(TOKEN)",
        "b": ["secret.credential(api-key)", {"c": "vault.secret(prod:app/db.password)"}],
        "port": "vault.secret(prod:app/db.port)",
        "more": "vault.secret(prod:app/db.more)",
        "none": "vault.secret( prod : app/db.none )",
        "all": "vault.secret(prod:app/db)",
        "secret.env(TOKEN)": 1,
    }
    assert await resolved(given) == {
        "a": 'tok"en\n\\',
        "b": ["key-of-service", {"c": "hunter-two"}],
        "port": 5432,
        "more": {"list": [1.50, "deep-secret"]},
        "none": None,
        "all": {"password": "hunter-two", "port": 5432, "more": {"list": [1.50, "deep-secret"]}, "none": None},
        "secret.env(TOKEN)": 1,
    }


async def test_inside_of_a_text_a_secret_is_text(resolved):
    assert await resolved("secret.credential(api-key):vault.secret(prod:app/db.port),") == "key-of-service:5432,"
    assert await resolved("<vault.secret(prod:app/db.more)>") == '<{"list":[1.5,"deep-secret"]}>'


async def test_inputs_without_references_are_not_touched(secrets):
    for text in (b'{"a": 1.50}', b'{"a":"the secret is out: secrets(x), secret.other(x), vault.read(y)"}', b'"secret"'):
        assert await secrets.resolved(text) is text


async def test_numbers_beside_a_reference_keep_their_digits(secrets):
    text = b'[0.10000000000000000001,1e3,12345678901234567890123,"secret.credential(api-key)"]'
    assert await secrets.resolved(text) == b'[0.10000000000000000001,1e3,12345678901234567890123,"key-of-service"]'


async def test_what_a_secret_says_is_not_looked_up_again(resolved, vaults):
    vaults.secrets["app/db"] = {"password": "secret.env(TOKEN)", "list": ["secret.env(TOKEN)"]}
    assert await resolved(["vault.secret(prod:app/db.password)", "vault.secret(prod:app/db.list)"]) == [
        "secret.env(TOKEN)",
        ["secret.env(TOKEN)"],
    ]


async def test_a_key_is_what_follows_the_last_dot(secrets):
    assert await secrets.value("vault.secret(prod:app/v1.2/db.password)") == "of v1.2"
    assert await secrets.value("vault.secret(prod:app/v1.2/db)") == {"password": "of v1.2"}
    assert await secrets.value("vault.secret(prod:dotted.path.key)") == "of dotted.path"
    assert await secrets.value("vault.secret(prod:dotted.path.)") == {"key": "of dotted.path"}
    with pytest.raises(errors.NotFound, match="there is no secret dotted"):
        await secrets.value("vault.secret(prod:dotted.path)")


async def test_connections_may_leave_the_function_out(secrets):
    assert await secrets.value("prod:app/db.password") == "hunter-two"
    assert await secrets.value(" secret.credential(api-key) ") == "key-of-service"
    for wrong in ("prod", "hunter2", ":x", "secret.env(TOKEN", "prod:a(b)", ""):
        with pytest.raises(errors.InvalidRequest, match="given by reference") as caught:
            await secrets.value(wrong)
        assert "hunter2" not in caught.value.message


async def test_one_path_is_read_once_for_one_task_and_anew_for_the_next(resolved, vaults):
    both = ["vault.secret(prod:app/db.password)", "x vault.secret(prod:app/db.port)", "vault.secret(prod:app/db)"]
    await resolved(both)
    assert [path for _, path in vaults.reads] == ["app/db"]
    vaults.secrets["app/db"]["password"] = "rotated"
    assert (await resolved(both))[0] == "rotated"


async def test_everything_looked_up_is_masked_from_then_on(resolved, masks, secrets):
    await resolved(["vault.secret(prod:app/db.more)", "secret.credential(api-key)"])
    assert masks.text("deep-secret key-of-service hvs.from-environment") == "[masked] [masked] [masked]"
    assert masks.text("hunter-two") == "hunter-two"  # a key that nobody asked for
    await secrets.access("role")
    assert masks.text("given-secret-id role") == "[masked] role"


async def test_a_vault_configuration_has_references_of_its_own(secrets, vaults):
    assert (await secrets.access("prod")).token == "hvs.from-environment"
    await secrets.value("vault.secret(prod:app/db)")
    assert vaults.reads[0][0].token == "hvs.from-environment"
    with pytest.raises(errors.NotFound, match=r"the vault configuration 'broken', token: secret.env\(NOT_THERE\)"):
        await secrets.access("broken")
    with pytest.raises(errors.InvalidRequest, match="outside of vaults"):
        await secrets.access("circle")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("secret.env(NOT_THERE)", errors.NotFound, "secret.env(NOT_THERE) is not set"),
        ("secret.credential(a/b)", errors.InvalidRequest, "secret.credential(a/b): a credential is a name"),
        ("secret.file(relative)", errors.InvalidRequest, "secret.file(relative): it is neither"),
        ("secret.file(/no/such)", errors.NotFound, "secret.file(/no/such): the secret's file /no/such cannot be read"),
        ("secret.file(secrets/x.age)", errors.NotFound, "secret.file(secrets/x.age): there is no file secrets/x.age"),
        ("secret.age(x:y)", errors.NotFound, "secret.age(x:y): there is no file secrets/x.age"),
        ("vault.secret(prod)", errors.InvalidRequest, "vault.secret(prod): it names no secret"),
        ("vault.secret(prod:)", errors.InvalidRequest, "vault.secret(prod:): it names no secret"),
        ("vault.secret(nope:a.b)", errors.NotFound, "vault.secret(nope:a.b): there is no vault configuration 'nope'"),
        ("vault.secret(prod:a.b)", errors.NotFound, "vault.secret(prod:a.b): there is no secret a"),
        (
            "vault.secret(prod:app/db.nope)",
            errors.NotFound,
            "vault.secret(prod:app/db.nope): the secret app/db has no key",
        ),
        ("vault.secret(prod:forbidden)", errors.NotAllowed, "vault.secret(prod:forbidden): not allowed"),
        ("vault.secret(prod:sealed)", errors.SourceUnavailable, "vault.secret(prod:sealed): the vault is sealed"),
        ("vault.secret(broken:a.b)", errors.NotFound, "vault.secret(broken:a.b): the vault configuration 'broken'"),
        ("vault.secret(prod:app/db.password", errors.InvalidRequest, "unfinished"),
        ("secret.env()", errors.InvalidRequest, "unfinished"),
        ("secret.env(A secret.env(TOKEN)", errors.InvalidRequest, "unfinished"),
        ("secret.env(TO\nKEN)", errors.InvalidRequest, "unfinished"),
    ],
)
async def test_what_cannot_be_looked_up_names_reference_and_input(resolved, text, error, message):
    for value in (text, f"Bearer {text}"):
        with pytest.raises(error) as caught:
            await resolved({"headers": [{}, {"auth": value}]})
        assert message in caught.value.message
        assert caught.value.message.startswith("the input 'headers.1.auth'")
        assert "hunter-two" not in caught.value.message + caught.value.hint


async def test_a_deep_value_is_looked_through(resolved):
    value = "secret.credential(api-key)"
    for _ in range(300):
        value = [value]
    found = await resolved(value)
    for _ in range(300):
        (found,) = found
    assert found == "key-of-service"


async def test_what_json_cannot_hold_is_refused(secrets, environ):
    environ["BYTES"] = "\udcff"
    with pytest.raises(errors.InvalidRequest, match="cannot be written as JSON"):
        await secrets.resolved(b'"secret.env(BYTES)"')


async def test_many_tasks_look_up_at_the_same_time(resolved):
    found = await asyncio.gather(*(resolved(["vault.secret(prod:app/db.port)", n]) for n in range(50)))
    assert found == [[5432, n] for n in range(50)]


# -- files of the repository -----------------------------------------------------------------------------------------


async def test_encrypted_files_of_the_repository_are_read(environ, masks, vaults, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "age-identity").write_text(str(identity))
    files = {
        "db.age": b"password: hunter-two\nport: 5432\n",
        "team/token.age": b"tok-tok-tok\n",
    }

    async def no_vault(name):
        raise errors.NotFound(name)

    def find(name):
        return pyrage.encrypt(files[name], [identity.to_public()])

    secrets = Secrets(environ, masks, no_vault, vaults, Keys("", environ, find))
    assert await secrets.value("secret.age(db:password)") == "hunter-two"
    assert await secrets.value("secret.age(db)") == {"password": "hunter-two", "port": 5432}
    assert await secrets.value("secret.age(team/token)") == "tok-tok-tok"
    assert await secrets.value("secret.file(secrets/team/token.age)") == "tok-tok-tok"
    assert await secrets.value("secret.file(secrets/db.age)") == "password: hunter-two\nport: 5432"
    assert masks.text("hunter-two tok-tok-tok") == "[masked] [masked]"
    with pytest.raises(errors.NotFound, match=r"secret.age\(db:nope\): secrets/db.age has no key 'nope'"):
        await secrets.value("secret.age(db:nope)")
    with pytest.raises(errors.InvalidRequest, match="holds one text"):
        await secrets.value("secret.age(team/token:x)")
