"""People whom somebody else recognises: an OpenID provider, a proxy in front; and the names the daemon answers to."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.support import identity_provider
from tests.support.browser import Browser
from tests.support.daemons import Daemon
from tests.support.front_door import a_new_address, ask

ASKS = "def handler(system, this):\n    return this.success()\n"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def provider():
    with identity_provider.running() as provider:
        yield provider


def started(home, environment):
    (home / "flows").mkdir()
    (home / "flows" / "asks.py").write_text(ASKS)
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment.update(environment)
    daemon.start()
    return daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, provider):
    home = tmp_path_factory.mktemp("oidc")
    (home / "secret").write_text(identity_provider.SECRET + "\n")
    setting = {
        "issuer": provider.issuer,
        "client_id": identity_provider.CLIENT,
        "client_secret_file": str(home / "secret"),
        "url": "http://localhost",
        "roles": {"ops": "operator", "boss": "admin"},
    }
    daemon = started(home, {"HEADRACE_ACCESS__OIDC": json.dumps(setting)})
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture(autouse=True)
def good_provider(provider):
    provider.claims = {"sub": "u1", "preferred_username": "ada", "groups": ["ops"]}
    provider.user_info = {"sub": "somebody else", "preferred_username": "eve", "groups": ["boss"]}
    provider.is_down, provider.spoil = False, lambda answer: answer


class Visitor(Browser):
    """A browser that stops at redirects to elsewhere, and tells where it would go."""

    def __init__(self, url):
        super().__init__(url, _Stop())

    def visit(self, path="/login/oidc"):
        """Go to the login; returns the provider's address."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            self._opener.open(urllib.request.Request(self.url + path, headers={"Accept": "text/html"}))
        with caught.value as answer:
            return answer.headers["Location"]

    def come_back(self, address):
        """Come back from there; returns status and page."""
        parts = urllib.parse.urlsplit(address)
        return self.send(f"{parts.path}?{parts.query}")


class _Stop(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, address):
        if urllib.parse.urlsplit(address).netloc != urllib.parse.urlsplit(request.full_url).netloc:
            return None
        return super().redirect_request(request, file, code, message, headers, address)


def logged_in(daemon, provider):
    visitor = Visitor(daemon.url)
    status, page = visitor.come_back(provider.authorize(visitor.visit()))
    assert status == 200, page
    return visitor, page


def test_somebody_logs_in_at_the_provider_and_may_do_what_their_group_may(daemon, provider):
    visitor = Visitor(daemon.url)
    assert 'href="/login/oidc?next=/"' in visitor.get("/login")
    status, page = visitor.come_back(provider.authorize(visitor.visit("/login/oidc?next=/executions")))
    assert status == 200 and "ada" in page and 'href="/executions"' in page
    assert "asks" in visitor.get("/")
    visitor.submit(visitor.get("/flows/asks"), {"inputs": "{}"})
    assert daemon.client.executions(flow="asks", limit=1)["items"][0]["created_by"] == "ada"
    assert json.loads(visitor.send("/api/v1/me")[1]) == {"name": "ada", "scopes": ["read", "run"], "flows": []}
    assert visitor.send("/api/v1/tokens")[0] == 403
    (line,) = [one for one in daemon.client.audit(limit=5) if one["what"] == "GET /login/oidc/callback"]
    assert (line["who"], line["status"]) == ("ada", 200)
    assert "code=" not in line["target"]
    said = daemon.log.read_text()
    assert identity_provider.SECRET not in said and "code=" not in said


def test_a_session_outlives_an_outage_of_the_provider_and_nobody_new_gets_in(daemon, provider):
    visitor, _ = logged_in(daemon, provider)
    provider.is_down = True
    assert "asks" in visitor.get("/")
    late = Visitor(daemon.url)
    status, page = late.come_back(provider.authorize(late.visit()))
    assert status == 401 and "answered 503" in page
    assert "Token" in late.get("/login")


