"""SOAP: call an operation of a service that a WSDL describes, through zeep in a thread.

zeep reads the WSDL, builds the request and understands the answer; what it wants from the network goes through our
own HTTP (``http``), so that the operator's policy, the bounds, TLS and cancelling are those of every other type. No XML
that declares a document type is read: that is where entities hide that grow without end or name files. Credentials go
to the host of the WSDL and to the one that ``url`` names, never where only a WSDL points to.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import datetime
import decimal
import functools
import io
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import multidict
import yarl

from ..engine import ports
from . import blocking, extras, host, http, rest, stored_files, tls, web_service
from . import definition as definitions
from . import rest_request as request
from .definition import invalid, missing
from .host import about

T = TypeVar("T")
TASK = "SOAP"
#: What the WSDL and all it imports may take together, and how many documents that may be.
WSDL_BYTES_MAX = 16 * 1024 * 1024
WSDL_DOCUMENTS_MAX = 200
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 502, 503, 504})
#: Values inside of values.
_DEPTH_MAX = 100
_EXACT_MAX = 2**63


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


def _check(inputs: SoapInputs) -> None:
    where = inputs.url or "http://unknown.invalid/"
    if _is_address(inputs.wsdl):
        web_service.check(TASK, inputs, inputs.wsdl, "wsdl")
    elif not _is_text(inputs.wsdl) and not stored_files.is_named(inputs.wsdl):
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
            _octets(getattr(inputs, name))
        except ValueError:
            raise invalid(TASK, name, 'there is a {"base64": …} that is not base64') from None


def _is_address(wsdl: str) -> bool:
    return wsdl.startswith(("http://", "https://"))


def _is_text(wsdl: str) -> bool:
    return wsdl.lstrip("\ufeff \t\r\n").startswith("<")


def _octets(value: Any) -> Any:
    """Return an argument with bytes where it says ``{"base64": …}``; raises ``ValueError``."""
    if isinstance(value, dict):
        if value.keys() == {"base64"} and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"], validate=True)
        return {key: _octets(one) for key, one in value.items()}
    return [_octets(one) for one in value] if isinstance(value, list) else value


class _Answer:
    """An answer as zeep reads it, which knows those of requests."""

    encoding = None

    def __init__(self, answer: http.Answer) -> None:
        self.status_code = answer.status
        self.headers = multidict.CIMultiDict(answer.headers)
        self.content = answer.body


class _Wire:
    """zeep's transport: its requests, in its thread, made by ours on the event loop."""

    def __init__(
        self, inputs: SoapInputs, connections: rest.Connections, limits: http.Limits, traceparent: str
    ) -> None:
        self._inputs = inputs
        self._connections = connections
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._under_way: concurrent.futures.Future[http.Answer] | None = None
        self._stopped = False
        self._bytes = self._documents = 0
        self._sent = {"traceparent": traceparent} if traceparent else {}
        self._trusted = {_origin(one) for one in (inputs.wsdl, inputs.url) if one and _is_address(one)}
        self._given = not _is_address(inputs.wsdl)

    def stop(self) -> None:
        """End what is under way; nothing more is sent."""
        self._stopped = True
        if self._under_way is not None:
            self._under_way.cancel()

    def load(self, url: str) -> bytes:
        """Return a document that the WSDL consists of; raises ``host.Failed``."""
        if not _is_address(url):
            raise host.Failed("the WSDL imports a document that is no http address: give the WSDL's own address")
        self._documents += 1
        answer = self._followed(url)
        if answer.status != 200:
            raise host.Failed(f"{_shown(url)} answered with status {answer.status}", passing=answer.status in _PASSING)
        self._bytes += len(answer.body)
        if self._bytes > WSDL_BYTES_MAX or self._documents > WSDL_DOCUMENTS_MAX:
            raise host.Failed(f"the WSDL is more than {WSDL_BYTES_MAX >> 20} MiB or {WSDL_DOCUMENTS_MAX} documents")
        return _harmless(answer.body, "the WSDL")

    def _followed(self, url: str) -> http.Answer:
        for _ in range(_REDIRECTS_MAX + 1):
            known = _origin(url) in self._trusted
            answer = self._exchange(http.Request(method="GET", url=url, headers=self._headers(with_secrets=known)))
            location = multidict.CIMultiDict(answer.headers).get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = _joined(url, location)
        raise host.Failed(f"{_shown(url)} redirects more than {_REDIRECTS_MAX} times")

    def post_xml(self, address: str, envelope: Any, headers: Mapping[str, str]) -> _Answer:
        """Send the request; raises ``host.Failed``."""
        etree: Any = extras.require("lxml.etree", extra="soap", task=TASK)
        if not _is_address(address or ""):
            raise host.Failed("the WSDL does not say at which http address the service is: give 'url'")
        if self._has_secrets and not self._given and _origin(address) not in self._trusted:
            raise host.Failed(
                f"the WSDL says that the service is at {_origin(address)}, which is not where the WSDL is: give 'url' "
                "to send credentials there"
            )
        body = etree.tostring(envelope, xml_declaration=True, encoding="utf-8")
        every = {**headers, **self._headers(with_secrets=True)}
        answer = self._exchange(http.Request(method="POST", url=address, headers=every, body=body))
        kind = multidict.CIMultiDict(answer.headers).get("Content-Type", "text/xml").partition(";")[0].strip().lower()
        if answer.status not in (200, 201, 202) and not kind.endswith("xml"):
            said = host.quoted(answer.body[:2000].decode("utf-8", "replace"))
            words = f"status {answer.status}" + (f": {said}" if said else ", without a body")
            raise host.Failed(words, passing=answer.status in _PASSING)
        _harmless(answer.body, "the answer")
        return _Answer(answer)

    def get(self, *_: Any) -> _Answer:
        """Refuse: such operations are not SOAP."""
        raise host.Failed("this port of the WSDL does not speak SOAP: choose another 'service_port'")

    post = get

    @property
    def _has_secrets(self) -> bool:
        inputs = self._inputs
        secret_header = any(request.is_secret_header(name) for name in inputs.headers or {})
        return inputs.password is not None or inputs.token is not None or secret_header

    def _headers(self, *, with_secrets: bool) -> dict[str, str]:
        inputs, headers = self._inputs, dict(self._sent)
        if with_secrets:
            headers |= inputs.headers or {}
            if inputs.token is not None:
                headers["Authorization"] = f"Bearer {inputs.token}"
            elif inputs.username is not None and inputs.authentication_method in (None, "basic"):
                pair = f"{inputs.username}:{inputs.password}".encode()
                headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers

    def _exchange(self, asked: http.Request) -> http.Answer:
        try:
            exchange = http.exchange(self._connections, asked, self._limits)
            self._under_way = asyncio.run_coroutine_threadsafe(exchange, self._loop)
            if self._stopped:
                self._under_way.cancel()
            return self._under_way.result()
        except concurrent.futures.CancelledError:
            raise host.Failed("cancelled") from None


