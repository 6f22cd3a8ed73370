"""VAULT and the client under it, over HTTP, with the vault that hvac vouches for."""

import asyncio
import json

import pytest

from headrace.engine import errors, ports
from headrace.tasks import definition, egress, retry, vault, vault_client
from tests.support import vault_server
from tests.support.vault_server import VaultServer


@pytest.fixture
def server():
    with VaultServer(namespaces=("", "team/a")) as started:
        yield started


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def client(clock):
    made = vault_client.Client(monotonic=clock)
    yield made
    await made.aclose()


def access(server, **fields):
    credentials = {} if "role_id" in fields or "token" in fields else {"token": vault_server.ROOT}
    return ports.VaultAccess(url=server.url, **{**credentials, **fields})


def role(server, **fields):
    return access(server, role_id="role-of-tests", secret_id="secret-id-of-tests", **fields)


# -- the client ------------------------------------------------------------------------------------------------------


async def test_what_was_written_is_read(server, client):
    await client.write(access(server), "app/db", {"password": "p", "port": 5432, "more": {"a": [1, None]}})
    assert await client.read(access(server), "app/db") == {"password": "p", "port": 5432, "more": {"a": [1, None]}}
    await client.write(access(server), "/app/db/", {"password": "q"})
    assert await client.read(access(server), "app/db") == {"password": "q"}


@pytest.mark.parametrize("path", ["with blank", "ümlaut/ß", "a+b=c", "100%", "q?x#y", "dots.and/.hidden", "per%2Fcent"])
async def test_any_path_is_the_same_for_others(server, client, path):
    await client.write(access(server), path, {"k": "v"})
    assert server.data(path) == {"k": "v"}


@pytest.mark.parametrize("path", ["", "/", "a/../b", "..", ".", "a//b"])
async def test_a_path_that_leads_elsewhere_is_refused(server, client, path):
    with pytest.raises(errors.InvalidRequest, match="not a path in the vault"):
        await client.read(access(server), path)
    assert server.seen == []


async def test_engine_namespace_and_a_prefix_are_part_of_the_address(server, client):
    server.mounts.add("kv/team")
    server.put("x", {"k": 1}, mount="kv/team", namespace="team/a")
    assert await client.read(access(server, engine_path="/kv/team/", namespace="team/a"), "x") == {"k": 1}
    there = ports.VaultAccess(url=f"{server.url}/v1/", token=vault_server.ROOT)
    with pytest.raises(errors.NotFound):
        await client.read(there, "x")
    assert server.seen[-1][1] == "/v1/secret/data/x"


async def test_what_is_not_there_is_told_from_what_was_deleted(server, client):
    with pytest.raises(errors.NotFound, match="there is no secret secret/gone"):
        await client.read(access(server), "gone")
    server.put("gone", {"k": "v"})
    await client.ask(access(server), vault_client.Request(method="DELETE", section="data", path="gone"))
    with pytest.raises(errors.NotFound, match="was deleted"):
        await client.read(access(server), "gone")
    with pytest.raises(errors.NotFound, match="no handler for route"):
        await client.read(access(server, engine_path="elsewhere"), "gone")


async def test_a_wrong_token_is_not_allowed_and_not_shown(server, client):
    with pytest.raises(errors.NotAllowed) as caught:
        await client.read(access(server, token="hvs.wrong-token\n"), "x")
    assert "wrong-token" not in caught.value.message + caught.value.hint
    server.answers.append((403, {"errors": ["the token hvs.wrong-token is bad"]}, {}))
    with pytest.raises(errors.NotAllowed, match=r"the token \*\*\* is bad"):
        await client.read(access(server, token="hvs.wrong-token"), "x")


async def test_a_vault_that_does_not_work_may_work_later(server, client):
    server.sealed = True
    with pytest.raises(errors.SourceUnavailable, match="sealed"):
        await client.read(access(server), "x")
    server.sealed = False
    hang_up = [None, None]  # a second time too: a connection that was lying idle may be replaced
    for answer in ((500, {"errors": ["internal error"]}, {}), (429, None, {}), (502, None, {}), None):
        server.answers += hang_up if answer is None else [answer]
        with pytest.raises(errors.SourceUnavailable):
            await client.read(access(server), "x")


async def test_a_vault_that_is_not_there_is_said_so(client, unused_tcp_port):
    with pytest.raises(errors.SourceUnavailable, match=f"127.0.0.1:{unused_tcp_port} cannot be reached"):
        await client.read(ports.VaultAccess(url=f"http://127.0.0.1:{unused_tcp_port}", token="t"), "x")


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "https://user:pw@x", "https://x/?a=b", "http://x:99999"])
async def test_an_address_that_is_none_is_refused(client, url):
    with pytest.raises(errors.InvalidRequest, match="address of the vault") as caught:
        await client.read(ports.VaultAccess(url=url, token="t"), "x")
    assert "pw" not in caught.value.message


