"""AZURE and GOOGLE, with services made from their public descriptions."""

from __future__ import annotations

import json
import subprocess

import pytest
from aiohttp import web
from joserfc import jwk, jwt

from headrace.engine import errors

SECRET = "hush-hush-client-secret"


class Cloud:
    """Gives tokens, describes an API, and lets in only whom it gave a token to."""

    def __init__(self) -> None:
        self.url = ""
        self.given = 0
        self.good: set[str] = set()
        self.forms: list[dict] = []
        self.asked: list[tuple[str, str, dict, object]] = []
        self.status = 200

    async def handler(self, request: web.Request) -> web.Response:
        if request.path.endswith("/token"):
            return self._token(dict(await request.post()))
        if request.path == "/discovery/shop/v1/rest":
            return web.json_response(self._described())
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.good:
            return web.json_response({"error": "who are you?"}, status=401)
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.raw_path.partition("?")[0], dict(request.query), body))
        return web.json_response({"ok": True}, status=self.status)

    def _token(self, form: dict) -> web.Response:
        self.forms.append(form)
        if form.get("client_secret", SECRET) != SECRET:
            return web.json_response({"error_description": f"wrong: {form['client_secret']}"}, status=401)
        self.given += 1
        token = f"token-number-{self.given}"
        self.good.add(token)
        return web.json_response({"access_token": token, "expires_in": 3600})

    def _described(self) -> dict:
        name = {"type": "string", "location": "path", "required": True}
        methods = {
            "get": {"path": "v1/items/{id}", "httpMethod": "GET", "parameters": {"id": name, "view": {}}},
            "move": {"path": "v1/{+name}:move", "httpMethod": "POST", "parameters": {"name": name}},
        }
        resources = {"shops": {"resources": {"items": {"methods": methods}}}}
        return {"baseUrl": f"{self.url}/api/", "parameters": {"fields": {}}, "resources": resources}


@pytest.fixture
async def cloud(serve):
    made = Cloud()
    made.url = await serve(made.handler)
    return made


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


@pytest.fixture
def azure(call, cloud):
    async def run(path, **inputs):
        who = {"tenant_id": "t.example", "client_id": "me", "client_secret": SECRET}
        where = {"url": cloud.url, "login_url": cloud.url, "scope": "https://x/.default", "retry_backoff": False}
        return await call("AZURE", **{**who, **where, "path": path, **inputs})

    return run


async def test_azure_is_called_with_a_token_that_is_kept(azure, cloud, context):
    output = await azure("/subscriptions", api_version="2022-12-01", params={"$top": 3})
    assert output["json"] == {"ok": True} and output["status_code"] == 200
    await azure("/x", method="put", json={"a": 1})
    assert cloud.asked == [
        ("GET", "/subscriptions", {"api-version": "2022-12-01", "$top": "3"}, None),
        ("PUT", "/x", {}, {"a": 1}),
    ]
    assert cloud.forms == [
        {"grant_type": "client_credentials", "client_id": "me", "client_secret": SECRET, "scope": "https://x/.default"}
    ]
    assert {SECRET, "token-number-1"} <= set(context.hidden)


async def test_azure_gets_a_new_token_for_one_that_was_revoked(azure, cloud):
    await azure("/x")
    cloud.good.clear()
    await azure("/x")
    assert cloud.given == 2
    await azure("/x", client_id="somebody else")
    assert cloud.given == 3


async def test_azure_tells_what_is_wrong(azure, cloud, context):
    said = await _failure(azure("/x", client_secret="not-the-secret"))
    assert "/t.example/oauth2/v2.0/token: status 401" in said and "not-the-secret" in context.hidden
    cloud.status = 409
    assert "status 409" in await _failure(azure("/x"))


@pytest.fixture(scope="module")
def private_key(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("google") / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True)
    return path.read_text()


@pytest.fixture
def google(call, cloud, private_key):
    async def run(request, **inputs):
        key = {"client_email": "me@x", "private_key": private_key, "token_uri": f"{cloud.url}/token", "type": "y"}
        what = {"api_name": "shop", "api_version": "v1", "collection": "shops.items", "request": request, "key": key}
        where = {"discovery_url": f"{cloud.url}/discovery", "retry_backoff": False}
        return await call("GOOGLE", **{**what, **where, **inputs})

    return run


async def test_google_is_called_as_its_documents_say(google, cloud, private_key):
    output = await google("get", params={"id": "a/b ü", "view": "all", "fields": "x"}, scopes=["s1", "s2"])
    assert output["result"] == {"ok": True}
    await google("move", params={"name": "shops/1/items/2", "body": {"to": 3}}, scopes=["s1", "s2"])
    assert cloud.asked == [
        ("GET", "/api/v1/items/a%2Fb%20%C3%BC", {"view": "all", "fields": "x"}, None),
        ("POST", "/api/v1/shops/1/items/2:move", {}, {"to": 3}),
    ]
    (form,) = cloud.forms
    claims = jwt.decode(form["assertion"], jwk.RSAKey.import_key(private_key)).claims
    assert (claims["iss"], claims["scope"], claims["aud"]) == ("me@x", "s1 s2", f"{cloud.url}/token")


async def test_google_tells_what_is_wrong(google, cloud):
    cloud.status = 404
    assert (await _failure(google("get", params={"id": "1"}))).startswith("HttpError 404: GET ")
    assert await _failure(google("sell")) == "shop v1 has no method shops.items.sell"
    assert await _failure(google("get")) == "shops.items.get needs the parameter id"
    assert await _failure(google("get", params={"id": 1, "x": 2})) == "shops.items.get has no parameter x"
    key = {"client_email": "me@x", "private_key": "nonsense", "token_uri": f"{cloud.url}/token"}
    assert await _failure(google("get", params={"id": 1}, key=key)) == "the private key in 'key' cannot be used"


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("AZURE", {"path": "x"}, "cannot use the input 'path': expected a path that begins with /"),
        ("AZURE", {"tenant_id": "a/b"}, "cannot use the input 'tenant_id': expected an id or a domain"),
        ("AZURE", {"login_url": "x"}, "cannot use the input 'login_url': expected an address with http or https"),
        (
            "GOOGLE",
            {"key": "hush-hush"},
            "cannot use the input 'key': expected the key of a service account, as the JSON file that Google gives",
        ),
        ("GOOGLE", {"api_name": "../x"}, "cannot use the input 'api_name': expected a name as in Google's reference"),
    ],
)
def test_inputs_that_cannot_be_used(tasks, name, inputs, message):
    azure = {"tenant_id": "t", "client_id": "c", "client_secret": "s", "path": "/x"}
    google = {"api_name": "a", "api_version": "v1", "collection": "c", "request": "r"}
    google["key"] = {"client_email": "m", "private_key": "p"}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare(name, json.dumps({**(azure if name == "AZURE" else google), **inputs}).encode())
    assert refused.value.message == f"{name} {message}"
