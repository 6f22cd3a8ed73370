"""Calls of AWS services through botocore, which says what to send and understands answers; what is sent goes our way.

Botocore knows every service and every signature. It runs in a thread; its requests are handed over to the event loop,
so that the operator's policy, the bounds and a cancellation hold for them. It sees nothing of the daemon's own
environment: no configuration files, no instance's identity, no proxies; a task is who its inputs say.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import functools
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from ..engine import ports
from . import blocking, extras, host, http, rest, tls
from . import definition as definitions
from .definition import Inputs, invalid
from .egress import Egress
from .host import about

T = TypeVar("T")
EXTRA = "aws"
#: Answers that may be better later, beside every status of 500 and more.
_PASSING = frozenset({"Throttling", "ThrottlingException", "SlowDown", "RequestLimitExceeded", "RequestTimeout"})


class AwsAccess(Inputs):
    """Who we are for AWS, and where it is."""

    aws_access_key_id: Annotated[str | None, about("The id of the access key. Required.")] = None
    aws_secret_access_key: Annotated[str | None, about("The secret of the access key. Required.")] = None
    aws_session_token: Annotated[str | None, about("The token that belongs to a key for some time.")] = None
    region: Annotated[str, about("The region. Default: us-east-1.")] = "us-east-1"
    endpoint_url: Annotated[str | None, about("The address of another service that speaks the same protocol.")] = None
    connect_timeout: host.ConnectTimeout = 30.0
    cacert: Annotated[str | None, about("Certificates to trust instead of the system's, as PEM text.")] = None
    verify_ssl: Annotated[bool, about("Whether the server's certificate is checked. Default: true.")] = True


def check(task: str, inputs: AwsAccess) -> None:
    """Raise ``InputRefused`` without a key, or for an address that is none."""
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        if not getattr(inputs, name):
            raise definitions.missing(task, name, "the access key; the daemon's own is never used")
    if inputs.endpoint_url is not None and not inputs.endpoint_url.startswith(("http://", "https://")):
        raise invalid(task, "endpoint_url", "expected an address with http or https")
    try:
        tls.check(cacert=inputs.cacert, client_cert=None, client_key=None)
    except tls.TlsInputInvalid as problem:
        raise invalid(task, problem.name, str(problem)) from None


class Clients:
    """Makes botocore's clients; what they load of a service is kept."""

    def __init__(self, egress: Egress) -> None:
        self.connections = rest.Connections(egress, decompress=False)
        self._lock = threading.Lock()
        self._session: Any = None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.connections.aclose()

    def make(self, task: str, service: str, inputs: AwsAccess) -> Any:
        """Return a client; raises ``host.Failed`` for a service or region nobody knows. Blocks for some 0.1 s."""
        library = extras.require("botocore.session", extra=EXTRA, task=task)
        config = extras.require("botocore.config", extra=EXTRA, task=task)
        exceptions = extras.require("botocore.exceptions", extra=EXTRA, task=task)
        try:
            with self._lock:  # making clients is not safe in several threads
                if self._session is None:
                    self._session = library.Session(session_vars=_no_surroundings(library))
                return self._session.create_client(
                    service,
                    region_name=inputs.region,
                    endpoint_url=inputs.endpoint_url,
                    aws_access_key_id=inputs.aws_access_key_id,
                    aws_secret_access_key=inputs.aws_secret_access_key,
                    aws_session_token=inputs.aws_session_token,
                    config=config.Config(
                        retries={"total_max_attempts": 1},  # we try again by ourselves
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                        parameter_validation=True,
                        inject_host_prefix=inputs.endpoint_url is None,
                        s3={"addressing_style": "auto" if inputs.endpoint_url is None else "path"},
                    ),
                )
        except (exceptions.BotoCoreError, ValueError) as error:
            raise host.Failed(host.quoted(str(error))) from None


def _no_surroundings(library: Any) -> dict[str, Any]:
    """Return botocore's settings with neither files nor variables of the environment behind them."""
    known = extras.require("botocore.configprovider", extra=EXTRA, task="AWS").BOTOCORE_DEFAUT_SESSION_VARIABLES
    alone = {name: (None, None, default, convert) for name, (_, _, default, convert) in known.items()}
    alone["config_file"] = alone["credentials_file"] = (None, None, "/dev/null", None)
    alone["ignore_configured_endpoint_urls"] = (None, None, True, None)
    return alone


