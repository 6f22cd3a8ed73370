"""K8S, with a cluster's API made from its public description."""

from __future__ import annotations

import base64
import json

import pytest
import yaml
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import k8s

TOKEN = "hush-hush-token"


class Cluster:
    """Keeps objects by path, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, dict] = {}
        self.asked: list[tuple[str, str, dict, str]] = []

    async def handler(self, request: web.Request) -> web.Response:
        path, text = request.path, await request.text()
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._said(401, "Unauthorized")
        if path in ("/api/v1", "/apis/apps/v1"):
            names = {"/api/v1": [("pods", "Pod", True), ("nodes", "Node", False)]}
            known = names.get(path, [("deployments/scale", "Scale", True), ("deployments", "Deployment", True)])
            found = [{"name": name, "kind": kind, "namespaced": inside} for name, kind, inside in known]
            return web.json_response({"resources": found})
        self.asked.append((request.method, path, dict(request.query), request.content_type if text else ""))
        match request.method:
            case "GET" if path.endswith("/log"):
                return web.Response(text="line ü\n")
            case "GET" if path in self.objects:
                return web.json_response(self.objects[path])
            case "GET" if path.count("/") % 2 == 0 or path.endswith("/nodes"):
                return self._listed(path, request.query)
            case "POST":
                return self._stored(f"{path}/{json.loads(text)['metadata']['name']}", json.loads(text))
            case "PATCH":
                return self._stored(path, {**self.objects.get(path, {}), **json.loads(text)})
            case "DELETE" if path in self.objects:
                return web.json_response(self.objects.pop(path))
        return self._said(404, "not found")

    def _listed(self, path: str, query) -> web.Response:
        every = [one for place, one in self.objects.items() if place.rpartition("/")[0] == path]
        start, size = int(query.get("continue", 0)), int(query["limit"])
        more = {"continue": str(start + size)} if start + size < len(every) else {}
        return web.json_response({"items": every[start : start + size], "metadata": more})

    def _stored(self, path: str, value: dict) -> web.Response:
        self.objects[path] = value
        return web.json_response(value, status=201)

    def _said(self, status: int, words: str) -> web.Response:
        return web.json_response({"kind": "Status", "message": words}, status=status)


@pytest.fixture
async def cluster(serve):
    made = Cluster()
    made.url = await serve(made.handler)
    return made


@pytest.fixture
def kube(call, cluster):
    async def run(command, **inputs):
        given = {"url": cluster.url, "token": TOKEN, "command": command, "retry_backoff": False, **inputs}
        return await call("K8S", **given)

    return run


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


WEB = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}}
PLACE = "/apis/apps/v1/namespaces/shop/deployments"
ONE = {"api_version": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"}


async def test_objects_are_made_changed_seen_and_deleted(kube, cluster):
    assert (await kube("create", manifest=WEB))["object"] == WEB
    await kube("apply", manifest=WEB, force=True)
    await kube("patch", **ONE, changes={"spec": {"paused": True}})
    await kube("scale", **ONE, replicas=3)
    assert (await kube("get", **ONE))["object"]["spec"] == {"paused": True}
    await kube("delete", **ONE)
    assert "status 404" in await _failure(kube("get", **ONE))
    assert cluster.asked[:6] == [
        ("POST", PLACE, {}, "application/json"),
        ("PATCH", f"{PLACE}/web", {"fieldManager": "headrace", "force": "true"}, "application/apply-patch+yaml"),
        ("PATCH", f"{PLACE}/web", {}, "application/merge-patch+json"),
        ("PATCH", f"{PLACE}/web/scale", {}, "application/merge-patch+json"),
        ("GET", f"{PLACE}/web", {}, ""),
        ("DELETE", f"{PLACE}/web", {"propagationPolicy": "Background"}, ""),
    ]


async def test_lists_come_page_by_page_within_a_bound(kube, cluster, monkeypatch):
    monkeypatch.setattr(k8s, "_PAGE", 2)
    for number in range(5):
        cluster.objects[f"/api/v1/nodes/n{number}"] = {"metadata": {"name": f"n{number}"}}
    found = (await kube("list", kind="Node", labels="a=b"))["objects"]
    assert [one["metadata"]["name"] for one in found] == [f"n{number}" for number in range(5)]
    assert cluster.asked[0][2] == {"limit": "2", "labelSelector": "a=b"}
    assert "more than 3 objects" in await _failure(kube("list", kind="Node", max_objects=3))


async def test_logs_are_text(kube, cluster):
    assert (await kube("logs", name="p", container="c", tail_lines=5))["text"] == "line ü\n"
    assert cluster.asked == [("GET", "/api/v1/namespaces/default/pods/p/log", {"container": "c", "tailLines": "5"}, "")]


def _config(url: str, user: dict, **cluster) -> str:
    return yaml.safe_dump(
        {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
            "users": [{"name": "u", "user": user}],
        }
    )


async def test_a_kubeconfig_says_how_to_get_in(call, cluster):
    config = _config(cluster.url, {"token": TOKEN})
    await call("K8S", kubeconfig=config, command="logs", name="p")
    assert cluster.asked[0][1] == "/api/v1/namespaces/shop/pods/p/log"


async def test_certificates_of_a_kubeconfig_are_used(call, serve, certs):
    made = Cluster()
    url = await serve(made.handler, tls=certs.server_context(wants_client=True))
    data = {
        name: base64.b64encode(certs.text(name).encode()).decode() for name in ("ca.crt", "client.crt", "client.key")
    }
    user = {"token": TOKEN, "client-certificate-data": data["client.crt"], "client-key-data": data["client.key"]}
    config = _config(url, user, **{"certificate-authority-data": data["ca.crt"]})
    await call("K8S", kubeconfig=config, command="logs", name="p")
    said = await _failure(call("K8S", kubeconfig=_config(url, user), command="logs", name="p", retry_backoff=False))
    assert "is not trusted" in said


async def test_what_is_wrong_is_told_without_the_token(kube, context):
    said = await _failure(kube("get", **ONE, token="not-the-token"))
    assert "status 401" in said and "not-the-token" not in said and "not-the-token" in context.hidden
    assert await _failure(kube("get", kind="Nonsense", name="x")) == "the cluster knows no Nonsense in v1"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs the input 'kubeconfig': how to get in (or 'url' and 'token')"),
        ({"url": "http://x"}, "needs the input 'kind': get needs it"),
        ({"url": "http://x", "command": "apply"}, "needs the input 'manifest': apply needs it"),
        (
            {"url": "http://x", "command": "apply", "manifest": {}},
            "cannot use the input 'manifest': expected an object with apiVersion and kind",
        ),
        ({"kubeconfig": "{"}, "cannot use the input 'kubeconfig': it is not YAML"),
        ({"kubeconfig": "{}"}, "cannot use the input 'kubeconfig': it has nothing called None among its contexts"),
        (
            {"kubeconfig": _config("https://x", {"exec": {"command": "sh"}})},
            "cannot use the input 'kubeconfig': it names a program: give 'url' and 'token'",
        ),
        (
            {"kubeconfig": _config("https://x", {"tokenFile": "/etc/shadow"})},
            "cannot use the input 'kubeconfig': it names a file: give one with the data inside (kubectl config view "
            "--flatten)",
        ),
        (
            {"url": "http://x", "kind": "Pod", "name": "../x"},
            "cannot use the input 'name': expected a name of Kubernetes",
        ),
    ],
    ids=range(9),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("KUBERNETES", json.dumps(inputs).encode())
    assert refused.value.message == f"K8S {message}"
