"""The vault of the tests is held to the real one by hvac, which was written for that."""

import hvac
import pytest

from tests.support import vault_server
from tests.support.vault_server import VaultServer


@pytest.fixture
def vault():
    with VaultServer(namespaces=("", "team")) as server:
        yield server


@pytest.fixture
def kv(vault):
    client = hvac.Client(url=vault.url, token=vault_server.ROOT)
    assert client.is_authenticated()
    yield client.secrets.kv.v2
    client.adapter.close()


def test_secrets_are_written_in_versions_and_read(kv):
    assert kv.create_or_update_secret("app/db", secret={"password": "one"})["data"]["version"] == 1
    assert kv.create_or_update_secret("app/db", secret={"password": "two", "n": 2})["data"]["version"] == 2
    newest = kv.read_secret_version("app/db", raise_on_deleted_version=True)["data"]
    assert newest["data"] == {"password": "two", "n": 2}
    assert newest["metadata"]["version"] == 2 and newest["metadata"]["deletion_time"] == ""
    older = kv.read_secret_version("app/db", version=1, raise_on_deleted_version=True)
    assert older["data"]["data"] == {"password": "one"}
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("app/nothing", raise_on_deleted_version=True)


def test_a_write_may_depend_on_the_newest_version(kv):
    kv.create_or_update_secret("app", secret={"n": 1}, cas=0)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="did not match the current version"):
        kv.create_or_update_secret("app", secret={"n": 2}, cas=0)
    assert kv.create_or_update_secret("app", secret={"n": 2}, cas=1)["data"]["version"] == 2
    kv.update_metadata("app", cas_required=True, custom_metadata={"owner": "ops"})
    with pytest.raises(hvac.exceptions.InvalidRequest, match="required"):
        kv.create_or_update_secret("app", secret={"n": 3})
    assert kv.read_secret_metadata("app")["data"]["custom_metadata"] == {"owner": "ops"}


def test_deleted_versions_come_back_and_destroyed_ones_do_not(kv):
    for n in (1, 2, 3):
        kv.create_or_update_secret("app", secret={"n": n})
    kv.delete_latest_version_of_secret("app")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("app", raise_on_deleted_version=True)
    deleted = kv.read_secret_version("app", raise_on_deleted_version=False)
    assert deleted["data"]["data"] is None and deleted["data"]["metadata"]["deletion_time"]
    kv.undelete_secret_versions("app", versions=[3])
    assert kv.read_secret_version("app", raise_on_deleted_version=True)["data"]["data"] == {"n": 3}
    kv.delete_secret_versions("app", versions=[1])
    kv.destroy_secret_versions("app", versions=[2])
    kv.undelete_secret_versions("app", versions=[2])
    versions = kv.read_secret_metadata("app")["data"]["versions"]
    assert versions["1"]["deletion_time"] and versions["2"]["destroyed"] and not versions["3"]["deletion_time"]
    kv.delete_metadata_and_all_versions("app")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_metadata("app")


def test_folders_are_listed(kv):
    for path in ("a", "b/c", "b/d/e"):
        kv.create_or_update_secret(path, secret={"x": 1})
    assert kv.list_secrets("")["data"]["keys"] == ["a", "b/"]
    assert kv.list_secrets("b")["data"]["keys"] == ["c", "d/"]
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.list_secrets("nothing")


def test_a_role_logs_in_and_sees_what_it_may(vault):
    vault.role("the-role", "the-secret", paths=("mine/",))
    vault.put("mine/x", {"k": "v"})
    vault.put("other", {"k": "v"})
    client = hvac.Client(url=vault.url)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid role or secret ID"):
        client.auth.approle.login(role_id="the-role", secret_id="wrong")
    answer = client.auth.approle.login(role_id="the-role", secret_id="the-secret")
    assert answer["auth"]["lease_duration"] == 3600 and client.token == answer["auth"]["client_token"]
    read = client.secrets.kv.v2.read_secret_version
    assert read("mine/x", raise_on_deleted_version=True)["data"]["data"] == {"k": "v"}
    with pytest.raises(hvac.exceptions.Forbidden):
        read("other", raise_on_deleted_version=True)
    client.token = "hvs.made-up"
    with pytest.raises(hvac.exceptions.Forbidden):
        read("mine/x", raise_on_deleted_version=True)
    client.adapter.close()


def test_namespaces_are_apart(vault):
    client = hvac.Client(url=vault.url, token=vault_server.ROOT, namespace="team")
    client.secrets.kv.v2.create_or_update_secret("x", secret={"where": "team"})
    assert vault.data("x", namespace="team") == {"where": "team"}
    assert "secret/x" not in vault.secrets[""]
    client.adapter.close()


def test_a_sealed_vault_answers_nothing(vault, kv):
    client = hvac.Client(url=vault.url, token=vault_server.ROOT)
    client.sys.seal()
    assert client.sys.is_sealed()
    with pytest.raises(hvac.exceptions.VaultDown, match="sealed"):
        kv.read_secret_version("app", raise_on_deleted_version=True)
    client.sys.submit_unseal_key("key")
    assert not client.sys.is_sealed()
    client.adapter.close()