class _Body(io.BytesIO):
    """An answer's body as botocore reads it."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()


class Caller:
    """One task's calls of one service. ``call`` in a thread of its own, everything else on the event loop."""

    def __init__(self, client: Any, connections: rest.Connections, limits: http.Limits) -> None:
        self.client = client
        self._connections = connections
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._under_way: concurrent.futures.Future[http.Answer] | None = None
        self._stopped = False
        client.meta.events.register("before-send", self._send)

    async def call(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, which may use the client; raises ``host.Failed``."""
        return await blocking.alone(self._called, function, on_cancel=self._stop)

    def _called(self, function: Callable[[], T]) -> T:
        exceptions = extras.require("botocore.exceptions", extra=EXTRA, task="AWS")
        parsers = extras.require("botocore.parsers", extra=EXTRA, task="AWS")
        try:
            return function()
        except exceptions.ClientError as error:
            raise _refused(error) from None
        except (exceptions.BotoCoreError, parsers.ResponseParserError, *host.GARBAGE) as error:
            raise host.Failed(host.quoted(str(error))) from None

    def _stop(self) -> None:
        self._stopped = True
        if self._under_way is not None:
            self._under_way.cancel()

    def _send(self, request: Any, **_: Any) -> Any:
        """Answer botocore's request, in its thread."""
        body = request.body.read() if hasattr(request.body, "read") else request.body
        sent = http.Request(
            method=request.method,
            url=request.url,
            headers={name: _text(value) for name, value in request.headers.items()},
            body=body.encode() if isinstance(body, str) else body,
        )
        self._under_way = asyncio.run_coroutine_threadsafe(
            http.exchange(self._connections, sent, self._limits), self._loop
        )
        if self._stopped:
            self._under_way.cancel()
        try:
            answer = self._under_way.result()
        except concurrent.futures.CancelledError:
            raise host.Failed("cancelled") from None
        response = extras.require("botocore.awsrequest", extra=EXTRA, task="AWS").AWSResponse
        return response(request.url, answer.status, answer.headers, _Body(answer.body))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _refused(error: Any) -> host.Failed:
    about_it, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, status = str(about_it.get("Code", "")), meta.get("HTTPStatusCode", 0)
    words = host.quoted(f"{code}: {about_it.get('Message', '')} (status {status})")
    return host.Failed(words, passing=status >= 500 or status == 429 or code in _PASSING)


async def caller(task: str, clients: Clients, service: str, inputs: AwsAccess) -> Caller:
    """Return what calls the service as whom the inputs say; raises ``host.Failed`` or ``TaskFailed``."""
    client = await blocking.call(clients.make, task, service, inputs)
    return Caller(client, clients.connections, await limits(inputs))


async def limits(inputs: AwsAccess) -> http.Limits:
    """Return the limits of each request."""
    trust: Any = inputs.verify_ssl
    if inputs.cacert is not None:
        build = functools.partial(tls.context, client_cert=None, client_key=None, verify=inputs.verify_ssl)
        trust = await asyncio.to_thread(build, cacert=inputs.cacert)
    return http.Limits(connect_timeout=inputs.connect_timeout, trust=trust)


def plain(value: Any) -> Any:
    """Return an answer as JSON can hold it; a body that is read is text, or bytes as ``{"base64": …}``."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "read"):
        content = value.read()
        try:
            return content.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode()}
    return value


def octets(value: Any) -> Any:
    """Return a parameter with bytes where it says ``{"base64": …}``; raises ``ValueError``."""
    if isinstance(value, dict):
        if value.keys() == {"base64"} and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"], validate=True)
        return {key: octets(one) for key, one in value.items()}
    return [octets(one) for one in value] if isinstance(value, list) else value


async def performed(
    shown: str,
    attempt: Callable[[], Any],
    inputs: AwsAccess,
    context: ports.TaskContext,
    settings: definitions.Settings,
    *,
    repeatable: bool,
) -> Any:
    """Like ``host.performed``, with the secrets of AWS."""
    secret = ("aws_secret_access_key", "aws_session_token")
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=repeatable, secret=secret)
