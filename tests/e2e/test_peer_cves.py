"""What other engines of this kind fell to, tried on ours: a test for each class of public CVE, named for its first."""

import json
import re
import socket
import sys
from importlib import metadata
from pathlib import Path

import aiohttp
import git
import pytest
from aiohttp import http_parser

from headrace.engine import errors
from headrace.engine.state import masks
from headrace.sync import git as sync_git
from headrace.tasks import egress
from tests.support.browser import Browser
from tests.support.daemons import Daemon, until
from tests.support.front_door import ask

pytestmark = pytest.mark.peer_cve

ROOT = Path(__file__).parents[2]
ECHO = "def handler(system, this, inputs):\n    return inputs\n"
HOOK = '# /// script\n# [tool.headrace]\n# webhook = {name = "open", auth = "none"}\n# ///\n' + ECHO
TEMPLATED = '# /// script\n# [tool.headrace]\n# description = "{{ 7 * 7 }} {% raw %} ${7*7}"\n# ///\n' + ECHO
SNOWMAN = """
def handler(system, this):
    print('\u2603 caf\u00e9')
    this.log('\\ud800 \u2603')
    return this.success('\u2603')
"""
ASKS = "def handler(system, this):\n    this.message('{{ 7 * 7 }}', request='{{ cycler.__init__.__globals__ }}')\n"
WHERE = "import os\ndef handler(system, this):\n    return {'pid': os.getpid(), 'daemon': os.getppid()}\n"
METACHARACTERS = ";|&$`\"'\\<>(){}[]*?!~#\n%^="


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("canary") / "sings"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, canary):
    home = tmp_path_factory.mktemp("peer")
    flows = {"echo": ECHO, "open": HOOK, "templated": TEMPLATED, "snowman": SNOWMAN, "asks": ASKS, "where": WHERE}
    (home / "flows" / "settings").mkdir(parents=True)
    for name, text in flows.items():
        (home / "flows" / f"{name}.py").write_text(text)
    attack = f"!!python/object/apply:os.system ['touch {canary}']\n"
    (home / "flows" / "settings" / "attack.yaml").write_text(attack)
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment |= {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii"}
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture(scope="module")
def viewer(daemon):
    return daemon.client.create_token("viewer", ["viewer"])["token"]


def output(daemon, flow, inputs=None):
    return daemon.run(flow, **(inputs or {}))["output_value"]


@pytest.mark.parametrize(
    "path",
    [
        "x/healthz",
        "healthz/",
        "api/v1/flows/healthz",
        "api/v1/flows;/healthz",
        "api/v1/flows/..;/healthz",
        "api/v1/readyz",
        "api/v1/executions/readyz",
        "api/v1/tokens#/healthz",
        "api/v1/tokens?/healthz",
        "api/v1/tokens%3f/healthz",
    ],
)
def test_prefect_2026_3514_a_path_that_looks_like_a_public_one(daemon, path):
    assert ask(daemon, "GET", "/" + path).status in (401, 404)


@pytest.mark.parametrize("path", ["/api/v1/executions/x/events", "/api/v1/executions/x/log", "/api/v1/audit", "/"])
def test_prefect_2026_7723_a_stream_or_an_upgrade_that_nobody_checks(daemon, path):
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "eA==",
        "Sec-WebSocket-Version": "13",
    }
    for method, headers in (("GET", upgrade), ("HEAD", {}), ("GET", {"Accept": "text/event-stream"}), ("OPTIONS", {})):
        assert ask(daemon, method, path, headers=headers).status in (401, 303, 405)


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch x", "-c core.sshCommand=x", "--output=/tmp/x", "HEAD;x", "a..b", "@{u}"]
)
def test_prefect_2026_5366_an_option_where_a_ref_is_meant(daemon, canary, ref):
    answer = ask(daemon, "POST", "/api/v1/flows/echo/run", daemon.token(), body={"ref": ref})
    assert 400 <= answer.status < 500
    with pytest.raises(errors.HeadraceError):
        sync_git.checked_ref(ref)


