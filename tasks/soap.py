"""SOAP: call an operation of a service that a WSDL describes, through zeep in a thread.

zeep reads the WSDL, builds the request and understands the answer; what it wants from the network goes over our own
wire (``soap_wire``).
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import decimal
import functools
import io
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..engine import ports
from . import blocking, extras, host, http, rest, soap_wire, stored_files, tls
from . import definition as definitions
from . import soap_inputs as asked

T = TypeVar("T")
#: Values inside of values.
_DEPTH_MAX = 100
_EXACT_MAX = 2**63


class _Untranslated(logging.Handler):
    """Notes, for each thread, that zeep met a value that is not of its type: it only logs that, and answers None."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.here = threading.local()

    def emit(self, _: logging.LogRecord) -> None:
        self.here.met = True


_UNTRANSLATED = _Untranslated()


class _Work:
    """One call, in a thread of its own."""

    def __init__(self, inputs: asked.SoapInputs, wire: soap_wire.Wire, wsdl: bytes | None) -> None:
        self._inputs = inputs
        self._wire = wire
        self._wsdl = wsdl
        #: Whether the answer has values that are not of their types.
        self.untranslated = False

    def run(self) -> asked.SoapOutput:
        zeep = _library()
        client = self._understood(zeep, "the WSDL cannot be used", lambda: self._client(zeep))
        port, address = self._port(client)
        operations = port.binding.all()
        if self._inputs.operation not in operations:
            known = ", ".join(sorted(operations)[:50])
            raise host.Failed(f"the WSDL knows no such operation; its operations are {known or 'none'}")
        bound = zeep.proxy.ServiceProxy(client, port.binding, **{**port.binding_options, "address": address})
        arguments = dict(asked.octets(self._inputs.params or {}))
        if self._inputs.soap_headers is not None:
            arguments["_soapheaders"] = asked.octets(self._inputs.soap_headers)
        self._fitting(zeep, lambda: client.create_message(bound, self._inputs.operation, **arguments))
        call = bound[self._inputs.operation]
        result = self._understood(zeep, "the answer is not what the WSDL says", lambda: call(**arguments))
        output = self._understood(zeep, "the answer is not what the WSDL says", lambda: _output(zeep, result))
        self.untranslated = getattr(_UNTRANSLATED.here, "met", False)
        return output

    def _client(self, zeep: Any) -> Any:
        inputs = self._inputs
        settings = zeep.Settings(forbid_dtd=True, forbid_entities=True, xml_huge_tree=False)
        source = inputs.wsdl if self._wsdl is None else io.BytesIO(soap_wire.harmless(self._wsdl, "the WSDL"))
        token = None
        if inputs.authentication_method in ("wsse", "wsse-digest"):
            digest = inputs.authentication_method == "wsse-digest"
            token = zeep.wsse.username.UsernameToken(inputs.username, inputs.password, use_digest=digest)
        return zeep.Client(source, wsse=token, transport=self._wire, settings=settings)

    def _port(self, client: Any) -> tuple[Any, str]:
        """Return the port to use and its address."""
        inputs, services = self._inputs, client.wsdl.services
        service = services.get(inputs.service) if inputs.service else next(iter(services.values()), None)
        if service is None:
            raise host.Failed(f"the WSDL knows no such service; its services are {', '.join(services) or 'none'}")
        spoken = {name: one for name, one in service.ports.items() if hasattr(one.binding, "process_reply")}
        port = spoken.get(inputs.service_port) if inputs.service_port else next(iter(spoken.values()), None)
        if port is None:
            known = ", ".join(spoken) or "none"
            raise host.Failed(f"the service has no such port that speaks SOAP; those that do are {known}")
        return port, inputs.url or (port.binding_options or {}).get("address") or ""

    def _fitting(self, zeep: Any, build: Callable[[], Any]) -> None:
        """Raise ``host.Failed`` for arguments that the WSDL does not know; values are not quoted."""
        try:
            build()
        except zeep.exceptions.ValidationError as error:
            raise host.Failed(f"the input 'params' does not fit: {host.quoted(str(error))}") from None
        except TypeError as error:
            said = str(error)
            words = said if "argument" in said else "an argument is of another kind than the WSDL says"
            raise host.Failed(f"the input 'params' does not fit: {host.quoted(words)}") from None
        except (zeep.exceptions.Error, *host.GARBAGE):
            raise host.Failed(
                "the input 'params' does not fit: a value is not of the type that the WSDL says"
            ) from None

    def _understood(self, zeep: Any, otherwise: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; raises ``host.Failed`` for a fault, and for what is not understood."""
        etree: Any = extras.require("lxml.etree", extra="soap", task=asked.TASK)
        try:
            return work()
        except zeep.exceptions.Fault as fault:
            raise _fault(etree, fault) from None
        except (zeep.exceptions.DTDForbidden, zeep.exceptions.EntitiesForbidden):
            raise host.Failed(f"{otherwise}: it declares a document type") from None
        except zeep.exceptions.TransportError as error:
            raise host.Failed(f"{otherwise}: {host.quoted(str(error).partition('Content:')[0])}") from None
        except (zeep.exceptions.Error, etree.LxmlError, *host.GARBAGE) as error:
            raise host.Failed(f"{otherwise}: {host.quoted(str(error)) or type(error).__name__}") from None


def _library() -> Any:
    for part in ("zeep.wsse.username", "zeep.helpers", "zeep.exceptions", "zeep.proxy", "lxml.etree"):
        extras.require(part, extra="soap", task=asked.TASK)
    logging.getLogger("zeep").setLevel(logging.CRITICAL)  # its lines quote whole messages, credentials with them
    about_values = logging.getLogger("zeep.xsd")
    about_values.setLevel(logging.ERROR)
    about_values.propagate = False
    about_values.addHandler(_UNTRANSLATED)  # once, however often it is added
    return extras.require("zeep", extra="soap", task=asked.TASK)


def _fault(etree: Any, fault: Any) -> host.Failed:
    detail = fault.detail
    said = asked.SoapFault(
        code=None if fault.code is None else str(fault.code),
        message=str(fault.message or ""),
        actor=None if fault.actor is None else str(fault.actor),
        detail=etree.tostring(detail, encoding="unicode") if etree.iselement(detail) else None,
    )
    words = f"the service answered with fault{f' {said.code}' if said.code else ''}: {host.quoted(said.message)}"
    return host.Failed(words, output=asked.SoapOutput(fault=said))


def _output(zeep: Any, result: Any) -> asked.SoapOutput:
    attached = []
    for one in getattr(result, "attachments", ()) if hasattr(result, "root") else ():
        about_it = {"content_type": str(one.content_type or ""), "content_id": str(one.content_id or "")}
        attached.append({**about_it, "content": base64.b64encode(one.content).decode()})
    if attached:
        result = result.root
    return asked.SoapOutput(result=_plain(zeep.helpers.serialize_object(result, dict), 0), attachments=attached)


def _plain(value: Any, depth: int) -> Any:
    """Return what was answered as JSON can say it: times in ISO 8601, exact decimals as text, bytes in base64."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"its values are nested more than {_DEPTH_MAX} deep")
    match value:
        case None | bool() | str() | float():
            return value
        case int():
            return value if -_EXACT_MAX <= value < _EXACT_MAX else str(value)
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case decimal.Decimal():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case dict():
            return {str(key): _plain(one, depth + 1) for key, one in value.items()}
        case list() | tuple() | set():
            return [_plain(one, depth + 1) for one in value]
    etree: Any = extras.require("lxml.etree", extra="soap", task=asked.TASK)
    return etree.tostring(value, encoding="unicode") if etree.iselement(value) else str(value)


async def _attempt(
    inputs: asked.SoapInputs, context: ports.TaskContext, connections: rest.Connections
) -> asked.SoapOutput:
    await blocking.call(_library)
    wsdl = None
    if stored_files.is_named(inputs.wsdl):
        wsdl = await stored_files.read(context, inputs.wsdl)
    elif asked.is_text(inputs.wsdl):
        wsdl = inputs.wsdl.lstrip("\ufeff \t\r\n").encode()
    trust: Any = inputs.verify_ssl
    if inputs.cacert is not None or inputs.client_cert is not None:
        build = functools.partial(tls.context, cacert=inputs.cacert, client_cert=inputs.client_cert)
        trust = await asyncio.to_thread(
            functools.partial(build, client_key=inputs.client_key, verify=inputs.verify_ssl)
        )
    limits = http.Limits(connect_timeout=inputs.connect_timeout, read_timeout=inputs.read_timeout, trust=trust)
    wire = soap_wire.Wire(inputs, connections, limits, context.traceparent)
    work = _Work(inputs, wire, wsdl)
    output = await blocking.alone(work.run, on_cancel=wire.stop)
    if work.untranslated:
        context.log("WARNING", "a value of the answer is not of the type that the WSDL says: it is null in the result")
    return output


async def _run(
    settings: definitions.Settings, connections: rest.Connections, inputs: asked.SoapInputs, context: ports.TaskContext
) -> asked.SoapOutput:
    for secret in (inputs.password, inputs.token):
        if secret:
            context.hide(secret)
    attempt = functools.partial(_attempt, inputs, context, connections)
    shown = f"{asked.TASK} {inputs.operation}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False, secret=("token",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[asked.SoapInputs]:
    """Return the task type SOAP."""
    connections = rest.Connections(settings.egress)
    return definitions.TaskDefinition(
        name=asked.TASK,
        summary="Call an operation by SOAP",
        description="Calls one operation that a WSDL describes; a fault is a failure, with its detail in the output.",
        inputs=asked.SoapInputs,
        output=asked.SoapOutput,
        run=functools.partial(_run, settings, connections),
        idempotent=lambda _: False,
        check=asked.check,
        close=connections.aclose,
    )
