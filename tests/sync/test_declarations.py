"""What a commit declares beside flows, what is wrong with it, and what stays of it then."""

from __future__ import annotations

import json

import msgspec
import pytest

from headrace.engine import errors, model
from headrace.sync import catalogue, manifests, places
from headrace.sync.source import Source

WEBHOOK = "flow_name: a\nsecret: secret.env(HOOK)\n"
SCHEDULE = 'flow_name: a\ncron: "0 3 * * *"\n'
CONNECTION = "connection_type: REST\nvalue: {url: https://example.org}\n"
GOOD = {
    "settings/mail.yaml": "host: mx\nports: [25, 587]\n",
    "settings/deep/er/mail.yml": "42",
    "files/logo.svg": "<svg/>",
    "files/sub/script.py": "def handler(system, this)  # not even Python\n",
    "connections/api.yaml": CONNECTION + "vault_secrets: {password: 'cfg:path.key'}\ndescription: the API\n",
    "webhooks/deploy.yaml": WEBHOOK + "methods: [post, PUT]\n",
    "schedules/nightly.yaml": SCHEDULE + "timezone: Europe/Vienna\ninput_value: {x: 1}\ncatchup: last\n",
    "vault_configs/main.yaml": "url: https://vault.example\ntoken: secret.env(VAULT)\n",
}


async def synced(repository, daemon, files: dict[str, str | bytes], **settings):
    """Push ``files``, sync, and return the catalogue."""
    for path, text in files.items():
        repository.write(path, text)
    repository.push()
    sync = await daemon.started(repository.url, **settings)
    status = await daemon.synced(sync)
    assert status.state == "ok", status.error
    return sync.flows.current()


def fields(declared: model.Declared) -> dict[str, object]:
    return {key: json.loads(bytes(raw)) for key, raw in declared.fields.items()}


async def test_every_type_is_declared_by_its_folder(repository, daemon):
    found = await synced(repository, daemon, GOOD)
    assert found.problems == ()
    assert {type_: list(named) for type_, named in found.declared.items()} == {
        "connection": ["api"],
        "file": ["logo.svg", "sub/script.py"],
        "schedule": ["nightly"],
        "setting": ["deep/er/mail", "mail"],
        "vault_config": ["main"],
        "webhook": ["deploy"],
    }
    assert fields(found.declared["setting"]["mail"]) == {"value": {"host": "mx", "ports": [25, 587]}}
    assert fields(found.declared["setting"]["deep/er/mail"]) == {"value": 42}
    assert fields(found.declared["webhook"]["deploy"]) == {
        "flow_name": "a",
        "secret": "secret.env(HOOK)",
        "methods": ["POST", "PUT"],
    }
    assert fields(found.declared["schedule"]["nightly"])["input_value"] == {"x": 1}
    assert found.declared["connection"]["api"].commit == found.commit
    logo = found.declared["file"]["logo.svg"]
    assert (logo.size, logo.fields, logo.path) == (6, {}, "files/logo.svg")
    assert found.flows == {}


async def test_a_webhook_setting_is_read_from_three_places(repository, daemon):
    names = ["client.webhook.a.yaml", "webhooks/client.webhook.b.yaml", "settings/client.webhook.c.yml"]
    found = await synced(repository, daemon, dict.fromkeys(names, "flow_name: x\n"))
    assert list(found.declared) == ["setting"]
    assert list(found.declared["setting"]) == ["client.webhook.a", "client.webhook.b", "client.webhook.c"]


async def test_other_files_in_those_folders_declare_nothing(repository, daemon):
    names = ["settings/README.md", "settings/.x.yaml", "settings/.d/x.yaml", "files/.gitkeep", "x.yaml", "lib/x.yaml"]
    found = await synced(repository, daemon, dict.fromkeys(names, "a: 1"))
    assert (found.declared, found.problems) == ({}, ())


async def test_a_flow_may_lie_beside_webhooks_and_never_below_files(repository, daemon):
    flow = "def handler(system, this): ...\n"
    found = await synced(repository, daemon, {"webhooks/github.py": flow, "files/x.py": flow, "files/y/z.py": flow})
    assert list(found.flows) == ["webhooks/github"]
    assert list(found.declared["file"]) == ["x.py", "y/z.py"]


async def test_a_subfolder_has_declarations_of_its_own(repository, daemon):
    files = {"ops/settings/a.yaml": "1", "settings/b.yaml": "2"}
    found = await synced(repository, daemon, files, path="ops")
    assert list(found.declared["setting"]) == ["a"]


