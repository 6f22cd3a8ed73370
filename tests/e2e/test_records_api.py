"""What flows keep, over HTTP and on the command line: the same records, their secrets unseen, and files as they are."""

import json
import subprocess
import sys
import urllib.request

import pytest

from tests.support.daemons import until

READS = """
def handler(system, this, inputs):
    return {'value': system.setting(inputs['name']).get('value')}
"""
HOLDS = """
def handler(system, this, inputs):
    with this.lock('the lock'):
        this.sleep(30)
"""
TAKES = """
def handler(system, this, inputs):
    with this.lock('the lock', timeout=30):
        return this.success('had it')
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.write("settings/declared.yaml", "greeting: hello\n")
    workshop.write("files/notes/read me.txt", "from the repository")
    workshop.flow("reads", READS)
    workshop.flow("holds", HOLDS)
    workshop.flow("takes", TAKES)
    return workshop.daemon


@pytest.fixture
def ask(daemon):
    def ask(method, path, body=None, headers=None):
        bearer = {"Authorization": f"Bearer {daemon.token()}"}
        return daemon.raw(method, "/api/v1" + path, body, bearer | (headers or {}))

    return ask


@pytest.fixture
def headrace(daemon):
    """The command as people type it; returns (exit status, stdout, stderr)."""

    def run(*args, stdin=b""):
        command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *map(str, args)]
        done = subprocess.run(command, input=stdin, capture_output=True)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_a_record_is_made_changed_read_and_deleted(ask):
    status, made, _ = ask("PUT", "/settings/a%2Fb%20c", {"value": {"n": [1, None]}, "description": "mine"})
    assert (status, made["name"], made["value"], made["created_by"]) == (201, "a/b c", {"n": [1, None]}, "admin")
    status, changed, _ = ask("PUT", "/settings/a%2Fb%20c", {"value": "ü"})
    assert (status, changed["value"], changed["description"], changed["id"]) == (200, "ü", "mine", made["id"])
    assert changed["modified_at"] > made["modified_at"] == made["created_at"] == changed["created_at"]
    assert ask("GET", "/settings/a%2Fb%20c")[1] == changed
    assert changed in ask("GET", "/settings")[1]["items"]
    status, body, _ = ask("DELETE", "/settings/a%2Fb%20c")
    assert (status, body) == (204, "")
    assert ask("GET", "/settings/a%2Fb%20c")[0] == ask("DELETE", "/settings/a%2Fb%20c")[0] == 404


def test_what_was_read_can_be_edited_and_sent_back(ask):
    ask("PUT", "/settings/round", {"value": 1})
    found = ask("GET", "/settings/round")[1]
    status, saved, _ = ask("PUT", "/settings/round", found | {"value": 2})
    assert (status, saved["value"], saved["id"]) == (200, 2, found["id"])
    status, problem, _ = ask("PUT", "/settings/round", found | {"name": "other"})
    assert status == 400 and "another name" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/settings/x", b"{", 400),
        ("/settings/x", [1], 400),
        ("/settings/x", {"nonsense": 1}, 400),
        ("/connections/x", {"value": "text"}, 400),
        ("/webhooks/x", {"flow_name": "reads"}, 400),
        ("/schedules/x", {"flow_name": "reads", "cron": "soon"}, 400),
        ("/settings/" + "x" * 2000, {"value": 1}, 400),
        ("/nothing/x", {}, 404),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_reason(ask, path, body, status):
    found, problem, headers = ask("PUT", path, body)
    assert (found, problem["status"]) == (status, status)
    assert headers["Content-Type"] == "application/problem+json" and problem["detail"]


@pytest.mark.parametrize(
    ("plural", "fields", "secret", "shown"),
    [
        ("connections", {"connection_type": "REST", "value": {"url": "u", "password": "hush-1"}}, "hush-1",
         lambda record: record["value"]["password"]),
        ("webhooks", {"flow_name": "reads", "secret": "hush-2"}, "hush-2", lambda record: record["secret"]),
        ("vault_configs", {"url": "http://vault.example", "token": "hush-3"}, "hush-3", lambda record: record["token"]),
    ],
)  # fmt: skip
def test_credentials_are_never_shown_and_stay_when_they_are_sent_back_protected(
    daemon, ask, plural, fields, secret, shown
):
    path = f"/{plural}/secretive"
    assert shown(ask("PUT", path, fields)[1]) == "[protected]"
    found = ask("GET", path)[1]
    status, saved, _ = ask("PUT", path, found | {"description": "changed"})
    assert (status, saved["description"], shown(saved)) == (200, "changed", "[protected]")
    assert secret not in json.dumps([ask("GET", path)[1], ask("GET", f"/{plural}")[1], daemon.lines()])
    assert ask("PUT", f"/{plural}/other", found | {"name": "other"})[0] == 400, "there is nothing that it stands for"


def test_a_protected_key_of_a_webhook_still_opens_it_after_an_edit(daemon, ask):
    ask("PUT", "/webhooks/edited", {"flow_name": "idle", "secret": "hush-4"})
    ask("PUT", "/webhooks/edited", ask("GET", "/webhooks/edited")[1] | {"methods": ["GET"]})
    assert daemon.raw("GET", "/webhook/edited?key=hush-4")[0] == 200
    assert daemon.raw("GET", "/webhook/edited?key=[protected]")[0] == 401


def test_a_declared_record_is_overlaid_until_the_repository_changes_it(workshop, daemon, ask):
    found = ask("GET", "/settings/declared")[1]
    assert (found["value"], found["is_declared"]) == ({"greeting": "hello"}, True)
    assert ask("PUT", "/settings/declared", {"value": 2})[1]["is_declared"] is False
    assert daemon.run("reads", name="declared")["output_value"]["value"] == 2
    workshop.write("settings/declared.yaml", "3\n")
    daemon.client.sync()
    assert ask("GET", "/settings/declared")[1]["value"] == 3


def test_a_saved_record_is_still_there_after_a_kill(daemon, ask):
    ask("PUT", "/settings/kept", {"value": "as it was"})
    ask("PUT", "/files/kept.bin", b"\x00\xff", {"Content-Type": "application/octet-stream"})
    daemon.kill()
    daemon.start()
    assert ask("GET", "/settings/kept")[1]["value"] == "as it was"
    assert daemon.client.file("kept.bin") == b"\x00\xff"


@pytest.mark.parametrize("path", ["dir/a%20b.html", "dir%2Fa%20b.html", "dir//a%20b.html/"])
def test_files_are_their_content_and_no_browser_takes_one_for_a_page(daemon, ask, path):
    content = b"<script>alert(1)</script>\r\n\x00\xff"
    ask("DELETE", f"/files/{path}")
    status, made, _ = ask("PUT", f"/files/{path}", content, {"Content-Type": "text/html"})
    assert (status, made["name"], made["size"]) == (201, "dir/a b.html", len(content))
    request = urllib.request.Request(f"{daemon.url}/api/v1/files/{path}")
    request.add_header("Authorization", f"Bearer {daemon.token()}")
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == content
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20b.html"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
    status, changed, _ = ask("PUT", f"/files/{path}", b"")
    assert (status, changed["size"]) == (200, 0)
    assert [f["size"] for f in ask("GET", "/files")[1]["items"] if f["name"] == "dir/a b.html"] == [0]
    assert ask("DELETE", f"/files/{path}")[0] == 204
    assert ask("GET", f"/files/{path}")[0] == 404


def test_declared_files_are_listed_and_read(daemon, ask):
    assert "notes/read me.txt" in [file["name"] for file in ask("GET", "/files")[1]["items"]]
    assert daemon.client.file("notes/read me.txt") == b"from the repository"


@pytest.mark.parametrize("path", ["..%2Fetc%2Fpasswd", "a%2F..%2F..%2Fb", "%2Fetc%2Fpasswd"])
def test_no_path_leads_out_of_the_files(ask, path):
    assert ask("PUT", f"/files/{path}", b"x")[0] in (400, 404)
    assert ask("GET", f"/files/{path}")[0] in (400, 404)


def test_locks_tell_who_has_them_and_can_be_taken_away(daemon, ask, headrace):
    holder = daemon.client.run("holds")["id"]
    until(lambda: ask("GET", "/locks/the%20lock")[0] == 200, "the lock is taken")
    waiter = daemon.client.run("takes")["id"]
    until(lambda: ask("GET", "/locks/the%20lock")[1]["waiting"], "somebody waits for it")
    (lock,) = [lock for lock in ask("GET", "/locks")[1]["items"] if lock["name"] == "the lock"]
    assert (lock["execution_id"], lock["owned"], lock["waiting"]) == (holder, True, [{"execution_id": waiter}])
    assert holder in headrace("locks")[1]
    assert headrace("locks", "release", "the lock")[0] == 0
    assert daemon.client.wait(waiter, 20)["status"] == "ENDED_SUCCESS"
    assert headrace("locks", "release", "the lock")[0] == 3
    daemon.client.cancel(holder)


def test_settings_are_typed_as_yaml_and_listed_shown_deleted(headrace, tmp_path):
    (tmp_path / "v.yaml").write_text("a:\n  - 1\n  - yes it is\n")
    for value, meant in (("3", 3), ("'3'", "3"), ("[1, {a: b}]", [1, {"a": "b"}]), ("plain text", "plain text"),
                         (f"@{tmp_path}/v.yaml", {"a": [1, "yes it is"]}), ('{"x": null}', {"x": None})):  # fmt: skip
        assert headrace("settings", "set", "typed", value)[0] == 0
        assert json.loads(headrace("settings", "show", "typed", "--json")[1])["value"] == meant
    assert headrace("settings", "set", "typed", "-", stdin=b"on: stdin")[0] == 0
    assert "typed" in headrace("settings")[1] and '{"on": "stdin"}' in headrace("settings", "list")[1]
    assert '"on": "stdin"' in headrace("settings", "show", "typed")[1]
    assert "typed" in [s["name"] for s in json.loads(headrace("settings", "--json")[1])["items"]]
    assert headrace("settings", "delete", "typed")[0] == 0
    assert headrace("settings", "show", "typed")[0] == headrace("settings", "delete", "typed")[0] == 3
    status, _, err = headrace("settings", "set", "typed", "a: b: c")
    assert status == 2 and "not YAML" in err


def test_other_records_are_set_field_by_field(headrace, tmp_path):
    assert headrace("webhooks", "set", "typed", "flow_name=reads", "secret=secret.env(X)", "methods=GET,POST")[0] == 0
    assert headrace("webhooks", "set", "typed", "is_enabled=no")[0] == 0
    hook = json.loads(headrace("webhooks", "show", "typed", "--json")[1])
    assert (hook["methods"], hook["is_enabled"], hook["secret"]) == (["GET", "POST"], False, "secret.env(X)")
    (tmp_path / "c.yaml").write_text("connection_type: SQLPG\nvalue: {host: db.example}\n")
    status, out, _ = headrace("connections", "set", "db", "--input", f"@{tmp_path}/c.yaml", "description=d", "--json")
    assert (status, json.loads(out)["value"], json.loads(out)["description"]) == (0, {"host": "db.example"}, "d")
    assert headrace("schedules", "set", "nightly", "flow_name=reads", "cron=0 3 * * *")[0] == 0
    assert "0 3 * * *" in headrace("schedules")[1]
    assert headrace("vault-configs", "set", "v", "url=http://vault.example")[0] == 0
    assert "http://vault.example" in headrace("vault-configs", "show", "v")[1]
    assert headrace("schedules", "set", "nightly", "cron=soon")[0] == 2
    assert headrace("schedules", "set", "nightly")[0] == 2


def test_files_go_in_and_out_byte_by_byte(headrace, daemon, tmp_path):
    content = bytes(range(256)) * 10
    (tmp_path / "in.bin").write_bytes(content)
    assert headrace("files", "set", "d/typed.bin", f"@{tmp_path}/in.bin")[0] == 0
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), "files", "show", "d/typed.bin"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == content
    assert headrace("files", "set", "d/typed.bin", "-", stdin=b"\xff")[0] == 0
    assert daemon.client.file("d/typed.bin") == b"\xff"
    assert headrace("files", "set", "d/typed.bin", "text")[0] == 2
    assert "d/typed.bin" in headrace("files")[1]
    assert headrace("files", "delete", "d/typed.bin")[0] == 0
    assert headrace("files", "show", "d/typed.bin")[0] == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/settings"), ("PUT", "/settings/x"), ("GET", "/files/x"), ("PUT", "/files/x"), ("DELETE", "/locks/x"),
     ("GET", "/messages"), ("POST", "/messages/x/response"), ("PUT", "/flows/x"), ("GET", "/typings")],
)  # fmt: skip
def test_nothing_of_this_is_open_to_everybody(daemon, method, path):
    assert daemon.raw(method, "/api/v1" + path, b"{}" if method != "GET" else None)[0] == 401


def test_typings_are_served_as_they_are_written(ask):
    status, files, _ = ask("GET", "/typings")
    assert status == 200 and "class System" in files["typings/flow_api/__init__.pyi"]


# -- flows as records -----------------------------------------------------------------------------------------------

SCRIPT = "def handler(system, this):\n    return this.success('%s')\n"


def test_a_flow_is_made_changed_renamed_and_deleted(daemon, ask):
    status, made, headers = ask("POST", "/flows", {"name": "made/here", "script": SCRIPT % "one"})
    assert (status, made["name"], made["broken"]) == (201, "made/here", None)
    assert headers["Location"] == "/api/v1/flows/made%2Fhere"
    assert daemon.run("made/here")["message"] == "one"
    assert ask("POST", "/flows", {"name": "made/here"})[0] == 409
    status, changed, headers = ask("PUT", "/flows/made%2Fhere", {"script": SCRIPT % "two", "message": "Say two"})
    assert (status, changed["id"]) == (200, made["id"])
    assert daemon.run("made/here")["message"] == "two"
    status, renamed, _ = ask("PATCH", "/flows/made%2Fhere", {"name": "made/there"})
    assert (status, renamed["name"], renamed["id"]) == (200, "made/there", made["id"])
    assert ask("GET", "/flows/made%2Fhere")[0] == 404
    assert ask("DELETE", "/flows/made%2Fthere")[0] == 204
    assert ask("GET", "/flows/made%2Fthere")[0] == 404


def test_a_flow_without_a_name_gets_one_and_a_script_to_begin_with(daemon, ask):
    status, made, _ = ask("POST", "/flows", {})
    assert status == 201 and made["name"].startswith("new flow 20")
    assert "# TODO: write your automation" in daemon.client.flow(made["name"])["script"]
    assert daemon.run(made["name"])["status"] == "ENDED_SUCCESS"
    daemon.client.delete_flow(made["name"])


def test_a_change_to_something_older_is_refused(ask):
    ask("PUT", "/flows/guarded", {"script": SCRIPT % "one"})
    tag = ask("GET", "/flows/guarded")[2]["ETag"]
    assert ask("PUT", "/flows/guarded", {"script": SCRIPT % "two"}, {"If-Match": tag})[0] == 200
    status, problem, _ = ask("PUT", "/flows/guarded", {"script": SCRIPT % "three"}, {"If-Match": tag})
    assert (status, problem["title"]) == (412, "Precondition failed")
    assert "two" in ask("GET", "/flows/guarded")[1]["script"]
    assert ask("PUT", "/flows/guarded", {"script": ""}, {"If-None-Match": "*"})[0] == 412
    assert ask("DELETE", "/flows/guarded", headers={"If-Match": tag})[0] == 412
    assert ask("DELETE", "/flows/guarded", headers={"If-Match": "*"})[0] == 204
    assert ask("PUT", "/flows/guarded", {"script": SCRIPT % "x"}, {"If-Match": "*"})[0] == 412


def test_a_script_that_does_not_run_is_kept_and_said_to_be_broken(daemon, ask):
    ask("PUT", "/flows/mended", {"script": SCRIPT % "good"})
    first = ask("GET", "/flows/mended")[2]["ETag"]
    status, broken, headers = ask("PUT", "/flows/mended", {"script": "def handler(:\n"})
    assert (status, broken["broken"]["line"], broken["runnable"]) == (200, 1, True)
    assert headers["ETag"] != first
    shown = ask("GET", "/flows/mended")[1]
    assert ("good" in shown["script"], shown["newest_script"]) == (True, "def handler(:\n")
    assert daemon.run("mended")["message"] == "good"
    assert ask("DELETE", "/flows/mended")[0] == 204


@pytest.mark.parametrize("name", ["..%2Fout", "%2Fetc%2Fx", "a%2F%2Fb", "__pycache__%2Fx", "a%2F.b%2Fc"])
def test_what_cannot_be_a_flow_is_refused(ask, name):
    assert ask("PUT", f"/flows/{name}", {"script": SCRIPT % "x"})[0] in (400, 404)


def test_flows_are_edited_renamed_and_deleted_from_the_command_line(daemon, headrace, tmp_path, monkeypatch):
    daemon.client.save_flow("typed", SCRIPT % "one")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/one/two/" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    status, _, err = headrace("flow", "edit", "typed")
    assert (status, "is committed" in err) == (0, True)
    assert daemon.run("typed")["message"] == "two"
    assert "nothing was changed" in headrace("flow", "edit", "typed")[2]
    assert headrace("flow", "rename", "typed", "typed again")[0] == 0
    assert headrace("flow", "delete", "typed again")[0] == 0
    assert headrace("flow", "delete", "typed again")[0] == 3


# -- executions -----------------------------------------------------------------------------------------------------


def test_a_script_runs_without_being_a_flow(daemon, ask):
    body = {"script": "def handler(system, this, inputs):\n    return inputs\n", "inputs": {"n": 1}}
    status, ended, _ = ask("POST", "/executions?wait=20", body)
    assert (status, ended["type"], ended["output_value"]) == (200, "SCRIPT", {"n": 1})
    assert ask("POST", "/executions", {"script": "x", "flow": "idle"})[0] == 400
    assert ask("POST", "/executions", {})[0] == 400


def test_an_execution_is_paused_resumed_and_forgotten(daemon, ask, headrace, workshop):
    workshop.flow("steps", "def handler(system, this):\n    for n in range(40):\n        this.sleep(0.1)\n")
    id_ = daemon.client.run("steps")["id"]
    until(lambda: daemon.client.execution(id_)["started_at"], "it runs")
    assert headrace("pause", id_)[0] == 0
    until(lambda: daemon.client.execution(id_)["status"] == "PAUSED", "it stands still")
    assert daemon.client.execution(id_)["is_paused"] is True
    assert ask("DELETE", f"/executions/{id_}")[0] == 409
    status, out, _ = headrace("resume", id_, "--json")
    assert (status, json.loads(out)["items"][0]["id"]) == (0, id_)
    until(lambda: daemon.client.execution(id_)["status"] in ("RUNNING", "WAITING"), "it goes on")
    assert ask("POST", f"/executions/{id_}/resume")[0] == 409
    daemon.client.cancel(id_)
    daemon.client.wait(id_, 20)
    assert ask("POST", f"/executions/{id_}/pause")[0] == 409
    assert ask("DELETE", f"/executions/{id_}")[0] == 204
    assert ask("GET", f"/executions/{id_}")[0] == 404
    assert id_ not in [each["id"] for each in daemon.client.executions(limit=200)["items"]]


def test_colours_of_a_log_are_kept_line_by_line(daemon, ask, workshop):
    workshop.flow(
        "colours", "def handler(system, this):\n    this.log('\\x1b[32mgreen\\x1b[0m', n=1)\n    print('a')\n"
    )
    id_ = daemon.run("colours")["id"]
    lines = list(daemon.client.log(id_))
    assert [(line["text"], line["stream"]) for line in lines] == [("\x1b[32mgreen\x1b[0m n=1", ""), ("a", "stdout")]
    assert {"at", "level", "args", "kwargs", "text", "stream"} <= lines[0].keys()
