"""GOOGLE: call any method of any Google API, as a service account.

Google describes each of its APIs in a document; what is asked for is looked up there, so every method can be called
without a library of its own. Documents are kept for as long as the daemon runs.
"""

from __future__ import annotations

import re
import time
import urllib.parse
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports
from . import blocking, extras, rest, tokens, web_service
from . import definition as definitions
from .definition import invalid
from .host import about

TASK = "GOOGLE"
_DISCOVERY = "https://www.googleapis.com/discovery/v1/apis"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_HOUR_S = 3600
_DOCUMENTS_MAX = 50
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class ServiceAccount(msgspec.Struct, kw_only=True):
    """The key of a service account, as Google gives it out."""

    client_email: str
    private_key: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


class GoogleInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of GOOGLE."""

    api_name: Annotated[str, about("The API, such as drive.")]
    api_version: Annotated[str, about("Its version, such as v3.")]
    collection: Annotated[str, about("Whose method it is, such as files or projects.locations.")]
    request: Annotated[str, about("The method, such as list.")]
    params: Annotated[dict[str, Any] | None, about("Its parameters; body is sent as JSON.")] = None
    key: Annotated[str | dict[str, Any], about("The key of the service account, as the JSON file that Google gives.")]
    scopes: Annotated[
        list[str] | None, about("What may be done. Default: https://www.googleapis.com/auth/cloud-platform.")
    ] = None
    subject: Annotated[str | None, about("The user to act for, where the domain allows that.")] = None
    discovery_url: Annotated[str, about("Where APIs are described. Default: Google's directory.")] = _DISCOVERY

    @property
    def account(self) -> ServiceAccount | None:
        """The service account, or None if that is none."""
        try:
            if isinstance(self.key, str):
                return msgspec.json.decode(self.key, type=ServiceAccount)
            return msgspec.convert(self.key, ServiceAccount)
        except (msgspec.ValidationError, msgspec.DecodeError):
            return None


class GoogleOutput(msgspec.Struct, kw_only=True):
    """The output of GOOGLE."""

    result: Any = None  #: the answer


class Method(msgspec.Struct):
    """A method as the document describes it."""

    path: str
    http: str = msgspec.field(name="httpMethod", default="GET")
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


def _check(inputs: GoogleInputs) -> None:
    web_service.check(TASK, inputs, inputs.discovery_url, "discovery_url")
    for name in ("api_name", "api_version", "collection", "request"):
        if not _NAME.fullmatch(getattr(inputs, name)):
            raise invalid(TASK, name, "expected a name as in Google's reference")
    account = inputs.account
    if account is None:
        raise invalid(TASK, "key", "expected the key of a service account, as the JSON file that Google gives")
    web_service.check(TASK, inputs, account.token_uri, "key")


def _assertion(inputs: GoogleInputs, account: ServiceAccount) -> str:
    """Return what says that we are the account; signed, and good for an hour."""
    jwt = extras.require("joserfc.jwt", extra="google", task=TASK)
    jwk = extras.require("joserfc.jwk", extra="google", task=TASK)
    now = int(time.time())
    claims = {
        "iss": account.client_email,
        "scope": " ".join(inputs.scopes or [_SCOPE]),
        "aud": account.token_uri,
        "iat": now,
        "exp": now + _HOUR_S,
        **({"sub": inputs.subject} if inputs.subject is not None else {}),
    }
    try:
        key = jwk.RSAKey.import_key(account.private_key)
        return str(jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, key))
    except ValueError:
        raise errors.TaskFailed("the private key in 'key' cannot be used") from None


class _Google:
    """What calls Google: tokens, and documents of APIs."""

    def __init__(self, service: web_service.Service) -> None:
        self._service = service
        self._tokens = tokens.Tokens()
        self._documents: dict[str, dict[str, Any]] = {}

    async def run(self, inputs: GoogleInputs, context: ports.TaskContext) -> GoogleOutput:
        account = inputs.account
        assert account is not None, "it was checked"
        context.hide(account.private_key)
        document = await self._document(inputs, context)
        url, method, query = _described(document, inputs)
        token = await self._token(inputs, account, context)
        body = (inputs.params or {}).get("body")
        try:
            answer = await self._service.call(
                inputs,
                context,
                url,
                method=method.http.lower(),
                params=query,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
            )
        except errors.TaskFailed as failed:
            raise errors.TaskFailed(_named(failed.message), output=failed.output, kind=failed.kind) from None
        return GoogleOutput(result=answer.json if answer.json is not None else answer.text or None)

    async def _document(self, inputs: GoogleInputs, context: ports.TaskContext) -> dict[str, Any]:
        url = f"{inputs.discovery_url.rstrip('/')}/{inputs.api_name}/{inputs.api_version}/rest"
        if url not in self._documents:
            answer = await self._service.call(inputs, context, url, expected_status_code=200)
            if not isinstance(answer.json, dict):
                raise web_service.unexpected("Google's directory", answer)
            if len(self._documents) >= _DOCUMENTS_MAX:
                self._documents.clear()
            self._documents[url] = answer.json
        return self._documents[url]

    async def _token(self, inputs: GoogleInputs, account: ServiceAccount, context: ports.TaskContext) -> str:
        async def ask() -> rest.RestOutput:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": await blocking.call(_assertion, inputs, account),
            }
            backoff = True if inputs.retry_backoff is None else inputs.retry_backoff
            return await self._service.call(
                inputs, context, account.token_uri, method="post", urlencoded=form, retry_backoff=backoff
            )

        scopes = " ".join(inputs.scopes or [_SCOPE])
        who = (account.token_uri, account.client_email, account.private_key, scopes, inputs.subject or "")
        return await self._tokens.get(who, context, ask)


def _described(document: dict[str, Any], inputs: GoogleInputs) -> tuple[str, Method, dict[str, Any]]:
    """Return address, method and query of what is asked for; raises ``TaskFailed`` for what the API has not."""
    node: Any = document
    try:
        for part in inputs.collection.split("."):
            node = node["resources"][part]
        method = msgspec.convert(node["methods"][inputs.request], Method)
        base = document.get("baseUrl") or document["rootUrl"] + document["servicePath"]
    except (LookupError, TypeError, msgspec.ValidationError):
        name = f"{inputs.api_name} {inputs.api_version}"
        raise errors.TaskFailed(f"{name} has no method {inputs.collection}.{inputs.request}") from None
    known = {**document.get("parameters", {}), **method.parameters}
    given = {name: value for name, value in (inputs.params or {}).items() if name != "body"}
    for name in given.keys() - known.keys():
        raise errors.TaskFailed(f"{inputs.collection}.{inputs.request} has no parameter {name}")
    for name, about_it in method.parameters.items():
        if about_it.get("required") and name not in given:
            raise errors.TaskFailed(f"{inputs.collection}.{inputs.request} needs the parameter {name}")

    def filled(match: re.Match[str]) -> str:
        return urllib.parse.quote(str(given.pop(match["name"], "")), safe="/" if match["whole"] else "")

    path = re.sub(r"\{(?P<whole>\+?)(?P<name>[^{}]+)\}", filled, method.path)
    return f"{base.rstrip('/')}/{path.lstrip('/')}", method, given


def _named(words: str) -> str:
    """Return the failure in the words of Google's own library, which flows look for."""
    match = re.search(r"status (\d{3}), expected", words)
    return f"HttpError {match[1]}: {words}" if match is not None else words


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[GoogleInputs]:
    """Return the task type GOOGLE."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Call any Google API",
        description="One method of an API, as a service account.",
        inputs=GoogleInputs,
        output=GoogleOutput,
        run=_Google(service).run,
        idempotent=lambda inputs: inputs.request in ("get", "list", "search", "query"),
        check=_check,
        secret_inputs=frozenset({"key"}),
        close=service.connections.aclose,
    )
