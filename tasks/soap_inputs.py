"""What SOAP is asked, what it answers, and which of it goes together."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec

from . import stored_files, web_service
from .definition import invalid, missing
from .host import about

TASK = "SOAP"


class SoapInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of SOAP."""

    wsdl: Annotated[
        str, about("What describes the service: the address of its WSDL, the WSDL as text, or headrace:<path>.")
    ]
    operation: Annotated[str, about("The operation to call.")]
    params: Annotated[
        dict[str, Any] | None,
        about('Its arguments by name: objects for complex types, lists for what repeats, {"base64": …} for bytes.'),
    ] = None
    url: Annotated[str | None, about("The address to call. Default: what the WSDL says.")] = None
    service: Annotated[str | None, about("Which service of the WSDL. Default: the first.")] = None
    service_port: Annotated[
        str | None, about("Which port of that service, as the WSDL calls it. Default: the first that speaks SOAP.")
    ] = None
    username: Annotated[str | None, about("The user.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    authentication_method: Annotated[
        Literal["basic", "wsse", "wsse-digest"] | None,
        about("How username is told: basic is HTTP's way, wsse a username token of WS-Security, wsse-digest one with a "
        "digest of the password. Default: basic."),
    ] = None  # fmt: skip
    token: Annotated[str | None, about("A bearer token, instead of a user.")] = None
    headers: Annotated[dict[str, str] | None, about("Headers of the HTTP request.")] = None
    soap_headers: Annotated[
        dict[str, Any] | None, about("Headers of the envelope, by the name of their element in the WSDL.")
    ] = None


class SoapFault(msgspec.Struct, kw_only=True):
    """Why a service refused; ``detail`` is XML."""

    code: str | None
    message: str
    actor: str | None
    detail: str | None


class SoapOutput(msgspec.Struct, kw_only=True):
    """The output of SOAP."""

    result: Any = msgspec.UNSET
    attachments: list[dict[str, str]] = msgspec.field(default_factory=list)
    fault: SoapFault | msgspec.UnsetType = msgspec.UNSET  #: of a call that failed with one


def check(inputs: SoapInputs) -> None:
    """Raise ``InputRefused`` for inputs that do not go together."""
    where = inputs.url or "http://unknown.invalid/"
    if is_address(inputs.wsdl):
        web_service.check(TASK, inputs, inputs.wsdl, "wsdl")
    elif not is_text(inputs.wsdl) and not stored_files.is_named(inputs.wsdl):
        raise invalid(TASK, "wsdl", "expected an address with http or https, a WSDL as text, or headrace:<path>")
    web_service.check(TASK, inputs, where)
    if not inputs.operation.strip():
        raise invalid(TASK, "operation", "expected the name of an operation")
    if inputs.token is not None and inputs.username is not None:
        raise invalid(TASK, "token", "give either 'token' or 'username', not both")
    if inputs.username is None:
        for name in ("password", "authentication_method"):
            if getattr(inputs, name) is not None:
                raise missing(TASK, "username", f"the user whose '{name}' is given")
    elif inputs.password is None:
        raise missing(TASK, "password", "the password of 'username'")
    for name in ("params", "soap_headers"):
        try:
            octets(getattr(inputs, name))
        except ValueError:
            raise invalid(TASK, name, 'there is a {"base64": …} that is not base64') from None


def is_address(wsdl: str) -> bool:
    """Return whether this is where something is, not the thing itself."""
    return wsdl.startswith(("http://", "https://"))


def is_text(wsdl: str) -> bool:
    """Return whether this is a WSDL itself."""
    return wsdl.lstrip("\ufeff \t\r\n").startswith("<")


def octets(value: Any) -> Any:
    """Return an argument with bytes where it says ``{"base64": …}``; raises ``ValueError``."""
    if isinstance(value, dict):
        if value.keys() == {"base64"} and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"], validate=True)
        return {key: octets(one) for key, one in value.items()}
    return [octets(one) for one in value] if isinstance(value, list) else value
