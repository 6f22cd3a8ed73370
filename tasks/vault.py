"""VAULT: read and write secrets in HashiCorp Vault or OpenBao, key-value engine version 2.

What talks to the vault is ``vault_client``; here stand the inputs, what each mode sends, and the output, which is the
vault's answer as it came.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import retry, tls
from . import vault_client as client
from .definition import Inputs, invalid, missing

TASK = "VAULT"
#: Modes that change nothing.
SAFE = frozenset({"read", "list", "metadata"})
#: Modes that name versions.
_OF_VERSIONS = frozenset({"delete", "undelete", "destroy"})
MODES = (*sorted(SAFE | _OF_VERSIONS), "purge", "write")

_Version = Annotated[int, msgspec.Meta(ge=0)]


def _about(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


class VaultInputs(Inputs):
    """The inputs of VAULT. Give ``token``, or ``role_id`` and ``secret_id``."""

    host: Annotated[str, _about("(or url) The address of the vault, such as https://vault.example:8200.")]
    token: Annotated[str | None, _about("The token to use; wins over role_id.")] = None
    role_id: Annotated[str | None, _about("The role to log in as, by AppRole.")] = None
    secret_id: Annotated[str | None, _about("Its secret id.")] = None
    namespace: Annotated[str | None, _about("The namespace, where the vault has some.")] = None
    engine_path: Annotated[str, _about("Where the engine is mounted. Default: secret.")] = "secret"
    secret_path: Annotated[str | None, _about("The path of the secret; of a folder for list.")] = None
    mode: Annotated[
        str | None,
        _about(
            "read: one version; write: a new version; delete: the newest version, or those given, so that undelete "
            "brings them back; destroy: for good; list: the names in a folder; metadata: all versions without their "
            "data; purge: everything. Default: write when there is data, else read."
        ),
    ] = None
    data: Annotated[dict[str, Any] | None, _about("What to write: keys and values.")] = None
    version: Annotated[
        _Version | list[_Version] | None,
        _about(
            "The version to read, or versions to delete, undelete or destroy. For write: the version that must be the "
            "newest one, 0 for a secret that must not exist yet."
        ),
    ] = None
    cacert: Annotated[str | None, _about("Certificates to trust instead of the system's, as PEM text.")] = None

    @property
    def wanted(self) -> str:
        """The mode in force."""
        return self.mode.lower() if self.mode is not None else "read" if self.data is None else "write"

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is the same as doing it once, whatever others do in between."""
        return self.wanted in SAFE or (self.wanted in _OF_VERSIONS and self.version is not None)

    @property
    def access(self) -> ports.VaultAccess:
        """How to get in."""
        return ports.VaultAccess(
            url=self.host,
            token=(self.token or "").strip(),
            role_id=self.role_id or "",
            secret_id=self.secret_id or "",
            engine_path=self.engine_path,
            namespace=self.namespace or "",
            cacert=self.cacert or "",
        )


class VaultOutput(msgspec.Struct, kw_only=True):
    """The output of VAULT."""

    result: Any = None  #: the vault's answer; what was read is in ``result.data.data``


def check(inputs: VaultInputs) -> None:
    """Raise ``InputRefused`` for inputs that make no request."""
    if not inputs.access.token and not (inputs.role_id and inputs.secret_id):
        name = "secret_id" if inputs.role_id else "token"
        raise missing(TASK, name, "the token to use, or 'role_id' and 'secret_id'")
    if inputs.wanted not in MODES:
        raise invalid(TASK, "mode", f"expected one of {', '.join(MODES)}")
    if not (inputs.secret_path or "").strip("/") and inputs.wanted != "list":
        raise missing(TASK, "secret_path", "the path of the secret")
    if inputs.wanted == "write" and inputs.data is None:
        raise missing(TASK, "data", "what to write: keys and values")
    if inputs.wanted != "write" and inputs.data is not None:
        raise invalid(TASK, "data", f"mode {inputs.wanted} writes nothing")
    _check_version(inputs)
    if inputs.cacert is not None:
        try:
            tls.check(cacert=inputs.cacert, client_cert=None, client_key=None)
        except tls.TlsInputInvalid as problem:
            raise invalid(TASK, problem.name, str(problem)) from None
    _check_addresses(inputs)