def test_n8n_2026_21858_a_body_that_passes_for_an_uploaded_file(daemon):
    body = {"files": {"f": {"filepath": "/etc/passwd", "path": "/etc/passwd", "originalFilename": "x"}}}
    for kind in ("application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        answer = ask(daemon, "POST", "/webhook/open", body=body, headers={"Content-Type": kind})
        assert b"root:" not in answer.body
    seen = ask(daemon, "POST", "/webhook/open", body=body, headers={"Content-Type": "application/json"})
    assert seen.json["output_value"]["json"] == body


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "={{ $env }}", "${7*7}", "<%= 7*7 %>", "#{7*7}", "{% debug %}", "__import__('os')"]
)
def test_n8n_2025_68613_an_expression_in_a_value(daemon, text):
    assert output(daemon, "echo", {"x": text}) == {"x": text}
    daemon.client.keep("settings", "expression", {"value": text})
    assert daemon.client.kept_one("settings", "expression")["value"] == text


@pytest.mark.parametrize(
    "path", ["..%2f..%2f..%2fout", "%2e%2e/%2e%2e/out", "a/../../../out", "%2fetc%2fcron.d%2fx", "..%5c..%5cout"]
)
def test_n8n_2026_21877_a_file_that_is_written_where_code_is_loaded(daemon, path):
    before = {file for file in daemon.state.parent.rglob("*") if "out" in file.name}
    assert ask(daemon, "PUT", f"/api/v1/files/{path}", daemon.token(), body=b"x").status in (201, 200, 400, 404)
    assert {file for file in daemon.state.parent.rglob("*") if "out" in file.name} == before
    assert not Path("/etc/cron.d/x").exists()


def test_n8n_2025_68668_a_sandbox_that_is_none(daemon):
    found = output(daemon, "where")
    assert found["pid"] != daemon.pid and found["daemon"] != 0  # a process of its own, and no word of a sandbox:
    assert "can have the daemon\nrun any program" in (ROOT / "docs" / "access.md").read_text()


def test_windmill_2026_22683_a_role_that_only_the_page_knows(daemon, viewer):
    for method, path, body in (
        ("POST", "/api/v1/flows/echo/run", {}),
        ("POST", "/api/v1/executions", {"flow": "echo"}),
        ("PUT", "/api/v1/settings/x", {"value": 1}),
        ("PUT", "/api/v1/flows/echo", {"script": "x = 1"}),
        ("POST", "/api/v1/tokens", {"name": "x", "scopes": ["admin"]}),
        ("DELETE", "/api/v1/flows/echo", None),
    ):
        assert ask(daemon, method, path, viewer, body=body).status == 403


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer hr_nobody"}, {"X-Forwarded-User": "admin"}, {"Cookie": "headrace=x"}]
)
def test_windmill_win_1978_an_unknown_somebody_becomes_an_operator(daemon, headers):
    assert ask(daemon, "GET", "/api/v1/me", headers=headers).status in (401, 429)


@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2fclient.json", "....//....//client.json", "%00", "a%00.jsonl"]
)
def test_windmill_2026_29059_a_log_that_is_read_by_its_path(daemon, name):
    for tail in ("", "/log", "/events", "/export"):
        answer = ask(daemon, "GET", f"/api/v1/executions/{name}{tail}", daemon.token())
        assert answer.status in (400, 404) and b"hr_" not in answer.body and b"root:" not in answer.body


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "fe80::1",
        "fc00::1",
        "64:ff9b::7f00:1",
    ],
)
def test_windmill_ghsa_5q4v_a_request_of_the_server_to_its_own_network(address):
    assert egress.Egress(deny_private=True).refusal(address)


def test_stackstorm_2018_20345_a_user_or_a_scope_in_the_body(daemon, viewer):
    for field in ("user", "created_by", "run_as", "scope", "principal"):
        body = {"inputs": {}, field: "admin"}
        assert ask(daemon, "POST", "/api/v1/flows/echo/run", daemon.token(), body=body).status == 400
    assert ask(daemon, "GET", "/api/v1/executions?scope=all", viewer).status == 400


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://localhost.evil.example", "file://"])
def test_stackstorm_2019_9580_an_origin_of_null(daemon, origin):
    browser = Browser(daemon.url).logged_in(daemon.token())
    form = browser.get("/flows/echo")
    fields = dict(re.findall(r'name="(form_token|key)" value="([^"]+)"', form))
    cookie = "; ".join(f"{one.name}={one.value}" for one in _cookies(browser))
    headers = {"Cookie": cookie, "Origin": origin, "Content-Type": "application/x-www-form-urlencoded"}
    body = f"inputs=%7B%7D&form_token={fields['form_token']}".encode()
    assert ask(daemon, "POST", "/flows/echo/run", body=body, headers=headers).status == 403


