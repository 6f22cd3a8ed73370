"""K8S: look at objects of a Kubernetes cluster, and change them.

What kinds there are is asked of the cluster, so those of its own resource definitions work like all others.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import k8s_access, rest, web_service
from .definition import invalid, missing
from .host import about

TASK = "K8S"
_PAGE = 500
Command = Literal["get", "list", "create", "apply", "patch", "delete", "scale", "logs"]
READING = frozenset({"get", "list", "logs"})


class K8sInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of K8S."""

    kubeconfig: Annotated[str | None, about("How to get in, as the text of a kubeconfig; or url and token.")] = None
    context: Annotated[str | None, about("Which context of the kubeconfig. Default: its current one.")] = None
    url: Annotated[str | None, about("The address of the cluster's API.")] = None
    token: Annotated[str | None, about("A token, such as that of a service account.")] = None
    command: Annotated[Command, about("What to do; apply makes an object what the manifest says. Default: get.")] = (
        "get"
    )
    namespace: Annotated[str | None, about("Default: that of the manifest, of the kubeconfig, or default.")] = None
    api_version: Annotated[str, about("Of which API, such as apps/v1. Default: v1.")] = "v1"
    kind: Annotated[str | None, about("The kind of object, such as Deployment. For logs: Pod.")] = None
    name: Annotated[str | None, about("The object's name.")] = None
    manifest: Annotated[dict[str, Any] | None, about("For create and apply: the object, with apiVersion and kind.")] = (
        None
    )
    changes: Annotated[dict[str, Any] | None, about("For patch: what to merge into the object.")] = None
    replicas: Annotated[Annotated[int, msgspec.Meta(ge=0)] | None, about("For scale: how many.")] = None
    force: Annotated[bool, about("For apply: take fields over that somebody else manages. Default: false.")] = False
    labels: Annotated[str | None, about("For list: a selector of labels, such as app=web.")] = None
    container: Annotated[str | None, about("For logs: which container, where there are several.")] = None
    tail_lines: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, about("For logs: only so many of the last lines.")
    ] = None
    max_objects: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="For list: more than that are a failure. Default: 10000.")
    ] = 10_000

    @property
    def access(self) -> k8s_access.Access:
        """How to get in; raises ``ValueError``."""
        if self.kubeconfig is not None:
            return k8s_access.parsed(self.kubeconfig, self.context)
        return k8s_access.Access(
            url=self.url or "",
            token=self.token,
            cacert=self.cacert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            verify_ssl=self.verify_ssl,
        )


class K8sOutput(msgspec.Struct, kw_only=True):
    """The output of K8S."""

    object: Any = None  #: the object as it is now
    objects: Any = msgspec.UNSET  #: with list
    text: str | msgspec.UnsetType = msgspec.UNSET  #: with logs


def _check(inputs: K8sInputs) -> None:
    if inputs.kubeconfig is None and inputs.url is None:
        raise missing(TASK, "kubeconfig", "how to get in (or 'url' and 'token')")
    if inputs.kubeconfig is not None and (inputs.url is not None or inputs.token is not None):
        raise invalid(TASK, "kubeconfig", "there is a 'url' or 'token' already; give one of them")
    name = "url" if inputs.kubeconfig is None else "kubeconfig"
    try:
        access = inputs.access
    except ValueError as problem:
        raise invalid(TASK, name, str(problem)) from None
    web_service.check(TASK, _secured(inputs, access), access.url, name)
    needed = {"create": "manifest", "apply": "manifest", "patch": "changes", "scale": "replicas"}.get(inputs.command)
    if needed is not None and getattr(inputs, needed) is None:
        raise missing(TASK, needed, f"{inputs.command} needs it")
    if inputs.manifest is None:
        for wanted in ("kind",) if inputs.command == "list" else ("kind", "name"):
            if getattr(inputs, wanted) is None and (wanted, inputs.command) != ("kind", "logs"):
                raise missing(TASK, wanted, f"{inputs.command} needs it")
    elif not all(isinstance(inputs.manifest.get(one), str) for one in ("apiVersion", "kind")):
        raise invalid(TASK, "manifest", "expected an object with apiVersion and kind")
    for one in ("name", "namespace", "api_version"):
        if set((getattr(inputs, one) or "").split("/")) & {".", ".."} or "%" in (getattr(inputs, one) or ""):
            raise invalid(TASK, one, "expected a name of Kubernetes")


def _secured(inputs: K8sInputs, access: k8s_access.Access) -> K8sInputs:
    own = {name: getattr(access, name) for name in ("cacert", "client_cert", "client_key", "verify_ssl", "token")}
    return msgspec.structs.replace(inputs, **own)