async def test_folders_can_have_other_names(repository, daemon):
    files = {
        "config/a.yaml": "1",
        "settings/b.yaml": "2",
        "files/c.py": "def handler(system, this): ...",
        "data/d": "x",
    }
    found = await synced(repository, daemon, files, folders={"settings": "config", "files": "data"})
    assert {type_: list(named) for type_, named in found.declared.items()} == {"file": ["d"], "setting": ["a"]}
    assert list(found.flows) == ["files/c"]
    again = await daemon.started(repository.url)
    await daemon.synced(again)
    assert list(again.flows.current().declared["setting"]) == ["b"]


@pytest.mark.parametrize(
    "names", [{"flows": "x"}, {"settings": "files"}, {"settings": "files/x"}, {"settings": "../x"}, {"settings": ""}]
)
def test_folder_names_that_cannot_be_meant_are_refused(names):
    with pytest.raises(errors.ConfigurationInvalid):
        Source(url="https://forge.example/x.git", folders=names)


@pytest.mark.parametrize(
    ("path", "text", "line", "key", "said"),
    [
        ("settings/x.yaml", "a: 1\na: 2", 2, "", "stands in line 1 already"),
        ("settings/x.yaml", "a: [", 2, "", "not YAML"),
        ("settings/x.yaml", "x" * 1_100_000, 1, "", "the limit is 1,048,576"),
        ("webhooks/x.yaml", "- a", 1, "", "the document is ['a']; write a table"),
        ("webhooks/x.yaml", "", 1, "", "the document is null"),
        ("webhooks/x.yaml", "auth: none", 1, "", "has no flow_name"),
        ("webhooks/x.yaml", "flow_name: a", 1, "auth", "there is no secret"),
        ("webhooks/x.yaml", "flow_name: a\n\nsecret: hunter2", 3, "secret", "never hold one"),
        ("webhooks/x.yaml", "flow_name: a\nauth: none\nsecret: secret.env(X)", 3, "secret", "would not be asked"),
        ("webhooks/x.yaml", WEBHOOK + "auth: digest", 3, "auth", "standard-webhooks"),
        ("webhooks/x.yaml", WEBHOOK + "methods: [TRACE]", 3, "methods", "name some of"),
        ("webhooks/x.yaml", WEBHOOK + "is_enabled: 1", 3, "is_enabled", "write true or false"),
        ("webhooks/x.yaml", WEBHOOK + "key: secret.env(X)", 3, "key", "the same as secret"),
        ("webhooks/x.yaml", WEBHOOK + "colour: red", 3, "colour", "is not known"),
        ("webhooks/x.yaml", WEBHOOK + "name: y", 3, "name", "is not known"),
        ("schedules/x.yaml", "cron: '@daily'", 1, "", "has no flow_name"),
        ("schedules/x.yaml", "flow_name: a", 1, "", "has no cron"),
        ("schedules/x.yaml", "flow_name: a\ncron: soon", 2, "cron", "write it like"),
        ("schedules/x.yaml", SCHEDULE + "timezone: 'over there'", 3, "timezone", "Europe/Vienna"),
        ("schedules/x.yaml", SCHEDULE + "input_value: 3", 3, "input_value", "write a table"),
        ("schedules/x.yaml", SCHEDULE + "catchup: maybe", 3, "catchup", "none, latest, last, all"),
        ("connections/x.yaml", "value: {}", 1, "", "has no connection_type"),
        ("connections/x.yaml", "connection_type: REST", 1, "", "has no value"),
        ("connections/x.yaml", CONNECTION + "vault_secrets: {password: hunter2}", 3, "vault_secrets.password", "where"),
        ("connections/x.yaml", CONNECTION + "connector_type: X", 3, "connector_type", "the same as connection_type"),
        ("vault_configs/x.yaml", "token: secret.env(X)", 1, "", "has no url"),
        ("vault_configs/x.yaml", "url: nowhere", 1, "url", "write it like"),
        ("vault_configs/x.yaml", "url: 3", 1, "url", "write a text"),
    ],
)
async def test_what_is_wrong_is_told_with_file_line_and_key(repository, daemon, path, text, line, key, said):
    found = await synced(repository, daemon, {"settings/good.yaml": "1", path: text})
    (problem,) = found.problems
    sync = await daemon.started(repository.url)
    assert sync.status().problems == (problem,)
    assert (problem.file, problem.line, problem.key, problem.commit) == (path, line, key, found.commit)
    assert said in problem.reason
    assert "hunter2" not in problem.reason
    assert {type_: list(named) for type_, named in found.declared.items()} == {"setting": ["good"]}