def _cookies(browser):
    return next(handler.cookiejar for handler in browser._opener.handlers if hasattr(handler, "cookiejar"))


def test_stackstorm_2021_44657_a_template_in_what_people_read(daemon):
    execution = daemon.client.run("asks")["id"]
    (message,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    browser = Browser(daemon.url).logged_in(daemon.token())
    for page in ("/messages", f"/messages/{message['id']}", f"/executions/{execution}", "/flows/templated", "/"):
        assert ">49<" not in browser.get(page) and "__globals__'" not in browser.get(page)
    assert "{{ 7 * 7 }}" in browser.get("/messages")
    daemon.client.cancel(execution)


def test_stackstorm_2021_28667_a_log_that_the_locale_cannot_write(daemon):
    ended = daemon.run("snowman")
    assert (ended["status"], ended["message"]) == ("ENDED_SUCCESS", "\u2603")
    assert "\u2603 caf\u00e9" in "".join(line["text"] for line in daemon.client.log(ended["id"]))


@pytest.mark.parametrize(
    "secret",
    ["+++longer", "\\Qsecret\\E", "$1 and $2", "a(b[c and more", "line one\nline two", "(?i)secret", ".*.*.*.*"],
)
def test_rundeck_2025_06_a_secret_that_is_taken_for_a_pattern(secret):
    known = masks.Masks()
    known.learn(secret)
    assert secret not in known.text(f"before {secret} after")
    assert json.dumps(secret)[1:-1].encode() not in known.json(json.dumps({"x": f"<{secret}>"}).encode())


def test_awx_2020_14337_an_answer_that_tells_what_exists(daemon):
    limited = daemon.client.create_token("limited", ["admin"], flows=["nothing/*"])["token"]
    execution = daemon.run("echo")["id"]
    theirs = ask(daemon, "GET", f"/api/v1/executions/{execution}", limited)
    nobodys = ask(daemon, "GET", "/api/v1/executions/01m856phewykbyk0h058cadd73", limited)
    assert theirs.status == nobodys.status == 404
    assert theirs.json["detail"].replace(execution, "") == nobodys.json["detail"].replace(
        "01m856phewykbyk0h058cadd73", ""
    )


def test_rundeck_2025_07_a_value_that_becomes_a_command(daemon, canary):
    for text in (
        METACHARACTERS,
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"; touch {canary} #",
        f"'; touch {canary}; '",
    ):
        assert output(daemon, "echo", {text: text}) == {text: text}
    assert not canary.exists()


def test_rundeck_2022_31044_a_protection_that_is_silently_off(daemon):
    daemon.client.keep("connections", "sealed", {"connection_type": "REST", "value": {"password": "canary-of-p20"}})
    daemon.client.sync()
    for file in (daemon.state / "records").rglob("*"):
        assert not file.is_file() or b"canary-of-p20" not in file.read_bytes(), file


def test_rundeck_2021_39132_a_document_that_runs(daemon, canary):
    assert not canary.exists()
    assert "settings/attack.yaml" in json.dumps(daemon.client.sync())


def test_rundeck_2023_47112_somebody_elses_things_by_their_id(daemon):
    limited = daemon.client.create_token("limited to nothing", ["admin"], flows=["nothing/*"])["token"]
    execution = daemon.run("echo")["id"]
    for method, tail in (
        ("GET", ""),
        ("GET", "/log"),
        ("GET", "/export"),
        ("POST", "/cancel"),
        ("POST", "/rerun"),
        ("DELETE", ""),
    ):
        assert ask(daemon, method, f"/api/v1/executions/{execution}{tail}", limited).status in (403, 404)
    assert ask(daemon, "GET", "/api/v1/webhooks", limited).status == 403


def test_airflow_2020_13927_an_api_that_is_open_until_somebody_closes_it(daemon):
    for path in (
        "/api/v1/flows",
        "/api/v1/executions",
        "/api/v1/settings",
        "/api/v1/sync",
        "/metrics",
        "/api/v1/audit",
    ):
        assert ask(daemon, "GET", path).status == 401
    assert daemon.url.startswith("http://127.0.0.1:")


def test_airflow_2024_39877_a_documentation_that_is_a_template(daemon):
    page = Browser(daemon.url).logged_in(daemon.token()).get("/flows/templated")
    assert "{{ 7 * 7 }}" in page and ">49" not in page
    assert daemon.client.flow("templated")["description"].startswith("{{ 7 * 7 }}")


def test_airflow_2025_54831_a_secret_that_readers_see(daemon, viewer):
    daemon.client.keep("webhooks", "secretive", {"flow_name": "echo", "auth": "key", "secret": "canary-of-p26"})
    daemon.client.keep("connections", "secretive", {"connection_type": "REST", "value": {"password": "canary-of-p26"}})
    for path in ("webhooks", "webhooks/secretive", "connections", "connections/secretive"):
        for token in (viewer, daemon.token()):
            assert b"canary-of-p26" not in ask(daemon, "GET", f"/api/v1/{path}", token).body


def test_airflow_2020_17511_a_key_that_all_have_and_a_password_on_the_command_line(daemon, tmp_path):
    (tmp_path / "flows").mkdir()
    other = Daemon(tmp_path / "s", tmp_path / "flows")
    other.start()
    try:
        assert other.token() != daemon.token() and len(other.token()) > 40
        assert other.client.flows() == []  # no examples
        for file in ("cmdline", "environ"):
            assert other.token().encode() not in Path(f"/proc/{other.pid}/{file}").read_bytes()
    finally:
        assert other.stop() == 0


@pytest.mark.parametrize("key", ["__proto__", "constructor", "__class__", "__init__"])
def test_node_red_2021_21297_a_key_that_changes_what_all_objects_are(daemon, key):
    polluted = {"value": {key: {"admin": True}}}
    assert ask(daemon, "PUT", "/api/v1/settings/polluted", daemon.token(), body=polluted).status in (200, 201)
    assert daemon.client.kept_one("settings", "polluted")["value"] == polluted["value"]
    assert ask(daemon, "PUT", "/api/v1/settings/polluted", daemon.token(), body={key: {}}).status == 400
    assert ask(daemon, "GET", "/api/v1/me").status == 401


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked",
        b"Content-Length: 4\r\nContent-Length: 5",
        b"Content-Length: +4",
        b"Content-Length : 4",
        b"Transfer-Encoding: chunked, identity",
        b"X: 1\r\n folded",
    ],
)
def test_aiohttp_2025_69224_a_request_that_two_read_differently(daemon, head):
    assert tuple(map(int, aiohttp.__version__.split(".")[:3])) >= (3, 14, 5)
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy
    with socket.create_connection(("127.0.0.1", int(daemon.url.rpartition(":")[2])), 10) as connection:
        connection.sendall(b"POST /webhook/open HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\nabcd")
        assert connection.recv(100)[8:13] == b" 400 "


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% x", "https://x/${HOME}", "https://x/$HOME", "--upload-pack=x", "fd::17"]
)
def test_gitpython_2022_24439_an_address_that_runs_or_is_read_anew(url, monkeypatch):
    assert tuple(map(int, metadata.version("gitpython").split(".")[:2])) >= (3, 1)
    monkeypatch.setenv("HOME", "/expanded")
    try:
        assert "/expanded" not in sync_git.checked_url(url)
    except errors.HeadraceError:
        return
    with pytest.raises(git.GitCommandError):
        git.Git().ls_remote("--", url)


def test_the_table_of_these_is_complete():
    named = {
        name
        for name in vars(sys.modules[__name__])
        if name.startswith("test_") and name != "test_the_table_of_these_is_complete"
    }
    assert len(named) >= 28