def test_the_userinfo_counts_where_the_token_says_too_little_and_both_speak_of_the_same(daemon, provider):
    provider.claims = {"sub": "u1"}
    visitor = Visitor(daemon.url)
    assert visitor.come_back(provider.authorize(visitor.visit()))[0] == 401
    provider.user_info = {"sub": "u1", "preferred_username": "bob", "groups": ["ops"]}
    assert "bob" in logged_in(daemon, provider)[1]


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"groups": []}, 403, "none of their groups has a role"),
        ({"groups": ["OPS", "ops ", "*"]}, 403, "none of their groups"),
        ({"groups": {"ops": 1}}, 403, "none of their groups"),
        ({"groups": None}, 403, "none of their groups"),
        ({"preferred_username": None}, 401, "did not say what you are called"),
        ({"preferred_username": " "}, 401, "did not say"),
        ({"preferred_username": "a\nb"}, 401, "did not say"),
        ({"preferred_username": ["ada"]}, 401, "did not say"),
        ({"iss": "https://evil.example"}, 401, "another issuer"),
        ({"aud": "other"}, 401, "for somebody else"),
        ({"nonce": "another"}, 401, "not made for this login"),
        ({"exp": 1}, 401, "expired"),
    ],
)
def test_who_has_no_role_or_a_token_that_is_not_good_does_not_get_in(daemon, provider, claims, status, words):
    provider.claims = provider.claims | claims
    spoilt, provider.spoil = provider.spoil, lambda answer: answer
    if "nonce" in claims:
        provider.spoil = lambda answer: answer | {"id_token": provider.token(nonce="another")}
    visitor = Visitor(daemon.url)
    found, page = visitor.come_back(provider.authorize(visitor.visit()))
    provider.spoil = spoilt
    assert found == status and words in page
    assert visitor.send("/api/v1/me")[0] == 200 and "Log in" in visitor.get("/api/v1/me")


def test_a_login_that_was_not_begun_here_or_was_used_before_is_refused(daemon, provider):
    visitor, other = Visitor(daemon.url), Visitor(daemon.url)
    back = provider.authorize(visitor.visit())
    other.visit()
    assert other.come_back(back)[0] == 401  # a link that would log somebody in as somebody else
    assert visitor.come_back(back.replace("state=", "state=x"))[0] == 401
    visitor = Visitor(daemon.url)
    back = provider.authorize(visitor.visit())
    assert visitor.come_back(back)[0] == 200
    assert Visitor(daemon.url).come_back(back)[0] == 401
    again = Visitor(daemon.url)
    address = again.visit()
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)["state"][0]
    assert again.come_back(f"/login/oidc/callback?error=access_denied&state={state}")[0] == 401
    for query in ("", "?code=x", "?state=", f"?code=x&state={state}", "?code=x&state=x&iss=https://evil.example"):
        assert Visitor(daemon.url).come_back(f"http://x/login/oidc/callback{query}")[0] == 401


def test_an_answer_of_another_provider_is_refused(daemon, provider):
    visitor = Visitor(daemon.url)
    back = provider.authorize(visitor.visit())
    assert visitor.come_back(back + "&iss=https://evil.example")[0] == 401


@pytest.mark.parametrize(
    "next_page", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_sent_elsewhere_after_the_login(daemon, provider, next_page):
    visitor = Visitor(daemon.url)
    back = provider.authorize(visitor.visit("/login/oidc?next=" + urllib.parse.quote(next_page, safe="")))
    status, page = visitor.come_back(back)
    assert status == 200 and 'href="/"' in page and "evil" not in page


# -- a proxy in front -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    setting = {
        "networks": ["127.0.0.1/32"],
        "hosts": ["flows.example"],
        "user_header": "X-User",
        "groups_header": "X-Groups",
        "roles": {"ops": "operator", "boss": "admin"},
    }
    environment = {"HEADRACE_LISTEN__BEHIND_PROXY": "true", "HEADRACE_ACCESS__PROXY": json.dumps(setting)}
    daemon = started(tmp_path_factory.mktemp("proxy"), environment)
    yield daemon
    assert daemon.stop() == 0


ADA = {"X-User": "ada", "X-Groups": "staff, ops", "Host": "flows.example"}


def test_whom_the_proxy_recognised_may_do_what_their_group_may(proxied):
    me = ask(proxied, "GET", "/api/v1/me", headers=ADA)
    assert me.json == {"name": "ada", "scopes": ["read", "run"], "flows": []}
    assert ask(proxied, "GET", "/api/v1/tokens", headers=ADA).status == 403
    assert ask(proxied, "GET", "/api/v1/tokens", headers=ADA | {"X-Groups": "boss"}).status == 200
    assert ask(proxied, "GET", "/api/v1/me", headers=ADA | {"X-Groups": "staff"}).status == 403
    assert ask(proxied, "GET", "/api/v1/me", headers=ADA | {"X-User": " "}).status == 403


