"""AZURE: call the REST API of Azure, or another that takes a token of Entra ID, as an application."""

from __future__ import annotations

import functools
import urllib.parse
from typing import Annotated, Any, Literal

import msgspec

from ..engine import errors, ports
from . import definition as definitions
from . import rest, tokens, web_service
from .definition import invalid
from .host import about

TASK = "AZURE"
_GOOD = [200, 201, 202, 204]


class AzureInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of AZURE."""

    tenant_id: Annotated[str, about("The tenant: an id or a domain.")]
    client_id: Annotated[str, about("The id of the application.")]
    client_secret: Annotated[str, about("Its secret.")]
    path: Annotated[str, about("What to call, such as /subscriptions.")]
    method: Annotated[Literal["get", "head", "post", "put", "patch", "delete"], about("How. Default: get.")] = "get"
    api_version: Annotated[str | None, about("The version of the API, such as 2022-12-01; Azure wants one.")] = None
    params: Annotated[dict[str, Any] | None, about("More query parameters.")] = None
    json: Annotated[Any, about("A body that is sent as JSON.")] = None
    url: Annotated[str, about("The address of the API. Default: https://management.azure.com.")] = (
        "https://management.azure.com"
    )
    scope: Annotated[str | None, about("What the token is for. Default: the url with /.default.")] = None
    login_url: Annotated[str, about("Where tokens come from. Default: https://login.microsoftonline.com.")] = (
        "https://login.microsoftonline.com"
    )

    @property
    def who(self) -> tuple[str, ...]:
        """Whose token for what."""
        return self.login_url, self.tenant_id, self.client_id, self.client_secret, self.asked_scope

    @property
    def asked_scope(self) -> str:
        """What the token is for."""
        return self.scope or f"{self.url.rstrip('/')}/.default"


class AzureOutput(msgspec.Struct, kw_only=True):
    """The output of AZURE."""

    status_code: int
    json: Any = None  #: the answer
    headers: dict[str, str]  #: by lower-case name; where to look for the end of what takes long


def _check(inputs: AzureInputs) -> None:
    web_service.check(TASK, inputs, inputs.url)
    web_service.check(TASK, inputs, inputs.login_url, "login_url")
    if not inputs.path.startswith("/"):
        raise invalid(TASK, "path", "expected a path that begins with /")
    if "/" in inputs.tenant_id or not inputs.tenant_id:
        raise invalid(TASK, "tenant_id", "expected an id or a domain")


async def _token(
    service: web_service.Service, known: tokens.Tokens, inputs: AzureInputs, context: ports.TaskContext
) -> str:
    form = {
        "grant_type": "client_credentials",
        "client_id": inputs.client_id,
        "client_secret": inputs.client_secret,
        "scope": inputs.asked_scope,
    }
    url = f"{inputs.login_url.rstrip('/')}/{urllib.parse.quote(inputs.tenant_id)}/oauth2/v2.0/token"
    backoff = True if inputs.retry_backoff is None else inputs.retry_backoff
    ask = functools.partial(service.call, inputs, context, url, method="post", urlencoded=form, retry_backoff=backoff)
    return await known.get(inputs.who, context, ask)


async def _run(
    service: web_service.Service, known: tokens.Tokens, inputs: AzureInputs, context: ports.TaskContext
) -> AzureOutput:
    context.hide(inputs.client_secret)
    versioned = {"api-version": inputs.api_version} if inputs.api_version is not None else {}
    call = functools.partial(
        service.call,
        inputs,
        context,
        inputs.url.rstrip("/") + inputs.path,
        method=inputs.method,
        params={**versioned, **(inputs.params or {})},
        json=inputs.json,
    )

    async def authorized() -> rest.RestOutput:
        token = await _token(service, known, inputs, context)
        # A token may have been revoked while it was kept: then once more with a new one.
        return await call(headers={"Authorization": f"Bearer {token}"}, expected_status_code=[*_GOOD, 401])

    answer = await authorized()
    if answer.status_code == 401:
        known.forget(inputs.who)
        answer = await authorized()
    if answer.status_code == 401:
        raise errors.TaskFailed("the service does not accept the token (status 401)")
    return AzureOutput(status_code=answer.status_code, json=answer.json, headers=answer.headers)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[AzureInputs]:
    """Return the task type AZURE."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Call the REST API of Azure",
        description="One request as an application, with a token that is got for it.",
        inputs=AzureInputs,
        output=AzureOutput,
        run=functools.partial(_run, service, tokens.Tokens()),
        idempotent=lambda inputs: inputs.method in ("get", "head"),
        check=_check,
        secret_inputs=frozenset({"client_secret"}),
        close=service.connections.aclose,
    )