async def test_other_spellings_of_a_key_become_the_one(repository, daemon):
    files = {
        "connections/x.yaml": "connector_type: REST\nvalue: {}",
        "webhooks/x.yaml": "flow: a\nkey: secret.age(hooks:x)",
        "webhooks/y.yaml": "flow: a\nauth: none",
    }
    found = await synced(repository, daemon, files)
    assert found.problems == ()
    assert fields(found.declared["connection"]["x"]) == {"connection_type": "REST", "value": {}}
    assert fields(found.declared["webhook"]["x"]) == {"flow_name": "a", "secret": "secret.age(hooks:x)"}


async def test_a_token_in_the_repository_is_warned_of_as_long_as_it_is_there(repository, daemon):
    await synced(repository, daemon, {"vault_configs/x.yaml": "url: https://v\ntoken: root\n"})
    repository.write("other.txt", "x")
    repository.push()
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert status.problems == ()
    assert "token stands in the repository" in status.warnings["vault_configs/x.yaml"]
    assert "root" not in status.warnings["vault_configs/x.yaml"]


async def test_a_broken_file_keeps_its_last_good_declaration(repository, daemon):
    first = await synced(repository, daemon, {"settings/a.yaml": "1", "schedules/s.yaml": SCHEDULE})
    broken = await synced(repository, daemon, {"settings/a.yaml": "[", "schedules/s.yaml": "nonsense: 1"})
    assert {problem.file for problem in broken.problems} == {"settings/a.yaml", "schedules/s.yaml"}
    assert broken.declared == first.declared
    later = await synced(repository, daemon, {"other.txt": "x"})
    assert later.problems == broken.problems  # with the commit that broke them
    assert later.declared["setting"]["a"].commit == first.commit
    assert daemon.state.joinpath("snapshots", first.commit).is_dir()
    assert first.commit in manifests.read(daemon.state / "snapshots", later.commit).needs
    mended = await synced(repository, daemon, {"settings/a.yaml": "2", "schedules/s.yaml": SCHEDULE})
    assert mended.problems == ()
    assert fields(mended.declared["setting"]["a"]) == {"value": 2}


async def test_a_file_that_becomes_a_link_keeps_what_it_was(repository, daemon):
    first = await synced(repository, daemon, {"files/a.txt": "x", "settings/a.yaml": "1"})
    for path in ("files/a.txt", "settings/a.yaml"):
        repository.remove(path)
        repository.directory.joinpath(path).symlink_to("/etc/passwd")
    found = await synced(repository, daemon, {})
    assert ["symbolic link" in problem.reason for problem in found.problems] == [True, True]
    assert found.declared == first.declared


async def test_a_deleted_file_declares_nothing_any_more(repository, daemon):
    await synced(repository, daemon, {"settings/a.yaml": "[", "settings/b.yaml": "1"})
    repository.remove("settings/a.yaml")
    repository.remove("settings/b.yaml")
    found = await synced(repository, daemon, {"c.txt": "x"})
    assert (found.declared, found.problems) == ({}, ())


async def test_strict_refuses_a_commit_with_a_broken_declaration(repository, daemon):
    first = await synced(repository, daemon, {"settings/a.yaml": "1"}, policy="strict")
    repository.write("settings/a.yaml", "a: 1\na: 2\n")
    repository.push()
    sync = await daemon.started(repository.url, policy="strict")
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("degraded", first.commit)
    assert "settings/a.yaml:2: the key 'a'" in status.error


async def test_two_files_for_one_record_are_told_and_the_first_counts(repository, daemon):
    found = await synced(repository, daemon, {"settings/a.yaml": "1", "settings/a.yml": "2"})
    assert [problem.reason for problem in found.problems] == [
        "the setting 'a' is declared by 'settings/a.yaml' already"
    ]
    assert fields(found.declared["setting"]["a"]) == {"value": 1}
    repository.remove("settings/a.yaml")
    found = await synced(repository, daemon, {})
    assert found.problems == ()
    assert fields(found.declared["setting"]["a"]) == {"value": 2}


