"""Tokens: what is kept of them, when they end, and what a crash leaves."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from headrace.daemon import principals, private_files, token_store
from headrace.engine import errors
from tests.support.clocks import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


@pytest.fixture
def store(path, clock):
    return token_store.TokenStore.open(path, clock)


async def made(store, name="ci", **more):
    given = {"scopes": ("read",), "flows": (), "valid_s": None} | more
    return await store.create(name, by="admin", **given)


async def test_a_token_is_kept_as_its_hash_alone_in_a_file_for_its_user(store, path, clock):
    token, secret = await made(store, flows=("reports/*",))
    assert secret.startswith("hr_") and len(secret) >= 46  # 256 bits in base64
    assert secret not in path.read_text() and secret not in repr(vars(store))
    assert path.stat().st_mode & 0o777 == 0o600
    again = token_store.TokenStore.open(path, clock)
    assert again.find(secret) == token == store.find(secret)
    assert again.find(secret + "x") is None and again.find("") is None and again.find("\ud800") is None


async def test_a_token_ends_at_its_time_also_after_a_restart(store, path, clock):
    _, secret = await made(store, valid_s=60)
    clock.now_s += 59
    assert store.find(secret) is not None
    clock.now_s += 1
    assert store.find(secret) is None and token_store.TokenStore.open(path, clock).find(secret) is None
    assert [token.name for token in store.all()] == ["ci"]  # it can still be seen, and revoked


async def test_a_revoked_token_is_gone_by_name_or_id_and_stays_gone(store, path, clock):
    (one, first), (_, second) = await made(store, "one"), await made(store, "two")
    await store.revoke(one.id)
    await store.revoke("two")
    for found in (store, token_store.TokenStore.open(path, clock)):
        assert found.find(first) is None and found.find(second) is None and found.all() == []
    with pytest.raises(errors.NotFound):
        await store.revoke("two")


async def test_the_last_use_is_known_and_survives(store, path, clock):
    token, secret = await made(store)
    assert store.last_used(token) is None
    clock.now_s += 3600
    store.find(secret)
    await store.write_uses()
    used = token_store.TokenStore.open(path, clock).last_used(token)
    assert used == store.last_used(token) and used > token.created_at


async def test_a_stop_in_the_middle_of_a_write_waits_for_it(store, path, clock, monkeypatch):
    """Two writes at once would take the temporary file from each other; and the older one could come last."""
    token, secret = await made(store)
    begun, goes_on, fsync, synced = threading.Event(), threading.Event(), os.fsync, []

    def slow_sync(descriptor):
        synced.append(descriptor)
        begun.set()
        assert goes_on.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_sync)
    clock.now_s += 60
    store.find(secret)
    now_and_then = asyncio.create_task(store.write_uses())
    await asyncio.to_thread(begun.wait, 10)
    now_and_then.cancel()
    clock.now_s += 60
    store.find(secret)
    at_the_stop = asyncio.create_task(store.write_uses())
    await asyncio.sleep(0.05)
    assert len(synced) == 1, "one write at a time"
    goes_on.set()
    await at_the_stop
    assert token_store.TokenStore.open(path, clock).last_used(token) == store.last_used(token)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["", "admin", "a\nb", "x" * 101])
async def test_names_that_would_mislead_are_refused(store, name):
    with pytest.raises(errors.InvalidRequest):
        await made(store, name)


async def test_a_name_is_given_once_and_patterns_are_bounded(store):
    await made(store)
    with pytest.raises(errors.Conflict):
        await made(store)
    for flows in (("",), ("x",) * 51):
        with pytest.raises(errors.InvalidRequest):
            await made(store, "other", flows=flows)


def test_a_file_that_cannot_be_trusted_stops_the_start(path, clock):
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(errors.ConfigurationInvalid, match="cannot be read"):
        token_store.TokenStore.open(path, clock)
    path.write_text("{}")
    path.chmod(0o640)
    with pytest.raises(errors.ConfigurationInvalid, match="can be read by others"):
        token_store.TokenStore.open(path, clock)


def test_a_write_that_is_killed_leaves_the_file_whole(path):
    code = """
        import itertools, pathlib, sys
        from headrace.daemon import private_files
        for n in itertools.count():
            private_files.write(pathlib.Path(sys.argv[1]), '{"tokens": [], "used": {"n": "%s"}}' % ("x" * 100_000))
            print(n, flush=True)
    """
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE
        ) as writer:
            for _ in range(3):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
        assert len(json.loads(path.read_text())["used"]["n"]) == 100_000


def test_a_folder_that_others_can_look_into_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    assert private_files.close_folder(tmp_path) and tmp_path.stat().st_mode & 0o777 == 0o700
    assert not private_files.close_folder(tmp_path)


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        (["viewer"], ("read",)),
        (["operator"], ("read", "run")),
        (["editor"], ("read", "run", "edit")),
        (["admin"], ("read", "run", "edit", "admin")),
        (["run"], ("run",)),
        (["edit", "read", "viewer"], ("read", "edit")),
    ],
)
def test_roles_stand_for_scopes(given, scopes):
    assert principals.scopes_of(given) == scopes


@pytest.mark.parametrize("given", [[], ["root"], ["read", ""]])
def test_a_scope_that_does_not_exist_is_refused(given):
    with pytest.raises(errors.InvalidRequest):
        principals.scopes_of(given)


@pytest.mark.parametrize(
    ("patterns", "flow", "theirs"),
    [
        ((), "anything", True),
        (("reports/*",), "reports/daily", True),
        (("reports/*",), "reports/a/b", True),
        (("reports/*",), "Reports/daily", False),
        (("reports/*",), "reports", False),
        (("a", "b"), "b", True),
        (("a",), "", False),
    ],
)
def test_patterns_say_which_flows_are_somebodys(patterns, flow, theirs):
    assert principals.Principal("x", frozenset(), patterns).may_touch(flow) is theirs