def test_what_anybody_else_says_of_themselves_does_not_count(proxied):
    stranger = "127.0.0.9"
    assert ask(proxied, "GET", "/api/v1/me", headers=ADA, origin=stranger).status == 401
    forwarded = ADA | {"X-Forwarded-For": "127.0.0.1"}
    assert ask(proxied, "GET", "/api/v1/me", headers=forwarded, origin=stranger).status == 401
    assert '"access.header_ignored"' in proxied.log.read_text()


def test_a_change_in_the_name_of_whom_the_proxy_recognised_has_to_come_from_a_page_of_ours(proxied):
    run = "/flows/asks/run"
    page = ask(proxied, "GET", "/flows/asks", headers=ADA | {"Accept": "text/html"}).body.decode()
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', page)[1]
    body = urllib.parse.urlencode({"inputs": "{}", "form_token": token}).encode()
    bare = urllib.parse.urlencode({"inputs": "{}"}).encode()
    evil = ADA | FORM | {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert ask(proxied, "POST", run, body=bare, headers=ADA | FORM).status == 403
    assert ask(proxied, "POST", run, body=body, headers=evil).status == 403
    assert ask(proxied, "POST", run, body=body, headers=ADA | FORM | {"X-User": "eve"}).status == 403
    assert ask(proxied, "POST", "/api/v1/flows/asks/run", body={}, headers=ADA).status == 403
    assert ask(proxied, "POST", run, body=body, headers=ADA | FORM).status == 303
    assert proxied.client.executions(flow="asks", limit=1)["items"][0]["created_by"] == "ada"


def test_the_address_of_a_sender_is_what_the_nearest_proxy_says(proxied):
    def origin(headers, source="127.0.0.1"):
        wrong = {"Authorization": "Bearer hr_wrong", "Host": "flows.example"} | headers
        assert ask(proxied, "POST", "/api/v1/sync", headers=wrong, origin=source).status in (401, 429)
        return proxied.client.audit(limit=1)[0]["origin"]

    assert origin({"X-Forwarded-For": "203.0.113.1, 203.0.113.7"}) == "203.0.113.7"
    assert origin({"X-Forwarded-For": "203.0.113.8, 127.0.0.1"}) == "203.0.113.8"
    mine = a_new_address()
    assert origin({"X-Forwarded-For": "203.0.113.9"}, mine) == mine


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "evil.example:8420",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1].evil.example",
        "0.0.0.0",
    ],
)
def test_under_a_name_that_is_none_of_ours_there_is_nothing(daemon, name):
    for path in ("/api/v1/flows", "/", "/login", "/openapi.json"):
        answer = ask(daemon, "GET", path, daemon.token(), headers={"Host": name})
        assert answer.status == 421 and answer.json["type"] == "urn:headrace:misdirected"
    assert ask(daemon, "GET", "/healthz", headers={"Host": name}).status == 200


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "[::1]:8420"])
def test_under_the_names_of_this_machine_it_is_there(daemon, name):
    assert ask(daemon, "GET", "/api/v1/flows", daemon.token(), headers={"Host": name}).status == 200


def test_behind_a_proxy_the_names_are_those_that_were_given(proxied):
    token = proxied.token()
    assert ask(proxied, "GET", "/api/v1/flows", token, headers={"Host": "Flows.Example:443"}).status == 200
    assert ask(proxied, "GET", "/api/v1/flows", token, headers={"Host": "flows.example.evil.example"}).status == 421


def test_a_target_that_contradicts_its_host_is_refused(daemon):
    port = daemon.url.rpartition(":")[2]
    ours, other = f"http://localhost:{port}/api/v1/flows", f"http://evil.example:{port}/api/v1/flows"
    host = {"Host": f"localhost:{port}"}
    assert ask(daemon, "GET", ours, daemon.token(), headers=host).status == 200
    assert ask(daemon, "GET", other, daemon.token(), headers=host).status == 421