@pytest.mark.parametrize("body", [{"data": None}, {"data": {"data": None}}, {"data": {"data": []}}, [], "x", None])
async def test_an_answer_that_is_no_secret_is_none(server, client, body):
    server.answers.append((200, body, {}))
    with pytest.raises(errors.NotFound, match="no secret"):
        await client.read(access(server), "x")


async def test_a_redirect_keeps_the_token_at_home(server, client):
    with VaultServer() as other:
        other.put("x", {"stolen": True})
        server.answers.append((307, None, {"Location": f"{other.url}/v1/secret/data/x"}))
        with pytest.raises(errors.SourceUnavailable, match="another host"):
            await client.read(access(server), "x")
        assert other.seen == []
    server.put("y", {"k": "v"})
    server.answers.append((307, None, {"Location": "/v1/secret/data/y"}))
    assert await client.read(access(server), "x") == {"k": "v"}
    server.answers += [(307, None, {"Location": "/v1/secret/data/y"})] * 9
    with pytest.raises(errors.SourceUnavailable, match="circle"):
        await client.read(access(server), "x")


async def test_addresses_can_be_forbidden(server):
    client = vault_client.Client(egress.Egress(deny_private=True))
    with pytest.raises(errors.NotAllowed, match="public"):
        await client.read(access(server), "x")
    assert server.seen == []


async def test_a_vault_shows_a_certificate_that_is_trusted(certs, client):
    with VaultServer(certs.server_context()) as server:
        server.put("x", {"k": "v"})
        with pytest.raises(errors.SourceUnavailable, match="certificate"):
            await client.read(access(server), "x")
        assert await client.read(access(server, cacert=certs.text("ca.crt")), "x") == {"k": "v"}
        with pytest.raises(errors.InvalidRequest, match="cacert"):
            await client.read(access(server, cacert="nonsense"), "x")


# -- logging in ------------------------------------------------------------------------------------------------------


async def test_one_login_serves_until_its_lease_ends(server, client, clock):
    server.role("role-of-tests", "secret-id-of-tests", lease_s=60)
    server.put("x", {"k": "v"})
    await asyncio.gather(*(client.read(role(server), "x") for _ in range(10)))
    assert server.logins == 1
    clock.now += 54
    await client.read(role(server), "x")
    assert server.logins == 1
    clock.now += 2  # the last seconds of a lease are left alone
    await client.read(role(server), "x")
    assert server.logins == 2


async def test_a_login_that_was_revoked_is_made_anew_once(server, client):
    server.role("role-of-tests", "secret-id-of-tests", paths=("x",))
    server.put("x", {"k": "v"})
    await client.read(role(server), "x")
    for token in [token for token in server.tokens if token != vault_server.ROOT]:
        del server.tokens[token]
    assert await client.read(role(server), "x") == {"k": "v"}
    assert server.logins == 2
    with pytest.raises(errors.NotAllowed):
        await client.read(role(server), "other")
    assert server.logins == 3


async def test_a_role_belongs_to_its_namespace_and_secret(server, client):
    server.role("role-of-tests", "secret-id-of-tests", namespace="team/a")
    server.put("x", {"k": "v"}, namespace="team/a")
    assert await client.read(role(server, namespace="team/a"), "x") == {"k": "v"}
    with pytest.raises(errors.NotAllowed, match="role_id and secret_id") as caught:
        await client.read(access(server, role_id="role-of-tests", secret_id="another-secret", namespace="team/a"), "x")
    assert "another-secret" not in caught.value.message
    with pytest.raises(errors.InvalidRequest, match="nothing says how to get into"):
        await client.read(access(server, token=""), "x")


async def test_a_sealed_vault_lets_nobody_log_in_for_now(server, client):
    server.sealed = True
    with pytest.raises(errors.SourceUnavailable, match="sealed"):
        await client.read(role(server), "x")


# -- the task --------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(server, call):
    """Call VAULT with what every call needs."""

    async def run(**inputs):
        return (await call("VAULT", **{"host": server.url, "token": vault_server.ROOT, **inputs}))["result"]

    return run


async def test_a_secret_is_written_and_read_as_flows_do(kept, server):
    written = await kept(secret_path="app/db", data={"password": "one"})
    assert written["data"]["version"] == 1
    await kept(secret_path="app/db", data={"password": "two"}, mode="WRITE")
    assert (await kept(secret_path="app/db"))["data"]["data"] == {"password": "two"}
    assert (await kept(secret_path="app/db", version=1))["data"]["data"] == {"password": "one"}
    server.role("the-role", "the-secret")
    read = await kept(token=None, role_id="the-role", secret_id="the-secret", secret_path="app/db")
    assert read["data"]["data"] == {"password": "two"}