def _origin(url: str) -> str:
    with contextlib.suppress(ValueError):
        return str(yarl.URL(url).origin())
    raise host.Failed("the WSDL names an address that is none")


def _shown(url: str) -> str:
    return f"{_origin(url)}{yarl.URL(url).path}"


def _joined(url: str, location: str) -> str:
    with contextlib.suppress(ValueError):
        target = str(yarl.URL(url).join(yarl.URL(location)))
        if _is_address(target):
            return target
    raise host.Failed(f"{_shown(url)} redirects to an address that is not http or https")


def _harmless(content: bytes, what: str) -> bytes:
    """Return XML that declares no document type, in whatever UTF; zeep refuses what hides in other encodings."""
    if b"<!doctype" in content.replace(b"\0", b"").lower():
        raise host.Failed(f"{what} declares a document type: it is not read")
    return content


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

    def __init__(self, inputs: SoapInputs, wire: _Wire, wsdl: bytes | None) -> None:
        self._inputs = inputs
        self._wire = wire
        self._wsdl = wsdl
        #: Whether the answer has values that are not of their types.
        self.untranslated = False

    def run(self) -> SoapOutput:
        zeep = _library()
        client = self._understood(zeep, "the WSDL cannot be used", lambda: self._client(zeep))
        port, address = self._port(client)
        operations = port.binding.all()
        if self._inputs.operation not in operations:
            known = ", ".join(sorted(operations)[:50])
            raise host.Failed(f"the WSDL knows no such operation; its operations are {known or 'none'}")
        bound = zeep.proxy.ServiceProxy(client, port.binding, **{**port.binding_options, "address": address})
        arguments = dict(_octets(self._inputs.params or {}))
        if self._inputs.soap_headers is not None:
            arguments["_soapheaders"] = _octets(self._inputs.soap_headers)
        self._fitting(zeep, lambda: client.create_message(bound, self._inputs.operation, **arguments))
        call = bound[self._inputs.operation]
        result = self._understood(zeep, "the answer is not what the WSDL says", lambda: call(**arguments))
        output = self._understood(zeep, "the answer is not what the WSDL says", lambda: _output(zeep, result))
        self.untranslated = getattr(_UNTRANSLATED.here, "met", False)
        return output

    def _client(self, zeep: Any) -> Any:
        inputs = self._inputs
        settings = zeep.Settings(forbid_dtd=True, forbid_entities=True, xml_huge_tree=False)
        source = inputs.wsdl if self._wsdl is None else io.BytesIO(_harmless(self._wsdl, "the WSDL"))
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
        etree: Any = extras.require("lxml.etree", extra="soap", task=TASK)
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
        extras.require(part, extra="soap", task=TASK)
    logging.getLogger("zeep").setLevel(logging.CRITICAL)  # its lines quote whole messages, credentials with them
    about_values = logging.getLogger("zeep.xsd")
    about_values.setLevel(logging.ERROR)
    about_values.propagate = False
    about_values.addHandler(_UNTRANSLATED)  # once, however often it is added
    return extras.require("zeep", extra="soap", task=TASK)