async def test_a_webhook_of_a_flow_is_not_declared_a_second_time(repository, daemon):
    await synced(repository, daemon, {"webhooks/x.yaml": WEBHOOK})
    hook = '# /// script\n# [tool.headrace]\n# webhook = {name = "x"}\n# ///\ndef handler(system, this): ...\n'
    found = await synced(repository, daemon, {"a.py": hook})
    assert [problem.reason for problem in found.problems] == [
        "the webhook 'x' belongs to the flow 'a', whose metadata names it"
    ]
    assert found.declared.get("webhook", {}) == {}


SAME = [
    ("a: 1\nb: [x, y]\n", "# comment\nb:\n  - x\n  - 'y'\na: 1\n", True),
    ("a: 1\n", "a: 1.0\n", False),
    ("a: 1\n", "a: '1'\n", False),
    ("[x, y]", "[y, x]", False),
]


@pytest.mark.parametrize(("old", "new", "same"), SAME)
async def test_a_digest_changes_when_the_content_does_and_only_then(repository, daemon, old, new, same):
    first = await synced(repository, daemon, {"settings/a.yaml": old, "files/f": "x"})
    second = await synced(repository, daemon, {"settings/a.yaml": new, "z.txt": "y"})
    one, two = first.declared["setting"]["a"], second.declared["setting"]["a"]
    assert (one.digest == two.digest) is same
    assert two.commit == second.commit
    assert first.declared["file"]["f"].digest == second.declared["file"]["f"].digest
    third = await synced(repository, daemon, {"files/f": "y"})
    assert third.declared["file"]["f"].digest != first.declared["file"]["f"].digest


async def test_a_digest_stays_when_the_file_moves_between_suffixes(repository, daemon):
    first = await synced(repository, daemon, {"settings/a.yaml": "1"})
    repository.move("settings/a.yaml", "settings/a.yml")
    second = await synced(repository, daemon, {})
    assert first.declared["setting"]["a"].digest == second.declared["setting"]["a"].digest


async def test_what_did_not_change_is_not_read_again(repository, daemon):
    before = await synced(repository, daemon, {f"settings/{number}.yaml": "1" for number in range(30)})
    repository.write("settings/7.yaml", "2")
    repository.push()
    sync = await daemon.started(repository.url)
    manifest = manifests.read(daemon.state / "snapshots", before.commit)
    plan = await plan_of(daemon, sync)
    assert [entry.path for entry in catalogue.documents_to_read(manifest, plan, places.USUAL)] == ["settings/7.yaml"]


async def plan_of(daemon, sync):
    await daemon.synced(sync)
    manifest = manifests.read(daemon.state / "snapshots", sync.flows.current().commit)
    mirror = sync._workshop._mirror
    return catalogue.tree.plan(mirror.entries(manifest.catalogue.commit))


async def test_declarations_survive_a_restart_without_the_source(repository, daemon):
    before = await synced(repository, daemon, GOOD)
    repository.upstream.rename(repository.upstream.with_name("away"))
    sync = await daemon.started(repository.url)
    assert sync.flows.current() == before


async def test_a_manifest_of_before_is_readable_and_made_again(repository, daemon):
    before = await synced(repository, daemon, GOOD | {"a.py": "def handler(system, this): ...\n"})
    path = manifests.path_of(daemon.state / "snapshots", before.commit)
    old = json.loads(path.read_bytes())
    del old["catalogue"]["declared"], old["catalogue"]["problems"]
    old["rules"] = "1/3.11"
    path.write_text(json.dumps(old))
    manifest = manifests.read(path.parent, before.commit)
    assert (manifest.catalogue.declared, list(manifest.catalogue.flows)) == ({}, ["a"])
    daemon.events[-1] = msgspec.structs.replace(daemon.events[-1], manifest_sha256="")
    sync = await daemon.started(repository.url)
    assert sync.flows.find("a").id == before.flows["a"].id
    await daemon.synced(sync)
    after = sync.flows.current()
    assert after.declared == before.declared
    assert after.flows["a"].id == before.flows["a"].id


def test_the_places_are_told_by_names_alone():
    assert places.USUAL.of("settings/a.b.yaml") == places.Place("setting", "a.b")
    assert places.USUAL.of("files/.hidden/x") == places.Place("file", ".hidden/x")
    assert places.USUAL.of("deep/client.webhook.x.yaml") is None
    assert places.USUAL.of("settings") is None
    assert places.USUAL.of("secrets/x.age") is None