async def test_versions_are_deleted_brought_back_and_destroyed(kept):
    for n in (1, 2, 3):
        await kept(secret_path="app", data={"n": n})
    assert await kept(secret_path="app", mode="delete") is None
    with pytest.raises(errors.TaskFailed, match="was deleted") as caught:
        await kept(secret_path="app")
    assert json.loads(caught.value.output)["result"]["data"]["metadata"]["version"] == 3
    await kept(secret_path="app", mode="undelete", version=3)
    await kept(secret_path="app", mode="delete", version=[1, 2])
    await kept(secret_path="app", mode="destroy", version=[1])
    versions = (await kept(secret_path="app", mode="metadata"))["data"]["versions"]
    assert [bool(v["deletion_time"]) for v in versions.values()] == [True, True, False]
    assert [v["destroyed"] for v in versions.values()] == [True, False, False]
    await kept(secret_path="app", mode="purge")
    with pytest.raises(errors.TaskFailed, match="no secret secret/app"):
        await kept(secret_path="app", mode="metadata")


async def test_a_write_may_require_the_newest_version(kept):
    await kept(secret_path="app", data={"n": 1}, version=0)
    with pytest.raises(errors.TaskFailed, match="did not match the current version"):
        await kept(secret_path="app", data={"n": 2}, version=0)
    assert (await kept(secret_path="app", data={"n": 2}, version=1))["data"]["version"] == 2


async def test_names_are_listed(kept, server):
    server.put("a", {})
    server.put("b/c", {})
    assert (await kept(mode="list"))["data"]["keys"] == ["a", "b/"]
    assert (await kept(mode="list", secret_path="b/"))["data"]["keys"] == ["c"]


async def test_only_what_does_no_harm_is_tried_again(kept, server, pacing):
    server.put("x", {"k": "v"})
    server.answers += [(502, None, {}), (503, {"errors": ["Vault is sealed"]}, {})]
    assert (await kept(secret_path="x"))["data"]["data"] == {"k": "v"}
    assert len(pacing.pauses) == 2
    server.answers.append((500, None, {}))
    with pytest.raises(errors.TaskFailed, match="status 500"):
        await kept(secret_path="x", data={"k": "w"})
    assert server.data("x") == {"k": "v"}


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        ({"host": None}, "MissingInputError", "'host'"),
        ({"token": None}, "MissingInputError", "'token'"),
        ({"token": None, "role_id": "r"}, "MissingInputError", "'secret_id'"),
        ({"secret_path": "/"}, "MissingInputError", "'secret_path'"),
        ({"mode": "write"}, "MissingInputError", "'data'"),
        ({"mode": "undelete"}, "MissingInputError", "'version'"),
        ({"mode": "fetch"}, "InvalidInputError", "'mode'"),
        ({"mode": "read", "data": {}}, "InvalidInputError", "'data'"),
        ({"version": [1, 2]}, "InvalidInputError", "'version'"),
        ({"mode": "purge", "version": 1}, "InvalidInputError", "'version'"),
        ({"version": -1}, "InvalidInputError", "'version'"),
        ({"host": "ftp://x"}, "InvalidInputError", "'host'"),
        ({"secret_path": "a/../b"}, "InvalidInputError", "'secret_path'"),
        ({"engine_path": ""}, "InvalidInputError", "'engine_path'"),
        ({"cacert": "nonsense"}, "InvalidInputError", "'cacert'"),
        ({"path": "x"}, "ExtraInputError", "'path'"),
    ],
)
def test_inputs_that_make_no_request_are_refused(tasks, inputs, kind, message):
    given = {"host": "vault.example", "token": "hvs.t", "secret_path": "x", **inputs}
    with pytest.raises(errors.InputRefused, match=message) as caught:
        tasks.prepare("vault", json.dumps(given).encode())
    assert caught.value.kind == kind


def test_reading_may_be_repeated_and_the_rest_may_not(tasks):
    def idempotent(**inputs):
        given = {"url": "vault.example", "token": "hvs.t", "secret_path": "x", **inputs}
        return tasks.prepare("VAULT", json.dumps(given).encode()).idempotent

    assert idempotent() and idempotent(mode="list") and idempotent(mode="metadata")
    assert not idempotent(data={"k": "v"}) and not idempotent(mode="delete") and not idempotent(mode="purge")


def test_a_host_without_scheme_is_https():
    settings = definition.Settings(pacing=retry.Pacing())
    assert vault.definition(settings).name == "VAULT"
    found = vault_client.address(ports.VaultAccess(url="vault.example:8200"), "data", "a b")
    assert str(found) == "https://vault.example:8200/v1/secret/data/a%20b"