def _check_version(inputs: VaultInputs) -> None:
    if inputs.version is None and inputs.wanted in ("undelete", "destroy"):
        raise missing(TASK, "version", f"the versions to {inputs.wanted}")
    if inputs.version is not None and inputs.wanted in ("list", "metadata", "purge"):
        raise invalid(TASK, "version", f"mode {inputs.wanted} is about all versions")
    if isinstance(inputs.version, list) and inputs.wanted not in _OF_VERSIONS:
        raise invalid(TASK, "version", f"mode {inputs.wanted} is about one version")


def _check_addresses(inputs: VaultInputs) -> None:
    """Try each part of the address by itself, so that the message names the right input."""
    plain = ports.VaultAccess(url="https://vault")
    for name, access, path in (
        ("host", ports.VaultAccess(url=inputs.host), "x"),
        ("engine_path", ports.VaultAccess(url=plain.url, engine_path=inputs.engine_path), "x"),
        ("secret_path", plain, inputs.secret_path or "x"),
    ):
        try:
            client.address(access, "metadata", path)
        except errors.InvalidRequest as problem:
            raise invalid(TASK, name, f"expected one {problem.hint}") from None


def _request(inputs: VaultInputs) -> client.Request:
    path, version = inputs.secret_path or "", inputs.version
    request = functools.partial(client.Request, path=path)
    match inputs.wanted:
        case "read":
            return request(method="GET", section="data", query={} if version is None else {"version": str(version)})
        case "write":
            condition = {} if version is None else {"options": {"cas": version}}
            return request(method="POST", section="data", body={"data": inputs.data, **condition})
        case "delete" if version is None:
            return request(method="DELETE", section="data")
        case "list":
            return request(method="GET", section="metadata", query={"list": "true"})
        case "metadata":
            return request(method="GET", section="metadata")
        case "purge":
            return request(method="DELETE", section="metadata")
    versions = version if isinstance(version, list) else [version]
    method = "PUT" if inputs.wanted == "destroy" else "POST"
    return request(method=method, section=inputs.wanted, body={"versions": versions})


async def _attempt(vaults: client.Client, inputs: VaultInputs) -> VaultOutput:
    access, output = inputs.access, VaultOutput()
    try:
        answer = await vaults.ask(access, _request(inputs))
        output.result = answer.body
        if not answer.good:
            raise client.refusal(answer, access, inputs.secret_path or "")
    except errors.HeadraceError as error:
        failure = errors.TaskFailed(
            f"{inputs.wanted}: {error.message}", output=values.encode(output, "the output of VAULT")
        )
        if error.retryable:
            raise retry.Transient(failure) from None
        raise failure from None
    return output


async def _run(
    vaults: client.Client, pacing: retry.Pacing, inputs: VaultInputs, context: ports.TaskContext
) -> VaultOutput:
    backoff = retry.chosen(inputs.retry_backoff, repeatable=inputs.repeatable)
    context.hide(inputs.data)
    output = await retry.attempts(functools.partial(_attempt, vaults, inputs), backoff, context, pacing)
    if inputs.wanted == "read" and isinstance(output.result, dict):
        context.hide((output.result.get("data") or {}).get("data"))
    return output


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[VaultInputs]:
    """Return the task type VAULT with logins and connections of its own."""
    vaults = client.Client(settings.egress)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Read and write secrets in a vault",
        description="Talks to the key-value engine (version 2) of HashiCorp Vault or OpenBao, with a token or by "
        "AppRole. A login is used until its lease ends.",
        inputs=VaultInputs,
        output=VaultOutput,
        run=functools.partial(_run, vaults, settings.pacing),
        idempotent=lambda inputs: inputs.wanted in SAFE,
        check=check,
        secret_inputs=frozenset({"data"}),
        input_aliases={"url": "host"},
        close=vaults.aclose,
    )