class _Cluster:
    """One task's calls of a cluster."""

    def __init__(self, service: web_service.Service, inputs: K8sInputs, context: ports.TaskContext) -> None:
        self._service = service
        self._access = inputs.access
        self._inputs = _secured(inputs, self._access)
        self._context = context
        context.hide(self._access.client_key or "")

    async def _call(
        self, method: str, path: str, content_type: str = "application/json", **asked: Any
    ) -> rest.RestOutput:
        headers = {"Accept": "application/json, */*"}
        if self._access.token is not None:
            headers["Authorization"] = f"Bearer {self._access.token}"
        if "json" in asked:
            headers["Content-Type"] = content_type
        url = self._access.url.rstrip("/") + path
        return await self._service.call(self._inputs, self._context, url, method=method, headers=headers, **asked)

    async def run(self) -> K8sOutput:
        inputs, manifest = self._inputs, self._inputs.manifest or {}
        described = manifest.get("metadata") or {}
        api_version = manifest.get("apiVersion") or inputs.api_version
        kind = manifest.get("kind") or inputs.kind or "Pod"
        namespace = inputs.namespace or described.get("namespace") or self._access.namespace
        folder = await self._folder(api_version, kind, namespace)
        name = inputs.name or described.get("name")
        one = f"{folder}/{name}"
        match inputs.command:
            case "list":
                return await self._listed(folder)
            case "get":
                answer = await self._call("get", one)
            case "create":
                answer = await self._call("post", folder, json=manifest)
            case "apply":
                if not isinstance(name, str):
                    raise errors.TaskFailed("the manifest has no metadata.name")
                params = {"fieldManager": "headrace", "force": str(inputs.force).lower()}
                kind_of_patch = "application/apply-patch+yaml"  # JSON is YAML
                answer = await self._call("patch", one, kind_of_patch, params=params, json=manifest)
            case "patch":
                answer = await self._call("patch", one, "application/merge-patch+json", json=inputs.changes)
            case "delete":
                answer = await self._call("delete", one, params={"propagationPolicy": "Background"})
            case "scale":
                changes = {"spec": {"replicas": inputs.replicas}}
                answer = await self._call("patch", f"{one}/scale", "application/merge-patch+json", json=changes)
            case "logs":
                asked: dict[str, Any] = {"container": inputs.container, "tailLines": inputs.tail_lines}
                params = {key: value for key, value in asked.items() if value is not None}
                answer = await self._call("get", f"{one}/log", params=params)
                return K8sOutput(text=answer.text)
        return K8sOutput(object=answer.json)

    async def _folder(self, api_version: str, kind: str, namespace: str) -> str:
        """Return the path of a kind's objects, which the cluster knows."""
        base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        answer = await self._call("get", base)
        resources = answer.json.get("resources") if isinstance(answer.json, dict) else None
        if not isinstance(resources, list):
            raise web_service.unexpected("Kubernetes", answer)
        for one in resources:
            if isinstance(one, dict) and one.get("kind") == kind and "/" not in str(one.get("name", "/")):
                return (
                    f"{base}/namespaces/{namespace}/{one['name']}" if one.get("namespaced") else f"{base}/{one['name']}"
                )
        raise errors.TaskFailed(f"the cluster knows no {kind} in {api_version}")

    async def _listed(self, folder: str) -> K8sOutput:
        found: list[msgspec.Raw] = []
        total, more = 0, ""
        while True:
            asked: dict[str, Any] = {"limit": _PAGE, "continue": more or None, "labelSelector": self._inputs.labels}
            params = {key: value for key, value in asked.items() if value is not None}
            answer = await self._call("get", folder, params=params)
            items = answer.json.get("items") if isinstance(answer.json, dict) else None
            if not isinstance(items, list):
                raise web_service.unexpected("Kubernetes", answer)
            for item in items:
                found.append(msgspec.Raw(values.encode(item, "an object")))
                total += len(bytes(found[-1])) + 1
            if len(found) > self._inputs.max_objects or total > values.VALUE_BYTES_MAX:
                raise errors.TaskFailed(
                    f"there are more than {self._inputs.max_objects:,} objects, or {values.VALUE_BYTES_MAX >> 20} MiB "
                    "of them: give a selector, or a larger max_objects"
                )
            more = (answer.json.get("metadata") or {}).get("continue") or ""
            if not more or not items:
                return K8sOutput(objects=found)


async def _run(service: web_service.Service, inputs: K8sInputs, context: ports.TaskContext) -> K8sOutput:
    return await _Cluster(service, inputs, context).run()


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[K8sInputs]:
    """Return the task type K8S."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Look at objects of Kubernetes, and change them",
        description="One object, or the list of a kind.",
        inputs=K8sInputs,
        output=K8sOutput,
        run=functools.partial(_run, service),
        idempotent=lambda inputs: inputs.command in READING,
        check=_check,
        aliases=("KUBERNETES",),
        secret_inputs=frozenset({"kubeconfig"}),
        close=service.connections.aclose,
    )