def _fault(etree: Any, fault: Any) -> host.Failed:
    detail = fault.detail
    said = SoapFault(
        code=None if fault.code is None else str(fault.code),
        message=str(fault.message or ""),
        actor=None if fault.actor is None else str(fault.actor),
        detail=etree.tostring(detail, encoding="unicode") if etree.iselement(detail) else None,
    )
    words = f"the service answered with fault{f' {said.code}' if said.code else ''}: {host.quoted(said.message)}"
    return host.Failed(words, output=SoapOutput(fault=said))


def _output(zeep: Any, result: Any) -> SoapOutput:
    attached = []
    for one in getattr(result, "attachments", ()) if hasattr(result, "root") else ():
        about_it = {"content_type": str(one.content_type or ""), "content_id": str(one.content_id or "")}
        attached.append({**about_it, "content": base64.b64encode(one.content).decode()})
    if attached:
        result = result.root
    return SoapOutput(result=_plain(zeep.helpers.serialize_object(result, dict), 0), attachments=attached)


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
    etree: Any = extras.require("lxml.etree", extra="soap", task=TASK)
    return etree.tostring(value, encoding="unicode") if etree.iselement(value) else str(value)


async def _attempt(inputs: SoapInputs, context: ports.TaskContext, connections: rest.Connections) -> SoapOutput:
    await blocking.call(_library)
    wsdl = None
    if stored_files.is_named(inputs.wsdl):
        wsdl = await stored_files.read(context, inputs.wsdl)
    elif _is_text(inputs.wsdl):
        wsdl = inputs.wsdl.lstrip("\ufeff \t\r\n").encode()
    trust: Any = inputs.verify_ssl
    if inputs.cacert is not None or inputs.client_cert is not None:
        build = functools.partial(tls.context, cacert=inputs.cacert, client_cert=inputs.client_cert)
        trust = await asyncio.to_thread(
            functools.partial(build, client_key=inputs.client_key, verify=inputs.verify_ssl)
        )
    limits = http.Limits(connect_timeout=inputs.connect_timeout, read_timeout=inputs.read_timeout, trust=trust)
    wire = _Wire(inputs, connections, limits, context.traceparent)
    work = _Work(inputs, wire, wsdl)
    output = await blocking.alone(work.run, on_cancel=wire.stop)
    if work.untranslated:
        context.log("WARNING", "a value of the answer is not of the type that the WSDL says: it is null in the result")
    return output


async def _run(
    settings: definitions.Settings, connections: rest.Connections, inputs: SoapInputs, context: ports.TaskContext
) -> SoapOutput:
    for secret in (inputs.password, inputs.token):
        if secret:
            context.hide(secret)
    attempt = functools.partial(_attempt, inputs, context, connections)
    shown = f"{TASK} {inputs.operation}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False, secret=("token",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SoapInputs]:
    """Return the task type SOAP."""
    connections = rest.Connections(settings.egress)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Call an operation by SOAP",
        description="Calls one operation that a WSDL describes; a fault is a failure, with its detail in the output.",
        inputs=SoapInputs,
        output=SoapOutput,
        run=functools.partial(_run, settings, connections),
        idempotent=lambda _: False,
        check=_check,
        close=connections.aclose,
    )
