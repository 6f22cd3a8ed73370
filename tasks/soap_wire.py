"""SOAP's wire: what zeep wants from the network, made by our own HTTP (``http``).

So the operator's policy, the bounds, TLS and cancelling are those of every other type. No XML that declares a document
type is read: that is where entities hide that grow without end or name files. Credentials go to the host of the WSDL
and to the one that ``url`` names, never where only a WSDL points to.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
from collections.abc import Mapping
from typing import Any

import multidict
import yarl

from . import extras, host, http, rest
from . import rest_request as request
from . import soap_inputs as asked

#: What the WSDL and all it imports may take together, and how many documents that may be.
WSDL_BYTES_MAX = 16 * 1024 * 1024
WSDL_DOCUMENTS_MAX = 200
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 502, 503, 504})


class Answer:
    """An answer as zeep reads it, which knows those of requests."""

    encoding = None

    def __init__(self, answer: http.Answer) -> None:
        self.status_code = answer.status
        self.headers = multidict.CIMultiDict(answer.headers)
        self.content = answer.body


class Wire:
    """zeep's transport: its requests, in its thread, made by ours on the event loop."""

    def __init__(
        self, inputs: asked.SoapInputs, connections: rest.Connections, limits: http.Limits, traceparent: str
    ) -> None:
        self._inputs = inputs
        self._connections = connections
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._under_way: concurrent.futures.Future[http.Answer] | None = None
        self._stopped = False
        self._bytes = self._documents = 0
        self._sent = {"traceparent": traceparent} if traceparent else {}
        self._trusted = {_origin(one) for one in (inputs.wsdl, inputs.url) if one and asked.is_address(one)}
        self._given = not asked.is_address(inputs.wsdl)

    def stop(self) -> None:
        """End what is under way; nothing more is sent."""
        self._stopped = True
        if self._under_way is not None:
            self._under_way.cancel()

    def load(self, url: str) -> bytes:
        """Return a document that the WSDL consists of; raises ``host.Failed``."""
        if not asked.is_address(url):
            raise host.Failed("the WSDL imports a document that is no http address: give the WSDL's own address")
        self._documents += 1
        answer = self._followed(url)
        if answer.status != 200:
            raise host.Failed(f"{_shown(url)} answered with status {answer.status}", passing=answer.status in _PASSING)
        self._bytes += len(answer.body)
        if self._bytes > WSDL_BYTES_MAX or self._documents > WSDL_DOCUMENTS_MAX:
            raise host.Failed(f"the WSDL is more than {WSDL_BYTES_MAX >> 20} MiB or {WSDL_DOCUMENTS_MAX} documents")
        return harmless(answer.body, "the WSDL")

    def _followed(self, url: str) -> http.Answer:
        for _ in range(_REDIRECTS_MAX + 1):
            known = _origin(url) in self._trusted
            answer = self._exchange(http.Request(method="GET", url=url, headers=self._headers(with_secrets=known)))
            location = multidict.CIMultiDict(answer.headers).get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = _joined(url, location)
        raise host.Failed(f"{_shown(url)} redirects more than {_REDIRECTS_MAX} times")

    def post_xml(self, address: str, envelope: Any, headers: Mapping[str, str]) -> Answer:
        """Send the request; raises ``host.Failed``."""
        etree: Any = extras.require("lxml.etree", extra="soap", task=asked.TASK)
        if not asked.is_address(address or ""):
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
        harmless(answer.body, "the answer")
        return Answer(answer)

    def get(self, *_: Any) -> Answer:
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

    def _exchange(self, sent: http.Request) -> http.Answer:
        try:
            exchange = http.exchange(self._connections, sent, self._limits)
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
        if asked.is_address(target):
            return target
    raise host.Failed(f"{_shown(url)} redirects to an address that is not http or https")


def harmless(content: bytes, what: str) -> bytes:
    """Return XML that declares no document type, in whatever UTF; zeep refuses what hides in other encodings."""
    if b"<!doctype" in content.replace(b"\0", b"").lower():
        raise host.Failed(f"{what} declares a document type: it is not read")
    return content
