"""REST: call an HTTP service.

It owns the one pool of connections per event loop and everything aiohttp: sending what ``rest_request`` describes,
redirects, bounds on the answer, and the words for what went wrong. Redirects are followed by hand, so that every hop's
address is checked and credentials stay with the host they were given for. Proxy and netrc settings of the daemon's
environment are ignored: what a flow's call does must not depend on where the daemon was started. A failure's message
shows method, address without query and credentials, and status; everything the server said is in its output.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
import weakref
from typing import Any

import aiohttp
import aiohttp.abc
import msgspec
import multidict
import yarl

from ..engine import errors, ports, values
from . import definition as definitions
from . import rest_answer as answer
from . import rest_request as request
from . import retry, stored_files, tls
from .egress import Egress

#: What an answer may take in memory, decompressed.
BODY_BYTES_MAX = 64 * 1024 * 1024
#: What is kept of an unexpected answer that is longer than the bound.
EXCERPT_BYTES_MAX = 1024 * 1024
#: What a file may take: an endless answer must not fill the disk.
FILE_BYTES_MAX = 8 * 1024 * 1024 * 1024
#: How often a host may say something before its answer; most never do.
_PRELUDES_MAX = 20
_QUOTED_CHARACTERS = 200
#: Shorter than the 5 s after which many servers drop an idle connection: a POST must not meet a dying one.
_KEEP_ALIVE_S = 4.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class RestOutput(msgspec.Struct, kw_only=True):
    """The output of REST."""

    status_code: int
    headers: dict[str, str]  #: by lower-case name; the values of a repeated header are joined by commas
    cookies: dict[str, str]  #: what the server set, on the way of redirects too
    encoding: str | None = None  #: the character set the text was read with
    text: str | msgspec.UnsetType = msgspec.UNSET  #: absent with ``dst``
    json: Any = msgspec.UNSET  #: the parsed body, null when it is not JSON; absent with ``dst``


class EgressDenied(OSError):
    """An address is forbidden by the operator's policy."""


class _Resolver(aiohttp.ThreadedResolver):
    """Resolves names and refuses those with any forbidden address."""

    def __init__(self, egress: Egress) -> None:
        super().__init__()
        self._egress = egress

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[aiohttp.abc.ResolveResult]:
        found = await super().resolve(host, port, family)
        for one in found:
            if (refusal := self._egress.refusal(one["host"])) is not None:
                raise EgressDenied(refusal)
        return found


class _Answer(aiohttp.ClientResponse):
    """An answer that comes to the point: hosts may say "go on" (100 to 199) before it, but not for ever."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        protocol, left = connection.protocol, _PRELUDES_MAX + 1
        read = protocol.read

        async def bounded() -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise aiohttp.http.HttpProcessingError(code=100, message="it says to go on, and never answers")
            return await read()

        protocol.read = bounded
        try:
            return await super().start(connection)
        finally:
            del protocol.read  # that of its class counts again


class Connections:
    """One session, with its pool of connections, for each event loop."""

    def __init__(self, egress: Egress, *, decompress: bool = True) -> None:
        self.egress = egress
        self._decompress = decompress
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = (
            weakref.WeakKeyDictionary()
        )

    def session(self) -> aiohttp.ClientSession:
        """Return the session of the running event loop."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # the engine bounds how many tasks run; a second queue here would only hide waiting
                    keepalive_timeout=_KEEP_ALIVE_S,
                    resolver=_Resolver(self.egress),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "headrace"},
                response_class=_Answer,
                trust_env=False,
                auto_decompress=self._decompress,
            )
        return session

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


class _Material(msgspec.Struct, frozen=True):
    """What a request needs beside its inputs, loaded once: the body, and whom to trust.

    ``trust_elsewhere`` is for hosts a redirect leads to: the same trust, without the client's certificate."""

    body: bytes | None
    content_type: str | None
    trust: ssl.SSLContext | bool
    trust_elsewhere: ssl.SSLContext | bool


class _Exchange:
    """One REST task under way: the request, as often as it takes, and its answer."""

    def __init__(
        self, inputs: request.RestInputs, context: ports.TaskContext, connections: Connections, material: _Material
    ) -> None:
        self._inputs = inputs
        self._context = context
        self._connections = connections
        self._material = material
        self._secrets = request.secrets(inputs)
        start = request.address(inputs)
        self._credentials = request.credentials(inputs, start)
        self._first = start.with_user(None).extend_query(request.query(inputs.params, "params"))
        self._method, self._url = inputs.verb, self._first

    async def attempt(self) -> RestOutput:
        """Send the request and read the answer, following redirects; raises ``TaskFailed`` or ``retry.Transient``."""
        self._method, self._url = self._inputs.verb, self._first
        try:
            return await self._follow()
        except (aiohttp.ClientError, OSError) as error:
            words, passing = explained(error, self._url, self._inputs.connect_timeout, self._inputs.read_timeout)
            failure = self._failure(words)
        if passing:
            raise retry.Transient(failure)
        raise failure

    async def _follow(self) -> RestOutput:
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        received: dict[str, str] = {}
        with_body = True
        for _ in range(self._inputs.max_redirects + 1):
            response = await self._send(jar, with_body=with_body)
            try:
                received.update((name, morsel.value) for name, morsel in response.cookies.items())
                jar.update_cookies(response.cookies, response.url)
                location = response.headers.get("Location")
                if not (self._inputs.allow_redirects and response.status in _REDIRECTS and location):
                    return await self._finish(response, received)
                self._url = self._redirected(location)
                if _becomes_get(response.status, self._method):
                    self._method, with_body = "GET", False
                await response.release()
            except BaseException:
                response.close()
                raise
        raise self._failure(f"gave up after {self._inputs.max_redirects} redirects")

    def _redirected(self, location: str) -> yarl.URL:
        try:
            target = self._url.join(yarl.URL(location)).with_fragment(None)
            usable = target.scheme in ("http", "https") and bool(target.raw_host) and target.port is not None
        except ValueError:
            usable = False
        if not usable:
            raise self._failure("redirected to an address that is not http or https")
        return target.with_user(None)

    async def _send(self, jar: aiohttp.CookieJar, *, with_body: bool) -> aiohttp.ClientResponse:
        at_home = self._url.origin() == self._first.origin()
        if (refusal := self._connections.egress.refusal(self._url.raw_host or "")) is not None:
            raise EgressDenied(refusal)
        return await self._connections.session().request(
            self._method,
            self._url,
            data=self._material.body if with_body else None,
            headers=self._headers(jar, at_home=at_home, with_body=with_body),
            allow_redirects=False,
            ssl=self._material.trust if at_home else self._material.trust_elsewhere,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._inputs.connect_timeout or None,
                sock_read=self._inputs.read_timeout or None,
            ),
        )

    def _headers(self, jar: aiohttp.CookieJar, *, at_home: bool, with_body: bool) -> multidict.CIMultiDict[str]:
        headers: multidict.CIMultiDict[str] = multidict.CIMultiDict()
        for name, value in (self._inputs.headers or {}).items():
            about_body = name.casefold() in ("content-type", "content-length", "content-encoding")
            if value is None or (not at_home and request.is_secret_header(name)) or (about_body and not with_body):
                continue
            headers[name] = str(value)
        if with_body and self._material.content_type is not None:
            headers.setdefault("Content-Type", self._material.content_type)
        if self._method in ("POST", "PATCH"):
            headers.setdefault("Idempotency-Key", self._context.execution_id)
        if self._context.traceparent:
            headers.setdefault("traceparent", self._context.traceparent)
        if at_home and self._credentials is not None and "Authorization" not in headers:
            headers["Authorization"] = request.authorization(self._credentials)
        cookies = {name: str(value) for name, value in (self._inputs.cookies or {}).items()} if at_home else {}
        cookies.update((name, morsel.value) for name, morsel in jar.filter_cookies(self._url).items())
        if cookies:
            given = [headers["Cookie"]] if "Cookie" in headers else []
            headers["Cookie"] = "; ".join([*given, *(f"{name}={value}" for name, value in cookies.items())])
        return headers

    async def _finish(self, response: aiohttp.ClientResponse, cookies: dict[str, str]) -> RestOutput:
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        output = RestOutput(status_code=response.status, headers=headers, cookies=cookies)
        if response.status not in self._inputs.expected:
            raise await self._unexpected(response, output)
        if self._inputs.dst is not None:
            await self._save(response, self._inputs.dst, output)
            return output
        body, complete = await _read(response)
        if not complete:
            raise self._failure(f"the body is larger than {_size(BODY_BYTES_MAX)}; 'dst' writes it to a file", output)
        self._interpret(body, output)
        return output

    def _interpret(self, body: bytes, output: RestOutput) -> None:
        content_type = output.headers.get("content-type", "")
        output.text, output.encoding, exact = answer.text(body, content_type)
        output.json = answer.json(output.text, content_type)
        if not exact:
            self._context.log("WARNING", f"the body is not text in {output.encoding}; 'dst' would keep every byte")

    async def _unexpected(self, response: aiohttp.ClientResponse, output: RestOutput) -> Exception:
        body, complete = await _read(response)
        if not complete:
            self._context.log("WARNING", f"the body is too large, only its first {_size(EXCERPT_BYTES_MAX)} are kept")
        self._interpret(body, output)
        wanted = " or ".join(str(code) for code in self._inputs.expected)
        said = " ".join(self._clean(str(output.text)[: _QUOTED_CHARACTERS * 20]).split())[:_QUOTED_CHARACTERS]
        failure = self._failure(
            f"status {response.status}, expected {wanted}" + (f": {said}" if said else ", without a body"), output
        )
        if response.status not in _PASSING:
            return failure
        pause = answer.retry_after_s(response.headers.get("Retry-After"), time.time())
        return retry.Transient(failure, retry_after_s=pause)

    async def _save(self, response: aiohttp.ClientResponse, named: str, output: RestOutput) -> None:
        total = 0
        async with stored_files.writing(self._context, named) as sink:
            async for chunk in response.content.iter_any():
                total += len(chunk)
                if total > FILE_BYTES_MAX:
                    raise self._failure(f"the body is larger than {_size(FILE_BYTES_MAX)}", output)
                await sink.write(chunk)

    def _failure(self, words: str, output: RestOutput | None = None) -> errors.TaskFailed:
        text = b"{}" if output is None else values.encode(output, "the output of REST")
        if output is not None and len(text) > values.VALUE_BYTES_MAX:
            kept = msgspec.structs.replace(output, text=msgspec.UNSET, json=msgspec.UNSET)
            text = values.encode(kept, "the output of REST")
        shown = self._clean(f"{self._method} {request.shown(self._url)}: {words}")
        return errors.TaskFailed(shown, output=text)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _becomes_get(status: int, method: str) -> bool:
    """Return whether a redirect turns the request into a GET without a body, as every client does."""
    return (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST")


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Return the decompressed body and True, or its beginning and False when it is over the bound."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            response.close()
            return bytes(memoryview(body)[:EXCERPT_BYTES_MAX]), False
    return bytes(body), True


def _size(count: int) -> str:
    return f"{count // 1024**3} GiB" if count >= 1024**3 else f"{count // 1024**2} MiB"


def explained(error: Exception, url: yarl.URL, connect_timeout: float, read_timeout: float) -> tuple[str, bool]:
    """Return what went wrong in words, and whether it may pass."""
    where = f"{url.host}:{url.port}"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        case EgressDenied():
            return str(cause), False
        case ssl.SSLCertVerificationError():
            return f"the certificate of {where} is not trusted: {cause.verify_message}", False
        case ssl.SSLError():
            return f"the TLS handshake with {where} failed: {_reason(cause)}", False
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {where} is not trusted: {error.certificate_error}", False
        case aiohttp.ClientConnectorDNSError():
            # A name that does not exist is a mistake; a resolver that does not answer may come back.
            passing = error.errno != socket.EAI_NONAME
            return f"the name {url.host} cannot be resolved: {error.strerror or error.os_error}", passing
        case aiohttp.ConnectionTimeoutError():
            return f"no connection to {where} within {connect_timeout:g} s", True
        case aiohttp.ClientConnectorError():
            if isinstance(cause, ConnectionRefusedError):
                return f"connection refused by {where}", True
            return f"cannot connect to {where}: {error.strerror or cause}", True
        case aiohttp.SocketTimeoutError():
            return f"{where} sent nothing for {read_timeout:g} s", True
        case aiohttp.ServerDisconnectedError():
            return f"{where} closed the connection without an answer", True
        case aiohttp.ClientPayloadError():
            return "the answer broke off or cannot be decompressed", True
        case aiohttp.ClientResponseError():
            return f"the answer is not valid HTTP: {error.message.splitlines()[0] if error.message else ''}", False
        case OSError():
            return f"the connection to {where} broke: {error.strerror or error}", True
    return f"the request failed: {error}", False


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


async def _body(inputs: request.RestInputs, context: ports.TaskContext) -> tuple[bytes | None, str | None]:
    """Return the body and its type; raises ``TaskFailed`` for a file that does not exist."""
    if inputs.json is not None:
        return msgspec.json.encode(inputs.json), "application/json"
    if isinstance(inputs.data, str):
        if stored_files.is_named(inputs.data):
            return await stored_files.read(context, inputs.data), "application/octet-stream"
        return inputs.data.encode(), "text/plain; charset=utf-8"
    if inputs.data is not None:
        return msgspec.json.encode(inputs.data), "application/json"
    if inputs.text is not None:
        return inputs.text.encode(), "text/plain; charset=utf-8"
    if inputs.urlencoded is not None:
        form = aiohttp.FormData(request.query(inputs.urlencoded, "urlencoded"))
    elif inputs.multipart is not None:
        form = aiohttp.FormData(default_to_multipart=True)
        for part, value in request.parts(inputs):
            if stored_files.is_named(value):
                name = part.filename or stored_files.path(value).rpartition("/")[2]
                kind = part.content_type or "application/octet-stream"
                form.add_field(part.name, await stored_files.read(context, value), filename=name, content_type=kind)
            else:
                form.add_field(part.name, value, filename=part.filename, content_type=part.content_type)
    else:
        return None, None
    payload = form()
    return await payload.as_bytes(), payload.headers["Content-Type"]


async def _trust(inputs: request.RestInputs, *, at_home: bool) -> ssl.SSLContext | bool:
    """Return the TLS context; ``True`` and ``False`` stand for aiohttp's own, with and without verification."""
    certificate = inputs.client_cert if at_home else None
    if inputs.cacert is None and certificate is None:
        return inputs.verify_ssl
    build = functools.partial(
        tls.context,
        cacert=inputs.cacert,
        client_cert=certificate,
        client_key=inputs.client_key,
        verify=inputs.verify_ssl,
    )
    return await asyncio.to_thread(build)


async def perform(
    connections: Connections, pacing: retry.Pacing, inputs: request.RestInputs, context: ports.TaskContext
) -> RestOutput:
    """Send what the inputs, which were checked, describe, as often as it takes; raises ``TaskFailed``."""
    body, content_type = await _body(inputs, context)
    material = _Material(body, content_type, await _trust(inputs, at_home=True), await _trust(inputs, at_home=False))
    exchange = _Exchange(inputs, context, connections, material)
    backoff = retry.chosen(inputs.retry_backoff, repeatable=inputs.verb in request.RETRYABLE)
    return await retry.attempts(exchange.attempt, backoff, context, pacing)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[request.RestInputs]:
    """Return the task type REST with connections of its own."""
    connections = Connections(settings.egress)
    return definitions.TaskDefinition(
        name=request.TASK,
        summary="Call an HTTP service",
        description="Sends one request, follows redirects, and fails when the status is not an expected one. "
        "POST and PATCH carry the execution's id as Idempotency-Key unless the header is given.",
        inputs=request.RestInputs,
        output=RestOutput,
        run=functools.partial(perform, connections, settings.pacing),
        idempotent=lambda inputs: inputs.verb in request.SAFE,
        check=request.check,
        aliases=("HTTP",),
        close=connections.aclose,
    )
